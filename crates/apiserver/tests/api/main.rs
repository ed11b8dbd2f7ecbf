//! The server as its clients see it: kubectl, kube-rs, and hands that write requests of their own.

mod clients;
mod kubectl;
mod protocol;
mod support;
