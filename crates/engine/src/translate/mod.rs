//! The body of a function: validation and translation in one pass over its operators.
//!
//! The operand stack of validation says of each value where it is: `local.get` and constants write no code, the result of
//! a 32-bit operator stays in the accumulator until something else needs it. Values are put into their own slots where
//! blocks begin, where a branch carries them, and as arguments of calls.

mod blocks;
mod branch;
mod bulk;
mod calls;
mod emit;
mod function;
mod memory;
mod numbers;
pub(crate) mod scratch;
mod stack;
mod values;

use crate::error::ErrorKind;
use crate::generated::op;
use crate::load::Loader;
use crate::reader::{Failed, Source};
use crate::types::ValueType as T;
use scratch::BlockType;

impl Loader<'_> {
    /// Reads and translates one operator.
    pub(crate) fn operator(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        self.operator_offset = self.reader.position();
        let operator = self.reader.byte(source)?;
        match operator {
            0x00 => {
                self.begin(op::UNREACHABLE)?;
                self.set_unreachable();
                Ok(())
            }
            0x01 => Ok(()),
            0x02 | 0x03 => self.block(source, operator == 0x03),
            0x04 => self.branch_on_if(source),
            0x05 => self.otherwise(),
            0x0b => self.end(),
            0x0c => {
                let depth = self.reader.number(source)?;
                self.branch(depth)
            }
            0x0d => {
                let depth = self.reader.number(source)?;
                self.branch_if(depth)
            }
            0x0e => self.branch_table(source),
            0x0f => self.branch(self.frames as u32 - 1),
            0x10 | 0x12 => {
                let function = self.reader.number(source)?;
                self.call(function, operator == 0x12)
            }
            0x11 | 0x13 => {
                let type_index = self.reader.number(source)?;
                let table = self.reader.number(source)?;
                self.call_indirect(type_index, table, operator == 0x13)
            }
            0x1a => self.pop().map(drop),
            0x1b => self.select(None),
            0x1c => {
                if self.reader.number(source)? != 1 {
                    return self.invalid(ErrorKind::Invalid("a select of other than one type"));
                }
                let value_type = self.reader.value_type(source)?;
                self.select(Some(value_type))
            }
            0x20..=0x22 => {
                let local = self.reader.number(source)?;
                self.local(operator, local)
            }
            0x23 | 0x24 => {
                let global = self.reader.number(source)?;
                self.global(global, operator == 0x24)
            }
            0x25 | 0x26 => {
                let table = self.reader.number(source)?;
                self.table_access(table, operator == 0x26)
            }
            0x28..=0x3e => self.memory_access(source, operator),
            0x3f | 0x40 => {
                if self.reader.byte(source)? != 0 {
                    return self.invalid(ErrorKind::Malformed("memory index"));
                }
                self.check_memory()?;
                self.memory_size_or_grow(operator == 0x40)
            }
            0x41..=0x44 | 0xd0..=0xd2 => self.constant_or_reference(source, operator),
            0x45..=0xc4 => self.numeric(operator),
            0xfc => {
                let operator = self.reader.number(source)?;
                self.prefixed(source, operator)
            }
            0xfd => self.invalid(ErrorKind::Unsupported("SIMD")),
            0xfe => self.invalid(ErrorKind::Unsupported("threads")),
            0x06..=0x0a | 0x18 | 0x19 | 0x1f => self.invalid(ErrorKind::Unsupported("exceptions")),
            0x14 | 0x15 | 0xd3..=0xd6 | 0xfb => {
                self.invalid(ErrorKind::Unsupported("garbage-collected types"))
            }
            _ => self.invalid(ErrorKind::Operator(operator)),
        }
    }

    pub(crate) fn block_type(&mut self, source: &mut dyn Source) -> Result<BlockType, Failed> {
        let begins = self.reader.position();
        let value = self.reader.signed(source, 33)?;
        if value >= 0 {
            let index = value as u32;
            if index >= self.types {
                return self.invalid(ErrorKind::Index { what: "type", index });
            }
            return Ok(BlockType(index));
        }
        if self.reader.position() - begins > 1 {
            return self.invalid(ErrorKind::Malformed("type of a block"));
        }
        match value {
            -64 => Ok(BlockType::EMPTY),
            -63..0 => match T::from_byte((value & 0x7f) as u8) {
                Some(value_type) => Ok(BlockType::value(value_type)),
                None if value == -5 => self.invalid(ErrorKind::Unsupported("SIMD")),
                None => self.invalid(ErrorKind::Malformed("type of a block")),
            },
            _ => self.invalid(ErrorKind::Malformed("type of a block")),
        }
    }
}
