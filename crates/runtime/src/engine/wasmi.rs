//! The second engine, wasmi: the oracle of the differential tests.
//!
//! For hosts only. It aborts the process when memory runs out, and its 1.1 parser panics on 32-bit machines on a section
//! length near 2^32. It doesn't use the arena: what it holds is not charged to anybody.

use alloc::vec::Vec;
use core::fmt;

use wasmi::TrapCode;
use wasmi::{
    Caller, CompilationMode, Config, Error, Extern, Func, FuncType, Instance, Linker, Memory, Module,
    ResumableCall, ResumableCallHostTrap, ResumableCallOutOfFuel, Store, StoreLimits, StoreLimitsBuilder,
    Val, ValType,
};

use super::{Arguments, Engine, EngineError, HostCall, OutOfBounds, ProgramTrap, Quota, Step, Stepped, Trap};
use crate::scan::{Features, HostFunction, ModuleInfo, Value, ValueType};

struct Data {
    limits: StoreLimits,
    slot: Option<HostCall>,
}

/// What a host function answers the engine with; the call is in the slot.
#[derive(Debug)]
struct Pause;

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a host call")
    }
}

impl wasmi::errors::HostError for Pause {}

enum State {
    Idle,
    Started(Func, Vec<Val>),
    OutOfFuel(ResumableCallOutOfFuel),
    Paused(ResumableCallHostTrap),
    Answered(ResumableCallHostTrap, Option<Value>),
}

/// One module, loaded into wasmi.
pub struct Wasmi {
    store: Store<Data>,
    instance: Instance,
    memory: Option<Memory>,
    state: State,
    results: Vec<Val>,
}

impl Engine for Wasmi {
    type Arena = ();
    type Loader = Option<Self>;

    const NAME: &'static str = "wasmi 1.1.0";
    /// It would run a start function while it loads, and without an end.
    const FEATURES: Features = Features::DEVICES.without(Features::START_FUNCTION);

    fn arena(_: usize) {}

    fn arena_used_bytes((): &()) -> usize {
        0
    }

    fn begin((): &(), module: &[u8], info: &ModuleInfo, quota: Quota) -> Result<Option<Self>, EngineError> {
        let engine = wasmi::Engine::new(&config(quota.stack_words));
        let module = Module::new(&engine, module).map_err(|_| EngineError::Invalid("wasmi refuses it"))?;
        let limits = StoreLimitsBuilder::new()
            .memory_size(quota.linear_bytes)
            .memories(1)
            .tables(32)
            .instances(1)
            .build();
        let mut store = Store::new(&engine, Data { limits, slot: None });
        store.limiter(|data| &mut data.limits);
        let mut linker = Linker::new(&engine);
        for import in &info.imports {
            link(&mut linker, import.function).map_err(|_| EngineError::Invalid("wasmi can't link it"))?;
        }
        let instance = linker.instantiate_and_start(&mut store, &module);
        let instance = instance.map_err(|_| EngineError::Invalid("wasmi can't instantiate it"))?;
        // It hands out exported memories alone; every program that passes pointers exports its own.
        let memory = instance.exports(&store).find_map(wasmi::Export::into_memory);
        Ok(Some(Wasmi { store, instance, memory, state: State::Idle, results: Vec::new() }))
    }

    fn load_on(
        loaded: &mut Option<Self>,
        _: &[u8],
        _: &ModuleInfo,
        _: u32,
    ) -> Result<Option<Self>, EngineError> {
        Ok(loaded.take())
    }

    fn exported_global(&self, name: &str) -> Option<Value> {
        match self.instance.get_export(&self.store, name) {
            Some(Extern::Global(global)) => from_wasmi(&global.get(&self.store)),
            _ => None,
        }
    }

    fn start(&mut self, export: &str, arguments: &[Value]) -> Result<(), Trap> {
        let function = self.instance.get_func(&self.store, export).ok_or(Trap::Engine("no such export"))?;
        self.results =
            function.ty(&self.store).results().iter().map(|value_type| Val::default(*value_type)).collect();
        self.state = State::Started(function, arguments.iter().copied().map(to_wasmi).collect());
        Ok(())
    }

    fn step(&mut self, fuel: u32) -> Stepped {
        let step = match core::mem::replace(&mut self.state, State::Idle) {
            State::Idle => Step::Trap(Trap::Engine("nothing to run")),
            State::Paused(_) => Step::Trap(Trap::Engine("a host call was not answered")),
            State::Started(function, arguments) => {
                self.fuel(u64::from(fuel));
                let called = function.call_resumable(&mut self.store, &arguments, &mut self.results);
                self.outcome(called)
            }
            State::OutOfFuel(call) => {
                self.fuel(u64::from(fuel).max(call.required_fuel()));
                let called = call.resume(&mut self.store, &mut self.results);
                self.outcome(called)
            }
            State::Answered(call, value) => {
                self.fuel(u64::from(fuel));
                let values: Vec<Val> = value.into_iter().map(to_wasmi).collect();
                let called = call.resume(&mut self.store, &values, &mut self.results);
                self.outcome(called)
            }
        };
        let left = self.store.get_fuel().unwrap_or(0);
        let fuel_used = if matches!(step, Step::OutOfFuel) {
            fuel
        } else {
            fuel - u32::try_from(left).unwrap_or(0).min(fuel)
        };
        Stepped { step, fuel_used }
    }

    fn resume(&mut self, value: Option<Value>) -> Result<(), Trap> {
        match core::mem::replace(&mut self.state, State::Idle) {
            State::Paused(call) => {
                self.state = State::Answered(call, value);
                Ok(())
            }
            _ => Err(Trap::Engine("an answer without a host call")),
        }
    }

    fn read_memory(&self, address: u32, bytes: &mut [u8]) -> Result<(), OutOfBounds> {
        match self.memory {
            Some(memory) => memory.read(&self.store, address as usize, bytes).map_err(|_| OutOfBounds),
            None => Err(OutOfBounds),
        }
    }

    fn write_memory(&mut self, address: u32, bytes: &[u8]) -> Result<(), OutOfBounds> {
        match self.memory {
            Some(memory) => memory.write(&mut self.store, address as usize, bytes).map_err(|_| OutOfBounds),
            None => Err(OutOfBounds),
        }
    }

    fn linear_memory_bytes(&self) -> usize {
        self.memory.map_or(0, |memory| memory.data_size(&self.store))
    }

    fn memory_used_bytes(&self) -> usize {
        self.linear_memory_bytes()
    }

    fn grows_refused(&self) -> u32 {
        0
    }
}

impl Wasmi {
    fn fuel(&mut self, fuel: u64) {
        // Fails only where fuel is not metered; `config` meters it.
        let _ = self.store.set_fuel(fuel);
    }

    fn outcome(&mut self, called: Result<ResumableCall, Error>) -> Step {
        match called {
            Ok(ResumableCall::Finished) => Step::Done(self.results.first().and_then(from_wasmi)),
            Ok(ResumableCall::OutOfFuel(call)) => {
                self.state = State::OutOfFuel(call);
                Step::OutOfFuel
            }
            Ok(ResumableCall::HostTrap(call)) => match self.store.data_mut().slot.take() {
                Some(host_call) => {
                    self.state = State::Paused(call);
                    Step::HostCall(host_call)
                }
                None => Step::Trap(Trap::Engine("a pause without a host call")),
            },
            Err(error) => Step::Trap(error.as_trap_code().map_or(Trap::Engine("wasmi failed"), trap)),
        }
    }
}

/// WebAssembly as the device's engine has it.
fn config(stack_words: usize) -> Config {
    let mut config = Config::default();
    config
        .wasm_mutable_global(true)
        .wasm_custom_page_sizes(true)
        .wasm_sign_extension(true)
        .wasm_saturating_float_to_int(true)
        .wasm_multi_value(true)
        .wasm_multi_memory(false)
        .wasm_bulk_memory(true)
        .wasm_reference_types(true)
        .wasm_tail_call(true)
        .wasm_extended_const(true)
        .wasm_memory64(false)
        .consume_fuel(true)
        .ignore_custom_sections(true)
        .compilation_mode(CompilationMode::Eager)
        .set_max_cached_stacks(0)
        .set_max_recursion_depth(stack_words / 3);
    config
}

fn link(
    linker: &mut Linker<Data>,
    function: &'static HostFunction,
) -> Result<(), wasmi::errors::LinkerError> {
    let types = |types: &[ValueType]| -> Vec<ValType> { types.iter().copied().map(type_to_wasmi).collect() };
    let function_type = FuncType::new(types(function.params()), types(function.results()));
    let pause = move |mut caller: Caller<'_, Data>, values: &[Val], _: &mut [Val]| {
        let arguments = Arguments::new(values.iter().filter_map(from_wasmi));
        caller.data_mut().slot = Some(HostCall { function, arguments });
        Err(Error::host(Pause))
    };
    linker.func_new(function.module(), function.name(), function_type, pause).map(|_| ())
}

fn type_to_wasmi(value_type: ValueType) -> ValType {
    match value_type {
        ValueType::I32 => ValType::I32,
        ValueType::I64 => ValType::I64,
        ValueType::F32 => ValType::F32,
        ValueType::F64 => ValType::F64,
    }
}

fn from_wasmi(value: &Val) -> Option<Value> {
    match value {
        Val::I32(value) => Some(Value::I32(*value)),
        Val::I64(value) => Some(Value::I64(*value)),
        Val::F32(value) => Some(Value::F32(value.to_bits())),
        Val::F64(value) => Some(Value::F64(value.to_bits())),
        _ => None,
    }
}

fn to_wasmi(value: Value) -> Val {
    match value {
        Value::I32(value) => Val::I32(value),
        Value::I64(value) => Val::I64(value),
        Value::F32(bits) => Val::F32(wasmi::F32::from_bits(bits)),
        Value::F64(bits) => Val::F64(wasmi::F64::from_bits(bits)),
    }
}

fn trap(code: TrapCode) -> Trap {
    match code {
        TrapCode::UnreachableCodeReached => Trap::Program(ProgramTrap::Unreachable),
        TrapCode::MemoryOutOfBounds => Trap::Program(ProgramTrap::MemoryOutOfBounds),
        TrapCode::TableOutOfBounds => Trap::Program(ProgramTrap::UndefinedElement),
        TrapCode::IndirectCallToNull => Trap::Program(ProgramTrap::UninitializedElement),
        TrapCode::IntegerDivisionByZero => Trap::Program(ProgramTrap::DivisionByZero),
        TrapCode::IntegerOverflow => Trap::Program(ProgramTrap::IntegerOverflow),
        TrapCode::BadConversionToInteger => Trap::Program(ProgramTrap::ConversionToInteger),
        TrapCode::StackOverflow => Trap::Program(ProgramTrap::StackOverflow),
        TrapCode::BadSignature => Trap::Program(ProgramTrap::IndirectCallType),
        TrapCode::OutOfFuel => Trap::Engine("fuel ran out where it can't be filled up"),
        TrapCode::GrowthOperationLimited => Trap::Engine("growth refused"),
    }
}
