//! Patches: changes that are applied to the stored object.

use json_patch::{AddOperation, PatchOperation};
use serde_json::Value;

use crate::kinds::Kind;
use crate::schema::decode::{DEPTH_MAX, Extent, VALUES_MAX};
use crate::status::{Cause, Details, Reason, Status};

/// Operations in one JSON patch at most, as in Kubernetes (`maxJSONPatchOperations` in its apiserver's `patch.go`).
const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;
/// Bytes that the copies of one JSON patch add at most, as in Kubernetes (`JSONPatchMaxCopyBytes`).
const JSON_PATCH_COPY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Values that the operations of one JSON patch read, move or shift at most: some tens of milliseconds, during which all
/// other writers wait. It suffices to move an object of the largest size some hundred times.
const JSON_PATCH_STEPS_MAX: usize = 8_000_000;
/// Items of a list that are shifted in the time in which one value is read.
const ITEMS_PER_STEP: usize = 8;

/// A patch in one of the supported formats.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 7386.
    Merge(Value),
    /// RFC 6902.
    Json(json_patch::Patch),
    /// A strategic merge patch; only those are accepted that mean the same as a merge patch.
    Strategic(Value),
}

impl Patch {
    /// Reads a body of the given media type; server-side apply is an [operation](crate::store::Operation) of its own.
    pub fn parse(media_type: &str, body: Value) -> Result<Patch, Status> {
        match media_type {
            "application/merge-patch+json" => Ok(Patch::Merge(object(body)?)),
            "application/json-patch+json" => {
                if body.as_array().is_some_and(|operations| operations.len() > JSON_PATCH_OPERATIONS_MAX) {
                    let why = format!(
                        "the allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}"
                    );
                    return Err(Status::new(Reason::RequestEntityTooLarge, why));
                }
                let patch: json_patch::Patch = serde_json::from_value(body)
                    .map_err(|error| Status::bad_request(format!("the body is not a JSON patch: {error}")))?;
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

    /// `current` with the patch applied.
    pub fn apply(&self, kind: &Kind, current: &Value) -> Result<Value, Status> {
        let mut patched = current.clone();
        match self {
            Patch::Merge(patch) => json_patch::merge(&mut patched, patch),
            Patch::Json(patch) => {
                let mut patching = Patching { copied_bytes: 0, copied_values: 0, steps: 0 };
                patching.apply(&mut patched, patch).map_err(|error| {
                    let message = "the server rejected our request due to an error in our request";
                    let cause = Cause::new("UnexpectedServerResponse", "", error.to_string());
                    Status::new(Reason::Invalid, message)
                        .with(Details { causes: vec![cause], ..Details::default() })
                })?;
            }
            Patch::Strategic(patch) => {
                if kind.counts_generations {
                    let message =
                        format!("strategic merge patches are not supported for {}", kind.qualified());
                    return Err(Status::new(Reason::UnsupportedMediaType, message));
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

/// Why a JSON patch is not applied. The texts of evanphx/json-patch where it has one.
#[derive(Debug, thiserror::Error)]
enum JsonPatchError {
    #[error("{0}")]
    Operation(#[from] json_patch::PatchError),
    #[error("the patched object would be nested more than {DEPTH_MAX} levels deep")]
    Depth,
    #[error("the operations of the patch move too much; send the resulting object instead")]
    Steps,
    #[error(
        "Unable to complete the copy, the accumulated size increase of copy is {0}, exceeding the limit \
         {JSON_PATCH_COPY_BYTES_MAX}"
    )]
    CopiedBytes(usize),
    #[error("Unable to complete the copy, the copies have more than {VALUES_MAX} values")]
    CopiedValues,
}

/// Costs of a JSON patch so far. It is applied to a copy of the object, which is dropped if an operation fails.
struct Patching {
    copied_bytes: usize,
    copied_values: usize,
    steps: usize,
}

impl Patching {
    fn apply(&mut self, object: &mut Value, patch: &json_patch::Patch) -> Result<(), JsonPatchError> {
        for (index, operation) in patch.0.iter().enumerate() {
            self.charge(object, operation)?;
            let set = as_set(object, operation);
            let operation = set.as_ref().unwrap_or(operation);
            json_patch::patch_unsafe(object, std::slice::from_ref(operation)).map_err(|mut error| {
                error.operation = index;
                error
            })?;
        }
        Ok(())
    }

    /// Charges an operation before it is applied.
    fn charge(&mut self, object: &Value, operation: &PatchOperation) -> Result<(), JsonPatchError> {
        let path = operation.path().as_str();
        let put = match operation {
            PatchOperation::Add(add) => Some(&add.value),
            PatchOperation::Replace(replace) => Some(&replace.value),
            PatchOperation::Move(moving) => {
                self.walk(shifted(object, moving.from.as_str()))?;
                object.pointer(moving.from.as_str())
            }
            PatchOperation::Copy(copy) => {
                let source = object.pointer(copy.from.as_str());
                source.map(|source| self.copy(source)).transpose()?;
                source
            }
            PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
        };
        if !matches!(operation, PatchOperation::Test(_)) {
            self.walk(shifted(object, path))?;
        }
        // The operation itself fails on a missing source.
        let Some(put) = put else { return Ok(()) };
        let extent = Extent::of(put);
        self.walk(extent.values)?;
        if path.matches('/').count() + extent.depth > DEPTH_MAX {
            return Err(JsonPatchError::Depth);
        }
        Ok(())
    }

    fn walk(&mut self, steps: usize) -> Result<(), JsonPatchError> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > JSON_PATCH_STEPS_MAX {
            return Err(JsonPatchError::Steps);
        }
        Ok(())
    }

    fn copy(&mut self, source: &Value) -> Result<(), JsonPatchError> {
        self.copied_values += Extent::of(source).values;
        self.copied_bytes = self.copied_bytes.saturating_add(json_bytes(source));
        if self.copied_bytes > JSON_PATCH_COPY_BYTES_MAX {
            return Err(JsonPatchError::CopiedBytes(self.copied_bytes));
        }
        if self.copied_values > VALUES_MAX {
            return Err(JsonPatchError::CopiedValues);
        }
        Ok(())
    }
}

/// The `add` that Kubernetes makes of a `replace` of an absent member.
fn as_set(object: &Value, operation: &PatchOperation) -> Option<PatchOperation> {
    let PatchOperation::Replace(replace) = operation else { return None };
    let path = replace.path.as_str();
    if object.pointer(path).is_some() {
        return None;
    }
    let (parent, _) = path.rsplit_once('/')?;
    object.pointer(parent).filter(|parent| parent.is_object())?;
    Some(PatchOperation::Add(AddOperation { path: replace.path.clone(), value: replace.value.clone() }))
}

/// Steps to shift the items of a list when one is inserted or removed at the path.
fn shifted(object: &Value, path: &str) -> usize {
    let Some((parent, last)) = path.rsplit_once('/') else { return 0 };
    let Some(Value::Array(items)) = object.pointer(parent) else { return 0 };
    last.parse::<usize>().map_or(0, |index| items.len().saturating_sub(index) / ITEMS_PER_STEP)
}

/// Bytes of a value as JSON.
fn json_bytes(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // The writer can't fail, and all keys are strings.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

fn object(body: Value) -> Result<Value, Status> {
    if body.is_object() { Ok(body) } else { Err(Status::bad_request("the patch must be one object")) }
}

/// Whether a strategic merge patch has neither lists nor directives, so that it means the same as a merge patch.
fn is_plain(patch: &Value) -> bool {
    match patch {
        Value::Array(_) => false,
        Value::Object(fields) => fields.iter().all(|(name, value)| !name.starts_with('$') && is_plain(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}
