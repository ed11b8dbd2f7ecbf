//! One device with the real engine, a gateway that follows a script, and storage that loses power at any write.
#![cfg(test)]

mod support;

use support::{Wanted, World, uid};
use wasmbed_agent::{TRAPS_WAITING_MAX, storage::StorageError};
use wasmbed_protocol::{ApplicationState as State, ReportReason as Reason, ResetReason, RestartPolicy};
use wasmbed_supervisor::memory::Cut;

/// Says `hello` and then waits a second at a time.
const HELLO: &str = r#"(module
    (import "wasmbed" "log" (func $log (param i32 i32)))
    (import "wasmbed" "wait" (func $wait (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "hello")
    (func (export "run")
        (call $log (i32.const 0) (i32.const 5))
        (loop (call $wait (i32.const 1000)) (br 0))))"#;

/// Counts its starts in key-value storage and logs the count as a letter.
const COUNTER: &str = r#"(module
    (import "wasmbed" "log" (func $log (param i32 i32)))
    (import "wasmbed" "wait" (func $wait (param i32)))
    (import "wasmbed" "key_value_get" (func $get (param i32 i32 i32 i32) (result i32)))
    (import "wasmbed" "key_value_put" (func $put (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "n")
    (data (i32.const 8) "@")
    (func (export "run")
        (drop (call $get (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 1)))
        (i32.store8 (i32.const 8) (i32.add (i32.load8_u (i32.const 8)) (i32.const 1)))
        (if (call $put (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 1)) (then unreachable))
        (call $log (i32.const 8) (i32.const 1))
        (loop (call $wait (i32.const 60000)) (br 0))))"#;

fn module(body: &str) -> Wanted {
    Wanted::wat(&format!("(module (memory (export \"memory\") 1) {body})"))
}

fn running(world: &World, number: u8) -> bool {
    world.runs_wanted(number)
}

#[test]
fn an_application_travels_from_the_set_to_running_and_logs() {
    let mut world = World::new();
    world.gateway.set(1, Wanted::wat(HELLO));
    world.until_running(&[1]);
    let memory_bytes = world.gateway.reports[&uid(1)].memory_bytes;
    assert!(memory_bytes >= 65_536, "the first report that it runs says what it takes: {memory_bytes}");
    world.until("its line arrives", 1_000, |world| !world.gateway.logs.is_empty());
    assert_eq!(world.gateway.logs, [(uid(1), 1, 0, "hello".into())]);
    assert_eq!(world.gateway.reported_revision.0, 1);
    let states: Vec<State> = world.gateway.history.iter().map(|entry| entry.1).collect();
    assert_eq!(states.last(), Some(&State::Running));
    world.run_for(60_000);
    assert!(running(&world, 1));
    assert_eq!(world.gateway.hellos.len(), 1, "one session all along");
    assert!(world.gateway.heartbeats >= 5);
    assert!(world.device.platform().watchdog.0 > 0);
}

#[test]
fn an_unknown_set_empties_nothing_and_an_empty_one_does() {
    let mut world = World::new();
    world.gateway.set(1, Wanted::wat(HELLO));
    world.until_running(&[1]);
    let mut world = world.reboot();
    world.gateway.desired_known = false;
    world.until("it runs although the gateway knows nothing", 10_000, |world| running(world, 1));
    world.gateway.remove(1);
    let link = world.link.clone();
    world.gateway.send_desired(&link);
    world.until("the set is empty", 5_000, |world| world.gateway.reported_revision.0 == 2);
    assert!(world.gateway.reports.is_empty());
    assert_eq!(world.device.loaded(), 0);
    world.until("its module is removed", 5_000, |world| {
        world.device.platform().storage.disk().modules.is_empty()
    });
}

#[test]
fn a_lower_revision_is_refused() {
    let mut world = World::new();
    world.gateway.set(1, Wanted::wat(HELLO));
    world.gateway.revision = 5;
    world.until_running(&[1]);
    world.gateway.remove(1);
    world.gateway.revision = 4;
    let link = world.link.clone();
    world.gateway.send_desired(&link);
    world.until("it complains", 5_000, |world| !world.gateway.errors.is_empty());
    assert_eq!(world.device.loaded(), 1);
}

#[test]
fn applications_start_before_there_is_a_network() {
    let mut world = World::new();
    world.gateway.set(1, Wanted::wat(HELLO));
    world.gateway.set(2, Wanted::wat(COUNTER).capabilities(&["key-value"]));
    world.until_running(&[1, 2]);
    let mut world = world.reboot();
    world.online = false;
    world.until("both run", 1_000, |world| world.device.loaded() == 2);
    world.run_for(120_000);
    assert_eq!(world.device.loaded(), 2);
    let attempts = world.link.with(|channel| channel.attempts);
    assert!((3..200).contains(&attempts), "it tries again and again, with pauses: {attempts}");
}

#[test]
fn key_value_data_survives_a_reset_and_goes_with_its_application() {
    let mut world = World::new();
    world.gateway.set(1, Wanted::wat(COUNTER).capabilities(&["key-value"]));
    for starts in 1..=3u8 {
        let letter = char::from(b'@' + starts).to_string();
        world.until("it counts", 30_000, |world| {
            world.gateway.logs.last().is_some_and(|line| line.3 == letter)
        });
        world = world.reboot();
    }
    world.until_running(&[1]);
    world.gateway.remove(1);
    let link = world.link.clone();
    world.gateway.send_desired(&link);
    world
        .until("its data is removed", 10_000, |world| world.device.platform().storage.disk().data.is_empty());
}

/// A program with so many operators to translate, which then waits.
fn large(operators: usize) -> Wanted {
    let body = "(drop (i32.add (local.get 0) (i32.const 1)))".repeat(operators / 4);
    let start = r#"(func (export "run") (loop (call $wait (i32.const 1000)) (br 0)))"#;
    Wanted::wat(&format!(
        r#"(module (import "wasmbed" "wait" (func $wait (param i32)))
            (memory (export "memory") 1) {start} (func (local i32) {body}))"#
    ))
}

/// Steps until application 2 is being loaded, and answers the arena's bytes before it was.
fn until_it_loads(world: &mut World) -> usize {
    let mut before = 0;
    world.until("the second is being loaded", 60_000, |world| {
        let used = world.device.arena_used_bytes();
        let loads = world.device.loaded() == 1 && before > 0 && used > before;
        before = if loads { before } else { used };
        loads
    });
    before
}

#[test]
fn a_large_module_is_loaded_in_the_pauses_of_its_neighbour() {
    let mut world = World::new();
    let heard = "(loop (call $log (i32.const 0) (i32.const 5)) (call $wait (i32.const 1)) (br 0))";
    let hello = HELLO.find("(call $log").map(|at| format!("{}{heard}))", &HELLO[..at])).unwrap();
    world.gateway.set(1, Wanted::wat(&hello));
    world.until_running(&[1]);
    world.gateway.set(2, large(60_000));
    let link = world.link.clone();
    world.gateway.send_desired(&link);
    // Code takes time from here on: each reading of the clock, a millisecond.
    world.device.platform().timer.step_us = 1_000;
    until_it_loads(&mut world);
    let (lines, mut rounds) = (world.gateway.logs.len(), 0);
    while world.device.loaded() == 1 {
        world.step();
        rounds += 1;
    }
    let lines = world.gateway.logs.len() - lines;
    assert!(rounds >= 50, "it took {rounds} rounds");
    assert!(lines >= rounds / 50, "the neighbour said {lines} lines in {rounds} rounds");
    world.until_running(&[1, 2]);
}

/// The most bytes that a module may have, of which only the last operator is wrong: all that is done with it is scanning.
fn refused_at_its_end() -> Wanted {
    let text = r#"(module (memory (export "memory") 1) (func (export "run") (; operators ;)))"#;
    let module = wat::parse_str(text).unwrap();
    let operators = (1 << 20) - module.len() - 8;
    let number = |value: usize| {
        [0, 7, 14].map(|shift| (value >> shift) as u8 & 0x7f | if shift < 14 { 0x80 } else { 0 })
    };
    // No operator, no operator, ..., one that nobody has, end.
    let body = [&[0][..], &vec![0x01; operators], &[0xff, 0x0b]].concat();
    let code = [&[1][..], &number(body.len()), &body].concat();
    let sections = module.windows(2).rposition(|bytes| bytes == [10, 4]).unwrap();
    Wanted::bytes([&module[..sections], &[10], &number(code.len()), &code].concat())
}

#[test]
fn a_large_module_is_scanned_in_the_pauses_of_its_neighbour() {
    let mut world = World::new();
    let heard = "(loop (call $log (i32.const 0) (i32.const 5)) (call $wait (i32.const 1)) (br 0))";
    let hello = HELLO.find("(call $log").map(|at| format!("{}{heard}))", &HELLO[..at])).unwrap();
    world.gateway.set(1, Wanted::wat(&hello));
    world.until_running(&[1]);
    world.gateway.set(2, refused_at_its_end());
    let link = world.link.clone();
    world.gateway.send_desired(&link);
    world.until("it is there", 600_000, |world| world.device.platform().storage.disk().modules.len() == 2);
    // Code takes time from here on: each reading of the clock, a millisecond.
    world.device.platform().timer.step_us = 1_000;
    let (lines, mut rounds) = (world.gateway.logs.len(), 0);
    while world.state(2) != Some((State::Failed, Reason::InvalidModule)) {
        world.step();
        rounds += 1;
        assert!(rounds < 20_000, "{:?}: {}", world.state(2), world.message(2));
    }
    assert_eq!(world.message(2), "function 0 holds the unknown operator 0xff");
    let lines = world.gateway.logs.len() - lines;
    println!("{rounds} rounds, in which the neighbour said {lines} lines");
    // A round has five steps of 100 operators; all that is done beside takes some hundred rounds.
    assert!(rounds >= 1_500, "it took {rounds} rounds");
    assert!(lines >= rounds / 100, "the neighbour said {lines} lines in {rounds} rounds");
}

#[test]
fn what_is_removed_while_it_is_loaded_leaves_nothing() {
    let mut world = World::new();
    world.gateway.set(1, Wanted::wat(HELLO));
    world.until_running(&[1]);
    world.gateway.set(2, large(60_000));
    let link = world.link.clone();
    world.gateway.send_desired(&link);
    world.device.platform().timer.step_us = 1_000;
    let before = until_it_loads(&mut world);
    world.gateway.remove(2);
    world.gateway.send_desired(&link);
    world.until("it is gone", 5_000, |world| world.gateway.reported_revision.0 == world.gateway.revision);
    assert_eq!((world.device.loaded(), world.device.arena_used_bytes()), (1, before));
    world.gateway.set(2, large(40_000));
    world.gateway.send_desired(&link);
    world.until_running(&[1, 2]);
}

#[test]
fn an_update_replaces_what_runs_only_when_the_new_module_is_there() {
    let mut world = World::new();
    world.gateway.set(1, Wanted::wat(HELLO));
    world.until_running(&[1]);
    let old = world.gateway.wanted.get(&uid(1)).unwrap().digest();
    world.gateway.set(1, Wanted::wat(HELLO).padded(30_000));
    world.gateway.without_modules = true;
    let link = world.link.clone();
    world.gateway.send_desired(&link);
    world.until("it waits for the module", 5_000, |world| {
        world.state(1) == Some((State::Pulling, Reason::ModuleGone))
    });
    assert_eq!(world.device.loaded(), 1, "the old one goes on");
    assert_eq!(world.gateway.reports.get(&uid(1)).unwrap().digest, Some(old));
    world.gateway.without_modules = false;
    world.until_running(&[1]);
    world.until("the old module is removed", 5_000, |world| {
        world.device.platform().storage.disk().modules.len() == 1
    });
}

#[test]
fn each_bad_module_ends_with_its_reason_and_its_neighbour_does_not_notice() {
    let never = RestartPolicy::Never;
    let spin = module(r#"(func (export "run") (loop (br 0)))"#).policy(never);
    let recurse = module(r#"(func $f (call $f)) (func (export "run") (call $f))"#).policy(never);
    let trap = module(r#"(func (export "run") unreachable)"#).policy(never);
    let import = Wanted::wat(r#"(module (import "env" "foo" (func)) (func (export "run")))"#);
    let signature =
        Wanted::wat(r#"(module (import "wasmbed" "wait" (func (param i64))) (func (export "run")))"#);
    let denied = Wanted::wat(COUNTER);
    let text = Wanted::bytes(b"#!/bin/sh".to_vec());
    let grows = module(
        r#"(func (export "run") (loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable)"#,
    )
    .policy(never);
    let done = module(r#"(func (export "run"))"#).policy(RestartPolicy::OnFailure);
    let cases = [
        (spin, State::Failed, Reason::CpuLimit, "CPU"),
        (recurse, State::Failed, Reason::StackLimit, "stack"),
        (trap, State::Failed, Reason::Trapped, "unreachable"),
        (import, State::Failed, Reason::UnknownImport, "foo"),
        (signature, State::Failed, Reason::UnknownImport, "wait"),
        (denied, State::Failed, Reason::CapabilityDenied, "key-value"),
        (text, State::Failed, Reason::InvalidModule, "WebAssembly"),
        (grows, State::Failed, Reason::MemoryLimit, "memory"),
        (done, State::Completed, Reason::Exited, ""),
    ];
    let mut world = World::new();
    world.gateway.set(100, Wanted::wat(HELLO));
    world.until_running(&[100]);
    for (number, (wanted, ..)) in cases.iter().enumerate() {
        world.gateway.set(number as u8, wanted.clone());
    }
    let link = world.link.clone();
    world.gateway.send_desired(&link);
    world.until("all have ended", 60_000, |world| {
        (0..cases.len() as u8).all(|n| matches!(world.state(n), Some((State::Failed | State::Completed, _))))
    });
    for (number, (_, state, reason, word)) in cases.iter().enumerate() {
        let message = world.message(number as u8);
        assert_eq!(world.state(number as u8), Some((*state, *reason)), "{message}");
        assert!(message.contains(word), "{reason:?}: {message:?} should contain {word:?}");
    }
    assert!(running(&world, 100));
    assert_eq!(world.gateway.reports.get(&uid(100)).unwrap().restarts, 0);
}

#[test]
fn an_eleventh_application_is_refused_and_gets_its_place_when_one_goes() {
    let mut world = World::new();
    for number in 1..=10 {
        world.gateway.set(number, Wanted::wat(HELLO));
    }
    let ten: Vec<u8> = (1..=10).collect();
    world.until_running(&ten);
    // Lower in the order than those that run: they keep their places all the same.
    world.gateway.set(0, Wanted::wat(HELLO));
    let link = world.link.clone();
    world.gateway.send_desired(&link);
    world.until("the eleventh is refused", 5_000, |world| {
        world.state(0) == Some((State::Failed, Reason::TooManyApplications))
    });
    assert!(world.message(0).contains("10"));
    assert!(ten.iter().all(|number| running(&world, *number)));
    world.gateway.remove(4);
    world.gateway.send_desired(&link);
    world.until_running(&[0]);
}

#[test]
fn a_crash_loop_backs_off_and_is_reported() {
    let mut world = World::new();
    world.gateway.set(1, module(r#"(func (export "run") unreachable)"#));
    world.until("it crashes", 10_000, |world| world.state(1) == Some((State::CrashLoop, Reason::Trapped)));
    world.run_for(3_600_000);
    let restarts = world.gateway.reports.get(&uid(1)).unwrap().restarts;
    // 1 + 2 + 4 + ... + 256 s, then one each 300 s.
    assert!((15..=21).contains(&restarts), "{restarts} restarts in an hour");
    let mut world = world.reboot();
    world.until("it is reported again", 10_000, |world| world.state(1).is_some());
    assert!(
        world.gateway.reports.get(&uid(1)).unwrap().restarts >= restarts - 1,
        "the count survives a reset"
    );
}

/// Traps two calls deep.
const DEEP: &str = r#"(module (memory (export "memory") 1) (type $t (func)) (table 1 1 funcref) (elem (i32.const 0) $read)
    (func $read (drop (i32.load (i32.const 70000))))
    (func $measure (call_indirect (type $t) (i32.const 0)))
    (func (export "run") (call $measure)))"#;

#[test]
fn a_trap_is_told_once_with_its_functions_and_is_a_line_of_the_log() {
    let mut world = World::new();
    world.gateway.set(1, Wanted::wat(DEEP));
    world.gateway.set(2, module(r#"(func $f (call $f)) (func (export "run") (call $f))"#));
    world.until("each trapped three times", 20_000, |world| {
        [1, 2]
            .iter()
            .all(|number| world.gateway.traps.iter().filter(|trap| trap.0 == uid(*number)).count() >= 3)
    });
    let told = |number| {
        let traps = world.gateway.traps.iter().filter(move |trap| trap.0 == uid(number));
        traps.map(|(_, restarts, text)| (*restarts, text.as_str())).collect::<Vec<_>>()
    };
    let restarts: Vec<_> = told(1).iter().map(|(restarts, _)| *restarts).collect();
    assert_eq!(restarts, (0..restarts.len() as u32).collect::<Vec<_>>());
    let expected = format!(
        "memory access out of bounds at read (function 0, offset {:#x}), called by measure (function 1, offset {:#x}), \
         function 2 (offset {:#x})",
        place(DEEP, &[0x41, 0xf0, 0xa2, 4, 0x28, 2, 0, 0x1a]) + 4,
        place(DEEP, &[0x41, 0, 0x11, 0, 0, 0x0b]) + 2,
        place(DEEP, &[0x10, 1, 0x0b]),
    );
    assert!(told(1).iter().all(|(_, text)| *text == expected), "{:?}", told(1));
    let (_, recursion) = told(2)[0];
    assert!(recursion.starts_with("call stack exhausted at f (function 0, offset 0x"), "{recursion}");
    assert!(recursion.contains(" more"), "{recursion}");
    let lines = world.gateway.logs.iter().filter(|line| line.0 == uid(1)).map(|line| line.3.as_str());
    assert!(lines.take(3).all(|line| line == format!("trapped: {expected}")));
    // The report names the innermost.
    let (innermost, _) = expected.split_once(", called").unwrap();
    world.until("both wait for their next start", 60_000, |world| {
        let crashed = |number, reason| world.state(number) == Some((State::CrashLoop, reason));
        crashed(1, Reason::Trapped) && crashed(2, Reason::StackLimit)
    });
    assert_eq!(world.message(1), format!("trapped: {innermost}"));
    assert!(
        world.message(2).starts_with("call stack exhausted at f (function 0, offset 0x"),
        "{}",
        world.message(2)
    );
}

/// Where these bytes stand in a module.
fn place(module: &str, code: &[u8]) -> usize {
    let module = wat::parse_str(module).unwrap();
    module.windows(code.len()).position(|bytes| bytes == code).unwrap()
}

#[test]
fn traps_wait_for_a_session_and_older_gateways_get_none() {
    let mut world = World::new();
    world.gateway.is_older = true;
    for number in 1..=6 {
        world.gateway.set(number, Wanted { policy: RestartPolicy::Never, ..Wanted::wat(DEEP) });
    }
    world.until("all have trapped", 20_000, |world| {
        (1..=6).all(|number| world.state(number) == Some((State::Failed, Reason::Trapped)))
    });
    world.run_for(5_000);
    assert!(world.gateway.errors.is_empty() && world.gateway.traps.is_empty());
    // The same device at a gateway that takes them.
    world.gateway.is_older = false;
    world.link.cut();
    world.until("the newest are told", 60_000, |world| world.gateway.traps.len() == TRAPS_WAITING_MAX);
    world.run_for(60_000);
    assert_eq!(world.gateway.traps.len(), TRAPS_WAITING_MAX, "once each, and no more than wait");
}

#[test]
fn what_is_completed_stays_completed_over_a_reset() {
    let mut world = World::new();
    world.gateway.set(1, module(r#"(func (export "run"))"#).policy(RestartPolicy::Never));
    world.until("it is done", 10_000, |world| world.state(1) == Some((State::Completed, Reason::Exited)));
    let mut world = world.reboot();
    world.until("it still is", 10_000, |world| world.state(1) == Some((State::Completed, Reason::Exited)));
    assert_eq!(world.device.loaded(), 0);
}

#[test]
fn a_flood_of_lines_is_counted_and_delays_no_neighbour() {
    let flood = Wanted::wat(
        r#"(module (import "wasmbed" "log" (func $log (param i32 i32))) (memory (export "memory") 1)
            (data (i32.const 0) "flood flood flood flood")
            (func (export "run") (loop (call $log (i32.const 0) (i32.const 23)) (br 0))))"#,
    );
    let mut world = World::new();
    world.gateway.set(1, Wanted { cpu_limit_ms: 1_000_000, ..flood });
    world.gateway.set(2, Wanted::wat(HELLO));
    world.until("both are heard", 20_000, |world| {
        let from = |number| world.gateway.logs.iter().any(|line| line.0 == uid(number));
        from(1) && from(2)
    });
    let start = world.gateway.logs.len();
    world.run_for(10_000);
    let lines: Vec<_> =
        world.gateway.logs.split_off(start).into_iter().filter(|line| line.0 == uid(1)).collect();
    let bytes: usize = lines.iter().map(|line| line.3.len()).sum();
    assert!(bytes <= 4_096 * 11, "the gateway's rate holds: {bytes} bytes in 10 s");
    let lost: u64 = lines.iter().map(|line| u64::from(line.2)).sum();
    assert!(lost > 0);
    let (first, last) = (lines.first().unwrap(), lines.last().unwrap());
    assert_eq!(
        last.1 - first.1 + 1 + u64::from(first.2),
        lines.len() as u64 + lost,
        "every line is sent or counted"
    );
}

#[test]
fn a_download_goes_on_where_it_was_cut_also_after_a_reset() {
    let size = 100_000;
    let mut world = World::new();
    world.gateway.set(1, Wanted::wat(HELLO).padded(size));
    let sent = world.gateway.wanted.get(&uid(1)).unwrap().module.len();
    world.gateway.cut_after_bytes = Some(40_000);
    world.until("the link is cut", 20_000, |world| world.gateway.cut_after_bytes.is_none());
    let mut world = world.reboot();
    world.gateway.cut_after_bytes = Some(75_000);
    world.until_running(&[1]);
    let again = world.gateway.chunk_bytes - sent;
    assert!(again <= 2 * 16_384, "at most the range under way is sent again at each cut: {again} bytes");
}

#[test]
fn wrong_bytes_never_run() {
    let mut world = World::new();
    world.gateway.set(1, Wanted::wat(HELLO));
    world.gateway.damages = true;
    world.until("the digest is found wrong", 20_000, |world| {
        world.state(1) == Some((State::Failed, Reason::DigestMismatch))
    });
    assert_eq!(world.device.loaded(), 0);
    assert!(world.device.platform().storage.disk().modules.is_empty());
    world.gateway.damages = false;
    world.until_running(&[1]);
}

#[test]
fn a_module_that_rots_on_storage_is_pulled_again() {
    let mut world = World::new();
    world.gateway.set(1, Wanted::wat(HELLO));
    world.until_running(&[1]);
    let digest = world.gateway.wanted.get(&uid(1)).unwrap().digest();
    world.device.platform().storage.disk().modules.get_mut(&digest).unwrap()[20] ^= 1;
    let mut world = world.reboot();
    world.until_running(&[1]);
}

#[test]
fn a_silent_gateway_is_given_up_and_a_full_one_is_not_hammered() {
    let mut world = World::new();
    world.gateway.set(1, Wanted::wat(HELLO));
    world.until_running(&[1]);
    world.gateway.mute = true;
    world.until("silence is noticed", 40_000, |world| world.device.session().is_none());
    world.gateway.mute = false;
    world.gateway.reject = Some(20_000);
    world.until("it is refused", 120_000, |world| world.gateway.hellos.len() == 2);
    assert_eq!(world.gateway.hellos.get(1).unwrap().2, ResetReason::Reconnect);
    let refused_at = world.now_ms;
    world.until("it comes back", 120_000, |world| world.gateway.hellos.len() == 3);
    assert!(world.now_ms - refused_at >= 20_000, "not before the time it was told");
    world.gateway.reject = None;
    world.until("it is welcome", 120_000, |world| world.device.session().is_some());
    assert_eq!(world.device.loaded(), 1);
}

#[test]
fn full_storage_is_reported_and_recovers_when_something_goes() {
    let mut world = World::new();
    world.gateway.set(1, Wanted::wat(HELLO).padded(60_000));
    world.until_running(&[1]);
    world.device.platform().storage.faults.capacity_bytes = Some(100_000);
    world.gateway.set(2, Wanted::wat(HELLO).padded(60_100));
    let link = world.link.clone();
    world.gateway.send_desired(&link);
    world.until("there is no room", 20_000, |world| {
        world.state(2) == Some((State::Failed, Reason::OutOfFlash))
    });
    assert!(running(&world, 1));
    world.gateway.remove(1);
    world.gateway.send_desired(&link);
    world.until_running(&[2]);
}

#[test]
fn the_module_of_an_ended_application_makes_room_for_another() {
    let mut world = World::new();
    let once = module(r#"(func (export "run"))"#).policy(RestartPolicy::Never);
    world.gateway.set(1, once.padded(60_000));
    let done = Some((State::Completed, Reason::Exited));
    world.until("it is done", 10_000, |world| world.state(1) == done);
    world.device.platform().storage.faults.capacity_bytes = Some(100_000);
    world.gateway.set(2, Wanted::wat(HELLO).padded(60_100));
    let link = world.link.clone();
    world.gateway.send_desired(&link);
    world.until_running(&[2]);
    let mut world = world.reboot();
    world.until_running(&[2]);
    assert_eq!(world.state(1), done, "it is known without its module, and not run again");
}

#[test]
fn a_state_record_that_cannot_be_written_is_said_and_nothing_is_acknowledged() {
    let mut world = World::new();
    world.until("a session is established", 10_000, |world| world.device.session().is_some());
    world.run_for(1_000);
    world.gateway.set(1, Wanted::wat(HELLO));
    for _ in 0..3 {
        world.device.platform().storage.faults.failures.push_back(StorageError::Failed("bad block".into()));
    }
    let link = world.link.clone();
    world.gateway.send_desired(&link);
    world.until("it is said", 10_000, |world| world.state(1) == Some((State::Failed, Reason::StorageFailed)));
    assert_eq!(
        world.gateway.reported_revision.0, 0,
        "a revision that a reset would lose is not acknowledged"
    );
    world.until_running(&[1]);
    assert_eq!(world.gateway.reported_revision.0, 1);
}

#[test]
fn a_huge_declared_frame_costs_the_connection_only() {
    let mut world = World::new();
    world.gateway.set(1, Wanted::wat(HELLO));
    world.until_running(&[1]);
    world.link.with(|channel| channel.to_device.extend([0xff, 0xff, 1, 2, 3]));
    world.until("the connection is given up", 5_000, |world| world.device.session().is_none());
    world.until("a new one is established", 60_000, |world| world.device.session().is_some());
    assert_eq!(world.device.loaded(), 1);
}

/// Deploys two applications and updates one, losing power at the given write and going on after the reset. Whatever was
/// reported as running before the cut runs after it without any gateway.
fn deploy_with_cut(cut: Cut) -> bool {
    let mut world = World::new();
    world.device.platform().storage.faults.cut = Some(cut);
    world.gateway.set(1, Wanted::wat(HELLO).padded(20_000));
    world.gateway.set(2, Wanted::wat(COUNTER).capabilities(&["key-value"]));
    let (mut updated, mut acknowledged) = (false, Vec::new());
    for _ in 0..5_000 {
        if !world.has_power() || world.now_ms > 20_000 {
            break;
        }
        world.step();
        if running(&world, 1) && running(&world, 2) && !updated {
            updated = true;
            world.gateway.set(1, Wanted::wat(HELLO).padded(21_000));
            let link = world.link.clone();
            world.gateway.send_desired(&link);
        }
        acknowledged =
            (1..=2).filter(|n| world.state(*n).is_some_and(|state| state.0 == State::Running)).collect();
    }
    let lost_power = !world.has_power();
    let (revision, digests): (_, Vec<_>) = (
        world.gateway.reported_revision,
        world.gateway.reports.values().filter_map(|report| report.digest).collect(),
    );
    let mut world = world.reboot();
    world.online = false;
    world.run_for(2_000);
    assert!(world.device.loaded() >= acknowledged.len(), "{cut:?}: {acknowledged:?} were acknowledged");
    let agent_revision = world.device.agent().unwrap().revision();
    assert!(
        agent_revision >= revision,
        "{cut:?}: revision {revision} was acknowledged, {agent_revision} is known"
    );
    for digest in digests {
        let kept = world.device.platform().storage.disk().modules.contains_key(&digest);
        let replaced = world.gateway.wanted.values().all(|wanted| wanted.digest() != digest);
        assert!(kept || replaced, "{cut:?}: a module that was acknowledged is gone");
    }
    world.online = true;
    if !updated {
        world.gateway.set(1, Wanted::wat(HELLO).padded(21_000));
    }
    world.until_running(&[1, 2]);
    lost_power
}

#[test]
fn a_cut_at_any_write_loses_nothing_that_was_acknowledged() {
    let mut writes = 0;
    loop {
        let cuts = [0, 499, 500, 1_000].map(|permille| deploy_with_cut(Cut { writes, permille }));
        if cuts == [false; 4] {
            break;
        }
        writes += 1;
    }
    assert!(writes >= 12, "the deployment has at least so many writes: {writes}");
}

/// Reads the monotonic clock as often as it can, logs `back` at the first step back, and `ok` after 2,000 readings.
const CLOCK: &str = r#"(module
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
    (import "wasmbed" "log" (func $log (param i32 i32)))
    (import "wasmbed" "wait" (func $wait (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "backok")
    (func $now (result i64)
        (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 8)))
        (i64.load (i32.const 8)))
    (func (export "run") (local $before i64) (local $now i64) (local $count i32)
        (loop $next
            (local.set $now (call $now))
            (if (i64.lt_u (local.get $now) (local.get $before))
                (then (call $log (i32.const 0) (i32.const 4)) unreachable))
            (local.set $before (local.get $now))
            (local.set $count (i32.add (local.get $count) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $count) (i32.const 2000))))
        (call $log (i32.const 4) (i32.const 2))
        (loop (call $wait (i32.const 60000)) (br 0))))"#;

#[test]
fn the_clock_of_applications_never_goes_back() {
    let mut world = World::new();
    world.gateway.set(1, Wanted::wat(CLOCK).policy(RestartPolicy::Never));
    let mut round = 0;
    world.until("it has read the clock", 60_000, |world| {
        // The loop is told whole milliseconds; the timer has more, and a round takes now this long and now that.
        round += 1;
        world.device.platform().timer.step_us = round * 37 % 50;
        !world.gateway.logs.is_empty()
    });
    assert_eq!(world.gateway.logs, [(uid(1), 1, 0, "ok".into())]);
}
