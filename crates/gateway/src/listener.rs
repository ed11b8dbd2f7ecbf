//! The one port: connections are bounded, told apart by ALPN, authenticated, and handed on.
//!
//! ```text
//! accept ── bounds ── ClientHello ─┬─ wasmbed/1 ──── devices' roots ── role device ─────────────── device session
//!                                  ├─ h2, http/1.1 ─ services' roots ─ role controller, operator ─ HTTPS API
//!                                  └─ other, none ── refused
//! ```

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::CommonState;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wasmbed_control::{exchange::DeviceKey, gateway::Identity};
use wasmbed_pki::tls::{Peer, Profile, authenticate_client, handshake_reason};

use crate::{
    Limits, api,
    certificates::Certificates,
    core::Core,
    device,
    hello::{Hello, Replayed},
    metrics::Metrics,
    tls::DeviceTls,
};

/// Bytes of a socket's send buffer: with the kernel's default, slow readers of a 1 MiB module hold 1.4 GB for 1,000
/// devices; with this, 68 MB.
const SEND_BUFFER_BYTES: usize = 32 * 1024;
/// Connections that wait to be accepted: a fleet that comes back at once.
const BACKLOG: i32 = 4_096;
/// Refusals that are logged each second; metrics count them all.
const REFUSALS_LOGGED_PER_SECOND: u64 = 20;

/// What every connection needs.
pub(crate) struct Listener {
    pub(crate) core: Arc<Core>,
    pub(crate) metrics: Metrics,
    pub(crate) handshakes: Arc<Handshakes>,
    pub(crate) limits: Limits,
    pub(crate) trust_domain: String,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) api: api::Api,
    pub(crate) refusals: Refusals,
}

/// A connection that was not let in.
#[derive(Debug)]
struct Refused {
    /// For metrics.
    reason: &'static str,
    /// For people.
    detail: String,
}

impl Refused {
    fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// A client that is who it says.
enum Authenticated {
    Device(Box<DeviceTls>, Peer),
    Service(Box<TlsStream<Replayed>>, Peer),
}

/// A client that was let in.
enum Entered {
    Device(device::Session),
    /// An HTTP connection. Boxed, so that devices' sessions are not as large.
    Service(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// Binds the port.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    // Accepted connections inherit it.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Files that the process has open beside its devices' connections: the store, Kubernetes, controllers, logs.
const OTHER_FILES: u64 = 256;

/// Raises the limit on open files to what the connections need, as far as the system allows.
pub(crate) fn allow_connections(limits: &Limits, connections_max: usize) {
    let wanted = connections_max as u64 + limits.handshakes_max as u64 + OTHER_FILES;
    let held = getrlimit(Resource::Nofile);
    if held.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let allowed = held.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = Rlimit { current: Some(allowed), maximum: held.maximum };
    let result = setrlimit(Resource::Nofile, raised);
    if allowed < wanted || result.is_err() {
        tracing::warn!(
            reason = "OpenFilesLimit",
            wanted,
            allowed,
            "the limit on open files is lower than max_connections needs; raise it (ulimit -Hn, LimitNOFILE)"
        );
    }
}

impl Listener {
    /// Accepts connections until `stop`. Sessions are spawned on `tasks`.
    pub(crate) async fn run(
        self: Arc<Self>,
        listener: TcpListener,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: others must close before it can go on.
                    tracing::warn!(reason = "AcceptFailed", %error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let slot = match self.handshakes.enter(peer.ip()) {
                Ok(slot) => slot,
                Err(reason) => {
                    self.refuse(peer, &Refused::new(reason, "too many connections in their handshake"));
                    continue;
                }
            };
            // Boxed, so that what lets a connection in does not stay within its session.
            let entry = Box::pin(Arc::clone(&self).enter(stream, peer, slot, stop.clone()));
            let listener = Arc::clone(&self);
            tasks.spawn(async move {
                match entry.await {
                    Some(Entered::Device(session)) => {
                        let Listener { core, limits, metrics, .. } = &*listener;
                        device::serve(core, session, limits, metrics).await;
                    }
                    Some(Entered::Service(connection)) => connection.await,
                    None => {}
                }
            });
        }
    }

    /// Lets a connection in, within the time for it.
    async fn enter(
        self: Arc<Self>,
        socket: TcpStream,
        peer: SocketAddr,
        slot: Slot,
        stop: CancellationToken,
    ) -> Option<Entered> {
        let started = Instant::now();
        let handshake = tokio::time::timeout(self.limits.handshake_timeout, self.handshake(socket));
        let result = tokio::select! {
            result = handshake => result,
            () = stop.cancelled() => return None,
        };
        let timeout = || Refused::new("HandshakeTimeout", "the handshake took too long");
        let entered = result.unwrap_or_else(|_| Err(timeout())).and_then(|authenticated| {
            drop(slot);
            self.metrics.handshake_seconds.observe(started.elapsed().as_secs_f64());
            match authenticated {
                Authenticated::Device(stream, who) => self.enter_device(stream, &who),
                Authenticated::Service(stream, who) => {
                    let listener = Arc::clone(&self);
                    Ok(Entered::Service(Box::pin(async move {
                        let (id, role) = (who.id.to_string(), who.id.role());
                        if let Err(reason) = listener.api.serve(*stream, id, role, stop).await {
                            listener.refuse(peer, &Refused::new(reason, who.id.to_string()));
                        }
                    })))
                }
            }
        });
        entered.inspect_err(|refused| self.refuse(peer, refused)).ok()
    }

    fn enter_device(&self, stream: Box<DeviceTls>, who: &Peer) -> Result<Entered, Refused> {
        let device = DeviceKey { namespace: who.id.namespace().to_owned(), name: who.id.name().to_owned() };
        let identity = Identity { device, public_key: who.facts.public_key_base64() };
        let (id, waker) =
            self.core.accept(&identity).ok_or_else(|| Refused::new("Full", who.id.to_string()))?;
        Ok(Entered::Device(device::Session { stream, id, waker }))
    }

    async fn handshake(&self, socket: TcpStream) -> Result<Authenticated, Refused> {
        socket.set_nodelay(true).map_err(|error| Refused::new("ConnectionLost", error.to_string()))?;
        let mut hello = Hello::read(socket).await.map_err(|error| broken(&error))?;
        let Some(offered) = hello.offered.take() else {
            return Err(Refused::new("NoAlpn", "the client offers no ALPN name; devices offer wasmbed/1"));
        };
        let profile = Profile::select(offered.iter().map(Vec::as_slice));
        let identify = |profile, state: &CommonState| {
            authenticate_client(profile, state, &self.trust_domain)
                .map_err(|error| Refused::new("WrongIdentity", error.to_string()))
        };
        match profile {
            Some(Profile::Service) => {
                let acceptor = TlsAcceptor::from(self.certificates.of(Profile::Service));
                let stream = acceptor.accept(hello.replayed()).await.map_err(|error| broken(&error))?;
                let who = identify(Profile::Service, stream.get_ref().1)?;
                Ok(Authenticated::Service(Box::new(stream), who))
            }
            // Without a name of ours rustls refuses it, and tells the client why.
            Some(Profile::Device) | None => {
                let config = self.certificates.of(Profile::Device);
                let stream = DeviceTls::accept(hello.socket, config, &mut hello.received).await;
                if profile.is_none() {
                    let names: Vec<_> = offered.iter().map(|name| String::from_utf8_lossy(name)).collect();
                    return Err(Refused::new("WrongAlpn", format!("the client offers {}", names.join(", "))));
                }
                let stream = stream.map_err(|error| broken(&error))?;
                let who = identify(Profile::Device, stream.state())?;
                Ok(Authenticated::Device(stream, who))
            }
        }
    }

    fn refuse(&self, peer: SocketAddr, refused: &Refused) {
        self.metrics.refused(refused.reason);
        if self.refusals.may_log() {
            tracing::info!(%peer, reason = refused.reason, detail = refused.detail, "connection refused");
        }
    }
}

fn broken(error: &io::Error) -> Refused {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(tls @ rustls::Error::NoCertificatesPresented) => {
            Refused::new("NoCertificate", handshake_reason(tls))
        }
        Some(tls @ rustls::Error::InvalidCertificate(_)) => {
            Refused::new("BadCertificate", handshake_reason(tls))
        }
        Some(tls) => Refused::new("HandshakeFailed", handshake_reason(tls)),
        None => Refused::new("ConnectionLost", error.to_string()),
    }
}

/// Bounds on connections that have not proved who they are.
pub(crate) struct Handshakes {
    open: AtomicUsize,
    max: usize,
    per_source_max: usize,
    sources: Mutex<HashMap<IpAddr, usize>>,
}

impl Handshakes {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            max: limits.handshakes_max,
            per_source_max: limits.handshakes_per_source_max,
            sources: Mutex::default(),
        })
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn enter(self: &Arc<Self>, source: IpAddr) -> Result<Slot, &'static str> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if self.open() >= self.max {
            return Err("TooManyHandshakes");
        }
        let count = sources.entry(source).or_default();
        if *count >= self.per_source_max {
            return Err("TooManyHandshakesOfSource");
        }
        *count += 1;
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Slot { handshakes: Arc::clone(self), source })
    }
}

/// One of the connections in their handshake.
struct Slot {
    handshakes: Arc<Handshakes>,
    source: IpAddr,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut sources = self.handshakes.sources.lock().unwrap_or_else(PoisonError::into_inner);
        self.handshakes.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(count) = sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

/// Keeps a flood of refusals from becoming a flood of log lines.
pub(crate) struct Refusals {
    started: Instant,
    second: AtomicU64,
    logged: AtomicU64,
}

impl Refusals {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), second: AtomicU64::new(0), logged: AtomicU64::new(0) }
    }

    fn may_log(&self) -> bool {
        let second = self.started.elapsed().as_secs();
        if self.second.swap(second, Ordering::Relaxed) != second {
            let before = self.logged.swap(0, Ordering::Relaxed);
            if before > REFUSALS_LOGGED_PER_SECOND {
                let left_out = before - REFUSALS_LOGGED_PER_SECOND;
                tracing::warn!(reason = "Flood", left_out, "refusals were left out of this log");
            }
        }
        self.logged.fetch_add(1, Ordering::Relaxed) < REFUSALS_LOGGED_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_are_bounded_in_all_and_by_source() {
        let limits = Limits { handshakes_max: 3, handshakes_per_source_max: 2, ..Limits::default() };
        let handshakes = Handshakes::new(&limits);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = handshakes.enter(a).ok().unwrap();
        let _second = handshakes.enter(a).ok().unwrap();
        assert_eq!(handshakes.enter(a).err(), Some("TooManyHandshakesOfSource"));
        let _third = handshakes.enter(b).ok().unwrap();
        assert_eq!(handshakes.enter(b).err(), Some("TooManyHandshakes"));
        drop(first);
        assert!(handshakes.enter(a).is_ok());
        assert_eq!(handshakes.open(), 2);
        assert_eq!(handshakes.sources.lock().unwrap().len(), 2);
    }
}
