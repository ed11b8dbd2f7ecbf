//! Calls that are made again when that may help, and what their failures mean.

use std::time::Duration;

use anyhow::{Context, Result};
use http::Method;
use serde_json::Value;

use crate::cluster::{Cluster, Resource};

/// Our name among the managers of a Device.
pub(super) const FIELD_MANAGER: &str = "wasmbed-devices";
/// Calls in all for one object.
const TRIES_MAX: u32 = 5;
/// Before the second; it doubles.
const PAUSE: Duration = Duration::from_millis(250);

/// A call failed.
pub(super) enum Failure {
    /// The API refused this object; others may do.
    Refused(anyhow::Error),
    /// The API does not answer; others would not do either.
    Unreachable(anyhow::Error),
}

impl Failure {
    pub(super) fn into_error(self) -> anyhow::Error {
        match self {
            Self::Refused(error) | Self::Unreachable(error) => error,
        }
    }
}

/// What is applied, and how.
pub(super) struct Apply<'a> {
    pub(super) resource: &'a Resource,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) object: &'a Value,
    pub(super) dry_run: bool,
}

/// Applies an object on the server's side. A call that was not answered, or was turned away for now, is made again: it does the same.
pub(super) async fn apply(cluster: &Cluster, apply: Apply<'_>) -> Result<(), Failure> {
    let path = apply.resource.object(Some(apply.namespace), apply.name).map_err(Failure::Refused)?;
    let dry_run = if apply.dry_run { "&dryRun=All" } else { "" };
    let uri = format!("{path}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict{dry_run}");
    let body = serde_json::to_vec(apply.object).map_err(|error| Failure::Refused(error.into()))?;
    let mut pause = PAUSE;
    for tried in 1.. {
        let request = http::Request::builder()
            .method(Method::PATCH)
            .uri(&uri)
            .header(http::header::CONTENT_TYPE, "application/apply-patch+yaml")
            .header(http::header::ACCEPT, "application/json")
            .body(body.clone())
            .context("can't make a request")
            .map_err(Failure::Refused)?;
        let Err(error) = cluster.client.request::<Value>(request).await else { return Ok(()) };
        let helps = may_help(&error);
        if !helps {
            return Err(Failure::Refused(cluster.explain(error)));
        }
        if tried >= TRIES_MAX {
            return Err(Failure::Unreachable(cluster.explain(error)));
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    Ok(())
}

/// Whether the same call may succeed later.
fn may_help(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 429 || status.code >= 500,
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => false,
        _ => true,
    }
}
