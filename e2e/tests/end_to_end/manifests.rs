//! Manifests as people get them: those of the architecture overview, and the examples of the repository.

use anyhow::Result;
use base64::{Engine, engine::general_purpose::STANDARD};
use wasmbed_api::ApplicationPhase;
use wasmbed_e2e::{ControlPlane, Machine, fixtures};
use wasmbed_pki::Identity;

wasmbed_e2e::both!(
    as_printed_they_are_refused_naming_the_field,
    with_real_base64_the_application_runs,
    the_examples_do_what_they_say,
);

const EXAMPLES: [&str; 3] = [
    include_str!("../../../examples/hello.yaml"),
    include_str!("../../../examples/counter.yaml"),
    include_str!("../../../examples/job.yaml"),
];

const DEVICE: &str = r#"
apiVersion: wasmbed.github.io/v1alpha1
kind: Device
metadata:
  name: device-001
spec:
  device_type: "hifive1"
  capabilities: ["wasm", "tls"]
  public_key: "base64_encoded_public_key"
status:
  phase: "Connected"
  last_heartbeat: "2024-09-01T22:00:00Z"
"#;
const APPLICATION: &str = r#"
apiVersion: wasmbed.github.io/v1alpha1
kind: Application
metadata:
  name: my-wasm-app
spec:
  name: "My WASM Application"
  wasm_bytes: "base64_encoded_wasm_binary"
  target_devices:
    device_names: ["device-001"]
  config:
    memory_limit: 1048576
    cpu_time_limit: 1000
"#;

async fn as_printed_they_are_refused_naming_the_field(plane: ControlPlane) -> Result<()> {
    let machine = Machine::start(plane).await?;
    let kubectl = machine.kubectl()?;
    let said = kubectl.apply_refused(DEVICE)?;
    assert!(said.contains("spec.public_key"), "{said}");
    let said = kubectl.apply_refused(APPLICATION)?;
    assert!(said.contains("spec.wasm_bytes"), "{said}");
    Ok(())
}

async fn with_real_base64_the_application_runs(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    let kubectl = machine.kubectl()?;
    let files = machine.layout().device_identity("default", "device-001")?;
    let key = Identity::read(&files.certificate, &files.key)?.public_key_base64();
    kubectl.apply(&DEVICE.replace("base64_encoded_public_key", &key))?;
    // A status in a manifest claims what no device said: it is not stored.
    let shown = kubectl.run(&["get", "wdev", "device-001", "-o", "jsonpath={.status.phase}"])?;
    assert_ne!(shown, "Connected");
    kubectl.apply(
        &APPLICATION.replace("base64_encoded_wasm_binary", &STANDARD.encode(fixtures::ticker("tick", 500))),
    )?;
    machine.start_device("device-001")?;
    machine
        .application("my-wasm-app", "Running", |application| {
            application.status.as_ref().is_some_and(|status| status.phase == ApplicationPhase::Running)
        })
        .await?;
    kubectl.run(&["wait", "--for=condition=Ready", "wapp/my-wasm-app", "--timeout=60s"])?;
    Ok(())
}

async fn the_examples_do_what_they_say(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    let kubectl = machine.kubectl()?;
    machine.add_device("device-001").await?;
    kubectl.run(&["label", "wdev", "device-001", "site=lab"])?;
    for example in EXAMPLES {
        kubectl.apply(example)?;
    }
    for (application, condition) in
        [("example-hello", "Ready"), ("example-counter", "Ready"), ("example-job", "Succeeded")]
    {
        let condition = format!("--for=condition={condition}");
        kubectl.run(&["wait", &condition, &format!("wapp/{application}"), "--timeout=120s"])?;
    }
    Ok(())
}
