//! Sockets, TLS, and the life of the server.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmbed_telemetry::OpenFiles;
use wasmbed_telemetry::places::{Full, GivesWay, LEAVING_MAX, Place, PlaceLimits, Places, Stay};

use super::certificates::Certificates;
use super::handler::{Client, State};
use super::read::Snapshots;
use super::respond;
use super::shares::{Lines, Pool, Taking};
use crate::access::User;
use crate::config::{Config, Limits};
use crate::kinds::{DefinitionError, Kinds};
use crate::status::Status;
use crate::store::{Disk, History, OpenError, StorageError, Store};
use crate::telemetry::Metrics;
use crate::upkeep;

/// Requests of one connection at once (HTTP/2 streams).
const STREAMS_MAX: u32 = 250;
/// The same without a certificate: such a client asks whether the server lives.
const STRANGER_STREAMS_MAX: u32 = 8;
/// Bytes that wait in a stream for its client to read, beside what the kernel holds.
const STREAM_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of a socket's send buffer: what the kernel holds of answers that a client doesn't read.
const SEND_BUFFER_BYTES: u32 = 256 * 1024;
/// Connections that wait to be accepted: whoever finds no room asks again after a second, however soon there is some.
const BACKLOG: u32 = 4_096;
/// Connections beyond a bound that are kept for a moment, so that their client is told.
const TURNED_AWAY: PlaceLimits = PlaceLimits { total: 32, each: 8 };
/// How long they may last.
const TURNED_AWAY_STAY: Stay =
    Stay { idle: Duration::from_secs(5), request: Duration::from_secs(5), life: Duration::from_secs(10) };
/// Finds out that an HTTP/2 client is gone although its connection was never closed.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for requests to finish when the server stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Pause after the system refused a connection, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A definition can't be served.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// The store can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store can't be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The store refuses what the server itself keeps in it.
    #[error("the built-in objects can't be written: {0}")]
    Seed(Status),
    /// The address can't be bound.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// Certificates and keys don't fit.
    #[error("TLS: {0}")]
    Tls(String),
}

/// A server that is bound and whose store is open.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    certificates: Certificates,
    state: Arc<State>,
    store_ended: oneshot::Receiver<()>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Opens the store and binds the address. When this returns, clients can connect; they are answered once
/// [`Server::run`] runs.
pub async fn start(config: Config) -> Result<Server, ServerError> {
    let kinds = Arc::new(Kinds::new(&config.definitions)?);
    let certificates = Certificates::new(config.tls, config.client_roots)?;
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let limits = config.limits;
    let data_dir = config.data_dir;
    let disk = tokio::task::spawn_blocking(move || Disk::open(&data_dir)).await;
    let disk = disk.map_err(|error| StorageError::Failed(error.to_string()))??;
    let history = History { events: limits.history_events, bytes: limits.history_bytes };
    let for_commits = metrics.clone();
    let (store, store_ended) = Store::start(kinds, disk, history, move |report| for_commits.commit(report))?;
    upkeep::seed(&store, &config.definitions).await.map_err(ServerError::Seed)?;
    let listener = bind(config.listen);
    let listener = listener.map_err(|error| ServerError::Listen { address: config.listen, error })?;
    let address =
        listener.local_addr().map_err(|error| ServerError::Listen { address: config.listen, error })?;
    let state = Arc::new(State {
        store,
        policy: config.policy,
        metrics,
        registry,
        snapshots: Arc::new(Snapshots::default()),
        requests: Pool::new("requests", limits.requests_max, limits.requests_per_user_max),
        watches: Pool::new("watches", limits.watches_max, limits.watches_per_user_max),
        bodies: Pool::new("bytes of request bodies", limits.body_bytes_total, limits.body_bytes_per_user),
        answers: Pool::new(
            "bytes of unread answers",
            limits.answer_bytes_total,
            limits.answer_bytes_per_user,
        ),
        large: Arc::default(),
        lines: Lines::new(),
        shutdown: CancellationToken::new(),
        limits,
    });
    Ok(Server { listener, address, certificates, state, store_ended })
}

/// [`start`] and [`Server::run`] in one.
pub async fn serve(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
    start(config).await?.run(shutdown).await;
    Ok(())
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// With which new connections are met; they can be replaced while it runs.
    pub fn certificates(&self) -> Certificates {
        self.certificates.clone()
    }

    /// Serves until `shutdown` resolves, then lets requests finish, ends watches and closes the store.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Server { listener, certificates, state, store_ended, address } = self;
        tracing::info!(%address, "the Kubernetes API is served");
        let tasks = TaskTracker::new();
        tasks.spawn(upkeep::run(state.store.clone(), state.limits.event_lifetime, state.shutdown.clone()));
        let snapshots = Arc::clone(&state.snapshots);
        tasks.spawn(upkeep::every_minute(state.shutdown.clone(), move || snapshots.expire()));
        let places = Arc::new(Bounds::new(&state.limits, &format!("the Kubernetes API at {address}")));
        let accept = async {
            loop {
                places.handshakes.settled().await;
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        // One in its handshake can always give way.
                        let Ok(handshake) = places.handshakes.take(peer.ip(), places.handshakes()) else {
                            continue;
                        };
                        let (state, places) = (Arc::clone(&state), Arc::clone(&places));
                        let connection = Connection { state, places, peer };
                        drop(tasks.spawn(connection.serve(stream, certificates.acceptor(), handshake)));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection can't be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accept => {}
            () = shutdown => {}
        }
        drop(listener);
        state.shutdown.cancel();
        tasks.close();
        if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "requests are cut off: they did not finish in time");
        }
        drop(state);
        // All that is left of a store that cut-off requests hold ends with them.
        if tokio::time::timeout(DRAIN, store_ended).await.is_err() {
            tracing::warn!("the store is closed without waiting for its writer");
        }
        tracing::info!(%address, "the Kubernetes API has stopped");
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Places for connections. Those who have not proved who they are, and those who never will, have places apart.
struct Bounds {
    limits: Limits,
    files: OpenFiles,
    handshakes: Places<IpAddr>,
    strangers: Places<IpAddr>,
    users: Places<Arc<str>>,
    turned_away: Places<Arc<str>>,
    /// Under which their lines in the log are counted; no user has this name.
    refusals: Arc<str>,
}

impl Bounds {
    fn new(limits: &Limits, who: &str) -> Bounds {
        Bounds {
            files: OpenFiles::claim(who, Bounds::files(limits)),
            limits: limits.clone(),
            handshakes: Places::new(GivesWay::Any),
            strangers: Places::new(GivesWay::Any),
            users: Places::new(GivesWay::Idle),
            turned_away: Places::new(GivesWay::Any),
            refusals: "\0refused".into(),
        }
    }

    /// One for each connection that may be open at once.
    fn files(limits: &Limits) -> usize {
        // Whoever gave way may take a moment to close: a handshake, a stranger, a user, one turned away.
        let leaving = 4 * LEAVING_MAX;
        limits.connections_max
            + limits.handshakes_max
            + limits.unauthenticated_max
            + TURNED_AWAY.total
            + leaving
    }

    /// A bound as far as the process may have files open for it.
    fn shrunk(&self, total: usize, each: usize) -> PlaceLimits {
        let (allowed, wanted) = (self.files.allowed(), Bounds::files(&self.limits));
        let shrink = |bound: usize| (bound * allowed / wanted).clamp(1, bound.max(1));
        PlaceLimits { total: shrink(total), each: shrink(each) }
    }

    fn handshakes(&self) -> PlaceLimits {
        self.shrunk(self.limits.handshakes_max, self.limits.handshakes_per_source_max)
    }

    fn strangers(&self) -> PlaceLimits {
        self.shrunk(self.limits.unauthenticated_max, self.limits.unauthenticated_per_source_max)
    }

    fn users(&self) -> PlaceLimits {
        self.shrunk(self.limits.connections_max, self.limits.connections_per_user_max)
    }

    fn turned_away(&self) -> PlaceLimits {
        self.shrunk(TURNED_AWAY.total, TURNED_AWAY.each)
    }
}

struct Connection {
    state: Arc<State>,
    places: Arc<Bounds>,
    peer: SocketAddr,
}

type Stream = tokio_rustls::server::TlsStream<TcpStream>;

impl Connection {
    /// `handshake` is given back when the client has proved who it is, or is known to be nobody. Boxed, so that requests
    /// are compiled with this crate and not once more with each program that starts a server.
    fn serve(
        self,
        stream: TcpStream,
        acceptor: TlsAcceptor,
        handshake: Place<IpAddr>,
    ) -> BoxFuture<'static, ()> {
        Box::pin(self.handshake_and_serve(stream, acceptor, handshake))
    }

    async fn handshake_and_serve(self, stream: TcpStream, acceptor: TlsAcceptor, place: Place<IpAddr>) {
        // Answers are small and each is waited for.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(peer = %self.peer, %error, "nodelay can't be set");
        }
        let handshake = tokio::time::timeout(self.state.limits.handshake_timeout, acceptor.accept(stream));
        let handshake = tokio::select! {
            // What has arrived is used before the place is given away, however busy the process is.
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
            None => self.serve_stranger(stream, place).await,
        }
    }

    async fn serve_stranger(self, stream: Stream, handshake: Place<IpAddr>) {
        let places = &self.places.strangers;
        places.settled().await;
        let taken = places.take(self.peer.ip(), self.places.strangers());
        drop(handshake);
        // One of them can always give way.
        let Ok(place) = taken else { return };
        let limits = &self.state.limits;
        let stay = Stay {
            idle: limits.unauthenticated_idle,
            request: limits.unauthenticated_idle,
            life: limits.unauthenticated_life,
        };
        let client = Client { user: None, name: "".into() };
        self.requests(stream, client, place, Some(stay), None).await;
    }

    async fn serve_user(self, stream: Stream, user: User, handshake: Place<IpAddr>) {
        let name: Arc<str> = user.name.as_str().into();
        let limits = self.places.users();
        self.places.users.settled().await;
        let taken = self.places.users.take(Arc::clone(&name), limits);
        let client = Client { user: Some(user), name: Arc::clone(&name) };
        match taken {
            Ok(place) => {
                drop(handshake);
                self.requests(stream, client, place, None, None).await;
            }
            Err(full) => {
                let told = match full {
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
                self.refused(&told);
                self.places.turned_away.settled().await;
                let place = self.places.turned_away.take(name, self.places.turned_away());
                drop(handshake);
                let Ok(place) = place else { return };
                let refusal = Some(Status::busy(&told));
                self.requests(stream, client, place, Some(TURNED_AWAY_STAY), refusal).await;
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

    /// Serves a connection until it ends, has to give way, or has stayed for too long. With a `refusal` that is the
    /// answer to everything.
    async fn requests<K: Ord + Send + 'static>(
        &self,
        stream: Stream,
        client: Client,
        place: Place<K>,
        stay: Option<Stay>,
        refusal: Option<Status>,
    ) {
        let limits = &self.state.limits;
        let streams = if client.user.is_some() { STREAMS_MAX } else { STRANGER_STREAMS_MAX };
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .keep_alive(refusal.is_none())
            .max_buf_size(limits.header_bytes_max.max(8_192));
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(streams)
            .max_send_buf_size(STREAM_BUFFER_BYTES)
            .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        let (place, taking) = (Arc::new(place), Arc::new(Taking::default()));
        let (state, client, refusal) = (Arc::clone(&self.state), Arc::new(client), Arc::new(refusal));
        let (asked, answers) = (Arc::clone(&place), Arc::clone(&taking));
        let service = service_fn(move |request| {
            let (under_way, turn) = (asked.request(), answers.turn());
            let (state, client, refusal) = (Arc::clone(&state), Arc::clone(&client), Arc::clone(&refusal));
            async move {
                let answer = match refusal.as_ref() {
                    Some(refusal) => respond::refusal(refusal),
                    None => state.handle(&client, request).await,
                };
                Ok::<_, std::convert::Infallible>(respond::taken(answer, under_way, turn))
            }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let over = async {
            match stay {
                Some(stay) => place.over(stay).await,
                None => std::future::pending().await,
            }
        };
        let stalled = stalled(&taking, limits.unread_timeout);
        tokio::pin!(connection, over, stalled);
        self.state.metrics.connections.inc();
        let (mut stopping, mut cut_off) = (false, None);
        loop {
            let last_requests = async {
                match cut_off {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // A request that has arrived is answered before its connection gives way.
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(peer = %self.peer, %error, "connection ended");
                    }
                    break;
                }
                () = over.as_mut() => break,
                () = last_requests => break,
                () = stalled.as_mut() => {
                    self.refused(&"its client does not read its answers");
                    break;
                }
                () = place.gave_way().cancelled(), if !stopping => {
                    stopping = true;
                    cut_off = Some(tokio::time::Instant::now() + DRAIN);
                    connection.as_mut().graceful_shutdown();
                }
                () = self.state.shutdown.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
        self.state.metrics.connections.dec();
    }
}

/// Resolves when a client has not taken for so long what one of its answers has for it.
async fn stalled(taking: &Taking, patience: Duration) {
    loop {
        let now = tokio::time::Instant::now();
        let until = taking.since().unwrap_or(now) + patience;
        if until <= now {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}
