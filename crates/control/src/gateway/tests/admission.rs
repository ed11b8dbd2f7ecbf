use super::*;

/// A later version's device reports bits that this one has no name for.
#[test]
fn what_a_device_runs_and_nobody_here_knows_is_left_out() {
    let mut world = World::synced();
    let device = world.device("a");
    let id = world.connect(&identity("a"));
    let mut later = hello(4, 0);
    later.facts.features = u64::MAX;
    world.send(id, &DeviceMessage::Hello(later));
    let features = world.api.status(&device).facts.unwrap().features;
    let known: Vec<&str> = wasmbed_scan::Features::NAMES.iter().map(|(_, name)| *name).collect();
    assert_eq!(features, known);
}

#[test]
fn a_device_is_welcomed_once_its_epoch_is_written() {
    let mut world = World::synced();
    let device = world.device("a");
    let id = world.hello("a", 4, 0);
    assert!(world.take(id)[0].starts_with("Welcome(Welcome { epoch: Epoch(5)"));
    let status = world.api.status(&device);
    assert_eq!((status.phase, status.epoch), (DevicePhase::Connected, Some(5)));
    assert_eq!(status.gateway.as_deref(), Some("gw"));
    assert_eq!(status.facts.unwrap().features.len(), 2);
    assert_eq!(world.api.calls, ["patch"], "one write for a registration");
}

#[test]
fn a_slow_api_keeps_no_device_out() {
    let mut world = World::synced();
    let device = world.device("a");
    world.api_down = true;
    let id = world.hello("a", 0, 0);
    assert!(world.take(id).is_empty());
    world.advance(config::CLAIM_WAIT_MS);
    assert!(world.take(id)[0].starts_with("Welcome"));
    assert_eq!(world.api.status(&device).phase, DevicePhase::Pending);
    world.api_down = false;
    world.advance(crate::backoff::API_PAUSE_MS_MAX);
    assert_eq!(world.api.status(&device).phase, DevicePhase::Connected);
}

#[test]
fn unknown_devices_are_created_unapproved_and_let_in_once_approved() {
    let mut world = World::synced();
    let id = world.hello("new", 0, 0);
    assert_eq!(world.closed[&id], CloseReason::PendingApproval);
    let created = &world.api.devices[&key("new")];
    assert!(!created.spec.approved);
    assert_eq!(created.spec.public_key.as_deref(), Some("key-new"));
    let id = world.hello("new", 0, 0);
    assert_eq!(world.closed[&id], CloseReason::PendingApproval);
    assert_eq!(world.api.status(&key("new")).phase, DevicePhase::Pending);
    world.edit(&key("new"), |device| device.spec.approved = true);
    assert_eq!(world.api.status(&key("new")).phase, DevicePhase::Enrolled);
    let id = world.hello("new", 0, 0);
    assert!(world.take(id)[0].starts_with("Welcome"));
}

#[test]
fn closed_and_open_enrollment() {
    let mut closed = World::with(Config { enrollment: Enrollment::Closed, ..Config::new("gw", "b") });
    closed.list();
    let id = closed.hello("new", 0, 0);
    assert_eq!(closed.closed[&id], CloseReason::NotEnrolled);
    assert!(closed.api.devices.is_empty());
    let mut open = World::with(Config { enrollment: Enrollment::Open, ..Config::new("gw", "b") });
    open.list();
    let id = open.hello("new", 0, 0);
    assert!(open.take(id)[0].starts_with("Welcome"));
    assert_eq!(open.api.status(&key("new")).phase, DevicePhase::Connected);
    assert!(!open.api.devices[&key("new")].spec.approved, "a gateway approves nothing");
}

#[test]
fn a_pinned_name_with_another_key_is_refused_and_shown() {
    let mut world = World::synced();
    let device = world.device("a");
    let impostor = Identity { device: device.clone(), public_key: "other".into() };
    let id = world.connect(&impostor);
    world.send(id, &DeviceMessage::Hello(hello(0, 0)));
    assert_eq!(world.closed[&id], CloseReason::KeyMismatch);
    assert_eq!(world.api.status(&device).phase, DevicePhase::Rejected);
    // The true device is let in, and an impostor beside it changes nothing.
    world.hello("a", 0, 0);
    let id = world.connect(&impostor);
    world.send(id, &DeviceMessage::Hello(hello(0, 0)));
    assert_eq!(world.closed[&id], CloseReason::KeyMismatch);
    world.advance(5_000);
    assert_eq!(world.api.status(&device).phase, DevicePhase::Connected);
}

#[test]
fn revocation_and_deletion_end_sessions_at_once() {
    let mut world = World::synced();
    let (first, second) = (world.device("a"), world.device("b"));
    let (a, b) = (world.hello("a", 0, 0), world.hello("b", 0, 0));
    world.edit(&first, |device| device.spec.revoked = true);
    assert_eq!(world.closed[&a], CloseReason::Revoked);
    let status = world.api.status(&first);
    assert_eq!(status.phase, DevicePhase::Revoked);
    assert!(status.conditions.iter().all(|condition| condition.status == "False"));
    world.api.devices.remove(&second);
    world.gateway.handle_device_deleted(world.now, &second, None);
    world.settle();
    assert_eq!(world.closed[&b], CloseReason::Deleted);
    assert!(!world.disk.contains_key(&second));
}

#[test]
fn a_session_ends_at_once_when_approval_is_taken_back() {
    let mut world = World::synced();
    let device = world.device("a");
    let id = world.hello("a", 0, 0);
    world.edit(&device, |device| device.spec.approved = false);
    assert_eq!(world.closed[&id], CloseReason::PendingApproval);
    assert!(world.take(id).last().unwrap().contains("set spec.approved to true"));
    assert_eq!(world.api.status(&device).phase, DevicePhase::Pending);
    world.edit(&device, |device| device.spec.approved = true);
    let id = world.hello("a", 1, 0);
    assert!(world.take(id)[0].starts_with("Welcome"));
    // Where no approval is asked for, nothing depends on it.
    let mut open = World::with(Config { enrollment: Enrollment::Open, ..Config::new("gw", "b") });
    open.list();
    let device = open.device("a");
    let id = open.hello("a", 0, 0);
    open.edit(&device, |device| device.spec.approved = false);
    assert!(!open.closed.contains_key(&id));
}

#[test]
fn a_stale_session_that_closes_leaves_its_successor_alone() {
    let mut world = World::synced();
    let device = world.device("a");
    let old = world.hello("a", 0, 0);
    let new = world.hello("a", 1, 0);
    assert_eq!(world.closed[&old], CloseReason::Superseded);
    world.gateway.handle_closed(world.now, old, "reset");
    world.advance(10_000);
    let status = world.api.status(&device);
    assert_eq!((status.phase, status.epoch), (DevicePhase::Connected, Some(2)));
    world.send(new, &heartbeat(1));
    assert!(world.take(new).iter().any(|message| message.starts_with("HeartbeatAck")));
}

#[test]
fn the_newest_epoch_wins_across_gateways() {
    let mut world = World::synced();
    let device = world.device("a");
    let id = world.hello("a", 0, 0);
    // Another gateway takes the device over.
    world.edit(&device, |device| {
        let status = device.status.as_mut().unwrap();
        (status.gateway, status.epoch) = (Some("other".into()), Some(2));
    });
    assert_eq!(world.closed[&id], CloseReason::Superseded);
    world.advance(10_000);
    assert_eq!(
        world.api.status(&device).gateway.as_deref(),
        Some("other"),
        "its status is not ours any more"
    );
    // It comes back here with the other gateway's epoch.
    world.hello("a", 2, 0);
    let status = world.api.status(&device);
    assert_eq!((status.gateway.as_deref(), status.epoch), (Some("gw"), Some(3)));
}

#[test]
fn a_claim_that_meets_a_newer_epoch_is_given_up() {
    let mut world = World::synced();
    let device = world.device("a");
    // The watch has not shown this yet.
    world.api.edit(&device, |device| {
        device.status =
            Some(DeviceStatus { gateway: Some("other".into()), epoch: Some(9), ..DeviceStatus::default() });
    });
    let id = world.hello("a", 0, 0);
    assert_eq!(world.closed[&id], CloseReason::Superseded);
    assert_eq!(world.api.status(&device).epoch, Some(9));
    world.hello("a", 0, 0);
    assert_eq!(world.api.status(&device).epoch, Some(10));
}

#[test]
fn while_the_api_is_away_only_known_devices_are_let_in() {
    let mut world = World::synced();
    world.device("a");
    world.hello("a", 0, 0);
    world.restart(Config::new("gw", "boot-2"), true);
    world.api_down = true;
    let known = world.hello("a", 1, 0);
    assert!(world.take(known)[0].starts_with("Welcome(Welcome { epoch: Epoch(2)"));
    let unknown = world.hello("b", 0, 0);
    assert_eq!(world.closed[&unknown], CloseReason::Unavailable);
    let id = world.connect(&Identity { device: key("a"), public_key: "other".into() });
    world.send(id, &DeviceMessage::Hello(hello(0, 0)));
    assert_eq!(world.closed[&id], CloseReason::Unavailable);
    world.api_down = false;
    world.list();
    assert_eq!(world.api.status(&key("a")).epoch, Some(2));
    world.send(known, &heartbeat(1));
    assert!(world.take(known)[0].starts_with("HeartbeatAck"));
}

#[test]
fn a_full_gateway_says_so_and_a_returning_device_still_fits() {
    let mut world = World::with(Config { sessions_max: 1, ..Config::new("gw", "b") });
    world.list();
    world.device("a");
    world.device("b");
    world.hello("a", 0, 0);
    let id = world.hello("b", 0, 0);
    assert_eq!(world.closed[&id], CloseReason::Overloaded);
    let id = world.hello("a", 1, 0);
    assert!(world.take(id)[0].starts_with("Welcome"));
}

#[test]
fn silence_ends_a_session_and_any_frame_is_a_sign_of_life() {
    let mut world = World::synced();
    let device = world.device("a");
    let quiet = world.connect(&identity("b"));
    world.advance(config::HELLO_TIMEOUT_MS);
    assert_eq!(world.closed[&quiet], CloseReason::HeartbeatTimeout);
    let id = world.hello("a", 0, 0);
    for _ in 0..4 {
        world.advance(60_000);
        world.send(id, &reported(0, &[]));
    }
    assert!(!world.closed.contains_key(&id));
    world.advance(90_000);
    assert_eq!(world.closed[&id], CloseReason::HeartbeatTimeout);
    world.advance(2_000);
    let status = world.api.status(&device);
    assert_eq!(status.phase, DevicePhase::Disconnected);
    assert!(status.conditions.iter().any(|condition| condition.reason == "HeartbeatTimeout"));
}

#[test]
fn nonsense_ends_its_own_session_only() {
    let mut world = World::synced();
    world.device("a");
    world.device("b");
    let (a, b) = (world.hello("a", 0, 0), world.hello("b", 0, 0));
    world.gateway.handle_frame(world.now, a, &[0xff; 40]);
    world.settle();
    assert_eq!(world.closed[&a], CloseReason::ProtocolError);
    world.send(b, &heartbeat(1));
    assert!(world.take(b).iter().any(|message| message.starts_with("HeartbeatAck")));
    // Messages out of place are answered, a few times.
    for _ in 0..config::UNUSABLE_MESSAGES_MAX {
        world.send(b, &DeviceMessage::Hello(hello(0, 0)));
    }
    assert!(world.take(b).iter().any(|message| message.contains("Unexpected")));
    assert!(!world.closed.contains_key(&b));
    world.send(b, &DeviceMessage::Hello(hello(0, 0)));
    assert_eq!(world.closed[&b], CloseReason::ProtocolError);
}

#[test]
fn an_error_is_never_answered() {
    let mut world = World::synced();
    world.device("a");
    let id = world.hello("a", 0, 0);
    world.take(id);
    let error = wasmbed_protocol::ErrorNotice { code: ErrorCode::Stale, tag: None, detail: "x" };
    world.send(id, &DeviceMessage::Error(error));
    assert!(world.take(id).is_empty());
    assert!(world.notices.iter().any(|notice| matches!(notice, Notice::DeviceError { .. })));
}

#[test]
fn shutdown_says_goodbye_and_writes_disconnected() {
    let mut world = World::synced();
    let device = world.device("a");
    let id = world.hello("a", 0, 0);
    world.gateway.handle_shutdown(world.now);
    world.settle();
    assert_eq!(world.closed[&id], CloseReason::ShuttingDown);
    let status = world.api.status(&device);
    assert_eq!(status.phase, DevicePhase::Disconnected);
    assert!(status.conditions.iter().any(|condition| condition.reason == "GatewayShutdown"));
    assert!(world.gateway.is_drained());
    let id = world.hello("a", 1, 0);
    assert_eq!(world.closed[&id], CloseReason::ShuttingDown);
}

#[test]
fn a_recreated_device_inherits_nothing() {
    let mut world = World::synced();
    let device = world.device("a");
    let digest = world.upload(b"module");
    world.put(1, vec![set("a", 1, vec![entry(1, digest, 6)])]).unwrap();
    world.hello("a", 0, 0);
    world.api.devices.remove(&device);
    world.device("a");
    let id = world.hello("a", 1, 1);
    assert!(world.take(id)[0].contains("desired_known: false"));
}

#[test]
fn a_recreated_device_does_not_take_a_set_that_was_on_its_way_to_the_disk() {
    let mut world = World::synced();
    let device = world.device("a");
    let digest = world.upload(b"module");
    let put = PutSets { leader_term: 1, sets: vec![set("a", 1, vec![entry(1, digest, 6)])] };
    world.gateway.handle_leader_lease(1);
    world.gateway.handle_put_sets(world.now, RequestId(1), PreparedSets::new(&put));
    let on_its_way = world.gateway.poll_store().expect("the set is stored");
    world.api.devices.remove(&device);
    world.device("a");
    world.store(on_its_way);
    world.settle();
    let id = world.hello("a", 1, 0);
    assert!(world.take(id)[0].contains("desired_known: false"));
}

#[test]
fn a_device_that_holds_the_set_of_a_deleted_device_lets_go_of_it_first() {
    let mut world = World::synced();
    let id = world.hello("ghost", 7, 3);
    assert_eq!(world.closed[&id], CloseReason::Deleted);
    assert!(world.api.devices.is_empty(), "nobody is enrolled with what another Device was given");
    // It comes back with nothing, and policy decides.
    let id = world.hello("ghost", 7, 0);
    assert_eq!(world.closed[&id], CloseReason::PendingApproval);
    assert!(!world.api.devices[&key("ghost")].spec.approved);
}

#[test]
fn nobody_is_called_deleted_by_a_gateway_that_can_not_know() {
    let mut world = World::new();
    let id = world.hello("a", 7, 3);
    assert_eq!(world.closed[&id], CloseReason::Unavailable, "no list was seen yet");
    world.list();
    world.device("b");
    world.api_down = true;
    world.hello("b", 1, 0);
    let id = world.hello("a", 7, 3);
    assert_eq!(world.closed[&id], CloseReason::Unavailable, "the watch may lag");
    world.api_down = false;
    world.advance(crate::backoff::API_PAUSE_MS_MAX);
    let id = world.hello("a", 7, 3);
    assert_eq!(world.closed[&id], CloseReason::Deleted);
}

#[test]
fn an_outage_ends_for_a_gateway_that_has_nothing_left_to_write() {
    let mut world = World::synced();
    let device = world.device("b");
    world.api_down = true;
    let asked_ms = world.now.ms;
    world.hello("b", 0, 0);
    let deleted = world.api.devices.remove(&device).unwrap();
    world.gateway.handle_device_deleted(world.now, &device, deleted.metadata.uid.as_deref());
    world.settle();
    world.api_down = false;
    world.advance(10 * crate::backoff::API_PAUSE_MS_MAX);
    world.gateway.handle_renewed(asked_ms);
    let id = world.hello("a", 7, 3);
    assert_eq!(world.closed[&id], CloseReason::Unavailable, "asked for before the pause was over");
    world.gateway.handle_renewed(world.now.ms);
    let id = world.hello("a", 7, 3);
    assert_eq!(world.closed[&id], CloseReason::Deleted);
}

#[test]
fn an_older_set_does_not_fill_a_device_that_was_let_go_of() {
    let mut world = World::synced();
    let device = world.device("a");
    world.put(1, vec![set("a", 1, vec![])]).unwrap();
    world.edit(&device, |device| {
        device.status = Some(DeviceStatus { revision: Some(4), ..DeviceStatus::default() })
    });
    let id = world.hello("a", 9, 0);
    assert!(
        world.take(id)[0].contains("desired_known: false"),
        "another gateway has given it revision 4 since"
    );
}

#[test]
fn a_device_that_holds_the_set_of_an_earlier_device_of_its_name_lets_go_of_it() {
    let mut world = World::synced();
    let spec = |public_key: &str| DeviceSpec {
        approved: false,
        public_key: Some(public_key.to_owned()),
        ..DeviceSpec::default()
    };
    // Nobody has approved the new one; or it is another board's.
    for (name, pinned, then) in
        [("a", "key-a", CloseReason::PendingApproval), ("b", "key-of-another", CloseReason::KeyMismatch)]
    {
        let device = world.api.create(&key(name), spec(pinned));
        world.gateway.handle_device(world.now, &device);
        let id = world.hello(name, 7, 3);
        assert_eq!(world.closed[&id], CloseReason::Deleted);
        // It may not have heard it.
        let id = world.hello(name, 7, 3);
        assert_eq!(world.closed[&id], CloseReason::Deleted);
        let id = world.hello(name, 7, 0);
        assert_eq!(world.closed[&id], then);
        world.advance(1_000);
    }
    assert_eq!(world.api.status(&key("a")).phase, DevicePhase::Pending);
    world.edit(&key("a"), |device| device.spec.approved = true);
    let id = world.hello("a", 7, 0);
    assert!(world.take(id)[0].starts_with("Welcome"));
    // Now it is that Device's own.
    world.edit(&key("a"), |device| device.spec.approved = false);
    let id = world.hello("a", 8, 3);
    assert_eq!(world.closed[&id], CloseReason::PendingApproval);
    world.restart(Config::new("gw", "boot-2"), true);
    world.list();
    let id = world.hello("a", 8, 3);
    assert_eq!(world.closed[&id], CloseReason::PendingApproval);
}

#[test]
fn a_device_is_told_nothing_of_an_earlier_one_while_the_api_fails() {
    let mut world = World::synced();
    let device = world.api.create(&key("a"), DeviceSpec { approved: false, ..DeviceSpec::default() });
    world.gateway.handle_device(world.now, &device);
    world.api_down = true;
    world.device("b");
    world.hello("b", 0, 0);
    let id = world.hello("a", 7, 3);
    assert_eq!(world.closed[&id], CloseReason::PendingApproval, "it may have had a session elsewhere");
}
