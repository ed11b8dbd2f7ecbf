//! Writes to the Kubernetes API, and the bytes of modules read from it.

use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use sha2::{Digest as _, Sha256};
use wasmbed_api::{
    Application, CONTROLLER_COMPONENT, Device, DeviceGateway, GROUP, Module, ReasonCode, VERSION,
};
use wasmbed_control::exchange::DeviceKey;
use wasmbed_control::fleet::{
    DeviceEvent, DeviceFinalizerWrite, FinalizerWrite, FinishedWrite, FleetEvent, GatewayWrite, StatusWrite,
    UnreachableWrite, UploadSource, WriteOutcome,
};
use wasmbed_control::text::{event_name, uid_text};
use wasmbed_protocol::ModuleDigest;
use wasmbed_telemetry::with_causes;

use crate::watch::decode;

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
    timeout: Duration,
}

impl Kubernetes {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self { client, name, timeout: CALL_TIMEOUT }
    }

    pub(crate) async fn write_status(&self, write: &StatusWrite) -> WriteOutcome {
        let api: Api<Application> = Api::namespaced(self.client.clone(), &write.application.namespace);
        let patch = Patch::Merge(&write.patch);
        let object = self.within(api.patch_status(&write.application.name, &params(), &patch)).await;
        outcome(object.map(|object| object.resource_version()))
    }

    pub(crate) async fn write_finalizer(&self, write: &FinalizerWrite) -> WriteOutcome {
        let api: Api<Application> = Api::namespaced(self.client.clone(), &write.application.namespace);
        let patch = Patch::Merge(&write.patch);
        let object = self.within(api.patch(&write.application.name, &params(), &patch)).await;
        outcome(object.map(|object| object.resource_version()))
    }

    pub(crate) async fn write_device_finalizer(&self, write: &DeviceFinalizerWrite) -> WriteOutcome {
        let api: Api<Device> = Api::namespaced(self.client.clone(), &write.device.namespace);
        let patch = Patch::Merge(&write.patch);
        let object = self.within(api.patch(&write.device.name, &params(), &patch)).await;
        outcome(object.map(|object| object.resource_version()))
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
        let object = self.within(api.patch_status(&device.name, &params(), &patch)).await;
        outcome(object.map(|object| object.resource_version()))
    }

    pub(crate) async fn write_gateway(&self, write: &GatewayWrite) -> WriteOutcome {
        let api: Api<DeviceGateway> = Api::namespaced(self.client.clone(), &write.gateway.namespace);
        let patch = Patch::Merge(&write.patch);
        let object = self.within(api.patch_status(&write.gateway.name, &params(), &patch)).await;
        outcome(object.map(|object| object.resource_version()))
    }

    /// Whether it is there.
    pub(crate) async fn write_event(&self, event: FleetEvent) -> bool {
        let FleetEvent { application, uid, warning, reason, message, unix_ms } = event;
        let told = Told { kind: "Application", namespace: application.namespace, name: application.name };
        self.write(told, uid_text(uid), warning, reason, message, unix_ms).await
    }

    /// Whether it is there.
    pub(crate) async fn write_device_event(&self, event: DeviceEvent) -> bool {
        let DeviceEvent { device, uid, warning, reason, message, unix_ms } = event;
        let told = Told { kind: "Device", namespace: device.namespace, name: device.name };
        self.write(told, uid, warning, reason, message, unix_ms).await
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
    ) -> bool {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &about.namespace);
        let unix_s = i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX);
        let time = Timestamp::from_second(unix_s).ok().map(Time);
        let object = Event {
            metadata: ObjectMeta {
                name: Some(event_name(&about.name, &uid, unix_ms, reason.as_str(), &message)),
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
            source: Some(EventSource { component: Some(CONTROLLER_COMPONENT.to_owned()), host: None }),
            reporting_component: Some(CONTROLLER_COMPONENT.to_owned()),
            reporting_instance: Some(self.name.clone()),
            ..Event::default()
        };
        match self.within(api.create(&post_params(), &object)).await {
            Ok(_) => true,
            // It was written before: the name follows from what it says.
            Err(CallError::Api(kube::Error::Api(status))) if status.code == 409 => true,
            Err(error) => {
                let Told { kind, namespace, name } = &about;
                let object = format!("{kind} {namespace}/{name}");
                tracing::warn!(object, reason = "WriteFailed", %error, "an Event could not be written");
                false
            }
        }
    }

    async fn within<T>(&self, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
        let answer = tokio::time::timeout(self.timeout, call).await;
        Ok(answer.map_err(|_| CallError::Timeout(self.timeout))??)
    }

    /// The bytes of a module: none if the object is gone or holds other bytes by now.
    pub(crate) async fn module_bytes(
        &self,
        source: &UploadSource,
        digest: ModuleDigest,
    ) -> Result<Option<Bytes>, CallError> {
        let text = match source {
            UploadSource::Application(key) => {
                let api: Api<Application> = Api::namespaced(self.client.clone(), &key.namespace);
                self.within(api.get_opt(&key.name)).await?.and_then(|object| object.spec.wasm_bytes)
            }
            UploadSource::Module(key) => {
                let api: Api<Module> = Api::namespaced(self.client.clone(), &key.namespace);
                self.within(api.get_opt(&key.name)).await?.map(|object| object.spec.wasm_bytes)
            }
        };
        let bytes = text.and_then(|text| decode(&text).ok());
        Ok(bytes.filter(|bytes| <[u8; 32]>::from(Sha256::digest(bytes)) == digest.0).map(Bytes::from))
    }
}

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The API's answer, or the connection to it.
    #[error("{}", words(.0))]
    Api(#[from] kube::Error),
    /// I/O: nothing came.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
}

/// What went wrong, without the whole answer.
pub(crate) fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} {}: {}", status.code, status.reason, status.message),
        other => with_causes(other),
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(CONTROLLER_COMPONENT.to_owned()), ..PatchParams::default() }
}

pub(crate) fn post_params() -> PostParams {
    PostParams { field_manager: Some(CONTROLLER_COMPONENT.to_owned()), ..PostParams::default() }
}

fn outcome(result: Result<Option<String>, CallError>) -> WriteOutcome {
    match result {
        Ok(version) => WriteOutcome::Done { resource_version: version.unwrap_or_default() },
        Err(CallError::Api(kube::Error::Api(status))) => match status.code {
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

    fn api_error(code: u16) -> CallError {
        let details = StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 3,
        };
        CallError::Api(kube::Error::Api(Box::new(Status {
            code,
            details: Some(details),
            ..Status::default()
        })))
    }

    #[test]
    fn answers_of_the_api_become_outcomes() {
        assert_eq!(outcome(Err(api_error(409))), WriteOutcome::Conflict);
        assert_eq!(outcome(Err(api_error(404))), WriteOutcome::NotFound);
        assert_eq!(outcome(Err(api_error(429))), WriteOutcome::Throttled { retry_after_ms: 3_000 });
        assert!(matches!(outcome(Err(api_error(422))), WriteOutcome::Refused(_)));
        assert!(matches!(outcome(Err(api_error(503))), WriteOutcome::Unavailable(_)));
    }

    /// Takes connections and says nothing.
    async fn silent_api() -> (Client, tokio::task::JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                held.push(stream);
            }
        });
        (Client::try_from(kube::Config::new(format!("http://{address}").parse().unwrap())).unwrap(), server)
    }

    #[tokio::test]
    async fn a_call_that_nobody_answers_ends() {
        let (client, server) = silent_api().await;
        let timeout = Duration::from_millis(50);
        let kubernetes = Kubernetes { timeout, ..Kubernetes::new(client, "c".to_owned()) };
        let key = wasmbed_control::fleet::ObjectKey { namespace: "n".to_owned(), name: "a".to_owned() };
        let write = StatusWrite {
            id: wasmbed_control::fleet::CallId(1),
            application: key.clone(),
            patch: serde_json::json!({}),
            correlation_id: wasmbed_protocol::CorrelationId([0; 16]),
        };
        let source = UploadSource::Application(key);
        let written = kubernetes.write_status(&write).await;
        assert_eq!(written, WriteOutcome::Unavailable("no answer within 0 s".to_owned()));
        let read = kubernetes.module_bytes(&source, ModuleDigest([0; 32])).await;
        assert!(matches!(read, Err(CallError::Timeout(_))));
        server.abort();
    }
}
