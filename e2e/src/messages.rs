//! What applications published, as `wasmbed messages` shows it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use wasmbed_control::gateway_api::MessageLine;

use crate::{Machine, TIMEOUT};

/// The messages of an application that the gateway has.
///
/// # Errors
/// The command fails, or says what is no message.
pub fn messages(machine: &Machine, application: &str) -> Result<Vec<MessageLine>> {
    let arguments = ["messages", "--application", application, "-o", "json", "--kubeconfig"];
    let mut command = crate::wasmbed(&arguments)?;
    command.arg(machine.layout().kubeconfig()).env("WASMBED_PKI", machine.operator_pki()?);
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout)?;
    lines.lines().map(|line| serde_json::from_str(line).context("no message")).collect()
}

/// What `wasmbed publish` prints, and its error.
///
/// # Errors
/// The command can't be run.
pub fn publish(machine: &Machine, arguments: &[&str]) -> Result<(String, String)> {
    let mut command = crate::wasmbed(&["publish"])?;
    command.args(arguments).arg("--kubeconfig").arg(machine.layout().kubeconfig());
    let output = command.env("WASMBED_PKI", machine.operator_pki()?).output()?;
    Ok((String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// Waits until the messages of an application are as `wanted` says, and returns them.
///
/// # Errors
/// With what was found last, when the time is over.
pub async fn messages_until(
    machine: &Machine,
    application: &str,
    what: &str,
    wanted: impl Fn(&[MessageLine]) -> bool,
) -> Result<Vec<MessageLine>> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let found = messages(machine, application);
        match found {
            Ok(found) if wanted(&found) => return Ok(found),
            // The gateway may be away.
            found => ensure!(Instant::now() < deadline, "not there in time: {what}; found {found:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
