//! What can go wrong with keys and certificates, and whose fault it is.

use std::path::PathBuf;

use rustls_pki_types::pem;
use thiserror::Error;
use wasmbed_identity::CertificateError;

/// Creating or opening an authority, or issuing from it, failed.
#[derive(Debug, Error)]
pub enum PkiError {
    /// Configuration: a name, address or trust domain that a certificate can't carry.
    #[error("{what} {value:?} is not usable: {expected}")]
    Name {
        /// What the value is.
        what: &'static str,
        /// The value.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// I/O: a file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Configuration: a file does not hold what it should.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Bug, or the machine has no randomness: a certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

/// An identity could not be read from its files.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// I/O: a file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Configuration: a file does not hold what it should.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: PemError,
    },
}

/// Configuration: PEM texts that are not an identity or a list of certificates.
#[derive(Debug, Error)]
pub enum PemError {
    /// The certificates are not PEM.
    #[error("is not PEM: {0}")]
    Syntax(pem::Error),
    /// There is no certificate.
    #[error("holds no PEM certificate (BEGIN CERTIFICATE)")]
    NoCertificate,
    /// The leaf can't be understood.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// There is no private key.
    #[error("holds no PEM private key: {0}")]
    Key(pem::Error),
    /// The private key is of a kind that TLS does not use here.
    #[error("holds a private key of a kind that is not supported; use ECDSA P-256")]
    KeyKind,
    /// The private key is another's.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
}
