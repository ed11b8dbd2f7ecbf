//! A disk that gets full under each role that writes, and has room again: nothing that was acknowledged is lost, whoever is
//! asked says what is wrong, and it goes on without a restart.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use http_body_util::BodyExt as _;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PostParams},
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use wasmbed::machine::layout::SYSTEM_NAMESPACE;
use wasmbed_api::{Application, Device, DeviceApplicationState, DeviceGateway, Module};
use wasmbed_e2e::{
    ControlPlane, Machine, Process, SmallDisk, TIMEOUT, application, digest, fixtures, get, module, run,
    until, wasmbed,
};

const DEVICE: &str = "device-1";
/// How often what has no watch is looked at.
const POLL: Duration = Duration::from_millis(50);

#[test]
fn up_goes_on_after_a_full_disk() -> Result<()> {
    run(up())
}

#[test]
fn a_gateway_goes_on_after_a_full_disk() -> Result<()> {
    run(gateway())
}

#[test]
fn a_device_goes_on_after_a_full_disk() -> Result<()> {
    run(device())
}

/// The whole of `up`: the store of the Kubernetes API, the gateway's and a device's, and all keys, on one disk.
async fn up() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = SmallDisk::new(folder.path())?;
    let mut command = wasmbed(&["up", "--free-ports", "--devices", "1", "--data-dir"])?;
    command.arg(disk.path().join("state"));
    let mut up = Process::start(disk.mount(&command), "up", folder.path())?;
    up.wait_for_line("a log line of the sample", |line| line.contains("hello from a WebAssembly module"))?;
    let kubeconfig = Kubeconfig::read_from(disk.of(&up).join("state/kubeconfig"))?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // What is refused is to be seen.
    config.default_retry = false;
    let client = Client::try_from(config)?;
    let applications: Api<Application> = Api::namespaced(client.clone(), "default");
    let modules: Api<Module> = Api::namespaced(client.clone(), "default");

    modules.create(&PostParams::default(), &module("before", &fixtures::ticker("before", 1_000))).await?;
    let filler = disk.fill(&up)?;
    let mut acknowledged = create_until_refused(&modules).await?;
    acknowledged.insert("before".to_owned());
    ready(&client, "unready", |code, text| code == 503 && text.contains("the store can't be written"))
        .await?;
    check_modules(&modules, &acknowledged).await?;

    drop(filler);
    ready(&client, "ready again", |code, _| code == 200).await?;
    check_modules(&modules, &acknowledged).await?;
    let wasm = fixtures::ticker("after the full disk", 1_000);
    let application = application("after", &wasm, &["device-001"]);
    applications.create(&PostParams::default(), &application).await?;
    until(&client, "default", "after", "Complete", complete).await?;
    up.check()
}

/// Creates Modules, each larger than what a store has free within its file, until one is refused; the names of those that
/// were not.
async fn create_until_refused(modules: &Api<Module>) -> Result<BTreeSet<String>> {
    let mut acknowledged = BTreeSet::new();
    for number in 0..200 {
        let name = format!("module-{number}");
        let wasm = fixtures::large_ticker(&name, 1_000, 200 * 1_024);
        if modules.create(&PostParams::default(), &module(&name, &wasm)).await.is_err() {
            return Ok(acknowledged);
        }
        acknowledged.insert(name);
    }
    anyhow::bail!("a full disk takes writes")
}

/// Those that are there are those that were acknowledged.
async fn check_modules(modules: &Api<Module>, acknowledged: &BTreeSet<String>) -> Result<()> {
    let held =
        modules.list(&ListParams::default()).await.context("reads are answered while the disk is full")?;
    let held: BTreeSet<String> = held.iter().map(|module| module.name_any()).collect();
    ensure!(held == *acknowledged, "{held:?} are there, {acknowledged:?} were acknowledged");
    Ok(())
}

async fn ready(client: &Client, what: &str, wanted: impl Fn(u16, &str) -> bool) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let request = http::Request::get("/readyz").body(Body::empty())?;
        let response = client.send(request).await?;
        let code = response.status().as_u16();
        let text = String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?;
        if wanted(code, &text) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the API never became {what}; it says {code}: {text}");
        tokio::time::sleep(POLL).await;
    }
}

async fn gateway() -> Result<()> {
    let mut machine = Machine::start(ControlPlane::Embedded).await?;
    machine.stop("gateway")?;
    let disk = SmallDisk::new(machine.dir())?;
    machine.start_gateway_on(&disk)?;
    machine.add_device(DEVICE).await?;
    machine.connected(DEVICE).await?;
    let before = fixtures::ticker("before", 1_000);
    machine.create(&application("before", &before, &[DEVICE])).await?;
    machine.application("before", "Complete", complete).await?;

    let filler = disk.fill(machine.process("gateway")?)?;
    let during = fixtures::large_ticker("during", 1_000, 60 * 1_024);
    machine.create(&application("during", &during, &[DEVICE])).await?;
    let says = |status: &'static str, reason: &'static str| {
        move |gateway: &DeviceGateway| {
            let conditions = gateway.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|condition| {
                condition.type_ == "Ready" && condition.status == status && condition.reason == reason
            })
        }
    };
    let client = machine.client().clone();
    until(&client, SYSTEM_NAMESPACE, "e2e", "StoreFailed", says("False", "StoreFailed")).await?;
    let (code, text) = get(machine.gateway_health(), "/ready").await?;
    ensure!(code == 503 && text.contains("No space left on device"), "/ready says {code}: {text}");
    let device = machine.device(DEVICE, "anything", |_| true).await?;
    ensure!(runs(&device, &before), "what ran goes on: {:?}", device.status);

    drop(filler);
    until(&client, SYSTEM_NAMESPACE, "e2e", "Serving", says("True", "Serving")).await?;
    machine.application("during", "Complete", complete).await?;
    let (code, text) = get(machine.gateway_health(), "/ready").await?;
    ensure!(code == 200, "/ready says {code}: {text}");
    machine.process("gateway")?.check()
}

async fn device() -> Result<()> {
    let mut machine = Machine::start(ControlPlane::Embedded).await?;
    let disk = SmallDisk::new(machine.dir())?;
    machine.create_device(DEVICE).await?;
    machine.start_device_on(DEVICE, &disk)?;
    machine.connected(DEVICE).await?;
    let before = fixtures::ticker("before", 1_000);
    machine.create(&application("before", &before, &[DEVICE])).await?;
    machine.application("before", "Complete", complete).await?;

    let filler = disk.fill(machine.process(DEVICE)?)?;
    let during = fixtures::large_ticker("during", 1_000, 60 * 1_024);
    machine.create(&application("during", &during, &[DEVICE])).await?;
    let without_room = |device: &Device| {
        let applications = device.status.iter().flat_map(|status| &status.applications);
        applications.into_iter().any(|application| application.state == DeviceApplicationState::Failed)
    };
    let device = machine.device(DEVICE, "without room", without_room).await?;
    ensure!(runs(&device, &before), "what ran goes on: {:?}", device.status);

    drop(filler);
    machine.application("during", "Complete", complete).await?;
    machine.process(DEVICE)?.check()
}

fn runs(device: &Device, wasm: &[u8]) -> bool {
    let applications = device.status.iter().flat_map(|status| &status.applications);
    applications.into_iter().any(|application| {
        application.state == DeviceApplicationState::Running
            && application.digest.as_deref() == Some(digest(wasm).as_str())
    })
}

fn complete(application: &Application) -> bool {
    let conditions = application.status.iter().flat_map(|status| &status.conditions);
    let generation = application.metadata.generation;
    application.status.as_ref().is_some_and(|status| status.observed_generation == generation)
        && conditions.into_iter().any(|condition| condition.type_ == "Complete" && condition.status == "True")
}
