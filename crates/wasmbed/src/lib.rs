//! What the host binary is made of, for the binary itself and for the project's other programs.
//!
//! It may not hold logic of a process: subcommands read configuration, start processes, and talk to the Kubernetes API and to
//! gateways as a person would.

pub mod apply;
pub mod cluster;
pub mod config;
pub mod crds;
pub mod get;
pub mod kubeconfig;
pub mod layout;
pub mod logs;
pub mod module;
mod output;
pub mod pki;
pub mod signals;
