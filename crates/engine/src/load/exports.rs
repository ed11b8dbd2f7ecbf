//! Exports, and how they and types are read again once the module is loaded.

use super::Loader;
use super::state::NAME_BYTES;
use crate::error::ErrorKind;
use crate::reader::{Failed, Source};
use crate::region::{Place, Region};
use crate::types::{FunctionType, ValueType};

impl Loader<'_> {
    pub(crate) fn export(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        let length = self.reader.number(source)?;
        self.limited(length, NAME_BYTES, "bytes of a name")?;
        let record = self.take::<u32>(2)?;
        let at = self.take::<u8>(length as usize)?;
        // Read where it is kept.
        self.region.truncate(at.0 as usize);
        self.name(source, length)?;
        self.take::<u8>(length as usize)?;
        let aligned = self.region.align(4);
        self.room(aligned)?;
        let kind = self.reader.byte(source)?;
        let index = self.reader.number(source)?;
        let (count, what) = match kind {
            0 => (self.functions, "function"),
            1 => (self.tables, "table"),
            2 => (u32::from(self.has_memory), "memory"),
            3 => (self.globals, "global"),
            4 => return self.fail(ErrorKind::Unsupported("exceptions")),
            _ => return self.fail(ErrorKind::Malformed("kind of an export")),
        };
        if index >= count {
            return self.fail(ErrorKind::Index { what, index });
        }
        if kind == 0 {
            self.declare(index)?;
            let function = self.function_type(self.type_of_function(index));
            if function.parameters().any(|value_type| value_type == ValueType::FUNCREF) {
                self.depth.any_referred = true;
            }
        }
        let (found, compared) = self.find_export(at, length);
        self.work += compared / 16 + 1;
        match found {
            Ok(_) => return self.fail(ErrorKind::DuplicateExport),
            Err(at) => self.insert(at, record.0),
        }
        self.region.set_number(record, 0, u32::from(kind) | length << 8);
        self.region.set_number(record, 1, index);
        self.exports += 1;
        Ok(())
    }
}

/// A type of a module.
#[inline(always)]
pub(crate) fn read_type<'r>(region: &'r Region<'_>, records: Place, index: u32) -> FunctionType<'r> {
    let place = region.number(records, index as usize * 2);
    let counts = region.number(records, index as usize * 2 + 1);
    let (parameters, results) = ((counts & 0xff) as usize, (counts >> 8 & 0xff) as usize);
    FunctionType {
        parameters: region.slice(Place(place), parameters),
        results: region.slice(Place(place + parameters as u32), results),
    }
}

/// A global of a module: its type, whether it can be changed, its slot.
pub(crate) fn read_global(region: &Region<'_>, records: Place, index: u32) -> (ValueType, bool, u16) {
    let record = region.number(records, index as usize);
    (ValueType::known((record >> 16) as u8), record >> 24 != 0, record as u16)
}

impl Loader<'_> {
    /// Where in the order of exports one of this name is, or would be; and the bytes that were compared to find it.
    fn find_export(&self, at: Place, length: u32) -> (Result<usize, usize>, u32) {
        let name = self.region.slice::<u8>(at, length as usize);
        let mut compared = 0;
        let found = self.ordered().binary_search_by(|other| {
            let other_length = self.region.number(Place(*other), 0) >> 8;
            other_length.cmp(&length).then_with(|| {
                compared += length;
                self.region.slice::<u8>(Place(*other + 8), length as usize).cmp(name)
            })
        });
        (found, compared)
    }
}

/// One export.
pub(crate) struct Export<'r> {
    pub(crate) name: &'r [u8],
    pub(crate) kind: u8,
    pub(crate) index: u32,
}

/// The exports of a module, one after the other.
pub(crate) struct Exports<'r, 'm> {
    region: &'r Region<'m>,
    at: u32,
    left: u32,
}

impl<'r, 'm> Exports<'r, 'm> {
    pub(crate) fn new(region: &'r Region<'m>, place: Place, count: u32) -> Exports<'r, 'm> {
        Exports { region, at: place.0, left: count }
    }

    /// Those that were not handed out: where they begin, and how many there are.
    pub(crate) fn rest(&self) -> (Place, u32) {
        (Place(self.at), self.left)
    }
}

impl<'r> Iterator for Exports<'r, '_> {
    type Item = Export<'r>;

    fn next(&mut self) -> Option<Export<'r>> {
        self.left = self.left.checked_sub(1)?;
        let record = self.region.number(Place(self.at), 0);
        let index = self.region.number(Place(self.at), 1);
        let length = record >> 8;
        let name = self.region.slice(Place(self.at + 8), length as usize);
        self.at += 8 + length.next_multiple_of(4);
        Some(Export { name, kind: record as u8, index })
    }
}
