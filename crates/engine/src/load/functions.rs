//! Names, types, imports and functions.

use super::exports::read_type;
use super::state::{DECLARED, FUNCTIONS, NAME_BYTES, REFERRED, TYPE_VALUES};
use super::{Imports, Loader};
use crate::error::ErrorKind;
use crate::reader::{Failed, Source};
use crate::region::Place;
use crate::types::{FunctionType, ValueType};

impl Loader<'_> {
    /// Reads a name and leaves it at the region's low end, where nothing keeps it unless its room is taken.
    pub(crate) fn name(&mut self, source: &mut dyn Source, length: u32) -> Result<(), Failed> {
        self.name_at(source, self.region.low(), length)
    }

    pub(crate) fn name_at(&mut self, source: &mut dyn Source, at: usize, length: u32) -> Result<(), Failed> {
        let length = length as usize;
        if self.region.free() < length + (at - self.region.low()) {
            return self.fail(ErrorKind::Memory { needed: length as u32 });
        }
        self.region.note(at + length);
        self.work += length as u32 / 16;
        let name = self.region.slice_mut::<u8>(Place(at as u32), length);
        self.reader.bytes(source, name)?;
        let name = self.region.slice::<u8>(Place(at as u32), length);
        if core::str::from_utf8(name).is_err() { self.fail(ErrorKind::Name) } else { Ok(()) }
    }

    pub(crate) fn text(&self, at: usize, length: u32) -> &str {
        let bytes = self.region.slice::<u8>(Place(at as u32), length as usize);
        core::str::from_utf8(bytes).unwrap_or_default()
    }

    pub(crate) fn function_type_item(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        match self.reader.byte(source)? {
            0x60 => {}
            0x4e..=0x50 | 0x5e | 0x5f => return self.fail(ErrorKind::Unsupported("garbage-collected types")),
            _ => return self.fail(ErrorKind::Malformed("type")),
        }
        let place = Place(self.region.low() as u32);
        let mut counts = [0; 2];
        for count in &mut counts {
            let values = self.reader.number(source)?;
            *count = self.limited(values, TYPE_VALUES, "parameters or results")?;
            self.work += values / 4;
            for _ in 0..values {
                let value_type = self.reader.value_type(source)?;
                let at = self.take::<u8>(1)?;
                self.region.slice_mut::<u8>(at, 1)[0] = value_type.byte();
            }
        }
        let index = self.types;
        let counts = counts[0] | counts[1] << 8;
        // Calls by a table compare numbers: equal types have that of the first one.
        let (found, compared) = self.find_type(place, counts);
        self.work += compared / 16 + 1;
        let (mut place, mut canonical) = (place, index);
        match found {
            Ok(equal) => {
                self.region.truncate(place.0 as usize);
                place = Place(self.region.number(self.type_place, equal as usize * 2));
                canonical = equal;
            }
            Err(at) => self.insert(at, index),
        }
        self.types += 1;
        self.region.set_number(self.type_place, index as usize * 2, place.0);
        self.region.set_number(self.type_place, index as usize * 2 + 1, counts | canonical << 16);
        Ok(())
    }

    /// The first type with as many parameters and results, and the same ones, as those at this place, or where in the order
    /// of different types there would be one; and the bytes that were compared to find it.
    fn find_type(&self, place: Place, counts: u32) -> (Result<u32, usize>, u32) {
        let bytes = (counts & 0xff) + (counts >> 8);
        let wanted = self.region.slice::<u8>(place, bytes as usize);
        let order = self.ordered();
        let mut compared = 0;
        let found = order.binary_search_by(|other| {
            let other = *other as usize * 2;
            let other_counts = self.region.number(self.type_place, other + 1) & 0xffff;
            other_counts.cmp(&counts).then_with(|| {
                compared += bytes;
                let other = Place(self.region.number(self.type_place, other));
                self.region.slice::<u8>(other, bytes as usize).cmp(wanted)
            })
        });
        (found.map(|at| order[at]), compared)
    }

    /// A type of which there is one with this index.
    pub(crate) fn function_type(&self, index: u32) -> FunctionType<'_> {
        read_type(&self.region, self.type_place, index)
    }

    pub(crate) fn canonical_type(&self, index: u32) -> u16 {
        (self.region.number(self.type_place, index as usize * 2 + 1) >> 16) as u16
    }

    pub(crate) fn type_index(&mut self, source: &mut dyn Source) -> Result<u32, Failed> {
        let index = self.reader.number(source)?;
        if index < self.types { Ok(index) } else { self.fail(ErrorKind::Index { what: "type", index }) }
    }

    pub(crate) fn import(&mut self, source: &mut dyn Source, imports: &dyn Imports) -> Result<(), Failed> {
        let module_length = self.reader.number(source)?;
        self.limited(module_length, NAME_BYTES, "bytes of a name")?;
        self.name(source, module_length)?;
        let module_at = self.region.low();
        let name_length = self.reader.number(source)?;
        self.limited(name_length, NAME_BYTES, "bytes of a name")?;
        let name_at = module_at + module_length as usize;
        self.name_at(source, name_at, name_length)?;
        let kind = self.reader.byte(source)?;
        let index = self.imports;
        match kind {
            0 => {}
            1..=3 => return self.fail(ErrorKind::Import { index }),
            4 => return self.fail(ErrorKind::Unsupported("exceptions")),
            _ => return self.fail(ErrorKind::Malformed("kind of an import")),
        }
        let type_index = self.type_index(source)?;
        let (module, name) = (self.text(module_at, module_length), self.text(name_at, name_length));
        let found = imports.find(module, name, self.function_type(type_index));
        let Some(number) = found else { return self.fail(ErrorKind::Import { index }) };
        if self.function_type(type_index).results().any(|value_type| value_type == ValueType::FUNCREF) {
            self.depth.any_referred = true;
        }
        self.region.set_number(self.import_place, index as usize, type_index | u32::from(number) << 16);
        self.imports += 1;
        Ok(())
    }

    /// Makes the table of functions: those of the host, and so many of the module's own.
    pub(crate) fn set_up_functions(&mut self, own: u32) -> Result<(), Failed> {
        let count = self.limited(own.saturating_add(self.imports), FUNCTIONS, "functions")?;
        self.has_functions = true;
        self.function_place = self.take::<u32>(count as usize)?;
        let types = self.region.take_high::<u16>(count as usize);
        self.function_types = self.room(types)?;
        for index in 0..self.imports {
            let record = self.region.number(self.import_place, index as usize);
            self.set_type_of_function(index, record as u16);
        }
        self.functions = self.imports;
        Ok(())
    }

    pub(crate) fn function_item(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        let type_index = self.type_index(source)?;
        self.set_type_of_function(self.functions, type_index as u16);
        self.functions += 1;
        Ok(())
    }

    pub(crate) fn set_type_of_function(&mut self, function: u32, type_index: u16) {
        self.region.set_word(self.function_types, function, type_index);
        self.region.set_number(self.function_place, function as usize, 0);
    }

    pub(crate) fn type_of_function(&self, function: u32) -> u32 {
        u32::from(self.region.word(self.function_types, function) & !(DECLARED | REFERRED))
    }

    pub(crate) fn function_of(&self, index: u32) -> Result<FunctionType<'_>, Failed> {
        if index >= self.functions {
            return self.fail(ErrorKind::Index { what: "function", index });
        }
        Ok(self.function_type(self.type_of_function(index)))
    }

    pub(crate) fn declare(&mut self, function: u32) -> Result<(), Failed> {
        if function >= self.functions {
            return self.fail(ErrorKind::Index { what: "function", index: function });
        }
        let word = self.region.word(self.function_types, function);
        self.region.set_word(self.function_types, function, word | DECLARED);
        Ok(())
    }

    /// There can be a reference to this function, which is declared.
    pub(crate) fn refer(&mut self, function: u32) {
        let word = self.region.word(self.function_types, function);
        self.region.set_word(self.function_types, function, word | REFERRED);
    }

    pub(crate) fn is_declared(&self, function: u32) -> bool {
        self.region.word(self.function_types, function) & DECLARED != 0
    }

    pub(crate) fn set_function_place(&mut self, function: u32, position: u32) {
        let saved = crate::machine::save_code_position(&self.region, self.emit.code, position);
        self.region.set_number(self.function_place, function as usize, saved);
    }
}
