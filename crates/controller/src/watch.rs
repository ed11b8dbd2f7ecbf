//! Watches of the Kubernetes API. Modules are hashed and scanned here, and their bytes go no further.

use std::{fmt::Debug, sync::Arc, time::Duration};

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
use wasmbed_api::{Application, Device, DeviceGateway, GATEWAY_LEASE_PREFIX, LEADER_LEASE, Module};
use wasmbed_control::{
    ObjectKey,
    fleet::{Kind, LeaseSeen, ModuleFacts, ModuleSources},
};
use wasmbed_kubernetes::describe_watch_error;

use crate::election::renewal;
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
    let mut sources = ModuleSources::default();
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

    /// Only the Lease watch affects liveness.
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

/// The bytes of a module go no further than this.
fn application(change: Change<Application>, sources: &mut ModuleSources) -> Option<Input> {
    match change {
        Change::Gone(object) => {
            sources.forget(object.metadata.uid.as_deref().unwrap_or_default());
            Some(Input::ApplicationDeleted(ObjectKey::of(&object.metadata)?))
        }
        Change::Seen(mut object) => {
            // kubectl keeps a copy of the bytes in an annotation.
            object.metadata.annotations = None;
            object.metadata.managed_fields = None;
            let source = sources.take(&mut object)?;
            Some(Input::Application(Box::new(object), source))
        }
    }
}

fn module(change: Change<Module>) -> Option<Input> {
    match change {
        Change::Gone(object) => Some(Input::ModuleDeleted(ObjectKey::of(&object.metadata)?)),
        Change::Seen(object) => {
            let key = ObjectKey::of(&object.metadata)?;
            let facts = ModuleFacts::read(&key.name, &object.spec);
            Some(Input::Module(key, Arc::new(facts)))
        }
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
        let renewed = object.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
        return Some(Input::LeaderLease(renewed.map(renewal).unwrap_or_default()));
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
