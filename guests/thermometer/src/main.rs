//! Reads an LM75, or a sensor that is like one (TMP105, DS1775, MCP9800), and publishes what it reads to the topic `temperature`: once a
//! second, or as often as the setting `interval_ms` says, and at once when that changes. Needs the capability `i2c` and, of the bus `i2c1`, the address 0x48; and the capability `messages` with that topic.
#![no_std]
#![no_main]

use core::{fmt::Write, time::Duration};

use lm75::{Address, Lm75};
use wasmbed_guest::{
    entry, i2c, log,
    messages::{self, Text},
    settings, wait,
};

entry!(main);

const BUS: i2c::Bus = i2c::Bus::new(1);

wasmbed_guest::settings! {
    "interval_ms int 100..3600000 reported = 1000",
}

fn main() {
    let mut sensor = Lm75::new(BUS, Address::default());
    loop {
        match sensor.read_temperature() {
            Ok(celsius) => tell((celsius * 1_000.0) as i32),
            Err(lm75::Error::I2C(error)) => log!("sensor: {error}"),
            Err(lm75::Error::InvalidInputData) => log!("sensor: invalid"),
        }
        let interval = settings::integer("interval_ms").unwrap_or(1_000);
        // A change ends it.
        wait(Duration::from_millis(interval.unsigned_abs()));
    }
}

fn tell(thousandths: i32) {
    log!("{thousandths} m°C");
    let mut text = Text::new();
    // A number always fits.
    let _ = write!(text, "{thousandths}");
    if let Err(error) = messages::publish_newest("temperature", text.as_bytes()) {
        log!("not published: {error}");
    }
}
