//! ECDSA on P-256 with SHA-256 (FIPS 186-5): verifying, and signing with nonces of RFC 6979, which need no entropy.

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::fmt;

use p256::ecdsa::{
    DerSignature, Signature, SigningKey, VerifyingKey,
    signature::{Signer as _, Verifier as _},
};
use rustls::{
    Error, SignatureAlgorithm, SignatureScheme,
    sign::{self, Signer},
};
use rustls_pki_types::{
    AlgorithmIdentifier, InvalidSignature, PrivateKeyDer, SignatureVerificationAlgorithm,
    alg_id::{ECDSA_P256, ECDSA_SHA256},
};

use wasmbed_identity::P256_KEY_INFO_HEAD;
use zeroize::{Zeroize as _, Zeroizing};

use super::random::RandomSource;
use crate::{
    der::{p256_pkcs8, p256_point, p256_scalar},
    error::TlsError,
};

/// Bytes of an uncompressed point.
const POINT_BYTES: usize = 65;
/// Bytes of a key's DER `SubjectPublicKeyInfo`.
const KEY_INFO_BYTES: usize = P256_KEY_INFO_HEAD.len() + POINT_BYTES;

/// Verifies signatures.
#[derive(Clone, Copy, Debug)]
pub struct EcdsaP256Sha256;

impl SignatureVerificationAlgorithm for EcdsaP256Sha256 {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        // RFC 8446, section 4.2.3: points are uncompressed.
        if public_key.first() != Some(&0x04) {
            return Err(InvalidSignature);
        }
        let key = VerifyingKey::from_sec1_bytes(public_key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        key.verify(message, &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        ECDSA_SHA256
    }
}

/// A private key. It overwrites itself when the last of its clones is dropped.
#[derive(Clone)]
pub struct P256Key(Arc<SigningKey>);

impl P256Key {
    /// A new key.
    #[must_use]
    pub fn generate(random: &dyn RandomSource) -> Self {
        let mut scalar = Zeroizing::new([0; 32]);
        // FIPS 186-5, appendix A.2.2: what is no scalar is drawn again, one in 2^32 for this curve.
        loop {
            random.fill(&mut *scalar);
            if let Ok(key) = SigningKey::from_slice(&*scalar) {
                return Self(Arc::new(key));
            }
        }
    }

    /// None if it is not an ECDSA P-256 key in PKCS#8 v1.
    #[must_use]
    pub fn from_der(key: &PrivateKeyDer<'_>) -> Option<Self> {
        let PrivateKeyDer::Pkcs8(key) = key else { return None };
        Self::from_pkcs8(key.secret_pkcs8_der())
    }

    /// The same of its bytes.
    #[must_use]
    pub fn from_pkcs8(key: &[u8]) -> Option<Self> {
        SigningKey::from_slice(p256_scalar(key)?).ok().map(|key| Self(Arc::new(key)))
    }

    /// The key in PKCS#8 v1, DER, to be kept. It overwrites itself.
    #[must_use]
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        let mut scalar = self.0.to_bytes();
        let key = p256_pkcs8(&scalar, &self.point());
        scalar.zeroize();
        key
    }

    /// Its public key: a DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key_info(&self) -> [u8; KEY_INFO_BYTES] {
        let mut info = [0; KEY_INFO_BYTES];
        let (head, point) = info.split_at_mut(P256_KEY_INFO_HEAD.len());
        head.copy_from_slice(P256_KEY_INFO_HEAD);
        point.copy_from_slice(&self.point());
        info
    }

    /// Whether a DER `SubjectPublicKeyInfo` holds its public key.
    #[must_use]
    pub fn belongs_to(&self, public_key_info: &[u8]) -> bool {
        p256_point(public_key_info) == Some(&self.point())
    }

    /// A signature over a message (X9.62), DER.
    ///
    /// # Errors
    /// Only a bug: [`TlsError::Bug`].
    pub fn sign_der(&self, message: &[u8]) -> Result<Vec<u8>, TlsError> {
        let signature: DerSignature = self.0.try_sign(message).map_err(|_| TlsError::Bug("ECDSA failed"))?;
        Ok(signature.as_bytes().to_vec())
    }

    /// The public key as an uncompressed point.
    pub(crate) fn point(&self) -> [u8; POINT_BYTES] {
        let encoded = self.0.verifying_key().to_encoded_point(false);
        let mut point = [0; POINT_BYTES];
        point.copy_from_slice(encoded.as_bytes());
        point
    }
}

impl sign::SigningKey for P256Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&self.scheme()).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for P256Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.sign_der(message).map_err(|_| Error::General("ECDSA failed".into()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

impl fmt::Debug for P256Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P256Key")
    }
}
