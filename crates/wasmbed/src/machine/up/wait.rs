//! Waiting for what devices report, with what is still missing on screen.

use std::{collections::BTreeMap, pin::pin};

use anyhow::{Context, Result, bail};
use futures::{Stream, TryStreamExt, future};
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use wasmbed_api::{Application, ApplicationPhase, Device, DevicePhase, DeviceStatus};
use wasmbed_kubernetes::Watched;

use super::progress::Progress;
use crate::output::harmless;

/// How far a device is on its way to a session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Waiting,
    Connected,
    /// A person keeps it out, so it may never come.
    KeptOut(&'static str),
}

/// Waits until each of the devices has a session that began after `started`: what an earlier run left in a status does not count.
/// One that is revoked or not approved is not waited for. Answers how many are connected.
pub(super) async fn until_connected(
    client: &Client,
    namespace: &str,
    names: &[String],
    started: Timestamp,
    progress: &mut Progress,
) -> Result<usize> {
    let mut ways: BTreeMap<&str, Way> = names.iter().map(|name| (name.as_str(), Way::Waiting)).collect();
    let mut devices = pin!(objects::<Device>(Api::namespaced(client.clone(), namespace)));
    while ways.values().any(|way| *way == Way::Waiting) {
        let away: Vec<&str> =
            ways.iter().filter(|(_, way)| **way == Way::Waiting).map(|(name, _)| *name).collect();
        progress.block_on(format!("waiting for {}", shortened(&away)));
        let device =
            devices.try_next().await.context("can't watch Devices")?.context("the watch of Devices ended")?;
        if let Some(way) = ways.get_mut(device.name_any().as_str()) {
            *way = way_of(&device, started)?;
        }
    }
    let connected = ways.values().filter(|way| **way == Way::Connected).count();
    let mut said = format!("{connected} of {} Connected", names.len());
    for (name, way) in &ways {
        if let Way::KeptOut(why) = way {
            said.push_str(&format!(", {name} {why}"));
        }
    }
    progress.done("devices", &said);
    Ok(connected)
}

fn way_of(device: &Device, started: Timestamp) -> Result<Way> {
    if device.spec.revoked {
        return Ok(Way::KeptOut("is revoked"));
    }
    if device.spec.decommission {
        return Ok(Way::KeptOut("is being taken out of service"));
    }
    if !device.spec.approved {
        return Ok(Way::KeptOut("waits for spec.approved"));
    }
    match device.status.as_ref().map_or(DevicePhase::Pending, |status| phase_since(status, started)) {
        DevicePhase::Connected => Ok(Way::Connected),
        DevicePhase::Rejected => {
            bail!("device {} was refused: kubectl describe wdev says why", device.name_any())
        }
        _ => Ok(Way::Waiting),
    }
}

/// The phase, unless it speaks of a session that began before `started`.
fn phase_since(status: &DeviceStatus, started: Timestamp) -> DevicePhase {
    let since = status.connected_since.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
    // A status may have whole seconds. One that lies in the future was written when the clock was ahead.
    let until = Timestamp::now().as_second().saturating_add(1);
    let fresh = since.is_some_and(|since| (started.as_second()..=until).contains(&since.as_second()));
    if status.phase == DevicePhase::Connected && !fresh { DevicePhase::Pending } else { status.phase }
}

/// Waits until an Application runs on every connected target, or says where it failed.
pub(super) async fn until_running(
    client: &Client,
    namespace: &str,
    name: &str,
    progress: &mut Progress,
) -> Result<()> {
    let mut applications = pin!(objects::<Application>(Api::namespaced(client.clone(), namespace)));
    loop {
        let next = applications.try_next().await.context("can't watch Applications")?;
        let application = next.context("the watch of Applications ended")?;
        if application.name_any() != name {
            continue;
        }
        let generation = application.metadata.generation;
        let Some(status) = application.status.filter(|status| status.observed_generation == generation)
        else {
            progress.block_on(format!("application {name}: waiting for the controller"));
            continue;
        };
        match status.phase {
            ApplicationPhase::Running | ApplicationPhase::Completed => {
                progress.done("application", &format!("{name} {:?}, {} devices", status.phase, status.ready));
                return Ok(());
            }
            ApplicationPhase::Failed | ApplicationPhase::Degraded => {
                let failure = status.failures.first();
                let why = failure.map_or_else(String::new, |first| {
                    format!(": {}: {}", first.device, harmless(&first.message))
                });
                progress.done("application", &format!("{name} {:?}{why}", status.phase));
                return Ok(());
            }
            ApplicationPhase::Pending
            | ApplicationPhase::Deploying
            | ApplicationPhase::Terminating
            | ApplicationPhase::Unknown => {
                progress.block_on(format!(
                    "application {name}: {:?}, {} devices run it",
                    status.phase, status.ready
                ));
            }
        }
    }
}

/// Objects as they are and as they change. One that can't be read is left out: a later version may have written it, and
/// gateway and controller log which it is.
fn objects<K>(api: Api<Watched<K>>) -> impl Stream<Item = Result<K, watcher::Error>>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    let objects = watcher(api, watcher::Config::default()).default_backoff().applied_objects();
    objects.try_filter_map(|object| match object {
        Watched::Read(object) => future::ok(Some(object)),
        Watched::Unreadable { .. } => future::ok(None),
    })
}

/// The first few names, and how many more there are.
fn shortened(names: &[&str]) -> String {
    const SHOWN_MAX: usize = 5;
    let more = names.len().saturating_sub(SHOWN_MAX);
    let shown = names.get(..names.len().min(SHOWN_MAX)).unwrap_or(names).join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
