//! Access to stored objects by key.

use std::ops::ControlFlow;

use crate::status::{Details, Reason, Status};

/// The storage failed; nothing of the batch was kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// The error of the storage.
    #[error("storage failed: {0}")]
    Failed(String),
    /// It is closed until its disk works again.
    #[error("the store is closed until its disk works again")]
    Closed,
    /// It was reopened after its disk had failed: earlier snapshots can't be read any more.
    #[error("the store was reopened")]
    Reopened,
}

impl StorageError {
    /// The message without its prefix.
    pub(super) fn cause(&self) -> String {
        match self {
            StorageError::Failed(cause) => cause.clone(),
            StorageError::Closed | StorageError::Reopened => self.to_string(),
        }
    }
}

impl From<StorageError> for Status {
    fn from(error: StorageError) -> Status {
        match error {
            StorageError::Failed(_) => Status::internal(error),
            StorageError::Closed | StorageError::Reopened => {
                let again = Details { retry_after: Some(1), ..Details::default() };
                Status::new(Reason::ServiceUnavailable, format!("{error}; try again")).with(again)
            }
        }
    }
}

/// Reading access to objects by key, in key order.
pub trait Read {
    /// The object's JSON.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StorageError>;

    /// Visits the keys that begin with `prefix`, after the key `after`, until `visit` breaks.
    fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(&str, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StorageError>;
}

/// Reading and writing access within one transaction.
pub trait Tables: Read {
    /// Inserts or replaces.
    fn put(&mut self, key: &str, object: &[u8]) -> Result<(), StorageError>;

    /// Removes; the key need not exist.
    fn remove(&mut self, key: &str) -> Result<(), StorageError>;
}
