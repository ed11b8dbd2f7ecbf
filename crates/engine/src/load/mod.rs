//! The loader: one pass over a module, in steps of bounded work, that validates it, sets up its memory and translates its
//! functions.
//!
//! ```text
//! Start -> Section -> Items -> Section -> ...
//!                      | ^
//!                      +-+-- References, Bytes, Zero: what an item consists of
//!                      +-+-- Locals -> Operators: a function
//! Section -> Depth, when all is read -> Done
//! any of them -> Failed, for good
//! ```

mod code;
mod constant;
mod depth;
pub(crate) mod exports;
mod functions;
mod order;
mod segments;
mod state;
mod storage;

use state::{Depth, EXPORTS, GLOBALS, IMPORTS, NAME_BYTES, Order, PAGE, Phase, SEGMENTS, TYPES};

use crate::error::{Error, ErrorKind};
use crate::machine::{segment, table};
use crate::reader::{Failed, Reader, Source};
use crate::region::{Full, Place, Region};
use crate::trace::Trace;
use crate::translate::scratch::{Emitter, Fixing, Scratch, TABLES, Targets};
use crate::types::FunctionType;

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
    /// 32-bit slots of the call stack at most: a module whose calls can't go as deep gets what it can need.
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

/// Order of sections: that of their numbers, but for the data count.
fn order(section: u8) -> u8 {
    match section {
        12 => 10,
        10 | 11 => section + 1,
        _ => section,
    }
}

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
    /// Of the types or exports, while there may be more.
    order: Order,
    has_data_count: bool,
    has_code: bool,
    pub(crate) depth: Depth,

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
    /// Whose places are sought: then only the code counts.
    pub(crate) trace: Option<Trace>,
}

impl<'m> Loader<'m> {
    /// Bytes that loading needs beside what the instance keeps.
    pub const SCRATCH_BYTES: usize = Scratch::WORDS * 8;

    /// Begins to load a module into this block; `None` if it has no room even for the loader's own stacks.
    pub fn new(block: &'m mut [u64], source: &dyn Source, config: Config) -> Option<Loader<'m>> {
        let (region, end) = Region::split(block, Scratch::WORDS)?;
        Some(Loader {
            region,
            scratch: Scratch::in_block(end),
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
            order: Order::NONE,
            has_data_count: false,
            has_code: false,
            depth: Depth::new(),
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
            trace: None,
        })
    }

    /// Bytes of the block that loading took so far, at most: a block of as many is enough for it, though the instance may
    /// need more.
    pub fn bytes_most(&self) -> usize {
        self.region.most_bytes().next_multiple_of(8) + Self::SCRATCH_BYTES
    }

    /// Begins to load a module once more, to find what of it a trace's places came from; it is ready for nothing else. The
    /// block needs what loading it took, but for linear memory and the call stack.
    pub fn locate(block: &'m mut [u64], source: &dyn Source, trace: Trace) -> Option<Loader<'m>> {
        let config = Config { stack_slots: 0, memory_bytes: u32::MAX, table_growth: 0 };
        let mut loader = Loader::new(block, source, config)?;
        loader.trace = Some(trace);
        Some(loader)
    }

    /// The trace whose places were sought, with them; `None` while they are, and where a module is being loaded.
    pub fn into_trace(self) -> Option<Trace> {
        let is_done = self.is_done();
        self.trace.filter(|_| is_done)
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

    pub(crate) fn step_on(
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

    pub(crate) fn advance(&mut self, source: &mut dyn Source, imports: &dyn Imports) -> Result<(), Failed> {
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
            Phase::Depth => self.depth(),
            Phase::Done => Ok(()),
            Phase::Failed(_) => Err(Failed),
        }
    }

    pub(crate) fn fail<R>(&self, kind: ErrorKind) -> Result<R, Failed> {
        Err(self.reader.error(kind))
    }

    pub(crate) fn room<R>(&self, taken: Result<R, Full>) -> Result<R, Failed> {
        taken.map_err(|full| {
            self.reader.error(ErrorKind::Memory { needed: u32::try_from(full.needed).unwrap_or(u32::MAX) })
        })
    }

    pub(crate) fn take<T: crate::region::Plain>(&mut self, count: usize) -> Result<Place, Failed> {
        let taken = self.region.take::<T>(count);
        self.room(taken)
    }

    pub(crate) fn limited(&self, count: u32, limit: u32, what: &'static str) -> Result<u32, Failed> {
        if count > limit { self.fail(ErrorKind::Limit { what, limit }) } else { Ok(count) }
    }

    // Sections.

    pub(crate) fn start(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        let header = self.reader.long_word(source);
        if header? != 0x0000_0001_6d73_6100 {
            return self.fail(ErrorKind::NotAModule);
        }
        self.phase = Phase::Section;
        Ok(())
    }

    pub(crate) fn begin_section(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
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
    pub(crate) fn set_up(&mut self, section: u8) -> Result<(), Failed> {
        let items = self.items;
        match section {
            1 => {
                self.types = 0;
                self.limited(items, TYPES, "types")?;
                self.type_place = self.take::<u32>(items as usize * 2)?;
                self.begin_order(items)?;
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
                self.begin_order(items)?;
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

    pub(crate) fn item(&mut self, source: &mut dyn Source, imports: &dyn Imports) -> Result<(), Failed> {
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

    pub(crate) fn end_section(&mut self) -> Result<(), Failed> {
        if !self.reader.is_done() {
            return self.fail(ErrorKind::Size);
        }
        match self.section {
            1 | 7 => self.end_order(),
            6 => {
                // Globals that are one slot leave room.
                let end = self.global_place.0 as usize + self.global_slots as usize * 4;
                self.region.truncate(end);
            }
            10 => {
                self.has_code = true;
                let end = self.emit.code.0 as usize + self.emit.position as usize * 2;
                self.region.advance_to(end);
                if self.trace.is_some() {
                    self.phase = Phase::Done;
                    return Ok(());
                }
            }
            _ => {}
        }
        self.reader.set_end(self.module_end);
        self.phase = Phase::Section;
        Ok(())
    }
}
