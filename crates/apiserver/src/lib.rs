//! The embedded Kubernetes API: a fixed set of kinds, served over mutual TLS from a transactional store on one
//! machine's disk, so that kubectl, kube-rs and controllers work where there is no cluster.
//!
//! It may not know what a Device or an Application means: kinds arrive as CustomResourceDefinitions, permissions as
//! [`Policy`]. The rooms: [`kinds`] (what is served), [`schema`] (pruning, defaults, validation), [`resource`] (what a
//! create, update, patch, apply or delete does to an object), [`store`] (revisions, history, disk), `access` (who may do
//! what), `http` (the protocol). [`resource`], [`schema`] and the machine in [`store`] have neither clock nor socket.
//!
//! What it doesn't offer, it refuses with a status that says so: strategic merge patches that merge
//! lists, foreground deletion (nothing collects dependents), impersonation, kinds defined at run time, more than one
//! served version of a kind, protobuf for custom kinds.

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
pub use config::{Config, Limits, ServerTls};
pub use http::{Certificates, Server, ServerError, read_untrusted, serve, start};
