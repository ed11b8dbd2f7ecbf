//! Functions' bodies: locals, operators, nesting and the height of the operand stack.

use crate::error::ScanError;
use crate::features::Features;
use crate::operators::{
    Immediate, MEMORY_GROW, Plain, TABLE_GROW, foreign_operator, plain_operator, prefixed_operator,
};
use crate::reader::{Reader, value_type};
use crate::state::{Body, Frame, FrameKind, Phase, Scan};

impl Scan {
    /// Begins the body of the function with this index, imports counted: its locals.
    pub(crate) fn begin_body(&mut self, reader: &mut Reader<'_>, function: u32) -> Result<(), ScanError> {
        self.scan_locals(reader, function)?;
        let results = self.arity_of_function(function, reader)?.1;
        let mut frames = core::mem::take(&mut self.body.frames);
        frames.clear();
        frames.try_reserve(8).map_err(|_| ScanError::NoMemory)?;
        frames.push(Frame { base: 0, params: 0, results, kind: FrameKind::Function });
        self.body = Body { function, frames, height: 0 };
        Ok(())
    }

    /// The operator that comes next; false if that was the body's last one.
    pub(crate) fn next_operator(&mut self, reader: &mut Reader<'_>) -> Result<bool, ScanError> {
        if !self.body.frames.is_empty() {
            let operator = reader.byte()?;
            self.operator(operator, reader)?;
            return Ok(true);
        }
        if reader.is_empty() { Ok(false) } else { Err(reader.malformed("bytes after the end of a function")) }
    }

    /// A target of a `br_table`, of which `left` come after it.
    pub(crate) fn branch_target(&mut self, reader: &mut Reader<'_>, left: u32) -> Result<(), ScanError> {
        self.label(reader)?;
        self.phase = match left {
            0 => {
                self.leave();
                Phase::Operators
            }
            left => Phase::Targets { left: left - 1 },
        };
        Ok(())
    }

    fn scan_locals(&mut self, reader: &mut Reader<'_>, function: u32) -> Result<(), ScanError> {
        let groups = reader.u32()?;
        let limit = self.limits.local_groups;
        if groups > limit {
            return Err(ScanError::TooManyLocalGroups { function, count: groups, limit });
        }
        self.work(groups);
        let mut locals = 0u64;
        for _ in 0..groups {
            locals += u64::from(reader.u32()?);
            if let Err(feature) = reader.value_type()? {
                self.need(feature, Some(function))?;
            }
        }
        let limit = self.limits.locals;
        if locals > u64::from(limit) {
            return Err(ScanError::TooManyLocals { function, count: locals, limit });
        }
        Ok(())
    }

    fn operator(&mut self, operator: u8, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        match operator {
            0x00 => self.leave(), // unreachable
            0x0f => {
                let results = self.body.frames.first().map_or(0, |function| function.results);
                self.carry(results, self.body.function)?;
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
                let arity = self.arity_of_function(function, reader)?;
                self.call(arity)?;
            }
            0x11 => self.call_indirect(reader)?,
            0x12 => {
                self.need(Features::TAIL_CALL, Some(self.body.function))?;
                let function = reader.u32()?;
                let arity = self.arity_of_function(function, reader)?;
                self.call(arity)?;
                self.leave();
            }
            0x13 => {
                self.need(Features::TAIL_CALL, Some(self.body.function))?;
                self.call_indirect(reader)?;
                self.leave();
            }
            0x1c => self.typed_select(reader)?,
            0xfc => self.prefixed(reader)?,
            _ => match plain_operator(operator) {
                Some(plain) => {
                    if operator == MEMORY_GROW {
                        self.info.grows_memory = true;
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
            Some(feature) => ScanError::Unsupported { feature, function: Some(self.body.function) },
            None => ScanError::UnknownOperator { function: self.body.function, operator },
        }
    }

    fn plain(&mut self, plain: Plain, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        if !plain.feature.is_empty() {
            self.need(plain.feature, Some(self.body.function))?;
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
                self.reference_type(reader, Some(self.body.function))?;
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
            return Err(ScanError::UnknownOperator { function: self.body.function, operator: 0xfc });
        };
        self.grows_tables |= number == TABLE_GROW;
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
        match self.data_segments {
            None => Err(reader.malformed("data segments that are used and not counted")),
            Some(count) if segment >= count => Err(reader.malformed("a data segment that isn't there")),
            Some(_) => Ok(()),
        }
    }

    fn element_segment(&self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        match reader.u32()? {
            segment if segment < self.element_segments => Ok(()),
            _ => Err(reader.malformed("an element segment that isn't there")),
        }
    }

    fn call(&mut self, (params, results): (u32, u32)) -> Result<(), ScanError> {
        self.carry(params + results, self.body.function)?;
        self.pop(params);
        self.push(results)
    }

    fn call_indirect(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let type_index = reader.u32()?;
        let before = reader.position();
        let table = reader.u32()?;
        // WebAssembly 1.0 has one zero byte here; linkers that know several tables write five.
        if table != 0 || reader.position() - before != 1 {
            self.need(Features::REFERENCE_TYPES, Some(self.body.function))?;
        }
        let arity = self.arity_of_type(type_index, reader)?;
        self.pop(1);
        self.call(arity)
    }

    fn typed_select(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        self.need(Features::REFERENCE_TYPES, Some(self.body.function))?;
        if reader.u32()? != 1 {
            return Err(reader.malformed("a select of other than one type"));
        }
        if let Err(feature) = reader.value_type()? {
            self.need(feature, Some(self.body.function))?;
        }
        self.pop(3);
        self.push(1)
    }

    fn branch_table(&mut self, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let count = reader.u32()?;
        let (function, limit) = (self.body.function, self.limits.branch_targets);
        if count > limit {
            return Err(ScanError::TooManyTargets { function, count, limit });
        }
        self.pop(1);
        self.phase = Phase::Targets { left: count };
        Ok(())
    }

    /// How many values a branch to the label that comes next carries.
    fn label(&mut self, reader: &mut Reader<'_>) -> Result<u32, ScanError> {
        let label = reader.u32()? as usize;
        let frame = self.body.frames.len().checked_sub(label + 1).and_then(|at| self.body.frames.get(at));
        let frame = frame.ok_or_else(|| reader.malformed("a branch to a block that isn't there"))?;
        let carried = if frame.kind == FrameKind::Loop { frame.params } else { frame.results };
        self.carry(carried, self.body.function)?;
        Ok(carried)
    }

    fn enter(&mut self, kind: FrameKind, reader: &mut Reader<'_>) -> Result<(), ScanError> {
        let (params, results) = self.block_type(reader)?;
        let limit = self.limits.control_depth;
        if self.body.frames.len() > limit as usize {
            return Err(ScanError::NestedTooDeep { function: self.body.function, limit });
        }
        self.carry(params + results, self.body.function)?;
        self.pop(params);
        let frame = Frame { base: self.body.height, params, results, kind };
        self.body.frames.try_reserve(1).map_err(|_| ScanError::NoMemory)?;
        self.body.frames.push(frame);
        self.push(params)
    }

    fn block_type(&mut self, reader: &mut Reader<'_>) -> Result<(u32, u32), ScanError> {
        const EMPTY: i64 = -64;
        let type_index = reader.s33()?;
        if type_index == EMPTY {
            return Ok((0, 0));
        }
        if let Ok(type_index) = u32::try_from(type_index) {
            self.need(Features::MULTI_VALUE, Some(self.body.function))?;
            return self.arity_of_type(type_index, reader);
        }
        let byte = (type_index & 0x7f) as u8;
        match value_type(byte).filter(|_| type_index >= EMPTY) {
            Some(Ok(_)) => Ok((0, 1)),
            Some(Err(feature)) => self.need(feature, Some(self.body.function)).map(|()| (0, 1)),
            None => Err(reader.malformed("an unknown block type")),
        }
    }

    fn enter_else(&mut self, reader: &Reader<'_>) -> Result<(), ScanError> {
        match self.body.frames.last_mut() {
            Some(frame) if frame.kind == FrameKind::If => {
                frame.kind = FrameKind::Else;
                self.body.height = frame.base;
                let params = frame.params;
                self.push(params)
            }
            _ => Err(reader.malformed("an else without its if")),
        }
    }

    fn end(&mut self, reader: &Reader<'_>) -> Result<(), ScanError> {
        let frame = self.body.frames.pop().ok_or_else(|| reader.malformed("an end without its block"))?;
        self.body.height = frame.base;
        self.push(frame.results)
    }

    fn leave(&mut self) {
        if let Some(frame) = self.body.frames.last() {
            self.body.height = frame.base;
        }
    }

    /// Pops, but never what lies below the block: a module that tries is invalid, and the engine rejects it.
    fn pop(&mut self, count: u32) {
        let base = self.body.frames.last().map_or(0, |frame| frame.base);
        self.body.height = self.body.height.saturating_sub(count).max(base);
    }

    fn push(&mut self, count: u32) -> Result<(), ScanError> {
        self.body.height = self.body.height.saturating_add(count);
        let limit = self.limits.operand_depth;
        if self.body.height > limit {
            return Err(ScanError::OperandsTooDeep { function: self.body.function, limit });
        }
        Ok(())
    }

    fn unsupported(&self, feature: Features) -> ScanError {
        ScanError::Unsupported { feature, function: Some(self.body.function) }
    }
}
