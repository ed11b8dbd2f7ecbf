//! Modules for the tests, built in memory: well-behaved ones with a text of their own, and everything that an application
//! must not get away with.
//!
//! All of them are valid WebAssembly unless their name says otherwise; what a device thinks of them is for the tests.

use wasm_encoder::{
    CodeSection, ConstExpr, CustomSection, DataSection, EntityType, ExportKind, ExportSection, Function,
    FunctionSection, ImportSection, MemorySection, MemoryType, Module, Section, TypeSection, ValType,
};

/// The sample that says hello and stays.
pub fn hello() -> Vec<u8> {
    include_bytes!("../../guests/prebuilt/hello.wasm").to_vec()
}

/// The sample that counts in key-value storage; needs the capability `key-value`.
pub fn counter() -> Vec<u8> {
    include_bytes!("../../guests/prebuilt/counter.wasm").to_vec()
}

/// Logs `text`, waits `pause_ms`, and so on for ever. Two texts give two modules with different digests.
pub fn ticker(text: &str, pause_ms: u32) -> Vec<u8> {
    run_module(
        text.as_bytes(),
        &[("log", &[ValType::I32, ValType::I32]), ("wait", &[ValType::I32])],
        |code| {
            code.instructions()
                .loop_(wasm_encoder::BlockType::Empty)
                .i32_const(0)
                .i32_const(text.len() as i32)
                .call(0)
                .i32_const(pause_ms as i32)
                .call(1)
                .br(0)
                .end()
                .end();
        },
    )
}

/// Logs as many `x` as its environment has bytes, names and values each with a byte after them, waits `pause_ms`, and so on for
/// ever: that it has a value is seen, and the value is not.
pub fn environment_ticker(pause_ms: u32) -> Vec<u8> {
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
            (import "wasmbed" "log" (func $log (param i32 i32)))
            (import "wasmbed" "wait" (func $wait (param i32)))
            (memory (export "memory") 1)
            (data (i32.const 16) "{}")
            (func (export "run")
                (drop (call $sizes (i32.const 0) (i32.const 4)))
                (loop
                    (call $log (i32.const 16) (i32.load (i32.const 4)))
                    (call $wait (i32.const {pause_ms}))
                    (br 0))))"#,
        "x".repeat(256)
    );
    wat::parse_str(text).unwrap_or_default()
}

/// A [`ticker`] that is written in the whole language: it says its text only if everything else did what it should.
///
/// The text is a passive segment; a start function copies it, and half of the way to the loop leads through two tables, several
/// results and tail calls.
pub fn fluent_ticker(said: &str, pause_ms: u32) -> Vec<u8> {
    let length = said.len();
    text(&format!(
        r#"(module
            (import "wasmbed" "log" (func $log (param i32 i32)))
            (import "wasmbed" "wait" (func $wait (param i32)))
            (type $pair (func (param i32 i32) (result i32 i32)))
            (type $step (func (param i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data $said "{said}")
            (table $steps 1 funcref)
            (table $things 2 externref)
            (elem $late func $sum)
            (elem declare func $count)
            (global $place (mut i32) (i32.add (i32.const 60) (i32.const 4)))
            (func $prepare
                (memory.init $said (global.get $place) (i32.const 0) (i32.const {length}))
                (data.drop $said)
                (table.init $steps $late (i32.const 0) (i32.const 0) (i32.const 1))
                (elem.drop $late))
            (start $prepare)
            (func $sum (type $step) (i32.add (local.get 0) (local.get 1)))
            (func $swap (type $pair) (local.get 1) (local.get 0))
            ;; Adds 1 to the second as often as the first says, on one frame.
            (func $count (type $step)
                (if (i32.eqz (local.get 0)) (then (return (local.get 1))))
                (return_call $count
                    (i32.sub (local.get 0) (i32.const 1)) (i32.add (local.get 1) (i32.const 1))))
            (func $through (type $step)
                (return_call_indirect $steps (type $step) (local.get 0) (local.get 1) (i32.const 0)))
            (func $check (param $right i32) (if (i32.eqz (local.get $right)) (then unreachable)))
            (func (export "run")
                (call $check (ref.is_null (table.get $things (i32.const 1))))
                (call $check (i32.eq (table.grow $things (ref.null extern) (i32.const 3)) (i32.const 2)))
                (call $check (i32.eq (table.size $things) (i32.const 5)))
                (call $check (i32.eq (table.grow $steps (ref.func $count) (i32.const 1)) (i32.const 1)))
                (call $check (i32.eq (i32.const 3)
                    (i32.sub (call $swap (i32.const 4) (i32.const 7)))))
                (call $check (i32.eq (call $through (i32.const 20) (i32.const 22)) (i32.const 42)))
                (call $check (i32.eq (i32.const 20000)
                    (call_indirect $steps (type $step) (i32.const 19999) (i32.const 1) (i32.const 1))))
                (call $check (i32.eq (i32.extend8_s (i32.const 255)) (i32.const -1)))
                (call $check (i32.eq (i32.trunc_sat_f32_s (f32.const nan)) (i32.const 0)))
                (memory.copy (i32.const 0) (global.get $place) (i32.const {length}))
                (memory.fill (global.get $place) (i32.const 0) (i32.const {length}))
                (loop $again
                    (block (result i32 i32) (i32.const 0) (i32.const {length}))
                    (call $log)
                    (call $wait (i32.const {pause_ms}))
                    (br $again))))"#
    ))
}

/// Logs the numbers from 100 to 399, a line each with a pause of 10 ms, and stays: less than a gateway takes.
pub fn numbers() -> Vec<u8> {
    text(
        r#"(module
            (import "wasmbed" "log" (func $log (param i32 i32)))
            (import "wasmbed" "wait" (func $wait (param i32)))
            (memory (export "memory") 1)
            (func $digit (param $at i32) (param $value i32)
                (i32.store8 (local.get $at)
                    (i32.add (i32.const 48) (i32.rem_u (local.get $value) (i32.const 10)))))
            (func (export "run") (local $number i32)
                (local.set $number (i32.const 100))
                (loop $next
                    (call $digit (i32.const 2) (local.get $number))
                    (call $digit (i32.const 1) (i32.div_u (local.get $number) (i32.const 10)))
                    (call $digit (i32.const 0) (i32.div_u (local.get $number) (i32.const 100)))
                    (call $log (i32.const 0) (i32.const 3))
                    (call $wait (i32.const 10))
                    (local.set $number (i32.add (local.get $number) (i32.const 1)))
                    (br_if $next (i32.lt_u (local.get $number) (i32.const 400))))
                (loop $stay (call $wait (i32.const 60000)) (br $stay))))"#,
    )
}

/// Publishes the numbers from 10000 on to the topic `t`, one every `pause_ms`, and each until it is taken; needs the capability
/// `messages`.
pub fn publisher(pause_ms: u32) -> Vec<u8> {
    text(&format!(
        r#"(module
            (import "wasmbed" "publish" (func $publish (param i32 i32 i32 i32 i32) (result i32)))
            (import "wasmbed" "wait" (func $wait (param i32)))
            (memory (export "memory") 1)
            (data (i32.const 16) "t")
            (func (export "run") (local $number i32) (local $rest i32) (local $at i32)
                (local.set $number (i32.const 10000))
                (loop $next
                    (local.set $rest (local.get $number))
                    (local.set $at (i32.const 4))
                    (loop $digit
                        (i32.store8 (local.get $at)
                            (i32.add (i32.const 48) (i32.rem_u (local.get $rest) (i32.const 10))))
                        (local.set $rest (i32.div_u (local.get $rest) (i32.const 10)))
                        (local.set $at (i32.sub (local.get $at) (i32.const 1)))
                        (br_if $digit (i32.ge_s (local.get $at) (i32.const 0))))
                    (loop $again
                        (if (call $publish (i32.const 16) (i32.const 1) (i32.const 0) (i32.const 5) (i32.const 0))
                            (then (call $wait (i32.const 50)) (br $again))))
                    (call $wait (i32.const {pause_ms}))
                    (local.set $number (i32.add (local.get $number) (i32.const 1)))
                    (br $next))))"#
    ))
}

/// Logs `text` once and ends.
pub fn once(text: &str) -> Vec<u8> {
    run_module(text.as_bytes(), &[("log", &[ValType::I32, ValType::I32])], |code| {
        code.instructions().i32_const(0).i32_const(text.len() as i32).call(0).end();
    })
}

/// A [`ticker`] that is at least `bytes` long, for downloads that take a while. What makes it long is a custom section, which
/// devices fetch and engines never see; packing would drop it.
pub fn large_ticker(text: &str, pause_ms: u32, bytes: usize) -> Vec<u8> {
    let mut module = ticker(text, pause_ms);
    let data = noise(bytes.saturating_sub(module.len()));
    CustomSection { name: "filler".into(), data: data.into() }.append_to(&mut module);
    module
}

/// A program of at least so many bytes, all but a few of them code that runs: it says its text, and waits, only if that computed
/// what it should.
#[must_use]
pub fn large_program(said: &str, bytes: usize) -> Vec<u8> {
    const ROUNDS: u32 = 20;
    let (mut functions, mut calls) = (String::new(), String::new());
    let mut number = 1_u32;
    // Each round is some 16 bytes of code.
    for function in 0..bytes.div_ceil(16 * ROUNDS as usize) {
        functions.push_str(&format!("(func $f{function} (param i32) (result i32)"));
        for round in 0..ROUNDS {
            let (factor, shift) = (function as u32 * 8 + 100_003, round % 31 + 1);
            number = number.wrapping_mul(factor) ^ number >> shift;
            functions.push_str(&format!(
                "(local.set 0 (i32.xor (i32.mul (local.get 0) (i32.const {factor}))
                    (i32.shr_u (local.get 0) (i32.const {shift}))))"
            ));
        }
        functions.push_str("(local.get 0))");
        calls.push_str(&format!("(local.set 0 (call $f{function} (local.get 0)))"));
    }
    let length = said.len();
    text(&format!(
        r#"(module
            (import "wasmbed" "log" (func $log (param i32 i32)))
            (import "wasmbed" "wait" (func $wait (param i32)))
            (memory (export "memory") 256 256 (pagesize 1))
            (data (i32.const 0) "{said}")
            {functions}
            (func (export "run") (local i32)
                (local.set 0 (i32.const 1)) {calls}
                (if (i32.ne (local.get 0) (i32.const {})) (then (unreachable)))
                (call $log (i32.const 0) (i32.const {length}))
                (loop (call $wait (i32.const 1000)) (br 0))))"#,
        number as i32
    ))
}

/// Loops for ever without a wait.
pub fn endless_loop() -> Vec<u8> {
    text(r#"(module (func (export "run") (loop (br 0))))"#)
}

/// Asks for another page of memory for ever, and traps once it gets none.
pub fn endless_growth() -> Vec<u8> {
    text(
        r#"(module (memory (export "memory") 1)
            (func (export "run")
                (loop (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable)) (br 0))))"#,
    )
}

/// Calls itself for ever.
pub fn endless_recursion() -> Vec<u8> {
    text(r#"(module (func $again (export "run") (call $again)))"#)
}

/// Traps at once, in a function that another calls.
pub fn trap_at_once() -> Vec<u8> {
    text(
        r#"(module (func $inner unreachable) (func $outer (call $inner))
            (func (export "run") (call $outer)))"#,
    )
}

/// Has a start function that loops for ever.
pub fn endless_start() -> Vec<u8> {
    text(r#"(module (func $start (loop (br 0))) (start $start) (func (export "run")))"#)
}

/// Calls what a table doesn't have, in the place of its own frame.
pub fn call_of_nothing() -> Vec<u8> {
    text(
        r#"(module (type $t (func)) (table 1 externref) (table $t 4 funcref)
            (func (export "run") (return_call_indirect $t (type $t) (i32.const 3))))"#,
    )
}

/// 20,000 elements that a device would keep for as long as it runs.
pub fn many_elements() -> Vec<u8> {
    text(&format!(r#"(module (elem func {}) (func (export "run")))"#, "0 ".repeat(20_000)))
}

/// Waits, and traps.
pub fn trap_after(pause_ms: u32) -> Vec<u8> {
    text(&format!(
        r#"(module (import "wasmbed" "wait" (func $wait (param i32)))
            (func (export "run") (call $wait (i32.const {pause_ms})) unreachable))"#
    ))
}

/// Logs as fast as it can, with a wait of a millisecond now and then so that its CPU limit doesn't end it.
pub fn log_flood() -> Vec<u8> {
    text(
        r#"(module
            (import "wasmbed" "log" (func $log (param i32 i32)))
            (import "wasmbed" "wait" (func $wait (param i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "flood flood flood flood flood flood flood flood flood flood flood")
            (func (export "run") (local $left i32)
                (loop
                    (local.set $left (i32.const 100))
                    (loop
                        (call $log (i32.const 0) (i32.const 65))
                        (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
                    (call $wait (i32.const 1))
                    (br 0))))"#,
    )
}

/// Imports a function that no device has.
pub fn unknown_import() -> Vec<u8> {
    text(
        r#"(module (import "wasmbed" "self_destruct" (func $go (param i32)))
            (func (export "run") (call $go (i32.const 3))))"#,
    )
}

/// Imports `wasmbed.log` with one parameter instead of two.
pub fn wrong_signature() -> Vec<u8> {
    text(
        r#"(module (import "wasmbed" "log" (func $log (param i32)))
            (func (export "run") (call $log (i32.const 0))))"#,
    )
}

/// Has neither `_start` nor `run`.
pub fn no_entry() -> Vec<u8> {
    text(r#"(module (func (export "start_here_please")))"#)
}

/// Uses `key_value_put`, for a device where that capability isn't granted.
pub fn needs_key_value() -> Vec<u8> {
    text(
        r#"(module
            (import "wasmbed" "key_value_put" (func $put (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1) (data (i32.const 0) "key")
            (func (export "run") (drop (call $put (i32.const 0) (i32.const 3) (i32.const 0) (i32.const 3)))))"#,
    )
}

/// Starts with 64 MiB of memory.
pub fn huge_memory() -> Vec<u8> {
    text(r#"(module (memory (export "memory") 1024) (func (export "run")))"#)
}

/// 35 bytes or so that ask an engine for 20,000 locals.
pub fn many_locals() -> Vec<u8> {
    functions_module(|code| {
        let mut function = Function::new([(20_000, ValType::I64)]);
        function.instructions().end();
        code.function(&function);
        1
    })
}

/// 7,500 exports: quadratic work for a loader that looks for doubles.
pub fn many_exports() -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut exports = ExportSection::new();
    exports.export("run", ExportKind::Func, 0);
    for number in 1..7_500 {
        exports.export(&format!("e{number}"), ExportKind::Func, 0);
    }
    let mut code = CodeSection::new();
    code.function(&empty_function());
    finish(&[&types, &functions, &exports, &code])
}

/// 70,000 functions: more than fit 16 bits.
pub fn many_functions() -> Vec<u8> {
    functions_module(|code| {
        for _ in 0..70_000 {
            code.function(&empty_function());
        }
        70_000
    })
}

/// Text, not WebAssembly.
pub fn not_webassembly() -> Vec<u8> {
    b"#!/bin/sh\necho this is not the module you are looking for\n".to_vec()
}

/// Begins like a module and goes on at random.
pub fn damaged() -> Vec<u8> {
    let mut bytes = hello();
    for (position, byte) in bytes.iter_mut().enumerate().skip(8) {
        *byte = (position as u8).wrapping_mul(31).wrapping_add(7);
    }
    bytes
}

/// A valid module of a little more than 1 MiB, also after packing.
pub fn too_large() -> Vec<u8> {
    run_module(&noise((1 << 20) + 1), &[], |code| {
        code.instructions().end();
    })
}

/// Every module that must not run for long, with its name: for tests that go through all of them.
pub fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("endless-loop", endless_loop()),
        ("endless-growth", endless_growth()),
        ("endless-recursion", endless_recursion()),
        ("trap-at-once", trap_at_once()),
        ("endless-start", endless_start()),
        ("call-of-nothing", call_of_nothing()),
        ("many-elements", many_elements()),
        ("log-flood", log_flood()),
        ("unknown-import", unknown_import()),
        ("wrong-signature", wrong_signature()),
        ("no-entry", no_entry()),
        ("needs-key-value", needs_key_value()),
        ("huge-memory", huge_memory()),
        ("many-locals", many_locals()),
        ("many-exports", many_exports()),
        ("many-functions", many_functions()),
        ("not-webassembly", not_webassembly()),
        ("damaged", damaged()),
        ("too-large", too_large()),
    ]
}

fn text(source: &str) -> Vec<u8> {
    match wat::parse_str(source) {
        Ok(bytes) => bytes,
        Err(error) => unreachable!("the fixtures' sources are constants: {error}"),
    }
}

fn empty_function() -> Function {
    let mut function = Function::new([]);
    function.instructions().end();
    function
}

/// A module of functions without parameters, the first of them exported as `run`; `bodies` answers how many it wrote.
fn functions_module(bodies: impl FnOnce(&mut CodeSection) -> u32) -> Vec<u8> {
    let mut code = CodeSection::new();
    let count = bodies(&mut code);
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    for _ in 0..count {
        functions.function(0);
    }
    let mut exports = ExportSection::new();
    exports.export("run", ExportKind::Func, 0);
    finish(&[&types, &functions, &exports, &code])
}

/// A module with imports from `wasmbed` that return nothing, `data` at address 0 of a memory that just holds it, and the
/// entry `run`.
fn run_module(data: &[u8], imports: &[(&str, &[ValType])], body: impl FnOnce(&mut Function)) -> Vec<u8> {
    let mut types = TypeSection::new();
    let mut import_section = ImportSection::new();
    for (position, (name, params)) in imports.iter().enumerate() {
        types.ty().function(params.iter().copied(), []);
        import_section.import("wasmbed", name, EntityType::Function(position as u32));
    }
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    functions.function(imports.len() as u32);
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: data.len() as u64,
        maximum: Some(data.len() as u64),
        memory64: false,
        shared: false,
        page_size_log2: Some(0),
    });
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0).export("run", ExportKind::Func, imports.len() as u32);
    let mut function = Function::new([]);
    body(&mut function);
    let mut code = CodeSection::new();
    code.function(&function);
    let mut segments = DataSection::new();
    segments.active(0, &ConstExpr::i32_const(0), data.iter().copied());
    finish(&[&types, &import_section, &functions, &memories, &exports, &code, &segments])
}

/// Bytes that neither compress nor repeat: they could hide a chunk that came twice. The same every time.
fn noise(length: usize) -> Vec<u8> {
    let mut state: u32 = 0x9e37_79b9;
    let mut bytes = Vec::new();
    bytes.resize_with(length, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    bytes
}

fn finish(sections: &[&dyn Section]) -> Vec<u8> {
    let mut bytes = Module::HEADER.to_vec();
    for section in sections {
        section.append_to(&mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use wasmparser::{Validator, WasmFeatures};

    use super::*;

    fn is_valid(bytes: &[u8]) -> bool {
        let features = WasmFeatures::WASM2
            .difference(WasmFeatures::SIMD)
            .union(WasmFeatures::CUSTOM_PAGE_SIZES)
            .union(WasmFeatures::EXTENDED_CONST)
            .union(WasmFeatures::TAIL_CALL);
        Validator::new_with_features(features).validate_all(bytes).is_ok()
    }

    #[test]
    fn only_what_says_so_is_invalid() {
        let good = [
            hello(),
            counter(),
            ticker("a", 1),
            fluent_ticker("a", 1),
            once("a"),
            large_ticker("a", 1, 70_000),
        ];
        assert!(good.iter().all(|bytes| is_valid(bytes)));
        let broken: BTreeSet<_> =
            hostile().into_iter().filter(|(_, bytes)| !is_valid(bytes)).map(|(name, _)| name).collect();
        assert_eq!(broken, BTreeSet::from(["damaged", "not-webassembly"]));
    }

    #[test]
    fn sizes_are_what_their_names_say() {
        assert!(many_locals().len() < 64, "{}", many_locals().len());
        assert!(too_large().len() > 1 << 20);
        assert!(large_ticker("a", 1, 300_000).len() >= 300_000);
        assert_ne!(ticker("a", 1), ticker("b", 1));
    }
}
