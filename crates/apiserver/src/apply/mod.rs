//! Server-side apply: who owns which fields of an object, and what becomes of it when someone states what they want.
//!
//! The rules are those of Kubernetes (KEP-555; structured-merge-diff v6 and apimachinery's `managedfields` are the
//! reference). A [`Type`] says which parts of an object have parts of their own. From it follow the fields that a
//! configuration mentions, the differences between two states of an object, and the object that a configuration makes
//! of another. [`Managers`] are `metadata.managedFields`. Everything here is pure.
//!
//! ```text
//! write     live, new ──compare──▶ changed fields: taken from all others, given to the writer
//! apply     live, applied ──merge──▶ ──prune──▶ new; what others own and the applier would change is a conflict
//! ```

mod compare;
mod fields;
mod managers;
mod merge;
mod path;
mod set;
mod types;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

pub use fields::Wrong;
pub(crate) use managers::same_but_for_times;
pub use managers::{Id, Managers, ManagersError, Operation, Owned};
pub(crate) use path::quoted;
pub use path::{Element, ElementError, display};
pub use set::{Set, SetError};
pub use types::Type;

use crate::kinds::Form;
use compare::compare;

/// Owner of what stood before anyone applied, where nobody was known.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Conflicts told at most, and bytes of their paths: whoever is told of so many looks at none of the others.
const CONFLICTS_MAX: usize = 1_024;
const CONFLICT_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// One version in which an object is written.
#[derive(Clone, Debug)]
pub struct Version {
    /// `group/version`.
    pub name: String,
    /// What objects look like in it.
    pub ty: Arc<Type>,
    /// How it relates to what is stored.
    pub form: Form,
}

/// The versions of a kind's objects, and what is not written through this path.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The version of the request.
    pub version: &'a Version,
    /// Others in which managers may have written.
    pub others: &'a [Version],
    /// Top-level fields that a write of this kind doesn't change, whatever it says: nobody comes to own them by it.
    pub reset: &'a [&'a str],
}

/// Fields that someone else owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who.
    pub manager: Id,
    /// Which.
    pub path: Vec<Element>,
}

/// Why an apply wasn't done.
#[derive(Clone, Debug, PartialEq)]
pub enum ApplyError {
    /// Others own fields that it would change.
    Conflicts(Vec<Conflict>),
    /// The configuration doesn't fit the schema.
    Applied(Vec<Wrong>),
    /// The object as it stands doesn't fit the schema.
    Live(Wrong),
    /// Its `managedFields` can't be read.
    Managers(SetError),
}

impl From<SetError> for ApplyError {
    fn from(error: SetError) -> ApplyError {
        ApplyError::Managers(error)
    }
}

/// What an apply makes of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The object; none where it is as it was.
    pub object: Option<Value>,
    /// Its managers.
    pub managers: Managers,
}

/// Why ownership can't be worked out for a write.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum UpdateError {
    /// A list whose items can't be told apart.
    #[error("{0}")]
    Wrong(Wrong),
    /// `managedFields` that can't be read.
    #[error("{0}")]
    Managers(#[from] SetError),
}

/// What a write does to the fields of one version.
struct Changes {
    /// Fields that get another value, or one at all.
    set: Set,
    removed: Set,
}

impl Changes {
    fn may_touch(&self, owned: &Owned) -> bool {
        owned.may_touch(&self.set) || owned.may_touch(&self.removed)
    }

    fn untouched(&self, owned: &Set) -> Set {
        owned.difference(&self.set).difference(&self.removed)
    }
}

impl<'a> Rules<'a> {
    fn version(&self, name: &str) -> Option<&'a Version> {
        if name == self.version.name {
            return Some(self.version);
        }
        self.others.iter().find(|version| version.name == name)
    }

    /// `object`, which is in the request's version, in another.
    fn convert(&self, object: &Value, version: &Version) -> Value {
        let mut object = object.clone();
        if version.name != self.version.name {
            self.version.form.store(&mut object);
            version.form.show(&mut object);
        }
        object
    }

    fn compare(&self, version: &Version, live: &Value, new: &Value) -> Result<Changes, Wrong> {
        let found = if version.name == self.version.name {
            compare(&version.ty, live, new, self.reset)?
        } else {
            compare(&version.ty, &self.convert(live, version), &self.convert(new, version), self.reset)?
        };
        Ok(Changes { set: found.modified.union(&found.added), removed: found.removed })
    }

    /// The differences in the terms of each version that a manager has; who has an unknown version is forgotten.
    fn compare_all(
        &self,
        live: &Value,
        new: &Value,
        managers: &mut Managers,
    ) -> Result<BTreeMap<String, Changes>, Wrong> {
        let mut compared = BTreeMap::new();
        compared.insert(self.version.name.clone(), self.compare(self.version, live, new)?);
        managers.try_retain(|_, owned| {
            if !compared.contains_key(&owned.api_version) {
                let Some(version) = self.version(&owned.api_version) else { return Ok(false) };
                compared.insert(owned.api_version.clone(), self.compare(version, live, new)?);
            }
            Ok(true)
        })?;
        Ok(compared)
    }

    /// Who owns what after `id` wrote `new` over `live` (for a create an object without anything).
    pub fn update(
        &self,
        live: &Value,
        new: &Value,
        mut managers: Managers,
        id: &Id,
        now: &str,
    ) -> Result<Managers, UpdateError> {
        let changes = self.compare_all(live, new, &mut managers).map_err(UpdateError::Wrong)?;
        let Some(mine) = changes.get(&self.version.name) else { return Ok(managers) };
        managers.try_retain(|_, owned| {
            let Some(changes) = changes.get(&owned.api_version) else { return Ok(false) };
            if !changes.may_touch(owned) {
                return Ok(true);
            }
            let left = changes.untouched(&owned.set()?);
            let keep = !left.is_empty();
            owned.replace(left);
            Ok::<bool, SetError>(keep)
        })?;
        let mut taken = mine.set.difference(&UNOWNED);
        if !taken.is_empty() {
            if let Some(before) = managers.get(id) {
                taken = taken.union(&before.set()?);
            }
            managers.insert(id.clone(), Owned::new(taken, &self.version.name, Some(now)));
        }
        managers.cap()?;
        Ok(managers)
    }

    /// What `live` becomes when `id` states `applied`.
    pub fn apply(
        &self,
        live: &Value,
        applied: &Value,
        mut managers: Managers,
        id: &Id,
        force: bool,
        now: &str,
    ) -> Result<Outcome, ApplyError> {
        let ty = &self.version.ty;
        let wrong = fields::check(ty, applied);
        if !wrong.is_empty() {
            return Err(ApplyError::Applied(wrong));
        }
        if managers.is_empty() {
            let nothing = empty_like(live);
            let before = Id::new(BEFORE_FIRST_APPLY, Operation::Update, &self.version.name, &id.subresource);
            managers = self.update(&nothing, live, managers, &before, now).map_err(|error| match error {
                UpdateError::Wrong(wrong) => ApplyError::Live(wrong),
                UpdateError::Managers(error) => ApplyError::Managers(error),
            })?;
        }
        let merged = merge::merge(ty, live, applied).map_err(ApplyError::Live)?;
        let last = managers.get(id).cloned();
        let mut reset = Set::default();
        for name in self.reset {
            reset.insert(&[Element::Field((*name).to_owned())]);
        }
        let set = fields::fields_of(ty, applied).difference_below(&reset);
        let time = last.as_ref().and_then(|last| last.time.as_deref());
        managers.insert(id.clone(), Owned::new(set, &self.version.name, time));
        let new = self.prune(merged, &managers, last.as_ref())?;

        let changes = self.compare_all(live, &new, &mut managers).map_err(ApplyError::Live)?;
        let (mut conflicts, mut conflict_bytes) = (Vec::new(), 0);
        managers.try_retain(|other, owned| {
            let Some(changes) = changes.get(&owned.api_version) else { return Ok(false) };
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
            let left = changes.untouched(&set);
            let keep = !left.is_empty();
            owned.replace(left);
            Ok::<bool, SetError>(keep)
        })?;
        if !force && !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
        let changes = !path::same(live, &new);
        if let Some(owned) = managers.get(id) {
            let set = owned.set()?.difference(&UNOWNED);
            let time = if changes { Some(now) } else { owned.time.as_deref() };
            let owned = Owned::new(set.clone(), &self.version.name, time);
            managers.remove(id);
            if !set.is_empty() {
                managers.insert(id.clone(), owned);
            }
        }
        Ok(Outcome { object: changes.then_some(new), managers })
    }

    /// Takes out what the manager stated last time and doesn't any more, unless someone else owns it.
    fn prune(&self, merged: Value, managers: &Managers, last: Option<&Owned>) -> Result<Value, ApplyError> {
        let Some(last) = last else { return Ok(merged) };
        let last_set = last.set()?;
        let Some(version) = self.version(&last.api_version).filter(|_| !last_set.is_empty()) else {
            return Ok(merged);
        };
        let ty = &*version.ty;
        let merged = self.convert(&merged, version);
        let last_set = last_set.with_declared(Some(ty));
        let mut pruned = merge::remove(ty, &merged, &last_set);
        let mut owned_at: BTreeMap<&str, Set> = BTreeMap::new();
        for (_, owned) in managers.iter() {
            let set = owned_at.entry(&owned.api_version).or_default();
            set.add(&owned.set()?);
        }
        let declared = |ty: &Type, value: &Value| fields::fields_of(ty, value).with_declared(Some(ty));
        // The version in question first.
        let here = owned_at.remove_entry(version.name.as_str());
        for (name, owned) in here.into_iter().chain(owned_at) {
            let Some(theirs) = self.version(name) else { continue };
            let between = Rules { version, ..*self };
            let (all, left) = (between.convert(&merged, theirs), between.convert(&pruned, theirs));
            let kept = declared(&theirs.ty, &left).union(&owned.with_declared(Some(&theirs.ty)));
            let left = merge::remove(&theirs.ty, &all, &declared(&theirs.ty, &all).difference(&kept));
            pruned = Rules { version: theirs, ..*self }.convert(&left, version);
        }
        // What the manager never owned stays.
        let gone = declared(ty, &merged).difference(&declared(ty, &pruned)).intersection(&last_set);
        let pruned = merge::remove(ty, &merged, &gone);
        Ok(Rules { version, ..*self }.convert(&pruned, self.version))
    }

    /// The fields of a configuration in the annotation of client-side apply that are as they were applied: who applied
    /// them there may take them over.
    pub fn unchanged_since(&self, last_applied: &Value, live: &Value) -> Option<Set> {
        let ty = &self.version.ty;
        if last_applied.get("apiVersion").and_then(Value::as_str) != Some(self.version.name.as_str())
            || !fields::check(ty, last_applied).is_empty()
        {
            return None;
        }
        let comparison = compare(ty, last_applied, live, &[]).ok()?;
        let set = fields::fields_of(ty, last_applied);
        Some(
            set.difference(&comparison.modified)
                .difference(&comparison.added)
                .difference(&comparison.removed),
        )
    }
}

/// An object without anything but what it is.
pub fn empty_like(object: &Value) -> Value {
    let kept = ["apiVersion", "kind"].into_iter().filter_map(|name| Some((name, object.get(name)?.clone())));
    kept.collect()
}

/// Fields that the server sets or that name the object: nobody owns them.
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

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
