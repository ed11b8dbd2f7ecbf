//! The sections of a module, in order.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;

use crate::error::{Count, ImportType, ScanError};
use crate::features::Features;
use crate::info::{Entry, EntryKind, Import, ModuleInfo, load_bytes_estimate};
use crate::limits::{ScanLimits, TABLE_GROWTH};
use crate::reader::Reader;
use crate::state::{Export, Phase, Scan, TypeAt};

/// Section numbers, in the order they must appear in. The data count (12) and tags (13) came later than their neighbours.
const ORDER: [u8; 13] = [1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11];

/// The custom section in which a module says which settings it has.
const SETTINGS: &str = "wasmbed.settings";

/// Scans a module at once. `Ok` means that its structure is sound and within `limits`, that every import is known with the
/// right type, and that it has an entry; only an engine validates its types.
pub fn scan(module: &[u8], limits: &ScanLimits) -> Result<ModuleInfo, ScanError> {
    let mut scan = Scan::new(limits);
    loop {
        if let Some(info) = scan.step(module, u32::MAX)? {
            return Ok(info);
        }
    }
}

impl Scan {
    /// Scans on, until about this much work is done: an operator, an element or a few bytes of a name each. Answers as
    /// [`scan`] does once it knows; there is nothing to go on with then. Each step is handed the same module.
    pub fn step(&mut self, module: &[u8], work: u32) -> Result<Option<ModuleInfo>, ScanError> {
        let mut reader = Reader::resumed(module, self.place);
        self.worked = 0;
        loop {
            let advanced = self.advance(&mut reader);
            if !matches!(advanced, Ok(None)) {
                self.phase = Phase::Ended;
                return advanced;
            }
            self.work(1);
            if self.worked >= work {
                self.place = reader.place();
                return Ok(None);
            }
        }
    }

    fn advance(&mut self, reader: &mut Reader<'_>) -> Result<Option<ModuleInfo>, ScanError> {
        match self.phase {
            Phase::Header => self.header(reader)?,
            Phase::Section if reader.is_empty() => return self.finish(reader).map(Some),
            Phase::Section => self.begin_section(reader)?,
            Phase::Items if self.items == 0 => self.end_section(reader)?,
            Phase::Items => {
                self.items -= 1;
                self.item(reader)?;
            }
            Phase::Elements { left: 0, .. } => self.phase = Phase::Items,
            Phase::Elements { left, expressions } => {
                self.element(reader, expressions)?;
                self.phase = Phase::Elements { left: left - 1, expressions };
            }
            Phase::Operators => {
                if !self.next_operator(reader)? {
                    reader.widen(self.section_end);
                    self.phase = Phase::Items;
                }
            }
            Phase::Targets { left } => self.branch_target(reader, left)?,
            Phase::Ended => return Err(reader.malformed("nothing is left to scan")),
        }
        Ok(None)
    }

    fn header(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let bytes = reader.module_bytes();
        reader.widen(bytes);
        let magic = reader.bytes(4);
        if magic != Ok(b"\0asm") {
            return Err(ScanError::NotWebAssembly);
        }
        let limit = self.limits.module_bytes;
        self.info.size = match u32::try_from(bytes) {
            Ok(size) if size <= limit => size,
            _ => return Err(ScanError::TooLarge { bytes: bytes as u64, limit }),
        };
        match reader.bytes(4)? {
            [1, 0, 0, 0] => {}
            [_, 0, 1, 0] => return Err(ScanError::Component),
            [a, b, c, d] => return Err(ScanError::Version(u32::from_le_bytes([*a, *b, *c, *d]))),
            _ => return Err(reader.malformed("it ends too early")),
        }
        self.phase = Phase::Section;
        Ok(())
    }

    fn begin_section(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let number = reader.byte()?;
        let length = reader.u32()?;
        reader.narrow(length)?;
        if number == 0 {
            let name = reader.name(self.limits.name_bytes)?;
            self.work(name.len() as u32 / 16);
            self.info.custom_bytes += length;
            if name == SETTINGS && self.info.settings.is_none() {
                // Its bytes are within the module, whose size fits.
                self.info.settings = Some((reader.position(), reader.remaining() as u32));
            }
            reader.skip_rest();
            reader.widen(reader.module_bytes());
            return Ok(());
        }
        let found = ORDER.iter().position(|known| *known == number);
        let found = found.ok_or_else(|| reader.malformed("an unknown section"))? + 1;
        if found <= self.sections_done {
            return Err(reader.malformed("a section out of order or twice"));
        }
        self.sections_done = found;
        self.section = number;
        self.phase = Phase::Items;
        self.items = self.begin_items(reader)?;
        Ok(())
    }

    fn end_section(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        if !reader.is_empty() {
            return Err(reader.malformed("bytes left over at the end of a section"));
        }
        reader.widen(reader.module_bytes());
        self.phase = Phase::Section;
        Ok(())
    }

    /// What stands before a section's items; answers how many there are.
    fn begin_items(&mut self, reader: &mut Reader<'_>) -> Result<u32, ScanError> {
        let limits = &self.limits;
        match self.section {
            1 => {
                let count = self.count(reader, Count::Types, limits.types.min(u32::from(u16::MAX)))?;
                self.types.try_reserve_exact(count as usize).map_err(|_| ScanError::NoMemory)?;
                Ok(count)
            }
            2 => {
                let count = self.count(reader, Count::Imports, limits.imports)?;
                self.functions.try_reserve_exact(count as usize).map_err(|_| ScanError::NoMemory)?;
                Ok(count)
            }
            3 => {
                let count = self.count(reader, Count::Functions, limits.functions)?;
                self.functions.try_reserve_exact(count as usize).map_err(|_| ScanError::NoMemory)?;
                self.info.functions = count;
                Ok(count)
            }
            4 => {
                let count = self.count(reader, Count::Tables, limits.tables)?;
                if count > 1 {
                    self.need(Features::REFERENCE_TYPES, None)?;
                }
                Ok(count)
            }
            5 => match reader.u32()? {
                count @ (0 | 1) => Ok(count),
                _ => Err(ScanError::Unsupported { feature: Features::MULTI_MEMORY, function: None }),
            },
            6 => {
                self.info.globals = self.count(reader, Count::Globals, limits.globals)?;
                Ok(self.info.globals)
            }
            7 => {
                self.info.exports = self.count(reader, Count::Exports, limits.exports)?;
                Ok(self.info.exports)
            }
            8 => self.start_function(reader).map(|()| 0),
            9 => {
                self.element_segments =
                    self.count(reader, Count::ElementSegments, limits.element_segments)?;
                Ok(self.element_segments)
            }
            10 => self.begin_code(reader),
            11 => self.begin_data(reader),
            12 => {
                self.need(Features::BULK_MEMORY, None)?;
                let (count, limit) = (reader.u32()?, self.limits.data_segments);
                self.data_segments = Some(count);
                let what = Count::DataSegments;
                if count > limit { Err(ScanError::TooMany { what, count, limit }) } else { Ok(0) }
            }
            _ => Err(ScanError::Unsupported { feature: Features::EXCEPTIONS, function: None }),
        }
    }

    fn item(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        match self.section {
            1 => self.function_type(reader),
            2 => self.import(reader),
            3 => self.function(reader),
            4 => self.table(reader),
            5 => self.memory(reader),
            6 => self.global(reader),
            7 => self.export(reader),
            9 => self.element_segment_item(reader),
            10 => self.body(reader),
            _ => self.data_segment_item(reader),
        }
    }

    fn function_type(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        match reader.byte()? {
            0x60 => {}
            0x4e..=0x50 | 0x5e | 0x5f => {
                return Err(ScanError::Unsupported { feature: Features::GC, function: None });
            }
            _ => return Err(reader.malformed("an unknown kind of type")),
        }
        let limit = self.limits.parameters.min(u32::from(u16::MAX));
        let position = reader.position();
        let params = self.count(reader, Count::Parameters, limit)?;
        self.value_types(reader, params)?;
        let results = self.count(reader, Count::Parameters, limit)?;
        if results > 1 {
            self.need(Features::MULTI_VALUE, None)?;
        }
        self.value_types(reader, results)?;
        self.types.push(TypeAt { position, params: params as u16, results: results as u16 });
        Ok(())
    }

    fn import(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let limit = self.limits.name_bytes;
        let (module, name) = (reader.name(limit)?, reader.name(limit)?);
        // Each is compared with all that is offered.
        self.work((module.len() + name.len()) as u32 / 16 + self.limits.host_functions.len() as u32 / 4);
        let kind = match reader.byte()? {
            0 => {
                let type_index = reader.u32()?;
                return self.import_function(module, name, type_index, reader);
            }
            1 => "table",
            2 => "memory",
            3 => "global",
            4 => "tag",
            _ => return Err(reader.malformed("an unknown kind of import")),
        };
        Err(ScanError::ImportKind { module: module.to_owned(), name: name.to_owned(), kind })
    }

    fn import_function(
        &mut self,
        module: &str,
        name: &str,
        type_index: u32,
        reader: &Reader<'_>,
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
            self.info.imports.try_reserve(1).map_err(|_| ScanError::NoMemory)?;
            self.info.imports.push(Import { function });
        }
        self.info.capabilities =
            function.capability().into_iter().fold(self.info.capabilities, |all, one| all.with(one));
        self.functions.push(type_index as u16);
        self.imported_functions += 1;
        Ok(())
    }

    fn function(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let type_index = reader.u32()?;
        self.arity_of_type(type_index, reader)?;
        self.functions.push(type_index as u16);
        Ok(())
    }

    fn table(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
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
        Ok(())
    }

    fn memory(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        const MAXIMUM: u8 = 1;
        const SHARED: u8 = 2;
        const MEMORY64: u8 = 4;
        const PAGE_SIZE: u8 = 8;
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

    fn global(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        self.value_types(reader, 1)?;
        if reader.byte()? > 1 {
            return Err(reader.malformed("a global neither constant nor mutable"));
        }
        self.constant(reader)
    }

    fn export(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let name = reader.name(self.limits.export_name_bytes).map_err(|error| match error {
            ScanError::NameTooLong { bytes, limit } => ScanError::ExportName { bytes, limit },
            error => error,
        })?;
        self.work(name.len() as u32 / 16);
        let export = Export { kind: reader.byte()?, index: reader.u32()? };
        match name {
            "_start" => self.start = Some(export),
            "run" => self.run = Some(export),
            _ => {}
        }
        Ok(())
    }

    /// `_start` before `run`; a function of the module itself, of type `() -> ()`.
    fn entry(&self, reader: &Reader<'_>) -> Result<Option<Entry>, ScanError> {
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
        if export.kind != 0 {
            return Err(ScanError::EntryNotFunction { entry });
        }
        let type_index = self.functions.get(export.index as usize);
        let type_index =
            type_index.ok_or_else(|| reader.malformed("an export of a function that isn't there"))?;
        let type_index = u32::from(*type_index);
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

    fn start_function(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        self.need(Features::START_FUNCTION, None)?;
        let function = reader.u32()?;
        if self.arity_of_function(function, reader)? != (0, 0) {
            return Err(reader.malformed("a start function with parameters or results"));
        }
        self.info.start_function = Some(function);
        Ok(())
    }

    fn element_segment_item(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        const NOT_ACTIVE: u32 = 1;
        const EXPLICIT: u32 = 2;
        const EXPRESSIONS: u32 = 4;
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
        self.phase = Phase::Elements { left: elements, expressions: flags & EXPRESSIONS != 0 };
        Ok(())
    }

    fn element(&mut self, reader: &mut Reader<'_>, is_expression: bool) -> Result<(), ScanError> {
        if is_expression {
            return self.constant(reader);
        }
        reader.u32().map(|_| ())
    }

    fn begin_data(&mut self, reader: &mut Reader<'_>) -> Result<u32, ScanError> {
        self.has_data = true;
        let count = self.count(reader, Count::DataSegments, self.limits.data_segments)?;
        if self.data_segments.is_some_and(|counted| counted != count) {
            return Err(reader.malformed("another number of data segments than the data count says"));
        }
        self.data_segments = Some(count);
        Ok(count)
    }

    fn data_segment_item(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
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
        Ok(())
    }

    fn begin_code(&mut self, reader: &mut Reader<'_>) -> Result<u32, ScanError> {
        self.has_code = true;
        let count = self.count(reader, Count::Functions, self.limits.functions)?;
        if count != self.info.functions {
            return Err(reader.malformed("another number of function bodies than of functions"));
        }
        self.info.code_bytes = reader.remaining() as u32;
        Ok(count)
    }

    fn body(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let length = reader.u32()?;
        self.section_end = reader.narrow(length)?;
        let before = self.info.functions - self.items - 1;
        self.begin_body(reader, self.imported_functions + before)?;
        self.phase = Phase::Operators;
        Ok(())
    }

    fn finish(&mut self, reader: &Reader<'_>) -> Result<ModuleInfo, ScanError> {
        if !self.has_code && self.info.functions > 0 {
            return Err(reader.malformed("functions without code"));
        }
        if !self.has_data && self.data_segments.is_some_and(|counted| counted > 0) {
            return Err(reader.malformed("another number of data segments than the data count says"));
        }
        let mut info = core::mem::replace(&mut self.info, ModuleInfo::of_size(0));
        info.entry = self.entry(reader)?;
        if !self.grows_tables {
            info.table_growth = 0;
        }
        let modules_own = u64::from(info.size - info.custom_bytes.min(info.size));
        info.load_bytes_estimate = load_bytes_estimate(modules_own, &info);
        Ok(info)
    }
}
