//! What applications publish: it arrives, and nothing that a gateway or an application does keeps a neighbour's from it.
#![cfg(test)]

mod support;

use support::{Message, Wanted, World, uid};
use wasmbed_protocol::{ApplicationState as State, ReportReason as Reason};

/// Publishes 1, 2, 3 and so on to `count`, every so many milliseconds; one that is not taken is tried again, unless the
/// oldest make room. What was not taken is counted in a line of its log.
fn counting(every_ms: u32, flags: u32) -> Wanted {
    let text = format!(
        r#"(module
            (import "wasmbed" "publish" (func $publish (param i32 i32 i32 i32 i32) (result i32)))
            (import "wasmbed" "log" (func $log (param i32 i32)))
            (import "wasmbed" "wait" (func $wait (param i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "count") (data (i32.const 8) "again")
            (func (export "run")
                (i32.store (i32.const 16) (i32.const 1))
                (loop
                    (if (i32.eqz (call $publish (i32.const 0) (i32.const 5) (i32.const 16) (i32.const 4) (i32.const {flags})))
                        (then (i32.store (i32.const 16) (i32.add (i32.load (i32.const 16)) (i32.const 1))))
                        (else (call $log (i32.const 8) (i32.const 5))))
                    (call $wait (i32.const {every_ms}))
                    (br 0))))"#
    );
    Wanted::wat(&text).topics(&[("count", 100)])
}

/// The counts of an application's messages, in the order in which they came.
fn counts(messages: &[Message], number: u8) -> Vec<u32> {
    let from = messages.iter().filter(|message| message.uid == uid(number));
    from.map(|message| u32::from_le_bytes(message.payload[..].try_into().unwrap())).collect()
}

fn is_one_after_the_other(counts: &[u32]) -> bool {
    counts.windows(2).all(|pair| pair[0] + 1 == pair[1])
}

#[test]
fn what_is_published_arrives_once_and_in_its_order() {
    let mut world = World::new();
    world.gateway.keeps_messages = true;
    world.gateway.set(1, counting(100, 0));
    world.gateway.set(2, counting(70, 0));
    world.until_running(&[1, 2]);
    world.run_for(20_000);
    for (number, at_least) in [(1, 150), (2, 200)] {
        let counts = counts(&world.gateway.messages, number);
        assert!(counts.len() >= at_least && counts[0] == 1 && is_one_after_the_other(&counts), "{counts:?}");
    }
    let sequences: Vec<u64> = world.gateway.messages.iter().map(|message| message.sequence).collect();
    assert!(sequences.windows(2).all(|pair| pair[0] < pair[1]), "one number for each message of the device");
    let first = &world.gateway.messages[0];
    assert_eq!((&first.topic[..], first.boot, first.lost), ("count", 1, 0));
    assert!(world.gateway.logs.is_empty(), "each was taken at the first try");
}

#[test]
fn what_is_not_acknowledged_is_sent_in_every_session_also_after_its_application_crashed() {
    let mut world = World::new();
    let crash = r#"(module
        (import "wasmbed" "publish" (func $publish (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1) (data (i32.const 0) "last words")
        (func (export "run")
            (drop (call $publish (i32.const 0) (i32.const 4) (i32.const 5) (i32.const 5) (i32.const 0))) unreachable))"#;
    world.gateway.set(1, Wanted::wat(crash).topics(&[("last", 1)]));
    world.until("its message comes", 20_000, |world| !world.gateway.messages.is_empty());
    for _ in 0..3 {
        let before = world.gateway.messages.len();
        world.link.cut();
        world.until("it comes again", 60_000, |world| world.gateway.messages.len() > before);
    }
    let first = world.gateway.messages[0].clone();
    let again = world.gateway.messages.iter().filter(|message| **message == first).count();
    assert!(again >= 4, "once in each session: {again}");
    // A start that can be told from the last one.
    world.gateway.keeps_messages = true;
    let mut world = world.reboot();
    world.gateway.messages.clear();
    world.until("its message comes", 60_000, |world| !world.gateway.messages.is_empty());
    assert_eq!((world.gateway.messages[0].boot, world.gateway.messages[0].sequence), (2, 1));
}

#[test]
fn a_gateway_that_takes_none_gets_none_and_nothing_is_lost_that_was_taken() {
    let mut world = World::new();
    world.gateway.is_older = true;
    world.gateway.keeps_messages = true;
    world.gateway.set(1, counting(100, 0));
    world.until("its application is told", 60_000, |world| {
        world.gateway.logs.iter().any(|line| line.3 == "again")
    });
    assert!(world.gateway.errors.is_empty() && world.gateway.messages.is_empty());
    world.gateway.is_older = false;
    world.link.cut();
    world.until("what waited arrives", 60_000, |world| world.gateway.messages.len() > 70);
    world.run_for(20_000);
    let counts = counts(&world.gateway.messages, 1);
    assert!(counts[0] == 1 && is_one_after_the_other(&counts), "{counts:?}");
}

#[test]
fn the_oldest_make_room_where_that_is_asked_for_and_are_counted() {
    let mut world = World::new();
    world.gateway.is_older = true;
    world.gateway.keeps_messages = true;
    world.gateway.set(1, counting(100, 1));
    world.until_running(&[1]);
    world.run_for(60_000);
    assert!(world.gateway.logs.is_empty(), "each was taken");
    world.gateway.is_older = false;
    world.link.cut();
    world.until("the newest arrive", 60_000, |world| world.gateway.messages.len() > 100);
    let counts = counts(&world.gateway.messages, 1);
    assert!(counts[0] > 100 && is_one_after_the_other(&counts), "{counts:?}");
    assert_eq!(world.gateway.messages[0].lost, counts[0] - 1, "every one before it");
    assert!(world.gateway.messages[1..].iter().all(|message| message.lost == 0));
}

#[test]
fn an_application_that_publishes_without_end_keeps_no_neighbour_waiting() {
    let flood = r#"(module
        (import "wasmbed" "publish" (func $publish (param i32 i32 i32 i32 i32) (result i32)))
        (import "wasmbed" "wait" (func $wait (param i32)))
        (memory (export "memory") 1) (data (i32.const 0) "flood")
        (func (export "run") (loop
            (drop (call $publish (i32.const 0) (i32.const 5) (i32.const 0) (i32.const 1024) (i32.const 1))) (br 0))))"#;
    let mut world = World::new();
    world.gateway.keeps_messages = true;
    world.gateway.set(1, Wanted { cpu_limit_ms: 1_000_000, ..Wanted::wat(flood).topics(&[("flood", 20)]) });
    world.gateway.set(2, counting(100, 0));
    world.until("both run", 20_000, |world| {
        [1, 2].iter().all(|number| world.gateway.messages.iter().any(|message| message.uid == uid(*number)))
    });
    world.gateway.messages.clear();
    world.run_for(15_000);
    let flooded = world.gateway.messages.iter().filter(|message| message.uid == uid(1)).count();
    assert!((250..=320).contains(&flooded), "its rate holds: {flooded} in 15 s");
    let counts = counts(&world.gateway.messages, 2);
    assert!(counts.len() >= 130 && is_one_after_the_other(&counts), "{counts:?}");
    assert!(world.gateway.heartbeats >= 1);
}

#[test]
fn topics_that_are_not_declared_are_refused_to_the_application() {
    let tries = |topic: &str, answer: i32| {
        let text = format!(
            r#"(module
                (import "wasmbed" "publish" (func $publish (param i32 i32 i32 i32 i32) (result i32)))
                (import "wasmbed" "wait" (func $wait (param i32)))
                (memory (export "memory") 1) (data (i32.const 0) "{topic}")
                (func (export "run")
                    (if (i32.ne (call $publish (i32.const 0) (i32.const 5) (i32.const 0) (i32.const 1) (i32.const 0))
                        (i32.const {answer})) (then unreachable))
                    (loop (call $wait (i32.const 1000)) (br 0))))"#
        );
        Wanted::wat(&text)
    };
    let mut world = World::new();
    world.gateway.keeps_messages = true;
    world.gateway.set(1, tries("other", -44).topics(&[("count", 1), ("othe", 1)]));
    world.gateway.set(2, tries("other", -44).capabilities(&["messages"]));
    world.gateway.set(3, tries("count", 0).topics(&[("count", 1)]));
    world.gateway.set(4, tries("count", 0));
    world.until_running(&[1, 2, 3]);
    world.until("the fourth is refused", 20_000, |world| {
        world.state(4) == Some((State::Failed, Reason::CapabilityDenied))
    });
    world.run_for(10_000);
    assert_eq!(world.gateway.messages.len(), 1);
    assert!([1, 2, 3].iter().all(|number| world.runs_wanted(*number)), "none has trapped");
}
