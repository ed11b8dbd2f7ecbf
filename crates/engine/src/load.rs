//! The loader: one pass over a module, in steps of bounded work, that validates it, sets up its memory and translates its
//! functions.
//!
//! ```text
//! Start -> Section -> Items(n) -> Section -> ... -> Done
//!             |  ^      |
//!             |  |      +-> Name, References, Bytes, Zero: the parts of one item
//!             |  |      +-> Locals -> Operators: a function
//!             v  |
//!            Skip
//! ```

use crate::error::{Error, ErrorKind};
use crate::machine::{segment, table};
use crate::reader::{Failed, Reader, Source};
use crate::region::{Full, Place, Region};
use crate::scratch::{Emitter, Fixing, Scratch, TABLES, Targets};
use crate::types::{FunctionType, ValueType};

/// What the host offers to a module.
pub trait Imports {
    /// The number by which the host knows this function, if it has it with this type; [`Step::HostCall`] names it.
    ///
    /// [`Step::HostCall`]: crate::Step::HostCall
    fn find(&self, module: &str, name: &str, function: FunctionType<'_>) -> Option<u16>;
}

/// How much an instance gets beside its module.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// 32-bit slots of the call stack.
    pub stack_slots: u32,
    /// Bytes up to which linear memory may grow. A module that begins with more is refused.
    pub memory_bytes: u32,
    /// Elements by which each table may grow.
    pub table_growth: u32,
}

/// What a step of loading came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do.
    More,
    /// The module is loaded.
    Done,
}

/// Where the loader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Start,
    Section,
    Items,
    /// Elements of an element segment.
    References {
        left: u32,
        to: To,
        expressions: bool,
    },
    /// Bytes of a data segment.
    Bytes {
        left: u32,
        to: u32,
    },
    /// The memory's first bytes are set to zero.
    Zero {
        left: u32,
        at: u32,
    },
    Locals {
        left: u32,
    },
    Operators,
    Done,
    /// What was found makes all that would follow meaningless.
    Failed(Error),
}

/// Where elements go: from this place on, or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Place(Place, u32),
    Nowhere,
}

const TYPES: u32 = 2_000;
const IMPORTS: u32 = 1_000;
const EXPORTS: u32 = 1_000;
const NAME_BYTES: u32 = 1_000;
const TYPE_VALUES: u32 = 255;
/// Functions of a module: calls name them with 16 bits.
const FUNCTIONS: u32 = 65_535;
const GLOBALS: u32 = 16_000;
const SEGMENTS: u32 = 65_535;
const PAGE: u32 = 65_536;

/// Order of sections: that of their numbers, but for the data count.
fn order(section: u8) -> u8 {
    match section {
        12 => 10,
        10 | 11 => section + 1,
        _ => section,
    }
}

/// A function was declared by an export, a global or a segment, so that code may refer to it.
const DECLARED: u16 = 1 << 15;

/// Loads one module into a block of memory.
pub struct Loader<'m> {
    pub(crate) region: Region<'m>,
    pub(crate) scratch: &'m mut Scratch,
    pub(crate) reader: Reader,
    pub(crate) emit: Emitter,
    config: Config,
    phase: Phase,
    section: u8,
    section_end: u32,
    module_end: u32,
    sections_done: u8,
    items: u32,
    /// Work of this step: about an operator each.
    pub(crate) work: u32,

    // The module.
    pub(crate) types: u32,
    type_place: Place,
    pub(crate) imports: u32,
    pub(crate) import_place: Place,
    pub(crate) functions: u32,
    pub(crate) function_place: Place,
    function_types: Place,
    has_functions: bool,
    pub(crate) tables: u32,
    pub(crate) table_place: Place,
    pub(crate) has_memory: bool,
    pub(crate) memory_place: Place,
    pub(crate) memory_bytes: u32,
    pub(crate) memory_bytes_max: u32,
    pub(crate) page_bytes: u32,
    pub(crate) globals: u32,
    global_types: Place,
    pub(crate) global_place: Place,
    pub(crate) global_slots: u32,
    pub(crate) exports: u32,
    pub(crate) export_place: Place,
    pub(crate) start: Option<u32>,
    pub(crate) elements: u32,
    pub(crate) element_place: Place,
    element_types: Place,
    pub(crate) data: u32,
    pub(crate) data_place: Place,
    segments_done: u32,
    has_data_count: bool,
    has_code: bool,

    // The function that is translated.
    pub(crate) function: u32,
    pub(crate) function_start: u32,
    body_offset: u32,
    pub(crate) operator_offset: u32,
    pub(crate) locals: usize,
    pub(crate) save: u16,
    pub(crate) slot: u16,
    pub(crate) slots_max: u16,
    pub(crate) height: usize,
    pub(crate) frames: usize,
    pub(crate) far: bool,
    pub(crate) needs_far: bool,
    pub(crate) fixing: Option<Fixing>,
    pub(crate) targets: Option<Targets>,
}

impl<'m> Loader<'m> {
    /// Bytes that loading needs beside what the instance keeps.
    pub const SCRATCH_BYTES: usize = Scratch::WORDS * 8;

    /// Begins to load a module into this block; `None` if it has no room even for the loader's own stacks.
    pub fn new(block: &'m mut [u64], source: &dyn Source, config: Config) -> Option<Loader<'m>> {
        let low = block.len().checked_sub(Scratch::WORDS)?;
        let (block, high) = block.split_at_mut(low);
        Some(Loader {
            region: Region::new(block),
            scratch: Scratch::in_block(high),
            reader: Reader::new(source.length()),
            emit: Emitter::new(),
            config,
            phase: Phase::Start,
            section: 0,
            section_end: 0,
            module_end: source.length(),
            sections_done: 0,
            items: 0,
            work: 0,
            types: 0,
            type_place: Place(0),
            imports: 0,
            import_place: Place(0),
            functions: 0,
            function_place: Place(0),
            function_types: Place(0),
            has_functions: false,
            tables: 0,
            table_place: Place(0),
            has_memory: false,
            memory_place: Place(0),
            memory_bytes: 0,
            memory_bytes_max: 0,
            page_bytes: PAGE,
            globals: 0,
            global_types: Place(0),
            global_place: Place(0),
            global_slots: 0,
            exports: 0,
            export_place: Place(0),
            start: None,
            elements: 0,
            element_place: Place(0),
            element_types: Place(0),
            data: 0,
            data_place: Place(0),
            segments_done: 0,
            has_data_count: false,
            has_code: false,
            function: 0,
            function_start: 0,
            body_offset: 0,
            operator_offset: 0,
            locals: 0,
            save: 0,
            slot: 0,
            slots_max: 0,
            height: 0,
            frames: 0,
            far: false,
            needs_far: false,
            fixing: None,
            targets: None,
        })
    }

    /// Loads on, until about this much work is done: an operator, a name or a few bytes each. After an error there is
    /// nothing to go on with: it is the answer from then on.
    pub fn step(
        &mut self,
        source: &mut dyn Source,
        imports: &dyn Imports,
        work: u32,
    ) -> Result<Progress, Error> {
        if let Phase::Failed(error) = self.phase {
            return Err(error);
        }
        self.step_on(source, imports, work).map_err(|Failed| {
            let error = self.reader.take_error().unwrap_or(Error { kind: ErrorKind::Source, offset: 0 });
            self.phase = Phase::Failed(error);
            error
        })
    }

    fn step_on(
        &mut self,
        source: &mut dyn Source,
        imports: &dyn Imports,
        work: u32,
    ) -> Result<Progress, Failed> {
        self.work = 0;
        while self.work < work {
            if self.phase == Phase::Done {
                return Ok(Progress::Done);
            }
            self.work += 1;
            let advanced = match self.fix(64) {
                Ok(true) => continue,
                Ok(false) => self.advance(source, imports),
                Err(error) => Err(error),
            };
            match advanced {
                Ok(()) => {}
                // Once more, with branches that reach farther.
                Err(_) if self.needs_far && !self.far => self.restart_function()?,
                Err(error) => return Err(error),
            }
        }
        Ok(Progress::More)
    }

    fn advance(&mut self, source: &mut dyn Source, imports: &dyn Imports) -> Result<(), Failed> {
        match self.phase {
            Phase::Start => self.start(source),
            Phase::Section => self.begin_section(source),
            Phase::Items if self.items == 0 => self.end_section(),
            Phase::Items => {
                self.items -= 1;
                self.item(source, imports)
            }
            Phase::References { left, to, expressions } => self.references(source, left, to, expressions),
            Phase::Bytes { left, to } => self.bytes(source, left, to),
            Phase::Zero { left, at } => self.zero(left, at),
            Phase::Locals { left } => self.local_group(source, left),
            Phase::Operators => self.next_operator(source),
            Phase::Done => Ok(()),
            Phase::Failed(_) => Err(Failed),
        }
    }

    fn fail<R>(&self, kind: ErrorKind) -> Result<R, Failed> {
        Err(self.reader.error(kind))
    }

    fn room<R>(&self, taken: Result<R, Full>) -> Result<R, Failed> {
        taken.map_err(|full| {
            self.reader.error(ErrorKind::Memory { needed: u32::try_from(full.needed).unwrap_or(u32::MAX) })
        })
    }

    fn take<T: crate::region::Plain>(&mut self, count: usize) -> Result<Place, Failed> {
        let taken = self.region.take::<T>(count);
        self.room(taken)
    }

    fn limited(&self, count: u32, limit: u32, what: &'static str) -> Result<u32, Failed> {
        if count > limit { self.fail(ErrorKind::Limit { what, limit }) } else { Ok(count) }
    }

    // Sections.

    fn start(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        let header = self.reader.long_word(source);
        if header? != 0x0000_0001_6d73_6100 {
            return self.fail(ErrorKind::NotAModule);
        }
        self.phase = Phase::Section;
        Ok(())
    }

    fn begin_section(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        if self.reader.is_done() {
            return self.end_module();
        }
        let module_end = self.module_end;
        let section = self.reader.byte(source)?;
        let size = self.reader.number(source)?;
        let end = self.reader.position().checked_add(size).filter(|end| *end <= module_end);
        let Some(end) = end else { return self.fail(ErrorKind::End) };
        if section == 0 {
            self.reader.set_end(end);
            let length = self.reader.number(source)?;
            self.limited(length, NAME_BYTES, "bytes of a name")?;
            self.name(source, length)?;
            self.reader.set_end(module_end);
            self.reader.seek(end);
            return Ok(());
        }
        if section > 13 {
            return self.fail(ErrorKind::Malformed("section"));
        }
        if section == 13 {
            return self.fail(ErrorKind::Unsupported("exceptions"));
        }
        if order(section) <= self.sections_done {
            return self.fail(ErrorKind::SectionOrder);
        }
        self.sections_done = order(section);
        if section > 3 && !self.has_functions {
            self.set_up_functions(0)?;
        }
        self.section = section;
        self.section_end = end;
        self.reader.set_end(end);
        self.phase = Phase::Items;
        self.items = self.reader.number(source)?;
        self.set_up(section)
    }

    /// Makes room for the items of a section.
    fn set_up(&mut self, section: u8) -> Result<(), Failed> {
        let items = self.items;
        match section {
            1 => {
                self.types = 0;
                self.limited(items, TYPES, "types")?;
                self.type_place = self.take::<u32>(items as usize * 2)?;
            }
            2 => {
                self.limited(items, IMPORTS, "imports")?;
                self.import_place = self.take::<u32>(items as usize)?;
            }
            3 => {
                self.set_up_functions(items)?;
            }
            4 => {
                self.limited(items, TABLES as u32, "tables")?;
                self.table_place = self.take::<u32>(items as usize * table::WORDS)?;
            }
            5 if items > 1 => return self.fail(ErrorKind::Unsupported("multiple memories")),
            6 => {
                self.limited(items, GLOBALS, "globals")?;
                self.global_types = self.take::<u32>(items as usize)?;
                self.global_place = self.take::<u32>(items as usize * 2)?;
            }
            7 => {
                self.limited(items, EXPORTS, "exports")?;
                self.export_place = self.take::<u32>(0)?;
            }
            8 => {
                self.start = Some(items);
                self.items = 0;
                let function = self.function_of(items)?;
                if !function.parameters.is_empty() || !function.results.is_empty() {
                    return self.fail(ErrorKind::Invalid("the start function has parameters or results"));
                }
            }
            9 => {
                self.limited(items, SEGMENTS, "element segments")?;
                self.element_place = self.take::<u32>(items as usize * segment::WORDS)?;
                let types = self.region.take_high::<u8>(items as usize);
                self.element_types = self.room(types)?;
            }
            10 => {
                if items != self.functions - self.imports {
                    return self.fail(ErrorKind::Malformed("number of functions with code"));
                }
                self.set_up_code()?;
            }
            11 if self.has_data_count && items != self.data => {
                return self.fail(ErrorKind::Malformed("number of data segments"));
            }
            11 if !self.has_data_count => self.data = 0,
            12 => {
                self.limited(items, SEGMENTS, "data segments")?;
                self.has_data_count = true;
                self.data = items;
                self.items = 0;
                self.data_place = self.take::<u32>(items as usize * segment::WORDS)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn item(&mut self, source: &mut dyn Source, imports: &dyn Imports) -> Result<(), Failed> {
        match self.section {
            1 => self.function_type_item(source),
            2 => self.import(source, imports),
            3 => self.function_item(source),
            4 => self.table(source),
            5 => self.memory(source),
            6 => self.global_item(source),
            7 => self.export(source),
            9 => self.element_segment(source),
            10 => self.begin_body(source),
            11 => self.data_segment(source),
            _ => Ok(()),
        }
    }

    fn end_section(&mut self) -> Result<(), Failed> {
        if !self.reader.is_done() {
            return self.fail(ErrorKind::Size);
        }
        match self.section {
            6 => {
                // Globals that are one slot leave room.
                let end = self.global_place.0 as usize + self.global_slots as usize * 4;
                self.region.truncate(end);
            }
            10 => {
                self.has_code = true;
                let end = self.emit.code.0 as usize + self.emit.position as usize * 2;
                self.region.advance_to(end);
            }
            _ => {}
        }
        self.reader.set_end(self.module_end);
        self.phase = Phase::Section;
        Ok(())
    }
}

impl Loader<'_> {
    // Names.

    /// Reads a name and leaves it at the region's low end, where nothing keeps it unless its room is taken.
    fn name(&mut self, source: &mut dyn Source, length: u32) -> Result<(), Failed> {
        self.name_at(source, self.region.low(), length)
    }

    fn name_at(&mut self, source: &mut dyn Source, at: usize, length: u32) -> Result<(), Failed> {
        let length = length as usize;
        if self.region.free() < length + (at - self.region.low()) {
            return self.fail(ErrorKind::Memory { needed: length as u32 });
        }
        self.work += length as u32 / 16;
        let name = self.region.slice_mut::<u8>(Place(at as u32), length);
        self.reader.bytes(source, name)?;
        let name = self.region.slice::<u8>(Place(at as u32), length);
        if core::str::from_utf8(name).is_err() { self.fail(ErrorKind::Name) } else { Ok(()) }
    }

    fn text(&self, at: usize, length: u32) -> &str {
        let bytes = self.region.slice::<u8>(Place(at as u32), length as usize);
        core::str::from_utf8(bytes).unwrap_or_default()
    }

    // Types.

    fn function_type_item(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
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
        self.region.set_number(self.type_place, index as usize * 2, place.0);
        self.region.set_number(self.type_place, index as usize * 2 + 1, counts[0] | counts[1] << 8);
        self.types += 1;
        // Calls by a table compare numbers: equal types have that of the first one.
        let function = self.function_type(index);
        let canonical = (0..index).find(|other| self.function_type(*other) == function);
        self.work += index / 8;
        if canonical.is_some() {
            self.region.truncate(place.0 as usize);
            let place = self.region.number(self.type_place, canonical.unwrap_or(index) as usize * 2);
            self.region.set_number(self.type_place, index as usize * 2, place);
        }
        let record = counts[0] | counts[1] << 8 | canonical.unwrap_or(index) << 16;
        self.region.set_number(self.type_place, index as usize * 2 + 1, record);
        Ok(())
    }

    /// A type of which there is one with this index.
    pub(crate) fn function_type(&self, index: u32) -> FunctionType<'_> {
        read_type(&self.region, self.type_place, index)
    }

    pub(crate) fn canonical_type(&self, index: u32) -> u16 {
        (self.region.number(self.type_place, index as usize * 2 + 1) >> 16) as u16
    }

    fn type_index(&mut self, source: &mut dyn Source) -> Result<u32, Failed> {
        let index = self.reader.number(source)?;
        if index < self.types { Ok(index) } else { self.fail(ErrorKind::Index { what: "type", index }) }
    }

    // Functions.

    fn import(&mut self, source: &mut dyn Source, imports: &dyn Imports) -> Result<(), Failed> {
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
        self.region.set_number(self.import_place, index as usize, type_index | u32::from(number) << 16);
        self.imports += 1;
        Ok(())
    }

    /// Makes the table of functions: those of the host, and so many of the module's own.
    fn set_up_functions(&mut self, own: u32) -> Result<(), Failed> {
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

    fn function_item(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        let type_index = self.type_index(source)?;
        self.set_type_of_function(self.functions, type_index as u16);
        self.functions += 1;
        Ok(())
    }

    fn set_type_of_function(&mut self, function: u32, type_index: u16) {
        self.region.set_word(self.function_types, function, type_index);
        self.region.set_number(self.function_place, function as usize, 0);
    }

    pub(crate) fn type_of_function(&self, function: u32) -> u32 {
        u32::from(self.region.word(self.function_types, function) & !DECLARED)
    }

    fn function_of(&self, index: u32) -> Result<FunctionType<'_>, Failed> {
        if index >= self.functions {
            return self.fail(ErrorKind::Index { what: "function", index });
        }
        Ok(self.function_type(self.type_of_function(index)))
    }

    fn declare(&mut self, function: u32) -> Result<(), Failed> {
        if function >= self.functions {
            return self.fail(ErrorKind::Index { what: "function", index: function });
        }
        let word = self.region.word(self.function_types, function);
        self.region.set_word(self.function_types, function, word | DECLARED);
        Ok(())
    }

    pub(crate) fn is_declared(&self, function: u32) -> bool {
        self.region.word(self.function_types, function) & DECLARED != 0
    }

    pub(crate) fn set_function_place(&mut self, function: u32, position: u32) {
        let saved = crate::machine::save_code_position(&self.region, self.emit.code, position);
        self.region.set_number(self.function_place, function as usize, saved);
    }

    // Tables and memories.

    /// Least and greatest size.
    fn limits(&mut self, source: &mut dyn Source, has_greatest: bool) -> Result<(u32, Option<u32>), Failed> {
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

    fn table(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
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

    fn memory(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
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
        let aligned = self.region.align(8);
        self.room(aligned)?;
        self.has_memory = true;
        self.memory_place = self.take::<u8>(most as usize)?;
        (self.memory_bytes, self.memory_bytes_max) = (bytes as u32, most as u32);
        self.phase = Phase::Zero { left: self.memory_bytes, at: self.memory_place.0 };
        Ok(())
    }

    fn zero(&mut self, left: u32, at: u32) -> Result<(), Failed> {
        let part = left.min(256);
        self.region.slice_mut::<u8>(Place(at), part as usize).fill(0);
        self.phase =
            if part == left { Phase::Items } else { Phase::Zero { left: left - part, at: at + part } };
        Ok(())
    }

    pub(crate) fn check_memory(&self) -> Result<(), Failed> {
        if self.has_memory { Ok(()) } else { self.fail(ErrorKind::Index { what: "memory", index: 0 }) }
    }

    // Globals and constants.

    fn global_item(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
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

    /// The value of a constant expression of this type.
    fn constant_expression(&mut self, source: &mut dyn Source, wanted: ValueType) -> Result<u64, Failed> {
        const OPERATORS: u32 = 64;
        let mut stack = [(ValueType::UNKNOWN, 0_u64); 16];
        let mut height = 0;
        for _ in 0..OPERATORS {
            self.work += 1;
            let operator = self.reader.byte(source)?;
            let pushed = match operator {
                0x0b => {
                    return match (height, stack[0]) {
                        (1, (found, bits)) if found == wanted => Ok(bits),
                        (1, (found, _)) => self.fail(ErrorKind::Type { expected: wanted, found }),
                        (0, _) => self.fail(ErrorKind::StackEmpty),
                        _ => self.fail(ErrorKind::StackHeight),
                    };
                }
                0x23 => {
                    let index = self.reader.number(source)?;
                    return self.fail(ErrorKind::Index { what: "imported global", index });
                }
                0x41 => (ValueType::I32, u64::from(self.reader.signed(source, 32)? as u32)),
                0x42 => (ValueType::I64, self.reader.signed(source, 64)? as u64),
                0x43 => (ValueType::F32, u64::from(self.reader.word(source)?)),
                0x44 => (ValueType::F64, self.reader.long_word(source)?),
                0xd0 => (self.reader.reference_type(source)?, 0),
                0xd2 => {
                    let function = self.reader.number(source)?;
                    self.declare(function)?;
                    (ValueType::FUNCREF, u64::from(function) + 1)
                }
                0x6a..=0x6c | 0x7c..=0x7e => {
                    let value_type = if operator < 0x70 { ValueType::I32 } else { ValueType::I64 };
                    if height < 2 {
                        return self.fail(ErrorKind::StackEmpty);
                    }
                    let ((left, a), (right, b)) = (stack[height - 2], stack[height - 1]);
                    for found in [left, right] {
                        if found != value_type {
                            return self.fail(ErrorKind::Type { expected: value_type, found });
                        }
                    }
                    height -= 2;
                    let result = match operator {
                        0x6a | 0x7c => a.wrapping_add(b),
                        0x6b | 0x7d => a.wrapping_sub(b),
                        _ => a.wrapping_mul(b),
                    };
                    (value_type, if value_type == ValueType::I32 { u64::from(result as u32) } else { result })
                }
                _ => {
                    return self.fail(ErrorKind::Invalid("an operator that constant expressions don't have"));
                }
            };
            let Some(entry) = stack.get_mut(height) else {
                return self.fail(ErrorKind::Limit { what: "operands of a constant expression", limit: 16 });
            };
            *entry = pushed;
            height += 1;
        }
        self.fail(ErrorKind::Limit { what: "operators of a constant expression", limit: OPERATORS })
    }

    // Exports.

    fn export(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
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
        }
        self.work += self.exports / 4;
        let name = self.region.slice::<u8>(at, length as usize);
        if Exports::new(&self.region, self.export_place, self.exports).any(|other| other.name == name) {
            return self.fail(ErrorKind::DuplicateExport);
        }
        self.region.set_number(record, 0, u32::from(kind) | length << 8);
        self.region.set_number(record, 1, index);
        self.exports += 1;
        Ok(())
    }

    // Segments.

    fn element_segment(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        let flags = self.reader.number(source)?;
        if flags > 7 {
            return self.fail(ErrorKind::Malformed("element segment"));
        }
        let (active, expressions) = (flags & 1 == 0, flags & 4 != 0);
        let mut target = None;
        if active {
            let index = if flags & 2 == 0 { 0 } else { self.reader.number(source)? };
            self.check_table(index, None)?;
            let offset = self.constant_expression(source, ValueType::I32)?;
            target = Some((index, offset as u32));
        }
        let mut value_type = ValueType::FUNCREF;
        if flags & 3 != 0 {
            if expressions {
                value_type = self.reader.reference_type(source)?;
            } else if self.reader.byte(source)? != 0 {
                return self.fail(ErrorKind::Malformed("kind of elements"));
            }
        }
        let count = self.reader.number(source)?;
        let (mut place, mut length) = (Place(0), 0);
        let to = if let Some((index, offset)) = target {
            self.check_table(index, Some(value_type))?;
            let words = index as usize * table::WORDS;
            let elements = self.region.number(self.table_place, words + table::LENGTH);
            if offset.checked_add(count).is_none_or(|end| end > elements) {
                return self.fail(ErrorKind::SegmentOutOfBounds);
            }
            To::Place(Place(self.region.number(self.table_place, words + table::PLACE)), offset)
        } else if flags & 2 == 0 {
            place = self.take::<u32>(count as usize)?;
            length = count;
            To::Place(place, 0)
        } else {
            To::Nowhere
        };
        let index = self.elements;
        let words = index as usize * segment::WORDS;
        self.region.set_number(self.element_place, words + segment::PLACE, place.0);
        self.region.set_number(self.element_place, words + segment::LENGTH, length);
        self.region.slice_mut::<u8>(self.element_types, index as usize + 1)[index as usize] =
            value_type.byte();
        self.elements += 1;
        self.phase = Phase::References { left: count, to, expressions };
        Ok(())
    }

    fn references(
        &mut self,
        source: &mut dyn Source,
        left: u32,
        to: To,
        expressions: bool,
    ) -> Result<(), Failed> {
        if left == 0 {
            self.phase = Phase::Items;
            return Ok(());
        }
        let value = if expressions {
            let types = self.region.slice::<u8>(self.element_types, self.elements as usize);
            let value_type = ValueType::known(types.last().copied().unwrap_or_default());
            self.constant_expression(source, value_type)? as u32
        } else {
            let function = self.reader.number(source)?;
            self.declare(function)?;
            function + 1
        };
        let to = match to {
            To::Place(place, at) => {
                self.region.set_number(place, at as usize, value);
                To::Place(place, at + 1)
            }
            To::Nowhere => to,
        };
        self.phase = Phase::References { left: left - 1, to, expressions };
        Ok(())
    }

    /// That there is such an element segment; answers its type.
    pub(crate) fn check_elements(&self, index: u32) -> Result<ValueType, Failed> {
        if index >= self.elements {
            return self.fail(ErrorKind::Index { what: "element segment", index });
        }
        let types = self.region.slice::<u8>(self.element_types, self.elements as usize);
        Ok(ValueType::known(types[index as usize]))
    }

    pub(crate) fn check_data(&self, index: u32) -> Result<(), Failed> {
        if !self.has_data_count {
            return self.fail(ErrorKind::Malformed("module: data segments are used and not counted"));
        }
        if index < self.data { Ok(()) } else { self.fail(ErrorKind::Index { what: "data segment", index }) }
    }

    fn data_segment(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        let flags = self.reader.number(source)?;
        if flags > 2 {
            return self.fail(ErrorKind::Malformed("data segment"));
        }
        if flags == 2 && self.reader.number(source)? != 0 {
            return self.fail(ErrorKind::Index { what: "memory", index: 1 });
        }
        let mut offset = None;
        if flags != 1 {
            self.check_memory()?;
            offset = Some(self.constant_expression(source, ValueType::I32)? as u32);
        }
        let length = self.reader.number(source)?;
        if self.reader.position().checked_add(length).is_none_or(|end| end > self.section_end) {
            return self.fail(ErrorKind::End);
        }
        let (mut place, mut kept) = (Place(0), 0);
        let to = match offset {
            Some(offset) => {
                if offset.checked_add(length).is_none_or(|end| end > self.memory_bytes) {
                    return self.fail(ErrorKind::SegmentOutOfBounds);
                }
                self.memory_place.0 + offset
            }
            None if self.has_data_count => {
                place = self.take::<u8>(length as usize)?;
                kept = length;
                place.0
            }
            None => {
                self.reader.skip(length)?;
                return Ok(());
            }
        };
        if self.has_data_count {
            let words = self.segments_done as usize * segment::WORDS;
            self.region.set_number(self.data_place, words + segment::PLACE, place.0);
            self.region.set_number(self.data_place, words + segment::LENGTH, kept);
            self.segments_done += 1;
        }
        self.phase = Phase::Bytes { left: length, to };
        Ok(())
    }

    fn bytes(&mut self, source: &mut dyn Source, left: u32, to: u32) -> Result<(), Failed> {
        let part = left.min(64);
        self.work += part / 8;
        let bytes = self.region.slice_mut::<u8>(Place(to), part as usize);
        self.reader.bytes(source, bytes)?;
        self.phase =
            if part == left { Phase::Items } else { Phase::Bytes { left: left - part, to: to + part } };
        Ok(())
    }

    // Code.

    /// Begins the code: what the outermost function returns to, and functions in whose place the host stands.
    fn set_up_code(&mut self) -> Result<(), Failed> {
        let place = self.take::<u16>(0)?;
        self.emit.code = place;
        self.emit.capacity = (self.region.free() / 2) as u32;
        self.emit.position = 0;
        self.emit.dead = false;
        self.word(crate::generated::op::HALT)?;
        for import in 0..self.imports {
            if self.is_declared(import) || self.start == Some(import) {
                self.host_function(import)?;
            }
        }
        Ok(())
    }

    fn host_function(&mut self, import: u32) -> Result<(), Failed> {
        let type_index = self.type_of_function(import);
        let (parameters, results) = self.function_type(type_index).slots();
        let save = parameters.max(results) as u16 * 4;
        self.set_function_place(import, self.emit.position);
        for word in [self.canonical_type(type_index), save + 8, 0, save, 0] {
            self.word(word)?;
        }
        for word in [crate::generated::op::HOST, 0, import as u16, crate::generated::op::RETURN, save] {
            self.word(word)?;
        }
        Ok(())
    }

    fn begin_body(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        let size = self.reader.number(source)?;
        self.body_offset = self.reader.position();
        let end = self.body_offset.checked_add(size).filter(|end| *end <= self.section_end);
        let Some(end) = end else { return self.fail(ErrorKind::End) };
        self.reader.set_end(end);
        self.far = false;
        self.needs_far = false;
        self.operator_offset = self.body_offset;
        self.begin_function()?;
        self.phase = Phase::Locals { left: u32::MAX };
        Ok(())
    }

    /// Translates a function from its beginning, with branches that reach farther.
    fn restart_function(&mut self) -> Result<(), Failed> {
        self.far = true;
        self.needs_far = false;
        self.fixing = None;
        self.targets = None;
        self.emit.position = self.function_start;
        self.reader.seek(self.body_offset);
        self.begin_function()?;
        self.phase = Phase::Locals { left: u32::MAX };
        Ok(())
    }

    /// Reads how many groups of locals there are, or one of them.
    fn local_group(&mut self, source: &mut dyn Source, left: u32) -> Result<(), Failed> {
        let left = match left {
            u32::MAX => self.reader.number(source)?,
            left => {
                let count = self.reader.number(source)?;
                let value_type = self.reader.value_type(source)?;
                self.add_locals(count, value_type)?;
                left - 1
            }
        };
        if left == u32::MAX {
            return self.fail(ErrorKind::Limit { what: "groups of locals", limit: u32::MAX - 1 });
        }
        self.phase = Phase::Locals { left };
        if left == 0 {
            self.end_locals();
            self.phase = Phase::Operators;
        }
        Ok(())
    }

    fn next_operator(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        if self.targets.is_some() {
            return self.next_targets(source);
        }
        if self.frames > 0 {
            return self.operator(source);
        }
        // Not with its last operator: the branches to the function's end, resolved since, may have to be far ones.
        self.function += 1;
        self.reader.set_end(self.section_end);
        self.phase = Phase::Items;
        Ok(())
    }

    fn end_module(&mut self) -> Result<(), Failed> {
        if !self.has_functions {
            self.set_up_functions(0)?;
        }
        if !self.has_code {
            if self.functions != self.imports {
                return self.fail(ErrorKind::Malformed("number of functions with code"));
            }
            self.set_up_code()?;
            let end = self.emit.code.0 as usize + self.emit.position as usize * 2;
            self.region.advance_to(end);
        }
        if self.has_data_count && self.segments_done != self.data {
            return self.fail(ErrorKind::Malformed("number of data segments"));
        }
        self.phase = Phase::Done;
        Ok(())
    }
}

/// A type of a module.
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
