//! A connection: TLS handshake, authentication, and HTTP until it ends.

use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use wasmbed_telemetry::places::{Full, Place, Stay};

use super::client::Client;
use super::places::{Bounds, REJECTED_STAY};
use super::shares::Unread;
use super::state::State;
use super::{handler, respond};
use crate::access::User;
use crate::config::Limits;
use crate::status::Status;

/// Concurrent requests of one connection (HTTP/2 streams).
const STREAMS_MAX: u32 = 250;
/// The same without a certificate: such a client may only ask whether the server is alive.
const ANONYMOUS_STREAMS_MAX: u32 = 8;
/// Bytes buffered in a stream for its client, besides those in the kernel.
const STREAM_BUFFER_BYTES: usize = 64 * 1024;
/// Detects HTTP/2 clients that are gone without closing their connection.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for requests to finish when a connection gives way.
const DRAIN: Duration = Duration::from_secs(5);

/// A connection that was accepted.
pub(super) struct Connection {
    state: Arc<State>,
    places: Arc<Bounds>,
    peer: SocketAddr,
}

type Stream = tokio_rustls::server::TlsStream<TcpStream>;

impl Connection {
    pub(super) fn new(state: Arc<State>, places: Arc<Bounds>, peer: SocketAddr) -> Connection {
        Connection { state, places, peer }
    }

    /// Serves the connection until it ends. `handshake` is released once the client is authenticated or known to be
    /// anonymous. Boxed, so that requests are compiled with this crate and not again with each program that starts a
    /// server.
    pub(super) fn serve(
        self,
        stream: TcpStream,
        acceptor: TlsAcceptor,
        handshake: Place<IpAddr>,
    ) -> BoxFuture<'static, ()> {
        Box::pin(self.handshake_and_serve(stream, acceptor, handshake))
    }

    async fn handshake_and_serve(self, stream: TcpStream, acceptor: TlsAcceptor, place: Place<IpAddr>) {
        // Answers are small and latency matters.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(peer = %self.peer, %error, "cannot set TCP_NODELAY");
        }
        let handshake = tokio::time::timeout(self.state.limits.handshake_timeout, acceptor.accept(stream));
        let handshake = tokio::select! {
            // Data that has arrived is processed before the place is given away.
            biased;
            handshake = handshake => handshake,
            () = place.gave_way().cancelled() => {
                return self.refused(&"too many connections are in their handshake, and this is the oldest");
            }
        };
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return self.refused(&error),
            Err(_) => return self.refused(&"the handshake took too long"),
        };
        let user = match stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()) {
            None => None,
            Some(leaf) => match User::from_certificate(leaf) {
                Ok(user) => Some(user),
                Err(refused) => return self.refused(&refused),
            },
        };
        match user {
            Some(user) => self.serve_user(stream, user, place).await,
            None => self.serve_anonymous(stream, place).await,
        }
    }

    async fn serve_anonymous(self, stream: Stream, handshake: Place<IpAddr>) {
        let places = &self.places.anonymous;
        places.settled().await;
        let taken = places.take(self.peer.ip(), self.places.anonymous_limits());
        drop(handshake);
        // A place of this group can always be taken over.
        let Ok(place) = taken else { return };
        let limits = &self.state.limits;
        let stay = Stay {
            idle: limits.unauthenticated_idle,
            request: limits.unauthenticated_idle,
            life: limits.unauthenticated_life,
        };
        let client = Client { user: None, name: "".into(), address: self.peer.ip() };
        self.requests(stream, client, place, Some(stay), None).await;
    }

    async fn serve_user(self, stream: Stream, user: User, handshake: Place<IpAddr>) {
        let name: Arc<str> = user.name.as_str().into();
        let limits = self.places.user_limits();
        self.places.users.settled().await;
        let taken = self.places.users.take(Arc::clone(&name), limits);
        let client = Client { user: Some(user), name: Arc::clone(&name), address: self.peer.ip() };
        match taken {
            Ok(place) => {
                drop(handshake);
                self.requests(stream, client, place, None, None).await;
            }
            Err(full) => {
                let message = match full {
                    Full::Holder => {
                        format!(
                            "too many connections of user {name:?}: one user may have {} at once",
                            limits.each
                        )
                    }
                    Full::All => {
                        format!("too many connections: all users together may have {} at once", limits.total)
                    }
                };
                self.refused(&message);
                self.places.rejected.settled().await;
                let place = self.places.rejected.take(name, self.places.rejected_limits());
                drop(handshake);
                let Ok(place) = place else { return };
                let refusal = Some(Status::busy(&message));
                self.requests(stream, client, place, Some(REJECTED_STAY), refusal).await;
            }
        }
    }

    fn refused(&self, reason: &dyn std::fmt::Display) {
        self.state.metrics.connections_refused.inc();
        if !self.state.lines.may_log(&self.places.refusals) {
            return;
        }
        tracing::info!(peer = %self.peer, %reason, "connection refused");
    }

    /// Serves requests until the connection ends, has to give way, or has stayed for too long. With a `refusal`, that is
    /// the answer to all of them.
    async fn requests<K: Ord + Send + 'static>(
        &self,
        stream: Stream,
        client: Client,
        place: Place<K>,
        stay: Option<Stay>,
        refusal: Option<Status>,
    ) {
        let builder = http(&self.state.limits, client.user.is_some(), refusal.is_none());
        let (place, unread) = (Arc::new(place), Arc::new(Unread::default()));
        let (state, client, refusal) = (Arc::clone(&self.state), Arc::new(client), Arc::new(refusal));
        let (busy, answers) = (Arc::clone(&place), Arc::clone(&unread));
        let service = service_fn(move |request| {
            let (in_progress, delivery) = (busy.request(), answers.delivery());
            let (state, client, refusal) = (Arc::clone(&state), Arc::clone(&client), Arc::clone(&refusal));
            async move {
                let answer = match refusal.as_ref() {
                    Some(refusal) => respond::refusal(refusal),
                    None => handler::handle(&state, &client, request).await,
                };
                Ok::<_, std::convert::Infallible>(respond::tracked(answer, in_progress, delivery))
            }
        });
        let connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        self.state.metrics.connections.inc();
        self.drive(connection, |connection| connection.graceful_shutdown(), &place, &unread, stay).await;
        self.state.metrics.connections.dec();
    }

    /// Drives a connection until one of the ends that [`Connection::requests`] names.
    async fn drive<C: Future<Output = Result<(), E>>, E: std::fmt::Display, K: Ord + Send + 'static>(
        &self,
        mut connection: Pin<&mut C>,
        graceful_shutdown: impl Fn(Pin<&mut C>),
        place: &Place<K>,
        unread: &Unread,
        stay: Option<Stay>,
    ) {
        let over = async {
            match stay {
                Some(stay) => place.over(stay).await,
                None => std::future::pending().await,
            }
        };
        let stalled = stalled(unread, self.state.limits.unread_timeout);
        tokio::pin!(over, stalled);
        let (mut stopping, mut cut_off) = (false, None);
        loop {
            let last_requests = async {
                match cut_off {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Requests that have arrived are answered before the connection gives way.
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(peer = %self.peer, %error, "connection ended");
                    }
                    return;
                }
                () = over.as_mut() => return,
                () = last_requests => return,
                () = stalled.as_mut() => return self.refused(&"its client does not read its answers"),
                () = place.gave_way().cancelled(), if !stopping => {
                    stopping = true;
                    cut_off = Some(tokio::time::Instant::now() + DRAIN);
                    graceful_shutdown(connection.as_mut());
                }
                () = self.state.shutdown.cancelled(), if !stopping => {
                    stopping = true;
                    graceful_shutdown(connection.as_mut());
                }
            }
        }
    }
}

/// HTTP/1.1 and HTTP/2 within the bounds.
fn http(limits: &Limits, authenticated: bool, keep_alive: bool) -> auto::Builder<TokioExecutor> {
    let streams = if authenticated { STREAMS_MAX } else { ANONYMOUS_STREAMS_MAX };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .keep_alive(keep_alive)
        .max_buf_size(limits.header_bytes_max.max(8_192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .max_send_buf_size(STREAM_BUFFER_BYTES)
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// Resolves when a client hasn't read from one of its answers for `patience`.
async fn stalled(unread: &Unread, patience: Duration) {
    loop {
        let now = tokio::time::Instant::now();
        let until = unread.since().unwrap_or(now) + patience;
        if until <= now {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}
