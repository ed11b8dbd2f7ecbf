//! Devices that are taken out of service: there, away, never back; while controllers and gateways change; and by a gateway that has no
//! order of a controller.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use redb::{Database, ReadableTable as _, TableDefinition};
use serde_json::{Value, json};
use wasmbed::machine::layout::TRUST_DOMAIN;
use wasmbed_api::{Application, Device, DeviceApplicationState, DevicePhase, Erased};
use wasmbed_e2e::{ControlPlane, Machine, Site, SiteOptions, application, digest, fixtures};
use wasmbed_pki::{DeviceKey, Identity};
use wasmbed_protocol::Nonce;
use wasmbed_statement::Order;

wasmbed_e2e::both!(
    a_running_device_is_taken_out_of_service_and_proves_it,
    a_device_that_was_away_does_it_when_it_comes_back,
    a_device_that_never_comes_back_is_waited_for_until_it_is_deleted,
    another_leader_and_a_gateway_that_starts_again_go_on_with_it,
    a_gateway_can_t_take_a_device_out_of_service_by_itself,
    a_device_that_joined_is_taken_out_of_service_and_does_not_join_again,
);

fn decommission() -> Value {
    json!({ "spec": { "decommission": true } })
}

/// Status, reason and message of the condition.
fn says(device: &Device) -> Option<(&str, &str, &str)> {
    let conditions = &device.status.as_ref()?.conditions;
    let shown = conditions.iter().find(|shown| shown.type_ == "Decommissioned")?;
    Some((&shown.status, &shown.reason, &shown.message))
}

fn is_confirmed(device: &Device) -> bool {
    says(device).is_some_and(|(status, reason, _)| (status, reason) == ("True", "Confirmed"))
}

fn waits_for(device: &Device, what: &str) -> bool {
    says(device).is_some_and(|(_, reason, message)| reason == "Waiting" && message.contains(what))
}

fn runs(device: &Device, digest: &str) -> bool {
    let applications = device.status.iter().flat_map(|status| &status.applications);
    applications.into_iter().any(|application| {
        application.state == DeviceApplicationState::Running && application.digest.as_deref() == Some(digest)
    })
}

fn phase(device: &Device) -> DevicePhase {
    device.status.as_ref().map(|status| status.phase).unwrap_or_default()
}

/// Everything below a folder that a module's bytes are in.
fn files_with(folder: &Path, bytes: &[u8]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_with(&path, bytes)?);
        } else if std::fs::read(&path)?.windows(bytes.len()).any(|window| window == bytes) {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}

/// A device that runs an application, with its module.
async fn running(machine: &mut Machine, name: &str) -> Result<Vec<u8>> {
    let wasm = fixtures::ticker("tick", 500);
    machine.create(&application("ticker", &wasm, &[name])).await?;
    machine.device(name, "running it", |device| runs(device, &digest(&wasm))).await?;
    Ok(wasm)
}

fn confirmed(device: &Device) -> Result<()> {
    let status = device.status.as_ref().context("a status")?;
    let said = status.decommission.as_ref().context("status.decommission")?;
    ensure!(said.confirmed_at.is_some() && status.phase == DevicePhase::Decommissioned, "{status:?}");
    ensure!(said.erased == [Erased::Assignments, Erased::Modules, Erased::KeyValueData], "{said:?}");
    let (_, _, message) = says(device).context("the condition")?;
    ensure!(message.contains("that its key is erased is not proven"), "{message}");
    Ok(())
}

async fn a_running_device_is_taken_out_of_service_and_proves_it(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("board").await?;
    let wasm = running(&mut machine, "board").await?;
    ensure!(!files_with(&machine.device_dir("board"), &wasm)?.is_empty(), "its module is on its disk");
    machine.merge::<Device>("board", decommission()).await?;
    confirmed(&machine.device("board", "decommissioned", is_confirmed).await?)?;
    // It was told that its proof has arrived, and has nothing left to do.
    ensure!(machine.process("board")?.ended()?.success(), "it ends by itself");
    ensure!(files_with(&machine.device_dir("board"), &wasm)?.is_empty(), "its module is gone");
    let left_out = |application: &Application| {
        let conditions = application.status.iter().flat_map(|status| &status.conditions);
        conditions
            .into_iter()
            .any(|shown| shown.reason == "NoTargets" && shown.message.contains("out of service"))
    };
    machine.application("ticker", "without a target", left_out).await?;
    // Whoever comes in its name is turned away, by a gateway that starts anew as well.
    machine.stop("gateway")?;
    machine.start_gateway()?;
    machine.start_device("board")?;
    let turned_away = |line: &str| line.contains("default/board") && line.contains("Decommissioned");
    machine.process("gateway")?.wait_for_line("its end", turned_away)?;
    confirmed(&machine.api::<Device>().get("board").await?)
}

async fn a_device_that_was_away_does_it_when_it_comes_back(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("board").await?;
    running(&mut machine, "board").await?;
    machine.kill("board")?;
    machine.device("board", "away", |device| phase(device) == DevicePhase::Disconnected).await?;
    machine.merge::<Device>("board", decommission()).await?;
    machine.device("board", "waited for", |device| waits_for(device, "not connected")).await?;
    machine.start_device("board")?;
    confirmed(&machine.device("board", "decommissioned", is_confirmed).await?)
}

async fn a_device_that_never_comes_back_is_waited_for_until_it_is_deleted(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("board").await?;
    machine.connected("board").await?;
    machine.kill("board")?;
    machine.device("board", "away", |device| phase(device) == DevicePhase::Disconnected).await?;
    machine.merge::<Device>("board", decommission()).await?;
    let device = machine.device("board", "waited for", |device| waits_for(device, "not connected")).await?;
    ensure!(device.status.and_then(|status| status.decommission).is_some_and(|it| it.confirmed_at.is_none()));
    let kubectl = machine.kubectl()?;
    kubectl.run(&["delete", "wdev/board", "--timeout=60s"])?;
    let gone = kubectl.refused(&["get", "wdev/board"])?;
    ensure!(gone.contains("not found"), "{gone}");
    Ok(())
}

async fn another_leader_and_a_gateway_that_starts_again_go_on_with_it(plane: ControlPlane) -> Result<()> {
    let options = SiteOptions { gateways: 1, controllers: 2, ..SiteOptions::default() };
    let mut site = Site::start(plane, options).await?;
    site.add_device("board", &["gw-1"]).await?;
    site.device("board", "connected", |device| phase(device) == DevicePhase::Connected).await?;
    site.kill("board")?;
    site.device("board", "away", |device| phase(device) == DevicePhase::Disconnected).await?;
    let patch = kube::api::Patch::Merge(decommission());
    site.api::<Device>().patch("board", &kube::api::PatchParams::default(), &patch).await?;
    let drawn = |device: &Device| device.status.as_ref()?.decommission.as_ref().map(|it| it.nonce.clone());
    let nonce =
        drawn(&site.device("board", "waited for", |device| waits_for(device, "not connected")).await?);
    let (leader, _) = site.leader(|_| true).await?;
    site.kill(&leader)?;
    site.kill("gw-1")?;
    let (next, _) = site.leader(|holder| holder != leader).await?;
    ensure!(next != leader, "another leads");
    site.start_gateway("gw-1")?;
    site.start_device("board", &["gw-1"])?;
    let device = site.device("board", "decommissioned", is_confirmed).await?;
    ensure!(drawn(&device) == nonce, "the nonce stays: {nonce:?}");
    confirmed(&device)
}

async fn a_device_that_joined_is_taken_out_of_service_and_does_not_join_again(
    plane: ControlPlane,
) -> Result<()> {
    const NAME: &str = "sn-17";
    let mut machine = Machine::start(plane).await?;
    let identity = machine.start_signer()?.issue("SN_17")?;
    machine.start_factory_device(NAME, &identity)?;
    machine.device(NAME, "made", |device| device.spec.serial.is_some()).await?;
    machine.merge::<Device>(NAME, json!({ "spec": { "approved": true } })).await?;
    machine.connected(NAME).await?;
    machine.merge::<Device>(NAME, decommission()).await?;
    // Nobody pinned its key: the signer certified it.
    let device = machine.device(NAME, "decommissioned", is_confirmed).await?;
    ensure!(device.spec.public_key.is_none(), "{:?}", device.spec);
    confirmed(&device)?;
    ensure!(machine.process(NAME)?.ended()?.success(), "it ends by itself");
    machine.start_factory_device(NAME, &identity)?;
    let refused = |line: &str| line.contains("certificate refused") && line.contains("decommissioned");
    machine.process(NAME)?.wait_for_line("its refusal", refused)?;
    confirmed(&machine.api::<Device>().get(NAME).await?)
}

/// Puts an order on a gateway's disk, as whoever has the gateway can.
fn plant(gateway: &Path, device: &str, order: &[u8]) -> Result<()> {
    const DEVICES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("devices");
    let database = Database::open(gateway.join("sets.redb"))?;
    let write = database.begin_write()?;
    {
        let mut table = write.open_table(DEVICES)?;
        let held = table.get(device)?.context("the gateway knows the device")?.value().to_vec();
        let mut stored: Value = serde_json::from_slice(&held)?;
        stored["order"] = json!(STANDARD.encode(order));
        table.insert(device, serde_json::to_vec(&stored)?.as_slice())?;
    }
    write.commit()?;
    Ok(())
}

fn order_by(identity: &Identity, device: &str, uid: &str) -> Result<Vec<u8>> {
    let id = format!("spiffe://{TRUST_DOMAIN}/ns/default/device/{device}");
    let order = Order { device: &id, device_uid: uid.parse()?, nonce: Nonce([7; 16]) };
    let (key, chain) = (DeviceKey::of(identity)?, identity.chain());
    let chain: Vec<&[u8]> = chain.iter().map(AsRef::as_ref).collect();
    order.sign(&chain, |message| key.sign(message)).map_err(|error| anyhow::anyhow!("{error}"))
}

async fn a_gateway_can_t_take_a_device_out_of_service_by_itself(plane: ControlPlane) -> Result<()> {
    let mut machine = Machine::start(plane).await?;
    machine.add_device("board").await?;
    let wasm = running(&mut machine, "board").await?;
    let uid = machine.api::<Device>().get("board").await?.metadata.uid.context("a uid")?;
    let read =
        |files: wasmbed::machine::layout::IdentityFiles| Identity::read(&files.certificate, &files.key);
    let gateway = read(machine.layout().gateway_identity("e2e")?)?;
    let controller = read(machine.layout().controller_identity("e2e")?)?;
    let device = read(machine.layout().device_identity("default", "board")?)?;
    for (what, order) in [
        ("by the gateway itself", order_by(&gateway, "board", &uid)?),
        ("by the device itself", order_by(&device, "board", &uid)?),
        ("a controller's, for another device", order_by(&controller, "other", &uid)?),
        ("none", b"order".to_vec()),
    ] {
        machine.stop("gateway")?;
        plant(&machine.layout().gateway_dir(), "default/board", &order)?;
        machine.start_gateway()?;
        let refused = |line: &str| line.contains("default/board") && line.contains("Refused Some(28)");
        machine.process("gateway")?.wait_for_line("the device's refusal", refused).context(what)?;
        machine.device("board", "running it still", |device| runs(device, &digest(&wasm))).await?;
        ensure!(!files_with(&machine.device_dir("board"), &wasm)?.is_empty(), "{what}: its module is there");
    }
    let device = machine.api::<Device>().get("board").await?;
    ensure!(says(&device).is_none() && phase(&device) == DevicePhase::Connected, "{:?}", device.status);
    // The same order by a controller, which a person has to ask for, would have been followed.
    machine.merge::<Device>("board", decommission()).await?;
    confirmed(&machine.device("board", "decommissioned", is_confirmed).await?)
}
