//! What is to go over a bus.

use alloc::vec::Vec;

use crate::{i2c::Address, spi::Device};

/// Operations of one transfer.
pub const OPERATIONS_MAX: usize = 16;
/// Bytes of one transfer, written and read together: over I2C at 100 kHz it takes 24 ms.
pub const BYTES_MAX: usize = 256;
/// Pauses of one transfer together, during which its chip stays selected.
pub const PAUSES_US_MAX: u32 = 10_000;

/// Whom a transfer is for, and so of which kind its bus is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A device on an I2C bus.
    I2c(Address),
    /// A chip on an SPI bus.
    Spi(Device),
}

impl Target {
    /// Whether both are the same on one bus, however it is talked to.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::I2c(address), Self::I2c(other)) => address == other,
            (Self::Spi(device), Self::Spi(other)) => device.chip_select == other.chip_select,
            (Self::I2c(_), Self::Spi(_)) | (Self::Spi(_), Self::I2c(_)) => false,
        }
    }
}

impl From<Address> for Target {
    fn from(address: Address) -> Self {
        Self::I2c(address)
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the device.
    Write,
    /// From the device.
    Read,
    /// Both at once, each byte that is written replaced by the one that came for it: over SPI alone.
    Exchange,
}

/// So many bytes one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Which way.
    pub direction: Direction,
    /// How many; over I2C a read has at least one.
    pub bytes: usize,
    /// What is waited after them, microseconds: over SPI alone.
    pub pause_us: u32,
}

/// A transfer is larger than [`OPERATIONS_MAX`], [`BYTES_MAX`] and [`PAUSES_US_MAX`] allow, or has what its kind of bus has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuch;

/// A transaction as `embedded_hal::i2c::I2c` has it: one start, operations of which those of the same direction follow each
/// other without a start between, one stop. Or as `embedded_hal::spi::SpiDevice` has it: its chip is selected from the first
/// operation to the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    target: Target,
    operations: Vec<Operation>,
    bytes: Vec<u8>,
}

impl Transfer {
    /// A transfer without operations.
    #[must_use]
    pub fn new(target: impl Into<Target>) -> Self {
        Self { target: target.into(), operations: Vec::new(), bytes: Vec::new() }
    }

    fn is_spi(&self) -> bool {
        matches!(self.target, Target::Spi(_))
    }

    /// Adds an operation and lends its bytes: those to be written are to be filled in.
    ///
    /// # Errors
    /// The transfer would be too large, exchange bytes over I2C, or read no bytes there: a device that was asked to send can't be
    /// stopped before it sent one.
    pub fn push(&mut self, direction: Direction, bytes: usize) -> Result<&mut [u8], TooMuch> {
        let before = self.bytes.len();
        let is_none = match direction {
            Direction::Write => false,
            Direction::Read => !self.is_spi() && bytes == 0,
            Direction::Exchange => !self.is_spi(),
        };
        if self.operations.len() >= OPERATIONS_MAX || bytes > BYTES_MAX - before || is_none {
            return Err(TooMuch);
        }
        self.operations.push(Operation { direction, bytes, pause_us: 0 });
        self.bytes.resize(before + bytes, 0);
        self.bytes.get_mut(before..).ok_or(TooMuch)
    }

    /// Adds a pause, which is an operation without bytes.
    ///
    /// # Errors
    /// The transfer would be too large or take too long, or is none over SPI.
    pub fn pause(&mut self, pause_us: u32) -> Result<(), TooMuch> {
        if !self.is_spi() || pause_us > PAUSES_US_MAX - self.pauses_us() {
            return Err(TooMuch);
        }
        self.push(Direction::Write, 0)?;
        if let Some(operation) = self.operations.last_mut() {
            operation.pause_us = pause_us;
        }
        Ok(())
    }

    fn pauses_us(&self) -> u32 {
        self.operations.iter().map(|operation| operation.pause_us).sum()
    }

    /// Whom it is for.
    #[must_use]
    pub fn target(&self) -> Target {
        self.target
    }

    /// The same target in full: over SPI, who asks knows the chip select alone.
    #[must_use]
    pub fn with_target(self, target: Target) -> Self {
        Self { target, ..self }
    }

    /// Its operations.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The bytes of all operations, one after the other; those of reads are there once it is done.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Bytes that it takes of the bus: over I2C with an address before each run of operations of one direction, over SPI with one
    /// for the selection and one for each millisecond of pauses.
    #[must_use]
    pub fn bus_bytes(&self) -> u32 {
        let more = match self.target {
            Target::I2c(_) => {
                let changes = self
                    .operations
                    .windows(2)
                    .filter(|pair| matches!(pair, [a, b] if a.direction != b.direction));
                changes.count()
            }
            Target::Spi(_) => self.pauses_us().div_ceil(1_000) as usize,
        };
        u32::try_from(self.bytes.len() + 1 + more).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHIP: Target = Target::Spi(Device { chip_select: 1, mode: 0, clock_khz: 1_000 });

    #[test]
    fn a_transfer_is_bounded() {
        let mut transfer = Transfer::new(Address::new(0x48).unwrap());
        assert_eq!(transfer.push(Direction::Read, 0), Err(TooMuch));
        assert_eq!(transfer.push(Direction::Exchange, 1), Err(TooMuch));
        assert_eq!(transfer.pause(1), Err(TooMuch));
        assert_eq!(transfer.push(Direction::Write, BYTES_MAX + 1), Err(TooMuch));
        assert!(transfer.push(Direction::Write, 0).is_ok(), "is somebody there?");
        assert!(transfer.push(Direction::Read, BYTES_MAX).is_ok());
        assert_eq!(transfer.push(Direction::Write, 1), Err(TooMuch));
        for _ in 2..OPERATIONS_MAX {
            assert!(transfer.push(Direction::Write, 0).is_ok());
        }
        assert_eq!(transfer.push(Direction::Write, 0), Err(TooMuch));
        assert_eq!(transfer.bus_bytes(), 256 + 3);
    }

    #[test]
    fn one_over_spi_may_exchange_and_pause_and_is_bounded_as_well() {
        let mut transfer = Transfer::new(CHIP);
        assert!(transfer.push(Direction::Read, 0).is_ok(), "nothing is sent before it is clocked");
        assert!(transfer.push(Direction::Exchange, BYTES_MAX).is_ok());
        assert_eq!(transfer.push(Direction::Exchange, 1), Err(TooMuch));
        assert_eq!(transfer.pause(PAUSES_US_MAX), Ok(()));
        assert_eq!(transfer.pause(1), Err(TooMuch), "together");
        assert_eq!(transfer.bus_bytes(), 256 + 1 + 10);
        for _ in 3..OPERATIONS_MAX {
            assert_eq!(transfer.pause(0), Ok(()));
        }
        assert_eq!(transfer.pause(0), Err(TooMuch));
    }

    #[test]
    fn the_same_target_is_one_of_the_same_kind_of_bus() {
        let chip = |chip_select, mode| Target::Spi(Device { chip_select, mode, clock_khz: 1 });
        assert!(CHIP.is_same(&chip(1, 3)));
        assert!(!CHIP.is_same(&chip(0, 0)));
        let address = |number| Target::from(Address::new(number).unwrap());
        assert!(address(0x48).is_same(&address(0x48)) && !address(0x48).is_same(&address(0x49)));
        assert!(!chip(8, 0).is_same(&address(8)) && !address(8).is_same(&chip(8, 0)));
    }
}
