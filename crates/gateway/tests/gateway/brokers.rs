//! Brokers that are none, and what a gateway says of them.

use kube::{Api, api::PostParams};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use wasmbed_api::{BrokerGateway, MessageBroker, MessageBrokerSpec, ReasonCode};
use wasmbed_control::gateway_api::{BrokerEntry, PutBrokers};

use crate::support::*;

/// Answers every connection with the same bytes, whatever it is asked, and counts them.
async fn peer(answer: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut asked = [0; 1_024];
                let _ = stream.read(&mut asked).await;
                let _ = stream.write_all(&answer).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    port
}

/// A CONNACK of MQTT 5 with this reason code and no properties.
fn connack(code: u8) -> Vec<u8> {
    vec![0x20, 3, 0, code, 0]
}

async fn create(world: &World, name: &str, url: &str) -> BrokerEntry {
    let brokers: Api<MessageBroker> = Api::namespaced(world.admin.clone(), "default");
    let spec = MessageBrokerSpec { url: url.to_owned(), ..MessageBrokerSpec::default() };
    let made = brokers.create(&PostParams::default(), &MessageBroker::new(name, spec)).await.unwrap();
    BrokerEntry {
        broker: wasmbed_control::ObjectKey::new("default", name),
        uid: made.metadata.uid.unwrap(),
        generation: 1,
        kind: "Mqtt".to_owned(),
        url: url.to_owned(),
        ..BrokerEntry::default()
    }
}

/// Puts these brokers, and gives what the gateway says of the first once it says this of it.
async fn said(world: &World, entry: BrokerEntry, reason: Option<ReasonCode>) -> BrokerGateway {
    let name = entry.broker.name.clone();
    let body = serde_json::to_vec(&PutBrokers { leader_term: 1, brokers: vec![entry] }).unwrap();
    assert_eq!(world.controller().await.call("PUT", "/v1/brokers", body).await.0, 200);
    let brokers: Api<MessageBroker> = Api::namespaced(world.admin.clone(), "default");
    soon("the status", async {
        loop {
            let status = brokers.get(&name).await.unwrap().status.unwrap_or_default();
            let entry = status.gateways.into_iter().next().unwrap_or_default();
            if entry.last_error.as_ref().map(|error| error.reason) == reason
                && entry.connected == reason.is_none()
            {
                return entry;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_of_a_broker_ends_its_own_connection() {
    let world = World::start().await;
    let mut device = world.device("a").await;
    let cases = [
        ("noise", vec![0xff; 100_000], ReasonCode::BrokerRefused),
        ("password", connack(0x86), ReasonCode::NotAuthorised),
        ("rights", connack(0x87), ReasonCode::NotAuthorised),
        ("busy", connack(0x89), ReasonCode::BrokerRefused),
        // An acknowledgement of what was never sent.
        ("acknowledged", [connack(0), vec![0x40, 2, 0, 9]].concat(), ReasonCode::BrokerRefused),
        // A packet of 256 MiB.
        ("large", [connack(0), vec![0x30, 0xff, 0xff, 0xff, 0x7f]].concat(), ReasonCode::BrokerRefused),
    ];
    for (name, answer, reason) in cases {
        let port = peer(answer).await;
        let entry = create(&world, name, &format!("mqtt://127.0.0.1:{port}")).await;
        let entry = said(&world, entry, Some(reason)).await;
        assert_eq!((entry.gateway.as_str(), entry.observed_generation), ("gw", Some(1)), "{name}");
    }
    let port = peer(connack(0)).await;
    let entry = create(&world, "good", &format!("mqtt://127.0.0.1:{port}")).await;
    assert_eq!(said(&world, entry, None).await.waiting_messages, Some(0));
    let tls = create(&world, "plain", &format!("mqtts://127.0.0.1:{port}")).await;
    let entry = BrokerEntry { ca: Some(world.authorities.services_root_pem().to_owned()), ..tls.clone() };
    said(&world, entry, Some(ReasonCode::BrokerUntrusted)).await;
    let entry = BrokerEntry { ca: Some("no certificate".to_owned()), generation: 2, ..tls };
    said(&world, entry, Some(ReasonCode::BrokerInvalid)).await;
    let entry = create(&world, "nobody", "mqtt://127.0.0.1:1").await;
    said(&world, entry, Some(ReasonCode::BrokerUnreachable)).await;
    // Devices notice nothing.
    device.beat(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_are_a_controller_s_to_put() {
    let world = World::start().await;
    let body = serde_json::to_vec(&PutBrokers { leader_term: 1, brokers: Vec::new() }).unwrap();
    assert_eq!(world.administrator().await.call("PUT", "/v1/brokers", body).await.0, 403);
    let (status, refusal) = world.controller().await.call("PUT", "/v1/brokers", "{}").await;
    assert_eq!((status, refusal["reason"].as_str()), (400, Some("Invalid")));
}
