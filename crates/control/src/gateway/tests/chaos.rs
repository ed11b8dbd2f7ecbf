//! Random inputs in random order: nothing panics, bounds hold, the newest epoch wins, and it converges.

use proptest::prelude::*;

use super::{
    joining::{config, factory, issued, join, token},
    *,
};

#[derive(Clone, Debug)]
enum Step {
    Connect { device: u8, key: bool },
    Hello { session: u8, epoch: u8, revision: u8 },
    Bytes { session: u8, bytes: Vec<u8> },
    Report { session: u8, revision: u8, state: u8 },
    Heartbeat { session: u8 },
    Pull { session: u8, offset: u16, length: u16 },
    Close { session: u8 },
    Arrive { device: u8, token: bool },
    Join { session: u8, key: u8, proof: bool },
    Decide { how: u8 },
    Edit { device: u8, approved: bool, revoked: bool },
    Takeover { device: u8 },
    Delete { device: u8 },
    Create { device: u8 },
    Put { device: u8, revision: u8, empty: bool, term: u8 },
    Outage { down: bool },
    Relist,
    Advance { ms: u16 },
    Restart { keep_disk: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let device = 0..4_u8;
    let session = 0..8_u8;
    let step = prop_oneof![
        4 => (device.clone(), prop::bool::weighted(0.8)).prop_map(|(device, key)| Step::Connect { device, key }),
        4 => (session.clone(), 0..6_u8, 0..4_u8)
            .prop_map(|(session, epoch, revision)| Step::Hello { session, epoch, revision }),
        1 => (session.clone(), prop::collection::vec(any::<u8>(), 0..64))
            .prop_map(|(session, bytes)| Step::Bytes { session, bytes }),
        2 => (session.clone(), 0..4_u8, 0..7_u8)
            .prop_map(|(session, revision, state)| Step::Report { session, revision, state }),
        2 => session.clone().prop_map(|session| Step::Heartbeat { session }),
        2 => (session.clone(), any::<u16>(), 1..=16_384_u16)
            .prop_map(|(session, offset, length)| Step::Pull { session, offset, length }),
        2 => session.clone().prop_map(|session| Step::Close { session }),
        3 => (device.clone(), any::<bool>()).prop_map(|(device, token)| Step::Arrive { device, token }),
        5 => (session, 0..3_u8, any::<bool>())
            .prop_map(|(session, key, proof)| Step::Join { session, key, proof }),
        2 => (0..5_u8).prop_map(|how| Step::Decide { how }),
        1 => (device.clone(), prop::bool::weighted(0.8), prop::bool::weighted(0.2))
            .prop_map(|(device, approved, revoked)| Step::Edit { device, approved, revoked }),
        1 => device.clone().prop_map(|device| Step::Takeover { device }),
        1 => device.clone().prop_map(|device| Step::Delete { device }),
        2 => device.clone().prop_map(|device| Step::Create { device }),
        3 => (device, 0..5_u8, any::<bool>(), 0..3_u8)
            .prop_map(|(device, revision, empty, term)| Step::Put { device, revision, empty, term }),
        1 => any::<bool>().prop_map(|down| Step::Outage { down }),
        1 => Just(Step::Relist),
        4 => any::<u16>().prop_map(|ms| Step::Advance { ms }),
        1 => any::<bool>().prop_map(|keep_disk| Step::Restart { keep_disk }),
    ];
    prop::collection::vec(step, 1..120)
}

struct Run {
    world: World,
    module: ModuleDigest,
    sessions: Vec<SessionId>,
    boots: u32,
    highest_epoch: BTreeMap<String, i64>,
}

impl Run {
    fn session(&self, index: u8) -> SessionId {
        let back = usize::from(index).min(self.sessions.len().saturating_sub(1));
        self.sessions.iter().rev().nth(back).copied().unwrap_or(SessionId(u64::MAX))
    }

    fn step(&mut self, step: Step) {
        let world = &mut self.world;
        match step {
            Step::Connect { device, key: own } => {
                let mut identity = identity(&device.to_string());
                if !own {
                    identity.public_key = "other".into();
                }
                let id = world.connect(&identity);
                self.sessions.push(id);
            }
            Step::Hello { session, epoch, revision } => {
                let id = self.session(session);
                self.world.send(id, &DeviceMessage::Hello(hello(epoch.into(), revision.into())));
            }
            Step::Bytes { session, bytes } => {
                let id = self.session(session);
                self.world.gateway.handle_frame(self.world.now, id, &bytes);
            }
            Step::Report { session, revision, state } => {
                let id = self.session(session);
                let state = ApplicationState::from(u32::from(state));
                let report = report(1, SpecHash([1; 32]), state, ReportReason::Trapped);
                self.world.send(id, &reported(revision.into(), &[report]));
            }
            Step::Heartbeat { session } => {
                let id = self.session(session);
                self.world.send(id, &heartbeat(1));
            }
            Step::Pull { session, offset, length } => {
                let id = self.session(session);
                let get = ModuleGet { digest: self.module, offset: offset.into(), length };
                self.world.send(id, &DeviceMessage::ModuleGet(get));
            }
            Step::Close { session } => {
                let id = self.session(session);
                self.world.gateway.handle_closed(self.world.now, id, "closed");
            }
            Step::Arrive { device, token: paired } => {
                let client = if paired { token("key 0") } else { factory(&device.to_string()) };
                if let Some(id) = world.arrive(client) {
                    self.sessions.push(id);
                }
            }
            Step::Join { session, key, proof } => {
                let id = self.session(session);
                let request = format!("key {key}");
                let join = join(&request, proof.then_some("proof"));
                let pairing_id = (key == 0).then_some("0a1b2c3d");
                self.world.send(id, &DeviceMessage::Join(wasmbed_protocol::Join { pairing_id, ..join }));
            }
            Step::Decide { how } => {
                let failed = RequestEnd::Failed { reason: "No".into(), message: "no".into() };
                let requests = world.api.requests.values_mut();
                for (request, seen) in requests.filter(|(_, seen)| seen.end.is_none()) {
                    let own =
                        [b"key 0", b"key 1", b"key 2"].into_iter().find(|key| **key == *request.request);
                    let key = std::str::from_utf8(own.unwrap()).unwrap();
                    let end = match how {
                        0 => None,
                        1 => Some(failed.clone()),
                        2 => Some(RequestEnd::Denied { message: "no".into() }),
                        3 => Some(issued("key 9", &request.device)),
                        _ => Some(issued(key, &request.device)),
                    };
                    *seen = RequestSeen { approved: how != 1, end };
                }
            }
            Step::Edit { device, approved, revoked } => {
                let key = key(&device.to_string());
                if world.api.devices.contains_key(&key) {
                    world.edit(&key, |device| {
                        device.spec.approved = approved;
                        device.spec.pairing_id = (approved && !revoked).then(|| "0a1b2c3d".to_owned());
                        device.spec.revoked = revoked;
                    });
                }
            }
            Step::Takeover { device } => {
                let key = key(&device.to_string());
                if world.api.devices.contains_key(&key) {
                    world.api.edit(&key, |device| {
                        let status = device.status.get_or_insert_default();
                        status.gateway = Some("other".into());
                        status.epoch = Some(status.epoch.unwrap_or(0) + 1);
                    });
                }
            }
            Step::Delete { device } => {
                let key = key(&device.to_string());
                if world.api.devices.remove(&key).is_some() {
                    self.highest_epoch.remove(&key.name);
                    world.gateway.handle_device_deleted(world.now, &key, None);
                }
            }
            Step::Create { device } => {
                if !world.api.devices.contains_key(&key(&device.to_string())) {
                    world.device(&device.to_string());
                }
            }
            Step::Put { device, revision, empty, term } => {
                let assignments = if empty { vec![] } else { vec![entry(1, self.module, 20_000)] };
                let _ = world.put(term.into(), vec![set(&device.to_string(), revision.into(), assignments)]);
            }
            Step::Outage { down } => world.api_down = down,
            Step::Relist => {
                if !world.api_down {
                    world.list();
                }
            }
            Step::Advance { ms } => world.advance(ms.into()),
            Step::Restart { keep_disk } => {
                self.boots += 1;
                let config = Config { boot_id: format!("boot-{}", self.boots), ..config() };
                world.restart(config, keep_disk);
                self.sessions.clear();
            }
        }
        self.world.settle();
    }

    fn check(&mut self) {
        let world = &self.world;
        world.gateway.check().unwrap();
        let levels = world.gateway.levels(world.now);
        // One entry a device, Events and calls under way apart.
        assert!(levels.writes <= levels.devices + config::EVENTS_MAX + config::WRITES_IN_FLIGHT_MAX);
        assert!(levels.sessions <= 4 && levels.devices <= 4);
        assert!(levels.store_operations == 0);
        for (key, device) in &world.api.devices {
            let epoch = device.status.as_ref().and_then(|status| status.epoch).unwrap_or(0);
            let highest = self.highest_epoch.entry(key.name.clone()).or_default();
            assert!(epoch >= *highest, "{} went back from epoch {highest} to {epoch}", key.name);
            *highest = epoch;
        }
        for (key, stored) in &world.disk {
            assert_eq!(*key, stored.device);
        }
    }

    /// The faults stop: what Kubernetes says is what is.
    fn converge(&mut self) {
        self.world.api_down = false;
        self.world.list();
        self.world.advance(200_000);
        for (key, device) in &self.world.api.devices {
            let status = device.status.clone().unwrap_or_default();
            if status.gateway.as_deref() == Some("gw") {
                assert_ne!(status.phase, DevicePhase::Connected, "{}: all sessions timed out", key.name);
            }
        }
        let quiet = self.world.api.calls.len();
        self.world.advance(100_000);
        assert_eq!(self.world.api.calls.len(), quiet, "nothing changes, nothing is written");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn random_worlds_hold_together(steps in steps()) {
        let mut world = World::with(config());
        world.list();
        let module = world.upload(&vec![1; 20_000]);
        let mut run = Run { world, module, sessions: Vec::new(), boots: 0, highest_epoch: BTreeMap::new() };
        for step in steps {
            run.step(step);
            run.check();
        }
        run.converge();
    }
}
