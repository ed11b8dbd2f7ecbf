//! What a message of an application costs a gateway: CPU of the whole process for each, and how long a device waits until it is on
//! the gateway's disk.
//!
//! Devices are connections made by hand, each with a real identity and session: they run nothing and publish at an even pace what
//! the Application declares. The gateway's TLS, frames, decisions and disk are the real ones.
//!
//! It may not judge: no row is an assertion.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wasmbed_api::{TargetDevices, Topic, TopicDirection};
use wasmbed_bench::{
    peer::{self, Peer, frame},
    process::cpu_ms,
};
use wasmbed_e2e::{ControlPlane, GatewayOptions, Machine, application, device, fixtures::ticker, metric};
use wasmbed_protocol::{
    ApplicationUid, BootCounter, DeviceMessage, GatewayMessage, Publish, Sequence, decode_gateway,
};

/// Longer than anything here takes but the measurement itself.
const PATIENCE: Duration = Duration::from_secs(120);
/// Devices made or connected at once.
const AT_ONCE: usize = 64;
const TOPIC: &str = "temperature";

/// Measures messages into the outbox.
#[derive(Parser)]
struct Arguments {
    /// Devices that publish.
    #[arg(long, default_value_t = 1_000)]
    devices: usize,
    /// Messages of each device each second, at most 100.
    #[arg(long, default_value_t = 5)]
    per_second: u64,
    /// Bytes of a message.
    #[arg(long, default_value_t = 64)]
    bytes: usize,
    /// For how many seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!((1..=100).contains(&arguments.per_second), "--per-second is 1 to 100");
    let set = vec![format!("server.max_connections={}", arguments.devices + 16)];
    let mut machine =
        Machine::start_with(ControlPlane::Embedded, GatewayOptions { set, ..GatewayOptions::default() })
            .await?;
    let peers = connect(&machine, arguments.devices).await?;
    let uid = declare(&machine).await?;
    let peers = stream::iter(peers)
        .map(|mut peer| async {
            let desired = |message: &GatewayMessage<'_>| match message {
                GatewayMessage::Desired(desired) => (!desired.applications.is_empty()).then_some(()),
                _ => None,
            };
            tokio::time::timeout(PATIENCE, peer.receive("Desired", desired)).await??;
            anyhow::Ok(peer)
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;

    let gateway = machine.process("gateway")?.id();
    let before = cpu_ms(gateway)?;
    let (begun, acknowledged) = (Instant::now(), Arc::<AtomicU64>::default());
    let publishing = peers.into_iter().enumerate().map(|(index, peer)| {
        tokio::spawn(publish(peer, index, uid, Arc::clone(&acknowledged), Plan::of(&arguments)))
    });
    let mut waits = Vec::new();
    for ended in publishing.collect::<Vec<_>>() {
        waits.extend(ended.await??);
    }
    let (took, cpu) = (begun.elapsed(), cpu_ms(gateway)? - before);
    let sent = acknowledged.load(Ordering::Relaxed) as f64;
    waits.sort_unstable();
    let at = |share: usize| waits[(waits.len() * share / 100).min(waits.len() - 1)].as_secs_f64() * 1_000.0;
    let taken = metric(machine.gateway_health(), "wasmbed_gateway_messages_total").await?;
    let held = metric(machine.gateway_health(), "wasmbed_gateway_messages_bytes").await?;
    println!(
        "| devices | bytes | messages/s | gateway CPU per message | of a core | on disk, p50 | p99 | bytes on disk per message |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    println!(
        "| {} | {} | {:.0} | {:.1} µs | {:.0} % | {:.1} ms | {:.1} ms | {:.0} |",
        arguments.devices,
        arguments.bytes,
        sent / took.as_secs_f64(),
        cpu * 1_000.0 / sent,
        cpu / took.as_secs_f64() / 10.0,
        at(50),
        at(99),
        held / taken.max(1.0),
    );
    Ok(())
}

#[derive(Clone, Copy)]
struct Plan {
    bytes: usize,
    pause: Duration,
    messages: u64,
}

impl Plan {
    fn of(arguments: &Arguments) -> Self {
        Self {
            bytes: arguments.bytes,
            pause: Duration::from_secs(1) / u32::try_from(arguments.per_second).unwrap_or(1),
            messages: arguments.per_second * arguments.seconds,
        }
    }
}

/// Sessions of as many devices.
async fn connect(machine: &Machine, devices: usize) -> Result<Vec<Peer>> {
    stream::iter(0..devices)
        .map(|index| async move {
            let name = format!("bench-{index:05}");
            let authorities = machine.layout().authorities();
            let identity = authorities.issue_device("default", &name)?;
            machine.create(&device(&name, &identity.public_key_base64())).await?;
            let config = peer::tls(authorities, &identity)?;
            Peer::start_with(machine.gateway_address(), &config, &["messages"]).await
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// Makes an Application for all of them; gives its UID.
async fn declare(machine: &Machine) -> Result<ApplicationUid> {
    let mut wanted = application("publisher", &ticker("publisher", 600_000), &[]);
    wanted.spec.target_devices =
        Some(TargetDevices { device_names: Vec::new(), selector: Some(LabelSelector::default()) });
    wanted.spec.config.capabilities = vec!["messages".to_owned()];
    let topic = Topic { name: TOPIC.to_owned(), direction: TopicDirection::Out, per_second: 100 };
    wanted.spec.config.topics = vec![topic];
    let made = machine.create(&wanted).await?;
    let uid = made.metadata.uid.context("an object without a UID")?;
    uid.parse().map_err(|error| anyhow::anyhow!("{uid}: {error}"))
}

/// Publishes evenly and reads acknowledgements; gives how long each message waited for its own.
async fn publish(
    peer: Peer,
    index: usize,
    uid: ApplicationUid,
    acknowledged: Arc<AtomicU64>,
    plan: Plan,
) -> Result<Vec<Duration>> {
    let (mut reader, mut writer) = tokio::io::split(peer.stream);
    // Not all in the same moment.
    tokio::time::sleep(plan.pause.mul_f64((index % 97) as f64 / 97.0)).await;
    let begun = Instant::now();
    let payload = vec![b'7'; plan.bytes];
    let sending = async {
        for number in 0..plan.messages {
            tokio::time::sleep_until((begun + plan.pause.mul_f64(number as f64)).into()).await;
            let publish = Publish {
                uid,
                boot: BootCounter(1),
                sequence: Sequence(number + 1),
                messages_lost: 0,
                topic: TOPIC,
                payload: &payload,
            };
            writer.write_all(&frame(&DeviceMessage::Publish(publish))?).await?;
            writer.flush().await?;
        }
        anyhow::Ok(())
    };
    let receiving = async {
        let (mut waits, mut read) = (Vec::new(), 0);
        while read < plan.messages {
            let mut body = vec![0; usize::from(reader.read_u16().await?)];
            reader.read_exact(&mut body).await?;
            match decode_gateway(&body).map_err(|error| anyhow::anyhow!("can't decode: {error:?}"))? {
                GatewayMessage::PublishAck(ack) => {
                    let due = |number: u64| begun + plan.pause.mul_f64((number - 1) as f64);
                    waits.extend((read + 1..=ack.sequence.0).map(|number| due(number).elapsed()));
                    acknowledged.fetch_add(ack.sequence.0 - read, Ordering::Relaxed);
                    read = ack.sequence.0;
                }
                GatewayMessage::Error(error) => anyhow::bail!("refused: {}", error.detail),
                GatewayMessage::Goodbye(closing) => anyhow::bail!("closed: {}", closing.detail),
                _ => {}
            }
        }
        anyhow::Ok(waits)
    };
    let ((), waits) = tokio::try_join!(sending, receiving)?;
    Ok(waits)
}
