//! The HTTPS API for controllers and people: see `wasmbed_control::gateway_api` for what is said.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{MatchedPath, Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, head, post, put},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::BytesMut;
use futures::StreamExt as _;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use wasmbed_control::{
    ObjectKey, UnixTime,
    access::Action,
    gateway::{
        Cursor, DeliveryRequest, LogCursor, MessageCursor, PreparedOrders, PreparedSets, PreparedSettings,
        Refused, UploadDecision, Versions,
    },
    gateway_api::{
        BOOT_ID_HEADER, MessageDelivered, POST_MESSAGE_BYTES_MAX, POST_MESSAGE_DEVICES_MAX,
        PUT_BROKERS_BYTES_MAX, PUT_DECOMMISSIONS_BYTES_MAX, PUT_SETS_BYTES_MAX, PUT_SETTINGS_BYTES_MAX,
        PostMessage, PostMessageAnswer, PutBrokers, PutDecommissions, PutSets, PutSettings, Refusal,
    },
    harmless,
};
use wasmbed_kubernetes::{LeaseClient, ReviewError, Reviewer};
use wasmbed_protocol::{
    MessageSource, ModuleDigest,
    limits::{MODULE_BYTES_MAX, NAME_BYTES_MAX, PAYLOAD_BYTES_MAX},
};

use crate::{
    authorization::{QUESTIONS_OF_CALLER_MAX, Right, Unauthorized, Who, is_for},
    core::Core,
    hello::Replayed,
    metrics::Metrics,
    openapi,
    outbox::{Outbox, Page},
    refusal::{RefusalReason, Refusals},
    store::Store,
};

/// Bodies of sets, of orders and of settings that are read at once: each may be 16 MiB.
const SETS_AT_ONCE_MAX: usize = 4;
/// The same of one identity: a controller has one on its way to a gateway.
const SETS_OF_CALLER_MAX: usize = 1;
/// Bodies of modules that are read at once: each may be 1 MiB.
const MODULES_AT_ONCE_MAX: usize = 16;
/// The same of one identity: as many as a controller sends at once.
const MODULES_OF_CALLER_MAX: usize = 4;
/// Messages to applications that one identity has on their way at once; others of it wait.
const MESSAGES_OF_CALLER_MAX: usize = 4;
/// A body that brings less than [`PROGRESS_BYTES`] in this time gives its place to others.
const PROGRESS_SPAN: Duration = Duration::from_secs(5);
/// See [`PROGRESS_SPAN`]: a tenth of a megabit a second.
const PROGRESS_BYTES: usize = 64 * 1024;
/// Bytes of a module's body that are read: some more than a module may have, so that one that is a little too large is answered
/// instead of cut off.
const MODULE_BODY_BYTES_MAX: usize = MODULE_BYTES_MAX as usize + 64 * 1024;
/// For a request's head to arrive over HTTP/1.1.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// For a request's body to arrive and be worked on.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Streams of one HTTP/2 connection.
const STREAMS_MAX: u32 = 32;
/// Streams and logs that one identity reads at once: each holds a page of up to half a megabyte.
const STREAMS_OF_CALLER_MAX: usize = 32;
/// Bytes of a parser's error in an answer at most.
const ERROR_BYTES_MAX: usize = 1_024;
/// Bytes of an id in the log.
const ID_SHOWN_BYTES_MAX: usize = 256;
/// Between two looks for new messages.
const MESSAGES_SPACING: Duration = Duration::from_millis(50);
/// How often a quiet stream says that it lives.
const IDLE_EVERY: Duration = Duration::from_secs(5);

/// The API; cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    router: Router,
    places: Arc<Places>,
}

/// Connections and streams of controllers and people.
struct Places {
    max: usize,
    callers: Mutex<BTreeMap<Arc<str>, Held>>,
}

/// What one identity holds.
struct Held {
    is_controller: bool,
    connections: usize,
    share: Share,
}

/// What the connections of one identity have together.
#[derive(Clone)]
struct Share {
    streams: Arc<Semaphore>,
    sets: Arc<Semaphore>,
    modules: Arc<Semaphore>,
    questions: Arc<Semaphore>,
    messages: Arc<Semaphore>,
}

impl Share {
    fn new() -> Self {
        Self {
            streams: Arc::new(Semaphore::new(STREAMS_OF_CALLER_MAX)),
            sets: Arc::new(Semaphore::new(SETS_OF_CALLER_MAX)),
            modules: Arc::new(Semaphore::new(MODULES_OF_CALLER_MAX)),
            questions: Arc::new(Semaphore::new(QUESTIONS_OF_CALLER_MAX)),
            messages: Arc::new(Semaphore::new(MESSAGES_OF_CALLER_MAX)),
        }
    }
}

/// A connection's place, until it is dropped.
struct Place {
    places: Arc<Places>,
    id: Arc<str>,
    share: Share,
}

impl Places {
    fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, callers: Mutex::default() })
    }

    /// A place for a connection: one identity has at most a quarter of them, and all people half, so that neither a
    /// process that leaves connections behind nor people who read keep controllers out.
    fn take(self: &Arc<Self>, id: &Arc<str>, is_controller: bool) -> Option<Place> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let open = |wanted: &dyn Fn(&Held) -> bool| {
            callers.values().filter(|held| wanted(held)).map(|held| held.connections).sum::<usize>()
        };
        let own = callers.get(id).map_or(0, |held| held.connections);
        if open(&|_| true) >= self.max
            || own >= (self.max / 4).max(1)
            || (!is_controller && open(&|held| !held.is_controller) >= (self.max / 2).max(1))
        {
            return None;
        }
        let held = callers.entry(Arc::clone(id)).or_insert_with(|| Held {
            is_controller,
            connections: 0,
            share: Share::new(),
        });
        held.connections += 1;
        Some(Place { places: Arc::clone(self), id: Arc::clone(id), share: held.share.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut callers = self.places.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = callers.get_mut(&self.id) {
            held.connections -= 1;
            if held.connections == 0 {
                callers.remove(&self.id);
            }
        }
    }
}

/// What handlers share.
#[derive(Clone)]
struct Shared {
    core: Arc<Core>,
    store: Store,
    outbox: Option<Outbox>,
    metrics: Metrics,
    leader_lease: LeaseClient,
    reviewer: Arc<Reviewer>,
    sets: Arc<Semaphore>,
    modules: Arc<Semaphore>,
    refusals: Arc<Refusals>,
}

/// Who calls.
#[derive(Clone)]
struct Caller {
    id: Arc<str>,
    who: Who,
    share: Share,
    stop: CancellationToken,
}

impl Caller {
    /// Its id for the log: a person's may be as long as a certificate.
    fn shown(&self) -> Cow<'_, str> {
        harmless(&self.id, ID_SHOWN_BYTES_MAX)
    }
}

/// The handler of an operation of [`openapi::OPERATIONS`].
fn handler(operation: &openapi::Operation) -> MethodRouter<Shared> {
    match operation.id {
        openapi::Id::PutSets => put(put_sets),
        openapi::Id::PutDecommissions => put(put_decommissions),
        openapi::Id::PutBrokers => put(put_brokers),
        openapi::Id::PutSettings => put(put_settings),
        openapi::Id::HasModule => head(has_module),
        openapi::Id::PutModule => put(put_module),
        openapi::Id::Stream => get(stream),
        openapi::Id::Logs => get(logs),
        openapi::Id::Messages => get(messages),
        openapi::Id::PostMessage => post(post_message),
        openapi::Id::Settings => get(settings),
        openapi::Id::Document => get(document),
    }
}

impl Api {
    pub(crate) fn new(
        core: Arc<Core>,
        (store, outbox): (Store, Option<Outbox>),
        metrics: Metrics,
        leader_lease: LeaseClient,
        reviewer: Reviewer,
        connections_max: usize,
        refusals: Arc<Refusals>,
    ) -> Self {
        let shared = Shared {
            core,
            store,
            outbox,
            metrics,
            leader_lease,
            reviewer: Arc::new(reviewer),
            sets: Arc::new(Semaphore::new(SETS_AT_ONCE_MAX)),
            modules: Arc::new(Semaphore::new(MODULES_AT_ONCE_MAX)),
            refusals,
        };
        let router = openapi::OPERATIONS
            .iter()
            .fold(Router::new(), |router, operation| router.route(operation.path, handler(operation)))
            .fallback(|| async {
                refuse(StatusCode::NOT_FOUND, "NotFound", "no such path; see /openapi.json")
            })
            .method_not_allowed_fallback(|| async {
                refuse(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "see /openapi.json")
            })
            .layer(middleware::from_fn_with_state(shared.clone(), guard))
            .with_state(shared);
        Self { router, places: Places::new(connections_max) }
    }

    /// Serves one connection. The error is the reason for which it is refused.
    pub(crate) async fn serve(
        &self,
        stream: TlsStream<Replayed>,
        id: &str,
        who: Who,
        stop: CancellationToken,
    ) -> Result<(), RefusalReason> {
        let id: Arc<str> = id.into();
        let place = self.places.take(&id, who.is_controller()).ok_or(RefusalReason::TooManyApiConnections)?;
        tracing::debug!(peer = %id, "API connection");
        let caller = Caller { id, who, share: place.share.clone(), stop: stop.clone() };
        let service = TowerToHyperService::new(self.router.clone().layer(Extension(caller)));
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .keep_alive_interval(IDLE_EVERY);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, "an API connection ended badly");
        }
        Ok(())
    }
}

/// Lets those through that an operation is for, bounds the time, counts and measures.
async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let operation = path.and_then(|path| openapi::operation(&path, request.method().as_str()));
    let route = operation.map_or("other", |operation| operation.path);
    let caller = request.extensions().get::<Caller>().cloned();
    // What is no operation is answered so to everybody.
    let callers = operation.map_or(openapi::Callers::Everybody, |operation| operation.callers);
    let response = match &caller {
        Some(caller) => match is_for(callers, &caller.who) {
            Ok(()) => match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
                Ok(response) => response,
                Err(_) => refuse(StatusCode::REQUEST_TIMEOUT, "Timeout", "the request took too long"),
            },
            Err(error) => turn_away(&shared, caller, route, &error),
        },
        None => refuse(StatusCode::FORBIDDEN, "Forbidden", "no caller"),
    };
    shared.metrics.request(route, response.status().as_u16());
    if operation.is_none_or(|operation| !operation.streams) {
        shared.metrics.request_seconds.observe(started.elapsed().as_secs_f64());
    }
    response
}

/// Says why a call is not let through.
fn turn_away(shared: &Shared, caller: &Caller, route: &'static str, error: &Unauthorized) -> Response {
    let (status, reason) = match error {
        Unauthorized::OtherCallers(_) | Unauthorized::FormerOperator | Unauthorized::Denied { .. } => {
            (StatusCode::FORBIDDEN, "Forbidden")
        }
        Unauthorized::Expired => (StatusCode::FORBIDDEN, "Expired"),
        Unauthorized::Unknown { error: ReviewError::Busy(_), .. } => {
            (StatusCode::TOO_MANY_REQUESTS, "TooManyQuestions")
        }
        Unauthorized::Unknown { error: ReviewError::Unavailable(_), .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "NotKnown")
        }
    };
    if shared.refusals.may_log() {
        tracing::warn!(peer = %caller.shown(), reason, route, %error, "request refused");
    }
    refuse(status, reason, &error.to_string())
}

fn refuse(status: StatusCode, reason: &str, message: &str) -> Response {
    answer(status, &Refusal { reason: reason.to_owned(), message: message.to_owned(), leader_term: None })
}

fn answer(status: StatusCode, refusal: &Refusal) -> Response {
    (status, axum::Json(refusal)).into_response()
}

fn overloaded() -> Response {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "Overloaded", "the gateway stops")
}

/// Reads a body whole, of at most `bytes_max` bytes, or says why not.
async fn read_body(body: Body, bytes_max: usize) -> Result<Bytes, Response> {
    let mut chunks = body.into_data_stream();
    let mut read = BytesMut::new();
    let (mut span_ends, mut wanted) = (tokio::time::Instant::now() + PROGRESS_SPAN, PROGRESS_BYTES);
    loop {
        let chunk = tokio::time::timeout_at(span_ends, chunks.next()).await;
        match chunk {
            Ok(None) => return Ok(read.freeze()),
            Ok(Some(Ok(chunk))) if chunk.len() <= bytes_max - read.len() => read.extend_from_slice(&chunk),
            Ok(Some(Ok(_))) => {
                let message = format!("the body is larger than {bytes_max} bytes");
                return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, "TooLarge", &message));
            }
            Ok(Some(Err(error))) => {
                let message = format!("the body did not arrive: {error}");
                return Err(refuse(StatusCode::BAD_REQUEST, "Invalid", &message));
            }
            Err(_) => {}
        }
        let now = tokio::time::Instant::now();
        if now >= span_ends && read.len() < wanted {
            let message = "the body comes too slowly, and others wait for its place";
            return Err(refuse(StatusCode::REQUEST_TIMEOUT, "Timeout", message));
        } else if now >= span_ends {
            (span_ends, wanted) = (now + PROGRESS_SPAN, read.len() + PROGRESS_BYTES);
        }
    }
}

/// A place for a body: one of the caller's, and one of all.
async fn place<'a>(own: &'a Semaphore, all: &'a Semaphore) -> Option<[SemaphorePermit<'a>; 2]> {
    // In this order, so that what waits behind a slow body of the same caller keeps nobody else out.
    let own = own.acquire().await.ok()?;
    Some([own, all.acquire().await.ok()?])
}

/// Reads a body of JSON and prepares it, or says why not.
async fn read_json<T, P>(
    request: Request,
    bytes_max: usize,
    name: &'static str,
    prepare: impl FnOnce(&T) -> P + Send + 'static,
) -> Result<P, Response>
where
    T: serde::de::DeserializeOwned,
    P: Send + 'static,
{
    let body = read_body(request.into_body(), bytes_max).await?;
    // Megabytes take a while to read, for which neither the threads that serve devices nor the lock wait.
    let read =
        tokio::task::spawn_blocking(move || serde_json::from_slice::<T>(&body).map(|put| prepare(&put)));
    match read.await {
        Ok(Ok(put)) => Ok(put),
        Ok(Err(error)) => {
            // A name that isn't known is quoted, and may be as long as the body.
            let mut why = error.to_string();
            why.truncate(why.floor_char_boundary(ERROR_BYTES_MAX));
            let message = format!("the body is not a valid {name}: {why}");
            Err(refuse(StatusCode::BAD_REQUEST, "Invalid", &message))
        }
        Err(_) => Err(overloaded()),
    }
}

/// A term that was not seen yet may be that of a leader just elected.
async fn learn_term(shared: &Shared, leader_term: u64) {
    if shared.core.read(|gateway, _| gateway.needs_leader_lease(leader_term)) {
        let read = shared.leader_lease.term().await;
        shared.core.with(|gateway, _| match read {
            Ok(term) => gateway.handle_leader_lease(term),
            Err(error) => gateway.handle_leader_lease_failed(error.to_string()),
        });
    }
}

fn answer_put<T: serde::Serialize>(result: Option<Result<T, Refused>>) -> Response {
    match result {
        Some(Ok(done)) => axum::Json(done).into_response(),
        Some(Err(Refused::Fenced(refusal))) => answer(StatusCode::CONFLICT, &refusal),
        Some(Err(Refused::Invalid(refusal))) => answer(StatusCode::BAD_REQUEST, &refusal),
        Some(Err(Refused::Unavailable(refusal))) => answer(StatusCode::SERVICE_UNAVAILABLE, &refusal),
        None => overloaded(),
    }
}

async fn put_sets(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let Some(_place) = place(&caller.share.sets, &shared.sets).await else { return overloaded() };
    let put = match read_json::<PutSets, _>(request, PUT_SETS_BYTES_MAX, "PutSets", PreparedSets::new).await {
        Ok(put) => put,
        Err(refusal) => return refusal,
    };
    learn_term(&shared, put.leader_term()).await;
    answer_put(shared.core.put_sets(put).await.map(|answer| answer.result))
}

async fn put_decommissions(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let Some(_place) = place(&caller.share.sets, &shared.sets).await else { return overloaded() };
    let read = read_json::<PutDecommissions, _>(
        request,
        PUT_DECOMMISSIONS_BYTES_MAX,
        "PutDecommissions",
        PreparedOrders::new,
    );
    let put = match read.await {
        Ok(put) => put,
        Err(refusal) => return refusal,
    };
    learn_term(&shared, put.leader_term()).await;
    answer_put(shared.core.put_orders(put).await.map(|answer| answer.result))
}

async fn put_settings(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let Some(_place) = place(&caller.share.sets, &shared.sets).await else { return overloaded() };
    let read =
        read_json::<PutSettings, _>(request, PUT_SETTINGS_BYTES_MAX, "PutSettings", PreparedSettings::new);
    let put = match read.await {
        Ok(put) => put,
        Err(refusal) => return refusal,
    };
    learn_term(&shared, put.leader_term()).await;
    answer_put(shared.core.put_settings(put).await.map(|answer| answer.result))
}

async fn put_brokers(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let Some(_place) = place(&caller.share.sets, &shared.sets).await else { return overloaded() };
    let read = read_json::<PutBrokers, _>(request, PUT_BROKERS_BYTES_MAX, "PutBrokers", PutBrokers::clone);
    let put = match read.await {
        Ok(put) => put,
        Err(refusal) => return refusal,
    };
    learn_term(&shared, put.leader_term).await;
    answer_put(Some(shared.core.with(|gateway, now| gateway.handle_put_brokers(now, put))))
}

fn no_digest() -> Response {
    refuse(StatusCode::BAD_REQUEST, "Invalid", "the digest is not 64 hex digits")
}

async fn has_module(State(shared): State<Shared>, Path(digest): Path<String>) -> Response {
    match digest.parse() {
        Ok(digest) if shared.core.read(|gateway, _| gateway.has_module(&digest)) => {
            StatusCode::OK.into_response()
        }
        Ok(_) => StatusCode::NOT_FOUND.into_response(),
        Err(_) => no_digest(),
    }
}

async fn put_module(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(digest): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let Ok(digest) = digest.parse::<ModuleDigest>() else { return no_digest() };
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|bytes| bytes > MODULE_BODY_BYTES_MAX as u64) {
        return too_large();
    }
    let Some(_place) = place(&caller.share.modules, &shared.modules).await else { return overloaded() };
    let body = match read_body(request.into_body(), MODULE_BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let found = ModuleDigest::of(&body);
    if found != digest {
        return refuse(StatusCode::BAD_REQUEST, "DigestMismatch", &format!("the body hashes to {found}"));
    }
    let bytes = body.len();
    match shared.core.with(|gateway, now| gateway.plan_upload(now, digest, bytes as u64)) {
        UploadDecision::Known => StatusCode::OK.into_response(),
        UploadDecision::BadSize => too_large(),
        UploadDecision::NoSpace => {
            refuse(StatusCode::INSUFFICIENT_STORAGE, "NoSpace", "the gateway's module store is full")
        }
        UploadDecision::Accept => {
            // In a task of its own, so that a caller who goes away leaves no reservation behind.
            let shared = shared.clone();
            let stored = tokio::spawn(async move { store_module(&shared, digest, body).await });
            stored.await.unwrap_or_else(|_| overloaded())
        }
    }
}

async fn store_module(shared: &Shared, digest: ModuleDigest, body: Bytes) -> Response {
    // `plan_upload` has found the length to be at most 1 MiB.
    let bytes = body.len() as u32;
    match shared.store.write_module(digest, body).await {
        Ok(()) => {
            shared.core.with(|gateway, now| gateway.handle_module_stored(now, digest, bytes));
            tracing::info!(%digest, bytes, "module stored");
            StatusCode::CREATED.into_response()
        }
        Err(error) => {
            shared.core.with(|gateway, _| gateway.handle_upload_ended(digest));
            tracing::error!(%digest, %error, reason = "StoreFailed", "a module could not be written");
            refuse(
                StatusCode::INSUFFICIENT_STORAGE,
                "StoreFailed",
                &format!("the gateway's disk failed: {error}"),
            )
        }
    }
}

fn too_large() -> Response {
    let message = format!("a module has 1 to {MODULE_BYTES_MAX} bytes");
    refuse(StatusCode::PAYLOAD_TOO_LARGE, "TooLarge", &message)
}

async fn document() -> Response {
    axum::Json(openapi::document()).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamQuery {
    token: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogsQuery {
    namespace: Option<String>,
    application: Option<String>,
    device: Option<String>,
    #[serde(default)]
    follow: bool,
}

/// Where a reader of lines is.
struct Lines<C> {
    shared: Shared,
    _place: OwnedSemaphorePermit,
    cursor: C,
    versions: watch::Receiver<Versions>,
    stop: CancellationToken,
}

impl<C> Lines<C> {
    /// None if the caller reads as many as it may.
    fn new(shared: Shared, cursor: C, caller: Caller) -> Option<Self> {
        let versions = shared.core.versions();
        let place = caller.share.streams.try_acquire_owned().ok()?;
        Some(Self { shared, _place: place, cursor, versions, stop: caller.stop })
    }

    /// Waits for something new; false when the gateway stops. `true` after a while without.
    async fn wait(&mut self) -> Option<Waited> {
        tokio::select! {
            changed = self.versions.changed() => changed.ok().map(|()| Waited::Changed),
            () = tokio::time::sleep(IDLE_EVERY) => Some(Waited::Idle),
            () = self.stop.cancelled() => None,
        }
    }
}

enum Waited {
    Changed,
    Idle,
}

fn too_many_streams() -> Response {
    let message =
        format!("at most {STREAMS_OF_CALLER_MAX} streams and logs are read at once with one certificate");
    refuse(StatusCode::TOO_MANY_REQUESTS, "TooManyStreams", &message)
}

fn ndjson<S>(lines: S) -> Response
where
    S: futures::Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
{
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

fn to_lines<T: serde::Serialize>(values: &[T]) -> Bytes {
    let mut bytes = Vec::new();
    for value in values {
        // Our values have string keys only, and writing to a Vec can't fail.
        if serde_json::to_writer(&mut bytes, value).is_ok() {
            bytes.push(b'\n');
        }
    }
    bytes.into()
}

async fn stream(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<StreamQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Query(query) = match query {
        Ok(query) => query,
        Err(rejection) => return refuse(StatusCode::BAD_REQUEST, "Invalid", &rejection.body_text()),
    };
    let cursor = shared.core.read(|gateway, _| gateway.stream_resume(query.token.as_deref()));
    let Some(lines) = Lines::<Cursor>::new(shared, cursor, caller) else { return too_many_streams() };
    ndjson(futures::stream::unfold(lines, |mut lines| async {
        loop {
            lines.versions.mark_unchanged();
            let cursor = &mut lines.cursor;
            let page = lines.shared.core.read(|gateway, _| gateway.stream_page(cursor));
            if !page.is_empty() {
                return Some((Ok(to_lines(&page)), lines));
            }
            if let Waited::Idle = lines.wait().await? {
                let idle = lines.shared.core.read(|gateway, _| gateway.stream_idle(&lines.cursor));
                if let Some(idle) = idle {
                    return Some((Ok(to_lines(&[idle])), lines));
                }
            }
        }
    }))
}

async fn logs(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<LogsQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Query(query) = match query {
        Ok(query) => query,
        Err(rejection) => return refuse(StatusCode::BAD_REQUEST, "Invalid", &rejection.body_text()),
    };
    let LogsQuery { namespace, application, device, follow } = query;
    let actions = Action::read_logs(namespace.as_deref(), application.as_deref(), device.as_deref());
    let cursor = LogCursor { namespace, application, device, read: 0 };
    let boot_id = shared.core.read(|gateway, _| gateway.boot_id().to_owned());
    let Some(lines) = Lines::new(shared.clone(), cursor, caller.clone()) else { return too_many_streams() };
    let right = Right::obtain(&shared.reviewer, &caller.share.questions, &caller.who, actions).await;
    let right = match right {
        Ok(right) => right,
        Err(error) => return turn_away(&shared, &caller, "/v1/logs", &error),
    };
    let answer = ndjson(futures::stream::unfold((lines, right), move |(mut lines, mut right)| {
        let caller = caller.clone();
        async move {
            loop {
                if let Err(error) = right.hold().await {
                    tracing::info!(peer = %caller.shown(), %error, "a log stream ends");
                    return None;
                }
                lines.versions.mark_unchanged();
                let cursor = &mut lines.cursor;
                let page = lines.shared.core.read(|gateway, _| gateway.log_page(cursor));
                if !page.lines.is_empty() {
                    return Some((Ok(to_lines(&page.lines)), (lines, right)));
                }
                if page.more {
                    tokio::task::yield_now().await;
                    continue;
                }
                if !follow {
                    return None;
                }
                lines.wait().await?;
            }
        }
    }));
    ([(BOOT_ID_HEADER, boot_id)], answer).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsQuery {
    namespace: String,
    application: String,
    device: Option<String>,
    after: Option<String>,
}

async fn settings(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<SettingsQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Query(query) = match query {
        Ok(query) => query,
        Err(rejection) => return refuse(StatusCode::BAD_REQUEST, "Invalid", &rejection.body_text()),
    };
    let SettingsQuery { namespace, application, device, after } = query;
    let actions = vec![Action::read_settings(&namespace, device.as_deref())];
    let right = Right::obtain(&shared.reviewer, &caller.share.questions, &caller.who, actions).await;
    if let Err(error) = right {
        return turn_away(&shared, &caller, "/v1/settings", &error);
    }
    let (device, after) = (device.as_deref(), after.as_deref());
    let report =
        shared.core.read(|gateway, _| gateway.settings_report(&namespace, &application, device, after));
    axum::Json(report).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MessagesQuery {
    namespace: Option<String>,
    application: Option<String>,
    device: Option<String>,
    topic: Option<String>,
    since: Option<UnixTime>,
    #[serde(default)]
    after: u64,
    #[serde(default)]
    follow: bool,
}

async fn messages(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<MessagesQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Query(query) = match query {
        Ok(query) => query,
        Err(rejection) => return refuse(StatusCode::BAD_REQUEST, "Invalid", &rejection.body_text()),
    };
    let MessagesQuery { namespace, application, device, topic, since, after, follow } = query;
    let Some(outbox) = shared.outbox.clone() else {
        return refuse(StatusCode::NOT_FOUND, "NoMessages", "this gateway takes no messages of applications");
    };
    let actions = vec![Action::read_messages(namespace.as_deref(), device.as_deref())];
    let since_unix_ms = since.map_or(0, |since| since.ms);
    let cursor = MessageCursor { namespace, application, device, topic, since_unix_ms, read: after };
    let Some(lines) = Lines::new(shared.clone(), cursor, caller.clone()) else { return too_many_streams() };
    let right = Right::obtain(&shared.reviewer, &caller.share.questions, &caller.who, actions).await;
    let right = match right {
        Ok(right) => right,
        Err(error) => return turn_away(&shared, &caller, "/v1/messages", &error),
    };
    ndjson(futures::stream::unfold((lines, right), move |(mut lines, mut right)| {
        let (caller, outbox) = (caller.clone(), outbox.clone());
        async move {
            loop {
                if let Err(error) = right.hold().await {
                    tracing::info!(peer = %caller.shown(), %error, "a stream of messages ends");
                    return None;
                }
                let seen = lines.versions.borrow_and_update().messages;
                let (cursor, page) = outbox.page(lines.cursor.clone()).await;
                lines.cursor = cursor;
                let Page { lines: found, more } = match page {
                    Ok(page) => page,
                    Err(error) => {
                        tracing::warn!(%error, reason = "StoreFailed", "the outbox can't be read");
                        return None;
                    }
                };
                if !found.is_empty() {
                    return Some((Ok(to_lines(&found)), (lines, right)));
                }
                if more {
                    continue;
                }
                if !follow {
                    return None;
                }
                // What the stream and logs bring is not looked at, and some writes share one look.
                while lines.versions.borrow().messages == seen {
                    if let Waited::Idle = lines.wait().await? {
                        break;
                    }
                }
                tokio::time::sleep(MESSAGES_SPACING).await;
            }
        }
    }))
}

/// Sends a message to an application on some devices.
async fn post_message(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let Ok(_place) = caller.share.messages.acquire().await else { return overloaded() };
    let read = read_json(request, POST_MESSAGE_BYTES_MAX, "PostMessage", PostMessage::clone).await;
    let post = match read {
        Ok(post) => post,
        Err(response) => return response,
    };
    let (topic, payload) = match check_message(&post) {
        Ok(checked) => checked,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, "Invalid", &why.to_string()),
    };
    let PostMessage { namespace, application, devices, .. } = post;
    // A right for one device is asked for where one is meant, so that it can be given for one.
    let device = devices.first().filter(|_| devices.len() == 1).map(String::as_str);
    let actions = vec![Action::send_messages(&namespace, device)];
    let right = Right::obtain(&shared.reviewer, &caller.share.questions, &caller.who, actions).await;
    if let Err(error) = right {
        return turn_away(&shared, &caller, "/v1/messages", &error);
    }
    tracing::info!(
        target: "audit", peer = %caller.shown(), namespace, application, topic = %topic, payload_bytes = payload.len(),
        devices = devices.len(), device, "message to an application"
    );
    let application: Arc<str> = format!("{namespace}/{application}").into();
    let sent = devices.iter().map(|device| {
        let (device, application) = (ObjectKey::new(&namespace, device), application.clone());
        let (topic, payload) = (topic.clone(), payload.clone());
        let source = MessageSource::Operator;
        shared.core.deliver(move |id| DeliveryRequest { id, device, application, topic, payload, source })
    });
    let delivered = futures::future::join_all(sent).await;
    let Some(delivered) = delivered.into_iter().collect::<Option<Vec<_>>>() else { return overloaded() };
    delivered.iter().for_each(|delivered| shared.metrics.delivered(*delivered));
    let answered = devices.into_iter().zip(delivered);
    let devices = answered.map(|(device, delivered)| MessageDelivered { device, delivered }).collect();
    axum::Json(PostMessageAnswer { devices }).into_response()
}

/// Why a message can't be one; the caller's fault.
#[derive(Debug, thiserror::Error)]
enum InvalidMessage {
    #[error("devices names {0}, and 1 to {POST_MESSAGE_DEVICES_MAX} can be named")]
    Devices(usize),
    #[error("topic has {0} bytes, and 1 to {NAME_BYTES_MAX} are allowed")]
    Topic(usize),
    #[error("payload is no base64: {0}")]
    Encoding(#[from] base64::DecodeError),
    #[error("payload has {0} bytes, and at most {PAYLOAD_BYTES_MAX} are allowed")]
    Payload(usize),
}

/// Topic and payload of a message.
fn check_message(post: &PostMessage) -> Result<(Arc<str>, Arc<[u8]>), InvalidMessage> {
    if post.devices.is_empty() || post.devices.len() > POST_MESSAGE_DEVICES_MAX {
        return Err(InvalidMessage::Devices(post.devices.len()));
    }
    if post.topic.is_empty() || post.topic.len() > NAME_BYTES_MAX {
        return Err(InvalidMessage::Topic(post.topic.len()));
    }
    let payload = BASE64_STANDARD.decode(&post.payload)?;
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(InvalidMessage::Payload(payload.len()));
    }
    Ok((post.topic.as_str().into(), payload.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all_connections() {
        let places = Places::new(16);
        let take = |id: &str, is_controller| places.take(&id.into(), is_controller);
        let one: Vec<_> = (0..16).map_while(|_| take("controller-1", true)).collect();
        assert_eq!(one.len(), 4);
        let people: Vec<_> = (0..16).map_while(|index| take(&format!("o{index}"), false)).collect();
        assert_eq!(people.len(), 8);
        assert!(take("controller-2", true).is_some());
        drop((one, people));
        assert!(places.callers.lock().unwrap().is_empty());
    }
}
