//! Full mutual TLS 1.3 handshakes: what each costs the gateway.

use std::sync::Arc;

use anyhow::Result;
use tokio_rustls::rustls::ClientConfig;
use wasmbed_bench::{peer, process::cpu_ms};
use wasmbed_e2e::Machine;
use wasmbed_pki::Identity;

use crate::table::Table;

/// Connections that one after the other do a handshake and go.
pub(crate) async fn measure(machine: &mut Machine, handshakes: usize, table: &mut Table) -> Result<()> {
    println!("handshakes: {handshakes} one after the other");
    let identity = machine.layout().authorities().issue_device("default", "handshakes")?;
    let config = config(machine, &identity)?;
    let pid = machine.process("gateway")?.id();
    // The first ones warm up the process.
    for _ in 0..handshakes / 10 {
        peer::connect(machine.gateway_address(), &config).await?;
    }
    let before = cpu_ms(pid)?;
    for _ in 0..handshakes {
        peer::connect(machine.gateway_address(), &config).await?;
    }
    let each = (cpu_ms(pid)? - before) / handshakes as f64;
    table.row(
        "server CPU per full mTLS handshake, connection included",
        "–",
        "0.35 ms",
        format!("{each:.2} ms"),
    );
    Ok(())
}

/// TLS as a device does it.
pub(crate) fn config(machine: &Machine, identity: &Identity) -> Result<Arc<ClientConfig>> {
    peer::tls(machine.layout().authorities(), identity)
}
