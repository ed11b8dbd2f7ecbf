//! The Kubernetes API: the watch on Devices and the calls that `control` asks for.

use std::sync::Arc;

use futures::StreamExt as _;
use kube::{
    Api, Client, Resource as _,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio_util::sync::CancellationToken;
use wasmbed_api::Device;
use wasmbed_control::{
    ObjectKey,
    gateway::{Call, Write},
    kubernetes::WriteOutcome,
};
use wasmbed_kubernetes::{Caller, Unreadable, Watched, describe_watch_error, outcome};
use wasmbed_telemetry::{Health, Readiness};

use crate::{core::Core, metrics::Metrics};

/// Watches all Devices until the process ends.
pub(crate) async fn watch(client: Client, core: Arc<Core>, health: Health, stop: CancellationToken) {
    let devices: Api<Watched<Device>> = Api::all(client);
    let mut unreadable = Unreadable::default();
    let mut events = Box::pin(watcher(devices, watcher::Config::default()).default_backoff());
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = stop.cancelled() => return,
        };
        match event {
            Some(Ok(watcher::Event::Init)) => core.with(|gateway, _| gateway.handle_list_started()),
            Some(Ok(watcher::Event::InitApply(device) | watcher::Event::Apply(device))) => {
                match unreadable.read(device) {
                    Ok(device) => core.with(|gateway, now| gateway.handle_device(now, &device)),
                    Err(metadata) => {
                        if let Some(key) = ObjectKey::of(&metadata) {
                            let uid = metadata.uid.as_deref();
                            core.with(|gateway, now| gateway.handle_unreadable_device(now, &key, uid));
                        }
                    }
                }
            }
            Some(Ok(watcher::Event::InitDone)) => {
                core.with(|gateway, now| gateway.handle_list_done(now));
                health.set("kubernetes", Readiness::Ready);
                tracing::info!("all Devices are known");
            }
            Some(Ok(watcher::Event::Delete(mut device))) => {
                let metadata = std::mem::take(device.meta_mut());
                unreadable.forget(&metadata);
                if let Some(key) = ObjectKey::of(&metadata) {
                    let uid = metadata.uid;
                    core.with(|gateway, now| gateway.handle_device_deleted(now, &key, uid.as_deref()));
                }
            }
            Some(Err(error)) => {
                // Devices that are known are served on; it is for people to know.
                let error = describe_watch_error(&error);
                tracing::warn!(reason = "WatchFailed", error, "the watch on Devices broke; trying again");
                if !core.read(|gateway, _| gateway.is_synced()) {
                    let reason = format!("Devices can't be listed: {error}");
                    health.set("kubernetes", Readiness::NotReady(reason));
                }
            }
            None => return,
        }
    }
}

/// Makes one call; answers how it ended.
pub(crate) async fn execute(
    caller: &Caller,
    boot_id: &str,
    write: &Write,
    metrics: &Metrics,
) -> WriteOutcome<Option<Box<Device>>> {
    let started = tokio::time::Instant::now();
    let call = match &write.call {
        Call::CreateDevice { .. } => "create_device",
        Call::PatchStatus { .. } => "patch_status",
        Call::GetDevice { .. } => "get_device",
        Call::Event(..) => "event",
    };
    let outcome = make(caller, boot_id, &write.call).await;
    metrics.kubernetes(call, name_of(&outcome), started.elapsed());
    outcome
}

/// How a call ended, as metrics have it.
pub(crate) fn name_of<T>(outcome: &WriteOutcome<T>) -> &'static str {
    match outcome {
        WriteOutcome::Done(_) => "ok",
        WriteOutcome::Conflict => "conflict",
        WriteOutcome::NotFound => "not_found",
        WriteOutcome::Throttled { .. } => "throttled",
        WriteOutcome::Unavailable(_) => "unavailable",
        WriteOutcome::Rejected(_) => "refused",
    }
}

async fn make(caller: &Caller, boot_id: &str, call: &Call) -> WriteOutcome<Option<Box<Device>>> {
    let device = match call {
        Call::CreateDevice { device, spec } => {
            let object = Device::new(&device.name, (**spec).clone());
            outcome(caller.create(&device.namespace, &object).await)
        }
        Call::PatchStatus { device, patch } => outcome(caller.merge_status(device, patch).await),
        Call::GetDevice { device } => {
            let found = outcome(caller.get::<Device>(device).await).map(|device| device.map(Box::new));
            return if found == WriteOutcome::Done(None) { WriteOutcome::NotFound } else { found };
        }
        Call::Event(event, occurrence) => {
            let counted = caller.count_event(event, *occurrence, boot_id).await;
            return outcome(counted).map(|()| None);
        }
    };
    device.map(|device| Some(Box::new(device)))
}
