//! The sandbox of a Wasmbed device: it scans a module before any engine sees it, loads it into an arena of its own, runs
//! up to ten applications in slices of at most 5 ms and answers their host calls.
//! It may not know the network, the device protocol, storage or a clock: time, randomness, logs, key-value data and
//! peripherals come in through [`Host`].
//!
//! ```text
//! load: scan -> check limits and capabilities -> reserve arena -> engine
//!
//!          +--------- slice ends (fuel) ---------+
//!          v                                     |
//!   load -> runnable --> slice --> host call answered --+--> runnable
//!              ^                        |               |
//!              |                 wait / pending         +--> ended: exit, trap, limit -> Event, memory freed
//!              +---- due / complete() <-+
//! ```
#![no_std]

extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

mod capability;
pub mod engine;
pub mod host;
pub mod sandbox;
pub mod scan;
mod value;

pub use capability::{Capabilities, Capability};
pub use host::{
    Answer, Host, HostFunction, KeyValueError, NoPeripherals, PeripheralError, Peripherals, host_functions,
};
pub use sandbox::{
    AppId, Completion, Ending, Event, Exceeded, Limits, LoadError, Metering, Program, Runtime, RuntimeConfig,
    Usage,
};
pub use scan::{Features, ModuleInfo, Refusal, ScanError, ScanLimits, scan};
pub use value::{Value, ValueType};

#[cfg(feature = "spacewasm")]
pub use engine::spacewasm::Spacewasm;
#[cfg(feature = "wasmi")]
pub use engine::wasmi::Wasmi;
