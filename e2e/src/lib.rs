//! What the end-to-end tests are made of: real processes on free ports, a real kubectl, and waits for states that end with
//! what was there instead.
//!
//! It may not stand in for anything: no process is replaced, no status is made up.

#![forbid(unsafe_code)]

pub mod board;
mod disk;
mod failover;
mod faults;
pub mod fixtures;
mod machine;
mod messages;
mod metrics;
pub mod mosquitto;
mod objects;
mod planes;
mod settings;
mod site;
mod turn;
mod up;
mod wait;

pub use disk::{Filler, SmallDisk};
pub use failover::Failover;
pub use faults::{FaultyApi, Passed};
pub use machine::{GatewayOptions, Machine};
pub use messages::{messages, messages_until, publish};
pub use metrics::{get, metric, metric_at_least, until_ready};
pub use objects::{application, device, digest, module};
pub use planes::run;
pub use settings::settings_until;
pub use site::{CONTROLLERS, GATEWAYS, Site, SiteOptions};
pub use turn::Turn;
pub use up::Up;
pub use wait::{TIMEOUT, until, until_at};
pub use wasmbed_testbed::{ControlPlane, Kubectl, Part, Process, wasmbed};
