//! The device's sensors. Needs the capability `sensor`.

use crate::{Error, imports};

/// A measurement in thousandths of the sensor's unit: m°C, mV, and so on.
pub fn read(sensor: u32) -> Result<i32, Error> {
    let mut milli_units = 0;
    // SAFETY: the host writes four bytes to where a live `i32` is.
    let result = unsafe { imports::sensor_read(sensor, &raw mut milli_units) };
    Error::check(result).map(|_| milli_units)
}
