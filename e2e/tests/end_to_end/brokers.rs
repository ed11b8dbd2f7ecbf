//! Messages of applications on their way to brokers that are not ours, in each case with what a MessageBroker's status says.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use tokio::net::TcpListener;
use wasmbed_api::{
    Application, ApplicationPhase, BrokerCredentials, BrokerGateway, BrokerReceive, BrokerReceived,
    MessageBroker, MessageBrokerSpec, ReasonCode, Topic, TopicDirection,
};
use wasmbed_control::gateway_api::MessageLine;
use wasmbed_e2e::{
    ControlPlane, Machine, TIMEOUT, application, fixtures, messages, messages_until, metric_at_least,
    mosquitto::{Mosquitto, Received, certificates, credentials},
    until,
};

wasmbed_e2e::both!(
    messages_reach_a_broker_that_was_away_and_one_that_is_silent_harms_nobody,
    commands_come_in_where_receive_says_so,
);

const PUBLISHER: &str = "publisher";
const DEVICE: &str = "device-1";
const TOPIC: &str = "wasmbed/default/publisher/device-1/t";
const PASSWORD: &str = "right-and-secret";

/// Waits until what the gateway says of a broker is as `wanted` says.
async fn says(
    machine: &Machine,
    broker: &str,
    what: &str,
    wanted: impl Fn(&BrokerGateway) -> bool,
) -> Result<BrokerGateway> {
    let of_gateway =
        |broker: &MessageBroker| broker.status.as_ref().and_then(|status| status.gateways.first().cloned());
    let found: MessageBroker = until(machine.client(), "default", broker, what, |broker| {
        of_gateway(broker).is_some_and(|entry| wanted(&entry))
    })
    .await?;
    of_gateway(&found).context("an entry")
}

fn fails(entry: &BrokerGateway, reason: ReasonCode) -> bool {
    !entry.connected && entry.last_error.as_ref().is_some_and(|error| error.reason == reason)
}

/// Accepts connections and says nothing.
async fn silent() -> Result<(u16, tokio::task::JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    Ok((port, held))
}

async fn start(plane: ControlPlane) -> Result<(Machine, Mosquitto)> {
    let mut machine = Machine::start(plane).await?;
    let certificates = certificates()?;
    let mosquitto = Mosquitto::new(machine.dir(), PASSWORD, certificates.each_ref().map(String::as_str))?;
    machine.add_device(DEVICE).await?;
    machine.connected(DEVICE).await?;
    let spec = MessageBrokerSpec {
        url: mosquitto.url(),
        ca: Some(certificates[0].clone()),
        credentials: Some(BrokerCredentials { secret: "broker".to_owned() }),
        ..MessageBrokerSpec::default()
    };
    machine.create(&MessageBroker::new("mosquitto", spec)).await?;
    Ok((machine, mosquitto))
}

async fn messages_reach_a_broker_that_was_away_and_one_that_is_silent_harms_nobody(
    plane: ControlPlane,
) -> Result<()> {
    let (mut machine, mut mosquitto) = start(plane).await?;
    mosquitto.start()?;
    mosquitto.subscribe()?;
    says(&machine, "mosquitto", "no Secret", |entry| fails(entry, ReasonCode::SecretNotFound)).await?;
    machine.create(&credentials("wrong")).await?;
    touch(&machine, "t").await?;
    says(&machine, "mosquitto", "the wrong password", |entry| fails(entry, ReasonCode::NotAuthorised))
        .await?;

    let (port, silent) = silent().await?;
    let spec = MessageBrokerSpec { url: format!("mqtt://127.0.0.1:{port}"), ..MessageBrokerSpec::default() };
    machine.create(&MessageBroker::new("silent", spec)).await?;
    let [other, ..] = certificates()?;
    let spec = MessageBrokerSpec { url: mosquitto.url(), ca: Some(other), ..MessageBrokerSpec::default() };
    machine.create(&MessageBroker::new("stranger", spec)).await?;
    publish(&machine).await?;
    let data = json!({ "data": { "password": STANDARD.encode(PASSWORD) } });
    machine.merge::<Secret>("broker", data).await?;
    touch(&machine, "u").await?;
    says(&machine, "mosquitto", "connected", |entry| {
        entry.connected
            && entry.sent >= 20
            && entry.last_error.is_none()
            && entry.observed_generation == Some(3)
    })
    .await?;

    says(&machine, "stranger", "another authority", |entry| fails(entry, ReasonCode::BrokerUntrusted))
        .await?;
    // Nobody takes anything, and the gateway is killed.
    mosquitto.stop()?;
    says(&machine, "mosquitto", "away", |entry| fails(entry, ReasonCode::BrokerUnreachable)).await?;
    machine.kill("gateway")?;
    machine.start_gateway()?;
    let before = messages_until(&machine, PUBLISHER, "50 messages", |found| found.len() >= 50).await?.len();
    messages_until(&machine, PUBLISHER, "20 more", |found| found.len() >= before + 20).await?;
    let waits = |entry: &BrokerGateway| entry.waiting_messages.is_some_and(|waiting| waiting >= 20);
    says(&machine, "mosquitto", "what waits", waits).await?;
    says(&machine, "silent", "it does not answer", |entry| {
        fails(entry, ReasonCode::BrokerUnreachable) && waits(entry) && entry.sent == 0
    })
    .await?;
    let published = messages(&machine, PUBLISHER)?;
    mosquitto.start()?;
    let received = arrived(&mosquitto, &published).await?;
    check(&received)?;
    says(&machine, "mosquitto", "it has caught up", |entry| {
        entry.connected
            && entry.last_error.is_none()
            && entry.dropped == 0
            && entry.waiting_messages < Some(20)
    })
    .await?;
    metric_at_least(machine.gateway_health(), "wasmbed_gateway_broker_messages_total{type=\"Mqtt\"}", 20.0)
        .await?;
    silent.abort();
    for name in ["gateway", "controller"] {
        let printed = machine.process(name)?.printed()?;
        ensure!(
            !printed.is_empty() && !printed.contains(PASSWORD),
            "the log of the {name} shows the password"
        );
    }
    Ok(())
}

/// `guests/relay`: switches a pin as the topic `light` says, and publishes what the pin is.
const RELAY: &[u8] = include_bytes!("../../../guests/prebuilt/relay.wasm");

async fn commands_come_in_where_receive_says_so(plane: ControlPlane) -> Result<()> {
    let (machine, mut mosquitto) = start(plane).await?;
    mosquitto.start()?;
    mosquitto.subscribe()?;
    machine.create(&credentials(PASSWORD)).await?;
    let topic = |name: &str, direction| Topic { name: name.to_owned(), direction, per_second: 10 };
    let mut relay = application("relay", RELAY, &[DEVICE]);
    relay.spec.config.capabilities = vec!["gpio".to_owned(), "messages".to_owned()];
    relay.spec.config.topics =
        vec![topic("light", TopicDirection::In), topic("light/state", TopicDirection::Out)];
    machine.create(&relay).await?;
    let runs = |application: &Application| {
        application.status.as_ref().is_some_and(|status| status.phase == ApplicationPhase::Running)
    };
    machine.application("relay", "running", runs).await?;
    let connected = |entry: &BrokerGateway| entry.connected && entry.receive.is_none();
    says(&machine, "mosquitto", "connected", connected).await?;
    // Nothing is subscribed to.
    const LIGHT: &str = "wasmbed-in/default/relay/device-1/light";
    mosquitto.publish(LIGHT, "on")?;
    let receive = BrokerReceive { topics: vec!["light".to_owned()], applications: vec!["relay".to_owned()] };
    machine.merge::<MessageBroker>("mosquitto", json!({ "spec": { "receive": receive } })).await?;
    let received = |entry: &BrokerGateway| entry.receive.clone().unwrap_or_default();
    says(&machine, "mosquitto", "subscribed", |entry| received(entry).subscribed).await?;
    mosquitto.publish(LIGHT, "off")?;
    states(&mosquitto, &["off"]).await?;
    mosquitto.publish(LIGHT, "on")?;
    states(&mosquitto, &["off", "on"]).await?;
    // What goes out does not come in, and what is not for it is told.
    mosquitto.publish("wasmbed/default/relay/device-1/light", "off")?;
    for (number, (topic, payload, result)) in (1..).zip([
        ("relay/device-1/light/state", "off", "NotNamed"),
        ("other/device-1/light", "off", "NotNamed"),
        ("relay/device-2/light", "off", "NotConnected"),
        ("relay/device-1/light", &"x".repeat(1_025), "TooLarge"),
        ("relay/device-1", "off", "InvalidTopic"),
    ]) {
        mosquitto.publish(&format!("wasmbed-in/default/{topic}"), payload)?;
        let told = |received: &BrokerReceived| {
            received.refused == number && received.last_refusal.as_ref().is_some_and(|it| it.result == result)
        };
        says(&machine, "mosquitto", result, |entry| told(&received(entry))).await?;
    }
    mosquitto.publish(LIGHT, "off")?;
    states(&mosquitto, &["off", "on", "off"]).await?;
    says(&machine, "mosquitto", "three were delivered", |entry| received(entry).delivered == 3).await?;
    // Both come back: it is subscribed to again.
    mosquitto.stop()?;
    says(&machine, "mosquitto", "away", |entry| !entry.connected).await?;
    mosquitto.start()?;
    says(&machine, "mosquitto", "subscribed again", |entry| received(entry).subscribed).await?;
    mosquitto.publish(LIGHT, "on")?;
    states(&mosquitto, &["off", "on", "off", "on"]).await
}

/// Waits until the relay has said that its light was these, one after the other.
async fn states(mosquitto: &Mosquitto, wanted: &[&str]) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let received = mosquitto.received()?;
        let states = received.iter().filter(|message| message.topic.ends_with("/light/state"));
        let states: Vec<&str> = states.map(|message| message.payload.as_str()).collect();
        if states == wanted {
            return Ok(());
        }
        ensure!(Instant::now() < deadline && states.len() <= wanted.len(), "{states:?}, not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until all of these arrived, and gives all that did.
async fn arrived(mosquitto: &Mosquitto, published: &[MessageLine]) -> Result<Vec<Received>> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let received = mosquitto.received()?;
        let ids: BTreeSet<_> = received.iter().map(id).collect::<Result<_>>()?;
        let has = |line: &&MessageLine| ids.contains(&(line.device_uid.as_str(), line.boot, line.sequence));
        let count = published.iter().filter(has).count();
        if count == published.len() {
            return Ok(received);
        }
        ensure!(Instant::now() < deadline, "{count} of {} messages arrived in time", published.len());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A change at which its Secret is read.
async fn touch(machine: &Machine, topic: &str) -> Result<()> {
    let topics = BTreeSet::from(["t", topic]);
    let change = json!({ "spec": { "topics": topics } });
    machine.merge::<MessageBroker>("mosquitto", change).await.map(drop)
}

async fn publish(machine: &Machine) -> Result<()> {
    let mut publisher = application(PUBLISHER, &fixtures::publisher(20), &[DEVICE]);
    publisher.spec.config.capabilities = vec!["messages".to_owned()];
    publisher.spec.config.topics =
        vec![Topic { name: "t".to_owned(), direction: TopicDirection::Out, per_second: 100 }];
    machine.create(&publisher).await.map(drop)
}

/// What tells a message from others.
fn id(message: &Received) -> Result<(&str, u64, u64)> {
    let property = |name| message.property(name).with_context(|| format!("no {name} in {message:?}"));
    Ok((property("device_uid")?, property("boot")?.parse()?, property("sequence")?.parse()?))
}

/// Each message is there, in its order, and what is there twice has the same identity.
fn check(received: &[Received]) -> Result<()> {
    let mut by_id: BTreeMap<(&str, u64, u64), &str> = BTreeMap::new();
    for message in received {
        ensure!(message.topic == TOPIC, "{message:?}");
        ensure!(message.property("time").is_some_and(|time| time.ends_with('Z')), "{message:?}");
        let before = by_id.insert(id(message)?, &message.payload);
        ensure!(before.is_none_or(|before| before == message.payload), "{message:?} and {before:?}");
    }
    let payloads: Vec<u32> = by_id.values().map(|payload| payload.parse()).collect::<Result<_, _>>()?;
    let wanted: Vec<u32> = (10_000..).take(payloads.len()).collect();
    ensure!(payloads == wanted, "{payloads:?} were received");
    Ok(())
}
