//! Blocks, and what a function returns.

use super::emit::bytes;
use super::scratch::{Construct, Frame, NONE};
use crate::error::ErrorKind;
use crate::generated::op;
use crate::load::Loader;
use crate::reader::{Failed, Source};
use crate::types::ValueType as T;

impl Loader<'_> {
    pub(crate) fn block(&mut self, source: &mut dyn Source, is_loop: bool) -> Result<(), Failed> {
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

    pub(crate) fn branch_on_if(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
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

    pub(crate) fn otherwise(&mut self) -> Result<(), Failed> {
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
    pub(crate) fn check_block_end(&mut self, frame: Frame) -> Result<(), Failed> {
        self.check_types(frame.block_type, true)?;
        let count = self.block_types(frame.block_type, true);
        if self.height != usize::from(frame.height) + count {
            return self.invalid(ErrorKind::StackHeight);
        }
        Ok(())
    }

    pub(crate) fn end(&mut self) -> Result<(), Failed> {
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

    pub(crate) fn end_of_function(&mut self, frame: Frame) -> Result<(), Failed> {
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
}
