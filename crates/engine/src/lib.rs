//! The interpreter of a Wasmbed device: it validates a WebAssembly module and translates it to code of its own in one
//! pass, in memory that its owner hands in, and executes that code in slices that fuel bounds.
//! It may not know a host function, a capability, WASI or the device: imports are asked of [`Imports`], a call of one ends
//! a step. It allocates nothing, and its use of the native stack is a constant.
//!
//! ```text
//!   module -> Loader -- step(work) --> More | Done -> Instance -- call -> step(fuel) --+--> Done, results
//!                                                        ^                             +--> OutOfFuel: step again
//!                                                        +---------- answer -----------+--> HostCall
//!                                                                                      +--> Trap
//! ```
//!
//! Layers, lower first: region, types <- reader <- machine <- loader (`load`: sections; `translate`: functions) <- executor
//! (`execute`, `rare` beside it) <- instance. Operators are defined in `operators/table.rs`.
#![no_std]

#[cfg(test)]
extern crate std;

mod error;
mod execute;
mod frames;
mod instance;
mod load;
mod machine;
mod rare;
mod reader;
mod region;
mod trace;
mod translate;
mod types;

/// What the build script makes of the table of operators.
mod generated {
    /// A numeric operator that becomes one operator with slots for operands.
    pub(crate) struct Numeric {
        /// Its number, among the rare ones or the others.
        pub(crate) operator: u16,
        /// Whether it is a rare one.
        pub(crate) rare: bool,
        /// Types by their bytes; 0 where there is none.
        pub(crate) a: u8,
        pub(crate) b: u8,
        pub(crate) result: u8,
    }

    include!(concat!(env!("OUT_DIR"), "/operators.rs"));
}

/// Name and version, as a device reports it. Engines of one version make the same of a module, byte for byte.
pub const NAME: &str = concat!("wasmbed-engine ", env!("CARGO_PKG_VERSION"));

pub use error::{Error, ErrorKind};
pub use instance::{CallError, Instance, Step, Trap};
pub use load::{Config, Imports, Loader, Progress};
pub use reader::Source;
pub use trace::{FRAMES_MAX, FUNCTION_NAME_BYTES_MAX, StackFrame, Trace};
pub use types::{FunctionType, Value, ValueType};
