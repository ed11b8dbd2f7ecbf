//! Computes `managedFields` after a write: structured merge on whole objects, with the error texts of Kubernetes.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wasmbed_structured_merge::{
    ApplyError, Conflict, ManagedFields, ManagerId, Operation, Outcome, Updater, ValidationError, display,
    empty_like, equal_except_times,
};

use super::request::{Part, Request};
use crate::kinds::{Conversion, Kind};
use crate::status::{Cause, Details, Reason, Status};

/// Annotation in which client-side apply keeps the applied configuration.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The manager that takes over the fields of client-side apply and keeps that annotation up to date.
const KUBECTL: &str = "kubectl";
/// Bytes of all annotations together, as in Kubernetes; beyond that the annotation is dropped.
const ANNOTATION_BYTES_MAX: usize = 256 * 1024;

/// A configuration to apply.
#[derive(Clone, Copy, Debug)]
pub struct Applied<'a> {
    /// The configuration, an object of the request's kind.
    pub object: &'a Value,
    /// Messages about duplicate fields in it.
    pub duplicates: &'a [String],
    /// Take fields of other managers instead of reporting conflicts.
    pub force: bool,
}

fn updater(kind: &Kind, part: Part) -> Updater<'_, Conversion> {
    Updater {
        version: &kind.merge_version,
        others: &kind.other_versions,
        ignored: match part {
            Part::Status if kind.is_signing_request() => &["metadata", "spec", "status.conditions"],
            Part::Status => &["metadata", "spec"],
            Part::Approval => &["metadata", "spec", "status.certificate"],
            Part::Main if kind.is_signing_request() => &["spec", "status"],
            Part::Main if kind.status_subresource => &["status"],
            Part::Main => &[],
        },
    }
}

fn id(request: &Request<'_>, operation: Operation) -> ManagerId {
    let subresource = request.part.subresource();
    ManagerId::new(request.manager, operation, &request.kind.merge_version.name, subresource)
}

/// `managedFields` of `object`, which replaces `current`; `stated` are those in the body, if any.
///
/// `None` if they can't be computed, and if managers aren't tracked: clients may reset them.
pub(super) fn after_update(
    request: &Request<'_>,
    current: Option<&Value>,
    object: &Value,
    stated: Option<Value>,
) -> Option<Value> {
    let stored = || {
        let stored = current.and_then(|current| current["metadata"].get("managedFields").cloned());
        stored.and_then(|stored| ManagedFields::from_json(stored, true).ok()).unwrap_or_default()
    };
    let managers = match stated.filter(|_| request.part == Part::Main) {
        None => stored(),
        Some(stated) if current.is_some_and(|current| current["metadata"]["managedFields"] == stated) => {
            stored()
        }
        Some(stated) if is_reset(request.kind, &stated) => ManagedFields::default(),
        Some(stated) => match ManagedFields::from_json(stated, false) {
            Ok(managers) if !managers.is_empty() => managers,
            // Clients that don't know the field can't remove it.
            Ok(_) | Err(_) => stored(),
        },
    };
    if managers.is_empty() && current.is_some() {
        return None;
    }
    let nothing;
    let live = match current {
        Some(current) => current,
        None => {
            nothing = empty_like(object);
            &nothing
        }
    };
    let id = id(request, Operation::Update);
    let managers =
        updater(request.kind, request.part).update(live, object, managers, &id, request.moment.now);
    match managers {
        Ok(managers) => Some(managers.into_json()).filter(|entries| *entries != json!([])),
        Err(error) => {
            tracing::debug!(%error, kind = request.kind.kind, "dropping the managers of an object");
            None
        }
    }
}

/// A reset is requested by a list of one empty entry, or by an empty list, which custom resources don't see.
fn is_reset(kind: &Kind, stated: &Value) -> bool {
    *stated == json!([{}]) || (*stated == json!([]) && !kind.is_custom())
}

pub(super) fn put(object: &mut Value, managed: Option<Value>) {
    if let Some(managed) = managed {
        object["metadata"]["managedFields"] = managed;
    }
}

/// Whether the two are equal, times of `managedFields` apart.
pub(super) fn is_unchanged(current: &Value, object: &Value) -> bool {
    let (Some(was), Some(is)) = (current.as_object(), object.as_object()) else { return false };
    let alike = was.len() == is.len()
        && was
            .iter()
            .filter(|(name, _)| *name != "metadata")
            .all(|(name, value)| is.get(name) == Some(value));
    let (Some(was), Some(is)) = (current["metadata"].as_object(), object["metadata"].as_object()) else {
        return false;
    };
    alike
        && was.len() == is.len()
        && was.iter().all(|(name, value)| match (name.as_str(), is.get(name)) {
            (_, None) => false,
            ("managedFields", Some(other)) => equal_except_times(value, other),
            (_, Some(other)) => value == other,
        })
}

/// The object after `applied` is applied to `current`, and its `managedFields`.
pub(super) fn after_apply(
    request: &Request<'_>,
    current: Option<&Value>,
    applied: &Applied<'_>,
) -> Result<(Value, Option<Value>), Status> {
    let kind = request.kind;
    check_applied(kind, applied.object)?;
    let nothing;
    let live = match current {
        Some(current) => current,
        None => {
            nothing = empty_like(applied.object);
            &nothing
        }
    };
    let stored = live["metadata"].get("managedFields").cloned().unwrap_or(Value::Null);
    let managers = ManagedFields::from_json(stored, true)
        .map_err(|error| Status::unknown(format!("failed to decode managed fields: {error}")))?;
    let updater = updater(kind, request.part);
    let id = id(request, Operation::Apply);
    let now = request.moment.now;
    let mut outcome = updater.apply(live, applied.object, managers.clone(), &id, applied.force, now);
    if let Err(ApplyError::Conflicts(conflicts)) = &mut outcome
        && request.manager == KUBECTL
        && let Some(allowed) = last_applied(live).and_then(|last| updater.unchanged_since(&last, live))
    {
        // kubectl may take the fields of client-side apply.
        conflicts.retain(|conflict| !allowed.has(&conflict.path));
        if conflicts.is_empty() {
            outcome = updater.apply(live, applied.object, managers, &id, true, now);
        }
    }
    let Outcome { object, managers } = outcome.map_err(|error| status(kind, applied.object, live, error))?;
    let mut object = object.unwrap_or_else(|| live.clone());
    if request.manager == KUBECTL && last_applied_text(&object).is_some() {
        set_last_applied(&mut object, applied.object);
    }
    let managed = managers.into_json();
    Ok((object, Some(managed).filter(|entries| *entries != json!([]))))
}

fn check_applied(kind: &Kind, applied: &Value) -> Result<(), Status> {
    let text = |name: &str| applied.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("apiVersion") != kind.merge_version.name || text("kind") != kind.kind {
        let version = text("apiVersion");
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let kind = text("kind");
        return Err(Status::bad_request(format!("invalid object type: {group}/{version}, Kind={kind}")));
    }
    if applied["metadata"]["managedFields"].is_array() {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

fn status(kind: &Kind, applied: &Value, live: &Value, error: ApplyError) -> Status {
    let about = |object: &Value| {
        let metadata = &object["metadata"];
        let text = |name: &str| metadata[name].as_str().unwrap_or_default().to_owned();
        let version = format!("{}/{}", kind.group, kind.version);
        let version = if kind.group.is_empty() { format!("/{}", kind.version) } else { version };
        format!("{}/{}; {version}, Kind={}", text("namespace"), text("name"), kind.kind)
    };
    match error {
        ApplyError::Conflicts(conflicts) => conflict(conflicts),
        ApplyError::Applied(wrong) => Status::unknown(format!(
            "failed to create typed patch object ({}): {}",
            about(applied),
            ValidationError::join(&wrong)
        )),
        ApplyError::Live(wrong) => {
            Status::unknown(format!("failed to create typed live object ({}): {wrong}", about(live)))
        }
        ApplyError::ManagedFields(error) => {
            Status::unknown(format!("failed to decode managed fields: {error}"))
        }
    }
}

/// 409 with a cause for each field that another manager owns.
fn conflict(conflicts: Vec<Conflict>) -> Status {
    let message = match conflicts.as_slice() {
        [one] => {
            format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, display(&one.path))
        }
        many => {
            let mut by_manager: BTreeMap<&ManagerId, Vec<String>> = BTreeMap::new();
            for conflict in many {
                by_manager
                    .entry(&conflict.manager)
                    .or_default()
                    .push(format!("- {}", display(&conflict.path)));
            }
            let lines = by_manager.iter().flat_map(|(manager, paths)| {
                std::iter::once(format!("conflicts with {manager}:")).chain(paths.iter().cloned())
            });
            let lines: Vec<String> = lines.collect();
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    let causes = conflicts.iter().map(|conflict| {
        let message = format!("conflict with {}", conflict.manager);
        Cause::new("FieldManagerConflict", &display(&conflict.path), message)
    });
    let causes = causes.collect();
    Status::new(Reason::Conflict, message).with(Details { causes, ..Details::default() })
}

fn last_applied_text(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][LAST_APPLIED].as_str().filter(|text| !text.is_empty())
}

fn last_applied(object: &Value) -> Option<Value> {
    serde_json::from_str(last_applied_text(object)?).ok()
}

/// Updates the annotation of client-side apply.
fn set_last_applied(object: &mut Value, applied: &Value) {
    let mut applied = applied.clone();
    if let Some(annotations) = applied.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    let text = format!("{applied}\n");
    let Some(annotations) = object["metadata"]["annotations"].as_object_mut() else { return };
    annotations.insert(LAST_APPLIED.into(), json!(text));
    let bytes = |(name, value): (&String, &Value)| name.len() + value.as_str().map_or(0, str::len);
    if annotations.iter().map(bytes).sum::<usize>() > ANNOTATION_BYTES_MAX {
        annotations.remove(LAST_APPLIED);
    }
}
