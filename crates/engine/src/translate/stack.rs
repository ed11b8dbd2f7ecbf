//! The operand stack of validation, and the types of blocks.

use super::emit::LAZY;
use super::scratch::{BlockType, Entry, Frame, Kind, OPERANDS};
use crate::error::ErrorKind;
use crate::load::Loader;
use crate::reader::Failed;
use crate::types::ValueType as T;

/// Slots of a frame: their places are 16-bit bytes.
const FRAME_SLOTS: u32 = 16_383;

impl Loader<'_> {
    pub(crate) fn invalid<R>(&self, kind: ErrorKind) -> Result<R, Failed> {
        Err(self.reader.error_at(kind, self.operator_offset))
    }

    pub(crate) fn frame(&self, depth: u32) -> Result<Frame, Failed> {
        match (self.frames as u32).checked_sub(depth.saturating_add(1)) {
            Some(index) => Ok(self.scratch.frames[index as usize]),
            None => self.invalid(ErrorKind::Index { what: "label", index: depth }),
        }
    }

    pub(crate) fn innermost(&mut self) -> &mut Frame {
        let index = self.frames - 1;
        &mut self.scratch.frames[index]
    }

    pub(crate) fn push(&mut self, value_type: T, kind: Kind, value: u32) -> Result<(), Failed> {
        if self.height >= OPERANDS {
            return self.invalid(ErrorKind::Limit { what: "operands", limit: OPERANDS as u32 });
        }
        self.scratch.entries[self.height] = Entry { value_type, kind, slot: self.slot, value };
        self.height += 1;
        self.slot += value_type.slots();
        if self.slot > self.slots_max {
            self.slots_max = self.slot;
            if u32::from(self.slot) > FRAME_SLOTS {
                return self.invalid(ErrorKind::Limit { what: "slots of a function", limit: FRAME_SLOTS });
            }
        }
        if self.height > LAZY {
            self.settle(self.height - 1 - LAZY)?;
        }
        Ok(())
    }

    pub(crate) fn pop(&mut self) -> Result<Entry, Failed> {
        let frame = self.scratch.frames[self.frames - 1];
        if self.height == usize::from(frame.height) {
            if frame.unreachable {
                return Ok(Entry { value_type: T::UNKNOWN, kind: Kind::Slot, slot: self.slot, value: 0 });
            }
            return self.invalid(ErrorKind::StackEmpty);
        }
        self.height -= 1;
        let entry = self.scratch.entries[self.height];
        self.slot = entry.slot;
        Ok(entry)
    }

    pub(crate) fn pop_type(&mut self, expected: T) -> Result<Entry, Failed> {
        let mut entry = self.pop()?;
        if entry.value_type == T::UNKNOWN {
            entry.value_type = expected;
        } else if entry.value_type != expected && expected != T::UNKNOWN {
            return self.invalid(ErrorKind::Type { expected, found: entry.value_type });
        }
        Ok(entry)
    }

    /// Code behind this can't be reached.
    pub(crate) fn set_unreachable(&mut self) {
        self.innermost().unreachable = true;
        let frame = *self.innermost();
        self.height = usize::from(frame.height);
        self.slot = frame.slot;
        self.emit.dead = true;
        self.seal();
    }

    pub(crate) fn block_types(&self, block_type: BlockType, results: bool) -> usize {
        match block_type {
            BlockType::EMPTY => 0,
            BlockType(value) if value >= 1 << 31 => usize::from(results),
            BlockType(index) => {
                let function = self.function_type(index);
                if results { function.results.len() } else { function.parameters.len() }
            }
        }
    }

    pub(crate) fn block_type_at(&self, block_type: BlockType, results: bool, at: usize) -> T {
        match block_type {
            BlockType(value) if value >= 1 << 31 => T::known(value as u8),
            BlockType(index) => {
                let function = self.function_type(index);
                T::known(if results { function.results[at] } else { function.parameters[at] })
            }
        }
    }

    pub(crate) fn block_slots(&self, block_type: BlockType, results: bool) -> u32 {
        (0..self.block_types(block_type, results))
            .map(|at| u32::from(self.block_type_at(block_type, results, at).slots()))
            .sum()
    }

    pub(crate) fn pop_types(&mut self, block_type: BlockType, results: bool) -> Result<(), Failed> {
        let count = self.block_types(block_type, results);
        self.count_values(count);
        for at in (0..count).rev() {
            self.pop_type(self.block_type_at(block_type, results, at))?;
        }
        Ok(())
    }

    /// An operator that takes or leaves many values is more work than others.
    pub(crate) fn count_values(&mut self, count: usize) {
        self.work += count as u32 / 4;
    }

    pub(crate) fn push_types(&mut self, block_type: BlockType, results: bool) -> Result<(), Failed> {
        let count = self.block_types(block_type, results);
        self.count_values(count);
        for at in 0..count {
            self.push(self.block_type_at(block_type, results, at), Kind::Slot, 0)?;
        }
        Ok(())
    }

    /// Checks the values on top of the stack, and gives those that nobody knows their types.
    pub(crate) fn check_types(&mut self, block_type: BlockType, results: bool) -> Result<(), Failed> {
        let count = self.block_types(block_type, results);
        let frame = self.scratch.frames[self.frames - 1];
        if self.height - usize::from(frame.height) < count || frame.unreachable {
            self.pop_types(block_type, results)?;
            return self.push_types(block_type, results);
        }
        self.count_values(count);
        for at in 0..count {
            let (expected, found) = (
                self.block_type_at(block_type, results, at),
                self.scratch.entries[self.height - count + at].value_type,
            );
            if expected != found {
                return self.invalid(ErrorKind::Type { expected, found });
            }
        }
        Ok(())
    }
}
