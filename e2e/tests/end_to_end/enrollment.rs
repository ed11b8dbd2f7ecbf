//! Who is let in, by each policy of a gateway and by what a person says afterwards.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Event;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::json;
use wasmbed::machine::layout::Layout;
use wasmbed_api::{Device, DevicePhase};
use wasmbed_e2e::{ControlPlane, GatewayOptions, Machine, metric, metric_at_least};

wasmbed_e2e::both!(
    open_lets_everybody_in,
    closed_lets_nobody_in_who_was_not_created,
    approval_waits_for_a_person_and_revocation_is_final,
    a_deleted_device_loses_its_session_and_begins_anew,
    a_revocation_that_is_taken_back_says_until_when_the_device_returns,
    a_key_that_is_not_the_pinned_one_shows_in_the_device_and_in_its_log,
    two_boards_of_one_identity_show_in_the_device_and_in_their_log,
    a_certificate_of_another_authority_shows_at_the_gateway_and_in_the_devices_log,
);

async fn machine(plane: ControlPlane, policy: &str) -> Result<Machine> {
    Machine::start_with(
        plane,
        GatewayOptions { set: vec![format!("enrollment={policy}")], ..GatewayOptions::default() },
    )
    .await
}

fn ended(reason: &str) -> String {
    format!("wasmbed_gateway_sessions_ended_total{{reason=\"{reason}\"}}")
}

fn waits(device: &Device) -> bool {
    device.status.as_ref().is_some_and(|status| status.phase == DevicePhase::Pending)
}

async fn open_lets_everybody_in(plane: ControlPlane) -> Result<()> {
    let mut machine = machine(plane, "open").await?;
    machine.start_device("stranger")?;
    let device = machine.connected("stranger").await?;
    assert!(device.spec.public_key.is_some(), "its key is pinned from now on");
    Ok(())
}

async fn closed_lets_nobody_in_who_was_not_created(plane: ControlPlane) -> Result<()> {
    let mut machine = machine(plane, "closed").await?;
    machine.start_device("stranger")?;
    machine.process("gateway")?.wait_for_line("its refusal", |line| {
        line.contains("default/stranger") && line.contains("session ended by the gateway")
    })?;
    ensure!(machine.api::<Device>().get_opt("stranger").await?.is_none(), "no Device was made for it");
    machine.add_device("known").await?;
    machine.connected("known").await?;
    Ok(())
}

async fn approval_waits_for_a_person_and_revocation_is_final(plane: ControlPlane) -> Result<()> {
    let mut machine = machine(plane, "approval").await?;
    let health = machine.gateway_health();
    machine.start_device("stranger")?;
    let waiting = machine.device("stranger", "waiting for approval", waits).await?;
    assert!(!waiting.spec.approved);
    metric_at_least(health, &ended("PendingApproval"), 1.0).await?;
    machine.process("stranger")?.wait_for_line("why it waits", |line| line.contains("PendingApproval"))?;

    machine.kubectl()?.run(&[
        "patch",
        "wdev",
        "stranger",
        "--type=merge",
        "-p",
        r#"{"spec":{"approved":true}}"#,
    ])?;
    machine.connected("stranger").await?;

    let _: Device = machine.merge("stranger", json!({ "spec": { "revoked": true } })).await?;
    machine
        .device("stranger", "Revoked", |device| {
            device.status.as_ref().is_some_and(|status| status.phase == DevicePhase::Revoked)
        })
        .await?;
    metric_at_least(health, &ended("Revoked"), 1.0).await?;
    // It tries again, and stays out.
    let before = metric(health, &ended("Revoked")).await?;
    machine.kill("stranger")?;
    machine.start_device("stranger")?;
    metric_at_least(health, &ended("Revoked"), before + 1.0).await?;
    let device = machine.api::<Device>().get("stranger").await?;
    assert_eq!(device.status.context("a status")?.phase, DevicePhase::Revoked);
    Ok(())
}

async fn a_deleted_device_loses_its_session_and_begins_anew(plane: ControlPlane) -> Result<()> {
    let mut machine = machine(plane, "approval").await?;
    machine.add_device("board").await?;
    let first = machine.connected("board").await?;
    machine.delete::<Device>("board").await?;
    machine.process("gateway")?.wait_for_line("the end of its session", |line| {
        line.contains("default/board") && line.contains("session ended by the gateway")
    })?;
    let second = machine
        .device("board", "waiting for approval", |device| device.uid() != first.uid() && waits(device));
    assert!(!second.await?.spec.approved, "who was forgotten needs approval");
    Ok(())
}

/// Status, reason and message of a condition.
fn condition(device: &Device, kind: &str) -> Option<(String, String, String)> {
    let status = device.status.as_ref()?;
    let found = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

fn says(device: &Device, kind: &str, status: &str, reason: &str) -> bool {
    condition(device, kind).is_some_and(|(shown, why, _)| (shown.as_str(), why.as_str()) == (status, reason))
}

/// Waits for an Event about an object of that name.
async fn event(machine: &Machine, namespace: &str, name: &str, reason: &str) -> Result<Event> {
    let events: Api<Event> = Api::namespaced(machine.client().clone(), namespace);
    let search = async {
        loop {
            let about = |event: &Event| {
                event.involved_object.name.as_deref() == Some(name) && event.reason.as_deref() == Some(reason)
            };
            if let Some(found) = events.list(&ListParams::default()).await?.items.into_iter().find(about) {
                return anyhow::Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(wasmbed_e2e::TIMEOUT, search).await.with_context(|| format!("no Event {reason}"))?
}

async fn a_revocation_that_is_taken_back_says_until_when_the_device_returns(
    plane: ControlPlane,
) -> Result<()> {
    let mut machine = machine(plane, "approval").await?;
    machine.add_device("board").await?;
    machine.connected("board").await?;
    let _: Device = machine.merge("board", json!({ "spec": { "revoked": true } })).await?;
    machine.device("board", "Revoked", |device| says(device, "Connected", "False", "Revoked")).await?;
    let _: Device = machine.merge("board", json!({ "spec": { "revoked": false } })).await?;
    let device = machine
        .device("board", "awaited", |device| says(device, "Connected", "False", "AwaitingReconnect"))
        .await?;
    let (_, _, message) = condition(&device, "Connected").context("a condition")?;
    ensure!(message.ends_with("Z at the latest"), "it says until when: {message}");
    assert!(says(&device, "Enrolled", "True", "Approved"));
    event(&machine, "default", "board", "AwaitingReconnect").await?;
    Ok(())
}

async fn a_key_that_is_not_the_pinned_one_shows_in_the_device_and_in_its_log(
    plane: ControlPlane,
) -> Result<()> {
    let mut machine = machine(plane, "approval").await?;
    machine.create_device("other").await?;
    let other = machine.api::<Device>().get("other").await?;
    let key = other.spec.public_key.context("a pinned key")?;
    machine.create(&wasmbed_e2e::device("board", &key)).await?;
    machine.start_device("board")?;
    let device =
        machine.device("board", "KeyMismatch", |device| says(device, "KeyMismatch", "True", "KeyMismatch"));
    assert_eq!(device.await?.status.context("a status")?.phase, DevicePhase::Rejected);
    event(&machine, "default", "board", "KeyMismatch").await?;
    machine.process("board")?.wait_for_line("why it is refused", |line| line.contains("KeyMismatch"))?;
    Ok(())
}

async fn two_boards_of_one_identity_show_in_the_device_and_in_their_log(plane: ControlPlane) -> Result<()> {
    let mut machine = machine(plane, "approval").await?;
    machine.add_device("board").await?;
    machine.connected("board").await?;
    let identity = machine.layout().device_identity("default", "board")?;
    machine.start_device_as("clone", &identity)?;
    machine
        .device("board", "CloneSuspected", |device| says(device, "CloneSuspected", "True", "CloneSuspected"))
        .await?;
    event(&machine, "default", "board", "CloneSuspected").await?;
    // One of them stays, and the other knows why it does not.
    metric_at_least(machine.gateway_health(), &ended("CloneSuspected"), 1.0).await?;
    let mut refused = || -> Result<usize> {
        let mut boards = 0;
        for name in ["board", "clone"] {
            boards += usize::from(machine.process(name)?.printed()?.contains("CloneSuspected"));
        }
        Ok(boards)
    };
    let deadline = Instant::now() + wasmbed_e2e::TIMEOUT;
    while refused()? == 0 {
        ensure!(Instant::now() < deadline, "no board says why it is refused");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(refused()?, 1, "the established one stays");
    let device = machine.api::<Device>().get("board").await?;
    assert_eq!(device.status.context("a status")?.phase, DevicePhase::Connected);
    Ok(())
}

async fn a_certificate_of_another_authority_shows_at_the_gateway_and_in_the_devices_log(
    plane: ControlPlane,
) -> Result<()> {
    let mut machine = machine(plane, "open").await?;
    machine.add_device("board").await?;
    let before = machine.connected("board").await?;
    // Another fleet has a device of the same name.
    let elsewhere = Layout::create_or_open(&machine.dir().join("elsewhere"))?;
    let foreign = elsewhere.device_identity("default", "board")?;
    machine.start_device_as("foreigner", &foreign)?;
    machine.process("foreigner")?.wait_for_line("why it is refused", |line| {
        line.contains("refused") && line.contains("certificate")
    })?;
    machine.process("gateway")?.wait_for_line("its refusal", |line| {
        line.contains("connection refused") && line.contains("BadCertificate")
    })?;
    let gateways: Api<wasmbed_api::DeviceGateway> = Api::all(machine.client().clone());
    let gateways = gateways.list(&ListParams::default()).await?;
    let gateway = gateways.items.first().context("a DeviceGateway")?;
    let namespace = gateway.namespace().context("a namespace")?;
    let told = event(&machine, &namespace, &gateway.name_any(), "ForeignCertificate").await?;
    ensure!(told.message.is_some_and(|message| message.contains("127.0.0.1")), "it says from where");
    // What its name claims is not proven: the Device of that name is as it was.
    let after = machine.api::<Device>().get("board").await?;
    assert_eq!(after.status.clone().map(|status| status.phase), Some(DevicePhase::Connected));
    let types = |device: &Device| -> Vec<String> {
        device.status.iter().flat_map(|status| &status.conditions).map(|found| found.type_.clone()).collect()
    };
    assert_eq!(types(&after), types(&before));
    Ok(())
}
