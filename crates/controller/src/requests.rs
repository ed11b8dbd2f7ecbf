//! CertificateSigningRequests for devices, as decisions see them. What speaks for one is the signer's to verify.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
use wasmbed_control::fleet::RequestSeen;
use wasmbed_pki::CertificationRequest;
use wasmbed_protocol::KeyHash;

/// Reads a request that waits for a decision; `None` if it waits for none, or can't be understood: the signer says so then.
pub(crate) fn read(object: CertificateSigningRequest) -> Option<RequestSeen> {
    RequestSeen::read(object, |pem| {
        let der = CertificateSigningRequestDer::from_pem_slice(pem).ok()?;
        Some(KeyHash::of(CertificationRequest::parse(&der).ok()?.public_key_info()))
    })
}
