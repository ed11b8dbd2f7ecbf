use super::*;

const HASH: SpecHash = SpecHash([5; 32]);

#[test]
fn results_are_the_devices_own_words() {
    let mut world = World::synced();
    let device = world.device("a");
    let id = world.hello("a", 0, 0);
    world.send(id, &reported(1, &[report(1, HASH, ApplicationState::Running, ReportReason::None)]));
    world.advance(config::RESULT_DEBOUNCE_MS);
    let status = world.api.status(&device);
    assert_eq!(status.revision, Some(1));
    assert_eq!(status.applications[0].state, wasmbed_api::DeviceApplicationState::Running);
    let calls = world.api.calls.len();
    world.send(id, &reported(1, &[report(1, HASH, ApplicationState::Running, ReportReason::None)]));
    world.advance(1_000);
    assert_eq!(world.api.calls.len(), calls, "nothing new, nothing written");
}

#[test]
fn a_crash_loop_is_one_event() {
    let mut world = World::synced();
    world.device("a");
    let id = world.hello("a", 0, 0);
    for _ in 0..5 {
        world.send(id, &reported(1, &[report(1, HASH, ApplicationState::CrashLoop, ReportReason::Trapped)]));
        world.send(id, &reported(1, &[report(1, HASH, ApplicationState::Running, ReportReason::None)]));
    }
    world.advance(5_000);
    let traps = world.api.events.iter().filter(|event| event.reason == wasmbed_api::ReasonCode::Trapped);
    assert_eq!(traps.count(), 1);
}

#[test]
fn a_short_absence_costs_one_write() {
    let mut world = World::synced();
    let device = world.device("a");
    let id = world.hello("a", 0, 0);
    let calls = world.api.calls.len();
    world.gateway.handle_closed(world.now, id, "reset");
    world.advance(config::EDGE_DEBOUNCE_MS - 1);
    world.hello("a", 1, 0);
    world.advance(5_000);
    assert_eq!(world.api.calls.len() - calls, 1);
    assert_eq!(world.api.status(&device).epoch, Some(2));
}

#[test]
fn conflicts_are_read_again_and_resolved() {
    let mut world = World::synced();
    let device = world.device("a");
    let id = world.hello("a", 0, 0);
    // Somebody labels the Device; the watch has not shown it yet.
    world
        .api
        .edit(&device, |device| device.metadata.labels = Some(BTreeMap::from([("a".into(), "b".into())])));
    world.send(id, &reported(2, &[]));
    world.advance(1_000);
    assert_eq!(world.api.status(&device).revision, Some(2));
    assert_eq!(world.api.calls, ["patch", "patch", "get", "patch"]);
    assert!(world.api.devices[&device].metadata.labels.is_some());
}

#[test]
fn nothing_is_lost_while_the_api_is_away() {
    let mut world = World::synced();
    let device = world.device("a");
    let id = world.hello("a", 0, 0);
    world.api_down = true;
    world.send(id, &reported(3, &[report(1, HASH, ApplicationState::Failed, ReportReason::OutOfMemory)]));
    world.advance(300_000 / 4);
    world.send(id, &heartbeat(1));
    world.api_down = false;
    world.advance(crate::backoff::API_PAUSE_MS_MAX);
    let status = world.api.status(&device);
    assert_eq!((status.revision, status.applications.len()), (Some(3), 1));
    assert!(world.api.events.iter().any(|event| event.reason == wasmbed_api::ReasonCode::OutOfMemory));
}

#[test]
fn throttling_is_obeyed() {
    let mut world = World::synced();
    world.device("a");
    let id = world.connect(&identity("a"));
    let mut frame = [0; FRAME_BYTES_MAX];
    let length = encode_device(&DeviceMessage::Hello(hello(0, 0)), &mut frame).unwrap();
    world.gateway.handle_frame(world.now, id, &frame[2..length]);
    let write = world.gateway.poll_write(world.now).unwrap();
    world.gateway.handle_write_result(world.now, write.id, WriteOutcome::Throttled { retry_after_ms: 7_000 });
    assert!(world.gateway.poll_write(world.now).is_none());
    let later = Now { ms: world.now.ms + 6_999, ..world.now };
    assert!(world.gateway.poll_write(later).is_none());
    let later = Now { ms: world.now.ms + 7_000, ..world.now };
    assert!(world.gateway.poll_write(later).is_some());
}

#[test]
fn the_late_answer_of_a_write_does_not_bring_a_deleted_device_back() {
    let mut world = World::synced();
    let device = world.device("a");
    let id = world.connect(&identity("a"));
    let mut frame = [0; FRAME_BYTES_MAX];
    let length = encode_device(&DeviceMessage::Hello(hello(0, 0)), &mut frame).unwrap();
    world.gateway.handle_frame(world.now, id, &frame[2..length]);
    let write = world.gateway.poll_write(world.now).unwrap();
    let outcome = world.api.call(write.call);
    assert!(matches!(outcome, WriteOutcome::Done(Some(_))));
    world.api.devices.remove(&device);
    world.gateway.handle_device_deleted(world.now, &device, None);
    world.settle();
    world.gateway.handle_write_result(world.now, write.id, outcome);
    world.settle();
    let id = world.hello("a", 1, 3);
    assert_eq!(world.closed.get(&id), Some(&CloseReason::Deleted));
}

#[test]
fn signs_of_life_are_written_now_and_then() {
    let mut world = World::synced();
    let device = world.device("a");
    let id = world.hello("a", 0, 0);
    let first = world.api.status(&device).last_heartbeat;
    let calls = world.api.calls.len();
    for sequence in 0..12 {
        world.advance(10_000);
        world.send(id, &heartbeat(sequence));
    }
    assert_ne!(world.api.status(&device).last_heartbeat, first);
    let written = world.api.calls.len() - calls;
    assert!((3..=4).contains(&written), "{written} writes in 120 s");
}

#[test]
fn devices_of_an_earlier_life_that_do_not_come_back_are_disconnected() {
    let mut world = World::synced();
    let (a, b) = (world.device("a"), world.device("b"));
    world.hello("a", 0, 0);
    world.hello("b", 0, 0);
    world.restart(Config::new("gw", "boot-2"), true);
    world.list();
    world.hello("b", 1, 0);
    assert_eq!(world.api.status(&a).phase, DevicePhase::Connected, "it may still come back");
    let id = SessionId(world.next_session - 1);
    for sequence in 0..4 {
        world.advance(30_000);
        world.send(id, &heartbeat(sequence));
    }
    assert_eq!(world.api.status(&a).phase, DevicePhase::Disconnected);
    assert_eq!(world.api.status(&b).phase, DevicePhase::Connected);
}

#[test]
fn conditions_of_others_stay() {
    let mut world = World::synced();
    let device = world.device("a");
    let inspected = k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition {
        type_: "Inspected".into(),
        status: "True".into(),
        reason: "Visited".into(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
        ),
    };
    world.edit(&device, |device| {
        device.status = Some(DeviceStatus { conditions: vec![inspected.clone()], ..DeviceStatus::default() });
    });
    world.hello("a", 0, 0);
    let conditions = world.api.status(&device).conditions;
    assert!(conditions.contains(&inspected), "{conditions:?}");
    assert!(conditions.iter().any(|condition| condition.type_ == "Connected"), "{conditions:?}");
}

#[test]
fn the_status_of_another_gateways_device_is_left_alone() {
    let mut world = World::synced();
    let device = world.device("a");
    world.edit(&device, |device| {
        device.status = Some(DeviceStatus {
            phase: DevicePhase::Connected,
            gateway: Some("other".into()),
            epoch: Some(3),
            ..DeviceStatus::default()
        });
    });
    world.edit(&device, |device| device.spec.revoked = true);
    world.advance(200_000);
    assert!(world.api.calls.is_empty());
}

#[test]
fn facts_that_are_gone_are_removed() {
    let mut world = World::synced();
    let device = world.device("a");
    let id = world.connect(&identity("a"));
    let mut first = hello(0, 0);
    first.facts.features = 1;
    world.send(id, &DeviceMessage::Hello(first));
    let id = world.connect(&identity("a"));
    let mut second = hello(1, 0);
    second.facts.features = 0;
    world.send(id, &DeviceMessage::Hello(second));
    assert!(world.api.status(&device).facts.unwrap().features.is_empty());
    let calls = world.api.calls.len();
    world.advance(10_000);
    assert_eq!(world.api.calls.len(), calls, "written once");
}

#[test]
fn a_clock_that_was_ahead_leaves_no_time_in_the_future() {
    const AHEAD_MS: u64 = 3 * 24 * 3_600_000;
    let mut world = World::synced();
    let device = world.device("a");
    world.now.unix_ms += AHEAD_MS;
    let id = world.hello("a", 0, 0);
    world.advance(40_000);
    world.send(id, &heartbeat(1));
    world.now.unix_ms -= AHEAD_MS;
    let calls = world.api.calls.len();
    for sequence in 2..8 {
        world.advance(10_000);
        world.send(id, &heartbeat(sequence));
        world.advance(1_000);
        let status = world.api.status(&device);
        for time in [status.last_heartbeat, status.connected_since] {
            let time = crate::UnixTime::parse(&time.unwrap()).unwrap();
            let now = crate::UnixTime::from_ms(world.now.unix_ms);
            assert!(time <= now && time.ms + 120_000 > now.ms, "{time}, and it is {now}");
        }
    }
    let written = world.api.calls.len() - calls;
    assert!(written <= 4, "{written} writes in 66 s");
}

#[test]
fn a_device_that_cannot_be_read_stays_as_it_is_known_and_its_session_with_it() {
    let mut world = World::synced();
    let device = world.device("a");
    let id = world.hello("a", 0, 0);
    assert!(!world.closed.contains_key(&id));
    let uid = world.api.devices[&device].metadata.uid.clone();
    // Another version stores it with a field of another type: in the watch, and in a list of a new watch.
    world.gateway.handle_unreadable_device(world.now, &device, uid.as_deref());
    world.gateway.handle_list_started();
    world.gateway.handle_unreadable_device(world.now, &device, uid.as_deref());
    world.gateway.handle_unreadable_device(world.now, &key("unknown"), Some("v"));
    world.gateway.handle_list_done(world.now);
    world.settle();
    assert!(!world.closed.contains_key(&id), "{:?}", world.closed);
    world.send(id, &reported(1, &[report(1, HASH, ApplicationState::Running, ReportReason::None)]));
    world.advance(config::RESULT_DEBOUNCE_MS);
    assert_eq!(world.api.status(&device).revision, Some(1));
    // One of another UID is another Device: what was known is void.
    world.gateway.handle_unreadable_device(world.now, &device, Some("another"));
    world.settle();
    assert!(world.closed.contains_key(&id));
}
