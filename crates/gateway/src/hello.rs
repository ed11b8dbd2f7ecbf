//! The first message of a connection: what the client offers decides which TLS configuration answers it.
//!
//! It is read without being used up: whoever does the handshake begins with the same bytes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use rustls::server::Acceptor;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
};

/// Bytes of a ClientHello: with post-quantum keys it is some 2 kB, and one record holds it (RFC 8446 section 5.1).
const HELLO_BYTES_MAX: usize = 16 * 1024 + 5;
/// Bytes for which room is made at once.
const READ_BYTES: usize = 1024;

/// A connection whose first message has arrived.
pub(crate) struct Hello {
    pub(crate) socket: TcpStream,
    /// Everything that has arrived.
    pub(crate) received: Vec<u8>,
    /// The ALPN names that the client offers, if it offers any.
    pub(crate) offered: Option<Vec<Vec<u8>>>,
}

/// A socket that gives again what was read from it.
pub(crate) struct Replayed {
    received: io::Cursor<Vec<u8>>,
    socket: TcpStream,
}

impl AsyncRead for Replayed {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let again = io::Read::read(&mut this.received, into.initialize_unfilled())?;
        if again > 0 {
            into.advance(again);
            return Poll::Ready(Ok(()));
        }
        this.received = io::Cursor::default();
        Pin::new(&mut this.socket).poll_read(context, into)
    }
}

impl AsyncWrite for Replayed {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }
}

impl Hello {
    /// Waits for the whole first message.
    ///
    /// # Errors
    /// The connection broke, or the message is none of TLS and the client was told so.
    pub(crate) async fn read(mut socket: TcpStream) -> io::Result<Self> {
        let mut acceptor = Acceptor::default();
        let mut received = Vec::new();
        loop {
            received.reserve(READ_BYTES);
            let begin = received.len();
            if socket.read_buf(&mut received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut new = &received[begin..];
            while !new.is_empty() {
                acceptor.read_tls(&mut new)?;
                match acceptor.accept() {
                    Ok(None) => {}
                    Ok(Some(accepted)) => {
                        let names = accepted.client_hello().alpn();
                        let offered = names.map(|names| names.map(<[u8]>::to_vec).collect());
                        return Ok(Self { socket, received, offered });
                    }
                    Err((error, mut alert)) => {
                        let mut words = Vec::new();
                        alert.write_all(&mut words)?;
                        socket.write_all(&words).await?;
                        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                    }
                }
            }
            if received.len() > HELLO_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the ClientHello is too long"));
            }
        }
    }

    /// The connection from its first byte on.
    pub(crate) fn replayed(self) -> Replayed {
        Replayed { received: io::Cursor::new(self.received), socket: self.socket }
    }
}
