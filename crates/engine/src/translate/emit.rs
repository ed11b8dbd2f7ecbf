//! Writing operators: what was written last is remembered, so that what follows can change it.

use super::scratch::{Entry, Kind, NONE};
use crate::error::ErrorKind;
use crate::generated::{family, op};
use crate::load::Loader;
use crate::reader::Failed;
use crate::types::ValueType;

/// Entries of the operand stack that may be elsewhere than in their own slot: the newest. `local.set` walks over them.
pub(crate) const LAZY: usize = 16;

/// An operator that was taken out again, to be written behind something else.
struct Lifted {
    words: [u16; 8],
    count: usize,
    operator: u16,
    from: u32,
    into: u32,
}

/// Whether an operator has a sibling, the next one, that stores its result as well.
pub(crate) fn stores_too(operator: u16) -> bool {
    let first = match operator {
        _ if operator < family::BINARY => return false,
        _ if operator < family::BINARY + 110 => family::BINARY,
        _ if operator < family::LOAD => return false,
        _ if operator < family::STORE => family::LOAD,
        _ => return false,
    };
    (operator - first).is_multiple_of(2)
}

/// The place of a slot in its frame. Frames have at most 16,383 slots.
pub(crate) fn bytes(slot: u16) -> u16 {
    slot.wrapping_mul(4)
}

/// Whether a constant fits an immediate operand.
pub(crate) fn fits(value: u32) -> bool {
    i16::try_from(value as i32).is_ok()
}

impl Loader<'_> {
    pub(crate) fn word(&mut self, word: u16) -> Result<(), Failed> {
        if self.emit.dead {
            return Ok(());
        }
        if self.emit.position >= self.emit.capacity {
            return Err(self.reader.error(ErrorKind::Memory { needed: 2 }));
        }
        let position = self.emit.position;
        self.set_code(position, word);
        self.emit.position += 1;
        Ok(())
    }

    pub(crate) fn code(&self, position: u32) -> u16 {
        self.region.word(self.emit.code, position)
    }

    pub(crate) fn set_code(&mut self, position: u32, word: u16) {
        self.region.set_word(self.emit.code, position, word);
    }

    /// Begins an operator.
    pub(crate) fn begin(&mut self, operator: u16) -> Result<(), Failed> {
        let emit = &mut self.emit;
        emit.before = emit.last;
        emit.before_op = emit.last_op;
        emit.before_from = emit.last_from;
        emit.last_from = self.operator_offset;
        emit.last = if emit.dead { NONE } else { emit.position };
        emit.last_op = operator;
        emit.into = NONE;
        let position = emit.position;
        self.note(position);
        self.word(operator)
    }

    /// Tells the trace, if one is made, which operator of the module the last one does the work of.
    fn note(&mut self, position: u32) {
        if let Some(trace) = &mut self.trace
            && !self.emit.dead
        {
            trace.note(position, self.emit.last_from);
        }
    }

    /// The last operator does the work of the module's that is being translated, and what it did before as well.
    pub(crate) fn last_is_from_here(&mut self) {
        self.emit.last_from = self.operator_offset;
        self.note(self.emit.last);
    }

    /// Writes an operator with its operands.
    pub(crate) fn write(&mut self, operator: u16, operands: &[u16]) -> Result<(), Failed> {
        self.begin(operator)?;
        for operand in operands {
            self.word(*operand)?;
        }
        Ok(())
    }

    pub(crate) fn slot_word(&mut self, slot: u16) -> Result<(), Failed> {
        self.word(bytes(slot))
    }

    /// The operand that says where the result goes: it may be changed while this is the last operator.
    pub(crate) fn result_word(&mut self, slot: u16) -> Result<(), Failed> {
        self.emit.into = if self.emit.dead { NONE } else { self.emit.position };
        self.slot_word(slot)
    }

    /// Something else can arrive here: what is known about the operators before is worth nothing.
    pub(crate) fn label(&mut self) {
        self.emit.last = NONE;
        self.emit.before = NONE;
        self.emit.into = NONE;
        self.emit.acc_local = NONE;
    }

    /// The last operator can't be changed any more.
    pub(crate) fn seal(&mut self) {
        self.emit.last = NONE;
        self.emit.before = NONE;
        self.emit.into = NONE;
    }

    /// Replaces the last operator's number.
    pub(crate) fn change_last(&mut self, operator: u16) {
        let last = self.emit.last;
        if last != NONE {
            self.set_code(last, operator);
            self.emit.last_op = operator;
        }
    }

    fn lift(&mut self) -> Option<Lifted> {
        let last = self.emit.last;
        if last == NONE {
            return None;
        }
        let count = (self.emit.position - last) as usize;
        let mut words = [0; 8];
        debug_assert!(count <= words.len(), "operators of more words are sealed");
        for (at, word) in words.iter_mut().enumerate().take(count) {
            *word = self.code(last + at as u32);
        }
        let into = if self.emit.into == NONE { NONE } else { self.emit.into - last };
        self.emit.position = last;
        let (operator, from) = (self.emit.last_op, self.emit.last_from);
        self.emit.last = self.emit.before;
        self.emit.last_op = self.emit.before_op;
        self.emit.last_from = self.emit.before_from;
        self.emit.before = NONE;
        self.emit.into = NONE;
        Some(Lifted { words, count, operator, from, into })
    }

    fn put_back(&mut self, lifted: Option<Lifted>) -> Result<(), Failed> {
        let Some(lifted) = lifted else { return Ok(()) };
        let position = self.emit.position;
        self.begin(lifted.operator)?;
        self.emit.last_from = lifted.from;
        self.note(position);
        for word in lifted.words.iter().take(lifted.count).skip(1) {
            self.word(*word)?;
        }
        if lifted.into != NONE {
            self.emit.into = position + lifted.into;
        }
        Ok(())
    }

    /// The slot in which a value is that is not in the accumulator and no constant.
    pub(crate) fn slot_of(&self, entry: &Entry) -> u16 {
        match entry.kind {
            Kind::Local => self.local_slot(entry.value),
            _ => entry.slot,
        }
    }

    pub(crate) fn is_accumulator(&self, entry: &Entry) -> bool {
        match entry.kind {
            Kind::Accumulator => true,
            Kind::Local => entry.value == self.emit.acc_local,
            _ => false,
        }
    }

    /// Stores the accumulator, by the operator that computed it where that was the last one.
    pub(crate) fn store_accumulator(&mut self, slot: u16) -> Result<(), Failed> {
        if self.emit.last != NONE && stores_too(self.emit.last_op) {
            self.change_last(self.emit.last_op + 1);
        } else {
            self.begin(op::STORE_ACC)?;
        }
        self.slot_word(slot)
    }

    /// Copies one slot; two copies in a row become one operator.
    pub(crate) fn copy(&mut self, from: u16, to: u16) -> Result<(), Failed> {
        if from == to {
            return Ok(());
        }
        if self.emit.last != NONE && self.emit.last_op == op::MOVE {
            self.change_last(op::MOVE2);
        } else {
            self.begin(op::MOVE)?;
        }
        self.slot_word(from)?;
        self.slot_word(to)
    }

    pub(crate) fn copy_value(&mut self, value_type: ValueType, from: u16, to: u16) -> Result<(), Failed> {
        if value_type.slots() == 1 {
            return self.copy(from, to);
        }
        if from == to {
            return Ok(());
        }
        self.write(op::MOVE_PAIR, &[bytes(from)])?;
        self.result_word(to)
    }

    /// Writes a constant into a slot.
    pub(crate) fn constant(&mut self, value_type: ValueType, value: u32, to: u16) -> Result<(), Failed> {
        if value_type.slots() == 2 {
            return self.pair_constant(value as i32 as i64 as u64, to);
        }
        if fits(value) {
            self.write(op::CONST_I, &[value as u16])?;
        } else {
            self.write(op::CONST, &[value as u16, (value >> 16) as u16])?;
        }
        self.slot_word(to)
    }

    pub(crate) fn pair_constant(&mut self, value: u64, to: u16) -> Result<(), Failed> {
        if i16::try_from(value as i64).is_ok() {
            self.write(op::CONST_PAIR_I, &[value as u16])?;
        } else if value << 16 == 0 {
            self.write(op::CONST_PAIR_HIGH, &[(value >> 48) as u16])?;
        } else {
            self.begin(op::CONST_PAIR)?;
            for shift in [0, 16, 32, 48] {
                self.word((value >> shift) as u16)?;
            }
        }
        self.result_word(to)
    }

    /// Makes a value that was taken from the stack one that a slot has.
    pub(crate) fn put_into_slot(&mut self, entry: &mut Entry) -> Result<(), Failed> {
        match entry.kind {
            Kind::Const => self.constant(entry.value_type, entry.value, entry.slot)?,
            Kind::Accumulator => self.store_accumulator(entry.slot)?,
            Kind::Slot | Kind::Local => return Ok(()),
        }
        entry.kind = Kind::Slot;
        Ok(())
    }

    /// Makes a value one that its own slot has.
    pub(crate) fn put_into_own_slot(&mut self, entry: &mut Entry) -> Result<(), Failed> {
        if entry.kind == Kind::Local {
            let from = self.local_slot(entry.value);
            self.copy_value(entry.value_type, from, entry.slot)?;
            entry.kind = Kind::Slot;
        }
        self.put_into_slot(entry)
    }

    /// Puts the value at this place of the stack into its own slot.
    pub(crate) fn settle(&mut self, index: usize) -> Result<(), Failed> {
        let mut entry = self.scratch.entries[index];
        if entry.kind != Kind::Slot {
            self.put_into_own_slot(&mut entry)?;
            self.scratch.entries[index] = entry;
        }
        Ok(())
    }

    /// The lowest entry that may be elsewhere than in its own slot.
    pub(crate) fn lazy(&self) -> usize {
        self.height.saturating_sub(LAZY + 1)
    }

    /// Saves the accumulator, if it holds a value of the stack: the next operator overwrites it.
    pub(crate) fn free_accumulator(&mut self) -> Result<(), Failed> {
        for index in (self.lazy()..self.height).rev() {
            if self.scratch.entries[index].kind == Kind::Accumulator {
                self.settle(index)?;
                break;
            }
        }
        self.emit.acc_local = NONE;
        Ok(())
    }

    /// Puts all values from this place of the stack on into their own slots.
    pub(crate) fn settle_from(&mut self, index: usize) -> Result<(), Failed> {
        let from = index.max(self.lazy());
        // First the accumulator: the operator that computed it may still be the last one.
        for index in (from..self.height).rev() {
            if self.scratch.entries[index].kind == Kind::Accumulator {
                self.settle(index)?;
            }
        }
        for index in from..self.height {
            self.settle(index)?;
        }
        Ok(())
    }

    /// The same, but in front of the last operator, whose result is not on the stack any more and has to stay where it is.
    pub(crate) fn settle_before(&mut self, index: usize) -> Result<(), Failed> {
        let from = index.max(self.lazy());
        if (from..self.height).all(|index| self.scratch.entries[index].kind == Kind::Slot) {
            return Ok(());
        }
        let lifted = self.lift();
        self.settle_from(index)?;
        self.put_back(lifted)
    }

    /// Puts an operator that does nothing in front of the last one.
    pub(crate) fn with_nothing_before(&mut self) -> Result<(), Failed> {
        let lifted = self.lift();
        self.begin(op::NOTHING)?;
        self.put_back(lifted)
    }

    /// The value of a local changes: what the stack still has of the old one is saved. `computed` says that the last
    /// operator computes the new one, so that saving has to come before it.
    pub(crate) fn save_copies(&mut self, local: u32, computed: bool) -> Result<(), Failed> {
        let from = self.lazy();
        let refers = |entry: &Entry| entry.kind == Kind::Local && entry.value == local;
        if !(from..self.height).any(|index| refers(&self.scratch.entries[index])) {
            return Ok(());
        }
        let lifted = if computed { self.lift() } else { None };
        for index in from..self.height {
            if refers(&self.scratch.entries[index]) {
                self.settle(index)?;
            }
        }
        self.put_back(lifted)
    }

    /// `local.set` and `local.tee` of a value that was taken from the stack; answers what is the value then.
    pub(crate) fn set_local(&mut self, local: u32, entry: Entry) -> Result<(Kind, u32), Failed> {
        let to = self.local_slot(local);
        let known = (Kind::Local, local);
        if entry.kind == Kind::Local && entry.value == local {
            return Ok(known);
        }
        let produced = self.emit.last != NONE
            && match entry.kind {
                Kind::Accumulator => stores_too(self.emit.last_op),
                Kind::Slot => self.emit.into != NONE && self.code(self.emit.into) == bytes(entry.slot),
                _ => false,
            };
        self.save_copies(local, produced)?;
        if self.emit.acc_local == local && entry.kind != Kind::Accumulator {
            self.emit.acc_local = NONE;
        }
        match entry.kind {
            Kind::Accumulator => {
                self.store_accumulator(to)?;
                self.emit.acc_local = local;
                Ok(known)
            }
            Kind::Const => {
                self.constant(entry.value_type, entry.value, to)?;
                Ok((Kind::Const, entry.value))
            }
            Kind::Slot if produced => {
                let into = self.emit.into;
                self.set_code(into, bytes(to));
                // It is no longer the result of something on the stack.
                self.emit.into = NONE;
                Ok(known)
            }
            Kind::Slot | Kind::Local => {
                let from = self.slot_of(&entry);
                if entry.value_type.slots() == 1 && self.is_accumulator(&entry) {
                    self.write(op::STORE_ACC, &[bytes(to)])?;
                } else if entry.value_type.slots() == 1 && self.can_copy_before(to) {
                    let lifted = self.lift();
                    self.copy(from, to)?;
                    self.put_back(lifted)?;
                } else {
                    self.copy_value(entry.value_type, from, to)?;
                    self.emit.into = NONE;
                }
                Ok(known)
            }
        }
    }

    /// Whether a copy into this slot may stand in front of the last operator, which computes a value of the stack and
    /// should stay the last one, for what uses that value to change it.
    pub(crate) fn can_copy_before(&self, to: u16) -> bool {
        let emit = &self.emit;
        let waiting =
            || (self.lazy()..self.height).any(|index| self.scratch.entries[index].kind == Kind::Accumulator);
        emit.last != NONE
            && stores_too(emit.last_op)
            && (emit.last + 1..emit.position).all(|at| self.code(at) != bytes(to))
            && waiting()
    }
}
