//! Messages of applications: from a device onto the disk, and from there to whom the Kubernetes API allows them.

use base64::Engine as _;
use wasmbed_control::{
    ObjectKey,
    gateway_api::{AssignmentEntry, DeviceSet, MessageLine, PutSets},
};
use wasmbed_protocol::{
    ApplicationUid, BootCounter, DeliverAck, Delivery, DeviceMessage, Hello, List, MessageGroups,
    ModuleDigest, Publish, RestartPolicy, Sequence, Spec, SpecHash, Topic, TopicDirection, encode_spec,
};

use crate::support::*;

const MODULE: &[u8] = b"module";
const MESSAGES: &str = "/v1/messages?namespace=default";

/// The set of a device whose application has the topic `t`, and `light` inwards.
fn put(device: &str) -> Vec<u8> {
    let topics = [
        Topic { name: "light", direction: TopicDirection::In, per_second: 100 },
        Topic { name: "t", direction: TopicDirection::Out, per_second: 100 },
    ];
    let spec = Spec {
        uid: ApplicationUid([1; 16]),
        name: "default/hello",
        digest: ModuleDigest::of(MODULE),
        module_bytes: MODULE.len() as u32,
        memory_limit_bytes: 65_536,
        cpu_limit_ms: 1_000,
        restart_policy: RestartPolicy::Always,
        args: List::empty(),
        env: List::empty(),
        capabilities: List::empty(),
        values_mac: None,
        i2c: List::empty(),
        uart: List::empty(),
        gpio: List::empty(),
        spi: List::empty(),
        topics: List::new(&topics),
    };
    let mut bytes = [0; 2_900];
    let length = encode_spec(&spec, &mut bytes).unwrap();
    let entry = AssignmentEntry {
        application_uid: spec.uid.to_string(),
        application: "default/hello".into(),
        spec_hash: SpecHash::of(&bytes[..length]).to_string(),
        spec: base64::engine::general_purpose::STANDARD.encode(&bytes[..length]).into(),
        digest: spec.digest.to_string(),
        correlation_id: "0c".repeat(16),
    };
    let device = ObjectKey { namespace: "default".into(), name: device.into() };
    let sets = vec![DeviceSet { device, revision: 1, assignments: vec![entry] }];
    serde_json::to_vec(&PutSets { leader_term: 1, sets }).unwrap()
}

pub(crate) async fn world() -> (World, DeviceClient) {
    world_with(hello(0, 0)).await
}

/// With a device that says this.
pub(crate) async fn world_with(hello: Hello<'_>) -> (World, DeviceClient) {
    let world = World::start().await;
    let identity = world.enroll("a").await;
    let mut device = world.connect_device_as(&identity, hello).await;
    let mut http = world.controller().await;
    let module = format!("/v1/modules/{}", ModuleDigest::of(MODULE));
    assert_eq!(http.call("PUT", &module, MODULE).await.0, 201);
    assert_eq!(http.call("PUT", "/v1/sets", put("a")).await.1["refused"], serde_json::json!([]));
    assert!(device.next().await.unwrap().starts_with("Desired"));
    (world, device)
}

/// Publishes, and waits for the acknowledgement of the last message.
pub(crate) async fn publish(device: &mut DeviceClient, messages: &[(u64, &[u8])]) {
    for (sequence, payload) in messages {
        let publish = Publish {
            uid: ApplicationUid([1; 16]),
            boot: BootCounter(3),
            sequence: Sequence(*sequence),
            messages_lost: 0,
            topic: "t",
            payload,
        };
        device.send(&DeviceMessage::Publish(publish)).await.unwrap();
    }
    let last = messages.last().unwrap().0;
    let wanted = format!("sequence: Sequence({last}) }})");
    soon("the acknowledgement", async {
        loop {
            let said = device.next().await.unwrap();
            assert!(said.starts_with("PublishAck"), "{said}");
            if said.ends_with(&wanted) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_read_by_people_also_after_a_restart() {
    let (mut world, mut device) = world().await;
    publish(&mut device, &[(1, b"21.5"), (2, &[0xff, 0])]).await;
    let path = format!("{MESSAGES}&application=hello&device=a&topic=t&follow=true");
    let mut lines = Lines::new(world.administrator().await.open("GET", &path, "").await);
    let first = lines.next::<MessageLine>().await.unwrap();
    assert_eq!((first.topic.as_str(), first.text.as_deref()), ("t", Some("21.5")));
    assert_eq!((first.application.as_str(), first.device.name.as_str()), ("default/hello", "a"));
    assert_eq!((first.boot, first.sequence), (3, 1));
    let second = lines.next::<MessageLine>().await.unwrap();
    assert_eq!((second.payload.as_str(), second.text), ("/wA=", None));
    publish(&mut device, &[(3, b"21.6")]).await;
    let third = lines.next::<MessageLine>().await.unwrap();
    assert_eq!(third.text.as_deref(), Some("21.6"), "it is followed");
    world.metric("wasmbed_gateway_messages_total 3").await;

    world.stop_gateway().await;
    world.start_gateway(|_| {}).await;
    world.wait_ready().await;
    let path = format!("{MESSAGES}&after={}", first.number);
    let mut lines = Lines::new(world.administrator().await.open("GET", &path, "").await);
    for sequence in [2, 3] {
        assert_eq!(lines.next::<MessageLine>().await.unwrap().sequence, sequence);
    }
    assert!(lines.next::<MessageLine>().await.is_none());
    for nothing in ["&topic=u", "&application=other", "&device=b", "&since=2100-01-01T00:00:00Z"] {
        let path = format!("{MESSAGES}{nothing}");
        let mut lines = Lines::new(world.administrator().await.open("GET", &path, "").await);
        assert!(lines.next::<MessageLine>().await.is_none(), "{nothing}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_for_whom_the_api_allows_them() {
    let (world, _device) = world().await;
    let mut ada = world.person("ada", "wasmbed:operators").await;
    assert_eq!(ada.call("GET", MESSAGES, "").await.0, 200);
    let mut eve = world.person("eve", "system:authenticated").await;
    for (query, action) in [
        ("namespace=lab&application=a", "get devices/messages in the namespace \"lab\""),
        ("namespace=lab&device=d", "get devices/messages \"d\" in the namespace \"lab\""),
        ("", "get devices/messages in all namespaces"),
    ] {
        let (status, refusal) = eve.call("GET", &format!("/v1/messages?{query}"), "").await;
        assert_eq!((status, refusal["reason"].as_str()), (403, Some("Forbidden")));
        let message = refusal["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("user \"eve\" may not {action}: ")), "{message}");
        assert!(message.contains("resources: [devices/messages]"), "{message}");
    }
    assert_eq!(world.controller().await.call("GET", MESSAGES, "").await.0, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_without_an_outbox_says_that_it_has_none() {
    let world = World::start_with(|config| config.messages = None).await;
    let (status, refusal) = world.administrator().await.call("GET", MESSAGES, "").await;
    assert_eq!((status, refusal["reason"].as_str()), (404, Some("NoMessages")));
}

fn message(devices: &[&str], payload: &str) -> String {
    let message = serde_json::json!({
        "namespace": "default", "application": "hello", "devices": devices, "topic": "light", "payload": payload,
    });
    message.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_goes_to_a_device_and_its_answer_comes_back() {
    let groups = Some(MessageGroups::ALL);
    let (world, mut device) = world_with(Hello { groups, ..hello(0, 0) }).await;
    let mut ada = world.administrator().await;
    let body = message(&["a", "b"], "b24=");
    let call = ada.call("POST", "/v1/messages", body);
    let answer = async {
        loop {
            let said = device.next().await.unwrap();
            if said.starts_with("Deliver(") {
                assert!(said.contains("topic: \"light\", payload_bytes: 2, source: Operator"), "{said}");
                break;
            }
        }
        let ack = DeliverAck { sequence: Sequence(1), delivery: Delivery::Taken };
        device.send(&DeviceMessage::DeliverAck(ack)).await.unwrap();
    };
    let ((status, answer), ()) = tokio::join!(call, answer);
    let both = serde_json::json!({ "devices": [
        { "device": "a", "delivered": "Taken" }, { "device": "b", "delivered": "NotConnected" },
    ] });
    assert_eq!((status, answer), (200, both));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_come_from_whom_the_api_allows_it_and_within_their_bounds() {
    let (world, _device) = world().await;
    let mut ada = world.administrator().await;
    // Its hello says nothing of deliveries.
    let (status, answer) = ada.call("POST", "/v1/messages", message(&["a"], "")).await;
    assert_eq!((status, answer["devices"][0]["delivered"].as_str()), (200, Some("Unsupported")));
    let many = ["a"; 257];
    let long = base64::engine::general_purpose::STANDARD.encode([0; 1_025]);
    for wrong in
        [message(&[], ""), message(&many, ""), message(&["a"], "?"), message(&["a"], &long), "{}".into()]
    {
        let (status, refusal) = ada.call("POST", "/v1/messages", wrong.clone()).await;
        assert_eq!((status, refusal["reason"].as_str()), (400, Some("Invalid")), "{wrong}");
    }
    assert_eq!(ada.call("POST", "/v1/messages", vec![b' '; 130 * 1_024]).await.0, 413);
    // Who may read may not write.
    let mut reader = world.person("bob", "wasmbed:operators").await;
    for (devices, action) in [
        (&["a"][..], "create devices/messages \"a\" in the namespace \"default\""),
        (&["a", "b"], "create devices/messages in the namespace \"default\""),
    ] {
        let (status, refusal) = reader.call("POST", "/v1/messages", message(devices, "")).await;
        assert_eq!(status, 403);
        let said = refusal["message"].as_str().unwrap();
        assert!(said.starts_with(&format!("user \"bob\" may not {action}: ")), "{said}");
    }
    assert_eq!(world.controller().await.call("POST", "/v1/messages", message(&["a"], "")).await.0, 403);
}
