//! What can go wrong with keys and certificates, and whose fault it is.

use std::path::PathBuf;

use thiserror::Error;

/// Creating or opening an authority, or issuing from it, failed.
#[derive(Debug, Error)]
pub enum PkiError {
    /// Configuration: a name, address or trust domain that can't stand in a certificate.
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
        problem: String,
    },
}

/// A certificate could not be understood. The one who presented it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// Not a DER certificate.
    #[error("not an X.509 certificate")]
    Malformed,
    /// A SPIFFE certificate names exactly one URI.
    #[error("the certificate names {0} URIs, not exactly one")]
    UriCount(usize),
    /// The one URI is no id of ours.
    #[error(transparent)]
    Spiffe(#[from] SpiffeError),
}

/// A text is not a SPIFFE id of the form `spiffe://TRUST/ns/NAMESPACE/ROLE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{id:?} is not spiffe://TRUST/ns/NAMESPACE/ROLE/NAME: {problem}")]
pub struct SpiffeError {
    /// The text, cut to 256 bytes.
    pub id: String,
    /// What is wrong with it.
    pub problem: &'static str,
}
