//! What a device makes of a key of its own: the request for its certificate, and what it presents until it has one.
//!
//! The structures are `x509-cert`'s. Encoding them costs a board 3 KiB of flash more than bytes put together by hand would.

use alloc::vec::Vec;
use core::time::Duration;

use rustls_pki_types::CertificateDer;
use x509_cert::{
    Certificate, TbsCertificate, Version,
    attr::Attributes,
    der::{
        Any, Encode as _, Error,
        asn1::{BitString, ObjectIdentifier, UtcTime},
    },
    name::Name,
    request::{self, CertReq, CertReqInfo},
    serial_number::SerialNumber,
    spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned},
    time::{Time, Validity},
};

use crate::{error::TlsError, provider::P256Key};

/// RFC 5480: id-ecPublicKey, and the curve secp256r1.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// RFC 5758: ecdsa-with-SHA256.
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// A request (PKCS #10, RFC 2986) for a certificate for this key, DER: with an empty subject and no attributes, since nothing of
/// it but the key is used.
///
/// # Errors
/// Only a bug: [`TlsError::Bug`].
pub fn certification_request(key: &P256Key) -> Result<Vec<u8>, TlsError> {
    let info = CertReqInfo {
        version: request::Version::V1,
        subject: Name::default(),
        public_key: public_key(key).map_err(bug)?,
        attributes: Attributes::default(),
    };
    let signature = sign(key, &info.to_der().map_err(bug)?)?;
    CertReq { info, algorithm: ecdsa(), signature }.to_der().map_err(bug)
}

/// A certificate of this key by this key, which proves possession of the key and nothing else: what a device with a pairing token
/// presents. It has no names, and no end (RFC 5280, section 4.1.2.5), as a board without a clock has no beginning.
pub(crate) fn self_signed(key: &P256Key) -> Result<CertificateDer<'static>, TlsError> {
    let beginning = UtcTime::from_unix_duration(Duration::ZERO).map_err(bug)?;
    let tbs_certificate = TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::new(&[1]).map_err(bug)?,
        signature: ecdsa(),
        issuer: Name::default(),
        validity: Validity { not_before: Time::UtcTime(beginning), not_after: Time::INFINITY },
        subject: Name::default(),
        subject_public_key_info: public_key(key).map_err(bug)?,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: None,
    };
    let signature = sign(key, &tbs_certificate.to_der().map_err(bug)?)?;
    let certificate = Certificate { tbs_certificate, signature_algorithm: ecdsa(), signature };
    certificate.to_der().map(CertificateDer::from).map_err(bug)
}

fn ecdsa() -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid: ECDSA_SHA256, parameters: None }
}

fn public_key(key: &P256Key) -> Result<SubjectPublicKeyInfoOwned, Error> {
    let algorithm =
        AlgorithmIdentifierOwned { oid: EC_PUBLIC_KEY, parameters: Some(Any::encode_from(&P256)?) };
    Ok(SubjectPublicKeyInfoOwned { algorithm, subject_public_key: BitString::from_bytes(&key.point())? })
}

fn sign(key: &P256Key, message: &[u8]) -> Result<BitString, TlsError> {
    BitString::from_bytes(&key.sign_der(message)?).map_err(bug)
}

fn bug(_: Error) -> TlsError {
    TlsError::Bug("a structure of X.509 could not be encoded")
}
