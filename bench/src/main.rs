//! The budget table, measured: each row prints our figure beside the goal and the figure that the system is required to reach.
//!
//! It may not judge: no row is an assertion. CPU and memory are the server process's own; the devices and clients share the same
//! processors, so latencies are those of a busy machine.

mod at_once;
mod fleet;
mod handshake;
mod heartbeat;
mod table;
mod writes;

use anyhow::Result;
use clap::Parser;
use wasmbed_e2e::{ControlPlane, GatewayOptions, Machine};

use crate::table::Table;

/// Measures the budgets.
#[derive(Parser)]
struct Arguments {
    /// Devices in the fleet.
    #[arg(long, default_value_t = 1_000)]
    devices: usize,
    /// Full handshakes to average over.
    #[arg(long, default_value_t = 1_000)]
    handshakes: usize,
    /// Devices that a gateway of its own is to take at one moment, for each number; 0 leaves that out.
    #[arg(long, value_delimiter = ',', default_values_t = [2_000, 10_000])]
    at_once: Vec<usize>,
    /// Status writes of each kind to average over.
    #[arg(long, default_value_t = 5_000)]
    writes: usize,
}

/// Connections beside the fleet's own: the device that measures heartbeats, the controller, and those that are just closing.
const CONNECTIONS_BESIDE: usize = 16;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut table = Table::default();
    // As a gateway for this fleet would be configured: the burst of status writes follows it.
    let connections = arguments.devices.max(arguments.handshakes) + CONNECTIONS_BESIDE;
    let options = GatewayOptions {
        set: vec![format!("server.max_connections={connections}")],
        ..GatewayOptions::default()
    };
    let mut machine = Machine::start_with(ControlPlane::Embedded, options).await?;
    handshake::measure(&mut machine, arguments.handshakes, &mut table).await?;
    fleet::measure(&mut machine, arguments.devices, &mut table).await?;
    // Its processes would share the processors with what is measured next.
    drop(machine);
    for devices in arguments.at_once.into_iter().filter(|devices| *devices > 0) {
        at_once::measure(devices, CONNECTIONS_BESIDE, &mut table).await?;
    }
    writes::measure(arguments.writes, &mut table).await?;
    table.print();
    Ok(())
}
