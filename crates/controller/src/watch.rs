//! Watches of the Kubernetes API. Modules are hashed and scanned here, and their bytes go no further.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::{StreamExt as _, pin_mut};
use k8s_openapi::{
    api::{certificates::v1::CertificateSigningRequest, coordination::v1::Lease, core::v1::ResourceQuota},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt as _,
        utils::Backoff,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc};
use wasmbed_api::{
    Application, DEVICE_SIGNER, Device, DeviceGateway, GATEWAY_LEASE_PREFIX, LEADER_LEASE, MessageBroker,
    Module,
};
use wasmbed_control::{
    ObjectKey,
    fleet::{Kind, LeaseSeen, ModuleFacts, ModuleSources, QuotaSeen},
};
use wasmbed_kubernetes::{Unreadable, Watched, describe_watch_error};

use crate::{audit::Changes, election::renewal, input::Input, requests};

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
    let (mut applications, mut devices) = (Changes::of("Application"), Changes::of("Device"));
    // Bytes come one object at a time: a page of 500 modules would be 700 MB.
    let streamed = watcher::Config::default().streaming_lists();
    let listed = watcher::Config::default();
    let for_devices = listed.clone().fields(&format!("spec.signerName={DEVICE_SIGNER}"));
    futures::join!(
        each(Api::all(client.clone()), for_devices, &inputs, Listed::Requests, request),
        each(api(&client, scope), streamed.clone(), &inputs, Listed::Kind(Kind::Application), |event| {
            application(event, &mut sources, &mut applications)
        }),
        each(api(&client, scope), streamed, &inputs, Listed::Kind(Kind::Module), module),
        each(api(&client, scope), listed.clone(), &inputs, Listed::Kind(Kind::Device), |event| {
            device(event, &mut devices)
        }),
        each(api(&client, system), listed.clone(), &inputs, Listed::Kind(Kind::Gateway), gateway),
        each(api(&client, scope), listed.clone(), &inputs, Listed::Kind(Kind::Quota), quota),
        each(api(&client, scope), listed.clone(), &inputs, Listed::Kind(Kind::Broker), broker),
        each(api(&client, system), listed, &inputs, Listed::Leases, |change| lease(change, &leader_changed)),
    );
}

/// An object that came, or that went: then its name is enough.
enum Change<K> {
    Seen(K),
    Gone(Box<ObjectMeta>),
}

/// What a watch is of.
#[derive(Clone, Copy, Debug)]
enum Listed {
    Kind(Kind),
    Requests,
    Leases,
}

impl Listed {
    /// Whether the rest can do without: an installation whose rights are those of a version before bounds no module bytes.
    fn is_optional(self) -> bool {
        matches!(self, Self::Kind(Kind::Quota))
    }

    fn begin(self) -> Option<Input> {
        match self {
            Self::Kind(kind) => Some(Input::ListBegin(kind)),
            Self::Requests => Some(Input::RequestsBegin),
            Self::Leases => None,
        }
    }

    fn end(self) -> Input {
        match self {
            Self::Kind(kind) => Input::ListEnd(kind),
            Self::Requests => Input::RequestsEnd,
            Self::Leases => Input::LeaseWatch(true),
        }
    }

    /// What an object that can't be read says: that it is there. A Lease then says nothing, and of a request the signer does.
    fn unreadable(self, metadata: &ObjectMeta) -> Option<Input> {
        match self {
            Self::Kind(kind) => Some(Input::Unreadable(kind, ObjectKey::of(metadata)?, metadata.uid.clone())),
            Self::Requests | Self::Leases => None,
        }
    }

    /// Only the Lease watch affects liveness.
    fn stands(self, stands: bool) -> Option<Input> {
        match self {
            Self::Kind(_) | Self::Requests => None,
            Self::Leases => Some(Input::LeaseWatch(stands)),
        }
    }
}

async fn each<K>(
    api: Api<Watched<K>>,
    config: watcher::Config,
    inputs: &mpsc::Sender<Input>,
    listed: Listed,
    mut read: impl FnMut(Change<K>) -> Option<Input>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let events = watcher(api, config).backoff(Pauses(watcher::DefaultBackoff::default()));
    pin_mut!(events);
    let (mut broken, mut refusals) = (false, 0_u32);
    let mut unreadable = Unreadable::default();
    while let Some(event) = events.next().await {
        let failed = event.is_err();
        let input = match event {
            Ok(Event::Init) => listed.begin(),
            Ok(Event::InitDone) => {
                // What is known stays known, whatever is refused later.
                refusals = REFUSALS_MAX;
                Some(listed.end())
            }
            Ok(Event::InitApply(object) | Event::Apply(object)) => match unreadable.read(object) {
                Ok(object) => read(Change::Seen(object)),
                Err(metadata) => listed.unreadable(&metadata),
            },
            Ok(Event::Delete(mut object)) => {
                let metadata = std::mem::take(object.meta_mut());
                unreadable.forget(&metadata);
                read(Change::Gone(Box::new(metadata)))
            }
            Err(error) => {
                refusals += u32::from(is_refused(&error));
                tracing::warn!(
                    ?listed,
                    reason = "WatchFailed",
                    error = describe_watch_error(&error),
                    "a watch of the Kubernetes API failed; it is started again"
                );
                // As an empty list, so that the rest goes on.
                let given_up = listed.is_optional() && refusals == REFUSALS_MAX;
                let begin = listed.begin().filter(|_| given_up && is_refused(&error));
                let empty = begin.is_some();
                if let Some(begin) = begin
                    && inputs.send(begin).await.is_err()
                {
                    return;
                }
                empty.then(|| listed.end())
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

/// Refusals before the first list after which one that is optional counts as empty: some seconds, in which an API server that has just
/// started learns its rules.
const REFUSALS_MAX: u32 = 5;

/// Whether this controller may not read a kind, or the server does not have it.
fn is_refused(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => matches!(status.code, 403 | 404),
        _ => false,
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
fn application(
    change: Change<Application>,
    sources: &mut ModuleSources,
    changes: &mut Changes,
) -> Option<Input> {
    match change {
        Change::Gone(metadata) => {
            changes.forget(&metadata);
            sources.forget(metadata.uid.as_deref().unwrap_or_default());
            Some(Input::ApplicationDeleted(ObjectKey::of(&metadata)?))
        }
        Change::Seen(mut object) => {
            let observed = object.status.as_ref().and_then(|status| status.observed_generation);
            changes.see(&object.metadata, observed);
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
        Change::Gone(metadata) => Some(Input::ModuleDeleted(ObjectKey::of(&metadata)?)),
        Change::Seen(object) => {
            let key = ObjectKey::of(&object.metadata)?;
            let facts = ModuleFacts::read(&key.name, &object.spec);
            Some(Input::Module(key, Arc::new(facts)))
        }
    }
}

fn broker(change: Change<MessageBroker>) -> Option<Input> {
    match change {
        Change::Gone(metadata) => Some(Input::BrokerDeleted(ObjectKey::of(&metadata)?)),
        Change::Seen(object) => Some(Input::Broker(Box::new(object))),
    }
}

fn device(change: Change<Device>, changes: &mut Changes) -> Option<Input> {
    match change {
        Change::Gone(metadata) => {
            changes.forget(&metadata);
            Some(Input::DeviceDeleted(ObjectKey::of(&metadata)?))
        }
        Change::Seen(object) => {
            let observed = object.status.as_ref().and_then(|status| status.observed_generation);
            changes.see(&object.metadata, observed);
            Some(Input::Device(Box::new(object)))
        }
    }
}

fn gateway(change: Change<DeviceGateway>) -> Option<Input> {
    match change {
        Change::Gone(metadata) => Some(Input::GatewayDeleted(metadata.name?)),
        Change::Seen(object) => Some(Input::Gateway(Box::new(object))),
    }
}

fn quota(change: Change<ResourceQuota>) -> Option<Input> {
    match change {
        Change::Gone(metadata) => Some(Input::QuotaDeleted(ObjectKey::of(&metadata)?)),
        Change::Seen(object) => Some(Input::Quota(ObjectKey::of(&object.metadata)?, QuotaSeen::of(&object))),
    }
}

fn request(change: Change<CertificateSigningRequest>) -> Option<Input> {
    let name = match &change {
        Change::Seen(object) => object.metadata.name.clone()?,
        Change::Gone(metadata) => metadata.name.clone()?,
    };
    let open = match change {
        Change::Seen(object) => requests::read(object),
        Change::Gone(_) => None,
    };
    Some(open.map_or(Input::RequestClosed(name), |request| Input::Request(Box::new(request))))
}

fn lease(change: Change<Lease>, leader_changed: &Notify) -> Option<Input> {
    let (metadata, spec) = match change {
        Change::Seen(object) => (object.metadata, Some(object.spec)),
        Change::Gone(metadata) => (*metadata, None),
    };
    let name = metadata.name?;
    if name == LEADER_LEASE {
        leader_changed.notify_one();
        let renewed = spec.flatten().and_then(|spec| spec.renew_time);
        return Some(Input::LeaderLease(renewed.as_ref().map(renewal).unwrap_or_default()));
    }
    let gateway = name.strip_prefix(GATEWAY_LEASE_PREFIX)?;
    Some(Input::Lease(gateway.to_owned(), spec.map(|spec| LeaseSeen::read(spec.as_ref()))))
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<Watched<K>>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    namespace.map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace))
}

#[cfg(test)]
mod tests {
    use axum::{
        Router,
        body::Body,
        http::Uri,
        response::{IntoResponse as _, Response},
    };
    use futures::stream;
    use serde_json::{Value, json};
    use wasmbed_api::request_annotation as annotation;

    use super::*;

    const GROUP: &str = "wasmbed.github.io/v1alpha1";

    /// Of each kind `a`, as this version writes it, and `b`, a field of which has another type.
    fn objects(plural: &str, version: u64) -> [Value; 2] {
        let (api_version, kind, good, bad) = match plural {
            "applications" => (GROUP, "Application", json!({ "module": "m" }), json!({ "module": ["m"] })),
            "modules" => (GROUP, "Module", json!({ "wasm_bytes": "AA==" }), json!({ "wasm_bytes": 7 })),
            "devices" => (GROUP, "Device", json!({ "approved": true }), json!({ "approved": "later" })),
            "devicegateways" => {
                (GROUP, "DeviceGateway", json!({ "address": "a:1" }), json!({ "address": [] }))
            }
            "messagebrokers" => (
                GROUP,
                "MessageBroker",
                json!({ "type": "Mqtt", "url": "mqtts://broker" }),
                json!({ "type": "Mqtt", "url": 7 }),
            ),
            "resourcequotas" => (
                "v1",
                "ResourceQuota",
                json!({ "hard": { "wasmbed.github.io/module-bytes": "1Ki" } }),
                json!({ "hard": 7 }),
            ),
            "leases" => (
                "coordination.k8s.io/v1",
                "Lease",
                json!({ "holderIdentity": "x" }),
                json!({ "leaseDurationSeconds": "15" }),
            ),
            "certificatesigningrequests" => (
                "certificates.k8s.io/v1",
                "CertificateSigningRequest",
                json!({ "request": "AA==", "signerName": DEVICE_SIGNER }),
                json!({ "request": "AA==", "signerName": 7 }),
            ),
            other => panic!("{other} is watched"),
        };
        let prefix = if plural == "leases" { GATEWAY_LEASE_PREFIX } else { "" };
        [("a", good, 1), ("b", bad, 2)].map(|(name, spec, uid)| {
            json!({
                "apiVersion": api_version,
                "kind": kind,
                "metadata": {
                    "namespace": "default",
                    "name": format!("{prefix}{name}"),
                    "annotations": {
                        annotation::DEVICE: "default/a",
                        annotation::DEVICE_UID: "00000000-0000-4000-8000-000000000001",
                        annotation::JOIN_PROOF: "AA==",
                    },
                    "uid": format!("00000000-0000-4000-8000-00000000000{uid}"),
                    "resourceVersion": version.to_string(),
                },
                "spec": spec,
            })
        })
    }

    /// A Kubernetes API that holds those objects, and changes both once they are listed.
    async fn api(uri: Uri) -> Response {
        let plural = uri.path().rsplit('/').next().unwrap();
        let query = uri.query().unwrap_or_default();
        if !query.contains("watch=true") {
            let items = objects(plural, 5);
            let list = json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "5" }, "items": items });
            return list.to_string().into_response();
        }
        let event = |type_: &str, object: &Value| json!({ "type": type_, "object": object });
        let mut events = Vec::new();
        if query.contains("sendInitialEvents=true") {
            events.extend(objects(plural, 5).iter().map(|object| event("ADDED", object)));
            let mut bookmark = objects(plural, 5)[0].clone();
            bookmark["metadata"] =
                json!({ "resourceVersion": "5", "annotations": { "k8s.io/initial-events-end": "true" } });
            events.push(event("BOOKMARK", &bookmark));
        }
        events.extend(objects(plural, 6).iter().rev().map(|object| event("MODIFIED", object)));
        events.push(event("DELETED", &objects(plural, 7)[1]));
        let lines = events.into_iter().map(|event| Ok::<_, std::io::Error>(format!("{event}\n")));
        Body::from_stream(stream::iter(lines.collect::<Vec<_>>()).chain(stream::pending())).into_response()
    }

    #[tokio::test]
    async fn without_the_right_to_quotas_the_rest_goes_on() {
        let refuse = |uri: Uri| async move {
            let refused = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden",
                "message": "no", "code": 403 });
            match uri.path().ends_with("/resourcequotas") {
                true => (axum::http::StatusCode::FORBIDDEN, refused.to_string()).into_response(),
                false => api(uri).await,
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, Router::new().fallback(refuse)).await });
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        let client = Client::try_from(config).unwrap();
        let (sender, mut inputs) = mpsc::channel(64);
        let follower = tokio::spawn(follow(client, None, "default".to_owned(), sender, Arc::default()));
        let ended = async {
            while let Some(input) = inputs.recv().await {
                if matches!(input, Input::ListEnd(Kind::Quota)) {
                    return;
                }
            }
            panic!("the watches ended");
        };
        tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap();
        follower.abort();
        server.abort();
    }

    /// What the decider hears of one kind.
    fn said(input: &Input) -> Option<(&'static str, String)> {
        let text = |kind: &Kind| format!("{kind:?}");
        Some(match input {
            Input::ListBegin(kind) => ("begin", text(kind)),
            Input::ListEnd(kind) => ("end", text(kind)),
            Input::Unreadable(kind, key, uid) => {
                assert_eq!(key, &ObjectKey::new("default", "b"));
                assert!(uid.as_ref().is_some_and(|uid| uid.ends_with('2')));
                ("unreadable", text(kind))
            }
            Input::Application(object, _) if object.metadata.name.as_deref() == Some("a") => {
                ("seen", text(&Kind::Application))
            }
            Input::Module(key, _) if key.name == "a" => ("seen", text(&Kind::Module)),
            Input::Device(object) if object.metadata.name.as_deref() == Some("a") => {
                ("seen", text(&Kind::Device))
            }
            Input::Gateway(object) if object.metadata.name.as_deref() == Some("a") => {
                ("seen", text(&Kind::Gateway))
            }
            Input::Quota(key, Some(seen)) if key.name == "a" && seen.bytes == 1_024 => {
                ("seen", text(&Kind::Quota))
            }
            Input::QuotaDeleted(_) => ("gone", text(&Kind::Quota)),
            Input::Broker(object) if object.metadata.name.as_deref() == Some("a") => {
                ("seen", text(&Kind::Broker))
            }
            Input::BrokerDeleted(_) => ("gone", text(&Kind::Broker)),
            Input::ApplicationDeleted(_) => ("gone", text(&Kind::Application)),
            Input::ModuleDeleted(_) => ("gone", text(&Kind::Module)),
            Input::DeviceDeleted(_) => ("gone", text(&Kind::Device)),
            Input::GatewayDeleted(_) => ("gone", text(&Kind::Gateway)),
            Input::RequestsBegin => ("begin", "Requests".to_owned()),
            Input::RequestsEnd => ("end", "Requests".to_owned()),
            Input::Request(request) if request.name == "a" => ("seen", "Requests".to_owned()),
            Input::RequestClosed(name) if name == "b" => ("gone", "Requests".to_owned()),
            Input::Lease(name, lease) => match (name.as_str(), lease) {
                ("a", Some(_)) => ("seen", "Lease".to_owned()),
                ("b", None) => ("gone", "Lease".to_owned()),
                other => panic!("{other:?}"),
            },
            Input::LeaseWatch(true) => return None,
            _ => panic!("an object that can't be read is taken for one that can, or a watch broke"),
        })
    }

    #[tokio::test]
    async fn an_object_that_cannot_be_read_costs_itself_in_every_watch() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, Router::new().fallback(api)).await });
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        let client = Client::try_from(config).unwrap();
        let (sender, mut inputs) = mpsc::channel(64);
        let follower = tokio::spawn(follow(client, None, "default".to_owned(), sender, Arc::default()));
        let kinds = [Kind::Application, Kind::Module, Kind::Device, Kind::Gateway, Kind::Quota, Kind::Broker];
        let mut wanted: Vec<(&str, String)> = Vec::new();
        for kind in kinds {
            // Listed, changed, and the one that can't be read deleted.
            let course = ["begin", "seen", "unreadable", "end", "unreadable", "seen", "gone"];
            wanted.extend(course.map(|what| (what, format!("{kind:?}"))));
        }
        wanted.extend(["seen", "seen", "gone"].map(|what| (what, "Lease".to_owned())));
        wanted.extend(["begin", "seen", "end", "seen", "gone"].map(|what| (what, "Requests".to_owned())));
        let mut heard: Vec<(&str, String)> = Vec::new();
        while heard.len() < wanted.len() {
            let input = tokio::time::timeout(Duration::from_secs(30), inputs.recv()).await;
            let input = input.unwrap_or_else(|_| panic!("after {heard:?} comes nothing")).unwrap();
            heard.extend(said(&input));
        }
        for kind in
            kinds.map(|kind| format!("{kind:?}")).into_iter().chain(["Lease", "Requests"].map(str::to_owned))
        {
            let of = |all: &[(&'static str, String)]| -> Vec<&'static str> {
                all.iter().filter(|(_, other)| *other == kind).map(|(what, _)| *what).collect()
            };
            assert_eq!(of(&heard), of(&wanted), "{kind}");
        }
        follower.abort();
        server.abort();
    }
}
