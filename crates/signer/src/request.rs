//! A CertificateSigningRequest as a gateway wrote it, read and bounded.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject as _};
use thiserror::Error;
use wasmbed_api::{DEVICE_SIGNER, request_annotation as annotation};
use wasmbed_control::{
    ObjectKey,
    signer::{Annotated, AnnotationFlaw, Asked as Facts, Spoken},
};
use wasmbed_pki::{CertificationRequest, RequestError};
use wasmbed_protocol::{DeviceUid, KeyHash, limits};

/// Certificates of a chain in a request: a leaf and three authorities, as devices hold at most.
const CHAIN_MAX: usize = 4;
/// PEM of such a chain: base64 takes a third more, and the lines around it some.
const CHAIN_PEM_BYTES_MAX: usize = limits::CHAIN_BYTES_MAX as usize * 3 / 2;

/// What a device asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The Device that the certificate is to name.
    pub device: ObjectKey,
    /// Its UID, as whoever wrote the request saw it.
    pub device_uid: DeviceUid,
    /// The request of the device itself.
    pub request: CertificationRequest,
    /// Of the key in it.
    pub key: KeyHash,
    /// What speaks for it.
    pub proof: Proof,
}

/// What speaks for a request; not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing.
    None,
    /// A signature by a factory key.
    Factory {
        /// The factory certificate, then the authorities below the factory root.
        chain: Vec<CertificateDer<'static>>,
        /// Over the join statement.
        signature: Vec<u8>,
    },
    /// A MAC under a token's key.
    Pairing {
        /// Id of the token.
        id: String,
        /// Over the join statement.
        mac: Vec<u8>,
    },
    /// The certificate that is to be renewed; the request itself is signed by its key.
    Renewal {
        /// The certificate, then its authority.
        chain: Vec<CertificateDer<'static>>,
    },
}

impl Asked {
    /// Reads a request.
    ///
    /// # Errors
    /// It is not for devices' signer, or can't be understood.
    pub fn read(object: &CertificateSigningRequest) -> Result<Self, Malformed> {
        if object.spec.signer_name != DEVICE_SIGNER {
            return Err(Malformed::Signer);
        }
        let Annotated { device, device_uid, spoken } = Annotated::read(object.metadata.annotations.as_ref())?;
        let der = CertificateSigningRequestDer::from_pem_slice(&object.spec.request.0)
            .map_err(|_| Malformed::Request(RequestError::Malformed))?;
        let request = CertificationRequest::parse(&der)?;
        let key = KeyHash::of(request.public_key_info());
        let proof = Proof::decode(spoken)?;
        Ok(Self { device, device_uid, request, key, proof })
    }

    /// What decisions depend on.
    pub(crate) fn facts(&self, approved: bool) -> Facts {
        let pairing_id = match &self.proof {
            Proof::Pairing { id, .. } => Some(id.clone()),
            Proof::None | Proof::Factory { .. } | Proof::Renewal { .. } => None,
        };
        Facts { approved, device_uid: self.device_uid, key: self.key, pairing_id }
    }
}

impl Proof {
    fn decode(spoken: Spoken<'_>) -> Result<Self, Malformed> {
        Ok(match spoken {
            Spoken::None => Self::None,
            Spoken::Renewal { chain: pem } => Self::Renewal { chain: chain(annotation::RENEWS, pem)? },
            Spoken::Factory { chain: pem, signature } => Self::Factory {
                chain: chain(annotation::FACTORY_CHAIN, pem)?,
                signature: bytes(annotation::JOIN_PROOF, signature)?,
            },
            Spoken::Pairing { id, mac } => {
                Self::Pairing { id: id.to_owned(), mac: bytes(annotation::JOIN_PROOF, mac)? }
            }
        })
    }
}

fn flaw(name: &'static str, problem: &'static str) -> Malformed {
    AnnotationFlaw::Annotation { name, problem }.into()
}

fn bytes(name: &'static str, text: &str) -> Result<Vec<u8>, Malformed> {
    let malformed = flaw(name, "is not base64 of at most 128 bytes");
    match STANDARD.decode(text) {
        Ok(bytes) if bytes.len() <= limits::JOIN_PROOF_BYTES_MAX => Ok(bytes),
        Ok(_) | Err(_) => Err(malformed),
    }
}

fn chain(name: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, Malformed> {
    let malformed = |problem| flaw(name, problem);
    if pem.len() > CHAIN_PEM_BYTES_MAX {
        return Err(malformed("is longer than a chain of 8,192 bytes"));
    }
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| malformed("is not PEM"))?;
    match certificates.len() {
        1..=CHAIN_MAX => Ok(certificates),
        _ => Err(malformed("holds no certificate, or more than four")),
    }
}

/// A request can't be used, ever. Whoever wrote it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// It is another signer's.
    #[error("spec.signerName is not {DEVICE_SIGNER}")]
    Signer,
    /// Its annotations can't be used.
    #[error(transparent)]
    Annotations(#[from] AnnotationFlaw),
    /// `spec.request` is no request for a device's key.
    #[error("spec.request: {0}")]
    Request(#[from] RequestError),
}
