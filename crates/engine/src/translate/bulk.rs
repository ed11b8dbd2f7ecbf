//! Operators with the prefix 0xfc, and those on tables.

use super::emit::bytes;
use super::scratch::Kind;
use crate::error::ErrorKind;
use crate::generated::{NUMERICS, op, rare};
use crate::load::Loader;
use crate::reader::{Failed, Source};
use crate::types::ValueType as T;

impl Loader<'_> {
    pub(crate) fn prefixed(&mut self, source: &mut dyn Source, operator: u32) -> Result<(), Failed> {
        match operator {
            0..=7 => self.plain(&NUMERICS[0xc4 - 0x45 + 1 + operator as usize]),
            8 => {
                let segment = self.reader.number(source)?;
                if self.reader.byte(source)? != 0 {
                    return self.invalid(ErrorKind::Malformed("memory index"));
                }
                self.check_memory()?;
                self.check_data(segment)?;
                self.bulk(rare::MEMORY_INIT, &[segment], [T::I32, T::I32, T::I32])
            }
            9 => {
                let segment = self.reader.number(source)?;
                self.check_data(segment)?;
                self.bulk(rare::DATA_DROP, &[segment], [])
            }
            10 => {
                if self.reader.byte(source)? != 0 || self.reader.byte(source)? != 0 {
                    return self.invalid(ErrorKind::Malformed("memory index"));
                }
                self.check_memory()?;
                self.bulk(rare::MEMORY_COPY, &[], [T::I32, T::I32, T::I32])
            }
            11 => {
                if self.reader.byte(source)? != 0 {
                    return self.invalid(ErrorKind::Malformed("memory index"));
                }
                self.check_memory()?;
                self.bulk(rare::MEMORY_FILL, &[], [T::I32, T::I32, T::I32])
            }
            12 => {
                let segment = self.reader.number(source)?;
                let table = self.reader.number(source)?;
                let value_type = self.check_elements(segment)?;
                self.check_table(table, Some(value_type))?;
                self.bulk(rare::TABLE_INIT, &[table, segment], [T::I32, T::I32, T::I32])
            }
            13 => {
                let segment = self.reader.number(source)?;
                self.check_elements(segment)?;
                self.bulk(rare::ELEM_DROP, &[segment], [])
            }
            14 => {
                let to = self.reader.number(source)?;
                let from = self.reader.number(source)?;
                let value_type = self.check_table(from, None)?;
                self.check_table(to, Some(value_type))?;
                self.bulk(rare::TABLE_COPY, &[to, from], [T::I32, T::I32, T::I32])
            }
            15 => {
                let table = self.reader.number(source)?;
                let value_type = self.check_table(table, None)?;
                let mut count = self.pop_type(T::I32)?;
                let mut value = self.pop_type(value_type)?;
                self.both_into_slots(&mut value, &mut count)?;
                self.write(
                    op::RARE,
                    &[
                        rare::TABLE_GROW,
                        table as u16,
                        bytes(self.slot_of(&value)),
                        bytes(self.slot_of(&count)),
                    ],
                )?;
                self.result_word(self.slot)?;
                self.push(T::I32, Kind::Slot, 0)
            }
            16 => {
                let table = self.reader.number(source)?;
                self.check_table(table, None)?;
                self.write(op::RARE, &[rare::TABLE_SIZE, table as u16])?;
                self.result_word(self.slot)?;
                self.push(T::I32, Kind::Slot, 0)
            }
            17 => {
                let table = self.reader.number(source)?;
                let value_type = self.check_table(table, None)?;
                self.bulk(rare::TABLE_FILL, &[table], [T::I32, value_type, T::I32])
            }
            _ => self.invalid(ErrorKind::Operator(0xfc)),
        }
    }

    /// An operator that changes its operands while it works: they have to be in slots of their own. A slice may end in
    /// the middle of it, so that nothing can be in the accumulator.
    pub(crate) fn bulk<const N: usize>(
        &mut self,
        kind: u16,
        words: &[u32],
        operands: [T; N],
    ) -> Result<(), Failed> {
        self.free_accumulator()?;
        self.settle_from(self.height.saturating_sub(N))?;
        let mut slots = [0; N];
        for (slot, expected) in slots.iter_mut().zip(operands).rev() {
            *slot = self.pop_type(expected)?.slot;
        }
        self.write(op::RARE, &[kind])?;
        for word in words {
            self.word(*word as u16)?;
        }
        for slot in slots {
            self.slot_word(slot)?;
        }
        self.seal();
        Ok(())
    }

    pub(crate) fn table_access(&mut self, table: u32, set: bool) -> Result<(), Failed> {
        let value_type = self.check_table(table, None)?;
        let mut value = if set { Some(self.pop_type(value_type)?) } else { None };
        let mut at = self.pop_type(T::I32)?;
        if let Some(value) = &mut value {
            self.both_into_slots(&mut at, value)?;
        } else {
            self.put_into_slot(&mut at)?;
        }
        self.write(
            op::RARE,
            &[if set { rare::TABLE_SET } else { rare::TABLE_GET }, table as u16, bytes(self.slot_of(&at))],
        )?;
        if let Some(value) = &value {
            return self.slot_word(self.slot_of(value));
        }
        self.result_word(self.slot)?;
        self.push(value_type, Kind::Slot, 0)
    }
}
