//! What a device makes of a key of its own: the request for its certificate, and what it presents until it has one.
//!
//! The structures are written here: with those of `x509-cert` 0.2 the firmware of riscv32-virt has 12,420 bytes more, and with the
//! PKCS#8 of `p256` another 5,932. Hosts' parsers read each of them in the tests.

use alloc::vec::Vec;

use rustls_pki_types::CertificateDer;

use crate::{
    der::{BIT_STRING, CONTEXT_0, GENERALIZED_TIME, INTEGER, SEQUENCE, UTC_TIME, element},
    error::TlsError,
    provider::P256Key,
};

/// `AlgorithmIdentifier` of ecdsa-with-SHA256 (RFC 5758).
const ECDSA_SHA256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// A `Name` without parts.
const NOBODY: &[u8] = &[SEQUENCE, 0];

/// A request (PKCS #10, RFC 2986) for a certificate for this key, DER: with an empty subject and no attributes, since nothing of
/// it but the key is used.
///
/// # Errors
/// Only a bug: [`TlsError::Bug`].
pub fn certification_request(key: &P256Key) -> Result<Vec<u8>, TlsError> {
    let version_1 = [INTEGER, 1, 0];
    let no_attributes = [CONTEXT_0, 0];
    signed(key, &[&version_1, NOBODY, &key.public_key_info(), &no_attributes])
}

/// A certificate of this key by this key (RFC 5280), which proves possession of the key and nothing else: what a device with a
/// pairing token presents. It has no names, and no end (section 4.1.2.5), as a board without a clock has no beginning.
pub(crate) fn self_signed(key: &P256Key) -> Result<CertificateDer<'static>, TlsError> {
    let version_3 = element(CONTEXT_0, &[&[INTEGER, 1, 2]]);
    let serial = [INTEGER, 1, 1];
    let validity = element(
        SEQUENCE,
        &[&element(UTC_TIME, &[b"700101000000Z"]), &element(GENERALIZED_TIME, &[b"99991231235959Z"])],
    );
    let parts: [&[u8]; 7] =
        [&version_3, &serial, ECDSA_SHA256, NOBODY, &validity, NOBODY, &key.public_key_info()];
    signed(key, &parts).map(CertificateDer::from)
}

/// What X.509 and PKCS #10 have in common: content, algorithm, signature.
fn signed(key: &P256Key, content: &[&[u8]]) -> Result<Vec<u8>, TlsError> {
    let content = element(SEQUENCE, content);
    let signature = element(BIT_STRING, &[&[0], &key.sign_der(&content)?]);
    Ok(element(SEQUENCE, &[&content, ECDSA_SHA256, &signature]))
}
