//! Writes and their results.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::constraint::Constraint;
use super::event::Event;
use super::storage::StorageError;
use crate::kinds::Kind;
use crate::resource::{Author, FieldValidation, Part, Patch, Preconditions};
use crate::status::Status;

/// A write of one object.
#[derive(Clone, Debug)]
pub struct Write {
    /// Kind of the object.
    pub kind: Arc<Kind>,
    /// Namespace in the path; none for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// Name in the path; empty for a create.
    pub name: String,
    /// The operation.
    pub operation: Operation,
    /// Name of the field manager.
    pub manager: String,
    /// Who writes.
    pub author: Arc<Author>,
    /// Compute the answer and store nothing.
    pub dry_run: bool,
    /// Treatment of unknown and duplicate fields.
    pub validation: FieldValidation,
    /// Constraints of the client's permission.
    pub constraints: Vec<Arc<Constraint>>,
}

/// Operations on one object.
#[derive(Clone, Debug)]
pub enum Operation {
    /// POST.
    Create {
        /// The body.
        object: Value,
        /// Duplicate fields in it.
        duplicates: Vec<String>,
    },
    /// PUT.
    Update {
        /// Which part is replaced.
        part: Part,
        /// The body.
        object: Value,
        /// Duplicate fields in it.
        duplicates: Vec<String>,
    },
    /// PATCH.
    Patch {
        /// Which part is patched.
        part: Part,
        /// The body.
        patch: Patch,
    },
    /// PATCH: server-side apply.
    Apply {
        /// Which part is applied.
        part: Part,
        /// The body.
        object: Value,
        /// Messages about duplicate fields in it.
        duplicates: Vec<String>,
        /// Take fields of other managers instead of reporting conflicts.
        force: bool,
        /// Constraints of the client's permission to create the object, or why it has none.
        creation: Result<Vec<Arc<Constraint>>, Status>,
    },
    /// DELETE.
    Delete {
        /// Preconditions.
        conditions: Preconditions,
    },
    /// Internal: removes a terminating namespace that is empty.
    RemoveIfEmpty,
}

impl Operation {
    /// The part of the object that it writes; `None` if it deletes.
    pub(super) fn part(&self) -> Option<Part> {
        match self {
            Operation::Create { .. } => Some(Part::Main),
            Operation::Update { part, .. }
            | Operation::Patch { part, .. }
            | Operation::Apply { part, .. } => Some(*part),
            Operation::Delete { .. } | Operation::RemoveIfEmpty => None,
        }
    }
}

/// Result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The object is new.
    Created,
    /// The object is stored, or was already as requested.
    Stored,
    /// The object is removed.
    Removed,
}

/// A write that succeeded.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Its result.
    pub outcome: Outcome,
    /// The object's JSON as stored; of a removed one its last state.
    pub object: Bytes,
    /// Warnings for the client.
    pub warnings: Vec<String>,
    /// The change for watches, if there is one.
    pub event: Option<Arc<Event>>,
    /// The changes of ResourceQuotas that follow from it.
    pub quotas: Vec<Arc<Event>>,
}

/// Why a write failed.
#[derive(Debug)]
pub enum ApplyError {
    /// Refused; the batch continues.
    Refused(Status),
    /// The storage failed; the batch is lost.
    Storage(StorageError),
}

impl From<Status> for ApplyError {
    fn from(status: Status) -> ApplyError {
        ApplyError::Refused(status)
    }
}

impl From<StorageError> for ApplyError {
    fn from(error: StorageError) -> ApplyError {
        ApplyError::Storage(error)
    }
}
