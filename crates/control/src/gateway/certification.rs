//! What is said about certificates between these decisions and whoever carries them out.

use std::{net::IpAddr, sync::Arc};

use sha2::{Digest as _, Sha256};
use wasmbed_protocol::{DeviceUid, KeyHash};

use crate::ObjectKey;

/// SHA-256 of a client's certificate, DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateHash(pub [u8; 32]);

impl CertificateHash {
    /// Of a DER certificate.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

/// A client that has no certificate of the fleet; the handshake proved that it holds the key of the one that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoiningClient {
    /// Of its certificate.
    pub certificate: CertificateHash,
    /// Whose share of the places it draws on: its address, of IPv6 the network of 64 bits.
    pub source: IpAddr,
    /// Who it is.
    pub identity: JoiningIdentity,
}

/// Who a joining client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoiningIdentity {
    /// A device from a factory that is trusted.
    Factory {
        /// Its serial there.
        serial: String,
        /// The name of a Device that is made for it.
        device_name: String,
        /// Of its factory key.
        key: KeyHash,
        /// Its certificate, then the authorities below the factory root, DER.
        chain: Arc<[Vec<u8>]>,
    },
    /// Anyone who holds this key.
    Token {
        /// Of the key of the certificate.
        key: KeyHash,
    },
}

/// A certification request is not one that can be passed on. The device is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RequestFlaw(pub String);

/// Reads a certification request (PKCS #10, DER), verifies that it is signed by its own key, and gives that key. A pure function:
/// this crate knows no cryptography of certificates.
pub type ReadRequest = fn(&[u8]) -> Result<KeyHash, RequestFlaw>;

/// One call about a CertificateSigningRequest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateCallId(pub u64);

/// A call about a CertificateSigningRequest that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateCall {
    /// For [`Gateway::handle_certificate_answer`](crate::gateway::Gateway::handle_certificate_answer).
    pub id: CertificateCallId,
    /// The call.
    pub what: CertificateWork,
}

/// What is to be done with a CertificateSigningRequest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateWork {
    /// It is created.
    Create(Box<CertificateRequest>),
    /// It is read.
    Get {
        /// `metadata.name`.
        name: String,
    },
}

/// A request for the signer of devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    /// `metadata.name`.
    pub name: String,
    /// The Device that the certificate is to name.
    pub device: ObjectKey,
    /// Its UID.
    pub device_uid: DeviceUid,
    /// The device's own request, PKCS #10, DER.
    pub request: Arc<[u8]>,
    /// What speaks for it.
    pub evidence: Evidence,
}

/// What speaks for a request. The signer verifies it; a gateway passes it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Nothing: a person has to confirm the key.
    None,
    /// A signature by a factory key.
    Factory {
        /// As in [`JoiningIdentity::Factory`].
        chain: Arc<[Vec<u8>]>,
        /// The join proof.
        signature: Arc<[u8]>,
    },
    /// A MAC under a pairing token's key.
    Token {
        /// Id of the token.
        id: Arc<str>,
        /// The join proof.
        mac: Arc<[u8]>,
    },
    /// The certificate that is to be renewed, and its authorities, DER; the request is signed by its key.
    Renewal {
        /// As the device presented it, or as its session was given it since.
        chain: Arc<[Vec<u8>]>,
    },
}

/// A CertificateSigningRequest as the API shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestSeen {
    /// Whether it is approved.
    pub approved: bool,
    /// How it ended, if it has.
    pub end: Option<RequestEnd>,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestEnd {
    /// With a certificate.
    Issued(Issued),
    /// With something in the certificate's place that is none.
    Unusable(String),
    /// The signer refused it.
    Failed {
        /// The signer's reason.
        reason: String,
        /// For people.
        message: String,
    },
    /// A person refused it.
    Denied {
        /// For people.
        message: String,
    },
}

/// A chain that the signer issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The device's certificate, then the authorities above it but the root, DER.
    pub chain: Arc<[Vec<u8>]>,
    /// Of the certificate's key.
    pub key: KeyHash,
    /// The Device that it names, if it names one of this trust domain.
    pub device: Option<ObjectKey>,
    /// When it ends, seconds since 1970-01-01T00:00:00Z.
    pub not_after_unix_s: u64,
}

/// How a device's try to get a certificate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JoinOutcome {
    /// It was sent its first certificate.
    Issued,
    /// It was sent its next one.
    Renewed,
    /// It was refused, for a reason that it was told.
    Refused,
    /// Its renewal was refused; the session goes on.
    RenewalRefused,
    /// No Device, or more than one, names its pairing token.
    UnknownToken,
    /// It broke the protocol.
    ProtocolError,
    /// It left, or its time was over, before there was anything to send.
    Ended,
}

impl JoinOutcome {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Issued,
        Self::Renewed,
        Self::Refused,
        Self::RenewalRefused,
        Self::UnknownToken,
        Self::ProtocolError,
        Self::Ended,
    ];

    /// CamelCase, as logs and metrics have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Issued => "Issued",
            Self::Renewed => "Renewed",
            Self::Refused => "Refused",
            Self::RenewalRefused => "RenewalRefused",
            Self::UnknownToken => "UnknownToken",
            Self::ProtocolError => "ProtocolError",
            Self::Ended => "Ended",
        }
    }
}
