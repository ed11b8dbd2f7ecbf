//! From reset to running.

use anyhow::{Result, ensure};
use wasmbed_api::{Device, DeviceApplicationState, DevicePhase};
use wasmbed_e2e::{
    ControlPlane, Machine, application,
    board::{NAME, read_to, start},
    fixtures,
};
use wasmbed_emulator::Kind;

each_board!(
    applications_start_from_flash_before_there_is_a_network,
    a_device_shows_what_the_board_itself_reported,
);

fn applications_start_from_flash_before_there_is_a_network(kind: Kind) -> Result<()> {
    wasmbed_e2e::run(async {
        let machine = Machine::start(ControlPlane::Embedded).await?;
        machine.create_device(NAME).await?;
        let board = start(kind, &machine, &machine.gateway_address().to_string())?;
        machine.create(&application("ticker", &fixtures::ticker("tick", 1_000), &[NAME])).await?;
        let first = machine.device(NAME, "running the ticker", runs).await?;
        read_to(&board, "APP default/ticker: tick")?;

        board.set_link(false)?;
        board.reset()?;
        read_to(&board, "started reset_reason=")?;
        let lines = read_to(&board, "APP default/ticker: tick")?;
        ensure!(!lines.iter().any(|line| line.contains("lease")), "it had a network: {lines:?}");

        board.set_link(true)?;
        read_to(&board, "session established")?;
        let epoch = |device: &Device| device.status.as_ref().and_then(|status| status.epoch);
        let again = |device: &Device| runs(device) && epoch(device) > epoch(&first);
        machine.device(NAME, "running the ticker in another session", again).await?;
        Ok(())
    })
}

fn a_device_shows_what_the_board_itself_reported(kind: Kind) -> Result<()> {
    wasmbed_e2e::run(async {
        let machine = Machine::start(ControlPlane::Embedded).await?;
        machine.create_device(NAME).await?;
        let board = start(kind, &machine, &machine.gateway_address().to_string())?;
        let device =
            machine.device(NAME, "Connected", |device| phase(device) == Some(DevicePhase::Connected)).await?;
        let facts = device.status.and_then(|status| status.facts).unwrap_or_default();
        let lines = board.last_lines();
        let said = |what: &str| lines.iter().any(|line| line.contains(what));
        ensure!(said(&format!("board {} firmware {}", facts.board, facts.firmware)), "{facts:?}: {lines:?}");
        ensure!(said(&format!(" arena={} ", facts.memory_bytes)), "{facts:?}: {lines:?}");
        ensure!(facts.flash_bytes == i64::from(kind.geometry().storage_bytes()), "{facts:?}");
        Ok(())
    })
}

fn phase(device: &Device) -> Option<DevicePhase> {
    device.status.as_ref().map(|status| status.phase)
}

fn runs(device: &Device) -> bool {
    let applications = device.status.iter().flat_map(|status| &status.applications);
    phase(device) == Some(DevicePhase::Connected)
        && applications.into_iter().any(|application| application.state == DeviceApplicationState::Running)
}
