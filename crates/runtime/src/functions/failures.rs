//! What a program is told of buses that failed.

use super::errno::{AGAIN, BUSY, IO, NOENT, NOTCAPABLE, NXIO, OVERFLOW, PROTO, TIMEDOUT};
use crate::host::{bus, uart};

/// Of a transfer.
pub(crate) fn of_transfer(error: bus::Error) -> i32 {
    -match error {
        bus::Error::NoBus => NOENT,
        bus::Error::Denied => NOTCAPABLE,
        bus::Error::NoAcknowledgeAddress => NXIO,
        bus::Error::NoAcknowledgeData => PROTO,
        bus::Error::ArbitrationLost => AGAIN,
        bus::Error::Bus => IO,
        bus::Error::Overrun => OVERFLOW,
        bus::Error::Timeout => TIMEDOUT,
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
