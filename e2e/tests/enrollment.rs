//! Who is let in, by each policy of a gateway and by what a person says afterwards.

#![cfg(test)]

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serde_json::json;
use wasmbed_api::{Device, DevicePhase};
use wasmbed_e2e::{ControlPlane, GatewayOptions, Machine, metric, metric_at_least};

wasmbed_e2e::both!(
    open_lets_everybody_in,
    closed_lets_nobody_in_who_was_not_created,
    approval_waits_for_a_person_and_revocation_is_final,
    a_deleted_device_loses_its_session_and_begins_anew,
);

async fn machine(plane: ControlPlane, policy: &str) -> Result<Machine> {
    Machine::start_with(plane, GatewayOptions { set: vec![format!("enrollment={policy}")] }).await
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
