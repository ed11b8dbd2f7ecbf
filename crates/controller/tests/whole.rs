//! A controller between a real API server (the embedded one), a real gateway and real devices.

mod system;

use serde_json::json;
use system::{System, approved, condition, hello, spinning};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_lives_its_whole_life() -> anyhow::Result<()> {
    let system = System::start(2).await?;

    // Deployed: counted only once the devices say so.
    system.apply_application("app", &hello("one")?, json!({ "selector": {} })).await?;
    let running = system.application("app", |app| condition(app, "Complete", "True")).await?;
    let status = running.status.clone().unwrap_or_default();
    assert_eq!(status.ready, "2/2");
    assert_eq!(format!("{:?}", status.phase), "Running");
    assert_eq!(running.metadata.finalizers.as_deref(), Some(&["wasmbed.github.io/undeploy".to_owned()][..]));
    let first = status.module_digest.clone();

    // Updated: the devices report the new digest.
    system.apply_application("app", &hello("two")?, json!({ "selector": {} })).await?;
    let updated = system
        .application("app", |app| {
            condition(app, "Complete", "True")
                && app.status.as_ref().is_some_and(|status| {
                    status.observed_generation == Some(2) && status.module_digest != first
                })
        })
        .await?;
    let digest = updated.status.and_then(|status| status.module_digest);
    let reports = |device: &wasmbed_api::Device| {
        device.status.iter().flat_map(|status| &status.applications).any(|app| app.digest == digest)
    };
    system.device("device-000", reports).await?;

    // Deleted: removed on the devices, then let go of.
    system.delete_application("app").await?;
    system
        .device("device-000", |device| device.status.iter().all(|status| status.applications.is_empty()))
        .await?;
    system.event("app", "AllRunning").await?;
    system.event("app", "Undeployed").await?;
    system.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_run_is_refused_with_its_reason_and_disturbs_nobody() -> anyhow::Result<()> {
    let system = System::start(1).await?;
    system.apply_application("good", &hello("one")?, json!({ "selector": {} })).await?;
    system.application("good", |app| condition(app, "Ready", "True")).await?;

    system.apply_application("noise", b"not a module at all", json!({ "selector": {} })).await?;
    let noise = system.application("noise", |app| condition(app, "Stalled", "True")).await?;
    let status = noise.status.unwrap_or_default();
    assert_eq!(format!("{:?}", status.phase), "Failed");
    assert_eq!(status.failures[0].reason.as_str(), "InvalidModule");
    assert!(
        status.failures[0].message.contains("not a WebAssembly module"),
        "{}",
        status.failures[0].message
    );

    system
        .apply_application("spin", &spinning()?, json!({ "device_names": ["device-000", "absent"] }))
        .await?;
    let spin = system.application("spin", |app| condition(app, "Stalled", "True")).await?;
    let status = spin.status.unwrap_or_default();
    assert_eq!(status.failures[0].reason.as_str(), "CpuLimit", "{:?}", status.failures);
    assert_eq!(status.counts.missing, 1);

    let good = system.application("good", |app| condition(app, "Ready", "True")).await?;
    assert_eq!(good.status.unwrap_or_default().ready, "1/1");
    system.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_controller_takes_over_and_changes_nothing() -> anyhow::Result<()> {
    let mut system = System::start(1).await?;
    system.apply_application("app", &hello("one")?, json!({ "selector": {} })).await?;
    system.application("app", |app| condition(app, "Complete", "True")).await?;
    let revision = system.device("device-000", |device| revision(device).is_some()).await?;
    let revision = self::revision(&revision);

    system.restart_controller().await?;
    system.apply_application("other", &hello("two")?, json!({ "device_names": ["absent"] })).await?;
    system.application("other", |app| condition(app, "Ready", "False")).await?;
    let device = system.device("device-000", |_| true).await?;
    assert_eq!(self::revision(&device), revision, "a change of leader is no change of content");
    system.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_metrics_are_served() -> anyhow::Result<()> {
    let system = System::start(1).await?;
    system.apply_application("app", &hello("one")?, json!({ "selector": {} })).await?;
    system.application("app", |app| condition(app, "Ready", "True")).await?;
    system.event("app", "AllRunning").await?;
    assert_eq!(system.get("/health").await?.0, 200);
    assert_eq!(system.get("/ready").await?.0, 200);
    let (_, metrics) = system.get("/metrics").await?;
    for name in [
        "wasmbed_controller_reconciliations_total",
        "wasmbed_controller_leader 1",
        "wasmbed_controller_events_dropped_total 0",
        "wasmbed_controller_operations_total{operation=\"WriteEvent\"}",
        "wasmbed_controller_applications 1",
        "wasmbed_controller_operation_duration_seconds_count{operation=\"PutSets\"}",
        "wasmbed_controller_queue_depth{queue=\"Statuses\"}",
        "wasmbed_controller_application_deployments_total{result=\"Succeeded\"} 1",
    ] {
        assert!(metrics.contains(name), "{name} is missing in\n{metrics}");
    }
    system.stop().await
}

fn revision(device: &wasmbed_api::Device) -> Option<i64> {
    device.status.as_ref()?.revision
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_a_certificate_is_approved_once_its_device_is() -> anyhow::Result<()> {
    let system = System::start(0).await?;
    let waiting = system.create_device("waiting", json!({ "approved": false })).await?;
    let standing = system.create_device("standing", json!({ "approved": true })).await?;
    system.request("waiting-1", "waiting", &waiting, "join-proof").await?;
    system.request("standing-1", "standing", &standing, "join-proof").await?;
    system.request("standing-2", "standing", &standing, "renews").await?;
    // Without a proof a person has to confirm the key.
    system.request("standing-3", "standing", &standing, "none").await?;
    // Of a Device that was another.
    system.request("standing-4", "standing", &waiting, "join-proof").await?;
    for name in ["standing-1", "standing-2"] {
        let request = system.certificate_request(name, |request| approved(request).is_some()).await?;
        assert_eq!(approved(&request).and_then(|found| found.reason.as_deref()), Some("DeviceApproved"));
    }
    for name in ["waiting-1", "standing-3", "standing-4"] {
        let request = system.certificate_request(name, |_| true).await?;
        assert_eq!(approved(&request), None, "{name}");
    }
    system.patch_device("waiting", json!({ "approved": true })).await?;
    system.certificate_request("waiting-1", |request| approved(request).is_some()).await?;
    system.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_log_in_is_not_approved() -> anyhow::Result<()> {
    let system = System::start(0).await?;
    system.login("eve-1", "eve", "askers").await?;
    system.login("ada-1", "ada", "wasmbed:operators").await?;
    let request = system.certificate_request("ada-1", |request| approved(request).is_some()).await?;
    assert_eq!(approved(&request).and_then(|found| found.reason.as_deref()), Some("MayLogIn"));
    // Until both were asked about.
    let asked = "_operations_total{operation=\"ReviewAccess\"} 2";
    while !system.get("/metrics").await?.1.lines().any(|line| line.ends_with(asked)) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // Whatever followed from that is done when a later one is approved.
    system.login("ada-2", "ada", "wasmbed:operators").await?;
    system.certificate_request("ada-2", |request| approved(request).is_some()).await?;
    let request = system.certificate_request("eve-1", |_| true).await?;
    assert_eq!(approved(&request), None);
    system.stop().await
}
