//! Loads and stores.
//!
//! An access of `size` bytes at `address + offset` is checked by `address <= memory - k` with `k = offset + size`, which
//! is exact where `k` is at most the memory's least size: then the difference can't be less than zero. An access with
//! a greater `k` has its address computed and checked by an operator of its own; one whose address is a constant within
//! the least size needs no check.

use super::emit::{bytes, fits};
use super::scratch::{Entry, Kind, NONE};
use crate::error::ErrorKind;
use crate::generated::{family, op, rare};
use crate::load::Loader;
use crate::reader::{Failed, Source};
use crate::types::ValueType as T;

/// What an operator on memory does: the type of its value, the bytes of the access, and its place among loads or stores.
struct Access {
    value_type: T,
    size: u32,
    index: u16,
    /// Of a 64-bit load from fewer bytes: whether the sign is extended.
    extended: Option<bool>,
}

const fn access(value_type: T, size: u32, index: u16) -> Access {
    Access { value_type, size, index, extended: None }
}

const fn extended(size: u32, index: u16, signed: bool) -> Access {
    Access { value_type: T::I64, size, index, extended: Some(signed) }
}

/// Place of a 64-bit access: it has operators of its own.
const PAIR: u16 = 5;

/// By operator, from 0x28 on.
const ACCESSES: [Access; 23] = [
    access(T::I32, 4, 0),
    access(T::I64, 8, PAIR),
    access(T::F32, 4, 0),
    access(T::F64, 8, PAIR),
    access(T::I32, 1, 2),
    access(T::I32, 1, 1),
    access(T::I32, 2, 4),
    access(T::I32, 2, 3),
    extended(1, 2, true),
    extended(1, 1, false),
    extended(2, 4, true),
    extended(2, 3, false),
    extended(4, 0, true),
    extended(4, 0, false),
    access(T::I32, 4, 0),
    access(T::I64, 8, PAIR),
    access(T::F32, 4, 0),
    access(T::F64, 8, PAIR),
    access(T::I32, 1, 1),
    access(T::I32, 2, 2),
    access(T::I64, 1, 1),
    access(T::I64, 2, 2),
    access(T::I64, 4, 0),
];

impl Loader<'_> {
    pub(crate) fn memory_access(&mut self, source: &mut dyn Source, operator: u8) -> Result<(), Failed> {
        let access = &ACCESSES[usize::from(operator - 0x28)];
        self.check_memory()?;
        let align = self.reader.number(source)?;
        if align & 0x40 != 0 {
            return self.invalid(ErrorKind::Unsupported("multiple memories"));
        }
        if align >= 32 || 1 << align > access.size {
            return self.invalid(ErrorKind::Invalid("an alignment greater than the access"));
        }
        let offset = self.reader.number(source)?;
        if operator < 0x36 { self.load(access, offset) } else { self.store(access, offset) }
    }

    /// The address as a constant that needs no check.
    pub(crate) fn fixed(&self, address: &Entry, offset: u32, size: u32) -> Option<u32> {
        let at = address.value.checked_add(offset).filter(|_| address.kind == Kind::Const)?;
        at.checked_add(size).filter(|end| *end <= self.memory_bytes).map(|_| at)
    }

    /// `k`, where it fits its word and the memory's least size.
    pub(crate) fn bound(&self, offset: u32, size: u32) -> Option<u16> {
        let k = offset.checked_add(size).filter(|k| *k <= self.memory_bytes)?;
        u16::try_from(k).ok()
    }

    /// Leaves the checked address of an access in the accumulator.
    pub(crate) fn checked_address(
        &mut self,
        address: &mut Entry,
        offset: u32,
        size: u32,
    ) -> Result<(), Failed> {
        self.put_into_slot(address)?;
        self.free_accumulator()?;
        self.write(
            op::OFFSET,
            &[bytes(self.slot_of(address)), offset as u16, (offset >> 16) as u16, size as u16],
        )
    }

    fn load(&mut self, access: &Access, offset: u32) -> Result<(), Failed> {
        let mut address = self.pop_type(T::I32)?;
        if access.index == PAIR {
            return self.load_pair(access, offset, address);
        }
        let result = if access.extended.is_some() { T::I32 } else { access.value_type };
        if let Some(at) = self.fixed(&address, offset, access.size) {
            self.free_accumulator()?;
            self.write(family::LOAD_FIXED + access.index * 2, &[at as u16, (at >> 16) as u16])?;
        } else if let Some(k) = self.bound(offset, access.size) {
            if address.kind == Kind::Const {
                self.put_into_slot(&mut address)?;
            }
            if !(address.kind == Kind::Accumulator && self.load_from_sum(access.index, k)?) {
                let in_accumulator = self.is_accumulator(&address);
                self.free_accumulator()?;
                let form = if in_accumulator { 4 } else { 0 } + if offset == 0 { 2 } else { 0 };
                self.begin(family::LOAD + access.index * 8 + form)?;
                if !in_accumulator {
                    self.slot_word(self.slot_of(&address))?;
                }
                if offset != 0 {
                    self.word(k)?;
                }
            }
        } else {
            self.checked_address(&mut address, offset, access.size)?;
            self.begin(family::LOAD + access.index * 8 + 6)?;
        }
        self.push_accumulator(result)?;
        match access.extended {
            Some(true) => self.extend(op::EXTEND_S_S, op::EXTEND_S_A),
            Some(false) => self.extend(op::EXTEND_U_S, op::EXTEND_U_A),
            None => Ok(()),
        }
    }

    /// A load whose address the last operator adds up: one operator does both, and a shift before it as well.
    pub(crate) fn load_from_sum(&mut self, index: u16, k: u16) -> Result<bool, Failed> {
        const ADD: u16 = family::BINARY;
        const SHIFT: u16 = family::BINARY + 6 * 10;
        let (last, operator) = (self.emit.last, self.emit.last_op);
        if last == NONE || !(ADD..ADD + 10).contains(&operator) || !(operator - ADD).is_multiple_of(2) {
            return Ok(false);
        }
        let form = (operator - ADD) / 2;
        let before = self.emit.before;
        let shift = self.emit.before_op.wrapping_sub(SHIFT);
        // The sum of the accumulator and a slot, where the accumulator is a slot or itself shifted by a constant.
        if before != NONE && (form == 1 || form == 2) && (shift == 6 || shift == 8) {
            let slot = self.code(last + 1);
            let from_slot = shift == 6;
            self.emit.position = before + if from_slot { 3 } else { 2 };
            self.emit.last = before;
            self.emit.before = NONE;
            self.change_last(family::LOAD_SCALED + index * 4 + if from_slot { 0 } else { 2 });
            self.last_is_from_here();
            self.word(slot)?;
            self.word(k)?;
            return Ok(true);
        }
        let sum = match form {
            0 => 0,
            3 => 4,
            4 => 6,
            _ => 2,
        };
        self.change_last(family::LOAD_SUM + index * 8 + sum);
        self.last_is_from_here();
        self.word(k)?;
        Ok(true)
    }

    fn load_pair(&mut self, access: &Access, offset: u32, address: Entry) -> Result<(), Failed> {
        let mut address = address;
        let k = match self.bound(offset, access.size) {
            Some(k) => k,
            None => {
                self.checked_address(&mut address, offset, access.size)?;
                self.write(op::LOAD64_A, &[8])?;
                self.result_word(self.slot)?;
                return self.push(access.value_type, Kind::Slot, 0);
            }
        };
        if address.kind == Kind::Const {
            self.put_into_slot(&mut address)?;
        }
        if self.is_accumulator(&address) {
            self.begin(op::LOAD64_A)?;
        } else {
            self.write(op::LOAD64_S, &[bytes(self.slot_of(&address))])?;
        }
        self.word(k)?;
        self.result_word(self.slot)?;
        self.push(access.value_type, Kind::Slot, 0)
    }

    fn store(&mut self, access: &Access, offset: u32) -> Result<(), Failed> {
        let mut value = self.pop_type(access.value_type)?;
        let mut address = self.pop_type(T::I32)?;
        if access.index == PAIR {
            return self.store_pair(offset, address, value);
        }
        if access.value_type == T::I64 {
            // Its low half is what is stored.
            value.value_type = T::I32;
        }
        if let Some(at) = self.fixed(&address, offset, access.size) {
            return self.store_fixed(access.index, at, value);
        }
        let (k, form, words, count) = match self.bound(offset, access.size) {
            Some(k) => {
                let (form, words, count) = self.operands(&mut address, &mut value)?;
                (k, form, words, count)
            }
            None => {
                if value.kind == Kind::Accumulator || (value.kind == Kind::Const && !fits(value.value)) {
                    self.put_into_slot(&mut value)?;
                }
                self.checked_address(&mut address, offset, access.size)?;
                let size = access.size as u16;
                match value.kind {
                    Kind::Const => (size, 4, [value.value as u16, 0], 1),
                    _ => (size, 1, [self.slot_of(&value) * 4, 0], 1),
                }
            }
        };
        self.begin(family::STORE + access.index * 5 + form)?;
        self.operand_words(words, count)?;
        self.word(k)
    }

    pub(crate) fn store_fixed(&mut self, index: u16, at: u32, value: Entry) -> Result<(), Failed> {
        let mut value = value;
        if value.kind == Kind::Const && !fits(value.value) {
            self.put_into_slot(&mut value)?;
        }
        let in_accumulator = self.is_accumulator(&value);
        let form = match value.kind {
            _ if in_accumulator => 1,
            Kind::Const => 2,
            _ => 0,
        };
        self.begin(family::STORE_FIXED + index * 3 + form)?;
        match value.kind {
            _ if in_accumulator => {}
            Kind::Const => self.word(value.value as u16)?,
            _ => self.slot_word(self.slot_of(&value))?,
        }
        self.word(at as u16)?;
        self.word((at >> 16) as u16)
    }

    pub(crate) fn store_pair(&mut self, offset: u32, address: Entry, value: Entry) -> Result<(), Failed> {
        let (mut address, mut value) = (address, value);
        if address.kind == Kind::Accumulator {
            self.put_into_slot(&mut address)?;
        }
        self.put_into_slot(&mut value)?;
        self.put_into_slot(&mut address)?;
        let (from, k) = match self.bound(offset, 8) {
            Some(k) => (self.slot_of(&address), k),
            None => {
                self.checked_address(&mut address, offset, 8)?;
                self.write(op::STORE_ACC, &[bytes(address.slot)])?;
                self.emit.acc_local = NONE;
                (address.slot, 8)
            }
        };
        self.write(op::STORE64, &[bytes(from), bytes(self.slot_of(&value)), k])
    }

    pub(crate) fn memory_size_or_grow(&mut self, grow: bool) -> Result<(), Failed> {
        let mut pages = None;
        if grow {
            let mut entry = self.pop_type(T::I32)?;
            self.put_into_slot(&mut entry)?;
            pages = Some(self.slot_of(&entry));
            // A slice may end while the new memory is set to zero.
            self.free_accumulator()?;
        }
        self.write(op::RARE, &[if grow { rare::MEMORY_GROW } else { rare::MEMORY_SIZE }])?;
        if let Some(pages) = pages {
            self.slot_word(pages)?;
        }
        self.result_word(self.slot)?;
        self.push(T::I32, Kind::Slot, 0)
    }
}
