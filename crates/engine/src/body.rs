//! The body of a function: validation and translation in one pass over its operators.
//!
//! The operand stack of validation says of each value where it is: `local.get` and constants write no code, the result of
//! a 32-bit operator stays in the accumulator until something else needs it. Values are put into their own slots where
//! blocks begin, where a branch carries them, and as arguments of calls.

use crate::emit::{LAZY, bytes, fits};
use crate::error::ErrorKind;
use crate::generated::{NUMERICS, Numeric, family, op, rare};
use crate::load::Loader;
use crate::machine::header;
use crate::reader::{Failed, Source};
use crate::scratch::{BlockType, Construct, Entry, FRAMES, Frame, Kind, LOCALS, NONE, OPERANDS};
use crate::types::ValueType;

/// Slots of a frame: their places are 16-bit bytes.
const FRAME_SLOTS: u32 = 16_383;

use ValueType as T;

impl Loader<'_> {
    // The operand stack.

    pub(crate) fn invalid<R>(&self, kind: ErrorKind) -> Result<R, Failed> {
        Err(self.reader.error_at(kind, self.operator_offset))
    }

    pub(crate) fn frame(&self, depth: u32) -> Result<Frame, Failed> {
        match (self.frames as u32).checked_sub(depth.saturating_add(1)) {
            Some(index) => Ok(self.scratch.frames[index as usize]),
            None => self.invalid(ErrorKind::Index { what: "label", index: depth }),
        }
    }

    fn innermost(&mut self) -> &mut Frame {
        let index = self.frames - 1;
        &mut self.scratch.frames[index]
    }

    pub(crate) fn push(&mut self, value_type: T, kind: Kind, value: u32) -> Result<(), Failed> {
        if self.height >= OPERANDS {
            return self.invalid(ErrorKind::Limit { what: "operands", limit: OPERANDS as u32 });
        }
        self.scratch.entries[self.height] = Entry { value_type, kind, slot: self.slot, value };
        self.height += 1;
        self.slot += value_type.slots();
        if self.slot > self.slots_max {
            self.slots_max = self.slot;
            if u32::from(self.slot) > FRAME_SLOTS {
                return self.invalid(ErrorKind::Limit { what: "slots of a function", limit: FRAME_SLOTS });
            }
        }
        if self.height > LAZY {
            self.settle(self.height - 1 - LAZY)?;
        }
        Ok(())
    }

    pub(crate) fn pop(&mut self) -> Result<Entry, Failed> {
        let frame = self.scratch.frames[self.frames - 1];
        if self.height == usize::from(frame.height) {
            if frame.unreachable {
                return Ok(Entry { value_type: T::UNKNOWN, kind: Kind::Slot, slot: self.slot, value: 0 });
            }
            return self.invalid(ErrorKind::StackEmpty);
        }
        self.height -= 1;
        let entry = self.scratch.entries[self.height];
        self.slot = entry.slot;
        Ok(entry)
    }

    pub(crate) fn pop_type(&mut self, expected: T) -> Result<Entry, Failed> {
        let mut entry = self.pop()?;
        if entry.value_type == T::UNKNOWN {
            entry.value_type = expected;
        } else if entry.value_type != expected && expected != T::UNKNOWN {
            return self.invalid(ErrorKind::Type { expected, found: entry.value_type });
        }
        Ok(entry)
    }

    /// Code behind this can't be reached.
    pub(crate) fn set_unreachable(&mut self) {
        self.innermost().unreachable = true;
        let frame = *self.innermost();
        self.height = usize::from(frame.height);
        self.slot = frame.slot;
        self.emit.dead = true;
        self.seal();
    }

    // Types of blocks.

    pub(crate) fn block_types(&self, block_type: BlockType, results: bool) -> usize {
        match block_type {
            BlockType::EMPTY => 0,
            BlockType(value) if value >= 1 << 31 => usize::from(results),
            BlockType(index) => {
                let function = self.function_type(index);
                if results { function.results.len() } else { function.parameters.len() }
            }
        }
    }

    pub(crate) fn block_type_at(&self, block_type: BlockType, results: bool, at: usize) -> T {
        match block_type {
            BlockType(value) if value >= 1 << 31 => T::known(value as u8),
            BlockType(index) => {
                let function = self.function_type(index);
                T::known(if results { function.results[at] } else { function.parameters[at] })
            }
        }
    }

    fn block_slots(&self, block_type: BlockType, results: bool) -> u32 {
        (0..self.block_types(block_type, results))
            .map(|at| u32::from(self.block_type_at(block_type, results, at).slots()))
            .sum()
    }

    pub(crate) fn pop_types(&mut self, block_type: BlockType, results: bool) -> Result<(), Failed> {
        let count = self.block_types(block_type, results);
        self.count_values(count);
        for at in (0..count).rev() {
            self.pop_type(self.block_type_at(block_type, results, at))?;
        }
        Ok(())
    }

    /// An operator that takes or leaves many values is more work than others.
    fn count_values(&mut self, count: usize) {
        self.work += count as u32 / 4;
    }

    pub(crate) fn push_types(&mut self, block_type: BlockType, results: bool) -> Result<(), Failed> {
        let count = self.block_types(block_type, results);
        self.count_values(count);
        for at in 0..count {
            self.push(self.block_type_at(block_type, results, at), Kind::Slot, 0)?;
        }
        Ok(())
    }

    /// Checks the values on top of the stack, and gives those that nobody knows their types.
    pub(crate) fn check_types(&mut self, block_type: BlockType, results: bool) -> Result<(), Failed> {
        let count = self.block_types(block_type, results);
        let frame = self.scratch.frames[self.frames - 1];
        if self.height - usize::from(frame.height) < count || frame.unreachable {
            self.pop_types(block_type, results)?;
            return self.push_types(block_type, results);
        }
        self.count_values(count);
        for at in 0..count {
            let (expected, found) = (
                self.block_type_at(block_type, results, at),
                self.scratch.entries[self.height - count + at].value_type,
            );
            if expected != found {
                return self.invalid(ErrorKind::Type { expected, found });
            }
        }
        Ok(())
    }

    // The function.

    /// Begins a function whose locals come next.
    pub(crate) fn begin_function(&mut self) -> Result<(), Failed> {
        let index = self.imports + self.function;
        let type_index = self.type_of_function(index);
        let function = self.function_type(type_index);
        let (parameters, results) = function.slots();
        let count = function.parameters.len();
        self.count_values(count);
        let save = parameters.max(results);
        let mut slot = 0;
        for at in 0..count {
            let value_type = T::known(self.function_type(type_index).parameters[at]);
            self.scratch.local_types[at] = value_type.byte();
            self.scratch.local_slots[at] = slot;
            slot += value_type.slots();
        }
        self.locals = count;
        self.save = save as u16;
        self.slot = save as u16 + 2;
        self.slots_max = self.slot;
        self.height = 0;
        self.frames = 0;
        self.emit.dead = false;
        self.label();
        self.function_start = self.emit.position;
        self.set_function_place(index, self.emit.position);
        let kind = self.canonical_type(type_index);
        for word in [kind, 0, 0, self.save * 4, 0] {
            self.word(word)?;
        }
        let block_type = BlockType(type_index);
        self.push_frame(Construct::Function, block_type, false)
    }

    /// Adds locals of one type.
    pub(crate) fn add_locals(&mut self, count: u32, value_type: T) -> Result<(), Failed> {
        let all = (self.locals as u32).saturating_add(count);
        if all > LOCALS as u32 {
            return Err(self.reader.error(ErrorKind::Limit { what: "locals", limit: LOCALS as u32 }));
        }
        for _ in 0..count {
            self.scratch.local_types[self.locals] = value_type.byte();
            self.scratch.local_slots[self.locals] = self.slot;
            self.slot += value_type.slots();
            self.locals += 1;
        }
        self.slots_max = self.slots_max.max(self.slot);
        self.scratch.frames[0].slot = self.slot;
        Ok(())
    }

    /// The locals are known; operators follow.
    pub(crate) fn end_locals(&mut self) {
        let zeroed = self.slot - self.save - 2;
        self.set_code(self.function_start + header::ZEROED as u32, zeroed);
    }

    fn end_function(&mut self) -> Result<(), Failed> {
        let start = self.function_start;
        let bytes = (self.emit.position - start - header::WORDS as u32) * 2;
        self.set_code(start + header::FRAME as u32, self.slots_max * 4);
        // What it costs to set its locals to zero is not in the code.
        let zeroed = u32::from(self.code(start + header::ZEROED as u32));
        let cost = bytes.saturating_add(zeroed * 2).min(0xffff) as u16;
        self.set_code(start + header::COST as u32, cost);
        Ok(())
    }

    pub(crate) fn local_slot(&self, local: u32) -> u16 {
        self.scratch.local_slots[local as usize]
    }

    fn push_frame(&mut self, block: Construct, block_type: BlockType, dead: bool) -> Result<(), Failed> {
        if self.frames >= FRAMES {
            return self.invalid(ErrorKind::Limit { what: "blocks within each other", limit: FRAMES as u32 });
        }
        self.scratch.frames[self.frames] = Frame {
            block,
            unreachable: false,
            dead,
            block_type,
            height: self.height as u16,
            slot: self.slot,
            place: NONE,
            other: NONE,
            other_from: NONE,
        };
        self.frames += 1;
        Ok(())
    }

    // Operators.

    /// Reads and translates one operator.
    pub(crate) fn operator(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        self.operator_offset = self.reader.position();
        let operator = self.reader.byte(source)?;
        match operator {
            0x00 => {
                self.begin(op::UNREACHABLE)?;
                self.set_unreachable();
                Ok(())
            }
            0x01 => Ok(()),
            0x02 | 0x03 => self.block(source, operator == 0x03),
            0x04 => self.branch_on_if(source),
            0x05 => self.otherwise(),
            0x0b => self.end(),
            0x0c => {
                let depth = self.reader.number(source)?;
                self.branch(depth)
            }
            0x0d => {
                let depth = self.reader.number(source)?;
                self.branch_if(depth)
            }
            0x0e => self.branch_table(source),
            0x0f => self.branch(self.frames as u32 - 1),
            0x10 | 0x12 => {
                let function = self.reader.number(source)?;
                self.call(function, operator == 0x12)
            }
            0x11 | 0x13 => {
                let type_index = self.reader.number(source)?;
                let table = self.reader.number(source)?;
                self.call_indirect(type_index, table, operator == 0x13)
            }
            0x1a => self.pop().map(drop),
            0x1b => self.select(None),
            0x1c => {
                if self.reader.number(source)? != 1 {
                    return self.invalid(ErrorKind::Invalid("a select of other than one type"));
                }
                let value_type = self.reader.value_type(source)?;
                self.select(Some(value_type))
            }
            0x20..=0x22 => {
                let local = self.reader.number(source)?;
                self.local(operator, local)
            }
            0x23 | 0x24 => {
                let global = self.reader.number(source)?;
                self.global(global, operator == 0x24)
            }
            0x25 | 0x26 => {
                let table = self.reader.number(source)?;
                self.table_access(table, operator == 0x26)
            }
            0x28..=0x3e => self.memory_access(source, operator),
            0x3f | 0x40 => {
                if self.reader.byte(source)? != 0 {
                    return self.invalid(ErrorKind::Malformed("memory index"));
                }
                self.check_memory()?;
                self.memory_size_or_grow(operator == 0x40)
            }
            0x41 => {
                let value = self.reader.signed(source, 32)?;
                self.push(T::I32, Kind::Const, value as u32)
            }
            0x42 => {
                let value = self.reader.signed(source, 64)?;
                self.long_constant(T::I64, value as u64)
            }
            0x43 => {
                let value = self.reader.word(source)?;
                self.push(T::F32, Kind::Const, value)
            }
            0x44 => {
                let value = self.reader.long_word(source)?;
                self.long_constant(T::F64, value)
            }
            0x45..=0xc4 => self.numeric(operator),
            0xd0 => {
                let value_type = self.reader.reference_type(source)?;
                self.push(value_type, Kind::Const, 0)
            }
            0xd1 => {
                let mut entry = self.pop()?;
                if !entry.value_type.is_reference() && entry.value_type != T::UNKNOWN {
                    return self.invalid(ErrorKind::Invalid("ref.is_null of a value that is no reference"));
                }
                entry.value_type = T::I32;
                self.is_zero(entry)
            }
            0xd2 => {
                let function = self.reader.number(source)?;
                self.function_reference(function)
            }
            0xfc => {
                let operator = self.reader.number(source)?;
                self.prefixed(source, operator)
            }
            0xfd => self.invalid(ErrorKind::Unsupported("SIMD")),
            0xfe => self.invalid(ErrorKind::Unsupported("threads")),
            0x06..=0x0a | 0x18 | 0x19 | 0x1f => self.invalid(ErrorKind::Unsupported("exceptions")),
            0x14 | 0x15 | 0xd3..=0xd6 | 0xfb => {
                self.invalid(ErrorKind::Unsupported("garbage-collected types"))
            }
            _ => self.invalid(ErrorKind::Operator(operator)),
        }
    }

    fn block_type(&mut self, source: &mut dyn Source) -> Result<BlockType, Failed> {
        let begins = self.reader.position();
        let value = self.reader.signed(source, 33)?;
        if value >= 0 {
            let index = value as u32;
            if index >= self.types {
                return self.invalid(ErrorKind::Index { what: "type", index });
            }
            return Ok(BlockType(index));
        }
        if self.reader.position() - begins > 1 {
            return self.invalid(ErrorKind::Malformed("type of a block"));
        }
        match value {
            -64 => Ok(BlockType::EMPTY),
            -63..0 => match T::from_byte((value & 0x7f) as u8) {
                Some(value_type) => Ok(BlockType::value(value_type)),
                None if value == -5 => self.invalid(ErrorKind::Unsupported("SIMD")),
                None => self.invalid(ErrorKind::Malformed("type of a block")),
            },
            _ => self.invalid(ErrorKind::Malformed("type of a block")),
        }
    }

    fn block(&mut self, source: &mut dyn Source, is_loop: bool) -> Result<(), Failed> {
        let block_type = self.block_type(source)?;
        self.settle_from(0)?;
        self.pop_types(block_type, false)?;
        let block = if is_loop { Construct::Loop } else { Construct::Block };
        self.push_frame(block, block_type, self.emit.dead)?;
        if is_loop {
            self.label();
            self.innermost().place = self.emit.position;
        }
        self.push_types(block_type, false)
    }

    fn branch_on_if(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        let block_type = self.block_type(source)?;
        let condition = self.pop_type(T::I32)?;
        self.settle_around(&condition, 0)?;
        self.pop_types(block_type, false)?;
        let dead = self.emit.dead;
        let (other, from) = self.skip_unless(condition)?;
        self.push_frame(Construct::If, block_type, dead)?;
        let frame = self.innermost();
        (frame.other, frame.other_from) = (other, from);
        self.push_types(block_type, false)
    }

    fn otherwise(&mut self) -> Result<(), Failed> {
        let frame = *self.innermost();
        if frame.block != Construct::If {
            return self.invalid(ErrorKind::Malformed("else without if"));
        }
        self.check_block_end(frame)?;
        if !self.emit.dead {
            self.carry_results(frame)?;
            self.jump(0)?;
        }
        self.emit.dead = frame.dead;
        self.arrive(frame.other, frame.other_from)?;
        self.label();
        self.height = usize::from(frame.height);
        self.slot = frame.slot;
        let frame = self.innermost();
        frame.block = Construct::Else;
        frame.unreachable = false;
        (frame.other, frame.other_from) = (NONE, NONE);
        let block_type = frame.block_type;
        self.push_types(block_type, false)
    }

    /// That the stack has the block's results and nothing else.
    fn check_block_end(&mut self, frame: Frame) -> Result<(), Failed> {
        self.check_types(frame.block_type, true)?;
        let count = self.block_types(frame.block_type, true);
        if self.height != usize::from(frame.height) + count {
            return self.invalid(ErrorKind::StackHeight);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failed> {
        let frame = *self.innermost();
        self.check_block_end(frame)?;
        if frame.block == Construct::If {
            let count = self.block_types(frame.block_type, true);
            let same = count == self.block_types(frame.block_type, false)
                && (0..count).all(|at| {
                    self.block_type_at(frame.block_type, true, at)
                        == self.block_type_at(frame.block_type, false, at)
                });
            if !same {
                return self
                    .invalid(ErrorKind::Invalid("an if without else has to leave the values it takes"));
            }
        }
        if frame.block == Construct::Function {
            return self.end_of_function(frame);
        }
        if !self.emit.dead {
            self.carry_results(frame)?;
        }
        let reached = (frame.block != Construct::Loop && frame.place != NONE) || frame.other != NONE;
        if reached {
            self.emit.dead = frame.dead;
        }
        if frame.other != NONE {
            self.arrive(frame.other, frame.other_from)?;
        }
        self.height = usize::from(frame.height);
        self.slot = frame.slot;
        self.frames -= 1;
        if reached {
            self.label();
        }
        self.push_types(frame.block_type, true)?;
        if frame.block != Construct::Loop {
            self.resolve(frame.place)?;
        }
        Ok(())
    }

    fn end_of_function(&mut self, frame: Frame) -> Result<(), Failed> {
        if frame.place == NONE {
            if !self.emit.dead {
                self.emit_return()?;
            }
        } else {
            if !self.emit.dead {
                self.carry_results(frame)?;
            }
            self.emit.dead = false;
            self.label();
            self.resolve(frame.place)?;
            self.height = usize::from(frame.height);
            self.slot = frame.slot;
            self.push_types(frame.block_type, true)?;
            self.emit_return()?;
        }
        self.frames = 0;
        if !self.reader.is_done() {
            return self.invalid(ErrorKind::Size);
        }
        self.end_function()
    }

    /// Returns the function's results, which are on top of the stack.
    pub(crate) fn emit_return(&mut self) -> Result<(), Failed> {
        let block_type = self.scratch.frames[0].block_type;
        let save = self.save;
        match self.block_types(block_type, true) {
            0 => {
                self.write(op::RETURN, &[bytes(save)])?;
            }
            1 if self.block_type_at(block_type, true, 0).slots() == 1 => {
                let mut entry = self.scratch.entries[self.height - 1];
                if self.is_accumulator(&entry) {
                    self.write(op::RETURN_A, &[bytes(save)])?;
                } else {
                    self.put_into_slot(&mut entry)?;
                    self.write(op::RETURN_S, &[bytes(save), bytes(self.slot_of(&entry))])?;
                }
            }
            count => {
                self.settle_from(self.height - count)?;
                let from = self.scratch.entries[self.height - count].slot;
                let slots = self.block_slots(block_type, true);
                self.write(op::RETURN_MANY, &[bytes(save), bytes(from), slots as u16])?;
            }
        }
        self.seal();
        Ok(())
    }

    // Calls.

    /// Puts arguments where the callee has its parameters; answers the first one's slot.
    fn arguments(&mut self, type_index: u32) -> Result<u16, Failed> {
        let count = self.function_type(type_index).parameters.len();
        self.count_values(count);
        self.free_accumulator()?;
        self.settle_from(self.height.saturating_sub(count))?;
        for at in (0..count).rev() {
            let expected = T::known(self.function_type(type_index).parameters[at]);
            self.pop_type(expected)?;
        }
        Ok(self.slot)
    }

    fn results(&mut self, type_index: u32) -> Result<(), Failed> {
        self.label();
        let count = self.function_type(type_index).results.len();
        self.count_values(count);
        for at in 0..count {
            let value_type = T::known(self.function_type(type_index).results[at]);
            self.push(value_type, Kind::Slot, 0)?;
        }
        Ok(())
    }

    /// That a function's results are those of the function that ends with a call of it.
    fn check_tail(&self, type_index: u32) -> Result<(), Failed> {
        let BlockType(own) = self.scratch.frames[0].block_type;
        if self.function_type(type_index).results != self.function_type(own).results {
            return self.invalid(ErrorKind::Invalid("a tail call of a function with other results"));
        }
        Ok(())
    }

    fn call(&mut self, function: u32, tail: bool) -> Result<(), Failed> {
        if function >= self.functions {
            return self.invalid(ErrorKind::Index { what: "function", index: function });
        }
        let type_index = self.type_of_function(function);
        let at = self.arguments(type_index)?;
        if tail {
            self.check_tail(type_index)?;
        }
        if function < self.imports {
            self.write(op::HOST, &[bytes(at), function as u16])?;
        } else if tail {
            let words = self.function_type(type_index).slots().0;
            self.write(op::RETURN_CALL, &[bytes(at), function as u16, words as u16, bytes(self.save)])?;
        } else {
            self.write(op::CALL, &[bytes(at), function as u16])?;
        }
        self.results(type_index)?;
        self.after_call(tail, function < self.imports)
    }

    fn after_call(&mut self, tail: bool, returns: bool) -> Result<(), Failed> {
        if tail {
            if returns {
                self.emit_return()?;
            }
            self.set_unreachable();
        }
        Ok(())
    }

    fn call_indirect(&mut self, type_index: u32, table: u32, tail: bool) -> Result<(), Failed> {
        self.check_table(table, Some(T::FUNCREF))?;
        if type_index >= self.types {
            return self.invalid(ErrorKind::Index { what: "type", index: type_index });
        }
        let mut index = self.pop_type(T::I32)?;
        self.put_into_slot(&mut index)?;
        let from = self.slot_of(&index);
        let at = self.arguments(type_index)?;
        if tail {
            self.check_tail(type_index)?;
        }
        self.write(
            if tail { op::RETURN_CALL_INDIRECT } else { op::CALL_INDIRECT },
            &[bytes(from), bytes(at), self.canonical_type(type_index), table as u16],
        )?;
        if tail {
            self.word(self.function_type(type_index).slots().0 as u16)?;
            self.slot_word(self.save)?;
        }
        self.results(type_index)?;
        self.after_call(tail, false)
    }

    // Values.

    fn select(&mut self, value_type: Option<T>) -> Result<(), Failed> {
        let mut condition = self.pop_type(T::I32)?;
        let mut b = self.pop()?;
        let mut a = self.pop()?;
        let result = match value_type {
            Some(value_type) => value_type,
            None if a.value_type == T::UNKNOWN => b.value_type,
            None => a.value_type,
        };
        if value_type.is_none() && (a.value_type.is_reference() || b.value_type.is_reference()) {
            return self.invalid(ErrorKind::Invalid("a select of references has to say their type"));
        }
        for entry in [&a, &b] {
            if entry.value_type != result && entry.value_type != T::UNKNOWN {
                return self.invalid(ErrorKind::Type { expected: result, found: entry.value_type });
            }
        }
        // What is in the accumulator leaves it first, while the operator that computed it is the last one.
        for entry in [&mut a, &mut b] {
            if entry.kind == Kind::Accumulator {
                self.put_into_slot(entry)?;
            }
        }
        if condition.kind == Kind::Accumulator && result.slots() == 2 {
            self.put_into_slot(&mut condition)?;
        }
        for entry in [&mut a, &mut b] {
            self.put_into_slot(entry)?;
        }
        if condition.kind == Kind::Const {
            self.put_into_slot(&mut condition)?;
        }
        let (a, b) = (self.slot_of(&a), self.slot_of(&b));
        if result.slots() == 2 {
            self.write(op::SELECT_PAIR, &[bytes(a), bytes(b), bytes(self.slot_of(&condition))])?;
            self.result_word(self.slot)?;
            return self.push(result, Kind::Slot, 0);
        }
        let in_accumulator = self.is_accumulator(&condition);
        self.free_accumulator()?;
        self.write(if in_accumulator { op::SELECT_A } else { op::SELECT_S }, &[bytes(a), bytes(b)])?;
        if !in_accumulator {
            self.slot_word(self.slot_of(&condition))?;
        }
        let kind = if self.emit.dead { Kind::Slot } else { Kind::Accumulator };
        self.push(result, kind, 0)
    }

    fn local(&mut self, operator: u8, local: u32) -> Result<(), Failed> {
        if local as usize >= self.locals {
            return self.invalid(ErrorKind::Index { what: "local", index: local });
        }
        let value_type = T::known(self.scratch.local_types[local as usize]);
        if operator == 0x20 {
            return self.push(value_type, Kind::Local, local);
        }
        let entry = self.pop_type(value_type)?;
        let (kind, value) = self.set_local(local, entry)?;
        if operator == 0x22 { self.push(value_type, kind, value) } else { Ok(()) }
    }

    fn global(&mut self, global: u32, set: bool) -> Result<(), Failed> {
        let Some((value_type, mutable, at)) = self.global_at(global) else {
            return self.invalid(ErrorKind::Index { what: "global", index: global });
        };
        if !set {
            if value_type.slots() == 2 {
                self.write(op::GLOBAL_GET_PAIR, &[at])?;
                self.result_word(self.slot)?;
                return self.push(value_type, Kind::Slot, 0);
            }
            self.free_accumulator()?;
            self.write(op::GLOBAL_GET, &[at])?;
            return self.push_accumulator(value_type);
        }
        if !mutable {
            return self.invalid(ErrorKind::Invalid("a global that can't be changed is set"));
        }
        let mut entry = self.pop_type(value_type)?;
        if value_type.slots() == 1 && self.is_accumulator(&entry) {
            return self.write(op::GLOBAL_SET_A, &[at]);
        }
        self.put_into_slot(&mut entry)?;
        self.write(
            if value_type.slots() == 2 { op::GLOBAL_SET_PAIR } else { op::GLOBAL_SET_S },
            &[bytes(self.slot_of(&entry)), at],
        )
    }

    fn long_constant(&mut self, value_type: T, value: u64) -> Result<(), Failed> {
        if value == value as i32 as i64 as u64 {
            return self.push(value_type, Kind::Const, value as u32);
        }
        self.pair_constant(value, self.slot)?;
        self.push(value_type, Kind::Slot, 0)
    }

    /// The result of an operator that left it in the accumulator.
    pub(crate) fn push_accumulator(&mut self, value_type: T) -> Result<(), Failed> {
        let kind = if self.emit.dead { Kind::Slot } else { Kind::Accumulator };
        self.push(value_type, kind, 0)
    }

    fn function_reference(&mut self, function: u32) -> Result<(), Failed> {
        if function >= self.functions {
            return self.invalid(ErrorKind::Index { what: "function", index: function });
        }
        if !self.is_declared(function) {
            return self.invalid(ErrorKind::Invalid("a reference to a function that nothing declares"));
        }
        self.push(T::FUNCREF, Kind::Const, function + 1)
    }

    // Numbers.

    fn numeric(&mut self, operator: u8) -> Result<(), Failed> {
        match operator {
            0x45 => {
                let entry = self.pop_type(T::I32)?;
                self.is_zero(entry)
            }
            0x46..=0x4f => self.compare(operator - 0x46),
            0x50 => {
                let entry = self.pop_type(T::I64)?;
                self.restore(entry);
                self.push(T::I64, Kind::Const, 0)?;
                self.wide_compare(0)
            }
            0x51..=0x5a => self.wide_compare(operator - 0x51),
            0x67..=0x69 => self.unary(u16::from(operator - 0x67)),
            0x6a => self.binary(0, true),
            0x6b => self.binary(5, false),
            0x6c => self.binary(1, true),
            0x6d..=0x70 => self.division(u16::from(operator - 0x6d)),
            0x71..=0x73 => self.binary(u16::from(operator - 0x71) + 2, true),
            0x74..=0x78 => self.binary(u16::from(operator - 0x74) + 6, false),
            0x7c => self.wide_binary(0, true),
            0x7d => self.wide_binary(5, false),
            0x7e => self.wide_binary(1, true),
            0x83..=0x85 => self.wide_binary(u16::from(operator - 0x83) + 2, true),
            0x86..=0x8a => self.wide_binary(u16::from(operator - 0x86) + 6, false),
            // The low half is the result.
            0xa7 => self.retype(T::I64, T::I32),
            0xac => self.extend(op::EXTEND_S_S, op::EXTEND_S_A),
            0xad => self.extend(op::EXTEND_U_S, op::EXTEND_U_A),
            0xbc => self.retype(T::F32, T::I32),
            0xbd => self.retype(T::F64, T::I64),
            0xbe => self.retype(T::I32, T::F32),
            0xbf => self.retype(T::I64, T::F64),
            0xc0 | 0xc1 => self.unary(u16::from(operator - 0xc0) + 3),
            _ => self.plain(&NUMERICS[usize::from(operator - 0x45)]),
        }
    }

    /// Puts a value that was just taken from the stack back.
    fn restore(&mut self, entry: Entry) {
        if self.height < OPERANDS {
            self.scratch.entries[self.height] = entry;
            self.height += 1;
            self.slot = entry.slot + entry.value_type.slots();
        }
    }

    /// An operator for which a value only gets another type.
    fn retype(&mut self, from: T, to: T) -> Result<(), Failed> {
        let entry = self.pop_type(from)?;
        if from.slots() != to.slots() {
            // The operator that computed it writes more slots than the result has.
            self.emit.into = NONE;
        }
        self.push(to, entry.kind, entry.value)
    }

    /// Two operands of a 32-bit operator: which form it has, and its operands.
    pub(crate) fn operands(
        &mut self,
        a: &mut Entry,
        b: &mut Entry,
    ) -> Result<(u16, [u16; 2], usize), Failed> {
        if b.kind == Kind::Accumulator && a.kind == Kind::Const {
            self.put_into_slot(b)?;
        }
        if a.kind == Kind::Const {
            self.put_into_slot(a)?;
        }
        if b.kind == Kind::Const && !fits(b.value) {
            let from = self.lazy();
            let taken = a.kind == Kind::Accumulator
                || (from..self.height).any(|index| self.scratch.entries[index].kind == Kind::Accumulator);
            if !taken {
                self.write(op::CONST_ACC, &[b.value as u16, (b.value >> 16) as u16])?;
                self.emit.acc_local = NONE;
                return Ok((2, [self.slot_of(a) * 4, 0], 1));
            }
            if a.kind == Kind::Accumulator {
                // While the operator that computed it is the last one.
                self.put_into_slot(a)?;
            }
            self.put_into_slot(b)?;
        }
        if b.kind == Kind::Const {
            let value = b.value as u16;
            return Ok(if self.is_accumulator(a) {
                (4, [value, 0], 1)
            } else {
                (3, [self.slot_of(a) * 4, value], 2)
            });
        }
        if self.is_accumulator(a) {
            return Ok((1, [self.slot_of(b) * 4, 0], 1));
        }
        if self.is_accumulator(b) {
            return Ok((2, [self.slot_of(a) * 4, 0], 1));
        }
        Ok((0, [self.slot_of(a) * 4, self.slot_of(b) * 4], 2))
    }

    pub(crate) fn operand_words(&mut self, words: [u16; 2], count: usize) -> Result<(), Failed> {
        self.word(words[0])?;
        if count == 2 { self.word(words[1]) } else { Ok(()) }
    }

    fn binary(&mut self, index: u16, commutes: bool) -> Result<(), Failed> {
        let mut b = self.pop_type(T::I32)?;
        let mut a = self.pop_type(T::I32)?;
        let mut index = index;
        if commutes
            && (a.kind == Kind::Const || (self.is_accumulator(&b) && !self.is_accumulator(&a)))
            && b.kind != Kind::Const
        {
            (a, b) = (b, a);
        }
        if index == 5 && b.kind == Kind::Const {
            b.value = b.value.wrapping_neg();
            index = 0;
        }
        if index == 0 && a.kind == Kind::Const && b.kind == Kind::Const {
            return self.push(T::I32, Kind::Const, a.value.wrapping_add(b.value));
        }
        let (form, words, count) = self.operands(&mut a, &mut b)?;
        self.free_accumulator()?;
        self.begin(family::BINARY + index * 10 + form * 2)?;
        self.operand_words(words, count)?;
        self.push_accumulator(T::I32)
    }

    fn division(&mut self, index: u16) -> Result<(), Failed> {
        let mut b = self.pop_type(T::I32)?;
        let mut a = self.pop_type(T::I32)?;
        self.both_into_slots(&mut a, &mut b)?;
        self.free_accumulator()?;
        self.write(op::DIV_S + index, &[bytes(self.slot_of(&a)), bytes(self.slot_of(&b))])?;
        self.push_accumulator(T::I32)
    }

    fn both_into_slots(&mut self, a: &mut Entry, b: &mut Entry) -> Result<(), Failed> {
        if b.kind == Kind::Accumulator {
            self.put_into_slot(b)?;
        }
        self.put_into_slot(a)?;
        self.put_into_slot(b)
    }

    fn unary(&mut self, index: u16) -> Result<(), Failed> {
        let mut entry = self.pop_type(T::I32)?;
        if entry.kind == Kind::Const {
            self.put_into_slot(&mut entry)?;
        }
        let in_accumulator = self.is_accumulator(&entry);
        self.free_accumulator()?;
        self.begin(family::UNARY + index * 2 + u16::from(in_accumulator))?;
        if !in_accumulator {
            self.slot_word(self.slot_of(&entry))?;
        }
        self.push_accumulator(T::I32)
    }

    /// `eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u`, by `eq ne lt_s ge_s lt_u ge_u` and a change of the operands.
    const COMPARES: [(u16, bool); 10] = [
        (0, false),
        (1, false),
        (2, false),
        (4, false),
        (2, true),
        (4, true),
        (3, true),
        (5, true),
        (3, false),
        (5, false),
    ];

    fn compare(&mut self, index: u8) -> Result<(), Failed> {
        let mut b = self.pop_type(T::I32)?;
        let mut a = self.pop_type(T::I32)?;
        let (mut index, mut swap) = Self::COMPARES[usize::from(index)];
        let largest = if index < 4 { 0x7fff_ffff } else { u32::MAX };
        if swap && b.kind == Kind::Const && b.value != largest {
            // a > b is a >= b + 1, a <= b is a < b + 1.
            b.value = b.value.wrapping_add(1);
            index ^= 1;
            swap = false;
        }
        if swap || (index < 2 && a.kind == Kind::Const && b.kind != Kind::Const) {
            (a, b) = (b, a);
        }
        let (form, words, count) = self.operands(&mut a, &mut b)?;
        self.emit.compared_acc_local = self.emit.acc_local;
        self.free_accumulator()?;
        self.begin(family::COMPARE + index * 15 + form * 3)?;
        self.operand_words(words, count)?;
        self.push_accumulator(T::I32)
    }

    /// Whether the last operator is a comparison, whose result is in the accumulator and has not been used.
    pub(crate) fn last_compares(&self) -> bool {
        self.emit.last != NONE
            && (family::COMPARE..family::COUNT).contains(&self.emit.last_op)
            && (self.emit.last_op - family::COMPARE).is_multiple_of(3)
    }

    /// The comparison with the opposite result, at a distance from the first.
    pub(crate) fn opposite(distance: u16) -> u16 {
        ((distance / 15) ^ 1) * 15 + distance % 15
    }

    fn is_zero(&mut self, entry: Entry) -> Result<(), Failed> {
        if entry.kind == Kind::Accumulator && self.last_compares() {
            let operator = family::COMPARE + Self::opposite(self.emit.last_op - family::COMPARE);
            self.change_last(operator);
            return self.push_accumulator(T::I32);
        }
        self.restore(entry);
        self.push(T::I32, Kind::Const, 0)?;
        self.compare(0)
    }

    fn wide_binary(&mut self, index: u16, commutes: bool) -> Result<(), Failed> {
        let mut b = self.pop_type(T::I64)?;
        let mut a = self.pop_type(T::I64)?;
        let mut index = index;
        if commutes && a.kind == Kind::Const && b.kind != Kind::Const {
            (a, b) = (b, a);
        }
        if index == 5 && b.kind == Kind::Const && fits(b.value.wrapping_neg()) && b.value != 1 << 31 {
            b.value = b.value.wrapping_neg();
            index = 0;
        }
        let immediate = b.kind == Kind::Const && fits(b.value);
        self.put_into_slot(&mut a)?;
        if !immediate {
            self.put_into_slot(&mut b)?;
        }
        self.write(family::WIDE + index * 2 + u16::from(immediate), &[bytes(self.slot_of(&a))])?;
        if immediate {
            self.word(b.value as u16)?
        } else {
            self.slot_word(self.slot_of(&b))?
        }
        self.result_word(self.slot)?;
        self.push(T::I64, Kind::Slot, 0)
    }

    fn wide_compare(&mut self, index: u8) -> Result<(), Failed> {
        let mut b = self.pop_type(T::I64)?;
        let mut a = self.pop_type(T::I64)?;
        let (index, swap) = Self::COMPARES[usize::from(index)];
        self.put_into_slot(&mut a)?;
        let immediate = b.kind == Kind::Const && fits(b.value) && !swap;
        if !immediate {
            self.put_into_slot(&mut b)?;
        }
        self.free_accumulator()?;
        if swap {
            (a, b) = (b, a);
        }
        self.write(family::WIDE_COMPARE + index * 2 + u16::from(immediate), &[bytes(self.slot_of(&a))])?;
        if immediate {
            self.word(b.value as u16)?
        } else {
            self.slot_word(self.slot_of(&b))?
        }
        self.push_accumulator(T::I32)
    }

    pub(crate) fn extend(&mut self, from_slot: u16, from_accumulator: u16) -> Result<(), Failed> {
        let mut entry = self.pop_type(T::I32)?;
        if entry.kind == Kind::Const {
            self.put_into_slot(&mut entry)?;
        }
        if self.is_accumulator(&entry) {
            self.begin(from_accumulator)?;
        } else {
            self.write(from_slot, &[bytes(self.slot_of(&entry))])?;
        }
        self.result_word(self.slot)?;
        self.push(T::I64, Kind::Slot, 0)
    }

    /// An operator whose operands are slots.
    fn plain(&mut self, numeric: &Numeric) -> Result<(), Failed> {
        if numeric.result == 0 {
            return self.invalid(ErrorKind::Operator(0));
        }
        let result = T::known(numeric.result);
        let mut b = if numeric.b == 0 { None } else { Some(self.pop_type(T::known(numeric.b))?) };
        let mut a = self.pop_type(T::known(numeric.a))?;
        if let Some(b) = &mut b
            && b.kind == Kind::Accumulator
        {
            self.put_into_slot(b)?;
        }
        self.put_into_slot(&mut a)?;
        if let Some(b) = &mut b {
            self.put_into_slot(b)?;
        }
        let stays = !numeric.rare && result.slots() == 1;
        if stays {
            self.free_accumulator()?;
        }
        if numeric.rare {
            self.begin(op::RARE)?;
        }
        if numeric.rare {
            self.word(numeric.operator)?
        } else {
            self.begin(numeric.operator)?
        }
        self.slot_word(self.slot_of(&a))?;
        if let Some(b) = &b {
            self.slot_word(self.slot_of(b))?;
        }
        if stays {
            return self.push_accumulator(result);
        }
        self.result_word(self.slot)?;
        self.push(result, Kind::Slot, 0)
    }

    // Operators with the prefix 0xfc.

    fn prefixed(&mut self, source: &mut dyn Source, operator: u32) -> Result<(), Failed> {
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
    fn bulk<const N: usize>(&mut self, kind: u16, words: &[u32], operands: [T; N]) -> Result<(), Failed> {
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

    fn table_access(&mut self, table: u32, set: bool) -> Result<(), Failed> {
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
