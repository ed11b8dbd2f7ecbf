//! What applications publish reaches the gateway's disk and whoever may read it, also where the gateway is killed meanwhile.

#![cfg(test)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use wasmbed_api::{Topic, TopicDirection};
use wasmbed_control::gateway_api::MessageLine;
use wasmbed_e2e::{ControlPlane, Machine, application, fixtures, messages, messages_until, run};

const PUBLISHER: &str = "publisher";
const DEVICES: [&str; 3] = ["device-1", "device-2", "device-3"];

#[test]
fn what_was_published_arrives_whoever_is_killed() -> Result<()> {
    run(published())
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
