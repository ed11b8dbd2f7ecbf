//! The TLS configurations of all processes: TLS 1.3 only, both sides present certificates, no tickets, no early data.
//!
//! A gateway's one port has two profiles, told apart by ALPN before anything else is decided:
//!
//! | profile | ALPN | the client's chain ends at | roles |
//! |---|---|---|---|
//! | [`Profile::Device`] | `wasmbed/1` | devices root | device |
//! | [`Profile::Service`] | `h2`, `http/1.1` | services root | controller |
//!
//! The root of a client's chain is checked in the handshake by the profile's own configuration;
//! [`authenticate_client`] asserts ALPN and role for that profile afterwards, on the same connection. A device port that also
//! takes devices that join is a [`DeviceServer`](crate::DeviceServer), a service port that also takes people a
//! [`ServiceServer`](crate::ServiceServer).

use std::sync::Arc;

use rustls::{
    CipherSuite, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
    },
    server::{NoServerSessionStorage, ParsedCertificate, danger::ClientCertVerifier},
    time_provider::TimeProvider,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use thiserror::Error as ThisError;
use wasmbed_identity::{Alert, FactoryId, OperatorId, Refusal, Role, SpiffeId};

use crate::{CertificateFacts, Identity, verifier::ClientVerifier};

/// ALPN name of the device protocol; the number is its major version.
pub const ALPN_DEVICE: &[u8] = b"wasmbed/1";
/// ALPN names of the gateways' HTTPS API (RFC 9113, RFC 9112).
pub const ALPN_SERVICE: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// One record of the device protocol: a frame of 4,096 bytes and TLS's own 5.
pub const DEVICE_FRAGMENT_BYTES_MAX: usize = 4_101;

/// What a client of a gateway's port wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// The device protocol.
    Device,
    /// The HTTPS API for controllers and people.
    Service,
}

impl Profile {
    /// The profile that a client asks for with the ALPN names it offers; none if it offers none of ours.
    #[must_use]
    pub fn select<'a>(offered: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        offered.into_iter().find_map(|name| {
            if name == ALPN_DEVICE {
                Some(Self::Device)
            } else {
                ALPN_SERVICE.contains(&name).then_some(Self::Service)
            }
        })
    }

    /// The roles that may speak it; an operator's below the services root is of an older version, and gets no more than words.
    #[must_use]
    pub const fn roles(self) -> &'static [Role] {
        match self {
            Self::Device => &[Role::Device],
            Self::Service => &[Role::Controller, Role::Operator],
        }
    }

    fn alpn(self) -> Vec<Vec<u8>> {
        match self {
            Self::Device => vec![ALPN_DEVICE.to_vec()],
            Self::Service => ALPN_SERVICE.map(<[u8]>::to_vec).to_vec(),
        }
    }
}

/// A TLS configuration could not be made: the files that it was made from are at fault.
#[derive(Debug, ThisError)]
pub enum TlsError {
    /// Configuration: a certificate that can't be a trusted root.
    #[error("a trusted root is not usable: {0}")]
    Root(Error),
    /// Configuration: no trusted root.
    #[error("no trusted root is configured")]
    NoRoots,
    /// Configuration: a chain or key that TLS can't use.
    #[error("the certificate or its private key is not usable: {0}")]
    Identity(Error),
    /// Bug: the cryptography can't do TLS 1.3.
    #[error("no TLS 1.3: {0}")]
    Provider(Error),
}

/// Why a peer whose chain is valid was refused. The peer is at fault.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum PeerError {
    /// Its certificate or its identity is not acceptable.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection did not agree on a protocol of the profile.
    #[error("the connection's ALPN name is {found}, not {expected}")]
    Alpn {
        /// What was agreed on.
        found: String,
        /// What the profile speaks.
        expected: &'static str,
    },
    /// It was made for another fleet.
    #[error("{id} is not of the trust domain {expected}")]
    Factory {
        /// Its id from the factory.
        id: Box<FactoryId>,
        /// The trust domain of this side.
        expected: String,
    },
    /// It is a person of another fleet.
    #[error("{id} is not of the trust domain {expected}")]
    Operator {
        /// Its id.
        id: Box<OperatorId>,
        /// The trust domain of this side.
        expected: String,
    },
}

/// An authenticated peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub id: SpiffeId,
    /// The facts of its certificate.
    pub facts: CertificateFacts,
}

/// The cryptography of every configuration: ring, X25519 and P-256, TLS 1.3's three suites. AES-128-GCM comes first: it has the
/// strength of the certificates' P-256, and with its keys and SHA-256 a connection costs least.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider.kx_groups = vec![ring::kx_group::X25519, ring::kx_group::SECP256R1];
    Arc::new(provider)
}

/// Trusted roots.
///
/// # Errors
/// There is none, or one is not a certificate.
pub fn roots<'a>(
    certificates: impl IntoIterator<Item = CertificateDer<'a>>,
) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate.into_owned()).map_err(TlsError::Root)?;
    }
    if store.is_empty() { Err(TlsError::NoRoots) } else { Ok(Arc::new(store)) }
}

/// A gateway's side of one profile. `client_roots` are the devices' or the services' roots, never both.
///
/// # Errors
/// The identity is not usable.
pub fn server_config(
    profile: Profile,
    identity: &Identity,
    client_roots: Arc<RootCertStore>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = ClientVerifier::new(client_roots, provider()).map_err(|_| TlsError::NoRoots)?;
    serve(profile, identity, Arc::new(verifier))
}

/// A gateway's side of one profile with this verifier of clients.
pub(crate) fn serve(
    profile: Profile,
    identity: &Identity,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Provider)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain(), identity.key())
        .map_err(TlsError::Identity)?;
    config.alpn_protocols = profile.alpn();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if profile == Profile::Device {
        config.max_fragment_size = Some(DEVICE_FRAGMENT_BYTES_MAX);
    }
    Ok(Arc::new(config))
}

/// How a client connects to a gateway.
pub struct ClientParams<'a> {
    /// Device protocol or HTTPS API.
    pub profile: Profile,
    /// The client's own identity.
    pub identity: &'a Identity,
    /// The services roots.
    pub roots: Arc<RootCertStore>,
    /// The gateway's trust domain.
    pub trust_domain: &'a str,
    /// The one gateway that may answer; any of the trust domain if none.
    pub gateway: Option<SpiffeId>,
    /// Source of the time; the system's clock if none.
    pub time: Option<Arc<dyn TimeProvider>>,
}

/// A client's side: the gateway's chain must end at a services root, and it must be a server, and have the role `gateway` in the
/// trust domain. Its addresses do not matter: it is its id that is checked.
///
/// # Errors
/// The identity is not usable.
pub fn client_config(params: ClientParams<'_>) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let verifier = GatewayVerifier {
        roots: params.roots,
        trust_domain: params.trust_domain.to_owned(),
        gateway: params.gateway,
        algorithms: provider.signature_verification_algorithms,
    };
    let builder = match params.time {
        Some(time) => ClientConfig::builder_with_details(provider, time),
        None => ClientConfig::builder_with_provider(provider),
    };
    let mut config = builder
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Provider)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(params.identity.chain(), params.identity.key())
        .map_err(TlsError::Identity)?;
    config.alpn_protocols = params.profile.alpn();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    if params.profile == Profile::Device {
        config.max_fragment_size = Some(DEVICE_FRAGMENT_BYTES_MAX);
    }
    Ok(Arc::new(config))
}

/// The server name to hand to a client connection. Gateways are known by id, so it is neither sent nor checked.
#[must_use]
pub fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into())
}

/// Asserts, after the handshake of a connection that was accepted with `profile`'s configuration, that the agreed ALPN
/// name is the profile's and that the client's id has the trust domain and a role of the profile.
///
/// # Errors
/// What the client is refused for.
pub fn authenticate_client(
    profile: Profile,
    connection: &CommonState,
    trust_domain: &str,
) -> Result<Peer, PeerError> {
    check_alpn(profile, connection.alpn_protocol())?;
    let leaf = connection.peer_certificates().and_then(<[_]>::first).ok_or(Refusal::NoCertificate)?;
    Ok(check_id(leaf, trust_domain, profile.roles())?)
}

/// Asserts, after the handshake of a client's connection, that the gateway agreed on the profile's ALPN name and has
/// the trust domain and the role `gateway`.
///
/// # Errors
/// What the gateway is refused for.
pub fn authenticate_gateway(
    profile: Profile,
    connection: &CommonState,
    trust_domain: &str,
) -> Result<Peer, PeerError> {
    check_alpn(profile, connection.alpn_protocol())?;
    let leaf = connection.peer_certificates().and_then(<[_]>::first).ok_or(Refusal::NoCertificate)?;
    Ok(check_id(leaf, trust_domain, &[Role::Gateway])?)
}

/// Why a handshake failed, for a log: what the peer did wrong where it is the peer.
#[must_use]
pub fn handshake_reason(error: &Error) -> String {
    use rustls::CertificateError as Bad;
    let reason = match error {
        Error::NoCertificatesPresented => return Refusal::NoCertificate.to_string(),
        Error::InvalidCertificate(Bad::Other(other)) => return other.0.to_string(),
        Error::InvalidCertificate(bad) => {
            return refusal(bad).map_or_else(
                || format!("the peer's certificate was refused: {bad}"),
                |refusal| refusal.to_string(),
            );
        }
        Error::NoApplicationProtocol => "the peers have no ALPN name in common",
        Error::AlertReceived(alert) => {
            return format!("the peer refused with the alert {}", Alert(u8::from(*alert)));
        }
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => "the peer does not speak TLS 1.3",
        Error::PeerIncompatible(_) => "the peer offers no TLS 1.3 that is accepted here",
        Error::PeerMisbehaved(_) => "the peer broke the TLS protocol",
        other => return other.to_string(),
    };
    reason.to_owned()
}

/// The refusal that rustls reports, where it is one of ours.
fn refusal(bad: &rustls::CertificateError) -> Option<Refusal> {
    use rustls::CertificateError as Bad;
    Some(match bad {
        Bad::ExpiredContext { time, not_after } => {
            Refusal::Expired { not_after: not_after.as_secs(), now: time.as_secs() }
        }
        Bad::NotValidYetContext { time, not_before } => {
            Refusal::NotYetValid { not_before: not_before.as_secs(), now: time.as_secs() }
        }
        // Another fleet's root may have the same name; then only the signature differs.
        Bad::UnknownIssuer | Bad::BadSignature => Refusal::Issuer,
        Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => Refusal::Purpose,
        _ => return None,
    })
}

pub(crate) fn check_alpn(profile: Profile, agreed: Option<&[u8]>) -> Result<(), PeerError> {
    if Profile::select(agreed) == Some(profile) {
        return Ok(());
    }
    Err(PeerError::Alpn {
        found: agreed.map_or("absent".to_owned(), |name| format!("{:?}", String::from_utf8_lossy(name))),
        expected: match profile {
            Profile::Device => "wasmbed/1",
            Profile::Service => "h2 or http/1.1",
        },
    })
}

pub(crate) fn check_id(leaf: &[u8], trust_domain: &str, roles: &'static [Role]) -> Result<Peer, Refusal> {
    let facts = CertificateFacts::parse(leaf)?;
    let id = facts.spiffe_id()?.require(trust_domain, roles)?;
    Ok(Peer { id, facts })
}

#[derive(Debug)]
struct GatewayVerifier {
    roots: Arc<RootCertStore>,
    trust_domain: String,
    gateway: Option<SpiffeId>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl GatewayVerifier {
    fn check(&self, leaf: &[u8]) -> Result<(), Refusal> {
        let peer = check_id(leaf, &self.trust_domain, &[Role::Gateway])?;
        match &self.gateway {
            Some(expected) if *expected != peer.id => {
                Err(Refusal::Id { id: Box::new(peer.id), expected: Box::new(expected.clone()) })
            }
            _ => Ok(()),
        }
    }
}

impl ServerCertVerifier for GatewayVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        self.check(end_entity).map_err(|error| {
            Error::InvalidCertificate(rustls::CertificateError::Other(rustls::OtherError(Arc::new(error))))
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}
