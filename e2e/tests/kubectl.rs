//! Wasmbed's kinds with the real kubectl: they look like any other of Kubernetes, whoever serves them.

#![cfg(test)]

use std::io::{BufRead, BufReader};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use wasmbed_api::{ApplicationPhase, DevicePhase};
use wasmbed_e2e::{ControlPlane, Kubectl, Machine, application, fixtures, module};

wasmbed_e2e::both!(
    columns_events_and_fields_are_shown,
    labels_edits_and_waits_work,
    values_out_of_bounds_are_refused_naming_the_field,
    a_watch_shows_changes_and_the_deletion,
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
