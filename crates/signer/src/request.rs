//! A CertificateSigningRequest as a gateway wrote it, read and bounded.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject as _};
use thiserror::Error;
use wasmbed_api::{DEVICE_SIGNER, request_annotation as annotation};
use wasmbed_control::ObjectKey;
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
        let value = |name: &'static str| {
            object.metadata.annotations.as_ref().and_then(|annotations| annotations.get(name))
        };
        let present =
            |name: &'static str| value(name).ok_or(Malformed::Annotation { name, problem: "is missing" });
        let device = present(annotation::DEVICE)?;
        let (namespace, name) = device
            .split_once('/')
            .ok_or(Malformed::Annotation { name: annotation::DEVICE, problem: "is not namespace/name" })?;
        let device_uid = present(annotation::DEVICE_UID)?
            .parse()
            .map_err(|_| Malformed::Annotation { name: annotation::DEVICE_UID, problem: "is not a UUID" })?;
        let der = CertificateSigningRequestDer::from_pem_slice(&object.spec.request.0)
            .map_err(|_| Malformed::Request(RequestError::Malformed))?;
        let request = CertificationRequest::parse(&der)?;
        let key = KeyHash::of(request.public_key_info());
        let proof = Proof::read(value)?;
        Ok(Self { device: ObjectKey::new(namespace, name), device_uid, request, key, proof })
    }
}

impl Proof {
    fn read<'a>(value: impl Fn(&'static str) -> Option<&'a String>) -> Result<Self, Malformed> {
        let renews = value(annotation::RENEWS);
        let proof = value(annotation::JOIN_PROOF);
        let factory = value(annotation::FACTORY_CHAIN);
        let pairing = value(annotation::PAIRING_ID);
        Ok(match (renews, proof, factory, pairing) {
            (None, None, _, _) => Self::None,
            (Some(pem), None, None, None) => Self::Renewal { chain: chain(annotation::RENEWS, pem)? },
            (None, Some(signature), Some(pem), None) => Self::Factory {
                chain: chain(annotation::FACTORY_CHAIN, pem)?,
                signature: bytes(annotation::JOIN_PROOF, signature)?,
            },
            (None, Some(mac), None, Some(id)) => {
                Self::Pairing { id: id.clone(), mac: bytes(annotation::JOIN_PROOF, mac)? }
            }
            _ => return Err(Malformed::Proofs),
        })
    }
}

fn bytes(name: &'static str, text: &str) -> Result<Vec<u8>, Malformed> {
    let malformed = Malformed::Annotation { name, problem: "is not base64 of at most 128 bytes" };
    match STANDARD.decode(text) {
        Ok(bytes) if bytes.len() <= limits::JOIN_PROOF_BYTES_MAX => Ok(bytes),
        Ok(_) | Err(_) => Err(malformed),
    }
}

fn chain(name: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, Malformed> {
    let malformed = |problem| Malformed::Annotation { name, problem };
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
    /// An annotation that is needed is missing or is not what it has to be.
    #[error("annotation {name} {problem}")]
    Annotation {
        /// Which.
        name: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More than one kind of proof, or half of one.
    #[error(
        "its annotations are no proof of one kind: a join proof goes with a factory chain or a pairing id, a renewal with neither"
    )]
    Proofs,
    /// `spec.request` is no request for a device's key.
    #[error("spec.request: {0}")]
    Request(#[from] RequestError),
}
