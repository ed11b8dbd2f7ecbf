//! A sensor on a board's I2C bus, read by a driver that knows nothing of Wasmbed, and what it says on its way to whoever listens.

use anyhow::{Result, ensure};
use wasmbed_api::{
    Application, ApplicationConfig, Device, I2cGrant, PeripheralGrants, SpiGrant, Topic, TopicDirection,
};
use wasmbed_control::gateway_api::MessageLine;
use wasmbed_e2e::{
    ControlPlane, Machine, application,
    board::{NAME, prepare, read_to},
    messages_until,
};
use wasmbed_emulator::{Emulator, Options};

/// `guests/thermometer`: the crate `lm75` on `i2c1`.
const THERMOMETER: &[u8] = include_bytes!("../../../../guests/prebuilt/thermometer.wasm");

/// `guests/c/thermometer`: the same with a driver in C.
const THERMOMETER_C: &[u8] = include_bytes!("../../../../guests/prebuilt/thermometer-c.wasm");

/// `guests/recorder`: the crates `ds1307` and `eeprom24x` on `i2c1`.
const RECORDER: &[u8] = include_bytes!("../../../../guests/prebuilt/recorder.wasm");

/// `guests/converter`: a driver of the `max1110` on `spi1.0`.
const CONVERTER: &[u8] = include_bytes!("../../../../guests/prebuilt/converter.wasm");

/// An application that may talk to these addresses of `i2c1`, and publish temperatures.
fn on_bus(name: &str, module: &[u8], addresses: &[i32]) -> Application {
    let mut wanted = application(name, module, &[NAME]);
    let grant = I2cGrant { name: "i2c1".to_owned(), addresses: addresses.to_vec(), ..I2cGrant::default() };
    wanted.spec.config = ApplicationConfig {
        capabilities: vec!["i2c".to_owned(), "messages".to_owned()],
        topics: vec![Topic { name: "temperature".to_owned(), direction: TopicDirection::Out, per_second: 1 }],
        peripherals: PeripheralGrants { i2c: vec![grant], ..PeripheralGrants::default() },
        ..ApplicationConfig::default()
    };
    wanted
}

#[test]
fn a_driver_from_crates_io_reads_a_sensor_on_mps2_an385() -> Result<()> {
    wasmbed_e2e::run(async {
        let machine = Machine::start(ControlPlane::Embedded).await?;
        machine.create_device(NAME).await?;
        let options = prepare("mps2-an385".parse()?, &machine, &machine.gateway_address().to_string())?;
        let devices = [
            "tmp105,id=sensor,address=0x48",
            "at24c-eeprom,address=0x50,rom-size=32768",
            "ds1338,address=0x68",
        ];
        let devices = devices.map(str::to_owned).to_vec();
        let board = Emulator::start(&Options { devices, ..options })?;
        board.set_property("sensor", "temperature", 21_500)?;
        machine.create(&on_bus("thermometer", THERMOMETER, &[0x48])).await?;
        machine.create(&on_bus("elsewhere", THERMOMETER, &[0x49])).await?;
        read_to(&board, "APP default/thermometer: 21500 m°C")?;
        board.set_property("sensor", "temperature", -7_000)?;
        let said = read_to(&board, "APP default/thermometer: -7000 m°C")?;
        machine.create(&on_bus("in-c", THERMOMETER_C, &[0x48])).await?;
        read_to(&board, "APP default/in-c: -7000 m°C")?;
        ensure!(!said.iter().any(|line| line.contains("thermometer: sensor:")), "{said:?}");
        let both = |told: &[MessageLine]| {
            let texts: Vec<&str> = told.iter().filter_map(|line| line.text.as_deref()).collect();
            let (before, after) =
                texts.split_at(texts.iter().position(|text| *text != "21500").unwrap_or(texts.len()));
            !before.is_empty() && !after.is_empty() && after.iter().all(|text| *text == "-7000")
        };
        messages_until(&machine, "thermometer", "one temperature, then the other", both).await?;
        let said = read_to(&board, "APP default/elsewhere: ")?;
        ensure!(said.last().is_some_and(|line| line.ends_with("sensor: address not granted")), "{said:?}");
        machine.create(&on_bus("recorder", RECORDER, &[0x50, 0x68])).await?;
        let said = read_to(&board, ", record 3")?;
        ensure!(!said.iter().any(|line| line.contains("does not answer")), "{said:?}");
        let has_buses = |device: &Device| {
            let facts = device.status.as_ref().and_then(|status| status.facts.as_ref());
            let buses: Option<Vec<&str>> =
                facts.map(|facts| facts.peripherals.iter().map(|bus| bus.name.as_str()).collect());
            buses
                == Some(vec![
                    "gpio0", "gpio1", "gpio2", "gpio3", "i2c0", "i2c1", "spi0.0", "spi1.0", "uart0", "uart1",
                ])
        };
        machine.device(NAME, "a Device that names its buses", has_buses).await?;
        Ok(())
    })
}

/// QEMU's `max1110` is selected always: what is read shows bytes both ways and the grants, not the chip select.
#[test]
fn a_driver_reads_a_converter_over_spi_on_mps2_an385() -> Result<()> {
    wasmbed_e2e::run(async {
        let machine = Machine::start(ControlPlane::Embedded).await?;
        machine.create_device(NAME).await?;
        let options = prepare("mps2-an385".parse()?, &machine, &machine.gateway_address().to_string())?;
        let devices = vec!["max1110,input0=66,input1=177".to_owned()];
        let board = Emulator::start(&Options { devices, ..options })?;
        let with_chip = |name: &str, chip: &str| {
            let mut wanted = application(name, CONVERTER, &[NAME]);
            let spi = vec![SpiGrant { name: chip.to_owned(), mode: 3, ..SpiGrant::default() }];
            wanted.spec.config = ApplicationConfig {
                capabilities: vec!["spi".to_owned()],
                peripherals: PeripheralGrants { spi, ..PeripheralGrants::default() },
                ..ApplicationConfig::default()
            };
            wanted
        };
        machine.create(&with_chip("converter", "spi1.0")).await?;
        let said = read_to(&board, "APP default/converter: inputs: 66 177")?;
        ensure!(!said.iter().any(|line| line.contains("converter: converter:")), "{said:?}");
        machine.create(&with_chip("elsewhere", "spi0.0")).await?;
        let said = read_to(&board, "APP default/elsewhere: ")?;
        ensure!(said.last().is_some_and(|line| line.ends_with("no such bus, or not granted")), "{said:?}");
        machine.create(&with_chip("nowhere", "spi1.1")).await?;
        let is_refused = |application: &Application| {
            let text = serde_json::to_string(&application.status).unwrap_or_default();
            text.contains("config.peripherals.spi names spi1.1; the device has spi0.0, spi1.0")
        };
        machine.application("nowhere", "it is refused for its chip select", is_refused).await?;
        Ok(())
    })
}
