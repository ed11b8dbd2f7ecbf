//! What all sessions of a device share.

use alloc::{sync::Arc, vec, vec::Vec};
use core::fmt;

use rustls::{
    ClientConfig, client::Resumption, crypto::CryptoProvider, time_provider::TimeProvider, version::TLS13,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use wasmbed_identity::{Addressee, OrderRefusal, OrderRules, Refusal, check_order, statement::SignedOrder};

use crate::{
    credentials::{Credentials, Own, OwnId, Trust},
    der::Validity,
    error::{CredentialsError, TlsError},
    provider::{self, ALGORITHMS, EcdsaP256Sha256, RandomSource},
    session::{ALPN, PLAIN_BYTES_MAX, Session},
    time::Time,
    verifier::{Verifier, when},
};

/// What rustls counts in a fragment in addition to the plain bytes: a record's header.
const HEADER_BYTES: usize = 5;

/// Makes sessions. It holds no memory for them.
pub struct Client {
    trust: Arc<Trust>,
    presented: Option<Credentials>,
    provider: Arc<CryptoProvider>,
}

impl Client {
    /// A client that accepts gateways of this trust domain below these roots, one or two. It has nothing to present yet.
    ///
    /// Call it once: each call leaks two pointers' worth of heap.
    ///
    /// # Errors
    /// A root can't be used.
    pub fn new(
        trust_domain: &str,
        services_roots: &[CertificateDer<'_>],
        random: &'static dyn RandomSource,
    ) -> Result<Self, TlsError> {
        let trust = Arc::new(Trust::new(trust_domain, services_roots)?);
        Ok(Self { trust, presented: None, provider: provider::provider(random) })
    }

    /// What it presents from the next [`connect`](Self::connect) on. Sessions that were begun are not touched.
    ///
    /// # Errors
    /// They are of another trust domain: it goes on presenting what it presented.
    pub fn present(&mut self, credentials: Credentials) -> Result<(), CredentialsError> {
        if credentials.id().trust_domain() != self.trust.trust_domain {
            return Err(CredentialsError::TrustDomain);
        }
        self.presented = Some(credentials);
        Ok(())
    }

    /// Who it says that this device is; none as long as it presents nothing.
    #[must_use]
    pub fn id(&self) -> Option<&OwnId> {
        self.presented.as_ref().map(Credentials::id)
    }

    /// The trust domain of the device and of the gateways that it accepts.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust.trust_domain
    }

    /// Drops what it presents: there is nothing to connect with from then on.
    pub fn withdraw(&mut self) {
        self.presented = None;
    }

    /// Whether a controller of this fleet orders the device that is presented to be decommissioned. Its chain is held to the
    /// rules that gateways' chains are held to.
    ///
    /// # Errors
    /// The order is not to be followed.
    pub fn check_order(
        &self,
        signed: &SignedOrder<'_>,
        time: &Time,
        now_ms: u64,
    ) -> Result<(), OrderRefusal> {
        let Some((OwnId::Device(id), credentials)) = self.id().zip(self.presented.as_ref()) else {
            return Err(Refusal::NoCertificate.into());
        };
        let mut chain = signed.chain().iter().map(|der| CertificateDer::from(*der));
        let leaf = chain.next().ok_or(Refusal::NoCertificate)?;
        let not_before = Validity::of(&leaf).map_or(0, |validity| validity.not_before);
        let rules = OrderRules {
            anchors: &self.trust.anchors,
            algorithms: ALGORITHMS.all,
            es256: &EcdsaP256Sha256,
            now: when(time.moment(now_ms), not_before, &chain.collect::<Vec<_>>()),
        };
        check_order(signed, &Addressee { id, device_uid: credentials.device_uid() }, &rules)
    }

    /// Begins a session; its first bytes wait to be transmitted. `now_ms` is the board's monotonic clock, as in [`Time`].
    ///
    /// # Errors
    /// There is nothing to present, or a bug: [`TlsError::Bug`].
    pub fn connect(&self, time: &Time, now_ms: u64) -> Result<Session, TlsError> {
        let verifier = Arc::new(Verifier::new(Arc::clone(&self.trust), time.moment(now_ms)));
        let presented = self.presented.as_ref().ok_or(CredentialsError::NoCertificate)?;
        let own = Arc::new(Own::new(Arc::clone(&presented.certified)));
        let mut config = ClientConfig::builder_with_details(Arc::clone(&self.provider), Arc::new(NoClock))
            .with_protocol_versions(&[&TLS13])
            .map_err(|_| TlsError::Bug("no TLS 1.3"))?
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
        f.debug_struct("Client").field("presented", &self.presented).finish_non_exhaustive()
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
