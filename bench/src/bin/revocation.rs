//! How long a revocation takes until its device's session has ended, or a decommission until the device's proof was verified: rows like
//! those of the budget table.
//!
//! Each is measured from the moment at which the change is sent to the Kubernetes API until a watch shows that the gateway has
//! ended the session (phase `Revoked`) or the controller has the proof (phase `Decommissioned`), so that both ways through the API and the pace
//! of status writes count.
//!
//! It may not judge: no row is an assertion.

use std::{
    collections::BTreeMap,
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use tokio::sync::mpsc;
use wasmbed_api::{Device, DevicePhase};
use wasmbed_e2e::{ControlPlane, Site, SiteOptions};

/// Changes on their way at once where all are made at once.
const AT_ONCE: usize = 32;
/// Longer than any revocation takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures revocations.
#[derive(Parser)]
struct Arguments {
    /// Control planes to measure; both if none is named.
    #[arg(long = "control-plane", value_enum)]
    planes: Vec<Plane>,
    /// Connected devices, on two gateways.
    #[arg(long, default_value_t = 1_000)]
    devices: usize,
    /// What is measured.
    #[arg(long, value_enum, default_value = "revocation")]
    what: What,
    /// How many of them are taken one after the other, before the others are at once.
    #[arg(long, default_value_t = 100)]
    single: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// `spec.revoked`.
    Revocation,
    /// `spec.decommission`.
    Decommission,
}

impl What {
    /// The field of the spec, the phase that follows, and what is said of it.
    const fn terms(self) -> (&'static str, DevicePhase, &'static str) {
        match self {
            Self::Revocation => ("revoked", DevicePhase::Revoked, "revoked"),
            Self::Decommission => ("decommission", DevicePhase::Decommissioned, "decommissioned"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Plane {
    /// `wasmbed apiserver`.
    Embedded,
    /// kube-apiserver and etcd.
    Kubernetes,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    ensure!(arguments.single <= arguments.devices, "--single is more than --devices");
    if arguments.planes.is_empty() {
        arguments.planes = vec![Plane::Embedded, Plane::Kubernetes];
    }
    println!("| what | control plane | p50 | p99 | most |\n|---|---|---|---|---|");
    for plane in &arguments.planes {
        let (plane, words) = match plane {
            Plane::Embedded => (ControlPlane::Embedded, "embedded"),
            Plane::Kubernetes => (ControlPlane::Kubernetes, "kube-apiserver, etcd"),
        };
        let (single, rest) = measure(plane, &arguments).await?;
        let (all, (.., said)) = (arguments.devices, arguments.what.terms());
        for (what, times) in [
            (format!("{} of {all} devices {said}, one after the other", arguments.single), single),
            (format!("{} devices {said} at once", all - arguments.single), rest),
        ] {
            if let Some([p50, p99, most]) = percentiles(times) {
                println!("| {what} | {words} | {p50:.2} s | {p99:.2} s | {most:.2} s |");
            }
        }
    }
    Ok(())
}

fn percentiles(mut times: Vec<Duration>) -> Option<[f64; 3]> {
    times.sort_unstable();
    let at = |share: usize| Some(times.get((times.len() * share / 100).min(times.len() - 1))?.as_secs_f64());
    if times.is_empty() { None } else { Some([at(50)?, at(99)?, at(100)?]) }
}

async fn measure(plane: ControlPlane, arguments: &Arguments) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let (devices, (field, phase, _)) = (arguments.devices, arguments.what.terms());
    let gateway_set = vec![format!("server.max_connections={}", devices.max(1_000))];
    let options = SiteOptions { gateways: 2, gateway_set, ..SiteOptions::default() };
    let mut site = Site::start_durable(plane, options).await?;
    site.start_fleet(devices)?;
    let is = |device: &Device, phase| device.status.as_ref().is_some_and(|status| status.phase == phase);
    let connected = |found: &[Device]| {
        found.iter().filter(|device| is(device, DevicePhase::Connected)).count() == devices
    };
    let names: Vec<String> =
        site.all_devices("Connected", connected).await?.iter().map(Device::name_any).collect();
    // Until the statuses of the connections are written.
    tokio::time::sleep(Duration::from_secs(10)).await;

    let api: Api<Device> = site.api();
    let (seen, mut ended) = mpsc::unbounded_channel();
    let watched = api.clone();
    let watch = tokio::spawn(async move {
        let config = watcher::Config::default();
        let mut objects = pin!(watcher(watched, config).default_backoff().applied_objects());
        while let Ok(Some(device)) = objects.try_next().await {
            if is(&device, phase) && seen.send((device.name_any(), Instant::now())).is_err() {
                break;
            }
        }
    });
    let revoke = async |name: &String| -> Result<Instant> {
        let begun = Instant::now();
        let patch = Patch::Merge(json!({ "spec": { field: true } }));
        api.patch(name, &PatchParams::default(), &patch).await.context("can't change a Device")?;
        Ok(begun)
    };
    let (one, rest) = names.split_at(arguments.single);
    let mut single = Vec::new();
    for name in one {
        let begun = revoke(name).await?;
        let ends = wait_for(&mut ended, std::slice::from_ref(name)).await?;
        single.extend(ends.get(name).map(|end| end.duration_since(begun)));
    }
    let begun: Vec<(String, Instant)> = futures::stream::iter(rest)
        .map(async |name| anyhow::Ok((name.clone(), revoke(name).await?)))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let ends = wait_for(&mut ended, rest).await?;
    let all = begun.iter().filter_map(|(name, begun)| Some(ends.get(name)?.duration_since(*begun))).collect();
    watch.abort();
    Ok((single, all))
}

/// Waits until all of these were seen to have ended, and says when each first was.
async fn wait_for(
    ended: &mut mpsc::UnboundedReceiver<(String, Instant)>,
    names: &[String],
) -> Result<BTreeMap<String, Instant>> {
    let mut ends = BTreeMap::new();
    let all = async {
        while !names.iter().all(|name| ends.contains_key(name)) {
            let (name, at) = ended.recv().await.context("the watch of Devices ended")?;
            ends.entry(name).or_insert(at);
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, all).await.context("a device does not come to its end")??;
    Ok(ends)
}
