//! An instance goes on where it is moved to.

#![cfg(test)]

use wasmbed_engine::{Step, Value};

mod support;

const MODULE: &str = r#"(module
    (import "host" "next" (func $next (param i32) (result i32)))
    (memory 1 1) (global $calls (mut i64) (i64.const 0))
    (table funcref (elem $even $odd))
    (type $step (func (param i32) (result i32)))
    (func $even (type $step) (if (i32.eqz (local.get 0)) (then (return (i32.const 1))))
        (call_indirect (type $step) (i32.sub (local.get 0) (i32.const 1)) (i32.const 1)))
    (func $odd (type $step) (if (i32.eqz (local.get 0)) (then (return (i32.const 0))))
        (global.set $calls (i64.add (global.get $calls) (i64.const 1)))
        (i32.store8 (local.get 0) (local.get 0))
        (call_indirect (type $step) (i32.sub (local.get 0) (i32.const 1)) (i32.const 0)))
    (func (export "run") (param i32) (result i32 i64 i32)
        (local $n i32)
        (loop (local.set $n (i32.add (local.get $n) (call $next (call $even (local.get 0)))))
            (memory.fill (i32.const 1000) (local.get $n) (i32.const 5000))
            (br_if 0 (i32.lt_u (local.get $n) (i32.const 30))))
        (local.get $n) (global.get $calls) (i32.load (i32.const 5000))))"#;

#[test]
fn an_instance_is_moved_at_every_slice() {
    let module = wat::parse_str(MODULE).unwrap();
    let mut ended = Vec::new();
    for moves in [0, 1, 3, 512, 5_000] {
        let mut memory = vec![0_u64; 60_000];
        let start = memory.as_mut_ptr();
        let mut instance = support::load(&mut memory[..30_000], &module, 1_000).unwrap().unwrap();
        let words = instance.bytes() / 8;
        instance.call("run", &[Value::I32(7)]).unwrap();
        let mut at = 0;
        let mut calls = 0;
        loop {
            match instance.step(20).0 {
                Step::Done => break,
                Step::Trap(trap) => panic!("{trap:?}"),
                Step::OutOfFuel => {}
                Step::HostCall(_) => {
                    calls += 1;
                    instance.answer(&[Value::I32(calls)]).unwrap();
                }
            }
            at = (at + moves) % (60_000 - words);
            // SAFETY: the place is within `memory`, which only the instance uses until the end.
            #[allow(unsafe_code)]
            unsafe {
                instance.relocate(start.add(at));
            }
        }
        ended.push((instance.results().collect::<Vec<_>>(), instance.memory().to_vec()));
    }
    assert_eq!(ended[0].0, [Value::I32(36), Value::I64(24), Value::I32(0x2424_2424)]);
    assert!(ended.iter().all(|other| *other == ended[0]));
}
