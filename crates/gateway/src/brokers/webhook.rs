//! Webhooks: batches by POST over HTTP/1.1 (RFC 9112) and TLS. A message is done with once the answer to its batch is there.
//!
//! ```text
//! read a window ── POST ─┬─ 2xx ── all are taken
//!                        ├─ 400, 413, 422 ── each by itself: of these the ones that get the same answer are refused
//!                        └─ any other answer, or none ── the connection ends, and the batch is sent again
//! ```
//!
//! One batch is on its way at a time, and what comes meanwhile is the next one. Of an answer the status is read, and of its body no more
//! than lets the connection be used again: nothing of it is shown to anybody.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, task::JoinHandle, time::Instant};
use tokio_rustls::TlsConnector;
use wasmbed_api::ReasonCode;
use wasmbed_control::gateway::{
    BatchFormat, BrokerFailure, BrokerLink, BrokerMessage, BrokerStep, ConnectionId, Speaks, Verdict,
};

use super::{
    failure::{self, CONNECT_TIMEOUT, of_io},
    feed::Feed,
    trust,
};

/// From a request to the head of its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// What is read of a body so that the connection can be used again, and for how long.
const BODY_BYTES_MAX: usize = 16 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(1);
/// The head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A batch that has room waits for so long for more.
const GATHER: Duration = Duration::from_millis(100);
/// Between two looks at what is to be done, if nothing comes.
const LOOK_EVERY_MS: u64 = 60_000;

/// A webhook that took a TLS handshake.
pub(super) struct Session {
    target: Target,
    wire: Option<Wire>,
}

/// Where requests go.
struct Target {
    host: String,
    port: u16,
    tls: Arc<ClientConfig>,
    path: String,
    format: BatchFormat,
    authorization: Option<HeaderValue>,
    gateway: String,
}

/// A connection.
struct Wire {
    requests: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
    /// It was answered on it before.
    used: bool,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What an answer means for the messages of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Meaning {
    Taken,
    /// One of them, or all together, is what is not taken.
    Unfit(StatusCode),
    Failed(BrokerFailure),
}

impl Session {
    /// Connects.
    pub(super) async fn open(link: &BrokerLink, gateway: &str) -> Result<Self, BrokerFailure> {
        let endpoint = &link.endpoint;
        let Speaks::Webhook { path, format } = &endpoint.speaks else {
            return Err(BrokerFailure::new(ReasonCode::BrokerInvalid, "spec.type is not Webhook"));
        };
        let mut tls = (*trust::client_config(endpoint)?).clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let credentials = match (&endpoint.token, &endpoint.username) {
            (Some(token), _) => Some(format!("Bearer {}", &**token)),
            (None, Some(user)) => {
                let password = endpoint.password.as_deref().map_or("", String::as_str);
                Some(format!("Basic {}", STANDARD.encode(format!("{}:{password}", &**user))))
            }
            (None, None) => None,
        };
        let authorization = credentials.map(|credentials| -> Result<HeaderValue, BrokerFailure> {
            let mut value = HeaderValue::from_str(&credentials).map_err(|_| {
                let message = "the Secret of spec.credentials has characters that no header may have";
                BrokerFailure::new(ReasonCode::BrokerInvalid, message)
            })?;
            value.set_sensitive(true);
            Ok(value)
        });
        let target = Target {
            host: endpoint.host.clone(),
            port: endpoint.port,
            tls: Arc::new(tls),
            path: path.clone(),
            format: *format,
            authorization: authorization.transpose()?,
            gateway: gateway.to_owned(),
        };
        let wire = target.connect().await?;
        Ok(Self { target, wire: Some(wire) })
    }

    /// Sends what is to be sent until something fails; says what did.
    pub(super) async fn serve(mut self, feed: &Feed, connection: ConnectionId) -> Option<BrokerFailure> {
        let mut versions = feed.core.versions();
        feed.core.with(|gateway, now| gateway.handle_broker_connected(now, connection));
        loop {
            versions.mark_unchanged();
            let until_ms = match feed.step(connection) {
                BrokerStep::Read(cursor) => {
                    let page = match feed.read(cursor).await {
                        Ok(page) => page,
                        Err(failure) => return Some(failure),
                    };
                    let mut batch =
                        feed.core.with(|gateway, now| gateway.handle_broker_page(now, connection, page));
                    if batch.is_empty() {
                        continue;
                    }
                    tokio::time::sleep(GATHER).await;
                    if let BrokerStep::Read(cursor) = feed.step(connection) {
                        match feed.read(cursor).await {
                            Ok(page) => batch.extend(
                                feed.core
                                    .with(|gateway, now| gateway.handle_broker_page(now, connection, page)),
                            ),
                            Err(failure) => return Some(failure),
                        }
                    }
                    let ended = tokio::select! {
                        sent = self.deliver(feed, connection, &batch) => sent.err().map(Some),
                        ended = over(feed, connection) => Some(ended),
                    };
                    match ended {
                        Some(failure) => return failure,
                        None => continue,
                    }
                }
                BrokerStep::Wait { until_ms } => until_ms,
                BrokerStep::Connect | BrokerStep::Subscribe(_) => return None,
                BrokerStep::End(failure) => return failure,
            };
            let pause_ms = until_ms.saturating_sub(feed.now().ms).min(LOOK_EVERY_MS);
            tokio::select! {
                _ = versions.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
            }
        }
    }

    /// Sends a batch, and what is not fit to be taken with others by itself.
    async fn deliver(
        &mut self,
        feed: &Feed,
        connection: ConnectionId,
        batch: &[BrokerMessage],
    ) -> Result<(), BrokerFailure> {
        let answer = |message: &BrokerMessage, verdict| {
            feed.core.with(|gateway, now| {
                gateway.handle_broker_answer(now, connection, message.number, verdict);
            });
        };
        match self.post(batch).await {
            Meaning::Taken => batch.iter().for_each(|message| answer(message, Verdict::Taken)),
            Meaning::Failed(failure) => return Err(failure),
            Meaning::Unfit(_) => {
                for message in batch {
                    match self.post(std::slice::from_ref(message)).await {
                        Meaning::Taken => answer(message, Verdict::Taken),
                        Meaning::Failed(failure) => return Err(failure),
                        Meaning::Unfit(status) => {
                            answer(message, Verdict::Refused);
                            let said =
                                format!("the webhook refused a message of {}: {status}", message.topic);
                            let failure = BrokerFailure::new(ReasonCode::BrokerRefused, &said);
                            feed.core.with(|gateway, now| {
                                gateway.handle_broker_complaint(now, connection, failure);
                            });
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn post(&mut self, batch: &[BrokerMessage]) -> Meaning {
        let body = Bytes::from(self.target.format.encode(&self.target.gateway, batch));
        loop {
            let reused = self.wire.as_ref().is_some_and(|wire| wire.used);
            match tokio::time::timeout(ANSWER_TIMEOUT, self.ask(body.clone())).await {
                Ok(Ok(response)) => return self.take(response).await,
                // A server may close a connection that rests, and this request may have met that.
                Ok(Err(Asked::Broken(_))) if reused => self.wire = None,
                Ok(Err(Asked::Broken(failure) | Asked::Unreached(failure))) => {
                    return Meaning::Failed(failure);
                }
                Err(_) => return Meaning::Failed(unanswered()),
            }
        }
    }

    async fn ask(&mut self, body: Bytes) -> Result<Response<Incoming>, Asked> {
        let closed = |wire: &mut Wire| wire.requests.is_closed();
        if self.wire.as_mut().is_none_or(closed) {
            self.wire = Some(self.target.connect().await.map_err(Asked::Unreached)?);
        }
        let request = self.target.request(body).map_err(|error| Asked::Unreached(said_wrong(&error)))?;
        let Some(wire) = &mut self.wire else { return Err(Asked::Unreached(unanswered())) };
        wire.requests.ready().await.map_err(|error| Asked::Broken(broken(&error)))?;
        wire.requests.send_request(request).await.map_err(|error| Asked::Broken(broken(&error)))
    }

    /// Reads an answer's status, and leaves a connection that can be used again or none.
    async fn take(&mut self, response: Response<Incoming>) -> Meaning {
        let meaning = meaning(&response);
        if read_out(response.into_body()).await {
            if let Some(wire) = &mut self.wire {
                wire.used = true;
            }
        } else {
            self.wire = None;
        }
        meaning
    }
}

/// Why there is no answer.
enum Asked {
    Unreached(BrokerFailure),
    Broken(BrokerFailure),
}

impl Target {
    async fn connect(&self) -> Result<Wire, BrokerFailure> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.shake_hands()).await {
            Ok(wire) => wire,
            Err(_) => Err(failure::unanswered()),
        }
    }

    async fn shake_hands(&self) -> Result<Wire, BrokerFailure> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| of_io(&error))?;
        let _ = tcp.set_nodelay(true);
        let name = ServerName::try_from(self.host.clone()).map_err(|_| {
            BrokerFailure::new(ReasonCode::BrokerInvalid, "the host of spec.url is no name of a server")
        })?;
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await;
        let stream = TokioIo::new(tls.map_err(|error| of_io(&error))?);
        let mut settings = http1::Builder::new();
        settings.max_buf_size(HEAD_BYTES_MAX);
        let (requests, work) = settings.handshake(stream).await.map_err(|error| broken(&error))?;
        let task = tokio::spawn(async move {
            // What went wrong is said to whoever asked.
            let _ = work.await;
        });
        Ok(Wire { requests, task, used: false })
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, http::Error> {
        let host = match self.port {
            443 => self.host.clone(),
            port => format!("{}:{port}", self.host),
        };
        let mut request = Request::post(&self.path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, self.format.media_type())
            .header(header::USER_AGENT, concat!("wasmbed/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        request.body(Full::new(body))
    }
}

/// Waits until a batch that is on its way is not to be waited for any longer.
async fn over(feed: &Feed, connection: ConnectionId) -> Option<BrokerFailure> {
    let mut versions = feed.core.versions();
    loop {
        versions.mark_unchanged();
        let until_ms = match feed.step(connection) {
            BrokerStep::End(failure) => return failure,
            BrokerStep::Wait { until_ms } => until_ms,
            BrokerStep::Read(_) | BrokerStep::Connect | BrokerStep::Subscribe(_) => u64::MAX,
        };
        let pause_ms = until_ms.saturating_sub(feed.now().ms).clamp(1, 1_000);
        tokio::select! {
            _ = versions.changed() => {}
            () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
        }
    }
}

/// Whether the body ended soon.
async fn read_out(mut body: Incoming) -> bool {
    let (until, mut bytes) = (Instant::now() + BODY_TIMEOUT, 0);
    loop {
        match tokio::time::timeout_at(until, body.frame()).await {
            Ok(None) => return true,
            Ok(Some(Ok(frame))) => bytes += frame.data_ref().map_or(0, Bytes::len),
            Ok(Some(Err(_))) | Err(_) => return false,
        }
        if bytes > BODY_BYTES_MAX {
            return false;
        }
    }
}

fn meaning(response: &Response<Incoming>) -> Meaning {
    let status = response.status();
    let reason = match status {
        status if status.is_success() => return Meaning::Taken,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            return Meaning::Unfit(status);
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            ReasonCode::NotAuthorised
        }
        _ => ReasonCode::BrokerRefused,
    };
    let said = match status {
        status if status.is_redirection() => {
            format!("the webhook answered {status}: redirects are not followed")
        }
        status => format!("the webhook answered {status}"),
    };
    let failure = BrokerFailure::new(reason, &said);
    Meaning::Failed(BrokerFailure { retry_after_ms: retry_after_ms(response), ..failure })
}

/// `Retry-After` in seconds; a date counts for nothing, since clocks differ (RFC 9110, section 10.2.3).
fn retry_after_ms(response: &Response<Incoming>) -> u64 {
    let value = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0).saturating_mul(1_000)
}

fn unanswered() -> BrokerFailure {
    let message = format!("the webhook did not answer within {} s", ANSWER_TIMEOUT.as_secs());
    BrokerFailure::new(ReasonCode::BrokerSilent, &message)
}

fn said_wrong(error: &http::Error) -> BrokerFailure {
    BrokerFailure::new(ReasonCode::BrokerInvalid, &format!("spec.url can't be asked: {error}"))
}

fn broken(error: &hyper::Error) -> BrokerFailure {
    if error.is_parse() || error.is_parse_too_large() {
        let message = format!("the webhook does not keep to HTTP/1.1: {error}");
        return BrokerFailure::new(ReasonCode::BrokerRefused, &message);
    }
    BrokerFailure::new(ReasonCode::BrokerUnreachable, "the webhook closed the connection without an answer")
}
