//! The functions that are under way: the one that runs, who called it, and so on.
#![allow(unsafe_code)]

use crate::machine::{Machine, header};

/// A function that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Active {
    /// Its index.
    pub(crate) function: u32,
    /// Where it is in its code: of a caller what follows the call.
    pub(crate) pc: *const u16,
    /// Where its frame keeps the caller's code position and frame.
    pub(crate) saved: *mut u32,
}

/// From the function that runs to the one that was called from outside.
pub(crate) struct Frames<'a> {
    machine: &'a Machine,
    pc: *const u16,
    frame: Option<*mut u8>,
}

impl<'a> Frames<'a> {
    /// Those of a machine that is within a function.
    pub(crate) fn new(machine: &'a Machine) -> Frames<'a> {
        Frames { machine, pc: machine.pc, frame: Some(machine.frame) }
    }

    /// The function to whose code this position belongs. Functions' code stands in their order, behind that of imports.
    fn function_at(&self, pc: *const u16) -> u32 {
        let machine = self.machine;
        let begins = |function: u32| {
            // SAFETY: the module has this function.
            unsafe { machine.function(function as usize) }
        };
        let (mut low, mut high) = (machine.import_count, machine.function_count);
        while low < high {
            let middle = low + (high - low) / 2;
            if begins(middle) <= pc { low = middle + 1 } else { high = middle }
        }
        if low > machine.import_count {
            return low - 1;
        }
        (0..machine.import_count)
            .filter(|import| begins(*import) <= pc)
            .max_by_key(|import| begins(*import))
            .unwrap_or(0)
    }
}

impl Iterator for Frames<'_> {
    type Item = Active;

    fn next(&mut self) -> Option<Active> {
        let frame = self.frame?;
        let pc = self.pc;
        let function = self.function_at(pc);
        // SAFETY: the header of a function that has code.
        let save = unsafe { *self.machine.function(function as usize).add(header::SAVE) };
        let saved = frame.wrapping_add(usize::from(save)).cast::<u32>();
        // SAFETY: the frame of a function that is under way lies within the stack.
        let (code, caller) = unsafe { (*saved, *saved.add(1)) };
        self.pc = self.machine.saved_code(code);
        self.frame = (frame != self.machine.stack).then(|| self.machine.saved_frame(caller));
        Some(Active { function, pc, saved })
    }
}
