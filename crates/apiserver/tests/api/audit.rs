//! The audit log of a server, as those read it who read a cluster's.

use std::path::Path;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::support::Running;

/// What stands in a Secret, and nowhere in the log.
const SECRET: &str = "hunter2hunter2";

fn object(api_version: &str, kind: &str, name: &str, more: Value) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}});
    for (field, value) in more.as_object().unwrap() {
        object[field] = value.clone();
    }
    object
}

fn lines(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap();
    assert!(!text.contains(SECRET), "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Verb, resource, name, user and code of each line.
fn summary(events: &[Value]) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let event = |event: &Value| {
        let about = &event["objectRef"];
        let subresource = about["subresource"].as_str().map_or_else(String::new, |part| format!("/{part}"));
        format!(
            "{} {}{subresource} {} {} {}",
            word(&event["verb"]),
            word(&about["resource"]),
            word(&about["name"]),
            word(&event["user"]["username"]),
            event["responseStatus"]["code"]
        )
    };
    events.iter().map(event).collect()
}

#[tokio::test]
async fn who_changed_what_is_recorded_and_nothing_that_is_secret() {
    let server = Running::start().await;
    let log = server.folder.path().join("audit.log");
    let (admin, gateway) = (server.admin().await, server.client("gateway:gw-1", "wasmbed:gateways").await);
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("wasmbed.github.io", "v1alpha1", "Device"));
    let devices = |client: &kube::Client| -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), "default", &resource)
    };
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), "default");
    let leases: Api<Lease> = Api::namespaced(admin.clone(), "default");

    let device = object("wasmbed.github.io/v1alpha1", "Device", "d", json!({"spec": {"approved": false}}));
    let device: DynamicObject = serde_json::from_value(device).unwrap();
    let created = devices(&gateway).create(&PostParams::default(), &device).await.unwrap();
    let approve = Patch::Apply(object(
        "wasmbed.github.io/v1alpha1",
        "Device",
        "d",
        json!({"spec": {"approved": true}}),
    ));
    let as_ci = PatchParams::apply("ci").force();
    devices(&admin).patch("d", &as_ci, &approve).await.unwrap();
    let status = Patch::Merge(json!({"status": {"phase": "Connected"}}));
    devices(&gateway).patch_status("d", &PatchParams::default(), &status).await.unwrap();
    let revoke = Patch::Merge(json!({"spec": {"revoked": true}}));
    devices(&gateway).patch("d", &PatchParams::default(), &revoke).await.unwrap_err();
    let secret = object("v1", "Secret", "s", json!({"stringData": {"password": SECRET}}));
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let wrong = object("v1", "Secret", "Not_A_Name", json!({"stringData": {"password": SECRET}}));
    secrets.create(&PostParams::default(), &serde_json::from_value(wrong).unwrap()).await.unwrap_err();
    secrets.get("s").await.unwrap();
    let lease = object("coordination.k8s.io/v1", "Lease", "l", json!({"spec": {"leaseTransitions": 1}}));
    leases.create(&PostParams::default(), &serde_json::from_value(lease).unwrap()).await.unwrap();
    devices(&admin).get("d").await.unwrap();
    devices(&admin).delete("d", &DeleteParams::default()).await.unwrap();

    let events = lines(&log);
    assert_eq!(
        summary(&events),
        [
            "create devices d gateway:gw-1 201",
            "patch devices d admin 200",
            "patch devices d gateway:gw-1 403",
            "create secrets s admin 201",
            "create secrets - admin 422",
            "get secrets s admin 200",
            "delete devices d admin 200",
        ]
    );
    let approved = &events[1];
    assert_eq!(approved["apiVersion"], "audit.k8s.io/v1");
    assert_eq!(approved["kind"], "Event");
    assert_eq!(approved["level"], "Metadata");
    assert_eq!(approved["stage"], "ResponseComplete");
    assert_eq!(approved["user"]["groups"], json!(["system:masters", "system:authenticated"]));
    assert_eq!(approved["sourceIPs"], json!(["127.0.0.1"]));
    assert_eq!(approved["objectRef"]["uid"].as_str(), created.metadata.uid.as_deref());
    assert_eq!(approved["objectRef"]["namespace"], "default");
    assert_eq!(approved["objectRef"]["apiGroup"], "wasmbed.github.io");
    assert_eq!(approved["annotations"]["wasmbed.github.io/generation"], "2");
    assert_eq!(approved["annotations"]["wasmbed.github.io/field-manager"], "ci");
    assert!(approved["requestURI"].as_str().unwrap().contains("fieldManager=ci"), "{approved}");
    let refused = &events[2]["responseStatus"];
    assert_eq!((&refused["status"], &refused["reason"]), (&json!("Failure"), &json!("Forbidden")));

    // A server that starts again goes on with the file.
    let server = server.restart().await;
    secrets_of(&server).await.delete("s", &DeleteParams::default()).await.unwrap();
    assert_eq!(summary(&lines(&log)).len(), events.len() + 1);
    server.stop().await;
}

async fn secrets_of(server: &Running) -> Api<Secret> {
    Api::namespaced(server.admin().await, "default")
}

/// One that is refused all the time does not write the log full.
#[tokio::test]
async fn refused_requests_are_recorded_up_to_a_bound() {
    const ATTEMPTS: usize = 500;
    let server = Running::start().await;
    let eve: Api<Secret> = Api::namespaced(server.client("eve", "nobody").await, "default");
    let started = std::time::Instant::now();
    for _ in 0..ATTEMPTS {
        eve.get("s").await.unwrap_err();
    }
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap() + 1;
    let recorded = summary(&lines(&server.folder.path().join("audit.log"))).len();
    let most = (20 * (seconds + 1)).min(ATTEMPTS);
    assert!((1..=most).contains(&recorded), "{recorded} lines in {seconds} s");
    server.stop().await;
}
