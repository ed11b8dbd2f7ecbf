//! The host interface: the types of WebAssembly 1.0, the capabilities, and the table of host functions.
//!
//! `docs/host-interface.md` describes every function; a test holds it against [`host_functions`] both ways.

mod capability;
mod function;
mod value;

pub use capability::{Capabilities, Capability};
pub use function::{ARGUMENTS_MAX, Call, HostFunction, WasiCall, host_functions};
pub(crate) use value::Signature;
pub use value::{Value, ValueType};
