//! A module gets as much call stack as its calls can ever need, where that can be known.

#![cfg(test)]

mod support;

use support::{Ended, Every};
use wasmbed_engine::{CallError, Config, Error, Instance, Loader, Progress, Step, Trap, Value};

/// Slots that are configured.
const MOST: u32 = 2_048;

fn load<'m>(block: &'m mut [u64], module: &[u8], stack_slots: u32, work: u32) -> Result<Instance<'m>, Error> {
    let config = Config { stack_slots, memory_bytes: 65_536, table_growth: 0 };
    let mut source = module;
    let mut loader = Loader::new(block, &source, config).unwrap();
    while loader.step(&mut source, &Every, work)? == Progress::More {}
    Ok(loader.finish().unwrap())
}

/// Slots that a module gets of those that are configured.
fn slots(module: &[u8], stack_slots: u32) -> u32 {
    let mut block = vec![0; 200_000];
    let slots: Vec<usize> = [u32::MAX, 1, 7]
        .map(|work| load(&mut block, module, stack_slots, work).unwrap().stack_bytes() / 4)
        .to_vec();
    assert!(slots.iter().all(|found| *found == slots[0]), "in steps it is the same: {slots:?}");
    slots[0] as u32
}

/// Calls `run`, which the host answers with zeros.
fn run(module: &[u8], stack_slots: u32, arguments: &[Value]) -> Ended {
    let mut block = vec![0; 200_000];
    let mut instance = load(&mut block, module, stack_slots, u32::MAX).unwrap();
    match instance.call("run", arguments) {
        Ok(()) => {}
        Err(CallError::StackOverflow) => return Err(Trap::StackOverflow),
        Err(error) => panic!("{error:?}"),
    }
    loop {
        match instance.step(1_000).0 {
            Step::OutOfFuel => {}
            Step::Done => return Ok(instance.results().collect()),
            Step::Trap(trap) => return Err(trap),
            Step::HostCall(_) => {
                let results = instance.answer_type().map_or(0, |answer| answer.results().count());
                instance.answer(&vec![Value::I32(0); results]).unwrap();
            }
        }
    }
}

/// Modules whose deepest calls are made, and what their `run` takes and answers.
fn bounded() -> Vec<(&'static str, Vec<Value>)> {
    let seven = vec![Value::I32(7)];
    vec![
        (r#"(module (func (export "run")))"#, vec![]),
        (
            r#"(module (func $low (param i32) (result i32) (local i64 i64) (i32.add (local.get 0) (i32.const 1)))
                (func $middle (param i32) (result i32) (i32.mul (local.get 0) (call $low (local.get 0))))
                (func (export "run") (param i32) (result i32)
                    (i32.add (call $low (local.get 0)) (call $middle (local.get 0)))))"#,
            seven.clone(),
        ),
        // By a table, to the one of two functions that takes more.
        (
            r#"(module (type $t (func (param i32) (result i32))) (table funcref (elem $small $large))
                (func $small (type $t) (local.get 0))
                (func $large (type $t) (local i64 i64 i64 i64) (local.get 0))
                (func (export "run") (param i32) (result i32)
                    (call_indirect (type $t) (local.get 0) (i32.and (local.get 0) (i32.const 1)))))"#,
            seven.clone(),
        ),
        // A tail call has its frame in place of the caller's, and may take more or less than it.
        (
            r#"(module (type $t (func (param i32) (result i32))) (table funcref (elem $last))
                (func $last (type $t) (local i64 i64 i64 i64) (local.get 0))
                (func $second (type $t) (return_call_indirect (type $t) (local.get 0) (i32.const 0)))
                (func $first (type $t) (local i64) (return_call $second (local.get 0)))
                (func (export "run") (param i32) (result i32) (i32.add (i32.const 1) (call $first (local.get 0)))))"#,
            seven.clone(),
        ),
        // A start function, while the arguments of what comes after it wait.
        (
            r#"(module (func $start (local i64 i64 i64 i64 i64 i64)) (start $start)
                (func (export "run") (param i64 i64 i64) (result i64) (local.get 2)))"#,
            vec![Value::I64(1), Value::I64(2), Value::I64(3)],
        ),
        // The host, by its index, by a table and as an export.
        (
            r#"(module (type $t (func (param i32 i32) (result i32))) (import "host" "f" (func $host (type $t)))
                (table funcref (elem $host)) (export "host" (func $host))
                (func (export "run") (result i32)
                    (i32.add (call $host (i32.const 1) (i32.const 2))
                        (call_indirect (type $t) (i32.const 1) (i32.const 2) (i32.const 0)))))"#,
            vec![],
        ),
        // A table of branches before the call, and one of a rare operator's kind.
        (
            r#"(module (memory 1) (func $low (param i64) (result i64) (i64.div_u (local.get 0) (i64.const 3)))
                (func (export "run") (param i32) (result i64)
                    (block (block (block (br_table 0 1 2 1 0 (local.get 0)))))
                    (memory.fill (i32.const 0) (i32.const 1) (i32.const 9))
                    (call $low (i64.extend_i32_u (memory.size)))))"#,
            seven.clone(),
        ),
        // References are made, and not called by a table of their type.
        (
            r#"(module (table funcref (elem $run)) (func $run (export "run") (param i32) (result i32)
                (call_indirect (param i64) (result i64) (i64.const 1) (i32.const 1)) (drop) (local.get 0))
                (elem func $other) (func $other (param i64) (result i64) (local.get 0))
                (start $start) (func $start (table.init 0 1 (i32.const 0) (i32.const 0) (i32.const 0))
                    (drop (table.grow (ref.null func) (i32.const 0)))))"#,
            seven,
        ),
    ]
}

#[test]
fn what_calls_can_need_is_exact() {
    for (text, arguments) in bounded() {
        let module = wat::parse_str(text).unwrap();
        let needed = slots(&module, MOST);
        let ended = run(&module, needed, &arguments);
        assert_ne!(ended, Err(Trap::StackOverflow), "{text}");
        assert_eq!(ended, run(&module, MOST, &arguments), "{text}");
        assert_eq!(slots(&module, needed), needed, "{text}");
        println!("{needed} slots, {ended:?}");
    }
    // Where all of it is used, one less is too little.
    for (text, arguments) in bounded().into_iter().take(5) {
        let module = wat::parse_str(text).unwrap();
        let needed = slots(&module, MOST);
        assert_eq!(run(&module, needed - 1, &arguments), Err(Trap::StackOverflow), "{text}");
    }
}

#[test]
fn what_comes_back_gets_what_is_configured() {
    let own = r#"(module (func $f (export "run") (param i32) (result i32)
        (if (result i32) (local.get 0) (then (call $f (i32.sub (local.get 0) (i32.const 1)))) (else (i32.const 5)))))"#;
    let each_other = r#"(module (table funcref (elem $a)) (type $t (func (param i32) (result i32)))
        (func $b (type $t) (call $a (local.get 0)))
        (func $a (type $t) (if (result i32) (local.get 0) (then (call $b (i32.sub (local.get 0) (i32.const 1))))
            (else (i32.const 5))))
        (func (export "run") (param i32) (result i32) (call_indirect (type $t) (local.get 0) (i32.const 0))))"#;
    let tails = r#"(module (func $f (export "run") (param i32) (result i32)
        (if (result i32) (local.get 0) (then (return_call $f (i32.sub (local.get 0) (i32.const 1)))) (else (i32.const 5)))))"#;
    for text in [own, each_other, tails] {
        let module = wat::parse_str(text).unwrap();
        assert_eq!(slots(&module, MOST), MOST, "{text}");
        assert_eq!(run(&module, MOST, &[Value::I32(100)]), Ok(vec![Value::I32(5)]));
    }
    assert_eq!(run(&wat::parse_str(own).unwrap(), MOST, &[Value::I32(5_000)]), Err(Trap::StackOverflow));
}

/// `dyn` in Rust: the function that is called may, by its type, be the one that calls.
#[test]
fn what_comes_back_by_a_table_alone_gets_half() {
    let module = |locals: &str| {
        wat::parse_str(format!(
            r#"(module (type $t (func (param i32) (result i32))) (table funcref (elem $leaf $node))
                (func $leaf (type $t) (i32.const 9)) (func $deep (result i32) {locals} (i32.const 1))
                (func $node (type $t) (drop (call $deep))
                    (call_indirect (type $t) (i32.const 0) (i32.const 0)))
                (func (export "run") (param i32) (result i32) (call $node (local.get 0))))"#
        ))
        .unwrap()
    };
    let (small, large) = (module(""), module(&format!("(local {})", "i64 ".repeat(256))));
    assert_eq!((slots(&small, MOST), slots(&large, MOST)), (MOST / 2, MOST));
    assert_eq!(run(&small, MOST, &[Value::I32(0)]), Ok(vec![Value::I32(9)]));
}

/// The host may call with any function of which it has heard.
#[test]
fn references_from_outside_are_to_any_function() {
    let with = |handed_in: &str| {
        let text = format!(
            r#"(module (type $t (func)) {handed_in} (table 1 funcref)
                (func $never (type $t) (local i64 i64 i64 i64) (local.set 0 (i64.const 1)))
                (func (export "run") (call_indirect (type $t) (i32.const 0))))"#
        );
        slots(&wat::parse_str(text).unwrap(), MOST)
    };
    let none = with("");
    assert!(none < 10, "{none}");
    assert_eq!(with(r#"(import "host" "f" (func (result funcref)))"#), MOST / 2, "`run` may call itself");
    assert_eq!(
        with(r#"(func (export "set") (param funcref) (table.set (i32.const 0) (local.get 0)))"#),
        MOST / 2
    );
    // One that is only declared is in no table; one that code refers to may be.
    assert_eq!(with("(elem declare func $never)"), none);
    let referred =
        r#"(elem declare func $never) (func (export "set") (table.set (i32.const 0) (ref.func $never)))"#;
    assert!(with(referred) > none + 8);
}

/// More functions within each other than the loader follows.
#[test]
fn calls_deeper_than_the_loader_follows_get_what_is_configured() {
    let chain = |length: usize| {
        let mut text = String::from("(module (func $f0)");
        for at in 1..length {
            text.push_str(&format!("(func $f{at} (call $f{}))", at - 1));
        }
        text.push_str(&format!(r#"(export "run" (func $f{})))"#, length - 1));
        wat::parse_str(text).unwrap()
    };
    let most = 64 * 1_024;
    assert!(slots(&chain(256), most) < 1_000);
    assert_eq!(slots(&chain(257), most), most);
    assert_eq!(run(&chain(257), most, &[]), Ok(vec![]));
}

/// Functions of many types are called by a table, among many functions: the search for them is cut off.
#[test]
fn a_search_that_takes_long_is_cut_off() {
    let module = |types: u32| {
        let mut text = String::from("(module (table 1 funcref) (func (export \"run\") (param i32)");
        for at in 0..types {
            let kinds: Vec<&str> = (0..10).map(|bit| ["i32", "i64"][at as usize >> bit & 1]).collect();
            let zeros: String = kinds.iter().map(|kind| format!("({kind}.const 0)")).collect();
            let parameters = kinds.join(" ");
            text.push_str(&format!(
                "(if (local.get 0) (then (call_indirect (param {parameters}) {zeros} (i32.const 0))))"
            ));
        }
        text.push_str(&format!("){})", "(func)".repeat(2_000)));
        wat::parse_str(text).unwrap()
    };
    assert!(slots(&module(200), MOST) < 64);
    assert_eq!(slots(&module(1_000), MOST), MOST);
}
