//! Signatures that are no part of a certificate or a handshake: by a key that is known by itself, and of controllers' orders.

use rustls::RootCertStore;
use rustls_pki_types::{
    SignatureVerificationAlgorithm, UnixTime,
    alg_id::{ECDSA_P256, ECDSA_SHA256},
};
use wasmbed_identity::{Addressee, OrderRefusal, OrderRules, P256_KEY_INFO_HEAD, statement::SignedOrder};

use crate::tls::provider;

/// ECDSA on P-256 with SHA-256.
fn es256() -> Option<&'static dyn SignatureVerificationAlgorithm> {
    let is_it = |algorithm: &&&dyn SignatureVerificationAlgorithm| {
        algorithm.public_key_alg_id() == ECDSA_P256 && algorithm.signature_alg_id() == ECDSA_SHA256
    };
    provider().signature_verification_algorithms.all.iter().find(is_it).copied()
}

/// Whether `signature` (X9.62, DER) is over SHA-256 of `message` by the ECDSA P-256 key whose DER `SubjectPublicKeyInfo` this
/// is. Another kind of key has signed nothing.
#[must_use]
pub fn is_signed_by(public_key_info: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let point = public_key_info.strip_prefix(P256_KEY_INFO_HEAD);
    es256()
        .zip(point)
        .is_some_and(|(algorithm, point)| algorithm.verify_signature(point, message, signature).is_ok())
}

/// Whether a device is to follow an order to decommission it, now.
///
/// # Errors
/// It is not.
pub fn check_order(
    signed: &SignedOrder<'_>,
    to: &Addressee<'_>,
    services_roots: &RootCertStore,
    now: UnixTime,
) -> Result<(), OrderRefusal> {
    let es256 = es256().ok_or(OrderRefusal::Signature)?;
    let algorithms = provider().signature_verification_algorithms.all;
    wasmbed_identity::check_order(
        signed,
        to,
        &OrderRules { anchors: &services_roots.roots, algorithms, es256, now },
    )
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
