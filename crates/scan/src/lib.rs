//! What a device offers to a module, and the scan that holds a module against it before any engine sees a byte of it.
//!
//! [`interface`] is the host interface: value types, capabilities and the one table of host functions. The scan checks
//! sections, counts, operators, imports and entry. It is pure and linear in the module's size, goes in steps of bounded work
//! where something else is to happen meanwhile, and is the same code on a device, in `wasmbed module check` and in the
//! controller's fit check. It closes what engines leave open (counts cut to
//! 16 bits, loading that is quadratic in exports and in groups of locals, `_start` that is a re-exported import or returns
//! a value) and its errors name what is wrong, where an engine answers "out of memory". It does not validate types: that
//! is the engine's job.
//!
//! It may not depend on an engine, on the sandbox, or on any other crate.
//!
//! ```text
//! interface <- features, error, limits, info <- state, reader <- code <- sections
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod code;
mod error;
mod features;
mod info;
pub mod interface;
mod limits;
#[cfg(test)]
mod metered;
mod operators;
mod reader;
mod sections;
mod state;

pub use error::{Count, ImportType, Refusal, ScanError};
pub use features::Features;
pub use info::{Entry, EntryKind, Import, LOAD_FIXED_BYTES, LOAD_PERMILLE, ModuleInfo};
pub use interface::{Capabilities, Capability, HostFunction, Value, ValueType, host_functions};
pub use limits::{CONTROL_FRAMES, OPERANDS, STACK_SLOTS, ScanLimits, TABLE_GROWTH};
pub use sections::scan;
pub use state::Scan;
