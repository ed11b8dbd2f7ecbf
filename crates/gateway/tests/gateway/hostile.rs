//! Clients that must not be let in, each beside a device that must not notice.

use std::{sync::Arc, time::Duration};

use rustls::ClientConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use wasmbed_pki::{
    Authorities, Identity,
    tls::{Profile, provider, roots},
};
use wasmbed_protocol::DeviceMessage;

use crate::support::*;

/// The connection ends: the handshake fails, or the first read finds it closed.
async fn assert_closed(world: &World, config: Arc<ClientConfig>) {
    if let Ok(mut stream) = world.tls(config).await {
        let _ = stream.write_all(&frame(&DeviceMessage::Hello(hello(0, 0)))).await;
        let mut bytes = Vec::new();
        let _ = soon("the connection to close", stream.read_to_end(&mut bytes)).await;
        assert!(bytes.is_empty(), "the gateway said something to {bytes:?}");
    }
}

fn with_alpn(config: Arc<ClientConfig>, names: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

fn without_certificate(world: &World) -> Arc<ClientConfig> {
    let roots = roots([world.authorities.services_root().clone()]).unwrap();
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"wasmbed/1".to_vec()];
    Arc::new(config)
}

fn device_config(world: &World, identity: &Identity) -> Arc<ClientConfig> {
    world.client_config(Profile::Device, identity)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_others_are_refused() {
    let world = World::start().await;
    let mut neighbour = world.device("neighbour").await;

    assert_closed(&world, without_certificate(&world)).await;
    world.refused("NoCertificate").await;
    neighbour.beat(1).await;

    // From the other root, twice: a service as a device, a device as a service.
    let controller = world.authorities.issue_controller("wasmbed-system", "c").unwrap();
    assert_closed(&world, device_config(&world, &controller)).await;
    world.refused("BadCertificate").await;
    let gateway = world.authorities.issue_gateway("wasmbed-system", "gw", &[]).unwrap();
    assert_closed(&world, device_config(&world, &gateway)).await;
    world.metric("wasmbed_gateway_refusals_total{reason=\"BadCertificate\"} 2").await;
    let device = world.authorities.issue_device("default", "neighbour").unwrap();
    let as_service = with_alpn(device_config(&world, &device), &[b"h2"]);
    assert_closed(&world, as_service).await;
    world.metric("wasmbed_gateway_refusals_total{reason=\"BadCertificate\"} 3").await;
    neighbour.beat(2).await;

    // A gateway is no controller, although their certificates stand below one root.
    assert_closed(&world, world.client_config(Profile::Service, &gateway)).await;
    world.metric("wasmbed_gateway_refusals_total{reason=\"BadCertificate\"} 4").await;

    // The right authority, but another trust domain: as after a root was given away.
    let elsewhere =
        Authorities::create_or_open(&world.folder.path().join("pki"), "elsewhere.example").unwrap();
    let stranger = elsewhere.issue_device("default", "neighbour").unwrap();
    assert_closed(&world, device_config(&world, &stranger)).await;
    world.refused("WrongIdentity").await;

    // Another fleet with the same names.
    let folder = tempfile::tempdir().unwrap();
    let other = Authorities::create_or_open(folder.path(), TRUST_DOMAIN).unwrap();
    let stranger = other.issue_device("default", "neighbour").unwrap();
    assert_closed(&world, device_config(&world, &stranger)).await;
    world.metric("wasmbed_gateway_refusals_total{reason=\"BadCertificate\"} 5").await;
    neighbour.beat(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protocols_of_others_are_refused() {
    let world = World::start().await;
    let identity = world.enroll("a").await;
    let mut neighbour = world.connect_device(&identity).await;

    assert_closed(&world, with_alpn(device_config(&world, &identity), &[])).await;
    world.refused("NoAlpn").await;
    assert_closed(&world, with_alpn(device_config(&world, &identity), &[b"wasmbed/2", b"mqtt"])).await;
    world.refused("WrongAlpn").await;

    let mut random = TcpStream::connect(world.server).await.unwrap();
    random.write_all(&[0x5a; 3_000]).await.unwrap();
    let mut rest = Vec::new();
    let _ = soon("the connection to close", random.read_to_end(&mut rest)).await;
    world.refused("HandshakeFailed").await;

    let mut plain = TcpStream::connect(world.server).await.unwrap();
    plain.write_all(b"GET /health HTTP/1.1\r\n\r\n").await.unwrap();
    let _ = soon("the connection to close", plain.read_to_end(&mut rest)).await;
    world.metric("wasmbed_gateway_refusals_total{reason=\"HandshakeFailed\"} 2").await;
    neighbour.beat(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_name_with_another_key_is_rejected() {
    let world = World::start().await;
    let mut neighbour = world.device("a").await;
    // The authority has certified another key for the same name; the Device knows better.
    let impostor = world.authorities.issue_device("default", "a").unwrap();
    let mut client = DeviceClient::connect(&world, &impostor).await.unwrap();
    client.send(&DeviceMessage::Hello(hello(0, 0))).await.unwrap();
    assert!(client.next().await.unwrap().contains("KeyMismatch"));
    assert_eq!(client.next().await, None);
    neighbour.beat(1).await;
    world.metric("wasmbed_gateway_sessions_ended_total{reason=\"KeyMismatch\"} 1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_are_bounded_in_length_and_time() {
    let world = World::start_with(|config| config.limits.frame_timeout = Duration::from_millis(300)).await;
    let mut neighbour = world.device("a").await;
    let mut huge = world.device("b").await;
    huge.stream.write_all(&[0xff, 0xff]).await.unwrap();
    assert!(huge.next().await.unwrap().contains("ProtocolError"), "refused before a body has arrived");
    assert_eq!(huge.next().await, None);
    neighbour.beat(1).await;

    let mut slow = world.device("c").await;
    for byte in frame(&heartbeat(7)) {
        slow.stream.write_all(&[byte]).await.unwrap();
        slow.stream.flush().await.unwrap();
    }
    assert!(slow.next().await.unwrap().contains("Sequence(7)"), "a byte at a time is slow, not wrong");
    slow.stream.write_all(&frame(&heartbeat(8))[..3]).await.unwrap();
    slow.stream.flush().await.unwrap();
    assert!(slow.next().await.unwrap().contains("ProtocolError"), "a frame that never ends");

    let mut random = world.device("d").await;
    random.stream.write_all(&[0, 9, 0xff, 1, 2, 3, 4, 5, 6, 7, 8]).await.unwrap();
    assert!(random.next().await.unwrap().contains("ProtocolError"));
    neighbour.beat(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_are_bounded_in_number_and_time() {
    let world = World::start_with(|config| {
        config.limits.handshake_timeout = Duration::from_secs(6);
        config.limits.handshakes_per_source_max = 8;
    })
    .await;
    let identity = world.enroll("a").await;
    let mut neighbour = world.connect_device(&identity).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(world.server).await.unwrap();
        // The start of a ClientHello that never ends.
        stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        silent.push(stream);
    }
    world.metric("wasmbed_gateway_handshakes_open 8").await;
    neighbour.beat(1).await;
    // Nobody is sent away: the ninth waits until one of those that do not go on gives way.
    let mut ninth = world.device("ninth").await;
    ninth.beat(1).await;
    world.refused("HandshakeGaveWay").await;
    let mut rest = Vec::new();
    for mut stream in silent {
        let _ = soon("a half handshake to be closed", stream.read_to_end(&mut rest)).await;
    }
    // Those that nobody wanted had their whole time.
    world.metric("wasmbed_gateway_refusals_total{reason=\"HandshakeTimeout\"} 7").await;
    world.metric("wasmbed_gateway_handshakes_open 0").await;
    neighbour.beat(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_starts_at_once_waits_its_turn_and_nobody_is_reset() {
    let world = Arc::new(
        World::start_with(|config| {
            config.limits.handshakes_max = 4;
            config.limits.handshakes_per_source_max = 3;
        })
        .await,
    );
    let mut fleet = tokio::task::JoinSet::new();
    for index in 0..60 {
        let identity = world.authorities.issue_device("default", &format!("d{index}")).unwrap();
        let world = Arc::clone(&world);
        fleet.spawn(async move {
            let mut client =
                DeviceClient::connect(&world, &identity).await.map_err(|error| error.to_string())?;
            client.send(&DeviceMessage::Hello(hello(0, 0))).await.map_err(|error| error.to_string())?;
            client.next().await.ok_or("closed without a word".to_owned())
        });
    }
    let answers = soon("the fleet", fleet.join_all()).await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.is_err()).collect();
    assert!(refused.is_empty(), "{} of {}: {:?}", refused.len(), answers.len(), refused[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_floods_is_read_no_faster_than_its_share() {
    const FLOOD_BYTES: usize = 24 << 20;
    let world = World::start().await;
    let mut neighbour = world.device("neighbour").await;
    let mut flood = world.device("flood").await;
    let text = "x".repeat(1_024);
    let line = wasmbed_protocol::Log {
        uid: wasmbed_protocol::ApplicationUid([9; 16]),
        sequence: wasmbed_protocol::Sequence(1),
        lines_lost: 0,
        text: &text,
    };
    let lines = frame(&DeviceMessage::Log(line)).repeat(16);
    let mut sent = 0;
    // Until the gateway no longer reads and both sockets are full, which hold 10 MB at most.
    while tokio::time::timeout(Duration::from_secs(1), flood.stream.write_all(&lines)).await.is_ok() {
        sent += lines.len();
        assert!(sent < FLOOD_BYTES, "the gateway took {sent} bytes and reads on");
    }
    world.metric("wasmbed_gateway_devices_slowed_total 1").await;
    neighbour.beat(1).await;
}
