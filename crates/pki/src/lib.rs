//! Certificate authorities, identities and the TLS configurations that every process shares.
//!
//! It may not open a socket, know a runtime, or decide whether an authenticated peer is welcome: it establishes who a peer is.
//!
//! ```text
//! services root ── services issuing ── gateway, controller
//! operators root ── operators issuing ── a person who uses gateways
//! devices root  ── devices issuing  ── device
//! factory root  ── factory issuing  ── a device that has not joined yet
//! cluster authority ── server and client certificates of the embedded Kubernetes API
//! ```
//!
//! Identities are SPIFFE ids (<https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md>) in certificates with
//! ECDSA P-256 keys, which are stored as PKCS#8 v1 (RFC 5208; OpenSSL 3.0 refuses v2).

#![forbid(unsafe_code)]

mod authority;
mod certificate;
mod cluster;
mod device_issuer;
mod device_key;
mod error;
mod identity;
mod issuer;
mod joining;
mod operator;
mod renewal;
mod request;
mod service;
mod signature;
pub mod tls;
mod verifier;

pub use authority::{Authorities, FactoryAuthority};
pub use certificate::{CertificateFacts, public_key_base64, split_chain};
pub use cluster::ClusterAuthority;
pub use device_issuer::DeviceIssuer;
pub use device_key::DeviceKey;
pub use error::{IdentityError, PemError, PkiError};
pub use identity::{Identity, parse_certificates, pem_of, read_certificates};
pub use joining::{DeviceClients, DevicePeer, DeviceServer};
pub use operator::{IssuedOperator, OperatorAuthority, OperatorIssuer};
pub use renewal::{Following, RENEWAL_INTERVAL, Renewal, Renewed};
pub use request::{CertificationRequest, REQUEST_BYTES_MAX, RequestError};
pub use service::{ServiceClients, ServicePeer, ServiceServer};
pub use signature::{check_order, is_signed_by};
pub use wasmbed_files::write_private;
pub use wasmbed_identity::{
    Addressee, CertificateError, FactoryId, FactoryIdError, Leaf, OperatorId, OperatorIdError, OrderRefusal,
    PairingToken, PairingTokenError, Refusal, Role, SpiffeError, SpiffeId, statement,
};

/// Days that certificates are valid. A leaf outlives none of its issuers' remaining days in practice: issuing
/// authorities live ten times as long as the services' leaves.
pub mod lifetime {
    /// Roots, 25 years: devices in the field can't be given a new one often.
    pub const ROOT_DAYS: u64 = 25 * 365;
    /// Issuing authorities, 15 years.
    pub const ISSUING_DAYS: u64 = 15 * 365;
    /// Devices, 10 years: a board may lie in a drawer for long, and `revoked` keeps a stolen one out.
    pub const DEVICE_DAYS: u64 = 10 * 365;
    /// Factory identities, 20 years: with them a device that lay in a drawer, or was erased, joins again. None of them opens a
    /// session by itself.
    pub const FACTORY_DAYS: u64 = 20 * 365;
    /// Gateways, controllers, people with certificates that were issued offline, and clients of the Kubernetes API, one year.
    pub const SERVICE_DAYS: u64 = 365;
    /// Devices whose certificates the signer issues, one year at most: they renew over their sessions.
    pub const ISSUED_DEVICE_SECONDS_MAX: u64 = 365 * 24 * 3_600;
    /// People whose certificates the signer issues, one day at most: nothing takes such a certificate back before its end, and it
    /// shows the groups of the moment when it was asked for.
    pub const OPERATOR_SECONDS_MAX: u64 = 24 * 3_600;
    /// `notBefore` lies this far back, so that a peer whose clock is a little behind accepts a fresh certificate.
    pub const BACKDATE_SECONDS: u64 = 3_600;
}
