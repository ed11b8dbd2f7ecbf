//! The device's brain: the session with a gateway, convergence to the desired set, and the modules and state behind it,
//! as a state machine that is fed inputs and asked for outputs.
//!
//! It may not know an engine, a clock, flash or sockets: `now_ms` is an argument, random numbers come from the caller,
//! storage and applications are effects with completions, the network is bytes.
//!
//! # Contract
//! An [`Agent`] does nothing by itself. Its caller uses four kinds of methods:
//!
//! - *Inputs*, `handle_*`: what happened to the link, to storage, to a run, and that time has passed. `now_ms` comes from one
//!   monotonic clock; a value lower than the last counts as the last. Inputs may come in any order and at any time: one that
//!   fits no longer (a frame after the end of a session, news of a run that is over) is ignored.
//! - *Outputs*, `poll_*`: after each input first [`Agent::poll_effect`] until there is none, then [`Agent::poll_transmit`]
//!   while the link has room, and [`Agent::poll_event`]. Each output is given once: an effect has to be performed, and a
//!   frame that is lost has to end the link. There is at most one [`Effect::Storage`] until
//!   [`Agent::handle_storage`] has its outcome, and at most one run of an application at a time.
//! - *Time*: [`Agent::handle_timeout`] no later than [`Agent::poll_timeout`], which changes with every input and output.
//! - *Getters*, and [`Agent::check`], which tests and simulations call after each input.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod agent;
mod application;
mod assignment;
pub mod backoff;
mod clock;
mod config;
mod connection;
mod decommission;
mod durability;
mod effect;
mod event;
pub mod failover;
mod identity;
mod invariant;
mod log;
mod mailbox;
mod messages;
mod pull;
mod record;
mod report;
mod request;
mod ring;
mod session;
mod settings;
pub mod storage;
mod store;
mod text;
mod trap;
mod why;

pub use agent::{Agent, SessionState};
pub use config::{Config, DeviceFacts, PeripheralFacts, Restored};
pub use decommission::{ORDER_PAUSE_MS, Ordered, PROOF_INTERVAL_MS};
pub use effect::{ApplicationEvent, DeviceUsage, Effect, RunId, Start};
pub use event::{EVENTS_MAX, Event};
pub use identity::{
    ChainFacts, IDENTITY_BYTES_MAX, IdentityError, JOIN_ANSWER_TIMEOUT_MS, JOINING_MS_MAX, JoinDevice,
    KEY_BYTES_MAX, Presented, Provisioned, record::is_acknowledged,
};
pub use invariant::Invariant;
pub use messages::{Message, PublishError};
pub use pull::{RANGE_TIMEOUT_MS, READ_BACK_BYTES};
pub use record::STATE_BYTES_MAX;
pub use report::REPORT_INTERVAL_MS;
pub use request::ASSIGNMENT_TIMEOUT_MS;
pub use session::{
    BAD_FRAMES_MAX, CLOSE_TIMEOUT_MS, CONNECT_TIMEOUT_MS, HEARTBEAT_INTERVAL_MS, PAUSE_MS_MIN,
    RETRY_AFTER_MS_MAX, WELCOME_TIMEOUT_MS,
};
pub use text::clip;
pub use trap::{TRAPS_WAITING_MAX, Trapped, TrappedFrame};

/// SHA-256 of a module's bytes.
#[must_use]
pub fn module_digest(bytes: &[u8]) -> wasmbed_protocol::ModuleDigest {
    use sha2::Digest as _;
    wasmbed_protocol::ModuleDigest(sha2::Sha256::digest(bytes).into())
}

/// [`module_digest`] of a module of which a part at a time is at hand.
#[derive(Clone, Debug, Default)]
pub struct ModuleHasher(sha2::Sha256);

impl ModuleHasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        sha2::Digest::update(&mut self.0, bytes);
    }

    /// The digest of all bytes.
    #[must_use]
    pub fn finish(self) -> wasmbed_protocol::ModuleDigest {
        wasmbed_protocol::ModuleDigest(sha2::Digest::finalize(self.0).into())
    }
}

/// SHA-256 of an encoded spec.
#[must_use]
pub fn spec_hash(spec: &[u8]) -> wasmbed_protocol::SpecHash {
    use sha2::Digest as _;
    wasmbed_protocol::SpecHash(sha2::Sha256::digest(spec).into())
}
