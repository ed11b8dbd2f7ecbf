//! Messages that a broker hands over: what is let in, where it goes, and what is said of it.

use wasmbed_api::{BrokerReceive, BrokerReceived, ReasonCode};
use wasmbed_protocol::{
    DeliverAck, Delivery, MessageGroups, MessageSource, TopicDirection, limits::DELIVERIES_MAX,
};

use super::*;
use crate::{
    gateway::config::{
        BROKER_PATIENCE_MS, BROKER_RECEIVE_RATE, BROKER_SUBSCRIBE_MS, DELIVERIES_OF_BROKERS_MAX,
        DELIVERIES_OF_BROKERS_RATE,
    },
    gateway_api::{BrokerEntry, Delivered, PutBrokers},
};

const LIGHT: &str = "wasmbed-in/default/app-1/a/light";

fn entry() -> BrokerEntry {
    let receive = BrokerReceive {
        topics: ["light", "door/lock", "t"].map(str::to_owned).into(),
        applications: ["app-1", "app-2"].map(str::to_owned).into(),
    };
    BrokerEntry {
        broker: key("plant"),
        uid: "plant".to_owned(),
        generation: 1,
        kind: "Mqtt".to_owned(),
        url: "mqtts://broker".to_owned(),
        receive: Some(receive),
        ..BrokerEntry::default()
    }
}

/// With device `a`, which runs `default/app-1` with the topics `t` outwards and `light` inwards.
struct Plant {
    world: World,
    session: SessionId,
    connection: ConnectionId,
}

impl Plant {
    fn with(entry: BrokerEntry) -> Self {
        let config = Config { messages: Some(MessageLimits::default()), ..Config::new("gw", "boot") };
        let mut world = World::with(config);
        world.list();
        let digest = world.upload(b"module");
        world.device("a");
        let topics = [
            Topic { name: "light", direction: TopicDirection::In, per_second: 10 },
            Topic { name: "t", direction: TopicDirection::Out, per_second: 10 },
        ];
        let assigned = entry_with_topics(1, digest, 6, &topics);
        assert!(world.put(1, vec![set("a", 1, vec![assigned])]).unwrap().refused.is_empty());
        let session = world.connect(&identity("a"));
        world.send(session, &DeviceMessage::Hello(Hello { groups: Some(MessageGroups::ALL), ..hello(0, 1) }));
        world.take(session);
        let connection = connect(&mut world, entry);
        Self { world, session, connection }
    }

    fn step(&mut self) -> BrokerStep {
        self.world.gateway.broker_step(self.world.now, self.connection)
    }

    fn subscribe(&mut self) {
        assert_eq!(self.step(), BrokerStep::Subscribe("wasmbed-in/default/#".to_owned()));
        self.world.gateway.handle_broker_subscribed(self.world.now, self.connection, Ok(()));
    }

    fn arrive(&mut self, topic: &str, payload: &[u8]) -> BrokerTaken {
        let arrival = BrokerArrival { topic: topic.as_bytes(), payload };
        self.world.gateway.handle_broker_message(self.world.now, self.connection, &arrival)
    }

    fn said(&mut self) -> wasmbed_api::BrokerGateway {
        self.world.advance(5_000);
        let now = self.world.now;
        let write = self.world.gateway.poll_broker_status(now).unwrap();
        self.world.gateway.handle_broker_status(now, write.clone(), true);
        write.entry
    }

    fn received(&mut self) -> BrokerReceived {
        self.said().receive.unwrap()
    }
}

fn connect(world: &mut World, entry: BrokerEntry) -> ConnectionId {
    world.gateway.handle_leader_lease(2);
    let put = PutBrokers { leader_term: 2, brokers: vec![entry] };
    world.gateway.handle_put_brokers(world.now, put).unwrap();
    let connection = world.gateway.poll_broker(world.now).unwrap().connection;
    assert_eq!(world.gateway.broker_step(world.now, connection), BrokerStep::Connect);
    world.gateway.handle_broker_connected(world.now, connection);
    connection
}

#[test]
fn a_message_reaches_the_application_that_declares_its_topic_and_says_that_a_broker_sent_it() {
    let mut plant = Plant::with(entry());
    plant.subscribe();
    assert!(matches!(plant.step(), BrokerStep::Wait { .. }));
    let address = plant.arrive(LIGHT, b"on").address.unwrap();
    assert_eq!(
        (&address.device, &*address.application, &*address.topic),
        (&key("a"), "default/app-1", "light")
    );
    let BrokerAddress { device, application, topic } = address;
    let request = DeliveryRequest {
        id: DeliveryId(1),
        device,
        application,
        topic,
        payload: (*b"on").into(),
        source: MessageSource::Broker,
    };
    plant.world.gateway.handle_delivery(plant.world.now, request);
    plant.world.settle();
    let sent = plant.world.take(plant.session);
    assert!(sent[0].contains("topic: \"light\", payload_bytes: 2, source: Broker"), "{sent:?}");
    let ack = DeliverAck { sequence: Sequence(1), delivery: Delivery::Taken };
    plant.world.send(plant.session, &DeviceMessage::DeliverAck(ack));
    let (_, delivered) = plant.world.gateway.poll_delivered().unwrap();
    plant.world.gateway.handle_broker_delivered(
        plant.world.now,
        plant.connection,
        LIGHT.as_bytes(),
        delivered,
    );
    let wanted = BrokerReceived { subscribed: true, delivered: 1, ..BrokerReceived::default() };
    assert_eq!(plant.received(), wanted);
    assert_eq!(plant.world.gateway.broker_received(), [("Taken", 1)].into());
}

#[test]
fn nothing_comes_in_that_receive_does_not_name() {
    let mut plant = Plant::with(BrokerEntry { receive: None, ..entry() });
    assert!(matches!(plant.step(), BrokerStep::Wait { until_ms: u64::MAX }), "nothing is subscribed to");
    assert_eq!(plant.arrive(LIGHT, b"on").address, None);
    assert_eq!(plant.said().receive, None);

    let mut plant = Plant::with(entry());
    plant.subscribe();
    let large = [0; 1_025];
    let cases: [(&str, &[u8], &str); 12] = [
        // What a gateway publishes itself is nothing that comes in.
        ("wasmbed/default/app-1/a/light", b"", "InvalidTopic"),
        ("wasmbed-in/other/app-1/a/light", b"", "InvalidTopic"),
        ("wasmbed-in/default/app-1/a", b"", "InvalidTopic"),
        ("wasmbed-in/default/app-1//light", b"", "InvalidTopic"),
        ("wasmbed-in/default-2/app-1/a/light", b"", "InvalidTopic"),
        ("wasmbed-in/default/app-1/a/heater", b"", "NotNamed"),
        ("wasmbed-in/default/app-3/a/light", b"", "NotNamed"),
        ("wasmbed-in/default/app-1/a/door/lock", b"", "UnknownTopic"),
        // It is declared with direction Out.
        ("wasmbed-in/default/app-1/a/t", b"", "UnknownTopic"),
        ("wasmbed-in/default/app-2/a/light", b"", "UnknownApplication"),
        ("wasmbed-in/default/app-1/b/light", b"", "NotConnected"),
        (LIGHT, &large, "TooLarge"),
    ];
    for (number, (topic, payload, result)) in (1..).zip(cases) {
        assert_eq!(plant.arrive(topic, payload).address, None, "{topic}");
        let said = plant.received();
        let refusal = said.last_refusal.unwrap();
        assert_eq!((refusal.result.as_str(), said.refused), (result, number), "{topic}");
        assert!(refusal.message.starts_with(topic), "{refusal:?}");
    }
    // Of what a broker makes up, little is shown.
    assert_eq!(plant.arrive(&"\u{1}x".repeat(8_000), b"").address, None);
    let shown = plant.received().last_refusal.unwrap().message;
    assert!(shown.len() < 600 && shown.starts_with("\\u{1}x"), "{shown}");
}

#[test]
fn a_selector_holds_inwards_as_well() {
    let other = ApplicationUid([9; 16]).to_string();
    let mut plant = Plant::with(BrokerEntry { applications: Some(vec![other.clone()]), ..entry() });
    plant.subscribe();
    assert_eq!(plant.arrive(LIGHT, b"on").address, None);
    assert_eq!(plant.received().last_refusal.unwrap().result, "NotNamed");
    let own = ApplicationUid([1; 16]).to_string();
    let receive = BrokerReceive { applications: Vec::new(), ..entry().receive.unwrap() };
    let selecting = BrokerEntry { applications: Some(vec![other, own]), receive: Some(receive), ..entry() };
    let put = |brokers| PutBrokers { leader_term: 2, brokers };
    plant.world.gateway.handle_put_brokers(plant.world.now, put(vec![selecting.clone()])).unwrap();
    assert_eq!(plant.arrive(LIGHT, b"on").address, None, "the connection is of the definition before");
    assert_eq!(plant.step(), BrokerStep::End(None));
    plant.world.gateway.handle_broker_ended(plant.world.now, plant.connection, None);
    plant.connection = connect(&mut plant.world, selecting);
    assert!(plant.arrive(LIGHT, b"on").address.is_some());
}

#[test]
fn a_device_of_another_gateway_is_left_to_it() {
    let mut plant = Plant::with(entry());
    plant.subscribe();
    plant.world.device("b");
    plant.world.edit(&key("b"), |device| {
        let status = device.status.get_or_insert_default();
        (status.gateway, status.epoch) = (Some("other".to_owned()), Some(1));
    });
    assert_eq!(plant.arrive("wasmbed-in/default/app-1/b/light", b"on").address, None);
    assert_eq!(plant.received().refused, 0);
    assert_eq!(plant.world.gateway.broker_received(), [("Elsewhere", 1)].into());
}

#[test]
fn a_broker_is_read_no_faster_than_its_rate() {
    let mut plant = Plant::with(entry());
    for _ in 0..BROKER_RECEIVE_RATE.burst() - 1 {
        assert_eq!(plant.arrive(LIGHT, b"on").read_in_ms, 0);
    }
    plant.arrive("nonsense", b"on");
    assert!(plant.arrive("nonsense", b"on").read_in_ms > 0, "also what is refused counts");
    plant.world.advance(10_000);
    assert!((0..1_000).any(|_| plant.arrive("nonsense", &[0; 16_000]).read_in_ms > 10), "and so do bytes");
}

#[test]
fn a_subscription_that_is_refused_is_told_and_asked_for_again() {
    let mut plant = Plant::with(entry());
    let subscribe = BrokerStep::Subscribe("wasmbed-in/default/#".to_owned());
    assert_eq!(plant.step(), subscribe);
    let failure = BrokerFailure::new(ReasonCode::NotAuthorised, "no");
    plant.world.gateway.handle_broker_subscribed(plant.world.now, plant.connection, Err(failure));
    let BrokerStep::Wait { until_ms } = plant.step() else { panic!("messages go out all the same") };
    assert_eq!(until_ms, plant.world.now.ms + BROKER_SUBSCRIBE_MS);
    let said = plant.said();
    assert_eq!(said.last_error.map(|error| error.reason), Some(ReasonCode::NotAuthorised));
    assert!(said.connected && !said.receive.unwrap().subscribed);
    plant.world.advance(BROKER_SUBSCRIBE_MS);
    plant.subscribe();
    let said = plant.said();
    assert!(said.last_error.is_none() && said.receive.unwrap().subscribed);

    let mut plant = Plant::with(entry());
    assert_eq!(plant.step(), subscribe);
    plant.world.advance(BROKER_PATIENCE_MS);
    let BrokerStep::End(Some(failure)) = plant.step() else { panic!("it was not answered") };
    assert_eq!(failure.reason, ReasonCode::BrokerSilent);
}

#[test]
fn brokers_have_a_share_of_a_device_and_people_the_rest() {
    let mut plant = Plant::with(entry());
    let deliver = |plant: &mut Plant, id, source| {
        let request = DeliveryRequest {
            id: DeliveryId(id),
            device: key("a"),
            application: "default/app-1".into(),
            topic: "light".into(),
            payload: (*b"on").into(),
            source,
        };
        plant.world.gateway.handle_delivery(plant.world.now, request);
        plant.world.settle();
        plant.world.gateway.poll_delivered().map(|(_, delivered)| delivered)
    };
    for number in 0..DELIVERIES_MAX as u64 {
        let wanted = (number >= DELIVERIES_OF_BROKERS_MAX as u64).then_some(Delivered::Busy);
        assert_eq!(deliver(&mut plant, number, MessageSource::Broker), wanted);
    }
    assert_eq!(deliver(&mut plant, 100, MessageSource::Operator), None);
    // One that answers at once has a rate.
    let mut plant = Plant::with(entry());
    let burst = DELIVERIES_OF_BROKERS_RATE.burst();
    for number in 1..=burst + 1 {
        let busy = deliver(&mut plant, number, MessageSource::Broker);
        assert_eq!(busy, (number > burst).then_some(Delivered::Busy), "{number}");
        let ack = DeliverAck { sequence: Sequence(number), delivery: Delivery::Taken };
        if busy.is_none() {
            plant.world.send(plant.session, &DeviceMessage::DeliverAck(ack));
            plant.world.gateway.poll_delivered().unwrap();
        }
    }
}
