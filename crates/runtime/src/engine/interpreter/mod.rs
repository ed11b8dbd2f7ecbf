//! `wasmbed-engine`, in one block of the arena for each application.
#![allow(unsafe_code, reason = "an instance borrows the block that it is kept with")]

mod arena;

use wasmbed_engine as engine;

pub use arena::Arena;
use arena::Block;

use super::{Arguments, Engine, EngineError, HostCall, OutOfBounds, Quota, Step, Stepped, Trap};
use crate::scan::{Features, HostFunction, ModuleInfo, Value, ValueType};

/// One module, loaded into the interpreter.
pub struct Interpreter {
    // Declared before the block whose memory it borrows.
    instance: engine::Instance<'static>,
    block: Block,
    /// The host functions that the module imports.
    imports: alloc::vec::Vec<&'static HostFunction>,
}

/// One module on its way into the interpreter.
pub struct Loader {
    /// The loader, before the block whose memory it borrows; none once it is done.
    state: Option<(engine::Loader<'static>, Block)>,
    room: Room,
}

/// An answer was given: there is nothing to go on with.
const DONE: EngineError = EngineError::Invalid("it is done");

impl Loader {
    fn step(
        &mut self,
        mut module: &[u8],
        imports: &dyn engine::Imports,
        work: u32,
    ) -> Result<engine::Progress, EngineError> {
        let (loader, _) = self.state.as_mut().ok_or(DONE)?;
        loader.step(&mut module, imports, work).map_err(|error| self.room.explain(error))
    }
}

/// What there is for a module, to say why it has too little.
#[derive(Clone, Copy)]
struct Room {
    free_bytes: usize,
    quota: Quota,
    /// The arena has more than the quota allows.
    is_quota: bool,
}

impl Room {
    fn refuse(self, needed_bytes: usize) -> EngineError {
        match self.is_quota {
            true => EngineError::Quota { heap_bytes: self.quota.heap_bytes },
            false => EngineError::OutOfMemory { needed_bytes, free_bytes: self.free_bytes },
        }
    }

    fn explain(self, error: engine::Error) -> EngineError {
        match error.kind {
            engine::ErrorKind::Memory { needed } => self.refuse(needed as usize),
            _ => EngineError::Module(error),
        }
    }
}

impl Engine for Interpreter {
    type Arena = Arena;
    type Loader = Loader;

    const NAME: &'static str = engine::NAME;
    const FEATURES: Features = Features::DEVICES;

    fn arena(bytes: usize) -> Arena {
        Arena::new(bytes)
    }

    fn arena_used_bytes(arena: &Arena) -> usize {
        arena.used_bytes()
    }

    fn begin(arena: &Arena, module: &[u8], info: &ModuleInfo, quota: Quota) -> Result<Loader, EngineError> {
        let kept = quota.heap_bytes.saturating_add(quota.linear_bytes);
        let wanted = kept.saturating_add(engine::Loader::SCRATCH_BYTES);
        let room = Room { free_bytes: arena.free_bytes(), quota, is_quota: false };
        let mut block = arena.take_largest(wanted).ok_or(room.refuse(quota.linear_bytes))?;
        let room = Room { is_quota: block.bytes() + 8 > wanted, ..room };
        let config = engine::Config {
            stack_slots: u32::try_from(quota.stack_words).unwrap_or(u32::MAX),
            memory_bytes: u32::try_from(quota.linear_bytes).unwrap_or(u32::MAX),
            table_growth: info.table_growth_wanted(),
        };
        // SAFETY: the loader, and the instance after it, are dropped before the block, and the instance uses no more of it
        // than it says.
        let memory = unsafe { block.memory() };
        let loader = engine::Loader::new(memory, &module, config);
        let loader = loader.ok_or(room.refuse(quota.linear_bytes))?;
        Ok(Loader { state: Some((loader, block)), room })
    }

    fn load_on(
        loading: &mut Loader,
        module: &[u8],
        info: &ModuleInfo,
        work: u32,
    ) -> Result<Option<Self>, EngineError> {
        if loading.step(module, &Offered(info), work)? == engine::Progress::More {
            return Ok(None);
        }
        let room = loading.room;
        let (loader, mut block) = loading.state.take().ok_or(DONE)?;
        let instance = loader.finish().ok_or(room.refuse(room.quota.stack_words * 4))?;
        // The call stack may lie where the loader's own was, which the quota does not count.
        if instance.bytes() > room.quota.heap_bytes.saturating_add(room.quota.linear_bytes) {
            return Err(EngineError::Quota { heap_bytes: room.quota.heap_bytes });
        }
        block.shrink(instance.bytes());
        let imports = info.imports.iter().map(|import| import.function).collect();
        Ok(Some(Interpreter { instance, block, imports }))
    }

    fn compact(arena: &Arena, loaded: &mut [&mut Self]) -> bool {
        if !arena.is_fragmented() {
            return false;
        }
        loaded.sort_unstable_by_key(|interpreter| interpreter.block.first());
        for interpreter in loaded {
            if let Some(to) = interpreter.block.move_down() {
                // SAFETY: the block's bounds are there now, behind the one before it, and nothing else has what is within.
                unsafe { interpreter.instance.relocate(to.as_ptr()) }
            }
        }
        true
    }

    fn exported_global(&self, name: &str) -> Option<Value> {
        self.instance.exported_global(name).and_then(from_engine)
    }

    fn start(&mut self, export: &str, arguments: &[Value]) -> Result<(), Trap> {
        let mut values = [engine::Value::I32(0); super::ARGUMENTS_MAX];
        let Some(values) = values.get_mut(..arguments.len()) else {
            return Err(Trap::Engine("too many arguments"));
        };
        for (slot, value) in values.iter_mut().zip(arguments) {
            *slot = to_engine(*value);
        }
        self.instance.call(export, values).map_err(|error| match error {
            engine::CallError::NoSuchFunction => Trap::Engine("no such export"),
            engine::CallError::Types => Trap::Engine("arguments of other types"),
            engine::CallError::StackOverflow => Trap::Program(engine::Trap::StackOverflow),
            engine::CallError::NotWaiting => Trap::Engine("a call within a call"),
        })
    }

    fn step(&mut self, fuel: u32) -> Stepped {
        let (step, fuel_used) = self.instance.step(fuel);
        let step = match step {
            engine::Step::Done => Step::Done(self.instance.results().next().and_then(from_engine)),
            engine::Step::OutOfFuel => Step::OutOfFuel,
            engine::Step::Trap(trap) => Step::Trap(Trap::Program(trap)),
            engine::Step::HostCall(import) => match self.imports.get(usize::from(import)) {
                Some(function) => {
                    let arguments = Arguments::new(self.instance.arguments().filter_map(from_engine));
                    Step::HostCall(HostCall { function, arguments })
                }
                None => Step::Trap(Trap::Engine("a call of an import that isn't there")),
            },
        };
        Stepped { step, fuel_used }
    }

    fn resume(&mut self, value: Option<Value>) -> Result<(), Trap> {
        let value = value.map(to_engine);
        self.instance.answer(value.as_slice()).map_err(|error| match error {
            engine::CallError::NotWaiting => Trap::Engine("an answer without a host call"),
            engine::CallError::Types
            | engine::CallError::NoSuchFunction
            | engine::CallError::StackOverflow => Trap::Engine("an answer of another type"),
        })
    }

    fn trace(&self) -> engine::Trace {
        self.instance.trace()
    }

    fn begin_locate(
        arena: &Arena,
        module: &[u8],
        heap_bytes: usize,
        trace: engine::Trace,
    ) -> Result<Loader, EngineError> {
        let wanted = heap_bytes.saturating_add(engine::Loader::SCRATCH_BYTES);
        let quota = Quota { heap_bytes, linear_bytes: 0, stack_words: 0 };
        let room = Room { free_bytes: arena.free_bytes(), quota, is_quota: false };
        let mut block = arena.take_largest(wanted).ok_or(room.refuse(wanted))?;
        // SAFETY: the loader is dropped before the block.
        let memory = unsafe { block.memory() };
        let loader = engine::Loader::locate(memory, &module, trace).ok_or(room.refuse(wanted))?;
        Ok(Loader { state: Some((loader, block)), room })
    }

    fn locate_on(
        locating: &mut Loader,
        module: &[u8],
        work: u32,
    ) -> Result<Option<engine::Trace>, EngineError> {
        if locating.step(module, &Known, work)? == engine::Progress::More {
            return Ok(None);
        }
        let (loader, _block) = locating.state.take().ok_or(DONE)?;
        Ok(Some(loader.into_trace().unwrap_or_default()))
    }

    fn read_memory(&self, address: u32, bytes: &mut [u8]) -> Result<(), OutOfBounds> {
        let from = self.instance.memory().get(address as usize..).ok_or(OutOfBounds)?;
        bytes.copy_from_slice(from.get(..bytes.len()).ok_or(OutOfBounds)?);
        Ok(())
    }

    fn write_memory(&mut self, address: u32, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let to = self.instance.memory_mut().get_mut(address as usize..).ok_or(OutOfBounds)?;
        to.get_mut(..bytes.len()).ok_or(OutOfBounds)?.copy_from_slice(bytes);
        Ok(())
    }

    fn linear_memory_bytes(&self) -> usize {
        self.instance.memory().len()
    }

    fn memory_used_bytes(&self) -> usize {
        self.block.bytes()
    }

    fn grows_refused(&self) -> u32 {
        self.instance.grows_refused()
    }
}

/// The host functions that the scan found a module to import.
struct Offered<'a>(&'a ModuleInfo);

impl engine::Imports for Offered<'_> {
    fn find(&self, module: &str, name: &str, function: engine::FunctionType<'_>) -> Option<u16> {
        let same = |types: &[ValueType], found: &mut dyn Iterator<Item = engine::ValueType>| {
            types.iter().copied().map(type_to_engine).eq(found)
        };
        let found = self.0.imports.iter().position(|import| {
            import.function.module() == module
                && import.function.name() == name
                && same(import.function.params(), &mut function.parameters())
                && same(import.function.results(), &mut function.results())
        });
        found.and_then(|at| u16::try_from(at).ok())
    }
}

/// Imports of a module that was loaded before: all of them are known.
struct Known;

impl engine::Imports for Known {
    fn find(&self, _: &str, _: &str, _: engine::FunctionType<'_>) -> Option<u16> {
        Some(0)
    }
}

// The host interface's values and types are `scan`'s, which depends on nothing, so that a controller or a tool can check modules without an
// engine; the engine's have references as well, which no host function takes, and it knows no host interface. One enum for both
// would make either know the other.

fn type_to_engine(value_type: ValueType) -> engine::ValueType {
    match value_type {
        ValueType::I32 => engine::ValueType::I32,
        ValueType::I64 => engine::ValueType::I64,
        ValueType::F32 => engine::ValueType::F32,
        ValueType::F64 => engine::ValueType::F64,
    }
}

fn to_engine(value: Value) -> engine::Value {
    match value {
        Value::I32(value) => engine::Value::I32(value),
        Value::I64(value) => engine::Value::I64(value),
        Value::F32(bits) => engine::Value::F32(bits),
        Value::F64(bits) => engine::Value::F64(bits),
    }
}

/// `None` for a reference: nothing outside has a use for one.
fn from_engine(value: engine::Value) -> Option<Value> {
    match value {
        engine::Value::I32(value) => Some(Value::I32(value)),
        engine::Value::I64(value) => Some(Value::I64(value)),
        engine::Value::F32(bits) => Some(Value::F32(bits)),
        engine::Value::F64(bits) => Some(Value::F64(bits)),
        engine::Value::FuncRef(_) | engine::Value::ExternRef(_) => None,
    }
}
