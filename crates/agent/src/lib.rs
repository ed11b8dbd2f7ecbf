//! The device's brain: the session with a gateway, convergence to the desired set, and the modules and state behind it,
//! as a state machine that is fed inputs and asked for outputs.
//!
//! It may not know an engine, a clock, flash or sockets: `now_ms` is an argument, random numbers come from the caller,
//! storage and applications are effects with completions, the network is bytes.
//!
//! After any input the caller drains [`Agent::poll_effect`], then [`Agent::poll_transmit`] while the link has room, and
//! calls [`Agent::handle_timeout`] no later than [`Agent::poll_timeout`].

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod agent;
mod application;
pub mod backoff;
mod config;
mod durability;
mod effect;
mod event;
pub mod failover;
mod log;
mod pull;
mod record;
mod session;
pub mod storage;
mod store;
mod text;

pub use agent::{ASSIGNMENT_TIMEOUT_MS, Agent, REPORT_INTERVAL_MS, SessionState};
pub use config::{Config, DeviceFacts, Restored};
pub use effect::{ApplicationEvent, DeviceUsage, Effect, RunId, Start};
pub use event::{EVENTS_MAX, Event};
pub use log::{LOG_QUEUE_BYTES_MAX, LOG_QUEUE_LINES_MAX};
pub use pull::{RANGE_TIMEOUT_MS, READ_BACK_BYTES};
pub use record::STATE_BYTES_MAX;
pub use session::{
    BAD_FRAMES_MAX, CLOSE_TIMEOUT_MS, CONNECT_TIMEOUT_MS, HEARTBEAT_INTERVAL_MS, PAUSE_MS_MIN,
    RETRY_AFTER_MS_MAX, WELCOME_TIMEOUT_MS,
};
pub use text::clip;

/// SHA-256 of a module's bytes.
#[must_use]
pub fn module_digest(bytes: &[u8]) -> wasmbed_protocol::ModuleDigest {
    use sha2::Digest as _;
    wasmbed_protocol::ModuleDigest(sha2::Sha256::digest(bytes).into())
}

/// SHA-256 of an encoded spec.
#[must_use]
pub fn spec_hash(spec: &[u8]) -> wasmbed_protocol::SpecHash {
    use sha2::Digest as _;
    wasmbed_protocol::SpecHash(sha2::Sha256::digest(spec).into())
}
