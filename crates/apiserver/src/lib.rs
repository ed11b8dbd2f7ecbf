//! The embedded Kubernetes API: a fixed set of kinds, served over mutual TLS from a transactional store on one
//! machine's disk, so that kubectl, kube-rs and controllers work where there is no cluster.
//!
//! It may not know what a Device or an Application means: kinds arrive as CustomResourceDefinitions, permissions as
//! [`Policy`]. Modules depend on those before them only: [`status`] (errors of the protocol), [`schema`] (decoding,
//! pruning, defaults, validation), [`kinds`] (what is served), [`selector`], [`resource`] (what a create, update, patch,
//! apply or delete does to an object), [`store`] (revisions, history, disk), `access` (users and permissions), `http` (the
//! protocol). Modules up to the machine in [`store`] use neither clock nor socket. Server-side apply is the crate
//! `wasmbed-structured-merge`.
//!
//! Unsupported and refused with a status that says so: strategic merge patches that merge lists, foreground deletion
//! (there is no garbage collector), impersonation, kinds defined at run time, more than one served version of a kind,
//! protobuf for custom kinds.

#![forbid(unsafe_code)]

mod access;
mod config;
mod http;
pub mod kinds;
mod names;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod status;
pub mod store;
mod telemetry;
mod upkeep;

pub use access::{Policy, PolicyError};
pub use config::{AuditLog, Config, Limits, ServerTls};
pub use http::{Certificates, Server, ServerError, read_untrusted, serve, start};
pub use telemetry::describe as describe_metrics;
