//! Compares the embedded Kubernetes API with the real one: requests are sent to both, and their answers compared after
//! values that must differ (uids, times, versions) were replaced by their rank.
//!
//! It may not know the right answer to a request: that is the real API server's. Any difference is either listed in
//! `allowed.yaml`, by name and with a reason, or a failure.

#![forbid(unsafe_code)]

pub mod allowed;
pub mod client;
pub mod compare;
pub mod corpus;
pub mod docs;
pub mod normal;
pub mod programs;
pub mod random;
pub mod run;
pub mod scope;
pub mod servers;
