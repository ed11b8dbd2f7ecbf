//! The way to a gateway: TCP with TLS 1.3 on it, both certificates checked.
//!
//! ```text
//!           +----------------- failed, closed by either side ------------------+
//!           v                                                                  |
//!   Down -connect-> Waiting (address) -> Resolving -> Opening (TCP, TLS) -> Up -close-> Closing
//! ```
//! Gateways are tried in the order of the identity, one in each attempt; the pause between attempts is the agent's.

use alloc::{boxed::Box, string::String, vec::Vec};

use smoltcp::{
    socket::{dns::QueryHandle, tcp},
    wire::IpAddress,
};
use wasmbed_agent::failover::Failover;
use wasmbed_supervisor::platform::{Link, LinkState};
use wasmbed_tls::{Gateway, Session, SessionState, TlsError};

use crate::{
    Hardware,
    address::{self, Host},
    console::line,
    identity::BoardIdentity,
    network::{Network, News},
};

/// For a lease, then for a name.
const ADDRESS_MS_MAX: u64 = 10_000;
/// For TCP and the handshake: two round trips and a few hundred milliseconds of a small processor's time.
const CONNECT_MS_MAX: u64 = 15_000;
/// For bytes that were taken to reach the network after [`Link::close`].
const CLOSE_MS_MAX: u64 = 1_000;
/// Pieces of a socket's buffer understood at once: it is a ring, so two are all of it.
const PIECES_PER_ROUND: usize = 2;

enum Phase {
    Down,
    Waiting {
        since_ms: u64,
    },
    Resolving {
        since_ms: u64,
        query: QueryHandle,
        port: u16,
    },
    /// The session begins when TCP is connected.
    Opening {
        since_ms: u64,
        session: Option<Box<Session>>,
        /// What the handshake took of the processor so far.
        worked_us: u64,
    },
    Up {
        since_ms: u64,
        session: Box<Session>,
    },
    Closing {
        since_ms: u64,
        session: Box<Session>,
    },
}

/// A [`Link`] over the board's network.
pub(crate) struct BoardLink<H: Hardware> {
    network: Network<H::Network>,
    /// What is presented, and what gateways are checked with.
    identity: BoardIdentity,
    gateways: Vec<String>,
    failover: Failover,
    phase: Phase,
    /// The session that ended, until what it received is read.
    rest: Option<Box<Session>>,
    /// The floor of the time that is to be stored.
    floor_s: Option<u64>,
}

impl<H: Hardware> BoardLink<H> {
    pub(crate) fn new(network: Network<H::Network>, identity: BoardIdentity, gateways: Vec<String>) -> Self {
        let failover = Failover::new(gateways.len());
        Self { network, identity, gateways, failover, phase: Phase::Down, rest: None, floor_s: None }
    }

    /// Who the board is from the next [`Link::connect`] on.
    pub(crate) fn identity(&mut self) -> &mut BoardIdentity {
        &mut self.identity
    }

    /// Moves the network on. True if there is more to do at once.
    pub(crate) fn poll_network(&mut self) -> bool {
        let (news, more) = self.network.poll(H::now_us());
        match news {
            Some(News::Address(address)) => line!(H, Info, "lease address={address}"),
            Some(News::NoAddress) => line!(H, Warn, "no lease"),
            None => {}
        }
        more
    }

    /// Sends what the round led to. Answers for how many microseconds nothing is due, at most `limit_us`.
    pub(crate) fn flush(&mut self, limit_us: u64) -> u64 {
        let now_us = H::now_us();
        self.network.flush(now_us);
        self.network.delay_us(now_us).map_or(limit_us, |delay| delay.min(limit_us))
    }

    /// Whether the board waits for something that only polling shows: an address, a handshake, an end.
    pub(crate) fn is_on_its_way(&self) -> bool {
        !matches!(self.phase, Phase::Down | Phase::Up { .. })
    }

    pub(crate) fn device(&mut self) -> &mut H::Network {
        self.network.device()
    }

    /// The gateway of the established connection has sent its time.
    pub(crate) fn handle_gateway_time(&mut self, unix_ms: u64, now_ms: u64) {
        if let Phase::Up { session, .. } = &self.phase
            && let Some(gateway) = session.peer()
        {
            self.identity.time.handle_gateway_time(unix_ms, now_ms, gateway);
        }
    }

    /// The floor of the time to be stored, if it rose.
    pub(crate) fn take_floor_s(&mut self) -> Option<u64> {
        self.floor_s.take()
    }

    fn gateway(&self) -> &str {
        self.gateways.get(self.failover.current()).map_or("", String::as_str)
    }

    /// The attempt is over; the next one goes to the next gateway.
    fn failed(&mut self, problem: core::fmt::Arguments<'_>) {
        line!(H, Warn, "gateway not reached gateway={} reason=\"{problem}\"", self.gateway());
        self.network.tcp().abort();
        self.phase = Phase::Down;
        self.failover.handle_unreached();
    }

    /// An established connection has ended.
    fn ended(&mut self, now_ms: u64) {
        match core::mem::replace(&mut self.phase, Phase::Down) {
            Phase::Up { since_ms, session } => {
                match session.failure() {
                    Some(failure) => {
                        line!(H, Warn, "connection ended gateway={} reason=\"{failure}\"", self.gateway());
                    }
                    None => line!(H, Info, "connection ended gateway={}", self.gateway()),
                }
                self.failover.handle_ended(now_ms.saturating_sub(since_ms));
                self.network.tcp().close();
                self.rest = Some(session);
            }
            other => self.phase = other,
        }
    }

    fn advance_waiting(&mut self, since_ms: u64, now_ms: u64) {
        if !self.network.has_address() {
            if now_ms.saturating_sub(since_ms) >= ADDRESS_MS_MAX {
                self.failed(format_args!("this board has no address"));
            }
            return;
        }
        let gateway = self.gateways.get(self.failover.current()).map_or("", String::as_str);
        match address::parse(gateway) {
            None => self.failed(format_args!("it is not host:port with an IPv4 address or a name")),
            Some((Host::Address(address), port)) => self.open(IpAddress::Ipv4(address), port, now_ms),
            Some((Host::Name(name), port)) => match self.network.resolve(name) {
                Ok(query) => self.phase = Phase::Resolving { since_ms: now_ms, query, port },
                Err(problem) => self.failed(format_args!("{problem}")),
            },
        }
    }

    fn advance_resolving(&mut self, since_ms: u64, query: QueryHandle, port: u16, now_ms: u64) {
        match self.network.resolved(query) {
            Some(Ok(address)) => self.open(address, port, now_ms),
            Some(Err(problem)) => self.failed(format_args!("{problem}")),
            None if now_ms.saturating_sub(since_ms) >= ADDRESS_MS_MAX => {
                self.network.forget(query);
                self.failed(format_args!("the name was not looked up in time"));
            }
            None => {}
        }
    }

    fn open(&mut self, address: IpAddress, port: u16, now_ms: u64) {
        match self.network.connect(address, port) {
            Ok(()) => self.phase = Phase::Opening { since_ms: now_ms, session: None, worked_us: 0 },
            Err(problem) => self.failed(format_args!("{problem}")),
        }
    }

    fn advance_opening(&mut self, now_ms: u64) {
        let Phase::Opening { since_ms, session, worked_us } =
            core::mem::replace(&mut self.phase, Phase::Down)
        else {
            debug_assert!(false, "called in this phase only");
            return;
        };
        let begun_us = H::now_us();
        let late = now_ms.saturating_sub(since_ms) >= CONNECT_MS_MAX;
        let socket = self.network.tcp();
        let mut session = match session {
            Some(session) => session,
            None if socket.may_send() => match self.begin() {
                Ok(session) => session,
                Err(error) => return self.failed(format_args!("{error}")),
            },
            None if !socket.is_open() => return self.failed(format_args!("it does not answer, or refuses")),
            None if late => return self.failed(format_args!("no answer within {CONNECT_MS_MAX} ms")),
            None => {
                self.phase = Phase::Opening { since_ms, session: None, worked_us };
                return;
            }
        };
        pump(&mut session, self.network.tcp());
        let worked_us = worked_us.saturating_add(H::now_us().saturating_sub(begun_us));
        match session.state() {
            SessionState::Up => self.opened(session, now_ms, worked_us),
            SessionState::Handshaking if !self.network.tcp().may_recv() => {
                self.failed(format_args!("it ended the connection during the handshake"));
            }
            SessionState::Handshaking if late => {
                self.failed(format_args!("no handshake within {CONNECT_MS_MAX} ms"));
            }
            SessionState::Handshaking => {
                self.phase = Phase::Opening { since_ms, session: Some(session), worked_us };
            }
            SessionState::Closed => {
                let failure = session.failure().cloned();
                // The alert that names the reason is sent first.
                self.network.flush(H::now_us());
                match failure {
                    Some(failure) => self.failed(format_args!("{failure}")),
                    None => self.failed(format_args!("it ended the connection during the handshake")),
                }
            }
        }
    }

    // Not a part of its caller, below whose frame the handshake is: a session is kilobytes.
    #[inline(never)]
    fn begin(&mut self) -> Result<Box<Session>, TlsError> {
        self.identity.connect().map(Box::new)
    }

    fn opened(&mut self, session: Box<Session>, now_ms: u64, worked_us: u64) {
        if let Some(gateway) = session.peer() {
            let Gateway { id, anchor, .. } = gateway;
            let gateway_name = self.gateway();
            line!(
                H,
                Info,
                "connected gateway={gateway_name} id={id} anchor={anchor} handshake_us={worked_us}"
            );
            self.floor_s = self.identity.time.handle_verified(gateway).or(self.floor_s);
        }
        self.phase = Phase::Up { since_ms: now_ms, session };
    }

    fn advance_up(&mut self, now_ms: u64) {
        let Phase::Up { session, .. } = &mut self.phase else {
            debug_assert!(false, "called in this phase only");
            return;
        };
        let socket = self.network.tcp();
        pump(session, socket);
        if session.state() == SessionState::Closed || !socket.is_active() {
            self.ended(now_ms);
        }
    }

    fn advance_closing(&mut self, now_ms: u64) {
        let Phase::Closing { since_ms, session } = &mut self.phase else {
            debug_assert!(false, "called in this phase only");
            return;
        };
        let late = now_ms.saturating_sub(*since_ms) >= CLOSE_MS_MAX;
        let socket = self.network.tcp();
        transmit(session, socket);
        if !session.wants_transmit() {
            socket.close();
        }
        let gone = match socket.state() {
            tcp::State::Closed | tcp::State::TimeWait | tcp::State::FinWait2 => true,
            _ => socket.send_queue() == 0 && !session.wants_transmit(),
        };
        if gone || late {
            self.phase = Phase::Down;
        }
    }
}

impl<H: Hardware> Link for BoardLink<H> {
    fn state(&mut self) -> LinkState {
        let now_ms = H::now_us() / 1_000;
        match self.phase {
            Phase::Down => {}
            Phase::Waiting { since_ms } => self.advance_waiting(since_ms, now_ms),
            Phase::Resolving { since_ms, query, port } => {
                self.advance_resolving(since_ms, query, port, now_ms);
            }
            Phase::Opening { .. } => self.advance_opening(now_ms),
            Phase::Up { .. } => self.advance_up(now_ms),
            Phase::Closing { .. } => self.advance_closing(now_ms),
        }
        match self.phase {
            Phase::Down => LinkState::Down,
            Phase::Waiting { .. }
            | Phase::Resolving { .. }
            | Phase::Opening { .. }
            | Phase::Closing { .. } => LinkState::Connecting,
            Phase::Up { .. } => LinkState::Up,
        }
    }

    fn connect(&mut self) {
        if matches!(self.phase, Phase::Down) {
            self.rest = None;
            self.phase = Phase::Waiting { since_ms: H::now_us() / 1_000 };
        }
    }

    fn close(&mut self) {
        self.rest = None;
        match core::mem::replace(&mut self.phase, Phase::Down) {
            Phase::Up { since_ms, mut session } => {
                let now_ms = H::now_us() / 1_000;
                self.failover.handle_ended(now_ms.saturating_sub(since_ms));
                session.close();
                self.phase = Phase::Closing { since_ms: now_ms, session };
                self.advance_closing(now_ms);
            }
            closing @ Phase::Closing { .. } => self.phase = closing,
            Phase::Resolving { query, .. } => self.network.forget(query),
            Phase::Opening { .. } => self.network.tcp().abort(),
            Phase::Down | Phase::Waiting { .. } => {}
        }
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        let Phase::Up { session, .. } = &mut self.phase else { return 0 };
        let taken = session.send(bytes);
        transmit(session, self.network.tcp());
        taken
    }

    fn recv(&mut self, buffer: &mut [u8]) -> usize {
        if let Phase::Up { session, .. } = &mut self.phase {
            let read = session.recv(buffer);
            if read > 0 || !pump(session, self.network.tcp()) {
                return read;
            }
            return session.recv(buffer);
        }
        let Some(session) = &mut self.rest else { return 0 };
        let read = session.recv(buffer);
        if read == 0 {
            self.rest = None;
        }
        read
    }
}

/// Moves bytes between the session and the socket, both ways. True if the session understood some.
fn pump(session: &mut Session, socket: &mut tcp::Socket<'_>) -> bool {
    transmit(session, socket);
    let mut understood = false;
    for _ in 0..PIECES_PER_ROUND {
        if !socket.can_recv() {
            break;
        }
        // What is wrong with the bytes is kept in the session.
        let taken = socket.recv(|bytes| {
            let taken = session.receive(bytes).unwrap_or(bytes.len());
            (taken, taken)
        });
        match taken {
            Ok(0) | Err(_) => break,
            Ok(_) => understood = true,
        }
    }
    transmit(session, socket);
    understood
}

fn transmit(session: &mut Session, socket: &mut tcp::Socket<'_>) {
    // A socket that takes nothing shows its end by its state.
    session.transmit(&mut |bytes| socket.send_slice(bytes).unwrap_or(0));
}
