//! How long the answer to a heartbeat takes, seen by a device.

use std::{sync::Arc, time::Instant};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{client::TlsStream, rustls::ClientConfig};
use wasmbed_e2e::Machine;
use wasmbed_protocol::{
    DeviceMessage, Epoch, Facts, GatewayMessage, Heartbeat, Hello, List, ResetReason, Revision, Sequence,
    decode_gateway, encode_device, limits::FRAME_BYTES_MAX,
};

use crate::handshake::connect;

/// A device that does nothing but live.
pub(crate) struct Pulse {
    stream: TlsStream<TcpStream>,
    sequence: Sequence,
}

impl Pulse {
    /// Connects and begins a session.
    pub(crate) async fn start(machine: &Machine, config: &Arc<ClientConfig>) -> Result<Self> {
        let mut pulse = Self { stream: connect(machine, config).await?, sequence: Sequence(0) };
        let facts = Facts {
            board: "bench",
            firmware: env!("CARGO_PKG_VERSION"),
            engine: "none",
            memory_bytes: 0,
            flash_bytes: 0,
            load_permille: 1_000,
            module_bytes_max: 1,
            applications_max: 1,
            features: 0,
            imports: List::empty(),
            capabilities: List::empty(),
        };
        pulse
            .send(&DeviceMessage::Hello(Hello {
                facts,
                last_epoch: Epoch(0),
                revision: Revision(0),
                reset_reason: ResetReason::PowerOn,
                reset_detail: "",
                boot_counter: None,
                boot_id: None,
            }))
            .await?;
        pulse.receive("Welcome", |message| matches!(message, GatewayMessage::Welcome(_))).await?;
        Ok(pulse)
    }

    /// Milliseconds from sending a heartbeat to its answer.
    pub(crate) async fn beat(&mut self) -> Result<f64> {
        self.sequence = self.sequence.next();
        let sequence = self.sequence;
        let begun = Instant::now();
        let beat = Heartbeat { sequence, uptime_ms: 0, memory_used_bytes: 0, cpu_ms: 0 };
        self.send(&DeviceMessage::Heartbeat(beat)).await?;
        let answers = |message: &GatewayMessage<'_>| matches!(message, GatewayMessage::HeartbeatAck(ack) if ack.sequence == sequence);
        self.receive("HeartbeatAck", answers).await?;
        Ok(begun.elapsed().as_secs_f64() * 1_000.0)
    }

    async fn send(&mut self, message: &DeviceMessage<'_>) -> Result<()> {
        let mut frame = [0; FRAME_BYTES_MAX];
        let length =
            encode_device(message, &mut frame).map_err(|error| anyhow::anyhow!("can't encode: {error:?}"))?;
        self.stream.write_all(&frame[..length]).await.context("can't send")?;
        self.stream.flush().await.context("can't send")
    }

    /// Reads frames until the wanted one; others are the gateway's to send at any time.
    async fn receive(&mut self, what: &str, wanted: impl Fn(&GatewayMessage<'_>) -> bool) -> Result<()> {
        loop {
            let length = usize::from(self.stream.read_u16().await.with_context(|| format!("no {what}"))?);
            let mut body = vec![0; length.min(FRAME_BYTES_MAX)];
            self.stream.read_exact(&mut body).await.with_context(|| format!("no {what}"))?;
            let message =
                decode_gateway(&body).map_err(|error| anyhow::anyhow!("can't decode: {error:?}"))?;
            if wanted(&message) {
                return Ok(());
            }
            if let GatewayMessage::Reject(closing) | GatewayMessage::Goodbye(closing) = message {
                bail!("instead of {what}: {} {}", closing.reason.name(), closing.detail);
            }
        }
    }
}
