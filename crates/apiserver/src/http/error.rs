//! Why the server can't start or continue.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::kinds::DefinitionError;
use crate::status::Status;
use crate::store::{OpenError, StorageError};

/// Why the server can't start or continue.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Configuration: a definition can't be served.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// I/O: the store can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// I/O: the store can't be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A bug, or objects of an incompatible version: the server's own objects are refused.
    #[error("the built-in objects can't be written: {0}")]
    Seed(Status),
    /// Configuration or I/O: the address can't be bound.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Error of the system.
        #[source]
        error: std::io::Error,
    },
    /// I/O: the audit log can't be opened.
    #[error("the audit log {}: {error}", path.display())]
    AuditLog {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        #[source]
        error: std::io::Error,
    },
    /// Configuration: certificates or keys can't be used.
    #[error("TLS: {0}")]
    Tls(String),
}
