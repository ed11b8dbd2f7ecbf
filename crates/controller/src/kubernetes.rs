//! Writes to the Kubernetes API, and the bytes of modules read from it.

use bytes::Bytes;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use sha2::{Digest as _, Sha256};
use wasmbed_api::{Application, Device, GROUP, Module, ReasonCode, VERSION};
use wasmbed_control::exchange::DeviceKey;
use wasmbed_control::fleet::{
    DeviceEvent, DeviceFinalizerWrite, FinalizerWrite, FinishedWrite, FleetEvent, StatusWrite,
    UnreachableWrite, UploadSource, WriteOutcome,
};
use wasmbed_control::text::uid_text;
use wasmbed_protocol::ModuleDigest;

use crate::watch::decode;

const MANAGER: &str = "wasmbed-controller";

/// The object that an Event is about.
struct Told {
    kind: &'static str,
    namespace: String,
    name: String,
}

/// Carries out writes; cheap to clone.
#[derive(Clone)]
pub(crate) struct Kubernetes {
    client: Client,
    name: String,
}

impl Kubernetes {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    pub(crate) async fn write_status(&self, write: &StatusWrite) -> WriteOutcome {
        let api: Api<Application> = Api::namespaced(self.client.clone(), &write.application.namespace);
        let patch = Patch::Merge(&write.patch);
        outcome(
            api.patch_status(&write.application.name, &params(), &patch)
                .await
                .map(|object| object.resource_version()),
        )
    }

    pub(crate) async fn write_finalizer(&self, write: &FinalizerWrite) -> WriteOutcome {
        let api: Api<Application> = Api::namespaced(self.client.clone(), &write.application.namespace);
        let patch = Patch::Merge(&write.patch);
        outcome(
            api.patch(&write.application.name, &params(), &patch)
                .await
                .map(|object| object.resource_version()),
        )
    }

    pub(crate) async fn write_device_finalizer(&self, write: &DeviceFinalizerWrite) -> WriteOutcome {
        let api: Api<Device> = Api::namespaced(self.client.clone(), &write.device.namespace);
        let patch = Patch::Merge(&write.patch);
        outcome(
            api.patch(&write.device.name, &params(), &patch).await.map(|object| object.resource_version()),
        )
    }

    pub(crate) async fn write_unreachable(&self, write: &UnreachableWrite) -> WriteOutcome {
        self.write_device(&write.device, &write.patch).await
    }

    pub(crate) async fn write_finished(&self, write: &FinishedWrite) -> WriteOutcome {
        self.write_device(&write.device, &write.patch).await
    }

    async fn write_device(&self, device: &DeviceKey, patch: &serde_json::Value) -> WriteOutcome {
        let api: Api<Device> = Api::namespaced(self.client.clone(), &device.namespace);
        let patch = Patch::Merge(patch);
        outcome(
            api.patch_status(&device.name, &params(), &patch).await.map(|object| object.resource_version()),
        )
    }

    pub(crate) async fn write_event(&self, event: FleetEvent) {
        let FleetEvent { application, uid, warning, reason, message, unix_ms } = event;
        let told = Told { kind: "Application", namespace: application.namespace, name: application.name };
        self.write(told, uid_text(uid), warning, reason, message, unix_ms).await;
    }

    pub(crate) async fn write_device_event(&self, event: DeviceEvent) {
        let DeviceEvent { device, uid, warning, reason, message, unix_ms } = event;
        let told = Told { kind: "Device", namespace: device.namespace, name: device.name };
        self.write(told, uid, warning, reason, message, unix_ms).await;
    }

    /// Events are for people: one that can't be written is logged and dropped.
    async fn write(
        &self,
        about: Told,
        uid: String,
        warning: bool,
        reason: ReasonCode,
        message: String,
        unix_ms: u64,
    ) {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &about.namespace);
        let unix_s = i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX);
        let time = Timestamp::from_second(unix_s).ok().map(Time);
        let object = Event {
            metadata: ObjectMeta {
                name: Some(event_name(&about.name, &uid, unix_ms, reason, &message)),
                namespace: Some(about.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(format!("{GROUP}/{VERSION}")),
                kind: Some(about.kind.to_owned()),
                namespace: Some(about.namespace.clone()),
                name: Some(about.name.clone()),
                uid: Some(uid),
                ..ObjectReference::default()
            },
            type_: Some(if warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(reason.as_str().to_owned()),
            message: Some(message),
            first_timestamp: time.clone(),
            last_timestamp: time,
            count: Some(1),
            source: Some(EventSource { component: Some(MANAGER.to_owned()), host: None }),
            reporting_component: Some(MANAGER.to_owned()),
            reporting_instance: Some(self.name.clone()),
            ..Event::default()
        };
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => {
                let Told { kind, namespace, name } = &about;
                tracing::warn!(object = format!("{kind} {namespace}/{name}"), reason = %error, "an Event could not be written");
            }
        }
    }

    /// The bytes of a module: none if the object is gone or holds other bytes by now.
    pub(crate) async fn module_bytes(
        &self,
        source: &UploadSource,
        digest: ModuleDigest,
    ) -> Result<Option<Bytes>, kube::Error> {
        let text = match source {
            UploadSource::Application(key) => {
                let api: Api<Application> = Api::namespaced(self.client.clone(), &key.namespace);
                api.get_opt(&key.name).await?.and_then(|object| object.spec.wasm_bytes)
            }
            UploadSource::Module(key) => {
                let api: Api<Module> = Api::namespaced(self.client.clone(), &key.namespace);
                api.get_opt(&key.name).await?.map(|object| object.spec.wasm_bytes)
            }
        };
        let bytes = text.and_then(|text| decode(&text).ok());
        Ok(bytes.filter(|bytes| <[u8; 32]>::from(Sha256::digest(bytes)) == digest.0).map(Bytes::from))
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

/// The same transition told twice is one Event.
fn event_name(name: &str, uid: &str, unix_ms: u64, reason: ReasonCode, message: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(uid);
    hash.update(unix_ms.to_be_bytes());
    hash.update(reason.as_str());
    hash.update(message);
    let digest: [u8; 32] = hash.finalize().into();
    let suffix: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    // A name of 253 characters and the suffix would be too long; Events need not carry it whole.
    let stem: String = name.chars().take(200).collect();
    format!("{}.{suffix}", stem.trim_end_matches(['.', '-']))
}

fn outcome(result: Result<Option<String>, kube::Error>) -> WriteOutcome {
    match result {
        Ok(version) => WriteOutcome::Done { resource_version: version.unwrap_or_default() },
        Err(kube::Error::Api(status)) => match status.code {
            404 => WriteOutcome::NotFound,
            409 => WriteOutcome::Conflict,
            429 => {
                let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                WriteOutcome::Throttled { retry_after_ms: u64::from(seconds) * 1_000 }
            }
            400..=499 => WriteOutcome::Refused(status.message.clone()),
            _ => WriteOutcome::Unavailable(status.message.clone()),
        },
        Err(error) => WriteOutcome::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::response::{Status, StatusDetails};

    fn api_error(code: u16) -> kube::Error {
        let details = StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 3,
        };
        kube::Error::Api(Box::new(Status { code, details: Some(details), ..Status::default() }))
    }

    #[test]
    fn answers_of_the_api_become_outcomes() {
        assert_eq!(outcome(Err(api_error(409))), WriteOutcome::Conflict);
        assert_eq!(outcome(Err(api_error(404))), WriteOutcome::NotFound);
        assert_eq!(outcome(Err(api_error(429))), WriteOutcome::Throttled { retry_after_ms: 3_000 });
        assert!(matches!(outcome(Err(api_error(422))), WriteOutcome::Refused(_)));
        assert!(matches!(outcome(Err(api_error(503))), WriteOutcome::Unavailable(_)));
    }
}
