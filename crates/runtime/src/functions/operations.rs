//! The operations of an I2C transfer, as they stand in a program's memory.

use super::errno::{FAULT, INVAL, SUCCESS};
use crate::engine::Engine;
use crate::host::i2c::{Address, Direction, OPERATIONS_MAX, Transfer};

/// Kind, address, length: little-endian numbers of 32 bits.
const OPERATION_BYTES: u32 = 12;
const KIND_WRITE: u32 = 0;
const KIND_READ: u32 = 1;

/// An array of operations. While a call waits its program does not run, so what stands there does not change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operations {
    pub(crate) address: u32,
    pub(crate) count: u32,
}

impl Operations {
    /// The transfer that the program asks for, the bytes to be written copied. An error is what the call answers.
    pub(crate) fn transfer<E: Engine>(&self, engine: &E, device: u32) -> Result<Transfer, i32> {
        let device = Address::new(device).ok_or(-INVAL)?;
        if self.count == 0 || self.count > OPERATIONS_MAX as u32 {
            return Err(-INVAL);
        }
        let mut transfer = Transfer::new(device);
        for index in 0..self.count {
            let (direction, address, length) = self.operation(engine, index)?;
            let bytes = transfer.push(direction, length as usize).map_err(|_| -INVAL)?;
            // Also of what is to be read: a program that can't have it moves nothing over the bus.
            engine.read_memory(address, bytes).map_err(|_| -FAULT)?;
            if direction == Direction::Read {
                bytes.fill(0);
            }
        }
        Ok(transfer)
    }

    fn operation<E: Engine>(&self, engine: &E, index: u32) -> Result<(Direction, u32, u32), i32> {
        let at = self.address.checked_add(index * OPERATION_BYTES).ok_or(-FAULT)?;
        let mut words = [0; OPERATION_BYTES as usize];
        engine.read_memory(at, &mut words).map_err(|_| -FAULT)?;
        let (words, _) = words.as_chunks::<4>();
        let [kind, address, length] = words else { return Err(-FAULT) };
        let [kind, address, length] = [kind, address, length].map(|word| u32::from_le_bytes(*word));
        match kind {
            KIND_WRITE => Ok((Direction::Write, address, length)),
            KIND_READ => Ok((Direction::Read, address, length)),
            _ => Err(-INVAL),
        }
    }

    /// Hands over what was read; `bytes` are those of all operations.
    pub(crate) fn hand_over<E: Engine>(&self, engine: &mut E, mut bytes: &[u8]) -> i32 {
        for index in 0..self.count {
            let Ok((direction, address, length)) = self.operation(engine, index) else { return -FAULT };
            let Some((piece, rest)) = bytes.split_at_checked(length as usize) else { return -FAULT };
            bytes = rest;
            if direction == Direction::Read && engine.write_memory(address, piece).is_err() {
                return -FAULT;
            }
        }
        SUCCESS
    }
}
