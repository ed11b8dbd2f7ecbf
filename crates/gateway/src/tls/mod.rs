//! TLS of a device's connection, without buffers of its own.
//!
//! rustls does the protocol: records, alerts, key updates, closing. Bytes pass through scratch areas that the connections of
//! a thread share, so an idle connection holds its keys and state only: no buffer to read into, none to write from. What a
//! connection does keep is a record that has not arrived in full and what its socket did not take; both have a bound.

use std::{cell::RefCell, io, sync::Arc};

use rustls::{
    CommonState, Error, ServerConfig,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{
        ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
    },
};
use tokio::net::TcpStream;

/// Bytes kept of what has arrived and can't be used yet: one record of the largest size (RFC 8446 section 5.2: 16,384 + 256,
/// and a head of 5), or a chain of certificates in several.
const RECEIVED_BYTES_MAX: usize = 18 * 1024;
/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

thread_local! {
    static INCOMING: RefCell<Box<[u8]>> = RefCell::new(vec![0; RECEIVED_BYTES_MAX + READ_BYTES].into());
    static OUTGOING: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Something, perhaps nothing that could be used yet.
    Some,
    /// The peer's last words.
    Closed,
}

/// A connection with TLS, handshake included.
pub(crate) struct DeviceTls {
    socket: TcpStream,
    tls: UnbufferedServerConnection,
    /// Arrived, not used yet.
    received: Vec<u8>,
    /// Encrypted, not taken by the socket.
    unsent: Vec<u8>,
    /// What the peer said in one go with the end of its handshake.
    early: Vec<u8>,
    /// The peer has said its last words.
    closed: bool,
}

type Traffic<'a> = WriteTraffic<'a, ServerConnectionData>;

impl DeviceTls {
    /// Does the handshake; `received` is what was read from the socket before.
    pub(crate) async fn accept(
        socket: TcpStream,
        config: Arc<ServerConfig>,
        received: &mut [u8],
    ) -> io::Result<Box<Self>> {
        let tls = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        let (unsent, early) = (Vec::new(), Vec::new());
        let mut stream = Box::new(Self { socket, tls, received: Vec::new(), unsent, early, closed: false });
        let mut early = Vec::new();
        let mut result = stream.take(received, |bytes| early.extend_from_slice(bytes)).map(|()| Heard::Some);
        loop {
            // Also what is said last, to a peer that is refused.
            let flushed = stream.flush().await;
            let heard = result?;
            flushed?;
            if !stream.tls.is_handshaking() {
                stream.early = early;
                return Ok(stream);
            }
            if heard == Heard::Closed {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            result = stream.read(|bytes| early.extend_from_slice(bytes)).await;
        }
    }

    /// What was agreed on.
    pub(crate) fn state(&self) -> &CommonState {
        &self.tls
    }

    /// The chain that the peer presented, DER, its own certificate first.
    pub(crate) fn presented(&self) -> Vec<Vec<u8>> {
        let chain = self.tls.peer_certificates().unwrap_or_default();
        chain.iter().map(|certificate| certificate.to_vec()).collect()
    }

    /// Waits for bytes and hands on what they say, in pieces. Can be dropped at any time without a loss.
    ///
    /// # Errors
    /// The connection broke, or the peer broke TLS and was told so.
    pub(crate) async fn read(&mut self, mut taken: impl FnMut(&[u8])) -> io::Result<Heard> {
        if !self.early.is_empty() {
            taken(&std::mem::take(&mut self.early));
            return Ok(Heard::Some);
        }
        loop {
            self.socket.readable().await?;
            match self.try_read(&mut taken) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    fn try_read(&mut self, taken: impl FnMut(&[u8])) -> io::Result<Heard> {
        INCOMING.with_borrow_mut(|incoming| {
            let kept = self.received.len();
            let read = self.socket.try_read(&mut incoming[kept..kept + READ_BYTES])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            incoming[..kept].copy_from_slice(&self.received);
            self.take(&mut incoming[..kept + read], taken)?;
            Ok(if self.closed { Heard::Closed } else { Heard::Some })
        })
    }

    /// Uses bytes that arrived after those that are kept, which `incoming` begins with, and keeps what is left of them.
    fn take(&mut self, incoming: &mut [u8], taken: impl FnMut(&[u8])) -> io::Result<()> {
        let Processed { used, answers, closed, result } = process(&mut self.tls, incoming, taken);
        self.closed |= closed;
        // Before the error: it is what the peer is told.
        self.send(&answers)?;
        result.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let rest = &incoming[used..];
        if rest.len() > RECEIVED_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of TLS is too long"));
        }
        self.received = rest.to_vec();
        Ok(())
    }

    /// Encrypts and hands to the socket; what the socket does not take is kept for [`DeviceTls::flush`], which is to be
    /// called before anything else is written.
    pub(crate) fn write(&mut self, plain: &[u8]) -> io::Result<()> {
        self.encrypt(|traffic, outgoing| traffic.encrypt(plain, outgoing))
    }

    /// Says that nothing follows, as far as the socket takes it.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.encrypt(|traffic, outgoing| traffic.queue_close_notify(outgoing))
    }

    fn encrypt(
        &mut self,
        mut make: impl FnMut(&mut Traffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        OUTGOING.with_borrow_mut(|outgoing| {
            // Those that arrived and wait are given again, because rustls refers to their places.
            let UnbufferedStatus { state, discard } = self.tls.process_tls_records(&mut self.received);
            let mut traffic = match state.map_err(io::Error::other)? {
                ConnectionState::WriteTraffic(traffic) => traffic,
                state => return Err(io::Error::other(format!("nothing can be written in {state:?}"))),
            };
            let length = match make(&mut traffic, outgoing) {
                Err(EncryptError::InsufficientSize(needed)) => {
                    outgoing.resize(needed.required_size, 0);
                    make(&mut traffic, outgoing)
                }
                result => result,
            };
            let length = length.map_err(io::Error::other)?;
            self.received.drain(..discard);
            self.send(&outgoing[..length])
        })
    }

    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while self.unsent.is_empty() && !bytes.is_empty() {
            match self.socket.try_write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.unsent.extend_from_slice(bytes);
        Ok(())
    }

    /// Whether the socket has taken everything.
    pub(crate) fn is_flushed(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Waits until the socket has taken everything.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            self.socket.writable().await?;
            match self.socket.try_write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        self.unsent = Vec::new();
        Ok(())
    }
}

/// What became of bytes that arrived.
struct Processed {
    /// Bytes from their start that are done with.
    used: usize,
    /// To be sent at once.
    answers: Vec<u8>,
    /// The peer has said its last words.
    closed: bool,
    result: Result<(), Error>,
}

/// Gives rustls what arrived until it wants more.
fn process(
    tls: &mut UnbufferedServerConnection,
    incoming: &mut [u8],
    mut taken: impl FnMut(&[u8]),
) -> Processed {
    let mut done = Processed { used: 0, answers: Vec::new(), closed: false, result: Ok(()) };
    loop {
        let UnbufferedStatus { mut discard, state } = tls.process_tls_records(&mut incoming[done.used..]);
        let mut more = true;
        match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            discard += record.discard;
                            taken(record.payload);
                        }
                        Err(error) => done.result = Err(error),
                    }
                }
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                let begin = done.answers.len();
                if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
                    data.encode(&mut [])
                {
                    done.answers.resize(begin + required_size, 0);
                    if let Err(error) = data.encode(&mut done.answers[begin..]) {
                        done.result = Err(Error::General(error.to_string()));
                    }
                }
                // After an error that was the alert; the record that caused it must not be looked at again.
                more = done.result.is_ok();
            }
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                done.closed = true;
                more = false;
            }
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => more = false,
            // Early data is never offered, and there is no other state in this version of rustls.
            Ok(state) => {
                done.result = Err(Error::General(format!("unexpected state {state:?}")));
                more = false;
            }
            // Once more, for the alert that tells the peer.
            Err(error) => {
                more = done.result.is_ok();
                done.result = Err(error);
            }
        }
        done.used += discard;
        if !more {
            return done;
        }
    }
}

#[cfg(test)]
mod tests;
