//! What gateways and controllers decide: sessions and their queues, status writes, placement, fit, revisions and the
//! aggregation of reports, whether a device or a person gets a certificate, and what a person may do.
//!
//! It may not await, lock, spawn, read a clock or do I/O: inputs are `handle_*`, outputs `poll_*`, and time is the first
//! argument.

#![forbid(unsafe_code)]

#[macro_use]
mod invariant;

pub mod access;
mod backoff;
mod due;
pub mod election;
pub mod fleet;
pub mod gateway;
pub mod gateway_api;
mod harmless;
mod hidden;
mod intern;
mod key;
pub mod kubernetes;
pub mod login;
pub mod signer;
#[cfg(test)]
mod testing;
mod time;

pub use backoff::Backoff;
pub use harmless::harmless;
pub use hidden::Hidden;
pub use key::ObjectKey;
pub use time::{Now, UnixTime};
