use std::net::{IpAddr, Ipv4Addr};

use wasmbed_protocol::{DeviceUid, Join, KeyHash, limits::DETAIL_BYTES_MAX};

use super::*;

/// A request is the key itself.
pub(super) fn read_request(request: &[u8]) -> Result<KeyHash, RequestFlaw> {
    if request.starts_with(b"key") { Ok(KeyHash::of(request)) } else { Err(RequestFlaw("no request".into())) }
}

pub(super) fn config() -> Config {
    Config { read_request: Some(read_request), ..Config::new("gw", "boot") }
}

fn world_of(config: Config) -> World {
    let mut world = World::with(config);
    world.list();
    world
}

fn world() -> World {
    world_of(config())
}

/// Where all come from that come from nowhere else.
pub(super) const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(super) fn factory(serial: &str) -> JoiningClient {
    JoiningClient {
        certificate: CertificateHash::of(serial.as_bytes()),
        source: HERE,
        identity: JoiningIdentity::Factory {
            serial: serial.to_owned(),
            device_name: serial.to_lowercase(),
            key: KeyHash::of(format!("factory {serial}").as_bytes()),
            chain: [b"factory leaf".to_vec()].as_slice().into(),
        },
    }
}

pub(super) fn token(key: &str) -> JoiningClient {
    JoiningClient {
        certificate: CertificateHash::of(key.as_bytes()),
        source: HERE,
        identity: JoiningIdentity::Token { key: KeyHash::of(key.as_bytes()) },
    }
}

pub(super) fn join<'a>(key: &'a str, proof: Option<&'a str>) -> Join<'a> {
    Join {
        request: key.as_bytes(),
        proof: proof.map(str::as_bytes),
        pairing_id: None,
        board: "test-board",
        firmware: "1",
    }
}

impl World {
    pub(super) fn arrive(&mut self, client: JoiningClient) -> Option<SessionId> {
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let taken = self.gateway.handle_joining(self.now, id, client);
        self.settle();
        taken.then_some(id)
    }

    pub(super) fn say(&mut self, id: SessionId, join: Join<'_>) -> Vec<String> {
        self.send(id, &DeviceMessage::Join(join));
        self.gateway.check().unwrap();
        self.take(id)
    }

    /// Joins until it was told that it waits.
    fn pending(&mut self, serial: &str, key: &str) -> SessionId {
        let id = self.arrive(factory(serial)).unwrap();
        let asked = self.say(id, join(key, None));
        assert!(asked[0].contains("ProofNeeded"), "{asked:?}");
        let told = self.say(id, join(key, Some("proof")));
        assert!(told.last().unwrap().contains("Pending"), "{told:?}");
        id
    }

    /// The only request.
    pub(super) fn request(&self) -> &CertificateRequest {
        assert_eq!(self.api.requests.len(), 1, "{:?}", self.api.requests.keys());
        &self.api.requests.values().next().unwrap().0
    }

    pub(super) fn decide(&mut self, approved: bool, end: Option<RequestEnd>) {
        for (_, seen) in self.api.requests.values_mut().filter(|(_, seen)| seen.end.is_none()) {
            *seen = RequestSeen { approved, end: end.clone() };
        }
    }

    fn enrolled(&self, device: &ObjectKey) -> (DevicePhase, String, String) {
        let status = self.api.status(device);
        let shown = status.conditions.iter().find(|shown| shown.type_ == "Enrolled");
        let (reason, message) =
            shown.map(|shown| (shown.reason.clone(), shown.message.clone())).unwrap_or_default();
        assert!(status.conditions.iter().all(|shown| shown.type_ != "Connected" || shown.status == "False"));
        (status.phase, reason, message)
    }

    fn outcomes(&self) -> Vec<JoinOutcome> {
        let of = |notice: &Notice| match notice {
            Notice::JoinEnded { outcome, .. } => Some(*outcome),
            _ => None,
        };
        self.notices.iter().filter_map(of).collect()
    }
}

pub(super) fn issued(key: &str, device: &ObjectKey) -> RequestEnd {
    RequestEnd::Issued(Issued {
        chain: [vec![7; 5_000]].as_slice().into(),
        key: KeyHash::of(key.as_bytes()),
        device: Some(device.clone()),
        not_after_unix_s: u64::MAX,
    })
}

#[test]
fn a_device_from_the_factory_gets_its_certificate_once_it_is_approved() {
    let mut world = world();
    let id = world.arrive(factory("SN-1")).unwrap();
    let asked = world.say(id, join("key a", None));
    let device = key("sn-1");
    let created = world.api.devices[&device].clone();
    assert_eq!(created.spec.serial.as_deref(), Some("SN-1"));
    assert_eq!(created.spec.device_type, "test-board");
    assert!(!created.spec.approved && created.spec.public_key.is_none());
    let uid: DeviceUid = created.metadata.uid.unwrap().parse().unwrap();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].contains("ProofNeeded") && asked[0].contains("name: \"sn-1\""), "{asked:?}");
    assert!(asked[0].contains(&format!("{uid:?}")), "{asked:?}");
    assert!(world.api.requests.is_empty());

    let told = world.say(id, join("key a", Some("proof")));
    assert!(told[0].contains("Pending") && told[0].contains("waits for approval"), "{told:?}");
    let request = world.request();
    assert_eq!((&request.device, request.device_uid), (&device, uid));
    assert_eq!(&*request.request, b"key a");
    let Evidence::Factory { chain, signature } = &request.evidence else { panic!("{request:?}") };
    assert_eq!((chain.len(), &**signature), (1, b"proof".as_slice()));
    let (phase, reason, _) = world.enrolled(&device);
    assert_eq!((phase, reason.as_str()), (DevicePhase::Pending, "PendingApproval"));

    world.edit(&device, |device| device.spec.approved = true);
    let told = world.take(id);
    assert!(told[0].contains("CertificateSigningRequest waits for approval"), "{told:?}");
    assert_eq!(world.enrolled(&device).0, DevicePhase::Enrolled);
    world.decide(true, None);
    world.advance(30_000);
    let told = world.take(id);
    assert!(told.last().unwrap().contains("the signer has not issued"), "{told:?}");
    world.decide(true, Some(issued("key a", &device)));
    // The signer pins the key, which tells the gateway when to look.
    world.edit(&device, |device| {
        device.status.get_or_insert_default().public_key = Some("key-sn-1".to_owned());
    });
    let told = world.take(id);
    assert_eq!(told.len(), 2, "two pieces: {told:?}");
    assert!(told.iter().all(|message| message.starts_with("Certificate(Certificate { chain_bytes: 5000")));
    assert!(!world.ended.contains(&id), "the device stores it first");
    world.advance(config::JOIN_FAREWELL_MS);
    assert!(world.ended.contains(&id));
    assert_eq!(world.outcomes(), [JoinOutcome::Issued]);
    assert_eq!(world.enrolled(&device).0, DevicePhase::Enrolled);

    // Its session is held to the key that was certified.
    let session = world.hello("sn-1", 0, 0);
    assert!(world.take(session)[0].starts_with("Welcome"));
    let other = world.connect(&Identity { device: device.clone(), public_key: "other".into() });
    world.send(other, &DeviceMessage::Hello(hello(0, 0)));
    assert_eq!(world.closed[&other], CloseReason::KeyMismatch);
}

#[test]
fn nothing_is_made_or_said_for_a_token_that_is_not_exactly_one_device_s() {
    let mut world = world();
    let named = |id| Join { pairing_id: id, ..join("key a", None) };
    let pair =
        || DeviceSpec { pairing_id: Some("0a1b2c3d".to_owned()), approved: true, ..DeviceSpec::default() };
    for round in 0..3 {
        let id = world.arrive(token("key a")).unwrap();
        let said = world.say(id, named([None, Some("11111111"), Some("0a1b2c3d")][round]));
        assert!(said.is_empty() && world.ended.contains(&id) && !world.closed.contains_key(&id), "{said:?}");
        assert!(world.api.requests.is_empty() && world.api.devices.len() == [0, 0, 2][round]);
        if round == 1 {
            for name in ["a", "b"] {
                let device = world.api.create(&key(name), pair());
                world.gateway.handle_device(world.now, &device);
            }
        }
    }
    assert_eq!(world.outcomes(), [JoinOutcome::UnknownToken; 3]);
    world.api.devices.remove(&key("b"));
    world.gateway.handle_device_deleted(world.now, &key("b"), None);

    let id = world.arrive(token("key a")).unwrap();
    assert!(world.say(id, named(Some("0a1b2c3d")))[0].contains("ProofNeeded"));
    // Whoever knows the id alone puts no key before a person.
    let said = world.say(id, named(Some("0a1b2c3d")));
    assert!(said[0].contains("Refused") && world.ended.contains(&id), "{said:?}");
    assert!(world.api.requests.is_empty());

    let id = world.arrive(token("key b")).unwrap();
    let proof = Join { proof: Some(b"mac"), pairing_id: Some("0a1b2c3d"), ..join("key b", None) };
    let said = world.say(id, proof);
    assert!(said[0].contains("Pending"), "{said:?}");
    let Evidence::Token { id: named, mac } = &world.request().evidence else { panic!("a token's MAC") };
    assert_eq!((&**named, &**mac), ("0a1b2c3d", b"mac".as_slice()));
    let id = world.arrive(token("key c")).unwrap();
    let said = world.say(id, Join { pairing_id: Some("0a1b2c3d"), ..join("key d", None) });
    assert!(said[0].contains("another key than the certificate's"), "{said:?}");
}

#[test]
fn a_serial_has_one_device_however_often_it_comes() {
    let mut world = world();
    world.api_down = true;
    let twins: Vec<_> = (0..3)
        .map(|number| {
            let client = JoiningClient { certificate: CertificateHash([number; 32]), ..factory("SN-1") };
            let id = world.arrive(client).unwrap();
            assert!(world.say(id, join("key a", None)).is_empty());
            id
        })
        .collect();
    world.api_down = false;
    world.advance(crate::backoff::API_PAUSE_MS_MAX);
    assert_eq!(world.api.devices.len(), 1);
    for id in twins {
        assert!(world.take(id)[0].contains("ProofNeeded"));
    }
    // Another serial of the same name, and another factory key of the same serial.
    let clash = JoiningIdentity::Factory {
        serial: "sn-1".into(),
        device_name: "sn-1".into(),
        key: KeyHash([1; 32]),
        chain: [Vec::new()].as_slice().into(),
    };
    let id = world
        .arrive(JoiningClient { certificate: CertificateHash([9; 32]), source: HERE, identity: clash })
        .unwrap();
    let said = world.say(id, join("key b", None));
    assert!(said[0].contains("Refused") && said[0].contains("another device"), "{said:?}");
    world.edit(&key("sn-1"), |device| {
        device.spec.factory_key_hash = Some(KeyHash([2; 32]).to_string());
    });
    let id = world.arrive(factory("SN-1")).unwrap();
    assert!(world.say(id, join("key a", None))[0].contains("Refused"));
    assert_eq!(world.api.devices.len(), 1);
}

#[test]
fn no_more_devices_wait_for_approval_than_may() {
    let mut world = world_of(Config { pending_max: 3, ..config() });
    for number in 0..5 {
        let id = world.arrive(factory(&format!("SN-{number}"))).unwrap();
        let said = world.say(id, join("key a", None));
        assert_eq!(said[0].contains("ProofNeeded"), number < 3, "{number}: {said:?}");
        assert_eq!(world.ended.contains(&id), number >= 3, "{number}");
    }
    assert_eq!(world.api.devices.len(), 3);
    world.edit(&key("sn-0"), |device| device.spec.approved = true);
    let id = world.arrive(factory("SN-9")).unwrap();
    assert!(world.say(id, join("key a", None))[0].contains("ProofNeeded"));
    // All at once, before the API has answered.
    let mut slow = world_of(Config { pending_max: 3, ..config() });
    slow.api_down = true;
    for number in 0..5 {
        let id = slow.arrive(factory(&format!("SN-{number}"))).unwrap();
        let refused = slow.say(id, join("key a", None)).iter().any(|said| said.contains("Refused"));
        assert_eq!(refused, number >= 3);
    }
    slow.api_down = false;
    slow.advance(crate::backoff::API_PAUSE_MS_MAX);
    assert_eq!(slow.api.devices.len(), 3);
}

#[test]
fn a_closed_gateway_makes_no_device_and_takes_one_that_was_registered() {
    let mut world = world_of(Config { enrollment: Enrollment::Closed, ..config() });
    let id = world.arrive(factory("SN-1")).unwrap();
    let said = world.say(id, join("key a", None));
    assert!(said[0].contains("Refused") && said[0].contains("retry_after_ms: 300000"), "{said:?}");
    assert!(world.api.devices.is_empty());
    let spec = DeviceSpec { serial: Some("SN-2".into()), approved: true, ..DeviceSpec::default() };
    let device = world.api.create(&ObjectKey::new("plant", "pump"), spec);
    world.gateway.handle_device(world.now, &device);
    let id = world.arrive(factory("SN-2")).unwrap();
    let said = world.say(id, join("key a", None));
    assert!(said[0].contains("namespace: \"plant\", name: \"pump\""), "{said:?}");
}

#[test]
fn a_revoked_device_does_not_join() {
    let mut world = world();
    let waiting = world.pending("SN-1", "key a");
    world.edit(&key("sn-1"), |device| device.spec.revoked = true);
    let said = world.take(waiting);
    assert!(said[0].starts_with("Reject") && said[0].contains("Revoked"), "what it runs is to end: {said:?}");
    assert!(world.ended.contains(&waiting));
    assert_eq!(world.api.status(&key("sn-1")).phase, DevicePhase::Revoked);
    let client = JoiningClient { certificate: CertificateHash([9; 32]), ..factory("SN-1") };
    let id = world.arrive(client).unwrap();
    let said = world.say(id, join("key a", Some("proof")));
    assert!(said[0].starts_with("Reject") && said[0].contains("Revoked"), "what it runs is to end: {said:?}");
    assert_eq!(world.api.requests.len(), 1, "no further one");
    assert_eq!(world.outcomes(), [JoinOutcome::Refused; 2]);

    let other = world.pending("SN-2", "key b");
    world.api.devices.remove(&key("sn-2"));
    world.gateway.handle_device_deleted(world.now, &key("sn-2"), None);
    world.settle();
    assert!(world.take(other)[0].contains("was deleted"));
}

#[test]
fn who_joins_says_join_and_nothing_else_and_not_often() {
    let mut world = world();
    let id = world.arrive(factory("SN-1")).unwrap();
    world.send(id, &DeviceMessage::Hello(hello(0, 0)));
    assert_eq!(world.closed[&id], CloseReason::ProtocolError);
    let id = world.arrive(factory("SN-1")).unwrap();
    world.gateway.handle_frame(world.now, id, &[0xff; 40]);
    world.settle();
    assert_eq!(world.closed[&id], CloseReason::ProtocolError);
    let id = world.arrive(factory("SN-1")).unwrap();
    world.gateway.handle_broken_frame(world.now, id, "too long");
    world.settle();
    assert_eq!(world.closed[&id], CloseReason::ProtocolError);
    assert!(world.api.devices.is_empty());

    let id = world.arrive(factory("SN-1")).unwrap();
    assert!(world.say(id, join("nothing", None))[0].contains("Refused"));
    world.advance(15_000);
    let id = world.arrive(factory("SN-1")).unwrap();
    for _ in 0..8 {
        world.say(id, join("key a", Some("proof")));
        world.advance(15_000);
        assert!(!world.ended.contains(&id), "four in any minute");
    }
    world.say(id, join("key a", Some("proof")));
    world.say(id, join("key a", Some("proof")));
    assert_eq!(world.closed[&id], CloseReason::ProtocolError, "five within a minute");
}

#[test]
fn each_step_has_its_time() {
    let mut world = world();
    let silent = world.arrive(factory("SN-1")).unwrap();
    world.advance(config::HELLO_TIMEOUT_MS - 1);
    assert!(!world.ended.contains(&silent));
    world.advance(1);
    assert_eq!(world.closed[&silent], CloseReason::ProtocolError);

    let unproven = world.arrive(factory("SN-1")).unwrap();
    world.say(unproven, join("key a", None));
    world.advance(config::JOIN_PROOF_TIMEOUT_MS);
    assert_eq!(world.closed[&unproven], CloseReason::ProtocolError);

    let waiting = world.pending("SN-1", "key a");
    let begun = world.now.ms;
    while !world.ended.contains(&waiting) {
        world.advance(10_000);
    }
    assert_eq!(world.closed[&waiting], CloseReason::PendingApproval);
    assert!(world.now.ms - begun <= config::JOINER_LIFETIME_MS);
    let (calls, api) = (world.api.requests.len(), world.api.version);
    world.advance(600_000);
    assert_eq!((world.api.requests.len(), world.api.version), (calls, api), "nobody asks for it any more");

    world.api_down = true;
    let id = world.arrive(factory("SN-2")).unwrap();
    world.say(id, join("key b", None));
    world.advance(config::JOIN_DEVICE_TIMEOUT_MS);
    let said = world.take(id);
    assert!(said[0].contains("Refused") && said[0].contains("could not be created"), "{said:?}");
}

#[test]
fn who_joins_takes_strangers_places_and_nobody_else_s() {
    let mut world = world();
    world.device("a");
    let session = world.hello("a", 0, 0);
    let mut waiting = Vec::new();
    for number in 0..config::JOINERS_GIVE_WAY {
        let spec = DeviceSpec { serial: Some(number.to_string()), approved: true, ..DeviceSpec::default() };
        let device = world.api.create(&key(&format!("d{number}")), spec);
        world.gateway.handle_device(world.now, &device);
        waiting.push(world.arrive(factory(&number.to_string())).unwrap());
    }
    for (number, id) in waiting.iter().enumerate().take(3) {
        let key = format!("key {number}");
        world.say(*id, join(&key, Some("proof")));
    }
    // The next one finds no room, since all are expected, and comes again once those ahead were served.
    let newcomer = world.arrive(factory("new")).unwrap();
    assert_eq!(world.closed[&newcomer], CloseReason::Overloaded);
    let told = world.take(newcomer);
    assert!(told[0].contains("retry_after_ms: 44900,"), "{told:?}");
    assert!(waiting.iter().all(|id| !world.ended.contains(id)));
    // One that waits for a person gives way, and nobody else.
    world.edit(&key("d1"), |device| device.spec.approved = false);
    let newcomer = world.arrive(factory("new")).unwrap();
    assert_eq!(world.closed[&waiting[1]], CloseReason::Overloaded);
    assert!(!world.ended.contains(&newcomer) && !world.ended.contains(&waiting[0]));
    assert_eq!(world.gateway.levels(world.now).joining, config::JOINERS_GIVE_WAY);
    world.gateway.check().unwrap();
    // Whoever has a session, or comes for one, notices nothing.
    world.send(session, &heartbeat(1));
    assert!(world.take(session).iter().any(|said| said.contains("HeartbeatAck")));
    world.device("b");
    let other = world.hello("b", 0, 0);
    assert!(world.take(other)[0].starts_with("Welcome"));
    // Clients that are no admitted devices share the places.
    let mut strangers = 0;
    loop {
        let id = SessionId(1_000_000 + strangers);
        let stranger = Identity { device: key(&format!("s{strangers}")), public_key: "k".into() };
        if !world.gateway.handle_accepted(world.now, id, &stranger) {
            break;
        }
        strangers += 1;
    }
    assert_eq!(strangers as usize + config::JOINERS_GIVE_WAY, config::STRANGERS_MAX);
}

#[test]
fn a_certificate_that_is_refused_waits_ever_longer() {
    let mut world = world();
    let mut pauses = Vec::new();
    for _ in 0..3 {
        let id = world.arrive(factory("SN-1")).unwrap();
        let said = world.say(id, join("nothing", None));
        let pause: u64 =
            said[0].split("retry_after_ms: ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
        pauses.push(pause);
        world.advance(pause - 1_000);
        let early = world.arrive(factory("SN-1")).unwrap();
        let said = world.take(early);
        assert!(said[0].contains("Refused") && said[0].contains("retry_after_ms: 1000,"), "{said:?}");
        assert!(world.ended.contains(&early), "its place is free at once");
        world.advance(1_000);
    }
    assert_eq!(pauses, [15_000, 30_000, 60_000]);
    let other = world.arrive(factory("SN-2")).unwrap();
    assert!(!world.ended.contains(&other));
}

#[test]
fn the_signer_s_refusal_is_told_and_shown_until_the_device_comes_through() {
    let mut world = world();
    let id = world.pending("SN-1", "key a");
    let device = key("sn-1");
    let failed =
        RequestEnd::Failed { reason: "ProofRefused".into(), message: "the signature is another's".into() };
    world.decide(false, Some(failed));
    world.advance(1_000);
    let said = world.take(id);
    assert!(said[0].contains("Refused") && said[0].contains("ProofRefused"), "{said:?}");
    assert!(said[0].contains("retry_after_ms: 15000") && world.ended.contains(&id), "{said:?}");
    let (phase, reason, message) = world.enrolled(&device);
    assert_eq!((phase, reason.as_str()), (DevicePhase::Rejected, "RequestRefused"));
    assert_eq!(message, "ProofRefused: the signature is another's");
    let events: Vec<_> = world.api.events.iter().map(|event| event.reason.as_str()).collect();
    assert!(events.contains(&"RequestRefused"), "{events:?}");

    // Another gateway, and this one after it starts again, know nothing better.
    let version = world.api.version;
    world.restart(config(), true);
    world.list();
    world.advance(120_000);
    assert_eq!(world.api.version, version);

    let again = world.pending("SN-1", "key a");
    assert_eq!(world.api.requests.len(), 2, "the one that failed is over");
    world.edit(&device, |device| device.spec.approved = true);
    world.decide(true, Some(issued("key a", &device)));
    world.advance(1_000);
    assert!(world.take(again).last().unwrap().starts_with("Certificate("));
    assert_eq!(world.enrolled(&device).1, "Approved");
}

#[test]
fn a_key_that_nobody_vouches_for_is_shown_and_waits_for_a_person() {
    let mut world = world();
    let id = world.arrive(factory("SN-1")).unwrap();
    let device = key("sn-1");
    assert!(world.say(id, join("key a", None))[0].contains("ProofNeeded"));
    let fingerprint = format!("sha256:{}", KeyHash::of(b"key a"));
    let said = world.say(id, join("key a", None));
    assert!(said[0].contains("Pending") && said[0].contains(&fingerprint), "{said:?}");
    assert_eq!(world.request().evidence, Evidence::None);
    for approved in [false, true] {
        world.edit(&device, |device| device.spec.approved = approved);
        let (phase, reason, message) = world.enrolled(&device);
        assert_eq!((phase, reason.as_str()), (DevicePhase::Pending, "KeyNotConfirmed"));
        assert!(message.contains(&fingerprint), "{message}");
    }
    // One of another key does not take its place, and one with a proof does.
    let client = JoiningClient { certificate: CertificateHash([8; 32]), ..factory("SN-1") };
    let rival = world.arrive(client.clone()).unwrap();
    world.say(rival, join("key b", None));
    assert!(world.say(rival, join("key b", None))[0].contains("another request for this Device is open"));
    let proven = world.arrive(client).unwrap();
    assert!(world.say(proven, join("key b", Some("proof")))[0].contains("Pending"));
    assert!(world.take(id)[0].contains("took its place") && world.ended.contains(&id));
    world.gateway.handle_closed(world.now, proven, "gone");
    world.settle();

    world.advance(20_000);
    let id = world.arrive(factory("SN-1")).unwrap();
    world.say(id, join("key a", None));
    world.say(id, join("key a", None));
    world.edit(&device, |device| device.spec.confirmed_key = Some(KeyHash::of(b"key a").to_string()));
    assert_eq!(world.enrolled(&device).1, "Approved");
    assert!(world.take(id).last().unwrap().contains("CertificateSigningRequest waits"));
}

#[test]
fn what_was_issued_for_another_is_passed_on_to_nobody() {
    let device = key("sn-1");
    let own = |chain: usize, key: &str, device: ObjectKey| {
        RequestEnd::Issued(Issued {
            chain: [vec![1; chain]].as_slice().into(),
            key: KeyHash::of(key.as_bytes()),
            device: Some(device),
            not_after_unix_s: u64::MAX,
        })
    };
    for (end, words) in [
        (own(9, "key b", device.clone()), "another key"),
        (own(9, "key a", key("sn-2")), "another device"),
        (own(8_193, "key a", device.clone()), "longer than 8,192 bytes"),
        (own(0, "key a", device.clone()), "longer than 8,192 bytes"),
        (RequestEnd::Unusable("no PEM".into()), "no PEM"),
        (RequestEnd::Denied { message: "not ours".into() }, "not ours"),
    ] {
        let mut world = world();
        let id = world.pending("SN-1", "key a");
        world.decide(true, Some(end));
        world.advance(1_000);
        let said = world.take(id);
        assert!(said[0].contains("Refused") && said[0].contains(words), "{said:?}");
        assert!(said.len() == 1 && world.ended.contains(&id));
        assert_eq!(world.outcomes(), [JoinOutcome::Refused]);
    }
}

#[test]
fn an_api_that_is_away_loses_nothing() {
    let mut world = world();
    let spec = DeviceSpec { serial: Some("SN-1".into()), approved: true, ..DeviceSpec::default() };
    let device = world.api.create(&key("sn-1"), spec);
    world.gateway.handle_device(world.now, &device);
    let id = world.arrive(factory("SN-1")).unwrap();
    world.say(id, join("key a", None));
    world.api_down = true;
    world.say(id, join("key a", Some("proof")));
    world.advance(120_000);
    assert!(world.api.requests.is_empty() && !world.ended.contains(&id));
    world.api_down = false;
    world.advance(45_000);
    assert_eq!(world.api.requests.len(), 1);
    // Somebody deletes the request.
    world.api.requests.clear();
    world.advance(31_000);
    let said = world.take(id);
    assert!(said.last().unwrap().contains("was deleted") && world.ended.contains(&id), "{said:?}");
}

#[test]
fn a_gateway_that_does_not_know_its_devices_or_stops_takes_nobody() {
    let mut world = World::with(config());
    let id = world.arrive(factory("SN-1")).unwrap();
    let said = world.say(id, join("key a", None));
    assert!(said[0].contains("Refused") && said[0].contains("does not know its Devices"), "{said:?}");
    world.list();
    let waiting = world.pending("SN-1", "key a");
    world.gateway.handle_shutdown(world.now);
    world.settle();
    assert_eq!(world.closed[&waiting], CloseReason::ShuttingDown);
    let late = world.arrive(factory("SN-2")).unwrap();
    assert_eq!(world.closed[&late], CloseReason::ShuttingDown);
    assert!(world.gateway.is_drained());
}

#[test]
fn a_newer_connection_with_a_certificate_ends_the_one_before() {
    let mut world = world();
    let old = world.pending("SN-1", "key a");
    let new = world.arrive(factory("SN-1")).unwrap();
    assert_eq!(world.closed[&old], CloseReason::Superseded);
    let said = world.say(new, join("key a", Some("proof")));
    assert!(said.last().unwrap().contains("Pending"), "{said:?}");
    assert_eq!(world.api.requests.len(), 1, "the same request");
}

#[test]
fn details_fit_what_an_answer_carries() {
    let mut world = world();
    let id = world.pending("SN-1", "key a");
    let message = "x".repeat(900);
    world.decide(true, Some(RequestEnd::Failed { reason: "Long".into(), message }));
    world.advance(1_000);
    let said = world.take(id);
    assert!(said[0].contains("Long: x"), "{said:?}");
    assert!(said[0].split("detail: ").nth(1).unwrap().len() < DETAIL_BYTES_MAX + 10);
    assert!(world.enrolled(&key("sn-1")).2.len() <= 520);
}
