//! What the executor works on: pointers into one region, and the registers while nothing runs.
#![allow(unsafe_code)]

use core::ptr::null_mut;

use crate::region::{Place, Region};

/// Why the executor returned.
pub(crate) mod exit {
    /// The function that was called from outside returned.
    pub(crate) const DONE: u32 = 0;
    /// The fuel is used up.
    pub(crate) const FUEL: u32 = 1;
    /// A host function was called.
    pub(crate) const HOST: u32 = 2;
    pub(crate) const UNREACHABLE: u32 = 10;
    pub(crate) const DIVISION: u32 = 11;
    pub(crate) const OVERFLOW: u32 = 12;
    pub(crate) const CONVERSION: u32 = 13;
    pub(crate) const MEMORY: u32 = 14;
    pub(crate) const TABLE: u32 = 15;
    pub(crate) const TABLE_ACCESS: u32 = 16;
    pub(crate) const UNINITIALIZED: u32 = 17;
    pub(crate) const KIND: u32 = 18;
    pub(crate) const STACK: u32 = 19;
    /// An access out of the bounds that the translator promised.
    pub(crate) const INTERNAL: u32 = 30;
    /// What a rare operator answers when the next one follows.
    pub(crate) const NEXT: u32 = 31;
}

/// Fuel that an operation on floats costs, most boards having no unit for it.
pub(crate) const FLOAT: i32 = 32;
/// Words in front of a function's code.
pub(crate) mod header {
    /// Number of its type.
    pub(crate) const KIND: usize = 0;
    /// Bytes of its frame.
    pub(crate) const FRAME: usize = 1;
    /// Slots that a call sets to zero.
    pub(crate) const ZEROED: usize = 2;
    /// Where in the frame the caller's code position and frame are kept, bytes.
    pub(crate) const SAVE: usize = 3;
    /// Fuel of a call.
    pub(crate) const COST: usize = 4;
    /// Words of the header.
    pub(crate) const WORDS: usize = 5;
}

/// Words by which the region describes a table: its place, its length, the length it may grow to.
///
/// Elements are 32-bit: the index of a function plus one, or a host's value plus one; 0 is null.
pub(crate) mod table {
    pub(crate) const PLACE: usize = 0;
    pub(crate) const LENGTH: usize = 1;
    pub(crate) const MAXIMUM: usize = 2;
    pub(crate) const WORDS: usize = 3;
}

/// Words by which the region describes a segment of bytes or references: its place and its length, 0 once it was dropped.
pub(crate) mod segment {
    pub(crate) const PLACE: usize = 0;
    pub(crate) const LENGTH: usize = 1;
    pub(crate) const WORDS: usize = 2;
}

/// One instance's pointers and registers.
pub(crate) struct Machine {
    /// The operator to go on with.
    pub(crate) pc: *const u16,
    /// Slot 0 of the function that runs.
    pub(crate) frame: *mut u8,
    /// What is left; below zero where the last charge was more than that.
    pub(crate) fuel: i32,
    /// Linear memory and its size now.
    pub(crate) memory: *mut u8,
    pub(crate) memory_bytes: u32,
    /// Up to where it may grow, and how much of that has been set to zero.
    pub(crate) memory_bytes_max: u32,
    pub(crate) memory_bytes_zeroed: u32,
    pub(crate) page_bytes: u32,
    pub(crate) grows_refused: u32,
    pub(crate) region: *mut u8,
    pub(crate) code: *const u16,
    pub(crate) code_end: *const u16,
    pub(crate) functions: *const u32,
    pub(crate) function_count: u32,
    /// How many of them are the host's.
    pub(crate) import_count: u32,
    pub(crate) globals: *mut u32,
    pub(crate) globals_end: *mut u32,
    pub(crate) tables: *mut u32,
    pub(crate) table_count: u32,
    pub(crate) data: *mut u32,
    pub(crate) elements: *mut u32,
    pub(crate) stack: *mut u8,
    pub(crate) stack_end: *mut u8,
    /// The call that the host has to answer: which import, and where its arguments are and its results go.
    pub(crate) host_function: u16,
    pub(crate) host_frame: *mut u8,
}

impl Machine {
    pub(crate) const fn empty() -> Machine {
        Machine {
            pc: null_mut(),
            frame: null_mut(),
            fuel: 0,
            memory: null_mut(),
            memory_bytes: 0,
            memory_bytes_max: 0,
            memory_bytes_zeroed: 0,
            page_bytes: 65_536,
            grows_refused: 0,
            region: null_mut(),
            code: null_mut(),
            code_end: null_mut(),
            functions: null_mut(),
            function_count: 0,
            import_count: 0,
            globals: null_mut(),
            globals_end: null_mut(),
            tables: null_mut(),
            table_count: 0,
            data: null_mut(),
            elements: null_mut(),
            stack: null_mut(),
            stack_end: null_mut(),
            host_function: 0,
            host_frame: null_mut(),
        }
    }

    /// The region is there now. What pointed into the one points into the other.
    pub(crate) fn shift(&mut self, to: *mut u8) {
        let from = self.region as usize;
        let place = |p: *mut u8| {
            if p.is_null() { p } else { to.wrapping_add((p as usize).wrapping_sub(from)) }
        };
        self.pc = place(self.pc.cast_mut().cast()).cast();
        self.frame = place(self.frame);
        self.memory = place(self.memory);
        self.region = place(self.region);
        self.code = place(self.code.cast_mut().cast()).cast();
        self.code_end = place(self.code_end.cast_mut().cast()).cast();
        self.functions = place(self.functions.cast_mut().cast()).cast();
        self.globals = place(self.globals.cast()).cast();
        self.globals_end = place(self.globals_end.cast()).cast();
        self.tables = place(self.tables.cast()).cast();
        self.data = place(self.data.cast()).cast();
        self.elements = place(self.elements.cast()).cast();
        self.stack = place(self.stack);
        self.stack_end = place(self.stack_end);
        self.host_frame = place(self.host_frame);
    }

    pub(crate) fn is_code(&self, p: *const u16) -> bool {
        p >= self.code && p < self.code_end
    }

    pub(crate) fn is_stack(&self, p: *const u32) -> bool {
        p.cast_mut().cast() >= self.stack && p.wrapping_add(1).cast_mut().cast() <= self.stack_end
    }

    pub(crate) fn is_memory(&self, p: *const u8, size: usize) -> bool {
        let at = (p as usize).wrapping_sub(self.memory as usize);
        at.checked_add(size).is_some_and(|end| end <= self.memory_bytes as usize)
    }

    pub(crate) fn is_global(&self, p: *const u32) -> bool {
        p >= self.globals.cast_const() && p < self.globals_end.cast_const()
    }

    /// A table of the module: its elements and how many there are.
    ///
    /// # Safety
    /// The module has a table with this index.
    #[inline(always)]
    pub(crate) unsafe fn table(&self, index: usize) -> (*mut u32, u32) {
        debug_assert!(index < self.table_count as usize, "the translator checks the index");
        let words = self.tables.wrapping_add(index * table::WORDS);
        // SAFETY: the caller's.
        let (place, length) = unsafe { (*words.add(table::PLACE), *words.add(table::LENGTH)) };
        (self.region.wrapping_add(place as usize).cast(), length)
    }

    /// The header of a function.
    ///
    /// # Safety
    /// The module has a function with this index.
    #[inline(always)]
    pub(crate) unsafe fn function(&self, index: usize) -> *const u16 {
        debug_assert!(index < self.function_count as usize, "the translator checks the index");
        // SAFETY: the caller's.
        let place = unsafe { *self.functions.add(index) };
        self.saved_code(place)
    }

    // On a machine with 32-bit pointers a code position and a frame are kept as they are; on others as distances.

    /// A code position in 32 bits.
    #[inline(always)]
    pub(crate) fn save_code(&self, p: *const u16) -> u32 {
        if POINTERS_FIT { p as usize as u32 } else { (p as usize).wrapping_sub(self.code as usize) as u32 }
    }

    /// The other way.
    #[inline(always)]
    pub(crate) fn saved_code(&self, saved: u32) -> *const u16 {
        if POINTERS_FIT {
            saved as usize as *const u16
        } else {
            self.code.cast::<u8>().wrapping_add(saved as usize).cast()
        }
    }

    /// A frame in 32 bits.
    #[inline(always)]
    pub(crate) fn save_frame(&self, p: *mut u8) -> u32 {
        if POINTERS_FIT { p as usize as u32 } else { (p as usize).wrapping_sub(self.stack as usize) as u32 }
    }

    /// The other way.
    #[inline(always)]
    pub(crate) fn saved_frame(&self, saved: u32) -> *mut u8 {
        if POINTERS_FIT { saved as usize as *mut u8 } else { self.stack.wrapping_add(saved as usize) }
    }
}

/// Whether 32 bits hold a pointer.
pub(crate) const POINTERS_FIT: bool = size_of::<usize>() == 4;

/// A position in the code of a region, as [`Machine::save_code`] has it.
pub(crate) fn save_code_position(region: &Region<'_>, code: Place, position: u32) -> u32 {
    if POINTERS_FIT { region.address(code) as u32 + position * 2 } else { position * 2 }
}

/// The other way.
pub(crate) fn saved_code_position(region: &Region<'_>, code: Place, saved: u32) -> u32 {
    if POINTERS_FIT { saved.wrapping_sub(region.address(code) as u32) / 2 } else { saved / 2 }
}
