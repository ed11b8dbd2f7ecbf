//! Sockets, TLS, and the life of the server.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus_client::registry::Registry;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::handler::{BODY_UNIT, State};
use super::read::Snapshots;
use crate::access::User;
use crate::config::{Config, ServerTls};
use crate::kinds::{DefinitionError, Kinds};
use crate::store::{Disk, History, OpenError, StorageError, Store};
use crate::telemetry::Metrics;
use crate::upkeep;

/// Requests of one connection at once (HTTP/2 streams).
const STREAMS_MAX: u32 = 250;
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
    Seed(crate::status::Status),
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
    acceptor: TlsAcceptor,
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
    let acceptor = TlsAcceptor::from(Arc::new(tls(config.tls, config.client_roots)?));
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let limits = config.limits;
    let data_dir = config.data_dir;
    let disk = tokio::task::spawn_blocking(move || Disk::open(&data_dir)).await;
    let disk = disk.map_err(|error| StorageError(error.to_string()))??;
    let history = History { events: limits.history_events, bytes: limits.history_bytes };
    let for_commits = metrics.clone();
    let (store, store_ended) = Store::start(kinds, disk, history, move |report| for_commits.commit(report))?;
    upkeep::seed(&store, &config.definitions).await.map_err(ServerError::Seed)?;
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.map_err(|error| ServerError::Listen { address: config.listen, error })?;
    let address =
        listener.local_addr().map_err(|error| ServerError::Listen { address: config.listen, error })?;
    let state = Arc::new(State {
        store,
        policy: config.policy,
        metrics,
        registry,
        snapshots: Arc::new(Snapshots::default()),
        requests: Semaphore::new(limits.requests_max),
        watches: Arc::new(Semaphore::new(limits.watches_max)),
        bodies: Semaphore::new(limits.body_bytes_total / BODY_UNIT),
        shutdown: CancellationToken::new(),
        limits,
    });
    Ok(Server { listener, address, acceptor, state, store_ended })
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

    /// Serves until `shutdown` resolves, then lets requests finish, ends watches and closes the store.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Server { listener, acceptor, state, store_ended, address } = self;
        tracing::info!(%address, "the Kubernetes API is served");
        let tasks = TaskTracker::new();
        tasks.spawn(upkeep::run(state.store.clone(), state.limits.event_lifetime, state.shutdown.clone()));
        let snapshots = Arc::clone(&state.snapshots);
        tasks.spawn(upkeep::every_minute(state.shutdown.clone(), move || snapshots.expire()));
        let connections = Arc::new(Semaphore::new(state.limits.connections_max));
        let strangers = Arc::new(Semaphore::new(state.limits.unauthenticated_max));
        let accept = async {
            while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        let connection = Connection { state: Arc::clone(&state), peer, _permit: permit };
                        match Arc::clone(&strangers).try_acquire_owned() {
                            Ok(stranger) => {
                                drop(tasks.spawn(connection.serve(stream, acceptor.clone(), stranger)))
                            }
                            Err(_) => {
                                connection.refused(&"too many connections have not proved who they are")
                            }
                        }
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

struct Connection {
    state: Arc<State>,
    peer: SocketAddr,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// `stranger` is given back as soon as the client has proved who it is. Boxed, so that requests are compiled with
    /// this crate and not once more with each program that starts a server.
    fn serve(
        self,
        stream: TcpStream,
        acceptor: TlsAcceptor,
        stranger: OwnedSemaphorePermit,
    ) -> BoxFuture<'static, ()> {
        Box::pin(self.handshake_and_serve(stream, acceptor, stranger))
    }

    async fn handshake_and_serve(
        self,
        stream: TcpStream,
        acceptor: TlsAcceptor,
        stranger: OwnedSemaphorePermit,
    ) {
        // Answers are small and each is waited for.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(peer = %self.peer, %error, "nodelay can't be set");
        }
        let handshake = tokio::time::timeout(self.state.limits.handshake_timeout, acceptor.accept(stream));
        let stream = match handshake.await {
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
        let _stranger = user.is_none().then_some(stranger);
        self.state.metrics.connections.inc();
        self.requests(TokioIo::new(stream), user).await;
        self.state.metrics.connections.dec();
    }

    fn refused(&self, reason: &dyn std::fmt::Display) {
        self.state.metrics.connections_refused.inc();
        tracing::info!(peer = %self.peer, %reason, "connection refused");
    }

    async fn requests(&self, io: TokioIo<tokio_rustls::server::TlsStream<TcpStream>>, user: Option<User>) {
        let limits = &self.state.limits;
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(limits.header_bytes_max.max(8_192));
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        let (state, user) = (Arc::clone(&self.state), Arc::new(user));
        let service = service_fn(move |request| {
            let (state, user) = (Arc::clone(&state), Arc::clone(&user));
            async move { Ok::<_, std::convert::Infallible>(state.handle(user.as_ref().as_ref(), request).await) }
        });
        let connection = builder.serve_connection(io, service);
        tokio::pin!(connection);
        let mut stopping = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(peer = %self.peer, %error, "connection ended");
                    }
                    return;
                }
                () = self.state.shutdown.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

fn tls(
    server: ServerTls,
    client_roots: Vec<rustls_pki_types::CertificateDer<'static>>,
) -> Result<rustls::ServerConfig, ServerError> {
    let failed = |error: &dyn std::fmt::Display| ServerError::Tls(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for root in client_roots {
        roots.add(root).map_err(|error| failed(&error))?;
    }
    // Without a certificate a client may ask whether the server lives, and nothing else.
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| failed(&error))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| failed(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(server.certificates, server.key)
        .map_err(|error| failed(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
