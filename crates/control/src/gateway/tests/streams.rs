use super::*;

fn names(events: &[StreamEvent]) -> Vec<String> {
    events
        .iter()
        .map(|event| match event {
            StreamEvent::Snapshot { .. } => "snapshot".to_owned(),
            StreamEvent::SnapshotEnd { .. } => "end".to_owned(),
            StreamEvent::Device { device, .. } => device.device.name.clone(),
            StreamEvent::Forgotten { device, .. } => format!("-{}", device.name),
            StreamEvent::Idle { .. } => "idle".to_owned(),
        })
        .collect()
}

fn token(events: &[StreamEvent]) -> String {
    match events.last().unwrap() {
        StreamEvent::SnapshotEnd { token }
        | StreamEvent::Device { token, .. }
        | StreamEvent::Forgotten { token, .. }
        | StreamEvent::Idle { token } => token.clone(),
        StreamEvent::Snapshot { .. } => panic!("a snapshot's head has no token"),
    }
}

#[test]
fn a_snapshot_then_changes_and_resuming_loses_nothing() {
    let mut world = World::synced();
    for name in ["a", "b", "c"] {
        world.device(name);
    }
    let mut cursor = world.gateway.stream_resume(None);
    let events = world.stream(&mut cursor);
    assert_eq!(names(&events), ["snapshot", "a", "b", "c", "end"]);
    world.hello("b", 0, 0);
    let mut resumed = world.gateway.stream_resume(Some(&token(&events)));
    assert_eq!(names(&world.stream(&mut resumed)), ["b"]);
    world.hello("b", 1, 0);
    world.hello("a", 0, 0);
    assert_eq!(names(&world.stream(&mut cursor)), ["b", "a"], "a slow reader reads each device once");
    world.gateway.handle_device_deleted(world.now, &key("c"), None);
    let events = world.stream(&mut cursor);
    assert_eq!(names(&events), ["-c"]);
    assert!(world.gateway.stream_page(&mut cursor).is_empty());
    assert!(matches!(world.gateway.stream_idle(&cursor), Some(StreamEvent::Idle { .. })));
}

#[test]
fn any_other_token_means_a_new_snapshot() {
    let mut world = World::synced();
    world.device("a");
    for bad in ["", "x", "boot", "boot.x", "boot.999", "other.1", "boot.-1"] {
        let mut cursor = world.gateway.stream_resume(Some(bad));
        assert_eq!(names(&world.stream(&mut cursor))[0], "snapshot", "{bad}");
    }
    world.restart(Config::new("gw", "boot-2"), true);
    let mut cursor = world.gateway.stream_resume(Some("boot.1"));
    assert_eq!(names(&world.stream(&mut cursor))[0], "snapshot");
}

#[test]
fn a_large_snapshot_comes_in_pages_while_devices_change() {
    let mut world = World::synced();
    for index in 0..200 {
        world.device(&format!("d{index:03}"));
    }
    let mut cursor = world.gateway.stream_resume(None);
    let mut seen = Vec::new();
    loop {
        let page = world.gateway.stream_page(&mut cursor);
        assert!(page.len() <= config::STREAM_PAGE_MAX + 2);
        if page.is_empty() {
            break;
        }
        seen.extend(names(&page));
        if seen.len() < 100 {
            world.hello("d000", 0, 0);
        }
    }
    assert_eq!(seen.iter().filter(|name| *name == "end").count(), 1);
    assert_eq!(seen.last().map(String::as_str), Some("d000"), "what changed meanwhile follows");
    assert!((0..200).all(|index| seen.contains(&format!("d{index:03}"))));
}

#[test]
fn a_reader_that_missed_too_many_deletions_starts_over() {
    let mut world = World::synced();
    world.device("kept");
    let mut cursor = world.gateway.stream_resume(None);
    let old = token(&world.stream(&mut cursor));
    for index in 0..=config::TOMBSTONES_MAX {
        let name = format!("d{index}");
        world.device(&name);
        world.gateway.handle_device_deleted(world.now, &key(&name), None);
        world.settle();
    }
    let events = world.stream(&mut cursor);
    assert_eq!(names(&events), ["snapshot", "kept", "end"]);
    let mut resumed = world.gateway.stream_resume(Some(&old));
    assert_eq!(names(&world.stream(&mut resumed))[0], "snapshot");
}

#[test]
fn a_view_says_what_the_device_reported() {
    let mut world = World::synced();
    world.device("a");
    let id = world.hello("a", 0, 0);
    let mut cursor = world.gateway.stream_resume(None);
    let view = |events: &[StreamEvent]| match &events[events.len() - 2] {
        StreamEvent::Device { device, .. } => (**device).clone(),
        other => panic!("{other:?}"),
    };
    let events = world.stream(&mut cursor);
    assert!(view(&events).connected && view(&events).applications.is_none());
    world.send(id, &reported(0, &[]));
    let mut cursor = world.gateway.stream_resume(None);
    assert_eq!(view(&world.stream(&mut cursor)).applications, Some(vec![]));
}
