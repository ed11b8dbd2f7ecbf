//! Clients that must not be let in: each is refused, logged with a reason and counted, and a device with a running application
//! beside it doesn't notice.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use wasmbed_api::{Device, DeviceApplicationState, DevicePhase};
use wasmbed_e2e::{
    ControlPlane, GatewayOptions, Machine, TIMEOUT, application, fixtures, metric, metric_at_least,
};
use wasmbed_pki::{
    Authorities, Identity,
    tls::{ClientParams, Profile, client_config, provider, roots, server_name},
};
use wasmbed_protocol::{
    DeviceMessage, Epoch, Facts, Frames, Heartbeat, Hello, List, ResetReason, Revision, Sequence,
    decode_gateway, encode_device, limits::FRAME_BYTES_MAX,
};

wasmbed_e2e::both!(
    certificates_of_others_are_refused,
    a_pinned_name_with_another_key_is_rejected,
    protocols_of_others_and_half_handshakes_are_refused,
    a_huge_frame_ends_its_session_and_a_slow_one_does_not,
    five_hundred_half_open_connections_keep_nobody_out,
);

/// What the gateway may hold more after thousands of bad bytes and hundreds of half-open connections: far above what it
/// takes (30 kB per handshake), far below what trusting a peer's numbers would.
const GROWTH_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A machine whose gateway is under attack, and the device that must not notice.
struct Scene {
    machine: Machine,
    epoch: Option<i64>,
}

impl Scene {
    async fn start(plane: ControlPlane, handshake_timeout: &str) -> Result<Self> {
        let set = vec![format!("server.handshake_timeout={handshake_timeout}")];
        let mut machine =
            Machine::start_with(plane, GatewayOptions { set, ..GatewayOptions::default() }).await?;
        machine.add_device("witness").await?;
        machine.create(&application("tick", &fixtures::ticker("tick", 100), &["witness"])).await?;
        let device = machine.device("witness", "running its application", is_well).await?;
        let epoch = device.status.context("a status")?.epoch;
        ensure!(epoch.is_some(), "a connected device has an epoch");
        Ok(Self { machine, epoch })
    }

    fn authorities(&self) -> &Authorities {
        self.machine.layout().authorities()
    }

    /// The configuration of a well-behaved client; its certificate is whose it likes.
    fn config(&self, profile: Profile, identity: &Identity) -> Result<ClientConfig> {
        let authorities = self.authorities();
        let config = client_config(ClientParams {
            profile,
            identity,
            roots: roots([authorities.services_root().clone()])?,
            trust_domain: authorities.trust_domain(),
            gateway: None,
            time: None,
        })?;
        Ok(Arc::unwrap_or_clone(config))
    }

    fn without_certificate(&self) -> Result<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots([self.authorities().services_root().clone()])?)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"wasmbed/1".to_vec()];
        Ok(config)
    }

    /// Waits until the gateway has counted one more refusal than before and has logged its reason.
    async fn refused(&mut self, who: &str, reason: &str, before: f64) -> Result<()> {
        let health = self.machine.gateway_health();
        metric_at_least(health, &refusals(reason), before + 1.0).await.with_context(|| who.to_owned())?;
        let logged = format!("\"reason\":\"{reason}\"");
        self.machine
            .process("gateway")?
            .wait_for_line(&format!("why it refused {who}"), |line| {
                line.contains("connection refused") && line.contains(&logged)
            })
            .map(drop)
    }

    /// A client that goes through the handshake, or as far as it is let, and says Hello.
    async fn tls_is_refused(&mut self, who: &str, config: ClientConfig, reason: &str) -> Result<()> {
        let before = metric(self.machine.gateway_health(), &refusals(reason)).await?;
        let address = self.machine.gateway_address();
        // With TLS 1.3 a client is done before the server has looked at its certificate.
        if let Ok(mut stream) = tls(address, config).await {
            let _ = stream.write_all(&frame(&hello())?).await;
            ensure!(rest(&mut stream).await?.is_empty(), "{who} was answered");
        }
        self.refused(who, reason, before).await
    }

    /// Bytes on a bare connection.
    async fn bytes_are_refused(&mut self, who: &str, bytes: &[u8], reason: &str) -> Result<()> {
        let before = metric(self.machine.gateway_health(), &refusals(reason)).await?;
        let mut stream = TcpStream::connect(self.machine.gateway_address()).await?;
        stream.write_all(bytes).await?;
        rest(&mut stream).await?;
        self.refused(who, reason, before).await
    }

    /// The witness has the session it had, and its application has printed something since.
    async fn witness_is_well(&mut self) -> Result<()> {
        let ticks = self.ticks()?;
        let device = self.machine.device("witness", "as before", is_well).await?;
        let status = device.status.context("a status")?;
        assert_eq!(status.epoch, self.epoch, "the witness lost its session");
        assert!(status.applications.iter().all(|application| application.restarts == 0));
        timeout(TIMEOUT, async {
            while self.ticks()? <= ticks {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        })
        .await
        .context("the witness's application no longer prints")?
    }

    fn ticks(&mut self) -> Result<usize> {
        Ok(self.machine.process("witness")?.printed()?.matches("tick").count())
    }
}

fn refusals(reason: &str) -> String {
    format!("wasmbed_gateway_refusals_total{{reason=\"{reason}\"}}")
}

fn is_well(device: &Device) -> bool {
    device.status.as_ref().is_some_and(|status| {
        status.phase == DevicePhase::Connected
            && status.applications.len() == 1
            && status
                .applications
                .iter()
                .all(|application| application.state == DeviceApplicationState::Running)
    })
}

fn hello() -> DeviceMessage<'static> {
    DeviceMessage::Hello(Hello {
        facts: Facts {
            board: "test",
            firmware: "0.1.0",
            engine: "spacewasm",
            memory_bytes: 524_288,
            flash_bytes: 1 << 20,
            load_permille: 2_000,
            module_bytes_max: 1 << 20,
            applications_max: 10,
            features: 3,
            imports: List::empty(),
            capabilities: List::empty(),
            peripherals: None,
        },
        last_epoch: Epoch(0),
        revision: Revision(0),
        reset_reason: ResetReason::PowerOn,
        reset_detail: "",
        boot_counter: None,
        groups: None,
        boot_id: None,
    })
}

fn frame(message: &DeviceMessage<'_>) -> Result<Vec<u8>> {
    let mut buffer = [0; FRAME_BYTES_MAX];
    let length = encode_device(message, &mut buffer).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    Ok(buffer[..length].to_vec())
}

async fn tls(address: SocketAddr, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(Arc::new(config)).connect(server_name(), stream).await
}

/// What comes until the gateway closes the connection, which it must.
async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = timeout(TIMEOUT, stream.read_to_end(&mut bytes)).await;
    // A reset is a way to close, too.
    let _ = read.context("the gateway holds the connection")?;
    Ok(bytes)
}

/// Reads until a message of the gateway says `wanted`.
async fn until_said(stream: &mut TlsStream<TcpStream>, wanted: &str) -> Result<()> {
    let mut buffer = Vec::new();
    let search = async {
        loop {
            let mut frames = Frames::new(&buffer);
            for body in frames.by_ref() {
                let body = body.map_err(|error| anyhow::anyhow!("{error:?}"))?;
                let message = decode_gateway(body).map_err(|error| anyhow::anyhow!("{error:?}"))?;
                if format!("{message:?}").contains(wanted) {
                    return Ok(());
                }
            }
            let consumed = frames.consumed();
            buffer.drain(..consumed);
            let mut chunk = [0; FRAME_BYTES_MAX];
            let read = stream.read(&mut chunk).await?;
            ensure!(read > 0, "the connection ended before {wanted}");
            buffer.extend_from_slice(&chunk[..read]);
        }
    };
    timeout(TIMEOUT, search).await.with_context(|| format!("the gateway never said {wanted}"))?
}

/// A ClientHello of TLS 1.2 with our ALPN name and no `supported_versions` (RFC 5246, section 7.4.1.2).
fn client_hello_of_tls_1_2() -> Vec<u8> {
    let alpn = b"\x00\x10\x00\x0c\x00\x0a\x09wasmbed/1";
    let signatures = b"\x00\x0d\x00\x04\x00\x02\x04\x03";
    let groups = b"\x00\x0a\x00\x04\x00\x02\x00\x17";
    let extensions = [alpn.as_slice(), signatures, groups].concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    // No session, ECDHE_ECDSA with AES-128-GCM, no compression.
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut record = vec![22, 3, 1];
    record.extend((body.len() as u16 + 4).to_be_bytes());
    record.push(1);
    record.extend(&(body.len() as u32).to_be_bytes()[1..]);
    record.extend(body);
    record
}

async fn certificates_of_others_are_refused(plane: ControlPlane) -> Result<()> {
    let mut scene = Scene::start(plane, "10s").await?;
    let config = scene.without_certificate()?;
    scene.tls_is_refused("a client without a certificate", config, "NoCertificate").await?;

    let controller = scene.authorities().issue_controller("wasmbed-system", "c")?;
    let gateway = scene.authorities().issue_gateway("wasmbed-system", "g", &[])?;
    let device = scene.authorities().issue_device("default", "witness")?;
    let elsewhere = tempfile::tempdir()?;
    let others = Authorities::create_or_open(elsewhere.path(), scene.authorities().trust_domain())?;
    let stranger = others.issue_device("default", "witness")?;
    let cases = [
        ("a controller as a device", Profile::Device, &controller),
        ("a gateway as a device", Profile::Device, &gateway),
        ("a device as a controller", Profile::Service, &device),
        ("a gateway as a controller", Profile::Service, &gateway),
        ("a device of another fleet", Profile::Device, &stranger),
    ];
    for (who, profile, identity) in cases {
        let config = scene.config(profile, identity)?;
        scene.tls_is_refused(who, config, "BadCertificate").await?;
    }
    scene.witness_is_well().await
}

async fn a_pinned_name_with_another_key_is_rejected(plane: ControlPlane) -> Result<()> {
    let mut scene = Scene::start(plane, "10s").await?;
    // The authority certified it; the witness's Device knows better.
    let impostor = scene.authorities().issue_device("default", "witness")?;
    let config = scene.config(Profile::Device, &impostor)?;
    let mut stream = tls(scene.machine.gateway_address(), config).await?;
    stream.write_all(&frame(&hello())?).await?;
    until_said(&mut stream, "KeyMismatch").await?;
    rest(&mut stream).await?;
    let series = "wasmbed_gateway_sessions_ended_total{reason=\"KeyMismatch\"}";
    metric_at_least(scene.machine.gateway_health(), series, 1.0).await?;
    scene.machine.process("gateway")?.wait_for_line("the reason", |line| {
        line.contains("KeyMismatch") && line.contains("default/witness")
    })?;
    scene.witness_is_well().await
}

async fn protocols_of_others_and_half_handshakes_are_refused(plane: ControlPlane) -> Result<()> {
    let mut scene = Scene::start(plane, "2s").await?;
    let device = scene.authorities().issue_device("default", "other")?;
    for (who, names, reason) in [
        ("a client without ALPN", &[][..], "NoAlpn"),
        ("a client of another protocol", &[b"mqtt".to_vec(), b"wasmbed/2".to_vec()], "WrongAlpn"),
    ] {
        let mut config = scene.config(Profile::Device, &device)?;
        config.alpn_protocols = names.to_vec();
        scene.tls_is_refused(who, config, reason).await?;
    }
    let tls_1_2 = client_hello_of_tls_1_2();
    scene.bytes_are_refused("TLS 1.2", &tls_1_2, "HandshakeFailed").await?;
    scene.bytes_are_refused("HTTP", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HandshakeFailed").await?;
    let random: Vec<u8> =
        (0..3_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    scene.bytes_are_refused("random bytes", &random, "HandshakeFailed").await?;
    let half = &tls_1_2[..20];
    scene.bytes_are_refused("half a handshake", half, "HandshakeTimeout").await?;
    scene.witness_is_well().await
}

async fn a_huge_frame_ends_its_session_and_a_slow_one_does_not(plane: ControlPlane) -> Result<()> {
    let mut scene = Scene::start(plane, "10s").await?;
    scene.machine.create_device("talker").await?;
    let files = scene.machine.layout().device_identity("default", "talker")?;
    let identity = Identity::read(&files.certificate, &files.key)?;
    let address = scene.machine.gateway_address();
    let config = scene.config(Profile::Device, &identity)?;

    // The gateway may not have seen the new Device yet; then it says so and the device tries again.
    let mut slow = timeout(TIMEOUT, async {
        loop {
            let mut stream = tls(address, config.clone()).await?;
            stream.write_all(&frame(&hello())?).await?;
            if until_said(&mut stream, "Welcome").await.is_ok() {
                return anyhow::Ok(stream);
            }
        }
    })
    .await
    .context("no Welcome")??;
    let heartbeat = DeviceMessage::Heartbeat(Heartbeat {
        sequence: Sequence(7),
        uptime_ms: 1,
        memory_used_bytes: 0,
        cpu_ms: 0,
    });
    for byte in frame(&heartbeat)? {
        slow.write_all(&[byte]).await?;
        slow.flush().await?;
    }
    until_said(&mut slow, "Sequence(7)").await?;

    let before = scene.machine.process("gateway")?.resident_bytes()?;
    slow.write_all(&[0xff; 2]).await?;
    until_said(&mut slow, "ProtocolError").await?;
    for _ in 0..20 {
        // Before the Hello: nobody is let in for having a certificate.
        let mut huge = tls(address, config.clone()).await?;
        // It may be closed while we write.
        let _ = huge.write_all(&[0xff; 65_536]).await;
        rest(&mut huge).await?;
    }
    let after = scene.machine.process("gateway")?.resident_bytes()?;
    assert!(after.saturating_sub(before) < GROWTH_BYTES_MAX, "from {before} to {after} bytes");
    let series = "wasmbed_gateway_sessions_ended_total{reason=\"ProtocolError\"}";
    metric_at_least(scene.machine.gateway_health(), series, 1.0).await?;
    // 65,535 are declared; a frame counts its two bytes of length, too.
    scene.machine.process("gateway")?.wait_for_line("the reason", |line| {
        line.contains("ProtocolError") && line.contains("default/talker") && line.contains("65537")
    })?;
    scene.witness_is_well().await
}

async fn five_hundred_half_open_connections_keep_nobody_out(plane: ControlPlane) -> Result<()> {
    // Long enough that all of them stand while the newcomer connects.
    let mut scene = Scene::start(plane, "60s").await?;
    let before = scene.machine.process("gateway")?.resident_bytes()?;
    let half = &client_hello_of_tls_1_2()[..20];
    let mut held = Vec::new();
    for _ in 0..500 {
        let mut stream = TcpStream::connect(scene.machine.gateway_address()).await?;
        stream.write_all(half).await?;
        held.push(stream);
    }
    let health = scene.machine.gateway_health();
    metric_at_least(health, "wasmbed_gateway_handshakes_open", 500.0).await?;
    scene.machine.add_device("newcomer").await?;
    scene.machine.connected("newcomer").await?;
    scene.witness_is_well().await?;
    assert!(metric(health, "wasmbed_gateway_handshakes_open").await? >= 500.0, "they all still stand");
    let after = scene.machine.process("gateway")?.resident_bytes()?;
    assert!(after.saturating_sub(before) < GROWTH_BYTES_MAX, "from {before} to {after} bytes");
    Ok(())
}
