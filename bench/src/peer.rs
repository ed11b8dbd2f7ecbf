//! A device's end of a connection to a gateway, made by hand: it says what it is told to say.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::ClientConfig};
use wasmbed_pki::{
    Authorities, Identity,
    tls::{ClientParams, Profile, client_config, roots, server_name},
};
use wasmbed_protocol::{
    DeviceMessage, Epoch, Facts, GatewayMessage, Heartbeat, Hello, List, ResetReason, Revision, Sequence,
    decode_gateway, encode_device, limits::FRAME_BYTES_MAX,
};

/// TLS as a device does it.
///
/// # Errors
/// When the identity can't be used.
pub fn tls(authorities: &Authorities, identity: &Identity) -> Result<Arc<ClientConfig>> {
    Ok(client_config(ClientParams {
        profile: Profile::Device,
        identity,
        roots: roots([authorities.services_root().clone()])?,
        trust_domain: authorities.trust_domain(),
        gateway: None,
        time: None,
    })?)
}

/// A connection with the handshake done, both sides authenticated.
///
/// # Errors
/// When nobody answers or the handshake fails.
pub async fn connect(gateway: SocketAddr, config: &Arc<ClientConfig>) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(gateway).await.context("can't connect to the gateway")?;
    stream.set_nodelay(true).context("can't set TCP_NODELAY")?;
    TlsConnector::from(config.clone()).connect(server_name(), stream).await.context("the handshake failed")
}

/// A frame as it goes over the connection.
///
/// # Errors
/// When the message has no encoding.
pub fn frame(message: &DeviceMessage<'_>) -> Result<Vec<u8>> {
    let mut frame = vec![0; FRAME_BYTES_MAX];
    let length =
        encode_device(message, &mut frame).map_err(|error| anyhow::anyhow!("can't encode: {error:?}"))?;
    frame.truncate(length);
    Ok(frame)
}

/// A session.
pub struct Peer {
    /// The connection, for whoever sends bytes of his own.
    pub stream: TlsStream<TcpStream>,
    sequence: Sequence,
}

impl Peer {
    /// Connects and begins a session.
    ///
    /// # Errors
    /// When the gateway can't be reached or refuses.
    pub async fn start(gateway: SocketAddr, config: &Arc<ClientConfig>) -> Result<Self> {
        Self::start_with(gateway, config, &[]).await
    }

    /// The same for a device that has these capabilities.
    ///
    /// # Errors
    /// When the gateway can't be reached or refuses.
    pub async fn start_with(
        gateway: SocketAddr,
        config: &Arc<ClientConfig>,
        capabilities: &[&str],
    ) -> Result<Self> {
        let mut peer = Self { stream: connect(gateway, config).await?, sequence: Sequence(0) };
        let facts = Facts {
            board: "bench",
            firmware: env!("CARGO_PKG_VERSION"),
            engine: "none",
            memory_bytes: 16 << 20,
            flash_bytes: 1 << 20,
            load_permille: 1_000,
            module_bytes_max: 1 << 20,
            applications_max: 10,
            features: 0,
            imports: List::empty(),
            capabilities: List::new(capabilities),
            peripherals: None,
        };
        peer.send(&DeviceMessage::Hello(Hello {
            facts,
            last_epoch: Epoch(0),
            revision: Revision(0),
            reset_reason: ResetReason::PowerOn,
            reset_detail: "",
            boot_counter: None,
            groups: None,
            boot_id: None,
        }))
        .await?;
        peer.receive("Welcome", |message| matches!(message, GatewayMessage::Welcome(_)).then_some(()))
            .await?;
        Ok(peer)
    }

    /// Sends a heartbeat and waits for its answer.
    ///
    /// # Errors
    /// When the session ends instead.
    pub async fn beat(&mut self) -> Result<()> {
        self.sequence = self.sequence.next();
        let sequence = self.sequence;
        let beat = Heartbeat { sequence, uptime_ms: 0, memory_used_bytes: 0, cpu_ms: 0 };
        self.send(&DeviceMessage::Heartbeat(beat)).await?;
        let answer = |message: &GatewayMessage<'_>| {
            matches!(message, GatewayMessage::HeartbeatAck(ack) if ack.sequence == sequence).then_some(())
        };
        self.receive("HeartbeatAck", answer).await
    }

    /// Sends one message.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn send(&mut self, message: &DeviceMessage<'_>) -> Result<()> {
        self.stream.write_all(&frame(message)?).await.context("can't send")?;
        self.stream.flush().await.context("can't send")
    }

    /// Reads frames until the wanted one; others are the gateway's to send at any time.
    ///
    /// # Errors
    /// When the connection or the session ends instead.
    pub async fn receive<T>(
        &mut self,
        what: &str,
        wanted: impl Fn(&GatewayMessage<'_>) -> Option<T>,
    ) -> Result<T> {
        loop {
            let length = usize::from(self.stream.read_u16().await.with_context(|| format!("no {what}"))?);
            let mut body = vec![0; length.min(FRAME_BYTES_MAX)];
            self.stream.read_exact(&mut body).await.with_context(|| format!("no {what}"))?;
            let message =
                decode_gateway(&body).map_err(|error| anyhow::anyhow!("can't decode: {error:?}"))?;
            if let Some(found) = wanted(&message) {
                return Ok(found);
            }
            if let GatewayMessage::Reject(closing) | GatewayMessage::Goodbye(closing) = message {
                bail!("instead of {what}: {} {}", closing.reason.name(), closing.detail);
            }
        }
    }
}
