//! Programs that mean harm, or are merely wrong: each ends with a reason that a person understands, and no neighbour
//! notices.

#![cfg(test)]

mod support;

use support::*;
use wasmbed_runtime::engine::Trap;
use wasmbed_runtime::{
    Capabilities, Ending, Exceeded, Interpreter, LoadError, Refusal, Runtime, RuntimeConfig, ScanLimits, scan,
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
        ("unreachable", Trap::Unreachable, "trapped: unreachable executed (a panic or an abort)"),
        (
            "(drop (i32.div_s (i32.const 1) (i32.const 0)))",
            Trap::DivisionByZero,
            "trapped: integer division by zero",
        ),
        (
            "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))",
            Trap::IntegerOverflow,
            "trapped: integer overflow",
        ),
        (
            "(drop (i32.trunc_f32_s (f32.const nan)))",
            Trap::ConversionToInteger,
            "trapped: conversion of a float that fits no integer",
        ),
        (
            "(drop (i32.load (i32.const 65533)))",
            Trap::MemoryOutOfBounds,
            "trapped: memory access out of bounds",
        ),
        (
            "(call_indirect (type 0) (i32.const 9))",
            Trap::TableOutOfBounds,
            "trapped: indirect call out of the table's bounds",
        ),
        (
            "(call_indirect (type 0) (i32.const 1))",
            Trap::UninitializedElement,
            "trapped: indirect call of an empty table element",
        ),
        (
            "(call_indirect (type 1) (i32.const 0) (i32.const 0))",
            Trap::IndirectCallType,
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

#[test]
fn has_a_start_section() {
    let (code, message) = refused_text(r#"(module (func $f) (start $f) (func (export "_start")))"#);
    assert_eq!(code, Refusal::InvalidEntry);
    assert_eq!(message, "module has a start section; export '_start' or 'run' instead");
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
            Ok(()) => outcomes[0] += 1,
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
        let error = scan(&module, &ScanLimits::default()).unwrap_err();
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
        &ScanLimits::default(),
    );
    assert_eq!(multi.unwrap_err().to_string(), "module uses multi-value, which this engine does not run");
}
