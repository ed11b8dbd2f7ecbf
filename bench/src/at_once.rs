//! A fleet as large as one gateway is made for, switched on at one moment: what is reset or refused, and how long all of it takes.

use std::sync::Arc;

use anyhow::{Result, ensure};
use wasmbed_e2e::{ControlPlane, GatewayOptions, Machine, get};

use crate::{fleet, table::Table};

pub(crate) async fn measure(devices: usize, beside: usize, table: &mut Table) -> Result<()> {
    println!("at once: {devices} devices");
    let options = GatewayOptions { set: vec![format!("server.max_connections={}", devices + beside)] };
    let machine = Machine::start_with(ControlPlane::Embedded, options).await?;
    let identities = Arc::new(fleet::create(&machine, devices).await?);
    let handle = fleet::switch_on(&machine, identities)?;
    let sessions = fleet::reached(devices, || handle.progress().sessions).await?;
    let progress = handle.progress();
    let last = progress.last_failure.map(|last| format!(" (the last: {last})")).unwrap_or_default();
    let what = |what: &str| format!("{what}, {devices} at once");
    table.row(
        &what("registration at the gateway, p99"),
        "–",
        "–",
        format!("{:.2} s", sessions.as_secs_f64()),
    );
    table.row(
        &what("connections reset or not made"),
        "–",
        "0",
        format!("{}{last}", progress.attempts_failed),
    );
    table.row(&what("connections refused by the gateway"), "–", "0", refusals(&machine).await?);
    handle.stop();
    tokio::task::spawn_blocking(move || handle.wait()).await??;
    Ok(())
}

/// By reason, as the gateway counts them.
async fn refusals(machine: &Machine) -> Result<String> {
    let (status, metrics) = get(machine.gateway_health(), "/metrics").await?;
    ensure!(status == 200, "/metrics answers {status}");
    let mut all = Vec::new();
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix("wasmbed_gateway_refusals_total{reason=\"") else { continue };
        if let Some((reason, count)) = rest.split_once("\"} ").filter(|(_, count)| *count != "0") {
            all.push(format!("{count} {reason}"));
        }
    }
    Ok(if all.is_empty() { "0".to_owned() } else { all.join(", ") })
}
