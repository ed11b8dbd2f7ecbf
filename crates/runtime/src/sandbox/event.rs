//! How an application's run ended, and why one can't begin.

use core::fmt;

use crate::engine::{EngineError, Trace, Trap};
use crate::host::AppId;
use crate::scan::{Capability, Refusal, ScanError};

/// A limit that an application went over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// CPU time between two waits.
    Cpu {
        /// The limit, milliseconds.
        limit_ms: u32,
    },
    /// It gave up after `memory.grow` was refused.
    Memory {
        /// Linear memory that it could have, bytes: its limit, or what the device could set aside.
        available_bytes: u64,
    },
    /// Calls nested deeper than the call stack holds.
    Stack,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The entry returned (code 0), or the program called `proc_exit`.
    Exited {
        /// The exit code.
        code: u32,
    },
    /// A trap.
    Trapped(Trap),
    /// A limit.
    Exceeded(Exceeded),
}

impl Ending {
    /// Whether a trap ended it, also one by which a limit shows.
    pub fn is_trap(&self) -> bool {
        match self {
            Ending::Trapped(_) | Ending::Exceeded(Exceeded::Memory { .. } | Exceeded::Stack) => true,
            Ending::Exited { .. } | Ending::Exceeded(Exceeded::Cpu { .. }) => false,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Exited { code } => write!(f, "ended with exit code {code}"),
            Ending::Trapped(trap) => write!(f, "trapped: {trap}"),
            Ending::Exceeded(Exceeded::Cpu { limit_ms }) => {
                write!(f, "used more than {limit_ms} ms of CPU without a wait")
            }
            Ending::Exceeded(Exceeded::Memory { available_bytes }) => {
                write!(f, "gave up: no more than {available_bytes} bytes of memory to be had")
            }
            Ending::Exceeded(Exceeded::Stack) => f.write_str("call stack exhausted"),
        }
    }
}

/// What an application holds and has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Arena bytes, linear memory set aside included.
    pub memory_bytes: u64,
    /// CPU time since it was loaded, milliseconds.
    pub cpu_ms: u64,
}

/// An application ended; it is no longer loaded and its memory is free again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which application.
    pub id: AppId,
    /// How.
    pub ending: Ending,
    /// What it held and had used at its end.
    pub usage: Usage,
    /// The functions that were under way if it trapped, to be found in its module by
    /// [`Runtime::locate`](super::Runtime::locate); otherwise empty.
    pub trace: Trace,
}

/// Why an application can't be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// One with this id is loaded.
    AlreadyLoaded,
    /// The device runs no more.
    TooManyApplications {
        /// How many it runs.
        limit: usize,
    },
    /// Arguments and environment are too long.
    ArgumentsTooLong {
        /// Bytes of them, terminators included.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// The scan refuses the module.
    Scan(ScanError),
    /// An import needs a capability that isn't granted.
    CapabilityDenied {
        /// The import.
        import: &'static str,
        /// What it needs.
        capability: Capability,
    },
    /// The module starts with more linear memory than the limit.
    MemoryLimit {
        /// It starts with, bytes.
        needed_bytes: u64,
        /// The limit, bytes.
        limit_bytes: u64,
    },
    /// The engine refuses the module.
    Engine(EngineError),
}

impl LoadError {
    /// The kind of this refusal.
    pub fn code(&self) -> Refusal {
        match self {
            LoadError::AlreadyLoaded | LoadError::ArgumentsTooLong { .. } => Refusal::InvalidProgram,
            LoadError::TooManyApplications { .. } => Refusal::TooManyApplications,
            LoadError::Scan(error) => error.code(),
            LoadError::CapabilityDenied { .. } => Refusal::CapabilityDenied,
            LoadError::MemoryLimit { .. } => Refusal::MemoryLimit,
            LoadError::Engine(EngineError::Module(error)) if error.is_limit() => Refusal::TooComplex,
            LoadError::Engine(EngineError::Module(_) | EngineError::Invalid(_)) => Refusal::InvalidModule,
            LoadError::Engine(EngineError::OutOfMemory { .. } | EngineError::Quota { .. }) => {
                Refusal::OutOfMemory
            }
        }
    }
}

impl From<ScanError> for LoadError {
    fn from(error: ScanError) -> Self {
        LoadError::Scan(error)
    }
}

impl From<EngineError> for LoadError {
    fn from(error: EngineError) -> Self {
        LoadError::Engine(error)
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::AlreadyLoaded => f.write_str("already loaded"),
            LoadError::TooManyApplications { limit } => {
                write!(f, "this device runs {limit} applications, no more")
            }
            LoadError::ArgumentsTooLong { bytes, limit } => {
                write!(f, "arguments and environment have {bytes} bytes, at most {limit}")
            }
            LoadError::Scan(error) => error.fmt(f),
            LoadError::CapabilityDenied { import, capability } => {
                write!(f, "import '{import}' needs the capability '{capability}', which is not granted")
            }
            LoadError::MemoryLimit { needed_bytes, limit_bytes } => {
                write!(f, "module starts with {needed_bytes} bytes of memory, memory_limit is {limit_bytes}")
            }
            LoadError::Engine(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for LoadError {}
