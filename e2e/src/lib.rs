//! What the end-to-end tests are made of: real processes on free ports, a real kubectl, and waits for states that end with
//! what was there instead.
//!
//! It may not stand in for anything: no process is replaced, no status is made up.

#![forbid(unsafe_code)]

pub mod fixtures;
mod kubectl;
mod machine;
mod metrics;
mod objects;
mod process;
mod up;
mod wait;

pub use kubectl::Kubectl;
pub use machine::{GatewayOptions, Machine};
pub use metrics::{get, metric, metric_at_least};
pub use objects::{application, device, digest, module};
pub use process::{Process, wasmbed};
pub use up::Up;
pub use wait::{TIMEOUT, until};
