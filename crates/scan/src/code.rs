//! One function's body: its locals, its operators, its nesting and the height of its operand stack.

use alloc::vec::Vec;

use crate::error::ScanError;
use crate::features::Features;
use crate::operators::{
    Immediate, MEMORY_GROW, Plain, TABLE_GROW, foreign_operator, plain_operator, prefixed_operator,
};
use crate::reader::{Reader, value_type};
use crate::state::Scan;

/// A block under way.
struct Frame {
    /// Operand height at its start, its parameters taken off.
    base: u32,
    params: u32,
    results: u32,
    kind: FrameKind,
}

#[derive(PartialEq, Eq)]
enum FrameKind {
    Function,
    Block,
    Loop,
    If,
    Else,
}

struct Body<'s, 'm, 'l> {
    scan: &'s mut Scan<'m, 'l>,
    /// Its index with the imports, as tools print it.
    function: u32,
    frames: Vec<Frame>,
    height: u32,
}

/// Scans the body of the function with this index, imports counted.
pub(crate) fn scan_body(
    scan: &mut Scan<'_, '_>,
    reader: &mut Reader<'_>,
    function: u32,
) -> Result<(), ScanError> {
    scan_locals(scan, reader, function)?;
    let results = scan.arity_of_function(function, reader)?.1;
    let mut frames = Vec::new();
    frames.try_reserve_exact(8).map_err(|_| ScanError::NoMemory)?;
    frames.push(Frame { base: 0, params: 0, results, kind: FrameKind::Function });
    let mut body = Body { scan, function, frames, height: 0 };
    while !body.frames.is_empty() {
        let operator = reader.byte()?;
        body.operator(operator, reader)?;
    }
    if reader.is_empty() { Ok(()) } else { Err(reader.malformed("bytes after the end of a function")) }
}

fn scan_locals(scan: &mut Scan<'_, '_>, reader: &mut Reader<'_>, function: u32) -> Result<(), ScanError> {
    let groups = reader.u32()?;
    let limit = scan.limits.local_groups;
    if groups > limit {
        return Err(ScanError::TooManyLocalGroups { function, count: groups, limit });
    }
    let mut locals = 0u64;
    for _ in 0..groups {
        locals += u64::from(reader.u32()?);
        if let Err(feature) = reader.value_type()? {
            scan.need(feature, Some(function))?;
        }
    }
    let limit = scan.limits.locals;
    if locals > u64::from(limit) {
        return Err(ScanError::TooManyLocals { function, count: locals, limit });
    }
    Ok(())
}

impl Body<'_, '_, '_> {
    fn operator(&mut self, operator: u8, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        match operator {
            0x00 => self.leave(), // unreachable
            0x0f => {
                let results = self.frames.first().map_or(0, |function| function.results);
                self.scan.carry(results, self.function)?;
                self.leave();
            }
            0x02 => self.enter(FrameKind::Block, reader)?,
            0x03 => self.enter(FrameKind::Loop, reader)?,
            0x04 => {
                self.pop(1);
                self.enter(FrameKind::If, reader)?;
            }
            0x05 => self.enter_else(reader)?,
            0x0b => self.end(reader)?,
            0x0c => {
                self.label(reader)?;
                self.leave();
            }
            0x0d => {
                self.pop(1);
                let carried = self.label(reader)?;
                // Behind a branch that is always taken there are as many values afterwards, whatever was there before.
                self.pop(carried);
                self.push(carried)?;
            }
            0x0e => self.branch_table(reader)?,
            0x10 => {
                let function = reader.u32()?;
                let arity = self.scan.arity_of_function(function, reader)?;
                self.call(arity)?;
            }
            0x11 => self.call_indirect(reader)?,
            0x12 => {
                self.scan.need(Features::TAIL_CALL, Some(self.function))?;
                let function = reader.u32()?;
                let arity = self.scan.arity_of_function(function, reader)?;
                self.call(arity)?;
                self.leave();
            }
            0x13 => {
                self.scan.need(Features::TAIL_CALL, Some(self.function))?;
                self.call_indirect(reader)?;
                self.leave();
            }
            0x1c => self.typed_select(reader)?,
            0xfc => self.prefixed(reader)?,
            _ => match plain_operator(operator) {
                Some(plain) => {
                    if operator == MEMORY_GROW {
                        self.scan.info.grows_memory = true;
                    }
                    self.plain(plain, reader)?;
                }
                None => return Err(self.foreign(operator)),
            },
        }
        Ok(())
    }

    /// An operator whose immediates are not known here ends the scan, whatever features are allowed.
    fn foreign(&self, operator: u8) -> ScanError {
        match foreign_operator(operator) {
            Some(feature) => ScanError::Unsupported { feature, function: Some(self.function) },
            None => ScanError::UnknownOperator { function: self.function, operator },
        }
    }

    fn plain(&mut self, plain: Plain, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        if !plain.feature.is_empty() {
            self.scan.need(plain.feature, Some(self.function))?;
        }
        match plain.immediate {
            Immediate::Nothing => {}
            Immediate::Index => {
                reader.u32()?;
            }
            Immediate::Memory => {
                let alignment = reader.u32()?;
                if alignment >= 64 {
                    return Err(self.unsupported(Features::MULTI_MEMORY));
                }
                reader.u32()?;
            }
            Immediate::MemoryIndex => {
                self.memory_index(reader)?;
            }
            Immediate::MemoryIndices => {
                self.memory_index(reader)?;
                self.memory_index(reader)?;
            }
            Immediate::DataAndMemory => {
                self.data_segment(reader)?;
                self.memory_index(reader)?;
            }
            Immediate::Data => self.data_segment(reader)?,
            Immediate::Elements => self.element_segment(reader)?,
            Immediate::ElementsAndTable => {
                self.element_segment(reader)?;
                reader.u32()?;
            }
            Immediate::Tables => {
                reader.u32()?;
                reader.u32()?;
            }
            Immediate::ReferenceType => {
                self.scan.reference_type(reader, Some(self.function))?;
            }
            Immediate::I32 => {
                reader.s32()?;
            }
            Immediate::I64 => {
                reader.s64()?;
            }
            Immediate::Raw(length) => {
                reader.bytes(length)?;
            }
        }
        self.pop(plain.pops);
        self.push(plain.pushes)
    }

    fn prefixed(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let number = reader.u32()?;
        let Some(plain) = prefixed_operator(number) else {
            return Err(ScanError::UnknownOperator { function: self.function, operator: 0xfc });
        };
        self.scan.grows_tables |= number == TABLE_GROW;
        self.plain(plain, reader)
    }

    fn memory_index(&self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        match reader.byte()? {
            0 => Ok(()),
            _ => Err(self.unsupported(Features::MULTI_MEMORY)),
        }
    }

    fn data_segment(&self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let segment = reader.u32()?;
        match self.scan.data_segments {
            None => Err(reader.malformed("data segments that are used and not counted")),
            Some(count) if segment >= count => Err(reader.malformed("a data segment that isn't there")),
            Some(_) => Ok(()),
        }
    }

    fn element_segment(&self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        match reader.u32()? {
            segment if segment < self.scan.element_segments => Ok(()),
            _ => Err(reader.malformed("an element segment that isn't there")),
        }
    }

    fn call(&mut self, (params, results): (u32, u32)) -> Result<(), ScanError> {
        self.scan.carry(params + results, self.function)?;
        self.pop(params);
        self.push(results)
    }

    fn call_indirect(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let type_index = reader.u32()?;
        let before = reader.position();
        let table = reader.u32()?;
        // WebAssembly 1.0 has one zero byte here; linkers that know several tables write five.
        if table != 0 || reader.position() - before != 1 {
            self.scan.need(Features::REFERENCE_TYPES, Some(self.function))?;
        }
        let arity = self.scan.arity_of_type(type_index, reader)?;
        self.pop(1);
        self.call(arity)
    }

    fn typed_select(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        self.scan.need(Features::REFERENCE_TYPES, Some(self.function))?;
        let types = reader.u32()?;
        for _ in 0..types {
            if let Err(feature) = reader.value_type()? {
                self.scan.need(feature, Some(self.function))?;
            }
        }
        self.pop(3);
        self.push(1)
    }

    fn branch_table(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let count = reader.u32()?;
        let (function, limit) = (self.function, self.scan.limits.branch_targets);
        if count > limit {
            return Err(ScanError::TooManyTargets { function, count, limit });
        }
        self.pop(1);
        for _ in 0..count {
            self.label(reader)?;
        }
        self.label(reader)?;
        self.leave();
        Ok(())
    }

    /// How many values a branch to the label that comes next carries.
    fn label(&mut self, reader: &mut Reader<'_>) -> Result<u32, ScanError> {
        let label = reader.u32()? as usize;
        let frame = self.frames.len().checked_sub(label + 1).and_then(|at| self.frames.get(at));
        let frame = frame.ok_or_else(|| reader.malformed("a branch to a block that isn't there"))?;
        let carried = if frame.kind == FrameKind::Loop { frame.params } else { frame.results };
        self.scan.carry(carried, self.function)?;
        Ok(carried)
    }

    fn enter(&mut self, kind: FrameKind, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let (params, results) = self.block_type(reader)?;
        let limit = self.scan.limits.control_depth;
        if self.frames.len() > limit as usize {
            return Err(ScanError::NestedTooDeep { function: self.function, limit });
        }
        self.scan.carry(params + results, self.function)?;
        self.pop(params);
        let frame = Frame { base: self.height, params, results, kind };
        self.frames.try_reserve(1).map_err(|_| ScanError::NoMemory)?;
        self.frames.push(frame);
        self.push(params)
    }

    fn block_type(&mut self, reader: &mut Reader<'_>) -> Result<(u32, u32), ScanError> {
        const EMPTY: i64 = -64;
        let type_index = reader.s33()?;
        if type_index == EMPTY {
            return Ok((0, 0));
        }
        if let Ok(type_index) = u32::try_from(type_index) {
            self.scan.need(Features::MULTI_VALUE, Some(self.function))?;
            return self.scan.arity_of_type(type_index, reader);
        }
        let byte = (type_index & 0x7f) as u8;
        match value_type(byte).filter(|_| type_index >= EMPTY) {
            Some(Ok(_)) => Ok((0, 1)),
            Some(Err(feature)) => self.scan.need(feature, Some(self.function)).map(|()| (0, 1)),
            None => Err(reader.malformed("an unknown block type")),
        }
    }

    fn enter_else(&mut self, reader: &Reader<'_>) -> Result<(), ScanError> {
        match self.frames.last_mut() {
            Some(frame) if frame.kind == FrameKind::If => {
                frame.kind = FrameKind::Else;
                self.height = frame.base;
                let params = frame.params;
                self.push(params)
            }
            _ => Err(reader.malformed("an else without its if")),
        }
    }

    fn end(&mut self, reader: &Reader<'_>) -> Result<(), ScanError> {
        let frame = self.frames.pop().ok_or_else(|| reader.malformed("an end without its block"))?;
        self.height = frame.base;
        self.push(frame.results)
    }

    fn leave(&mut self) {
        if let Some(frame) = self.frames.last() {
            self.height = frame.base;
        }
    }

    /// Pops, but never what lies below the block: a module that tries is invalid, and the engine rejects it.
    fn pop(&mut self, count: u32) {
        let base = self.frames.last().map_or(0, |frame| frame.base);
        self.height = self.height.saturating_sub(count).max(base);
    }

    fn push(&mut self, count: u32) -> Result<(), ScanError> {
        self.height = self.height.saturating_add(count);
        let limit = self.scan.limits.operand_depth;
        if self.height > limit {
            return Err(ScanError::OperandsTooDeep { function: self.function, limit });
        }
        Ok(())
    }

    fn unsupported(&self, feature: Features) -> ScanError {
        ScanError::Unsupported { feature, function: Some(self.function) }
    }
}
