//! How long the answer to a heartbeat takes, seen by a device.

use std::{sync::Arc, time::Instant};

use anyhow::Result;
use tokio_rustls::rustls::ClientConfig;
use wasmbed_bench::peer::Peer;
use wasmbed_e2e::Machine;

/// A device that does nothing but live.
pub(crate) struct Pulse(Peer);

impl Pulse {
    /// Connects and begins a session.
    pub(crate) async fn start(machine: &Machine, config: &Arc<ClientConfig>) -> Result<Self> {
        Ok(Self(Peer::start(machine.gateway_address(), config).await?))
    }

    /// Milliseconds from sending a heartbeat to its answer.
    pub(crate) async fn beat(&mut self) -> Result<f64> {
        let begun = Instant::now();
        self.0.beat().await?;
        Ok(begun.elapsed().as_secs_f64() * 1_000.0)
    }
}
