use wasmbed_protocol::{BootCounter, BootId, Publish, TopicDirection};

use super::*;
use crate::gateway_api::MessageLine;

/// The outbox on a disk that may be full.
#[derive(Default)]
pub(super) struct Outbox {
    records: BTreeMap<u64, Vec<u8>>,
    places: BTreeMap<String, Vec<u8>>,
    placed_before: u64,
    /// The disk takes records only while it has fewer than this.
    records_max: Option<usize>,
    /// Nothing can be written at all.
    failing: bool,
    /// Nothing is answered.
    pub(super) stuck: bool,
}

impl Outbox {
    pub(super) fn write(&mut self, write: OutboxWrite) -> Result<Vec<Vec<u8>>, OutboxFailure> {
        let failed = |full| OutboxFailure { full, detail: "the disk fails".to_owned() };
        if self.failing {
            return Err(failed(false));
        }
        let more = self.records.len() + write.append.len() - write.remove.len();
        if self.records_max.is_some_and(|max| !write.append.is_empty() && more > max) {
            return Err(failed(true));
        }
        assert!(write.append.iter().all(|(number, _)| self.records.keys().all(|known| known < number)));
        let removed = write.remove.iter().map(|number| self.records.remove(number).unwrap()).collect();
        self.records.extend(write.append.into_iter().map(|(number, bytes)| (number, bytes.to_vec())));
        for device in write.forget {
            self.places.remove(&device);
        }
        if !write.places.is_empty() {
            self.places.extend(write.places);
            self.placed_before = write.placed_before;
        }
        Ok(removed)
    }

    pub(super) fn restore(&self) -> RestoredMessages {
        let mut restored = RestoredMessages::default();
        restored.placed_before(self.placed_before);
        self.places.iter().for_each(|(device, bytes)| restored.place(device, bytes));
        self.records.iter().for_each(|(number, bytes)| restored.record(*number, bytes));
        restored
    }

    fn lines(&self) -> Vec<MessageLine> {
        let mut cursor = MessageCursor::default();
        let mut lines = Vec::new();
        for (number, bytes) in &self.records {
            loop {
                let (page, finished) = message_lines(&mut cursor, *number, bytes);
                lines.extend(page);
                if finished {
                    break;
                }
            }
        }
        lines
    }

    fn sequences(&self) -> Vec<u64> {
        self.lines().iter().map(|line| line.sequence).collect()
    }
}

fn publish<'a>(sequence: u64, topic: &'a str, payload: &'a [u8]) -> DeviceMessage<'a> {
    DeviceMessage::Publish(Publish {
        uid: ApplicationUid([1; 16]),
        boot: BootCounter(7),
        sequence: Sequence(sequence),
        messages_lost: 0,
        topic,
        payload,
    })
}

fn config(limits: MessageLimits) -> Config {
    Config { messages: Some(limits), ..Config::new("gw", "boot") }
}

/// With devices that run an application with the topic `t`, ten messages a second.
fn world(limits: MessageLimits, devices: &[&str]) -> World {
    let mut world = World::with(config(limits));
    world.list();
    let digest = world.upload(b"module");
    let topics = [Topic { name: "t", direction: TopicDirection::Out, per_second: 10 }];
    for name in devices {
        world.device(name);
        let entry = entry_with_topics(1, digest, 6, &topics);
        assert!(world.put(1, vec![set(name, 1, vec![entry])]).unwrap().refused.is_empty());
    }
    world
}

fn acks(world: &mut World, id: SessionId) -> Vec<String> {
    let said = world.take(id);
    said.into_iter().filter(|said| said.starts_with("PublishAck")).collect()
}

fn ack(sequence: u64) -> String {
    let uid = ApplicationUid([1; 16]);
    format!("PublishAck(PublishAck {{ uid: {uid}, boot: BootCounter(7), sequence: Sequence({sequence}) }})")
}

fn last_ack(world: &mut World, id: SessionId) -> Option<String> {
    acks(world, id).pop()
}

#[test]
fn a_message_is_acknowledged_once_it_is_on_the_disk_and_survives_a_crash() {
    let mut world = world(MessageLimits::default(), &["a"]);
    let id = world.hello("a", 0, 1);
    world.take(id);
    world.outbox.stuck = true;
    world.send(id, &publish(1, "t", b"21.5"));
    world.send(id, &publish(2, "t", b"21.6"));
    world.advance(100);
    assert_eq!(acks(&mut world, id), [""; 0], "the disk has said nothing");
    world.outbox.stuck = false;
    world.advance(100);
    assert_eq!(acks(&mut world, id), [ack(2)]);
    world.restart(config(MessageLimits::default()), true);
    assert_eq!(world.outbox.sequences(), [1, 2]);
    let line = &world.outbox.lines()[0];
    assert_eq!((line.application.as_str(), line.text.as_deref()), ("default/app-1", Some("21.5")));
    assert_eq!(
        (line.device.name.as_str(), line.device_uid.as_str()),
        ("a", "00000000-0000-0000-0000-000000000001")
    );
    // It comes again, as if the acknowledgement had not arrived.
    world.list();
    let id = world.hello("a", 1, 1);
    world.send(id, &publish(1, "t", b"21.5"));
    world.send(id, &publish(2, "t", b"21.6"));
    world.send(id, &publish(3, "t", b"21.7"));
    world.advance(100);
    assert_eq!(last_ack(&mut world, id), Some(ack(3)));
    assert_eq!(world.outbox.sequences(), [1, 2, 3]);
    assert_eq!(world.gateway.message_counters().duplicates, 2);
}

/// Its starts are counted anew, and so are its messages.
#[test]
fn of_a_device_that_lost_its_storage_nothing_is_taken_for_what_came_before() {
    let mut world = world(MessageLimits::default(), &["a"]);
    let start = |world: &mut World, epoch, id| {
        let session = world.connect(&identity("a"));
        let boot_counter = Some(BootCounter(7));
        let hello = Hello { boot_counter, boot_id: Some(BootId([id; 8])), ..hello(epoch, 1) };
        world.send(session, &DeviceMessage::Hello(hello));
        session
    };
    let id = start(&mut world, 0, 1);
    world.send(id, &publish(1, "t", b"of one start"));
    world.send(id, &publish(2, "t", b"of one start"));
    world.advance(100);
    assert_eq!(last_ack(&mut world, id), Some(ack(2)));
    for (restarts, after) in [(false, 3), (true, 4)] {
        if restarts {
            world.restart(config(MessageLimits::default()), true);
            world.list();
        }
        let id = start(&mut world, 2, after);
        world.send(id, &publish(1, "t", b"of another"));
        world.advance(100);
        assert_eq!(last_ack(&mut world, id), Some(ack(1)));
        assert_eq!(world.outbox.sequences().len(), usize::from(after));
        assert_eq!(world.gateway.message_counters().duplicates, 0);
    }
}

#[test]
fn what_no_application_declares_is_refused_told_and_acknowledged() {
    let mut world = world(MessageLimits::default(), &["a"]);
    let id = world.hello("a", 0, 1);
    world.take(id);
    world.send(id, &publish(1, "t", b"x"));
    world.send(id, &publish(2, "other", b"x"));
    world.advance(100);
    let said = world.take(id);
    assert!(said.iter().any(|said| said.contains("Refused") && said.contains("does not declare the topic")));
    assert_eq!(said.iter().filter(|said| **said == ack(2)).count(), 1, "{said:?}");
    let foreign = Publish {
        uid: ApplicationUid([9; 16]),
        boot: BootCounter(7),
        sequence: Sequence(3),
        messages_lost: 0,
        topic: "t",
        payload: b"x",
    };
    world.send(id, &DeviceMessage::Publish(foreign));
    assert!(world.take(id).iter().any(|said| said.contains("not in the device's set")));
    for sequence in 4..40 {
        world.send(id, &publish(sequence, "other", b"x"));
    }
    assert!(!world.closed.contains_key(&id), "a refused message ends no session");
    assert_eq!(world.outbox.sequences(), [1]);
    assert_eq!(world.gateway.message_counters().refused, [1, 37, 0, 0]);
}

#[test]
fn a_topic_has_its_rate_and_a_device_its_share() {
    let limits = MessageLimits { device_bytes_max: 64 * 1024, ..MessageLimits::default() };
    let mut world = world(limits, &["a", "b"]);
    let id = world.hello("a", 0, 1);
    for sequence in 1..=1_000 {
        world.send(id, &publish(sequence, "t", b"x"));
    }
    world.advance(1_000);
    let counters = world.gateway.message_counters();
    assert_eq!((counters.taken, counters.refused[MessageRefusal::Rate as usize]), (256 + 100, 644));
    assert_eq!(last_ack(&mut world, id), Some(ack(1_000)));
    for sequence in 1_001..=1_200 {
        world.advance(1_000);
        world.send(id, &publish(sequence, "t", &[0; 1_024]));
    }
    let counters = world.gateway.message_counters();
    assert!(counters.refused[MessageRefusal::DeviceShare as usize] > 100, "{counters:?}");
    let held: usize = world.outbox.records.values().map(Vec::len).sum();
    assert!(held < 66 * 1024, "{held}");
    let other = world.hello("b", 0, 1);
    world.send(other, &publish(1, "t", b"x"));
    world.advance(100);
    assert_eq!(last_ack(&mut world, other), Some(ack(1)));
}

#[test]
fn the_oldest_gives_way_to_bytes_and_to_age_and_is_not_taken_twice() {
    let limits = MessageLimits { bytes_max: 20 * 1024, age_max_ms: 600_000, ..MessageLimits::default() };
    let mut world = world(limits, &["a"]);
    let id = world.hello("a", 0, 1);
    for sequence in 1..=40 {
        world.send(id, &publish(sequence, "t", &[0; 1_024]));
        world.advance(1_000);
    }
    let kept = world.outbox.sequences();
    assert_eq!((kept.last(), kept.len()), (Some(&40), 17));
    assert_eq!(world.gateway.message_counters().dropped_for_bytes, 23);
    assert!(world.gateway.message_levels(world.now).bytes <= 20 * 1024);
    world.restart(config(limits), true);
    world.list();
    let id = world.hello("a", 1, 1);
    for sequence in 1..=40 {
        world.send(id, &publish(sequence, "t", &[0; 1_024]));
    }
    world.advance(100);
    assert_eq!(world.gateway.message_counters().duplicates, 40, "it is known of those that are gone");
    assert_eq!(last_ack(&mut world, id), Some(ack(40)));
    for _ in 0..45 {
        world.advance(20_000);
        world.send(id, &heartbeat(1));
    }
    assert_eq!(world.outbox.sequences(), [0; 0]);
    assert_eq!(world.gateway.message_counters().dropped_for_age, 17);
    assert_eq!(world.gateway.message_levels(world.now).bytes, 0);
    world.send(id, &publish(40, "t", b"x"));
    assert_eq!(world.gateway.message_counters().duplicates, 41);
}

#[test]
fn a_full_disk_costs_the_oldest_and_nothing_else() {
    let mut world = world(MessageLimits::default(), &["a"]);
    world.outbox.records_max = Some(8);
    let id = world.hello("a", 0, 1);
    for sequence in 1..=12 {
        world.send(id, &publish(sequence, "t", b"x"));
        world.advance(100);
    }
    assert_eq!(last_ack(&mut world, id), Some(ack(12)));
    assert_eq!(world.outbox.sequences().last(), Some(&12));
    assert!(world.gateway.message_counters().dropped_for_room > 0);
    assert!(!world.closed.contains_key(&id));
}

#[test]
fn a_disk_that_others_filled_does_not_cost_everything() {
    let mut world = world(MessageLimits::default(), &["a"]);
    let id = world.hello("a", 0, 1);
    for sequence in 1..=400 {
        world.send(id, &publish(sequence, "t", &[0; 1_024]));
        world.advance(100);
    }
    world.outbox.records_max = Some(0);
    for _ in 0..9 {
        world.advance(20_000);
        world.send(id, &heartbeat(1));
        world.send(id, &publish(500, "t", b"x"));
    }
    let kept = world.outbox.sequences();
    assert!((200..400).contains(&kept.len()), "{}", kept.len());
    assert_eq!(last_ack(&mut world, id), Some(ack(400)));
    world.outbox.records_max = None;
    world.advance(2_000);
    assert_eq!(last_ack(&mut world, id), Some(ack(500)));
}

#[test]
fn a_disk_that_fails_is_not_waited_for_and_the_next_session_brings_it_all() {
    let mut world = world(MessageLimits::default(), &["a"]);
    let id = world.hello("a", 0, 1);
    world.take(id);
    world.outbox.failing = true;
    let mut sequence = 0;
    // More than one device may have waiting, a little at a time.
    for _ in 0..300 {
        sequence += 1;
        world.send(id, &publish(sequence, "t", &[0; 1_024]));
        world.advance(200);
        world.send(id, &heartbeat(1));
    }
    assert_eq!(acks(&mut world, id), [""; 0]);
    assert!(world.gateway.message_counters().postponed > 100);
    assert_eq!(world.read_in_ms[&id], 0, "it is heard all the same");
    assert!(!world.closed.contains_key(&id));
    world.outbox.failing = false;
    world.advance(2_000);
    assert_eq!(world.closed[&id], CloseReason::Unavailable);
    let taken = world.outbox.sequences();
    assert_eq!(taken, (1..=taken.len() as u64).collect::<Vec<_>>());
    let id = world.hello("a", 1, 1);
    for sequence in 1..=sequence {
        world.send(id, &publish(sequence, "t", &[0; 1_024]));
        world.advance(100);
    }
    assert_eq!(last_ack(&mut world, id), Some(ack(sequence)));
    assert_eq!(world.outbox.sequences(), (1..=sequence).collect::<Vec<_>>());
}

#[test]
fn without_its_set_nothing_of_a_device_is_taken_or_refused() {
    let mut world = World::synced();
    world.device("a");
    let id = world.hello("a", 0, 3);
    world.send(id, &publish(1, "t", b"x"));
    world.advance(100);
    assert_eq!(acks(&mut world, id), [""; 0]);
    let digest = world.upload(b"module");
    let topics = [Topic { name: "t", direction: TopicDirection::Out, per_second: 1 }];
    let entries = vec![entry_with_topics(1, digest, 6, &topics)];
    assert!(world.put(1, vec![set("a", 4, entries)]).unwrap().refused.is_empty());
    assert_eq!(world.closed[&id], CloseReason::Unavailable, "its next session brings it again");
    let id = world.hello("a", 1, 4);
    world.send(id, &publish(1, "t", b"x"));
    world.advance(100);
    assert_eq!(acks(&mut world, id), [ack(1)]);
    assert_eq!(world.gateway.message_counters().refused, [0; 4]);
}

#[test]
fn a_new_device_of_a_name_inherits_no_places() {
    let mut world = world(MessageLimits::default(), &["a"]);
    let id = world.hello("a", 0, 1);
    world.send(id, &publish(5, "t", b"x"));
    world.advance(100);
    world.api.devices.remove(&key("a"));
    world.list();
    world.device("a");
    let digest = world.upload(b"module");
    let topics = [Topic { name: "t", direction: TopicDirection::Out, per_second: 1 }];
    world.put(1, vec![set("a", 2, vec![entry_with_topics(1, digest, 6, &topics)])]).unwrap();
    let id = world.hello("a", 0, 2);
    world.send(id, &publish(5, "t", b"y"));
    world.advance(100);
    assert_eq!(last_ack(&mut world, id), Some(ack(5)));
    assert_eq!(world.outbox.sequences(), [5, 5]);
    let lines = world.outbox.lines();
    assert_ne!(lines[0].device_uid, lines[1].device_uid);
}

#[test]
fn a_gateway_without_an_outbox_says_so() {
    let mut world = World::with(Config { messages: None, ..Config::new("gw", "boot") });
    world.list();
    world.device("a");
    let id = world.hello("a", 0, 0);
    assert!(world.take(id)[0].contains("groups: Some(MessageGroups(53))"));
    world.send(id, &publish(1, "t", b"x"));
    assert!(world.take(id)[0].contains("takes no messages"));
}
