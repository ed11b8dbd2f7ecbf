//! The server's certificate and the CAs of its clients, for new connections.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use tokio_rustls::TlsAcceptor;

use super::error::ServerError;
use crate::config::ServerTls;

/// Certificates for new connections. Clones share them.
#[derive(Clone, Debug)]
pub struct Certificates(Arc<RwLock<Arc<ServerConfig>>>);

impl Certificates {
    pub(super) fn new(
        server: ServerTls,
        client_roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, ServerError> {
        Ok(Self(Arc::new(RwLock::new(Arc::new(tls(server, client_roots)?)))))
    }

    /// Replaces the certificates for new connections; established ones aren't affected.
    ///
    /// # Errors
    /// The certificates or the key can't be used; then nothing changes.
    pub fn replace(
        &self,
        server: ServerTls,
        client_roots: Vec<CertificateDer<'static>>,
    ) -> Result<(), ServerError> {
        let config = Arc::new(tls(server, client_roots)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn tls(server: ServerTls, client_roots: Vec<CertificateDer<'static>>) -> Result<ServerConfig, ServerError> {
    let failed = |error: &dyn std::fmt::Display| ServerError::Tls(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for root in client_roots {
        roots.add(root).map_err(|error| failed(&error))?;
    }
    // Clients without a certificate may only ask whether the server is alive.
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| failed(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| failed(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(server.certificates, server.key)
        .map_err(|error| failed(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
