//! CertificateSigningRequests of devices: made and read as the decisions ask for it.

use std::sync::Arc;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::{Api, Client, api::PostParams};
use wasmbed_api::GATEWAY_COMPONENT;
use wasmbed_control::{
    ObjectKey,
    gateway::{CertificateWork, Issued, RequestFlaw, RequestSeen},
    kubernetes::WriteOutcome,
};
use wasmbed_kubernetes::{CALL_TIMEOUT, CallError, outcome};
use wasmbed_pki::{
    CertificateError, CertificateFacts, CertificationRequest, PemError, Role, parse_certificates, pem_of,
};
use wasmbed_protocol::KeyHash;

use crate::metrics::Metrics;

/// PEM of what is issued: a chain of 8,192 bytes, and as much again for lines and a root that need not be there.
const ISSUED_PEM_BYTES_MAX: usize = 32 * 1024;

/// Reads a device's request: its key, which has signed it.
pub(crate) fn read_request(der: &[u8]) -> Result<KeyHash, RequestFlaw> {
    CertificationRequest::parse(der)
        .map(|request| KeyHash::of(request.public_key_info()))
        .map_err(|error| RequestFlaw(error.to_string()))
}

/// Calls about requests. A gateway may create and get them, and nothing else.
#[derive(Clone)]
pub(crate) struct Requests {
    api: Api<CertificateSigningRequest>,
    trust_domain: Arc<str>,
}

impl Requests {
    pub(crate) fn new(client: Client, trust_domain: &str) -> Self {
        Self { api: Api::all(client), trust_domain: trust_domain.into() }
    }

    /// Makes one call; answers how it ended.
    pub(crate) async fn execute(
        &self,
        work: CertificateWork,
        metrics: &Metrics,
    ) -> WriteOutcome<RequestSeen> {
        let started = tokio::time::Instant::now();
        let (call, answered) = match work {
            CertificateWork::Create(request) => {
                let params =
                    PostParams { field_manager: Some(GATEWAY_COMPONENT.to_owned()), ..PostParams::default() };
                ("create_request", outcome(within(self.api.create(&params, &request.to_object(pem))).await))
            }
            CertificateWork::Get { name } => ("get_request", outcome(within(self.api.get(&name)).await)),
        };
        metrics.kubernetes(call, crate::kubernetes::name_of(&answered), started.elapsed());
        answered.map(|request| self.seen(&request))
    }

    fn seen(&self, request: &CertificateSigningRequest) -> RequestSeen {
        RequestSeen::read(request, |pem| issued(pem, &self.trust_domain))
    }
}

/// What stands in a certificate's place is none. The signer is at fault.
#[derive(Debug, thiserror::Error)]
enum IssuedFlaw {
    #[error("it has more than {ISSUED_PEM_BYTES_MAX} bytes")]
    Length,
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

fn issued(pem: &[u8], trust_domain: &str) -> Result<Issued, IssuedFlaw> {
    if pem.len() > ISSUED_PEM_BYTES_MAX {
        return Err(IssuedFlaw::Length);
    }
    let chain = parse_certificates(pem)?;
    let leaf = chain.first().ok_or(PemError::NoCertificate)?;
    let facts = CertificateFacts::parse(leaf)?;
    let id = facts.spiffe_id()?;
    let own = id.role() == Role::Device && id.trust_domain() == trust_domain;
    Ok(Issued {
        chain: chain.iter().map(|certificate| certificate.to_vec()).collect(),
        key: KeyHash::of(&facts.public_key),
        device: own.then(|| ObjectKey::new(id.namespace(), id.name())),
        not_after_unix_s: u64::try_from(facts.not_after).unwrap_or(0),
    })
}

fn pem(label: &'static str, blocks: &[&[u8]]) -> String {
    pem_of(label, blocks.iter().copied())
}

async fn within<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    let answer = tokio::time::timeout(CALL_TIMEOUT, call).await;
    Ok(answer.map_err(|_| CallError::Timeout(CALL_TIMEOUT))??)
}
