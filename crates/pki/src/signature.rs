//! Signatures by a key that is known by itself, without a certificate.

use rustls_pki_types::{SignatureVerificationAlgorithm, alg_id::ECDSA_P256, alg_id::ECDSA_SHA256};
use wasmbed_identity::P256_KEY_INFO_HEAD;

use crate::tls::provider;

/// Whether `signature` (X9.62, DER) is over SHA-256 of `message` by the ECDSA P-256 key whose DER `SubjectPublicKeyInfo` this
/// is. Another kind of key has signed nothing.
#[must_use]
pub fn is_signed_by(public_key_info: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let is_p256 = |algorithm: &&&dyn SignatureVerificationAlgorithm| {
        algorithm.public_key_alg_id() == ECDSA_P256 && algorithm.signature_alg_id() == ECDSA_SHA256
    };
    let provider = provider();
    let algorithm = provider.signature_verification_algorithms.all.iter().find(is_p256);
    let point = public_key_info.strip_prefix(P256_KEY_INFO_HEAD);
    algorithm
        .zip(point)
        .is_some_and(|(algorithm, point)| algorithm.verify_signature(point, message, signature).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeviceKey;

    #[test]
    fn a_signature_is_its_keys_alone_and_over_its_message() {
        let (key, other) = (DeviceKey::generate().unwrap(), DeviceKey::generate().unwrap());
        let (info, signature) = (key.public_key_info(), key.sign(b"message").unwrap());
        assert!(is_signed_by(&info, b"message", &signature));
        assert!(!is_signed_by(&info, b"another", &signature));
        assert!(!is_signed_by(&other.public_key_info(), b"message", &signature));
        assert!(!is_signed_by(&info[..info.len() - 1], b"message", &signature));
        assert!(!is_signed_by(&[], b"message", &signature));
        assert!(!is_signed_by(&info, b"message", &[]));
    }
}
