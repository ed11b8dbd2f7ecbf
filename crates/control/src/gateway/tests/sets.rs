use super::*;

#[test]
fn a_set_is_answered_from_the_disk_and_reaches_the_device() {
    let mut world = World::synced();
    world.device("a");
    let id = world.hello("a", 0, 0);
    assert!(world.take(id)[0].contains("desired_known: false"), "unknown is not empty");
    let digest = world.upload(b"module");
    let entry = entry(1, digest, 6);
    assert!(world.put(1, vec![set("a", 1, vec![entry.clone()])]).unwrap().refused.is_empty());
    assert_eq!(world.disk[&key("a")].set.as_ref().unwrap().revision, 1);
    assert!(world.take(id)[0].starts_with("Desired(Desired { revision: Revision(1)"));
    world.send(id, &DeviceMessage::AssignmentGet(AssignmentGet { spec_hash: hash_of(&entry) }));
    assert!(world.take(id)[0].starts_with("Assignment(Assignment"));
    world.send(id, &DeviceMessage::AssignmentGet(AssignmentGet { spec_hash: SpecHash([9; 32]) }));
    assert!(world.take(id)[0].starts_with("AssignmentGone"));
    // The empty set is a set.
    world.put(1, vec![set("a", 2, vec![])]).unwrap();
    assert!(world.take(id)[0].contains("applications: []"));
}

#[test]
fn nothing_is_answered_before_it_is_durable() {
    let mut world = World::synced();
    world.device("a");
    let put = PutSets { leader_term: 1, sets: vec![set("a", 1, vec![])] };
    world.gateway.handle_leader_lease(1);
    world.gateway.handle_put_sets(world.now, RequestId(1), PreparedSets::new(&put));
    assert!(world.gateway.poll_answer().is_none());
    let Some(StoreOperation::Put { id, .. }) = world.gateway.poll_store() else { panic!() };
    world.gateway.handle_stored(world.now, id, Err("disk full".into()));
    assert!(matches!(world.gateway.poll_answer().unwrap().result, Err(Refused::Unavailable(_))));
    let id = world.hello("a", 0, 0);
    assert!(world.take(id)[0].contains("desired_known: false"));
    assert!(world.put(1, vec![set("a", 1, vec![])]).unwrap().refused.is_empty(), "it may be tried again");
}

#[test]
fn what_a_full_disk_did_not_take_is_written_once_it_does() {
    let mut world = World::synced();
    world.device("a");
    world.disk_full = true;
    world.hello("a", 0, 0);
    world.put(1, vec![set("a", 1, vec![])]).unwrap_err();
    assert!(!world.disk.contains_key(&key("a")));
    world.disk_full = false;
    world.put(1, vec![set("a", 1, vec![])]).unwrap();
    let held = &world.disk[&key("a")];
    assert!(held.uid.is_some() && held.set.is_some(), "{held:?}");
    world.disk_full = true;
    world.gateway.handle_device_deleted(world.now, &key("a"), None);
    world.settle();
    assert!(world.disk.contains_key(&key("a")));
    world.disk_full = false;
    world.device("b");
    world.advance(31_000);
    assert!(!world.disk.contains_key(&key("a")), "it is taken off the disk by the next sweep");
}

#[test]
fn a_term_is_confirmed_only_once_it_is_on_the_disk() {
    let mut world = World::synced();
    world.put(3, vec![]).unwrap();
    world.disk_full = true;
    world.put(4, vec![]).unwrap_err();
    world.put(4, vec![]).expect_err("the disk has not taken it since");
    world.disk_full = false;
    world.put(4, vec![]).unwrap();
    assert_eq!(world.disk_term, 4, "what is confirmed is durable");
}

#[test]
fn an_older_set_on_its_way_does_not_overwrite_a_newer_one() {
    let mut world = World::synced();
    world.device("a");
    world.put(1, vec![set("a", 1, vec![])]).unwrap();
    let put = PutSets { leader_term: 1, sets: vec![set("a", 2, vec![])] };
    world.gateway.handle_put_sets(world.now, RequestId(9), PreparedSets::new(&put));
    // The device is let in, and its record is written, while the set is on its way.
    world.hello("a", 0, 0);
    assert_eq!(world.disk[&key("a")].set.as_ref().unwrap().revision, 2);
}

#[test]
fn lower_terms_and_revisions_are_refused() {
    let mut world = World::synced();
    world.device("a");
    world.put(5, vec![set("a", 3, vec![])]).unwrap();
    let Err(Refused::Fenced(refusal)) = world.put(4, vec![]) else { panic!() };
    assert_eq!(refusal.leader_term, Some(5));
    let refused = world.put(5, vec![set("a", 2, vec![])]).unwrap().refused;
    assert_eq!(refused[0].held_revision, Some(3));
    assert!(world.put(5, vec![set("a", 3, vec![])]).unwrap().refused.is_empty(), "idempotent");
    let digest = world.upload(b"module");
    let refused = world.put(5, vec![set("a", 3, vec![entry(1, digest, 6)])]).unwrap().refused;
    assert_eq!(refused[0].held_revision, Some(3), "a revision has one content");
    world.restart(Config::new("gw", "boot-2"), true);
    assert!(matches!(world.put(4, vec![]), Err(Refused::Fenced(_))), "the term survives a restart");
}

#[test]
fn a_gateway_with_an_empty_disk_empties_no_device() {
    let mut world = World::synced();
    world.device("a");
    let digest = world.upload(b"module");
    world.put(1, vec![set("a", 4, vec![entry(1, digest, 6)])]).unwrap();
    world.restart(Config::new("gw", "boot-2"), false);
    world.list();
    let id = world.hello("a", 1, 4);
    let messages = world.take(id);
    assert!(messages[0].contains("desired_known: false"));
    assert_eq!(messages.len(), 1, "no Desired");
    // A controller that does not know better can't lower it either.
    let refused = world.put(1, vec![set("a", 1, vec![])]).unwrap().refused;
    assert_eq!(refused[0].held_revision, Some(4));
    world.put(1, vec![set("a", 5, vec![])]).unwrap();
    assert!(world.take(id)[0].starts_with("Desired"));
}

#[test]
fn a_device_that_holds_more_than_the_gateway_keeps_it() {
    let mut world = World::synced();
    world.device("a");
    world.put(1, vec![set("a", 1, vec![])]).unwrap();
    let id = world.hello("a", 0, 7);
    assert!(world.take(id)[0].contains("desired_known: false"));
    let mut cursor = world.gateway.stream_resume(None);
    let events = world.stream(&mut cursor);
    let seen = events.iter().find_map(|event| match event {
        StreamEvent::Device { device, .. } => Some((device.revision_seen, device.revision_held)),
        _ => None,
    });
    assert_eq!(seen, Some((7, Some(1))));
}

#[test]
fn sets_that_lie_are_refused_one_by_one() {
    let mut world = World::synced();
    for name in ["a", "b", "c", "d", "e"] {
        world.device(name);
    }
    let digest = world.upload(b"module");
    let missing = ModuleDigest([1; 32]);
    let mut wrong = entry(1, digest, 6);
    wrong.spec_hash = "00".repeat(32);
    let twice = vec![entry(1, digest, 6), entry(1, digest, 7)];
    let answer = world
        .put(
            1,
            vec![
                set("a", 1, vec![wrong]),
                set("b", 1, vec![entry(1, missing, 6)]),
                set("c", 1, twice),
                set("d", 1, vec![entry(1, digest, 6)]),
                set("d", 2, vec![]),
                set("e", 1, vec![entry(1, digest, 7)]),
            ],
        )
        .unwrap();
    let refused: Vec<_> = answer.refused.iter().map(|refusal| refusal.device.name.as_str()).collect();
    assert_eq!(refused, ["a", "b", "c", "d", "e"]);
    assert_eq!(answer.refused[1].missing_modules, [missing.to_string()]);
    assert_eq!(world.disk[&key("d")].set.as_ref().unwrap().revision, 1);
}

#[test]
fn a_set_for_a_device_that_never_appears_is_dropped() {
    let mut world = World::synced();
    assert!(world.put(1, vec![set("ghost", 1, vec![])]).unwrap().refused.is_empty());
    assert!(world.disk.contains_key(&key("ghost")));
    world.advance(config::UNSEEN_DEVICE_MS + 60_000);
    assert!(world.disk.is_empty());
    world.put(1, vec![set("late", 1, vec![])]).unwrap();
    world.device("late");
    world.advance(config::UNSEEN_DEVICE_MS + 60_000);
    assert_eq!(world.disk.len(), 1);
}
