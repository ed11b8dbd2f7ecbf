//! Where objects live: one revision for all of them, a history for watches, and storage under both.
//!
//! [`Machine`] decides and is pure; it works on anything that implements [`Tables`]. [`Memory`] puts it on an ordered
//! map, for simulations and tests; [`Disk`] on a transactional file, with many writers sharing one commit.

mod disk;
mod log;
mod machine;
mod memory;
mod namespaces;
mod page;
mod writer;

use std::ops::ControlFlow;

pub use disk::{Disk, OpenError, Snapshot};
pub use log::{Change, Event, History, HistoryExpired, Log, watch_line, watch_line_ends};
pub use machine::{Applied, ApplyError, Constraint, Machine, Operation, Outcome, Write};
pub use memory::Memory;
pub use page::{Page, Pager, Visitor};
pub use writer::{Changes, CommitReport, Feed, Store};

use crate::status::{Details, Reason, Status};

/// The storage below failed; nothing of the batch was kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// Why.
    #[error("storage failed: {0}")]
    Failed(String),
    /// It is closed until its disk works again.
    #[error("the store is closed until its disk works again")]
    Closed,
    /// It was opened anew after its disk had failed: what was read before can't be read on.
    #[error("the store was opened anew")]
    Reopened,
}

impl StorageError {
    /// Without what it means.
    fn why(&self) -> String {
        match self {
            StorageError::Failed(why) => why.clone(),
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

    /// Visits what begins with `prefix`, after the key `after`, until the visitor has enough.
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

#[cfg(test)]
pub(crate) mod tests;
