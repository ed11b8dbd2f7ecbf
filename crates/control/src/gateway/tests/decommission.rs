//! Devices that are taken out of service: the order for each, its answer, and how it is kept out.

use wasmbed_api::{Decommission, condition};
use wasmbed_protocol::{Decommissioned, ErrorNotice, MessageGroups, tag};

use super::*;
use crate::gateway_api::{
    DECOMMISSIONS_PER_PUT_MAX, DecommissionOrder, DecommissionView, PutDecommissions, PutDecommissionsAnswer,
};

const ORDER: &[u8] = b"an order";
const SENT: &str = "Decommission(Decommission { order:";

fn order(name: &str, bytes: &[u8]) -> DecommissionOrder {
    let order = base64::engine::general_purpose::STANDARD.encode(bytes);
    DecommissionOrder { device: key(name), order }
}

impl World {
    fn put_orders(
        &mut self,
        term: u64,
        orders: Vec<DecommissionOrder>,
    ) -> Result<PutDecommissionsAnswer, Refused> {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.gateway.handle_leader_lease(term);
        let put = PreparedOrders::new(&PutDecommissions { leader_term: term, orders });
        self.gateway.handle_put_orders(self.now, request, put);
        self.settle();
        let answer = self.orders_answers.pop().expect("an answer");
        assert_eq!(answer.request, request);
        answer.result
    }

    /// A session of a device that knows orders.
    fn hello_with_orders(&mut self, name: &str, epoch: u64) -> SessionId {
        let id = self.connect(&identity(name));
        let hello = Hello { groups: Some(MessageGroups::ALL), ..hello(epoch, 0) };
        self.send(id, &DeviceMessage::Hello(hello));
        id
    }

    fn orders_of(&mut self, id: SessionId) -> usize {
        self.take(id).iter().filter(|message| message.starts_with(SENT)).count()
    }

    fn says(&self, name: &str) -> Option<DecommissionView> {
        let mut cursor = self.gateway.stream_resume(None);
        let events = self.stream(&mut cursor);
        events.into_iter().find_map(|event| match event {
            StreamEvent::Device { device, .. } if device.device == key(name) => device.decommission,
            _ => None,
        })
    }

    fn confirm(&mut self, name: &str) {
        self.edit(&key(name), |device| {
            device.spec.decommission = true;
            device.status.get_or_insert_default().decommission = Some(Decommission {
                nonce: "0".repeat(32),
                requested_at: "2026-01-01T00:00:00Z".to_owned(),
                confirmed_at: Some("2026-01-01T00:01:00Z".to_owned()),
                erased: Vec::new(),
            });
        });
        self.advance(1_000);
    }
}

#[test]
fn an_order_is_on_the_disk_and_goes_to_the_device_at_once_and_at_each_start() {
    let mut world = World::synced();
    world.device("a");
    let first = world.hello_with_orders("a", 0);
    world.advance(1_000);
    assert_eq!(world.orders_of(first), 0);
    assert!(world.put_orders(1, vec![order("a", ORDER)]).unwrap().refused.is_empty());
    assert_eq!(world.orders_of(first), 1);
    assert_eq!(world.put_orders(1, vec![order("a", ORDER)]).unwrap().refused, []);
    assert_eq!(world.orders_of(first), 0, "it is the one that it has");
    assert!(world.disk[&key("a")].order.is_some());
    world.restart(Config::new("gw", "boot-2"), true);
    world.list();
    let second = world.hello_with_orders("a", 1);
    world.advance(1_000);
    assert_eq!(world.orders_of(second), 1, "its disk has it");
    world.put_orders(1, vec![order("a", b"another")]).unwrap();
    assert_eq!(world.orders_of(second), 1);
    world.put_orders(1, vec![]).unwrap();
    assert!(world.disk[&key("a")].order.is_none(), "what is not among them is dropped");
    let third = world.hello_with_orders("a", 2);
    world.advance(1_000);
    assert_eq!(world.orders_of(third), 0);
    assert_eq!(world.gateway.check(), Ok(()));
}

#[test]
fn a_device_that_knows_no_orders_gets_none_and_that_is_said() {
    let mut world = World::synced();
    world.device("a");
    world.put_orders(1, vec![order("a", ORDER)]).unwrap();
    let id = world.hello("a", 0, 0);
    world.advance(1_000);
    assert_eq!(world.orders_of(id), 0);
    assert_eq!(world.says("a"), Some(DecommissionView { unsupported: true, ..DecommissionView::default() }));
}

#[test]
fn what_a_device_answers_is_told_to_controllers_alone() {
    let mut world = World::synced();
    world.device("a");
    world.put_orders(1, vec![order("a", ORDER)]).unwrap();
    let id = world.hello_with_orders("a", 0);
    world.advance(1_000);
    assert_eq!(world.says("a"), None);
    let notice =
        ErrorNotice { code: ErrorCode::Refused, tag: Some(tag::DECOMMISSION), detail: "not by a controller" };
    world.send(id, &DeviceMessage::Error(notice));
    world.advance(2_000);
    assert_eq!(world.says("a").unwrap().refused.as_deref(), Some("not by a controller"));
    world.send(id, &DeviceMessage::Decommissioned(Decommissioned { proof: b"proof" }));
    world.advance(2_000);
    assert_eq!(world.says("a").unwrap().proof.as_deref(), Some("cHJvb2Y="));
    let status = world.api.status(&key("a"));
    assert!(
        status.decommission.is_none() && status.phase == DevicePhase::Connected,
        "a proof is not its to judge"
    );
    assert!(!world.closed.contains_key(&id));
    // Another order is another question.
    world.put_orders(1, vec![order("a", b"another")]).unwrap();
    assert_eq!(world.says("a").unwrap().refused, None);
}

#[test]
fn one_whose_proof_was_verified_is_told_so_and_kept_out() {
    let mut world = World::synced();
    world.device("a");
    world.put_orders(1, vec![order("a", ORDER)]).unwrap();
    let id = world.hello_with_orders("a", 0);
    world.advance(1_000);
    world.send(id, &DeviceMessage::Decommissioned(Decommissioned { proof: b"proof" }));
    world.confirm("a");
    assert_eq!(world.closed.get(&id), Some(&CloseReason::Decommissioned));
    assert_eq!(world.says("a"), None, "order and proof are dropped");
    let stored = &world.disk[&key("a")];
    assert!(stored.order.is_none() && stored.admitted_key.is_none());
    let status = world.api.status(&key("a"));
    assert_eq!(status.phase, DevicePhase::Decommissioned);
    let enrolled = status.conditions.iter().find(|shown| shown.type_ == condition::ENROLLED).unwrap();
    assert_eq!((enrolled.status.as_str(), enrolled.reason.as_str()), ("False", "Decommissioned"));
    let again = world.hello_with_orders("a", 1);
    world.advance(1_000);
    assert_eq!(world.closed.get(&again), Some(&CloseReason::Decommissioned));
    assert_eq!(world.api.status(&key("a")).phase, DevicePhase::Decommissioned);
    // An order that comes late is not for it.
    world.put_orders(1, vec![order("a", ORDER)]).unwrap();
    assert!(world.disk[&key("a")].order.is_none());
    assert_eq!(world.gateway.check(), Ok(()));
}

#[test]
fn a_status_without_a_person_s_word_keeps_nobody_out() {
    let mut world = World::synced();
    world.device("a");
    world.confirm("a");
    world.edit(&key("a"), |device| device.spec.decommission = false);
    let id = world.hello_with_orders("a", 0);
    world.advance(1_000);
    assert!(!world.closed.contains_key(&id));
}

#[test]
fn orders_are_fenced_bounded_and_refused_one_by_one() {
    let mut world = World::synced();
    world.device("a");
    world.put_orders(2, vec![]).unwrap();
    assert!(matches!(world.put_orders(1, vec![order("a", ORDER)]), Err(Refused::Fenced(_))));
    let many = (0..=DECOMMISSIONS_PER_PUT_MAX).map(|n| order(&format!("d{n}"), ORDER)).collect();
    assert!(matches!(world.put_orders(2, many), Err(Refused::Invalid(_))));
    let wrong = DecommissionOrder { device: key("c"), order: "no base64".to_owned() };
    let orders = vec![order("a", ORDER), order("a", ORDER), order("b", &[0; 3_501]), wrong, order("d", &[])];
    let refused = world.put_orders(2, orders).unwrap().refused;
    let said: Vec<_> = refused.iter().map(|one| (one.device.name.as_str(), one.message.as_str())).collect();
    assert_eq!(said[0], ("a", "the device appears twice in this call"));
    assert_eq!(said[1], ("b", "order has 3501 bytes, 1 to 3500 are allowed"));
    assert!(said[2].0 == "c" && said[2].1.starts_with("order is not base64"), "{said:?}");
    assert_eq!(said[3], ("d", "order has 0 bytes, 1 to 3500 are allowed"));
    let largest = vec![order("a", &[1; 3_500])];
    let id = world.hello_with_orders("a", 0);
    world.put_orders(2, largest).unwrap();
    world.advance(1_000);
    assert!(world.orders_of(id) >= 1, "the largest fits a frame");
}

#[test]
fn an_order_is_answered_once_the_disk_has_it() {
    let mut world = World::synced();
    world.device("a");
    world.put_orders(1, vec![]).unwrap();
    world.disk_full = true;
    assert!(matches!(world.put_orders(1, vec![order("a", ORDER)]), Err(Refused::Unavailable(_))));
    assert!(matches!(world.put_orders(1, vec![order("a", ORDER)]), Err(Refused::Unavailable(_))));
    world.disk_full = false;
    world.put_orders(1, vec![order("a", ORDER)]).unwrap();
    assert!(world.disk[&key("a")].order.is_some());
}
