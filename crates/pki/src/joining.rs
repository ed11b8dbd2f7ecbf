//! The device port with clients that have no certificate of the fleet yet.
//!
//! What a client's certificate names decides below which root it has to stand, so that the same bytes are never taken for
//! something else after the handshake:
//!
//! | the certificate names | it has to stand below | the client is |
//! |---|---|---|
//! | `spiffe://TRUST/factory/SERIAL` | a factory root | [`DevicePeer::Factory`] |
//! | no URI, and itself as its issuer | nothing: signed by its own key | [`DevicePeer::SelfSigned`] |
//! | anything else | a devices root | [`DevicePeer::Device`] |

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError as Bad, CommonState, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error as ThisError;
use wasmbed_identity::{CertificateError, FactoryId, Leaf, P256_KEY_INFO_HEAD, Refusal, Role};
use x509_parser::{
    oid_registry::OID_SIG_ECDSA_WITH_SHA256,
    prelude::{FromDer, X509Certificate, X509Version},
};

use crate::{
    CertificateFacts, Identity,
    tls::{Peer, PeerError, Profile, TlsError, check_alpn, check_id, provider, serve},
    verifier::ClientVerifier,
};

/// Bytes of a self-signed certificate: with a P-256 key and a short name it has some 350.
const SELF_SIGNED_BYTES_MAX: usize = 1_024;

/// Whom a device port takes.
#[derive(Clone, Debug)]
pub struct DeviceClients {
    /// Below these stand devices of the fleet.
    pub devices: Arc<RootCertStore>,
    /// Below these stand devices from a factory; none lets none of them in.
    pub factory: Option<Arc<RootCertStore>>,
    /// Whether devices with a pairing token come in, with a certificate that they signed themselves.
    pub self_signed: bool,
}

impl DeviceClients {
    /// What decides in the handshake whether a client's chain is one that the port takes.
    ///
    /// # Errors
    /// There are no roots of devices.
    pub fn verifier(self) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let accepts = self.accepts();
        let below = |roots| ClientVerifier::new(roots, provider()).map_err(|_| TlsError::NoRoots);
        let factory = self.factory.map(below).transpose()?;
        Ok(Arc::new(DevicePortVerifier::new(below(self.devices)?, factory, accepts)))
    }

    fn accepts(&self) -> Accepts {
        Accepts { factory: self.factory.is_some(), self_signed: self.self_signed }
    }
}

/// A client of the device port that holds the key of its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DevicePeer {
    /// A device of the fleet.
    Device(Peer),
    /// A device from a factory.
    Factory {
        /// Its id there.
        id: FactoryId,
        /// The facts of its certificate.
        facts: CertificateFacts,
    },
    /// Anyone: nobody vouches for anything in this certificate, and only its key is of use.
    SelfSigned(CertificateFacts),
}

/// The TLS configuration of a device port, and whom it takes.
#[derive(Clone, Debug)]
pub struct DeviceServer {
    config: Arc<ServerConfig>,
    accepts: Accepts,
}

#[derive(Clone, Copy, Debug)]
struct Accepts {
    factory: bool,
    self_signed: bool,
}

impl DeviceServer {
    /// A gateway's device port.
    ///
    /// # Errors
    /// The identity is not usable, or there are no roots of devices.
    pub fn new(identity: &Identity, clients: DeviceClients) -> Result<Self, TlsError> {
        let accepts = clients.accepts();
        Ok(Self { config: serve(Profile::Device, identity, clients.verifier()?)?, accepts })
    }

    /// For a new connection.
    #[must_use]
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Says who the client of a connection is that was accepted with this configuration, and asserts that the agreed ALPN name is
    /// that of devices and that the client's id has the trust domain.
    ///
    /// # Errors
    /// What the client is refused for.
    pub fn authenticate(
        &self,
        connection: &CommonState,
        trust_domain: &str,
    ) -> Result<DevicePeer, PeerError> {
        check_alpn(Profile::Device, connection.alpn_protocol())?;
        let leaf = connection.peer_certificates().and_then(<[_]>::first).ok_or(Refusal::NoCertificate)?;
        let facts = || CertificateFacts::parse(leaf).map_err(Refusal::from);
        match Named::of(leaf, self.accepts) {
            Named::Factory(id) if id.trust_domain() == trust_domain => {
                Ok(DevicePeer::Factory { id, facts: facts()? })
            }
            Named::Factory(id) => {
                Err(PeerError::Factory { id: Box::new(id), expected: trust_domain.to_owned() })
            }
            Named::Itself => Ok(DevicePeer::SelfSigned(facts()?)),
            Named::Other => Ok(DevicePeer::Device(check_id(leaf, trust_domain, &[Role::Device])?)),
        }
    }
}

/// What a certificate claims to be; the handshake proves it before anything is made of it.
enum Named {
    Factory(FactoryId),
    Itself,
    Other,
}

impl Named {
    fn of(leaf: &CertificateDer<'_>, accepts: Accepts) -> Self {
        match Leaf::parse(leaf).map(|leaf| leaf.factory_id()) {
            Ok(Ok(id)) if accepts.factory => Self::Factory(id),
            Ok(Err(CertificateError::UriCount(0))) if accepts.self_signed && names_itself(leaf) => {
                Self::Itself
            }
            _ => Self::Other,
        }
    }
}

fn names_itself(der: &[u8]) -> bool {
    X509Certificate::from_der(der)
        .is_ok_and(|(_, certificate)| certificate.issuer().as_raw() == certificate.subject().as_raw())
}

/// A certificate that names itself as its issuer is not one that its device signed. The peer is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
enum SelfSignedError {
    #[error("the self-signed certificate comes with further certificates")]
    Chain,
    #[error("the self-signed certificate is longer than 1,024 bytes")]
    Length,
    #[error("the self-signed certificate is not X.509 version 3")]
    Malformed,
    #[error("the self-signed certificate is not of an ECDSA P-256 key with SHA-256")]
    Algorithm,
    #[error("the self-signed certificate is not signed by its own key")]
    Signature,
}

/// Checks what a certificate says of itself. Its dates are nobody's word and are not looked at.
fn check_self_signed(der: &CertificateDer<'_>, further: usize) -> Result<(), SelfSignedError> {
    if further > 0 {
        return Err(SelfSignedError::Chain);
    }
    if der.len() > SELF_SIGNED_BYTES_MAX {
        return Err(SelfSignedError::Length);
    }
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| SelfSignedError::Malformed)?;
    if !rest.is_empty() || certificate.version() != X509Version::V3 {
        return Err(SelfSignedError::Malformed);
    }
    let point = certificate.public_key().raw.strip_prefix(P256_KEY_INFO_HEAD);
    // RFC 5480, section 2.2: an uncompressed point.
    if !point.is_some_and(|point| point.len() == 65 && point.first() == Some(&0x04))
        || certificate.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256
    {
        return Err(SelfSignedError::Algorithm);
    }
    certificate.verify_signature(None).map_err(|_| SelfSignedError::Signature)
}

/// Sends each certificate to the root that it has to stand below.
struct DevicePortVerifier {
    devices: ClientVerifier,
    factory: Option<ClientVerifier>,
    accepts: Accepts,
    /// What a client is told that it may choose from; nothing where it may choose what no root stands for.
    hints: Vec<DistinguishedName>,
}

impl DevicePortVerifier {
    fn new(devices: ClientVerifier, factory: Option<ClientVerifier>, accepts: Accepts) -> Self {
        let mut hints = Vec::new();
        if !accepts.self_signed {
            let all = [Some(&devices), factory.as_ref()].into_iter().flatten();
            hints.extend(all.flat_map(|verifier| verifier.root_hint_subjects().iter().cloned()));
        }
        Self { devices, factory, accepts, hints }
    }
}

impl ClientCertVerifier for DevicePortVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match (Named::of(end_entity, self.accepts), &self.factory) {
            (Named::Itself, _) => check_self_signed(end_entity, intermediates.len())
                .map(|()| ClientCertVerified::assertion())
                .map_err(|error| Error::InvalidCertificate(Bad::Other(OtherError(Arc::new(error))))),
            (Named::Factory(_), Some(factory)) => factory.verify_client_cert(end_entity, intermediates, now),
            (Named::Factory(_) | Named::Other, _) => {
                self.devices.verify_client_cert(end_entity, intermediates, now)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.devices.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.devices.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.devices.supported_verify_schemes()
    }
}

impl fmt::Debug for DevicePortVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevicePortVerifier").field("accepts", &self.accepts).finish_non_exhaustive()
    }
}
