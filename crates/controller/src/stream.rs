//! Reads one gateway's stream and resumes it by token.

use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wasmbed_control::exchange::StreamEvent;

use crate::{client::GatewayClient, input::Input};

/// One line: a device with ten applications and all its facts has a few kilobytes.
const LINE_BYTES_MAX: usize = 256 * 1024;
/// Silence after which a connection is taken for broken: gateways write a line every few seconds.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Pauses between attempts.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Follows a gateway until `stop`, reporting every line and every end of a connection.
pub(crate) async fn follow(
    client: GatewayClient,
    gateway: String,
    address: String,
    inputs: mpsc::Sender<Input>,
    stop: CancellationToken,
) {
    let mut token = None;
    let mut pause = PAUSE_MIN;
    let work = async {
        loop {
            let before = token.clone();
            let error = read(&client, &gateway, &address, &mut token, &inputs).await;
            if token != before {
                pause = PAUSE_MIN;
            }
            tracing::debug!(gateway, reason = "StreamEnded", %error, "the stream ended");
            if inputs.send(Input::StreamDown(gateway.clone(), error)).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    };
    let _ = stop.run_until_cancelled(work).await;
}

/// Reads one connection to its end and says why it ended.
async fn read(
    client: &GatewayClient,
    gateway: &str,
    address: &str,
    token: &mut Option<String>,
    inputs: &mpsc::Sender<Input>,
) -> String {
    let body = match client.stream(gateway, address, token.as_deref()).await {
        Ok(response) => response.into_body(),
        Err(error) => return error.to_string(),
    };
    tracing::info!(gateway, resumed = token.is_some(), "the stream is open");
    let mut lines = Lines { body, buffer: BytesMut::new() };
    let mut snapshot = false;
    loop {
        let event = match tokio::time::timeout(SILENCE_MAX, lines.next()).await {
            Ok(Ok(event)) => event,
            Ok(Err(error)) => return error,
            Err(_) => return format!("nothing was heard for {} s", SILENCE_MAX.as_secs()),
        };
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
            return "the controller stops".to_owned();
        }
    }
}

struct Lines {
    body: Incoming,
    buffer: BytesMut,
}

impl Lines {
    async fn next(&mut self) -> Result<StreamEvent, String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                return serde_json::from_slice(&line)
                    .map_err(|error| format!("a line can't be read: {error}"));
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(format!("a line has more than {LINE_BYTES_MAX} bytes"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(format!("the connection broke: {error}")),
                None => return Err("the gateway ended it".to_owned()),
            }
        }
    }
}
