//! Where an application trapped, as the sandbox says it.

#![cfg(test)]

mod support;

use support::{TestHost, id, program, wasm};
use wasmbed_runtime::engine::EngineError;
use wasmbed_runtime::{Ending, Event, Exceeded, Interpreter, ProgramTrap, Runtime, RuntimeConfig, Trap};

fn run(runtime: &mut Runtime<Interpreter>, host: &mut TestHost) -> Event {
    for _ in 0..10_000 {
        if let Some(event) = runtime.run_slice(host) {
            return event;
        }
    }
    panic!("it does not end")
}

/// Ends with what stands for the body, two calls deep.
fn module(body: &str) -> Vec<u8> {
    wasm(&format!(
        r#"(module (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func $read (param i32) {body})
        (func $measure (call $read (i32.const 70000)))
        (func (export "run") (call $measure)))"#
    ))
}

#[test]
fn the_event_of_a_trap_has_the_functions_and_others_have_none() {
    let cases: [(&str, bool); 6] = [
        ("unreachable", true),
        ("(drop (i32.load (local.get 0)))", true),
        ("(drop (memory.grow (i32.const 60000))) unreachable", true),
        ("(call $read (local.get 0))", true),
        ("(loop (br 0))", false),
        ("", false),
    ];
    let mut runtime = support::runtime();
    let mut host = TestHost::new();
    for (body, traps) in cases {
        let module = module(body);
        runtime.load(id(1), &program(&module)).unwrap();
        let mut event = run(&mut runtime, &mut host);
        assert_eq!(event.ending.is_trap(), traps, "{body}: {}", event.ending);
        if !traps {
            assert!(event.trace.frames().is_empty(), "{body}");
            continue;
        }
        assert_eq!(runtime.locate(&module, &mut event.trace), Ok(()));
        let frames = event.trace.frames();
        assert!(frames.iter().all(|frame| frame.offset.is_some()), "{body} {frames:?}");
        if event.ending != Ending::Exceeded(Exceeded::Stack) {
            assert_eq!(frames.iter().map(|frame| frame.function).collect::<Vec<_>>(), [1, 2, 3], "{body}");
        }
        let mut names = Vec::new();
        event.trace.names(&mut module.as_slice(), &mut |_, name| names.push(name.to_owned())).unwrap();
        assert_eq!(names[..1], ["read"]);
    }
    assert_eq!(runtime.memory_used_bytes(), 0);
}

#[test]
fn what_is_located_takes_what_the_application_gave_back() {
    let config = RuntimeConfig { arena_bytes: 40_000, ..support::config() };
    let filler = "(global.set $g (i32.mul (global.get $g) (i32.const 12345)))".repeat(600);
    let module = wasm(&format!(
        r#"(module (memory (export "memory") 2000 2000 (pagesize 1)) (global $g (mut i32) (i32.const 1))
        (func $f {filler} unreachable) (func (export "run") (call $f)))"#
    ));
    let waits = wasm(
        r#"(module (import "wasmbed" "wait" (func $wait (param i32)))
        (memory (export "memory") 8000 8000 (pagesize 1))
        (func (export "run") (loop (call $wait (i32.const 1000000000)) (br 0))))"#,
    );
    let mut runtime: Runtime<Interpreter> = Runtime::new(config);
    let mut host = TestHost::new();
    runtime.load(id(1), &program(&module)).unwrap();
    let mut event = run(&mut runtime, &mut host);
    assert_eq!(event.ending, Ending::Trapped(Trap::Program(ProgramTrap::Unreachable)));
    let mut again = event;
    assert_eq!(runtime.locate(&module, &mut event.trace), Ok(()));
    assert_eq!(runtime.memory_used_bytes(), 0, "nothing is kept");
    // In steps the same, and what is given up leaves nothing.
    runtime.begin_locate(again.trace);
    assert_eq!(runtime.locate_on(&module, 50), Ok(None), "more work than that");
    assert!(runtime.memory_used_bytes() > 0);
    runtime.cancel_locate();
    assert_eq!((runtime.memory_used_bytes(), runtime.locate_on(&module, 50)), (0, Ok(None)));
    runtime.begin_locate(again.trace);
    let located = (0..10_000).find_map(|_| runtime.locate_on(&module, 50).transpose());
    assert_eq!(located, Some(Ok(event.trace)));
    // Others have taken all since: the functions are known, their places are not.
    let mut loaded = 0;
    while runtime.load(id(2 + loaded), &program(&waits)).is_ok() {
        loaded += 1;
    }
    assert!(loaded > 1);
    let refused = runtime.locate(&module, &mut again.trace);
    assert!(matches!(refused, Err(EngineError::OutOfMemory { .. })), "{refused:?}");
    assert_eq!(again.trace.frames().len(), event.trace.frames().len());
    assert!(again.trace.frames().iter().all(|frame| frame.offset.is_none()));
    // Another module is no module of this trace, and no harm.
    runtime.stop(id(2));
    runtime.stop(id(3));
    let other = runtime.locate(&module[..100], &mut again.trace);
    assert!(matches!(other, Err(EngineError::Module(_))), "{other:?}");
    assert!(again.trace.frames().iter().all(|frame| frame.offset.is_none()));
}
