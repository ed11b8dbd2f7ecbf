//! Locals, globals, constants, references, and the choice between two values.

use super::emit::bytes;
use super::scratch::Kind;
use crate::error::ErrorKind;
use crate::generated::op;
use crate::load::Loader;
use crate::reader::{Failed, Source};
use crate::types::ValueType as T;

impl Loader<'_> {
    pub(crate) fn select(&mut self, value_type: Option<T>) -> Result<(), Failed> {
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

    pub(crate) fn local(&mut self, operator: u8, local: u32) -> Result<(), Failed> {
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

    pub(crate) fn global(&mut self, global: u32, set: bool) -> Result<(), Failed> {
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

    /// Constants, `ref.null`, `ref.is_null` and `ref.func`.
    pub(crate) fn constant_or_reference(
        &mut self,
        source: &mut dyn Source,
        operator: u8,
    ) -> Result<(), Failed> {
        match operator {
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
            _ => {
                let function = self.reader.number(source)?;
                self.function_reference(function)
            }
        }
    }

    pub(crate) fn long_constant(&mut self, value_type: T, value: u64) -> Result<(), Failed> {
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

    pub(crate) fn function_reference(&mut self, function: u32) -> Result<(), Failed> {
        if function >= self.functions {
            return self.invalid(ErrorKind::Index { what: "function", index: function });
        }
        if !self.is_declared(function) {
            return self.invalid(ErrorKind::Invalid("a reference to a function that nothing declares"));
        }
        self.refer(function);
        self.push(T::FUNCREF, Kind::Const, function + 1)
    }
}
