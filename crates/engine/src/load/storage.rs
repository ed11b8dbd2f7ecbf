//! Tables, memory and globals.

use super::Loader;
use super::exports::read_global;
use super::state::Phase;
use crate::error::ErrorKind;
use crate::machine::table;
use crate::reader::{Failed, Source};
use crate::region::Place;
use crate::types::ValueType;

impl Loader<'_> {
    /// Least and greatest size.
    pub(crate) fn limits(
        &mut self,
        source: &mut dyn Source,
        has_greatest: bool,
    ) -> Result<(u32, Option<u32>), Failed> {
        let least = self.reader.number(source)?;
        if !has_greatest {
            return Ok((least, None));
        }
        let greatest = self.reader.number(source)?;
        if greatest < least {
            return self.fail(ErrorKind::Invalid("the greatest size is less than the least"));
        }
        Ok((least, Some(greatest)))
    }

    pub(crate) fn table(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        let value_type = self.reader.reference_type(source)?;
        let flags = self.reader.byte(source)?;
        match flags {
            0 | 1 => {}
            2 | 3 => return self.fail(ErrorKind::Unsupported("threads")),
            4..=7 => return self.fail(ErrorKind::Unsupported("memory64")),
            _ => return self.fail(ErrorKind::Malformed("limits of a table")),
        }
        let (least, greatest) = self.limits(source, flags == 1)?;
        let most = least.saturating_add(self.config.table_growth).min(greatest.unwrap_or(u32::MAX));
        let place = self.take::<u32>(most as usize)?;
        self.region.slice_mut::<u32>(place, least as usize).fill(0);
        self.work += least / 64;
        let index = self.tables as usize;
        let words = index * table::WORDS;
        self.region.set_number(self.table_place, words + table::PLACE, place.0);
        self.region.set_number(self.table_place, words + table::LENGTH, least);
        self.region.set_number(self.table_place, words + table::MAXIMUM, most);
        self.scratch.table_types[index] = value_type.byte();
        self.tables += 1;
        Ok(())
    }

    /// That there is such a table, with elements of this type if it is given; answers their type.
    pub(crate) fn check_table(&self, index: u32, wanted: Option<ValueType>) -> Result<ValueType, Failed> {
        if index >= self.tables {
            return self.fail(ErrorKind::Index { what: "table", index });
        }
        let found = ValueType::known(self.scratch.table_types[index as usize]);
        match wanted {
            Some(expected) if expected != found => self.fail(ErrorKind::Type { expected, found }),
            _ => Ok(found),
        }
    }

    pub(crate) fn memory(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        let flags = self.reader.byte(source)?;
        match flags {
            0 | 1 | 8 | 9 => {}
            2 | 3 | 10 | 11 => return self.fail(ErrorKind::Unsupported("threads")),
            4..=7 | 12..=15 => return self.fail(ErrorKind::Unsupported("memory64")),
            _ => return self.fail(ErrorKind::Malformed("limits of a memory")),
        }
        let (least, greatest) = self.limits(source, flags & 1 != 0)?;
        if flags & 8 != 0 {
            let exponent = self.reader.number(source)?;
            if exponent != 0 && exponent != 16 {
                return self.fail(ErrorKind::Invalid("pages have 1 or 65,536 bytes"));
            }
            self.page_bytes = 1 << exponent;
        }
        let pages_max = if self.page_bytes == 1 { u32::MAX } else { 65_536 };
        if least > pages_max || greatest.is_some_and(|greatest| greatest > pages_max) {
            return self.fail(ErrorKind::Invalid("a memory has at most 4 GiB"));
        }
        let bytes = u64::from(least) * u64::from(self.page_bytes);
        let most = u64::from(greatest.unwrap_or(pages_max)) * u64::from(self.page_bytes);
        let most = most.min(u64::from(self.config.memory_bytes)) / u64::from(self.page_bytes)
            * u64::from(self.page_bytes);
        if bytes > most {
            return self.fail(ErrorKind::Memory { needed: u32::try_from(bytes).unwrap_or(u32::MAX) });
        }
        self.has_memory = true;
        (self.memory_bytes, self.memory_bytes_max) = (bytes as u32, most as u32);
        if self.trace.is_some() {
            // The code depends on its least size alone.
            return Ok(());
        }
        let aligned = self.region.align(8);
        self.room(aligned)?;
        self.memory_place = self.take::<u8>(most as usize)?;
        self.phase = Phase::Zero { left: self.memory_bytes, at: self.memory_place.0 };
        Ok(())
    }

    pub(crate) fn zero(&mut self, left: u32, at: u32) -> Result<(), Failed> {
        let part = left.min(256);
        self.region.slice_mut::<u8>(Place(at), part as usize).fill(0);
        self.phase =
            if part == left { Phase::Items } else { Phase::Zero { left: left - part, at: at + part } };
        Ok(())
    }

    pub(crate) fn check_memory(&self) -> Result<(), Failed> {
        if self.has_memory { Ok(()) } else { self.fail(ErrorKind::Index { what: "memory", index: 0 }) }
    }

    pub(crate) fn global_item(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        let value_type = self.reader.value_type(source)?;
        let mutable = self.reader.byte(source)?;
        if mutable > 1 {
            return self.fail(ErrorKind::Malformed("mutability of a global"));
        }
        let bits = self.constant_expression(source, value_type)?;
        let at = self.global_slots;
        self.region.set_number(self.global_place, at as usize, bits as u32);
        if value_type.slots() == 2 {
            self.region.set_number(self.global_place, at as usize + 1, (bits >> 32) as u32);
        }
        let record = at | u32::from(value_type.byte()) << 16 | u32::from(mutable) << 24;
        self.region.set_number(self.global_types, self.globals as usize, record);
        self.global_slots += u32::from(value_type.slots());
        self.globals += 1;
        Ok(())
    }

    /// Type of a global, whether it can be changed, and its slot.
    pub(crate) fn global_at(&self, index: u32) -> Option<(ValueType, bool, u16)> {
        (index < self.globals).then(|| read_global(&self.region, self.global_types, index))
    }

    pub(crate) fn global_records(&self) -> Place {
        self.global_types
    }

    pub(crate) fn type_records(&self) -> Place {
        self.type_place
    }

    pub(crate) fn stack_slots(&self) -> u32 {
        self.config.stack_slots
    }

    /// Whether all of the module was read.
    pub(crate) fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }
}
