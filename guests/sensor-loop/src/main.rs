//! Reads a temperature every two seconds, smooths it, and switches a fan. Needs the capabilities `sensor` and `gpio`.
#![no_std]
#![no_main]

use core::time::Duration;

use wasmbed_guest::{entry, gpio, log, sensor, wait};

entry!(main);

const SENSOR: u32 = 0;
const FAN_PIN: u32 = 0;
const PAUSE: Duration = Duration::from_secs(2);
/// The fan goes on above the first and off below the second, in m°C: two of them, so that it doesn't flutter.
const ON_ABOVE: i32 = 30_000;
const OFF_BELOW: i32 = 28_000;
/// How much of the difference to a new measurement is taken over: one in four.
const SMOOTHING: i32 = 4;

fn main() {
    let mut smoothed: Option<i32> = None;
    let mut fan = false;
    loop {
        match sensor::read(SENSOR) {
            Ok(measured) => {
                let before = smoothed.unwrap_or(measured);
                let now = before.saturating_add(measured.saturating_sub(before) / SMOOTHING);
                smoothed = Some(now);
                fan = match fan {
                    true => now >= OFF_BELOW,
                    false => now > ON_ABOVE,
                };
                log!("{now} m°C, fan {}", if fan { "on" } else { "off" });
                if let Err(error) = gpio::write(FAN_PIN, fan) {
                    log!("pin {FAN_PIN}: {error}");
                }
            }
            Err(error) => log!("sensor {SENSOR}: {error}"),
        }
        wait(PAUSE);
    }
}
