//! `metadata.managedFields`: who owns which fields, and since when.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::path::quoted;
use super::set::{Set, SetError};

/// Managers by update of one object at most; the oldest are merged into one beyond that.
const UPDATERS_MAX: usize = 10;
/// Name of the manager that the oldest become.
const ANCIENT: &str = "ancient-changes";

/// How fields came to be owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
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

/// What tells an entry from others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// Name of the manager.
    pub manager: String,
    /// How it writes.
    pub operation: Operation,
    /// Version in which it writes; empty for those that apply, who keep their fields when they change it.
    api_version: String,
    /// `status`, or empty.
    pub subresource: String,
}

impl Id {
    /// The entry of a manager.
    pub fn new(manager: &str, operation: Operation, api_version: &str, subresource: &str) -> Id {
        let api_version = match operation {
            Operation::Apply => "",
            Operation::Update => api_version,
        };
        Id {
            manager: if manager.is_empty() { "unknown" } else { manager }.to_owned(),
            operation,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }
}

/// As conflicts name it.
impl std::fmt::Display for Id {
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

/// What a manager owns.
#[derive(Clone, Debug, PartialEq)]
pub struct Owned {
    /// In terms of which version.
    pub api_version: String,
    /// Since when, RFC 3339 in whole seconds.
    pub time: Option<String>,
    fields: Fields,
}

/// Sets stay as they came until someone looks into them: most writes concern the fields of one manager.
#[derive(Clone, Debug)]
enum Fields {
    Read(Set),
    Raw(Value),
}

impl PartialEq for Fields {
    fn eq(&self, other: &Fields) -> bool {
        match (self, other) {
            (Fields::Read(a), Fields::Read(b)) => a == b,
            (Fields::Raw(a), Fields::Raw(b)) => a == b,
            (Fields::Read(set), Fields::Raw(raw)) | (Fields::Raw(raw), Fields::Read(set)) => {
                Set::from_json(raw).is_ok_and(|raw| raw == *set)
            }
        }
    }
}

impl Owned {
    /// Fields owned since `time`.
    pub fn new(set: Set, api_version: &str, time: Option<&str>) -> Owned {
        Owned {
            api_version: api_version.to_owned(),
            time: time.map(str::to_owned),
            fields: Fields::Read(set),
        }
    }

    /// The fields.
    pub fn set(&self) -> Result<Set, SetError> {
        match &self.fields {
            Fields::Read(set) => Ok(set.clone()),
            Fields::Raw(raw) => Set::from_json(raw),
        }
    }

    pub(super) fn replace(&mut self, set: Set) {
        self.fields = Fields::Read(set);
    }

    /// Takes over what another owns.
    fn add(&mut self, other: &Owned) -> Result<(), SetError> {
        if let Fields::Raw(raw) = &self.fields {
            self.fields = Fields::Read(Set::from_json(raw)?);
        }
        if let Fields::Read(fields) = &mut self.fields {
            match &other.fields {
                Fields::Read(others) => fields.add(others),
                Fields::Raw(raw) => fields.add(&Set::from_json(raw)?),
            }
        }
        Ok(())
    }

    /// False only if it has nothing in common with the set.
    pub(super) fn may_touch(&self, set: &Set) -> bool {
        match &self.fields {
            Fields::Read(fields) => {
                set.first_steps().any(|step| fields.is_member(step) || fields.below(step).is_some())
            }
            Fields::Raw(raw) => set.first_steps().any(|step| raw.get(step.text()).is_some()),
        }
    }
}

/// Why `managedFields` can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManagersError {
    /// Neither Apply nor Update.
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    /// No version.
    #[error("apiVersion must not be empty")]
    ApiVersion,
    /// Not `FieldsV1`.
    #[error("invalid fieldsType {0:?} in managed fields entry {1}")]
    FieldsType(String, usize),
    /// A field of an entry that isn't what it should be.
    #[error("managed fields entry {0} is not well-formed")]
    Shape(usize),
    /// The set of fields can't be read.
    #[error("{0}")]
    Set(#[from] SetError),
}

/// All managers of one object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managers {
    entries: BTreeMap<Id, Owned>,
}

impl Managers {
    /// Reads `metadata.managedFields`. With `trusted`, sets are read when they are needed.
    pub fn from_json(entries: Value, trusted: bool) -> Result<Managers, ManagersError> {
        let mut managers = Managers::default();
        let Value::Array(entries) = entries else { return Ok(managers) };
        for (index, mut entry) in entries.into_iter().enumerate() {
            let raw = entry.get_mut("fieldsV1").map_or(Value::Null, Value::take);
            let text = |name: &str| match entry.get(name) {
                None | Some(Value::Null) => Ok(""),
                Some(Value::String(text)) => Ok(text.as_str()),
                Some(_) => Err(ManagersError::Shape(index)),
            };
            let operation = match text("operation")? {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err(ManagersError::Operation),
            };
            let api_version = text("apiVersion")?;
            if api_version.is_empty() {
                return Err(ManagersError::ApiVersion);
            }
            match text("fieldsType")? {
                "FieldsV1" => {}
                other => return Err(ManagersError::FieldsType(other.to_owned(), index)),
            }
            let time = match text("time")? {
                "" => None,
                time if trusted => Some(time.to_owned()),
                time => Some(whole_seconds(time).ok_or(ManagersError::Shape(index))?),
            };
            let fields = if trusted { Fields::Raw(raw) } else { Fields::Read(Set::from_json(&raw)?) };
            let mut id = Id::new(text("manager")?, operation, api_version, text("subresource")?);
            id.manager = text("manager")?.to_owned();
            managers.entries.insert(id, Owned { api_version: api_version.to_owned(), time, fields });
        }
        Ok(managers)
    }

    /// As `metadata.managedFields` has it, in the order of Kubernetes.
    pub fn into_json(self) -> Value {
        let mut entries: Vec<(Id, Owned)> = self.entries.into_iter().collect();
        entries.sort_by(|(a, owned), (b, others)| {
            a.operation.cmp(&b.operation).then_with(|| by_time(owned, others)).then_with(|| {
                (&a.manager, &owned.api_version, &a.subresource).cmp(&(
                    &b.manager,
                    &others.api_version,
                    &b.subresource,
                ))
            })
        });
        let entry = |(id, owned): (Id, Owned)| {
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
                Fields::Read(set) => set.to_json(),
                Fields::Raw(raw) => raw,
            };
            entry.insert("fieldsV1".into(), fields);
            if !id.subresource.is_empty() {
                entry.insert("subresource".into(), Value::String(id.subresource));
            }
            Value::Object(entry)
        };
        entries.into_iter().map(entry).collect()
    }

    /// Nobody owns anything.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What one manager owns.
    pub fn get(&self, id: &Id) -> Option<&Owned> {
        self.entries.get(id)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Id, &Owned)> {
        self.entries.iter()
    }

    pub(super) fn insert(&mut self, id: Id, owned: Owned) {
        self.entries.insert(id, owned);
    }

    pub(super) fn remove(&mut self, id: &Id) {
        self.entries.remove(id);
    }

    /// Changes each entry; those for which the change says so are dropped.
    pub(super) fn try_retain<E>(
        &mut self,
        mut keep: impl FnMut(&Id, &mut Owned) -> Result<bool, E>,
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

    /// Merges the oldest of too many managers by update, those of one version into one.
    pub(super) fn cap(&mut self) -> Result<(), SetError> {
        let mut updaters: Vec<&Id> =
            self.entries.keys().filter(|id| id.operation == Operation::Update).collect();
        let mut count = updaters.len();
        if count <= UPDATERS_MAX {
            return Ok(());
        }
        updaters.sort_by(|a, b| by_time(&self.entries[*a], &self.entries[*b]).then_with(|| a.cmp(b)));
        let updaters: Vec<Id> = updaters.into_iter().cloned().collect();
        let mut first_of: BTreeMap<String, Id> = BTreeMap::new();
        for id in updaters {
            if count <= UPDATERS_MAX {
                break;
            }
            let version = id.api_version.clone();
            let Some(first) = first_of.get(&version) else {
                first_of.insert(version, id);
                continue;
            };
            let bucket = Id::new(ANCIENT, Operation::Update, &version, "");
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

fn by_time(a: &Owned, b: &Owned) -> Ordering {
    // All are UTC in whole seconds, so that they compare as text; none comes first.
    a.time.cmp(&b.time)
}

/// In UTC.
fn whole_seconds(time: &str) -> Option<String> {
    let time: Timestamp = time.parse().ok()?;
    Some(Timestamp::from_second(time.as_second()).ok()?.to_string())
}

/// Whether two `managedFields` say the same but for times.
pub(crate) fn same_but_for_times(a: &Value, b: &Value) -> bool {
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
