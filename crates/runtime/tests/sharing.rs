//! Ten applications on one device: fair slices, no influence on each other, and nothing left behind.

#![cfg(test)]

mod support;

use support::*;
use wasmbed_runtime::{Ending, Exceeded, Interpreter, Runtime, RuntimeConfig};

/// Sums 1 to n in a loop, logs when it is done.
const WORK: &str = r#"(module (import "wasmbed" "log" (func $log (param i32 i32)))
    (memory (export "memory") 1) (data (i32.const 0) "done")
    (func (export "_start") (local i32 i32)
        (local.set 0 (i32.const 30000))
        (loop (local.set 1 (i32.add (local.get 1) (local.get 0)))
            (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
        (if (i32.ne (local.get 1) (i32.const 450015000)) (then unreachable))
        (call $log (i32.const 0) (i32.const 4))))"#;

const SPIN: &str = r#"(module (func (export "_start") (loop (br 0))))"#;

/// A hosted device's arena: ten applications with a page of 64 KiB each do not fit a board of 384 KiB.
fn ten() -> Runtime<Interpreter> {
    Runtime::new(RuntimeConfig { metering: config().metering, ..RuntimeConfig::hosted() })
}

#[test]
fn ten_at_once_take_turns() {
    let mut runtime = ten();
    let mut host = TestHost::new();
    for number in 0..10 {
        load(&mut runtime, number, SPIN).unwrap();
    }
    for round in 1..=15 {
        for _ in 0..10 {
            assert_eq!(runtime.run_slice(&mut host), None);
        }
        for number in 0..10 {
            assert_eq!(runtime.usage(id(number)).unwrap().cpu_ms, round * 5, "application {number}");
        }
    }
}

/// What ended applications leave behind lies between those that go on: a large one gets all of it as one piece, and those
/// that were moved go on in the middle of what they did.
#[test]
fn what_is_free_in_pieces_is_one_piece_when_it_is_needed() {
    let page = 64 * 1_024;
    let mut runtime: Runtime<Interpreter> =
        Runtime::new(RuntimeConfig { arena_bytes: 6 * 80_000, metering: config().metering, ..config() });
    let mut host = TestHost::new();
    for number in 0..6 {
        load(&mut runtime, number, WORK).unwrap();
    }
    for _ in 0..6 {
        assert_eq!(runtime.run_slice(&mut host), None, "in the middle of its loop");
    }
    for number in [0, 2, 4] {
        assert!(runtime.stop(id(number)));
    }
    let large =
        r#"(module (memory 2 2) (func (export "_start") (i32.store (i32.const 131068) (i32.const 1))))"#;
    load(&mut runtime, 9, large).unwrap();
    assert!(runtime.memory_used_bytes() > 5 * page, "{}", runtime.memory_used_bytes());
    let mut finished = Vec::new();
    while let Some(event) = run(&mut runtime, &mut host, 1_000) {
        assert_eq!(event.ending, Ending::Exited { code: 0 });
        finished.push(event.id);
    }
    finished.sort();
    assert_eq!(finished, [1, 3, 5, 9].map(id));
}

#[test]
fn ten_different_ones_interleave_and_all_finish() {
    let mut runtime = ten();
    let mut host = TestHost::new();
    for number in 0..10 {
        load(&mut runtime, number, WORK).unwrap();
    }
    let mut finished = Vec::new();
    while let Some(event) = run(&mut runtime, &mut host, 1_000) {
        assert_eq!(event.ending, Ending::Exited { code: 0 });
        finished.push(event.id);
    }
    assert_eq!(finished, (0..10).map(id).collect::<Vec<_>>(), "the same work, so they finish in turn");
    assert_eq!(host.lines.len(), 10);
    assert_eq!(runtime.memory_used_bytes(), 0);
}

#[test]
fn neighbours_of_hostile_programs_do_not_notice() {
    let hostile = [
        SPIN,
        r#"(module (func $f (export "_start") (call $f)))"#,
        r#"(module (func (export "_start") unreachable))"#,
        r#"(module (memory 1) (func (export "_start")
            (loop (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable)) (br 0))))"#,
        r#"(module (import "wasmbed" "log" (func $log (param i32 i32))) (memory (export "memory") 1)
            (func (export "_start") (loop (call $log (i32.const 0) (i32.const 1024)) (br 0))))"#,
    ];
    let mut runtime = ten();
    let mut host = TestHost::new();
    load(&mut runtime, 100, WORK).unwrap();
    for (number, text) in hostile.iter().enumerate() {
        load(&mut runtime, number as u8, text).unwrap();
    }
    load(&mut runtime, 101, WORK).unwrap();
    assert!(load(&mut runtime, 102, "(module)").is_err());
    let mut endings = std::collections::BTreeMap::new();
    while let Some(event) = run(&mut runtime, &mut host, 100_000) {
        endings.insert(event.id, event.ending);
    }
    assert_eq!(endings[&id(100)], Ending::Exited { code: 0 });
    assert_eq!(endings[&id(101)], Ending::Exited { code: 0 });
    assert_eq!(endings[&id(0)], Ending::Exceeded(Exceeded::Cpu { limit_ms: 100 }));
    assert_eq!(endings.len(), 7);
    assert_eq!(host.lines_of(id(100)), ["done"]);
    assert_eq!(runtime.memory_used_bytes(), 0);
}

#[test]
fn a_sleeper_costs_nothing_and_wakes_on_time() {
    let mut runtime = ten();
    let mut host = TestHost::new();
    let text = r#"(module (import "wasmbed" "wait" (func $wait (param i32)))
        (func (export "_start") (call $wait (i32.const 1000)) (call $wait (i32.const 1000))))"#;
    load(&mut runtime, 1, text).unwrap();
    assert_eq!(runtime.next_wake(1_000), Some(1_000));
    assert_eq!(runtime.run_slice(&mut host), None);
    assert_eq!(runtime.next_wake(1_000), Some(2_000));
    assert!(!runtime.runnable(1_999));
    assert_eq!(runtime.run_slice(&mut host), None, "asleep");
    host.now_us = 2_000_000;
    assert!(runtime.runnable(2_000));
    assert_eq!(runtime.run_slice(&mut host), None);
    assert_eq!(runtime.next_wake(2_000), Some(3_000));
    host.now_us = 5_000_000;
    assert_eq!(runtime.run_slice(&mut host).unwrap().ending, Ending::Exited { code: 0 });
    assert_eq!(runtime.next_wake(5_000), None);
}

#[test]
fn stopping_frees_everything_in_any_state() {
    let mut runtime = ten();
    let mut host = TestHost::new();
    let waiting = r#"(module (import "wasmbed" "wait" (func $wait (param i32))) (memory 1)
        (func (export "_start") (call $wait (i32.const 100000))))"#;
    load(&mut runtime, 1, waiting).unwrap();
    load(&mut runtime, 2, SPIN).unwrap();
    load(&mut runtime, 3, WORK).unwrap();
    let loaded = runtime.memory_used_bytes();
    assert_eq!(
        loaded as u64,
        (1..=3).map(|number| runtime.usage(id(number)).unwrap().memory_bytes).sum::<u64>()
    );
    for _ in 0..4 {
        runtime.run_slice(&mut host);
    }
    assert_eq!(runtime.memory_used_bytes(), loaded, "running takes no memory");
    for number in [2, 1, 3] {
        assert!(runtime.stop(id(number)));
        assert!(!runtime.stop(id(number)));
        assert_eq!(runtime.usage(id(number)), None);
    }
    assert_eq!(runtime.memory_used_bytes(), 0);
    assert_eq!(runtime.applications().count(), 0);
}

#[test]
fn loading_again_and_again_leaves_nothing_behind() {
    let mut runtime = runtime();
    let mut host = TestHost::new();
    let module = wasm(WORK);
    let mut used = None;
    for _ in 0..200 {
        runtime.load(id(1), &program(&module)).unwrap();
        assert_eq!(*used.get_or_insert(runtime.memory_used_bytes()), runtime.memory_used_bytes());
        assert_eq!(run(&mut runtime, &mut host, 100).unwrap().ending, Ending::Exited { code: 0 });
        assert_eq!(runtime.memory_used_bytes(), 0);
    }
}

#[test]
fn thousands_of_devices_on_several_threads_that_move() {
    // Devices are made on one thread, run on another and dropped on a third, with others being made all the while.
    let module = wasm(WORK);
    std::thread::scope(|scope| {
        for part in 0..4u8 {
            let module = &module;
            scope.spawn(move || {
                for batch in 0..5 {
                    let devices: Vec<Runtime<Interpreter>> = (0..50)
                        .map(|_| {
                            let mut runtime = runtime();
                            runtime.load(id(part), &program(module)).unwrap();
                            runtime
                        })
                        .collect();
                    let moved = std::thread::spawn(move || {
                        let mut devices = devices;
                        let mut host = TestHost::new();
                        for runtime in devices.iter_mut().skip(batch) {
                            assert_eq!(
                                run(runtime, &mut host, 100).unwrap().ending,
                                Ending::Exited { code: 0 }
                            );
                            assert_eq!(runtime.memory_used_bytes(), 0);
                        }
                        devices
                    });
                    drop(moved.join().unwrap());
                }
            });
        }
    });
}

#[test]
fn dropped_devices_give_their_memory_back() {
    fn resident_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
    let module = wasm(WORK);
    let churn = || {
        for _ in 0..300 {
            let mut runtime = runtime();
            runtime.load(id(1), &program(&module)).unwrap();
        }
    };
    churn();
    let before = resident_kib();
    for _ in 0..5 {
        churn();
    }
    // Each of the 1,500 devices touched more than 64 KiB: a leak would be 96 MiB or more. The tests beside this one are
    // within the rest.
    assert!(resident_kib() < before + 48 * 1_024, "{} KiB before, {} KiB after", before, resident_kib());
}

#[test]
fn on_this_machines_clock() {
    let mut runtime: Runtime<Interpreter> = Runtime::new(RuntimeConfig::hosted());
    let mut host = TestHost::real_time();
    load(&mut runtime, 1, SPIN).unwrap();
    load(&mut runtime, 2, WORK).unwrap();
    let mut endings = std::collections::BTreeMap::new();
    while let Some(event) = run(&mut runtime, &mut host, 100_000) {
        endings.insert(event.id, event.ending);
    }
    assert_eq!(endings[&id(1)], Ending::Exceeded(Exceeded::Cpu { limit_ms: 100 }));
    assert_eq!(endings[&id(2)], Ending::Exited { code: 0 });
}
