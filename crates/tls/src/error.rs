//! Why there is no connection, in words for one line on a console.

use alloc::string::String;

use rustls::{AlertDescription, Error};
use thiserror::Error as ThisError;

/// No reason is longer, bytes.
pub const REASON_BYTES_MAX: usize = 240;
/// How much of an id is shown, bytes.
const ID_SHOWN_BYTES_MAX: usize = 128;

/// Why a client can't be made, or a session came to its end.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum TlsError {
    /// Configuration: what the device was provisioned with is not usable.
    #[error("this device's credentials are not usable: {0}")]
    Credentials(&'static str),
    /// Peer: its chain ends at no services root, or a signature in it is another's.
    #[error("the gateway's certificate does not stand below a services root of this device")]
    Issuer,
    /// Peer: a certificate of the chain was signed with one that may not sign.
    #[error("the gateway's certificate was signed by a certificate that is no authority")]
    NoAuthority,
    /// Peer: it showed an authority's own certificate.
    #[error("the gateway's certificate is an authority's")]
    AuthorityAsGateway,
    /// Peer: a certificate of the chain is too old.
    #[error("the gateway's certificate expired at {not_after}, now it is {now} (seconds since 1970)")]
    Expired {
        /// Seconds since 1970-01-01T00:00:00Z.
        not_after: u64,
        /// Seconds since 1970-01-01T00:00:00Z.
        now: u64,
    },
    /// Peer: a certificate of the chain is of the future. Or this board's clock is slow.
    #[error("the gateway's certificate is valid from {not_before}, now it is {now} (seconds since 1970)")]
    NotYetValid {
        /// Seconds since 1970-01-01T00:00:00Z.
        not_before: u64,
        /// Seconds since 1970-01-01T00:00:00Z.
        now: u64,
    },
    /// Peer: its certificate, or its authority's, is a client's.
    #[error("the gateway's certificate is not meant for a server")]
    Purpose,
    /// Peer: its certificate can't be understood or breaks a constraint.
    #[error("the gateway's certificate was refused: {0}")]
    Certificate(&'static str),
    /// Peer: it belongs to someone else's fleet.
    #[error("{id} is not of this device's trust domain")]
    TrustDomain {
        /// Who answered.
        id: String,
    },
    /// Peer: it is something else.
    #[error("{id} is no gateway")]
    Role {
        /// Who answered.
        id: String,
    },
    /// Peer: it does not hold the private key of its certificate.
    #[error("the gateway did not prove that its certificate is its own")]
    Proof,
    /// Peer: anyone may connect there; a gateway never lets them.
    #[error("the gateway did not ask for this device's certificate")]
    NoClientAuthentication,
    /// Peer: it does not speak the device protocol.
    #[error("the gateway did not agree on the ALPN name wasmbed/1")]
    Alpn,
    /// Peer: TLS 1.2, or other cryptography.
    #[error("the gateway offers no TLS 1.3 with X25519, ChaCha20-Poly1305 and ECDSA P-256")]
    Incompatible,
    /// Peer: what it sent is not TLS 1.3.
    #[error("the gateway does not speak TLS 1.3 as it should")]
    Protocol,
    /// Peer or network: a record was changed on its way.
    #[error("a record from the gateway is not authentic")]
    NotAuthentic,
    /// Peer: it sends more at a time than a board has room for.
    #[error("a record from the gateway is larger than {bytes_max} bytes")]
    TooLarge {
        /// What there is room for.
        bytes_max: usize,
    },
    /// Peer: it refused, with an alert of RFC 8446, section 6.
    #[error("the gateway refused with the alert {name} ({0}){words}", name = alert_name(*.0), words = alert_words(*.0))]
    Alert(u8),
    /// Bug: on this side.
    #[error("TLS failed on this device: {0}")]
    Internal(&'static str),
}

impl TlsError {
    /// What rustls says of a connection, once the verifier has nothing to say.
    pub(crate) fn from_rustls(error: &Error) -> Self {
        match error {
            Error::AlertReceived(alert) => Self::Alert(u8::from(*alert)),
            Error::InvalidCertificate(rustls::CertificateError::BadSignature) => Self::Proof,
            Error::InvalidCertificate(_) => Self::Certificate("it can't be used in TLS 1.3"),
            Error::NoCertificatesPresented => Self::Certificate("there is none"),
            Error::NoApplicationProtocol => Self::Alpn,
            Error::PeerIncompatible(_) => Self::Incompatible,
            Error::DecryptError => Self::NotAuthentic,
            Error::PeerSentOversizedRecord => Self::TooLarge { bytes_max: 16_384 },
            Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::InvalidMessage(_)
            | Error::PeerMisbehaved(_) => Self::Protocol,
            Error::EncryptError => Self::Internal("a record could not be encrypted"),
            Error::FailedToGetRandomBytes => Self::Internal("no randomness"),
            Error::FailedToGetCurrentTime => Self::Internal("no time"),
            Error::HandshakeNotComplete => Self::Internal("used before the handshake was over"),
            Error::General(_) => Self::Internal("in general"),
            // The enum may grow.
            _ => Self::Internal("for a reason without a name"),
        }
    }

    /// An id as it is shown.
    pub(crate) fn shown(id: &str) -> String {
        let end = (0..=id.len().min(ID_SHOWN_BYTES_MAX)).rev().find(|&end| id.is_char_boundary(end));
        id[..end.unwrap_or(0)].into()
    }
}

/// What the alerts about our certificate say, for whoever has to put it right.
fn alert_words(alert: u8) -> &'static str {
    match AlertDescription::from(alert) {
        AlertDescription::UnknownCA => ": it does not trust the authority of this board's certificate",
        // Another fleet's root may have the same name; then it is the signature that tells.
        AlertDescription::DecryptError => {
            ": this board's certificate does not stand below the root that it trusts"
        }
        AlertDescription::CertificateExpired => {
            ": this board's certificate has expired, or the clocks differ"
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRevoked
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::AccessDenied => ": it does not accept this board's certificate",
        _ => "",
    }
}

fn alert_name(alert: u8) -> &'static str {
    match AlertDescription::from(alert) {
        AlertDescription::CloseNotify => "close_notify",
        AlertDescription::UnexpectedMessage => "unexpected_message",
        AlertDescription::BadRecordMac => "bad_record_mac",
        AlertDescription::RecordOverflow => "record_overflow",
        AlertDescription::HandshakeFailure => "handshake_failure",
        AlertDescription::BadCertificate => "bad_certificate",
        AlertDescription::UnsupportedCertificate => "unsupported_certificate",
        AlertDescription::CertificateRevoked => "certificate_revoked",
        AlertDescription::CertificateExpired => "certificate_expired",
        AlertDescription::CertificateUnknown => "certificate_unknown",
        AlertDescription::IllegalParameter => "illegal_parameter",
        AlertDescription::UnknownCA => "unknown_ca",
        AlertDescription::AccessDenied => "access_denied",
        AlertDescription::DecodeError => "decode_error",
        AlertDescription::DecryptError => "decrypt_error",
        AlertDescription::ProtocolVersion => "protocol_version",
        AlertDescription::InternalError => "internal_error",
        AlertDescription::CertificateRequired => "certificate_required",
        AlertDescription::NoApplicationProtocol => "no_application_protocol",
        _ => "of number",
    }
}
