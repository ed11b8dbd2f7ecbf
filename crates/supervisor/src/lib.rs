//! The one loop of a device: it joins the agent with the runtime and the board, gives every application its slices, and
//! feeds the watchdog while it makes progress.
//!
//! It may not decide what runs (the agent does), know an engine (the runtime does) or touch hardware (the platform does).

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod platform;
pub mod supervisor;

pub use supervisor::{Config, Supervisor};
