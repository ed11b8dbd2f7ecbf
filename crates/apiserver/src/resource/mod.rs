//! What a create, update, patch or delete does to one object. Pure: time and random ids are arguments, storage is the
//! caller's.
//!
//! ```text
//!            create                delete, no finalizers
//!  (absent) ────────▶ live ───────────────────────────────▶ (absent)
//!                     │  ▲ update                               ▲
//!                     │  └──┘                                   │ the last finalizer is taken off
//!                     └─────────▶ deleting (deletionTimestamp) ─┘
//!                      delete
//! ```

mod metadata;
mod patch;

use serde_json::{Map, Value, json};
use uuid::Uuid;

pub use patch::Patch;

use crate::kinds::Kind;
use crate::status::{Cause, Status};

/// What time it is and which id comes next.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// RFC 3339 with whole seconds, UTC.
    pub now: &'a str,
    /// Fresh for each operation: the uid of an object that is created.
    pub uid: Uuid,
}

/// What becomes of fields the schema doesn't know, and of fields that stand twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Dropped silently.
    Ignore,
    /// Dropped with a warning.
    #[default]
    Warn,
    /// Refused.
    Strict,
}

/// Which part of an object a write means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but the status (of kinds whose status is a subresource).
    Main,
    /// The status alone.
    Status,
}

/// Conditions on a delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// The object must have this uid.
    pub uid: Option<String>,
    /// The object must be at this version.
    pub resource_version: Option<String>,
}

/// What a write makes of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing changes, so nothing is written.
    Unchanged,
    /// It is stored like this, with a new resourceVersion.
    Stored(Value),
    /// It goes; this is its last state.
    Removed(Value),
}

/// An object as it will be stored, but for its resourceVersion.
///
/// `duplicates` are fields that stood twice in the body; `warnings` receives what the client should be told.
pub fn create(
    kind: &Kind,
    namespace: Option<&str>,
    mut object: Value,
    duplicates: &[String],
    validation: FieldValidation,
    moment: Moment<'_>,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    check_type(kind, &object)?;
    let pruned = metadata::take(&mut object)?;
    let mut metadata = pruned.metadata;
    metadata::place(kind, &mut metadata, namespace)?;
    for set_by_server in
        ["deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink", "generation"]
    {
        metadata.remove(set_by_server);
    }
    if metadata.remove("resourceVersion").is_some_and(|version| !matches!(version.as_str(), Some("" | "0"))) {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let named = metadata.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    if !named && let Some(start) = metadata.get("generateName").and_then(Value::as_str) {
        let name = metadata::generate_name(start, moment.uid);
        metadata.insert("name".into(), json!(name));
    }
    metadata.insert("uid".into(), json!(moment.uid.to_string()));
    metadata.insert("creationTimestamp".into(), json!(moment.now));
    if kind.counts_generations {
        metadata.insert("generation".into(), json!(1));
    }
    if kind.status_subresource
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
    let unknown: Vec<String> = pruned.unknown.into_iter().chain(kind.schema.prune(&mut object)).collect();
    tell_unknown(kind, &unknown, duplicates, validation, warnings)?;
    object["metadata"] = Value::Object(metadata);
    kind.schema.apply_defaults(&mut object);
    judge(kind, &object, None)?;
    Ok(object)
}

/// What `object` makes of `current` when it is put in its place.
pub fn update(
    kind: &Kind,
    part: Part,
    current: &Value,
    mut object: Value,
    duplicates: &[String],
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Next, Status> {
    check_type(kind, &object)?;
    let pruned = metadata::take(&mut object)?;
    let mut metadata = pruned.metadata;
    let name = current["metadata"]["name"].as_str().unwrap_or_default();
    metadata::same_object(kind, current, &metadata)?;
    if part == Part::Status {
        metadata = owned_metadata(current);
        let status = object.as_object_mut().and_then(|fields| fields.remove("status"));
        object = current.clone();
        match status {
            Some(status) => object["status"] = status,
            None => drop_field(&mut object, "status"),
        }
    } else if kind.status_subresource {
        match current.get("status") {
            Some(status) => object["status"] = status.clone(),
            None => drop_field(&mut object, "status"),
        }
    }
    metadata::keep_what_the_server_sets(&mut metadata, current);
    let mut unknown = kind.schema.prune(&mut object);
    if part == Part::Main {
        unknown.extend(pruned.unknown);
    }
    tell_unknown(kind, &unknown, duplicates, validation, warnings)?;
    object["metadata"] = Value::Object(metadata);
    kind.schema.apply_defaults(&mut object);
    if object == *current {
        return Ok(Next::Unchanged);
    }
    if kind.counts_generations && specification_changed(kind, current, &object) {
        let generation = current["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        object["metadata"]["generation"] = json!(generation);
    }
    judge(kind, &object, Some(current))?;
    if is_deleting(current) {
        let added = metadata::finalizers(&object)
            .find(|added| !metadata::finalizers(current).any(|old| old == *added));
        if let Some(added) = added {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizer {added:?}"
            );
            return Err(Status::invalid(kind, name, vec![Cause::forbidden("metadata.finalizers", why)]));
        }
        if metadata::finalizers(&object).next().is_none() {
            return Ok(Next::Removed(object));
        }
    }
    Ok(Next::Stored(object))
}

/// What a delete makes of `current`.
pub fn delete(
    kind: &Kind,
    current: &Value,
    conditions: &Preconditions,
    moment: Moment<'_>,
) -> Result<Next, Status> {
    metadata::check_preconditions(kind, current, conditions)?;
    if metadata::finalizers(current).next().is_none() {
        return Ok(Next::Removed(current.clone()));
    }
    if is_deleting(current) {
        return Ok(Next::Unchanged);
    }
    let mut object = current.clone();
    object["metadata"]["deletionTimestamp"] = json!(moment.now);
    object["metadata"]["deletionGracePeriodSeconds"] = json!(0);
    if let Some(generation) = object["metadata"]["generation"].as_i64() {
        object["metadata"]["generation"] = json!(generation + 1);
    }
    Ok(Next::Stored(object))
}

/// Whether a delete waits for finalizers.
pub fn is_deleting(object: &Value) -> bool {
    object["metadata"].get("deletionTimestamp").is_some_and(|time| !time.is_null())
}

fn check_type(kind: &Kind, object: &Value) -> Result<(), Status> {
    let fields = object.as_object().ok_or_else(|| Status::bad_request("the body must be one object"))?;
    let is = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    let wanted = kind.api_version();
    if is("apiVersion") != wanted || is("kind") != kind.kind {
        return Err(Status::bad_request(format!(
            "the object is {:?} of {:?}, but the path means {:?} of {wanted:?}",
            is("kind"),
            is("apiVersion"),
            kind.kind
        )));
    }
    Ok(())
}

fn tell_unknown(
    kind: &Kind,
    unknown: &[String],
    duplicates: &[String],
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    if validation == FieldValidation::Ignore || (unknown.is_empty() && duplicates.is_empty()) {
        return Ok(());
    }
    let unknown = unknown.iter().map(|path| format!("unknown field {path:?}"));
    let duplicate = duplicates.iter().map(|path| format!("duplicate field {path:?}"));
    let told = unknown.chain(duplicate).take(crate::schema::CAUSES_MAX);
    if validation == FieldValidation::Strict {
        let told: Vec<String> = told.collect();
        return Err(Status::bad_request(format!(
            "{0} in version {1:?} cannot be handled as a {0}: strict decoding error: {2}",
            kind.kind,
            kind.version,
            told.join(", ")
        )));
    }
    warnings.extend(told);
    Ok(())
}

fn judge(kind: &Kind, object: &Value, old: Option<&Value>) -> Result<(), Status> {
    let mut causes = metadata::validate(kind, object);
    causes.extend(kind.schema.validate(object, old));
    if causes.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(kind, object["metadata"]["name"].as_str().unwrap_or_default(), causes))
}

/// Anything but metadata (and status, where it is written apart).
fn specification_changed(kind: &Kind, old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return true };
    let counts = |name: &str| name != "metadata" && !(kind.status_subresource && name == "status");
    let differs = |a: &Map<String, Value>, b: &Map<String, Value>| {
        a.iter().any(|(name, value)| counts(name) && b.get(name) != Some(value))
    };
    differs(old, new) || differs(new, old)
}

fn owned_metadata(object: &Value) -> Map<String, Value> {
    object["metadata"].as_object().cloned().unwrap_or_default()
}

fn drop_field(object: &mut Value, name: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(name);
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
