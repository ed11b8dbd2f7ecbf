//! Brokers that hand over messages: to devices that answer, and without keeping to what they were told.

use std::time::{Duration, Instant};

use kube::{Api, api::PostParams};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use wasmbed_api::{
    BrokerFormat, BrokerGateway, BrokerReceive, BrokerType, MessageBroker, MessageBrokerSpec, ReasonCode,
};
use wasmbed_control::{
    ObjectKey,
    gateway_api::{BrokerEntry, PutBrokers},
};
use wasmbed_protocol::{DeliverAck, Delivery, DeviceMessage, Hello, MessageGroups, Sequence};

use crate::{messages::world_with, support::*};

const LIGHT: &str = "wasmbed-in/default/hello/a/light";
const CONNACK: &[u8] = &[0x20, 3, 0, 0, 0];
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;

/// A packet of MQTT 5.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128 * 128);
    let (low, high) = ((body.len() % 128) as u8, (body.len() / 128) as u8);
    let length = if high > 0 { vec![low | 0x80, high] } else { vec![low] };
    [&[first], &length[..], body].concat()
}

/// A PUBLISH with these properties.
fn publish(topic: &str, qos: u8, id: u16, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let id = if qos > 0 { id.to_be_bytes().to_vec() } else { Vec::new() };
    let length = (topic.len() as u16).to_be_bytes();
    let body = [&length, topic.as_bytes(), &id, &[properties.len() as u8], properties, payload].concat();
    packet(0x30 | (qos << 1), &body)
}

async fn read_packet(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let first = stream.read_u8().await?;
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let byte = stream.read_u8().await?;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((first, body))
}

/// Answers each connection's subscription with this code, then says `after`, once or again and again; tells of packets that come then.
async fn peer(code: u8, after: Vec<u8>, endless: bool) -> (u16, mpsc::UnboundedReceiver<(u8, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (after, sender) = (after.clone(), sender.clone());
            tokio::spawn(async move {
                let (first, body) = read_packet(&mut stream).await?;
                sender.send((first, body)).ok();
                stream.write_all(CONNACK).await?;
                let (first, body) = read_packet(&mut stream).await?;
                assert_eq!(first, SUBSCRIBE);
                sender.send((first, body.clone())).ok();
                stream.write_all(&packet(0x90, &[body[0], body[1], 0, code])).await?;
                stream.write_all(&after).await?;
                if endless {
                    loop {
                        stream.write_all(&after).await?;
                    }
                }
                while let Ok(packet) = read_packet(&mut stream).await {
                    sender.send(packet).ok();
                }
                std::io::Result::Ok(())
            });
        }
    });
    (port, receiver)
}

/// Has the gateway connect to a broker, which may hand over messages of the topic `light`.
async fn broker(world: &World, name: &str, port: u16) {
    let brokers: Api<MessageBroker> = Api::namespaced(world.admin.clone(), "default");
    let url = format!("mqtt://127.0.0.1:{port}");
    let receive = Some(BrokerReceive { topics: vec!["light".to_owned()], applications: Vec::new() });
    let spec =
        MessageBrokerSpec { url: url.clone(), receive: receive.clone(), ..MessageBrokerSpec::default() };
    let made = brokers.create(&PostParams::default(), &MessageBroker::new(name, spec)).await.unwrap();
    let entry = BrokerEntry {
        broker: ObjectKey::new("default", name),
        uid: made.metadata.uid.unwrap(),
        generation: 1,
        kind: "Mqtt".to_owned(),
        url,
        receive,
        ..BrokerEntry::default()
    };
    let body = serde_json::to_vec(&PutBrokers { leader_term: 1, brokers: vec![entry] }).unwrap();
    assert_eq!(world.controller().await.call("PUT", "/v1/brokers", body).await.0, 200);
}

/// What the gateway says of a broker, once it says this.
async fn said(world: &World, name: &str, wanted: impl Fn(&BrokerGateway) -> bool) -> BrokerGateway {
    let brokers: Api<MessageBroker> = Api::namespaced(world.admin.clone(), "default");
    soon("the status", async {
        loop {
            let status = brokers.get(name).await.unwrap().status.unwrap_or_default();
            if let Some(entry) = status.gateways.into_iter().next().filter(&wanted) {
                return entry;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

async fn world() -> (World, DeviceClient) {
    world_with(Hello { groups: Some(MessageGroups::ALL), ..hello(0, 0) }).await
}

async fn delivered(device: &mut DeviceClient) -> String {
    loop {
        let said = device.next().await.unwrap();
        if said.starts_with("Deliver(") {
            return said;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_s_message_is_acknowledged_once_the_device_has_it() {
    let (world, mut device) = world().await;
    let elsewhere = publish("wasmbed-in/default/hello/b/light", 1, 8, &[], b"on");
    let (port, mut packets) = peer(1, [publish(LIGHT, 1, 7, &[], b"on"), elsewhere].concat(), false).await;
    broker(&world, "plant", port).await;
    let (_, connect) = packets.recv().await.unwrap();
    assert_eq!(connect[7] & 2, 0, "what was not acknowledged is kept");
    let has = |property: &[u8]| connect.windows(property.len()).any(|window| window == property);
    assert!(has(&[0x11, 0, 0, 0, 60]) && has(&[0x21, 0, 128]), "for a minute, and 128 messages: {connect:?}");
    let (_, subscribed) = packets.recv().await.unwrap();
    // QoS 1, and nothing that was retained.
    assert!(subscribed.ends_with(b"wasmbed-in/default/#\x21"), "{subscribed:?}");
    let said_of_it = delivered(&mut device).await;
    assert!(said_of_it.contains("topic: \"light\", payload_bytes: 2, source: Broker"), "{said_of_it}");
    assert!(packets.try_recv().is_err(), "the device has not answered");
    let ack = DeliverAck { sequence: Sequence(1), delivery: Delivery::Taken };
    device.send(&DeviceMessage::DeliverAck(ack)).await.unwrap();
    for id in [7, 8] {
        let (first, body) = soon("the acknowledgement", packets.recv()).await.unwrap();
        assert_eq!((first, &body[..2]), (PUBACK, &[0, id][..]));
    }
    let entry = said(&world, "plant", |entry| {
        entry.receive.as_ref().is_some_and(|received| received.delivered + received.refused == 2)
    })
    .await;
    let received = entry.receive.unwrap();
    assert_eq!((received.subscribed, received.delivered, received.refused), (true, 1, 1));
    assert_eq!(received.last_refusal.unwrap().result, "NotConnected");
    world.metric("wasmbed_gateway_broker_messages_received_total{result=\"Taken\"} 1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_does_not_answer_delays_an_acknowledgement_for_a_moment() {
    let (world, mut device) = world().await;
    let other = publish("wasmbed-in/default/hello/b/light", 1, 2, &[], b"on");
    let (port, mut packets) = peer(1, [publish(LIGHT, 1, 1, &[], b"on"), other].concat(), false).await;
    broker(&world, "plant", port).await;
    delivered(&mut device).await;
    packets.recv().await.unwrap();
    packets.recv().await.unwrap();
    for id in [1, 2] {
        let (first, body) = soon("the acknowledgement", packets.recv()).await.unwrap();
        assert_eq!((first, &body[..2]), (PUBACK, &[0, id][..]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hands_over_what_it_may_not_ends_its_own_connection() {
    let (world, mut device) = world().await;
    // The device answers none, and the broker waits for no acknowledgement.
    let flood: Vec<u8> = (1..=200).flat_map(|id| publish(LIGHT, 1, id, &[], b"on")).collect();
    let (port, _packets) = peer(1, flood, false).await;
    broker(&world, "flood", port).await;
    world.metric("wasmbed_gateway_broker_failures_total{type=\"Mqtt\"} 1").await;
    let cases =
        [("alias", publish(LIGHT, 0, 0, &[0x23, 0, 1], b"on")), ("twice", publish(LIGHT, 2, 1, &[], b"on"))];
    for (name, after) in cases {
        let (port, _packets) = peer(1, after, false).await;
        broker(&world, name, port).await;
        let entry = said(&world, name, |entry| !entry.connected && entry.last_error.is_some()).await;
        let error = entry.last_error.unwrap();
        assert_eq!(error.reason, ReasonCode::BrokerRefused, "{name}: {error:?}");
    }
    let (port, _packets) = peer(0x87, Vec::new(), false).await;
    broker(&world, "rights", port).await;
    let entry = said(&world, "rights", |entry| entry.last_error.is_some()).await;
    let error = entry.last_error.unwrap();
    assert_eq!((entry.connected, error.reason), (true, ReasonCode::NotAuthorised), "{error:?}");
    assert!(error.message.ends_with("subscribe to wasmbed-in/default/#"), "{error:?}");
    device.beat(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_received_is_refused_by_the_api() {
    let world = World::start().await;
    let brokers: Api<MessageBroker> = Api::namespaced(world.admin.clone(), "default");
    let with = |topics: &[&str], applications: &[&str]| MessageBrokerSpec {
        url: "mqtts://broker".to_owned(),
        receive: Some(BrokerReceive {
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            applications: applications.iter().map(|name| (*name).to_owned()).collect(),
        }),
        ..MessageBrokerSpec::default()
    };
    let webhook = MessageBrokerSpec {
        broker: BrokerType::Webhook,
        format: BrokerFormat::Json,
        url: "https://ingest.example".to_owned(),
        ..with(&["t"], &[])
    };
    let cases = [
        (webhook, "receive belongs to the type Mqtt"),
        (with(&[], &[]), "spec.receive.topics"),
        (with(&["door/+"], &[]), "spec.receive.topics[0]"),
        (with(&["t", "t"], &[]), "spec.receive.topics[1]"),
        (with(&["t"], &["a/b"]), "spec.receive.applications[0]"),
    ];
    for (spec, wanted) in cases {
        let refused =
            brokers.create(&PostParams::default(), &MessageBroker::new("bad", spec)).await.unwrap_err();
        assert!(refused.to_string().contains(wanted), "{refused}");
    }
    let good = with(&["door/lock"], &["relay"]);
    brokers.create(&PostParams::default(), &MessageBroker::new("good", good)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_without_end_is_read_at_its_rate() {
    let (world, mut device) = world().await;
    let (port, _packets) = peer(1, publish("wasmbed-in/default/hello", 0, 0, &[], b"on"), true).await;
    let started = Instant::now();
    broker(&world, "endless", port).await;
    let count = async || {
        let metrics = world.plain("/metrics").await;
        let name = "wasmbed_gateway_broker_messages_received_total{result=\"InvalidTopic\"} ";
        metrics.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok()).unwrap_or(0)
    };
    soon("the burst", async {
        while count().await < 1_500 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    device.beat(1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (read, elapsed) = (count().await, started.elapsed());
    // A burst, a thousand a second, and what was read at once.
    assert!(u128::from(read) <= 1_000 + elapsed.as_millis() + 10, "{read} in {elapsed:?}");
    let entry =
        said(&world, "endless", |entry| entry.receive.as_ref().is_some_and(|it| it.refused > 0)).await;
    assert_eq!(entry.receive.unwrap().last_refusal.unwrap().result, "InvalidTopic");
}
