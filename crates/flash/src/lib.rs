//! A microcontroller's storage on memory-mapped NOR flash: its identity, the agent's records and its modules, so that a
//! loss of power at any write leaves what was acknowledged. A [`Medium`] is all that a board implements.
//!
//! It may not know a board's flash controller, decide what is stored, or trust what it finds: any content of the flash is
//! a start.
//!
//! ```text
//! [identity][records: segments of one log, used in turn][modules: runs of erase blocks, bytes only]
//! ```
//! The log alone records what is where: one entry makes a record new, a module committed, a run free.
//! A module's bytes are contiguous and have nothing between them, so [`FlashStorage`] lends them without a copy.
//!
//! Kept crates do not fit under the records: `sequential-storage` 8.0 holds items of at most 65,535 bytes within one erase
//! block, while a state record has up to 97,984 and a block may have 4,096; it also takes a block for blank by its first and
//! last word, which an interrupted erase can leave blank with old bits between. `ekv` 1.0 takes page and value sizes from
//! Cargo features or variables of the whole build, where one build here holds several geometries. Both were read for this, not
//! run.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod entry;
mod geometry;
mod log;
mod medium;
pub mod provision;
mod runs;
#[cfg(feature = "simulated")]
pub mod simulated;
mod storage;

pub use geometry::GeometryError;
pub use log::{Invariant, NOTE_BYTES_MAX};
pub use medium::{Medium, MediumError};
pub use storage::{FlashStorage, OpenError};
pub use wasmbed_board_data::Geometry;
