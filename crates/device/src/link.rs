//! The way to a gateway: a non-blocking socket with TLS 1.3 on it, both certificates checked.
//!
//! ```text
//!           +--------------- failed, closed by either side ----------------+
//!           v                                                              |
//!   Down -connect-> Resolving -> Opening (TCP, then TLS; address by address) -> Up -close-> Closing
//! ```
//! Gateways are tried in the order of the configuration, one in each attempt; the pause between attempts is the agent's.

use std::{
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
    vec,
};

use mio::{Interest, Registry, Token, net::TcpStream};
use rustls::ClientConnection;
use wasmbed_agent::failover::Failover;
use wasmbed_pki::tls::{Profile, authenticate_gateway, handshake_reason, server_name};
use wasmbed_supervisor::platform::{Link, LinkState};

use crate::{counters::Counters, identity::Presence, resolve::Resolver};

/// A name that takes longer is as good as unknown.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// For bytes that were taken to reach the network after [`Link::close`].
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// What TLS holds of bytes on their way out: four frames.
const SEND_BUFFER_BYTES: usize = 16_384;

/// What the links of a device's loop share, and who the device is.
pub(crate) struct LinkConfig {
    pub(crate) device: usize,
    pub(crate) token: Token,
    pub(crate) registry: Rc<Registry>,
    pub(crate) resolver: Resolver,
    pub(crate) presence: Presence,
    pub(crate) trust_domain: Arc<str>,
    /// `host:port`, at least one.
    pub(crate) gateways: Arc<[String]>,
    /// TCP connection and handshake with one address.
    pub(crate) connect_timeout: Duration,
    pub(crate) counters: Arc<Counters>,
}

struct Connection {
    stream: TcpStream,
    tls: ClientConnection,
    since: Instant,
    /// The gateway has said something: it took this device's certificate.
    heard: bool,
}

/// Why nothing more comes from a gateway.
enum End {
    /// It closed the connection, or the network did.
    Closed(String),
    /// TLS says no; most of all the gateway's alert, which comes after the device's side of the handshake is done.
    Refused(String),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Closed(error.to_string())
    }
}

impl End {
    fn into_text(self) -> String {
        match self {
            Self::Closed(problem) | Self::Refused(problem) => problem,
        }
    }
}

enum Phase {
    Down,
    Resolving {
        since: Instant,
    },
    Opening {
        connection: Box<Connection>,
        connected: bool,
        address: SocketAddr,
        others: vec::IntoIter<SocketAddr>,
    },
    Up {
        connection: Box<Connection>,
    },
    Closing {
        connection: Box<Connection>,
    },
}

/// A [`Link`] over TCP.
pub(crate) struct TlsLink {
    config: LinkConfig,
    phase: Phase,
    /// Which gateway the next attempt goes to.
    failover: Failover,
    /// Received before the connection ended, at most what TLS buffers.
    rest: Vec<u8>,
    /// What [`Link::state`] last answered.
    told: LinkState,
}

impl TlsLink {
    pub(crate) fn new(config: LinkConfig) -> Self {
        let failover = Failover::new(config.gateways.len());
        Self { config, phase: Phase::Down, failover, rest: Vec::new(), told: LinkState::Down }
    }

    /// When the link has to be moved on although nothing was heard.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Down | Phase::Up { .. } => None,
            Phase::Resolving { since } => Some(*since + RESOLVE_TIMEOUT),
            Phase::Opening { connection, .. } => Some(connection.since + self.config.connect_timeout),
            Phase::Closing { connection } => Some(connection.since + CLOSE_TIMEOUT),
        }
    }

    /// Whether the link is somewhere else than it last said: no socket will tell of that a second time.
    pub(crate) fn has_news(&self) -> bool {
        self.current() != self.told
    }

    fn current(&self) -> LinkState {
        match self.phase {
            Phase::Down => LinkState::Down,
            Phase::Resolving { .. } | Phase::Opening { .. } | Phase::Closing { .. } => LinkState::Connecting,
            Phase::Up { .. } => LinkState::Up,
        }
    }

    /// Takes the answer to a lookup.
    pub(crate) fn resolved(&mut self, addresses: io::Result<Vec<SocketAddr>>) {
        if matches!(self.phase, Phase::Resolving { .. }) {
            match addresses {
                Ok(addresses) => self.open(addresses.into_iter(), "the name has no address".into()),
                Err(error) => self.failed(&format!("the name was not found: {error}")),
            }
        }
    }

    fn gateway(&self) -> &str {
        self.config.gateways.get(self.failover.current()).map_or("", String::as_str)
    }

    /// Begins with the next address; `problem` is what to say if there is none.
    fn open(&mut self, mut addresses: vec::IntoIter<SocketAddr>, problem: String) {
        let mut problem = problem;
        while let Some(address) = addresses.next() {
            match self.begin(address) {
                Ok(connection) => {
                    let connection = Box::new(connection);
                    self.phase = Phase::Opening { connection, connected: false, address, others: addresses };
                    return;
                }
                Err(error) => problem = format!("{address}: {error}"),
            }
        }
        self.failed(&problem);
    }

    fn begin(&self, address: SocketAddr) -> io::Result<Connection> {
        let mut stream = TcpStream::connect(address)?;
        self.config.registry.register(
            &mut stream,
            self.config.token,
            Interest::READABLE | Interest::WRITABLE,
        )?;
        // The loop gives something to present before it connects.
        let config = self.config.presence.tls().ok_or(io::ErrorKind::NotConnected)?;
        let tls = ClientConnection::new(config, server_name());
        let mut tls = tls.map_err(io::Error::other)?;
        tls.set_buffer_limit(Some(SEND_BUFFER_BYTES));
        Ok(Connection { stream, tls, since: Instant::now(), heard: false })
    }

    /// The attempt is over; the next one goes to the next gateway.
    fn failed(&mut self, problem: &str) {
        tracing::debug!(gateway = self.gateway(), problem, "gateway not reached");
        self.config.counters.failed(&format!("{}: {problem}", self.gateway()));
        self.phase = Phase::Down;
        self.failover.handle_unreached();
    }

    /// A connection that stood has ended; what it brought may still be read.
    fn ended(&mut self, end: End) {
        let Phase::Up { mut connection } = std::mem::replace(&mut self.phase, Phase::Down) else {
            debug_assert!(false, "only an established connection ends so");
            return;
        };
        let end = match end {
            // The gateway's alert may lie behind a write that failed.
            End::Closed(problem) if !connection.heard => match connection.fill() {
                Err(refused @ End::Refused(_)) => refused,
                Ok(_) | Err(End::Closed(_)) => End::Closed(problem),
            },
            other => other,
        };
        match &end {
            End::Refused(problem) => self.config.counters.refused(self.gateway(), problem),
            End::Closed(_) if !connection.heard => {
                let problem = "it closed the connection before it said anything; its log says why";
                self.config.counters.refused(self.gateway(), problem);
            }
            End::Closed(_) => {}
        }
        let problem = end.into_text();
        let mut rest = Vec::new();
        // An error here is the end that is being dealt with.
        let _ = connection.tls.reader().read_to_end(&mut rest);
        self.rest = rest;
        self.config.counters.down();
        tracing::debug!(gateway = self.gateway(), problem, "connection to the gateway ended");
        self.failover.handle_ended(stood_ms(&connection));
    }

    fn advance_opening(&mut self) {
        let Phase::Opening { mut connection, mut connected, address, others } =
            std::mem::replace(&mut self.phase, Phase::Down)
        else {
            debug_assert!(false, "only what is being opened is opened further");
            return;
        };
        match connection.advance_handshake(&mut connected) {
            Ok(true) => self.opened(connection),
            Ok(false) if connection.since.elapsed() < self.config.connect_timeout => {
                self.phase = Phase::Opening { connection, connected, address, others };
            }
            Ok(false) => {
                let what = if connected { "no handshake" } else { "no answer" };
                self.open(others, format!("{address}: {what} within {:?}", self.config.connect_timeout));
            }
            Err(end) => self.open(others, format!("{address}: {}", end.into_text())),
        }
    }

    fn opened(&mut self, mut connection: Box<Connection>) {
        match authenticate_gateway(Profile::Device, &connection.tls, &self.config.trust_domain) {
            Ok(peer) => {
                tracing::debug!(gateway = %peer.id, "connected");
                connection.since = Instant::now();
                self.rest.clear();
                self.config.counters.up();
                self.phase = Phase::Up { connection };
            }
            Err(error) => self.failed(&error.to_string()),
        }
    }

    fn advance_closing(&mut self) {
        let Phase::Closing { connection } = &mut self.phase else {
            debug_assert!(false, "only what is being closed is closed further");
            return;
        };
        let flushed = connection.flush();
        if flushed.is_err() || !connection.tls.wants_write() || connection.since.elapsed() >= CLOSE_TIMEOUT {
            self.phase = Phase::Down;
        }
    }
}

impl Connection {
    /// Whether the handshake is done.
    fn advance_handshake(&mut self, connected: &mut bool) -> Result<bool, End> {
        if !*connected {
            if let Some(error) = self.stream.take_error()? {
                return Err(error.into());
            }
            match self.stream.peer_addr() {
                Ok(_) => *connected = true,
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
                Err(error) => return Err(error.into()),
            }
            // A device sends small frames and waits for small answers.
            self.stream.set_nodelay(true)?;
        }
        self.flush()?;
        while self.tls.is_handshaking() && self.fill()? {
            self.flush()?;
        }
        Ok(!self.tls.is_handshaking())
    }

    /// Gives TLS's bytes to the network until one of them has no more room.
    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives the network's bytes to TLS; false when there are none now.
    fn fill(&mut self) -> Result<bool, End> {
        match self.tls.read_tls(&mut self.stream) {
            Ok(0) => Err(End::Closed("the gateway closed the connection".into())),
            Ok(_) => match self.tls.process_new_packets() {
                Ok(_) => Ok(true),
                Err(error) => {
                    // The alert that tells the gateway; the connection ends either way.
                    let _ = self.flush();
                    Err(End::Refused(handshake_reason(&error)))
                }
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what has arrived; 0 when nothing has.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, End> {
        loop {
            match self.tls.reader().read(buffer) {
                Ok(0) => return Err(End::Closed("the gateway closed the connection".into())),
                Ok(length) => {
                    self.heard = true;
                    return Ok(length);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if !self.fill()? {
                return Ok(0);
            }
        }
    }
}

fn stood_ms(connection: &Connection) -> u64 {
    u64::try_from(connection.since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Link for TlsLink {
    fn state(&mut self) -> LinkState {
        match &mut self.phase {
            Phase::Down => {}
            Phase::Resolving { since } => {
                if since.elapsed() >= RESOLVE_TIMEOUT {
                    self.failed("the name was not looked up in time");
                }
            }
            Phase::Opening { .. } => self.advance_opening(),
            Phase::Up { connection } => {
                if let Err(error) = connection.flush() {
                    self.ended(End::Closed(error.to_string()));
                }
            }
            Phase::Closing { .. } => self.advance_closing(),
        }
        self.told = self.current();
        self.told
    }

    fn connect(&mut self) {
        if !matches!(self.phase, Phase::Down) {
            return;
        }
        self.rest.clear();
        self.phase = Phase::Resolving { since: Instant::now() };
        match self.config.resolver.resolve(self.config.device, self.gateway()) {
            Ok(Some(addresses)) => self.resolved(Ok(addresses)),
            Ok(None) => {}
            Err(error) => self.resolved(Err(error)),
        }
    }

    fn close(&mut self) {
        self.rest.clear();
        match std::mem::replace(&mut self.phase, Phase::Down) {
            Phase::Up { mut connection } => {
                self.config.counters.down();
                self.failover.handle_ended(stood_ms(&connection));
                connection.tls.send_close_notify();
                connection.since = Instant::now();
                self.phase = Phase::Closing { connection };
                self.advance_closing();
            }
            closing @ Phase::Closing { .. } => self.phase = closing,
            Phase::Down | Phase::Resolving { .. } | Phase::Opening { .. } => {}
        }
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        let Phase::Up { connection } = &mut self.phase else {
            return 0;
        };
        // What does not fit into TLS's buffer is not taken.
        let taken = connection.tls.writer().write(bytes).unwrap_or(0);
        if let Err(error) = connection.flush() {
            self.ended(End::Closed(error.to_string()));
        }
        taken
    }

    fn recv(&mut self, buffer: &mut [u8]) -> usize {
        if let Phase::Up { connection } = &mut self.phase {
            match connection.read(buffer) {
                Ok(length) => return length,
                Err(end) => self.ended(end),
            }
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest[..length]);
        self.rest.drain(..length);
        length
    }
}
