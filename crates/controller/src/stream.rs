//! Reads one gateway's stream and resumes it by token.

use std::{convert::Infallible, time::Duration};

use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wasmbed_control::{Backoff, gateway_api::StreamEvent};

use crate::{
    client::{CallError, GatewayClient},
    input::Input,
};

/// One line: a device with ten applications and all its facts has a few kilobytes.
const LINE_BYTES_MAX: usize = 256 * 1024;
/// Silence after which a connection is taken for broken: gateways write a line every few seconds.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Pauses between attempts that brought nothing.
const PAUSES: Backoff = Backoff::doubling(200, 5_000);

/// Follows a gateway until `stop`, reporting every line and every end of a connection.
pub(crate) async fn follow(
    client: GatewayClient,
    gateway: String,
    address: String,
    inputs: mpsc::Sender<Input>,
    stop: CancellationToken,
) {
    let mut token = None;
    let mut failures = 0_u32;
    let work = async {
        loop {
            let before = token.clone();
            let Err(error) = read(&client, &gateway, &address, &mut token, &inputs).await;
            if token != before {
                failures = 0;
            }
            tracing::debug!(gateway, reason = "StreamEnded", %error, "the stream ended");
            if inputs.send(Input::StreamDown(gateway.clone(), error.to_string())).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(PAUSES.pause_ms(failures))).await;
            failures = failures.saturating_add(1);
        }
    };
    let _ = stop.run_until_cancelled(work).await;
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    /// Network or peer: it could not be opened.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Peer: a line that is not an event.
    #[error("a line can't be read: {0}")]
    Line(serde_json::Error),
    /// Peer: a line without an end.
    #[error("a line has more than {LINE_BYTES_MAX} bytes")]
    LongLine,
    /// Network.
    #[error("the connection broke: {0}")]
    Broken(hyper::Error),
    /// Peer.
    #[error("the gateway ended it")]
    Ended,
    /// Network or peer.
    #[error("nothing was heard for {} s", SILENCE_MAX.as_secs())]
    Silent,
    /// This process.
    #[error("the controller stops")]
    Stopping,
}

/// Reads one connection to its end.
async fn read(
    client: &GatewayClient,
    gateway: &str,
    address: &str,
    token: &mut Option<String>,
    inputs: &mpsc::Sender<Input>,
) -> Result<Infallible, StreamError> {
    let body = client.stream(gateway, address, token.as_deref()).await?.into_body();
    tracing::info!(gateway, resumed = token.is_some(), "the stream is open");
    let mut lines = Lines { body, buffer: BytesMut::new() };
    let mut snapshot = false;
    loop {
        let heard = tokio::time::timeout(SILENCE_MAX, lines.next()).await;
        let event = heard.map_err(|_| StreamError::Silent)??;
        // A token from within a snapshot would resume without the rest of it.
        match &event {
            StreamEvent::Snapshot { .. } => {
                snapshot = true;
                *token = None;
            }
            StreamEvent::SnapshotEnd { token: next } => {
                snapshot = false;
                *token = Some(next.clone());
            }
            StreamEvent::Device { token: next, .. }
            | StreamEvent::Forgotten { token: next, .. }
            | StreamEvent::Idle { token: next } => {
                if !snapshot {
                    *token = Some(next.clone());
                }
            }
        }
        if inputs.send(Input::Stream(gateway.to_owned(), Box::new(event))).await.is_err() {
            return Err(StreamError::Stopping);
        }
    }
}

struct Lines {
    body: Incoming,
    buffer: BytesMut,
}

impl Lines {
    async fn next(&mut self) -> Result<StreamEvent, StreamError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                return serde_json::from_slice(&line).map_err(StreamError::Line);
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(StreamError::LongLine);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(StreamError::Broken(error)),
                None => return Err(StreamError::Ended),
            }
        }
    }
}
