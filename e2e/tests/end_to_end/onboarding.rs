//! From a device that belongs to no fleet to one that runs what was deployed to it: by a factory identity or a pairing token, with a
//! key that it made itself.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::{Api, ResourceExt as _, api::ListParams};
use serde_json::json;
use wasmbed::machine::layout::TRUST_DOMAIN;
use wasmbed_api::{Application, Device, DevicePhase, DeviceSpec, request_annotation as annotation};
use wasmbed_e2e::{ControlPlane, Machine, application, fixtures::ticker};
use wasmbed_pki::{FactoryAuthority, Identity};
use wasmbed_protocol::KeyHash;

wasmbed_e2e::both!(
    a_bare_device_joins_once_it_is_approved_and_runs_what_is_deployed,
    a_person_approves_the_request_by_kubectl,
    a_registered_device_joins_without_anybody_being_asked,
    another_board_of_that_serial_does_not_join,
    a_token_lets_one_device_in_once,
    a_revoked_device_does_not_join_again,
);

/// A serial, and the name that its Device has unless somebody chose another.
const SERIAL: &str = "SN_17";
const NAME: &str = "sn-17";

async fn machine(plane: ControlPlane) -> Result<(Machine, Identity)> {
    let mut machine = Machine::start(plane).await?;
    let factory = machine.start_signer()?;
    let identity = factory.issue(SERIAL)?;
    Ok((machine, identity))
}

fn requests(machine: &Machine) -> Api<CertificateSigningRequest> {
    Api::all(machine.client().clone())
}

/// The open request for a Device.
async fn request_of(machine: &Machine, device: &str) -> Result<CertificateSigningRequest> {
    let wanted = format!("default/{device}");
    let found = async {
        loop {
            let all = requests(machine).list(&ListParams::default()).await?;
            let names = |request: &CertificateSigningRequest| {
                request.annotations().get(annotation::DEVICE) == Some(&wanted)
            };
            if let Some(request) = all.items.into_iter().find(names) {
                return anyhow::Ok(request);
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(wasmbed_e2e::TIMEOUT, found).await.context("nobody asked for a certificate")?
}

fn is_issued_key(device: &Device) -> bool {
    device.status.as_ref().is_some_and(|status| status.public_key.is_some())
}

async fn approve(machine: &Machine, name: &str) -> Result<()> {
    machine.merge::<Device>(name, json!({ "spec": { "approved": true } })).await.map(drop)
}

/// What is deployed runs.
async fn runs(machine: &Machine, device: &str) -> Result<()> {
    machine.create(&application("app", &ticker("tick", 1_000), &[device])).await?;
    let running = |found: &Application| {
        found.status.as_ref().is_some_and(|status| status.counts.running == 1 && status.ready == "1/1")
    };
    machine.application("app", "running", running).await.map(drop)
}

async fn a_bare_device_joins_once_it_is_approved_and_runs_what_is_deployed(
    plane: ControlPlane,
) -> Result<()> {
    let (mut machine, identity) = machine(plane).await?;
    machine.start_factory_device(NAME, &identity)?;
    let waiting = machine
        .device(NAME, "waiting for approval", |device| {
            device.spec.serial.as_deref() == Some(SERIAL) && device.status.is_some()
        })
        .await?;
    ensure!(!waiting.spec.approved && waiting.spec.public_key.is_none(), "nobody but a person approves");
    let phase = waiting.status.as_ref().map(|status| status.phase);
    ensure!(phase == Some(DevicePhase::Pending), "it is {phase:?}");
    approve(&machine, NAME).await?;
    let device = machine.connected(NAME).await?;
    ensure!(is_issued_key(&device) && device.spec.public_key.is_none(), "the signer pins the key");
    runs(&machine, NAME).await?;

    // It has the certificate from now on: neither signer nor controller is needed for a session.
    machine.stop("signer")?;
    machine.kill(NAME)?;
    machine.device(NAME, "gone", |device| phase_of(device) != DevicePhase::Connected).await?;
    machine.start_factory_device(NAME, &identity)?;
    machine.connected(NAME).await.map(drop)
}

fn phase_of(device: &Device) -> DevicePhase {
    device.status.as_ref().map_or(DevicePhase::Pending, |status| status.phase)
}

async fn a_person_approves_the_request_by_kubectl(plane: ControlPlane) -> Result<()> {
    let (mut machine, identity) = machine(plane).await?;
    // Nobody else approves anything.
    machine.stop("controller")?;
    machine.start_factory_device(NAME, &identity)?;
    let request = request_of(&machine, NAME).await?;
    machine.kubectl()?.run(&["certificate", "approve", &request.name_any()])?;
    let unsigned = requests(&machine).get(&request.name_any()).await?;
    ensure!(unsigned.status.and_then(|status| status.certificate).is_none(), "the Device is not approved");
    machine.kubectl()?.run(&[
        "patch",
        "device",
        NAME,
        "--type=merge",
        "-p",
        r#"{"spec":{"approved":true}}"#,
    ])?;
    machine.connected(NAME).await.map(drop)
}

async fn a_registered_device_joins_without_anybody_being_asked(plane: ControlPlane) -> Result<()> {
    let (mut machine, identity) = machine(plane).await?;
    // Under a name of the owner's choice.
    let spec = DeviceSpec { serial: Some(SERIAL.to_owned()), approved: true, ..DeviceSpec::default() };
    machine.create(&Device::new("pump-east", spec)).await?;
    machine.start_factory_device("pump-east", &identity)?;
    machine.connected("pump-east").await?;
    let all = machine.api::<Device>().list(&ListParams::default()).await?;
    assert_eq!(all.items.len(), 1, "no other Device was made");
    runs(&machine, "pump-east").await
}

async fn another_board_of_that_serial_does_not_join(plane: ControlPlane) -> Result<()> {
    let (mut machine, identity) = machine(plane).await?;
    let hash = KeyHash::of(&identity.facts().public_key).to_string();
    let spec = DeviceSpec {
        serial: Some(SERIAL.to_owned()),
        factory_key_hash: Some(hash),
        approved: true,
        ..DeviceSpec::default()
    };
    machine.create(&Device::new(NAME, spec)).await?;
    // The same serial, and another key.
    let other =
        FactoryAuthority::create_or_open(&machine.layout().dir().join("pki"), TRUST_DOMAIN)?.issue(SERIAL)?;
    machine.start_factory_device("other", &other)?;
    machine.process("other")?.wait_for_line("its refusal", |line| {
        line.contains("default/sn-17 names this serial or its key together with another one")
    })?;
    let device = machine.api::<Device>().get(NAME).await?;
    ensure!(!is_issued_key(&device), "no key is pinned for it");
    Ok(())
}

async fn a_token_lets_one_device_in_once(plane: ControlPlane) -> Result<()> {
    let (mut machine, _) = machine(plane).await?;
    let kubeconfig = machine.layout().kubeconfig().display().to_string();
    let paired =
        wasmbed_testbed::wasmbed(&["devices", "pair", "lamp", "--kubeconfig", &kubeconfig])?.output()?;
    ensure!(paired.status.success(), "{}", String::from_utf8_lossy(&paired.stderr));
    let text = String::from_utf8(paired.stdout)?;
    let is_token = |word: &&str| word.len() == 41 && word.as_bytes().get(8) == Some(&b'.');
    let token = text.split_whitespace().find(is_token).context("a token is printed")?.to_owned();
    machine.start_paired_device("lamp", &token)?;
    machine.connected("lamp").await?;
    runs(&machine, "lamp").await?;
    // Used once: whoever else has it gets nothing, and the first stays.
    machine.start_paired_device("thief", &token)?;
    machine.process("thief")?.wait_for_line("its refusal", |line| line.contains("certificate refused"))?;
    ensure!(phase_of(&machine.api::<Device>().get("lamp").await?) == DevicePhase::Connected, "it stays");
    Ok(())
}

async fn a_revoked_device_does_not_join_again(plane: ControlPlane) -> Result<()> {
    let (mut machine, identity) = machine(plane).await?;
    machine.start_factory_device(NAME, &identity)?;
    machine.device(NAME, "made", |device| device.spec.serial.is_some()).await?;
    approve(&machine, NAME).await?;
    machine.connected(NAME).await?;
    machine.merge::<Device>(NAME, json!({ "spec": { "revoked": true } })).await?;
    machine.device(NAME, "revoked", |device| phase_of(device) == DevicePhase::Revoked).await?;
    machine.kill(NAME)?;
    // Its flash is erased, as a thief would.
    std::fs::remove_dir_all(machine.device_dir(NAME))?;
    machine.start_factory_device(NAME, &identity)?;
    machine.process(NAME)?.wait_for_line("its refusal", |line| {
        line.contains("Revoked") && line.contains("the Device is revoked")
    })?;
    ensure!(phase_of(&machine.api::<Device>().get(NAME).await?) == DevicePhase::Revoked, "it stays out");
    Ok(())
}
