//! The sample applications as they are committed, in the sandbox: what they say, and what they weigh.

#![cfg(test)]

mod support;

use support::*;
use wasmbed_runtime::{Interpreter, Limits, Program, Runtime, RuntimeConfig, ScanLimits, scan};

const SAMPLES: [(&str, &[u8]); 4] = [
    ("hello", include_bytes!("../../../guests/prebuilt/hello.wasm")),
    ("hello-c", include_bytes!("../../../guests/prebuilt/hello-c.wasm")),
    ("counter", include_bytes!("../../../guests/prebuilt/counter.wasm")),
    ("sensor-loop", include_bytes!("../../../guests/prebuilt/sensor-loop.wasm")),
];

#[test]
fn all_of_them_run_side_by_side_on_a_board() {
    let mut runtime: Runtime<Interpreter> = Runtime::new(RuntimeConfig::default());
    let mut host = TestHost::new();
    for (number, (name, module)) in SAMPLES.iter().enumerate() {
        let limits = Limits { memory_bytes: 65_536, cpu_ms: 1_000 };
        runtime
            .load(id(number as u8), &Program { limits, ..program(module) })
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    for _ in 0..2_000 {
        let now_ms = host.now_us / 1_000;
        let Some(wake) = runtime.next_wake(now_ms) else { break };
        host.now_us = wake.max(now_ms) * 1_000;
        if let Some(event) = runtime.run_slice(&mut host) {
            assert_eq!(event.ending.to_string(), "ended with exit code 0");
        }
    }
    for (number, (name, _)) in SAMPLES.iter().enumerate() {
        let lines = host.lines_of(id(number as u8));
        assert!(!lines.is_empty(), "{name} says something");
    }
}

#[test]
fn the_estimate_of_the_fit_check_holds() {
    for (name, module) in SAMPLES {
        let info = scan(module, &ScanLimits::default()).unwrap();
        let mut runtime: Runtime<Interpreter> = Runtime::new(RuntimeConfig::default());
        let limits = Limits { memory_bytes: 65_536, cpu_ms: 1_000 };
        runtime.load(id(1), &Program { limits, ..program(module) }).unwrap();
        let linear = info.memory_min_bytes.next_multiple_of(16);
        let loaded = runtime.memory_used_bytes() as u64 - if info.grows_memory { 0 } else { linear };
        if !info.grows_memory {
            assert!(loaded <= info.load_bytes_estimate, "{name}: {loaded} of {}", info.load_bytes_estimate);
        }
    }
}

/// What ten of the smallest useful program hold of an arena; printed for docs/firmware.md.
#[test]
fn ten_of_hello_leave_room_on_a_board() {
    let mut runtime: Runtime<Interpreter> = Runtime::new(RuntimeConfig::default());
    let (name, module) = SAMPLES[0];
    for number in 0..10 {
        let limits = Limits { memory_bytes: 65_536, cpu_ms: 1_000 };
        runtime.load(id(number), &Program { limits, ..program(module) }).unwrap();
    }
    let used = runtime.memory_used_bytes();
    println!("ten of {name} hold {used} bytes");
    assert!(used <= runtime.config().arena_bytes * 2 / 3, "{used}");
}
