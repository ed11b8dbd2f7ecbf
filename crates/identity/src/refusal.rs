//! Why a peer is refused: the peer is at fault, or whoever gave it its certificate.

use alloc::boxed::Box;
use core::fmt;

use thiserror::Error;

use crate::factory::FactoryIdError;
use crate::operator::OperatorIdError;
use crate::spiffe::{Role, SpiffeError, SpiffeId, cut};

/// Bytes of an id that a description shows.
const ID_SHOWN_BYTES_MAX: usize = 128;
/// Bytes of a trust domain that a description shows.
const TRUST_DOMAIN_SHOWN_BYTES_MAX: usize = 64;

/// What a certificate does not say as it should, whatever chain it is in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// Not a DER certificate of X.509 version 3.
    #[error("not an X.509 certificate")]
    Malformed,
    /// A SPIFFE certificate names exactly one URI (X509-SVID, section 2).
    #[error("the certificate names {0} URIs, not exactly one")]
    UriCount(usize),
    /// The one URI is not an id of Wasmbed.
    #[error(transparent)]
    Spiffe(#[from] SpiffeError),
    /// The one URI is not the id of a device from its factory.
    #[error(transparent)]
    Factory(#[from] FactoryIdError),
    /// The one URI is not the id of a person who uses gateways.
    #[error(transparent)]
    Operator(#[from] OperatorIdError),
}

/// A rule of RFC 5280 or a bound that a chain breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Constraint {
    /// The authority is constrained to other names.
    #[error("its authority may not sign this name")]
    Name,
    /// An authority is constrained to fewer authorities below it.
    #[error("more authorities in a row than are allowed")]
    PathLength,
    /// A key or a signature of a kind that is not accepted here.
    #[error("it is signed with an algorithm that is not accepted here")]
    Algorithm,
    /// An extension that has to be understood.
    #[error("it has a critical extension that is not known")]
    CriticalExtension,
    /// More certificates than are looked at.
    #[error("its chain is too long")]
    ChainLength,
    /// Anything else that path validation rejects.
    #[error("it is not valid")]
    Other,
}

/// Why a peer is refused.
///
/// [`Display`](fmt::Display) speaks of "the peer"; [`describe`](Self::describe) names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It sent no certificate.
    NoCertificate,
    /// Its certificate can't be understood, or does not carry one id.
    Certificate(CertificateError),
    /// The chain ends at no trusted root, or a signature in it is another's.
    Issuer,
    /// A certificate of the chain was signed with one that may not sign.
    NotAuthority,
    /// It showed an authority's own certificate.
    AuthorityAsPeer,
    /// A certificate of the chain is too old.
    Expired {
        /// Seconds since 1970-01-01T00:00:00Z.
        not_after: u64,
        /// Seconds since 1970-01-01T00:00:00Z.
        now: u64,
    },
    /// A certificate of the chain is of the future. Or the clock here is slow.
    NotYetValid {
        /// Seconds since 1970-01-01T00:00:00Z.
        not_before: u64,
        /// Seconds since 1970-01-01T00:00:00Z.
        now: u64,
    },
    /// Its certificate, or its authority's, was issued for the other side of a connection.
    Purpose,
    /// The chain breaks a constraint.
    Constraint(Constraint),
    /// It does not hold the private key of its certificate.
    Proof,
    /// It belongs to another fleet.
    TrustDomain {
        /// The id in its certificate.
        id: Box<SpiffeId>,
        /// The trust domain of this side.
        expected: Box<str>,
    },
    /// It is something else than may speak here.
    Role {
        /// The id in its certificate.
        id: Box<SpiffeId>,
        /// What it may be.
        expected: &'static [Role],
    },
    /// It is another peer than the one that was called.
    Id {
        /// The id in its certificate.
        id: Box<SpiffeId>,
        /// Who was called.
        expected: Box<SpiffeId>,
    },
}

impl Refusal {
    /// The reason in one sentence of at most 240 bytes. `peer` is what the other side is to this one: "gateway".
    #[must_use]
    pub fn describe<'a>(&'a self, peer: &'a str) -> Described<'a> {
        Described { refusal: self, peer }
    }

    /// The same reason as rustls names it; the alert that it sends follows from it.
    #[must_use]
    pub fn to_rustls(&self) -> rustls::CertificateError {
        use rustls::CertificateError as Bad;
        match self {
            Self::Issuer | Self::NotAuthority => Bad::UnknownIssuer,
            Self::Expired { .. } => Bad::Expired,
            Self::NotYetValid { .. } => Bad::NotValidYet,
            Self::Purpose | Self::AuthorityAsPeer => Bad::InvalidPurpose,
            Self::TrustDomain { .. } | Self::Role { .. } | Self::Id { .. } => {
                Bad::ApplicationVerificationFailure
            }
            Self::Proof => Bad::BadSignature,
            Self::NoCertificate | Self::Certificate(_) | Self::Constraint(_) => Bad::BadEncoding,
        }
    }
}

impl From<&webpki::Error> for Refusal {
    fn from(error: &webpki::Error) -> Self {
        use webpki::Error as Bad;
        match error {
            Bad::CertExpired { time, not_after } => {
                Self::Expired { not_after: not_after.as_secs(), now: time.as_secs() }
            }
            Bad::CertNotValidYet { time, not_before } => {
                Self::NotYetValid { not_before: not_before.as_secs(), now: time.as_secs() }
            }
            // Another fleet's root may have the same name; then only the signature differs.
            Bad::UnknownIssuer | Bad::InvalidSignatureForPublicKey => Self::Issuer,
            Bad::EndEntityUsedAsCa => Self::NotAuthority,
            Bad::CaUsedAsEndEntity => Self::AuthorityAsPeer,
            Bad::RequiredEkuNotFoundContext(_) | Bad::EmptyEkuExtension => Self::Purpose,
            Bad::NameConstraintViolation => Self::Constraint(Constraint::Name),
            Bad::PathLenConstraintViolated => Self::Constraint(Constraint::PathLength),
            Bad::UnsupportedSignatureAlgorithmContext(_)
            | Bad::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
                Self::Constraint(Constraint::Algorithm)
            }
            Bad::UnsupportedCriticalExtension => Self::Constraint(Constraint::CriticalExtension),
            Bad::MaximumPathBuildCallsExceeded
            | Bad::MaximumPathDepthExceeded
            | Bad::MaximumSignatureChecksExceeded
            | Bad::MaximumNameConstraintComparisonsExceeded => Self::Constraint(Constraint::ChainLength),
            Bad::BadDer | Bad::BadDerTime | Bad::UnsupportedCertVersion | Bad::TrailingData(_) => {
                Self::Certificate(CertificateError::Malformed)
            }
            _ => Self::Constraint(Constraint::Other),
        }
    }
}

impl From<CertificateError> for Refusal {
    fn from(error: CertificateError) -> Self {
        Self::Certificate(error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe("peer").fmt(f)
    }
}

impl core::error::Error for Refusal {}

/// A [`Refusal`] that names the peer.
#[derive(Clone, Copy, Debug)]
pub struct Described<'a> {
    refusal: &'a Refusal,
    peer: &'a str,
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.peer;
        match self.refusal {
            Refusal::NoCertificate => write!(f, "the {peer} sent no certificate"),
            Refusal::Certificate(CertificateError::Spiffe(error)) => {
                // Without the id: it may be as long as a certificate.
                write!(
                    f,
                    "the {peer}'s certificate was refused: its URI is not a SPIFFE id: {}",
                    error.problem
                )
            }
            Refusal::Certificate(CertificateError::Factory(_)) => {
                write!(
                    f,
                    "the {peer}'s certificate was refused: its URI is not spiffe://TRUST/factory/SERIAL"
                )
            }
            Refusal::Certificate(CertificateError::Operator(_)) => {
                write!(
                    f,
                    "the {peer}'s certificate was refused: its URI is not spiffe://TRUST/operator/USER/GROUP..."
                )
            }
            Refusal::Certificate(error) => write!(f, "the {peer}'s certificate was refused: {error}"),
            Refusal::Issuer => write!(f, "the {peer}'s certificate does not chain to a trusted root"),
            Refusal::NotAuthority => {
                write!(f, "the {peer}'s certificate was signed by a certificate that is not an authority's")
            }
            Refusal::AuthorityAsPeer => write!(f, "the {peer}'s certificate is an authority's"),
            Refusal::Expired { not_after, now } => {
                write!(
                    f,
                    "the {peer}'s certificate expired at {not_after}, now it is {now} (seconds since 1970)"
                )
            }
            Refusal::NotYetValid { not_before, now } => write!(
                f,
                "the {peer}'s certificate is valid from {not_before}, now it is {now} (seconds since 1970)"
            ),
            Refusal::Purpose => write!(f, "the {peer}'s certificate is not meant for this purpose"),
            Refusal::Constraint(constraint) => {
                write!(f, "the {peer}'s certificate was refused: {constraint}")
            }
            Refusal::Proof => write!(f, "the {peer} did not prove that its certificate is its own"),
            Refusal::TrustDomain { id, expected } => {
                let expected = cut(expected, TRUST_DOMAIN_SHOWN_BYTES_MAX);
                write!(f, "{} is not in the trust domain {expected}", shown(id))
            }
            Refusal::Role { id, expected } => {
                write!(f, "{} is not a ", shown(id))?;
                expected.iter().enumerate().try_for_each(|(index, role)| {
                    f.write_str(if index > 0 { " or " } else { "" })?;
                    role.fmt(f)
                })
            }
            // The names differ at the end, where a cut id has nothing left to tell apart.
            Refusal::Id { id, expected } => {
                write!(f, "{} answered where {} was expected", shown(id), cut(expected.name(), 64))
            }
        }
    }
}

fn shown(id: &SpiffeId) -> &str {
    cut(id.as_str(), ID_SHOWN_BYTES_MAX)
}
