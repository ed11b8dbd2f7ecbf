//! Taking devices out of service: whose nonce, whose proof, and what is said meanwhile.

use wasmbed_api::{Device, Erased};
use wasmbed_protocol::{DeviceUid, Nonce};

use super::*;
use crate::gateway_api::DecommissionView;

const DEVICE: &str = "device-000";

/// A device with a key at `gateway-0`, and what its Device says of its being taken out of service.
fn ordered() -> World {
    let mut world = running(1);
    world.edit_device(DEVICE, |device| device.spec.public_key = Some("key".to_owned()));
    world.settle();
    world.edit_device(DEVICE, |device| device.spec.decommission = true);
    world.advance(1_000);
    world
}

fn device(world: &World) -> &Device {
    &world.devices[DEVICE].0
}

fn nonce(world: &World) -> Option<Nonce> {
    device(world).status.as_ref()?.decommission.as_ref()?.nonce.parse().ok()
}

fn uid(world: &World) -> DeviceUid {
    device(world).metadata.uid.as_ref().unwrap().parse().unwrap()
}

/// Status, reason and message of the condition.
fn says(world: &World) -> (String, String, String) {
    let conditions = &device(world).status.as_ref().unwrap().conditions;
    let shown = conditions.iter().find(|shown| shown.type_ == "Decommissioned").expect("the condition");
    (shown.status.clone(), shown.reason.clone(), shown.message.clone())
}

fn waits_for(world: &World) -> String {
    let (status, reason, message) = says(world);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Waiting"));
    message
}

fn proof(text: &str) -> DecommissionView {
    DecommissionView { proof: Some(text.to_owned()), ..DecommissionView::default() }
}

fn signed(world: &World) -> ProofEvidence {
    let erased = vec![Erased::Assignments, Erased::Modules, Erased::KeyValueData];
    ProofEvidence::Signed { device_uid: uid(world), nonce: nonce(world).unwrap(), erased }
}

#[test]
fn the_nonce_stands_in_the_status_before_an_order_leaves_and_another_leader_goes_on_with_it() {
    let mut world = running(1);
    world.edit_device(DEVICE, |device| {
        device.spec.public_key = Some("key".to_owned());
        device.spec.decommission = true;
    });
    world.fleet.handle_timeout(world.now);
    assert_eq!(world.fleet.poll_orders(world.now), None, "nothing stands in the status yet");
    world.advance(1_000);
    let drawn = nonce(&world).expect("a nonce");
    let order = &world.gateways["gateway-0"].orders[DEVICE];
    assert_eq!((order.nonce, order.device_uid), (drawn, uid(&world)));
    assert_eq!(waits_for(&world), "the order is on its way to gateway gateway-0");
    world.advance(15_000);
    assert_eq!(waits_for(&world), "the device has been sent the order, and its proof is waited for");
    world.lead();
    world.advance(60_000);
    assert_eq!((nonce(&world), world.drawn), (Some(drawn), 1));
    assert_eq!(world.gateways["gateway-0"].orders[DEVICE].nonce, drawn);
    assert_eq!(world.gateways["gateway-0"].order_puts, 2, "one of each leader");
    world.restart_gateway("gateway-0", true);
    world.gateways.get_mut("gateway-0").unwrap().orders.clear();
    world.connect(DEVICE, "gateway-0");
    world.advance(5_000);
    assert_eq!(world.gateways["gateway-0"].orders[DEVICE].nonce, drawn, "its disk is another");
}

#[test]
fn who_does_not_lead_draws_and_sends_nothing() {
    let mut world = World::new(1, 1);
    world.connect(DEVICE, "gateway-0");
    world.follow();
    world.edit_device(DEVICE, |device| device.spec.decommission = true);
    world.advance(60_000);
    assert_eq!((world.drawn, world.decommission_writes, world.gateways["gateway-0"].order_puts), (0, 0, 0));
}

#[test]
fn a_proof_confirms_it_once_and_for_all() {
    let mut world = ordered();
    world.proofs.insert("right".to_owned(), signed(&world));
    world.say_decommission(DEVICE, proof("right"));
    world.advance(1_000);
    let (status, reason, message) = says(&world);
    assert_eq!((status.as_str(), reason.as_str()), ("True", "Confirmed"));
    assert_eq!(
        message,
        "the device signed that it erased its assignments, its modules, its key-value data; that its key is erased is not proven"
    );
    let status = device(&world).status.clone().unwrap();
    let decommission = status.decommission.unwrap();
    assert_eq!(status.phase, DevicePhase::Decommissioned);
    assert_eq!(decommission.erased, [Erased::Assignments, Erased::Modules, Erased::KeyValueData]);
    assert!(decommission.confirmed_at.is_some() && status.applications.is_empty());
    let events: Vec<_> = world.device_events.iter().map(|event| (event.reason, event.warning)).collect();
    assert_eq!(events, [(ReasonCode::Confirmed, false)]);
    assert!(world.gateways["gateway-0"].orders.is_empty(), "its order is dropped");
    let writes = world.decommission_writes;
    // The gateway forgets it, another leads, and nothing is said anew.
    world.decommissions.clear();
    world.connect(DEVICE, "gateway-0");
    world.lead();
    world.advance(60_000);
    assert_eq!((world.decommission_writes, world.device_events.len()), (writes, 1));
    assert_eq!(world.fleet.gauges().decommissions, 0);
}

#[test]
fn a_proof_of_another_device_order_or_key_does_not_count() {
    let mut world = ordered();
    let (nonce, uid) = (nonce(&world).unwrap(), uid(&world));
    let erased = vec![Erased::Modules];
    let (other_nonce, other_uid) = (Nonce([9; 16]), DeviceUid([9; 16]));
    let another = |device_uid, nonce| ProofEvidence::Signed { device_uid, nonce, erased: erased.clone() };
    world.proofs.insert("older".to_owned(), another(uid, other_nonce));
    world.proofs.insert("another's".to_owned(), another(other_uid, nonce));
    for (text, why) in [
        ("older", "it answers another order"),
        ("another's", "it is of the Device with the UID 09090909-0909-0909-0909-090909090909"),
        ("forged", "it is no proof"),
    ] {
        world.say_decommission(DEVICE, proof(text));
        world.advance(30_000);
        assert_eq!(
            waits_for(&world),
            format!("gateway gateway-0 passed on a proof that does not count: {why}")
        );
    }
    assert!(device(&world).status.as_ref().unwrap().decommission.as_ref().unwrap().confirmed_at.is_none());
    // The right one still does.
    world.proofs.insert("right".to_owned(), signed(&world));
    world.say_decommission(DEVICE, proof("right"));
    world.advance(30_000);
    assert_eq!(says(&world).1, "Confirmed");
}

#[test]
fn a_gateway_that_makes_up_proofs_has_few_of_them_verified() {
    let mut world = ordered();
    let mut checks = 0;
    for number in 0..1_000 {
        world.say_decommission(DEVICE, proof(&format!("made up {number}")));
        while let Some(check) = world.fleet.poll_proof(world.now) {
            checks += 1;
            world.fleet.handle_proof(world.now, &check, ProofEvidence::Refuted("it is no proof".to_owned()));
        }
        world.advance(10);
    }
    assert!(checks <= 11, "{checks} in 10 s");
}

#[test]
fn what_is_waited_for_is_said() {
    let mut world = ordered();
    world.say_decommission(
        DEVICE,
        DecommissionView {
            refused: Some("it is not by a controller".to_owned()),
            ..DecommissionView::default()
        },
    );
    world.advance(15_000);
    assert_eq!(waits_for(&world), "the device refuses the order: it is not by a controller");
    world.say_decommission(DEVICE, DecommissionView { unsupported: true, ..DecommissionView::default() });
    world.advance(15_000);
    assert!(waits_for(&world).contains("firmware knows no orders"), "{}", waits_for(&world));
    world.disconnect(DEVICE);
    world.advance(15_000);
    assert_eq!(waits_for(&world), "the device is not connected; it gets the order when it comes back");
    world.edit_device(DEVICE, |device| device.spec.revoked = true);
    world.advance(15_000);
    assert!(waits_for(&world).contains("set spec.revoked to false"), "{}", waits_for(&world));
    world.edit_device(DEVICE, |device| {
        device.spec.revoked = false;
        device.spec.public_key = None;
    });
    world.advance(15_000);
    assert_eq!(says(&world).1, "KeyUnknown");
    assert!(world.gateways["gateway-0"].orders.is_empty(), "its proof could not be verified");
    world
        .edit_device(DEVICE, |device| device.status.as_mut().unwrap().public_key = Some("issued".to_owned()));
    world.advance(15_000);
    assert!(world.gateways["gateway-0"].orders.contains_key(DEVICE));
}

#[test]
fn a_gateway_without_orders_is_named_and_asked_again_later() {
    let mut world = running(1);
    world.gateways_too_old = true;
    world.edit_device(DEVICE, |device| {
        device.spec.public_key = Some("key".to_owned());
        device.spec.decommission = true;
    });
    world.advance(15_000);
    assert_eq!(waits_for(&world), "gateway gateway-0 is of a version that passes no orders on: update it");
    assert!(world.gateways["gateway-0"].order_puts <= 2, "{}", world.gateways["gateway-0"].order_puts);
    world.gateways_too_old = false;
    world.advance(60_000);
    assert_eq!(waits_for(&world), "the device has been sent the order, and its proof is waited for");
}

#[test]
fn a_device_that_comes_and_goes_costs_few_writes() {
    let mut world = ordered();
    let before = world.decommission_writes;
    for _ in 0..50 {
        world.disconnect(DEVICE);
        world.advance(500);
        world.connect(DEVICE, "gateway-0");
        world.advance(500);
    }
    assert!(world.decommission_writes - before <= 6, "{}", world.decommission_writes - before);
}

/// Devices answer their orders at once, until so many Devices say so; how long that takes in milliseconds.
fn until_confirmed(world: &mut World, devices: usize) -> u64 {
    let begun_ms = world.now.ms;
    let is_confirmed = |device: &Device| {
        let status = device.status.as_ref().and_then(|status| status.decommission.as_ref());
        status.is_some_and(|status| status.confirmed_at.is_some())
    };
    while world.devices.values().filter(|(device, _)| is_confirmed(device)).count() < devices {
        assert!(world.now.ms < begun_ms + 600_000, "they come to no end");
        world.advance(100);
        let orders = world.gateways["gateway-0"].orders.clone();
        for (name, Order { device_uid, nonce, .. }) in orders {
            if !world.decommissions.contains_key(&name) {
                let erased = vec![Erased::Assignments];
                world.proofs.insert(name.clone(), ProofEvidence::Signed { device_uid, nonce, erased });
                world.say_decommission(&name, proof(&name));
            }
        }
    }
    world.now.ms - begun_ms
}

#[test]
fn many_at_once_take_two_writes_each_and_the_first_are_done_before_the_last_begin() {
    const DEVICES: usize = 250;
    let mut world = running(DEVICES);
    world.advance(60_000);
    for number in 0..DEVICES {
        world.edit_device(&format!("device-{number:03}"), |device| {
            device.spec.public_key = Some("key".to_owned());
            device.spec.decommission = true;
        });
    }
    // 50 writes a second, of which a second's worth is saved up.
    let half_ms = until_confirmed(&mut world, DEVICES / 2);
    assert!(half_ms <= 5_000, "half of them after {half_ms} ms");
    let rest_ms = until_confirmed(&mut world, DEVICES);
    assert!(half_ms + rest_ms <= 9_500, "all of them after {} ms", half_ms + rest_ms);
    assert_eq!(world.decommission_writes, 2 * DEVICES);
}

#[test]
fn it_gets_no_applications_and_their_statuses_say_why() {
    let mut world = running(2);
    world.apply_application("app", 1, all());
    world.advance(5_000);
    assert_eq!(world.status("app").ready, "2/2");
    world.edit_device(DEVICE, |device| device.spec.decommission = true);
    world.advance(5_000);
    assert!(world.runs(DEVICE).is_empty());
    assert_eq!(world.status("app").ready, "1/1");
    let (_, _, message) = condition(&world, "app", "Ready");
    assert!(
        message.contains("device-000 is taken out of service (spec.decommission) and left out"),
        "{message}"
    );
    world.apply_application("later", 2, names(&[DEVICE]));
    world.advance(5_000);
    assert_eq!(condition(&world, "later", "Ready").1, "NoTargets");
    assert!(world.runs(DEVICE).is_empty());
}

#[test]
fn a_device_that_comes_back_at_another_gateway_gets_its_order_there() {
    let mut world = World::new(1, 2);
    world.connect(DEVICE, "gateway-0");
    world.lead();
    world.edit_device(DEVICE, |device| {
        device.spec.public_key = Some("key".to_owned());
        device.spec.decommission = true;
    });
    world.advance(1_000);
    assert!(world.gateways["gateway-1"].orders.is_empty());
    world.connect(DEVICE, "gateway-1");
    world.advance(1_000);
    let order = world.gateways["gateway-1"].orders[DEVICE].clone();
    assert_eq!(Some(order.nonce), nonce(&world));
    world.delete_device(DEVICE);
    world.advance(5_000);
    assert_eq!(world.fleet.gauges().decommissions, 0);
    assert_eq!(world.fleet.check(), Ok(()));
}
