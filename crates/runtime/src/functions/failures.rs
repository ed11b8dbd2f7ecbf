//! What a program is told of buses that failed.

use super::errno::{AGAIN, BUSY, IO, NOENT, NOTCAPABLE, NXIO, OVERFLOW, PROTO, TIMEDOUT};
use crate::host::{i2c, uart};

/// Of a transfer over I2C.
pub(crate) fn of_i2c(error: i2c::Error) -> i32 {
    -match error {
        i2c::Error::NoBus => NOENT,
        i2c::Error::AddressDenied => NOTCAPABLE,
        i2c::Error::NoAcknowledgeAddress => NXIO,
        i2c::Error::NoAcknowledgeData => PROTO,
        i2c::Error::ArbitrationLost => AGAIN,
        i2c::Error::Bus => IO,
        i2c::Error::Overrun => OVERFLOW,
        i2c::Error::Timeout => TIMEDOUT,
    }
}

/// Of bytes that did not go one way or the other.
pub(crate) fn of_uart(error: uart::Error) -> i32 {
    -match error {
        uart::Error::NoPort => NOENT,
        uart::Error::Busy => BUSY,
        uart::Error::Overrun => OVERFLOW,
        uart::Error::Garbled => PROTO,
        uart::Error::Failed => IO,
        uart::Error::Timeout => TIMEDOUT,
    }
}
