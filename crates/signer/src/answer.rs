//! How requests end: with a certificate, or with a condition that says why not.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::{
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::controller::Action,
};
use serde_json::json;
use wasmbed_api::SIGNER_COMPONENT;
use wasmbed_kubernetes::{CALL_TIMEOUT, CallError};

use crate::metrics::{Ended, Metrics};

/// Longest message of a condition.
const MESSAGE_BYTES_MAX: usize = 1_024;

/// Writes the ends of requests; cheap to clone.
#[derive(Clone)]
pub(crate) struct Answers {
    requests: Api<CertificateSigningRequest>,
    metrics: Metrics,
}

impl Answers {
    pub(crate) fn new(client: Client, metrics: Metrics) -> Self {
        Self { requests: Api::all(client), metrics }
    }

    pub(crate) fn requests(&self) -> &Api<CertificateSigningRequest> {
        &self.requests
    }

    pub(crate) fn count_error(&self) {
        self.metrics.count_error();
    }

    /// PEM for a request.
    pub(crate) async fn certificate(
        &self,
        object: &CertificateSigningRequest,
        pem: &str,
    ) -> Result<(), CallError> {
        self.write_status(object, json!({ "certificate": STANDARD.encode(pem) })).await?;
        self.metrics.count_ended(Ended::Issued);
        Ok(())
    }

    pub(crate) async fn refuse(
        &self,
        object: &CertificateSigningRequest,
        reason: &str,
        message: &str,
    ) -> Result<Action, CallError> {
        let message = message.get(..message.floor_char_boundary(MESSAGE_BYTES_MAX)).unwrap_or_default();
        let now = Some(Time(Timestamp::now()));
        let failed = CertificateSigningRequestCondition {
            type_: "Failed".to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_update_time: now.clone(),
            last_transition_time: now,
        };
        let kept = object.status.as_ref().and_then(|status| status.conditions.clone());
        let conditions: Vec<_> = kept.into_iter().flatten().chain([failed]).collect();
        self.write_status(object, json!({ "conditions": conditions })).await?;
        self.metrics.count_ended(Ended::Refused);
        tracing::warn!(request = object.name_any(), reason, error = message, "a request was refused");
        Ok(Action::await_change())
    }

    /// Of this version of the request alone.
    async fn write_status(
        &self,
        object: &CertificateSigningRequest,
        status: serde_json::Value,
    ) -> Result<(), CallError> {
        let version = object.metadata.resource_version.as_deref();
        let patch = json!({ "metadata": { "resourceVersion": version }, "status": status });
        let params =
            PatchParams { field_manager: Some(SIGNER_COMPONENT.to_owned()), ..PatchParams::default() };
        let name = object.name_any();
        within(self.requests.patch_status(&name, &params, &Patch::Merge(patch))).await.map(|_| ())
    }
}

pub(crate) async fn within<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    let answer = tokio::time::timeout(CALL_TIMEOUT, call).await;
    Ok(answer.map_err(|_| CallError::Timeout(CALL_TIMEOUT))??)
}
