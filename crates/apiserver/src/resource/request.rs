//! A write of one object, and its result.

use serde_json::Value;
use uuid::Uuid;

use crate::kinds::Kind;

/// Time and randomness of one operation.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// RFC 3339 with whole seconds, UTC.
    pub now: &'a str,
    /// Fresh for each operation: the uid of an object that is created.
    pub uid: Uuid,
}

/// Treatment of unknown and of duplicate fields.
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

/// The part of an object that a write changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but the status, if the status is a subresource.
    Main,
    /// The status.
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

/// Result of a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// The object stays as it is and nothing is written.
    Unchanged,
    /// The object to store with a new resourceVersion.
    Stored(Value),
    /// The object is removed; its last state.
    Removed(Value),
}

/// A write of one object: everything but its body.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Kind of the object.
    pub kind: &'a Kind,
    /// Namespace in the path.
    pub namespace: Option<&'a str>,
    /// Part that is written.
    pub part: Part,
    /// Name of the field manager.
    pub manager: &'a str,
    /// Treatment of unknown and duplicate fields.
    pub validation: FieldValidation,
    /// Time and randomness.
    pub moment: Moment<'a>,
}
