//! People who ask for certificates: whoever may log in by a right is approved, everybody else waits for a person.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use k8s_openapi::{
    api::certificates::v1::CertificateSigningRequest, apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{
        Controller,
        controller::{self, Action as Next},
        watcher,
    },
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wasmbed_api::OPERATOR_SIGNER;
use wasmbed_control::{
    access::{Action, Subject},
    login::{LoginRequest, approval_patch, may_be_approved},
};
use wasmbed_kubernetes::{CallError, Caller, ReviewError, Reviewer, describe_watch_error};

use crate::{
    election::Lead,
    metrics::{Metrics, Operation},
};

/// Requests that are worked on at once: each is two calls to the API at most.
const CONCURRENCY: u16 = 4;
/// Somebody without the right may get it: a request is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// Before another try of a call that failed, and between looks for whether this controller leads.
const RETRY: Duration = Duration::from_secs(5);

/// What requests are worked on with.
pub(crate) struct Logins {
    pub(crate) caller: Caller,
    pub(crate) reviewer: Reviewer,
    pub(crate) metrics: Metrics,
    /// Only a leader approves.
    pub(crate) lead: watch::Receiver<Option<Lead>>,
}

/// Why a request could not be worked on; it is tried again.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("whether the user may log in is not known: {0}")]
    Review(#[from] ReviewError),
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Follows the requests until `stop`.
pub(crate) async fn follow(client: Client, logins: Logins, stop: CancellationToken) {
    let selected = watcher::Config::default().fields(&format!("spec.signerName={OPERATOR_SIGNER}"));
    Controller::new(Api::<CertificateSigningRequest>::all(client), selected)
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, |_, _, _| Next::requeue(RETRY), Arc::new(logins))
        .for_each(|result| async {
            match result {
                Ok(_) | Err(controller::Error::ObjectNotFound(_)) => {}
                Err(controller::Error::ReconcilerFailed(error, request)) => tracing::warn!(
                    reason = "CallFailed",
                    request = request.name,
                    %error,
                    "a person's request for a certificate could not be worked on; it is tried again"
                ),
                Err(controller::Error::QueueError(error)) => tracing::warn!(
                    reason = "WatchFailed",
                    error = describe_watch_error(&error),
                    "a watch of the Kubernetes API failed; it is started again"
                ),
                Err(error) => tracing::warn!(reason = "WatchFailed", %error, "people's requests for certificates are not followed"),
            }
        })
        .await;
}

async fn reconcile(object: Arc<CertificateSigningRequest>, logins: Arc<Logins>) -> Result<Next, Failed> {
    let Some(request) = LoginRequest::open(&object).filter(may_be_approved) else {
        return Ok(Next::await_change());
    };
    if Lead::term_at(*logins.lead.borrow(), Instant::now()).is_none() {
        return Ok(Next::requeue(RETRY));
    }
    let subject = Subject { user: request.user, groups: request.groups };
    if !logins.reviewer.may(&subject, &Action::login()).await? {
        return Ok(Next::requeue(LOOK_AGAIN));
    }
    let name = object.name_any();
    let started = Instant::now();
    let written = logins.caller.approve(&name, &approval_patch(&object, Time(Timestamp::now()))).await;
    let failed = written.as_ref().is_err_and(|error| !error.is_conflict());
    logins.metrics.observe(Operation::WriteApproval, started.elapsed().as_secs_f64(), failed);
    match written {
        Ok(_) => {
            tracing::info!(
                user = subject.user,
                request = name,
                "a person's request for a certificate was approved"
            );
            Ok(Next::await_change())
        }
        // Somebody decided meanwhile: the watch brings what it is now.
        Err(error) if error.is_conflict() => Ok(Next::requeue(RETRY)),
        Err(error) => Err(error.into()),
    }
}
