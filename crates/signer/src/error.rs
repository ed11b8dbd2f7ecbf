//! Why the process cannot start or go on.

use std::net::SocketAddr;

/// Why a signer could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Configuration: an authority that can't be used.
    #[error(transparent)]
    Pki(#[from] wasmbed_pki::PkiError),
    /// Configuration: files of certificates that can't be used.
    #[error(transparent)]
    Identity(#[from] wasmbed_pki::IdentityError),
    /// Configuration: a root that is not a certificate.
    #[error(transparent)]
    Root(#[from] crate::VerifierError),
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
    /// Bug: a task of the signer panicked or ended early.
    #[error("a part of the signer stopped: {0}")]
    Task(String),
}
