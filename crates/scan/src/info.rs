//! What a scan finds out about a module.

use alloc::vec::Vec;
use core::ops::Range;

use crate::features::Features;
use crate::interface::{Capabilities, HostFunction};
use crate::limits::TABLE_GROWTH;

/// Which export an application is started by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// `_start`: a WASI preview 1 command.
    Start,
    /// `run`: a program without a C or Rust start-up.
    Run,
}

impl EntryKind {
    /// The export's name.
    pub fn name(self) -> &'static str {
        match self {
            EntryKind::Start => "_start",
            EntryKind::Run => "run",
        }
    }
}

/// The exported function that starts an application: of type `() -> ()` and defined in the module itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which export.
    pub kind: EntryKind,
    /// Its index among the module's own functions, imports not counted.
    pub function: u32,
}

/// One import, resolved to the host function that answers it.
#[derive(Clone, Copy, Debug)]
pub struct Import {
    /// The host function.
    pub function: &'static HostFunction,
}

/// What a scan found.
#[derive(Clone, Debug)]
pub struct ModuleInfo {
    /// Bytes of the module.
    pub size: u32,
    /// Where it starts; absent only where [`ScanLimits::entry_required`](crate::ScanLimits::entry_required) is false.
    pub entry: Option<Entry>,
    /// Every import once, in the module's order.
    pub imports: Vec<Import>,
    /// What the imports need a capability for.
    pub capabilities: Capabilities,
    /// Operator groups beyond WebAssembly 1.0 that it uses.
    pub features: Features,
    /// Linear memory it starts with, bytes.
    pub memory_min_bytes: u64,
    /// Linear memory it may ask for, bytes, when it declares a maximum.
    pub memory_max_bytes: Option<u64>,
    /// Bytes of one page of linear memory: 65,536 or 1.
    pub page_bytes: u32,
    /// Whether it has a linear memory at all.
    pub has_memory: bool,
    /// Whether any function holds `memory.grow`.
    pub grows_memory: bool,
    /// Functions of its own.
    pub functions: u32,
    /// Globals of its own.
    pub globals: u32,
    /// Exports.
    pub exports: u32,
    /// Elements of its tables at the start.
    pub table_elements: u32,
    /// Elements that are set aside for its tables to grow by: none where nothing grows one.
    pub table_growth: u32,
    /// Elements of its passive segments, which are kept until they are copied.
    pub passive_elements: u32,
    /// The function that runs before the entry, imports counted.
    pub start_function: Option<u32>,
    /// Bytes of function bodies.
    pub code_bytes: u32,
    /// Bytes of custom sections; the engine never sees them.
    pub custom_bytes: u32,
    /// Where the content of the first section `wasmbed.settings` begins, and its length.
    pub settings: Option<(u32, u32)>,
    /// Arena bytes it is expected to take once loaded, linear memory apart.
    pub load_bytes_estimate: u64,
}

impl ModuleInfo {
    /// What is known of a module before it is read.
    pub(crate) fn of_size(size: u32) -> ModuleInfo {
        ModuleInfo {
            size,
            entry: None,
            imports: Vec::new(),
            capabilities: Capabilities::NONE,
            features: Features::NONE,
            memory_min_bytes: 0,
            memory_max_bytes: None,
            page_bytes: 65_536,
            has_memory: false,
            grows_memory: false,
            functions: 0,
            globals: 0,
            exports: 0,
            table_elements: 0,
            table_growth: 0,
            passive_elements: 0,
            start_function: None,
            code_bytes: 0,
            custom_bytes: 0,
            settings: None,
            load_bytes_estimate: 0,
        }
    }

    /// Where the module says which settings it has: the content of that section.
    pub fn settings_section(&self) -> Option<Range<usize>> {
        self.settings.map(|(begin, length)| begin as usize..begin as usize + length as usize)
    }

    /// Elements to set aside for each table to grow by.
    pub fn table_growth_wanted(&self) -> u32 {
        if self.table_growth > 0 { TABLE_GROWTH } else { 0 }
    }

    /// Bytes of linear memory to set aside for a program with this limit: all that it may ever ask for, and no more than
    /// it uses.
    pub fn memory_wanted_bytes(&self, memory_limit_bytes: u64) -> u64 {
        if !self.grows_memory {
            return self.memory_min_bytes;
        }
        let max = self.memory_max_bytes.unwrap_or(u64::MAX).min(memory_limit_bytes);
        max.max(self.memory_min_bytes)
    }
}

/// Arena bytes of a loaded module for each 1,000 bytes of its sections, custom ones apart: the most that was measured over
/// programs of five toolchains, on a 32-bit core, is 1,600.
pub const LOAD_PERMILLE: u32 = 1_600;

/// Arena bytes that every loaded module takes, however small: its stack, its host functions, the engine's own state.
pub const LOAD_FIXED_BYTES: u64 = 12_288;

pub(crate) fn load_bytes_estimate(module_bytes: u64, info: &ModuleInfo) -> u64 {
    let kept = u64::from(info.table_growth) + u64::from(info.passive_elements);
    let elements = u64::from(info.table_elements) * 8 + kept * 4;
    module_bytes * u64::from(LOAD_PERMILLE) / 1_000 + elements + LOAD_FIXED_BYTES
}
