//! The whole system on one thread: devices with the real engine, several gateways, several controllers of which
//! one leads, and the embedded API's store, in virtual time, with people who change their minds and everything that can
//! fail failing.
//!
//! It may not hold logic that a process also needs: it carries bytes, objects and answers between the real parts, delays
//! them, loses them, cuts power, and checks what must hold at every step ([`Violation`]). Inside a session bytes arrive in
//! order up to a cut; a peer may go silent half-open; calls to the API answer 409, 429 and 5xx, or are done and their answer
//! is lost; watches lag, expire, or go dumb; flash loses power at any write; gateways and controllers crash, stop, stand still or are
//! cut off at any step, and their wall clocks jump; devices join, and people approve or deny that; sets arrive after their sender lost the lead.
//!
//! A run follows from a [`Scenario`], which is a value: `transition` has what people do and what fails, `draw` how runs are drawn from a
//! seed, `tree` what one can be shrunk to, `shrink` how one that fails becomes small, `lines` how it is written down. `world` moves time, `people` and `faults` carry
//! transitions out, `line`, `wire`, `clock` and the disks stand between a process and the API, a device and its gateway, a machine and the time, a process and its storage, and fail there.
//! `invariants` and `traps` are what must hold at every step, `reference` what should come of it in the end, and `assertions` compares.
//!
//! proptest's state machine tests are not used: they keep a model beside the system so that each transition can have a condition.
//! Here none has one, and the model is worked out from what people left in the API.
//!
//! `cargo run -p wasmbed-simulation -- --seed N` plays a seed and shrinks it if it fails; `--replay FILE` plays what was written down.

#![forbid(unsafe_code)]

mod api;
mod assertions;
mod broker;
mod certificates;
mod clock;
mod controller;
mod decommissions;
mod device;
mod draw;
mod faults;
mod gateway;
mod gateway_disk;
mod identities;
mod invariants;
mod joining;
mod line;
mod lines;
mod messages;
mod names;
mod namesake;
mod network;
mod people;
mod presence;
mod random;
mod reference;
mod sender;
mod settings;
mod shrink;
mod signer;
mod transition;
mod traps;
mod tree;
mod weather;
mod wire;
mod world;

pub use invariants::Violation;
pub use lines::LinesError;
pub use shrink::{Failure, Shrunk, play, play_seed};
pub use transition::Scenario;
pub use world::Summary;

/// The command that plays a seed again.
#[must_use]
pub fn replay(seed: u64) -> String {
    format!("cargo run -p wasmbed-simulation -- --seed {seed}")
}
