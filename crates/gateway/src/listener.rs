//! The one port: connections are bounded, told apart by ALPN, authenticated, and handed on.
//!
//! ```text
//! accept ── a place ── ClientHello ─┬─ wasmbed/1 ──── devices' roots ── role device ─────────────── device session
//!                                  │                └─ factory roots, self-signed ──────────────── a place to join
//!                                  ├─ h2, http/1.1 ─ services' roots ─ role controller ─────────── HTTPS API
//!                                  │                └─ operators' roots ── a person ────────────── HTTPS API
//!                                  └─ other, none ── refused
//! ```

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    time::MissedTickBehavior,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wasmbed_control::{
    ObjectKey,
    gateway::{
        CertificateHash, Identity, JoiningClient, JoiningIdentity,
        config::{CONNECTIONS_EXTRA, STRANGERS_MAX},
    },
};
use wasmbed_pki::{
    DevicePeer, ServicePeer,
    tls::{PeerError, Profile, handshake_reason},
};
use wasmbed_protocol::KeyHash;
use wasmbed_telemetry::OpenFiles;

use crate::{
    Limits, api,
    authorization::Who,
    certificates::Certificates,
    core::Core,
    device,
    foreign::Foreign,
    handshakes::{Bounds, Handshakes, PRESS_EVERY, Place, Slot, WAITING_MAX, source},
    hello::{Hello, Replayed},
    metrics::Metrics,
    refusal::{RefusalReason, Refusals},
    tls::DeviceTls,
};

/// Bytes of a socket's send buffer: with the kernel's default, slow readers of a 1 MiB module hold 1.4 GB for 1,000
/// devices; with this, 68 MB.
const SEND_BUFFER_BYTES: usize = 32 * 1024;
/// Connections that wait to be accepted: a fleet that comes back at once.
const BACKLOG: i32 = 4_096;
/// After a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What every connection needs.
pub(crate) struct Listener {
    pub(crate) core: Arc<Core>,
    pub(crate) metrics: Metrics,
    pub(crate) handshakes: Arc<Handshakes>,
    pub(crate) shares: Shares,
    pub(crate) limits: Limits,
    pub(crate) trust_domain: String,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) api: api::Api,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) foreign: Arc<Foreign>,
}

/// A connection that was not let in.
#[derive(Debug)]
struct Refused {
    reason: RefusalReason,
    /// For people.
    detail: String,
    /// Its certificate is of an authority that is not trusted here.
    foreign: bool,
}

impl Refused {
    fn new(reason: RefusalReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), foreign: false }
    }
}

/// A client that is who it says.
enum Authenticated {
    Device(Box<DeviceTls>, DevicePeer),
    Service(Box<TlsStream<Replayed>>, ServicePeer),
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

/// How the open files that the process may have are shared.
#[derive(Clone, Debug)]
pub(crate) struct Shares {
    files: Arc<OpenFiles>,
    limits: Limits,
    connections_max: usize,
}

impl Shares {
    /// Asks for what the configuration needs.
    pub(crate) fn claim(limits: &Limits, connections_max: usize) -> Self {
        let wanted = connections_max
            + CONNECTIONS_EXTRA
            + STRANGERS_MAX
            + limits.handshakes_max
            + WAITING_MAX
            + limits.api_connections_max;
        let files = Arc::new(OpenFiles::claim("gateway", wanted));
        Self { files, limits: *limits, connections_max }
    }

    /// For handshakes.
    pub(crate) fn handshakes(&self) -> Bounds {
        divide(self.files.allowed(), &self.limits).0
    }

    /// For devices that are who they say; those that are being turned away count.
    pub(crate) fn devices(&self) -> usize {
        divide(self.files.allowed(), &self.limits).1
    }

    /// Sessions at most.
    pub(crate) fn sessions(&self) -> usize {
        self.connections_max.min(self.devices())
    }
}

/// What so many open files allow: of few a quarter for handshakes, half as many for those that wait for one, what is left
/// after the API for devices.
fn divide(files: usize, limits: &Limits) -> (Bounds, usize) {
    let places = limits.handshakes_max.min(files / 4);
    let places_of_source = limits.handshakes_per_source_max.min((places / 4 * 3).max(1));
    let waiting = WAITING_MAX.min(files / 8);
    let taken = places + waiting + limits.api_connections_max.min(files / 8);
    (Bounds { places, places_of_source, waiting }, files.saturating_sub(taken))
}

impl Listener {
    /// Accepts connections until `stop`. Sessions are spawned on `tasks`.
    pub(crate) async fn run(
        self: Arc<Self>,
        listener: TcpListener,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) {
        let mut press = tokio::time::interval(PRESS_EVERY);
        press.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Whoever comes while there is no room waits in the kernel's queue.
            let next = async {
                self.handshakes.room().await;
                listener.accept().await
            };
            let accepted = tokio::select! {
                accepted = next => accepted,
                _ = press.tick() => {
                    self.handshakes.press();
                    continue;
                }
                () = stop.cancelled() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: others must close before it can go on.
                    self.metrics.refused(RefusalReason::AcceptFailed);
                    if self.refusals.may_log() {
                        tracing::warn!(reason = RefusalReason::AcceptFailed.as_str(), %error, "a connection could not be accepted");
                    }
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let turn = self.handshakes.enter(peer.ip());
            let (listener, stop) = (Arc::clone(&self), stop.clone());
            tasks.spawn(async move {
                let slot = tokio::select! {
                    slot = turn.come() => slot,
                    () = stop.cancelled() => return,
                };
                let Some(slot) = slot else { return };
                // Boxed, so that what lets a connection in does not stay within its session.
                let entry = Box::pin(Arc::clone(&listener).enter(stream, peer, slot, stop));
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
        let handshake =
            tokio::time::timeout(self.limits.handshake_timeout, self.handshake(socket, &slot.place));
        let result = tokio::select! {
            biased;
            result = handshake => result,
            () = slot.place.gives_way() => {
                Ok(Err(Refused::new(RefusalReason::HandshakeGaveWay, "the handshake did not go on while others waited")))
            }
            () = stop.cancelled() => return None,
        };
        let timeout = || Refused::new(RefusalReason::HandshakeTimeout, "the handshake took too long");
        let entered = result.unwrap_or_else(|_| Err(timeout())).and_then(|authenticated| {
            self.handshakes.done();
            drop(slot);
            self.metrics.handshake_seconds.observe(started.elapsed().as_secs_f64());
            match authenticated {
                Authenticated::Device(stream, who) => self.enter_device(stream, peer, who),
                Authenticated::Service(stream, who) => {
                    let listener = Arc::clone(&self);
                    Ok(Entered::Service(Box::pin(async move {
                        let id = match &who {
                            ServicePeer::Service(service) => service.id.to_string(),
                            ServicePeer::Operator { id, .. } => id.to_string(),
                        };
                        let served = listener.api.serve(*stream, id.as_str(), Who::of(&who), stop).await;
                        if let Err(reason) = served {
                            listener.refuse(peer, &Refused::new(reason, id));
                        }
                    })))
                }
            }
        });
        entered.inspect_err(|refused| self.refuse(peer, refused)).ok()
    }

    fn enter_device(
        &self,
        stream: Box<DeviceTls>,
        peer: SocketAddr,
        who: DevicePeer,
    ) -> Result<Entered, Refused> {
        let files = self.shares.devices();
        let (name, entered) = match who {
            DevicePeer::Device(who) => {
                let device = ObjectKey::new(who.id.namespace(), who.id.name());
                let identity = Identity { device, public_key: who.facts.public_key_base64() };
                (who.id.to_string(), self.core.accept(&identity, files))
            }
            DevicePeer::Factory { id, facts } => {
                let chain = stream.presented();
                let identity = JoiningIdentity::Factory {
                    serial: id.serial().to_owned(),
                    device_name: id.device_name(),
                    key: KeyHash::of(&facts.public_key),
                    chain: chain.into(),
                };
                (id.to_string(), self.core.accept_joining(joining(&stream, peer, identity), files))
            }
            DevicePeer::SelfSigned(facts) => {
                let key = KeyHash::of(&facts.public_key);
                let client = joining(&stream, peer, JoiningIdentity::Token { key });
                (format!("the key sha256:{key}"), self.core.accept_joining(client, files))
            }
        };
        let (id, waker) = entered.ok_or_else(|| Refused::new(RefusalReason::Full, name))?;
        Ok(Entered::Device(device::Session { stream, id, waker }))
    }

    async fn handshake(&self, socket: TcpStream, place: &Place) -> Result<Authenticated, Refused> {
        socket
            .set_nodelay(true)
            .map_err(|error| Refused::new(RefusalReason::ConnectionLost, error.to_string()))?;
        let mut hello = Hello::read(socket).await.map_err(|error| broken(&error))?;
        place.hello_read();
        let Some(offered) = hello.offered.take() else {
            return Err(Refused::new(
                RefusalReason::NoAlpn,
                "the client offers no ALPN name; devices offer wasmbed/1",
            ));
        };
        let profile = Profile::select(offered.iter().map(Vec::as_slice));
        let wrong = |error: PeerError| Refused::new(RefusalReason::WrongIdentity, error.to_string());
        match profile {
            Some(Profile::Service) => {
                let port = self.certificates.services();
                let acceptor = TlsAcceptor::from(Arc::clone(port.config()));
                let stream = acceptor.accept(hello.replayed()).await.map_err(|error| broken(&error))?;
                let who = port.authenticate(stream.get_ref().1, &self.trust_domain).map_err(wrong)?;
                Ok(Authenticated::Service(Box::new(stream), who))
            }
            // Without a name of ours rustls refuses it, and tells the client why.
            Some(Profile::Device) | None => {
                let port = self.certificates.devices();
                let config = Arc::clone(port.config());
                let stream = DeviceTls::accept(hello.socket, config, &mut hello.received).await;
                if profile.is_none() {
                    let names: Vec<_> = offered.iter().map(|name| String::from_utf8_lossy(name)).collect();
                    return Err(Refused::new(
                        RefusalReason::WrongAlpn,
                        format!("the client offers {}", names.join(", ")),
                    ));
                }
                let stream = stream.map_err(|error| broken(&error))?;
                let who = port.authenticate(stream.state(), &self.trust_domain).map_err(wrong)?;
                Ok(Authenticated::Device(stream, who))
            }
        }
    }

    fn refuse(&self, peer: SocketAddr, refused: &Refused) {
        self.metrics.refused(refused.reason);
        if refused.foreign {
            self.foreign.note(peer.ip());
        }
        if self.refusals.may_log() {
            tracing::info!(%peer, reason = refused.reason.as_str(), error = refused.detail, "connection refused");
        }
    }
}

fn joining(stream: &DeviceTls, peer: SocketAddr, identity: JoiningIdentity) -> JoiningClient {
    let leaf = stream.state().peer_certificates().and_then(<[_]>::first);
    let certificate = CertificateHash::of(leaf.map_or(&[], AsRef::as_ref));
    JoiningClient { certificate, source: source(peer.ip()), identity }
}

fn broken(error: &io::Error) -> Refused {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(tls @ rustls::Error::NoCertificatesPresented) => {
            Refused::new(RefusalReason::NoCertificate, handshake_reason(tls))
        }
        Some(tls @ rustls::Error::InvalidCertificate(_)) => {
            let foreign = matches!(
                tls,
                rustls::Error::InvalidCertificate(
                    rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature
                )
            );
            Refused { foreign, ..Refused::new(RefusalReason::BadCertificate, handshake_reason(tls)) }
        }
        Some(tls) => Refused::new(RefusalReason::HandshakeFailed, handshake_reason(tls)),
        None => Refused::new(RefusalReason::ConnectionLost, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_follow_the_limit_on_open_files() {
        let limits = Limits::default();
        for files in [0, 8, 64, 192, 768, 3_840, 20_000, 1_000_000] {
            let (bounds, devices) = divide(files, &limits);
            let api = limits.api_connections_max.min(files / 8);
            assert_eq!(bounds.places + bounds.waiting + api + devices, files);
            assert!(devices * 2 >= files, "{devices} of {files}");
            assert!(bounds.places_of_source <= bounds.places.max(1));
        }
        let (bounds, _) = divide(20_000, &limits);
        assert_eq!((bounds.places, bounds.places_of_source), (2_048, 1_536));
        let (bounds, devices) = divide(768, &limits);
        assert_eq!((bounds.places, bounds.waiting, devices), (192, 96, 416));
    }
}
