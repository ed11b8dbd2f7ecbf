//! Namespaces: objects are created in active ones only, and a deleted one is removed once it is empty.
//!
//! ```text
//! Active ──delete──▶ Terminating ──empty──▶ (absent)
//! ```

use std::ops::ControlFlow;

use serde_json::{Value, json};

use super::storage::Read;
use super::write::ApplyError;
use crate::kinds::{Kind, Kinds};
use crate::resource::{Moment, Next, is_deleting};
use crate::status::{Cause, Status};

/// The namespace that can't be deleted.
const DEFAULT: &str = "default";

fn is_namespace(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.kind == "Namespace"
}

/// Refuses a create in a namespace that doesn't exist or is terminating.
pub(super) fn check_active(
    kinds: &Kinds,
    tables: &dyn Read,
    kind: &Kind,
    namespace: &str,
    object: &Value,
) -> Result<(), ApplyError> {
    let namespaces = kinds.namespaces();
    let found = tables.get(&namespaces.key("", namespace))?;
    let found = found.ok_or_else(|| Status::not_found(namespaces.names(), namespace))?;
    let found: Value = serde_json::from_slice(&found).unwrap_or_default();
    if is_deleting(&found) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let message = format!("namespace {namespace} is being terminated");
        let cause = Cause::new("NamespaceTerminating", "metadata.namespace", message);
        return Err(Status::forbidden(kind.names(), name, why).with_cause(cause).into());
    }
    Ok(())
}

/// Sets spec and status of a new namespace.
pub(super) fn set_server_fields(kind: &Kind, object: &mut Value) {
    if is_namespace(kind) {
        object["spec"] = json!({"finalizers": ["kubernetes"]});
        object["status"] = json!({"phase": "Active"});
    }
}

/// Restores the fields of a namespace that clients can't change.
pub(super) fn restore_server_fields(kind: &Kind, current: &Value, next: Next) -> Next {
    match next {
        Next::Stored(mut object) if is_namespace(kind) => {
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = current["metadata"]["name"].clone();
            object["spec"] = current["spec"].clone();
            // The content is deleted with the namespace, whatever phase a client sets.
            object["status"]["phase"] = json!(if is_deleting(&object) { "Terminating" } else { "Active" });
            if object == *current { Next::Unchanged } else { Next::Stored(object) }
        }
        Next::Stored(_) | Next::Removed(_) | Next::Unchanged => next,
    }
}

/// A deleted namespace is terminating until it is empty.
pub(super) fn terminate(
    kind: &Kind,
    current: &Value,
    next: Next,
    moment: Moment<'_>,
) -> Result<Next, Status> {
    if !is_namespace(kind) {
        return Ok(next);
    }
    let name = current["metadata"]["name"].as_str().unwrap_or_default();
    if name == DEFAULT {
        return Err(Status::forbidden(kind.names(), name, "this namespace may not be deleted"));
    }
    if is_deleting(current) {
        return Ok(Next::Unchanged);
    }
    let mut object = current.clone();
    object["metadata"]["deletionTimestamp"] = json!(moment.now);
    object["status"]["phase"] = json!("Terminating");
    Ok(Next::Stored(object))
}

/// Removes a terminating namespace that is empty.
pub(super) fn remove_if_empty(kinds: &Kinds, tables: &dyn Read, current: &Value) -> Result<Next, ApplyError> {
    let name = current["metadata"]["name"].as_str().unwrap_or_default();
    let held = current["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
    if !is_deleting(current) || held {
        return Ok(Next::Unchanged);
    }
    for kind in kinds.iter().filter(|kind| kind.namespaced) {
        let mut empty = true;
        tables.scan(&kind.prefix(Some(name)), None, &mut |_, _| {
            empty = false;
            ControlFlow::Break(())
        })?;
        if !empty {
            return Ok(Next::Unchanged);
        }
    }
    Ok(Next::Removed(current.clone()))
}
