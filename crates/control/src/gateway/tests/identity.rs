use wasmbed_api::ReasonCode;
use wasmbed_protocol::BootId;

use super::*;

/// A board: what it remembers, and which start it is in.
struct Board {
    boot: Option<u8>,
    epoch: u64,
}

impl Board {
    /// Firmware of today.
    fn new(boot: u8) -> Self {
        Self { boot: Some(boot), epoch: 0 }
    }

    /// Firmware that has no boot id.
    fn older() -> Self {
        Self { boot: None, epoch: 0 }
    }

    /// Says Hello; answers the retry if it is turned away. One that is let in knows its epoch, and says what it runs.
    fn join(&mut self, world: &mut World) -> (SessionId, Option<u32>) {
        let id = self.greet(world);
        if let Some(epoch) = welcomed(world, id) {
            self.epoch = epoch;
            world.send(id, &reported(0, &[]));
        }
        (id, retry(world, id))
    }

    /// Says Hello and hears nothing of what comes back.
    fn greet(&self, world: &mut World) -> SessionId {
        let id = world.connect(&identity("a"));
        let boot_id = self.boot.map(|boot| BootId([boot; 8]));
        world.send(id, &DeviceMessage::Hello(Hello { boot_id, ..hello(self.epoch, 0) }));
        id
    }
}

fn welcomed(world: &World, id: SessionId) -> Option<u64> {
    world.raw.get(&id)?.iter().find_map(|body| match decode_gateway(body) {
        Ok(GatewayMessage::Welcome(welcome)) => Some(welcome.epoch.0),
        _ => None,
    })
}

fn retry(world: &World, id: SessionId) -> Option<u32> {
    world.raw.get(&id)?.iter().find_map(|body| match decode_gateway(body) {
        Ok(GatewayMessage::Reject(closing)) => Some(closing.retry_after_ms),
        _ => None,
    })
}

fn condition(world: &World, type_: &str) -> Option<(String, String, String)> {
    let status = world.api.status(&key("a"));
    let found = status.conditions.into_iter().find(|condition| condition.type_ == type_)?;
    Some((found.status, found.reason, found.message))
}

fn shown(world: &World, type_: &str) -> Option<(String, String)> {
    condition(world, type_).map(|(status, reason, _)| (status, reason))
}

fn is(status: &str, reason: &str) -> Option<(String, String)> {
    Some((status.to_owned(), reason.to_owned()))
}

fn told(world: &World, reason: ReasonCode) -> usize {
    world.api.events.iter().filter(|event| event.reason == reason).count()
}

/// Two boards of one identity come back after each other until one of them is turned away.
fn fight(world: &mut World, boards: &mut [Board; 2]) -> (SessionId, usize) {
    for turn in 0..20 {
        let (id, retry) = boards[turn % 2].join(world);
        if let Some(retry) = retry {
            assert_eq!((world.closed[&id], retry), (CloseReason::CloneSuspected, config::CLONE_RETRY_MIN_MS));
            return (id, turn);
        }
        world.advance(5_500);
    }
    panic!("they go on replacing each other");
}

#[test]
fn two_boards_of_one_identity_are_told_apart_and_the_second_stays_out() {
    for mut boards in
        [[Board::new(1), Board::new(2)], [Board::older(), Board::older()], [Board::new(1), Board::older()]]
    {
        let mut world = World::synced();
        world.device("a");
        let (_, turn) = fight(&mut world, &mut boards);
        assert_eq!(turn, 4, "three takeovers, and no fourth");
        world.advance(1_000);
        assert_eq!(shown(&world, "CloneSuspected"), is("True", "CloneSuspected"));
        assert_eq!(told(&world, ReasonCode::CloneSuspected), 1);
        assert_eq!(world.api.status(&key("a")).phase, DevicePhase::Connected, "the established one stays");
        // The retry doubles up to an hour.
        let mut last = config::CLONE_RETRY_MIN_MS;
        for _ in 0..12 {
            let (_, retry) = boards[turn % 2].join(&mut world);
            let retry = retry.expect("it is turned away");
            assert_eq!(retry, (2 * last).min(config::CLONE_RETRY_MAX_MS));
            last = retry;
        }
        assert_eq!(last, config::CLONE_RETRY_MAX_MS);
        assert_eq!(told(&world, ReasonCode::CloneSuspected), 1, "told once, however often it tries");
    }
}

#[test]
fn the_suspicion_ends_when_it_was_quiet_for_long_enough_also_across_a_restart() {
    let mut world = World::synced();
    world.device("a");
    let mut boards = [Board::new(1), Board::new(2)];
    let (_, turn) = fight(&mut world, &mut boards);
    world.advance(1_000);
    world.restart(Config::new("gw", "boot-2"), true);
    world.list();
    let (established, _) = boards[1 - turn % 2].join(&mut world);
    for _ in 0..120 {
        world.advance(60_000 - 1_000);
        world.send(established, &heartbeat(1));
        assert_eq!(shown(&world, "CloneSuspected"), is("True", "CloneSuspected"));
    }
    for _ in 0..4 {
        world.advance(60_000);
        world.send(established, &heartbeat(1));
    }
    assert_eq!(shown(&world, "CloneSuspected"), is("False", "QuietAgain"));
}

#[test]
fn a_board_whose_cable_is_bad_is_never_taken_for_two() {
    for mut board in [Board::new(1), Board::older()] {
        let mut world = World::synced();
        world.device("a");
        for _ in 0..20 {
            // Sessions stay half-open, some before and some after Welcome came through.
            board.join(&mut world);
            world.advance(500);
            board.greet(&mut world);
            board.greet(&mut world);
            world.advance(500);
        }
        assert!(board.join(&mut world).1.is_none(), "it is let in");
        assert_eq!(told(&world, ReasonCode::CloneSuspected), 0);
        assert_eq!(shown(&world, "CloneSuspected"), None);
    }
}

#[test]
fn a_board_that_starts_again_and_again_is_never_taken_for_two() {
    let mut world = World::synced();
    world.device("a");
    let mut epoch = 0;
    for boot in 0..20 {
        let mut board = Board { boot: Some(boot), epoch };
        assert!(board.join(&mut world).1.is_none());
        epoch = board.epoch;
        world.advance(1_000);
        // The next start may lose power before it has stored its epoch, and before it reports.
        Board { boot: Some(100 + boot), epoch }.greet(&mut world);
        world.advance(1_000);
    }
    assert_eq!(told(&world, ReasonCode::CloneSuspected), 0);
}

#[test]
fn the_suspected_board_that_stands_may_start_again() {
    let mut world = World::synced();
    world.device("a");
    let mut boards = [Board::new(1), Board::new(2)];
    let (_, turn) = fight(&mut world, &mut boards);
    let established = &mut boards[1 - turn % 2];
    established.boot = Some(9);
    assert!(established.join(&mut world).1.is_none(), "its old session is half-open still");
    assert!(boards[turn % 2].join(&mut world).1.is_some());
}

#[test]
fn a_clone_is_let_in_once_the_other_is_gone() {
    let mut world = World::synced();
    world.device("a");
    let mut boards = [Board::new(1), Board::new(2)];
    let (_, turn) = fight(&mut world, &mut boards);
    world.advance(90_000);
    assert!(boards[turn % 2].join(&mut world).1.is_none(), "nobody else is there");
}

#[test]
fn boards_that_replace_each_other_across_gateways_are_seen_too() {
    let mut world = World::synced();
    let device = world.device("a");
    let mut board = Board::new(1);
    for turn in 0..10 {
        let (id, retry) = board.join(&mut world);
        if let Some(retry) = retry {
            assert_eq!((turn, retry), (4, config::CLONE_RETRY_MIN_MS));
            assert_eq!(told(&world, ReasonCode::CloneSuspected), 1);
            return;
        }
        world.advance(4_000);
        // The other board is let in by another gateway.
        world.edit(&device, |device| {
            let status = device.status.as_mut().unwrap();
            (status.gateway, status.epoch) = (Some("other".into()), Some(board.epoch as i64 + 1));
        });
        assert_eq!(world.closed[&id], CloseReason::Superseded);
        world.advance(6_000);
    }
    panic!("it goes on");
}

#[test]
fn a_board_that_changes_gateways_is_not_two() {
    let mut world = World::synced();
    let device = world.device("a");
    let mut board = Board::new(1);
    for _ in 0..10 {
        assert!(board.join(&mut world).1.is_none());
        world.edit(&device, |device| {
            let status = device.status.as_mut().unwrap();
            (status.gateway, status.epoch) = (Some("other".into()), Some(board.epoch as i64 + 1));
        });
        board.epoch += 1;
        world.advance(3_000);
    }
    assert_eq!(told(&world, ReasonCode::CloneSuspected), 0);
}

#[test]
fn another_key_shows_also_while_the_true_device_is_connected() {
    let mut world = World::synced();
    let device = world.device("a");
    let id = world.hello("a", 0, 0);
    let impostor = Identity { device: device.clone(), public_key: "other".into() };
    for _ in 0..50 {
        let other = world.connect(&impostor);
        world.send(other, &DeviceMessage::Hello(hello(0, 0)));
        assert_eq!(world.closed[&other], CloseReason::KeyMismatch);
    }
    world.advance(1_000);
    assert_eq!(shown(&world, "KeyMismatch"), is("True", "KeyMismatch"));
    assert_eq!(told(&world, ReasonCode::KeyMismatch), 1, "once, however often it tries");
    let status = world.api.status(&device);
    assert_eq!(status.phase, DevicePhase::Connected);
    for _ in 0..17 {
        world.advance(60_000);
        world.send(id, &heartbeat(1));
    }
    assert_eq!(shown(&world, "KeyMismatch"), is("False", "QuietAgain"));
}

#[test]
fn another_key_at_a_gateway_that_does_not_hold_the_device_is_told_and_changes_nothing() {
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
    let before = world.api.status(&device);
    let other = world.connect(&Identity { device: device.clone(), public_key: "other".into() });
    world.send(other, &DeviceMessage::Hello(hello(0, 0)));
    world.advance(1_000);
    assert_eq!(told(&world, ReasonCode::KeyMismatch), 1);
    assert_eq!(world.api.status(&device), before);
}

#[test]
fn a_new_pin_makes_the_question_of_the_old_one_void() {
    let mut world = World::synced();
    let device = world.device("a");
    let new = Identity { device: device.clone(), public_key: "new".into() };
    let id = world.connect(&new);
    world.send(id, &DeviceMessage::Hello(hello(0, 0)));
    assert_eq!(shown(&world, "KeyMismatch"), is("True", "KeyMismatch"));
    world.edit(&device, |device| device.spec.public_key = Some("new".into()));
    let id = world.connect(&new);
    world.send(id, &DeviceMessage::Hello(hello(0, 0)));
    assert!(world.take(id)[0].starts_with("Welcome"));
    world.advance(1_000);
    assert_eq!(shown(&world, "KeyMismatch"), is("False", "QuietAgain"));
    assert_eq!(shown(&world, "Enrolled"), is("True", "Approved"));
}

#[test]
fn a_revocation_that_is_taken_back_says_when_the_device_returns() {
    let mut world = World::synced();
    let device = world.device("a");
    world.hello("a", 0, 0);
    world.edit(&device, |device| device.spec.revoked = true);
    world.advance(100_000);
    let events = world.api.events.len();
    world.edit(&device, |device| device.spec.revoked = false);
    world.advance(1_500);
    let (status, reason, message) = condition(&world, "Connected").unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "AwaitingReconnect"));
    // 1700000000 s, and 300 s of retry with 60 s of spread.
    assert_eq!(
        message,
        "the device was told to stay away and comes back at 2023-11-14T22:19:20Z at the latest"
    );
    assert_eq!(shown(&world, "Enrolled"), is("True", "Approved"));
    assert_eq!(world.api.status(&device).phase, DevicePhase::Disconnected);
    let [event] = &world.api.events[events..] else { panic!("{:?}", &world.api.events[events..]) };
    assert_eq!((event.reason, &event.message), (ReasonCode::AwaitingReconnect, &message));
    // It never comes: that is said, too.
    world.advance(259_000);
    assert_eq!(shown(&world, "Connected"), is("False", "SessionEnded"));
}

#[test]
fn a_revocation_that_is_taken_back_ends_with_the_next_session() {
    let mut world = World::synced();
    let device = world.device("a");
    world.hello("a", 0, 0);
    world.edit(&device, |device| device.spec.revoked = true);
    world.edit(&device, |device| device.spec.revoked = false);
    world.advance(1_500);
    assert_eq!(shown(&world, "Connected"), is("False", "AwaitingReconnect"));
    world.hello("a", 1, 0);
    assert_eq!(shown(&world, "Connected"), is("True", "SessionEstablished"));
    assert_eq!(told(&world, ReasonCode::Revoked), 1);
}

#[test]
fn a_revocation_that_is_taken_back_after_a_restart_says_when_too() {
    let mut world = World::synced();
    let device = world.device("a");
    world.hello("a", 0, 0);
    world.edit(&device, |device| device.spec.revoked = true);
    world.restart(Config::new("gw", "boot-2"), true);
    world.list();
    world.edit(&device, |device| device.spec.revoked = false);
    world.advance(1_500);
    assert_eq!(shown(&world, "Connected"), is("False", "AwaitingReconnect"));
    assert_eq!(shown(&world, "Enrolled"), is("True", "Approved"));
    assert_eq!(world.api.events.last().unwrap().reason, ReasonCode::AwaitingReconnect);
    world.advance(361_000);
    assert_eq!(shown(&world, "Connected"), is("False", "SessionEnded"));
}

#[test]
fn what_was_seen_of_identities_is_forgotten_in_time() {
    let mut world = World::synced();
    let device = world.device("a");
    for boot in 0..10 {
        Board { boot: Some(boot), epoch: 100 + u64::from(boot) }.join(&mut world);
    }
    assert!(world.gateway.devices[&device].trouble().is_some());
    world.advance(120_000);
    assert!(world.gateway.devices[&device].trouble().is_none());
}

#[test]
fn a_device_that_has_said_all_it_may_hides_no_impostor() {
    use ApplicationState::Failed;
    use ReportReason::{CpuLimit, ExitedWithError, MemoryLimit, StackLimit, Trapped};
    let mut world = World::synced();
    let device = world.device("a");
    let id = world.hello("a", 0, 0);
    let digest = world.upload(b"module");
    let entries: Vec<_> = (0..6).map(|n| entry(n, digest, 6)).collect();
    let hashes: Vec<_> = entries.iter().map(hash_of).collect();
    world.put(1, vec![set("a", 1, entries)]).unwrap();
    for reason in [Trapped, CpuLimit, MemoryLimit, StackLimit, ExitedWithError] {
        let reports: Vec<_> = (0..6).map(|n| report(n, hashes[usize::from(n)], Failed, reason)).collect();
        world.send(id, &reported(1, &reports));
    }
    assert!(world.gateway.counters().events_dropped > 0);
    let other = world.connect(&Identity { device: device.clone(), public_key: "other".into() });
    world.send(other, &DeviceMessage::Hello(hello(0, 0)));
    world.advance(1_000);
    assert_eq!(told(&world, ReasonCode::KeyMismatch), 1);
}

#[test]
fn an_impostor_does_not_move_the_time_when_a_revoked_device_returns() {
    let mut world = World::synced();
    let device = world.device("a");
    world.hello("a", 0, 0);
    world.edit(&device, |device| device.spec.revoked = true);
    world.advance(100_000);
    let other = world.connect(&Identity { device: device.clone(), public_key: "other".into() });
    world.send(other, &DeviceMessage::Hello(hello(0, 0)));
    assert_eq!(world.closed[&other], CloseReason::Revoked);
    world.edit(&device, |device| device.spec.revoked = false);
    world.advance(1_500);
    let (_, _, message) = condition(&world, "Connected").unwrap();
    assert!(message.contains("comes back at 2023-11-14T22:19:20Z"), "{message}");
}
