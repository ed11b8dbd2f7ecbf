//! The facts of a certificate.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;
use x509_parser::{
    oid_registry::OID_X509_SERIALNUMBER,
    prelude::{FromDer, GeneralName, X509Certificate},
};

use crate::{CertificateError, SpiffeId};

/// The facts of a certificate that Wasmbed uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Subject common name, if it has one.
    pub common_name: Option<String>,
    /// Subject serial number (X.520), if it has one: in certificates that the signer issued, the UID of the Device.
    pub subject_serial: Option<String>,
    /// Whether it names itself as its issuer, as a root does.
    pub is_self_issued: bool,
    /// All URIs among the subject's alternative names.
    pub uris: Vec<String>,
    /// DER SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// Seconds since 1970-01-01T00:00:00Z.
    pub not_before: i64,
    /// Seconds since 1970-01-01T00:00:00Z.
    pub not_after: i64,
    /// Serial number, hexadecimal.
    pub serial: String,
}

impl CertificateFacts {
    /// Reads a DER certificate. Its signature is not checked.
    ///
    /// # Errors
    /// The bytes are not a certificate.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
        if !rest.is_empty() {
            return Err(CertificateError::Malformed);
        }
        let names = certificate.subject_alternative_name().map_err(|_| CertificateError::Malformed)?;
        let uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
        Ok(Self {
            common_name: certificate
                .subject()
                .iter_common_name()
                .next()
                .and_then(|name| name.as_str().ok())
                .map(str::to_owned),
            subject_serial: certificate
                .subject()
                .iter_by_oid(&OID_X509_SERIALNUMBER)
                .next()
                .and_then(|serial| serial.as_str().ok())
                .map(str::to_owned),
            is_self_issued: certificate.issuer().as_raw() == certificate.subject().as_raw(),
            uris: uris.collect(),
            public_key: certificate.public_key().raw.to_vec(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            serial: certificate.raw_serial_as_string().replace(':', ""),
        })
    }

    /// The one SPIFFE id.
    ///
    /// # Errors
    /// There is not exactly one URI, or it is not an id of Wasmbed.
    pub fn spiffe_id(&self) -> Result<SpiffeId, CertificateError> {
        match self.uris.as_slice() {
            [uri] => Ok(uri.parse()?),
            uris => Err(CertificateError::UriCount(uris.len())),
        }
    }

    /// The public key as `Device.spec.public_key` has it.
    #[must_use]
    pub fn public_key_base64(&self) -> String {
        STANDARD.encode(&self.public_key)
    }
}

/// Certificates of a chain at most; ours have two.
const CHAIN_MAX: usize = 8;

/// The certificates that stand one after the other in DER.
///
/// # Errors
/// There is none, something else stands there, or there are more than eight.
pub fn split_chain(der: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let mut chain = Vec::new();
    let mut left = der;
    while chain.is_empty() || !left.is_empty() {
        let (rest, _) = X509Certificate::from_der(left).map_err(|_| CertificateError::Malformed)?;
        let length = left.len() - rest.len();
        let one = left.get(..length).filter(|_| chain.len() < CHAIN_MAX);
        chain.push(CertificateDer::from(one.ok_or(CertificateError::Malformed)?.to_vec()));
        left = rest;
    }
    Ok(chain)
}

/// The public key of a DER certificate as `Device.spec.public_key` has it: standard base64 of the DER
/// SubjectPublicKeyInfo.
///
/// # Errors
/// The bytes are not a certificate.
pub fn public_key_base64(der: &[u8]) -> Result<String, CertificateError> {
    Ok(CertificateFacts::parse(der)?.public_key_base64())
}
