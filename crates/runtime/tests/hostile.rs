//! Programs that mean harm, or are merely wrong: each ends with a reason that a person understands, and no neighbour
//! notices.

#![cfg(test)]

mod support;

use support::*;
use wasmbed_runtime::engine::{Engine, ProgramTrap, Quota, Trap};
use wasmbed_runtime::{
    Capabilities, Ending, Exceeded, Features, Interpreter, LoadError, Refusal, Runtime, RuntimeConfig,
    ScanLimits, scan,
};

fn refused(module: &[u8]) -> (Refusal, String) {
    let mut runtime = runtime();
    let error = runtime.load(id(1), &program(module)).expect_err("it is refused");
    assert_eq!(runtime.memory_used_bytes(), 0, "a refused module holds nothing");
    (error.code(), error.to_string())
}

fn refused_text(text: &str) -> (Refusal, String) {
    refused(&wasm(text))
}

#[test]
fn loops_for_ever() {
    let event = ending(r#"(module (func (export "_start") (loop (br 0))))"#).unwrap();
    assert_eq!(event.ending, Ending::Exceeded(Exceeded::Cpu { limit_ms: 100 }));
    assert_eq!(event.ending.to_string(), "used more than 100 ms of CPU without a wait");
    assert!((100..=105).contains(&event.usage.cpu_ms), "{}", event.usage.cpu_ms);
}

#[test]
fn loops_for_ever_with_host_calls() {
    let event = ending(
        r#"(module (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
        (func (export "_start") (loop (drop (call $yield)) (br 0))))"#,
    );
    assert_eq!(event.unwrap().ending, Ending::Exceeded(Exceeded::Cpu { limit_ms: 100 }));
}

#[test]
fn waits_for_ever_within_the_limit() {
    let mut runtime = runtime();
    let mut host = TestHost::new();
    let text = r#"(module (import "wasmbed" "wait" (func $wait (param i32)))
        (func (export "run") (local i32) (loop
            (local.set 0 (i32.const 100000))
            (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
            (call $wait (i32.const 10)) (br 0))))"#;
    load(&mut runtime, 1, text).unwrap();
    // 40 ms of work between two waits, again and again: 4 s of CPU time under a limit of 100 ms.
    assert_eq!(run(&mut runtime, &mut host, 2_000), None);
    assert!(runtime.usage(id(1)).unwrap().cpu_ms > 1_000);
}

#[test]
fn grows_memory_without_end() {
    let trapping = ending(
        r#"(module (memory (export "memory") 1) (func (export "_start")
        (loop (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable)) (br 0))))"#,
    )
    .unwrap();
    assert_eq!(trapping.ending, Ending::Exceeded(Exceeded::Memory { available_bytes: 131_072 }));
    assert_eq!(trapping.ending.to_string(), "gave up: no more than 131072 bytes of memory to be had");
    let stubborn = ending(
        r#"(module (memory (export "memory") 1) (func (export "_start")
        (loop (drop (memory.grow (i32.const 1))) (br 0))))"#,
    );
    assert_eq!(stubborn.unwrap().ending, Ending::Exceeded(Exceeded::Cpu { limit_ms: 100 }));
}

#[test]
fn grow_answers_minus_one_at_the_limit_and_loses_nothing() {
    // 2 pages fit; the third is refused; what was written stays.
    let event = ending(
        r#"(module (memory (export "memory") 1) (func (export "_start")
        (i32.store (i32.const 100) (i32.const 7))
        (if (i32.ne (memory.grow (i32.const 1)) (i32.const 1)) (then unreachable))
        (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
        (if (i32.ne (memory.size) (i32.const 2)) (then unreachable))
        (if (i32.ne (i32.load (i32.const 100)) (i32.const 7)) (then unreachable))
        (if (i32.load (i32.const 131068)) (then unreachable))))"#,
    );
    assert_eq!(event.unwrap().ending, Ending::Exited { code: 0 });
}

#[test]
fn starts_with_more_memory_than_its_limit() {
    let (code, message) = refused_text(r#"(module (memory 3) (func (export "_start")))"#);
    assert_eq!(code, Refusal::MemoryLimit);
    assert_eq!(message, "module starts with 196608 bytes of memory, memory_limit is 131072");
}

#[test]
fn recurses_without_end() {
    let event = ending(r#"(module (func $f (export "_start") (call $f)))"#).unwrap();
    assert_eq!(event.ending, Ending::Exceeded(Exceeded::Stack));
    assert_eq!(event.ending.to_string(), "call stack exhausted");
    let through_table = ending(
        r#"(module (type $t (func)) (table 1 funcref) (elem (i32.const 0) $f)
        (func $f (export "_start") (call_indirect (type $t) (i32.const 0))))"#,
    );
    assert_eq!(through_table.unwrap().ending, Ending::Exceeded(Exceeded::Stack));
}

#[test]
fn traps_at_once() {
    let traps = [
        (
            "unreachable",
            Trap::Program(ProgramTrap::Unreachable),
            "trapped: unreachable executed (a panic or an abort)",
        ),
        (
            "(drop (i32.div_s (i32.const 1) (i32.const 0)))",
            Trap::Program(ProgramTrap::DivisionByZero),
            "trapped: integer division by zero",
        ),
        (
            "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))",
            Trap::Program(ProgramTrap::IntegerOverflow),
            "trapped: integer overflow",
        ),
        (
            "(drop (i32.trunc_f32_s (f32.const nan)))",
            Trap::Program(ProgramTrap::ConversionToInteger),
            "trapped: conversion of a float that fits no integer",
        ),
        (
            "(drop (i32.load (i32.const 65533)))",
            Trap::Program(ProgramTrap::MemoryOutOfBounds),
            "trapped: memory access out of bounds",
        ),
        (
            "(call_indirect (type 0) (i32.const 9))",
            Trap::Program(ProgramTrap::UndefinedElement),
            "trapped: indirect call out of the table's bounds",
        ),
        (
            "(call_indirect (type 0) (i32.const 1))",
            Trap::Program(ProgramTrap::UninitializedElement),
            "trapped: indirect call of an empty table element",
        ),
        (
            "(call_indirect (type 1) (i32.const 0) (i32.const 0))",
            Trap::Program(ProgramTrap::IndirectCallType),
            "trapped: indirect call of a function with another type",
        ),
    ];
    for (body, trap, message) in traps {
        let text = format!(
            r#"(module (type (func)) (type (func (param i32))) (memory 1) (table 2 funcref) (elem (i32.const 0) $f)
            (func $f (export "_start") (type 0) {body}))"#
        );
        let event = ending(&text).unwrap();
        assert_eq!(event.ending, Ending::Trapped(trap), "{body}");
        assert_eq!(event.ending.to_string(), message);
    }
}

#[test]
fn floods_the_log() {
    let text = r#"(module (import "wasmbed" "log" (func $log (param i32 i32)))
        (memory (export "memory") 1)
        (func (export "_start") (loop (call $log (i32.const 0) (i32.const 1024)) (br 0))))"#;
    let mut runtime = runtime();
    load(&mut runtime, 1, text).unwrap();
    let mut host = TestHost::new();
    let event = run(&mut runtime, &mut host, 100_000).unwrap();
    assert_eq!(event.ending, Ending::Exceeded(Exceeded::Cpu { limit_ms: 100 }));
    let bytes: usize = host.lines.iter().map(|(_, line)| line.len()).sum();
    assert!(bytes <= 8_192, "{bytes} bytes got through at once");
}

#[test]
fn floods_the_log_between_waits() {
    let text = r#"(module (import "wasmbed" "log" (func $log (param i32 i32)))
        (import "wasmbed" "wait" (func $wait (param i32)))
        (memory (export "memory") 1) (data (i32.const 0) "flood")
        (func (export "_start") (local i32) (loop
            (local.set 0 (i32.const 1000))
            (loop (call $log (i32.const 0) (i32.const 5)) (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
            (call $wait (i32.const 1000)) (br 0))))"#;
    let mut runtime = runtime();
    load(&mut runtime, 1, text).unwrap();
    let mut host = TestHost::new();
    let start_us = host.now_us;
    assert_eq!(run(&mut runtime, &mut host, 20_000), None, "it stays within its CPU limit and runs on");
    let seconds = (host.now_us - start_us) / 1_000_000;
    let passed = host.lines.len() as u64;
    assert!(seconds >= 10);
    // 5 bytes and the cost of a line, 21 together, out of 4,096 a second and twice that at the start.
    assert!(passed <= (seconds + 3) * 4_096 / 21, "{passed} lines in {seconds} s");
    assert!(host.lines_lost > passed, "what is dropped is counted: {} lost", host.lines_lost);
}

#[test]
fn imports_something_unknown() {
    let (code, message) =
        refused_text(r#"(module (import "env" "abort" (func (param i32))) (func (export "_start")))"#);
    assert_eq!((code, message.as_str()), (Refusal::UnknownImport, "unknown import 'env.abort'"));
    let (_, long) = refused_text(&format!(
        r#"(module (import "env" "{}" (func)) (func (export "_start")))"#,
        "x".repeat(10_000)
    ));
    assert!(long.len() < 96, "{long}");
    let (code, message) =
        refused_text(r#"(module (import "wasmbed" "memory" (memory 1)) (func (export "_start")))"#);
    assert_eq!(code, Refusal::UnknownImport);
    assert_eq!(message, "import 'wasmbed.memory' is a memory, only functions are offered");
}

#[test]
fn imports_with_a_wrong_signature() {
    let (code, message) = refused_text(
        r#"(module (import "wasmbed" "wait" (func (param i64) (result i32))) (func (export "_start")))"#,
    );
    assert_eq!(code, Refusal::UnknownImport);
    assert_eq!(message, "import 'wasmbed.wait' has type (i64) -> i32, here it is (i32) -> ()");
}

#[test]
fn imports_without_the_capability() {
    let module = wasm(
        r#"(module (import "wasmbed" "gpio_write" (func (param i32 i32) (result i32)))
        (func (export "_start")))"#,
    );
    let mut runtime = runtime();
    let denied = wasmbed_runtime::Program { capabilities: Capabilities::NONE, ..program(&module) };
    let error = runtime.load(id(1), &denied).unwrap_err();
    assert_eq!(error.code(), Refusal::CapabilityDenied);
    assert_eq!(error.to_string(), "import 'gpio_write' needs the capability 'gpio', which is not granted");
}

#[test]
fn has_20_000_locals() {
    let (code, message) =
        refused_text(&format!("(module (func (export \"_start\") (local {})))", "i32 ".repeat(20_000)));
    assert_eq!((code, message.as_str()), (Refusal::TooComplex, "function 0 has 20000 locals, at most 1000"));
    let groups = "i32 i64 ".repeat(40);
    let (code, message) = refused_text(&format!("(module (func (export \"_start\") (local {groups})))"));
    assert_eq!(
        (code, message.as_str()),
        (Refusal::TooComplex, "function 0 has 80 groups of locals, at most 64")
    );
}

#[test]
fn has_7_500_exports() {
    let exports: String = (0..7_500).map(|n| format!("(export \"e{n}\" (func 0))")).collect();
    let (code, message) = refused_text(&format!("(module (func (export \"_start\")) {exports})"));
    assert_eq!((code, message.as_str()), (Refusal::TooComplex, "7501 exports, at most 100"));
}

#[test]
fn has_70_000_functions() {
    let functions = "(func)".repeat(70_000);
    let (code, message) = refused_text(&format!("(module (func (export \"_start\")) {functions})"));
    assert_eq!((code, message.as_str()), (Refusal::TooComplex, "70001 functions, at most 5000"));
}

#[test]
fn is_not_webassembly() {
    for bytes in [&b""[..], b"\0as", b"\x7fELF\x02\x01\x01", b"#!/bin/sh\n"] {
        let (code, message) = refused(bytes);
        assert_eq!(code, Refusal::InvalidModule);
        assert_eq!(message, "not a WebAssembly module: it does not begin with \\0asm");
    }
    assert_eq!(
        refused(b"\0asm\x0d\0\x01\0").1,
        "a WebAssembly component; compile to a core module (wasm32-wasip1)"
    );
    assert_eq!(refused(b"\0asm\x02\0\0\0").1, "WebAssembly version 2, only version 1 runs here");
}

#[test]
fn is_over_the_size_limit() {
    let mut module = wasm(r#"(module (func (export "_start")))"#);
    // A custom section fills it up.
    module.extend([0, 0x80, 0x80, 0x40, 1, b'x']);
    module.resize(1_048_577, 0);
    let (code, message) = refused(&module);
    assert_eq!(code, Refusal::ModuleTooLarge);
    assert_eq!(message, "module has 1048577 bytes, at most 1048576 are accepted");
}

/// It is the first part of the run: what it does, and how long it takes, is charged and ended like anything else.
#[test]
fn has_a_start_section() {
    let starting = |body: &str| {
        let text = format!(
            r#"(module (import "wasmbed" "log" (func $log (param i32 i32))) (memory (export "memory") 1)
            (data (i32.const 0) "first") (global $n (mut i32) (i32.const 0))
            (func $f {body}) (start $f)
            (func (export "_start") (if (i32.ne (global.get $n) (i32.const 7)) (then unreachable))))"#
        );
        ending(&text).unwrap().ending
    };
    let good = "(call $log (i32.const 0) (i32.const 5)) (global.set $n (i32.const 7))";
    assert_eq!(starting(good), Ending::Exited { code: 0 });
    assert_eq!(
        starting(""),
        Ending::Trapped(Trap::Program(ProgramTrap::Unreachable)),
        "the entry runs after it"
    );
    assert_eq!(starting("(loop (br 0))"), Ending::Exceeded(Exceeded::Cpu { limit_ms: 100 }));
    assert_eq!(starting("(call $f)"), Ending::Exceeded(Exceeded::Stack));
    assert_eq!(starting("unreachable"), Ending::Trapped(Trap::Program(ProgramTrap::Unreachable)));
    let endless = "(loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br 0))";
    assert_eq!(starting(endless), Ending::Exceeded(Exceeded::Cpu { limit_ms: 100 }));
    let (code, message) =
        refused_text(r#"(module (func $f (param i32)) (start $f) (func (export "_start")))"#);
    assert_eq!(code, Refusal::InvalidModule);
    assert!(message.starts_with("damaged module: a start function with parameters or results at byte "));
}

#[test]
fn has_no_usable_entry() {
    let cases = [
        (
            r#"(module (func (export "main")))"#,
            "no entry: export a function '_start' or 'run' of type () -> ()",
        ),
        (
            r#"(module (func (export "_start") (result i32) (i32.const 0)))"#,
            "export '_start' has type () -> i32, it must be () -> ()",
        ),
        (
            r#"(module (func (export "run") (param i32 i64)))"#,
            "export 'run' has type (i32, i64) -> (), it must be () -> ()",
        ),
        (r#"(module (memory (export "_start") 1))"#, "export '_start' is not a function"),
        (
            r#"(module (import "wasi_snapshot_preview1" "sched_yield" (func (result i32))) (export "_start" (func 0)))"#,
            "export '_start' is an import; it must be a function of the module itself",
        ),
    ];
    for (text, expected) in cases {
        let (code, message) = refused_text(text);
        assert_eq!(code, Refusal::InvalidEntry, "{text}");
        assert_eq!(message, expected);
    }
}

#[test]
fn does_not_validate() {
    let (code, message) =
        refused_text(r#"(module (func (export "_start") (drop (i32.add (i64.const 1) (i32.const 1)))))"#);
    assert_eq!(
        (code, message.as_str()),
        (Refusal::InvalidModule, "invalid module: i64 where i32 is expected (byte 39 of the module)")
    );
}

#[test]
fn nests_or_stacks_too_deep() {
    let nested = format!("{}{}", "(block ".repeat(200), ")".repeat(200));
    let (code, message) = refused_text(&format!("(module (func (export \"_start\") {nested}))"));
    assert_eq!((code, message.as_str()), (Refusal::TooComplex, "function 0 nests more than 127 blocks"));
    let pushes = format!("{}{}", "i32.const 1 ".repeat(200), "drop ".repeat(200));
    let (code, message) = refused_text(&format!("(module (func (export \"_start\") {pushes}))"));
    assert_eq!(code, Refusal::TooComplex);
    assert_eq!(message, "function 0 keeps more than 128 values on its operand stack");
}

#[test]
fn as_deep_as_allowed_loads_and_runs() {
    let nested = format!("{}{}", "(block ".repeat(127), ")".repeat(127));
    let pushes = format!("{}{}", "i64.const 1 ".repeat(127), "drop ".repeat(127));
    let event = ending(&format!("(module (func (export \"_start\") {nested} {pushes}))")).unwrap();
    assert_eq!(event.ending, Ending::Exited { code: 0 });
}

#[test]
fn needs_more_stack_than_there_is() {
    let module = wasm(&format!("(module (func (export \"_start\") (local {})))", "i64 ".repeat(1_000)));
    let mut runtime: Runtime<Interpreter> = Runtime::new(RuntimeConfig { stack_words: 1_024, ..config() });
    let error = runtime.load(id(1), &program(&module)).unwrap_err();
    assert_eq!(error.code(), Refusal::InvalidModule);
    assert_eq!(error.to_string(), "invalid module: the entry needs more call stack than there is");
}

#[test]
fn needs_more_arena_than_there_is() {
    let mut runtime: Runtime<Interpreter> = Runtime::new(RuntimeConfig { arena_bytes: 40_000, ..config() });
    let error = load(&mut runtime, 1, r#"(module (memory 1) (func (export "_start")))"#).unwrap_err();
    assert_eq!(error.code(), Refusal::OutOfMemory);
    assert!(error.to_string().starts_with("not enough memory: 65536 bytes more needed, "), "{error}");
    assert_eq!(runtime.memory_used_bytes(), 0);
    load(&mut runtime, 2, r#"(module (memory 0) (func (export "_start")))"#).unwrap();
}

#[test]
fn every_size_of_arena_is_an_answer() {
    let module = wasm(
        r#"(module (import "wasmbed" "log" (func $log (param i32 i32))) (memory (export "memory") 1)
        (table 10 funcref) (elem (i32.const 0) $f) (global (mut i32) (i32.const 1))
        (func $f (export "_start") (call $log (i32.const 0) (i32.const 1))))"#,
    );
    let mut loaded = 0;
    for arena_bytes in (1_000..90_000).step_by(250) {
        let mut runtime: Runtime<Interpreter> = Runtime::new(RuntimeConfig { arena_bytes, ..config() });
        match runtime.load(id(1), &program(&module)) {
            Ok(()) => loaded += 1,
            Err(error) => assert_eq!(error.code(), Refusal::OutOfMemory, "{arena_bytes}: {error}"),
        }
        runtime.stop(id(1));
        assert_eq!(runtime.memory_used_bytes(), 0);
    }
    assert!(loaded > 0);
}

#[test]
fn every_heap_quota_is_an_answer() {
    let module = wasm(
        r#"(module (import "wasmbed" "log" (func $log (param i32 i32))) (memory (export "memory") 1)
        (func $f (export "_start") (call $log (i32.const 0) (i32.const 1))))"#,
    );
    let mut outcomes = [0, 0];
    for heap_bytes_max in (0..16_000).step_by(32) {
        let mut runtime: Runtime<Interpreter> = Runtime::new(RuntimeConfig { heap_bytes_max, ..config() });
        match runtime.load(id(1), &program(&module)) {
            Ok(()) => {
                outcomes[0] += 1;
                assert!(runtime.memory_used_bytes() <= heap_bytes_max + 65_536, "{heap_bytes_max}");
            }
            Err(error) => {
                assert_eq!(error.code(), Refusal::OutOfMemory, "{heap_bytes_max}: {error}");
                assert_eq!(runtime.memory_used_bytes(), 0);
                outcomes[1] += 1;
            }
        }
    }
    assert!(outcomes[0] > 0 && outcomes[1] > 0, "{outcomes:?}");
}

#[test]
fn an_eleventh_application() {
    let mut runtime = runtime();
    for number in 0..10 {
        load(&mut runtime, number, r#"(module (func (export "_start") (loop (br 0))))"#).unwrap();
    }
    let error = load(&mut runtime, 10, r#"(module (func (export "_start")))"#).unwrap_err();
    assert_eq!(error, LoadError::TooManyApplications { limit: 10 });
    assert_eq!(error.to_string(), "this device runs 10 applications, no more");
    assert_eq!(load(&mut runtime, 3, r#"(module (func (export "_start")))"#), Err(LoadError::AlreadyLoaded));
}

#[test]
fn messages_fit_a_report() {
    // What the device protocol has room for.
    const REPORT_MESSAGE_BYTES_MAX: usize = 96;
    let endings = [
        Ending::Exited { code: u32::MAX },
        Ending::Exceeded(Exceeded::Cpu { limit_ms: u32::MAX }),
        Ending::Exceeded(Exceeded::Memory { available_bytes: u32::MAX.into() }),
        Ending::Trapped(Trap::HostCall { function: "wasmbed.log", what: "text lies outside the memory" }),
    ];
    for ending in endings {
        assert!(ending.to_string().len() <= REPORT_MESSAGE_BYTES_MAX, "{ending}");
    }
}

#[test]
fn unsupported_operators_are_named() {
    let cases = [
        ("(drop (i32.extend8_s (i32.const 1)))", "sign-extension operators"),
        ("(drop (i32.trunc_sat_f32_s (f32.const 1)))", "saturating float-to-int operators"),
        ("(memory.copy (i32.const 0) (i32.const 0) (i32.const 0))", "bulk memory operators"),
        ("(drop (v128.const i32x4 0 0 0 0))", "SIMD"),
        ("(return_call 0)", "tail calls"),
        ("(drop (i32.atomic.load (i32.const 0)))", "threads"),
        ("(drop (ref.null func))", "reference types"),
        (
            "(drop (block (result i32) (select (result i32) (i32.const 0) (i32.const 0) (i32.const 0))))",
            "reference types",
        ),
        ("(try_table (nop))", "exceptions"),
    ];
    for (body, feature) in cases {
        let module = wasm(&format!("(module (memory 1) (func (export \"_start\") {body}))"));
        let error = scan(&module, &first_devices()).unwrap_err();
        assert_eq!(error.code(), Refusal::UnsupportedFeature, "{body}: {error}");
        assert_eq!(error.to_string(), format!("function 0 uses {feature}, which this engine does not run"));
    }
    let memories =
        scan(&wasm("(module (memory 1) (memory 1) (func (export \"_start\")))"), &ScanLimits::default());
    assert_eq!(
        memories.unwrap_err().to_string(),
        "module uses multiple memories, which this engine does not run"
    );
    let wide = scan(&wasm("(module (memory i64 1) (func (export \"_start\")))"), &ScanLimits::default());
    assert_eq!(wide.unwrap_err().to_string(), "module uses memory64, which this engine does not run");
    let multi = scan(
        &wasm("(module (func (export \"_start\")) (func (result i32 i32) (i32.const 1) (i32.const 2)))"),
        &first_devices(),
    );
    assert_eq!(multi.unwrap_err().to_string(), "module uses multi-value, which this engine does not run");
    let starts = scan(&wasm("(module (func $f (export \"_start\")) (start $f))"), &first_devices());
    assert_eq!(
        starts.unwrap_err().to_string(),
        "module uses start functions, which this engine does not run"
    );
}

/// The scan as the first devices do it, whose engines run less.
fn first_devices() -> ScanLimits {
    ScanLimits { features: Features::FIRST_DEVICES, ..ScanLimits::default() }
}

#[test]
fn what_devices_do_not_run_is_named() {
    let cases = [
        ("(drop (v128.const i32x4 0 0 0 0))", "SIMD"),
        ("(drop (i32.atomic.load (i32.const 0)))", "threads"),
        ("(try_table (nop))", "exceptions"),
        ("(drop (ref.null any))", "garbage-collected types"),
        ("(drop (ref.null none))", "garbage-collected types"),
        ("(drop (ref.i31 (i32.const 1)))", "garbage-collected types"),
        ("(return_call_ref 0 (ref.func 0))", "garbage-collected types"),
        ("(memory.fill 1 (i32.const 0) (i32.const 0) (i32.const 0))", "multiple memories"),
        ("(memory.copy 0 1 (i32.const 0) (i32.const 0) (i32.const 0))", "multiple memories"),
    ];
    for (body, feature) in cases {
        let module = wasm(&format!(
            "(module (type (func)) (memory 1) (elem declare func 0) (func (export \"_start\") {body}))"
        ));
        let error = scan(&module, &ScanLimits::default()).unwrap_err();
        assert_eq!(error.code(), Refusal::UnsupportedFeature, "{body}: {error}");
        assert_eq!(error.to_string(), format!("function 0 uses {feature}, which this engine does not run"));
    }
    for (field, feature) in [
        ("(memory 1 2 shared)", "threads"),
        ("(table i64 1 funcref)", "memory64"),
        ("(table 1 funcref (ref.null func))", "garbage-collected types"),
        ("(type (struct))", "garbage-collected types"),
        ("(tag)", "exceptions"),
        ("(global i32 (i32.const 1)) (global i32 (global.get 0))", "garbage-collected types"),
    ] {
        let (code, message) = refused_text(&format!("(module {field} (func (export \"_start\")))"));
        assert_eq!(code, Refusal::UnsupportedFeature, "{field}: {message}");
        assert_eq!(message, format!("module uses {feature}, which this engine does not run"), "{field}");
    }
}

/// Nothing but functions on numbers goes in, and nothing of it by reference.
#[test]
fn imports_more_than_functions_on_numbers() {
    for (import, kind) in [
        ("(table 1 funcref)", "table"),
        ("(memory 1)", "memory"),
        ("(global i32)", "global"),
        ("(tag)", "tag"),
    ] {
        let (code, message) =
            refused_text(&format!(r#"(module (import "wasmbed" "x" {import}) (func (export "_start")))"#));
        assert_eq!(code, Refusal::UnknownImport);
        assert_eq!(message, format!("import 'wasmbed.x' is a {kind}, only functions are offered"));
    }
    for types in ["(param externref i32)", "(param i32) (result funcref)"] {
        let (code, message) = refused_text(&format!(
            r#"(module (import "wasmbed" "log" (func {types})) (func (export "_start")))"#
        ));
        assert_eq!(code, Refusal::UnknownImport);
        assert_eq!(message, "import 'wasmbed.log' passes references, host functions take and return numbers");
    }
    let (code, message) = refused_text(r#"(module (func (export "_start") (param externref)))"#);
    assert_eq!(code, Refusal::InvalidEntry);
    assert_eq!(message, "export '_start' passes references, it must be () -> ()");
}

#[test]
fn has_more_tables_or_elements_than_there_is_room_for() {
    let with = |fields: &str| refused_text(&format!(r#"(module {fields} (func $f (export "_start")))"#));
    let complex = |message: &str| (Refusal::TooComplex, message.to_owned());
    assert_eq!(with(&"(table 0 funcref)".repeat(33)), complex("33 tables, at most 32"));
    assert_eq!(with("(table 4294967295 funcref)"), complex("4294967295 table elements, at most 4096"));
    assert_eq!(
        with("(table 4096 externref) (table 1 funcref)"),
        complex("4097 table elements, at most 4096"),
        "all tables together"
    );
    let million = "0 ".repeat(1_000_000);
    assert_eq!(
        with(&format!("(elem func {million})")),
        complex("1000000 elements in segments, at most 16384")
    );
    let half = "$f ".repeat(8_193);
    assert_eq!(
        with(&format!("(elem declare func {half}) (elem func {half})")),
        complex("16386 elements in segments, at most 16384"),
        "all segments together"
    );
    assert_eq!(with(&"(elem func)".repeat(1_001)), complex("1001 element segments, at most 1000"));
    assert_eq!(with(&"(data)".repeat(5_001)), complex("5001 data segments, at most 5000"));
    // Nothing follows the count.
    let counted = [wasm("(module)"), vec![12, 5, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
    assert_eq!(refused(&counted), complex("4294967295 data segments, at most 5000"));
    let (code, message) = with("(table 1 funcref) (elem (i32.const 1) $f)");
    assert_eq!(code, Refusal::InvalidModule);
    assert!(message.contains("a segment lies out of bounds of its memory or table (byte "), "{message}");
    // Elements that are kept count against what an application may hold.
    let kept = "$f ".repeat(16_000);
    let module = wasm(&format!(r#"(module (elem func {kept}) (func $f (export "_start")))"#));
    let mut runtime: Runtime<Interpreter> =
        Runtime::new(RuntimeConfig { heap_bytes_max: 40_000, ..config() });
    let error = runtime.load(id(1), &program(&module)).unwrap_err();
    assert_eq!(error.to_string(), "loaded module needs more than the 40000 bytes one application may take");
}

#[test]
fn grows_a_table_without_end() {
    let event = ending(
        r#"(module (table $a 1 funcref) (table $b 1 3 externref) (func (export "_start")
        (if (i32.ne (table.grow $b (ref.null extern) (i32.const 3)) (i32.const -1)) (then unreachable))
        (if (i32.ne (table.grow $b (ref.null extern) (i32.const 2)) (i32.const 1)) (then unreachable))
        (if (i32.ne (table.grow $a (ref.null func) (i32.const -1)) (i32.const -1)) (then unreachable))
        (if (i32.ne (table.grow $a (ref.null func) (i32.const 65)) (i32.const -1)) (then unreachable))
        (if (i32.ne (table.grow $a (ref.null func) (i32.const 64)) (i32.const 1)) (then unreachable))
        (if (i32.ne (table.size $a) (i32.const 65)) (then unreachable))
        (loop (br_if 0 (i32.ne (table.grow $a (ref.null func) (i32.const 1)) (i32.const -1))))
        (loop (drop (table.grow $b (ref.null extern) (i32.const 1))) (br 0))))"#,
    );
    assert_eq!(event.unwrap().ending, Ending::Exceeded(Exceeded::Cpu { limit_ms: 100 }));
}

/// What is set aside for tables is in the estimate that the fit check goes by, and only where a table can grow.
#[test]
fn room_for_tables_is_in_the_estimate() {
    let loaded = |growing: &str| {
        let text = format!(
            r#"(module {} (elem func {}) (func $f (export "_start") {growing} (loop (br 0))))"#,
            "(table 100 externref)".repeat(32),
            "$f ".repeat(8_000)
        );
        let module = wasm(&text);
        let mut runtime = runtime();
        runtime.load(id(1), &program(&module)).unwrap();
        let estimate = scan(&module, &ScanLimits::default()).unwrap().load_bytes_estimate;
        (runtime.usage(id(1)).unwrap().memory_bytes, estimate)
    };
    let (fixed, growing) = (loaded(""), loaded("(drop (table.grow 7 (ref.null extern) (i32.const 1)))"));
    assert!(growing.0 >= fixed.0 + 32 * 64 * 4, "{fixed:?} {growing:?}");
    assert!(fixed.0 <= fixed.1 && growing.0 <= growing.1, "{fixed:?} {growing:?}");
}

#[test]
fn does_damage_with_tables() {
    let cases = [
        ("(drop (table.get $t (i32.const 4)))", Trap::Program(ProgramTrap::TableOutOfBounds)),
        ("(table.set $t (i32.const -1) (ref.null func))", Trap::Program(ProgramTrap::TableOutOfBounds)),
        (
            "(table.fill $t (i32.const 1) (ref.null func) (i32.const 4))",
            Trap::Program(ProgramTrap::TableOutOfBounds),
        ),
        (
            "(table.fill $t (i32.const -1) (ref.null func) (i32.const 2))",
            Trap::Program(ProgramTrap::TableOutOfBounds),
        ),
        (
            "(table.copy (i32.const 0) (i32.const 1) (i32.const -1))",
            Trap::Program(ProgramTrap::TableOutOfBounds),
        ),
        (
            "(table.init $t $e (i32.const 0) (i32.const 0) (i32.const 3))",
            Trap::Program(ProgramTrap::TableOutOfBounds),
        ),
        (
            "(elem.drop $e) (table.init $t $e (i32.const 0) (i32.const 0) (i32.const 1))",
            Trap::Program(ProgramTrap::TableOutOfBounds),
        ),
        (
            "(memory.init $d (i32.const 0) (i32.const 2) (i32.const 2))",
            Trap::Program(ProgramTrap::MemoryOutOfBounds),
        ),
        (
            "(data.drop $d) (memory.init $d (i32.const 0) (i32.const 0) (i32.const 1))",
            Trap::Program(ProgramTrap::MemoryOutOfBounds),
        ),
        (
            "(memory.fill (i32.const 65535) (i32.const 1) (i32.const 2))",
            Trap::Program(ProgramTrap::MemoryOutOfBounds),
        ),
        (
            "(memory.copy (i32.const 1) (i32.const 0) (i32.const -1))",
            Trap::Program(ProgramTrap::MemoryOutOfBounds),
        ),
        ("(call_indirect $t (type 0) (i32.const 3))", Trap::Program(ProgramTrap::UninitializedElement)),
        ("(call_indirect $t (type 0) (i32.const 4))", Trap::Program(ProgramTrap::UndefinedElement)),
        (
            "(return_call_indirect $t (type 0) (i32.const 3))",
            Trap::Program(ProgramTrap::UninitializedElement),
        ),
        (
            "(return_call_indirect $t (type 1) (i32.const 0) (i32.const 0))",
            Trap::Program(ProgramTrap::IndirectCallType),
        ),
    ];
    for (body, trap) in cases {
        let text = format!(
            r#"(module (type (func)) (type (func (param i32))) (memory 1) (table 1 externref)
            (table $t 4 funcref) (elem (table $t) (i32.const 0) func $f) (elem $e func $f $f) (data $d "abc")
            (func $f (export "_start") (type 0) {body}))"#
        );
        assert_eq!(ending(&text).unwrap().ending, Ending::Trapped(trap), "{body}");
    }
}

/// Operators of two bytes that each carry as much as others do in a hundred.
#[test]
fn carries_many_values_with_few_bytes() {
    let values = "i64 ".repeat(64);
    let zeros = "(i64.const 0) ".repeat(64);
    let with = |body: &str| {
        format!(
            r#"(module (type $t (func (param {values}) (result {values})))
            (func $f (type $t) {zeros}) (func (export "_start") {zeros} {body} {}))"#,
            "drop ".repeat(64)
        )
    };
    let attacks = [
        with(&"call $f ".repeat(100_000)),
        with(&"block (type $t) end ".repeat(100_000)),
        with(&format!("(block (type $t) (br_table {} 0 (i32.const 0)))", "0 ".repeat(60_000))),
        with(&format!("(block (type $t) {})", "i32.const 0 br_if 0 ".repeat(50_000))),
        with(&format!("unreachable {}", "call $f ".repeat(100_000))),
    ];
    let returns = format!(
        "(module (func (export \"_start\")) (func (result {values}) {zeros} {}))",
        "return ".repeat(200_000)
    );
    let attacks = [&attacks[..], &[returns]].concat();
    for attack in &attacks {
        let module = wasm(attack);
        let (code, message) = refused(&module);
        let limit = module.len() * 4 + 4_096;
        assert_eq!(code, Refusal::TooComplex, "{message}");
        assert_eq!(
            message,
            format!("calls, blocks and branches carry more than {limit} values, up to function 1")
        );
    }
    // What a program does with so many values runs.
    assert_eq!(ending(&with("call $f block (type $t) end")).unwrap().ending, Ending::Exited { code: 0 });
}

/// As much as the scan lets pass: loading it is not much more work, for each byte, than loading what a program consists of.
#[test]
fn the_most_that_may_be_carried_is_little_work() {
    let values = "i64 ".repeat(64);
    let zeros = "(i64.const 0) ".repeat(64);
    let with = |calls: usize, additions: usize| {
        wasm(&format!(
            r#"(module (type $t (func (param {values}) (result {values}))) (memory 1)
            (func $f (type $t) {zeros}) (func (export "_start") {zeros} {} {}) (data (i32.const 0) "{}")
            (func (param i32) (result i32) (local.get 0) {}))"#,
            "call $f ".repeat(calls),
            "drop ".repeat(64),
            "x".repeat(30_000),
            "(i32.add (i32.const 1)) ".repeat(additions),
        ))
    };
    // Work of loading, in operators or so, for each 1,000 bytes.
    let work = |module: &[u8]| {
        const WORK: u32 = 50;
        let info = scan(module, &ScanLimits::default()).unwrap();
        let quota = Quota { heap_bytes: 1 << 20, linear_bytes: 65_536, stack_words: 2_048 };
        let arena = Interpreter::arena(4 << 20);
        let mut loader = Interpreter::begin(&arena, module, &info, quota).unwrap();
        for steps in 1_u64.. {
            if Interpreter::load_on(&mut loader, module, &info, WORK).unwrap().is_some() {
                return steps * u64::from(WORK) * 1_000 / module.len() as u64;
            }
        }
        unreachable!("it ends")
    };
    let fits = |calls: &usize| scan(&with(*calls, 0), &ScanLimits::default()).is_ok();
    let most = (0..2_000).step_by(16).take_while(fits).last().unwrap();
    assert!(most > 900, "{most} calls");
    let (worst, usual) = (work(&with(most, 0)), work(&with(0, 10_000)));
    println!("{worst} with {most} calls that carry the most, {usual} with additions");
    assert!(worst < usual * 4, "{worst} with {most} calls, {usual} with additions");
}

#[test]
fn has_a_br_table_with_too_many_targets() {
    let with = |count: usize| {
        format!(
            r#"(module (func (export "_start") (block (br_table {} 0 (i32.const 0)))))"#,
            "0 ".repeat(count)
        )
    };
    let (code, message) = refused_text(&with(65_536));
    assert_eq!(code, Refusal::TooComplex);
    assert_eq!(message, "function 0 has a br_table with 65536 targets, at most 65535");
    assert_eq!(ending(&with(1_000)).unwrap().ending, Ending::Exited { code: 0 });
}

/// Each block hands all its parameters on to the next one within it.
#[test]
fn nests_blocks_with_many_parameters() {
    let values = "i32 ".repeat(64);
    let with = |depth: usize| {
        format!(
            r#"(module (type $t (func (param {values}) (result {values}))) (func (export "_start") {} {} {} {}))"#,
            "i32.const 1 ".repeat(64),
            "block (type $t) ".repeat(depth),
            "end ".repeat(depth),
            "drop ".repeat(64)
        )
    };
    assert_eq!(ending(&with(40)).unwrap().ending, Ending::Exited { code: 0 });
    let (code, message) = refused_text(&with(127));
    assert_eq!(code, Refusal::TooComplex);
    assert!(message.starts_with("calls, blocks and branches carry more than "), "{message}");
    // Unreachable code keeps what a branch would carry.
    let dead = format!(
        r#"(module (type $t (func (param {values}) (result {values}))) (func (export "_start")
            (block (type $t) unreachable {} br_if 0 {} unreachable) unreachable))"#,
        "i32.const 0 ".repeat(70),
        "i32.const 0 ".repeat(70),
    );
    let (code, message) = refused_text(
        &dead.replace("(block (type $t)", &format!("{} (block (type $t)", "i32.const 0 ".repeat(64))),
    );
    assert_eq!(code, Refusal::TooComplex);
    assert_eq!(message, "function 0 keeps more than 128 values on its operand stack");
}

#[test]
fn has_endless_constants() {
    let long = format!("i32.const 1 {}", "i32.const 1 i32.add ".repeat(40));
    let (code, message) = refused_text(&format!(r#"(module (global i32 {long}) (func (export "_start")))"#));
    assert_eq!(code, Refusal::TooComplex);
    assert_eq!(message, "64 operators in a constant expression, at most 63");
    let deep = format!("{} {}", "i32.const 1 ".repeat(17), "i32.add ".repeat(16));
    let (code, message) = refused_text(&format!(r#"(module (global i32 {deep}) (func (export "_start")))"#));
    assert_eq!(code, Refusal::TooComplex);
    assert_eq!(message, "17 values on the stack of a constant expression, at most 16");
    let most = format!("{} {}", "i32.const 1 ".repeat(16), "i32.add ".repeat(15));
    let text = format!(r#"(module (global i32 {most}) (func (export "_start")))"#);
    assert_eq!(ending(&text).unwrap().ending, Ending::Exited { code: 0 });
}

/// A tail call gives the caller's frame back: as many as there is time for, on a stack that a call of itself exhausts.
#[test]
fn calls_itself_without_a_stack() {
    let event = ending(r#"(module (func $f (export "_start") (return_call $f)))"#).unwrap();
    assert_eq!(event.ending, Ending::Exceeded(Exceeded::Cpu { limit_ms: 100 }));
    let counted = ending(
        r#"(module (type $t (func (param i32))) (table 1 funcref) (elem (i32.const 0) $f)
        (func $f (type $t) (if (local.get 0) (then
            (return_call_indirect (type $t) (i32.sub (local.get 0) (i32.const 1)) (i32.const 0)))))
        (func (export "_start") (call $f (i32.const 10000))))"#,
    );
    assert_eq!(counted.unwrap().ending, Ending::Exited { code: 0 });
}
