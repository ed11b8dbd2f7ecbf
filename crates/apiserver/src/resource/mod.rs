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

mod managers;
mod metadata;
mod patch;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use uuid::Uuid;

pub use managers::Applied;
pub use patch::Patch;

use crate::kinds::{self, Kind};
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

/// A write of one object, before its body is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Kind of the object.
    pub kind: &'a Kind,
    /// Namespace in the path.
    pub namespace: Option<&'a str>,
    /// Which part is written.
    pub part: Part,
    /// Who writes, for `managedFields`.
    pub manager: &'a str,
    /// What becomes of unknown fields.
    pub validation: FieldValidation,
    /// When.
    pub moment: Moment<'a>,
}

impl Request<'_> {
    /// An object as it will be stored, but for its resourceVersion.
    ///
    /// `duplicates` are fields that stood twice in the body; `warnings` receives what the client should be told.
    pub fn create(
        &self,
        mut object: Value,
        duplicates: &[String],
        warnings: &mut Vec<String>,
    ) -> Result<Value, Status> {
        let kind = self.kind;
        state_type(kind, &mut object);
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        check_type(kind, &object, name, true)?;
        let taken = metadata::take(&mut object)?;
        let mut metadata = taken.metadata;
        metadata::place(kind, &mut metadata, self.namespace)?;
        let version = metadata.remove("resourceVersion");
        if version.is_some_and(|version| !matches!(version.as_str(), Some("" | "0"))) {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let unknown: Vec<String> = taken.unknown.into_iter().chain(kind.schema.prune(&mut object)).collect();
        tell_unknown(kind, &unknown, duplicates, self.validation, warnings)?;
        let stated = metadata.remove("managedFields");
        for set_by_server in SET_BY_SERVER {
            metadata.remove(set_by_server);
        }
        object["metadata"] = Value::Object(metadata);
        kind.schema.apply_defaults(&mut object);
        name_namespace(kind, &mut object);
        let managed = managers::after_update(self, None, &object, stated);
        managers::put(&mut object, managed);
        self.furnish(object)
    }

    /// Completes a new object.
    fn furnish(&self, mut object: Value) -> Result<Value, Status> {
        let (kind, moment) = (self.kind, self.moment);
        let mut metadata = match object.get_mut("metadata").map(Value::take) {
            Some(Value::Object(metadata)) => metadata,
            Some(_) | None => Map::new(),
        };
        for set_by_server in SET_BY_SERVER {
            metadata.remove(set_by_server);
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
        if kind.status_subresource {
            drop_field(&mut object, "status");
        }
        object["metadata"] = Value::Object(metadata);
        name_namespace(kind, &mut object);
        judge(kind, &object, None, self.part)?;
        Ok(object)
    }

    /// What `object` makes of `current` when it is put in its place.
    pub fn update(
        &self,
        current: &Value,
        mut object: Value,
        duplicates: &[String],
        warnings: &mut Vec<String>,
    ) -> Result<Next, Status> {
        state_type(self.kind, &mut object);
        let taken = metadata::take(&mut object)?;
        let mut metadata = taken.metadata;
        metadata::same_object(self.kind, current, &metadata)?;
        check_type(self.kind, &object, current["metadata"]["name"].as_str().unwrap_or_default(), false)?;
        let stated = metadata.remove("managedFields");
        let mut unknown = self.kind.schema.prune(&mut object);
        let mut object = self.replace(current, object, metadata);
        if self.part == Part::Main {
            unknown.extend(taken.unknown);
        }
        tell_unknown(self.kind, &unknown, duplicates, self.validation, warnings)?;
        let managed = managers::after_update(self, Some(current), &object, stated);
        managers::put(&mut object, managed);
        self.settle(current, object)
    }

    /// What stands where `applied` is stated: server-side apply. Without a current object it creates one, named `name`.
    pub fn apply(
        &self,
        current: Option<&Value>,
        name: &str,
        applied: &Applied<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Next, Status> {
        if current.is_none() && self.part == Part::Status {
            return Err(Status::not_found(self.kind, name));
        }
        let (mut object, managed) = managers::after_apply(self, current, applied)?;
        if let [why, ..] = applied.duplicates {
            match self.validation {
                FieldValidation::Ignore => {}
                FieldValidation::Warn => warnings.push(why.clone()),
                FieldValidation::Strict => {
                    return Err(Status::bad_request(format!("error strict decoding YAML: {why}")));
                }
            }
        }
        let mut metadata = metadata::take(&mut object)?.metadata;
        metadata.remove("managedFields");
        let Some(current) = current else {
            let uid = metadata.get("uid").and_then(Value::as_str).filter(|uid| !uid.is_empty());
            if let Some(uid) = uid {
                let why = format!(
                    "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                );
                return Err(Status::conflict(self.kind, name, why));
            }
            metadata::place(self.kind, &mut metadata, self.namespace)?;
            metadata::check_name(&metadata, name)?;
            metadata.remove("resourceVersion");
            self.prune_applied(&mut object);
            object["metadata"] = Value::Object(metadata);
            self.kind.schema.apply_defaults(&mut object);
            name_namespace(self.kind, &mut object);
            managers::put(&mut object, managed);
            return self.furnish(object).map(Next::Stored);
        };
        metadata::same_object(self.kind, current, &metadata)?;
        self.prune_applied(&mut object);
        let mut object = self.replace(current, object, metadata);
        managers::put(&mut object, managed);
        self.settle(current, object)
    }

    /// A configuration has no fields that the schema doesn't know. What it leaves empty becomes null, which Kubernetes
    /// takes for its own kinds alone.
    fn prune_applied(&self, object: &mut Value) {
        if !self.kind.is_custom() {
            self.kind.schema.prune(object);
        }
    }

    /// `object` with what this request can't change as it is in `current`.
    fn replace(&self, current: &Value, mut object: Value, mut metadata: Map<String, Value>) -> Value {
        let kind = self.kind;
        if self.part == Part::Status {
            metadata = owned_metadata(current);
            metadata.remove("managedFields");
            let status = object.as_object_mut().and_then(|fields| fields.remove("status"));
            object = without_metadata(current);
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
        object["metadata"] = Value::Object(metadata);
        kind.schema.apply_defaults(&mut object);
        object
    }

    /// Whether and how `object` takes the place of `current`.
    fn settle(&self, current: &Value, mut object: Value) -> Result<Next, Status> {
        let kind = self.kind;
        if managers::nothing_changed(current, &object) {
            return Ok(Next::Unchanged);
        }
        if kind.counts_generations && specification_changed(kind, current, &object) {
            let generation = current["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            object["metadata"]["generation"] = json!(generation);
        }
        judge(kind, &object, Some(current), self.part)?;
        if is_deleting(current) {
            let old: BTreeSet<&str> = metadata::finalizers(current).collect();
            let mut added: Vec<&str> =
                metadata::finalizers(&object).filter(|added| !old.contains(added)).collect();
            added.sort_unstable();
            if !added.is_empty() {
                let added: Vec<String> = added.iter().map(|name| format!("{name:?}")).collect();
                let why = format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    added.join(", ")
                );
                let name = current["metadata"]["name"].as_str().unwrap_or_default();
                return Err(Status::invalid(kind, name, vec![Cause::forbidden("metadata.finalizers", why)]));
            }
            if metadata::finalizers(&object).next().is_none() {
                return Ok(Next::Removed(object));
            }
        }
        Ok(Next::Stored(object))
    }
}

/// Metadata that a new object can't state.
const SET_BY_SERVER: [&str; 4] =
    ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"];

/// What a delete makes of `current`.
pub fn delete(
    kind: &Kind,
    current: &Value,
    conditions: &Preconditions,
    moment: Moment<'_>,
) -> Result<Next, Status> {
    metadata::check_delete(kind, current, conditions)?;
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

/// Objects of Kubernetes' own kinds needn't say what they are: the path does.
fn state_type(kind: &Kind, object: &mut Value) {
    let Some(fields) = object.as_object_mut().filter(|_| !kind.is_custom()) else { return };
    for (name, value) in [("apiVersion", kind.api_version()), ("kind", kind.kind.clone())] {
        if fields.get(name).is_none_or(|stated| stated.is_null() || stated == "") {
            fields.insert(name.to_owned(), value.into());
        }
    }
}

fn check_type(kind: &Kind, object: &Value, name: &str, is_new: bool) -> Result<(), Status> {
    let fields = object.as_object().ok_or_else(|| Status::bad_request("the body must be one object"))?;
    let is = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    let (wanted, version, stated) = (kind.api_version(), is("apiVersion"), is("kind"));
    if version == wanted && stated == kind.kind {
        return Ok(());
    }
    if stated.is_empty() {
        let told = format!(
            "the object provided is unrecognized (must be of type {}): its kind is missing",
            kind.kind
        );
        return Err(Status::bad_request(told));
    }
    if !kind.is_custom() || (is_new && version != wanted) {
        return Err(Status::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({wanted})"
        )));
    }
    let mut causes = Vec::new();
    for (field, stated, wanted) in [("kind", stated, &kind.kind), ("apiVersion", version, &wanted)] {
        if stated != wanted {
            causes.push(Cause::invalid(field, &json!(stated).to_string(), format!("must be {wanted}")));
        }
    }
    let mut status = Status::invalid(kind, name, causes);
    // It is told of what it says it is.
    status.message = status.message.replacen(&kind.kind, stated, 1);
    status.details.target = Some((kind.group.clone(), stated.to_owned()));
    Err(status)
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

fn judge(kind: &Kind, object: &Value, old: Option<&Value>, part: Part) -> Result<(), Status> {
    let mut known = metadata::validate(kind, object, old.is_none());
    known.extend(kinds::validate_event(kind, object, old.is_none()));
    let mut causes = kind.schema.validate_after(known, object, old);
    if let Some(cause) =
        causes.iter().find(|cause| cause.reason == "FieldValueTypeInvalid" && !kind.is_custom())
    {
        // Objects of these kinds are typed: what doesn't fit can't even be read.
        return Err(Status::bad_request(format!(
            "{0} in version {1:?} cannot be handled as a {0}: {2}: {3}",
            kind.kind, kind.version, cause.field, cause.message
        )));
    }
    if part == Part::Status {
        for cause in &mut causes {
            // A status is judged by itself, and told of as if there were nothing above it.
            if let Some(field) = cause.field.strip_prefix("status.") {
                cause.message =
                    cause.message.replace(&format!("{} in body", cause.field), &format!("{field} in body"));
            }
        }
    }
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

fn without_metadata(object: &Value) -> Value {
    let fields = object.as_object().into_iter().flatten().filter(|(name, _)| *name != "metadata");
    fields.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Namespaces are labelled with their names, so that selectors find them.
fn name_namespace(kind: &Kind, object: &mut Value) {
    if kind.group.is_empty()
        && kind.kind == "Namespace"
        && let Some(name) = object["metadata"]["name"].as_str().filter(|name| !name.is_empty())
    {
        let name = name.to_owned();
        object["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(name);
    }
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
