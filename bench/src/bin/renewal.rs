//! Joining of a whole fleet in the same moment, and renewal of its certificates while an Application is deployed to it: how long they
//! take, and what it costs in sessions.
//!
//! Devices join with factory identities, and their certificates are so short that each is renewed soon. The signer is stopped until
//! every device has asked for its next certificate; then it starts again at the moment in which the Application is applied.
//!
//! It may not judge: no row is an assertion.

use std::{
    fmt::Write as _,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::{Api, ResourceExt as _, api::ListParams};
use wasmbed_api::{Application, Device, DevicePhase};
use wasmbed_e2e::{ControlPlane, GatewayOptions, Machine, application, fixtures::ticker, metric};
use wasmbed_testbed::{Process, wasmbed};

/// The shortest that a signer issues for. Certificates begin an hour before they are issued, so that these are due at once; the ones
/// after them after a third of what is left.
const LIFETIME: &str = "lifetime=10m";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(500);

/// Measures the renewal of a fleet.
#[derive(Parser)]
struct Arguments {
    /// Control planes to measure; both if none is named.
    #[arg(long = "control-plane", value_enum)]
    planes: Vec<Plane>,
    /// Devices, on one gateway.
    #[arg(long, default_value_t = 1_000)]
    devices: usize,
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
    println!(
        "| control plane | devices | all joined | deployed alone | deployed while all renew | all renewed | sessions lost |"
    );
    println!("|---|---|---|---|---|---|---|");
    for plane in arguments.planes {
        let (plane, words) = match plane {
            Plane::Embedded => (ControlPlane::Embedded, "embedded"),
            Plane::Kubernetes => (ControlPlane::Kubernetes, "kube-apiserver, etcd"),
        };
        let devices = arguments.devices;
        let Measured { joined, alone, meanwhile, renewed, lost } = measure(plane, devices).await?;
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        let (joined, alone, meanwhile, renewed) =
            (seconds(joined), seconds(alone), seconds(meanwhile), seconds(renewed));
        println!("| {words} | {devices} | {joined} | {alone} | {meanwhile} | {renewed} | {lost} |");
    }
    Ok(())
}

struct Measured {
    joined: Duration,
    alone: Duration,
    meanwhile: Duration,
    renewed: Duration,
    lost: usize,
}

async fn measure(plane: ControlPlane, devices: usize) -> Result<Measured> {
    let set = vec![format!("server.max_connections={}", devices.max(1_000))];
    let mut machine = Machine::start_with(plane, GatewayOptions { set, ..GatewayOptions::default() }).await?;
    machine.start_signer()?;
    machine.stop("signer")?;
    machine.start_signer_alone(&[LIFETIME])?;
    register(&machine, devices)?;
    let begun = Instant::now();
    let fleet = start_fleet(&machine, devices)?;
    until("all devices are connected", async || {
        let all = machine.api::<Device>().list(&ListParams::default()).await?.items;
        Ok(all.iter().filter(|device| is_connected(device)).count() == devices)
    })
    .await?;
    let joined = begun.elapsed();
    until("each has renewed once", async || Ok(renewals(&machine).await? >= devices)).await?;
    let alone = deploy(&machine, "alone", devices).await?;

    machine.stop("signer")?;
    until("each asks for its next certificate", async || Ok(open(&machine).await? >= devices)).await?;
    let (before, sessions) = (renewals(&machine).await?, epochs(&machine).await?);
    machine.start_signer_alone(&[LIFETIME])?;
    let begun = Instant::now();
    let renewed = async {
        until("each has renewed", async || Ok(renewals(&machine).await? >= before + devices)).await?;
        anyhow::Ok(begun.elapsed())
    };
    let (meanwhile, renewed) = tokio::try_join!(deploy(&machine, "meanwhile", devices), renewed)?;
    let after = epochs(&machine).await?;
    let lost = sessions.iter().filter(|session| !after.contains(session)).count();
    drop(fleet);
    Ok(Measured { joined, alone, meanwhile, renewed, lost })
}

/// Registers the devices by their serials.
fn register(machine: &Machine, devices: usize) -> Result<()> {
    let lines = (1..=devices).fold(String::from("serial\n"), |mut lines, number| {
        let _ = writeln!(lines, "simulated-{number:05}");
        lines
    });
    let file = machine.dir().join("serials.csv");
    fs::write(&file, lines)?;
    let (file, kubeconfig) =
        (file.display().to_string(), machine.layout().kubeconfig().display().to_string());
    let registered =
        wasmbed(&["devices", "preregister", "--file", &file, "--kubeconfig", &kubeconfig])?.output()?;
    ensure!(registered.status.success(), "{}", String::from_utf8_lossy(&registered.stderr));
    Ok(())
}

/// Starts the devices, all in the same moment.
fn start_fleet(machine: &Machine, devices: usize) -> Result<Process> {
    let pki = machine.layout().dir().join("pki").display().to_string();
    let (count, gateway) = (devices.to_string(), machine.gateway_address().to_string());
    let arguments =
        ["simulate", "--devices", &count, "--gateway", &gateway, "--pki", &pki, "--factory", &pki];
    Process::start(wasmbed(&arguments)?, "fleet", machine.dir())
}

fn is_connected(device: &Device) -> bool {
    device.status.as_ref().is_some_and(|status| status.phase == DevicePhase::Connected)
}

/// How long it takes until an Application runs on every device.
async fn deploy(machine: &Machine, name: &str, devices: usize) -> Result<Duration> {
    let mut wanted = application(name, &ticker(name, 600_000), &[]);
    wanted.spec.target_devices = Some(wasmbed_api::TargetDevices {
        device_names: Vec::new(),
        selector: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector::default()),
    });
    let begun = Instant::now();
    machine.create(&wanted).await?;
    until("the Application runs everywhere", async || {
        let status = machine.api::<Application>().get(name).await?.status;
        let running = status.map_or(0, |status| status.counts.running);
        Ok(usize::try_from(running).is_ok_and(|running| running >= devices))
    })
    .await?;
    Ok(begun.elapsed())
}

async fn renewals(machine: &Machine) -> Result<usize> {
    let series = "wasmbed_gateway_joins_total{outcome=\"Renewed\"}";
    let count = metric(machine.gateway_health(), series).await?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    Ok(count as usize)
}

/// Requests that are not issued.
async fn open(machine: &Machine) -> Result<usize> {
    let requests: Api<CertificateSigningRequest> = Api::all(machine.client().clone());
    let all = requests.list(&ListParams::default()).await?.items;
    let is_issued = |request: &CertificateSigningRequest| {
        request.status.as_ref().is_some_and(|status| status.certificate.is_some())
    };
    Ok(all.iter().filter(|request| !is_issued(request)).count())
}

/// The session of each device that has one.
async fn epochs(machine: &Machine) -> Result<Vec<(String, Option<i64>)>> {
    let all = machine.api::<Device>().list(&ListParams::default()).await?.items;
    let connected = all.iter().filter(|device| is_connected(device));
    Ok(connected
        .map(|device| (device.name_any(), device.status.as_ref().and_then(|status| status.epoch)))
        .collect())
}

async fn until(what: &str, done: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let waiting = async {
        while !done().await? {
            tokio::time::sleep(POLL).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .with_context(|| format!("it takes too long until {what}"))?
}
