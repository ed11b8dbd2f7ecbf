//! The Linux shell around a device's supervisor: TLS connections, files and the host's clock, random source and sensors,
//! for one device or for a fleet of simulated ones in one process.
//!
//! It may not decide what a device does (the agent and the supervisor do), and holds nothing that a board with other
//! hardware would need again.

#![forbid(unsafe_code)]

mod config;
mod counters;
mod device;
pub mod fleet;
mod identity;
mod link;
mod log;
mod mailbox;
mod peripherals;
mod platform;
mod reactor;
mod resolve;
pub mod storage;
mod uart;
mod watchdog;

pub use config::{BoardConfig, DeviceConfig, DeviceError, DeviceIdentity, IssueError};
pub use counters::Progress;
pub use device::{Handle, Stop, run, start};
pub use peripherals::HostPeripherals;
