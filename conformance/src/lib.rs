//! The embedded Kubernetes API is held to the real one: requests are sent to both and the answers compared, after what
//! must differ (uids, times, versions) was replaced by its place in an order.
//!
//! It may not know how a request ought to be answered: the real API server says that. What the embedded one answers
//! otherwise stands by name, with its reason, in `allowed.yaml`, or is a failure.

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
