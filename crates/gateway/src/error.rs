//! Why the process cannot start or go on.

use std::net::SocketAddr;

use wasmbed_pki::{IdentityError, tls::TlsError};

use crate::store::StoreError;

/// Why a gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Configuration: a certificate or key file.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Configuration: certificates that TLS can't use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Configuration: the certificate is another's.
    #[error("the certificate in {path} is for {found}, not for {expected}")]
    WrongCertificate {
        /// Of the certificate.
        path: String,
        /// What it is for.
        found: String,
        /// What it should be for.
        expected: String,
    },
    /// Configuration or I/O: the port.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What happened.
        source: std::io::Error,
    },
    /// I/O: the disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Configuration: the Kubernetes client.
    #[error("the Kubernetes client can't be made: {0}")]
    Kubernetes(#[from] Box<kube::Error>),
}
