//! The controller process: it watches the Kubernetes API, hands what it sees to [`wasmbed_control::fleet`], and carries
//! out what that decides: sets and modules to gateways, statuses, Events and finalizers to Kubernetes.
//!
//! It may not decide anything about placement, fit, revisions or statuses, and may not talk to devices.

#![forbid(unsafe_code)]

mod config;

pub use config::{Config, GatewayConfig, HealthConfig, LeaseConfig, ReconciliationConfig};

use std::net::SocketAddr;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Why a controller could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Configuration: a value that can't be used.
    #[error("{0}")]
    Config(String),
    /// Configuration: certificates that can't be used.
    #[error("TLS: {0}")]
    Tls(#[from] wasmbed_pki::tls::TlsError),
    /// Environment: the health port can't be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Environment: the Kubernetes client can't be built.
    #[error("Kubernetes client: {0}")]
    Kube(#[from] kube::Error),
    /// Bug: a task of the controller ended early.
    #[error("a part of the controller stopped: {0}")]
    Task(String),
}

/// A started controller.
pub struct Running {
    /// Where health and metrics are served.
    pub health: SocketAddr,
    join: JoinHandle<Result<(), Error>>,
}

impl Running {
    /// Waits for the end: after `shutdown` was cancelled, or because a part failed.
    pub async fn join(self) -> Result<(), Error> {
        self.join.await.unwrap_or_else(|error| Err(Error::Task(error.to_string())))
    }
}
