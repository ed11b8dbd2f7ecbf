//! The operations of a transfer, as they stand in a program's memory.

use super::errno::{FAULT, INVAL, SUCCESS};
use crate::engine::Engine;
use crate::host::bus::{Direction, OPERATIONS_MAX, Target, Transfer};

/// Kind, address, length: little-endian numbers of 32 bits.
const OPERATION_BYTES: u32 = 12;
const KIND_WRITE: u32 = 0;
const KIND_READ: u32 = 1;
const KIND_EXCHANGE: u32 = 2;
/// Its length is nanoseconds.
const KIND_PAUSE: u32 = 3;

/// An array of operations. While a call waits its program does not run, so what stands there does not change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operations {
    pub(crate) address: u32,
    pub(crate) count: u32,
}

impl Operations {
    /// The transfer that the program asks for, the bytes to be written copied. An error is what the call answers.
    pub(crate) fn transfer<E: Engine>(&self, engine: &E, target: Target) -> Result<Transfer, i32> {
        if self.count == 0 || self.count > OPERATIONS_MAX as u32 {
            return Err(-INVAL);
        }
        let mut transfer = Transfer::new(target);
        for index in 0..self.count {
            let (kind, address, length) = self.operation(engine, index)?;
            let direction = match kind {
                KIND_WRITE => Direction::Write,
                KIND_READ => Direction::Read,
                KIND_EXCHANGE => Direction::Exchange,
                KIND_PAUSE => {
                    transfer.pause(length.div_ceil(1_000)).map_err(|_| -INVAL)?;
                    continue;
                }
                _ => return Err(-INVAL),
            };
            let bytes = transfer.push(direction, length as usize).map_err(|_| -INVAL)?;
            // Also of what is to be read: a program that can't have it moves nothing over the bus.
            engine.read_memory(address, bytes).map_err(|_| -FAULT)?;
            if direction == Direction::Read {
                bytes.fill(0);
            }
        }
        Ok(transfer)
    }

    fn operation<E: Engine>(&self, engine: &E, index: u32) -> Result<(u32, u32, u32), i32> {
        let at = self.address.checked_add(index * OPERATION_BYTES).ok_or(-FAULT)?;
        let mut words = [0; OPERATION_BYTES as usize];
        engine.read_memory(at, &mut words).map_err(|_| -FAULT)?;
        let (words, _) = words.as_chunks::<4>();
        let [kind, address, length] = words else { return Err(-FAULT) };
        Ok((u32::from_le_bytes(*kind), u32::from_le_bytes(*address), u32::from_le_bytes(*length)))
    }

    /// Hands over what was read; `bytes` are those of all operations.
    pub(crate) fn hand_over<E: Engine>(&self, engine: &mut E, mut bytes: &[u8]) -> i32 {
        for index in 0..self.count {
            let Ok((kind, address, length)) = self.operation(engine, index) else { return -FAULT };
            if kind == KIND_PAUSE {
                continue;
            }
            let Some((piece, rest)) = bytes.split_at_checked(length as usize) else { return -FAULT };
            bytes = rest;
            if kind != KIND_WRITE && engine.write_memory(address, piece).is_err() {
                return -FAULT;
            }
        }
        SUCCESS
    }
}
