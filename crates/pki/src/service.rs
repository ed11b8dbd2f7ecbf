//! The port for controllers, with people who use gateways.
//!
//! What a client's certificate names decides below which root it has to stand, so that the same bytes are never taken for
//! something else after the handshake:
//!
//! | the certificate names | it has to stand below | the client is |
//! |---|---|---|
//! | `spiffe://TRUST/operator/USER/GROUP...` | an operators root | [`ServicePeer::Operator`] |
//! | anything else | a services root | [`ServicePeer::Service`] |

use std::{fmt, sync::Arc};

use rustls::{
    CommonState, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};
use wasmbed_identity::{Leaf, OperatorId, Refusal};

use crate::{
    CertificateFacts, Identity,
    tls::{Peer, PeerError, Profile, TlsError, check_alpn, check_id, provider, serve},
    verifier::ClientVerifier,
};

/// Whom a service port takes.
#[derive(Clone, Debug)]
pub struct ServiceClients {
    /// Below these stand controllers.
    pub services: Arc<RootCertStore>,
    /// Below these stand people; none lets none of them in.
    pub operators: Option<Arc<RootCertStore>>,
}

/// A client of the service port that holds the key of its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServicePeer {
    /// A service: a controller, or an operator of the time when they stood below the services root.
    Service(Peer),
    /// A person.
    Operator {
        /// Whom Kubernetes knows.
        id: OperatorId,
        /// The facts of the certificate.
        facts: CertificateFacts,
    },
}

/// The TLS configuration of a service port.
#[derive(Clone, Debug)]
pub struct ServiceServer {
    config: Arc<ServerConfig>,
    operators: bool,
}

impl ServiceServer {
    /// A gateway's service port.
    ///
    /// # Errors
    /// The identity is not usable, or there are no roots of services.
    pub fn new(identity: &Identity, clients: ServiceClients) -> Result<Self, TlsError> {
        let operators = clients.operators.is_some();
        let below = |roots| ClientVerifier::new(roots, provider()).map_err(|_| TlsError::NoRoots);
        let people = clients.operators.map(below).transpose()?;
        let verifier = ServicePortVerifier::new(below(clients.services)?, people);
        Ok(Self { config: serve(Profile::Service, identity, Arc::new(verifier))?, operators })
    }

    /// For a new connection.
    #[must_use]
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Says who the client of a connection is that was accepted with this configuration, and asserts that the agreed ALPN name is
    /// that of services and that the client's id has the trust domain.
    ///
    /// # Errors
    /// What the client is refused for.
    pub fn authenticate(
        &self,
        connection: &CommonState,
        trust_domain: &str,
    ) -> Result<ServicePeer, PeerError> {
        check_alpn(Profile::Service, connection.alpn_protocol())?;
        let leaf = connection.peer_certificates().and_then(<[_]>::first).ok_or(Refusal::NoCertificate)?;
        match operator(leaf).filter(|_| self.operators) {
            Some(id) if id.trust_domain() == trust_domain => {
                let facts = CertificateFacts::parse(leaf).map_err(Refusal::from)?;
                Ok(ServicePeer::Operator { id, facts })
            }
            Some(id) => Err(PeerError::Operator { id: Box::new(id), expected: trust_domain.to_owned() }),
            None => Ok(ServicePeer::Service(check_id(leaf, trust_domain, Profile::Service.roles())?)),
        }
    }
}

/// Whom a certificate claims to be of; the handshake proves it before anything is made of it.
fn operator(leaf: &CertificateDer<'_>) -> Option<OperatorId> {
    Leaf::parse(leaf).ok()?.operator_id().ok()
}

/// Sends each certificate to the root that it has to stand below.
struct ServicePortVerifier {
    services: ClientVerifier,
    operators: Option<ClientVerifier>,
    hints: Vec<DistinguishedName>,
}

impl ServicePortVerifier {
    fn new(services: ClientVerifier, operators: Option<ClientVerifier>) -> Self {
        let all = [Some(&services), operators.as_ref()].into_iter().flatten();
        let hints = all.flat_map(|verifier| verifier.root_hint_subjects().iter().cloned()).collect();
        Self { services, operators, hints }
    }
}

impl ClientCertVerifier for ServicePortVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match (operator(end_entity), &self.operators) {
            (Some(_), Some(operators)) => operators.verify_client_cert(end_entity, intermediates, now),
            (Some(_) | None, _) => self.services.verify_client_cert(end_entity, intermediates, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.services.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.services.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.services.supported_verify_schemes()
    }
}

impl fmt::Debug for ServicePortVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServicePortVerifier")
            .field("operators", &self.operators.is_some())
            .finish_non_exhaustive()
    }
}
