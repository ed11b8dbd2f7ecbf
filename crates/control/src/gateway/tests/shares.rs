//! What one device sends costs its own share and nobody else's.

use super::*;

fn log(uid: u64, text: &str) -> DeviceMessage<'_> {
    let mut bytes = [7; 16];
    bytes[8..].copy_from_slice(&uid.to_be_bytes());
    let (uid, sequence) = (ApplicationUid(bytes), Sequence(uid));
    DeviceMessage::Log(wasmbed_protocol::Log { uid, sequence, lines_lost: 0, text })
}

#[test]
fn a_new_session_brings_no_new_allowance_for_logs() {
    let mut world = World::synced();
    world.device("a");
    for session in 0..8_u64 {
        let id = world.hello("a", session, 0);
        for line in 0..256 {
            world.send(id, &log(session * 256 + line, ""));
        }
    }
    let taken = 8 * 256 - world.gateway.counters().log_lines_dropped;
    assert_eq!(taken, u64::from(config::LOG_BYTES_BURST) / 64, "lines of 64 bytes and less");
}

fn error() -> DeviceMessage<'static> {
    DeviceMessage::Error(wasmbed_protocol::ErrorNotice { code: ErrorCode::Stale, tag: None, detail: "x" })
}

/// Sends as fast as the gateway reads until `ms` have passed, in a new session for every `session_frames`.
fn flood(
    world: &mut World,
    name: &str,
    ms: u64,
    session_frames: usize,
    mut message: impl FnMut(usize) -> DeviceMessage<'static>,
) -> usize {
    let end = world.now.ms + ms;
    let (mut sent, mut sessions) = (0, 0);
    while world.now.ms < end {
        sessions += 1;
        let id = world.hello(name, sessions, 0);
        for _ in 0..session_frames {
            let wait = world.read_in_ms.get(&id).copied().unwrap_or(0);
            if wait > 0 {
                world.advance(wait);
                let mut buffer = [0; FRAME_BYTES_MAX];
                let transmit = world.gateway.poll_transmit(world.now, id, &mut buffer);
                world.read_in_ms.insert(id, transmit.read_in_ms);
            }
            if world.now.ms >= end || world.closed.contains_key(&id) {
                break;
            }
            world.send(id, &message(sent));
            let mut buffer = [0; FRAME_BYTES_MAX];
            let transmit = world.gateway.poll_transmit(world.now, id, &mut buffer);
            world.read_in_ms.insert(id, transmit.read_in_ms);
            sent += 1;
        }
    }
    sent
}

#[test]
fn a_flood_of_errors_is_read_slowly_and_logged_in_a_few_lines() {
    let mut world = World::synced();
    world.device("a");
    world.device("b");
    let b = world.hello("b", 0, 0);
    let lines = world.lines;
    let sent = flood(&mut world, "a", 30_000, usize::MAX, |_| error());
    assert!((1_500..=1_024 + 30 * 64 + 2).contains(&sent), "{sent} frames in 30 s");
    assert!(world.lines - lines <= 64 + 30 + 2 * 5, "{} lines", world.lines - lines);
    let counters = world.gateway.counters();
    assert!(counters.notices_left_out > 1_000 && counters.devices_slowed == 1, "{counters:?}");
    // A neighbour has its own share.
    world.send(b, &heartbeat(1));
    assert!(world.take(b).iter().any(|message| message.starts_with("HeartbeatAck")));
    assert_eq!(world.read_in_ms.get(&b).copied().unwrap_or(0), 0);
}

#[test]
fn a_new_session_brings_no_new_share_of_frames_or_lines() {
    let mut world = World::synced();
    world.device("a");
    let lines = world.lines;
    let sent = flood(&mut world, "a", 30_000, 100, |_| error());
    assert!(sent <= 1_024 + 30 * 64 + 2, "{sent} frames in 30 s");
    assert!(world.lines - lines <= 64 + 30 + 2 * 5, "{} lines", world.lines - lines);
}

#[test]
fn a_state_that_never_rests_costs_few_writes_and_events_and_the_newest_is_written() {
    let mut world = World::synced();
    let device = world.device("a");
    let reasons = [
        ReportReason::Trapped,
        ReportReason::CpuLimit,
        ReportReason::MemoryLimit,
        ReportReason::StackLimit,
        ReportReason::OutOfMemory,
    ];
    let mut revision = 0;
    let sent = flood(&mut world, "a", 60_000, usize::MAX, |number| {
        revision = number as u64;
        let applications: Vec<_> = (0..10)
            .map(|application| {
                let reason = reasons[(number + usize::from(application)) % reasons.len()];
                let mut report = report(application, SpecHash([5; 32]), ApplicationState::Failed, reason);
                report.restarts = number as u32;
                report
            })
            .collect();
        reported(revision, &applications)
    });
    assert!(sent > 300, "{sent}");
    let patches = world.api.calls.iter().filter(|call| **call == "patch").count();
    assert!((20..=50).contains(&patches), "{patches} writes of {sent} reports in a minute");
    let objects = world.api.occurrences.len();
    assert!(objects <= 27, "{objects} Events, written {} times", world.api.events.len());
    assert!(world.api.events.len() <= 30, "{}", world.api.events.len());
    world.advance(60_000);
    assert_eq!(world.api.status(&device).revision, Some(revision as i64), "the newest truth");
    let lines = world.lines;
    assert!(lines <= 64 + 120 + 40, "{lines} lines");
}

#[test]
fn controllers_are_told_of_changes_no_faster_than_they_need() {
    let mut world = World::synced();
    world.device("a");
    let id = world.hello("a", 0, 0);
    let first = world.gateway.versions().stream;
    let mut sent = 0;
    while sent < 1_000 {
        sent += 1;
        world.send(id, &reported(sent, &[]));
    }
    let changes = world.gateway.versions().stream - first;
    assert!(changes <= 64, "{changes} changes told of {sent}");
    world.advance(1_000);
    let mut cursor = world.gateway.stream_resume(None);
    let events = world.stream(&mut cursor);
    assert!(events.iter().any(
        |event| matches!(event, StreamEvent::Device { device, .. } if device.revision_reported == Some(sent))
    ));
    assert!(world.gateway.versions().stream > first + changes, "the last one follows");
}

#[test]
fn a_device_has_a_few_connections_and_strangers_have_places_of_their_own() {
    let mut world = World::with(Config { sessions_max: 4, ..Config::new("gw", "boot") });
    world.list();
    world.device("a");
    world.device("b");
    let accept = |world: &mut World, identity: &Identity| {
        world.next_session += 1;
        let id = SessionId(world.next_session);
        world.gateway.handle_accepted(world.now, id, identity)
    };
    let open = (0..100).filter(|_| accept(&mut world, &identity("a"))).count();
    assert_eq!(open, config::CONNECTIONS_PER_DEVICE_MAX);
    world.settle();
    assert_eq!(
        world.gateway.levels(world.now).connections,
        config::CONNECTIONS_PER_DEVICE,
        "the oldest gave way"
    );
    let mismatched = Identity { public_key: "another".into(), ..identity("b") };
    let strangers = (0..config::STRANGERS_MAX + 100)
        .filter(|number| accept(&mut world, &identity(&format!("stranger-{number}"))))
        .count();
    assert_eq!(strangers, config::STRANGERS_MAX);
    assert!(!accept(&mut world, &mismatched), "another's key is a stranger's");
    let id = world.hello("b", 0, 0);
    assert!(world.take(id)[0].starts_with("Welcome"), "the device itself has its place");
}

#[test]
fn places_come_back() {
    let mut world = World::synced();
    for round in 0..50 {
        let id = world.hello("new", round, 0);
        assert_eq!(world.closed.get(&id), Some(&CloseReason::PendingApproval));
    }
    world.edit(&key("new"), |device| device.spec.approved = true);
    for round in 0..50 {
        let id = world.hello("new", round, 0);
        world.advance(config::CLAIM_WAIT_MS);
        assert!(world.take(id)[0].starts_with("Welcome"), "{round}");
    }
    assert_eq!(world.gateway.levels(world.now).connections, 1);
}

#[test]
fn numbers_that_are_believed_and_not_believed_in_turn_cost_few_writes() {
    let mut world = World::synced();
    world.device("a");
    for round in 0..2_000_u64 {
        world.hello("a", if round % 2 == 0 { 0 } else { 1 << 60 }, 0);
        world.advance(5);
    }
    let patches = world.api.calls.iter().filter(|call| **call == "patch").count();
    assert!(patches < 30, "{patches} writes in 10 s");
}
