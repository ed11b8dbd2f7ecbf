//! Epochs, revisions and leader terms that nobody can have been given.

use super::*;

const HUGE: u64 = (1 << 53) - 1;

fn condition(status: &DeviceStatus) -> Option<(String, String, String)> {
    let found = status.conditions.iter().find(|condition| condition.type_ == "Counters")?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

#[test]
fn a_hello_with_an_epoch_that_nobody_gave_moves_no_counter_and_locks_nobody_out() {
    for claimed in [HUGE, u64::MAX, (1 << 20) + 2] {
        let mut world = World::synced();
        let device = world.device("a");
        let honest = world.hello("a", 0, 0);
        assert!(world.take(honest)[0].starts_with("Welcome(Welcome { epoch: Epoch(1)"));
        // The device refuses a lower epoch than it holds, so that it is told its own.
        let liar = world.hello("a", claimed, 0);
        let answer = world.take(liar);
        assert!(answer[0].starts_with(&format!("Welcome(Welcome {{ epoch: Epoch({claimed})")), "{answer:?}");
        let status = world.api.status(&device);
        assert_eq!(status.epoch, Some(2), "{claimed} is not taken over");
        let (shown, reason, message) = condition(&status).unwrap();
        assert_eq!((shown.as_str(), reason.as_str()), ("False", "CounterOutOfRange"));
        assert!(message.contains(&claimed.to_string()), "{message}");
        let honest = world.hello("a", 1, 0);
        let answer = world.take(honest);
        assert!(answer[0].starts_with("Welcome(Welcome { epoch: Epoch(3)"), "{answer:?}");
        assert_eq!(condition(&world.api.status(&device)).unwrap().0, "True");
    }
}

#[test]
fn an_epoch_within_reach_is_followed() {
    let mut world = World::synced();
    let device = world.device("a");
    let id = world.hello("a", 1 << 20, 0);
    assert!(world.take(id)[0].starts_with(&format!("Welcome(Welcome {{ epoch: Epoch({})", (1 << 20) + 1)));
    assert_eq!(condition(&world.api.status(&device)), None);
}

#[test]
fn a_status_that_was_driven_up_locks_nobody_out() {
    let mut world = World::synced();
    let device = world.device("a");
    world.edit(&device, |device| {
        device.status = Some(DeviceStatus { epoch: Some(HUGE as i64), ..DeviceStatus::default() });
    });
    for epoch in [3, HUGE + 1, HUGE + 2] {
        let id = world.hello("a", epoch, 0);
        assert!(world.take(id)[0].starts_with("Welcome"));
    }
    assert_eq!(world.api.status(&device).epoch, Some(HUGE as i64 + 3));
}

#[test]
fn a_device_that_holds_a_revision_that_nobody_issued_converges() {
    for claimed in [HUGE, u64::MAX - 100] {
        let mut world = World::synced();
        let device = world.device("a");
        world.put(1, vec![set("a", 4, vec![])]).unwrap();
        let id = world.hello("a", 0, claimed);
        let messages = world.take(id);
        assert!(messages[0].contains("desired_known: true"), "{messages:?}");
        // It refuses a lower revision than it holds: its sets are numbered from there.
        let wire = claimed + 4;
        assert!(
            messages[1].starts_with(&format!("Desired(Desired {{ revision: Revision({wire})")),
            "{messages:?}"
        );
        world.send(id, &reported(claimed, &[]));
        world.advance(1_000);
        assert_eq!(world.api.status(&device).revision, Some(0));
        world.send(id, &reported(wire, &[]));
        world.advance(1_000);
        assert_eq!(world.api.status(&device).revision, Some(4));
        assert_eq!(condition(&world.api.status(&device)).unwrap().1, "CounterOutOfRange");
        // The next set is one more, for it and for everybody else.
        assert!(world.put(1, vec![set("a", 5, vec![])]).unwrap().refused.is_empty());
        let messages = world.take(id);
        assert!(
            messages[0].starts_with(&format!("Desired(Desired {{ revision: Revision({})", claimed + 5)),
            "{messages:?}"
        );
        let id = world.hello("a", 1, claimed + 5);
        assert!(
            world.take(id)[1].starts_with(&format!("Desired(Desired {{ revision: Revision({})", claimed + 5))
        );
        // Another process of the gateway counts from what the device says now.
        world.restart(Config::new("gw", "boot-2"), true);
        world.list();
        let id = world.hello("a", 2, claimed + 5);
        assert!(
            world.take(id)[1]
                .starts_with(&format!("Desired(Desired {{ revision: Revision({})", claimed + 10))
        );
        let id = world.hello("a", 3, 5);
        assert!(world.take(id)[1].starts_with("Desired(Desired { revision: Revision(5)"));
    }
}

#[test]
fn a_report_of_a_revision_that_was_never_given_moves_no_counter() {
    let mut world = World::synced();
    let device = world.device("a");
    world.put(1, vec![set("a", 1, vec![])]).unwrap();
    let id = world.hello("a", 0, 1);
    world.take(id);
    world.send(id, &reported(HUGE, &[]));
    world.advance(1_000);
    assert_eq!(world.api.status(&device).revision.unwrap_or(0), 0);
    assert_eq!(condition(&world.api.status(&device)).unwrap().1, "CounterOutOfRange");
    assert!(world.put(1, vec![set("a", 2, vec![])]).unwrap().refused.is_empty());
    assert!(world.take(id)[0].starts_with("Desired(Desired { revision: Revision(2)"));
    world.send(id, &reported(2, &[]));
    world.advance(1_000);
    assert_eq!(world.api.status(&device).revision, Some(2));
}

#[test]
fn a_term_that_no_lease_can_hold_is_refused_and_fences_nobody() {
    let mut world = World::synced();
    for term in [1 << 31, 1 << 63, u64::MAX] {
        let refused = world.put(term, vec![]);
        assert!(matches!(refused, Err(Refused::Invalid(_))), "{refused:?}");
    }
    assert!(world.put(1, vec![]).is_ok());
}

#[test]
fn a_term_that_the_leaders_lease_does_not_show_is_refused() {
    let mut world = World::synced();
    world.leader_lease = Ok(7);
    let Err(Refused::Invalid(refusal)) = world.put(8, vec![]) else { panic!("taken") };
    assert!(refusal.message.contains("above 7"), "{}", refusal.message);
    world.put(7, vec![]).unwrap();
    // A new leader is ahead of what was last read: the Lease is read again.
    world.leader_lease = Ok(8);
    world.put(8, vec![]).unwrap();
    assert!(matches!(world.put(7, vec![]), Err(Refused::Fenced(_))));
    // Nobody was seen to lead in a later term while the API is away; who led before goes on.
    world.leader_lease = Err("away".into());
    let Err(Refused::Unavailable(refusal)) = world.put(9, vec![]) else { panic!("taken") };
    assert_eq!(refusal.reason, "LeaseUnread");
    world.put(8, vec![]).unwrap();
    // A Lease that was deleted begins anew; the leader is told to rise above what was seen, and does.
    world.leader_lease = Ok(1);
    assert!(matches!(world.put(1, vec![]), Err(Refused::Fenced(refusal)) if refusal.leader_term == Some(8)));
    world.leader_lease = Ok(9);
    world.put(9, vec![]).unwrap();
}

#[test]
fn a_process_without_its_lease_lets_nobody_in_and_writes_nothing() {
    let mut world = World::synced();
    let device = world.device("a");
    let id = world.hello("a", 0, 0);
    world.take(id);
    world.advance(5_000);
    let other = crate::election::Hold::Other { holder: "other".into() };
    world.gateway.handle_hold(world.now, &other);
    world.settle();
    assert_eq!(world.closed[&id], CloseReason::Unavailable);
    world.api.calls.clear();
    let id = world.connect(&identity("a"));
    world.settle();
    assert_eq!(world.closed[&id], CloseReason::Unavailable);
    let Err(Refused::Unavailable(refusal)) = world.put(1, vec![]) else { panic!("taken") };
    assert!(refusal.reason == "NotHolder" && refusal.message.contains("other"), "{refusal:?}");
    world.advance(120_000);
    assert!(world.api.calls.is_empty(), "{:?}", world.api.calls);
    assert_eq!(world.api.status(&device).phase, DevicePhase::Connected, "the holder says what became of it");
    assert!(world.gateway.is_drained());
    world.gateway.handle_hold(world.now, &crate::election::Hold::Held);
    world.settle();
    let id = world.hello("a", 1, 0);
    assert!(world.take(id)[0].starts_with("Welcome(Welcome { epoch: Epoch(2)"));
    assert_eq!(world.api.status(&device).epoch, Some(2));
}

#[test]
fn a_disk_with_a_term_that_no_lease_can_hold_forgets_it() {
    let mut world = World::synced();
    world.disk_term = 1 << 63;
    world.restart(Config::new("gw", "boot-2"), true);
    let answer = world.put(1, vec![]);
    assert!(answer.is_ok(), "{answer:?}");
    let told = world.notices.iter().any(|notice| format!("{notice:?}").contains(&(1_u64 << 63).to_string()));
    assert!(told, "{:?}", world.notices);
}

#[test]
fn a_session_that_an_earlier_life_gave_a_later_epoch_is_not_left_connected() {
    let mut world = World::synced();
    let device = world.device("a");
    for epoch in 0..3 {
        world.hello("a", epoch, 0);
    }
    assert_eq!(world.api.status(&device).epoch, Some(3));
    world.restart(Config::new("gw", "boot-2"), true);
    // The API is not seen yet, and what the device says is no help.
    let id = world.hello("a", HUGE, 0);
    assert!(world.take(id)[0].starts_with("Welcome"));
    world.api.edit(&device, |device| device.spec.revoked = true);
    world.list();
    world.advance(5_000);
    let status = world.api.status(&device);
    assert_eq!((status.phase, status.epoch), (DevicePhase::Revoked, Some(3)));
}
