//! Calls: arguments are put where the callee has its parameters.

use super::emit::bytes;
use super::scratch::{BlockType, Kind};
use crate::error::ErrorKind;
use crate::generated::op;
use crate::load::Loader;
use crate::reader::Failed;
use crate::types::ValueType as T;

impl Loader<'_> {
    /// Puts arguments where the callee has its parameters; answers the first one's slot.
    pub(crate) fn arguments(&mut self, type_index: u32) -> Result<u16, Failed> {
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

    pub(crate) fn results(&mut self, type_index: u32) -> Result<(), Failed> {
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
    pub(crate) fn check_tail(&self, type_index: u32) -> Result<(), Failed> {
        let BlockType(own) = self.scratch.frames[0].block_type;
        if self.function_type(type_index).results != self.function_type(own).results {
            return self.invalid(ErrorKind::Invalid("a tail call of a function with other results"));
        }
        Ok(())
    }

    pub(crate) fn call(&mut self, function: u32, tail: bool) -> Result<(), Failed> {
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

    pub(crate) fn after_call(&mut self, tail: bool, returns: bool) -> Result<(), Failed> {
        if tail {
            if returns {
                self.emit_return()?;
            }
            self.set_unreachable();
        }
        Ok(())
    }

    pub(crate) fn call_indirect(&mut self, type_index: u32, table: u32, tail: bool) -> Result<(), Failed> {
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
}
