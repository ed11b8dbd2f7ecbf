//! Paths that aren't resources: health, metrics, discovery, and reviews of the client itself.

use http::header::HeaderValue;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;

use super::client::Caller;
use super::respond::{self, Body};
use super::review::Review;
use super::route::{Route, no_such_resource};
use super::state::State;
use super::verb::method_not_allowed;
use super::{body, discovery, negotiate, offload, openapi};
use crate::status::Status;

/// Bytes of a review at most: it names a user and one verb on one object, and clients without any permission may send it.
const REVIEW_BYTES_MAX: usize = 64 * 1_024;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const AGGREGATED: HeaderValue =
    HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");

/// `/livez`.
pub(super) fn live() -> Response<Body> {
    respond::with_type(StatusCode::OK, TEXT, "ok")
}

/// `/readyz`: 503 while the store can't be written.
pub(super) fn ready(state: &State) -> Response<Body> {
    if state.shutdown.is_cancelled() {
        return respond::with_type(StatusCode::SERVICE_UNAVAILABLE, TEXT, "shutting down");
    }
    if let Some(cause) = state.store.failure() {
        let text = format!("the store can't be written: {cause}");
        return respond::with_type(StatusCode::SERVICE_UNAVAILABLE, TEXT, text);
    }
    respond::with_type(StatusCode::OK, TEXT, "ok")
}

/// `/metrics`.
pub(super) fn metrics(state: &State) -> Result<Response<Body>, Status> {
    if let Ok(snapshot) = state.store.snapshot() {
        state.metrics.set_revision(snapshot.revision());
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &state.registry).map_err(Status::internal)?;
    Ok(respond::with_type(StatusCode::OK, OPENMETRICS, text))
}

/// Discovery and OpenAPI; 404 for any other route.
pub(super) fn discovery(state: &State, parts: &Parts, route: &Route) -> Result<Response<Body>, Status> {
    let kinds = state.store.kinds();
    let aggregated =
        matches!(route, Route::CoreVersions | Route::Groups) && negotiate::discovery(&parts.headers)?;
    let document = match route {
        Route::Version => Some(discovery::version()),
        Route::CoreVersions | Route::Groups if aggregated => {
            let core = matches!(route, Route::CoreVersions);
            let body = discovery::aggregated(kinds, core).to_string();
            return Ok(respond::with_type(StatusCode::OK, AGGREGATED, body));
        }
        Route::CoreVersions => Some(discovery::core_versions()),
        Route::Groups => Some(discovery::groups(kinds)),
        Route::Group(name) => discovery::group(kinds, name),
        Route::Resources { group, version } => discovery::resources(kinds, group, version),
        Route::OpenApiIndex => Some(openapi::index(kinds)),
        Route::OpenApi { group, version } => openapi::document(kinds, group, version),
        Route::Live
        | Route::Ready
        | Route::Metrics
        | Route::Object(_)
        | Route::Review(_)
        | Route::UnknownBuiltin
        | Route::Unknown => None,
    };
    Ok(respond::json(StatusCode::OK, &document.ok_or_else(no_such_resource)?))
}

/// Answers a review.
pub(super) async fn review(
    state: &State,
    caller: Caller<'_>,
    parts: &Parts,
    review: Review,
    incoming: Incoming,
) -> Result<Response<Body>, Status> {
    let Caller { client, user } = caller;
    if parts.method != Method::POST {
        return Err(method_not_allowed());
    }
    review.authorize(&state.policy, user)?;
    let bytes_max = state.limits.body_bytes_max.min(REVIEW_BYTES_MAX);
    let (bytes, _held) = body::receive(state, client, &parts.headers, incoming, bytes_max).await?;
    let (posted, _tree) = offload::decode_object(state.bodies(client), &parts.headers, &bytes).await?;
    let answer = review.answer(&state.policy, user, &posted.value)?;
    Ok(respond::json(StatusCode::CREATED, &answer))
}
