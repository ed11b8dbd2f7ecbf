//! A module on this engine, in one go and in slices, and on wasmi: the same results, traps, host calls, memory and globals.
//!
//! Used by the test of generated modules, and by the fuzz target of the same name as the engine.

#![allow(dead_code)]

pub(crate) mod dense;

use arbitrary::Unstructured;
use wasmbed_engine::{
    CallError, Config, Error, ErrorKind, FunctionType, Imports, Instance, Loader, Progress, Step, Trap,
    Value, ValueType,
};
use wasmi::errors::HostError;
use wasmi::{
    AsContext, Caller, Extern, ExternRef, Func, FuncType, Linker, Module, Ref, ResumableCall, Store,
    StoreLimits, StoreLimitsBuilder, TrapCode, Val, ValType,
};

pub(crate) const MEMORY_BYTES: u32 = 256 * 1_024;
const STACK_SLOTS: u32 = 64 * 1_024;
/// More than any table of a generated module may have, so that only its own maximum bounds it.
const TABLE_ELEMENTS: u32 = 300;

/// Functions that a generated module may import.
const IMPORTS: &str = r#"(module
    (import "host" "none" (func))
    (import "host" "number" (func (param i32 i64) (result i64)))
    (import "host" "floats" (func (param f32 f64) (result f64 f32)))
    (import "host" "many" (func (param i64) (result i32 i64 i32 f64)))
    (import "host" "reference" (func (param externref i32) (result externref))))"#;

/// What a module is drawn with.
pub(crate) fn configuration(instructions: usize, start: bool, small_pages: bool) -> wasm_smith::Config {
    wasm_smith::Config {
        available_imports: wat::parse_str(IMPORTS).ok(),
        allow_start_export: start,
        // The engines may choose different NaNs; everything else is fixed.
        canonicalize_nans: true,
        compact_imports_enabled: false,
        custom_page_sizes_enabled: small_pages,
        exceptions_enabled: false,
        export_everything: true,
        gc_enabled: false,
        max_data_segments: 6,
        max_element_segments: 6,
        max_funcs: 16,
        max_imports: 5,
        max_instructions: instructions,
        max_memories: 1,
        max_memory32_bytes: u64::from(MEMORY_BYTES),
        max_nesting_depth: 60,
        max_table_elements: u64::from(TABLE_ELEMENTS),
        max_tables: 4,
        memory64_enabled: false,
        memory_max_size_required: true,
        min_funcs: 1,
        relaxed_simd_enabled: false,
        simd_enabled: false,
        table_max_size_required: true,
        threads_enabled: false,
        wide_arithmetic_enabled: false,
        ..wasm_smith::Config::default()
    }
}

struct Offered;

impl Imports for Offered {
    fn find(&self, module: &str, name: &str, function: FunctionType<'_>) -> Option<u16> {
        use ValueType as T;
        let (parameters, results): (&[T], &[T]) = match name {
            "none" => (&[], &[]),
            "number" => (&[T::I32, T::I64], &[T::I64]),
            "floats" => (&[T::F32, T::F64], &[T::F64, T::F32]),
            "many" => (&[T::I64], &[T::I32, T::I64, T::I32, T::F64]),
            "reference" => (&[T::EXTERNREF, T::I32], &[T::EXTERNREF]),
            _ => return None,
        };
        let same = module == "host"
            && function.parameters().eq(parameters.iter().copied())
            && function.results().eq(results.iter().copied());
        same.then_some(0)
    }
}

/// What the host answers, by how many calls there were before.
fn answers(types: impl Iterator<Item = ValueType>, calls: usize) -> Vec<Value> {
    let number = calls as u32;
    types
        .map(|value_type| match value_type {
            ValueType::I32 => Value::I32(number as i32 - 3),
            ValueType::I64 => Value::I64(-7_000_000_000 * i64::from(number)),
            ValueType::F32 => Value::F32((number as f32 * 1.5).to_bits()),
            ValueType::F64 => Value::F64((f64::from(number) * -2.5).to_bits()),
            _ => Value::ExternRef((!number.is_multiple_of(3)).then_some(number)),
        })
        .collect()
}

/// Values as both engines can be asked for them: of a function only whether there is one.
fn seen(value: Value) -> Value {
    match value {
        Value::FuncRef(function) => Value::FuncRef(function.map(|_| 0)),
        value => value,
    }
}

/// What can be seen of a call from outside.
#[derive(Debug, PartialEq)]
struct Observed {
    ending: Result<Vec<Value>, Trap>,
    calls: Vec<Vec<Value>>,
    memory: Vec<u8>,
    globals: Vec<Value>,
}

pub(crate) fn load<'m>(block: &'m mut [u64], module: &[u8], work: u32) -> Result<Instance<'m>, Error> {
    let config =
        Config { stack_slots: STACK_SLOTS, memory_bytes: MEMORY_BYTES, table_growth: TABLE_ELEMENTS };
    let mut source = module;
    let none = Error { kind: ErrorKind::Memory { needed: 0 }, offset: 0 };
    let mut loader = Loader::new(block, &source, config).ok_or(none)?;
    while loader.step(&mut source, &Offered, work)? == Progress::More {}
    loader.finish().ok_or(none)
}

/// Whether it has as much call stack as its calls can ever need, and not all or half of what is configured.
pub(crate) fn is_bounded(instance: &Instance<'_>) -> bool {
    instance.stack_bytes() < STACK_SLOTS as usize * 2
}

/// What one call may use up here.
pub(crate) const FUEL: u32 = 1_000_000;
/// The same while fuzzing, which makes each step many times as dear: what computes for longer takes the time of others.
const FUEL_FUZZED: u32 = 250_000;
/// Host calls and slices of one call.
const CALLS: usize = 40;
const SLICES: usize = 20_000;

/// One export called; `None` where it does not end in time. A slice gets what `fuel` says.
fn ours(
    instance: &mut Instance<'_>,
    export: &str,
    arguments: &[Value],
    globals: &[String],
    total: u32,
    mut fuel: impl FnMut() -> u32,
) -> Option<Observed> {
    match instance.call(export, arguments) {
        Ok(()) => {}
        Err(CallError::StackOverflow) if !is_bounded(instance) => return None,
        Err(error) => panic!("{export} can't be called: {error:?}"),
    }
    let mut calls = Vec::new();
    let mut used_up = 0_u32;
    let mut slices = 0;
    let ending = loop {
        slices += 1;
        if used_up >= total || slices > SLICES {
            return None;
        }
        let (step, used) = instance.step(fuel().min(total - used_up));
        used_up = used_up.saturating_add(used);
        match step {
            Step::OutOfFuel => {}
            Step::Done => break Ok(instance.results().map(seen).collect()),
            Step::Trap(trap) => break Err(trap),
            Step::HostCall(_) => {
                let results: Vec<ValueType> =
                    instance.answer_type().map(|import| import.results().collect()).unwrap_or_default();
                let answer = answers(results.into_iter(), calls.len());
                calls.push(instance.arguments().map(seen).collect());
                if calls.len() > CALLS || instance.answer(&answer).is_err() {
                    return None;
                }
            }
        }
    };
    assert_ne!(ending, Err(Trap::Internal), "{export}{arguments:?}");
    assert!(ending != Err(Trap::StackOverflow) || !is_bounded(instance), "{export}{arguments:?}");
    let globals = globals.iter().filter_map(|name| instance.exported_global(name)).map(seen).collect();
    Some(Observed { ending, calls, memory: instance.memory().to_vec(), globals })
}

// The oracle.

/// What one store of wasmi has: the calls of the host so far, and that memory stays within what this engine gives it.
struct Data {
    calls: Vec<Vec<Value>>,
    limits: StoreLimits,
}

#[derive(Debug)]
struct TooManyCalls;

impl std::fmt::Display for TooManyCalls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("too many calls of the host")
    }
}

impl HostError for TooManyCalls {}

pub(crate) struct Oracle {
    store: Store<Data>,
    fuel: u64,
    instance: wasmi::Instance,
}

fn from_wasmi(value: &Val, store: impl AsContext<Data = Data>) -> Value {
    match value {
        Val::I32(value) => Value::I32(*value),
        Val::I64(value) => Value::I64(*value),
        Val::F32(value) => Value::F32(value.to_bits()),
        Val::F64(value) => Value::F64(value.to_bits()),
        Val::FuncRef(function) => Value::FuncRef((!function.is_null()).then_some(0)),
        Val::ExternRef(reference) => {
            let number =
                reference.val().and_then(|it| it.data(store.as_context()).downcast_ref::<u32>().copied());
            Value::ExternRef(number)
        }
        Val::V128(_) => panic!("there is no vector"),
    }
}

fn to_wasmi(value: Value, store: impl wasmi::AsContextMut) -> Val {
    match value {
        Value::I32(value) => Val::I32(value),
        Value::I64(value) => Val::I64(value),
        Value::F32(bits) => Val::F32(wasmi::F32::from_bits(bits)),
        Value::F64(bits) => Val::F64(wasmi::F64::from_bits(bits)),
        Value::FuncRef(_) => Val::FuncRef(Ref::Null),
        Value::ExternRef(None) => Val::ExternRef(Ref::Null),
        Value::ExternRef(Some(number)) => Val::ExternRef(Ref::Val(ExternRef::new(store, number))),
    }
}

fn type_from_wasmi(value_type: ValType) -> ValueType {
    match value_type {
        ValType::I32 => ValueType::I32,
        ValType::I64 => ValueType::I64,
        ValType::F32 => ValueType::F32,
        ValType::F64 => ValueType::F64,
        ValType::FuncRef => ValueType::FUNCREF,
        ValType::ExternRef => ValueType::EXTERNREF,
        ValType::V128 => panic!("there is no vector"),
    }
}

impl Oracle {
    /// `fuel` is this engine's for one call: what wasmi counts for as much is at most the double.
    pub(crate) fn load(module: &[u8], fuel: u32) -> Result<Oracle, wasmi::Error> {
        let fuel = 2 * u64::from(fuel);
        let mut config = wasmi::Config::default();
        config
            .wasm_multi_memory(false)
            .wasm_memory64(false)
            .wasm_custom_page_sizes(true)
            .consume_fuel(true)
            .set_max_cached_stacks(0)
            .set_max_recursion_depth(20_000);
        let engine = wasmi::Engine::new(&config);
        let module = Module::new(&engine, module)?;
        let mut store = Store::new(
            &engine,
            Data {
                calls: Vec::new(),
                limits: StoreLimitsBuilder::new().memory_size(MEMORY_BYTES as usize).tables(100).build(),
            },
        );
        store.limiter(|data| &mut data.limits);
        store.set_fuel(fuel)?;
        let mut linker = Linker::new(&engine);
        for (name, parameters, results) in [
            ("none", &[][..], &[][..]),
            ("number", &[ValType::I32, ValType::I64][..], &[ValType::I64][..]),
            ("floats", &[ValType::F32, ValType::F64], &[ValType::F64, ValType::F32]),
            ("many", &[ValType::I64], &[ValType::I32, ValType::I64, ValType::I32, ValType::F64]),
            ("reference", &[ValType::ExternRef, ValType::I32], &[ValType::ExternRef]),
        ] {
            let function = FuncType::new(parameters.iter().copied(), results.iter().copied());
            linker.func_new("host", name, function, answer)?;
        }
        let instance = linker.instantiate_and_start(&mut store, &module)?;
        Ok(Oracle { store, fuel, instance })
    }

    fn call(&mut self, function: Func, arguments: &[Value], globals: &[String]) -> Option<Observed> {
        let fuel = self.store.set_fuel(self.fuel);
        assert!(fuel.is_ok(), "wasmi meters fuel");
        let arguments: Vec<Val> = arguments.iter().map(|value| to_wasmi(*value, &mut self.store)).collect();
        let function_type = function.ty(&self.store);
        let mut results: Vec<Val> =
            function_type.results().iter().map(|value_type| Val::default(*value_type)).collect();
        let ending = match function.call_resumable(&mut self.store, &arguments, &mut results) {
            Ok(ResumableCall::Finished) => {
                Ok(results.iter().map(|value| from_wasmi(value, &self.store)).collect())
            }
            Ok(_) => return None,
            Err(error) => Err(trap(error.as_trap_code()?)?),
        };
        let memory = self
            .instance
            .exports(&self.store)
            .find_map(wasmi::Export::into_memory)
            .map(|memory| memory.data(&self.store).to_vec())
            .unwrap_or_default();
        let globals = globals
            .iter()
            .filter_map(|name| self.instance.get_export(&self.store, name).and_then(Extern::into_global))
            .map(|global| from_wasmi(&global.get(&self.store), &self.store))
            .collect();
        let calls = std::mem::take(&mut self.store.data_mut().calls);
        Some(Observed { ending, calls, memory, globals })
    }
}

fn answer(mut caller: Caller<'_, Data>, arguments: &[Val], results: &mut [Val]) -> Result<(), wasmi::Error> {
    let seen: Vec<Value> = arguments.iter().map(|value| from_wasmi(value, &caller)).collect();
    let calls = caller.data().calls.len();
    if calls >= CALLS {
        return Err(wasmi::Error::host(TooManyCalls));
    }
    let types: Vec<ValueType> = results.iter().map(|value| type_from_wasmi(value.ty())).collect();
    for (result, value) in results.iter_mut().zip(answers(types.into_iter(), calls)) {
        *result = to_wasmi(value, &mut caller);
    }
    caller.data_mut().calls.push(seen);
    Ok(())
}

/// `None` for what is not a matter of the module: fuel and the depth of the stack are each engine's own.
fn trap(code: TrapCode) -> Option<Trap> {
    Some(match code {
        TrapCode::UnreachableCodeReached => Trap::Unreachable,
        TrapCode::MemoryOutOfBounds => Trap::MemoryOutOfBounds,
        TrapCode::TableOutOfBounds => Trap::TableOutOfBounds,
        TrapCode::IndirectCallToNull => Trap::UninitializedElement,
        TrapCode::IntegerDivisionByZero => Trap::DivisionByZero,
        TrapCode::IntegerOverflow => Trap::IntegerOverflow,
        TrapCode::BadConversionToInteger => Trap::ConversionToInteger,
        TrapCode::BadSignature => Trap::IndirectCallType,
        TrapCode::StackOverflow | TrapCode::OutOfFuel | TrapCode::GrowthOperationLimited => return None,
    })
}

/// wasmi has one trap for calls by a table and for other accesses.
fn comparable(observed: Option<Observed>) -> Option<Observed> {
    let mut observed = observed?;
    match observed.ending {
        Err(Trap::StackOverflow) => return None,
        Err(Trap::UndefinedElement) => observed.ending = Err(Trap::TableOutOfBounds),
        _ => {}
    }
    Some(observed)
}

// Both.

/// How many there were.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) modules: u32,
    pub(crate) refused: u32,
    /// Why the last of those that both refuse was.
    pub(crate) why: String,
    pub(crate) calls: u32,
    pub(crate) traps: u32,
    pub(crate) slices: u32,
    pub(crate) undecided: u32,
    /// Modules of which is known how much call stack they can need.
    pub(crate) bounded: u32,
    pub(crate) code_bytes_most: usize,
}

/// Why this engine refuses a module that wasmi runs, or that it could run: the limits of its formats, and its memory.
pub(crate) fn legitimate(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Limit { .. }
            | ErrorKind::Memory { .. }
            | ErrorKind::Import { .. }
            | ErrorKind::Unsupported(_)
    )
}

const ARGUMENTS: [u64; 12] = [
    0,
    1,
    2,
    31,
    0xffff_ffff,
    0x8000_0000,
    0x7fff_ffff,
    u64::MAX,
    1 << 63,
    0x3ff0_0000_0000_0000,
    0x7ff0_0000_0000_0000,
    0x4f00_0000,
];

fn argument(value_type: ValueType, random: &mut Unstructured<'_>) -> Value {
    let bits = match random.int_in_range(0..=3).unwrap_or(0) {
        0 => random.arbitrary().unwrap_or(0),
        1 => u64::from(random.arbitrary::<u8>().unwrap_or(0)),
        _ => random.choose(&ARGUMENTS).copied().unwrap_or(0),
    };
    match value_type {
        ValueType::I32 => Value::I32(bits as i32),
        ValueType::I64 => Value::I64(bits as i64),
        // No NaN: a module's own ones are made canonical, and these would not be.
        ValueType::F32 => Value::F32(if f32::from_bits(bits as u32).is_nan() { 0 } else { bits as u32 }),
        ValueType::F64 => Value::F64(if f64::from_bits(bits).is_nan() { 0 } else { bits }),
        ValueType::FUNCREF => Value::FuncRef(None),
        _ => Value::ExternRef((bits % 2 == 0).then_some(bits as u32 >> 1)),
    }
}

/// Blocks of memory that are used again and again.
pub(crate) struct Blocks {
    whole: Vec<u64>,
    sliced: Vec<u64>,
}

impl Blocks {
    pub(crate) fn new() -> Blocks {
        Blocks { whole: vec![0; 200_000], sliced: vec![0; 200_000] }
    }
}

/// Calls every export on both engines. What the module does not define is drawn from `random`.
pub(crate) fn compare(
    module: &[u8],
    random: &mut Unstructured<'_>,
    blocks: &mut Blocks,
    counts: &mut Counts,
) {
    compare_within(FUEL, module, random, blocks, counts);
}

fn compare_within(
    fuel: u32,
    module: &[u8],
    random: &mut Unstructured<'_>,
    blocks: &mut Blocks,
    counts: &mut Counts,
) {
    // What was there before must not matter.
    blocks.whole.fill(0x5a5a_5a5a_5a5a_5a5a);
    blocks.sliced.fill(0xa5a5_a5a5_a5a5_a5a5);
    let whole = load(&mut blocks.whole, module, u32::MAX);
    let sliced = load(&mut blocks.sliced, module, 1);
    let oracle = Oracle::load(module, fuel);
    let (mut whole, mut sliced, mut oracle) = match (whole, sliced, oracle) {
        (Ok(whole), Ok(sliced), Ok(oracle)) => (whole, sliced, oracle),
        (Err(one), Err(other), Err(_)) => {
            assert_eq!(one, other, "the same for all steps");
            counts.refused += 1;
            counts.why = one.to_string();
            return;
        }
        (Err(one), Err(other), Ok(_)) if legitimate(one.kind) => {
            assert_eq!(one, other, "the same for all steps");
            counts.refused += 1;
            counts.why = one.to_string();
            return;
        }
        // Its start function does not return; here it is part of the first call.
        (Ok(_), Ok(_), Err(error))
            if error.as_trap_code().is_some() || error.downcast_ref::<TooManyCalls>().is_some() =>
        {
            counts.undecided += 1;
            return;
        }
        (one, other, oracle) => panic!(
            "{:?} at once, {:?} in steps, {:?} on wasmi",
            one.err(),
            other.err(),
            oracle.err().map(|error| error.to_string())
        ),
    };
    assert_eq!(whole.code_bytes(), sliced.code_bytes(), "the same code for all steps");
    sliced.set_checked(true);
    assert_eq!(whole.stack_bytes(), sliced.stack_bytes(), "the same call stack for all steps");
    counts.modules += 1;
    counts.bounded += u32::from(is_bounded(&whole));
    counts.code_bytes_most = counts.code_bytes_most.max(whole.code_bytes());
    let mut functions = Vec::new();
    let mut globals = Vec::new();
    for export in oracle.instance.exports(&oracle.store) {
        let name = export.name().to_owned();
        match export.into_extern() {
            Extern::Func(function) => functions.push((name, function)),
            Extern::Global(_) => globals.push(name),
            _ => {}
        }
    }
    let mut drawn = random.arbitrary::<u64>().unwrap_or(1) | 1;
    for (name, function) in functions {
        let arguments: Vec<Value> = function
            .ty(&oracle.store)
            .params()
            .iter()
            .map(|value_type| argument(type_from_wasmi(*value_type), random))
            .collect();
        let one = comparable(ours(&mut whole, &name, &arguments, &globals, fuel, || u32::MAX));
        let mut slices = 0;
        let other = comparable(ours(&mut sliced, &name, &arguments, &globals, fuel, || {
            slices += 1;
            drawn ^= drawn << 13;
            drawn ^= drawn >> 7;
            drawn ^= drawn << 17;
            // Short ones first; then long ones, so that it comes to an end.
            if slices < 300 { drawn as u32 % 60 } else { fuel / 20 }
        }));
        let reference = comparable(oracle.call(function, &arguments, &globals));
        counts.slices += slices;
        match (one, other, reference) {
            (Some(one), Some(other), Some(reference)) => {
                assert_eq!(one, other, "{name}{arguments:?} at once and in slices");
                assert_eq!(one.ending, reference.ending, "{name}{arguments:?} here and on wasmi");
                assert_eq!(one.calls, reference.calls, "{name}{arguments:?}: calls of the host");
                assert_eq!(one.globals, reference.globals, "{name}{arguments:?}: globals");
                assert!(
                    reference.memory.is_empty() || one.memory == reference.memory,
                    "{name}{arguments:?}: memory"
                );
                counts.calls += 1;
                counts.traps += u32::from(one.ending.is_err());
            }
            (Some(_), None, _) | (None, Some(_), _) if slices < SLICES as u32 => {
                panic!("{name}{arguments:?} ends at once or in slices, and not the other way")
            }
            // Fuel and stack mean something else in each engine, and from here on the two may differ.
            _ => {
                counts.undecided += 1;
                return;
            }
        }
    }
}

/// Any bytes: a module, or what one is drawn from.
pub(crate) fn accept(bytes: &[u8]) {
    let (mut blocks, mut counts) = (Blocks::new(), Counts::default());
    if bytes.starts_with(b"\0asm") {
        return compare_within(FUEL_FUZZED, bytes, &mut Unstructured::new(bytes), &mut blocks, &mut counts);
    }
    let Some((kind, rest)) = bytes.split_first() else { return };
    let mut random = Unstructured::new(rest);
    if kind % 2 == 0 {
        let text = dense::module(&mut random, 400, usize::from(kind % 16 == 0) * 4);
        let module = wat::parse_str(&text);
        assert!(module.is_ok(), "{text}");
        let Ok(module) = module else { return };
        return compare_within(FUEL_FUZZED, &module, &mut random, &mut blocks, &mut counts);
    }
    let config = configuration(usize::from(*kind) * 4, kind & 2 == 0, kind & 4 == 0);
    let Ok(mut module) = wasm_smith::Module::new(config, &mut random) else { return };
    if kind & 8 == 0 && module.ensure_termination(2_000).is_err() {
        return;
    }
    compare_within(FUEL_FUZZED, &module.to_bytes(), &mut random, &mut blocks, &mut counts);
}
