//! The same modules on both engines: they accept the same, compute the same, call the host alike and trap alike.
//!
//! The seeds are fixed and so is the result; a larger run is what the fuzz target `module` is for.

#![cfg(test)]

use arbitrary::Unstructured;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use wasmbed_runtime::engine::{Engine, EngineError, ProgramTrap, Quota, Step, Trap};
use wasmbed_runtime::scan::ScanError;
use wasmbed_runtime::{Features, Interpreter, ScanLimits, Value, ValueType, Wasmi, scan};

const MODULES: u64 = 300;
const MUTANTS_OF_EACH: u64 = 12;
const LINEAR_BYTES: usize = 256 * 1_024;

/// Host functions that a generated module may import. The answers below are the same on both engines.
const IMPORTS: &str = r#"(module
    (import "wasmbed" "log" (func (param i32 i32)))
    (import "wasmbed" "wait" (func (param i32)))
    (import "wasmbed" "uptime" (func (result i64)))
    (import "wasmbed" "sensor_read" (func (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))))"#;

/// What both engines run.
fn limits() -> ScanLimits {
    let features = Interpreter::FEATURES.intersection(Wasmi::FEATURES);
    ScanLimits { features, entry_required: false, ..ScanLimits::default() }
}

/// A valid module of the language that devices run, or of what the first of them ran; always the same for the same seed.
fn generate(seed: u64, all: bool) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 4_096];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    let config = wasm_smith::Config {
        available_imports: Some(wat::parse_str(IMPORTS).unwrap()),
        allow_start_export: false,
        bulk_memory_enabled: all,
        compact_imports_enabled: false,
        // The engines may choose different NaNs; everything else is fixed.
        canonicalize_nans: true,
        custom_page_sizes_enabled: seed.is_multiple_of(3),
        exceptions_enabled: false,
        export_everything: true,
        extended_const_enabled: all,
        gc_enabled: false,
        max_element_segments: 5,
        max_funcs: 20,
        max_imports: 6,
        max_instructions: 200,
        max_memories: 1,
        max_memory32_bytes: LINEAR_BYTES as u64 / 2,
        // A table can grow by no more on a device.
        max_table_elements: if all { 60 } else { 100 },
        max_tables: if all { 4 } else { 1 },
        memory64_enabled: false,
        min_funcs: 2,
        min_memories: u32::from(seed.is_multiple_of(2)),
        multi_value_enabled: all,
        reference_types_enabled: all,
        relaxed_simd_enabled: false,
        saturating_float_to_int_enabled: all,
        sign_extension_ops_enabled: all,
        simd_enabled: false,
        table_max_size_required: all,
        tail_call_enabled: all,
        threads_enabled: false,
        wide_arithmetic_enabled: false,
        ..wasm_smith::Config::default()
    };
    Some(wasm_smith::Module::new(config, &mut Unstructured::new(&bytes)).ok()?.to_bytes())
}

fn load<E: Engine>(module: &[u8]) -> Result<E, EngineError> {
    let info = scan(module, &limits()).unwrap();
    let quota = Quota {
        heap_bytes: 4 * 1_024 * 1_024,
        linear_bytes: info.memory_wanted_bytes(LINEAR_BYTES as u64) as usize,
        stack_words: 16 * 1_024,
    };
    E::load(&E::arena(16 * 1_024 * 1_024), module, &info, quota)
}

/// wasmi can't pause at a host call that is a tail call.
const NOT_PAUSED: Trap = Trap::Engine("wasmi failed");

/// What can be seen of a call from outside.
#[derive(Debug, PartialEq)]
struct Observed {
    ending: Result<Option<Value>, Trap>,
    host_calls: Vec<(String, Vec<Value>)>,
    memory: Vec<u8>,
    globals: Vec<Option<Value>>,
}

/// Calls an export in slices of `fuel`, so that every slice ends somewhere else. `None` when it doesn't end in time.
fn call<E: Engine>(
    engine: &mut E,
    export: &str,
    arguments: &[Value],
    fuel: u32,
    globals: &[String],
) -> Option<Observed> {
    let mut host_calls = Vec::new();
    let ending = match engine.start(export, arguments) {
        Err(trap) => Err(trap),
        Ok(()) => 'run: {
            for _ in 0..200 {
                match engine.step(fuel).step {
                    Step::OutOfFuel => {}
                    Step::Done(value) => break 'run Ok(value),
                    Step::Trap(trap) => break 'run Err(trap),
                    Step::HostCall(host_call) => {
                        let answer = host_call.function.results().first().map(|result| match result {
                            ValueType::I32 => Value::I32(host_calls.len() as i32),
                            ValueType::I64 => Value::I64(-7),
                            ValueType::F32 => Value::F32(0),
                            ValueType::F64 => Value::F64(0),
                        });
                        host_calls
                            .push((host_call.function.to_string(), host_call.arguments.as_slice().to_vec()));
                        engine.resume(answer).unwrap();
                    }
                }
            }
            return None;
        }
    };
    let mut memory = vec![0; engine.linear_memory_bytes()];
    engine.read_memory(0, &mut memory).ok();
    let globals = globals.iter().map(|global| engine.exported_global(global)).collect();
    Some(Observed { ending, host_calls, memory, globals })
}

/// Names and types of the exported functions that the module defines itself, and names of its exported globals.
fn exports(module: &[u8]) -> (Vec<(String, Vec<ValueType>)>, Vec<String>) {
    let (mut types, mut functions, mut imported) = (Vec::new(), Vec::new(), 0);
    let (mut exported, mut globals) = (Vec::new(), Vec::new());
    for payload in wasmparser::Parser::new(0).parse_all(module) {
        match payload.unwrap() {
            wasmparser::Payload::TypeSection(section) => {
                for function_type in section.into_iter_err_on_gc_types() {
                    types.push(function_type.unwrap().params().to_vec());
                }
            }
            wasmparser::Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    if let wasmparser::TypeRef::Func(index) = import.unwrap().ty {
                        functions.push(index);
                        imported += 1;
                    }
                }
            }
            wasmparser::Payload::FunctionSection(section) => {
                functions.extend(section.into_iter().map(|index| index.unwrap()));
            }
            wasmparser::Payload::ExportSection(section) => {
                for export in section {
                    let export = export.unwrap();
                    match export.kind {
                        wasmparser::ExternalKind::Func if export.index >= imported => {
                            exported.push((export.name.to_owned(), functions[export.index as usize]));
                        }
                        wasmparser::ExternalKind::Global => globals.push(export.name.to_owned()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let value_type = |value_type: &wasmparser::ValType| match value_type {
        wasmparser::ValType::I32 => Some(ValueType::I32),
        wasmparser::ValType::I64 => Some(ValueType::I64),
        wasmparser::ValType::F32 => Some(ValueType::F32),
        wasmparser::ValType::F64 => Some(ValueType::F64),
        wasmparser::ValType::Ref(_) => None,
        other => panic!("there is no {other}"),
    };
    // Nothing outside has a reference to call with.
    let functions = exported
        .into_iter()
        .filter_map(|(name, index)| {
            Some((name, types[index as usize].iter().map(value_type).collect::<Option<_>>()?))
        })
        .collect();
    (functions, globals)
}

#[test]
fn generated_modules_behave_the_same() {
    behave_the_same(false);
}

#[test]
fn generated_modules_of_the_whole_language_behave_the_same() {
    behave_the_same(true);
}

fn behave_the_same(all: bool) {
    let (mut modules, mut calls, mut undecided, mut too_large) = (0, 0, 0, 0);
    let mut used = Features::NONE;
    for seed in 0..MODULES {
        let Some(module) = generate(seed, all) else { continue };
        match scan(&module, &limits()) {
            Ok(info) if info.memory_min_bytes <= LINEAR_BYTES as u64 => used = used.union(info.features),
            Ok(_) => {
                too_large += 1;
                continue;
            }
            Err(error) => {
                let sound = !matches!(error, ScanError::Malformed { .. } | ScanError::Unsupported { .. });
                assert!(sound, "seed {seed}: {error}");
                too_large += 1;
                continue;
            }
        }
        let (ours, oracle) = (load::<Interpreter>(&module), load::<Wasmi>(&module));
        let (mut ours, mut oracle) = match (ours, oracle) {
            (Ok(ours), Ok(oracle)) => (ours, oracle),
            (Err(_), Err(_)) => continue,
            // A function beyond what the device's engine follows is an answer; anything else is a difference.
            (Err(EngineError::Module(error)), Ok(_)) if error.is_limit() => {
                too_large += 1;
                continue;
            }
            (Err(EngineError::OutOfMemory { .. } | EngineError::Quota { .. }), Ok(_)) => {
                too_large += 1;
                continue;
            }
            (ours, oracle) => panic!("seed {seed}: {:?} here, {:?} there", ours.err(), oracle.err()),
        };
        modules += 1;
        let mut random = StdRng::seed_from_u64(seed);
        let (functions, globals) = exports(&module);
        for (name, params) in functions {
            let arguments: Vec<Value> = params
                .iter()
                .take(wasmbed_runtime::engine::ARGUMENTS_MAX)
                .map(|param| match param {
                    ValueType::I32 => Value::I32(random.random()),
                    ValueType::I64 => Value::I64(random.random()),
                    ValueType::F32 => Value::F32(random.random::<f32>().to_bits()),
                    ValueType::F64 => Value::F64(random.random::<f64>().to_bits()),
                })
                .collect();
            if arguments.len() < params.len() {
                continue;
            }
            let fuel = random.random_range(1..2_000);
            let mut here = call(&mut ours, &name, &arguments, fuel, &globals);
            // wasmi has one trap for calls by a table and for other accesses.
            if let Some(here) = &mut here
                && here.ending == Err(Trap::Program(ProgramTrap::TableOutOfBounds))
            {
                here.ending = Err(Trap::Program(ProgramTrap::UndefinedElement));
            }
            let there = call(&mut oracle, &name, &arguments, fuel, &globals);
            match (here, there) {
                (Some(here), Some(there))
                    if here.ending != Err(Trap::Program(ProgramTrap::StackOverflow))
                        && there.ending != Err(Trap::Program(ProgramTrap::StackOverflow))
                        && there.ending != Err(NOT_PAUSED) =>
                {
                    assert_eq!(here.ending, there.ending, "seed {seed}, function {name}");
                    assert_eq!(here, there, "seed {seed}, function {name}");
                    calls += 1;
                }
                // Fuel and stack mean something else in each engine; from here on the two may differ, so begin anew.
                _ => {
                    undecided += 1;
                    (ours, oracle) = (load(&module).unwrap(), load(&module).unwrap());
                }
            }
        }
    }
    println!(
        "{modules} modules with {used}: {calls} calls alike, {undecided} undecided, {too_large} too large"
    );
    // A global of the module's own is never imported, and mutable ones that are exported are as good as others.
    let drawn =
        if all { limits().features } else { Features::FIRST_DEVICES }.without(Features::MUTABLE_GLOBALS);
    assert_eq!(used, drawn, "every feature is drawn");
    assert!(modules > MODULES / 2 && calls > 500, "{modules} modules, {calls} calls");
    assert!(undecided < calls, "{undecided} undecided, {calls} calls");
}

#[test]
fn damaged_modules_are_refused_by_both_or_by_none() {
    let (mut refused_by_scan, mut refused_by_both, mut accepted) = (0, 0, 0);
    for seed in 0..MODULES {
        let Some(module) = generate(seed, seed.is_multiple_of(2)) else { continue };
        let mut random = StdRng::seed_from_u64(!seed);
        for mutant in 0..MUTANTS_OF_EACH {
            let mut module = module.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(8..module.len());
                match random.random_range(0..4) {
                    0 => module[at] ^= 1 << random.random_range(0..8),
                    1 => module[at] = random.random(),
                    2 => drop(module.remove(at)),
                    _ => module.insert(at, random.random()),
                }
            }
            match scan(&module, &limits()) {
                Ok(info) if info.memory_min_bytes <= LINEAR_BYTES as u64 => {}
                Ok(_) => continue,
                Err(_) => {
                    refused_by_scan += 1;
                    continue;
                }
            }
            let (ours, oracle) = (load::<Interpreter>(&module), load::<Wasmi>(&module));
            match (ours, oracle) {
                (Ok(_), Ok(_)) => accepted += 1,
                (Err(_), Err(_)) => refused_by_both += 1,
                (Err(EngineError::Module(error)), Ok(_)) if error.is_limit() => {}
                (Err(EngineError::OutOfMemory { .. } | EngineError::Quota { .. }), Ok(_)) => {}
                (ours, oracle) => {
                    panic!("seed {seed}, mutant {mutant}: {:?} here, {:?} there", ours.err(), oracle.err())
                }
            }
        }
    }
    println!(
        "{refused_by_scan} refused by the scan, {refused_by_both} by both engines, {accepted} accepted by both"
    );
    assert!(refused_by_scan > 500 && refused_by_both > 150 && accepted > 150);
}
