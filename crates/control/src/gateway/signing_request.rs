//! CertificateSigningRequests as a gateway writes and reads them.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::{
    ByteString,
    api::certificates::v1::{
        CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use wasmbed_api::{DEVICE_SIGNER, request_annotation as annotation};

use super::certification::{CertificateRequest, Evidence, Issued, RequestEnd, RequestSeen};

impl CertificateRequest {
    /// The object. `pem` writes blocks of a label as PEM (RFC 7468).
    #[must_use]
    pub fn to_object(&self, pem: impl Fn(&'static str, &[&[u8]]) -> String) -> CertificateSigningRequest {
        let Self { name, device, device_uid, request, evidence } = self;
        let chain = |chain: &[Vec<u8>]| {
            let blocks: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
            pem("CERTIFICATE", &blocks)
        };
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
        CertificateSigningRequest {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            spec: CertificateSigningRequestSpec {
                request: ByteString(pem("CERTIFICATE REQUEST", &[&**request]).into_bytes()),
                signer_name: DEVICE_SIGNER.to_owned(),
                usages: Some(vec!["client auth".to_owned(), "digital signature".to_owned()]),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        }
    }
}

impl RequestSeen {
    /// Reads an object. `issued` reads `status.certificate`, or says what is wrong with it.
    pub fn read<E: fmt::Display>(
        object: &CertificateSigningRequest,
        issued: impl FnOnce(&[u8]) -> Result<Issued, E>,
    ) -> Self {
        let Some(status) = &object.status else { return Self::default() };
        let condition = |name: &str| status.conditions.iter().flatten().find(|shown| shown.type_ == name);
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let message = |shown: &CertificateSigningRequestCondition| text(&shown.message);
        let end = if let Some(pem) = &status.certificate {
            let unusable = |flaw: E| RequestEnd::Unusable(flaw.to_string());
            Some(issued(&pem.0).map_or_else(unusable, RequestEnd::Issued))
        } else if let Some(failed) = condition("Failed") {
            Some(RequestEnd::Failed { reason: text(&failed.reason), message: message(failed) })
        } else {
            condition("Denied").map(|denied| RequestEnd::Denied { message: message(denied) })
        };
        Self { approved: condition("Approved").is_some(), end }
    }
}
