//! Messages of applications on their way to brokers that are not ours, in each case with what a MessageBroker's status says.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::Secret;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;
use tokio::net::TcpListener;
use wasmbed_api::{
    BrokerCredentials, BrokerGateway, MessageBroker, MessageBrokerSpec, ReasonCode, Topic, TopicDirection,
};
use wasmbed_control::gateway_api::MessageLine;
use wasmbed_e2e::{
    ControlPlane, Machine, TIMEOUT, application, fixtures, messages, messages_until, metric_at_least,
    mosquitto::{Mosquitto, Received, USER},
    until,
};

wasmbed_e2e::both!(messages_reach_a_broker_that_was_away_and_one_that_is_silent_harms_nobody);

const PUBLISHER: &str = "publisher";
const DEVICE: &str = "device-1";
const TOPIC: &str = "wasmbed/default/publisher/device-1/t";
const PASSWORD: &str = "right-and-secret";

/// PEM of an authority, and of a certificate for `localhost` and its key.
fn certificates() -> Result<[String; 3]> {
    // An authority is known by its name.
    let named = |name: &str| {
        let mut names = DistinguishedName::new();
        names.push(DnType::CommonName, name);
        names
    };
    let mut authority = CertificateParams::default();
    authority.distinguished_name = named("authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate()?;
    let ca = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate()?;
    let mut certificate = CertificateParams::new(["localhost".to_owned()])?;
    certificate.distinguished_name = named("broker");
    let certificate = certificate.signed_by(&key, &issuer)?;
    Ok([ca, certificate.pem(), key.serialize_pem()])
}

fn credentials(password: &str) -> Secret {
    let data = [("username", USER), ("password", password)];
    let data = data.map(|(key, value)| (key.to_owned(), k8s_openapi::ByteString(value.into()))).into();
    let mut object = Secret { data: Some(data), ..Secret::default() };
    object.metadata.name = Some("broker".to_owned());
    object
}

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
