//! Why objects can't be compared, updated or applied.

use crate::managed_fields::ManagerId;
use crate::path::{Element, display};
use crate::set::SetError;
use crate::text::cut;

/// Bytes of the message about one value at most: some values are quoted whole.
const MESSAGE_BYTES_MAX: usize = 4 * 1_024;

/// A value that doesn't fit its type. The message is that of structured-merge-diff.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidationError {
    path: String,
    message: String,
}

impl ValidationError {
    pub(crate) fn new(path: &[Element], message: impl Into<String>) -> ValidationError {
        ValidationError { path: display(path), message: cut(message.into(), MESSAGE_BYTES_MAX) }
    }

    /// An item of the list at `path` that can't be told apart from the others.
    pub(crate) fn of_item(path: &[Element], index: usize, error: impl std::fmt::Display) -> ValidationError {
        ValidationError::new(path, format!("element {index}: {error}"))
    }

    /// One message for several errors.
    pub fn join(errors: &[ValidationError]) -> String {
        match errors {
            [one] => one.to_string(),
            many => {
                let lines = many.iter().map(|one| format!("\n  {one}"));
                format!("errors:{}", lines.collect::<String>())
            }
        }
    }
}

impl std::fmt::Display for ValidationError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

impl std::error::Error for ValidationError {}

/// A field that an apply would change and that another manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The owner.
    pub manager: ManagerId,
    /// Path of the field.
    pub path: Vec<Element>,
}

/// Why a configuration isn't applied.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApplyError {
    /// Other managers own fields that the configuration would change. The first 1,024 of them, 4 MiB of paths at most.
    #[error("{} fields have other owners", .0.len())]
    Conflicts(Vec<Conflict>),
    /// The configuration doesn't fit the schema.
    #[error("{}", ValidationError::join(.0))]
    Applied(Vec<ValidationError>),
    /// The live object doesn't fit the schema.
    #[error("{0}")]
    Live(#[source] ValidationError),
    /// A set in the live object's `managedFields` can't be decoded.
    #[error(transparent)]
    ManagedFields(#[from] SetError),
}

/// Why ownership can't be computed for an update.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum UpdateError {
    /// One of the two objects doesn't fit the schema: items of a list can't be told apart.
    #[error(transparent)]
    Validation(#[from] ValidationError),
    /// A set in `managedFields` can't be decoded.
    #[error(transparent)]
    ManagedFields(#[from] SetError),
}
