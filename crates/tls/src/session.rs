//! One connection: bytes of the network on one side, plain bytes on the other.

use alloc::{sync::Arc, vec::Vec};
use core::fmt;

use rustls::{
    ClientConfig,
    client::UnbufferedClientConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus},
};
use rustls_pki_types::{IpAddr, Ipv4Addr, ServerName};
use wasmbed_identity::Alert;

use crate::{
    credentials::Own,
    error::{Misbehavior, TlsError},
    peer::Gateway,
    verifier::Verifier,
};

/// The name of the device protocol.
pub(crate) const ALPN: &[u8] = b"wasmbed/1";
/// Plain bytes of one record, in either direction: a frame of the device protocol.
pub const PLAIN_BYTES_MAX: usize = 4_096;
/// One record on the network: header, plain bytes, content type, tag.
pub const RECORD_BYTES_MAX: usize = PLAIN_BYTES_MAX + RECORD_OVERHEAD_BYTES;
const RECORD_OVERHEAD_BYTES: usize = 5 + 1 + 16;
/// What may wait of the gateway's part of the handshake, which stays in one piece until a message is whole. A record of
/// RFC 8446 is no longer.
const HANDSHAKE_BYTES_MAX: usize = 5 + 16_384 + 256;
/// Where the buffer for it begins: Wasmbed's own gateways send less than this.
const HANDSHAKE_BYTES_FIRST: usize = 2_048;
/// With as much as this waiting to be transmitted no more is read: what the peer sends may demand answers.
const OUTGOING_BYTES_MAX: usize = 2 * RECORD_BYTES_MAX;

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// The gateway is not verified yet.
    Handshaking,
    /// Both sides are authenticated.
    Up,
    /// It ended, for the reason in [`Session::failure`] or without one. Plain bytes may be left to receive, and bytes to
    /// transmit that tell the gateway.
    Closed,
}

/// A connection to one gateway. The caller moves bytes; nothing here waits.
pub struct Session {
    connection: UnbufferedClientConnection,
    verifier: Arc<Verifier>,
    own: Arc<Own>,
    state: SessionState,
    was_up: bool,
    failure: Option<TlsError>,
    /// From the network, not understood yet.
    incoming: Vec<u8>,
    /// For the network, from `transmitted` on.
    outgoing: Vec<u8>,
    transmitted: usize,
    /// For the application, from `taken` on.
    plain: Vec<u8>,
    taken: usize,
}

/// What a step of rustls came to.
enum Step {
    Again,
    Wait,
    /// Plain bytes may be written, and were if there were any.
    Ready,
    Ended,
}

/// What is written once rustls is ready.
#[derive(Clone, Copy)]
enum Write<'a> {
    Nothing,
    Plain(&'a [u8]),
    Close,
}

impl Session {
    pub(crate) fn new(
        config: Arc<ClientConfig>,
        verifier: Arc<Verifier>,
        own: Arc<Own>,
    ) -> Result<Self, TlsError> {
        // Gateways are known by id: no name is sent or checked.
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([127, 0, 0, 1])));
        let connection =
            UnbufferedClientConnection::new(config, name).map_err(|error| TlsError::from_rustls(&error))?;
        let mut session = Self {
            connection,
            verifier,
            own,
            state: SessionState::Handshaking,
            was_up: false,
            failure: None,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            transmitted: 0,
            plain: Vec::new(),
            taken: 0,
        };
        session.advance()?;
        Ok(session)
    }

    /// How far the session is.
    #[must_use]
    pub fn state(&self) -> SessionState {
        self.state
    }

    /// Why it is closed, if it did not close in order.
    #[must_use]
    pub fn failure(&self) -> Option<&TlsError> {
        self.failure.as_ref()
    }

    /// The gateway, once the session was up.
    #[must_use]
    pub fn peer(&self) -> Option<&Gateway> {
        if self.was_up { self.verifier.verdict()?.as_ref().ok() } else { None }
    }

    /// Takes bytes from the network and returns how many. It takes none while plain bytes wait for [`recv`](Self::recv), or
    /// too much waits for [`transmit`](Self::transmit).
    ///
    /// # Errors
    /// Why the session is closed; transmit what is left, which tells the gateway too.
    pub fn receive(&mut self, mut from_network: &[u8]) -> Result<usize, TlsError> {
        let offered = from_network.len();
        // What came before may have waited for `recv` or `transmit`.
        self.advance()?;
        while !from_network.is_empty() && self.may_read() {
            let room = self.room();
            if room == 0 {
                let bytes_max = self.incoming_bytes_max();
                return Err(self.fail(Misbehavior::TooLarge { bytes_max }.into()));
            }
            let (now, later) = from_network.split_at(room.min(from_network.len()));
            self.incoming.extend_from_slice(now);
            from_network = later;
            self.advance()?;
        }
        match (&self.failure, self.state) {
            (Some(failure), _) => Err(failure.clone()),
            // After the end there is nothing to understand.
            (None, SessionState::Closed) => Ok(offered),
            (None, _) => Ok(offered - from_network.len()),
        }
    }

    /// Hands bytes for the network to `send`, which returns how many it took, until it takes none or there are no more.
    /// Returns how many it took in all.
    pub fn transmit(&mut self, send: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        let mut total = 0;
        loop {
            let waiting = self.outgoing.get(self.transmitted..).unwrap_or_default();
            if waiting.is_empty() {
                break;
            }
            let sent = send(waiting).min(waiting.len());
            self.transmitted += sent;
            total += sent;
            if sent == 0 {
                return total;
            }
        }
        self.outgoing.clear();
        self.transmitted = 0;
        if total > 0 {
            // Reading may have waited for this. A failure is kept and shown by `receive` and `failure`.
            let _ = self.advance();
        }
        total
    }

    /// Whether bytes wait for the network.
    #[must_use]
    pub fn wants_transmit(&self) -> bool {
        self.transmitted < self.outgoing.len()
    }

    /// Encrypts plain bytes and returns how many: at most one record, none unless the session is up and what was encrypted
    /// before was transmitted.
    pub fn send(&mut self, plain: &[u8]) -> usize {
        if self.state != SessionState::Up || self.wants_transmit() || plain.is_empty() {
            return 0;
        }
        let plain = &plain[..plain.len().min(PLAIN_BYTES_MAX)];
        if self.write(Write::Plain(plain)) { plain.len() } else { 0 }
    }

    /// Moves decrypted bytes to the application and returns how many; none means that more must be received first.
    pub fn recv(&mut self, into: &mut [u8]) -> usize {
        let mut total = 0;
        while total < into.len() {
            let waiting = self.plain.get(self.taken..).unwrap_or_default();
            if waiting.is_empty() {
                self.plain.clear();
                self.taken = 0;
                if self.incoming.is_empty() || self.advance().is_err() || self.plain.is_empty() {
                    break;
                }
                continue;
            }
            let count = waiting.len().min(into.len() - total);
            into[total..total + count].copy_from_slice(&waiting[..count]);
            self.taken += count;
            total += count;
        }
        if self.taken == self.plain.len() {
            self.plain.clear();
            self.taken = 0;
        }
        total
    }

    /// Closes in order: what waits to be transmitted then ends with close_notify.
    pub fn close(&mut self) {
        if self.state == SessionState::Up {
            self.write(Write::Close);
        }
        self.state = SessionState::Closed;
    }

    fn may_read(&self) -> bool {
        self.state != SessionState::Closed
            && self.plain.is_empty()
            && self.outgoing.len() - self.transmitted < OUTGOING_BYTES_MAX
    }

    fn incoming_bytes_max(&self) -> usize {
        match self.state {
            SessionState::Handshaking => HANDSHAKE_BYTES_MAX,
            SessionState::Up | SessionState::Closed => RECORD_BYTES_MAX,
        }
    }

    /// Free bytes of the incoming buffer, which grows while the handshake needs it.
    fn room(&mut self) -> usize {
        let bytes_max = self.incoming_bytes_max();
        if self.incoming.len() == self.incoming.capacity() && self.incoming.len() < bytes_max {
            let wanted = match self.state {
                SessionState::Handshaking => {
                    (2 * self.incoming.len()).clamp(HANDSHAKE_BYTES_FIRST, bytes_max)
                }
                SessionState::Up | SessionState::Closed => bytes_max,
            };
            self.incoming.reserve_exact(wanted - self.incoming.len());
        }
        self.incoming.capacity().min(bytes_max).saturating_sub(self.incoming.len())
    }

    /// Lets rustls do all that it can with what there is.
    fn advance(&mut self) -> Result<(), TlsError> {
        while self.may_read() {
            match self.step(Write::Nothing) {
                // Plain bytes may come right behind the handshake, before there is anything to write.
                Ok(Step::Again) if self.state == SessionState::Handshaking && !self.plain.is_empty() => {
                    self.come_up()?;
                }
                Ok(Step::Again) => {}
                Ok(Step::Wait) => return Ok(()),
                Ok(Step::Ready) => {
                    if self.state == SessionState::Up {
                        return Ok(());
                    }
                    self.come_up()?;
                }
                Ok(Step::Ended) if self.state == SessionState::Handshaking => {
                    return Err(self.fail(TlsError::PeerAlert(Alert::CLOSE_NOTIFY)));
                }
                Ok(Step::Ended) => self.close(),
                Err(error) => return Err(self.fail(error)),
            }
        }
        Ok(())
    }

    /// Writes once rustls is ready, which may give plain bytes before.
    fn write(&mut self, what: Write<'_>) -> bool {
        loop {
            match self.step(what) {
                Ok(Step::Again | Step::Ended) => {}
                Ok(Step::Ready) => return true,
                Ok(Step::Wait) => return false,
                Err(error) => {
                    self.fail(error);
                    return false;
                }
            }
        }
    }

    fn step(&mut self, write: Write<'_>) -> Result<Step, TlsError> {
        let UnbufferedStatus { discard, state, .. } = self.connection.process_tls_records(&mut self.incoming);
        let step = match state {
            Err(error) => Err(self.verifier.reason(&error)),
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let mut step = Ok(Step::Again);
                while let Some(Ok(record)) = traffic.next_record() {
                    if record.payload.len() > PLAIN_BYTES_MAX {
                        step = Err(Misbehavior::TooLarge { bytes_max: PLAIN_BYTES_MAX }.into());
                        break;
                    }
                    self.plain.reserve_exact(record.payload.len());
                    self.plain.extend_from_slice(record.payload);
                }
                step
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                append(&mut self.outgoing, |room| data.encode(room).map_err(encode_size))?;
                Ok(Step::Again)
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                // The bytes are in our own buffer, in order.
                data.done();
                Ok(Step::Again)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Step::Wait),
            Ok(ConnectionState::WriteTraffic(mut traffic)) => match write {
                Write::Nothing => Ok(()),
                Write::Plain(plain) => {
                    append(&mut self.outgoing, |room| traffic.encrypt(plain, room).map_err(encrypt_size))
                }
                Write::Close => {
                    append(&mut self.outgoing, |room| traffic.queue_close_notify(room).map_err(encrypt_size))
                }
            }
            .map(|()| Step::Ready),
            Ok(ConnectionState::PeerClosed) => Ok(Step::Ended),
            Ok(ConnectionState::Closed) => Ok(Step::Wait),
            Ok(_) => Err(TlsError::Bug("a state that a client does not have")),
        };
        self.incoming.drain(..discard.min(self.incoming.len()));
        step
    }

    /// The handshake is over: what rustls does not ask is asked here.
    fn come_up(&mut self) -> Result<(), TlsError> {
        let failure = match self.verifier.verdict() {
            Some(Ok(_)) if self.connection.alpn_protocol() != Some(ALPN) => Misbehavior::Alpn.into(),
            Some(Ok(_)) if !self.own.was_asked() => Misbehavior::NoClientAuthentication.into(),
            Some(Ok(_)) => {
                self.state = SessionState::Up;
                self.was_up = true;
                // The handshake's memory goes back; from here on one record at a time is enough.
                self.incoming.shrink_to(RECORD_BYTES_MAX);
                return Ok(());
            }
            Some(Err(refusal)) => refusal.clone().into(),
            None => TlsError::Bug("a handshake without a certificate"),
        };
        self.write(Write::Close);
        Err(self.fail(failure))
    }

    /// Closes for a reason; the first one stays.
    fn fail(&mut self, failure: TlsError) -> TlsError {
        // Alerts first: nothing but what waits to be sent is taken from rustls, which may be in the middle of a message.
        while self.connection.wants_write() {
            let UnbufferedStatus { state: Ok(ConnectionState::EncodeTlsData(mut data)), .. } =
                self.connection.process_tls_records(&mut [])
            else {
                break;
            };
            if append(&mut self.outgoing, |room| data.encode(room).map_err(encode_size)).is_err() {
                break;
            }
        }
        self.state = SessionState::Closed;
        self.incoming = Vec::new();
        if !self.was_up {
            // The peer was never authenticated.
            self.plain = Vec::new();
        }
        self.failure.get_or_insert(failure).clone()
    }
}

/// How many bytes are missing; none if there is another problem.
fn encode_size(error: EncodeError) -> Option<usize> {
    match error {
        EncodeError::InsufficientSize(size) => Some(size.required_size),
        EncodeError::AlreadyEncoded => None,
    }
}

fn encrypt_size(error: EncryptError) -> Option<usize> {
    match error {
        EncryptError::InsufficientSize(size) => Some(size.required_size),
        EncryptError::EncryptExhausted => None,
    }
}

/// Appends what `fill` writes, which is asked for its size first.
fn append(
    outgoing: &mut Vec<u8>,
    mut fill: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Result<(), TlsError> {
    let start = outgoing.len();
    let mut answer = fill(&mut []);
    if let Err(Some(size)) = answer {
        outgoing.reserve_exact(size);
        outgoing.resize(start + size, 0);
        answer = fill(&mut outgoing[start..]);
    }
    outgoing.truncate(start + answer.unwrap_or(0));
    match answer {
        Ok(_) => Ok(()),
        Err(_) => Err(TlsError::Bug("a record could not be written")),
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("state", &self.state)
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}
