//! Where a program trapped: the operator of the module, of the function that trapped and of those that called it.

#![cfg(test)]

#[path = "compare/dense.rs"]
#[allow(dead_code)]
mod dense;
mod support;

use std::fmt::Write;

use arbitrary::Unstructured;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use support::Every;
use wasmbed_engine::{FRAMES_MAX, Instance, Loader, Progress, Source, Step, Trace, Trap, Value};
use wasmparser::{Operator, Parser, Payload};

/// Runs an export until it traps or calls the host; the trace, located in the module.
fn run(module: &[u8], arguments: &[Value], checked: bool, fuel: u32) -> (Step, Trace) {
    let mut memory = vec![0; 100_000];
    let mut instance = support::load(&mut memory, module, 1_000).unwrap().unwrap();
    instance.set_checked(checked);
    instance.call("run", arguments).unwrap();
    stopped(module, instance, fuel)
}

fn stopped(module: &[u8], mut instance: Instance<'_>, fuel: u32) -> (Step, Trace) {
    let step = loop {
        match instance.step(fuel).0 {
            Step::OutOfFuel => {}
            step => break step,
        }
    };
    let mut trace = instance.trace();
    locate(module, &mut trace);
    (step, trace)
}

fn locate(module: &[u8], trace: &mut Trace) {
    let mut block = vec![0; 60_000];
    let mut source = module;
    let mut loader = Loader::locate(&mut block, &source, *trace).unwrap();
    while loader.step(&mut source, &Every, 7).unwrap() == Progress::More {}
    *trace = loader.into_trace().unwrap();
}

/// Byte offsets of the operators of each function that are wanted, in their order.
fn offsets(module: &[u8], wanted: impl Fn(&Operator<'_>) -> bool) -> Vec<Vec<u32>> {
    let mut functions = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::CodeSectionEntry(body) = payload.unwrap() {
            let operators = body.get_operators_reader().unwrap().into_iter_with_offsets();
            let operators = operators.map(Result::unwrap).filter(|(operator, _)| wanted(operator));
            functions.push(operators.map(|(_, offset)| u32::try_from(offset).unwrap()).collect());
        }
    }
    functions
}

fn may_trap(operator: &Operator<'_>) -> bool {
    let name = format!("{operator:?}");
    let name = name.split([' ', '{']).next().unwrap_or_default();
    matches!(
        operator,
        Operator::Unreachable
            | Operator::Call { .. }
            | Operator::CallIndirect { .. }
            | Operator::ReturnCall { .. }
            | Operator::ReturnCallIndirect { .. }
            | Operator::MemoryFill { .. }
            | Operator::MemoryCopy { .. }
            | Operator::MemoryInit { .. }
            | Operator::TableGet { .. }
            | Operator::TableSet { .. }
            | Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. }
    ) || ["Load", "Store", "Div", "Rem"].iter().any(|part| name.contains(part)) && !name.starts_with('F')
        || name.contains("Trunc") && !name.contains("Sat")
        || ["F32Load", "F64Load", "F32Store", "F64Store"].contains(&name)
}

/// Each kind of trap, the one operator that may trap in its function: `body`, called by way of two others.
fn kinds() -> Vec<(&'static str, Trap)> {
    use Trap::*;
    vec![
        ("i32.const 1 drop unreachable", Unreachable),
        ("(i32.div_s (local.get 0) (i32.const 0)) drop", DivisionByZero),
        ("(i32.rem_u (local.get 0) (i32.const 0)) drop", DivisionByZero),
        ("(i64.div_u (i64.const 5) (i64.const 0)) drop", DivisionByZero),
        ("(i64.rem_s (i64.const 5) (i64.const 0)) local.set 1", DivisionByZero),
        ("(i32.div_s (i32.const 0x80000000) (i32.const -1)) drop", IntegerOverflow),
        ("(i32.trunc_f32_s (f32.const 1e20)) drop", IntegerOverflow),
        ("(i64.trunc_f64_u (f64.const nan)) drop", ConversionToInteger),
        ("(i32.load (i32.const -1)) drop", MemoryOutOfBounds),
        ("(i32.load8_u offset=3 (i32.add (local.get 0) (i32.const 0x7fffffff))) local.set 0", MemoryOutOfBounds),
        // A load that takes in the shift and the sum before it, stored into a local whose value is still needed.
        (
            "local.get 0 (i32.load (i32.add (local.get 0) (i32.shl (i32.const 7) (local.get 2)))) local.set 0 drop
             local.get 0 (i32.load (i32.add (local.get 0) (i32.shl (local.get 2) (i32.const 24)))) local.set 0 drop",
            MemoryOutOfBounds,
        ),
        ("local.get 1 (i64.load offset=70000 (local.get 0)) local.set 1 local.set 1", MemoryOutOfBounds),
        ("(i64.store (i32.const -1) (local.get 1))", MemoryOutOfBounds),
        ("(i32.store16 offset=0xfffffff0 (local.get 0) (local.get 0))", MemoryOutOfBounds),
        ("(f64.store (i32.const 65535) (f64.const 1))", MemoryOutOfBounds),
        ("(memory.fill (i32.const 1000) (i32.const 1) (i32.const 70000))", MemoryOutOfBounds),
        ("(memory.init $d (i32.const 0) (i32.const 1) (i32.const 7))", MemoryOutOfBounds),
        ("(table.get $t (i32.const 9)) drop", TableOutOfBounds),
        ("(table.fill $t (i32.const 1) (ref.null func) (i32.const 9))", TableOutOfBounds),
        ("(call_indirect $t (i32.const 9))", UndefinedElement),
        ("(call_indirect $t (i32.const 1))", UninitializedElement),
        ("(call_indirect $t (param i64) (i64.const 1) (i32.const 0))", IndirectCallType),
        ("(return_call_indirect $t (i32.const 1))", UninitializedElement),
        ("call $deep", StackOverflow),
        ("(return_call $deep)", StackOverflow),
    ]
}

#[test]
fn each_kind_of_trap_has_its_place_and_its_callers() {
    // Under Miri, each of them takes half a minute.
    for (body, trap) in kinds().into_iter().step_by(if cfg!(miri) { 8 } else { 1 }) {
        let mut deep = String::new();
        for _ in 0..1_200 {
            deep.push_str("i64 ");
        }
        let text = format!(
            r#"(module (import "host" "other" (func $other))
            (memory 1) (table $t 3 funcref) (elem (i32.const 0) $deep) (data $d "abcd")
            (func $deep (local {}) (call $deep))
            (func $inner (param i32 i64 i32) {body})
            (func $middle (param i32) (local i32)
                (local.set 1 (i32.add (local.get 0) (local.get 0)))
                (call $inner (local.get 1) (i64.const 3) (i32.const 40)) (call $other) unreachable)
            (func (export "run") (drop (i32.load (i32.const 16))) (call $middle (i32.const 5)) (call $other)))"#,
            &deep
        );
        let module = wat::parse_str(&text).unwrap();
        let places = offsets(&module, may_trap);
        for (checked, fuel) in [(false, 1_000_000), (true, 1_000_000), (false, 1)] {
            let (step, trace) = run(&module, &[], checked, fuel);
            assert_eq!(step, Step::Trap(trap), "{body}");
            // With the one import: $deep is 1, $inner 2, $middle 3, run 4.
            let frames: Vec<_> =
                trace.frames().iter().map(|frame| (frame.function, frame.offset.unwrap())).collect();
            let callers = [(3, places[2][0]), (4, places[3][1])];
            if trap == Trap::StackOverflow {
                assert_eq!(frames[0], (1, places[0][0]), "{body}");
                if let Some(at) = frames.iter().position(|(function, _)| *function != 1) {
                    // A tail call leaves no caller.
                    let tail = body.contains("return_call");
                    assert!(tail || frames[at] == (2, places[1][0]), "{body} {frames:?}");
                    assert_eq!(frames[at + usize::from(!tail)..], callers, "{body}");
                }
                continue;
            }
            assert_eq!(frames[0], (2, *places[1].last().unwrap()), "{body}");
            assert_eq!(frames[1..], callers, "{body}");
            assert_eq!(trace.left_out(), 0);
        }
    }
}

#[test]
fn a_host_call_has_its_place_also_by_way_of_a_table() {
    let text = r#"(module (import "host" "f" (func $f (param i32) (result i32)))
        (table funcref (elem $f))
        (func $direct (result i32) (i32.add (i32.const 1) (call $f (i32.const 2))))
        (func (export "run") (param i32) (result i32)
            (if (local.get 0) (then (return (call $direct))))
            (call_indirect (param i32) (result i32) (i32.const 4) (i32.const 0))))"#;
    let module = wat::parse_str(text).unwrap();
    let places = offsets(&module, may_trap);
    let frames = |argument| {
        let (step, trace) = run(&module, &[Value::I32(argument)], false, 1_000);
        assert!(matches!(step, Step::HostCall(_)));
        trace.frames().iter().map(|frame| (frame.function, frame.offset.unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(frames(1), [(1, places[0][0]), (2, places[1][0])]);
    assert_eq!(frames(0), [(2, places[1][1])], "the host's function has no place in the module");
}

#[test]
fn the_nine_innermost_of_many_functions_are_told() {
    let text = r#"(module (func $down (export "run") (param i32)
        (if (i32.eqz (local.get 0)) (then unreachable))
        (call $down (i32.sub (local.get 0) (i32.const 1)))))"#;
    let module = wat::parse_str(text).unwrap();
    let places = &offsets(&module, may_trap)[0];
    let (step, trace) = run(&module, &[Value::I32(100)], false, 1_000);
    assert_eq!(step, Step::Trap(Trap::Unreachable));
    let offsets: Vec<_> = trace.frames().iter().map(|frame| frame.offset.unwrap()).collect();
    assert_eq!(offsets[0], places[0]);
    assert!(offsets[1..].iter().all(|offset| *offset == places[1]));
    assert_eq!((offsets.len(), trace.left_out()), (FRAMES_MAX, 92));
}

#[test]
fn what_did_not_trap_has_no_trace() {
    let module = wat::parse_str(r#"(module (func (export "run") (loop (br 0))))"#).unwrap();
    let mut memory = vec![0; 20_000];
    let mut instance = support::load(&mut memory, &module, 1_000).unwrap().unwrap();
    assert!(instance.trace().frames().is_empty());
    instance.call("run", &[]).unwrap();
    assert_eq!(instance.step(100).0, Step::OutOfFuel);
    assert!(instance.trace().frames().is_empty());
}

/// The same functions, each of which says in a global of its own which operator that may trap comes next.
fn instrumented(text: &str) -> String {
    let mut out = String::new();
    let (mut function, mut number) = (usize::MAX, 0);
    for line in text.lines() {
        if line.contains("(func ") {
            function = function.wrapping_add(1);
            number = 0;
        }
        let operator = line.split_whitespace().find(|word| {
            let is = |parts: &[&str]| parts.iter().any(|part| word.contains(part));
            ["unreachable", "call", "return_call", "memory.fill", "memory.copy", "memory.init"].contains(word)
                || word.contains('.') && is(&[".load", ".store", ".div_", ".rem_"])
        });
        if operator.is_some() && function != usize::MAX {
            writeln!(out, "i32.const {number} global.set $at{function}").unwrap();
            number += 1;
        }
        out.push_str(line);
        out.push('\n');
    }
    let mut globals = String::from("(module ");
    for at in 0..=function {
        write!(globals, "(global $at{at} (export \"at{at}\") (mut i32) (i32.const -1)) ").unwrap();
    }
    out.replacen("(module ", &globals, 1)
}

/// Runs an export of both modules; the number of functions in the trace, if they trapped.
fn check(text: &str, export: &str, random: &mut Unstructured<'_>) -> Option<usize> {
    let (module, twin) = (wat::parse_str(text).unwrap(), wat::parse_str(instrumented(text)).unwrap());
    let (mut block, mut twin_block) = (vec![0; 120_000], vec![0; 120_000]);
    let mut instance = support::load(&mut block, &module, 1_000).ok()??;
    let mut twin = support::load(&mut twin_block, &twin, 1_000).ok()??;
    let header = text.lines().find(|line| line.contains(&format!("(export \"{export}\")")))?;
    let parameters = header.split("(param").nth(1)?.split(')').next()?;
    let arguments: Vec<Value> = parameters
        .split_whitespace()
        .map(|name| match name {
            "i32" => Value::I32(random.int_in_range(-3..=70_000).unwrap_or(0)),
            "i64" => Value::I64(random.arbitrary().unwrap_or(0)),
            "f32" => Value::F32(random.arbitrary().unwrap_or(0)),
            _ => Value::F64(random.arbitrary().unwrap_or(0)),
        })
        .collect();
    instance.call(export, &arguments).unwrap();
    twin.call(export, &arguments).unwrap();
    let fuel = [1, 100, 100_000][random.int_in_range(0..=2).unwrap_or(0)];
    let (step, trace) = stopped(&module, instance, fuel);
    let expected = loop {
        match twin.step(100_000).0 {
            Step::OutOfFuel => {}
            step => break step,
        }
    };
    assert_eq!(step, expected, "the twin does the same");
    if !matches!(step, Step::Trap(_)) {
        return None;
    }
    let places = offsets(&module, may_trap);
    for frame in trace.frames() {
        let at = match twin.exported_global(&format!("at{}", frame.function)) {
            Some(Value::I32(at)) => at as usize,
            other => panic!("{other:?}"),
        };
        let places = &places[frame.function as usize];
        assert_eq!(frame.offset, Some(places[at]), "function {} of {places:?}", frame.function);
    }
    Some(trace.frames().len())
}

#[test]
fn generated_functions_trap_where_their_twins_say() {
    let (mut traps, mut nested, mut far) = (0, 0, 0);
    for seed in 0..300_u64 {
        let padded = seed.is_multiple_of(30);
        let mut bytes = vec![0; 6_000];
        StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
        let mut random = Unstructured::new(&bytes);
        let text = dense::module(&mut random, [40, 150, 400][seed as usize % 3], if padded { 3 } else { 0 });
        for (at, _) in text.matches("(func ").enumerate() {
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                check(&text, &format!("f{at}"), &mut Unstructured::new(&bytes[at..]))
            }));
            let Ok(frames) = checked else { panic!("seed {seed}, function {at}\n{text}") };
            traps += usize::from(frames.is_some());
            nested += usize::from(frames.is_some_and(|frames| frames > 1));
            far += usize::from(padded && frames.is_some());
        }
    }
    println!("{traps} traps, {nested} of them in functions that others called, {far} in long functions");
    assert!(traps > 100 && nested > 20 && far > 3, "{traps} {nested} {far}");
}

#[test]
fn names_are_those_of_the_module_and_harmless() {
    let long = "an::unusually::long::name::of::a::f\u{1f980}unction";
    let text = format!(
        r#"(module $m (func $a (@name "evil\1b[31m\c2\9b\e2\80\aename") unreachable)
        (func $b (@name "{long}") (call $a))
        (func (@name "an::unusually::long::name::of::\f0\9f\a6\80") (call $b))
        (func (export "run") (call 2)))"#
    );
    let module = wat::parse_str(text).unwrap();
    let names = |module: &[u8]| {
        let (_, trace) = run(module, &[], false, 1_000);
        let mut names = vec![None; trace.frames().len()];
        let read = trace.names(&mut &*module, &mut |at, name| names[at] = Some(name.to_owned()));
        (names, read)
    };
    let (found, read) = names(&module);
    assert_eq!(read, Ok(()));
    let found: Vec<_> = found.iter().map(Option::as_deref).collect();
    let cut = "an::unusually::long::name::of::a";
    assert_eq!(found, [Some("evil?[31m?????name"), Some(cut), Some("an::unusually::long::name::of::"), None]);
    // Whatever the section has, it is read to an end.
    let start = module.windows(5).position(|at| at == b"\x04name").unwrap();
    for at in start + 5..module.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut damaged = module.clone();
            damaged[at] = value;
            let (names, _) = names(&damaged);
            assert!(names.iter().flatten().all(|name| name.len() <= 32 && !name.contains(char::is_control)));
        }
    }
}

/// A module, and how often it was read.
struct Counted<'a>(&'a [u8], u32);

impl Source for Counted<'_> {
    fn length(&self) -> u32 {
        self.0.length()
    }

    fn read(&mut self, from: u32, into: &mut [u8]) -> Option<usize> {
        self.1 += 1;
        self.0.read(from, into)
    }
}

/// A device goes through the names between two turns of its applications.
#[test]
fn a_section_of_names_that_has_no_end_costs_little() {
    let module = wat::parse_str(r#"(module $m (func $a (export "run") unreachable))"#).unwrap();
    let start = module.windows(5).position(|at| at == b"\x04name").unwrap();
    let (_, trace) = run(&module, &[], false, 1_000);
    let padded = |part: u8| {
        let mut padded = module[..start - 2].to_vec();
        // A size in three bytes, the name, and parts that are empty.
        let parts = [part, 0].repeat(100_000);
        let size = parts.len() + 5;
        padded.extend([0, size as u8 | 0x80, (size >> 7) as u8 | 0x80, (size >> 14) as u8]);
        padded.extend(b"\x04name");
        padded.extend(parts);
        padded
    };
    for part in [0, 2, 11] {
        let padded = padded(part);
        let mut source = Counted(&padded, 0);
        let mut named = 0;
        assert_eq!(trace.names(&mut source, &mut |_, _| named += 1), Ok(()));
        assert_eq!(named, 0);
        assert!(source.1 < 20, "{part}: read {} times", source.1);
    }
    let mut named = 0;
    assert_eq!(trace.names(&mut Counted(&module, 0), &mut |_, _| named += 1), Ok(()));
    assert_eq!(named, 1, "behind the module's own name");
}
