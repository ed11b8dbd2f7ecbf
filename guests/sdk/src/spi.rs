//! Chips on SPI buses, as drivers written for `embedded-hal` 1.0 use them. Needs the capability `spi`, and the chip select in
//! `config.peripherals.spi`, which says also which mode and clock the chip takes.

use core::fmt;

use embedded_hal::spi::{ErrorKind, ErrorType, Operation, SpiDevice};

use crate::imports;

/// Operations of one transaction; one that transfers between two buffers of different lengths counts as two.
pub const OPERATIONS_MAX: usize = 16;

/// A chip on an SPI bus of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chip {
    bus: u32,
    chip_select: u32,
}

impl Chip {
    /// The chip of a bus and of a chip select: `spi0.1` is `Chip::new(0, 1)`. Whether it is there, and was granted, shows when it is
    /// used.
    pub const fn new(bus: u32, chip_select: u32) -> Self {
        Self { bus, chip_select }
    }
}

/// Why a transaction did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no such bus, or none of its chips was granted.
    NoBus,
    /// The chip was not granted.
    ChipDenied,
    /// More than [`OPERATIONS_MAX`] operations, 256 bytes or pauses of 10 ms.
    Invalid,
    /// The controller failed.
    Bus,
    /// The controller lost bytes.
    Overrun,
    /// The controller did not come to an end.
    Timeout,
    /// Anything else: an error number of WASI preview 1.
    Other(i32),
}

impl Error {
    fn check(result: i32) -> Result<(), Self> {
        Err(match result {
            0.. => return Ok(()),
            -28 => Self::Invalid,
            -29 => Self::Bus,
            -44 => Self::NoBus,
            -61 => Self::Overrun,
            -73 => Self::Timeout,
            -76 => Self::ChipDenied,
            other => Self::Other(other.wrapping_neg()),
        })
    }
}

impl embedded_hal::spi::Error for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoBus | Self::ChipDenied => ErrorKind::ChipSelectFault,
            Self::Overrun => ErrorKind::Overrun,
            Self::Invalid | Self::Bus | Self::Timeout | Self::Other(_) => ErrorKind::Other,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoBus => "no such bus, or not granted",
            Self::ChipDenied => "chip not granted",
            Self::Invalid => "invalid transaction",
            Self::Bus => "the bus failed",
            Self::Overrun => "bytes lost",
            Self::Timeout => "the bus hangs",
            Self::Other(number) => return write!(f, "error {number}"),
        })
    }
}

impl core::error::Error for Error {}

impl ErrorType for Chip {
    type Error = Error;
}

/// Operations as the host takes them.
struct Raw {
    operations: [imports::Operation; OPERATIONS_MAX],
    count: usize,
}

impl Raw {
    fn push(&mut self, kind: u32, bytes: *const u8, length: usize) -> Result<(), Error> {
        *self.operations.get_mut(self.count).ok_or(Error::Invalid)? =
            imports::Operation { kind, bytes, length };
        self.count += 1;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.push(0, bytes.as_ptr(), bytes.len())
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.push(1, bytes.as_mut_ptr(), bytes.len())
    }

    fn exchange(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.push(2, bytes.as_mut_ptr(), bytes.len())
    }

    /// What both buffers have in common is exchanged where it is read to; then the rest of the longer one goes one way.
    fn transfer(&mut self, read: &mut [u8], write: &[u8]) -> Result<(), Error> {
        let both = read.len().min(write.len());
        let (exchanged, only_read) = read.split_at_mut(both);
        let (sent, only_written) = write.split_at(both);
        exchanged.copy_from_slice(sent);
        self.exchange(exchanged)?;
        match (only_read, only_written) {
            ([], []) => Ok(()),
            ([], only_written) => self.write(only_written),
            (only_read, _) => self.read(only_read),
        }
    }
}

impl SpiDevice for Chip {
    /// Waits until the transaction is over; other applications run meanwhile.
    fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), Error> {
        if operations.is_empty() {
            return Ok(());
        }
        let nothing = imports::Operation { kind: 0, bytes: core::ptr::null(), length: 0 };
        let mut raw = Raw { operations: [nothing; OPERATIONS_MAX], count: 0 };
        for operation in &mut *operations {
            match operation {
                Operation::Write(bytes) => raw.write(bytes),
                Operation::Read(bytes) => raw.read(bytes),
                Operation::TransferInPlace(bytes) => raw.exchange(bytes),
                Operation::Transfer(read, write) => raw.transfer(read, write),
                Operation::DelayNs(ns) => raw.push(3, core::ptr::null(), *ns as usize),
            }?;
        }
        // SAFETY: the host reads as many operations as there are, and reads or writes the bytes of each, which are borrowed here for
        // as long as the call waits.
        let result =
            unsafe { imports::spi_transfer(self.bus, self.chip_select, raw.operations.as_ptr(), raw.count) };
        Error::check(result)
    }
}
