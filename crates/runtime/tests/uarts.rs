//! UARTs as a program sees them.
#![cfg(test)]

mod support;

use support::*;
use wasmbed_runtime::peripherals::uart::{BYTES_MAX, Error};
use wasmbed_runtime::{Completion, Ending, Exceeded, Limits, Program};

/// A program that checks what it is told and traps where it is told wrong.
fn program_of(body: &str) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(module
            (import "wasmbed" "uart_read" (func $read (param i32 i32 i32 i32) (result i32)))
            (import "wasmbed" "uart_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 64) "AT\0d")
            (func $eq (param i32 i32) (if (i32.ne (local.get 0) (local.get 1)) (then unreachable)))
            (func (export "run") {body}))"#
    ))
    .unwrap()
}

fn call(name: &str, [a, b, c, d]: [u32; 4], result: i32) -> String {
    format!(
        "(call $eq (call ${name} (i32.const {a}) (i32.const {b}) (i32.const {c}) (i32.const {d})) (i32.const {result}))"
    )
}

/// Runs a program until it asks a UART for something, and hands it this answer, until it ends.
fn ends_with<'a>(host: &mut TestHost, body: &str, answers: &[Completion<'a>]) -> Ending {
    let module = program_of(body);
    let mut runtime = runtime();
    runtime.load(id(1), &program(&module)).unwrap();
    for answer in answers {
        assert_eq!(runtime.run_slice(host), None);
        assert!(!runtime.runnable(u64::MAX), "nothing but the answer wakes it");
        assert!(!runtime.complete(id(1), Completion::Stored), "another call's answer");
        assert!(runtime.complete(id(1), *answer));
    }
    run(&mut runtime, host, 10).expect("it ends").ending
}

const OK: Ending = Ending::Exited { code: 0 };

#[test]
fn what_came_is_handed_over_and_what_is_to_go_is_taken() {
    let mut host = TestHost::new();
    let body = [
        call("read", [1, 250, 100, 8], 3),
        "(call $eq (i32.load (i32.const 100)) (i32.const 0x0d4b4f))".into(),
        call("read", [0, u32::MAX, 200, 1_000], 1),
        call("write", [1, 64, 3, 5], 3),
        call("write", [1, 64, 1_000, 5], 256),
        call("write", [1, 64, 0, 0], 0),
    ];
    let answers = [
        Completion::Received(Ok(b"OK\r")),
        Completion::Received(Ok(b"x")),
        Completion::Sent(Ok(3)),
        Completion::Sent(Ok(256)),
        Completion::Sent(Ok(0)),
    ];
    assert_eq!(ends_with(&mut host, &body.concat(), &answers), OK);
    let asked = host.uart.unwrap();
    let now_us = host.now_us;
    assert_eq!(asked[0], (1, Asked::Read(8), now_us + 250_000));
    assert_eq!(asked[1], (0, Asked::Read(BYTES_MAX), u64::MAX));
    assert_eq!(asked[2], (1, Asked::Write(b"AT\r".to_vec()), now_us + 5_000));
    let (_, Asked::Write(bytes), _) = &asked[3] else { panic!("{asked:?}") };
    assert_eq!((bytes.len(), &bytes[..4]), (BYTES_MAX, &b"AT\r\0"[..]));
    assert_eq!(asked[4], (1, Asked::Write(Vec::new()), now_us));
}

#[test]
fn a_call_that_is_none_asks_for_nothing() {
    let body = [
        call("read", [0, 0, 100, 0], -28),
        call("read", [0, 0, 65_530, 7], -21),
        call("read", [0, 0, u32::MAX, u32::MAX], -21),
        call("write", [0, 65_530, 7, 0], -21),
        call("write", [0, u32::MAX, 1, 0], -21),
    ];
    let mut host = TestHost::new();
    assert_eq!(ends_with(&mut host, &body.concat(), &[]), OK);
    assert_eq!(host.uart, Ok(Vec::new()));
}

#[test]
fn why_nothing_came_or_went_is_told() {
    let errors = [
        (Error::NoPort, -44),
        (Error::Busy, -10),
        (Error::Overrun, -61),
        (Error::Garbled, -65),
        (Error::Failed, -29),
        (Error::Timeout, -73),
    ];
    for (error, result) in errors {
        let read = call("read", [0, 1, 100, 8], result);
        let write = call("write", [0, 64, 3, 1], result);
        for (body, late) in
            [(&read, Completion::Received(Err(error))), (&write, Completion::Sent(Err(error)))]
        {
            let mut host = TestHost { uart: Err(error), ..TestHost::new() };
            assert_eq!(ends_with(&mut host, body, &[]), OK, "{error}");
            assert_eq!(ends_with(&mut TestHost::new(), body, &[late]), OK, "{error}");
        }
    }
}

/// A read in a plain loop is what a program without a `wait` lives by, as long as it waits.
#[test]
fn a_read_that_takes_time_begins_the_cpu_limit_anew() {
    let body =
        "(loop (drop (call $read (i32.const 0) (i32.const -1) (i32.const 100) (i32.const 256))) (br 0))";
    let module = program_of(body);
    for (takes_us, lives) in [(1_000, true), (900, false)] {
        let (mut host, mut runtime) = (TestHost::new(), runtime());
        let limits = Limits { cpu_ms: 1, ..program(&module).limits };
        runtime.load(id(1), &Program { limits, ..program(&module) }).unwrap();
        let ended = (0..1_000).find_map(|_| {
            let event = runtime.run_slice(&mut host);
            host.now_us += takes_us;
            runtime.complete(id(1), Completion::Received(Ok(b"x")));
            event
        });
        let exceeded = Ending::Exceeded(Exceeded::Cpu { limit_ms: 1 });
        assert_eq!(ended.map(|event| event.ending), (!lives).then_some(exceeded));
    }
}
