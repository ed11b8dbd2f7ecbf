//! The one loop of a device: it joins the agent with the runtime and the board, gives every application its slices, and
//! feeds the watchdog while it makes progress.
//!
//! It may not decide what runs (the agent does), know an engine (the runtime does) or touch hardware (the platform does).

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod arbiter;
mod background;
mod buses;
mod clock;
mod facts;
mod granted;
mod host;
mod identity;
mod instance;
mod journal;
mod key_value;
mod loading;
#[cfg(feature = "memory")]
pub mod memory;
mod module_bytes;
mod pins;
pub mod platform;
mod reason;
mod supervisor;
mod trace;
mod transfers;
mod uart;
mod wire;

pub use key_value::DATA_BYTES_MAX;
pub use supervisor::{Config, Supervisor};
