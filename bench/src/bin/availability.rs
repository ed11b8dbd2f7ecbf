//! How long failures take to be got over, and what an idle fleet writes to the Kubernetes API: rows like those of the budget table.
//!
//! It may not judge: no row is an assertion.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use wasmbed_api::DevicePhase;
use wasmbed_e2e::{ControlPlane, Failover, Site, SiteOptions};

/// Measures failures and idle writes.
#[derive(Parser)]
struct Arguments {
    /// Control planes to measure; both if none is named.
    #[arg(long = "control-plane", value_enum)]
    planes: Vec<Plane>,
    /// Devices that deploy while something dies.
    #[arg(long, default_value_t = 200)]
    devices: usize,
    /// Devices that do nothing.
    #[arg(long, default_value_t = 1_000)]
    idle_devices: usize,
    /// Seconds over which the writes of an idle fleet are counted, once for each interval of heartbeats.
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
    /// Intervals of heartbeats, seconds.
    #[arg(long, value_delimiter = ',', default_values_t = [30, 5])]
    heartbeats: Vec<u64>,
    /// Only what an idle fleet writes.
    #[arg(long)]
    idle_only: bool,
    /// Only what failures take.
    #[arg(long, conflicts_with = "idle_only")]
    failover_only: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Plane {
    /// `wasmbed apiserver`.
    Embedded,
    /// kube-apiserver and etcd.
    Kubernetes,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.planes.is_empty() {
        arguments.planes = vec![Plane::Embedded, Plane::Kubernetes];
    }
    let mut rows = Vec::new();
    for plane in &arguments.planes {
        let plane = match plane {
            Plane::Embedded => ControlPlane::Embedded,
            Plane::Kubernetes => ControlPlane::Kubernetes,
        };
        if !arguments.idle_only {
            failovers(plane, arguments.devices, &mut rows).await?;
        }
        if !arguments.failover_only {
            for heartbeat in &arguments.heartbeats {
                idle(plane, &arguments, *heartbeat, &mut rows).await?;
            }
        }
    }
    println!("\n| what | control plane | measured |\n|---|---|---|");
    for [what, plane, measured] in rows {
        println!("| {what} | {plane} | {measured} |");
    }
    Ok(())
}

type Rows = Vec<[String; 3]>;

fn row(rows: &mut Rows, plane: ControlPlane, what: String, measured: String) {
    println!("  {what} ({}): {measured}", words(plane));
    rows.push([what, words(plane).to_owned(), measured]);
}

fn words(plane: ControlPlane) -> &'static str {
    match plane {
        ControlPlane::Embedded => "embedded",
        ControlPlane::Kubernetes => "kube-apiserver, etcd",
    }
}

async fn failovers(plane: ControlPlane, devices: usize, rows: &mut Rows) -> Result<()> {
    println!("failures: {devices} devices, {}", words(plane));
    let options = SiteOptions { gateways: 2, controllers: 2, ..SiteOptions::default() };
    let mut site = Site::start_durable(plane, options).await?;
    for Failover { what, replaced, converged } in Failover::all(&mut site, devices).await? {
        let mut measured = format!("{:.1} s", converged.as_secs_f64());
        if let Some(replaced) = replaced {
            measured.push_str(&format!(" (replaced after {:.1} s)", replaced.as_secs_f64()));
        }
        row(rows, plane, format!("60 KiB to {devices} devices, kill -9 of {what}"), measured);
    }
    Ok(())
}

async fn idle(plane: ControlPlane, arguments: &Arguments, heartbeat: u64, rows: &mut Rows) -> Result<()> {
    let devices = arguments.idle_devices;
    println!("idle: {devices} devices, a heartbeat every {heartbeat} s, {}", words(plane));
    let gateway_set = vec![
        format!("heartbeat.interval={heartbeat}"),
        format!("heartbeat.timeout={}", heartbeat * 3),
        format!("server.max_connections={}", devices.max(1_000)),
    ];
    let options = SiteOptions { gateway_set, ..SiteOptions::default() };
    let mut site = Site::start_durable(plane, options).await?;
    site.start_fleet(devices)?;
    let connected = |found: &[wasmbed_api::Device]| {
        let phase = |device: &wasmbed_api::Device| device.status.as_ref().map(|status| status.phase);
        found.iter().filter(|device| phase(device) == Some(DevicePhase::Connected)).count() == devices
    };
    site.all_devices("Connected", connected).await?;
    // Until signs of life are what is left to write.
    tokio::time::sleep(Duration::from_secs(35)).await;
    let heard = site.heartbeats().await?;
    let (before, begun) = (site.writes().await?, Instant::now());
    tokio::time::sleep(Duration::from_secs(arguments.idle_seconds)).await;
    let (after, minutes) = (site.writes().await?, begun.elapsed().as_secs_f64() / 60.0);
    let heard = site.heartbeats().await? - heard;
    let count = |resource: &str| {
        let sum = |writes: &[(String, f64)]| -> f64 {
            writes
                .iter()
                .filter(|(what, _)| what.split('/').next() == Some(resource))
                .map(|(_, count)| count)
                .sum()
        };
        sum(&after) - sum(&before)
    };
    let all = after.iter().map(|(_, count)| count).sum::<f64>()
        - before.iter().map(|(_, count)| count).sum::<f64>();
    let (devices_written, leases) = (count("devices"), count("leases"));
    row(
        rows,
        plane,
        format!("{devices} idle devices, heartbeats every {heartbeat} s: API writes per minute"),
        format!(
            "{:.0} (Devices {:.0}, Leases {:.0}; heartbeats heard {:.0})",
            all / minutes,
            devices_written / minutes,
            leases / minutes,
            heard / minutes
        ),
    );
    site.stop("fleet").context("the fleet did not stop")
}
