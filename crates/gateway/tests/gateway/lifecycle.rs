//! Devices come and go, and Kubernetes says so.

use base64::Engine as _;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Event, Namespace},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use wasmbed_api::{Device, DeviceGateway, DevicePhase};
use wasmbed_control::{
    ObjectKey,
    gateway_api::{AssignmentEntry, DeviceSet, PutSets},
};
use wasmbed_gateway::Enrollment;
use wasmbed_protocol::{
    ApplicationReport, ApplicationState, ApplicationUid, AssignmentGet, CorrelationId, DeviceMessage,
    GatewayMessage, List, ModuleDigest, ModuleGet, ReportReason, Reported, RestartPolicy, Revision, Sequence,
    Spec, SpecHash, decode_gateway, encode_spec,
};

use crate::support::*;

fn entry(module: &[u8]) -> (AssignmentEntry, SpecHash) {
    let digest = ModuleDigest::of(module);
    let spec = Spec {
        uid: ApplicationUid([1; 16]),
        name: "default/hello",
        digest,
        module_bytes: module.len() as u32,
        memory_limit_bytes: 65_536,
        cpu_limit_ms: 1_000,
        restart_policy: RestartPolicy::Always,
        args: List::empty(),
        env: List::empty(),
        capabilities: List::empty(),
        values_mac: None,
        i2c: List::empty(),
        uart: List::empty(),
        gpio: List::empty(),
        spi: List::empty(),
        topics: List::empty(),
    };
    let mut bytes = [0; 2_900];
    let length = encode_spec(&spec, &mut bytes).unwrap();
    let hash = SpecHash::of(&bytes[..length]);
    let entry = AssignmentEntry {
        application_uid: "01010101-0101-0101-0101-010101010101".into(),
        application: "default/hello".into(),
        spec_hash: hash.to_string(),
        spec: base64::engine::general_purpose::STANDARD.encode(&bytes[..length]).into(),
        digest: digest.to_string(),
        correlation_id: "0c".repeat(16),
    };
    (entry, hash)
}

fn put(revision: u64, entries: Vec<AssignmentEntry>) -> Vec<u8> {
    let device = ObjectKey { namespace: "default".into(), name: "a".into() };
    let sets = vec![DeviceSet { device, revision, assignments: entries }];
    serde_json::to_vec(&PutSets { leader_term: 1, sets }).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_of_the_gateway_s_namespaces_are_served_and_others_turned_away() {
    let mut world = World::start_with(|config| {
        config.namespaces = ["default", "lab"].map(str::to_owned).into();
        config.enrollment = Enrollment::Open;
    })
    .await;
    let namespaces: Api<Namespace> = Api::all(world.admin.clone());
    for name in ["lab", "plant"] {
        let namespace = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    }
    let _ours = world.device("a").await;
    let strange = world.authorities.issue_device("plant", "a").unwrap();
    let mut refused = DeviceClient::connect(&world, &strange).await.unwrap();
    refused.send(&DeviceMessage::Hello(hello(0, 0))).await.unwrap();
    let said = refused.next().await.unwrap();
    assert!(said.starts_with("Reject(") && said.contains("does not serve the Device's namespace"), "{said}");
    let elsewhere: Api<Device> = Api::namespaced(world.admin.clone(), "plant");
    assert_eq!(
        elsewhere.list(&ListParams::default()).await.unwrap().items.len(),
        0,
        "nothing is created there"
    );

    // The second namespace is as good as the first: a device is created there, seen, and seen to go.
    let lab: Api<Device> = Api::namespaced(world.admin.clone(), "lab");
    let identity = world.authorities.issue_device("lab", "b").unwrap();
    let mut other = world.connect_device(&identity).await;
    other.beat(1).await;
    lab.delete("b", &DeleteParams::default()).await.unwrap();
    let said = other.next().await.unwrap();
    assert!(said.starts_with("Goodbye(") && said.contains("Deleted"), "{said}");
    world.stop_gateway().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_device_is_created_approved_and_connected() {
    let world = World::start().await;
    let identity = world.authorities.issue_device("default", "new").unwrap();
    let mut client = DeviceClient::connect(&world, &identity).await.unwrap();
    client.send(&DeviceMessage::Hello(hello(0, 0))).await.unwrap();
    assert!(client.next().await.unwrap().contains("PendingApproval"));
    let device = world.phase("new", DevicePhase::Pending).await;
    assert!(!device.spec.approved);
    assert_eq!(device.spec.public_key, Some(identity.public_key_base64()));
    let patch = Patch::Merge(json!({ "spec": { "approved": true } }));
    world.devices().patch("new", &PatchParams::default(), &patch).await.unwrap();
    let mut client = world.connect_device(&identity).await;
    let device = world.phase("new", DevicePhase::Connected).await;
    let status = device.status.unwrap();
    assert_eq!((status.gateway.as_deref(), status.epoch), (Some("gw"), Some(1)));
    assert_eq!(status.facts.unwrap().board, "test");

    // Revocation ends the session at once, and deletion forgets.
    let patch = Patch::Merge(json!({ "spec": { "revoked": true } }));
    world.devices().patch("new", &PatchParams::default(), &patch).await.unwrap();
    assert!(client.next().await.unwrap().contains("Revoked"));
    world.phase("new", DevicePhase::Revoked).await;
    world.devices().delete("new", &DeleteParams::default()).await.unwrap();
    let events: Api<Event> = Api::namespaced(world.admin.clone(), "default");
    soon("the Events", async {
        loop {
            let list = events.list(&ListParams::default()).await.unwrap();
            let reasons: Vec<_> = list.iter().filter_map(|event| event.reason.as_deref()).collect();
            if ["PendingApproval", "SessionEstablished", "Revoked"]
                .iter()
                .all(|reason| reasons.contains(reason))
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_travels_and_the_report_comes_back() {
    let mut world = World::start().await;
    let identity = world.enroll("a").await;
    let mut device = world.connect_device(&identity).await;
    let module: Vec<u8> = (0..50_000_u32).map(|index| index as u8).collect();
    let (entry, hash) = entry(&module);
    let mut http = world.controller().await;
    let (_, answer) = http.call("PUT", "/v1/sets", put(1, vec![entry.clone()])).await;
    assert_eq!(answer["refused"][0]["missing_modules"], json!([entry.digest]));
    assert_eq!(http.call("PUT", &format!("/v1/modules/{}", entry.digest), module.clone()).await.0, 201);
    let (_, answer) = http.call("PUT", "/v1/sets", put(1, vec![entry.clone()])).await;
    assert_eq!(answer["refused"], json!([]));

    assert!(device.next().await.unwrap().starts_with("Desired"));
    device.send(&DeviceMessage::AssignmentGet(AssignmentGet { spec_hash: hash })).await.unwrap();
    assert!(device.next().await.unwrap().starts_with("Assignment("));
    let digest = ModuleDigest::of(&module);
    let mut received = Vec::new();
    while received.len() < module.len() {
        let get = ModuleGet { digest, offset: received.len() as u32, length: 16_384 };
        device.send(&DeviceMessage::ModuleGet(get)).await.unwrap();
        let end = (received.len() + 16_384).min(module.len());
        while received.len() < end {
            let body = device.next_body().await.unwrap();
            let GatewayMessage::ModuleChunk(chunk) = decode_gateway(&body).unwrap() else { panic!() };
            assert_eq!(chunk.offset as usize, received.len());
            received.extend_from_slice(chunk.bytes);
        }
    }
    assert_eq!(received, module);
    let reports = [ApplicationReport {
        uid: ApplicationUid([1; 16]),
        spec_hash: hash,
        digest: Some(digest),
        state: ApplicationState::Running,
        reason: ReportReason::None,
        message: "",
        restarts: 0,
        memory_bytes: 1,
        cpu_ms: 1,
        correlation_id: CorrelationId([12; 16]),
    }];
    let reported =
        Reported { sequence: Sequence(1), revision: Revision(1), applications: List::new(&reports) };
    device.send(&DeviceMessage::Reported(reported)).await.unwrap();
    let devices = world.devices();
    soon("the report in Kubernetes", async {
        loop {
            let status = devices.get("a").await.unwrap().status.unwrap_or_default();
            if status.revision == Some(1) {
                assert_eq!(status.applications[0].name, "hello");
                assert_eq!(status.applications[0].digest, Some(format!("sha256:{digest}")));
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;

    // The set and the module outlive the process.
    world.stop_gateway().await;
    world.start_gateway(|_| {}).await;
    world.wait_ready().await;
    let mut device = DeviceClient::connect(&world, &identity).await.unwrap();
    device.send(&DeviceMessage::Hello(hello(1, 1))).await.unwrap();
    let welcome = device.next().await.unwrap();
    assert!(welcome.contains("desired_known: true") && welcome.contains("Epoch(2)"), "{welcome}");
    assert!(device.next().await.unwrap().starts_with("Desired(Desired { revision: Revision(1)"));
    device.send(&DeviceMessage::ModuleGet(ModuleGet { digest, offset: 0, length: 100 })).await.unwrap();
    assert!(device.next().await.unwrap().starts_with("ModuleChunk"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_with_an_empty_disk_empties_no_device() {
    let mut world = World::start().await;
    let identity = world.enroll("a").await;
    world.connect_device(&identity).await;
    let mut http = world.controller().await;
    assert_eq!(http.call("PUT", "/v1/sets", put(4, vec![])).await.0, 200);
    world.stop_gateway().await;
    std::fs::remove_dir_all(world.folder.path().join("gateway")).unwrap();
    world.start_gateway(|_| {}).await;
    world.wait_ready().await;
    let mut device = DeviceClient::connect(&world, &identity).await.unwrap();
    device.send(&DeviceMessage::Hello(hello(1, 4))).await.unwrap();
    assert!(device.next().await.unwrap().contains("desired_known: false"));
    device.beat(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_says_goodbye_and_leaves_the_truth_in_kubernetes() {
    let mut world = World::start().await;
    let mut device = world.device("a").await;
    world.phase("a", DevicePhase::Connected).await;
    let gateways: Api<DeviceGateway> = Api::namespaced(world.admin.clone(), "wasmbed-system");
    let leases: Api<Lease> = Api::namespaced(world.admin.clone(), "wasmbed-system");
    soon("the gateway's own objects", async {
        loop {
            let gateway = gateways.get_opt("gw").await.unwrap().and_then(|gateway| gateway.status);
            let lease = leases.get_opt("gateway-gw").await.unwrap().and_then(|lease| lease.spec);
            if let (Some(gateway), Some(lease)) = (gateway, lease)
                && gateway.connected == 1
            {
                let id = std::fs::read_to_string(world.folder.path().join("gateway/id")).unwrap();
                assert_eq!(lease.holder_identity.as_deref(), Some(id.trim()));
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(gateways.get("gw").await.unwrap().spec.address, world.server.to_string());
    world.stop_gateway().await;
    assert!(device.next().await.unwrap().contains("Goodbye(Closing { reason: ShuttingDown"));
    let device = world.devices().get("a").await.unwrap();
    assert_eq!(device.status.unwrap().phase, DevicePhase::Disconnected);
    let status = gateways.get("gw").await.unwrap().status.unwrap();
    assert_eq!(status.conditions[0].reason, "Draining");
    let lease = leases.get("gateway-gw").await.unwrap();
    assert_eq!(lease.spec.unwrap().holder_identity.unwrap_or_default(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_come_back_while_kubernetes_is_away() {
    let mut world = World::start().await;
    let identity = world.enroll("a").await;
    drop(world.connect_device(&identity).await);
    world.phase("a", DevicePhase::Disconnected).await;
    let address = world.cluster.take().unwrap().stop().await;
    let mut device = DeviceClient::connect(&world, &identity).await.unwrap();
    device.send(&DeviceMessage::Hello(hello(1, 0))).await.unwrap();
    assert!(device.next().await.unwrap().starts_with("Welcome"));
    device.beat(1).await;
    let folder = world.folder.path().to_owned();
    world.cluster = Some(Cluster::start(&folder, address).await);
    let status = world.phase("a", DevicePhase::Connected).await.status.unwrap();
    assert_eq!(status.epoch, Some(2));
    device.beat(2).await;
}
