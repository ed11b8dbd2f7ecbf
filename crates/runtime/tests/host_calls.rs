//! Host functions, called by programs.

#![cfg(test)]

mod support;

use support::*;
use wasmbed_runtime::peripherals::bus::{self, Target};
use wasmbed_runtime::{Capabilities, Completion, Edges, Ending, KeyValueError, News, Program, Published};

/// Imports for every test; a program checks what it is told and traps where it is told wrong.
const IMPORTS: &str = r#"
    (import "wasmbed" "log" (func $log (param i32 i32)))
    (import "wasmbed" "wait" (func $wait (param i32)))
    (import "wasmbed" "now" (func $now (result i64)))
    (import "wasmbed" "uptime" (func $uptime (result i64)))
    (import "wasmbed" "key_value_get" (func $get (param i32 i32 i32 i32) (result i32)))
    (import "wasmbed" "key_value_put" (func $put (param i32 i32 i32 i32) (result i32)))
    (import "wasmbed" "key_value_delete" (func $delete (param i32 i32) (result i32)))
    (import "wasmbed" "publish" (func $publish (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasmbed" "receive" (func $receive (param i32 i32) (result i32)))
    (import "wasmbed" "setting_get" (func $setting (param i32 i32 i32 i32) (result i32)))
    (import "wasmbed" "gpio_read" (func $gpio_read (param i32) (result i32)))
    (import "wasmbed" "gpio_write" (func $gpio_write (param i32 i32) (result i32)))
    (import "wasmbed" "gpio_watch" (func $gpio_watch (param i32 i32) (result i32)))
    (import "wasmbed" "gpio_edges" (func $gpio_edges (param i32) (result i32)))
    (import "wasmbed" "i2c_transfer" (func $i2c (param i32 i32 i32 i32) (result i32)))
    (import "wasmbed" "spi_transfer" (func $spi (param i32 i32 i32 i32) (result i32)))
    (import "wasmbed" "sensor_read" (func $sensor (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_pwrite" (func $fd_pwrite (param i32 i32 i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_seek" (func $fd_seek (param i32 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_fdstat_get" (func $fdstat (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open"
        (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_res_get" (func $clock_res (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (func $eq (param i32 i32) (if (i32.ne (local.get 0) (local.get 1)) (then unreachable)))
    (func $eq64 (param i64 i64) (if (i64.ne (local.get 0) (local.get 1)) (then unreachable)))
"#;

fn module(data: &str, body: &str) -> Vec<u8> {
    wasm(&format!("(module {IMPORTS} {data} (func (export \"_start\") {body}))"))
}

/// Runs a program to its end, which must be exit code 0, and answers the device it ran on.
fn succeeds(data: &str, body: &str) -> TestHost {
    let mut host = TestHost::new();
    let event = ends(&mut host, data, body);
    assert_eq!(event, Ending::Exited { code: 0 }, "{body}");
    host
}

fn ends(host: &mut TestHost, data: &str, body: &str) -> Ending {
    let mut runtime = runtime();
    let module = module(data, body);
    let program =
        Program { args: &["-v", "two words"], env: &[("LANG", "C"), ("EMPTY", "")], ..program(&module) };
    runtime.load(id(1), &program).unwrap();
    run(&mut runtime, host, 10_000).expect("it ends").ending
}

#[test]
fn messages_are_handed_over_whole_and_within_their_bounds() {
    let publish = |topic: &str, length: u32, payload: &str, bytes: u32, flags: u32, answer: i32| {
        format!(
            "(call $eq (call $publish (i32.const {topic}) (i32.const {length}) (i32.const {payload})
                (i32.const {bytes}) (i32.const {flags})) (i32.const {answer}))"
        )
    };
    let body = [
        publish("0", 4, "4", 4, 0, 0),
        publish("0", 64, "100", 1_024, 1, 0),
        publish("0", 4, "4", 0, 0, 0),
        publish("0", 0, "4", 4, 0, -28),
        publish("0", 65, "4", 4, 0, -28),
        publish("0", 4, "4", 1_025, 0, -28),
        publish("0", 4, "4", 4, 2, -28),
        publish("65533", 4, "4", 4, 0, -21),
        publish("0", 4, "-1", 4, 0, -21),
    ];
    let host = succeeds(r#"(data (i32.const 0) "room21.5")"#, &body.concat());
    let taken: Vec<_> = host
        .messages
        .iter()
        .map(|(from, topic, payload, drop_oldest)| {
            assert_eq!(*from, id(1));
            (topic.len(), payload.len(), *drop_oldest)
        })
        .collect();
    assert_eq!(taken, [(4, 4, false), (64, 1_024, true), (4, 0, false)]);
    assert_eq!((&host.messages[0].1[..], &host.messages[0].2[..]), (&b"room"[..], &b"21.5"[..]));

    for (published, answer) in [(Published::NotNow, -6), (Published::UnknownTopic, -44)] {
        let mut host = TestHost { published, ..TestHost::new() };
        let ending = ends(&mut host, "", &publish("0", 4, "4", 4, 0, answer));
        assert_eq!(ending, Ending::Exited { code: 0 });
    }
}

#[test]
fn a_message_that_came_in_goes_once_it_has_room() {
    let receive = |address: &str, room: &str, answer: i32| {
        format!("(call $eq (call $receive (i32.const {address}) (i32.const {room})) (i32.const {answer}))")
    };
    let body = [
        receive("65530", "7", -21),
        receive("-1", "-1", -21),
        receive("100", "3", 9),
        receive("200", "9", 9),
        receive("300", "100", 3),
        receive("300", "100", -6),
        "(call $eq (i32.load (i32.const 100)) (i32.const 0x6c0500))".into(),
        "(call $eq64 (i64.load (i32.const 201)) (i64.const 0x6e6f746867696c05))".into(),
        "(call $eq (i32.load (i32.const 300)) (i32.const 0x780001))".into(),
    ];
    let mut host = TestHost::new();
    host.received = [b"\0\x05light".to_vec(), b"\x01\0x".to_vec()].into();
    host.received[0].extend(b"on");
    assert_eq!(ends(&mut host, "", &body.concat()), Ending::Exited { code: 0 });
}

#[test]
fn a_wait_ends_when_a_message_comes_in_for_who_has_asked_for_some() {
    let text = format!(
        r#"(module {IMPORTS} (func (export "run") (loop
            (call $log (i32.const 0) (i32.const 1))
            (call $wait (i32.const 1000))
            (drop (call $receive (i32.const 0) (i32.const 100))) (br 0))))"#
    );
    let module = wasm(&text);
    let mut runtime = runtime();
    runtime.load(id(1), &program(&module)).unwrap();
    let mut host = TestHost::new();
    let begun_us = host.now_us;
    // When it wakes next, after the start, once it has done what it can.
    let mut wakes = |at_ms: u64, comes_in: bool| {
        host.now_us = begun_us + at_ms * 1_000;
        if comes_in {
            host.received.push_back(b"\0\0".to_vec());
            runtime.wake(id(2), News::Message);
            runtime.wake(id(1), News::Message);
        }
        while runtime.runnable(host.now_us / 1_000) {
            assert_eq!(runtime.run_slice(&mut host), None);
        }
        (runtime.next_wake(0).unwrap() - begun_us / 1_000, host.received.len())
    };
    assert_eq!(wakes(0, false), (1_000, 0));
    assert_eq!(wakes(500, true), (1_000, 1), "it has not asked for any");
    assert_eq!(wakes(1_000, false), (2_000, 0));
    assert_eq!(wakes(1_200, true), (2_200, 0), "its wait is over");
    // One that is there before the wait begins ends it after a millisecond.
    host.received.extend([b"\0\0".to_vec(), b"\0\0".to_vec()]);
    host.now_us = begun_us + 2_200_000;
    for (at_us, left) in [(2_200_000, 1), (2_200_999, 1), (2_201_000, 0)] {
        host.now_us = begun_us + at_us;
        for _ in 0..10 {
            runtime.run_slice(&mut host);
        }
        assert_eq!(host.received.len(), left, "{at_us}");
    }
}

#[test]
fn a_setting_is_read_as_its_type_has_it() {
    let get = |name: &str, length: &str, address: &str, room: &str, answer: i32| {
        format!(
            "(call $eq (call $setting (i32.const {name}) (i32.const {length}) (i32.const {address}) (i32.const {room})) (i32.const {answer}))"
        )
    };
    let body = [
        get("0", "4", "100", "8", 8),
        "(call $eq64 (i64.load (i32.const 100)) (i64.const -250))".into(),
        get("4", "2", "108", "8", 1),
        "(call $eq (i32.load (i32.const 108)) (i32.const 1))".into(),
        // As much as there is room for.
        get("6", "4", "112", "2", 3),
        "(call $eq (i32.load (i32.const 112)) (i32.const 0x6261))".into(),
        get("0", "3", "100", "8", -44),
        get("0", "0", "100", "8", -28),
        get("0", "33", "100", "8", -28),
        get("65535", "2", "100", "8", -21),
        get("0", "4", "65535", "8", -21),
    ];
    let mut host = TestHost::new();
    host.settings =
        vec![("rate", (-250_i64).to_le_bytes().to_vec()), ("on", vec![1]), ("name", b"abc".to_vec())];
    let data = r#"(data (i32.const 0) "rateonname")"#;
    assert_eq!(ends(&mut host, data, &body.concat()), Ending::Exited { code: 0 });
}

#[test]
fn a_wait_ends_when_a_setting_changes_for_who_has_asked_for_some() {
    let text = format!(
        r#"(module {IMPORTS} (data (i32.const 0) "on") (func (export "run") (loop
            (call $wait (i32.const 1000))
            (drop (call $setting (i32.const 0) (i32.const 2) (i32.const 8) (i32.const 1))) (br 0))))"#
    );
    let module = wasm(&text);
    let mut runtime = runtime();
    runtime.load(id(1), &program(&module)).unwrap();
    let mut host = TestHost::new();
    host.settings = vec![("on", vec![1])];
    let begun_us = host.now_us;
    let mut wakes = |at_ms: u64, changes: bool| {
        host.now_us = begun_us + at_ms * 1_000;
        if changes {
            host.setting_changed = true;
            runtime.wake(id(2), News::Setting);
            runtime.wake(id(1), News::Setting);
        }
        while runtime.runnable(host.now_us / 1_000) {
            assert_eq!(runtime.run_slice(&mut host), None);
        }
        runtime.next_wake(0).unwrap() - begun_us / 1_000
    };
    assert_eq!(wakes(0, false), 1_000);
    assert_eq!(wakes(500, true), 1_000, "it has not asked for any");
    assert_eq!(wakes(1_000, false), 2_000);
    assert_eq!(wakes(1_200, true), 2_200, "its wait is over");
    runtime.wake(id(1), News::Message);
    assert_eq!(runtime.next_wake(0).unwrap() - begun_us / 1_000, 2_200, "a message is none of its business");
}

#[test]
fn log_makes_lines() {
    let host = succeeds(
        r#"(data (i32.const 0) "one\ntwo\n")"#,
        "(call $log (i32.const 0) (i32.const 3)) (call $log (i32.const 0) (i32.const 8))
        (call $log (i32.const 0) (i32.const 0)) (call $log (i32.const 100) (i32.const 300))",
    );
    let lines = host.lines_of(id(1));
    assert_eq!(lines[..4], ["one", "one", "two", ""]);
    assert_eq!(lines[4..].iter().map(|line| line.len()).collect::<Vec<_>>(), [256, 44]);
}

#[test]
fn log_outside_the_memory_traps() {
    let ending = ends(&mut TestHost::new(), "", "(call $log (i32.const 65535) (i32.const 2))");
    assert_eq!(ending.to_string(), "trapped: wasmbed.log: text lies outside the memory");
}

#[test]
fn fd_write_assembles_lines_out_of_pieces() {
    // One line in two calls, as AssemblyScript does; two lines in one call of two pieces; the rest when it ends.
    let host = succeeds(
        r#"(data (i32.const 0) "hello world\nsecond\nlast")
        (data (i32.const 100) "\00\00\00\00\05\00\00\00")
        (data (i32.const 108) "\05\00\00\00\07\00\00\00\0c\00\00\00\07\00\00\00")
        (data (i32.const 124) "\13\00\00\00\04\00\00\00")"#,
        "(call $eq (call $fd_write (i32.const 1) (i32.const 100) (i32.const 1) (i32.const 200)) (i32.const 0))
        (call $eq (i32.load (i32.const 200)) (i32.const 5))
        (call $eq (call $fd_write (i32.const 1) (i32.const 108) (i32.const 2) (i32.const 200)) (i32.const 0))
        (call $eq (i32.load (i32.const 200)) (i32.const 14))
        (call $eq (call $fd_write (i32.const 2) (i32.const 124) (i32.const 1) (i32.const 200)) (i32.const 0))",
    );
    assert_eq!(host.lines_of(id(1)), ["hello world", "second", "last"]);
}

#[test]
fn fd_write_is_bounded_and_checked() {
    let host = succeeds(
        r#"(data (i32.const 100) "\00\10\00\00\00\10\00\00") (data (i32.const 108) "\ff\ff\ff\ff\01\00\00\00")"#,
        "(call $eq (call $fd_write (i32.const 1) (i32.const 100) (i32.const 1) (i32.const 200)) (i32.const 0))
        (call $eq (i32.load (i32.const 200)) (i32.const 1024))
        (call $eq (call $fd_write (i32.const 1) (i32.const 108) (i32.const 1) (i32.const 200)) (i32.const 21))
        (call $eq (call $fd_write (i32.const 1) (i32.const 65534) (i32.const 1) (i32.const 200)) (i32.const 21))
        (call $eq (call $fd_write (i32.const 1) (i32.const 100) (i32.const 1) (i32.const 65533)) (i32.const 21))
        (call $eq (call $fd_write (i32.const 1) (i32.const -1) (i32.const -1) (i32.const 200)) (i32.const 21))
        (call $eq (call $fd_write (i32.const 3) (i32.const 100) (i32.const 1) (i32.const 200)) (i32.const 8))
        (call $eq (call $fd_write (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)) (i32.const 8))",
    );
    assert_eq!(host.lines.len(), 4, "1,024 bytes are four lines; what faulted logged nothing");
}

#[test]
fn streams_answer_what_toolchains_need() {
    succeeds(
        "",
        "(call $eq (call $fd_pwrite (i32.const 1) (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 0)) (i32.const 70))
        (call $eq (call $fd_pwrite (i32.const 7) (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 0)) (i32.const 8))
        (call $eq (call $fd_seek (i32.const 1) (i64.const 0) (i32.const 0) (i32.const 0)) (i32.const 70))
        (call $eq (call $prestat (i32.const 3) (i32.const 0)) (i32.const 8))
        (call $eq (call $fd_close (i32.const 1)) (i32.const 0))
        (call $eq (call $fd_close (i32.const 3)) (i32.const 8))
        (i32.store (i32.const 40) (i32.const 9))
        (call $eq (call $fd_read (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 40)) (i32.const 0))
        (call $eq (i32.load (i32.const 40)) (i32.const 0))
        (call $eq (call $fd_read (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 40)) (i32.const 8))
        (call $eq (call $fdstat (i32.const 1) (i32.const 48)) (i32.const 0))
        (call $eq (i32.load8_u (i32.const 48)) (i32.const 2))
        (call $eq64 (i64.load (i32.const 56)) (i64.const 64))
        (call $eq (call $fdstat (i32.const 3) (i32.const 48)) (i32.const 8))
        (call $eq (call $fdstat (i32.const 0) (i32.const 65520)) (i32.const 21))
        (call $eq (call $path_open (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i64.const 0)
            (i64.const 0) (i32.const 0) (i32.const 0)) (i32.const 52))",
    );
}

#[test]
fn arguments_and_environment() {
    let host = succeeds(
        "",
        "(call $eq (call $args_sizes (i32.const 0) (i32.const 4)) (i32.const 0))
        (call $eq (i32.load (i32.const 0)) (i32.const 3))
        (call $eq (i32.load (i32.const 4)) (i32.const 18))
        (call $eq (call $args (i32.const 16) (i32.const 32)) (i32.const 0))
        (call $eq (i32.load (i32.const 16)) (i32.const 32))
        (call $eq (i32.load (i32.const 20)) (i32.const 37))
        (call $eq (i32.load (i32.const 24)) (i32.const 40))
        (call $eq (i32.load8_u (i32.const 49)) (i32.const 0))
        (call $log (i32.const 32) (i32.const 4)) (call $log (i32.const 40) (i32.const 9))
        (call $eq (call $environ_sizes (i32.const 0) (i32.const 4)) (i32.const 0))
        (call $eq (i32.load (i32.const 0)) (i32.const 2))
        (call $eq (i32.load (i32.const 4)) (i32.const 14))
        (call $eq (call $environ (i32.const 16) (i32.const 64)) (i32.const 0))
        (call $log (i32.const 64) (i32.const 6)) (call $log (i32.const 71) (i32.const 6))
        (call $eq (call $environ (i32.const 16) (i32.const 65535)) (i32.const 21))",
    );
    assert_eq!(host.lines_of(id(1)), ["test", "two words", "LANG=C", "EMPTY="]);
}

#[test]
fn clocks() {
    succeeds(
        "",
        "(call $eq64 (call $now) (i64.const 1700000000123))
        (call $eq64 (call $uptime) (i64.const 1000))
        (call $eq (call $clock (i32.const 0) (i64.const 1) (i32.const 8)) (i32.const 0))
        (call $eq64 (i64.load (i32.const 8)) (i64.const 1700000000123000000))
        (call $eq (call $clock (i32.const 1) (i64.const 1) (i32.const 8)) (i32.const 0))
        (call $eq64 (i64.load (i32.const 8)) (i64.const 1000000000))
        (call $eq (call $clock (i32.const 2) (i64.const 1) (i32.const 8)) (i32.const 28))
        (call $eq (call $clock (i32.const 1) (i64.const 1) (i32.const 65530)) (i32.const 21))
        (call $eq (call $clock_res (i32.const 1) (i32.const 8)) (i32.const 0))
        (call $eq64 (i64.load (i32.const 8)) (i64.const 1000))",
    );
    let mut host = TestHost { unix_ms: None, ..TestHost::new() };
    let ending = ends(
        &mut host,
        "",
        "(call $eq64 (call $now) (i64.const -1))
        (call $eq (call $clock (i32.const 0) (i64.const 1) (i32.const 8)) (i32.const 58))",
    );
    assert_eq!(ending, Ending::Exited { code: 0 });
}

#[test]
fn random_fills_all_of_it() {
    succeeds(
        "",
        "(call $eq (call $random (i32.const 0) (i32.const 300)) (i32.const 0))
        (call $eq (i32.load8_u (i32.const 255)) (i32.const 0x5f))
        (call $eq (i32.load8_u (i32.const 299)) (i32.const 0x8b))
        (call $eq (i32.load8_u (i32.const 300)) (i32.const 0))
        (call $eq (call $random (i32.const 65000) (i32.const 4096)) (i32.const 21))
        (call $eq (call $random (i32.const 0) (i32.const -1)) (i32.const 28))",
    );
}

#[test]
fn wait_takes_that_long() {
    let host = succeeds("", "(call $wait (i32.const 250)) (call $wait (i32.const 0))");
    assert_eq!(host.now_us, 1_251_000);
}

#[test]
fn poll_oneoff_waits_for_the_first_clock() {
    // Two clocks, 500 ms and 20 ms from now, and user data 7 and 8.
    let host = succeeds(
        "",
        "(i64.store (i32.const 0) (i64.const 7)) (i32.store (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.const 500000000))
        (i64.store (i32.const 48) (i64.const 8)) (i32.store (i32.const 64) (i32.const 1))
        (i64.store (i32.const 72) (i64.const 20000000))
        (call $eq (call $poll (i32.const 0) (i32.const 200) (i32.const 2) (i32.const 300)) (i32.const 0))
        (call $eq (i32.load (i32.const 300)) (i32.const 1))
        (call $eq64 (i64.load (i32.const 200)) (i64.const 8))
        (call $eq (i32.load16_u (i32.const 208)) (i32.const 0))
        (call $eq (call $poll (i32.const 0) (i32.const 200) (i32.const 0) (i32.const 300)) (i32.const 28))
        (call $eq (call $poll (i32.const 0) (i32.const 200) (i32.const 17) (i32.const 300)) (i32.const 28))
        (call $eq (call $poll (i32.const 65500) (i32.const 200) (i32.const 1) (i32.const 300)) (i32.const 21))",
    );
    assert_eq!(host.now_us, 1_020_000);
}

#[test]
fn poll_oneoff_until_a_time_of_day_and_on_streams() {
    // Until 30 ms from now by the time of day.
    let host = succeeds(
        "",
        "(i32.store (i32.const 16) (i32.const 0)) (i64.store (i32.const 24) (i64.const 1700000000153000000))
        (i32.store16 (i32.const 40) (i32.const 1))
        (call $eq (call $poll (i32.const 0) (i32.const 200) (i32.const 1) (i32.const 300)) (i32.const 0))
        (call $eq (i32.load (i32.const 300)) (i32.const 1))",
    );
    assert_eq!(host.now_us, 1_030_000);
    let host = succeeds(
        "",
        "(i32.store8 (i32.const 8) (i32.const 2)) (i32.store (i32.const 16) (i32.const 1))
        (call $eq (call $poll (i32.const 0) (i32.const 200) (i32.const 1) (i32.const 300)) (i32.const 0))
        (call $eq (i32.load (i32.const 300)) (i32.const 1))
        (call $eq (i32.load8_u (i32.const 210)) (i32.const 2))",
    );
    assert_eq!(host.now_us, 1_001_000, "ready at once still ends the slice");
}

#[test]
fn exit_codes() {
    assert_eq!(
        ends(&mut TestHost::new(), "", "(call $exit (i32.const 3)) unreachable"),
        Ending::Exited { code: 3 }
    );
    assert_eq!(
        ends(&mut TestHost::new(), "", "(call $exit (i32.const 0)) unreachable"),
        Ending::Exited { code: 0 }
    );
}

#[test]
fn pins_and_sensors() {
    let host = succeeds(
        "",
        "(call $eq (call $gpio_read (i32.const 2)) (i32.const 0))
        (call $eq (call $gpio_write (i32.const 2) (i32.const 1)) (i32.const 0))
        (call $eq (call $gpio_read (i32.const 2)) (i32.const 1))
        (call $eq (call $gpio_write (i32.const 2) (i32.const 2)) (i32.const -28))
        (call $eq (call $gpio_write (i32.const 9) (i32.const 1)) (i32.const -44))
        (call $eq (call $gpio_read (i32.const -1)) (i32.const -44))
        (call $eq (call $sensor (i32.const 0) (i32.const 8)) (i32.const 0))
        (call $eq (i32.load (i32.const 8)) (i32.const -21500))
        (call $eq (call $sensor (i32.const 0) (i32.const 65533)) (i32.const -21))
        (call $eq (call $sensor (i32.const 1) (i32.const 8)) (i32.const -29))
        (call $eq (call $sensor (i32.const 2) (i32.const 8)) (i32.const -44))",
    );
    assert_eq!(host.board.pins, [false, false, true, false]);
}

#[test]
fn edges_are_watched_and_counted() {
    let watch = |pin: u32, edges: u32, answer: i32| {
        format!("(call $eq (call $gpio_watch (i32.const {pin}) (i32.const {edges})) (i32.const {answer}))")
    };
    let count = |pin: u32, answer: i32| {
        format!("(call $eq (call $gpio_edges (i32.const {pin})) (i32.const {answer}))")
    };
    let mut body =
        [watch(1, 3, -76), watch(2, 4, -28), count(1, -76), count(2, i32::MAX), count(2, 0)].concat();
    for (edges, rising, falling) in [(1, true, false), (2, false, true), (3, true, true), (0, false, false)] {
        body += &watch(2, edges, 0);
        // More than an answer can say.
        let mut host = TestHost { edges: u32::MAX, ..TestHost::new() };
        assert_eq!(ends(&mut host, "", &body), Ending::Exited { code: 0 });
        assert_eq!(host.watched, Edges { rising, falling });
    }
}

#[test]
fn a_wait_ends_with_an_edge_for_who_watches() {
    let text = format!(
        r#"(module {IMPORTS} (func (export "run") (loop
            (call $wait (i32.const 1000))
            (drop (call $gpio_watch (i32.const 2) (i32.const 3)))
            (drop (call $gpio_edges (i32.const 2))) (br 0))))"#
    );
    let module = wasm(&text);
    let mut runtime = runtime();
    runtime.load(id(1), &program(&module)).unwrap();
    let mut host = TestHost::new();
    let begun_us = host.now_us;
    // Whether a wait was ended, and when it wakes next.
    let mut wakes = |at_ms: u64, has_edge: bool| {
        host.now_us = begun_us + at_ms * 1_000;
        let ended = has_edge && {
            assert!(!runtime.wake(id(2), News::Edge));
            runtime.wake(id(1), News::Edge)
        };
        while runtime.runnable(host.now_us / 1_000) {
            assert_eq!(runtime.run_slice(&mut host), None);
        }
        (ended, runtime.next_wake(0).unwrap() - begun_us / 1_000)
    };
    assert_eq!(wakes(0, false), (false, 1_000));
    assert_eq!(wakes(500, true), (false, 1_000), "it watches none");
    assert_eq!(wakes(1_000, false), (false, 2_000));
    assert_eq!(wakes(1_200, true), (true, 2_200));
    assert!(runtime.wake(id(1), News::Edge));
    assert!(!runtime.wake(id(1), News::Edge), "its wait has ended already");
    // One that was there before ends the next wait.
    host.now_us = begun_us + 3_000_000;
    host.edges = 1;
    while runtime.runnable(host.now_us / 1_000) {
        assert_eq!(runtime.run_slice(&mut host), None);
    }
    assert_eq!(host.edges, 0, "it asked");
}

#[test]
fn key_value_data() {
    let host = succeeds(
        r#"(data (i32.const 0) "key") (data (i32.const 16) "value")"#,
        "(call $eq (call $get (i32.const 0) (i32.const 3) (i32.const 32) (i32.const 16)) (i32.const -44))
        (call $eq (call $put (i32.const 0) (i32.const 3) (i32.const 16) (i32.const 5)) (i32.const 0))
        (call $eq (call $get (i32.const 0) (i32.const 3) (i32.const 32) (i32.const 2)) (i32.const 5))
        (call $eq (i32.load (i32.const 32)) (i32.const 0x6176))
        (call $eq (call $put (i32.const 0) (i32.const 2) (i32.const 16) (i32.const 0)) (i32.const 0))
        (call $eq (call $get (i32.const 0) (i32.const 2) (i32.const 32) (i32.const 2)) (i32.const 0))
        (call $eq (call $delete (i32.const 0) (i32.const 2)) (i32.const 0))
        (call $eq (call $delete (i32.const 0) (i32.const 2)) (i32.const -44))
        (call $eq (call $put (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 5)) (i32.const -28))
        (call $eq (call $put (i32.const 0) (i32.const 65) (i32.const 16) (i32.const 5)) (i32.const -28))
        (call $eq (call $put (i32.const 0) (i32.const 3) (i32.const 16) (i32.const 1025)) (i32.const -28))
        (call $eq (call $put (i32.const 65534) (i32.const 3) (i32.const 16) (i32.const 5)) (i32.const -21))
        (call $eq (call $put (i32.const 0) (i32.const 3) (i32.const 65534) (i32.const 5)) (i32.const -21))
        (call $eq (call $get (i32.const 0) (i32.const 3) (i32.const 65534) (i32.const 5)) (i32.const -21))",
    );
    assert_eq!(host.data.get(&(id(1), b"key".to_vec())).map(Vec::as_slice), Some(&b"value"[..]));
    let mut host = TestHost { storage_error: Some(KeyValueError::NoSpace), ..TestHost::new() };
    let full =
        "(call $eq (call $put (i32.const 0) (i32.const 3) (i32.const 16) (i32.const 5)) (i32.const -51))";
    assert_eq!(ends(&mut host, "", full), Ending::Exited { code: 0 });
}

#[test]
fn a_pending_answer_wakes_only_the_one_that_waits_for_it() {
    let module = module(
        r#"(data (i32.const 0) "key") (data (i32.const 16) "value")"#,
        "(call $eq (call $put (i32.const 0) (i32.const 3) (i32.const 16) (i32.const 5)) (i32.const 0))
        (call $eq (call $get (i32.const 0) (i32.const 3) (i32.const 32) (i32.const 16)) (i32.const 2))
        (call $eq (i32.load16_u (i32.const 32)) (i32.const 0x6968))
        (call $eq (call $get (i32.const 0) (i32.const 3) (i32.const 32) (i32.const 16)) (i32.const -44))
        (call $eq (call $delete (i32.const 0) (i32.const 3)) (i32.const -29))",
    );
    let mut runtime = runtime();
    let mut host = TestHost { pending: true, ..TestHost::new() };
    runtime.load(id(1), &program(&module)).unwrap();
    let answers = [
        Completion::Stored,
        Completion::Value(Some(b"hi")),
        Completion::Value(None),
        Completion::Failed(KeyValueError::Storage),
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(run(&mut runtime, &mut host, 10), None);
        assert_eq!(
            runtime.next_wake(host.now_us / 1_000),
            None,
            "it waits for an answer and for nothing else"
        );
        if number == 0 {
            assert!(!runtime.complete(id(1), Completion::Deleted(true)), "not the answer it waits for");
            assert!(!runtime.complete(id(2), answer), "nobody by that name");
        }
        assert!(runtime.complete(id(1), answer));
        assert!(!runtime.complete(id(1), answer), "answered already");
    }
    assert_eq!(run(&mut runtime, &mut host, 10).unwrap().ending, Ending::Exited { code: 0 });
}

/// Write one byte from 64, read two to 80: operations at 0 and 12.
const OPERATIONS: &str = r#"(data (i32.const 0) "\00\00\00\00\40\00\00\00\01\00\00\00\01\00\00\00\50\00\00\00\02\00\00\00")
    (data (i32.const 64) "\07")"#;

#[test]
fn a_transfer_waits_and_what_it_read_is_handed_over() {
    let mut host = TestHost::new();
    let mut runtime = runtime();
    let module = module(
        OPERATIONS,
        "(call $eq (call $i2c (i32.const 1) (i32.const 0x48) (i32.const 0) (i32.const 2)) (i32.const 0))
         (call $eq (i32.load8_u (i32.const 64)) (i32.const 7))
         (call $eq (i32.load16_u (i32.const 80)) (i32.const 0x8015))",
    );
    runtime.load(id(1), &program(&module)).unwrap();
    assert_eq!(runtime.run_slice(&mut host), None);
    let transfers = std::mem::replace(&mut host.transfers, Ok(Vec::new())).unwrap();
    let [(id, 1, transfer)] = transfers.as_slice() else { panic!("{transfers:?}") };
    let address = match transfer.target() {
        Target::I2c(address) => address.number(),
        Target::Spi(device) => panic!("{device:?}"),
    };
    assert_eq!((address, transfer.bytes()), (0x48, &[7, 0, 0][..]));
    let [write, read] = transfer.operations() else { panic!("{transfer:?}") };
    assert_eq!((write.direction, write.bytes), (bus::Direction::Write, 1));
    assert_eq!((read.direction, read.bytes), (bus::Direction::Read, 2));
    assert!(!runtime.runnable(u64::MAX), "nothing but the answer wakes it");
    assert!(!runtime.complete(*id, Completion::Stored), "another call's answer");
    assert!(runtime.complete(*id, Completion::Transferred(Ok(&[7, 0x15, 0x80]))));
    let event = runtime.run_slice(&mut host).unwrap();
    assert_eq!(event.ending, Ending::Exited { code: 0 });
}

#[test]
fn a_transfer_that_is_none_reaches_no_bus() {
    let call = |bus: u32, address: u32, at: u32, count: u32, result: i32| {
        format!(
            "(call $eq (call $i2c (i32.const {bus}) (i32.const {address}) (i32.const {at}) (i32.const {count}))
             (i32.const {result}))"
        )
    };
    let body = [
        // Reserved addresses, and one of ten bits.
        call(0, 0x00, 0, 1, -28),
        call(0, 0x78, 0, 1, -28),
        call(0, 0x148, 0, 1, -28),
        // None, too many, and operations outside the memory.
        call(0, 0x48, 0, 0, -28),
        call(0, 0x48, 0, 17, -28),
        call(0, 0x48, 65_530, 1, -21),
        call(0, 0x48, u32::MAX, 2, -21),
        // Bytes outside the memory, a read of none, too many bytes, kinds that I2C has not.
        call(0, 0x48, 100, 1, -21),
        call(0, 0x48, 112, 1, -28),
        call(0, 0x48, 124, 1, -28),
        call(0, 0x48, 136, 1, -28),
        call(0, 0x48, 148, 1, -28),
        call(0, 0x48, 160, 1, -28),
    ];
    let operations = words(&[1, 65_535, 2, 1, 80, 0, 0, 64, 257, 2, 64, 1, 3, 0, 1, 4, 64, 1]);
    let data = format!("{OPERATIONS} (data (i32.const 100) \"{operations}\")");
    let host = succeeds(&data, &body.join(" "));
    assert!(host.transfers.is_ok_and(|transfers| transfers.is_empty()));
}

/// Numbers as they stand in a module's data.
fn words(numbers: &[u32]) -> String {
    let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
    bytes.map(|byte| format!("\\{byte:02x}")).collect()
}

#[test]
fn a_transfer_over_spi_exchanges_and_pauses() {
    // Write one, pause, read one, exchange two.
    let operations = words(&[0, 64, 1, 3, 0, 1_001, 1, 80, 1, 2, 64, 2]);
    let data = format!("(data (i32.const 0) \"{operations}\") (data (i32.const 64) \"\\07\\08\")");
    let module = module(
        &data,
        "(call $eq (call $spi (i32.const 1) (i32.const 2) (i32.const 0) (i32.const 4)) (i32.const 0))
         (call $eq (i32.load16_u (i32.const 64)) (i32.const 0x3412))
         (call $eq (i32.load8_u (i32.const 80)) (i32.const 0x56))",
    );
    let (mut host, mut runtime) = (TestHost::new(), runtime());
    runtime.load(id(1), &program(&module)).unwrap();
    assert_eq!(runtime.run_slice(&mut host), None);
    let transfers = std::mem::replace(&mut host.transfers, Ok(Vec::new())).unwrap();
    let [(id, 1, transfer)] = transfers.as_slice() else { panic!("{transfers:?}") };
    assert!(matches!(transfer.target(), Target::Spi(device) if device.chip_select == 2));
    let operations: Vec<_> =
        transfer.operations().iter().map(|operation| (operation.bytes, operation.pause_us)).collect();
    assert_eq!(operations, [(1, 0), (0, 2), (1, 0), (2, 0)], "a pause is at least as long as was asked for");
    assert_eq!(transfer.bytes(), [7, 0, 7, 8]);
    assert!(runtime.complete(*id, Completion::Transferred(Ok(&[7, 0x56, 0x12, 0x34]))));
    assert_eq!(runtime.run_slice(&mut host).unwrap().ending, Ending::Exited { code: 0 });
}

#[test]
fn a_transfer_over_spi_that_is_none_reaches_no_bus() {
    let call = |chip_select: u32, at: u32, count: u32, result: i32| {
        format!(
            "(call $eq (call $spi (i32.const 0) (i32.const {chip_select}) (i32.const {at}) (i32.const {count}))
             (i32.const {result}))"
        )
    };
    let body = [
        call(256, 0, 1, -28),
        call(0, 0, 0, -28),
        call(0, 0, 17, -28),
        // Bytes outside the memory, too many, pauses that are too long, a kind that there is not.
        call(0, 0, 1, -21),
        call(0, 12, 1, -28),
        call(0, 24, 1, -28),
        call(0, 24, 2, -28),
        call(0, 36, 2, -28),
        call(0, 60, 1, -28),
    ];
    let pauses = [3, 0, 10_000_001, 3, 0, 6_000_000, 3, 0, 6_000_000];
    let operations = words(&[&[2, 65_535, 2, 2, 64, 257], &pauses[..], &[4, 64, 1]].concat());
    let host = succeeds(&format!("(data (i32.const 0) \"{operations}\")"), &body.join(" "));
    assert!(host.transfers.is_ok_and(|transfers| transfers.is_empty()));
}

#[test]
fn why_a_transfer_failed_is_told() {
    use bus::Error;
    for (error, result) in [
        (Error::NoBus, -44),
        (Error::Denied, -76),
        (Error::NoAcknowledgeAddress, -60),
        (Error::NoAcknowledgeData, -65),
        (Error::ArbitrationLost, -6),
        (Error::Bus, -29),
        (Error::Overrun, -61),
        (Error::Timeout, -73),
    ] {
        let body = format!(
            "(call $eq (call $i2c (i32.const 0) (i32.const 0x48) (i32.const 0) (i32.const 2)) (i32.const {result}))"
        );
        // At once, and after a wait.
        let mut host = TestHost { transfers: Err(error), ..TestHost::new() };
        assert_eq!(ends(&mut host, OPERATIONS, &body), Ending::Exited { code: 0 }, "{error}");
        let (mut host, mut runtime) = (TestHost::new(), runtime());
        runtime.load(id(1), &program(&module(OPERATIONS, &body))).unwrap();
        runtime.run_slice(&mut host);
        assert!(runtime.complete(id(1), Completion::Transferred(Err(error))));
        let ending = runtime.run_slice(&mut host).map(|event| event.ending);
        assert_eq!(ending, Some(Ending::Exited { code: 0 }), "{error}");
    }
}

#[test]
fn a_table_call_of_a_host_function_pauses_and_resumes_too() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "clock_res_get" (func $res (param i32 i32) (result i32)))
        (memory (export "memory") 1) (type $t (func (param i32 i32) (result i32)))
        (table 1 funcref) (elem (i32.const 0) $res)
        (func $inner (result i32) (i32.add (i32.const 100)
            (call_indirect (type $t) (i32.const 9) (i32.const 0) (i32.const 0))))
        (func (export "run") (if (i32.ne (call $inner) (i32.const 128)) (then unreachable))))"#;
    assert_eq!(ending(text).unwrap().ending, Ending::Exited { code: 0 });
}

#[test]
fn a_program_without_memory_is_told_so() {
    let text = r#"(module (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (func (export "run") (if (i32.ne (call $random (i32.const 0) (i32.const 1)) (i32.const 21)) (then unreachable))))"#;
    assert_eq!(ending(text).unwrap().ending, Ending::Exited { code: 0 });
}

#[test]
fn arguments_are_bounded() {
    let module = module("", "");
    let long = "x".repeat(4_096);
    let program = Program { args: &[&long], capabilities: Capabilities::ALL, ..program(&module) };
    let error = runtime().load(id(1), &program).unwrap_err();
    assert_eq!(error.to_string(), "arguments and environment have 4102 bytes, at most 4096");
}
