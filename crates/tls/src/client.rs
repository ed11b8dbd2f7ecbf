//! What all sessions of a device share.

use alloc::{sync::Arc, vec, vec::Vec};
use core::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use rustls::{
    ClientConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    crypto::CryptoProvider,
    sign::CertifiedKey,
    time_provider::TimeProvider,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, anchor_from_trusted_cert};

use crate::{
    RandomSource, SpiffeId, Time, TlsError,
    provider::{self, P256Key},
    session::{PLAIN_BYTES_MAX, Session},
    verifier::{Verifier, spiffe_id},
};

/// The name of the device protocol.
pub(crate) const ALPN: &[u8] = b"wasmbed/1";
/// A leaf and three authorities above it; Wasmbed's own chains have one.
const CHAIN_MAX: usize = 4;
/// The one in force and the one that follows.
const ROOTS_MAX: usize = 2;
/// What rustls counts in a fragment beside the plain bytes: a record's header.
const HEADER_BYTES: usize = 5;

/// What a device was provisioned with.
pub struct Credentials {
    /// The leaf, then its authorities; the root is not among them.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key: ECDSA P-256 in PKCS#8 v1. It is overwritten as soon as it was read.
    pub key: PrivateKeyDer<'static>,
    /// The roots below which gateways stand, one or two.
    pub services_roots: Vec<CertificateDer<'static>>,
}

/// What a verifier knows of the device itself.
pub(crate) struct Identity {
    pub(crate) id: SpiffeId,
    pub(crate) anchors: Vec<TrustAnchor<'static>>,
}

/// Makes sessions. It holds no memory for them.
pub struct Client {
    identity: Arc<Identity>,
    certified: Arc<CertifiedKey>,
    provider: Arc<CryptoProvider>,
}

impl Client {
    /// Call it once: each call leaks two pointers' worth of heap.
    ///
    /// # Errors
    /// The credentials do not fit together, or are of a kind that is not known.
    pub fn new(mut credentials: Credentials, random: &'static dyn RandomSource) -> Result<Self, TlsError> {
        let key = P256Key::from_der(&credentials.key);
        zeroize::Zeroize::zeroize(&mut credentials.key);
        let key = key.ok_or(TlsError::Credentials("the private key is not ECDSA P-256 in PKCS#8 v1"))?;
        let Credentials { chain, services_roots, .. } = credentials;
        if chain.len() > CHAIN_MAX {
            return Err(TlsError::Credentials("more than 4 certificates in the chain"));
        }
        let leaf = chain.first().ok_or(TlsError::Credentials("no certificate"))?;
        let leaf = EndEntityCert::try_from(leaf)
            .map_err(|_| TlsError::Credentials("the certificate is malformed"))?;
        if !key.belongs_to(&leaf.subject_public_key_info()) {
            return Err(TlsError::Credentials("the private key does not belong to the certificate"));
        }
        let id = spiffe_id(&leaf).map_err(TlsError::Credentials)?;
        if id.role() != "device" {
            return Err(TlsError::Credentials("the certificate is not a device's"));
        }
        if !(1..=ROOTS_MAX).contains(&services_roots.len()) {
            return Err(TlsError::Credentials("not one or two services roots"));
        }
        let anchors = services_roots
            .iter()
            .map(|root| anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned()))
            .collect::<Result<_, _>>()
            .map_err(|_| TlsError::Credentials("a services root is malformed"))?;
        Ok(Self {
            identity: Arc::new(Identity { id, anchors }),
            certified: Arc::new(CertifiedKey::new(chain, Arc::new(key))),
            provider: provider::provider(random),
        })
    }

    /// This device, as its certificate says.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.identity.id
    }

    /// The trust domain of the device and of the gateways that it accepts.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.identity.id.trust_domain()
    }

    /// Begins a session; its first bytes wait to be transmitted. `now_ms` is the board's monotonic clock, as in [`Time`].
    ///
    /// # Errors
    /// A bug alone.
    pub fn connect(&self, time: &Time, now_ms: u64) -> Result<Session, TlsError> {
        let verifier = Arc::new(Verifier {
            identity: Arc::clone(&self.identity),
            moment: time.moment(now_ms),
            verdict: once_cell::race::OnceBox::new(),
        });
        let own = Arc::new(Own { certified: Arc::clone(&self.certified), was_asked: AtomicBool::new(false) });
        let mut config = ClientConfig::builder_with_details(Arc::clone(&self.provider), Arc::new(NoClock))
            .with_protocol_versions(&[&TLS13])
            .map_err(|_| TlsError::Internal("no TLS 1.3"))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
            .with_client_cert_resolver(Arc::clone(&own) as _);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        config.max_fragment_size = Some(PLAIN_BYTES_MAX + HEADER_BYTES);
        Session::new(Arc::new(config), verifier, own)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", &self.identity.id).finish_non_exhaustive()
    }
}

/// The device's certificate, and whether the gateway asked for it.
pub(crate) struct Own {
    certified: Arc<CertifiedKey>,
    was_asked: AtomicBool,
}

impl Own {
    pub(crate) fn was_asked(&self) -> bool {
        self.was_asked.load(Ordering::Relaxed)
    }
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _roots: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.was_asked.store(true, Ordering::Relaxed);
        self.certified.key.choose_scheme(schemes).map(|_| Arc::clone(&self.certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Own")
    }
}

/// The verifier has the time; rustls asks for one to hand to it.
#[derive(Debug)]
struct NoClock;

impl TimeProvider for NoClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(core::time::Duration::ZERO))
    }
}
