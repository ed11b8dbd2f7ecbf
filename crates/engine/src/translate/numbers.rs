//! Operators on numbers.

use super::emit::{bytes, fits};
use super::scratch::{Entry, Kind, NONE, OPERANDS};
use crate::error::ErrorKind;
use crate::generated::{NUMERICS, Numeric, family, op};
use crate::load::Loader;
use crate::reader::Failed;
use crate::types::ValueType as T;

impl Loader<'_> {
    pub(crate) fn numeric(&mut self, operator: u8) -> Result<(), Failed> {
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
    pub(crate) fn restore(&mut self, entry: Entry) {
        if self.height < OPERANDS {
            self.scratch.entries[self.height] = entry;
            self.height += 1;
            self.slot = entry.slot + entry.value_type.slots();
        }
    }

    /// An operator for which a value only gets another type.
    pub(crate) fn retype(&mut self, from: T, to: T) -> Result<(), Failed> {
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

    pub(crate) fn binary(&mut self, index: u16, commutes: bool) -> Result<(), Failed> {
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

    pub(crate) fn division(&mut self, index: u16) -> Result<(), Failed> {
        let mut b = self.pop_type(T::I32)?;
        let mut a = self.pop_type(T::I32)?;
        self.both_into_slots(&mut a, &mut b)?;
        self.free_accumulator()?;
        self.write(op::DIV_S + index, &[bytes(self.slot_of(&a)), bytes(self.slot_of(&b))])?;
        self.push_accumulator(T::I32)
    }

    pub(crate) fn both_into_slots(&mut self, a: &mut Entry, b: &mut Entry) -> Result<(), Failed> {
        if b.kind == Kind::Accumulator {
            self.put_into_slot(b)?;
        }
        self.put_into_slot(a)?;
        self.put_into_slot(b)
    }

    pub(crate) fn unary(&mut self, index: u16) -> Result<(), Failed> {
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

    pub(crate) fn compare(&mut self, index: u8) -> Result<(), Failed> {
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

    pub(crate) fn is_zero(&mut self, entry: Entry) -> Result<(), Failed> {
        if entry.kind == Kind::Accumulator && self.last_compares() {
            let operator = family::COMPARE + Self::opposite(self.emit.last_op - family::COMPARE);
            self.change_last(operator);
            return self.push_accumulator(T::I32);
        }
        self.restore(entry);
        self.push(T::I32, Kind::Const, 0)?;
        self.compare(0)
    }

    pub(crate) fn wide_binary(&mut self, index: u16, commutes: bool) -> Result<(), Failed> {
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

    pub(crate) fn wide_compare(&mut self, index: u8) -> Result<(), Failed> {
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
    pub(crate) fn plain(&mut self, numeric: &Numeric) -> Result<(), Failed> {
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
}
