//! What a device was provisioned with, and how it is presented.

use alloc::{sync::Arc, vec::Vec};
use core::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use rustls::{SignatureScheme, client::ResolvesClientCert, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor};
use wasmbed_identity::{Leaf, Role, SpiffeId};
use webpki::anchor_from_trusted_cert;
use zeroize::Zeroize as _;

use crate::{error::CredentialsError, provider::P256Key};

/// A leaf and three authorities above it; Wasmbed's own chains have one.
const CHAIN_MAX: usize = 4;
/// The one in force and the one that follows.
const ROOTS_MAX: usize = 2;

/// What a device was provisioned with.
pub struct Credentials {
    /// The leaf, then its authorities; the root is not among them.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key: ECDSA P-256 in PKCS#8 v1. It is overwritten as soon as it was read.
    pub key: PrivateKeyDer<'static>,
    /// The roots that gateways' chains end at, one or two.
    pub services_roots: Vec<CertificateDer<'static>>,
}

/// The device itself, and what it trusts.
pub(crate) struct Identity {
    pub(crate) id: SpiffeId,
    pub(crate) anchors: Vec<TrustAnchor<'static>>,
}

impl Credentials {
    /// Checks that they fit together. The private key is overwritten in any case.
    pub(crate) fn open(mut self) -> Result<(Identity, CertifiedKey), CredentialsError> {
        let key = P256Key::from_der(&self.key);
        self.key.zeroize();
        let key = key.ok_or(CredentialsError::Key)?;
        let Self { chain, services_roots, .. } = self;
        if chain.len() > CHAIN_MAX {
            return Err(CredentialsError::ChainLength);
        }
        let leaf = chain.first().ok_or(CredentialsError::NoCertificate)?;
        let leaf = Leaf::parse(leaf).map_err(|_| CredentialsError::Malformed)?;
        if !key.belongs_to(&leaf.public_key_info()) {
            return Err(CredentialsError::KeyMismatch);
        }
        let id = leaf.spiffe_id().map_err(CredentialsError::Id)?;
        if id.role() != Role::Device {
            return Err(CredentialsError::Role);
        }
        if !(1..=ROOTS_MAX).contains(&services_roots.len()) {
            return Err(CredentialsError::RootCount);
        }
        let anchors = services_roots
            .iter()
            .map(|root| anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned()))
            .collect::<Result<_, _>>()
            .map_err(|_| CredentialsError::Root)?;
        Ok((Identity { id, anchors }, CertifiedKey::new(chain, Arc::new(key))))
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
