//! I2C buses, as drivers written for `embedded-hal` 1.0 use them. Needs the capability `i2c`, and the bus and the addresses in
//! `config.peripherals.i2c`.
//!
//! ```ignore
//! let mut sensor = lm75::Lm75::new(i2c::Bus::new(0), lm75::Address::default());
//! let celsius = sensor.read_temperature();
//! ```

use core::fmt;

use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};

use crate::imports;

/// Operations of one transaction.
pub const OPERATIONS_MAX: usize = 16;

/// An I2C bus of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bus(u32);

impl Bus {
    /// The bus of a number: `i2c0` is 0. Whether it is there, and was granted, shows when it is used.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }
}

/// Why a transaction did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no such bus, or it was not granted.
    NoBus,
    /// The address was not granted.
    AddressDenied,
    /// More than [`OPERATIONS_MAX`] operations or 256 bytes, a read of no bytes, or an address that no device has.
    Invalid,
    /// No device has the address.
    NoAcknowledgeAddress,
    /// The device did not take a byte.
    NoAcknowledgeData,
    /// Somebody else pulled the data line.
    ArbitrationLost,
    /// The data line is held low.
    Bus,
    /// The controller lost bytes.
    Overrun,
    /// The clock line was held low for too long.
    Timeout,
    /// Anything else: an error number of WASI preview 1.
    Other(i32),
}

impl Error {
    fn check(result: i32) -> Result<(), Self> {
        Err(match result {
            0.. => return Ok(()),
            -6 => Self::ArbitrationLost,
            -28 => Self::Invalid,
            -29 => Self::Bus,
            -44 => Self::NoBus,
            -60 => Self::NoAcknowledgeAddress,
            -61 => Self::Overrun,
            -65 => Self::NoAcknowledgeData,
            -73 => Self::Timeout,
            -76 => Self::AddressDenied,
            other => Self::Other(other.wrapping_neg()),
        })
    }
}

impl embedded_hal::i2c::Error for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoAcknowledgeAddress => ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address),
            Self::NoAcknowledgeData => ErrorKind::NoAcknowledge(NoAcknowledgeSource::Data),
            Self::ArbitrationLost => ErrorKind::ArbitrationLoss,
            Self::Bus => ErrorKind::Bus,
            Self::Overrun => ErrorKind::Overrun,
            Self::NoBus | Self::AddressDenied | Self::Invalid | Self::Timeout | Self::Other(_) => {
                ErrorKind::Other
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoBus => "no such bus, or not granted",
            Self::AddressDenied => "address not granted",
            Self::Invalid => "invalid transaction",
            Self::NoAcknowledgeAddress => "no device",
            Self::NoAcknowledgeData => "a byte was not taken",
            Self::ArbitrationLost => "arbitration lost",
            Self::Bus => "data line held low",
            Self::Overrun => "bytes lost",
            Self::Timeout => "clock line held low",
            Self::Other(number) => return write!(f, "error {number}"),
        })
    }
}

impl core::error::Error for Error {}

impl ErrorType for Bus {
    type Error = Error;
}

impl I2c for Bus {
    /// Waits until the transaction is over; other applications run meanwhile.
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), Error> {
        if operations.is_empty() {
            return Ok(());
        }
        let nothing = imports::Operation { kind: 0, bytes: core::ptr::null(), length: 0 };
        let mut raw = [nothing; OPERATIONS_MAX];
        if operations.len() > raw.len() {
            return Err(Error::Invalid);
        }
        for (raw, operation) in raw.iter_mut().zip(&mut *operations) {
            *raw = match operation {
                Operation::Write(bytes) => {
                    imports::Operation { kind: 0, bytes: bytes.as_ptr(), length: bytes.len() }
                }
                Operation::Read(bytes) => {
                    imports::Operation { kind: 1, bytes: bytes.as_mut_ptr(), length: bytes.len() }
                }
            };
        }
        // SAFETY: the host reads as many operations as there are, and reads or writes the bytes of each, which are borrowed here for
        // as long as the call waits.
        let result = unsafe { imports::i2c_transfer(self.0, address.into(), raw.as_ptr(), operations.len()) };
        Error::check(result)
    }
}
