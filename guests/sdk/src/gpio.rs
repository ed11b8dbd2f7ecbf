//! The device's pins. Needs the capability `gpio`.

use crate::{Error, imports};

/// The level of a pin: true is high.
pub fn read(pin: u32) -> Result<bool, Error> {
    Error::check(imports::gpio_read(pin)).map(|level| level != 0)
}

/// Sets the level of a pin.
pub fn write(pin: u32, level: bool) -> Result<(), Error> {
    Error::check(imports::gpio_write(pin, u32::from(level))).map(drop)
}
