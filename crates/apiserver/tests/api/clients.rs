//! kube-rs against the server: what controllers and gateways rely on.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Namespace};
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchEvent,
    WatchParams,
};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use wasmbed_apiserver::Limits;

use crate::support::Running;

fn devices(client: kube::Client) -> Api<DynamicObject> {
    Api::namespaced_with(client, "default", &resource("Device"))
}

fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("wasmbed.github.io", "v1alpha1", kind))
}

fn device(name: &str, spec: Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "wasmbed.github.io/v1alpha1", "kind": "Device", "metadata": {"name": name}, "spec": spec,
    }))
    .unwrap()
}

fn code(error: kube::Error) -> (u16, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn concurrent_writers_get_conflicts() {
    let server = Running::start().await;
    let api = devices(server.admin().await);
    let created = api.create(&PostParams::default(), &device("a", json!({}))).await.unwrap();
    assert_eq!(created.data["spec"]["approved"], true);
    assert_eq!(created.metadata.generation, Some(1));

    let mut stale = created.clone();
    stale.data["spec"]["device_type"] = json!("x");
    let updated = api.replace("a", &PostParams::default(), &stale).await.unwrap();
    assert_eq!(updated.metadata.generation, Some(2));
    let conflict = api.replace("a", &PostParams::default(), &stale).await.unwrap_err();
    assert_eq!(code(conflict), (409, "Conflict".into()));

    let version = updated.metadata.resource_version.clone().unwrap();
    let status = |version: &str| {
        Patch::Merge(json!({"metadata": {"resourceVersion": version}, "status": {"phase": "Connected"}}))
    };
    let patched = api.patch_status("a", &PatchParams::default(), &status(&version)).await.unwrap();
    assert_eq!(patched.metadata.generation, Some(2), "a status doesn't count as a change of what is wanted");
    let conflict = api.patch_status("a", &PatchParams::default(), &status(&version)).await.unwrap_err();
    assert_eq!(code(conflict), (409, "Conflict".into()));

    let unchanged = api
        .patch_status("a", &PatchParams::default(), &Patch::Merge(json!({"status": {"phase": "Connected"}})))
        .await
        .unwrap();
    assert_eq!(unchanged.metadata.resource_version, patched.metadata.resource_version);

    let spec_through_status = Patch::Merge(json!({"spec": {"revoked": true}, "status": {"n": 1}}));
    let patched = api.patch_status("a", &PatchParams::default(), &spec_through_status).await.unwrap();
    assert_eq!((&patched.data["spec"]["revoked"], &patched.data["status"]["n"]), (&json!(false), &json!(1)));
    let status_through_spec = Patch::Merge(json!({"spec": {"revoked": true}, "status": {"n": 2}}));
    let patched = api.patch("a", &PatchParams::default(), &status_through_spec).await.unwrap();
    assert_eq!((&patched.data["spec"]["revoked"], &patched.data["status"]["n"]), (&json!(true), &json!(1)));

    let wrong_uid = DeleteParams {
        preconditions: Some(Preconditions { uid: Some("other".into()), ..Default::default() }),
        ..Default::default()
    };
    assert_eq!(code(api.delete("a", &wrong_uid).await.unwrap_err()), (409, "Conflict".into()));
    assert!(api.delete("a", &DeleteParams::default()).await.unwrap().is_right());
    assert_eq!(code(api.get("a").await.unwrap_err()), (404, "NotFound".into()));
    server.stop().await;
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let server = Running::start().await;
    let api = devices(server.admin().await);
    let mut object = device("a", json!({}));
    object.metadata.finalizers = Some(vec!["wasmbed.github.io/hold".into()]);
    api.create(&PostParams::default(), &object).await.unwrap();
    let deleting = api.delete("a", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert!(deleting.metadata.deletion_timestamp.is_some());
    let more = json!({"metadata": {"finalizers": ["wasmbed.github.io/hold", "wasmbed.github.io/other"]}});
    let refused = api.patch("a", &PatchParams::default(), &Patch::Merge(&more)).await.unwrap_err();
    assert_eq!(code(refused), (422, "Invalid".into()));
    let none = json!([{"op": "remove", "path": "/metadata/finalizers/0"}]);
    let patch: json_patch::Patch = serde_json::from_value(none).unwrap();
    api.patch("a", &PatchParams::default(), &Patch::<()>::Json(patch)).await.unwrap();
    assert_eq!(code(api.get("a").await.unwrap_err()), (404, "NotFound".into()));
    server.stop().await;
}

#[tokio::test]
async fn watchers_see_every_change_once_and_in_order() {
    let server = Running::start().await;
    let api = devices(server.admin().await);
    let listed = api.list(&ListParams::default()).await.unwrap();
    let version = listed.metadata.resource_version.unwrap();
    let watching = api.watch(&WatchParams::default(), &version).await.unwrap();
    let writers = futures::future::join_all((0..8).map(|writer| {
        let api = api.clone();
        async move {
            for n in 0..5 {
                api.create(&PostParams::default(), &device(&format!("d-{writer}-{n}"), json!({})))
                    .await
                    .unwrap();
            }
        }
    }));
    let seen = watching.take(40).try_collect::<Vec<_>>();
    let (_, seen) = tokio::join!(writers, seen);
    let versions: Vec<u64> = seen
        .unwrap()
        .iter()
        .map(|event| match event {
            WatchEvent::Added(object) => object.metadata.resource_version.as_ref().unwrap().parse().unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_watch_follows_its_selectors() {
    let server = Running::start().await;
    let api = devices(server.admin().await);
    let watch = WatchParams::default().labels("site=lab");
    let mut watching = api.watch(&watch, "0").await.unwrap().boxed();
    api.create(&PostParams::default(), &device("a", json!({}))).await.unwrap();
    let label = |site: &str| Patch::Merge(json!({"metadata": {"labels": {"site": site}}}));
    api.patch("a", &PatchParams::default(), &label("lab")).await.unwrap();
    assert!(matches!(watching.next().await.unwrap().unwrap(), WatchEvent::Added(_)));
    api.patch("a", &PatchParams::default(), &Patch::Merge(json!({"spec": {"revoked": true}}))).await.unwrap();
    assert!(matches!(watching.next().await.unwrap().unwrap(), WatchEvent::Modified(_)));
    api.patch("a", &PatchParams::default(), &label("roof")).await.unwrap();
    assert!(matches!(watching.next().await.unwrap().unwrap(), WatchEvent::Deleted(_)));
    api.patch_status("a", &PatchParams::default(), &Patch::Merge(json!({"status": {"gateway": "gw-1"}})))
        .await
        .unwrap();
    let mine = ListParams::default().fields("status.gateway=gw-1");
    assert_eq!(api.list(&mine).await.unwrap().items.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_watcher_lists_again_when_its_history_is_gone() {
    let limits = Limits { history_events: 4, ..Limits::default() };
    let server = Running::start_with(limits).await;
    let api = devices(server.admin().await);
    let first = api.create(&PostParams::default(), &device("d-0", json!({}))).await.unwrap();
    for n in 1..10 {
        api.create(&PostParams::default(), &device(&format!("d-{n}"), json!({}))).await.unwrap();
    }
    let version = first.metadata.resource_version.unwrap();
    let mut old = api.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    match old.next().await.unwrap().unwrap() {
        WatchEvent::Error(status) => assert_eq!((status.code, status.reason.as_str()), (410, "Expired")),
        other => panic!("{other:?}"),
    }
    for strategy in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let seen: BTreeSet<String> = watcher(api.clone(), strategy)
            .applied_objects()
            .take(10)
            .map_ok(|object| object.metadata.name.unwrap())
            .try_collect()
            .await
            .unwrap();
        assert_eq!(seen.len(), 10);
    }
    server.stop().await;
}

#[tokio::test]
async fn long_lists_come_in_pages_of_one_moment() {
    let server = Running::start().await;
    let api = devices(server.admin().await);
    for n in 0..7 {
        api.create(&PostParams::default(), &device(&format!("d-{n}"), json!({}))).await.unwrap();
    }
    let first = api.list(&ListParams::default().limit(3)).await.unwrap();
    assert_eq!((first.items.len(), first.metadata.remaining_item_count), (3, Some(4)));
    api.delete("d-6", &DeleteParams::default()).await.unwrap();
    let next = ListParams::default().limit(3).continue_token(&first.metadata.continue_.unwrap());
    let second = api.list(&next).await.unwrap();
    assert_eq!(second.metadata.resource_version, first.metadata.resource_version);
    let next = ListParams::default().limit(3).continue_token(&second.metadata.continue_.unwrap());
    let third = api.list(&next).await.unwrap();
    assert_eq!(third.items[0].metadata.name.as_deref(), Some("d-6"), "the list is of the moment it began");
    assert_eq!(third.metadata.continue_.unwrap_or_default(), "");
    let metadata = api.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(metadata.items.len(), 6);
    api.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    assert!(api.list(&ListParams::default()).await.unwrap().items.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_objects_and_revisions() {
    let server = Running::start().await;
    let api = devices(server.admin().await);
    let created =
        api.create(&PostParams::default(), &device("a", json!({"device_type": "x"}))).await.unwrap();
    let server = server.restart().await;
    let api = devices(server.admin().await);
    let found = api.get("a").await.unwrap();
    assert_eq!(found.data, created.data);
    assert_eq!(found.metadata, created.metadata);
    let number =
        |object: &DynamicObject| object.metadata.resource_version.as_ref().unwrap().parse::<u64>().unwrap();
    let next = api.create(&PostParams::default(), &device("b", json!({}))).await.unwrap();
    assert!(number(&next) > number(&created));
    let mut watching =
        api.watch(&WatchParams::default(), &number(&created).to_string()).await.unwrap().boxed();
    match watching.next().await.unwrap().unwrap() {
        WatchEvent::Added(object) => assert_eq!(object.metadata.name.as_deref(), Some("b")),
        other => panic!("{other:?}"),
    }
    let before = (number(&created) - 1).to_string();
    let mut watching = api.watch(&WatchParams::default(), &before).await.unwrap().boxed();
    assert!(
        matches!(watching.next().await.unwrap().unwrap(), WatchEvent::Error(status) if status.code == 410)
    );
    server.stop().await;
}

#[tokio::test]
async fn gateways_may_do_their_part_and_no_more() {
    let server = Running::start().await;
    let client = server.client("gateway:gw-1", "wasmbed:gateways").await;
    let api = devices(client.clone());
    let post = PostParams::default();
    let refused = api.create(&post, &device("d", json!({}))).await.unwrap_err();
    assert_eq!(code(refused), (403, "Forbidden".into()), "a Device is approved unless it says otherwise");
    api.create(&post, &device("d", json!({"approved": false}))).await.unwrap();
    let approve = Patch::Merge(json!({"spec": {"approved": true}}));
    let refused = api.patch("d", &PatchParams::default(), &approve).await.unwrap_err();
    assert_eq!(code(refused), (403, "Forbidden".into()));
    let connected = Patch::Merge(json!({"spec": {"approved": true}, "status": {"phase": "Connected"}}));
    let patched = api.patch_status("d", &PatchParams::default(), &connected).await.unwrap();
    assert_eq!(patched.data["spec"]["approved"], false);
    assert_eq!(code(api.delete("d", &DeleteParams::default()).await.unwrap_err()).0, 403);

    let namespaces: Api<Namespace> = Api::all(server.admin().await);
    let system = serde_json::from_value(json!({"metadata": {"name": "wasmbed-system"}})).unwrap();
    namespaces.create(&post, &system).await.unwrap();
    let gateways: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), "wasmbed-system", &resource("DeviceGateway"));
    let gateway = |name: &str| -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "wasmbed.github.io/v1alpha1", "kind": "DeviceGateway", "metadata": {"name": name},
            "spec": {"address": "10.0.0.1:8080"},
        }))
        .unwrap()
    };
    gateways.create(&post, &gateway("gw-1")).await.unwrap();
    assert_eq!(code(gateways.create(&post, &gateway("gw-2")).await.unwrap_err()).0, 403);

    let leases: Api<Lease> = Api::namespaced(client.clone(), "wasmbed-system");
    let lease: Lease = serde_json::from_value(json!({
        "metadata": {"name": "gateway-gw-1"},
        "spec": {"holderIdentity": "gw-1", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"},
    }))
    .unwrap();
    let created = leases.create(&post, &lease).await.unwrap();
    leases.replace("gateway-gw-1", &post, &created).await.unwrap();

    let events: Api<Event> = Api::namespaced(client, "default");
    let event: Event = serde_json::from_value(json!({
        "metadata": {"generateName": "d."}, "involvedObject": {"kind": "Device", "name": "d", "namespace": "default"},
        "reason": "Connected", "message": "m", "type": "Normal",
    }))
    .unwrap();
    let created = events.create(&post, &event).await.unwrap();
    assert!(created.metadata.name.unwrap().starts_with("d."));
    let about = ListParams::default().fields("involvedObject.name=d,involvedObject.kind=Device");
    assert_eq!(code(events.list(&about).await.unwrap_err()).0, 403, "Events are for people");
    let events: Api<Event> = Api::namespaced(server.admin().await, "default");
    assert_eq!(events.list(&about).await.unwrap().items.len(), 1);
    let renamed: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(server.admin().await, "default");
    assert_eq!(renamed.list(&ListParams::default()).await.unwrap().items[0].note.as_deref(), Some("m"));

    let stranger = devices(server.client("eve", "nobody").await);
    assert_eq!(code(stranger.list(&ListParams::default()).await.unwrap_err()).0, 403);
    server.stop().await;
}

#[tokio::test]
async fn a_terminating_namespace_accepts_no_new_objects() {
    let server = Running::start().await;
    let client = server.admin().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "lab"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let api: Api<DynamicObject> = Api::namespaced_with(client, "lab", &resource("Device"));
    let mut held = device("a", json!({}));
    held.metadata.finalizers = Some(vec!["wasmbed.github.io/hold".into()]);
    api.create(&PostParams::default(), &held).await.unwrap();
    namespaces.delete("lab", &DeleteParams::default()).await.unwrap();
    let refused = api.create(&PostParams::default(), &device("b", json!({}))).await.unwrap_err();
    assert_eq!(code(refused), (403, "Forbidden".into()));
    let gone = kube::runtime::wait::await_condition(
        namespaces,
        "lab",
        kube::runtime::wait::conditions::is_deleted(""),
    );
    let deleting =
        kube::runtime::wait::await_condition(api.clone(), "a", |object: Option<&DynamicObject>| {
            object.is_some_and(|object| object.metadata.deletion_timestamp.is_some())
        });
    tokio::time::timeout(Duration::from_secs(20), deleting).await.unwrap().unwrap();
    api.patch("a", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"finalizers": null}})))
        .await
        .unwrap();
    tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap().unwrap();
    server.stop().await;
}
