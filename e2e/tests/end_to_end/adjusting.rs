//! Settings of an application change while it goes on.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use wasmbed_api::{Application, ApplicationPhase, Device};
use wasmbed_control::gateway_api::{DeviceSettingsReport, SettingScalar};
use wasmbed_e2e::{ControlPlane, Machine, TIMEOUT, application, settings_until};

/// `guests/beacon`: logs a line every so often, which is a setting.
const BEACON: &[u8] = include_bytes!("../../../guests/prebuilt/beacon.wasm");

wasmbed_e2e::both!(an_interval_changes_and_nothing_is_restarted);

async fn an_interval_changes_and_nothing_is_restarted(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("device-1").await?;
    machine.connected("device-1").await?;
    let mut beacon = application("beacon", BEACON, &["device-1"]);
    beacon.spec.settings = serde_json::from_value(json!({ "values": { "interval_ms": 3_600_000 } }))?;
    machine.create(&beacon).await?;
    let runs = |application: &Application| {
        application.status.as_ref().is_some_and(|status| status.phase == ApplicationPhase::Running)
    };
    machine.application("beacon", "running", runs).await?;
    let value = |report: &DeviceSettingsReport, name: &str| {
        report.settings.iter().find(|setting| setting.name == name)?.value.clone()
    };
    let interval = |wanted: i64| {
        move |report: &DeviceSettingsReport| {
            value(report, "interval_ms") == Some(SettingScalar::Integer(wanted))
        }
    };
    settings_until(&machine, "beacon", "an hour", interval(3_600_000))?;
    ensure!(lines(&machine)? == ["beacon 1, every 3600000 ms"], "{:?}", lines(&machine)?);

    // In the middle of that hour.
    let change = json!({ "spec": { "settings": {
        "values": { "interval_ms": 200 },
        "overrides": [{ "device_names": ["device-1"], "values": { "label": "one" } }],
    } } });
    machine.merge::<Application>("beacon", change).await?;
    settings_until(&machine, "beacon", "less than a second", interval(200))?;
    let third = |lines: &[String]| lines.iter().any(|line| line == "one 3, every 200 ms");
    let deadline = Instant::now() + TIMEOUT;
    while !third(&lines(&machine)?) {
        ensure!(Instant::now() < deadline, "{:?}", lines(&machine)?);
    }
    let device: Device = machine.api().get("device-1").await?;
    let status = device.status.context("no status")?;
    ensure!(status.applications[0].restarts == 0, "{:?}", status.applications);

    // What the module does not allow is in the Application's status, and changes nothing.
    let change = json!({ "spec": { "settings": { "values": { "interval_ms": 1 } } } });
    machine.merge::<Application>("beacon", change).await?;
    let refused = |application: &Application| {
        let failures =
            application.status.as_ref().map(|status| status.failures.as_slice()).unwrap_or_default();
        failures.iter().any(|failure| failure.message.contains("int 100..3600000"))
    };
    machine.application("beacon", "refused", refused).await?;
    settings_until(&machine, "beacon", "as before", interval(200))?;

    // By a selector, with a value for a bool.
    let change = json!({ "spec": { "settings": {
        "values": { "interval_ms": null },
        "overrides": [{ "selector": {}, "values": { "lit": "false" } }],
    } } });
    machine.merge::<Application>("beacon", change).await?;
    settings_until(&machine, "beacon", "the default", interval(1_000))?;
    Ok(())
}

fn lines(machine: &Machine) -> Result<Vec<String>> {
    let mut command = wasmbed_e2e::wasmbed(&["logs", "beacon", "--json", "--kubeconfig"])?;
    command.arg(machine.layout().kubeconfig()).env("WASMBED_PKI", machine.operator_pki()?);
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout)?;
    let line = |line: &str| -> Result<String> {
        let line: serde_json::Value = serde_json::from_str(line)?;
        Ok(line["text"].as_str().context("no text")?.to_owned())
    };
    said.lines().map(line).collect()
}
