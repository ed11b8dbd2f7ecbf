//! One gateway of a name: its Lease, its DeviceGateway, and what a second process of that name may do.

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use wasmbed_api::DeviceGateway;
use wasmbed_protocol::DeviceMessage;

use crate::support::*;

const NAMESPACE: &str = "wasmbed-system";

fn gateways(world: &World) -> Api<DeviceGateway> {
    Api::namespaced(world.admin.clone(), NAMESPACE)
}

fn leases(world: &World) -> Api<Lease> {
    Api::namespaced(world.admin.clone(), NAMESPACE)
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !is_so().await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn hold(world: &World, holder: &str, seconds: i32) {
    let now = Timestamp::now();
    let spec = json!({
        "holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": format!("{now:.6}"),
    });
    let api = leases(world);
    let patch = Patch::Merge(json!({ "spec": spec }));
    if api.patch("gateway-gw", &PatchParams::default(), &patch).await.is_err() {
        let lease = serde_json::from_value(json!({ "metadata": { "name": "gateway-gw" }, "spec": spec }));
        api.create(&PostParams::default(), &lease.unwrap()).await.unwrap();
    }
}

async fn ready_condition(world: &World) -> Option<String> {
    let status = gateways(world).get_opt("gw").await.unwrap()?.status?;
    Some(status.conditions.iter().find(|condition| condition.type_ == "Ready")?.status.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_puts_its_own_object_right() {
    let world = World::start().await;
    until("Ready", async || ready_condition(&world).await.as_deref() == Some("True")).await;
    let api = gateways(&world);
    let elsewhere = Patch::Merge(json!({ "spec": { "address": "10.9.9.9:1" } }));
    api.patch("gw", &PatchParams::default(), &elsewhere).await.unwrap();
    let unknown = json!({ "type": "Ready", "status": "Unknown", "reason": "LeaseExpired", "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let status = Patch::Merge(json!({ "status": { "conditions": [unknown], "connected": 77 } }));
    api.patch_status("gw", &PatchParams::default(), &status).await.unwrap();
    until("its own address again", async || {
        let object = api.get("gw").await.unwrap();
        let status = object.status.unwrap_or_default();
        object.spec.address == world.server.to_string()
            && status.connected == 0
            && status.conditions.len() == 1
            && status.conditions[0].status == "True"
            && *status.conditions[0].last_transition_time.0.to_string() > *"2026-06"
    })
    .await;
    api.delete("gw", &kube::api::DeleteParams::default()).await.unwrap();
    until("it is made again", async || api.get_opt("gw").await.unwrap().is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_another_holds_is_waited_for() {
    let mut world = World::start().await;
    let identity = world.enroll("a").await;
    drop(world.connect_device(&identity).await);
    world.stop_gateway().await;
    hold(&world, "somebody-else", 2).await;
    let renewing = {
        let stop = tokio_util::sync::CancellationToken::new();
        let (leases, stopped) = (leases(&world), stop.clone());
        tokio::spawn(async move {
            while !stopped.is_cancelled() {
                let now = Timestamp::now();
                let patch = json!({ "spec": { "renewTime": format!("{now:.6}") } });
                let _ = leases.patch("gateway-gw", &PatchParams::default(), &Patch::Merge(patch)).await;
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            }
        });
        stop
    };
    world.start_gateway(|_| {}).await;
    until("it says who holds its name", async || world.plain("/ready").await.contains("somebody-else")).await;
    // A device that it knows is sent elsewhere.
    let mut device = DeviceClient::connect(&world, &identity).await.unwrap();
    device.send(&DeviceMessage::Hello(hello(1, 0))).await.unwrap();
    let answer = device.next().await.unwrap();
    assert!(answer.contains("Reject") && answer.contains("Unavailable"), "{answer}");
    let mut http = world.controller().await;
    let put = serde_json::to_vec(&json!({ "leader_term": 0, "sets": [] })).unwrap();
    assert_eq!(http.call("PUT", "/v1/sets", put).await.1["reason"], "NotHolder");
    renewing.cancel();
    world.wait_ready().await;
    world.connect_device(&identity).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_lease_ends_the_sessions() {
    let world = World::start().await;
    let mut device = world.device("a").await;
    hold(&world, "somebody-else", 3_600).await;
    let goodbye = device.next().await.unwrap();
    assert!(goodbye.contains("Goodbye(Closing { reason: Unavailable"), "{goodbye}");
    assert!(world.plain("/ready").await.contains("somebody-else"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_gateway_starts_at_once_and_another_of_its_name_changes_nothing() {
    let mut world = World::start().await;
    let address = world.server.to_string();
    let api = gateways(&world);
    until("its object", async || api.get_opt("gw").await.unwrap().is_some()).await;
    let holder = leases(&world).get("gateway-gw").await.unwrap().spec.unwrap().holder_identity.unwrap();
    let (second, stop) = {
        let mut other = world.config().await;
        other.data_dir = world.folder.path().join("second");
        let stop = tokio_util::sync::CancellationToken::new();
        (wasmbed_gateway::start(other, stop.clone()).await.unwrap(), stop)
    };
    let health = second.addresses.health.unwrap();
    until("the second says who holds its name", async || plain(health, "/ready").await.contains(&holder))
        .await;
    assert_eq!(api.get("gw").await.unwrap().spec.address, address);
    stop.cancel();
    soon("the second to stop", second.wait()).await;
    let object = api.get("gw").await.unwrap();
    assert_eq!(object.spec.address, address);
    assert_eq!(object.status.unwrap().conditions[0].status, "True", "the second did not say that it stops");
    let lease = leases(&world).get("gateway-gw").await.unwrap().spec.unwrap();
    assert_eq!(lease.holder_identity.as_deref(), Some(holder.as_str()));

    // As after kill -9: the Lease is fresh and held by this gateway.
    world.stop_gateway().await;
    hold(&world, &holder, 3_600).await;
    world.start_gateway(|_| {}).await;
    world.wait_ready().await;
    let lease = leases(&world).get("gateway-gw").await.unwrap().spec.unwrap();
    assert_eq!(lease.holder_identity.as_deref(), Some(holder.as_str()));
}
