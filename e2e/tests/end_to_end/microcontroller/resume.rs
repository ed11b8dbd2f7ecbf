//! A download of 128 KiB that is interrupted in its middle. A board writes down its progress in steps, so some bytes come
//! twice; how many is printed.

use anyhow::{Result, ensure};
use wasmbed_api::Application;
use wasmbed_e2e::{
    ControlPlane, Machine, application,
    board::{NAME, read_to, start},
    fixtures, module,
};
use wasmbed_emulator::{Emulator, Kind};

use super::relay::Relay;

each_board!(it_goes_on_after_a_reset, it_goes_on_after_a_cut_cable,);

const MODULE_BYTES: usize = 128 * 1_024;
/// Where the wire stands still.
const HALF: u64 = 64 * 1_024;
/// What may come again: what was on its way, one step of progress, and the frames of a new session.
const AGAIN_BYTES_MAX: u64 = 24 * 1_024;

fn it_goes_on_after_a_reset(kind: Kind) -> Result<()> {
    wasmbed_e2e::run(interrupted(kind, "a reset", |board, relay| {
        board.reset()?;
        relay.cut();
        Ok(())
    }))
}

fn it_goes_on_after_a_cut_cable(kind: Kind) -> Result<()> {
    wasmbed_e2e::run(interrupted(kind, "a cut cable", |board, relay| {
        board.set_link(false)?;
        relay.cut();
        board.set_link(true)?;
        Ok(())
    }))
}

async fn interrupted(
    kind: Kind,
    what: &str,
    interrupt: impl FnOnce(&Emulator, &Relay) -> Result<()>,
) -> Result<()> {
    let machine = Machine::start(ControlPlane::Embedded).await?;
    machine.create_device(NAME).await?;
    let relay = Relay::start(machine.gateway_address())?;
    let board = start(kind, &machine, &relay.address().to_string())?;
    read_to(&board, "session established")?;
    let wasm = fixtures::large_ticker("large", 1_000, MODULE_BYTES);
    machine.create(&module("large", &wasm)).await?;
    let mut object = application("large", &[], &[NAME]);
    object.spec.wasm_bytes = None;
    object.spec.module = Some("large".to_owned());
    relay.hold_after(HALF);
    machine.create(&object).await?;
    let passed = relay.held()?;
    interrupt(&board, &relay)?;
    let running = |application: &Application| {
        application.status.as_ref().is_some_and(|status| status.counts.running == 1)
    };
    machine.application("large", "running", running).await?;
    read_to(&board, "APP default/large: large")?;
    let again = (passed + relay.since_cut()).saturating_sub(wasm.len() as u64);
    println!(
        "{kind}, {what}: {passed} bytes before, {} after, {again} more than the module",
        relay.since_cut()
    );
    ensure!(again < AGAIN_BYTES_MAX, "{again} bytes came again after {what}");
    Ok(())
}
