//! Why there is no connection, and whose fault that is.

use rustls::Error;
use thiserror::Error as ThisError;
use wasmbed_identity::{Alert, CertificateError, Constraint, Refusal};

/// No reason is longer, bytes.
pub const REASON_BYTES_MAX: usize = 240;

/// Why a client can't be made, or a session ended. The variants name who is at fault.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum TlsError {
    /// Configuration: what the device was provisioned with is not usable.
    #[error("this device's credentials are not usable: {0}")]
    Configuration(#[from] CredentialsError),
    /// Peer: its certificate or its identity was refused here.
    #[error("{}", .0.describe("gateway"))]
    PeerRefused(#[from] Refusal),
    /// Peer: what it sent is not TLS 1.3 as this device speaks it.
    #[error("{0}")]
    PeerMisbehaved(#[from] Misbehavior),
    /// Peer: it speaks TLS 1.2, or has other cryptography.
    #[error("the gateway offers no TLS 1.3 with X25519, ChaCha20-Poly1305 and ECDSA P-256")]
    PeerIncompatible,
    /// Peer: it refused this device.
    #[error("the gateway refused with the alert {0}")]
    PeerAlert(Alert),
    /// Network, or a peer that is another than at the beginning: a record was changed on its way.
    #[error("a record from the gateway is not authentic")]
    NotAuthentic,
    /// Bug: on this side.
    #[error("TLS failed on this device: {0}")]
    Bug(&'static str),
}

/// Why credentials are not usable.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum CredentialsError {
    /// The private key is of another kind or form.
    #[error("the private key is not ECDSA P-256 in PKCS#8 v1")]
    Key,
    /// There is no certificate.
    #[error("no certificate")]
    NoCertificate,
    /// There are too many.
    #[error("more than 4 certificates in the chain")]
    ChainLength,
    /// The leaf can't be understood.
    #[error("the certificate is malformed")]
    Malformed,
    /// The private key is another's.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The leaf has no SPIFFE id, or more than one.
    #[error("{0}")]
    Id(CertificateError),
    /// The leaf's SPIFFE id has another role.
    #[error("the certificate is not a device's")]
    Role,
    /// They are for another fleet than the one that the client connects to.
    #[error("the certificate is of another trust domain")]
    TrustDomain,
    /// There is no root, or there are too many.
    #[error("not one or two services roots")]
    RootCount,
    /// A root can't be understood.
    #[error("a services root is malformed")]
    Root,
}

/// What a gateway does that none of ours does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
pub enum Misbehavior {
    /// It lets anyone connect.
    #[error("the gateway did not ask for this device's certificate")]
    NoClientAuthentication,
    /// It does not speak the device protocol.
    #[error("the gateway did not agree on the ALPN name wasmbed/1")]
    Alpn,
    /// What it sent is not TLS 1.3.
    #[error("the gateway does not speak TLS 1.3 as it should")]
    Protocol,
    /// It sends more at a time than a board has room for.
    #[error("a record from the gateway is larger than {bytes_max} bytes")]
    TooLarge {
        /// What there is room for.
        bytes_max: usize,
    },
}

impl TlsError {
    /// What rustls reports of a connection when the verifier did not refuse.
    pub(crate) fn from_rustls(error: &Error) -> Self {
        match error {
            Error::AlertReceived(alert) => Self::PeerAlert(Alert(u8::from(*alert))),
            Error::InvalidCertificate(rustls::CertificateError::BadSignature) => Refusal::Proof.into(),
            Error::InvalidCertificate(_) => Refusal::Constraint(Constraint::Other).into(),
            Error::NoCertificatesPresented => Refusal::NoCertificate.into(),
            Error::NoApplicationProtocol => Misbehavior::Alpn.into(),
            Error::PeerIncompatible(_) => Self::PeerIncompatible,
            Error::DecryptError => Self::NotAuthentic,
            Error::PeerSentOversizedRecord => Misbehavior::TooLarge { bytes_max: 16_384 }.into(),
            Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::InvalidMessage(_)
            | Error::PeerMisbehaved(_) => Misbehavior::Protocol.into(),
            Error::EncryptError => Self::Bug("a record could not be encrypted"),
            Error::FailedToGetRandomBytes => Self::Bug("no randomness"),
            Error::FailedToGetCurrentTime => Self::Bug("no time"),
            Error::HandshakeNotComplete => Self::Bug("used before the handshake was over"),
            Error::General(_) => Self::Bug("in general"),
            // The enum may grow.
            _ => Self::Bug("for a reason without a name"),
        }
    }
}
