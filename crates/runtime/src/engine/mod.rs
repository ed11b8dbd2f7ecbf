//! The engine behind one trait, so that the sandbox doesn't know which one runs.
//!
//! ```text
//!            start                step -> OutOfFuel
//!   loaded ---------> running <--------------------+
//!     ^                 |  \------ step -----------/
//!     |   Done, Trap    |
//!     +-----------------+---- step -> HostCall ---> paused --- resume(value) ---> running
//! ```
//! `step` in the state `paused` is answered with [`Trap::Engine`]: an engine that went on there would compute with a
//! stale operand.

pub mod interpreter;
mod lock;
#[cfg(feature = "spacewasm")]
pub mod spacewasm;
mod trap;
#[cfg(feature = "wasmi")]
pub mod wasmi;

use core::fmt;

use crate::scan::{Features, HostFunction, ModuleInfo, Value};

pub use trap::{ProgramTrap, Trap};
pub use wasmbed_engine::{FRAMES_MAX, FUNCTION_NAME_BYTES_MAX, StackFrame, Trace};

pub use crate::scan::interface::ARGUMENTS_MAX;

/// The arguments of a host call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arguments {
    values: [Value; ARGUMENTS_MAX],
    length: usize,
}

impl Arguments {
    /// The first [`ARGUMENTS_MAX`] of these values.
    pub fn new(values: impl Iterator<Item = Value>) -> Arguments {
        let mut arguments = Arguments { values: [Value::I32(0); ARGUMENTS_MAX], length: 0 };
        for (slot, value) in arguments.values.iter_mut().zip(values) {
            *slot = value;
            arguments.length += 1;
        }
        arguments
    }

    /// All of them.
    pub fn as_slice(&self) -> &[Value] {
        self.values.get(..self.length).unwrap_or(&[])
    }

    /// The `i32` at this place as an unsigned number; 0 where the type says otherwise, which the scan has ruled out.
    pub fn u32(&self, at: usize) -> u32 {
        match self.as_slice().get(at) {
            Some(Value::I32(value)) => *value as u32,
            _ => 0,
        }
    }

    /// The `i64` at this place as an unsigned number; 0 where the type says otherwise, which the scan has ruled out.
    pub fn u64(&self, at: usize) -> u64 {
        match self.as_slice().get(at) {
            Some(Value::I64(value)) => *value as u64,
            _ => 0,
        }
    }
}

/// A call that an application made to its host, and waits for.
#[derive(Clone, Copy, Debug)]
pub struct HostCall {
    /// Which function.
    pub function: &'static HostFunction,
    /// Its arguments.
    pub arguments: Arguments,
}

/// Why a step ended.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// The function returned.
    Done(Option<Value>),
    /// The fuel is used up; step again to go on.
    OutOfFuel,
    /// A host function was called; answer with [`Engine::resume`].
    HostCall(HostCall),
    /// The program is over.
    Trap(Trap),
}

/// What a step did.
#[derive(Clone, Copy, Debug)]
pub struct Stepped {
    /// Why it ended.
    pub step: Step,
    /// Fuel it used, rounded up to what the engine can tell apart.
    pub fuel_used: u32,
}

/// Memory that one application may take.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Arena bytes for the loaded module: code, tables, globals, stack.
    pub heap_bytes: usize,
    /// Bytes of linear memory, set aside while loading.
    pub linear_bytes: usize,
    /// 32-bit words of the call stack.
    pub stack_words: usize,
}

/// Why an engine refuses a module that the scan let pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineError {
    /// The arena has not that much left.
    OutOfMemory {
        /// Bytes of the block that did not fit.
        needed_bytes: usize,
        /// Bytes left in the arena, perhaps in pieces.
        free_bytes: usize,
    },
    /// The loaded module would take more than its quota.
    Quota {
        /// The quota.
        heap_bytes: usize,
    },
    /// It does not validate, or has more of something than the engine's formats hold.
    Module(wasmbed_engine::Error),
    /// The same, of an engine that says no more about it.
    Invalid(&'static str),
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineError::OutOfMemory { needed_bytes, free_bytes } => {
                write!(f, "not enough memory: {needed_bytes} bytes more needed, {free_bytes} free")
            }
            EngineError::Quota { heap_bytes } => {
                write!(f, "loaded module needs more than the {heap_bytes} bytes one application may take")
            }
            EngineError::Module(error) if error.is_limit() => write!(f, "module has {error}"),
            EngineError::Module(error) => write!(f, "invalid module: {error}"),
            EngineError::Invalid(what) => write!(f, "invalid module: {what}"),
        }
    }
}

impl core::error::Error for EngineError {}

/// An address range outside the linear memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfBounds;

/// One loaded module.
///
/// An implementation may be used from one thread at a time and moved between threads; several of them may run on several
/// threads at once.
pub trait Engine: Sized {
    /// The memory that the applications of one sandbox share.
    type Arena;
    /// A module that is being loaded.
    type Loader;

    /// Name and version, as a device reports it.
    const NAME: &'static str;
    /// Features beyond WebAssembly 1.0 that it runs.
    const FEATURES: Features;

    /// An arena of this size. Its memory is taken when the first module is loaded.
    fn arena(bytes: usize) -> Self::Arena;

    /// Bytes in use in the arena.
    fn arena_used_bytes(arena: &Self::Arena) -> usize;

    /// Begins to load a module that [`scan`](crate::scan()) has accepted.
    fn begin(
        arena: &Self::Arena,
        module: &[u8],
        info: &ModuleInfo,
        quota: Quota,
    ) -> Result<Self::Loader, EngineError>;

    /// Loads the same module on, by about this much work: an operator, a name or a few bytes each. `None` if there is more to
    /// do; after anything else there is not. An engine that can't interrupt itself does all of it.
    fn load_on(
        loader: &mut Self::Loader,
        module: &[u8],
        info: &ModuleInfo,
        work: u32,
    ) -> Result<Option<Self>, EngineError>;

    /// Loads a module at once.
    fn load(
        arena: &Self::Arena,
        module: &[u8],
        info: &ModuleInfo,
        quota: Quota,
    ) -> Result<Self, EngineError> {
        let mut loader = Self::begin(arena, module, info, quota)?;
        loop {
            if let Some(loaded) = Self::load_on(&mut loader, module, info, u32::MAX)? {
                return Ok(loaded);
            }
        }
    }

    /// Moves all that is loaded together, so that what the arena has left is in one piece. False where it already is, or
    /// where the engine can't.
    fn compact(arena: &Self::Arena, loaded: &mut [&mut Self]) -> bool {
        let _ = (arena, loaded);
        false
    }

    /// The value of an exported global.
    fn exported_global(&self, name: &str) -> Option<Value>;

    /// Begins a call of an exported function that the module defines itself; a call that is under way is dropped.
    fn start(&mut self, export: &str, arguments: &[Value]) -> Result<(), Trap>;

    /// Runs until the function returns, traps, calls the host, or has used about this much fuel.
    fn step(&mut self, fuel: u32) -> Stepped;

    /// Answers the host call that the last step ended with.
    fn resume(&mut self, value: Option<Value>) -> Result<(), Trap>;

    /// What was under way when the last step trapped or called the host, for [`Self::begin_locate`]. Empty where the
    /// engine does not know.
    fn trace(&self) -> Trace {
        Trace::default()
    }

    /// Begins to find what of the module a trace's places came from. As long as that goes on, it has as much of the arena as
    /// loading had, linear memory and call stack apart.
    fn begin_locate(
        arena: &Self::Arena,
        module: &[u8],
        heap_bytes: usize,
        trace: Trace,
    ) -> Result<Self::Loader, EngineError> {
        let _ = (arena, module, heap_bytes, trace);
        Err(EngineError::Invalid("this engine does not know where a program was"))
    }

    /// Goes on with that, by about this much work, as of loading: the trace with its places once it is done.
    fn locate_on(loader: &mut Self::Loader, module: &[u8], work: u32) -> Result<Option<Trace>, EngineError> {
        let _ = (loader, module, work);
        Err(EngineError::Invalid("this engine does not know where a program was"))
    }

    /// Copies bytes out of the linear memory.
    fn read_memory(&self, address: u32, bytes: &mut [u8]) -> Result<(), OutOfBounds>;

    /// Copies bytes into the linear memory.
    fn write_memory(&mut self, address: u32, bytes: &[u8]) -> Result<(), OutOfBounds>;

    /// Bytes of linear memory right now.
    fn linear_memory_bytes(&self) -> usize;

    /// Arena bytes that this application holds, linear memory set aside included.
    fn memory_used_bytes(&self) -> usize;

    /// How often `memory.grow` was refused.
    fn grows_refused(&self) -> u32;
}
