//! One request, from its arrival to its answer: route, authenticate, bound, answer, log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{Method, Request, Response};
use hyper::body::{Body as _, Incoming};
use jiff::Timestamp;
use tracing::{Instrument as _, Span, field};

use super::audit::{Answered, Seen, Written};
use super::client::{Caller, Client};
use super::params::Params;
use super::respond::{self, Body};
use super::route::{Route, Target, no_such_resource, not_found, route};
use super::shares::Held;
use super::state::State;
use super::verb::{Action, method_not_allowed, verb};
use super::{audit, endpoints, negotiate, objects, protobuf};
use crate::access::Verb;
use crate::status::{Reason, Status};

/// Requests that take longer are logged as warnings.
const SLOW: Duration = Duration::from_secs(1);

/// What a request does with what, for metrics, logs and the audit log.
struct Label {
    action: Action,
    /// `devices` or `devices/status`; empty for what isn't a resource.
    resource: String,
    target: Option<Target>,
}

impl Label {
    fn set(&mut self, action: Action, resource: String) {
        let span = Span::current();
        span.record("verb", action.as_str());
        span.record("resource", resource.as_str());
        (self.action, self.resource) = (action, resource);
    }
}

/// Answers a request.
pub(super) async fn handle(
    state: &Arc<State>,
    client: &Client,
    request: Request<Incoming>,
) -> Response<Body> {
    let (started, received) = (Instant::now(), Timestamp::now());
    let (parts, incoming) = request.into_parts();
    let span =
        tracing::info_span!("request", verb = field::Empty, resource = field::Empty, user = &*client.name);
    let id = audit::id(&parts);
    let mut label = Label { action: Action::Other, resource: String::new(), target: None };
    let answered = async {
        let (mut response, reason) = match answer(state, client, &parts, incoming, &mut label).await {
            Ok(response) => (response, None),
            Err(status) => (respond::refusal(&status), Some(status.reason().as_str())),
        };
        let written = response.extensions_mut().remove::<Written>();
        let response = match negotiate::prefers_protobuf(&parts.headers) {
            true => protobuf::answer(response).await,
            false => response,
        };
        (response, reason, written)
    };
    let (mut response, reason, written) = answered.instrument(span.clone()).await;
    audit::name(&mut response, &id);
    let Label { action, resource, target } = &label;
    let seen = Seen { id: &id, parts: &parts, received, action: *action, resource, target: target.as_ref() };
    let code = response.status().as_u16();
    span.in_scope(|| state.audit.record(client, &seen, Answered { code, reason, written: written.as_ref() }));
    let (code, took) = (response.status().as_u16(), started.elapsed());
    state.metrics.request(label.action.as_str(), &label.resource, code, took);
    span.in_scope(|| log(state, client, &parts, code, took));
    response
}

fn log(state: &State, client: &Client, parts: &Parts, code: u16, took: Duration) {
    let user = &*client.name;
    let path = parts.uri.path();
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let slow = code >= 500 || took > SLOW;
    let worth_a_line = slow || matches!(code, 401 | 403 | 429);
    if !worth_a_line || !state.lines.may_log(&client.name) {
        tracing::debug!(method = %parts.method, path, user, code, took_us, "request");
    } else if slow {
        tracing::warn!(method = %parts.method, path, user, code, took_us, "request");
    } else {
        tracing::info!(method = %parts.method, path, user, code, took_us, "request");
    }
}

async fn answer(
    state: &Arc<State>,
    client: &Client,
    parts: &Parts,
    incoming: Incoming,
    label: &mut Label,
) -> Result<Response<Body>, Status> {
    let route = route(state.store.kinds(), parts.uri.path());
    match route {
        Route::Live => return Ok(endpoints::live()),
        Route::Ready => return Ok(endpoints::ready(state)),
        Route::Metrics => return endpoints::metrics(state),
        _ => {}
    }
    let caller = authenticate(client, parts)?;
    let params = Params::parse(&parts.method, parts.uri.query());
    match route {
        Route::Object(target) => {
            let resource = target.resource();
            label.resource.clone_from(&resource);
            label.target = Some(target.clone());
            let verb = verb(&parts.method, &target, &params)?;
            label.set(Action::Verb(verb), resource);
            if verb == Verb::Watch {
                return objects::watch(state, caller, parts, &params, target);
            }
            let held = state.requests.take(&client.name, 1)?;
            let answer = objects::answer(state, caller, parts, &params, verb, target, incoming).await?;
            hold(state, client, label.action, answer, held)
        }
        other => {
            let held = state.requests.take(&client.name, 1)?;
            let answer = match other {
                Route::Review(review) => {
                    label.set(Action::Verb(Verb::Create), review.plural().to_owned());
                    endpoints::review(state, caller, parts, review, incoming).await?
                }
                Route::Unknown => return Err(not_found()),
                Route::UnknownBuiltin => return Err(no_such_resource()),
                other => {
                    label.set(Action::Discovery, String::new());
                    if !matches!(parts.method, Method::GET | Method::HEAD) {
                        return Err(method_not_allowed());
                    }
                    params.check_nothing()?;
                    endpoints::discovery(state, parts, &other)?
                }
            };
            hold(state, client, label.action, answer, held)
        }
    }
}

fn authenticate<'a>(client: &'a Client, parts: &Parts) -> Result<Caller<'a>, Status> {
    let user = client
        .user
        .as_ref()
        .ok_or_else(|| Status::new(Reason::Unauthorized, "Unauthorized: a client certificate is required"))?;
    if let Some(name) = parts.headers.keys().find(|name| name.as_str().starts_with("impersonate-")) {
        return Err(Status::new(
            Reason::Forbidden,
            format!("impersonation is not offered by this server ({name})"),
        ));
    }
    Ok(Caller { client, user })
}

/// An answer counts against its client's share until the client has read it. Writes are done by now, so that their
/// answers aren't refused; they count as requests only.
fn hold(
    state: &State,
    client: &Client,
    action: Action,
    answer: Response<Body>,
    held: Held,
) -> Result<Response<Body>, Status> {
    match action {
        Action::Verb(Verb::Get | Verb::List) | Action::Discovery => {
            let bytes = usize::try_from(answer.body().size_hint().lower()).unwrap_or(usize::MAX);
            let bytes = state.answers.take(&client.name, bytes.min(state.answers.each()))?;
            Ok(respond::holding(answer, (held, bytes)))
        }
        Action::Verb(_) | Action::Other => Ok(respond::holding(answer, held)),
    }
}
