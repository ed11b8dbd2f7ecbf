//! `metadata.managedFields`: which manager owns which fields, and since when.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::set::{Set, SetError};
use crate::text::quoted;

/// Managers by update of one object at most; beyond that the oldest are merged into one.
const UPDATERS_MAX: usize = 10;
/// Name of the manager that the oldest are merged into.
const ANCIENT: &str = "ancient-changes";

/// How a manager writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Server-side apply.
    Apply,
    /// Any other write.
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// Identity of an entry of `managedFields`. Its [`Display`](std::fmt::Display) form is that of conflict messages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManagerId {
    manager: String,
    operation: Operation,
    /// Empty for [`Operation::Apply`]: a manager keeps its fields when it applies in another version.
    api_version: String,
    subresource: String,
}

impl ManagerId {
    /// The identity of a manager (`unknown` without a name) that writes in `api_version` (`group/version`) through
    /// `subresource` (empty for the main resource).
    pub fn new(manager: &str, operation: Operation, api_version: &str, subresource: &str) -> ManagerId {
        let api_version = match operation {
            Operation::Apply => "",
            Operation::Update => api_version,
        };
        ManagerId {
            manager: if manager.is_empty() { "unknown" } else { manager }.to_owned(),
            operation,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }

    /// Name of the manager.
    pub fn manager(&self) -> &str {
        &self.manager
    }

    /// How it writes.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// `status`, for example; empty for the main resource.
    pub fn subresource(&self) -> &str {
        &self.subresource
    }
}

impl std::fmt::Display for ManagerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&quoted(&self.manager))?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {}", quoted(&self.subresource))?;
        }
        match self.operation {
            Operation::Apply => Ok(()),
            Operation::Update => write!(f, " using {}", self.api_version),
        }
    }
}

/// The fields that a manager owns, as fields of one version.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionedSet {
    api_version: String,
    /// RFC 3339 in whole seconds, UTC.
    time: Option<String>,
    fields: Fields,
}

/// Sets are decoded on first use: most writes concern the fields of one manager.
#[derive(Clone, Debug)]
enum Fields {
    Decoded(Set),
    Encoded(Value),
}

impl PartialEq for Fields {
    fn eq(&self, other: &Fields) -> bool {
        match (self, other) {
            (Fields::Decoded(a), Fields::Decoded(b)) => a == b,
            (Fields::Encoded(a), Fields::Encoded(b)) => a == b,
            (Fields::Decoded(set), Fields::Encoded(raw)) | (Fields::Encoded(raw), Fields::Decoded(set)) => {
                Set::from_json(raw).is_ok_and(|raw| raw == *set)
            }
        }
    }
}

impl VersionedSet {
    /// Fields of the version `api_version`, owned since `time` (RFC 3339 in whole seconds, UTC).
    pub fn new(set: Set, api_version: &str, time: Option<&str>) -> VersionedSet {
        VersionedSet {
            api_version: api_version.to_owned(),
            time: time.map(str::to_owned),
            fields: Fields::Decoded(set),
        }
    }

    /// `group/version` of the fields.
    pub fn api_version(&self) -> &str {
        &self.api_version
    }

    /// Time of the last change, RFC 3339 in whole seconds, UTC.
    pub fn time(&self) -> Option<&str> {
        self.time.as_deref()
    }

    /// The fields; an error if they were read as trusted and aren't well-formed.
    pub fn set(&self) -> Result<Set, SetError> {
        match &self.fields {
            Fields::Decoded(set) => Ok(set.clone()),
            Fields::Encoded(raw) => Set::from_json(raw),
        }
    }

    /// Replaces the fields. Returns whether any are left.
    pub(crate) fn keep(&mut self, set: Set) -> Result<bool, SetError> {
        let any = !set.is_empty();
        self.fields = Fields::Decoded(set);
        Ok(any)
    }

    /// Adds the fields of another set.
    fn add(&mut self, other: &VersionedSet) -> Result<(), SetError> {
        if let Fields::Encoded(raw) = &self.fields {
            self.fields = Fields::Decoded(Set::from_json(raw)?);
        }
        if let Fields::Decoded(fields) = &mut self.fields {
            match &other.fields {
                Fields::Decoded(others) => fields.add(others),
                Fields::Encoded(raw) => fields.add(&Set::from_json(raw)?),
            }
        }
        Ok(())
    }

    /// False only if the two sets are disjoint.
    pub(crate) fn may_touch(&self, set: &Set) -> bool {
        match &self.fields {
            Fields::Decoded(fields) => {
                set.first_elements().any(|step| fields.is_member(step) || fields.below(step).is_some())
            }
            Fields::Encoded(raw) => set.first_elements().any(|step| raw.get(step.text()).is_some()),
        }
    }
}

/// Why `managedFields` can't be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManagedFieldsError {
    /// An operation other than `Apply` and `Update`.
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    /// Empty `apiVersion`.
    #[error("apiVersion must not be empty")]
    ApiVersion,
    /// A `fieldsType` other than `FieldsV1`, and the index of its entry.
    #[error("invalid fieldsType {0:?} in managed fields entry {1}")]
    FieldsType(String, usize),
    /// A field of the wrong type in the entry at this index.
    #[error("managed fields entry {0} is not well-formed")]
    Shape(usize),
    /// A set of fields can't be decoded.
    #[error("{0}")]
    Set(#[from] SetError),
}

/// The managers of one object and the fields that they own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ManagedFields {
    entries: BTreeMap<ManagerId, VersionedSet>,
}

impl ManagedFields {
    /// Decodes `metadata.managedFields`; anything but a list is an empty one. With `trusted`, which is for what
    /// [`ManagedFields::into_json`] wrote, times aren't checked and sets are decoded on first use.
    pub fn from_json(entries: Value, trusted: bool) -> Result<ManagedFields, ManagedFieldsError> {
        let mut managers = ManagedFields::default();
        let Value::Array(entries) = entries else { return Ok(managers) };
        for (index, mut entry) in entries.into_iter().enumerate() {
            let raw = entry.get_mut("fieldsV1").map_or(Value::Null, Value::take);
            let text = |name: &str| match entry.get(name) {
                None | Some(Value::Null) => Ok(""),
                Some(Value::String(text)) => Ok(text.as_str()),
                Some(_) => Err(ManagedFieldsError::Shape(index)),
            };
            let operation = match text("operation")? {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err(ManagedFieldsError::Operation),
            };
            let api_version = text("apiVersion")?;
            if api_version.is_empty() {
                return Err(ManagedFieldsError::ApiVersion);
            }
            match text("fieldsType")? {
                "FieldsV1" => {}
                other => return Err(ManagedFieldsError::FieldsType(other.to_owned(), index)),
            }
            let time = match text("time")? {
                "" => None,
                time if trusted => Some(time.to_owned()),
                time => Some(whole_seconds(time).ok_or(ManagedFieldsError::Shape(index))?),
            };
            let fields = if trusted { Fields::Encoded(raw) } else { Fields::Decoded(Set::from_json(&raw)?) };
            let mut id = ManagerId::new(text("manager")?, operation, api_version, text("subresource")?);
            id.manager = text("manager")?.to_owned();
            managers.entries.insert(id, VersionedSet { api_version: api_version.to_owned(), time, fields });
        }
        Ok(managers)
    }

    /// Encodes `metadata.managedFields`, in the order in which Kubernetes writes it.
    pub fn into_json(self) -> Value {
        let mut entries: Vec<(ManagerId, VersionedSet)> = self.entries.into_iter().collect();
        entries.sort_by(|(a, owned), (b, others)| {
            a.operation.cmp(&b.operation).then_with(|| by_time(owned, others)).then_with(|| {
                (&a.manager, &owned.api_version, &a.subresource).cmp(&(
                    &b.manager,
                    &others.api_version,
                    &b.subresource,
                ))
            })
        });
        let entry = |(id, owned): (ManagerId, VersionedSet)| {
            let mut entry = Map::new();
            if !id.manager.is_empty() {
                entry.insert("manager".into(), Value::String(id.manager));
            }
            entry.insert("operation".into(), json!(id.operation.as_str()));
            entry.insert("apiVersion".into(), Value::String(owned.api_version));
            if let Some(time) = owned.time {
                entry.insert("time".into(), Value::String(time));
            }
            entry.insert("fieldsType".into(), json!("FieldsV1"));
            let fields = match owned.fields {
                Fields::Decoded(set) => set.to_json(),
                Fields::Encoded(raw) => raw,
            };
            entry.insert("fieldsV1".into(), fields);
            if !id.subresource.is_empty() {
                entry.insert("subresource".into(), Value::String(id.subresource));
            }
            Value::Object(entry)
        };
        entries.into_iter().map(entry).collect()
    }

    /// Whether no field has an owner.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The fields of one manager.
    pub fn get(&self, id: &ManagerId) -> Option<&VersionedSet> {
        self.entries.get(id)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&ManagerId, &VersionedSet)> {
        self.entries.iter()
    }

    pub(crate) fn insert(&mut self, id: ManagerId, owned: VersionedSet) {
        self.entries.insert(id, owned);
    }

    pub(crate) fn remove(&mut self, id: &ManagerId) {
        self.entries.remove(id);
    }

    /// Calls `keep` for each entry and drops those for which it returns false. Returns the first error.
    pub(crate) fn try_retain<E>(
        &mut self,
        mut keep: impl FnMut(&ManagerId, &mut VersionedSet) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut failed = None;
        self.entries.retain(|id, owned| match keep(id, owned) {
            Ok(keep) => keep,
            Err(error) => {
                failed.get_or_insert(error);
                true
            }
        });
        failed.map_or(Ok(()), Err)
    }

    /// Merges the oldest managers by update, those of one version into one, while there are too many.
    pub(crate) fn cap(&mut self) -> Result<(), SetError> {
        let mut updaters: Vec<&ManagerId> =
            self.entries.keys().filter(|id| id.operation == Operation::Update).collect();
        let mut count = updaters.len();
        if count <= UPDATERS_MAX {
            return Ok(());
        }
        updaters.sort_by(|a, b| by_time(&self.entries[*a], &self.entries[*b]).then_with(|| a.cmp(b)));
        let updaters: Vec<ManagerId> = updaters.into_iter().cloned().collect();
        let mut first_of: BTreeMap<String, ManagerId> = BTreeMap::new();
        for id in updaters {
            if count <= UPDATERS_MAX {
                break;
            }
            let version = id.api_version.clone();
            let Some(first) = first_of.get(&version) else {
                first_of.insert(version, id);
                continue;
            };
            let bucket = ManagerId::new(ANCIENT, Operation::Update, &version, "");
            if !self.entries.contains_key(&bucket)
                && let Some(owned) = self.entries.remove(first)
            {
                self.entries.insert(bucket.clone(), owned);
            }
            if bucket != id
                && let Some(merged) = self.entries.remove(&id)
                && let Some(ancient) = self.entries.get_mut(&bucket)
            {
                ancient.add(&merged)?;
                // The time of the younger of the two.
                ancient.time = merged.time;
            }
            count -= 1;
        }
        Ok(())
    }
}

fn by_time(a: &VersionedSet, b: &VersionedSet) -> Ordering {
    // UTC in whole seconds: text order is time order. No time comes first.
    a.time.cmp(&b.time)
}

/// The time in whole seconds, UTC.
fn whole_seconds(time: &str) -> Option<String> {
    let time: Timestamp = time.parse().ok()?;
    Some(Timestamp::from_second(time.as_second()).ok()?.to_string())
}

/// Whether two encoded `managedFields` differ in their times at most.
pub fn equal_except_times(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_array(), b.as_array()) else { return a == b };
    let timeless = |entry: &'_ Value| {
        let fields = entry.as_object()?;
        Some(fields.iter().filter(|(name, _)| *name != "time").count())
    };
    let covered = |a: &Value, b: &Value| {
        let fields = a.as_object().into_iter().flatten();
        fields.filter(|(name, _)| *name != "time").all(|(name, value)| b.get(name) == Some(value))
    };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| timeless(a) == timeless(b) && covered(a, b))
}
