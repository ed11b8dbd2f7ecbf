//! The sections of a module, in order.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;

use crate::code::scan_body;
use crate::error::{Count, ImportType, ScanError};
use crate::features::Features;
use crate::info::{Entry, EntryKind, Import, ModuleInfo, load_bytes_estimate};
use crate::limits::{ScanLimits, TABLE_GROWTH};
use crate::reader::Reader;
use crate::state::{Export, Scan, TypeAt};

/// Section numbers, in the order they must appear in. The data count (12) and tags (13) came later than their neighbours.
const ORDER: [u8; 13] = [1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11];

/// Scans a module. `Ok` means that its structure is sound and within `limits`, that every import is known with the right
/// type, and that it has an entry; only an engine validates its types.
pub fn scan(module: &[u8], limits: &ScanLimits) -> Result<ModuleInfo, ScanError> {
    if module.get(..4) != Some(b"\0asm") {
        return Err(ScanError::NotWebAssembly);
    }
    let size = match u32::try_from(module.len()) {
        Ok(size) if size <= limits.module_bytes => size,
        _ => return Err(ScanError::TooLarge { bytes: module.len() as u64, limit: limits.module_bytes }),
    };
    let mut reader = Reader::new(module);
    reader.bytes(4)?;
    match reader.bytes(4)? {
        [1, 0, 0, 0] => {}
        [_, 0, 1, 0] => return Err(ScanError::Component),
        [a, b, c, d] => return Err(ScanError::Version(u32::from_le_bytes([*a, *b, *c, *d]))),
        _ => return Err(reader.malformed("it ends too early")),
    }
    let mut scan = Scan::new(size, limits);
    let mut place = 0;
    let (mut seen_code, mut seen_data) = (false, false);
    while !reader.is_empty() {
        let number = reader.byte()?;
        let length = reader.u32()?;
        let mut section = reader.part(length)?;
        if number == 0 {
            scan.custom(&mut section, length)?;
            continue;
        }
        let found = ORDER.iter().position(|known| *known == number);
        let found = found.ok_or_else(|| reader.malformed("an unknown section"))? + 1;
        if found <= place {
            return Err(reader.malformed("a section out of order or twice"));
        }
        place = found;
        seen_code |= number == 10;
        seen_data |= number == 11;
        scan.section(number, &mut section)?;
        if !section.is_empty() {
            return Err(section.malformed("bytes left over at the end of a section"));
        }
    }
    if !seen_code && scan.info.functions > 0 {
        return Err(reader.malformed("functions without code"));
    }
    if !seen_data && scan.data_segments.is_some_and(|counted| counted > 0) {
        return Err(reader.malformed("another number of data segments than the data count says"));
    }
    scan.finish(&reader)
}

impl<'m> Scan<'m, '_> {
    fn section(&mut self, number: u8, reader: &mut Reader<'m>) -> Result<(), ScanError> {
        match number {
            1 => self.types(reader),
            2 => self.imports(reader),
            3 => self.function_types(reader),
            4 => self.tables(reader),
            5 => self.memories(reader),
            6 => self.globals(reader),
            7 => self.exports(reader),
            8 => self.start_function(reader),
            9 => self.elements(reader),
            10 => self.code(reader),
            11 => self.data(reader),
            12 => {
                self.need(Features::BULK_MEMORY, None)?;
                let (count, limit) = (reader.u32()?, self.limits.data_segments);
                self.data_segments = Some(count);
                let what = Count::DataSegments;
                if count > limit { Err(ScanError::TooMany { what, count, limit }) } else { Ok(()) }
            }
            _ => Err(ScanError::Unsupported { feature: Features::EXCEPTIONS, function: None }),
        }
    }

    fn custom(&mut self, reader: &mut Reader<'m>, length: u32) -> Result<(), ScanError> {
        reader.name()?;
        self.info.custom_bytes += length;
        Ok(())
    }

    fn types(&mut self, reader: &mut Reader<'m>) -> Result<(), ScanError> {
        let count = self.count(reader, Count::Types, self.limits.types)?;
        self.types.try_reserve_exact(count as usize).map_err(|_| ScanError::NoMemory)?;
        for _ in 0..count {
            match reader.byte()? {
                0x60 => {}
                0x4e..=0x50 | 0x5e | 0x5f => return self.need(Features::GC, None),
                _ => return Err(reader.malformed("an unknown kind of type")),
            }
            let position = reader.position();
            let params = self.count(reader, Count::Parameters, self.limits.parameters)?;
            self.value_types(reader, params)?;
            let results = self.count(reader, Count::Parameters, self.limits.parameters)?;
            if results > 1 {
                self.need(Features::MULTI_VALUE, None)?;
            }
            self.value_types(reader, results)?;
            self.types.push(TypeAt { position, params, results });
        }
        Ok(())
    }

    fn imports(&mut self, reader: &mut Reader<'m>) -> Result<(), ScanError> {
        let count = self.count(reader, Count::Imports, self.limits.imports)?;
        for _ in 0..count {
            let (module, name) = (reader.name()?, reader.name()?);
            let kind = match reader.byte()? {
                0 => {
                    let type_index = reader.u32()?;
                    self.import_function(module, name, type_index, reader)?;
                    continue;
                }
                1 => "table",
                2 => "memory",
                3 => "global",
                4 => "tag",
                _ => return Err(reader.malformed("an unknown kind of import")),
            };
            return Err(ScanError::ImportKind { module: module.to_owned(), name: name.to_owned(), kind });
        }
        Ok(())
    }

    fn import_function(
        &mut self,
        module: &str,
        name: &str,
        type_index: u32,
        reader: &Reader<'m>,
    ) -> Result<(), ScanError> {
        let known =
            self.limits.host_functions.iter().find(|known| known.module() == module && known.name() == name);
        let Some(function) = known else {
            return Err(ScanError::UnknownImport { module: module.to_owned(), name: name.to_owned() });
        };
        let Some(found) = self.signature(type_index, reader)? else {
            return Err(ScanError::ImportReference { module: module.to_owned(), name: name.to_owned() });
        };
        if found.0 != function.params() || found.1 != function.results() {
            let expected = (function.params(), function.results());
            let (module, name) = (module.to_owned(), name.to_owned());
            return Err(ScanError::ImportType(Box::new(ImportType { module, name, found, expected })));
        }
        if !self.info.imports.iter().any(|import| core::ptr::eq(import.function, function)) {
            self.info.imports.push(Import { function });
        }
        self.info.capabilities =
            function.capability().into_iter().fold(self.info.capabilities, |all, one| all.with(one));
        self.functions.push(type_index);
        self.imported_functions += 1;
        Ok(())
    }

    fn function_types(&mut self, reader: &mut Reader<'m>) -> Result<(), ScanError> {
        let count = self.count(reader, Count::Functions, self.limits.functions)?;
        self.functions.try_reserve_exact(count as usize).map_err(|_| ScanError::NoMemory)?;
        for _ in 0..count {
            let type_index = reader.u32()?;
            self.arity_of_type(type_index, reader)?;
            self.functions.push(type_index);
        }
        self.info.functions = count;
        Ok(())
    }

    fn tables(&mut self, reader: &mut Reader<'m>) -> Result<(), ScanError> {
        let count = self.count(reader, Count::Tables, self.limits.tables)?;
        if count > 1 {
            self.need(Features::REFERENCE_TYPES, None)?;
        }
        for _ in 0..count {
            // A table whose elements begin with another value than null.
            if reader.clone().byte()? == 0x40 {
                return Err(ScanError::Unsupported { feature: Features::GC, function: None });
            }
            if self.reference_type(reader, None)? != 0x70 {
                self.need(Features::REFERENCE_TYPES, None)?;
            }
            let has_maximum = match reader.byte()? {
                flags @ (0 | 1) => flags == 1,
                2 | 3 => return Err(ScanError::Unsupported { feature: Features::THREADS, function: None }),
                4..=7 => return Err(ScanError::Unsupported { feature: Features::MEMORY64, function: None }),
                _ => return Err(reader.malformed("an unknown kind of table")),
            };
            let elements = reader.u32()?;
            let maximum = if has_maximum { reader.u32()? } else { u32::MAX };
            if maximum < elements {
                return Err(reader.malformed("a table with a maximum below its minimum"));
            }
            // What no function grows is left out once the code is known.
            self.info.table_growth += (maximum - elements).min(TABLE_GROWTH);
            self.info.table_elements = self.info.table_elements.saturating_add(elements);
            let (count, limit) = (self.info.table_elements, self.limits.table_elements);
            if count > limit {
                return Err(ScanError::TooMany { what: Count::TableElements, count, limit });
            }
        }
        Ok(())
    }

    fn memories(&mut self, reader: &mut Reader<'m>) -> Result<(), ScanError> {
        const MAXIMUM: u8 = 1;
        const SHARED: u8 = 2;
        const MEMORY64: u8 = 4;
        const PAGE_SIZE: u8 = 8;
        match reader.u32()? {
            0 => return Ok(()),
            1 => {}
            _ => return Err(ScanError::Unsupported { feature: Features::MULTI_MEMORY, function: None }),
        }
        let flags = reader.byte()?;
        if flags & SHARED != 0 {
            return Err(ScanError::Unsupported { feature: Features::THREADS, function: None });
        }
        if flags & MEMORY64 != 0 {
            return Err(ScanError::Unsupported { feature: Features::MEMORY64, function: None });
        }
        if flags & !(MAXIMUM | PAGE_SIZE) != 0 {
            return Err(reader.malformed("an unknown kind of memory"));
        }
        let min = reader.u32()?;
        let max = if flags & MAXIMUM != 0 { Some(reader.u32()?) } else { None };
        if flags & PAGE_SIZE != 0 {
            self.need(Features::CUSTOM_PAGE_SIZES, None)?;
            self.info.page_bytes = match reader.u32()? {
                0 => 1,
                16 => 65_536,
                _ => return Err(reader.malformed("a page size other than 1 or 65536")),
            };
        }
        let page_bytes = u64::from(self.info.page_bytes);
        self.info.has_memory = true;
        self.info.memory_min_bytes = u64::from(min) * page_bytes;
        self.info.memory_max_bytes = max.map(|max| u64::from(max) * page_bytes);
        if max.is_some_and(|max| max < min) {
            return Err(reader.malformed("a memory with a maximum below its minimum"));
        }
        Ok(())
    }

    fn globals(&mut self, reader: &mut Reader<'m>) -> Result<(), ScanError> {
        let count = self.count(reader, Count::Globals, self.limits.globals)?;
        for _ in 0..count {
            self.value_types(reader, 1)?;
            if reader.byte()? > 1 {
                return Err(reader.malformed("a global neither constant nor mutable"));
            }
            self.constant(reader)?;
        }
        self.info.globals = count;
        Ok(())
    }

    fn exports(&mut self, reader: &mut Reader<'m>) -> Result<(), ScanError> {
        let count = self.count(reader, Count::Exports, self.limits.exports)?;
        for _ in 0..count {
            let name = reader.name()?;
            if name.len() > self.limits.export_name_bytes as usize {
                let (bytes, limit) = (name.len() as u32, self.limits.export_name_bytes);
                return Err(ScanError::ExportName { bytes, limit });
            }
            let export = Export { name, kind: reader.byte()?, index: reader.u32()? };
            match name {
                "_start" => self.start = Some(export),
                "run" => self.run = Some(export),
                _ => {}
            }
        }
        self.info.exports = count;
        Ok(())
    }

    /// `_start` before `run`; a function of the module itself, of type `() -> ()`.
    fn entry(&self, reader: &Reader<'m>) -> Result<Option<Entry>, ScanError> {
        let (export, kind) = match (self.start, self.run) {
            (Some(export), _) => (export, EntryKind::Start),
            (None, Some(export)) => (export, EntryKind::Run),
            (None, None) if self.limits.entry_required => return Err(ScanError::NoEntry),
            (None, None) => return Ok(None),
        };
        if !self.limits.entry_required {
            return Ok(None);
        }
        let entry = kind.name();
        debug_assert_eq!(export.name, entry);
        if export.kind != 0 {
            return Err(ScanError::EntryNotFunction { entry });
        }
        let type_index = self.functions.get(export.index as usize);
        let type_index =
            *type_index.ok_or_else(|| reader.malformed("an export of a function that isn't there"))?;
        let Some(function) = export.index.checked_sub(self.imported_functions) else {
            return Err(ScanError::EntryImported { entry });
        };
        if self.arity_of_type(type_index, reader)? != (0, 0) {
            return Err(match self.signature(type_index, reader)? {
                Some(found) => ScanError::EntryType { entry, found },
                None => ScanError::EntryReference { entry },
            });
        }
        Ok(Some(Entry { kind, function }))
    }

    fn start_function(&mut self, reader: &mut Reader<'m>) -> Result<(), ScanError> {
        self.need(Features::START_FUNCTION, None)?;
        let function = reader.u32()?;
        if self.arity_of_function(function, reader)? != (0, 0) {
            return Err(reader.malformed("a start function with parameters or results"));
        }
        self.info.start_function = Some(function);
        Ok(())
    }

    fn elements(&mut self, reader: &mut Reader<'m>) -> Result<(), ScanError> {
        const NOT_ACTIVE: u32 = 1;
        const EXPLICIT: u32 = 2;
        const EXPRESSIONS: u32 = 4;
        self.element_segments = self.count(reader, Count::ElementSegments, self.limits.element_segments)?;
        for _ in 0..self.element_segments {
            let flags = reader.u32()?;
            if flags > 7 {
                return Err(reader.malformed("an unknown kind of element segment"));
            }
            if flags & NOT_ACTIVE != 0 {
                self.need(Features::BULK_MEMORY, None)?;
            } else if flags != 0 {
                self.need(Features::REFERENCE_TYPES, None)?;
            }
            if flags & NOT_ACTIVE == 0 {
                if flags & EXPLICIT != 0 {
                    reader.u32()?;
                }
                self.constant(reader)?;
            }
            if flags & EXPRESSIONS != 0 {
                self.need(Features::REFERENCE_TYPES, None)?;
            }
            if flags & (NOT_ACTIVE | EXPLICIT) != 0 {
                if flags & EXPRESSIONS != 0 {
                    self.reference_type(reader, None)?;
                } else if reader.byte()? != 0 {
                    return Err(reader.malformed("an unknown kind of elements"));
                }
            }
            let elements = reader.u32()?;
            self.segment_elements = self.segment_elements.saturating_add(elements);
            let (count, limit) = (self.segment_elements, self.limits.segment_elements);
            if count > limit {
                return Err(ScanError::TooMany { what: Count::SegmentElements, count, limit });
            }
            if elements as usize > reader.remaining() {
                return Err(reader.malformed("a count of more than there is"));
            }
            if flags & (NOT_ACTIVE | EXPLICIT) == NOT_ACTIVE {
                self.info.passive_elements += elements;
            }
            for _ in 0..elements {
                if flags & EXPRESSIONS != 0 {
                    self.constant(reader)?;
                } else {
                    reader.u32()?;
                }
            }
        }
        Ok(())
    }

    fn data(&mut self, reader: &mut Reader<'m>) -> Result<(), ScanError> {
        let count = self.count(reader, Count::DataSegments, self.limits.data_segments)?;
        if self.data_segments.is_some_and(|counted| counted != count) {
            return Err(reader.malformed("another number of data segments than the data count says"));
        }
        self.data_segments = Some(count);
        for _ in 0..count {
            match reader.u32()? {
                0 => self.constant(reader)?,
                1 => self.need(Features::BULK_MEMORY, None)?,
                2 => {
                    self.need(Features::BULK_MEMORY, None)?;
                    if reader.u32()? != 0 {
                        let feature = Features::MULTI_MEMORY;
                        return Err(ScanError::Unsupported { feature, function: None });
                    }
                    self.constant(reader)?;
                }
                _ => return Err(reader.malformed("an unknown kind of data segment")),
            }
            let length = reader.u32()?;
            reader.bytes(length)?;
        }
        Ok(())
    }

    fn code(&mut self, reader: &mut Reader<'m>) -> Result<(), ScanError> {
        let count = self.count(reader, Count::Functions, self.limits.functions)?;
        if count != self.info.functions {
            return Err(reader.malformed("another number of function bodies than of functions"));
        }
        self.info.code_bytes = reader.remaining() as u32;
        for function in 0..count {
            let length = reader.u32()?;
            let mut body = reader.part(length)?;
            scan_body(self, &mut body, self.imported_functions + function)?;
        }
        Ok(())
    }

    fn finish(mut self, reader: &Reader<'m>) -> Result<ModuleInfo, ScanError> {
        self.info.entry = self.entry(reader)?;
        if !self.grows_tables {
            self.info.table_growth = 0;
        }
        let modules_own = u64::from(self.info.size - self.info.custom_bytes.min(self.info.size));
        self.info.load_bytes_estimate = load_bytes_estimate(modules_own, &self.info);
        Ok(self.info)
    }
}
