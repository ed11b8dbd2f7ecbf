//! How gateways and controllers call the Kubernetes API: under their own name, within a time limit, and with one
//! reading of how a call ended. Events and Leases are written here for both, and it is asked here what people may do.
//!
//! It may not decide what is written: `wasmbed_control` does.

#![forbid(unsafe_code)]

mod call;
mod caller;
mod event;
mod lease;
mod review;
mod secret;
mod watched;

pub use call::{CallError, describe_error, describe_watch_error, outcome};
pub use caller::{CALL_TIMEOUT, Caller, Object, bounded};
pub use lease::{Claimed, LeaseClient};
pub use review::{ReviewError, Reviewer};
pub use secret::SecretData;
pub use watched::{Unreadable, Watched};
