//! A Kubernetes control plane for tests: the embedded API server or the real kube-apiserver with etcd, on free ports, with
//! TLS, Wasmbed's definitions and a kubeconfig for each role.
//!
//! It may not replace either of them, and it leaves nothing behind: processes and files are removed with the test, however
//! it ends.

#![forbid(unsafe_code)]

mod cluster;
mod embedded;
mod etcd;
mod folder;
mod kubectl;
mod kubernetes;
mod pool;
mod ports;
mod process;
mod seed;
mod setup;
mod start;
mod tools;
mod user;

pub use cluster::{Cluster, ControlPlane, Options, Part};
pub use folder::Folder;
pub use kubectl::Kubectl;
pub use pool::Borrowed;
pub use ports::Port;
pub use process::{Process, last_words, wasmbed};
pub use tools::{collect_seldom, helm, kube_score, kubernetes};
pub use user::User;

/// Namespace of gateways, controllers and their Leases.
pub const SYSTEM_NAMESPACE: &str = "wasmbed-system";
/// Namespace whose owner lets controllers read Secrets; no other does.
pub const SECRETS_NAMESPACE: &str = "default";
