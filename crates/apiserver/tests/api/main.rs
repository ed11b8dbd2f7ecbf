//! The server as its clients see it: kubectl, kube-rs, and handwritten requests.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail where they stand")]

mod audit;
mod clients;
mod kubectl;
mod protocol;
mod shares;
mod support;
