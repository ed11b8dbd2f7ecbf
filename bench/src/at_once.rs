//! A fleet as large as one gateway is made for, switched on at one moment: what is reset or refused, and how long all of it takes.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Result, ensure};
use wasmbed_e2e::{ControlPlane, GatewayOptions, Machine, get};

use crate::{fleet, table::Table};

pub(crate) async fn measure(devices: usize, beside: usize, table: &mut Table) -> Result<()> {
    println!("at once: {devices} devices");
    let set = vec![format!("server.max_connections={}", devices + beside)];
    let options = GatewayOptions { set, ..GatewayOptions::default() };
    let machine = Machine::start_with(ControlPlane::Embedded, options).await?;
    let identities = Arc::new(fleet::create(&machine, devices).await?);
    let handle = fleet::switch_on(&machine, identities)?;
    let sessions = fleet::reached(devices, || handle.progress().sessions).await?;
    let progress = handle.progress();
    let last = progress.last_failure.map(|last| format!(" (the last: {last})")).unwrap_or_default();
    let what = |what: &str| format!("{what}, {devices} at once");
    let registered = format!("{} of {devices}", progress.sessions);
    table.row(&what("registered"), "–", &format!("{devices}"), registered);
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
    let refused = refusals(&machine).await?;
    let late = refused.get("HandshakeTimeout").copied().unwrap_or(0);
    table.row(&what("handshakes that took too long"), "–", "0", late.to_string());
    table.row(&what("connections refused by the gateway"), "–", "0", reasons(&refused));
    handle.stop();
    tokio::task::spawn_blocking(move || handle.wait()).await??;
    Ok(())
}

/// By reason, as the gateway counts them.
async fn refusals(machine: &Machine) -> Result<BTreeMap<String, u64>> {
    let (status, metrics) = get(machine.gateway_health(), "/metrics").await?;
    ensure!(status == 200, "/metrics answers {status}");
    let mut all = BTreeMap::new();
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix("wasmbed_gateway_refusals_total{reason=\"") else { continue };
        if let Some((reason, count)) = rest.split_once("\"} ") {
            all.insert(reason.to_owned(), count.parse()?);
        }
    }
    Ok(all)
}

fn reasons(refused: &BTreeMap<String, u64>) -> String {
    let some = refused.iter().filter(|(_, count)| **count > 0);
    let all: Vec<String> = some.map(|(reason, count)| format!("{count} {reason}")).collect();
    if all.is_empty() { "0".to_owned() } else { all.join(", ") }
}
