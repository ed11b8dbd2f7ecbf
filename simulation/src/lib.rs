//! The whole system on one thread, from one seed: devices with the real engine, gateways, a controller and the embedded
//! API's store, in virtual time, with everything that can fail failing.
//!
//! It may not hold logic that a process also needs: it carries bytes, objects and answers between the real parts, delays
//! them, loses them, cuts power, and checks what must hold at every step ([`invariants`]). Inside a session bytes arrive in
//! order up to a cut; a peer may go silent half-open; calls to the API answer 409, 429 and 5xx, or are done and their answer
//! is lost; watches lag and expire; flash loses power at any write; gateways and the controller crash at any step.
//!
//! `cargo run -p wasmbed-simulation -- --seed N` replays a seed.

#![forbid(unsafe_code)]

mod api;
mod controller;
mod device;
mod gateway;
mod invariants;
mod random;
mod world;

pub use invariants::Violation;
pub use world::{Summary, run};
