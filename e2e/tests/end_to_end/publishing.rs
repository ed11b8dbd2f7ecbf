//! What applications publish reaches the gateway's disk and whoever may read it, also where the gateway is killed meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use wasmbed_api::{Application, ApplicationPhase, Topic, TopicDirection};
use wasmbed_control::gateway_api::MessageLine;
use wasmbed_e2e::{ControlPlane, Machine, application, fixtures, messages, messages_until, publish, run};

const PUBLISHER: &str = "publisher";
const DEVICES: [&str; 3] = ["device-1", "device-2", "device-3"];

#[test]
fn what_was_published_arrives_whoever_is_killed() -> Result<()> {
    run(published())
}

/// `guests/relay`: switches a pin as the topic `light` says, and publishes what the pin is.
const RELAY: &[u8] = include_bytes!("../../../guests/prebuilt/relay.wasm");

#[test]
fn what_is_sent_to_an_application_is_obeyed_at_once_and_who_sent_it_is_told() -> Result<()> {
    run(sent())
}

async fn sent() -> Result<()> {
    let mut machine = Machine::start(ControlPlane::Embedded).await?;
    for device in ["device-1", "device-2"] {
        machine.add_device(device).await?;
        machine.connected(device).await?;
    }
    let topic = |name: &str, direction| Topic { name: name.to_owned(), direction, per_second: 10 };
    let mut relay = application("relay", RELAY, &["device-1"]);
    relay.spec.config.capabilities = vec!["gpio".to_owned(), "messages".to_owned()];
    relay.spec.config.topics =
        vec![topic("light", TopicDirection::In), topic("light/state", TopicDirection::Out)];
    machine.create(&relay).await?;
    let runs = |application: &Application| {
        application.status.as_ref().is_some_and(|status| status.phase == ApplicationPhase::Running)
    };
    machine.application("relay", "running", runs).await?;
    let (told, error) = publish(&machine, &["relay", "light", "on", "--device", "device-1"])?;
    ensure!((told.as_str(), error.as_str()) == ("device/device-1 has it\n", ""), "{told} {error}");
    let state = |lines: &[MessageLine]| lines.iter().filter_map(|line| line.text.clone()).collect::<Vec<_>>();
    messages_until(&machine, "relay", "the light is on", |lines| state(lines) == ["on"]).await?;
    publish(&machine, &["relay", "light", "off", "--device", "device-1"])?;
    messages_until(&machine, "relay", "the light is off", |lines| state(lines) == ["on", "off"]).await?;

    let (told, error) = publish(&machine, &["relay", "other", "on", "--all-devices"])?;
    let expected = "device/device-1 did not take it: the Application declares no such topic with direction: In\n\
        device/device-2 did not take it: the Application does not go to this device\n";
    ensure!(told == expected && error.contains("2 of 2 devices did not take the message"), "{told} {error}");
    machine.kill("device-1")?;
    let gone = |(told, _): &(String, String)| told.contains("is not connected");
    let deadline = std::time::Instant::now() + wasmbed_e2e::TIMEOUT;
    loop {
        let said = publish(&machine, &["relay", "light", "on", "--device", "device-1"])?;
        if gone(&said) {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < deadline, "{said:?}");
    }
}

async fn published() -> Result<()> {
    let mut machine = Machine::start(ControlPlane::Embedded).await?;
    for device in DEVICES {
        machine.add_device(device).await?;
        machine.connected(device).await?;
    }
    let mut publisher = application(PUBLISHER, &fixtures::publisher(20), &DEVICES);
    publisher.spec.config.capabilities = vec!["messages".to_owned()];
    publisher.spec.config.topics =
        vec![Topic { name: "t".to_owned(), direction: TopicDirection::Out, per_second: 100 }];
    machine.create(&publisher).await?;
    let mut reached = 50;
    for kill in 0..3 {
        wait(&machine, reached).await?;
        if kill < 2 {
            machine.kill("gateway")?;
            // What devices publish meanwhile they keep.
            tokio::time::sleep(Duration::from_millis(500)).await;
            machine.start_gateway()?;
            reached =
                numbers(&messages(&machine, PUBLISHER)?)?.values().map(BTreeSet::len).max().unwrap_or(0) + 50;
        }
    }
    let published = messages(&machine, PUBLISHER)?;
    let ids: BTreeSet<_> =
        published.iter().map(|line| (&line.device_uid, line.boot, line.sequence)).collect();
    ensure!(ids.len() == published.len(), "a message is here twice");
    for (device, numbers) in numbers(&published)? {
        let wanted: BTreeSet<u32> = (10_000..).take(numbers.len()).collect();
        ensure!(numbers == wanted, "{device} published more than {numbers:?}");
    }
    ensure!(published.iter().all(|line| line.messages_lost == 0 && line.topic == "t"), "{published:?}");
    Ok(())
}

/// Waits until each device has so many messages here.
async fn wait(machine: &Machine, count: usize) -> Result<()> {
    let enough = |found: &[MessageLine]| {
        numbers(found).is_ok_and(|numbers| {
            numbers.len() == DEVICES.len() && numbers.values().all(|numbers| numbers.len() >= count)
        })
    };
    let what = format!("{count} messages of each device");
    messages_until(machine, PUBLISHER, &what, enough).await.map(drop)
}

/// What each device published.
fn numbers(messages: &[MessageLine]) -> Result<BTreeMap<String, BTreeSet<u32>>> {
    let mut numbers: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for line in messages {
        let number = line.text.as_deref().context("no text")?.parse()?;
        numbers.entry(line.device.name.clone()).or_default().insert(number);
    }
    Ok(numbers)
}
