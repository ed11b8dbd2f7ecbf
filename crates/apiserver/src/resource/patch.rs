//! Patches: what a client wants changed, applied to the object as it stands.

use json_patch::{AddOperation, PatchOperation};
use serde_json::Value;

use crate::kinds::Kind;
use crate::status::{Cause, Details, Reason, Status};

/// Operations in one JSON patch at most, as in Kubernetes.
const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;

/// A patch in one of the forms that are understood.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 7386.
    Merge(Value),
    /// RFC 6902.
    Json(json_patch::Patch),
    /// Kubernetes' strategic merge, where it means the same as a merge.
    Strategic(Value),
}

impl Patch {
    /// From a body by its media type; server-side apply is no patch.
    pub fn parse(media_type: &str, body: Value) -> Result<Patch, Status> {
        match media_type {
            "application/merge-patch+json" => Ok(Patch::Merge(object(body)?)),
            "application/json-patch+json" => {
                let patch: json_patch::Patch = serde_json::from_value(body)
                    .map_err(|error| Status::bad_request(format!("the body is not a JSON patch: {error}")))?;
                if patch.0.len() > JSON_PATCH_OPERATIONS_MAX {
                    let why = format!(
                        "the allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}"
                    );
                    return Err(Status::new(Reason::RequestEntityTooLarge, why));
                }
                Ok(Patch::Json(patch))
            }
            "application/strategic-merge-patch+json" => Ok(Patch::Strategic(object(body)?)),
            other => Err(Status::new(
                Reason::UnsupportedMediaType,
                format!(
                    "the body of the request was in an unknown format {other:?} - accepted media types include: \
                     application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
                ),
            )),
        }
    }

    /// The object with the patch applied.
    pub fn apply(&self, kind: &Kind, current: &Value) -> Result<Value, Status> {
        let mut patched = current.clone();
        match self {
            Patch::Merge(patch) => json_patch::merge(&mut patched, patch),
            Patch::Json(patch) => apply_operations(&mut patched, patch).map_err(|error| {
                let told = "the server rejected our request due to an error in our request";
                let cause = Cause::new("UnexpectedServerResponse", "", error.to_string());
                Status::new(Reason::Invalid, told).with(Details { causes: vec![cause], ..Details::default() })
            })?,
            Patch::Strategic(patch) => {
                if kind.counts_generations {
                    let told = format!("strategic merge patches are not supported for {}", kind.qualified());
                    return Err(Status::new(Reason::UnsupportedMediaType, told));
                }
                if !is_plain(patch) {
                    return Err(Status::new(
                        Reason::UnsupportedMediaType,
                        "this strategic merge patch merges lists or carries directives, which this server doesn't offer: send a merge patch",
                    ));
                }
                json_patch::merge(&mut patched, patch);
            }
        }
        Ok(patched)
    }
}

/// As Kubernetes does it: `replace` also sets a member that isn't there.
fn apply_operations(object: &mut Value, patch: &json_patch::Patch) -> Result<(), json_patch::PatchError> {
    let has_replacement = |operation: &PatchOperation| matches!(operation, PatchOperation::Replace(_));
    if !patch.0.iter().any(has_replacement) {
        return json_patch::patch(object, patch);
    }
    for operation in &patch.0 {
        let mut operation = operation.clone();
        if let PatchOperation::Replace(replace) = &operation
            && object.pointer(replace.path.as_str()).is_none()
            && let Some((parent, _)) = replace.path.as_str().rsplit_once('/')
            && object.pointer(parent).is_some_and(Value::is_object)
        {
            let (path, value) = (replace.path.clone(), replace.value.clone());
            operation = PatchOperation::Add(AddOperation { path, value });
        }
        json_patch::patch(object, &[operation])?;
    }
    Ok(())
}

fn object(body: Value) -> Result<Value, Status> {
    if body.is_object() { Ok(body) } else { Err(Status::bad_request("the patch must be one object")) }
}

/// Without lists and directives the two kinds of merge are one.
fn is_plain(patch: &Value) -> bool {
    match patch {
        Value::Array(_) => false,
        Value::Object(fields) => fields.iter().all(|(name, value)| !name.starts_with('$') && is_plain(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}
