//! Storage of all objects: one revision for all of them, a history for watches, and the disk below.
//!
//! [`Machine`] decides and is pure; it works on anything that implements [`Tables`]. [`Memory`] runs it on an ordered map,
//! for simulations and tests; [`Store`] on a transactional file, where many writes share one commit.

mod constraint;
mod disk;
mod event;
mod feed;
mod history;
mod machine;
mod memory;
mod namespaces;
mod page;
mod quotas;
mod requests;
mod seal;
mod shared;
mod storage;
#[cfg(test)]
pub(crate) mod tests;
mod write;
mod writer;

pub use constraint::Constraint;
pub use disk::{Disk, OpenError, Snapshot};
pub use event::{Change, Event, watch_line, watch_line_ends};
pub use feed::{Changes, Feed};
pub use history::{EventLog, History, HistoryExpired};
pub use machine::Machine;
pub use memory::Memory;
pub use page::{Page, Pager, Visitor};
pub use shared::Store;
pub use storage::{Read, StorageError, Tables};
pub use wasmbed_files::KeyFileError;
pub use write::{Applied, ApplyError, Operation, Outcome, Write};
pub use writer::CommitReport;
