//! One device's connection: bytes in, frames to the decisions, frames out.
//!
//! While nothing happens a connection holds no buffer: it reads into and writes from scratch areas of the thread, and keeps
//! only the start of a frame that has not arrived in full.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::Notify,
    time::{Sleep, sleep, sleep_until, timeout},
};
use tracing::Instrument as _;
use wasmbed_control::gateway::{SessionId, Transmit};
use wasmbed_protocol::{Frames, frame_length, limits::FRAME_BYTES_MAX};

use crate::{
    Limits,
    core::Core,
    metrics::Metrics,
    tls::{DeviceTls, Heard},
};

/// Bytes of one write: a whole range of a module, and the control frames before it.
const WRITE_BYTES: usize = 8 * FRAME_BYTES_MAX;
/// For the peer to take our end of the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

thread_local! {
    static FRAMES: RefCell<Box<[u8]>> = RefCell::new(vec![0; WRITE_BYTES].into());
}

/// A device's connection that was let in.
pub(crate) struct Session {
    pub(crate) stream: Box<DeviceTls>,
    pub(crate) id: SessionId,
    pub(crate) waker: Arc<Notify>,
}

/// Serves a session until it ends.
pub(crate) async fn serve(core: &Core, mut session: Session, limits: &Limits, metrics: &Metrics) {
    let span = tracing::debug_span!("session", id = session.id.0);
    let detail = converse(core, &mut session, limits, metrics).instrument(span).await;
    core.close(session.id, &detail);
}

/// Says how the session ended.
async fn converse(core: &Core, session: &mut Session, limits: &Limits, metrics: &Metrics) -> String {
    let Session { stream, id, waker } = session;
    let id = *id;
    let mut partial = Partial::default();
    let mut deadline = None;
    let mut paused: Option<Pin<Box<Sleep>>> = None;
    let mut heard = None;
    loop {
        let sent = match transmit(core, id, stream) {
            Ok(sent) => sent,
            Err(error) => return describe_error(&error),
        };
        if sent.presented {
            let chain = stream.presented();
            core.with(|gateway, now| gateway.handle_presented(now, id, chain));
        }
        if !stream.is_flushed() {
            // Boxed, as everything that is rare: a session is as large as the largest that it waits for.
            match Box::pin(timeout(limits.write_timeout, stream.flush())).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return describe_error(&error),
                Err(_) => return "the device does not read".to_owned(),
            }
        }
        if let Some(heard) = heard.take_if(|_: &mut Instant| sent.heartbeat) {
            metrics.heartbeat_seconds.observe(heard.elapsed().as_secs_f64());
        }
        if sent.close {
            if stream.close().is_ok() && !stream.is_flushed() {
                let _ = Box::pin(timeout(CLOSE_TIMEOUT, stream.flush())).await;
            }
            return "closed by the gateway".to_owned();
        }
        // A device that has used its share is not read: its own sends wait then, and nobody else's.
        if sent.read_in_ms > 0 && paused.is_none() {
            paused = Some(Box::pin(sleep(Duration::from_millis(sent.read_in_ms))));
            deadline = None;
        }
        // If more is pending, the waker was notified.
        let since = partial.since;
        tokio::select! {
            () = waker.notified() => {}
            () = passed(&mut paused) => {
                paused = None;
                // What had arrived of a frame could not go on arriving.
                partial.since = partial.since.map(|_| Instant::now());
            }
            read = stream.read(|bytes| partial.take(core, id, bytes)), if paused.is_none() => match read {
                Ok(Heard::Closed) => return "closed by the device".to_owned(),
                Ok(Heard::Some) => heard = Some(Instant::now()),
                Err(error) => return describe_error(&error),
            },
            () = passed(&mut deadline) => {
                core.with(|gateway, now| gateway.handle_broken_frame(now, id, "a frame did not arrive in time"));
                partial = Partial::default();
            }
        }
        if partial.since != since {
            deadline =
                partial.since.map(|since| Box::pin(sleep_until((since + limits.frame_timeout).into())));
        }
    }
}

async fn passed(deadline: &mut Option<Pin<Box<Sleep>>>) {
    match deadline {
        Some(sleep) => sleep.await,
        None => std::future::pending().await,
    }
}

fn describe_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the connection broke".to_owned(),
        _ => error.to_string(),
    }
}

/// Sends what the session has ready, as much as one write takes.
fn transmit(core: &Core, id: SessionId, stream: &mut DeviceTls) -> io::Result<Transmit> {
    FRAMES.with_borrow_mut(|frames| {
        let transmit = core.with(|gateway, now| gateway.poll_transmit(now, id, frames));
        if transmit.written > 0 {
            stream.write(&frames[..transmit.written])?;
        }
        Ok(transmit)
    })
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
                Ok(body) => core.with(|gateway, now| gateway.handle_frame(now, id, body)),
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
            core.with(|gateway, now| gateway.handle_broken_frame(now, id, &error.to_string()));
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
