//! Packed modules do what the originals did: the originals run on an engine that knows the newer operators, those that
//! were lowered for the first devices on the same engine with everything beyond WebAssembly 1.0 turned off, and both they
//! and those that were packed as they are on the device's engine.
#![allow(clippy::expect_used, reason = "helpers of tests")]

use proptest::prelude::{
    ProptestConfig, Strategy, TestCaseError, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use rand::{RngCore, SeedableRng};
use wasmbed::commands::module::{Feature, PackError, Packed, Toolchain, pack, pack_for};
use wasmbed_runtime::engine::{Engine as DeviceEngine, Quota, Step};
use wasmbed_runtime::{Features, Interpreter, ScanLimits, Value, scan};
use wasmi::{Config, Engine, Instance, Linker, Module, Store, Val};

/// What a call left behind.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// Results as bits, or that it trapped and how.
    results: Result<Vec<u64>, String>,
    memory: Vec<u8>,
}

fn engine(newer: bool) -> Engine {
    let mut config = Config::default();
    config
        .wasm_sign_extension(newer)
        .wasm_saturating_float_to_int(newer)
        .wasm_bulk_memory(newer)
        .wasm_reference_types(newer)
        .wasm_multi_value(newer)
        .wasm_tail_call(false)
        .wasm_extended_const(false)
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        .wasm_custom_page_sizes(true);
    Engine::new(&config)
}

fn call(bytes: &[u8], newer: bool, arguments: &[Val]) -> Outcome {
    let engine = engine(newer);
    let module = Module::new(&engine, bytes).expect("the engine accepts the module");
    let mut store = Store::new(&engine, ());
    let instance: Instance =
        Linker::new(&engine).instantiate_and_start(&mut store, &module).expect("it starts");
    let function = instance.get_func(&store, "run").expect("it exports run");
    let mut results = vec![Val::I32(0); function.ty(&store).results().len()];
    let answer = function.call(&mut store, arguments, &mut results);
    let memory =
        instance.get_memory(&store, "memory").map_or(Vec::new(), |memory| memory.data(&store).to_vec());
    let results = answer.map(|()| results.iter().map(bits).collect()).map_err(|error| error.to_string());
    Outcome { results, memory }
}

/// The same on the device's engine; nothing where a device's bounds keep the module from being loaded.
fn device_call(bytes: &[u8], arguments: &[Val]) -> Option<Outcome> {
    let limits = ScanLimits { entry_required: false, ..ScanLimits::default() };
    let info = scan(bytes, &limits).ok()?;
    let arena = Interpreter::arena(1 << 20);
    let linear_bytes = usize::try_from(info.memory_wanted_bytes(2 << 16)).expect("two pages");
    let quota = Quota { heap_bytes: 512 << 10, linear_bytes, stack_words: 16_384 };
    let mut engine = Interpreter::load(&arena, bytes, &info, quota).ok()?;
    let arguments: Vec<Value> = arguments.iter().map(value).collect();
    engine.start("run", &arguments).expect("run is exported");
    let results = loop {
        match engine.step(10_000).step {
            Step::Done(result) => break Ok(result.iter().map(device_bits).collect()),
            Step::OutOfFuel => {}
            Step::HostCall(call) => panic!("the tests' modules import nothing: {call:?}"),
            Step::Trap(trap) => break Err(trap.to_string()),
        }
    };
    let mut memory = vec![0; engine.linear_memory_bytes()];
    engine.read_memory(0, &mut memory).expect("all of it can be read");
    Some(Outcome { results, memory })
}

fn value(value: &Val) -> Value {
    match value {
        Val::I32(value) => Value::I32(*value),
        Val::I64(value) => Value::I64(*value),
        Val::F32(value) => Value::F32(value.to_bits()),
        Val::F64(value) => Value::F64(value.to_bits()),
        other => panic!("not a number: {other:?}"),
    }
}

fn device_bits(value: &Value) -> u64 {
    match value {
        Value::I32(value) => u64::from(*value as u32),
        Value::I64(value) => *value as u64,
        Value::F32(bits) => u64::from(*bits),
        Value::F64(bits) => *bits,
    }
}

/// Whether two engines agree: same results and memory, or both trapped; each has words of its own for that.
fn agree(one: &Outcome, other: &Outcome) -> bool {
    let results = match (&one.results, &other.results) {
        (Ok(one), Ok(other)) => one == other,
        (Err(_), Err(_)) => true,
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
    };
    results && one.memory == other.memory
}

fn bits(value: &Val) -> u64 {
    match value {
        Val::I32(value) => u64::from(*value as u32),
        Val::I64(value) => *value as u64,
        Val::F32(value) => u64::from(value.to_bits()),
        Val::F64(value) => value.to_bits(),
        other => panic!("not a number: {other:?}"),
    }
}

fn module(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the test's module is valid")
}

/// For the first devices, which run the least.
fn lower(bytes: &[u8]) -> Result<Packed, PackError> {
    pack_for(bytes, Features::FIRST_DEVICES)
}

fn packed(text: &str) -> Vec<u8> {
    lower(&module(text)).expect("it can be packed").bytes
}

fn refusal(text: &str, devices: Features) -> String {
    match pack_for(&module(text), devices) {
        Err(PackError::Unsupported { features, .. }) => {
            features.keys().map(|feature| feature.name()).collect::<Vec<_>>().join(", ")
        }
        other => panic!("expected a refusal by name: {other:?}"),
    }
}

/// Every sign extension and saturating conversion: operator, parameter, result.
const CONVERSIONS: [(&str, &str, &str); 13] = [
    ("i32.extend8_s", "i32", "i32"),
    ("i32.extend16_s", "i32", "i32"),
    ("i64.extend8_s", "i64", "i64"),
    ("i64.extend16_s", "i64", "i64"),
    ("i64.extend32_s", "i64", "i64"),
    ("i32.trunc_sat_f32_s", "f32", "i32"),
    ("i32.trunc_sat_f32_u", "f32", "i32"),
    ("i32.trunc_sat_f64_s", "f64", "i32"),
    ("i32.trunc_sat_f64_u", "f64", "i32"),
    ("i64.trunc_sat_f32_s", "f32", "i64"),
    ("i64.trunc_sat_f32_u", "f32", "i64"),
    ("i64.trunc_sat_f64_s", "f64", "i64"),
    ("i64.trunc_sat_f64_u", "f64", "i64"),
];

/// Bit patterns at and around every edge of a conversion, beside random ones.
fn patterns() -> impl Strategy<Value = u64> {
    let edges: Vec<u64> =
        [0.0, 1.0, 0.5, 127.0, 128.0, 32_767.0, 2_147_483_647.0, 2_147_483_648.0, 4_294_967_295.0]
            .into_iter()
            .chain([
                4_294_967_296.0,
                9.223_372_036_854_775e18,
                9.223_372_036_854_776e18,
                1.844_674_407_370_955_2e19,
            ])
            .chain([f64::INFINITY, f64::NAN, f64::MAX, f64::MIN_POSITIVE])
            .flat_map(|edge: f64| [edge, -edge])
            .flat_map(|edge| [edge.to_bits(), u64::from((edge as f32).to_bits())])
            .collect();
    prop_oneof![
        any::<u64>(),
        (proptest::sample::select(edges), -2i64..=2).prop_map(|(e, d)| e.wrapping_add_signed(d))
    ]
}

fn argument(ty: &str, bits: u64) -> Val {
    match ty {
        "i32" => Val::I32(bits as i32),
        "i64" => Val::I64(bits as i64),
        "f32" => Val::F32(f32::from_bits(bits as u32).into()),
        _ => Val::F64(f64::from_bits(bits).into()),
    }
}

/// `run(dst, src, len)` copies, or `run(dst, value, len)` fills, in a memory of 200 bytes or of one page.
fn memory_module(operator: &str, small: bool) -> String {
    let memory = if small { "200 200 (pagesize 1)" } else { "1 1" };
    let pattern: String = (0..200).map(|byte| format!("\\{byte:02x}")).collect();
    format!(
        r#"(module (memory (export "memory") {memory}) (data (i32.const 0) "{pattern}")
            (func (export "run") (param i32 i32 i32) local.get 0 local.get 1 local.get 2 {operator}))"#
    )
}

/// Addresses and lengths near the edges of the memory, near each other, and far out.
fn address() -> impl Strategy<Value = i32> {
    prop_oneof![6 => 0..210i32, 1 => 65_400..65_540i32, 1 => any::<i32>(), 1 => -3..3i32]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn conversions_keep_their_meaning(inputs in proptest::collection::vec(patterns(), 8)) {
        for (operator, parameter, result) in CONVERSIONS {
            let text = format!(
                r#"(module (func (export "run") (param {parameter}) (result {result}) local.get 0 {operator}))"#
            );
            let (original, packed) = (module(&text), packed(&text));
            let newer = Loaded::new(&original, true);
            let older = Loaded::new(&packed, false);
            for bits in &inputs {
                let input = argument(parameter, *bits);
                let expected = newer.call(&input);
                prop_assert_eq!(&expected, &older.call(&input), "{} of {:#x}", operator, bits);
                let device = device_call(&packed, &[input]).expect("a device loads it");
                prop_assert_eq!(&expected.results, &device.results, "{} of {:#x} on a device", operator, bits);
            }
        }
    }

    #[test]
    fn copies_and_fills_keep_their_meaning(
        calls in proptest::collection::vec((address(), address(), address()), 8),
        small in any::<bool>(),
    ) {
        for operator in ["memory.copy", "memory.fill"] {
            let text = memory_module(operator, small);
            let (original, packed) = (module(&text), packed(&text));
            for (dst, src, len) in &calls {
                let arguments = [Val::I32(*dst), Val::I32(*src), Val::I32(*len)];
                let (expected, found) = (call(&original, true, &arguments), call(&packed, false, &arguments));
                prop_assert!(
                    expected == found,
                    "{operator} {dst} {src} {len}: {:?} {:?}",
                    expected.results,
                    found.results
                );
                let device = device_call(&packed, &arguments).expect("a device loads it");
                prop_assert!(
                    agree(&expected, &device),
                    "{operator} {dst} {src} {len} on a device: {:?} {:?}",
                    expected.results,
                    device.results
                );
            }
        }
    }

    #[test]
    fn random_modules_keep_their_meaning(seed in any::<u64>()) {
        let Some(original) = generated(seed) else { return Ok(()) };
        let packed = match lower(&original) {
            Ok(packed) => packed.bytes,
            // The generator makes segments and table operators that packing refuses; no other refusal is right.
            Err(PackError::Unsupported { features, .. }) => {
                for feature in features.keys() {
                    let allowed = [Feature::PassiveSegments, Feature::TableOperators, Feature::ReferenceTypes];
                    prop_assert!(allowed.contains(feature), "{feature}");
                }
                return Ok(());
            }
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        };
        prop_assert_eq!(&lower(&packed).expect("packed modules pack").bytes, &packed, "packing twice");
        let arguments = [Val::I32(7), Val::I64(-7)];
        let (expected, found) = (call(&original, true, &arguments), call(&packed, false, &arguments));
        // Both stop where the stack ends, at different depths.
        let exhausted = |outcome: &Outcome| matches!(&outcome.results, Err(trap) if trap.contains("stack"));
        if exhausted(&expected) {
            return Ok(());
        }
        prop_assert_eq!(&expected.results, &found.results);
        prop_assert!(expected.memory == found.memory, "memory differs");
        if let Some(device) = device_call(&packed, &arguments).filter(|device| !exhausted(device)) {
            prop_assert!(agree(&expected, &device), "on a device: {:?} {:?}", expected.results, device.results);
        }
    }

    #[test]
    fn any_bytes_are_packed_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), header in any::<bool>()) {
        if header {
            bytes.splice(0..0, *b"\0asm\x01\0\0\0");
        }
        for devices in [Features::FIRST_DEVICES, Features::DEVICES] {
            if let Err(PackError::Defect(message)) = pack_for(&bytes, devices) {
                return Err(TestCaseError::fail(message));
            }
        }
    }

    #[test]
    fn damaged_samples_are_packed_or_refused(
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        which in 0..SAMPLES.len(),
    ) {
        let mut bytes = SAMPLES[which].to_vec();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        for devices in [Features::FIRST_DEVICES, Features::DEVICES] {
            match pack_for(&bytes, devices) {
                Ok(packed) => {
                    let again = pack_for(&packed.bytes, devices).expect("packed modules pack");
                    prop_assert_eq!(&again.bytes, &packed.bytes);
                }
                Err(PackError::Defect(message)) => return Err(TestCaseError::fail(message)),
                Err(
                    PackError::Read(_)
                    | PackError::Unsupported { .. }
                    | PackError::NoEntry { .. }
                    | PackError::Settings(_),
                ) => {}
            }
        }
    }
}

/// Modules of compilers, to be damaged.
const SAMPLES: [&[u8]; 2] = [
    include_bytes!("../../../guests/prebuilt/sensor-loop.wasm"),
    include_bytes!("../../../guests/prebuilt/hello-c.wasm"),
];

struct Loaded {
    bytes: Vec<u8>,
    newer: bool,
}

impl Loaded {
    fn new(bytes: &[u8], newer: bool) -> Self {
        Self { bytes: bytes.to_vec(), newer }
    }

    fn call(&self, argument: &Val) -> Outcome {
        call(&self.bytes, self.newer, std::slice::from_ref(argument))
    }
}

/// A module with `run(i32, i64) -> i32` and a memory, that ends.
fn generated(seed: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 16_384];
    rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    let shape = module(
        r#"(module (memory (export "memory") 1 2)
            (func (export "run") (param i32 i64) (result i32) i32.const 0))"#,
    );
    let config = wasm_smith::Config {
        exports: Some(shape),
        max_imports: 0,
        max_funcs: 8,
        // Only the memory of the shape.
        max_memories: 0,
        max_data_segments: 0,
        max_element_segments: 2,
        min_funcs: 4,
        max_instructions: 300,
        max_memory32_bytes: 2 << 16,
        bulk_memory_enabled: true,
        sign_extension_ops_enabled: true,
        saturating_float_to_int_enabled: true,
        canonicalize_nans: true,
        multi_value_enabled: false,
        reference_types_enabled: false,
        simd_enabled: false,
        relaxed_simd_enabled: false,
        threads_enabled: false,
        tail_call_enabled: false,
        exceptions_enabled: false,
        gc_enabled: false,
        extended_const_enabled: false,
        memory64_enabled: false,
        wide_arithmetic_enabled: false,
        compact_imports_enabled: false,
        allow_start_export: false,
        ..wasm_smith::Config::default()
    };
    let mut module = wasm_smith::Module::new(config, &mut arbitrary::Unstructured::new(&bytes)).ok()?;
    module.ensure_termination(10_000).ok()?;
    Some(module.to_bytes())
}

/// The property above says nothing if the generator only makes modules that are refused or need no rewriting.
#[test]
fn random_modules_reach_the_lowering() {
    let (mut lowered, mut on_device) = (0, 0);
    for seed in 0..200 {
        let packed = generated(seed).and_then(|original| lower(&original).ok());
        let Some(packed) = packed.filter(|packed| !packed.lowered.is_empty()) else { continue };
        lowered += 1;
        on_device += usize::from(device_call(&packed.bytes, &[Val::I32(7), Val::I64(-7)]).is_some());
    }
    assert!(lowered >= 40, "only {lowered} of 200 modules were rewritten");
    assert!(on_device >= 20, "only {on_device} of {lowered} were loaded by the device's engine");
}

#[test]
fn what_cannot_be_rewritten_is_refused_by_name() {
    let run = r#"(func (export "run"))"#;
    for (text, names) in [
        (r#"(memory 1) (data "passive")"#, "passive segments"),
        (r#"(memory 1) (data $d (i32.const 0) "x") (func data.drop $d)"#, "passive segments"),
        (r#"(table 1 funcref) (func (drop (table.size 0)))"#, "table operators"),
        (r#"(func (param externref))"#, "reference types (externref, funcref)"),
        (r#"(table 1 funcref) (table 1 funcref)"#, "several tables"),
        (r#"(func (result i32 i32) i32.const 1 i32.const 2)"#, "multi-value"),
        (r#"(func i32.const 1 (block (param i32) drop))"#, "multi-value"),
        (r#"(func (drop (v128.const i64x2 0 0)))"#, "SIMD"),
        (r#"(func (local v128))"#, "SIMD"),
        (r#"(memory 1 1 shared)"#, "threads"),
        (r#"(memory 1) (func (drop (i32.atomic.load (i32.const 0))))"#, "threads"),
        (r#"(func $f return_call $f)"#, "tail calls"),
        (r#"(tag)"#, "exceptions"),
        (r#"(memory i64 1)"#, "memory64"),
        (r#"(memory 1) (memory 1)"#, "multi-memory"),
        (r#"(global i32 (i32.add (i32.const 1) (i32.const 2)))"#, "extended constant expressions"),
        (r#"(type (struct))"#, "garbage collection and typed function references"),
        (r#"(type (sub (func)))"#, "garbage collection and typed function references"),
        (
            r#"(type $t (func)) (import "a" "b" (func (exact (type $t))))"#,
            "garbage collection and typed function references",
        ),
        (r#"(global (shared i32) (i32.const 1))"#, "threads"),
    ] {
        // Imports come first.
        let module = if text.contains("import") { format!("{text} {run}") } else { format!("{run} {text}") };
        let module = format!("(module {module})");
        assert_eq!(refusal(&module, Features::FIRST_DEVICES), names, "{text}");
        match names {
            "SIMD" | "threads" | "exceptions" | "memory64" | "multi-memory" => {
                assert_eq!(refusal(&module, Features::DEVICES), names, "{text}");
            }
            names if names.starts_with("garbage collection") => {
                assert_eq!(refusal(&module, Features::DEVICES), names, "{text}");
            }
            _ => assert!(pack(&wat::parse_str(&module).expect("valid")).is_ok(), "{text}"),
        }
    }
    for text in [
        "(global i32 (i32.const 1)) (global i32 (global.get 0))",
        "(func (drop (ref.null any)))",
        "(table 1 anyref)",
        "(func unreachable (select (result anyref)) drop)",
        "(elem anyref (ref.null any))",
    ] {
        let names = refusal(&format!("(module {run} {text})"), Features::DEVICES);
        assert_eq!(names, "garbage collection and typed function references", "{text}");
    }
}

/// Nothing is rewritten for devices that run it, and what is said about it is so.
#[test]
fn what_devices_run_is_left_as_it_is() {
    let text = r#"(module (type $pair (func (param i32 i32) (result i32 i32)))
        (type $t (func (param i32) (result i32)))
        (memory (export "memory") 1) (data $passive "abc") (data (i32.const 8) "d")
        (table $f 2 funcref) (table $e 1 externref)
        (elem $late func $inc $declared) (elem (table $f) (i32.const 0) funcref (ref.func $inc) (ref.null func))
        (global $g (mut i32) (i32.add (i32.const 40) (i32.const 2)))
        (func $start (global.set $g (i32.add (global.get $g) (i32.const 1)))) (start $start)
        (func $inc (type $t) (i32.add (local.get 0) (i32.extend8_s (i32.const 1))))
        (func $declared (export "declared") (type $t) (return_call $inc (i32.const 6)))
        (func $swap (type $pair) (local.get 1) (local.get 0))
        (func (export "run") (param i32) (result i32)
            (memory.init $passive (i32.const 0) (i32.const 0) (i32.const 3))
            (memory.copy (i32.const 4) (i32.const 0) (i32.const 3))
            (table.init $f $late (i32.const 1) (i32.const 0) (i32.const 1))
            (table.set $f (i32.const 0) (ref.func $declared))
            (drop (table.grow $e (ref.null extern) (i32.const 1)))
            (call $swap (local.get 0) (call_indirect $f (type $t) (i32.const 1) (i32.const 0)))
            (i32.sub)
            (i32.add (global.get $g))
            (i32.add (i32.trunc_sat_f32_s (f32.const 1000)))
            (i32.add (i32.load8_u (i32.const 4)))
            (i32.add (table.size $e))))"#;
    let original = module(text);
    let packed = pack(&original).expect("it can be packed");
    assert_eq!(packed.lowered, []);
    let report = packed.report();
    for name in [
        "sign extension",
        "passive segments",
        "several tables",
        "multi-value",
        "tail calls",
        "start function",
    ] {
        assert!(report.lines().any(|line| line.starts_with("kept ") && line.contains(name)), "{report}");
    }
    assert!(!report.contains("rewritten"), "{report}");
    assert_eq!(pack(&packed.bytes).expect("packed modules pack").bytes, packed.bytes);
    // 7 - 5, 43 of the start function, 1000, 'a' and 2.
    let expected = device_call(&original, &[Val::I32(5)]).expect("a device loads it");
    assert_eq!(expected.results, Ok(vec![7u64.wrapping_sub(5) + 43 + 1_000 + 97 + 2]));
    assert_eq!(device_call(&packed.bytes, &[Val::I32(5)]), Some(expected));
    let lowered = lower(&original).expect_err("not all of it can be rewritten").to_string();
    assert!(lowered.contains("tail calls") && !lowered.contains("sign extension"), "{lowered}");
}

/// Devices between the first ones and these: each group for itself is kept or rewritten.
#[test]
fn what_some_devices_run_is_rewritten_for_the_rest_of_it() {
    let text = r#"(module (memory (export "memory") 1)
        (func (export "run") (param i32) (result i32)
            (memory.fill (i32.const 0) (i32.const 200) (i32.const 4))
            (i32.add (i32.extend8_s (i32.load8_u (local.get 0))) (i32.trunc_sat_f32_s (f32.const 1e10)))))"#;
    let original = module(text);
    let groups = [Features::SIGN_EXTENSION, Features::SATURATING_FLOAT, Features::BULK_MEMORY];
    let expected = call(&original, true, &[Val::I32(2)]);
    for run in 0..8u32 {
        let has = |at: usize| run & 1 << at != 0;
        let mut devices = Features::FIRST_DEVICES;
        for (at, group) in groups.iter().enumerate().filter(|(at, _)| has(*at)) {
            devices = devices.union(*group);
            // Bulk memory alone is lowered: its segments are written as both proposals have them, or as none.
            devices = if at == 2 { devices.union(Features::REFERENCE_TYPES) } else { devices };
        }
        let packed = pack_for(&original, devices).expect("it can be packed");
        assert_eq!(
            (packed.kept.len() as u32, packed.lowered.len() as u32),
            (run.count_ones(), 3 - run.count_ones())
        );
        let limits = ScanLimits { features: devices, ..ScanLimits::default() };
        let limits = ScanLimits { entry_required: false, ..limits };
        assert!(scan(&packed.bytes, &limits).is_ok(), "{devices}");
        assert_eq!(call(&packed.bytes, true, &[Val::I32(2)]), expected, "{devices}");
    }
}

#[test]
fn a_refusal_says_where_and_what_to_do() {
    let text = r#"(module (func (export "run")) (func $mix (drop (v128.const i64x2 0 0)))
        (@producers (language "Rust" "") (processed-by "rustc" "1.95.0")))"#;
    let message = pack(&module(text)).expect_err("it is refused").to_string();
    assert!(message.contains("SIMD: once (first in function mix, byte 0x"), "{message}");
    assert!(message.contains("-C target-feature=-simd128"), "{message}");
}

#[test]
fn what_is_not_a_module_is_refused_in_words() {
    for (bytes, words) in [
        (&b""[..], "not WebAssembly: it begins with nothing"),
        (b"\x7fELF\x02\x01", "native ELF file"),
        (b"(module)", "text form"),
        (b"\0asm\x0d\0\x01\0", "component"),
        (b"\0asm\x01\0\0\0\x01\x05", "invalid WebAssembly at byte"),
        (b"\0asm\x01\0\0\0", "no entry"),
    ] {
        let message = pack(bytes).expect_err("it is refused").to_string();
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn what_devices_never_look_at_is_dropped() {
    let text = r#"(module (memory (export "memory") 1) (global (export "__heap_base") i32 (i32.const 9))
        (func $entry (export "_start")) (func (export "other")) (@custom "notes" "for people"))"#;
    let Packed { bytes, .. } = pack(&module(text)).expect("it can be packed");
    let info = wasmbed::commands::module::Info::read(&bytes).expect("it can be read");
    let names: Vec<_> = info.anatomy.exports.iter().map(|export| export.name.as_str()).collect();
    assert_eq!(names, ["memory", "_start"]);
    assert!(
        info.anatomy.sections.iter().all(|section| !section.name.starts_with('"')),
        "{:?}",
        info.anatomy.sections
    );
}

#[test]
fn newer_forms_become_older_ones() {
    let text = r#"(module (type $get (func (result i32)))
        (table 4 funcref)
        (elem (table 0) (offset (i32.const 1)) func $five $six)
        (elem (i32.const 3) funcref (ref.func $six))
        (elem declare func $five)
        (func $five (result i32) i32.const 5)
        (func $six (result i32) i32.const 6)
        (func (export "run") (param i32) (result i32)
            (block (type $get) (call_indirect (type $get) (local.get 0)))
            (select (result i32) (i32.const 100) (i32.const 200) (local.get 0))
            i32.add))"#;
    let (original, packed) = (module(text), packed(text));
    for index in [0, 1, 2, 3, 4] {
        let arguments = [Val::I32(index)];
        assert_eq!(call(&original, true, &arguments), call(&packed, false, &arguments), "entry {index}");
    }
}

#[test]
fn initialisers_run_before_the_entry() {
    let library = r#"(module (global $g (mut i32) (i32.const 1))
        (func $first (global.set $g (i32.mul (global.get $g) (i32.const 10)))) (start $first)
        (func (export "_initialize") (global.set $g (i32.add (global.get $g) (i32.const 5))))
        (func (export "run") (param i32) (result i32) (i32.add (global.get $g) (local.get 0))))"#;
    let outcome = call(&packed(library), false, &[Val::I32(100)]);
    assert_eq!(outcome.results, Ok(vec![115]));
    let only_start = r#"(module (memory 1) (func $main i32.const 0 i32.const 7 i32.store8) (start $main))"#;
    let info = wasmbed::commands::module::Info::read(&packed(only_start)).expect("it can be read");
    let exports: Vec<_> =
        info.anatomy.exports.iter().map(|export| (export.name.as_str(), export.ty.as_str())).collect();
    assert_eq!(exports, [("_start", "func ()")]);
    assert!(info.anatomy.features.is_empty(), "{:?}", info.anatomy.features);
}

#[test]
fn a_large_memory_brings_the_flag_of_its_own_toolchain() {
    for (producers, toolchain, flag) in [
        (
            r#"(@producers (language "Rust" "") (processed-by "rustc" "1.95.0"))"#,
            Toolchain::Rust,
            "-zstack-size=",
        ),
        (
            r#"(@producers (language "C11" "") (processed-by "clang" "19.1.7"))"#,
            Toolchain::Clang,
            "-Wl,-z,stack-size=",
        ),
        ("(global (mut i32) (i32.const 16777216))", Toolchain::Zig, "--stack 16384"),
        (r#"(@producers (processed-by "mystery" "1"))"#, Toolchain::Unknown, "zig --stack"),
    ] {
        let text = format!(r#"(module (memory 17) (func (export "run")) {producers})"#);
        let packed = pack(&module(&text)).expect("it can be packed");
        assert_eq!(packed.toolchain, toolchain);
        assert!(
            packed.advice.iter().any(|line| line.contains(flag) && line.contains("1,088 KiB")),
            "{:?}",
            packed.advice
        );
    }
    let small = pack(&module(r#"(module (memory 1) (func (export "run")))"#)).expect("it can be packed");
    assert_eq!(small.advice, Vec::<String>::new());
}
