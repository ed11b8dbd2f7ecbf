//! Watches of the Kubernetes API. Modules are hashed and scanned here, and their bytes go no further.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        utils::Backoff,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc};
use wasmbed_api::{
    Application, Device, DeviceGateway, GATEWAY_LEASE_PREFIX, LEADER_LEASE, Module, ReasonCode,
};
use wasmbed_control::{
    ObjectKey,
    fleet::{Kind, LeaseSeen, ModuleFacts, ModuleRefusal, ModuleSource},
};
use wasmbed_kubernetes::describe_watch_error;
use wasmbed_protocol::ModuleDigest;

use crate::input::Input;

/// Follows every kind that decisions depend on, until `inputs` is closed.
pub(crate) async fn follow(
    client: Client,
    namespace: Option<String>,
    system_namespace: String,
    inputs: mpsc::Sender<Input>,
    leader_changed: Arc<Notify>,
) {
    let scope = namespace.as_deref();
    let system = Some(system_namespace.as_str());
    let mut sources = BTreeMap::new();
    // Bytes come one object at a time: a page of 500 modules would be 700 MB.
    let streamed = watcher::Config::default().streaming_lists();
    let listed = watcher::Config::default();
    futures::join!(
        each(
            api::<Application>(&client, scope),
            streamed.clone(),
            &inputs,
            Listed::Kind(Kind::Application),
            |event| { application(event, &mut sources) }
        ),
        each(api::<Module>(&client, scope), streamed, &inputs, Listed::Kind(Kind::Module), module),
        each(api::<Device>(&client, scope), listed.clone(), &inputs, Listed::Kind(Kind::Device), device),
        each(
            api::<DeviceGateway>(&client, system),
            listed.clone(),
            &inputs,
            Listed::Kind(Kind::Gateway),
            gateway
        ),
        each(api::<Lease>(&client, system), listed, &inputs, Listed::Leases, |change| lease(
            change,
            &leader_changed
        )),
    );
}

/// An object that came or went.
enum Change<K> {
    Seen(K),
    Gone(K),
}

/// What a watch is of.
#[derive(Clone, Copy, Debug)]
enum Listed {
    Kind(Kind),
    Leases,
}

impl Listed {
    fn begin(self) -> Option<Input> {
        match self {
            Self::Kind(kind) => Some(Input::ListBegin(kind)),
            Self::Leases => None,
        }
    }

    fn end(self) -> Input {
        match self {
            Self::Kind(kind) => Input::ListEnd(kind),
            Self::Leases => Input::LeaseWatch(true),
        }
    }

    /// Only what nobody can say of a gateway without its Lease depends on its watch.
    fn stands(self, stands: bool) -> Option<Input> {
        match self {
            Self::Kind(_) => None,
            Self::Leases => Some(Input::LeaseWatch(stands)),
        }
    }
}

async fn each<K>(
    api: Api<K>,
    config: watcher::Config,
    inputs: &mpsc::Sender<Input>,
    listed: Listed,
    mut read: impl FnMut(Change<K>) -> Option<Input>,
) where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let events = watcher(api, config).backoff(Pauses(watcher::DefaultBackoff::default()));
    pin_mut!(events);
    let mut broken = false;
    while let Some(event) = events.next().await {
        let failed = event.is_err();
        let input = match event {
            Ok(Event::Init) => listed.begin(),
            Ok(Event::InitDone) => Some(listed.end()),
            Ok(Event::InitApply(object) | Event::Apply(object)) => read(Change::Seen(object)),
            Ok(Event::Delete(object)) => read(Change::Gone(object)),
            Err(error) => {
                let error = describe_watch_error(&error);
                tracing::warn!(
                    ?listed,
                    reason = "WatchFailed",
                    error,
                    "a watch of the Kubernetes API failed; it is started again"
                );
                None
            }
        };
        // A watch that is resumed begins with a change, not with a list.
        let turned = (failed != broken).then(|| listed.stands(!failed)).flatten();
        broken = failed;
        for input in [input, turned].into_iter().flatten() {
            if inputs.send(input).await.is_err() {
                return;
            }
        }
    }
}

/// Pauses between attempts at a watch: kube's own, which grow and vary, but at most five seconds instead of a minute, so that an API
/// server that is back is used soon.
struct Pauses(watcher::DefaultBackoff);

impl Pauses {
    const SHORTER: u32 = 12;
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause / Self::SHORTER)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0.reset();
    }
}

type Sources = BTreeMap<String, (i64, ModuleSource)>;

/// A module is decoded and scanned once for each generation: a status write changes neither.
fn application(change: Change<Application>, sources: &mut Sources) -> Option<Input> {
    match change {
        Change::Gone(object) => {
            sources.remove(object.metadata.uid.as_deref().unwrap_or_default());
            Some(Input::ApplicationDeleted(ObjectKey::of(&object.metadata)?))
        }
        Change::Seen(mut object) => {
            let uid = object.metadata.uid.clone()?;
            let generation = object.metadata.generation.unwrap_or_default();
            // kubectl keeps a copy of the bytes in an annotation.
            object.metadata.annotations = None;
            object.metadata.managed_fields = None;
            let bytes = object.spec.wasm_bytes.take();
            let source = match sources.get(&uid) {
                Some((known, source)) if *known == generation => source.clone(),
                Some(_) | None => source_of(bytes, object.spec.module.as_deref()),
            };
            sources.insert(uid, (generation, source.clone()));
            Some(Input::Application(Box::new(object), source))
        }
    }
}

fn source_of(bytes: Option<String>, module: Option<&str>) -> ModuleSource {
    match (bytes, module) {
        (Some(text), _) => match decode(&text) {
            Ok(bytes) => ModuleSource::Inline(Arc::new(ModuleFacts::analyze(&bytes))),
            Err(message) => ModuleSource::InvalidBase64(format!("spec.wasm_bytes {message}")),
        },
        (None, Some(name)) => ModuleSource::Named(name.to_owned()),
        (None, None) => ModuleSource::Absent,
    }
}

/// Reads standard base64; the message says what stands there instead.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, String> {
    const SHOWN_CHARS: usize = 24;
    STANDARD.decode(text.trim()).map_err(|error| {
        let start: String = text.chars().take(SHOWN_CHARS).collect();
        format!("is no standard base64 ({error}); it begins with '{start}'")
    })
}

fn module(change: Change<Module>) -> Option<Input> {
    match change {
        Change::Gone(object) => Some(Input::ModuleDeleted(ObjectKey::of(&object.metadata)?)),
        Change::Seen(object) => {
            let key = ObjectKey::of(&object.metadata)?;
            let facts = match decode(&object.spec.wasm_bytes) {
                Ok(bytes) => {
                    check_digest(ModuleFacts::analyze(&bytes), object.spec.digest.as_deref(), &key.name)
                }
                Err(message) => ModuleFacts {
                    digest: ModuleDigest::default(),
                    size: 0,
                    needs: Err(ModuleRefusal {
                        reason: ReasonCode::InvalidBase64,
                        message: format!("spec.wasm_bytes of Module {} {message}", key.name),
                    }),
                },
            };
            Some(Input::Module(key, Arc::new(facts)))
        }
    }
}

fn check_digest(facts: ModuleFacts, said: Option<&str>, name: &str) -> ModuleFacts {
    let found = facts.digest.prefixed().to_string();
    match said {
        Some(said) if said != found => ModuleFacts {
            needs: Err(ModuleRefusal {
                reason: ReasonCode::DigestMismatch,
                message: format!("spec.digest of Module {name} is {said}, its bytes have {found}"),
            }),
            ..facts
        },
        Some(_) | None => facts,
    }
}

fn device(change: Change<Device>) -> Option<Input> {
    match change {
        Change::Gone(object) => Some(Input::DeviceDeleted(ObjectKey::of(&object.metadata)?)),
        Change::Seen(object) => Some(Input::Device(Box::new(object))),
    }
}

fn gateway(change: Change<DeviceGateway>) -> Option<Input> {
    match change {
        Change::Gone(object) => Some(Input::GatewayDeleted(object.name_any())),
        Change::Seen(object) => Some(Input::Gateway(Box::new(object))),
    }
}

fn lease(change: Change<Lease>, leader_changed: &Notify) -> Option<Input> {
    let (Change::Seen(object) | Change::Gone(object)) = &change;
    if object.name_any() == LEADER_LEASE {
        leader_changed.notify_one();
        return Some(Input::LeaderLease);
    }
    let name = |object: &Lease| object.name_any().strip_prefix(GATEWAY_LEASE_PREFIX).map(str::to_owned);
    match change {
        Change::Gone(object) => Some(Input::Lease(name(&object)?, None)),
        Change::Seen(object) => {
            let seen = LeaseSeen::read(object.spec.as_ref());
            Some(Input::Lease(name(&object)?, Some(seen)))
        }
    }
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    namespace.map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_placeholder_of_the_overview_is_no_base64_and_says_so() {
        let ModuleSource::InvalidBase64(message) =
            source_of(Some("base64_encoded_wasm_binary".to_owned()), None)
        else {
            panic!("taken for base64")
        };
        assert!(message.contains("spec.wasm_bytes") && message.contains("base64_encoded_wasm"), "{message}");
    }

    #[test]
    fn bytes_are_gone_once_they_are_scanned_and_are_scanned_once_a_generation() {
        let mut object = Application::new("app", wasmbed_api::ApplicationSpec::default());
        object.metadata.namespace = Some("default".to_owned());
        object.metadata.uid = Some("u".to_owned());
        object.metadata.generation = Some(1);
        object.spec.wasm_bytes = Some(STANDARD.encode(b"\0asm"));
        let mut sources = Sources::new();
        let Some(Input::Application(first, ModuleSource::Inline(facts))) =
            application(Change::Seen(object.clone()), &mut sources)
        else {
            panic!("no module")
        };
        assert_eq!(first.spec.wasm_bytes, None);
        let Some(Input::Application(_, ModuleSource::Inline(again))) =
            application(Change::Seen(object.clone()), &mut sources)
        else {
            panic!("no module")
        };
        assert!(Arc::ptr_eq(&facts, &again));
        application(Change::Gone(object), &mut sources);
        assert!(sources.is_empty());
    }

    #[test]
    fn a_module_whose_bytes_have_another_digest_is_refused() {
        let facts = check_digest(ModuleFacts::analyze(b"x"), Some("sha256:00"), "m");
        assert_eq!(facts.needs.unwrap_err().reason, ReasonCode::DigestMismatch);
    }
}
