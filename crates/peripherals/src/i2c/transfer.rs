//! What is to go over a bus.

use alloc::vec::Vec;

/// Operations of one transfer.
pub const OPERATIONS_MAX: usize = 16;
/// Bytes of one transfer, written and read together: at 100 kHz it takes 24 ms.
pub const BYTES_MAX: usize = 256;

/// A 7-bit address that a device may have: those below 0x08 and above 0x77 are reserved (UM10204, section 3.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(u8);

impl Address {
    /// The lowest one.
    pub const MIN: u8 = 0x08;
    /// The highest one.
    pub const MAX: u8 = 0x77;

    /// The address of this number, if a device may have it.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        u8::try_from(number).ok().filter(|number| (Self::MIN..=Self::MAX).contains(number)).map(Self)
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the device.
    Write,
    /// From the device.
    Read,
}

/// So many bytes one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Which way.
    pub direction: Direction,
    /// How many; a read has at least one.
    pub bytes: usize,
}

/// A transfer is larger than [`OPERATIONS_MAX`] and [`BYTES_MAX`] allow, or reads nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuch;

/// A transaction as `embedded_hal::i2c::I2c` has it: one start, operations of which those of the same direction follow each
/// other without a start between, one stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    address: Address,
    operations: Vec<Operation>,
    bytes: Vec<u8>,
}

impl Transfer {
    /// A transfer without operations.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self { address, operations: Vec::new(), bytes: Vec::new() }
    }

    /// Adds an operation and lends its bytes: those to be written are to be filled in.
    ///
    /// # Errors
    /// The transfer would be too large, or a read of no bytes: a device that was asked to send can't be stopped before it
    /// sent one.
    pub fn push(&mut self, direction: Direction, bytes: usize) -> Result<&mut [u8], TooMuch> {
        let before = self.bytes.len();
        let is_empty_read = direction == Direction::Read && bytes == 0;
        if self.operations.len() >= OPERATIONS_MAX || bytes > BYTES_MAX - before || is_empty_read {
            return Err(TooMuch);
        }
        self.operations.push(Operation { direction, bytes });
        self.bytes.resize(before + bytes, 0);
        self.bytes.get_mut(before..).ok_or(TooMuch)
    }

    /// Whom it is for.
    #[must_use]
    pub fn address(&self) -> Address {
        self.address
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

    /// Bytes that it takes of the bus, with an address before each run of operations of one direction.
    #[must_use]
    pub fn bus_bytes(&self) -> u32 {
        let changes =
            self.operations.windows(2).filter(|pair| matches!(pair, [a, b] if a.direction != b.direction));
        u32::try_from(self.bytes.len() + 1 + changes.count()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_addresses_are_none() {
        assert_eq!([0, 7, 0x78, 0x80, 0x148].map(Address::new), [None; 5]);
        assert!([0x08, 0x48, 0x77].iter().all(|number| Address::new(*number).is_some()));
    }

    #[test]
    fn a_transfer_is_bounded() {
        let mut transfer = Transfer::new(Address::new(0x48).unwrap());
        assert_eq!(transfer.push(Direction::Read, 0), Err(TooMuch));
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
}
