//! Why the process cannot start or go on.

use std::net::SocketAddr;

/// Why a controller could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Configuration: a value that can't be used.
    #[error("{0}")]
    Config(String),
    /// Configuration: certificates that can't be used.
    #[error("TLS: {0}")]
    Tls(#[from] wasmbed_pki::tls::TlsError),
    /// Configuration: certificate files that can't be used.
    #[error(transparent)]
    Identity(#[from] wasmbed_pki::IdentityError),
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
    /// Bug: a task of the controller panicked or ended early.
    #[error("a part of the controller stopped: {0}")]
    Task(String),
}
