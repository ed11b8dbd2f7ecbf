//! Where a function begins and ends: its locals, its header, its frame.

use super::scratch::{BlockType, Construct, FRAMES, Frame, LOCALS, NONE};
use crate::error::ErrorKind;
use crate::load::Loader;
use crate::machine::header;
use crate::reader::Failed;
use crate::types::ValueType as T;

impl Loader<'_> {
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

    pub(crate) fn end_function(&mut self) -> Result<(), Failed> {
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

    pub(crate) fn push_frame(
        &mut self,
        block: Construct,
        block_type: BlockType,
        dead: bool,
    ) -> Result<(), Failed> {
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
}
