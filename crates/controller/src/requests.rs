//! CertificateSigningRequests for devices, as decisions see them. What speaks for one is the signer's to verify.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
use wasmbed_api::{DEVICE_SIGNER, request_annotation as annotation};
use wasmbed_control::{
    ObjectKey,
    fleet::{Claim, RequestSeen},
};
use wasmbed_pki::CertificationRequest;
use wasmbed_protocol::KeyHash;

/// Conditions of a request about which nothing has to be decided any more.
const DECIDED: [&str; 3] = ["Approved", "Denied", "Failed"];

/// Reads a request that waits for a decision; `None` if it waits for none, or can't be understood: the signer says so then.
pub(crate) fn read(object: CertificateSigningRequest) -> Option<RequestSeen> {
    if object.spec.signer_name != DEVICE_SIGNER {
        return None;
    }
    let status = object.status.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let decided = conditions.iter().any(|condition| DECIDED.contains(&condition.type_.as_str()));
    if decided || status.certificate.is_some() {
        return None;
    }
    let annotations = object.metadata.annotations.unwrap_or_default();
    let (namespace, name) = annotations.get(annotation::DEVICE)?.split_once('/')?;
    let claim = if annotations.contains_key(annotation::JOIN_PROOF) {
        Claim::JoinProof
    } else if annotations.contains_key(annotation::RENEWS) {
        Claim::Renewal
    } else {
        let der = CertificateSigningRequestDer::from_pem_slice(&object.spec.request.0).ok()?;
        Claim::Key(KeyHash::of(CertificationRequest::parse(&der).ok()?.public_key_info()))
    };
    Some(RequestSeen {
        name: object.metadata.name?,
        resource_version: object.metadata.resource_version?,
        device: ObjectKey::new(namespace, name),
        device_uid: annotations.get(annotation::DEVICE_UID)?.clone(),
        claim,
        conditions,
    })
}
