//! Full mutual TLS 1.3 handshakes: what each costs the gateway.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::ClientConfig};
use wasmbed_e2e::Machine;
use wasmbed_pki::{
    Identity,
    tls::{ClientParams, Profile, client_config, roots, server_name},
};

use crate::{process::cpu_ms, table::Table};

/// Connections that one after the other do a handshake and go.
pub(crate) async fn measure(machine: &mut Machine, handshakes: usize, table: &mut Table) -> Result<()> {
    println!("handshakes: {handshakes} one after the other");
    let identity = machine.layout().authorities().issue_device("default", "handshakes")?;
    let config = config(machine, &identity)?;
    let pid = machine.process("gateway")?.id();
    // The first ones warm up the process.
    for _ in 0..handshakes / 10 {
        connect(machine, &config).await?;
    }
    let before = cpu_ms(pid)?;
    for _ in 0..handshakes {
        connect(machine, &config).await?;
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
    let authorities = machine.layout().authorities();
    Ok(client_config(ClientParams {
        profile: Profile::Device,
        identity,
        roots: roots([authorities.services_root().clone()])?,
        trust_domain: authorities.trust_domain(),
        gateway: None,
        time: None,
    })?)
}

/// A connection with the handshake done, both sides authenticated.
pub(crate) async fn connect(machine: &Machine, config: &Arc<ClientConfig>) -> Result<TlsStream<TcpStream>> {
    let stream =
        TcpStream::connect(machine.gateway_address()).await.context("can't connect to the gateway")?;
    stream.set_nodelay(true).context("can't set TCP_NODELAY")?;
    TlsConnector::from(config.clone()).connect(server_name(), stream).await.context("the handshake failed")
}
