//! What applications publish: it arrives, and nothing that a gateway or an application does keeps a neighbour's from it.
#![cfg(test)]

mod support;

use support::{Message, Wanted, World, uid};
use wasmbed_protocol::{
    ApplicationState as State, Delivery, ReportReason as Reason, RestartPolicy, limits::DELIVERIES_MAX,
};

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

/// Logs what comes in, without the byte for its source, and traps on a message that ends with `!`.
fn listening() -> Wanted {
    Wanted::wat(
        r#"(module
            (import "wasmbed" "receive" (func $receive (param i32 i32) (result i32)))
            (import "wasmbed" "log" (func $log (param i32 i32)))
            (import "wasmbed" "wait" (func $wait (param i32)))
            (memory (export "memory") 1)
            (func (export "run") (local i32)
                (loop
                    (if (i32.gt_s (local.tee 0 (call $receive (i32.const 0) (i32.const 1090))) (i32.const 0)) (then
                        (call $log (i32.const 2) (i32.sub (local.get 0) (i32.const 2)))
                        (if (i32.eq (i32.load8_u (i32.sub (local.get 0) (i32.const 1))) (i32.const 33)) (then unreachable))
                        (br 1)))
                    (call $wait (i32.const 3600000))
                    (br 0))))"#,
    )
    .topic_in("light", 10)
}

#[test]
fn what_comes_in_ends_a_wait_and_is_answered() {
    let mut world = World::new();
    world.gateway.set(1, listening());
    world.gateway.set(2, Wanted::wat(r#"(module (func (export "run")))"#).policy(RestartPolicy::Never));
    world.until_running(&[1]);
    world.until("the second ends", 20_000, |world| world.state(2).is_some_and(|it| it.0 == State::Completed));
    world.gateway.send_message(&world.link, 1, 1, "light", b" on");
    world.gateway.send_message(&world.link, 2, 1, "other", b" on");
    world.gateway.send_message(&world.link, 3, 2, "light", b" on");
    world.gateway.send_message(&world.link, 4, 3, "light", b" on");
    let begun_ms = world.now_ms;
    world.until("all are answered", 2_000, |world| world.gateway.deliveries.len() == 4);
    world.until("its line comes", 2_000, |world| !world.gateway.logs.is_empty());
    assert!(world.now_ms - begun_ms < 500, "at once");
    let answers = [
        (1, Delivery::Taken),
        (2, Delivery::UnknownTopic),
        (3, Delivery::NotRunning),
        (4, Delivery::NotRunning),
    ];
    assert_eq!(world.gateway.deliveries, answers);
    assert_eq!(world.gateway.logs[0].3, "light on");
}

#[test]
fn what_came_in_is_there_after_a_crash_and_gone_with_its_assignment() {
    let mut world = World::new();
    world.gateway.set(1, listening());
    world.until_running(&[1]);
    for (sequence, payload) in [(1, " a!"), (2, " b!"), (3, " c")] {
        world.gateway.send_message(&world.link, sequence, 1, "light", payload.as_bytes());
    }
    let came_in = |world: &World| -> Vec<String> {
        let lines = world.gateway.logs.iter().map(|line| line.3.clone());
        lines.filter(|line| line.starts_with("light")).collect()
    };
    world.until("all arrive", 60_000, |world| came_in(world).len() == 3);
    assert_eq!(came_in(&world), ["light a!", "light b!", "light c"]);
    assert_eq!(world.gateway.traps.len(), 2);

    // One that never looks is full, and says so; a new assignment begins with nothing.
    let deaf = r#"(module (import "wasmbed" "wait" (func $wait (param i32)))
        (func (export "run") (loop (call $wait (i32.const 1000)) (br 0))))"#;
    world.gateway.set(1, Wanted::wat(deaf).topic_in("light", 10));
    world.gateway.send_desired(&world.link);
    world.until_running(&[1]);
    world.gateway.deliveries.clear();
    world.gateway.send_message(&world.link, 4, 1, "light", &[b'x'; 1_024]);
    world.gateway.send_message(&world.link, 5, 1, "light", &[b'x'; 1_024]);
    world.until("both are answered", 2_000, |world| world.gateway.deliveries.len() == 2);
    assert_eq!(world.gateway.deliveries, [(4, Delivery::Taken), (5, Delivery::NoRoom)]);
    world.gateway.set(1, listening());
    world.gateway.send_desired(&world.link);
    world.until_running(&[1]);
    world.gateway.send_message(&world.link, 6, 1, "light", b" d");
    world.until("it arrives", 5_000, |world| came_in(world).len() > 3);
    assert_eq!(came_in(&world)[3..], ["light d"]);
}

#[test]
fn a_gateway_that_sends_more_than_it_may_loses_its_session_and_nothing_else() {
    let mut world = World::new();
    world.gateway.set(1, listening());
    world.until_running(&[1]);
    let sessions = world.gateway.hellos.len();
    for sequence in 0..=DELIVERIES_MAX as u64 {
        world.gateway.send_message(&world.link, sequence, 1, "light", b"");
    }
    world.until("a new session", 60_000, |world| world.gateway.hellos.len() > sessions);
    world.gateway.deliveries.clear();
    world.until_running(&[1]);
    world.gateway.send_message(&world.link, 1, 1, "light", b" on");
    world.until("it is taken", 5_000, |world| !world.gateway.deliveries.is_empty());
    assert_eq!(world.gateway.deliveries, [(1, Delivery::Taken)]);
}
