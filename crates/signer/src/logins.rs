//! Certificates of people who use gateways.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{
        Controller,
        controller::{self, Action},
        watcher,
    },
};
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
use tokio_util::sync::CancellationToken;
use wasmbed_api::OPERATOR_SIGNER;
use wasmbed_control::{
    harmless,
    login::{LoginDecision, LoginRequest, plan_login},
};
use wasmbed_kubernetes::CallError;
use wasmbed_pki::{CertificationRequest, OperatorIssuer, Renewed, RequestError, pem_of, read_certificates};

use crate::{Error, OperatorsConfig, answer::Answers, files::follow_files};

/// Requests that are worked on at once.
const CONCURRENCY: u16 = 4;
/// A request that waits is looked at again after this, should a change be missed.
const WAIT: Duration = Duration::from_secs(60);
/// Before another try of a call that failed.
const RETRY: Duration = Duration::from_secs(5);
/// Bytes of a name in the log.
const SHOWN_BYTES_MAX: usize = 256;

/// What people's certificates are issued with.
struct Issuing {
    issuer: OperatorIssuer,
    /// PEM: behind a certificate, so that its owner knows gateways.
    services_roots: String,
}

/// Issues for people.
pub(crate) struct Logins {
    answers: Answers,
    issuing: Arc<Renewed<Issuing, Error>>,
    lifetime: Duration,
}

impl Logins {
    pub(crate) fn open(
        config: &OperatorsConfig,
        trust_domain: &str,
        answers: Answers,
    ) -> Result<Self, Error> {
        let OperatorsConfig { certificate, key, services_roots, lifetime } = config.clone();
        let trust_domain = trust_domain.to_owned();
        let names = vec![certificate.clone(), key.clone(), services_roots.clone()];
        let issuing = Renewed::open(names, move || {
            let issuer = OperatorIssuer::open(&certificate, &key, &trust_domain)?;
            let roots = read_certificates(&services_roots)?;
            Ok::<_, Error>(Issuing {
                issuer,
                services_roots: pem_of("CERTIFICATE", roots.iter().map(AsRef::as_ref)),
            })
        })?;
        Ok(Self { answers, issuing: Arc::new(issuing), lifetime })
    }

    /// Follows the requests until `stop`.
    pub(crate) async fn follow(self, client: Client, stop: CancellationToken) {
        let renewals = tokio::spawn(follow_files(Arc::clone(&self.issuing), stop.clone()));
        let selected = watcher::Config::default().fields(&format!("spec.signerName={OPERATOR_SIGNER}"));
        Controller::new(Api::<CertificateSigningRequest>::all(client), selected)
            .with_config(controller::Config::default().concurrency(CONCURRENCY))
            .graceful_shutdown_on(stop.cancelled_owned())
            .run(reconcile, |_, _, _| Action::requeue(RETRY), Arc::new(self))
            .for_each(|result| async {
                match result {
                    Ok(_) | Err(controller::Error::ObjectNotFound(_)) => {}
                    Err(controller::Error::ReconcilerFailed(error, request)) => tracing::warn!(
                        reason = "CallFailed",
                        request = request.name,
                        %error,
                        "a person's request could not be worked on; it is tried again"
                    ),
                    Err(error) => tracing::warn!(
                        reason = "WatchFailed",
                        %error,
                        "a watch of the Kubernetes API failed; it is started again"
                    ),
                }
            })
            .await;
        renewals.abort();
    }

    async fn work_on(&self, object: &CertificateSigningRequest) -> Result<Action, CallError> {
        let Some(request) = LoginRequest::open(object) else { return Ok(Action::await_change()) };
        match plan_login(&request) {
            LoginDecision::Wait => Ok(Action::requeue(WAIT)),
            LoginDecision::Refuse(refusal) => {
                self.answers.refuse(object, refusal.reason(), &refusal.to_string()).await
            }
            LoginDecision::Issue => self.issue(object, &request).await,
        }
    }

    async fn issue(
        &self,
        object: &CertificateSigningRequest,
        request: &LoginRequest,
    ) -> Result<Action, CallError> {
        let asked = match read(object) {
            Ok(asked) => asked,
            Err(error) => {
                let message = format!("spec.request: {error}");
                return self.answers.refuse(object, "Malformed", &message).await;
            }
        };
        let issuing = self.issuing.current();
        let wanted = object.spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let seconds = wanted.unwrap_or(u64::MAX).min(self.lifetime.as_secs());
        let groups = request.groups.iter().map(String::as_str);
        let issued = match issuing.issuer.issue(&asked, &request.user, groups, seconds) {
            Ok(issued) => issued,
            Err(error) => return self.answers.refuse(object, "NotIssued", &error.to_string()).await,
        };
        let pem = issued.chain_pem + &issuing.services_roots;
        self.answers.certificate(object, &pem).await?;
        let left_out = request.groups.len().saturating_sub(issued.id.groups().len());
        tracing::info!(
            request = object.name_any(),
            user = %harmless(&request.user, SHOWN_BYTES_MAX),
            groups = issued.id.groups().len(),
            left_out,
            seconds,
            "a person's certificate was issued"
        );
        Ok(Action::await_change())
    }
}

async fn reconcile(object: Arc<CertificateSigningRequest>, logins: Arc<Logins>) -> Result<Action, CallError> {
    match logins.work_on(&object).await {
        // Someone decided meanwhile, or another signer was first: the watch brings what it is now.
        Err(error) if error.is_conflict() => Ok(Action::requeue(RETRY)),
        Err(error) => {
            logins.answers.count_error();
            Err(error)
        }
        Ok(action) => Ok(action),
    }
}

/// The key that gets the certificate; nothing else of the request is looked at.
fn read(object: &CertificateSigningRequest) -> Result<CertificationRequest, RequestError> {
    let der = CertificateSigningRequestDer::from_pem_slice(&object.spec.request.0)
        .map_err(|_| RequestError::Malformed)?;
    CertificationRequest::parse(&der)
}
