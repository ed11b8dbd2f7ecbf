//! The sandbox of a Wasmbed device: it scans a module before any engine sees it, loads it into an arena of its own, runs
//! up to ten applications in slices of at most 5 ms and answers their host calls.
//! It may not know the network, the device protocol, storage or a clock: time, randomness, logs, key-value data and
//! peripherals come in through [`Host`].
//!
//! The scan is a crate of its own, `wasmbed-scan`, re-exported here as [`scan`](mod@scan), and so is what there is to say of buses,
//! [`peripherals`]. Layers, lower first:
//!
//! ```text
//! scan (host interface, scan) <- engine (trait and engines) <- functions (of the host interface, on host) <- sandbox
//! ```
//!
//! A run:
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

pub mod engine;
mod functions;
pub mod host;
pub mod sandbox;
pub use wasmbed_peripherals as peripherals;
pub use wasmbed_scan as scan;

pub use host::{
    Answer, AppId, Completion, Edges, Host, KeyValueError, NoPeripherals, PeripheralError, Peripherals,
    Published,
};
pub use sandbox::{
    Ending, Event, Exceeded, Limits, LoadError, Metering, News, Program, Runtime, RuntimeConfig, Usage,
};
pub use scan::{
    Capabilities, Capability, Features, HostFunction, ModuleInfo, Refusal, ScanError, ScanLimits, Value,
    ValueType, host_functions, scan,
};

pub use engine::interpreter::Interpreter;
#[cfg(feature = "spacewasm")]
pub use engine::spacewasm::Spacewasm;
#[cfg(feature = "wasmi")]
pub use engine::wasmi::Wasmi;
pub use engine::{FRAMES_MAX, FUNCTION_NAME_BYTES_MAX, ProgramTrap, StackFrame, Trace, Trap};
