//! Bodies of functions, and the end of the module.

use super::Loader;
use super::state::Phase;
use crate::error::ErrorKind;
use crate::reader::{Failed, Source};

impl Loader<'_> {
    /// Begins the code: what the outermost function returns to, and functions in whose place the host stands.
    pub(crate) fn set_up_code(&mut self) -> Result<(), Failed> {
        let place = self.take::<u16>(0)?;
        self.emit.code = place;
        self.emit.capacity = (self.region.free() / 2) as u32;
        self.emit.position = 0;
        self.emit.dead = false;
        self.word(crate::generated::op::HALT)?;
        for import in 0..self.imports {
            if self.is_declared(import) || self.start == Some(import) {
                self.host_function(import)?;
            }
        }
        Ok(())
    }

    pub(crate) fn host_function(&mut self, import: u32) -> Result<(), Failed> {
        let type_index = self.type_of_function(import);
        let (parameters, results) = self.function_type(type_index).slots();
        let save = parameters.max(results) as u16 * 4;
        self.set_function_place(import, self.emit.position);
        for word in [self.canonical_type(type_index), save + 8, 0, save, 0] {
            self.word(word)?;
        }
        for word in [crate::generated::op::HOST, 0, import as u16, crate::generated::op::RETURN, save] {
            self.word(word)?;
        }
        Ok(())
    }

    pub(crate) fn begin_body(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        let size = self.reader.number(source)?;
        self.body_offset = self.reader.position();
        let end = self.body_offset.checked_add(size).filter(|end| *end <= self.section_end);
        let Some(end) = end else { return self.fail(ErrorKind::End) };
        self.reader.set_end(end);
        self.far = false;
        self.needs_far = false;
        self.operator_offset = self.body_offset;
        self.begin_function()?;
        self.phase = Phase::Locals { left: u32::MAX };
        Ok(())
    }

    /// Translates a function from its beginning, with branches that reach farther.
    pub(crate) fn restart_function(&mut self) -> Result<(), Failed> {
        self.far = true;
        self.needs_far = false;
        self.fixing = None;
        self.targets = None;
        self.emit.position = self.function_start;
        self.reader.seek(self.body_offset);
        self.begin_function()?;
        self.phase = Phase::Locals { left: u32::MAX };
        Ok(())
    }

    /// Reads how many groups of locals there are, or one of them.
    pub(crate) fn local_group(&mut self, source: &mut dyn Source, left: u32) -> Result<(), Failed> {
        let left = match left {
            u32::MAX => self.reader.number(source)?,
            left => {
                let count = self.reader.number(source)?;
                let value_type = self.reader.value_type(source)?;
                self.add_locals(count, value_type)?;
                left - 1
            }
        };
        if left == u32::MAX {
            return self.fail(ErrorKind::Limit { what: "groups of locals", limit: u32::MAX - 1 });
        }
        self.phase = Phase::Locals { left };
        if left == 0 {
            self.end_locals();
            self.phase = Phase::Operators;
        }
        Ok(())
    }

    pub(crate) fn next_operator(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        if self.targets.is_some() {
            return self.next_targets(source);
        }
        if self.frames > 0 {
            return self.operator(source);
        }
        // Not with its last operator: the branches to the function's end, resolved since, may have to be far ones.
        self.function += 1;
        self.reader.set_end(self.section_end);
        let has_all = self.trace.as_ref().is_some_and(|trace| trace.is_before(self.emit.position));
        self.phase = if has_all { Phase::Done } else { Phase::Items };
        Ok(())
    }

    pub(crate) fn end_module(&mut self) -> Result<(), Failed> {
        if !self.has_functions {
            self.set_up_functions(0)?;
        }
        if !self.has_code {
            if self.functions != self.imports {
                return self.fail(ErrorKind::Malformed("number of functions with code"));
            }
            self.set_up_code()?;
            let end = self.emit.code.0 as usize + self.emit.position as usize * 2;
            self.region.advance_to(end);
        }
        if self.has_data_count && self.segments_done != self.data {
            return self.fail(ErrorKind::Malformed("number of data segments"));
        }
        if self.trace.is_some() {
            self.phase = Phase::Done;
        } else {
            self.begin_depth();
        }
        Ok(())
    }
}
