//! The whole system on one thread, from one seed: devices with the real engine, several gateways, several controllers of which
//! one leads, and the embedded API's store, in virtual time, with people who change their minds and everything that can
//! fail failing.
//!
//! It may not hold logic that a process also needs: it carries bytes, objects and answers between the real parts, delays
//! them, loses them, cuts power, and checks what must hold at every step ([`invariants`]). Inside a session bytes arrive in
//! order up to a cut; a peer may go silent half-open; calls to the API answer 409, 429 and 5xx, or are done and their answer
//! is lost; watches lag, expire, or go dumb; flash loses power at any write; gateways and controllers crash, stop, stand still or are
//! cut off at any step; sets arrive after their sender lost the lead.
//!
//! `world` moves time, `people` and `faults` are the transitions, `invariants` what must hold at every step, `reference` what
//! should come of it in the end, and `assertions` compares.
//!
//! `cargo run -p wasmbed-simulation -- --seed N` replays a seed.

#![forbid(unsafe_code)]

mod api;
mod assertions;
mod controller;
mod device;
mod faults;
mod gateway;
mod invariants;
mod names;
mod namesake;
mod network;
mod people;
mod presence;
mod random;
mod reference;
mod sender;
mod world;

pub use invariants::Violation;
pub use world::{Summary, run};

/// The command that plays a seed again.
#[must_use]
pub fn replay(seed: u64) -> String {
    format!("cargo run -p wasmbed-simulation -- --seed {seed}")
}
