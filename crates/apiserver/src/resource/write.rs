//! Creates, updates, applies and deletes.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::managers::{self, Applied};
use super::metadata;
use super::request::{FieldValidation, Moment, Next, Part, Preconditions, Request};
use super::{quota, secret, signing};
use crate::kinds::{self, Kind};
use crate::status::{CAUSES_MAX, Cause, Names, Status};

impl Request<'_> {
    /// A new object as it will be stored, but for its resourceVersion.
    ///
    /// `duplicates` are the duplicate fields of the body; warnings for the client are appended to `warnings`.
    pub fn create(
        &self,
        mut object: Value,
        duplicates: &[String],
        warnings: &mut Vec<String>,
    ) -> Result<Value, Status> {
        let kind = self.kind;
        set_type(kind, &mut object);
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        check_type(kind, &object, name, true)?;
        let taken = metadata::take(&mut object)?;
        let mut metadata = taken.metadata;
        metadata::set_namespace(kind, &mut metadata, self.namespace)?;
        let version = metadata.remove("resourceVersion");
        if version.is_some_and(|version| !matches!(version.as_str(), Some("" | "0"))) {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let unknown: Vec<String> = taken.unknown.into_iter().chain(kind.schema.prune(&mut object)).collect();
        report_unknown(kind, &unknown, duplicates, self.validation, warnings)?;
        canonicalize(kind, &mut object)?;
        let stated = metadata.remove("managedFields");
        for set_by_server in SET_BY_SERVER {
            metadata.remove(set_by_server);
        }
        object["metadata"] = Value::Object(metadata);
        kind.schema.apply_defaults(&mut object);
        label_namespace(kind, &mut object);
        let managed = managers::after_update(self, None, &object, stated);
        managers::put(&mut object, managed);
        self.complete(object)
    }

    /// Sets what the server sets in a new object, and validates it.
    fn complete(&self, mut object: Value) -> Result<Value, Status> {
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
        quota::complete(kind, &mut object);
        object["metadata"] = Value::Object(metadata);
        label_namespace(kind, &mut object);
        signing::set_author(kind, &mut object, self.author);
        validate(kind, &object, None, self.part)?;
        Ok(object)
    }

    /// Replaces `current` with `object`.
    pub fn update(
        &self,
        current: &Value,
        mut object: Value,
        duplicates: &[String],
        warnings: &mut Vec<String>,
    ) -> Result<Next, Status> {
        set_type(self.kind, &mut object);
        let taken = metadata::take(&mut object)?;
        let mut metadata = taken.metadata;
        metadata::check_update(self.kind, current, &metadata)?;
        check_type(self.kind, &object, current["metadata"]["name"].as_str().unwrap_or_default(), false)?;
        let stated = metadata.remove("managedFields");
        let mut unknown = self.kind.schema.prune(&mut object);
        canonicalize(self.kind, &mut object)?;
        let mut object = self.replace(current, object, metadata);
        if self.part == Part::Main {
            unknown.extend(taken.unknown);
        }
        report_unknown(self.kind, &unknown, duplicates, self.validation, warnings)?;
        signing::complete_conditions(self.kind, self.part, &mut object);
        let managed = managers::after_update(self, Some(current), &object, stated);
        managers::put(&mut object, managed);
        self.finish_update(current, object)
    }

    /// Server-side apply. Without a current object it creates one, named `name`.
    pub fn apply(
        &self,
        current: Option<&Value>,
        name: &str,
        applied: &Applied<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Next, Status> {
        if current.is_none() && self.part != Part::Main {
            return Err(Status::not_found(self.kind.names(), name));
        }
        let stated = quota::canonical(self.kind, applied.object)?;
        let (mut object, managed) =
            managers::after_apply(self, current, &Applied { object: &stated, ..*applied })?;
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
                return Err(Status::conflict(self.kind.names(), name, why));
            }
            metadata::set_namespace(self.kind, &mut metadata, self.namespace)?;
            metadata::check_name(&metadata, name)?;
            metadata.remove("resourceVersion");
            self.prune_applied(&mut object);
            canonicalize(self.kind, &mut object)?;
            object["metadata"] = Value::Object(metadata);
            self.kind.schema.apply_defaults(&mut object);
            label_namespace(self.kind, &mut object);
            managers::put(&mut object, managed);
            return self.complete(object).map(Next::Stored);
        };
        metadata::check_update(self.kind, current, &metadata)?;
        self.prune_applied(&mut object);
        canonicalize(self.kind, &mut object)?;
        let mut object = self.replace(current, object, metadata);
        managers::put(&mut object, managed);
        self.finish_update(current, object)
    }

    /// An applied configuration has no unknown fields, but what it leaves empty becomes null, which Kubernetes prunes for
    /// built-in kinds only.
    fn prune_applied(&self, object: &mut Value) {
        if !self.kind.is_custom() {
            self.kind.schema.prune(object);
        }
    }

    /// `object`, with everything that this request can't change taken from `current`.
    fn replace(&self, current: &Value, mut object: Value, mut metadata: Map<String, Value>) -> Value {
        let kind = self.kind;
        if self.part != Part::Main {
            metadata = owned_metadata(current);
            metadata.remove("managedFields");
            let mut status = object.as_object_mut().and_then(|fields| fields.remove("status"));
            object = without_metadata(current);
            if self.part == Part::Approval {
                let conditions =
                    status.as_mut().and_then(|status| status.get_mut("conditions").map(Value::take));
                let mut approved = object.get("status").cloned().unwrap_or_else(|| json!({}));
                drop_field(&mut approved, "conditions");
                if let Some(conditions) = conditions {
                    approved["conditions"] = conditions;
                }
                status = Some(approved);
            }
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
        metadata::restore_server_fields(&mut metadata, current);
        object["metadata"] = Value::Object(metadata);
        kind.schema.apply_defaults(&mut object);
        object
    }

    /// Decides whether `object` replaces `current`, and validates it.
    fn finish_update(&self, current: &Value, mut object: Value) -> Result<Next, Status> {
        let kind = self.kind;
        signing::complete_update(kind, self.part, current, &mut object, self.moment.now);
        if managers::is_unchanged(current, &object) {
            return Ok(Next::Unchanged);
        }
        if kind.counts_generations && specification_changed(kind, current, &object) {
            let generation = current["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            object["metadata"]["generation"] = json!(generation);
        }
        validate(kind, &object, Some(current), self.part)?;
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
                return Err(Status::invalid(
                    kind.names(),
                    name,
                    vec![Cause::forbidden("metadata.finalizers", why)],
                ));
            }
            if metadata::finalizers(&object).next().is_none() {
                return Ok(Next::Removed(object));
            }
        }
        Ok(Next::Stored(object))
    }
}

/// Metadata that clients can't set in a new object.
const SET_BY_SERVER: [&str; 4] =
    ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"];

/// Deletes `current`, or marks it as deleted if it has finalizers.
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

/// Whether the object is deleted but has finalizers left.
pub fn is_deleting(object: &Value) -> bool {
    object["metadata"].get("deletionTimestamp").is_some_and(|time| !time.is_null())
}

/// Brings what has many forms in JSON into one.
fn canonicalize(kind: &Kind, object: &mut Value) -> Result<(), Status> {
    signing::canonicalize(kind, object)?;
    secret::canonicalize(kind, object)?;
    quota::canonicalize(kind, object)
}

/// Sets `apiVersion` and `kind` of objects of built-in kinds, which may omit them.
fn set_type(kind: &Kind, object: &mut Value) {
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
        let message = format!(
            "the object provided is unrecognized (must be of type {}): its kind is missing",
            kind.kind
        );
        return Err(Status::bad_request(message));
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
    // Named after the kind that the object claims.
    Err(Status::invalid(Names { kind: stated, ..kind.names() }, name, causes))
}

fn report_unknown(
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
    let messages = unknown.chain(duplicate).take(CAUSES_MAX);
    if validation == FieldValidation::Strict {
        let messages: Vec<String> = messages.collect();
        return Err(Status::bad_request(format!(
            "{0} in version {1:?} cannot be handled as a {0}: strict decoding error: {2}",
            kind.kind,
            kind.version,
            messages.join(", ")
        )));
    }
    warnings.extend(messages);
    Ok(())
}

fn validate(kind: &Kind, object: &Value, old: Option<&Value>, part: Part) -> Result<(), Status> {
    let mut known = metadata::validate(kind, object, old.is_none());
    known.extend(kinds::validate_event(kind, object, old.is_none()));
    known.extend(signing::validate(kind, object, old, part));
    known.extend(secret::validate(kind, object, old));
    known.extend(quota::validate(kind, object, part));
    let mut causes = kind.schema.validate_after(known, object, old);
    signing::drop_repeated(kind, &mut causes);
    if let Some(cause) =
        causes.iter().find(|cause| cause.reason() == "FieldValueTypeInvalid" && !kind.is_custom())
    {
        // Kubernetes decodes built-in kinds into structs, so that a wrong type is a decoding error.
        return Err(Status::bad_request(format!(
            "{0} in version {1:?} cannot be handled as a {0}: {2}: {3}",
            kind.kind,
            kind.version,
            cause.field(),
            cause.message()
        )));
    }
    if part == Part::Status {
        // Paths in messages about a status are relative to it.
        causes = causes.into_iter().map(|cause| cause.relative_to("status")).collect();
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(kind.names(), object["metadata"]["name"].as_str().unwrap_or_default(), causes))
}

/// Whether anything but the metadata differs (and the status, if it is a subresource).
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

/// Labels a Namespace with its name, so that selectors can find it.
fn label_namespace(kind: &Kind, object: &mut Value) {
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
