//! CertificateSigningRequests of devices: made and read as the decisions ask for it.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::{
    ByteString,
    api::certificates::v1::{
        CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::PostParams};
use wasmbed_api::{DEVICE_SIGNER, GATEWAY_COMPONENT, request_annotation as annotation};
use wasmbed_control::{
    ObjectKey,
    gateway::{CertificateRequest, CertificateWork, Evidence, Issued, RequestEnd, RequestFlaw, RequestSeen},
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
                ("create_request", outcome(within(self.api.create(&params, &object(&request))).await))
            }
            CertificateWork::Get { name } => ("get_request", outcome(within(self.api.get(&name)).await)),
        };
        metrics.kubernetes(call, crate::kubernetes::name_of(&answered), started.elapsed());
        answered.map(|request| self.seen(&request))
    }

    fn seen(&self, request: &CertificateSigningRequest) -> RequestSeen {
        let Some(status) = &request.status else { return RequestSeen::default() };
        let condition = |name: &str| status.conditions.iter().flatten().find(|shown| shown.type_ == name);
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let message = |shown: &CertificateSigningRequestCondition| text(&shown.message);
        let end = if let Some(pem) = &status.certificate {
            let issued = issued(&pem.0, &self.trust_domain);
            Some(issued.map_or_else(|flaw| RequestEnd::Unusable(flaw.to_string()), RequestEnd::Issued))
        } else if let Some(failed) = condition("Failed") {
            Some(RequestEnd::Failed { reason: text(&failed.reason), message: message(failed) })
        } else {
            condition("Denied").map(|denied| RequestEnd::Denied { message: message(denied) })
        };
        RequestSeen { approved: condition("Approved").is_some(), end }
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

fn object(request: &CertificateRequest) -> CertificateSigningRequest {
    let CertificateRequest { name, device, device_uid, request, evidence } = request;
    let chain = |chain: &[Vec<u8>]| pem_of("CERTIFICATE", chain.iter().map(Vec::as_slice));
    let mut annotations = BTreeMap::from([
        (annotation::DEVICE, device.to_string()),
        (annotation::DEVICE_UID, device_uid.to_string()),
    ]);
    match evidence {
        Evidence::None => {}
        Evidence::Factory { chain: factory, signature } => annotations.extend([
            (annotation::JOIN_PROOF, STANDARD.encode(signature)),
            (annotation::FACTORY_CHAIN, chain(factory)),
        ]),
        Evidence::Token { id, mac } => annotations.extend([
            (annotation::JOIN_PROOF, STANDARD.encode(mac)),
            (annotation::PAIRING_ID, id.to_string()),
        ]),
        Evidence::Renewal { chain: presented } => {
            annotations.extend([(annotation::RENEWS, chain(presented))]);
        }
    }
    let annotations = annotations.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let request = pem_of("CERTIFICATE REQUEST", [&**request]);
    CertificateSigningRequest {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.into_bytes()),
            signer_name: DEVICE_SIGNER.to_owned(),
            usages: Some(vec!["client auth".to_owned(), "digital signature".to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    }
}

async fn within<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    let answer = tokio::time::timeout(CALL_TIMEOUT, call).await;
    Ok(answer.map_err(|_| CallError::Timeout(CALL_TIMEOUT))??)
}
