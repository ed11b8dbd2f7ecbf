//! The cryptography of TLS, cut to one of each kind: small enough for a microcontroller's flash.
//!
//! It follows rustls's traits on top of RustCrypto's implementations. Secrets are overwritten when they are dropped: private
//! keys, shared secrets, HMAC states and what is derived from them.

mod aead;
mod ecdsa;
mod hkdf;
mod kx;
mod random;
mod sha256;

use alloc::{boxed::Box, sync::Arc, vec};

use rustls::{
    CipherSuite, Error, SignatureScheme, SupportedCipherSuite, Tls13CipherSuite,
    crypto::{CipherSuiteCommon, CryptoProvider, KeyProvider, WebPkiSupportedAlgorithms},
    sign::SigningKey,
};
use rustls_pki_types::PrivateKeyDer;

pub use aead::ChaCha20Poly1305;
pub use ecdsa::{EcdsaP256Sha256, P256Key};
pub use hkdf::{HkdfSha256, HmacSha256};
pub use kx::X25519;
pub use random::{Random, RandomSource};
pub use sha256::Sha256;

/// The one cipher suite.
pub static TLS13_CHACHA20_POLY1305_SHA256: &Tls13CipherSuite = &Tls13CipherSuite {
    common: CipherSuiteCommon {
        suite: CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        hash_provider: &Sha256,
        // RFC 8446, section 5.5: the sequence number would wrap first.
        confidentiality_limit: u64::MAX,
    },
    hkdf_provider: &HkdfSha256,
    aead_alg: &ChaCha20Poly1305,
    quic: None,
};

/// The one kind of signature, in certificates and in the handshake.
pub static ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[&EcdsaP256Sha256],
    mapping: &[(SignatureScheme::ECDSA_NISTP256_SHA256, &[&EcdsaP256Sha256])],
};

/// The provider over a board's entropy.
///
/// rustls wants what makes keys to live forever: each call leaks one pointer's worth of heap. A board calls it once.
#[must_use]
pub fn provider(random: &'static dyn RandomSource) -> Arc<CryptoProvider> {
    let random: &'static Random = Box::leak(Box::new(Random(random)));
    let group: &'static X25519 = Box::leak(Box::new(X25519(random)));
    Arc::new(CryptoProvider {
        cipher_suites: vec![SupportedCipherSuite::Tls13(TLS13_CHACHA20_POLY1305_SHA256)],
        kx_groups: vec![group],
        signature_verification_algorithms: ALGORITHMS,
        secure_random: random,
        key_provider: &Keys,
    })
}

#[derive(Debug)]
struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        match P256Key::from_der(&key) {
            Some(key) => Ok(Arc::new(key)),
            None => Err(Error::General("not an ECDSA P-256 key in PKCS#8 v1".into())),
        }
    }
}
