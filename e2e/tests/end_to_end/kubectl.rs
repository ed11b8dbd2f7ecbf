//! Wasmbed's kinds with the real kubectl: they look like any other of Kubernetes, whoever serves them.

use std::io::{BufRead, BufReader};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use wasmbed_api::{ApplicationPhase, DEVICE_SIGNER, DevicePhase, request_annotation};
use wasmbed_e2e::{ControlPlane, Kubectl, Machine, application, fixtures, module};
use wasmbed_protocol::KeyHash;

wasmbed_e2e::both!(
    columns_events_and_fields_are_shown,
    labels_edits_and_waits_work,
    values_out_of_bounds_are_refused_naming_the_field,
    a_watch_shows_changes_and_the_deletion,
    the_plugin_lets_devices_in_and_keeps_them_out,
);

/// A device that runs `ticker`.
async fn running(plane: ControlPlane) -> Result<(Machine, Kubectl)> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("board").await?;
    machine.create(&application("ticker", &fixtures::ticker("tick", 500), &["board"])).await?;
    machine
        .application("ticker", "Running", |application| {
            application.status.as_ref().is_some_and(|status| status.phase == ApplicationPhase::Running)
        })
        .await?;
    let kubectl = machine.kubectl()?;
    Ok((machine, kubectl))
}

async fn columns_events_and_fields_are_shown(plane: ControlPlane) -> Result<()> {
    let (machine, kubectl) = running(plane).await?;
    let version = kubectl.run(&["version"])?;
    assert!(version.contains("Client Version: v1.36"), "{version}");
    let devices = kubectl.run(&["get", "wdev", "-o", "wide"])?;
    assert!(devices.contains("PHASE") && devices.contains("Connected"), "{devices}");
    let applications = kubectl.run(&["get", "wapp", "-o", "wide"])?;
    assert!(applications.contains("Running") && applications.contains("1/1"), "{applications}");
    let all = kubectl.run(&["get", "wdev,wapp,wgw", "-A"])?;
    assert!(all.contains("devicegateway.wasmbed.github.io/e2e"), "{all}");

    machine
        .device("board", "Connected", |device| {
            device.status.as_ref().is_some_and(|status| status.phase == DevicePhase::Connected)
        })
        .await?;
    kubectl.run(&["wait", "--for=condition=Complete", "wapp/ticker", "--timeout=60s"])?;
    // Events are written beside the status, not before it.
    let deadline = std::time::Instant::now() + wasmbed_e2e::TIMEOUT;
    let described = loop {
        let described = kubectl.run(&["describe", "wapp", "ticker"])?;
        let events = described.split_once("Events:").context("no Events are shown")?.1;
        if !events.contains("<none>") {
            break described;
        }
        ensure!(std::time::Instant::now() < deadline, "no Event of the Application: {described}");
    };
    assert!(described.contains("Ready"), "{described}");
    let explained = kubectl.run(&["explain", "wapp.spec.config.memory_limit"])?;
    assert!(explained.contains("Linear memory at most, bytes"), "{explained}");
    Ok(())
}

/// kubectl with the plugin, and what completes it, in its `PATH`.
struct Plugin {
    kubectl: Kubectl,
    folder: tempfile::TempDir,
}

impl Plugin {
    fn installed(kubectl: Kubectl) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let binary = std::path::Path::new(wasmbed_e2e::wasmbed(&[])?.get_program()).canonicalize()?;
        for name in ["kubectl-wasmbed", "kubectl_complete-wasmbed"] {
            std::os::unix::fs::symlink(&binary, folder.path().join(name))?;
        }
        Ok(Self { kubectl, folder })
    }

    fn output(&self, arguments: &[&str]) -> Result<std::process::Output> {
        // kubectl takes no flags before a plugin's name.
        let usual = self.kubectl.command(&[]);
        let kubeconfig = usual.get_args().skip_while(|word| *word != "--kubeconfig").nth(1);
        let mut command = std::process::Command::new(usual.get_program());
        let path = std::env::var("PATH").unwrap_or_default();
        command.args(arguments).env("PATH", format!("{}:{path}", self.folder.path().display()));
        command.env("KUBECONFIG", kubeconfig.context("a kubeconfig")?).env("HOME", self.folder.path());
        Ok(command.stdin(std::process::Stdio::null()).output()?)
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What it prints, and what it says is wrong.
    fn refused(&self, arguments: &[&str]) -> Result<(String, String)> {
        let output = self.output(arguments)?;
        ensure!(!output.status.success(), "{arguments:?} succeeded");
        Ok((String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
    }

    fn get(&self, what: &str, path: &str) -> Result<String> {
        self.kubectl.run(&["get", what, "-o", &format!("jsonpath={{{path}}}")])
    }

    /// A request of a device as its gateway makes it.
    fn ask(&self, name: &str, device: &str, annotations: &[(&str, &str)]) -> Result<String> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let request = CertificateParams::default().serialize_request(&key)?.pem()?;
        let uid = self.get(&format!("wdev/{device}"), ".metadata.uid")?;
        let mut object = serde_json::json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": { "name": name, "annotations": {
                request_annotation::DEVICE: format!("default/{device}"),
                request_annotation::DEVICE_UID: uid,
            } },
            "spec": {
                "request": STANDARD.encode(request),
                "signerName": DEVICE_SIGNER,
                "usages": ["client auth"],
            },
        });
        for (name, value) in annotations {
            object["metadata"]["annotations"][*name] = serde_json::json!(value);
        }
        self.kubectl.apply(&object.to_string())?;
        Ok(KeyHash::of(key.subject_public_key_info().as_slice()).to_string())
    }
}

async fn the_plugin_lets_devices_in_and_keeps_them_out(plane: ControlPlane) -> Result<()> {
    let machine = Machine::start(plane).await?;
    let plugin = Plugin::installed(machine.kubectl()?)?;
    for (name, site) in [("bare", "x"), ("one", "lab"), ("two", "lab"), ("out", "x")] {
        plugin.kubectl.apply(&format!(
            "{{apiVersion: wasmbed.github.io/v1alpha1, kind: Device, metadata: {{name: {name}, labels: {{site: {site}}}}}, spec: {{approved: false, serial: SN-{name}}}}}"
        ))?;
    }
    // Without proof: the person compares fingerprints.
    let csr = format!("bare-{}", plane_name(plane));
    let fingerprint = plugin.ask(&csr, "bare", &[])?;
    let (shown, said) = plugin.refused(&["wasmbed", "approve", "bare"])?;
    ensure!(shown.contains("serial SN-bare") && shown.contains(&fingerprint), "{shown}");
    ensure!(said.contains("no proof of who it is") && said.contains("--fingerprint"), "{said}");
    let other = "0".repeat(64);
    let (_, said) = plugin.refused(&["wasmbed", "approve", "bare", "--fingerprint", &other])?;
    ensure!(said.contains("someone put another key in its place"), "{said}");
    assert_eq!(plugin.get("wdev/bare", ".spec.approved")?, "false");
    let said = plugin.run(&["wasmbed", "approve", "bare", "--fingerprint", &fingerprint])?;
    ensure!(said.contains("default/bare approved, with this key"), "{said}");
    assert_eq!(plugin.get("wdev/bare", ".spec.confirmed_key")?, fingerprint);
    let managers = plugin.kubectl.run(&["get", "wdev/bare", "--show-managed-fields", "-o", "json"])?;
    ensure!(managers.contains("\"manager\": \"kubectl-wasmbed\""), "who decided is seen: {managers}");
    plugin.kubectl.run(&["wait", &format!("csr/{csr}"), "--for=condition=Approved", "--timeout=60s"])?;
    ensure!(
        plugin.run(&["wasmbed", "approve", "bare"])?.contains("default/bare unchanged"),
        "once is enough"
    );

    let said = plugin.run(&["wasmbed", "approve", "-l", "site=lab"])?;
    ensure!(said.contains("default/one approved") && said.contains("default/two approved"), "{said}");
    assert_eq!(plugin.get("wdev", ".items[?(@.spec.approved==true)].metadata.name")?, "bare one two");

    let csr = format!("out-{}", plane_name(plane));
    plugin.ask(
        &csr,
        "out",
        &[(request_annotation::JOIN_PROOF, "AAAA"), (request_annotation::FACTORY_CHAIN, "x")],
    )?;
    let said = plugin.run(&["wasmbed", "deny", "out", "--revoke"])?;
    ensure!(
        said.contains(&format!("request {csr} denied")) && said.contains("default/out revoked"),
        "{said}"
    );
    assert_eq!(plugin.get(&format!("csr/{csr}"), ".status.conditions[0].type")?, "Denied");
    assert_eq!(plugin.get("wdev/out", ".spec.revoked")?, "true");
    let (_, said) = plugin.refused(&["wasmbed", "approve", "out"])?;
    ensure!(said.contains("is revoked"), "{said}");

    let (_, said) = plugin.refused(&["wasmbed", "decommission", "two"])?;
    ensure!(said.contains("can't be taken back: give --yes"), "{said}");
    let said = plugin.run(&["wasmbed", "decommission", "two", "--yes"])?;
    ensure!(said.contains("default/two is being decommissioned"), "{said}");
    assert_eq!(plugin.get("wdev/two", ".spec.decommission")?, "true");
    let back = r#"{"spec":{"decommission":false}}"#;
    let said = plugin.kubectl.refused(&["patch", "wdev/two", "--type=merge", "-p", back])?;
    ensure!(said.contains("decommission can't be taken back"), "{said}");

    plugin.run(&["wasmbed", "label", "one", "--set", "floor=2", "--remove", "site"])?;
    let labels = plugin.get("wdev/one", ".metadata.labels")?;
    ensure!(labels.contains("floor") && !labels.contains("site"), "{labels}");

    let completed = plugin.run(&["__complete", "wasmbed", "app"])?;
    ensure!(completed.contains("approve\tLet devices in"), "{completed}");
    let completed = plugin.run(&["__complete", "wasmbed", "approve", "b"])?;
    ensure!(completed.lines().any(|line| line == "bare"), "{completed}");
    Ok(())
}

/// Requests are in no namespace, and a control plane may serve several tests.
fn plane_name(plane: ControlPlane) -> &'static str {
    match plane {
        ControlPlane::Embedded => "embedded",
        ControlPlane::Kubernetes => "kubernetes",
    }
}

async fn labels_edits_and_waits_work(plane: ControlPlane) -> Result<()> {
    let (_machine, kubectl) = running(plane).await?;
    let said = kubectl.run(&["wait", "--for=condition=Ready", "wapp/ticker", "--timeout=60s"])?;
    assert!(said.contains("condition met"), "{said}");
    kubectl.run(&["label", "wdev", "board", "site=lab"])?;
    let labelled = kubectl.run(&["get", "wdev", "-l", "site=lab", "-o", "name"])?;
    assert_eq!(labelled.trim(), "device.wasmbed.github.io/board");

    let mut edit = kubectl.command(&["edit", "wapp", "ticker"]);
    edit.env("KUBE_EDITOR", "sed -i 's/cpu_time_limit: 1000/cpu_time_limit: 900/'");
    let edited = edit.output()?;
    ensure!(edited.status.success(), "kubectl edit: {}", String::from_utf8_lossy(&edited.stderr));
    let limit = kubectl.run(&["get", "wapp", "ticker", "-o", "jsonpath={.spec.config.cpu_time_limit}"])?;
    assert_eq!(limit, "900");
    Ok(())
}

async fn values_out_of_bounds_are_refused_naming_the_field(plane: ControlPlane) -> Result<()> {
    let (machine, kubectl) = running(plane).await?;
    let changes = [
        (r#"{"spec":{"config":{"memory_limit":-1}}}"#, "spec.config.memory_limit"),
        (r#"{"spec":{"config":{"cpu_time_limit":"fast"}}}"#, "spec.config.cpu_time_limit"),
        (
            r#"{"spec":{"target_devices":{"device_names":["Not A Name"]}}}"#,
            "spec.target_devices.device_names[0]",
        ),
        (r#"{"spec":{"wasm_bytes":"not base64"}}"#, "spec.wasm_bytes"),
    ];
    for (change, field) in changes {
        let said = kubectl.refused(&["patch", "wapp", "ticker", "--type=merge", "-p", change])?;
        assert!(said.contains(field), "{change}: {said}");
    }
    machine.create(&module("fixed", &fixtures::ticker("one", 500))).await?;
    let another = STANDARD.encode(fixtures::ticker("two", 500));
    let change = format!(r#"{{"spec":{{"wasm_bytes":"{another}"}}}}"#);
    let said = kubectl.refused(&["patch", "wmod", "fixed", "--type=merge", "-p", &change])?;
    assert!(said.contains("immutable") || said.contains("spec"), "a Module stays as it is: {said}");
    Ok(())
}

async fn a_watch_shows_changes_and_the_deletion(plane: ControlPlane) -> Result<()> {
    let (_machine, kubectl) = running(plane).await?;
    let mut command = kubectl.command(&["get", "wapp", "ticker", "-w", "--output-watch-events"]);
    let mut watch = command.stdout(std::process::Stdio::piped()).spawn().context("can't start kubectl")?;
    let lines = BufReader::new(watch.stdout.take().context("a pipe")?).lines();
    let mut seen = Vec::new();
    for line in lines.map_while(std::result::Result::ok) {
        if line.starts_with("ADDED") {
            kubectl.run(&["delete", "wapp", "ticker", "--wait=false"])?;
        }
        let deleted = line.starts_with("DELETED");
        seen.push(line);
        if deleted {
            break;
        }
    }
    watch.kill().context("can't end kubectl")?;
    watch.wait().context("can't wait for kubectl")?;
    assert!(seen.last().is_some_and(|line| line.starts_with("DELETED")), "{seen:#?}");
    Ok(())
}
