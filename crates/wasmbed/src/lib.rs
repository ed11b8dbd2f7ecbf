//! The parts of the host binary that other programs of this project use too.
//!
//! It may not talk to a device or to Kubernetes: those are the processes' own crates.

pub mod config;
pub mod module;
