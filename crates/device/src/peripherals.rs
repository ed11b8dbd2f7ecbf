//! Pins and sensors of a device that is a process on a Linux host. A host has no board, so each is exactly what its name
//! says and nothing else.
//!
//! | sensor | what it measures | unit of the thousandths |
//! |---|---|---|
//! | 0 | temperature of the first thermal zone; virtual machines often have none, and then there is no sensor 0 | °C |
//! | 1 | load average of the last minute, `/proc/loadavg` | runnable tasks |
//! | 2 | memory available on the host, `MemAvailable` of `/proc/meminfo` | MiB |
//! | 3 | time since this device started | s |
//!
//! Pins 0 to 7 are latches in this process: reading one gives what was written to it last, low at first. No voltage
//! moves anywhere.
//!
//! UARTs are serial devices that the configuration names.

use std::{fs, path::PathBuf, time::Instant};

use wasmbed_runtime::{PeripheralError, Peripherals, peripherals::uart::Port};

use crate::uart::{Tty, Wakes};

/// The host's sensors, the latches and the serial devices of one device.
#[derive(Debug)]
pub struct HostPeripherals {
    started: Instant,
    latches: [bool; HostPeripherals::PINS],
    uarts: Vec<Tty>,
}

impl HostPeripherals {
    /// Its pins.
    pub const PINS: usize = 8;
    /// Names of the capabilities that a Linux device can grant, ascending.
    pub const CAPABILITIES: [&'static str; 4] = ["gpio", "key-value", "messages", "sensor"];

    /// All latches low.
    #[must_use]
    pub fn new(started: Instant) -> Self {
        Self { started, latches: [false; Self::PINS], uarts: Vec::new() }
    }

    /// With serial devices, the first as `uart0`.
    pub(crate) fn with_uarts(self, paths: Vec<PathBuf>, wakes: &Wakes) -> Self {
        let uarts = paths.into_iter().map(|path| Tty::new(path, Some(wakes.clone()))).collect();
        Self { uarts, ..self }
    }

    fn latch(&mut self, pin: u32) -> Result<&mut bool, PeripheralError> {
        let pin = usize::try_from(pin).map_err(|_| PeripheralError::NotFound)?;
        self.latches.get_mut(pin).ok_or(PeripheralError::NotFound)
    }
}

impl Peripherals for HostPeripherals {
    fn gpio_read(&mut self, pin: u32) -> Result<bool, PeripheralError> {
        self.latch(pin).map(|latch| *latch)
    }

    fn gpio_write(&mut self, pin: u32, level: bool) -> Result<(), PeripheralError> {
        *self.latch(pin)? = level;
        Ok(())
    }

    fn uart(&mut self, port: u8) -> Option<&mut dyn Port> {
        self.uarts.get_mut(usize::from(port)).map(|tty| tty as &mut dyn Port)
    }

    fn sensor_read(&mut self, sensor: u32) -> Result<i32, PeripheralError> {
        match sensor {
            0 => parse_temperature(&read("/sys/class/thermal/thermal_zone0/temp")?),
            1 => parse_load(&read("/proc/loadavg")?),
            2 => parse_available(&read("/proc/meminfo")?),
            3 => Some(i32::try_from(self.started.elapsed().as_millis()).unwrap_or(i32::MAX)),
            _ => return Err(PeripheralError::NotFound),
        }
        .ok_or(PeripheralError::Failed)
    }
}

fn read(path: &str) -> Result<String, PeripheralError> {
    fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => PeripheralError::NotFound,
        _ => PeripheralError::Failed,
    })
}

/// `0.52 0.58 0.59 1/597 12345` as 520.
fn parse_load(text: &str) -> Option<i32> {
    let (whole, hundredths) = text.split_whitespace().next()?.split_once('.')?;
    let hundredths = hundredths.get(..2)?.parse::<i32>().ok()?;
    whole.parse::<i32>().ok()?.checked_mul(1_000)?.checked_add(hundredths * 10)
}

/// The line `MemAvailable:  1234 kB` in thousandths of a MiB.
fn parse_available(text: &str) -> Option<i32> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
    Some(i32::try_from(kib * 1_000 / 1_024).unwrap_or(i32::MAX))
}

/// Linux gives thousandths of a degree already.
fn parse_temperature(text: &str) -> Option<i32> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_s_texts_become_thousandths() {
        assert_eq!(parse_load("0.52 0.58 0.59 1/597 12345\n"), Some(520));
        assert_eq!(parse_load("12.07 9 9 1/1 1"), Some(12_070));
        assert_eq!(parse_load(""), None);
        assert_eq!(parse_available("MemTotal: 2048 kB\nMemAvailable:    2048 kB\n"), Some(2_000));
        assert_eq!(parse_temperature("48312\n"), Some(48_312));
    }

    #[test]
    fn what_linux_always_has_can_be_read() {
        let mut peripherals = HostPeripherals::new(Instant::now());
        for sensor in 1..4 {
            assert!(peripherals.sensor_read(sensor).is_ok_and(|value| value >= 0), "sensor {sensor}");
        }
        assert_eq!(peripherals.sensor_read(99), Err(PeripheralError::NotFound));
    }

    #[test]
    fn a_pin_keeps_its_level_and_its_neighbours_theirs() {
        let mut peripherals = HostPeripherals::new(Instant::now());
        assert_eq!(peripherals.gpio_write(3, true), Ok(()));
        assert_eq!((peripherals.gpio_read(3), peripherals.gpio_read(4)), (Ok(true), Ok(false)));
        assert_eq!(peripherals.gpio_write(8, true), Err(PeripheralError::NotFound));
    }
}
