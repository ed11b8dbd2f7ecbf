//! A sensor on a board's I2C bus, read by a driver that knows nothing of Wasmbed.

use anyhow::{Result, ensure};
use wasmbed_api::{Application, ApplicationConfig, Device, I2cGrant, PeripheralGrants};
use wasmbed_e2e::{
    ControlPlane, Machine, application,
    board::{NAME, prepare, read_to},
};
use wasmbed_emulator::{Emulator, Options};

/// `guests/thermometer`: the crate `lm75` on `i2c1`.
const THERMOMETER: &[u8] = include_bytes!("../../../guests/prebuilt/thermometer.wasm");

/// `guests/c/thermometer`: the same with a driver in C.
const THERMOMETER_C: &[u8] = include_bytes!("../../../guests/prebuilt/thermometer-c.wasm");

/// A thermometer that may talk to this address of `i2c1`.
fn thermometer(name: &str, module: &[u8], address: i32) -> Application {
    let mut thermometer = application(name, module, &[NAME]);
    let grant = I2cGrant { name: "i2c1".to_owned(), addresses: vec![address], ..I2cGrant::default() };
    thermometer.spec.config = ApplicationConfig {
        capabilities: vec!["i2c".to_owned()],
        peripherals: PeripheralGrants { i2c: vec![grant] },
        ..ApplicationConfig::default()
    };
    thermometer
}

#[test]
fn a_driver_from_crates_io_reads_a_sensor_on_mps2_an385() -> Result<()> {
    wasmbed_e2e::run(async {
        let machine = Machine::start(ControlPlane::Embedded).await?;
        machine.create_device(NAME).await?;
        let options = prepare("mps2-an385".parse()?, &machine, &machine.gateway_address().to_string())?;
        let devices = vec!["tmp105,id=sensor,address=0x48".to_owned()];
        let board = Emulator::start(&Options { devices, ..options })?;
        board.set_property("sensor", "temperature", 21_500)?;
        machine.create(&thermometer("thermometer", THERMOMETER, 0x48)).await?;
        machine.create(&thermometer("elsewhere", THERMOMETER, 0x49)).await?;
        read_to(&board, "APP default/thermometer: 21500 m°C")?;
        board.set_property("sensor", "temperature", -7_000)?;
        let said = read_to(&board, "APP default/thermometer: -7000 m°C")?;
        machine.create(&thermometer("in-c", THERMOMETER_C, 0x48)).await?;
        read_to(&board, "APP default/in-c: -7000 m°C")?;
        ensure!(!said.iter().any(|line| line.contains("thermometer: sensor:")), "{said:?}");
        let said = read_to(&board, "APP default/elsewhere: ")?;
        ensure!(said.last().is_some_and(|line| line.ends_with("sensor: address not granted")), "{said:?}");
        let has_buses = |device: &Device| {
            let facts = device.status.as_ref().and_then(|status| status.facts.as_ref());
            let buses: Option<Vec<&str>> =
                facts.map(|facts| facts.peripherals.iter().map(|bus| bus.name.as_str()).collect());
            buses == Some(vec!["i2c0", "i2c1"])
        };
        machine.device(NAME, "a Device that names its buses", has_buses).await?;
        Ok(())
    })
}
