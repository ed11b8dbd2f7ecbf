//! Where applications trapped becomes Events: of their devices, counted up, within the shares of device and application.

use wasmbed_api::ReasonCode;
use wasmbed_protocol::{StackFrame, Trap, TrapKind};

use super::*;

const HASH: SpecHash = SpecHash([5; 32]);

fn trap(application: u8, kind: TrapKind, function: u32, name: &'static str) -> DeviceMessage<'static> {
    let frames = [
        StackFrame { function, offset: Some(0x1a3), name },
        StackFrame { function: 4, offset: None, name: "" },
    ];
    DeviceMessage::Trap(Trap {
        uid: ApplicationUid([application; 16]),
        spec_hash: HASH,
        restarts: 0,
        kind,
        frames: List::new(Box::leak(Box::new(frames))),
        frames_left_out: 0,
    })
}

/// Events with another reason than `SessionEstablished`.
fn told(world: &World) -> Vec<&Event> {
    world.api.events.iter().filter(|event| event.reason != ReasonCode::SessionEstablished).collect()
}

#[test]
fn an_event_says_where_and_the_report_makes_no_second_one() {
    let mut world = World::synced();
    world.device("a");
    let id = world.hello("a", 0, 0);
    for _ in 0..3 {
        world.send(id, &trap(1, TrapKind::MemoryOutOfBounds, 12, "sensor::read"));
        world.send(id, &reported(1, &[report(1, HASH, ApplicationState::CrashLoop, ReportReason::Trapped)]));
        world.send(id, &reported(1, &[report(1, HASH, ApplicationState::Running, ReportReason::None)]));
        world.advance(2_000);
    }
    let name = ApplicationUid([1; 16]);
    let expected = format!(
        "application {name}: memory access out of bounds at sensor::read (function 12, offset 0x1a3), called by function 4"
    );
    assert!(told(&world).iter().all(|event| event.message == expected), "{:?}", world.api.events);
    assert!(told(&world).iter().all(|event| event.warning && event.reason == ReasonCode::Trapped));
    assert_eq!(world.api.occurrences.len(), 1 + 1, "one object, counted up");
    // Another assignment that traps without saying where is told as before.
    let other = report(1, SpecHash([6; 32]), ApplicationState::CrashLoop, ReportReason::Trapped);
    world.send(id, &reported(1, &[other]));
    world.advance(2_000);
    assert_eq!(world.api.occurrences.len(), 1 + 2);
}

#[test]
fn names_act_on_no_terminal_and_limits_keep_their_reasons() {
    let mut world = World::synced();
    world.device("a");
    let id = world.hello("a", 0, 0);
    world.send(id, &trap(1, TrapKind::StackOverflow, 1, "a\u{1b}[2J\u{202e}b\n"));
    world.send(id, &trap(2, TrapKind::MemoryLimit, 1, ""));
    world.send(id, &trap(3, TrapKind::Unknown(99), 1, ""));
    world.advance(2_000);
    let told: Vec<_> = told(&world).iter().map(|event| (event.reason, event.message.as_str())).collect();
    assert_eq!(told[0].0, ReasonCode::StackLimit);
    assert!(!told[0].1.contains(char::is_control) && told[0].1.contains("\\u{202e}"), "{told:?}");
    assert_eq!((told[1].0, told[2].0), (ReasonCode::MemoryLimit, ReasonCode::Trapped));
}

#[test]
fn what_to_do_about_each_trap_is_documented() {
    let documented = include_str!("../../../../../docs/reasons.md");
    let kinds = (0..).map(TrapKind::from).take_while(|kind| !matches!(kind, TrapKind::Unknown(_)));
    let sentences: Vec<_> = kinds.map(TrapKind::sentence).collect();
    assert!(sentences.len() >= 13, "{sentences:?}");
    for sentence in sentences {
        assert!(
            documented.contains(&format!("| `{sentence}` |")),
            "docs/reasons.md is silent about {sentence:?}"
        );
    }
}

#[test]
fn a_flood_of_traps_costs_its_application_five_events() {
    let mut world = World::synced();
    world.device("a");
    let id = world.hello("a", 0, 0);
    for function in 0..500 {
        world.send(
            id,
            &trap(1, TrapKind::Unreachable, function, "\u{1b}\u{1b}\u{1b}\u{1b}\u{1b}\u{1b}\u{1b}\u{1b}"),
        );
        world.advance(10);
    }
    assert!(world.api.occurrences.len() <= 1 + 5, "{}", world.api.occurrences.len());
    assert!(world.api.events.iter().all(|event| event.message.len() <= 1_024));
}
