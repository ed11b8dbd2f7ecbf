//! Updates and applies: who owns which fields after a write, and what an applied configuration makes of an object.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use crate::compare::compare;
use crate::error::{ApplyError, Conflict, UpdateError, ValidationError};
use crate::field_set::field_set;
use crate::managed_fields::{ManagedFields, ManagerId, Operation, VersionedSet};
use crate::merge::merge;
use crate::path::{Element, equal_values};
use crate::remove::remove;
use crate::schema::Type;
use crate::set::{Set, SetError};
use crate::validate::check;
use crate::version::{Convert, Version};

/// Manager of the fields that an object had before its first apply, if none is recorded.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Conflicts reported at most, and bytes of their paths.
const CONFLICTS_MAX: usize = 1_024;
const CONFLICT_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// Computes writes of objects of one kind, in one version and through one resource or subresource.
#[derive(Clone, Copy, Debug)]
pub struct Updater<'a, C> {
    /// Version of the request: that of all objects passed in and returned.
    pub version: &'a Version<C>,
    /// Other versions in which managers may have written. Ownership in a version that is neither is dropped.
    pub others: &'a [Version<C>],
    /// Fields that this request can't change, as dotted paths from the root, such as `status` in a write of the main
    /// resource. They are not compared, and the request doesn't come to own them.
    pub ignored: &'a [&'a str],
}

/// Result of an apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The new object; `None` if it is equal to the live one.
    pub object: Option<Value>,
    /// Its managers.
    pub managers: ManagedFields,
}

/// Changes of a write, as fields of one version.
struct Changes {
    /// Added fields, and fields with another value.
    set: Set,
    removed: Set,
}

impl Changes {
    /// False only if none of the fields changes.
    fn may_touch(&self, owned: &VersionedSet) -> bool {
        owned.may_touch(&self.set) || owned.may_touch(&self.removed)
    }

    fn untouched(&self, owned: &Set) -> Set {
        owned.difference(&self.set).difference(&self.removed)
    }
}

/// Changes by name of the version. It has the changes in every version in which there is a manager.
type ChangesByVersion = BTreeMap<String, Changes>;

impl<'a, C: Convert> Updater<'a, C> {
    fn version(&self, name: &str) -> Option<&'a Version<C>> {
        if name == self.version.name {
            return Some(self.version);
        }
        self.others.iter().find(|version| version.name == name)
    }

    fn compare(&self, version: &Version<C>, live: &Value, new: &Value) -> Result<Changes, ValidationError> {
        let found = if version.name == self.version.name {
            compare(&version.ty, live, new, self.ignored)?
        } else {
            let (live, new) = (self.version.convert(live, version), self.version.convert(new, version));
            compare(&version.ty, &live, &new, self.ignored)?
        };
        Ok(Changes { set: found.modified.union(&found.added), removed: found.removed })
    }

    /// Compares in each version in which a manager has written. Managers in unknown versions are dropped.
    fn compare_all(
        &self,
        live: &Value,
        new: &Value,
        managers: &mut ManagedFields,
    ) -> Result<ChangesByVersion, ValidationError> {
        let mut compared = BTreeMap::new();
        compared.insert(self.version.name.clone(), self.compare(self.version, live, new)?);
        managers.try_retain(|_, owned| {
            if !compared.contains_key(owned.api_version()) {
                let Some(version) = self.version(owned.api_version()) else { return Ok(false) };
                compared.insert(owned.api_version().to_owned(), self.compare(version, live, new)?);
            }
            Ok(true)
        })?;
        Ok(compared)
    }

    /// Ownership after the manager `id` replaced `live` with `new` at the time `now` (RFC 3339 in whole seconds, UTC).
    /// For a create, `live` is [`empty_like`] the new object.
    pub fn update(
        &self,
        live: &Value,
        new: &Value,
        mut managers: ManagedFields,
        id: &ManagerId,
        now: &str,
    ) -> Result<ManagedFields, UpdateError> {
        let changes = self.compare_all(live, new, &mut managers)?;
        managers.try_retain(|_, owned| {
            let Some(changes) = changes.get(owned.api_version()) else { return Ok(uncompared()) };
            if !changes.may_touch(owned) {
                return Ok(true);
            }
            owned.keep(changes.untouched(&owned.set()?))
        })?;
        let mut taken = match changes.get(&self.version.name) {
            Some(own) => own.set.difference(&UNOWNED),
            None => Set::default(),
        };
        if !taken.is_empty() {
            if let Some(before) = managers.get(id) {
                taken = taken.union(&before.set()?);
            }
            managers.insert(id.clone(), VersionedSet::new(taken, &self.version.name, Some(now)));
        }
        managers.cap()?;
        Ok(managers)
    }

    /// What `live` becomes when the manager `id` applies the configuration `applied` at the time `now` (RFC 3339 in whole
    /// seconds, UTC). With `force`, fields of other managers are taken instead of reported as conflicts. To create an
    /// object, `live` is [`empty_like`] the configuration.
    pub fn apply(
        &self,
        live: &Value,
        applied: &Value,
        mut managers: ManagedFields,
        id: &ManagerId,
        force: bool,
        now: &str,
    ) -> Result<Outcome, ApplyError> {
        let ty = &self.version.ty;
        let errors = check(ty, applied);
        if !errors.is_empty() {
            return Err(ApplyError::Applied(errors));
        }
        if managers.is_empty() {
            managers = self.before_first_apply(live, managers, id, now)?;
        }
        let merged = merge(ty, live, applied).map_err(ApplyError::Live)?;
        let last = managers.get(id).cloned();
        let set = field_set(ty, applied).recursive_difference(&self.ignored_set());
        let time = last.as_ref().and_then(VersionedSet::time);
        managers.insert(id.clone(), VersionedSet::new(set, &self.version.name, time));
        let new = self.prune(merged, &managers, last.as_ref())?;

        let changes = self.compare_all(live, &new, &mut managers).map_err(ApplyError::Live)?;
        let conflicts = take_from_others(&mut managers, &changes, id)?;
        if !force && !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
        let changed = !equal_values(live, &new);
        debug_assert!(managers.get(id).is_some(), "the manager writes in a known version");
        if let Some(owned) = managers.get(id) {
            let set = owned.set()?.difference(&UNOWNED);
            let time = if changed { Some(now) } else { owned.time() };
            let owned = VersionedSet::new(set.clone(), &self.version.name, time);
            managers.remove(id);
            if !set.is_empty() {
                managers.insert(id.clone(), owned);
            }
        }
        Ok(Outcome { object: changed.then_some(new), managers })
    }

    /// Managers of an object that was never applied and whose managers aren't known: one that owns all of it.
    fn before_first_apply(
        &self,
        live: &Value,
        managers: ManagedFields,
        id: &ManagerId,
        now: &str,
    ) -> Result<ManagedFields, ApplyError> {
        let before =
            ManagerId::new(BEFORE_FIRST_APPLY, Operation::Update, &self.version.name, id.subresource());
        self.update(&empty_like(live), live, managers, &before, now).map_err(|error| match error {
            UpdateError::Validation(error) => ApplyError::Live(error),
            UpdateError::ManagedFields(error) => ApplyError::ManagedFields(error),
        })
    }

    fn ignored_set(&self) -> Set {
        let mut set = Set::default();
        for name in self.ignored {
            let path: Vec<Element> = name.split('.').map(|name| Element::Field(name.to_owned())).collect();
            set.insert(&path);
        }
        set
    }

    /// Removes the fields that the manager stated in its last configuration and no longer states, unless another manager
    /// owns them.
    fn prune(
        &self,
        merged: Value,
        managers: &ManagedFields,
        last: Option<&VersionedSet>,
    ) -> Result<Value, ApplyError> {
        let Some(last) = last else { return Ok(merged) };
        let last_set = last.set()?;
        let Some(version) = self.version(last.api_version()).filter(|_| !last_set.is_empty()) else {
            return Ok(merged);
        };
        let ty = &*version.ty;
        let merged = self.version.convert(&merged, version);
        let last_set = last_set.with_declared_members(Some(ty));
        let mut pruned = remove(ty, &merged, &last_set);
        let mut owned_at: BTreeMap<&str, Set> = BTreeMap::new();
        for (_, owned) in managers.iter() {
            owned_at.entry(owned.api_version()).or_default().add(&owned.set()?);
        }
        let declared = |ty: &Type, value: &Value| field_set(ty, value).with_declared_members(Some(ty));
        // The version of the last configuration first.
        let here = owned_at.remove_entry(version.name.as_str());
        for (name, owned) in here.into_iter().chain(owned_at) {
            let Some(other) = self.version(name) else { continue };
            let (all, left) = (version.convert(&merged, other), version.convert(&pruned, other));
            let kept = declared(&other.ty, &left).union(&owned.with_declared_members(Some(&other.ty)));
            let left = remove(&other.ty, &all, &declared(&other.ty, &all).difference(&kept));
            pruned = other.convert(&left, version);
        }
        // Fields that the manager never owned are restored.
        let gone = declared(ty, &merged).difference(&declared(ty, &pruned)).intersection(&last_set);
        let pruned = remove(ty, &merged, &gone);
        Ok(version.convert(&pruned, self.version))
    }

    /// The fields of `last_applied`, the configuration in the annotation of client-side apply, that have the same values in
    /// `live`: the manager that applied it may take them over. `None` if it is of another version or doesn't fit the
    /// schema.
    pub fn unchanged_since(&self, last_applied: &Value, live: &Value) -> Option<Set> {
        let ty = &self.version.ty;
        if last_applied.get("apiVersion").and_then(Value::as_str) != Some(self.version.name.as_str())
            || !check(ty, last_applied).is_empty()
        {
            return None;
        }
        let comparison = compare(ty, last_applied, live, &[]).ok()?;
        let set = field_set(ty, last_applied);
        Some(
            set.difference(&comparison.modified)
                .difference(&comparison.added)
                .difference(&comparison.removed),
        )
    }
}

/// A manager in a version that wasn't compared: [`Updater::compare_all`] drops those.
fn uncompared() -> bool {
    debug_assert!(false, "each version with a manager is compared");
    false
}

/// Takes the changed fields from all managers but `id`. Returns what was taken from them and not removed by the change.
fn take_from_others(
    managers: &mut ManagedFields,
    changes: &ChangesByVersion,
    id: &ManagerId,
) -> Result<Vec<Conflict>, SetError> {
    let (mut conflicts, mut conflict_bytes) = (Vec::new(), 0);
    managers.try_retain(|other, owned| {
        let Some(changes) = changes.get(owned.api_version()) else { return Ok(uncompared()) };
        if other == id || !changes.may_touch(owned) {
            return Ok(true);
        }
        let set = owned.set()?;
        set.intersection(&changes.set).visit(&mut |path| {
            if conflicts.len() < CONFLICTS_MAX && conflict_bytes < CONFLICT_BYTES_MAX {
                conflict_bytes += path.iter().map(Element::bytes).sum::<usize>();
                conflicts.push(Conflict { manager: other.clone(), path: path.to_vec() });
            }
        });
        owned.keep(changes.untouched(&set))
    })?;
    Ok(conflicts)
}

/// An object with the `apiVersion` and `kind` of another one and nothing else.
pub fn empty_like(object: &Value) -> Value {
    let kept = ["apiVersion", "kind"].into_iter().filter_map(|name| Some((name, object.get(name)?.clone())));
    kept.collect()
}

/// Fields that the server sets or that name the object: they have no owner.
static UNOWNED: LazyLock<Set> = LazyLock::new(|| {
    let field = |name: &str| Element::Field(name.to_owned());
    let mut set = Set::default();
    for name in ["apiVersion", "kind", "metadata"] {
        set.insert(&[field(name)]);
    }
    let names = [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ];
    for name in names {
        set.insert(&[field("metadata"), field(name)]);
    }
    set
});
