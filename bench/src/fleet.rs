//! A fleet: what an idle device costs the gateway, how fast devices register, and how fast a module reaches all of them.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_rustls::rustls::ClientConfig;
use wasmbed_api::{Application, Device, DeviceApplicationState, DevicePhase};
use wasmbed_bench::process::cpu_ms;
use wasmbed_device::fleet::{self, FleetConfig, FleetHandle, Issue};
use wasmbed_e2e::{Machine, application, device, fixtures, module};
use wasmbed_pki::Identity;

use crate::{
    handshake::config,
    heartbeat::Pulse,
    table::{Table, p99},
    writes::cpu_of,
};

/// The module of the deployment rows.
const MODULE_BYTES: usize = 64 * 1_024;
/// Heartbeats of one row: a device that sends many more at once is read at the pace of its share.
const BEATS: usize = 500;
/// Pause between those during a deployment, for the same reason.
const BEAT_PAUSE: Duration = Duration::from_millis(4);
/// Objects created at once while the fleet is made.
const CREATED_AT_ONCE: usize = 64;
/// A fleet that takes longer than this shows a fault, not a figure.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How often counts are looked at: the resolution of the figures that come from counts.
const TICK: Duration = Duration::from_millis(2);

pub(crate) async fn measure(machine: &mut Machine, devices: usize, table: &mut Table) -> Result<()> {
    println!("fleet: {devices} devices");
    let identities = Arc::new(create(machine, devices).await?);
    let idle = beating(machine, "pulse-idle").await?;
    let busy = beating(machine, "pulse-deployment").await?;
    let gateway = machine.process("gateway")?.id();
    let resident_before = machine.process("gateway")?.resident_bytes()?;

    let (handle, cpu) = register(machine, &identities, table).await?;
    let each = cpu / devices as f64;
    table.row("gateway CPU per registration, status writes included", "–", "–", format!("{each:.2} ms"));
    let resident = machine.process("gateway")?.resident_bytes()?.saturating_sub(resident_before);
    let kilobytes = resident as f64 / 1_024.0 / devices as f64;
    table.row(
        &format!("gateway memory per idle device at {devices}"),
        "1 MB",
        "8 kB",
        format!("{kilobytes:.1} kB"),
    );

    let mut pulse = Pulse::start(machine, &idle).await?;
    let mut beats = Vec::with_capacity(BEATS);
    for _ in 0..BEATS {
        beats.push(pulse.beat().await?);
    }
    let idle = p99(beats);
    table.row("heartbeat answer, idle, p99", "< 100 ms", "< 5 ms", format!("{idle:.2} ms"));

    let pulse = Pulse::start(machine, &busy).await?;
    deploy(machine, devices, gateway, &handle, pulse, table).await?;
    handle.stop();
    tokio::task::spawn_blocking(move || handle.wait()).await.context("the fleet's waiter panicked")??;
    Ok(())
}

/// A device that does nothing but live.
async fn beating(machine: &Machine, name: &str) -> Result<Arc<ClientConfig>> {
    let identity = machine.layout().authorities().issue_device("default", name)?;
    machine.create(&device(name, &identity.public_key_base64())).await?;
    config(machine, &identity)
}

/// Makes the devices' identities and their objects, which is not measured.
pub(crate) async fn create(machine: &Machine, devices: usize) -> Result<Vec<Identity>> {
    let mut identities = Vec::with_capacity(devices);
    for index in 0..devices {
        identities.push(machine.layout().authorities().issue_device("default", &name(index))?);
    }
    let objects: Vec<Device> = identities
        .iter()
        .enumerate()
        .map(|(index, identity)| device(&name(index), &identity.public_key_base64()))
        .collect();
    stream::iter(&objects)
        .map(|object| machine.create(object))
        .buffer_unordered(CREATED_AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(identities)
}

fn name(index: usize) -> String {
    format!("bench-{index:05}")
}

/// Switches all devices on at once; figures count from that moment for every device. Returns the CPU that the gateway took, ms.
async fn register(
    machine: &mut Machine,
    identities: &Arc<Vec<Identity>>,
    table: &mut Table,
) -> Result<(FleetHandle, f64)> {
    let devices = identities.len();
    let gateway = machine.process("gateway")?.id();
    let before = cpu_ms(gateway)?;
    let watch = watch_devices(machine, devices, |device| {
        device.status.as_ref().is_some_and(|status| status.phase == DevicePhase::Connected)
    });
    let (begun, written) = watch.await?;
    let start = Instant::now();
    begun.send(start).map_err(|_| anyhow::anyhow!("the watch ended"))?;
    let handle = switch_on(machine, identities.clone())?;
    let sessions = reached(devices, || handle.progress().sessions).await?;
    table.row(
        &format!("registration at the gateway, {devices} at once, p99"),
        "< 5 s",
        "< 1 s",
        format!("{:.2} s", sessions.as_secs_f64()),
    );
    let written = written.await.context("the watch panicked")??;
    table.row(
        &format!("registration with status written, {devices} at once, p99"),
        "< 5 s",
        "< 2 s",
        format!("{:.2} s", p99(written)),
    );
    Ok((handle, cpu_ms(gateway)? - before))
}

/// Switches devices on, all at one moment.
pub(crate) fn switch_on(machine: &Machine, identities: Arc<Vec<Identity>>) -> Result<FleetHandle> {
    let devices = identities.len();
    let issue: Issue = Arc::new(move |index| {
        let identity = identities.get(index).ok_or("no such device")?;
        Ok(Identity::from_pem(&identity.chain_pem, &identity.key_pem)?.into())
    });
    let roots = vec![machine.layout().authorities().services_root().clone()];
    let mut config = FleetConfig::new(devices, issue, roots, vec![machine.gateway_address().to_string()]);
    config.threads = NonZeroUsize::MIN;
    Ok(fleet::start(config)?)
}

async fn deploy(
    machine: &mut Machine,
    devices: usize,
    gateway: u32,
    handle: &FleetHandle,
    mut pulse: Pulse,
    table: &mut Table,
) -> Result<()> {
    println!("deployment: {} KiB to {devices} devices", MODULE_BYTES / 1_024);
    let wasm = fixtures::large_ticker("bench", 60_000, MODULE_BYTES);
    let watch = watch_devices(machine, devices, |device| {
        let applications = device.status.iter().flat_map(|status| &status.applications);
        applications.into_iter().any(|application| application.state == DeviceApplicationState::Running)
    });
    let (begun, written) = watch.await?;
    machine.create(&module("bench", &wasm)).await?;
    let names: Vec<String> = (0..devices.min(1_000)).map(name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut object = application("bench", &[], &names);
    (object.spec.wasm_bytes, object.spec.module) = (None, Some("bench".to_owned()));

    let (stop, mut stopped) = oneshot::channel::<()>();
    let beating = tokio::spawn(async move {
        let mut beats = Vec::new();
        while stopped.try_recv().is_err() {
            beats.push(pulse.beat().await?);
            tokio::time::sleep(BEAT_PAUSE).await;
        }
        Ok::<_, anyhow::Error>(beats)
    });
    let api_before = cpu_of(machine.cluster())?;
    let before = cpu_ms(gateway)?;
    let start = Instant::now();
    begun.send(start).map_err(|_| anyhow::anyhow!("the watch ended"))?;
    machine.create(&object).await?;
    let running = reached(devices, || handle.progress().applications_running).await?;
    let cpu = cpu_ms(gateway)? - before;
    // Nobody is left to listen if beating failed; its own error says why.
    let _ = stop.send(());
    let beats = p99(beating.await.context("the heartbeats panicked")??);
    table.row(
        &format!("deployment of 64 KiB to {devices}, running on the devices, p99"),
        "< 10 s",
        "< 2 s",
        format!("{:.2} s", running.as_secs_f64()),
    );
    machine
        .application("bench", "running everywhere", |application: &Application| {
            application
                .status
                .as_ref()
                .is_some_and(|status| usize::try_from(status.counts.running).is_ok_and(|n| n == devices))
        })
        .await?;
    table.row(
        &format!("deployment of 64 KiB to {devices}, counted in Application.status"),
        "< 10 s",
        "–",
        format!("{:.2} s", start.elapsed().as_secs_f64()),
    );
    let written = written.await.context("the watch panicked")??;
    table.row(
        &format!("deployment of 64 KiB to {devices}, status written, p99"),
        "< 10 s",
        "–",
        format!("{:.2} s", p99(written)),
    );
    for (name, spent) in
        [("gateway", cpu_ms(gateway)? - before), ("API server", cpu_of(machine.cluster())? - api_before)]
    {
        table.row(
            &format!("{name} CPU per device for a deployment of 64 KiB to {devices}, status written"),
            "–",
            "–",
            format!("{:.2} ms", spent / devices as f64),
        );
    }
    let megabytes = (wasm.len() * devices) as f64 / 1e6;
    table.row(
        "fan-out, MB delivered per gateway CPU second",
        "–",
        "1,500",
        format!("{:.0}", megabytes / (cpu / 1_000.0)),
    );
    table.row(
        "heartbeat answer during a fleet-wide deployment, p99",
        "< 100 ms",
        "< 25 ms",
        format!("{beats:.2} ms"),
    );
    Ok(())
}

/// Waits until a count has come to 99 of 100 devices, which began together, and says when; then until all are there.
pub(crate) async fn reached(devices: usize, count: impl Fn() -> usize) -> Result<Duration> {
    let start = Instant::now();
    let most = (devices * 99).div_ceil(100);
    let mut at = None;
    loop {
        let now = count();
        if now >= most && at.is_none() {
            at = Some(start.elapsed());
        }
        if let (true, Some(at)) = (now >= devices, at) {
            return Ok(at);
        }
        ensure!(start.elapsed() < TIMEOUT, "only {now} of {devices} got there");
        tokio::time::sleep(TICK).await;
    }
}

type Written = JoinHandle<Result<Vec<f64>>>;

/// Watches until each device's object is as `wanted` says; answers the seconds from the moment that is sent to it. Returns once
/// the watch stands.
async fn watch_devices(
    machine: &Machine,
    devices: usize,
    wanted: impl Fn(&Device) -> bool + Send + 'static,
) -> Result<(oneshot::Sender<Instant>, Written)> {
    let api = machine.api::<Device>();
    let (begun, start) = oneshot::channel();
    let (standing, stands) = oneshot::channel();
    let task = tokio::spawn(async move {
        let mut objects = pin!(watcher(api, watcher::Config::default()).default_backoff().applied_objects());
        let mut standing = Some(standing);
        let mut seen: BTreeMap<String, Instant> = BTreeMap::new();
        let mut known = 0_usize;
        while seen.len() < devices {
            let next = tokio::time::timeout(TIMEOUT, objects.try_next()).await;
            let object = next.with_context(|| format!("only {} of {devices} were written", seen.len()))??;
            let object = object.context("the watch ended")?;
            known += 1;
            if known >= devices
                && let Some(standing) = standing.take()
            {
                // The one who waits may have given up.
                let _ = standing.send(());
            }
            if object.name_any().starts_with("bench-") && wanted(&object) {
                seen.entry(object.name_any()).or_insert_with(Instant::now);
            }
        }
        let start: Instant = start.await.context("nobody said when it began")?;
        Ok(seen.into_values().map(|at| at.duration_since(start).as_secs_f64()).collect())
    });
    stands.await.context("the watch of Devices ended")?;
    Ok((begun, task))
}
