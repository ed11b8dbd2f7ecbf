//! The life of the server: start, accept, stop.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmbed_telemetry::ProcessMetrics as _;

use super::audit::Audit;
use super::certificates::Certificates;
use super::connection::Connection;
use super::error::ServerError;
use super::places::Bounds;
use super::read::Snapshots;
use super::shares::{Lines, Pool};
use super::state::State;
use crate::config::Config;
use crate::kinds::Kinds;
use crate::store::{Disk, History, StorageError, Store};
use crate::telemetry::Metrics;
use crate::upkeep;

/// Bytes of a socket's send buffer: the part of unread answers that the kernel holds.
const SEND_BUFFER_BYTES: u32 = 256 * 1024;
/// Connections that wait to be accepted: a client beyond them retries after a second.
const BACKLOG: u32 = 4_096;
/// Time for requests to finish when the server stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Pause after an accept failed, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server whose store is open and whose address is bound.
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

/// Opens the store and binds the address. When this returns, clients can connect; they are answered once [`Server::run`]
/// runs.
pub async fn start(config: Config) -> Result<Server, ServerError> {
    let kinds = Arc::new(Kinds::new(&config.definitions)?);
    let certificates = Certificates::new(config.tls, config.client_roots)?;
    let mut registry = Registry::default();
    let metrics = Metrics::registered(&mut registry);
    let limits = config.limits;
    let (data_dir, keys) = (config.data_dir, config.encryption_keys);
    let disk = tokio::task::spawn_blocking(move || Disk::open(&data_dir, keys.as_deref())).await;
    let disk = disk.map_err(|error| StorageError::Failed(error.to_string()))??;
    let history = History { events: limits.history_events, bytes: limits.history_bytes };
    let for_commits = metrics.clone();
    let (store, store_ended) = Store::start(kinds, disk, history, move |report| for_commits.commit(report))?;
    upkeep::seed(&store, &config.definitions).await.map_err(ServerError::Seed)?;
    let audit = Audit::open(config.audit_log.as_ref(), metrics.audit_failed.clone())?;
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
        audit,
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
    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificates for new connections, which can be replaced while it runs.
    pub fn certificates(&self) -> Certificates {
        self.certificates.clone()
    }

    /// Serves until `shutdown` resolves, then lets requests finish, ends watches and closes the store.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Server { listener, certificates, state, store_ended, address } = self;
        tracing::info!(%address, "serving the Kubernetes API");
        let tasks = TaskTracker::new();
        let (store, limits, stop) = (state.store.clone(), state.limits.clone(), state.shutdown.clone());
        tasks.spawn(async move { upkeep::run(store, &limits, stop).await });
        let snapshots = Arc::clone(&state.snapshots);
        tasks.spawn(upkeep::every_minute(state.shutdown.clone(), move || snapshots.expire()));
        let places = Arc::new(Bounds::new(&state.limits, &format!("the Kubernetes API at {address}")));
        let accept = async {
            loop {
                places.handshakes.settled().await;
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        // A handshake can always take over a place.
                        let Ok(handshake) = places.handshakes.take(peer.ip(), places.handshake_limits())
                        else {
                            continue;
                        };
                        let (state, places) = (Arc::clone(&state), Arc::clone(&places));
                        let connection = Connection::new(state, places, peer);
                        drop(tasks.spawn(connection.serve(stream, certificates.acceptor(), handshake)));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
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
            tracing::warn!(connections = tasks.len(), "shutdown timed out with unfinished requests");
        }
        drop(state);
        // Unfinished requests may hold the store a little longer.
        if tokio::time::timeout(DRAIN, store_ended).await.is_err() {
            tracing::warn!("closed the store without waiting for its writer");
        }
        tracing::info!(%address, "stopped the Kubernetes API");
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
