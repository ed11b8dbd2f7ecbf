//! Faults that the engine had: each with the smallest module that shows it.

#![cfg(test)]

mod support;

use std::fmt::Write;

use support::{call, load};
use wasmbed_engine::{ErrorKind, Trap, Value};

/// Runs `f` in one go and in the smallest slices, unchecked and checked: always with this end.
#[track_caller]
fn runs(text: &str, arguments: &[Value], expected: Result<&[Value], Trap>) {
    let module = wat::parse_str(text).unwrap();
    for checked in [false, true] {
        for fuel in [u32::MAX, 0, 7] {
            let mut block = vec![0; 200_000];
            let mut instance = load(&mut block, &module, 1).unwrap().unwrap();
            instance.set_checked(checked);
            let ended = call(&mut instance, "f", arguments, fuel);
            assert_eq!(ended.as_deref().map_err(|trap| *trap), expected, "checked: {checked}, fuel: {fuel}");
        }
    }
}

/// Local 0 is counted up and compared with itself: the sum and what it is compared with are one slot, which one operator
/// read before it stored the sum.
#[test]
fn a_count_is_compared_with_the_counter_itself() {
    for (operator, result) in [("i32.eq", 1), ("i32.ne", 0)] {
        let text = format!(
            r#"(module (func (export "f") (param i32) (result i32)
                (block
                    (br_if 0 ({operator} (local.tee 0 (i32.add (local.get 0) (i32.const 3))) (local.get 0)))
                    (return (i32.const 0)))
                (i32.const 1)))"#
        );
        runs(&text, &[Value::I32(5)], Ok(&[Value::I32(result)]));
    }
}

/// An operator on a range ends a slice in its middle, and what the accumulator held was not there in the next one.
#[test]
fn what_is_computed_outlives_a_range_in_slices() {
    for range in [
        "(memory.fill (i32.const 0) (i32.const 1) (i32.const 5000))",
        "(memory.copy (i32.const 0) (i32.const 9) (i32.const 5000))",
        "(memory.init 0 (i32.const 0) (i32.const 0) (i32.const 64))",
        "(table.fill 0 (i32.const 0) (ref.null func) (i32.const 500))",
        "(table.copy 0 0 (i32.const 0) (i32.const 9) (i32.const 500))",
        "(table.init 0 0 (i32.const 0) (i32.const 0) (i32.const 8))",
        "(drop (memory.grow (i32.const 1)))",
        "(drop (table.grow 0 (ref.null func) (i32.const 9)))",
    ] {
        for computed in
            ["(i32.mul (local.get 0) (local.get 0))", "(local.tee 1 (i32.mul (local.get 0) (local.get 0)))"]
        {
            let text = format!(
                r#"(module (memory 1) (table 600 funcref) (elem func 0 0 0 0 0 0 0 0) (data "{}")
                    (func (export "f") (param i32) (result i32) (local i32)
                        {computed} {range} (i32.mul (local.get 1) (i32.const 0)) (i32.add)))"#,
                "x".repeat(64)
            );
            runs(&text, &[Value::I32(7)], Ok(&[Value::I32(49)]));
        }
    }
}

/// The accumulator holds a local's value when a range begins; it is read again behind it.
#[test]
fn a_local_is_read_again_behind_a_range_in_slices() {
    let text = r#"(module (memory 1)
        (func (export "f") (param i32) (result i32)
            (local.set 0 (i32.add (local.get 0) (i32.const 1)))
            (memory.fill (i32.const 0) (i32.const 1) (i32.const 5000))
            (i32.mul (local.get 0) (i32.const 3))))"#;
    runs(text, &[Value::I32(7)], Ok(&[Value::I32(24)]));
}

/// That a function needs far branches is seen when its last one is resolved, behind its end.
#[test]
fn a_function_needs_far_branches_at_its_end() {
    for others in ["", r#"(func (export "g") (param i64 i64 i64) (result i64) (local.get 2))"#] {
        let mut text = String::from(
            r#"(module (func (export "f") (param i32) (result i32)
                (drop (br_if 0 (i32.const 11) (i32.eqz (local.get 0))))"#,
        );
        for at in 0..6_000 {
            write!(text, "(local.set 0 (i32.xor (local.get 0) (i32.const {at})))").unwrap();
        }
        write!(text, "(local.get 0)) {others})").unwrap();
        runs(&text, &[Value::I32(0)], Ok(&[Value::I32(11)]));
        let expected = (0..6_000).fold(9, |value, at| value ^ at);
        runs(&text, &[Value::I32(9)], Ok(&[Value::I32(expected)]));
    }
}

/// A block's type is one byte or the number of a type.
#[test]
fn the_type_of_a_block_is_one_byte() {
    let mut module = wat::parse_str(r#"(module (func (block (nop))))"#).unwrap();
    let at = module.windows(2).position(|bytes| bytes == [0x02, 0x40]).unwrap();
    // The same number in three bytes; the sizes of the function and its section follow.
    module.splice(at + 1..at + 2, [0xc0, 0xff, 0x7f]);
    module[at - 2] += 2;
    module[at - 4] += 2;
    let mut block = vec![0; 20_000];
    let error = load(&mut block, &module, 1).err().map(|error| error.kind);
    assert_eq!(error, Some(ErrorKind::Malformed("type of a block")));
}

fn list(value: &str, count: usize) -> String {
    vec![value; count].join(" ")
}

/// What the code doesn't show costs fuel as well: locals that are set to zero, values that are moved.
#[test]
fn what_a_call_and_a_branch_move_costs_fuel() {
    let constants = list("(i64.const 1)", 100);
    for (function, slots) in [
        (format!("(func $g (local {}))", list("i64", 1_000)), 2_000),
        (
            format!(
                "(func $g (block (result {0}) (i64.const 0) (br 0 {constants})) {1})",
                list("i64", 100),
                list("(drop)", 100)
            ),
            200,
        ),
    ] {
        let text = format!(
            r#"(module {function} (func (export "f") (local i32)
                (local.set 0 (i32.const 1000))
                (loop (call $g) (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))"#
        );
        let module = wat::parse_str(text).unwrap();
        let mut block = vec![0; 200_000];
        let mut instance = load(&mut block, &module, 1).unwrap().unwrap();
        instance.call("f", &[]).unwrap();
        let (step, used) = instance.step(u32::MAX);
        assert_eq!(step, wasmbed_engine::Step::Done);
        assert!(used >= 1_000 * slots, "{used} units for {slots} slots a thousand times");
    }
}

/// A step of loading does about as much as it was told, also where an operator has hundreds of values.
#[test]
fn operators_with_many_values_are_more_work() {
    let types = list("i64", 200);
    let calls = "(call $g)".repeat(1_000);
    let text = format!(
        r#"(module (func $g (param {types}) (result {types}) (unreachable))
            (func (param {types}) (result {types}) {} {calls}))"#,
        (0..200).map(|at| format!("(local.get {at})")).collect::<String>()
    );
    let module = wat::parse_str(text).unwrap();
    let mut block = vec![0; 200_000];
    let mut source = module.as_slice();
    let mut loader = wasmbed_engine::Loader::new(&mut block, &source, support::config()).unwrap();
    let mut steps = 0;
    while loader.step(&mut source, &support::Every, 100).unwrap() == wasmbed_engine::Progress::More {
        steps += 1;
    }
    // 1,000 calls, 400 values each.
    assert!(steps >= 1_000, "{steps} steps of 100");
}

/// After an error there is no instance, however often the loader is asked to go on.
#[test]
fn a_module_that_was_refused_stays_refused() {
    let mut module =
        wat::parse_str(r#"(module (func (export "f") (result i32) (nop) (i32.const 1)))"#).unwrap();
    let at = module.windows(2).position(|bytes| bytes == [0x01, 0x41]).unwrap();
    // The first operator takes a value that is not there.
    module[at] = 0x1a;
    let mut block = vec![0; 20_000];
    let mut source = module.as_slice();
    let mut loader = wasmbed_engine::Loader::new(&mut block, &source, support::config()).unwrap();
    let first = loader.step(&mut source, &support::Every, 1_000).unwrap_err();
    assert_eq!(first.kind, ErrorKind::StackEmpty);
    for _ in 0..100 {
        assert_eq!(loader.step(&mut source, &support::Every, 1_000), Err(first));
    }
    assert!(loader.finish().is_none());
}

/// A function that the host hands in is called as it is: it has to be one.
#[test]
fn references_to_functions_that_are_not_there_are_not_handed_in() {
    let text = r#"(module (import "host" "h" (func (param i32))) (table 1 funcref)
        (func (export "f") (param funcref) (table.set (i32.const 0) (local.get 0)) (call_indirect (i32.const 0)))
        (func (export "g") (param externref)))"#;
    let module = wat::parse_str(text).unwrap();
    let mut block = vec![0; 20_000];
    let mut instance = load(&mut block, &module, 1).unwrap().unwrap();
    for function in [0, 3, 1_000_000, u32::MAX] {
        let called = instance.call("f", &[Value::FuncRef(Some(function))]);
        assert_eq!(called, Err(wasmbed_engine::CallError::Types), "{function}");
    }
    assert_eq!(call(&mut instance, "f", &[Value::FuncRef(Some(1))], 1_000), Err(Trap::IndirectCallType));
    // It would be null.
    let called = instance.call("g", &[Value::ExternRef(Some(u32::MAX))]);
    assert_eq!(called, Err(wasmbed_engine::CallError::Types));
}

/// A call stack of any size ends with a trap, and nothing behind it is written.
#[test]
fn nothing_is_written_behind_the_call_stack() {
    let wide = list("i64", 20);
    // Without names, which would lie there while they are read.
    for text in [
        r#"(module (func (export "f") (call 0)))"#.to_owned(),
        format!(r#"(module (func (export "f") (local {wide}) (call 0)))"#),
        format!(
            r#"(module (func (param {wide}) (result {wide}) {0} (call 0))
                (func (export "f") {0} (call 0) {1}))"#,
            list("(i64.const -1)", 20),
            list("(drop)", 20)
        ),
        format!(
            r#"(module (table 1 funcref) (elem (i32.const 0) 0)
                (func (param {wide} i32) {0} (i32.const 1) (call_indirect (param {wide} i32) (i32.const 0)))
                (func (export "f") {0} (return_call 0 (i32.const 7))))"#,
            list("(i64.const -1)", 20)
        ),
        format!(
            r#"(module (func (param {wide}) (call 1)) (func (return_call 0 {}))
                (func (export "f") (call 1)))"#,
            list("(i64.const -1)", 20)
        ),
    ] {
        let module = wat::parse_str(&text).unwrap();
        for stack_slots in 0..200 {
            let mut block = vec![u64::MAX / 3; 20_000];
            let at = block.as_ptr() as usize;
            let mut source = module.as_slice();
            let config = wasmbed_engine::Config { stack_slots, ..support::config() };
            let mut loader = wasmbed_engine::Loader::new(&mut block, &source, config).unwrap();
            while loader.step(&mut source, &support::Every, 1_000).unwrap() == wasmbed_engine::Progress::More
            {
            }
            let mut instance = loader.finish().unwrap();
            let words = instance.bytes() / 8;
            if instance.call("f", &[]) != Err(wasmbed_engine::CallError::StackOverflow) {
                let ended = call(&mut instance, "f", &[], 1_000);
                assert_eq!(ended, Err(Trap::StackOverflow), "{stack_slots}: {text}");
            }
            let from = words.next_multiple_of(2);
            // Up to where the loader had its own things.
            assert!(
                block[from..from + 1_000].iter().all(|word| *word == u64::MAX / 3),
                "{stack_slots} slots at {at:#x}: {text}"
            );
        }
    }
}
