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

use crate::der::{p256_point, p256_scalar};

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
    /// None if it is not an ECDSA P-256 key in PKCS#8 v1.
    #[must_use]
    pub fn from_der(key: &PrivateKeyDer<'_>) -> Option<Self> {
        let PrivateKeyDer::Pkcs8(key) = key else { return None };
        let scalar = p256_scalar(key.secret_pkcs8_der())?;
        SigningKey::from_slice(scalar).ok().map(|key| Self(Arc::new(key)))
    }

    /// Whether a DER `SubjectPublicKeyInfo` holds its public key.
    #[must_use]
    pub fn belongs_to(&self, public_key_info: &[u8]) -> bool {
        let public = self.0.verifying_key().to_encoded_point(false);
        p256_point(public_key_info) == Some(public.as_bytes())
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
        let signature: DerSignature =
            self.0.try_sign(message).map_err(|_| Error::General("ECDSA failed".into()))?;
        Ok(signature.as_bytes().to_vec())
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
