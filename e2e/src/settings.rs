//! What devices say of settings, as `wasmbed get settings` shows it.

use std::time::Instant;

use anyhow::{Result, ensure};
use wasmbed_control::gateway_api::DeviceSettingsReport;

use crate::{Machine, TIMEOUT};

/// Waits until what the first device says of an application's settings is as `wanted` says.
///
/// # Errors
/// With what was found last, when the time is over.
pub fn settings_until(
    machine: &Machine,
    application: &str,
    what: &str,
    wanted: impl Fn(&DeviceSettingsReport) -> bool,
) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let arguments = ["get", "settings", application, "-o", "json", "--kubeconfig"];
        let mut command = crate::wasmbed(&arguments)?;
        command.arg(machine.layout().kubeconfig()).env("WASMBED_PKI", machine.operator_pki()?);
        let output = command.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout)?;
        let reports: Vec<DeviceSettingsReport> =
            said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        if reports.first().is_some_and(&wanted) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "not {what}: {said}");
    }
}
