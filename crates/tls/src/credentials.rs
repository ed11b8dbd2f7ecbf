//! What a device presents, and what it trusts.

use alloc::{string::String, sync::Arc, vec, vec::Vec};
use core::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use rustls::{SignatureScheme, client::ResolvesClientCert, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, TrustAnchor};
use wasmbed_identity::{FactoryId, Leaf, Role, SpiffeId, statement::DeviceUid};
use webpki::anchor_from_trusted_cert;

use crate::{
    der::{Validity, certificates, subject_serial},
    error::{CredentialsError, TlsError},
    provider::P256Key,
    request::self_signed,
};

/// A leaf and three authorities above it; Wasmbed's own chains have one.
const CHAIN_MAX: usize = 4;
/// The one in force and the one that follows.
const ROOTS_MAX: usize = 2;

/// Who a device says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnId {
    /// A device of a fleet.
    Device(SpiffeId),
    /// What its maker calls it: it belongs to no fleet yet.
    Factory(FactoryId),
    /// Nobody yet: it has a pairing token for this trust domain.
    Pairing(String),
}

impl OwnId {
    /// The trust domain of the fleet that it belongs to, or is to join.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        match self {
            Self::Device(id) => id.trust_domain(),
            Self::Factory(id) => id.trust_domain(),
            Self::Pairing(trust_domain) => trust_domain,
        }
    }
}

/// What a device presents: a chain and its key, which fit together.
#[derive(Clone)]
pub struct Credentials {
    id: OwnId,
    pub(crate) certified: Arc<CertifiedKey>,
    validity: Validity,
    device_uid: Option<DeviceUid>,
}

impl Credentials {
    /// Of a device that belongs to a fleet. The chain is the leaf, then its authorities; the root is not among them.
    ///
    /// # Errors
    /// The chain is too long or malformed, not this key's, or not a device's.
    pub fn device(chain: Vec<CertificateDer<'static>>, key: &P256Key) -> Result<Self, CredentialsError> {
        Self::of(chain, key, |leaf| {
            let id = leaf.spiffe_id().map_err(CredentialsError::Id)?;
            if id.role() != Role::Device {
                return Err(CredentialsError::Role);
            }
            Ok(OwnId::Device(id))
        })
    }

    /// The same of a chain whose certificates, DER, stand one after the other.
    ///
    /// # Errors
    /// As [`Credentials::device`].
    pub fn device_of_bytes(chain: &[u8], key: &P256Key) -> Result<Self, CredentialsError> {
        Self::device(certificates(chain).ok_or(CredentialsError::Malformed)?, key)
    }

    /// Of a device that has what its maker gave it alone.
    ///
    /// # Errors
    /// The chain is too long or malformed, not this key's, or not from a factory.
    pub fn factory(chain: Vec<CertificateDer<'static>>, key: &P256Key) -> Result<Self, CredentialsError> {
        Self::of(chain, key, |leaf| Ok(OwnId::Factory(leaf.factory_id().map_err(CredentialsError::Id)?)))
    }

    /// Of a device that has a pairing token for this trust domain, and made this key itself.
    ///
    /// # Errors
    /// Only a bug: [`TlsError::Bug`].
    pub fn pairing(trust_domain: &str, key: &P256Key) -> Result<Self, TlsError> {
        let certificate = self_signed(key)?;
        Ok(Self::of(vec![certificate], key, |_| Ok(OwnId::Pairing(trust_domain.into())))?)
    }

    /// Who the device says that it is.
    #[must_use]
    pub fn id(&self) -> &OwnId {
        &self.id
    }

    /// When the leaf begins to be valid, seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn not_before(&self) -> u64 {
        self.validity.not_before
    }

    /// Until when the leaf is valid, seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn not_after(&self) -> u64 {
        self.validity.not_after
    }

    /// The UID of the Device that the leaf was issued for; none in certificates that the signer did not issue.
    #[must_use]
    pub fn device_uid(&self) -> Option<DeviceUid> {
        self.device_uid
    }

    fn of(
        chain: Vec<CertificateDer<'static>>,
        key: &P256Key,
        id: impl FnOnce(&Leaf<'_>) -> Result<OwnId, CredentialsError>,
    ) -> Result<Self, CredentialsError> {
        if chain.len() > CHAIN_MAX {
            return Err(CredentialsError::ChainLength);
        }
        let leaf = chain.first().ok_or(CredentialsError::NoCertificate)?;
        let validity = Validity::of(leaf).ok_or(CredentialsError::Malformed)?;
        let device_uid = subject_serial(leaf).and_then(|serial| serial.parse().ok());
        let leaf = Leaf::parse(leaf).map_err(|_| CredentialsError::Malformed)?;
        if !key.belongs_to(&leaf.public_key_info()) {
            return Err(CredentialsError::KeyMismatch);
        }
        let id = id(&leaf)?;
        let certified = Arc::new(CertifiedKey::new(chain, Arc::new(key.clone())));
        Ok(Self { id, certified, validity, device_uid })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Which gateways a device accepts.
pub(crate) struct Trust {
    pub(crate) trust_domain: String,
    pub(crate) anchors: Vec<TrustAnchor<'static>>,
}

impl Trust {
    pub(crate) fn new(trust_domain: &str, roots: &[CertificateDer<'_>]) -> Result<Self, CredentialsError> {
        if !(1..=ROOTS_MAX).contains(&roots.len()) {
            return Err(CredentialsError::RootCount);
        }
        let anchors = roots
            .iter()
            .map(|root| anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned()))
            .collect::<Result<_, _>>()
            .map_err(|_| CredentialsError::Root)?;
        Ok(Self { trust_domain: trust_domain.into(), anchors })
    }
}

/// The device's certificate, and whether the gateway asked for it.
pub(crate) struct Own {
    certified: Arc<CertifiedKey>,
    was_asked: AtomicBool,
}

impl Own {
    pub(crate) fn new(certified: Arc<CertifiedKey>) -> Self {
        Self { certified, was_asked: AtomicBool::new(false) }
    }

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
