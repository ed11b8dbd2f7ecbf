//! What gateways and controllers decide: sessions and their queues, status writes, placement, fit, revisions and the
//! aggregation of reports.
//!
//! It may not await, lock, spawn, read a clock or do I/O: inputs are `handle_*`, outputs `poll_*`, time is an argument.

#![forbid(unsafe_code)]

pub mod election;
pub mod exchange;
pub mod fleet;
pub mod gateway;
mod now;
pub mod text;
mod time;
mod tokens;

pub use now::Now;
pub use time::UnixTime;
