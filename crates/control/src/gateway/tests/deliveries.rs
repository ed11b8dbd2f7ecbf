use wasmbed_protocol::{DeliverAck, Delivery, MessageGroups, MessageSource, limits::DELIVERIES_MAX};

use super::*;
use crate::{gateway::config::DELIVERY_TIMEOUT_MS, gateway_api::Delivered};

/// With device `a`, which runs `default/app-1`, in a session.
fn world() -> (World, SessionId) {
    let mut world = World::new();
    world.list();
    let digest = world.upload(b"module");
    world.device("a");
    assert!(world.put(1, vec![set("a", 1, vec![entry(1, digest, 6)])]).unwrap().refused.is_empty());
    let id = begin(&mut world, Some(MessageGroups::ALL));
    (world, id)
}

fn begin(world: &mut World, groups: Option<MessageGroups>) -> SessionId {
    let id = world.connect(&identity("a"));
    world.send(id, &DeviceMessage::Hello(Hello { groups, ..hello(0, 1) }));
    world.take(id);
    id
}

fn deliver(world: &mut World, id: u64, device: &str, application: &str) {
    hand_over(world, id, device, application);
    world.settle();
}

/// As [`deliver`], before anything is sent.
fn hand_over(world: &mut World, id: u64, device: &str, application: &str) {
    let request = DeliveryRequest {
        id: DeliveryId(id),
        device: ObjectKey::new("default", device),
        application: application.into(),
        topic: "light".into(),
        payload: (*b"on").into(),
        source: MessageSource::Operator,
    };
    world.gateway.handle_delivery(world.now, request);
}

fn answer(world: &mut World, id: SessionId, sequence: u64, delivery: Delivery) {
    world.send(id, &DeviceMessage::DeliverAck(DeliverAck { sequence: Sequence(sequence), delivery }));
}

fn close(world: &mut World, id: SessionId) {
    world.gateway.handle_closed(world.now, id, "gone");
    world.settle();
}

fn answers(world: &mut World) -> Vec<(u64, Delivered)> {
    std::iter::from_fn(|| world.gateway.poll_delivered()).map(|(id, delivered)| (id.0, delivered)).collect()
}

#[test]
fn a_message_is_sent_once_and_its_caller_told_what_became_of_it() {
    let (mut world, id) = world();
    let all = [Delivery::Taken, Delivery::NoRoom, Delivery::UnknownTopic, Delivery::NotRunning];
    for number in 1..=4 {
        deliver(&mut world, number, "a", "default/app-1");
    }
    assert_eq!(answers(&mut world), []);
    let sent = world.take(id);
    assert!(sent[0].starts_with("Deliver(Deliver { sequence: Sequence(1)"), "{sent:?}");
    assert!(sent.len() == 4 && sent[3].contains("topic: \"light\", payload_bytes: 2, source: Operator"));
    // In any order.
    for (index, delivery) in all.into_iter().enumerate().rev() {
        answer(&mut world, id, index as u64 + 1, delivery);
    }
    let told = [
        (4, Delivered::NotRunning),
        (3, Delivered::UnknownTopic),
        (2, Delivered::NoRoom),
        (1, Delivered::Taken),
    ];
    assert_eq!(answers(&mut world), told);
    world.advance(DELIVERY_TIMEOUT_MS);
    assert_eq!(answers(&mut world), [], "once");
    assert_eq!(world.take(id), [""; 0]);
}

#[test]
fn what_nobody_can_take_is_said_at_once() {
    let (mut world, id) = world();
    deliver(&mut world, 1, "b", "default/app-1");
    deliver(&mut world, 2, "a", "default/app-2");
    assert_eq!(answers(&mut world), [(1, Delivered::NotConnected), (2, Delivered::UnknownApplication)]);
    close(&mut world, id);
    deliver(&mut world, 3, "a", "default/app-1");
    let older = begin(&mut world, Some(MessageGroups(15)));
    deliver(&mut world, 4, "a", "default/app-1");
    assert_eq!(answers(&mut world), [(3, Delivered::NotConnected), (4, Delivered::Unsupported)]);
    assert_eq!(world.take(older), [""; 0]);
}

#[test]
fn a_device_that_does_not_answer_holds_its_own_places_and_nobody_waits_for_ever() {
    let (mut world, id) = world();
    let max = DELIVERIES_MAX as u64;
    for number in 0..=max {
        deliver(&mut world, number, "a", "default/app-1");
    }
    assert_eq!(answers(&mut world), [(max, Delivered::Busy)]);
    assert_eq!(world.take(id).len(), DELIVERIES_MAX);
    world.advance(DELIVERY_TIMEOUT_MS);
    let unanswered: Vec<_> = (0..max).map(|number| (number, Delivered::Unanswered)).collect();
    assert_eq!(answers(&mut world), unanswered);
    deliver(&mut world, 20, "a", "default/app-1");
    assert_eq!(answers(&mut world), [(20, Delivered::Busy)], "the device may have them all");
    // A late answer frees its place and tells nobody.
    answer(&mut world, id, 3, Delivery::Taken);
    deliver(&mut world, 21, "a", "default/app-1");
    assert_eq!(answers(&mut world), []);
    assert_eq!(world.take(id).len(), 1);
    close(&mut world, id);
    assert_eq!(answers(&mut world), [(21, Delivered::Unanswered)]);
    let next = begin(&mut world, Some(MessageGroups::ALL));
    deliver(&mut world, 22, "a", "default/app-1");
    assert!(world.take(next)[0].contains("sequence: Sequence(1)"), "a session counts its own");
}

#[test]
fn what_was_not_sent_before_the_session_ended_did_not_arrive() {
    let (mut world, id) = world();
    hand_over(&mut world, 1, "a", "default/app-1");
    close(&mut world, id);
    assert_eq!(answers(&mut world), [(1, Delivered::NotConnected)]);
}

#[test]
fn an_answer_to_what_was_not_sent_is_not_usable() {
    let (mut world, id) = world();
    answer(&mut world, id, 1, Delivery::Taken);
    let said = world.take(id);
    assert!(said[0].contains("an answer to what was not sent"), "{said:?}");
    hand_over(&mut world, 1, "a", "default/app-1");
    answer(&mut world, id, 1, Delivery::Taken);
    assert!(answers(&mut world).is_empty(), "it has not seen it yet");
}
