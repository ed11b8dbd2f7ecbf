//! One request: what it means, whether its client may, and the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::params::Params;
use super::read::{self, Snapshots};
use super::respond::{self, Body};
use super::review::Review;
use super::route::{Route, Target, route};
use super::shares::{Held, Lines, Pool, Share};
use super::watch::{Large, Terms};
use super::{discovery, negotiate, offload, openapi, protobuf, watch, write};
use crate::access::{Access, Decision, Policy, User};
use crate::config::Limits;
use crate::status::{Details, Reason, Status};
use crate::store::{Constraint, Store};
use crate::telemetry::Metrics;

/// Bytes of a review at most, which clients without any permission may send: it names one verb on one object.
const REVIEW_BYTES_MAX: usize = 64 * 1_024;
/// Of a body that is too large, so many times the limit is read and dropped.
const DRAINED_LIMITS: usize = 4;
/// Requests slower than this are worth a line in the log.
const SLOW: Duration = Duration::from_secs(1);

/// What all connections share.
pub(super) struct State {
    pub(super) store: Store,
    pub(super) policy: Policy,
    pub(super) limits: Limits,
    pub(super) metrics: Metrics,
    pub(super) registry: Registry,
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) requests: Arc<Pool>,
    pub(super) watches: Arc<Pool>,
    pub(super) bodies: Arc<Pool>,
    pub(super) answers: Arc<Pool>,
    pub(super) large: Arc<Large>,
    pub(super) lines: Lines,
    pub(super) shutdown: CancellationToken,
}

/// Who asks, over which connection.
pub(super) struct Client {
    pub(super) user: Option<User>,
    /// The user's name; empty without one.
    pub(super) name: Arc<str>,
}

/// A client that said who it is.
#[derive(Clone, Copy)]
struct Caller<'a> {
    client: &'a Client,
    user: &'a User,
}

/// How a request counts in metrics and logs.
struct Label {
    verb: &'static str,
    resource: String,
}

impl State {
    pub(super) async fn handle(
        self: &Arc<State>,
        client: &Client,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let mut label = Label { verb: "other", resource: String::new() };
        let response = match self.answer(client, &parts, body, &mut label).await {
            Ok(response) => response,
            Err(status) => respond::refusal(&status),
        };
        let response = match negotiate::prefers_protobuf(&parts.headers) {
            true => protobuf::answer(response).await,
            false => response,
        };
        let (code, took) = (response.status().as_u16(), started.elapsed());
        self.metrics.request(label.verb, &label.resource, code, took);
        let user = &*client.name;
        let path = parts.uri.path();
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let slow = code >= 500 || took > SLOW;
        let worth_a_line = slow || matches!(code, 401 | 403 | 429);
        if !worth_a_line || !self.lines.may_log(&client.name) {
            tracing::debug!(method = %parts.method, path, user, code, took_us, "request");
        } else if slow {
            tracing::warn!(method = %parts.method, path, user, code, took_us, "request");
        } else {
            tracing::info!(method = %parts.method, path, user, code, took_us, "request");
        }
        response
    }

    async fn answer(
        self: &Arc<State>,
        client: &Client,
        parts: &Parts,
        body: Incoming,
        label: &mut Label,
    ) -> Result<Response<Body>, Status> {
        let route = route(self.store.kinds(), parts.uri.path());
        match route {
            Route::Live => return Ok(respond::with_type(StatusCode::OK, TEXT, "ok")),
            Route::Ready => return Ok(self.ready()),
            Route::Metrics => return self.metrics(),
            _ => {}
        }
        let user = client.user.as_ref().ok_or_else(|| {
            Status::new(Reason::Unauthorized, "Unauthorized: a client certificate is required")
        })?;
        if let Some(name) = parts.headers.keys().find(|name| name.as_str().starts_with("impersonate-")) {
            return Err(Status::new(
                Reason::Forbidden,
                format!("impersonation is not offered by this server ({name})"),
            ));
        }
        let caller = Caller { client, user };
        let params = Params::parse(&parts.method, parts.uri.query());
        if let Route::Object(target) = route {
            label.resource = target.resource();
            label.verb = verb(&parts.method, &target, &params)?;
            if label.verb == "watch" {
                return self.watch(caller, parts, &params, target, label);
            }
            let held = self.requests.take(&client.name, 1)?;
            let answer = self.object(caller, parts, &params, target, body, label).await?;
            return self.unread(client, label, answer, held);
        }
        let held = self.requests.take(&client.name, 1)?;
        let answer = match route {
            Route::Review(review) => self.review(caller, parts, review, body, label).await,
            Route::Unknown => Err(Status::new(Reason::NotFound, NOT_FOUND)),
            Route::UnknownBuiltin => Err(no_such_resource()),
            other => {
                label.verb = "discovery";
                if !matches!(parts.method, Method::GET | Method::HEAD) {
                    return Err(method_not_allowed());
                }
                params.check_nothing()?;
                self.discovery(parts, &other)
            }
        };
        self.unread(client, label, answer?, held)
    }

    /// What was read for a client counts until the client has read it. A write is done by now, so its answer is not
    /// refused; the number of requests bounds those.
    fn unread(
        &self,
        client: &Client,
        label: &Label,
        answer: Response<Body>,
        held: Held,
    ) -> Result<Response<Body>, Status> {
        if !matches!(label.verb, "get" | "list" | "discovery") {
            return Ok(respond::holding(answer, held));
        }
        let bytes = usize::try_from(answer.body().size_hint().lower()).unwrap_or(usize::MAX);
        let bytes = self.answers.take(&client.name, bytes.min(self.answers.each()))?;
        Ok(respond::holding(answer, (held, bytes)))
    }

    fn watch(
        &self,
        caller: Caller<'_>,
        parts: &Parts,
        params: &Params,
        target: Target,
        label: &Label,
    ) -> Result<Response<Body>, Status> {
        let Caller { client, user } = caller;
        self.allow(user, label, &target, target.name.as_deref().unwrap_or_default())?;
        let terms = Terms {
            store: self.store.clone(),
            large: Arc::clone(&self.large),
            initial_time: self.limits.watch_initial,
            held: self.watches.take(&client.name, 1)?,
            gauge: self.metrics.watch(&label.resource),
            shutdown: self.shutdown.clone(),
        };
        let encodable = protobuf::has_form(&target.kind);
        let mut response = watch::start(terms, target, &parts.headers, params)?;
        if encodable {
            response.extensions_mut().insert(protobuf::Events);
        }
        Ok(response)
    }

    fn discovery(&self, parts: &Parts, route: &Route) -> Result<Response<Body>, Status> {
        let kinds = self.store.kinds();
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

    async fn review(
        &self,
        caller: Caller<'_>,
        parts: &Parts,
        review: Review,
        body: Incoming,
        label: &mut Label,
    ) -> Result<Response<Body>, Status> {
        let Caller { client, user } = caller;
        (label.verb, label.resource) = ("create", review.plural().to_owned());
        if parts.method != Method::POST {
            return Err(method_not_allowed());
        }
        let most = self.limits.body_bytes_max.min(REVIEW_BYTES_MAX);
        let (body, _held) = self.body(client, parts, body, most).await?;
        let (posted, _tree) = offload::read_object(self.bodies(client), &parts.headers, &body).await?;
        let answer = review.answer(&self.policy, user, &posted.value)?;
        Ok(respond::json(StatusCode::CREATED, &answer))
    }

    async fn object(
        self: &Arc<State>,
        caller: Caller<'_>,
        parts: &Parts,
        params: &Params,
        target: Target,
        body: Incoming,
        label: &Label,
    ) -> Result<Response<Body>, Status> {
        let Caller { client, user } = caller;
        if label.verb == "create" {
            return self.create(caller, parts, params, &target, body, label).await;
        }
        let name = target.name.clone().unwrap_or_default();
        let constraints = self.allow(user, label, &target, &name)?;
        match label.verb {
            "get" => return read::get(&self.store, &target, &name, &parts.headers, params),
            "list" => {
                let (store, snapshots) = (self.store.clone(), Arc::clone(&self.snapshots));
                let user = Arc::clone(&client.name);
                let (headers, params) =
                    (parts.headers.clone(), Params::parse(&parts.method, parts.uri.query()));
                // A long list takes a while to read and to write out.
                let listed = move || read::list(&store, &snapshots, &user, &target, &headers, &params);
                return tokio::task::spawn_blocking(listed).await.map_err(Status::internal)?;
            }
            _ => {}
        }
        let (body, _held) = self.body(client, parts, body, self.limits.body_bytes_max).await?;
        let request = write::Request {
            store: &self.store,
            bodies: self.bodies(client),
            target: &target,
            headers: &parts.headers,
            params,
            constraints,
            creation: self.creation(user, label, &target, &name),
        };
        match label.verb {
            "update" => {
                let (decoded, _tree) =
                    offload::read_object(self.bodies(client), &parts.headers, &body).await?;
                request.update(&name, decoded).await
            }
            "patch" => request.patch(&name, &body).await,
            "delete" => request.delete(&name, &body).await,
            "deletecollection" => request.delete_collection(&body).await,
            other => Err(Status::internal(format!("the verb {other} has no handler"))),
        }
    }

    /// A create names its object in the body, so permission can only be judged with it.
    async fn create(
        &self,
        caller: Caller<'_>,
        parts: &Parts,
        params: &Params,
        target: &Target,
        body: Incoming,
        label: &Label,
    ) -> Result<Response<Body>, Status> {
        let Caller { client, user } = caller;
        if !user.is_administrator() {
            // Who may create nothing of the kind is refused before the body is read; a rule for certain names passes.
            self.policy_knows(user, label, target)?;
        }
        let (body, _held) = self.body(client, parts, body, self.limits.body_bytes_max).await?;
        let (decoded, _tree) = offload::read_object(self.bodies(client), &parts.headers, &body).await?;
        let name = decoded.value["metadata"]["name"].as_str().unwrap_or_default();
        let constraints = self.allow(user, label, target, name)?;
        let request = write::Request {
            store: &self.store,
            bodies: self.bodies(client),
            target,
            headers: &parts.headers,
            params,
            constraints,
            creation: Ok(Vec::new()),
        };
        request.create(decoded).await
    }

    fn allow(
        &self,
        user: &User,
        label: &Label,
        target: &Target,
        name: &str,
    ) -> Result<Vec<Arc<Constraint>>, Status> {
        match self.policy.decide(user, &access(label, target, name)) {
            Decision::Allowed(constraints) => Ok(constraints),
            Decision::Denied(why) => Err(denied(target, name, &why)),
        }
    }

    /// What applies to an object that a patch creates: server-side apply does where there is none.
    fn creation(
        &self,
        user: &User,
        label: &Label,
        target: &Target,
        name: &str,
    ) -> Result<Vec<Arc<Constraint>>, Status> {
        if label.verb != "patch" {
            return Ok(Vec::new());
        }
        let label = Label { verb: "create", resource: label.resource.clone() };
        self.allow(user, &label, target, name)
    }

    fn policy_knows(&self, user: &User, label: &Label, target: &Target) -> Result<(), Status> {
        if self.policy.may_for_some_name(user, &access(label, target, "")) {
            return Ok(());
        }
        self.allow(user, label, target, "").map(|_| ())
    }

    fn bodies<'a>(&'a self, client: &'a Client) -> Share<'a> {
        Share { pool: &self.bodies, user: &client.name }
    }

    /// Reads a body within bounds; what is held stands for its memory until the request is answered.
    async fn body(
        &self,
        client: &Client,
        parts: &Parts,
        body: Incoming,
        most: usize,
    ) -> Result<(Bytes, Held), Status> {
        if parts.headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(Status::new(Reason::UnsupportedMediaType, "compressed bodies are not accepted"));
        }
        let too_large = || {
            let told = format!("Request entity too large: limit is {most}");
            Status::new(Reason::RequestEntityTooLarge, told)
        };
        if body.size_hint().lower() > most as u64 {
            // Who is still sending doesn't listen yet, so some of it is taken before the answer.
            let drained = Limited::new(body, most.saturating_mul(DRAINED_LIMITS));
            let _ = tokio::time::timeout(self.limits.body_timeout, drain(drained)).await;
            return Err(too_large());
        }
        let expected = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(most);
        let held = self.bodies.take(&client.name, expected.min(most))?;
        let collected =
            tokio::time::timeout(self.limits.body_timeout, Limited::new(body, most).collect()).await;
        match collected {
            Ok(Ok(collected)) => Ok((collected.to_bytes(), held)),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
            Ok(Err(error)) => Err(Status::bad_request(format!("the body could not be received: {error}"))),
            Err(_) => Err(Status::new(Reason::Timeout, "Timeout: the body did not arrive in time")),
        }
    }

    fn ready(&self) -> Response<Body> {
        if self.shutdown.is_cancelled() {
            return respond::with_type(StatusCode::SERVICE_UNAVAILABLE, TEXT, "shutting down");
        }
        if let Some(why) = self.store.failure() {
            let told = format!("the store can't be written: {why}");
            return respond::with_type(StatusCode::SERVICE_UNAVAILABLE, TEXT, told);
        }
        respond::with_type(StatusCode::OK, TEXT, "ok")
    }

    fn metrics(&self) -> Result<Response<Body>, Status> {
        if let Ok(snapshot) = self.store.snapshot() {
            self.metrics.set_revision(snapshot.revision());
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).map_err(Status::internal)?;
        Ok(respond::with_type(StatusCode::OK, OPENMETRICS, text))
    }
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const AGGREGATED: HeaderValue =
    HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");

fn verb(method: &Method, target: &Target, params: &Params) -> Result<&'static str, Status> {
    let on_object = target.name.is_some();
    let custom = target.kind.is_custom();
    let whole = !target.kind.namespaced || target.namespace.is_some();
    match (method, on_object) {
        (&Method::GET, true) if params.flag("watch")? => {
            Err(Status::bad_request("a watch is of a list: use a field selector on metadata.name"))
        }
        (&Method::GET | &Method::HEAD, true) => Ok("get"),
        (&Method::GET, false) if params.flag("watch")? => Ok("watch"),
        (&Method::GET | &Method::HEAD, false) => Ok("list"),
        (&Method::POST, false) if whole => Ok("create"),
        (&Method::PUT, true) => Ok("update"),
        (&Method::PATCH, true) => Ok("patch"),
        (&Method::DELETE, true) if !target.status => Ok("delete"),
        (&Method::DELETE, false) if target.kind.namespaced && whole => Ok("deletecollection"),
        (&Method::PUT | &Method::PATCH, false) if custom && whole => {
            Err(Status::bad_request("name must be provided"))
        }
        _ if custom && whole => Err(not_supported(method, target)),
        _ => Err(method_not_allowed()),
    }
}

fn access<'a>(label: &'a Label, target: &'a Target, name: &'a str) -> Access<'a> {
    Access {
        verb: label.verb,
        group: &target.kind.group,
        resource: &label.resource,
        namespace: target.namespace.as_deref(),
        name,
    }
}

fn denied(target: &Target, name: &str, why: &str) -> Status {
    if !name.is_empty() {
        return Status::forbidden(target.kind.names(), name, why);
    }
    let about = Some((target.kind.group.clone(), target.kind.plural.clone()));
    Status::new(Reason::Forbidden, format!("{} is forbidden: {why}", target.kind.qualified()))
        .with(Details { target: about, ..Details::default() })
}

async fn drain(mut body: Limited<Incoming>) {
    while let Some(Ok(_)) = body.frame().await {}
}

const NOT_FOUND: &str = "the server could not find the requested resource";

fn no_such_resource() -> Status {
    Status::new(Reason::NotFound, NOT_FOUND).with(Details { always: true, ..Details::default() })
}

/// As Kubernetes puts it for custom kinds.
fn not_supported(method: &Method, target: &Target) -> Status {
    let verb = match *method {
        Method::POST => "create",
        Method::DELETE => "delete",
        Method::PUT => "update",
        Method::PATCH => "patch",
        _ => "",
    };
    let told = format!("{verb} is not supported on resources of kind \"{}\"", target.kind.qualified());
    let about = Some((target.kind.group.clone(), target.kind.plural.clone()));
    Status::new(Reason::MethodNotAllowed, told).with(Details { target: about, ..Details::default() })
}

fn method_not_allowed() -> Status {
    let told = "the server does not allow this method on the requested resource";
    Status::new(Reason::MethodNotAllowed, told).with(Details { always: true, ..Details::default() })
}
