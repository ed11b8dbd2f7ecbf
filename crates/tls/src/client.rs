//! What all sessions of a device share.

use alloc::{sync::Arc, vec};
use core::fmt;

use rustls::{
    ClientConfig, client::Resumption, crypto::CryptoProvider, sign::CertifiedKey,
    time_provider::TimeProvider, version::TLS13,
};
use rustls_pki_types::UnixTime;
use wasmbed_identity::SpiffeId;

use crate::{
    credentials::{Credentials, Identity, Own},
    error::TlsError,
    provider::{self, RandomSource},
    session::{ALPN, PLAIN_BYTES_MAX, Session},
    time::Time,
    verifier::Verifier,
};

/// What rustls counts in a fragment in addition to the plain bytes: a record's header.
const HEADER_BYTES: usize = 5;

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
    pub fn new(credentials: Credentials, random: &'static dyn RandomSource) -> Result<Self, TlsError> {
        let (identity, certified) = credentials.open()?;
        Ok(Self {
            identity: Arc::new(identity),
            certified: Arc::new(certified),
            provider: provider::provider(random),
        })
    }

    /// This device's id, from its certificate.
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
    /// Only a bug: [`TlsError::Bug`].
    pub fn connect(&self, time: &Time, now_ms: u64) -> Result<Session, TlsError> {
        let verifier = Arc::new(Verifier::new(Arc::clone(&self.identity), time.moment(now_ms)));
        let own = Arc::new(Own::new(Arc::clone(&self.certified)));
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
        f.debug_struct("Client").field("id", &self.identity.id).finish_non_exhaustive()
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
