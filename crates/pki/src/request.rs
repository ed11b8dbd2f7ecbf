//! Certification requests (PKCS #10, RFC 2986), of which nothing but the key is used.

use thiserror::Error;
use wasmbed_identity::P256_KEY_INFO_HEAD;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

/// Bytes of a request that are looked at; with a P-256 key and an empty subject it has some 250.
pub const REQUEST_BYTES_MAX: usize = 4_096;

/// A request whose signature is by the key in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificationRequest {
    public_key_info: Vec<u8>,
}

impl CertificationRequest {
    /// Reads a DER request and verifies its signature. What it asks for beside the key is ignored.
    ///
    /// # Errors
    /// It is no request, is not signed by its own key, or the key is not ECDSA P-256.
    pub fn parse(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > REQUEST_BYTES_MAX {
            return Err(RequestError::Malformed);
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| RequestError::Malformed)?;
        if !rest.is_empty() {
            return Err(RequestError::Malformed);
        }
        let public_key_info = request.certification_request_info.subject_pki.raw;
        let point = public_key_info.strip_prefix(P256_KEY_INFO_HEAD).ok_or(RequestError::Key)?;
        // RFC 5480, section 2.2: an uncompressed point.
        if point.len() != 65 || point.first() != Some(&0x04) {
            return Err(RequestError::Key);
        }
        request.verify_signature().map_err(|_| RequestError::Signature)?;
        Ok(Self { public_key_info: public_key_info.to_vec() })
    }

    /// Its key, a DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key_info(&self) -> &[u8] {
        &self.public_key_info
    }
}

/// A request can't be used. Whoever made it is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// Not DER of PKCS #10, or too long.
    #[error("not a certification request (PKCS #10)")]
    Malformed,
    /// It is not signed by the key in it.
    #[error("the request is not signed by its own key")]
    Signature,
    /// Another kind of key.
    #[error("the request's key is not ECDSA P-256")]
    Key,
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
        PublicKeyData as _,
    };

    use super::*;

    fn request(key: &KeyPair) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["gateway.example.org".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "I am the gateway");
        params.serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn nothing_but_the_key_is_taken() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let parsed = CertificationRequest::parse(&request(&key)).unwrap();
        assert_eq!(parsed.public_key_info(), key.subject_public_key_info());
    }

    #[test]
    fn other_keys_and_signatures_are_refused() {
        for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            assert_eq!(CertificationRequest::parse(&request(&key)), Err(RequestError::Key));
        }
        let der = request(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
        let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let at = der.windows(65).position(|window| window.starts_with(&[0, 4]) && window.len() == 65);
        let mut swapped = der.clone();
        let at = at.unwrap() + 1;
        swapped[at..at + 65].copy_from_slice(&other.subject_public_key_info()[P256_KEY_INFO_HEAD.len()..]);
        assert_eq!(CertificationRequest::parse(&swapped), Err(RequestError::Signature));
        assert_eq!(CertificationRequest::parse(&[&der[..], &[0]].concat()), Err(RequestError::Malformed));
        assert_eq!(CertificationRequest::parse(&der[..der.len() - 1]), Err(RequestError::Malformed));
        assert_eq!(CertificationRequest::parse(&vec![0x30; 5_000]), Err(RequestError::Malformed));
    }
}
