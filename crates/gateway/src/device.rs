//! One device's connection: bytes in, frames to the decisions, frames out.
//!
//! While nothing happens a connection holds no buffer: it reads into the stack, keeps only the start of a frame that has
//! not arrived in full, and writes from a scratch area of the thread.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    sync::Notify,
    time::{sleep_until, timeout},
};
use tokio_rustls::server::TlsStream;
use wasmbed_control::gateway::SessionId;
use wasmbed_protocol::{Frames, frame_length, limits::FRAME_BYTES_MAX};

use crate::{Limits, core::Core, metrics::Metrics};

/// Bytes of one write: some frames, so that a range of a module takes two.
const WRITE_BYTES: usize = 4 * FRAME_BYTES_MAX;
/// Bytes that rustls holds encrypted for a slow reader at most.
const TLS_BUFFER_BYTES: usize = 2 * WRITE_BYTES;
/// For the peer to take our end of the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; WRITE_BYTES].into());
}

/// Frames to be sent.
struct Batch {
    bytes: Vec<u8>,
    close: bool,
    heartbeat: bool,
}

/// Serves a session until it ends; says how it ended.
pub(crate) async fn serve(
    core: &Core,
    mut stream: Box<TlsStream<TcpStream>>,
    id: SessionId,
    waker: &Notify,
    limits: &Limits,
    metrics: &Metrics,
) -> String {
    stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES));
    let mut partial = Partial::default();
    let mut heard = None;
    loop {
        let batch = next_batch(core, id);
        if !batch.bytes.is_empty() {
            let written = timeout(limits.write_timeout, write(&mut stream, &batch.bytes)).await;
            match written {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return words(&error),
                Err(_) => return "the device does not read".to_owned(),
            }
            if let Some(heard) = heard.take_if(|_: &mut Instant| batch.heartbeat) {
                metrics.heartbeat_seconds.observe(heard.elapsed().as_secs_f64());
            }
        }
        if batch.close {
            let _ = timeout(CLOSE_TIMEOUT, stream.shutdown()).await;
            return "closed by the gateway".to_owned();
        }
        if !batch.bytes.is_empty() {
            continue;
        }
        let deadline = partial.since.map(|since| (since + limits.frame_timeout).into());
        tokio::select! {
            () = waker.notified() => {}
            read = read(&mut stream) => match read {
                Ok(bytes) if bytes.is_empty() => return "closed by the device".to_owned(),
                Ok(bytes) => {
                    heard = Some(Instant::now());
                    partial.take(core, id, &bytes);
                }
                Err(error) => return words(&error),
            },
            () = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            } => {
                core.with(|gateway, now| gateway.handle_broken_frame(id, "a frame did not arrive in time", now));
                partial = Partial::default();
            }
        }
    }
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the connection broke".to_owned(),
        _ => error.to_string(),
    }
}

fn next_batch(core: &Core, id: SessionId) -> Batch {
    SCRATCH.with_borrow_mut(|scratch| {
        let transmit = core.with(|gateway, now| gateway.poll_transmit(id, scratch, now));
        let bytes = scratch[..transmit.written].to_vec();
        Batch { bytes, close: transmit.close, heartbeat: transmit.heartbeat }
    })
}

async fn write(stream: &mut TlsStream<TcpStream>, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// What has arrived; nothing is held while nothing arrives.
async fn read(stream: &mut TlsStream<TcpStream>) -> io::Result<Vec<u8>> {
    poll_fn(|context| {
        let mut stack = [0; FRAME_BYTES_MAX];
        let mut buffer = ReadBuf::new(&mut stack);
        match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(buffer.filled().to_vec())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// The start of a frame that has not arrived in full: at most one frame.
#[derive(Default)]
struct Partial {
    bytes: Vec<u8>,
    since: Option<Instant>,
}

impl Partial {
    /// Takes bytes that arrived and passes on the frames that are whole.
    fn take(&mut self, core: &Core, id: SessionId, bytes: &[u8]) {
        let joined;
        let whole = if self.bytes.is_empty() {
            bytes
        } else {
            self.bytes.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.bytes);
            joined.as_slice()
        };
        let mut frames = Frames::new(whole);
        let mut broken = None;
        for frame in frames.by_ref() {
            match frame {
                Ok(body) => core.with(|gateway, now| gateway.handle_frame(id, body, now)),
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
        let rest = &whole[frames.consumed()..];
        // A length that is too long is refused here, before its body is held.
        broken = broken.or_else(|| frame_length(rest).err());
        if let Some(error) = broken {
            core.with(|gateway, now| gateway.handle_broken_frame(id, &error.to_string(), now));
            *self = Self::default();
        } else if rest.is_empty() {
            *self = Self::default();
        } else {
            if frames.consumed() > 0 || self.since.is_none() {
                self.since = Some(Instant::now());
            }
            self.bytes = rest.to_vec();
        }
    }
}
