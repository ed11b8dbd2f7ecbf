use base64::engine::general_purpose::STANDARD;
use wasmbed_protocol::{Join, MessageGroups};

use super::{
    joining::{config, issued},
    *,
};

fn join(key: &str) -> Join<'_> {
    Join { request: key.as_bytes(), proof: None, pairing_id: None, board: "", firmware: "" }
}

/// An established session of a device with the key `key a`.
fn established() -> (World, SessionId, ObjectKey) {
    let mut world = World::with(config());
    world.list();
    let device = key("a");
    let public_key = STANDARD.encode(b"key a");
    let spec = DeviceSpec { approved: true, public_key: Some(public_key.clone()), ..DeviceSpec::default() };
    let object = world.api.create(&device, spec);
    world.gateway.handle_device(world.now, &object);
    let id = world.connect(&Identity { device: device.clone(), public_key });
    world.send(id, &DeviceMessage::Hello(hello(0, 0)));
    let said = world.take(id);
    let groups = MessageGroups::ALL;
    assert!(said[0].starts_with("Welcome") && said[0].contains(&format!("{groups:?}")), "{said:?}");
    (world, id, device)
}

#[test]
fn a_session_gets_its_next_certificate_and_goes_on() {
    let (mut world, id, device) = established();
    let said = world.say(id, join("key a"));
    assert!(said[0].contains("Pending") && said[0].contains("waits for approval"), "{said:?}");
    let request = world.request().clone();
    assert_eq!(request.device, device);
    let Evidence::Renewal { chain } = &request.evidence else { panic!("{request:?}") };
    assert_eq!(chain.len(), 2, "the chain as it was presented");
    world.decide(true, Some(issued("key a", &device)));
    world.advance(1_000);
    let said = world.take(id);
    assert_eq!(said.iter().filter(|said| said.starts_with("Certificate(")).count(), 2, "{said:?}");
    world.send(id, &heartbeat(1));
    assert!(world.take(id).iter().any(|said| said.contains("HeartbeatAck")));
    assert_eq!(world.api.status(&device).phase, DevicePhase::Connected);
    let renewed = |notice: &Notice| matches!(notice, Notice::JoinEnded { outcome: JoinOutcome::Renewed, .. });
    assert_eq!(world.notices.iter().filter(|notice| renewed(notice)).count(), 1);
}

#[test]
fn a_session_that_stands_renews_what_it_was_given_last() {
    let (mut world, id, device) = established();
    for round in 1..=3_u8 {
        world.say(id, join("key a"));
        assert_eq!(world.api.requests.len(), usize::from(round), "another request each time");
        let is_open = |(_, (_, seen)): &(&String, &(CertificateRequest, RequestSeen))| seen.end.is_none();
        let (_, (request, _)) = world.api.requests.iter().find(is_open).unwrap();
        let Evidence::Renewal { chain } = &request.evidence else { panic!("{request:?}") };
        let presented = vec![format!("leaf {}", id.0).into_bytes(), b"authority".to_vec()];
        let given = vec![vec![round - 1; 9], vec![0; 5]];
        assert_eq!(chain.to_vec(), if round == 1 { presented } else { given });
        let chain = [vec![round; 9], vec![0; 5]].as_slice().into();
        let RequestEnd::Issued(next) = issued("key a", &device) else { unreachable!("it is issued") };
        world.decide(true, Some(RequestEnd::Issued(Issued { chain, ..next })));
        world.advance(config::RENEWAL_SPACING_MS);
        let said = world.take(id);
        assert_eq!(said.iter().filter(|said| said.starts_with("Certificate(")).count(), 1, "{said:?}");
        world.send(id, &heartbeat(1));
        world.take(id);
    }
    // The next session presents what it has.
    world.gateway.handle_closed(world.now, id, "gone");
    let session = world.hello_as("key a", 1);
    world.take(session);
    world.say(session, join("key a"));
    let of_it = |request: &CertificateRequest| match &request.evidence {
        Evidence::Renewal { chain } => chain[0] == format!("leaf {}", session.0).into_bytes(),
        _ => false,
    };
    assert!(world.api.requests.values().any(|(request, _)| of_it(request)));
}

#[test]
fn a_refused_renewal_ends_no_session_and_shows_nothing_but_an_event() {
    let (mut world, id, device) = established();
    world.say(id, join("key a"));
    let failed = RequestEnd::Failed { reason: "WrongDevice".into(), message: "of another key".into() };
    world.decide(true, Some(failed));
    world.advance(1_000);
    let said = world.take(id);
    assert!(said[0].contains("Refused") && said[0].contains("retry_after_ms: 15000"), "{said:?}");
    let status = world.api.status(&device);
    assert_eq!(status.phase, DevicePhase::Connected);
    assert!(status.conditions.iter().all(|shown| shown.reason != "RequestRefused"));
    assert!(world.api.events.iter().any(|event| event.reason.as_str() == "RequestRefused"));
    assert!(!world.ended.contains(&id));
}

#[test]
fn a_renewal_is_for_the_session_s_own_key_and_once_a_minute() {
    let (mut world, id, _) = established();
    let said = world.say(id, join("key b"));
    assert!(said[0].contains("Refused") && said[0].contains("another key"), "{said:?}");
    let said = world.say(id, join("key a"));
    assert!(said[0].starts_with("Error(") && said[0].contains("more than one renewal"), "{said:?}");
    // Neither helps to connect again.
    world.gateway.handle_closed(world.now, id, "gone");
    let public_key = STANDARD.encode(b"key a");
    let id = world.connect(&Identity { device: key("a"), public_key });
    world.send(id, &DeviceMessage::Hello(hello(1, 0)));
    world.take(id);
    assert!(world.say(id, join("key a"))[0].starts_with("Error("));
    world.advance(config::RENEWAL_SPACING_MS);
    world.take(id);
    let proven = Join { proof: Some(b"x"), ..join("key a") };
    assert!(world.say(id, proven)[0].starts_with("Error("));
    assert!(world.api.requests.is_empty());
    let said = world.say(id, join("key a"));
    assert!(said[0].contains("Pending"), "{said:?}");
    assert_eq!(world.request().device, key("a"));
}

#[test]
fn who_leaves_is_not_asked_for_and_finds_its_request_again() {
    let (mut world, id, device) = established();
    world.say(id, join("key a"));
    world.gateway.handle_closed(world.now, id, "gone");
    world.settle();
    world.gateway.check().unwrap();
    world.decide(true, Some(issued("key a", &device)));
    world.advance(5_000);
    let session = world.hello_as("key a", 1);
    world.advance(config::RENEWAL_SPACING_MS);
    world.take(session);
    world.say(session, join("key a"));
    world.advance(1_000);
    // The leaf is of another session here, so that it is another certificate that is renewed.
    assert_eq!(world.api.requests.len(), 2);
}

impl World {
    fn hello_as(&mut self, spki: &str, epoch: u64) -> SessionId {
        let id = self.connect(&Identity { device: key("a"), public_key: STANDARD.encode(spki) });
        self.send(id, &DeviceMessage::Hello(hello(epoch, 0)));
        id
    }
}
