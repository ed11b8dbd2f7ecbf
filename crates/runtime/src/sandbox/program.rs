//! What is loaded: an application's program, its limits, and the configuration that all of them share.

use crate::scan::{Capabilities, STACK_SLOTS, ScanLimits};

use super::metering::Metering;

/// Limits of one application, from its manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory at most, bytes.
    pub memory_bytes: u32,
    /// CPU time between two waits at most, milliseconds.
    pub cpu_ms: u32,
}

/// An application to load.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// `argv[0]`.
    pub name: &'a str,
    /// The module's bytes; not needed any more once loaded.
    pub module: &'a [u8],
    /// Its limits.
    pub limits: Limits,
    /// Arguments after `argv[0]`.
    pub args: &'a [&'a str],
    /// Environment, names and values.
    pub env: &'a [(&'a str, &'a str)],
    /// What it may do beyond the baseline.
    pub capabilities: Capabilities,
}

/// What the applications of one device share.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// Applications loaded at once.
    pub applications_max: usize,
    /// Longest slice, milliseconds.
    pub slice_ms: u32,
    /// Arena bytes that one loaded module may take, linear memory apart. A device has the whole arena here: who gets what of it
    /// is decided before a module is sent.
    pub heap_bytes_max: usize,
    /// 32-bit words of an application's call stack at most.
    pub stack_words: usize,
    /// Log bytes that one application may write in a second; twice that at once.
    pub log_bytes_per_second: u32,
    /// How CPU time is measured.
    pub metering: Metering,
    /// What modules are accepted.
    pub scan: ScanLimits,
}

impl Default for RuntimeConfig {
    /// A board with 512 KiB of RAM. All programs measured run with 192 words of stack; the stack here is larger because it is
    /// what bounds recursion.
    fn default() -> Self {
        RuntimeConfig {
            arena_bytes: 384 * 1_024,
            applications_max: 10,
            slice_ms: 5,
            heap_bytes_max: 384 * 1_024,
            stack_words: STACK_SLOTS as usize,
            log_bytes_per_second: 4_096,
            metering: Metering::Measured,
            scan: ScanLimits::default(),
        }
    }
}

impl RuntimeConfig {
    /// A device that is a process on a host: ten applications with a MiB of linear memory each. The arena takes real
    /// memory only as applications touch it. The call stack is a board's: what recurses too deep there does so here.
    pub fn hosted() -> Self {
        RuntimeConfig {
            arena_bytes: 32 * 1_024 * 1_024,
            heap_bytes_max: 32 * 1_024 * 1_024,
            ..RuntimeConfig::default()
        }
    }
}
