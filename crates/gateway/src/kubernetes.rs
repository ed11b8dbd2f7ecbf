//! The Kubernetes API: the watch on Devices and the calls that `control` asks for.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Event as KubeEvent, EventSource, ObjectReference},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use wasmbed_api::{Device, GATEWAY_COMPONENT, GROUP, LEADER_LEASE, VERSION};
use wasmbed_control::{
    election::LeaseRecord,
    exchange::DeviceKey,
    gateway::{Call, Event, Occurrence, Write, WriteOutcome},
};
use wasmbed_telemetry::{Health, with_causes};

use crate::{core::Core, metrics::Metrics};

/// For one call; after that it may or may not have happened.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// A watch is ended by the server before this (`timeoutSeconds`, 290 by default), so that silence for longer is a
/// connection that is gone, whatever was asked over it.
const SILENCE_MAX: Duration = Duration::from_secs(295);

/// The same API, on connections that do not hang for ever.
pub(crate) fn bounded(mut config: kube::Config) -> kube::Config {
    config.read_timeout.get_or_insert(SILENCE_MAX);
    config.reset_reader_on_write = true;
    config
}

/// Watches all Devices until the process ends.
pub(crate) async fn watch(client: Client, core: Arc<Core>, health: Health, stop: CancellationToken) {
    let devices: Api<Device> = Api::all(client);
    let mut events = Box::pin(watcher(devices, watcher::Config::default()).default_backoff());
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = stop.cancelled() => return,
        };
        match event {
            Some(Ok(watcher::Event::Init)) => core.with(|gateway, _| gateway.handle_list_started()),
            Some(Ok(watcher::Event::InitApply(device) | watcher::Event::Apply(device))) => {
                core.with(|gateway, now| gateway.handle_device(&device, now));
            }
            Some(Ok(watcher::Event::InitDone)) => {
                core.with(|gateway, now| gateway.handle_list_done(now));
                health.set("kubernetes", Ok(()));
                tracing::info!("all Devices are known");
            }
            Some(Ok(watcher::Event::Delete(device))) => {
                let metadata = device.metadata;
                if let (Some(namespace), Some(name)) = (metadata.namespace, metadata.name) {
                    let key = DeviceKey { namespace, name };
                    let uid = metadata.uid;
                    core.with(|gateway, now| gateway.handle_device_deleted(&key, uid.as_deref(), now));
                }
            }
            Some(Err(error)) => {
                // Devices that are known are served on; it is for people to know.
                let error = watch_words(&error);
                tracing::warn!(reason = "WatchFailed", error, "the watch on Devices broke; trying again");
                if !core.read(|gateway, _| gateway.is_synced()) {
                    health.set("kubernetes", Err(format!("Devices can't be listed: {error}")));
                }
            }
            None => return,
        }
    }
}

/// The Lease of the controller that leads.
#[derive(Clone)]
pub(crate) struct LeaderLease(Api<Lease>);

impl LeaderLease {
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        Self(Api::namespaced(client, namespace))
    }

    /// Its term; 0 if there is no such Lease. The error is for people.
    pub(crate) async fn read(&self) -> Result<u64, String> {
        match tokio::time::timeout(CALL_TIMEOUT, self.0.get_opt(LEADER_LEASE)).await {
            Ok(Ok(lease)) => Ok(LeaseRecord::read(lease.and_then(|lease| lease.spec).as_ref()).term),
            Ok(Err(error)) => Err(words(&error)),
            Err(_) => Err(format!("no answer within {} s", CALL_TIMEOUT.as_secs())),
        }
    }
}

/// Makes one call and says how it ended.
pub(crate) async fn execute(
    client: &Client,
    (gateway, boot_id): (&str, &str),
    write: &Write,
    metrics: &Metrics,
) -> WriteOutcome {
    let started = tokio::time::Instant::now();
    let call = match &write.call {
        Call::CreateDevice { .. } => "create_device",
        Call::PatchStatus { .. } => "patch_status",
        Call::GetDevice { .. } => "get_device",
        Call::Event(..) => "event",
    };
    let outcome =
        match tokio::time::timeout(CALL_TIMEOUT, make(client, (gateway, boot_id), &write.call)).await {
            Ok(Ok(device)) => WriteOutcome::Done(device),
            Ok(Err(error)) => outcome(&error),
            Err(_) => WriteOutcome::Unavailable(format!("no answer within {} s", CALL_TIMEOUT.as_secs())),
        };
    let name = match &outcome {
        WriteOutcome::Done(_) => "ok",
        WriteOutcome::Conflict => "conflict",
        WriteOutcome::NotFound => "not_found",
        WriteOutcome::Throttled { .. } => "throttled",
        WriteOutcome::Unavailable(_) => "unavailable",
        WriteOutcome::Refused(_) => "refused",
    };
    metrics.kubernetes(call, name, started.elapsed());
    outcome
}

async fn make(
    client: &Client,
    (gateway, boot_id): (&str, &str),
    call: &Call,
) -> Result<Option<Box<Device>>, kube::Error> {
    let devices = |key: &DeviceKey| Api::<Device>::namespaced(client.clone(), &key.namespace);
    match call {
        Call::CreateDevice { device, spec } => {
            let object = Device::new(&device.name, (**spec).clone());
            let created = devices(device).create(&post_params(), &object).await?;
            Ok(Some(Box::new(created)))
        }
        Call::PatchStatus { device, patch } => {
            let params = patch_params();
            let patched = devices(device).patch_status(&device.name, &params, &Patch::Merge(patch)).await?;
            Ok(Some(Box::new(patched)))
        }
        Call::GetDevice { device } => Ok(Some(Box::new(devices(device).get(&device.name).await?))),
        Call::Event(event, occurrence) => {
            let events: Api<KubeEvent> = Api::namespaced(client.clone(), &event.device.namespace);
            let object = to_event(event, *occurrence, gateway, boot_id);
            if occurrence.count > 1 {
                let name = object.metadata.name.as_deref().unwrap_or_default();
                let again = json!({ "count": object.count, "lastTimestamp": object.last_timestamp });
                match events.patch(name, &patch_params(), &Patch::Merge(again)).await {
                    // It has expired, or was never written: it is made again with its count.
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    result => return result.map(|_| None),
                }
            }
            events.create(&post_params(), &object).await?;
            Ok(None)
        }
    }
}

pub(crate) fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(GATEWAY_COMPONENT.to_owned()), ..PatchParams::default() }
}

pub(crate) fn post_params() -> PostParams {
    PostParams { field_manager: Some(GATEWAY_COMPONENT.to_owned()), ..PostParams::default() }
}

fn outcome(error: &kube::Error) -> WriteOutcome {
    match error {
        kube::Error::Api(status) => match status.code {
            404 => WriteOutcome::NotFound,
            409 => WriteOutcome::Conflict,
            429 => {
                let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                WriteOutcome::Throttled { retry_after_ms: u64::from(seconds) * 1_000 }
            }
            code if code >= 500 => WriteOutcome::Unavailable(status.message.clone()),
            code => WriteOutcome::Refused(format!("{code} {}: {}", status.reason, status.message)),
        },
        other => WriteOutcome::Unavailable(words(other)),
    }
}

fn watch_words(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => words(error),
        other => with_causes(other),
    }
}

/// What went wrong, without the whole answer.
pub(crate) fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} {}: {}", status.code, status.reason, status.message),
        other => with_causes(other),
    }
}

fn to_event(event: &Event, occurrence: Occurrence, gateway: &str, boot_id: &str) -> KubeEvent {
    let time = |unix_ms: u64| {
        i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).map(Time)
    };
    // Of this process and its number, so that a call that is made again writes the same object. Names in Kubernetes are
    // ASCII and have at most 253 characters.
    let Occurrence { number, count, first_unix_ms } = occurrence;
    let name = format!("{:.220}.{:.16}{number:x}", event.device.name, boot_id);
    KubeEvent {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(event.device.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(format!("{GROUP}/{VERSION}")),
            kind: Some("Device".to_owned()),
            name: Some(event.device.name.clone()),
            namespace: Some(event.device.namespace.clone()),
            uid: Some(event.uid.clone()),
            ..ObjectReference::default()
        },
        type_: Some(if event.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(event.reason.as_str().to_owned()),
        message: Some(event.message.clone()),
        count: Some(i32::try_from(count).unwrap_or(i32::MAX)),
        first_timestamp: time(first_unix_ms),
        last_timestamp: time(event.unix_ms),
        source: Some(EventSource {
            component: Some(GATEWAY_COMPONENT.to_owned()),
            host: Some(gateway.to_owned()),
        }),
        reporting_component: Some(GATEWAY_COMPONENT.to_owned()),
        reporting_instance: Some(gateway.to_owned()),
        ..KubeEvent::default()
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn api_error(code: u16) -> kube::Error {
        kube::Error::Api(Status::failure("message", "Reason").with_code(code).boxed())
    }

    #[test]
    fn every_answer_has_its_outcome() {
        assert_eq!(outcome(&api_error(409)), WriteOutcome::Conflict);
        assert_eq!(outcome(&api_error(404)), WriteOutcome::NotFound);
        assert_eq!(outcome(&api_error(429)), WriteOutcome::Throttled { retry_after_ms: 0 });
        assert!(matches!(outcome(&api_error(503)), WriteOutcome::Unavailable(_)));
        assert!(matches!(outcome(&api_error(422)), WriteOutcome::Refused(_)));
    }
}
