//! A board's pins, as an application and as the hardware see them.

use anyhow::{Context, Result, ensure};
use wasmbed_api::{Application, ApplicationConfig, GpioGrant, PeripheralGrants};
use wasmbed_e2e::{
    ControlPlane, Machine, application,
    board::{NAME, prepare, read_to},
};
use wasmbed_emulator::{Emulator, Options};

/// The lights of the MPS2 board (Arm DAI 0385D, section 4.5).
const LIGHTS: u32 = 0x4002_8000;

/// Switches the second light on, reads it back, asks for a pin that is not there and for one that is a button, and says
/// what came of each.
const SWITCH: &str = r#"(module
    (import "wasmbed" "gpio_write" (func $write (param i32 i32) (result i32)))
    (import "wasmbed" "gpio_read" (func $read (param i32) (result i32)))
    (import "wasmbed" "log" (func $log (param i32 i32)))
    (import "wasmbed" "wait" (func $wait (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "as expected")
    (data (i32.const 16) "otherwise")
    (func (export "run")
        (if (i32.and
                (i32.and
                    (i32.eqz (call $write (i32.const 1) (i32.const 1)))
                    (i32.eq (call $read (i32.const 1)) (i32.const 1)))
                (i32.and
                    (i32.eq (call $write (i32.const 9) (i32.const 1)) (i32.const -44))
                    (i32.and
                        (i32.eq (call $write (i32.const 2) (i32.const 1)) (i32.const -44))
                        (i32.eqz (call $read (i32.const 2))))))
            (then (call $log (i32.const 0) (i32.const 11)))
            (else (call $log (i32.const 16) (i32.const 9))))
        (loop (call $wait (i32.const 60000)) (br 0))))"#;

/// `guests/button`: switches pin 0 when pin 1 rises.
const BUTTON: &[u8] = include_bytes!("../../../../guests/prebuilt/button.wasm");

/// Switches the second light as often as it is told to, milliseconds.
fn switcher(every_ms: u32) -> Result<Vec<u8>> {
    let text = format!(
        r#"(module
            (import "wasmbed" "gpio_write" (func $write (param i32 i32) (result i32)))
            (import "wasmbed" "wait" (func $wait (param i32)))
            (memory (export "memory") 1)
            (func (export "run") (local $level i32)
                (loop
                    (call $wait (i32.const {every_ms}))
                    (local.set $level (i32.eqz (local.get $level)))
                    (drop (call $write (i32.const 1) (local.get $level)))
                    (br 0))))"#
    );
    Ok(wat::parse_str(text)?)
}

fn with_pins(name: &str, module: &[u8], pins: &[u32]) -> Application {
    let gpio = pins.iter().map(|pin| GpioGrant { name: format!("gpio{pin}"), ..GpioGrant::default() });
    let mut wanted = application(name, module, &[NAME]);
    wanted.spec.config = ApplicationConfig {
        capabilities: vec!["gpio".to_owned()],
        peripherals: PeripheralGrants { gpio: gpio.collect(), ..PeripheralGrants::default() },
        ..ApplicationConfig::default()
    };
    wanted
}

#[test]
fn edges_of_a_pin_wake_an_application_and_a_flood_of_them_is_counted_on_mps2_an385() -> Result<()> {
    const PRESSED: &str = "APP default/button: pressed ";
    wasmbed_e2e::run(async {
        let machine = Machine::start(ControlPlane::Embedded).await?;
        machine.create_device(NAME).await?;
        let options = prepare("mps2-an385".parse()?, &machine, &machine.gateway_address().to_string())?;
        let board = Emulator::start(&options)?;
        machine.create(&with_pins("button", BUTTON, &[0, 1])).await?;
        machine.create(&with_pins("presser", &switcher(1_000)?, &[1])).await?;
        for _ in 0..2 {
            read_to(&board, "APP default/button: pressed 1 times")?;
        }
        // Faster than it may be woken: then one wait ends for several.
        machine.create(&with_pins("flicker", &switcher(8)?, &[1])).await?;
        let pressed = || -> Result<u32> {
            let lines = read_to(&board, PRESSED)?;
            let count =
                lines.last().and_then(|line| line.split(PRESSED).nth(1)?.split(' ').next()?.parse().ok());
            count.context("it says how often it was pressed")
        };
        while pressed()? < 3 {}
        // All of them run on.
        for name in ["button", "presser", "flicker"] {
            let is_running = |application: &Application| {
                application.status.as_ref().is_some_and(|status| status.counts.running == 1)
            };
            machine.application(name, "it runs", is_running).await?;
        }
        Ok(())
    })
}

#[test]
fn an_application_switches_a_light_on_mps2_an385() -> Result<()> {
    wasmbed_e2e::run(async {
        let machine = Machine::start(ControlPlane::Embedded).await?;
        machine.create_device(NAME).await?;
        let options = prepare("mps2-an385".parse()?, &machine, &machine.gateway_address().to_string())?;
        let board = Emulator::start(&Options { debugger: true, ..options })?;
        read_to(&board, "session established")?;
        let lights =
            || -> Result<u32> { Ok(board.debugger().context("it was started with one")?.peek(LIGHTS)?) };
        ensure!(lights()? == 0, "both are dark");
        let mut switch: Application = application("switch", &wat::parse_str(SWITCH)?, &[NAME]);
        switch.spec.config =
            ApplicationConfig { capabilities: vec!["gpio".to_owned()], ..ApplicationConfig::default() };
        machine.create(&switch).await?;
        let said = read_to(&board, "APP default/switch: ")?;
        ensure!(said.last().is_some_and(|line| line.ends_with("as expected")), "{said:?}");
        ensure!(lights()? == 0b10, "the second one is lit");
        Ok(())
    })
}
