//! A device that joins and renews, on storage that loses power at any write, with a gateway that holds it to the rules.
#![cfg(test)]

use std::collections::BTreeSet;

use wasmbed_agent::storage::StorageError;
use wasmbed_protocol::{
    Certificate, CloseReason, Closing, Decommission, DeviceMessage, DeviceUid, Epoch, Frames, GatewayMessage,
    HeartbeatAck, Join, JoinAnswer, JoinState, KeyHash, MessageGroups, Nonce, ResetReason, Welcome,
    decode_device, encode_gateway, limits,
};
use wasmbed_runtime::{Interpreter, Metering, RuntimeConfig};
use wasmbed_supervisor::{
    Config, Supervisor,
    memory::{
        Cut, FaultyStorage, MemoryBoard, MemoryLink,
        identity::{CONTROLLER, DEVICE, chain, order, proof, read_chain, read_proof, requested_key},
    },
    platform::{Board, ChainFacts, IdentityError, Ordered, Provisioned},
};

const UID: DeviceUid = DeviceUid([7; 16]);
/// The gateway's clock when the test begins, Unix seconds.
const BEGIN_S: u64 = 1_800_000_000;
/// Two pieces of a frame each, the second a short one.
const CHAIN_BYTES: usize = 5_000;

const ORDERED: Ordered = Ordered { device_uid: UID, nonce: Nonce([9; 16]) };

fn factory() -> Provisioned {
    Provisioned::Factory { key: KeyHash([1; 32]) }
}

fn pairing() -> Provisioned {
    Provisioned::Pairing { id: "0a1b2c3d".into() }
}

/// Whether a connection is one that joins, and the chain it was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Peer {
    Joining,
    Device(Vec<u8>),
}

/// Gateway and signer in one.
struct Gateway {
    /// What the device was provisioned with.
    provisioned: Provisioned,
    /// When a person approves the Device.
    approved_ms: u64,
    /// Joins refused before one is taken.
    refusals: u32,
    retry_after_ms: u32,
    /// Of what is issued.
    life_s: u64,
    /// How long before it is issued it begins.
    backdate_s: u64,
    renews: bool,
    issued: Vec<Vec<u8>>,
    /// Chains that TLS refuses.
    refused: BTreeSet<Vec<u8>>,
    /// The key that used the pairing token up.
    paired: Option<KeyHash>,
    /// The Device is to be decommissioned: every session gets the order, and nobody a certificate.
    decommissions: bool,
    /// Keys that proved that they were, and are kept out from then on.
    proven: BTreeSet<KeyHash>,

    peer: Option<Peer>,
    /// Welcomed on this connection, which still stands.
    welcomed: bool,
    received: Vec<u8>,
    /// A proven request that waits to be approved.
    pending: Option<KeyHash>,
    epoch: u64,
    /// Keys that certificates were asked for.
    keys: BTreeSet<KeyHash>,
    joins_at_ms: Vec<u64>,
    renewals: u32,
    /// The chains of the sessions so far.
    sessions: Vec<Vec<u8>>,
    errors: Vec<String>,
}

impl Gateway {
    fn new(provisioned: Provisioned) -> Self {
        Self {
            provisioned,
            approved_ms: 0,
            refusals: 0,
            retry_after_ms: 15_000,
            life_s: 30_000,
            backdate_s: 0,
            renews: true,
            issued: Vec::new(),
            refused: BTreeSet::new(),
            paired: None,
            decommissions: false,
            proven: BTreeSet::new(),
            peer: None,
            welcomed: false,
            received: Vec::new(),
            pending: None,
            epoch: 0,
            keys: BTreeSet::new(),
            joins_at_ms: Vec::new(),
            renewals: 0,
            sessions: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn now_s(now_ms: u64) -> u64 {
        BEGIN_S + now_ms / 1_000
    }

    /// Once per key and half a life, as a request that exists already is not made again.
    fn issue(&mut self, key: KeyHash, now_ms: u64) -> Vec<u8> {
        let now_s = Self::now_s(now_ms);
        let last = self.issued.last().filter(|last| {
            let (of, facts) = read_chain(last).unwrap();
            of == key && now_s < facts.not_before_s + self.backdate_s + self.life_s / 2
        });
        if let Some(last) = last {
            return last.clone();
        }
        let facts = ChainFacts { not_before_s: now_s - self.backdate_s, not_after_s: now_s + self.life_s };
        let issued = chain(key, facts, CHAIN_BYTES);
        self.issued.push(issued.clone());
        issued
    }

    fn send(link: &MemoryLink, message: &GatewayMessage<'_>) {
        let mut frame = vec![0; limits::FRAME_BYTES_MAX];
        let length = encode_gateway(message, &mut frame).unwrap();
        link.with(|channel| channel.to_device.extend(&frame[..length]));
    }

    fn push_chain(link: &MemoryLink, chain: &[u8]) {
        for (index, bytes) in chain.chunks(limits::CHUNK_BYTES_MAX).enumerate() {
            let offset = (index * limits::CHUNK_BYTES_MAX) as u32;
            let piece = Certificate { chain_bytes: chain.len() as u32, offset, bytes };
            Self::send(link, &GatewayMessage::Certificate(piece));
        }
    }

    fn answer(link: &MemoryLink, state: JoinState, retry_after_ms: u32, detail: &str) {
        let (device_uid, namespace, name) = (Some(UID), "default", "joined");
        let answer = JoinAnswer { state, device_uid, namespace, name, retry_after_ms, detail };
        Self::send(link, &GatewayMessage::JoinAnswer(answer));
    }

    /// The handshake: which device it is, or none.
    fn admit(&self, presented: Option<Vec<u8>>, now_ms: u64) -> Option<Peer> {
        let Some(presented) = presented else {
            assert!(!matches!(self.provisioned, Provisioned::Fixed));
            return Some(match self.provisioned {
                Provisioned::Fixed | Provisioned::Operational { .. } => Peer::Device(vec![]),
                Provisioned::Factory { .. } | Provisioned::Pairing { .. } => Peer::Joining,
            });
        };
        assert!(self.issued.contains(&presented), "the device presents a chain that nobody issued");
        let (_, facts) = read_chain(&presented).unwrap();
        let is_over = Self::now_s(now_ms) > facts.not_after_s;
        (!is_over && !self.refused.contains(&presented)).then_some(Peer::Device(presented))
    }

    /// True if it did anything.
    fn poll(&mut self, link: &MemoryLink, now_ms: u64) -> bool {
        let mut busy = false;
        if link.accept() {
            busy = true;
            self.received.clear();
            self.pending = None;
            self.welcomed = false;
            self.peer = self.admit(link.with(|channel| channel.presented.clone()), now_ms);
        } else if self.peer.is_none() && link.with(|channel| channel.up) {
            // The alert comes when the device's side of the handshake is done.
            busy = true;
            link.cut();
        }
        if !link.with(|channel| channel.up) {
            self.peer = None;
        }
        let came: Vec<u8> = link.with(|channel| channel.to_gateway.drain(..).collect());
        busy |= !came.is_empty();
        self.received.extend(came);
        let received = std::mem::take(&mut self.received);
        let mut frames = Frames::new(&received);
        for body in frames.by_ref() {
            let Some(peer) = self.peer.clone() else { break };
            self.handle(link, now_ms, &peer, decode_device(body.unwrap()).unwrap());
        }
        self.received = received[frames.consumed()..].to_vec();
        if self.peer == Some(Peer::Joining)
            && now_ms >= self.approved_ms
            && let Some(key) = self.pending.take()
        {
            busy = true;
            if matches!(self.provisioned, Provisioned::Pairing { .. }) {
                self.paired.get_or_insert(key);
            }
            Self::push_chain(link, &self.issue(key, now_ms));
        }
        busy
    }

    fn handle(&mut self, link: &MemoryLink, now_ms: u64, peer: &Peer, message: DeviceMessage<'_>) {
        match (peer, message) {
            (Peer::Joining, DeviceMessage::Join(join)) => self.join(link, now_ms, &join),
            (Peer::Device(presented), DeviceMessage::Join(join)) => {
                assert!(self.renews, "an older gateway would not know what this is");
                assert_eq!((join.proof, join.pairing_id), (None, None));
                let key = requested_key(join.request).unwrap();
                let own = match &self.provisioned {
                    Provisioned::Operational { key, .. } => *key,
                    _ => read_chain(presented).unwrap().0,
                };
                assert_eq!(key, own, "a renewal keeps the key");
                self.renewals += 1;
                if self.refusals > 0 {
                    self.refusals -= 1;
                    return Self::answer(link, JoinState::Refused, self.retry_after_ms, "not now");
                }
                Self::answer(link, JoinState::Pending, 0, "the signer");
                Self::push_chain(link, &self.issue(key, now_ms));
            }
            (Peer::Joining, DeviceMessage::Error(error)) | (Peer::Device(_), DeviceMessage::Error(error)) => {
                self.errors.push(error.detail.into());
            }
            (Peer::Joining, other) => panic!("a joining device sends {other:?}"),
            (Peer::Device(presented), DeviceMessage::Hello(_))
                if read_chain(presented).is_some_and(|(key, _)| self.proven.contains(&key)) =>
            {
                Self::decommissioned(link);
            }
            (Peer::Device(presented), DeviceMessage::Decommissioned(decommissioned)) => {
                let (key, _) = read_chain(presented).unwrap();
                let proof = read_proof(decommissioned.proof, key).unwrap();
                assert_eq!((proof.device_uid, proof.nonce), (ORDERED.device_uid, ORDERED.nonce));
                self.proven.insert(key);
                Self::decommissioned(link);
            }
            (Peer::Device(presented), DeviceMessage::Hello(hello)) => {
                self.sessions.push(presented.clone());
                self.welcomed = true;
                self.epoch = self.epoch.max(hello.last_epoch.0) + 1;
                let welcome = Welcome {
                    epoch: Epoch(self.epoch),
                    unix_ms: BEGIN_S * 1_000 + now_ms,
                    heartbeat_interval_ms: 60_000,
                    heartbeat_timeout_ms: 180_000,
                    log_bytes_per_second: 0,
                    desired_known: false,
                    groups: self
                        .renews
                        .then_some(MessageGroups(MessageGroups::RENEWAL.0 | MessageGroups::DECOMMISSION.0)),
                };
                Self::send(link, &GatewayMessage::Welcome(welcome));
                if self.decommissions {
                    let order = order(CONTROLLER, DEVICE, ORDERED);
                    Self::send(link, &GatewayMessage::Decommission(Decommission { order: &order }));
                }
            }
            (Peer::Device(_), DeviceMessage::Heartbeat(heartbeat)) => {
                let unix_ms = BEGIN_S * 1_000 + now_ms;
                let ack = HeartbeatAck { sequence: heartbeat.sequence, unix_ms };
                Self::send(link, &GatewayMessage::HeartbeatAck(ack));
            }
            (Peer::Device(_), _) => {}
        }
    }

    fn decommissioned(link: &MemoryLink) {
        let closing = Closing { reason: CloseReason::Decommissioned, retry_after_ms: 0, detail: "" };
        Self::send(link, &GatewayMessage::Goodbye(closing));
        link.cut();
    }

    fn join(&mut self, link: &MemoryLink, now_ms: u64, join: &Join<'_>) {
        self.joins_at_ms.push(now_ms);
        let key = requested_key(join.request).unwrap();
        if !self.proven.is_empty() && self.decommissions {
            return Self::decommissioned(link);
        }
        if self.decommissions {
            Self::answer(link, JoinState::Refused, 3_600_000, "the Device is to be decommissioned");
            return link.cut();
        }
        self.keys.insert(key);
        let pairing_id = match &self.provisioned {
            Provisioned::Pairing { id } => Some(id.as_str()),
            _ => None,
        };
        assert_eq!(join.pairing_id, pairing_id);
        if self.refusals > 0 {
            self.refusals -= 1;
            Self::answer(link, JoinState::Refused, self.retry_after_ms, "no such Device");
            return link.cut();
        }
        let Some(given) = join.proof else {
            return Self::answer(link, JoinState::ProofNeeded, 0, "");
        };
        assert_eq!(Some(given.to_vec()), proof(&self.provisioned, key, "default", "joined", UID));
        if self.paired.is_some_and(|paired| paired != key) {
            Self::answer(link, JoinState::Refused, self.retry_after_ms, "the token is used up");
            return link.cut();
        }
        self.pending = Some(key);
        Self::answer(link, JoinState::Pending, 0, "a person approves it");
    }

    /// Whether there is a session with this chain now.
    fn has_session(&self, with: &[u8]) -> bool {
        self.welcomed && self.peer == Some(Peer::Device(with.to_vec()))
    }
}

struct World {
    device: Supervisor<Interpreter, MemoryBoard>,
    link: MemoryLink,
    gateway: Gateway,
    now_ms: u64,
    boots: u64,
}

impl World {
    fn new(provisioned: Provisioned) -> Self {
        Self::with(FaultyStorage::default(), Gateway::new(provisioned), 0, 1)
    }

    fn with(storage: FaultyStorage, mut gateway: Gateway, now_ms: u64, boots: u64) -> Self {
        let mut board = MemoryBoard::new(storage, boots);
        board.identity.provisioned = gateway.provisioned.clone();
        let link = board.link.clone();
        let about = Board {
            board: "memory".into(),
            firmware: "0.1.0".into(),
            flash_bytes: 4 << 20,
            module_bytes_max: 1 << 20,
            applications_max: 10,
            capabilities: vec![],
            peripherals: Vec::new(),
            reset_reason: ResetReason::PowerOn,
            reset_detail: String::new(),
        };
        let runtime =
            RuntimeConfig { metering: Metering::Fixed { fuel_per_ms: 20_000 }, ..RuntimeConfig::default() };
        gateway.peer = None;
        let device = Supervisor::new(Config { board: about, runtime }, board, now_ms);
        Self { device, link, gateway, now_ms, boots }
    }

    /// Loses power and starts again, with what storage holds.
    fn reboot(self) -> Self {
        let storage = self.device.into_platform().storage.after_power_loss();
        Self::with(storage, self.gateway, self.now_ms + 500, self.boots + 1)
    }

    fn has_power(&mut self) -> bool {
        !self.device.platform().storage.has_lost_power()
    }

    fn cut(&mut self) {
        self.link.cut();
        self.gateway.peer = None;
    }

    fn step(&mut self) {
        self.device.platform().storage.at(self.now_ms);
        self.device.platform().timer.now_us = self.now_ms * 1_000;
        let deadline_ms = self.device.poll(self.now_ms);
        if let Some(agent) = self.device.agent() {
            assert_eq!(agent.check(), Ok(()));
        }
        let busy = self.gateway.poll(&self.link, self.now_ms);
        if !busy {
            self.now_ms = deadline_ms.clamp(self.now_ms + 1, self.now_ms + 60_000);
        }
    }

    fn log(&mut self) -> String {
        self.device.platform().log.records.iter().cloned().collect::<Vec<_>>().join("\n")
    }

    fn logged(&mut self, part: &str) -> usize {
        self.device.platform().log.records.iter().filter(|line| line.contains(part)).count()
    }

    fn until(&mut self, what: &str, within_ms: u64, mut condition: impl FnMut(&mut Self) -> bool) {
        let end_ms = self.now_ms + within_ms;
        let mut steps = 0;
        while !condition(self) {
            let late = self.now_ms > end_ms || steps > 200_000;
            assert!(!late, "not within {within_ms} ms: {what}\n{}", self.log());
            self.step();
            steps += 1;
        }
    }

    fn run_for(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.step();
        }
    }

    /// Steps until then, or until power is lost: whether it still has power.
    fn until_or_cut(
        &mut self,
        what: &str,
        within_ms: u64,
        mut condition: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        self.until(what, within_ms, |world| !world.has_power() || condition(world));
        self.has_power()
    }

    /// In a session with the newest chain, and storage has it as the chain in use.
    fn is_joined(&mut self) -> bool {
        let Some(newest) = self.gateway.issued.last().cloned() else { return false };
        let stored = self.device.platform().storage.disk().identity.clone().unwrap_or_default();
        // The record's end: no next chain, and there was a session.
        let is_kept = stored.ends_with(&[0xf6, 0xf5]);
        is_kept
            && stored.windows(newest.len()).any(|part| part == newest)
            && self.gateway.has_session(&newest)
    }
}

#[test]
fn a_device_joins_by_its_factory_identity_and_by_a_token() {
    for provisioned in [factory(), pairing()] {
        let mut world = World::new(provisioned);
        world.gateway.approved_ms = 25 * 60_000;
        world.until("it waits", 5_000, |world| world.logged("a person approves it") == 1);
        assert!(world.device.platform().storage.disk().identity.is_some(), "its key is stored");
        world.until("it is approved and has a session", 26 * 60_000, World::is_joined);
        assert_eq!(world.gateway.keys.len(), 1);
        assert_eq!(world.device.platform().identity.keys_made, 1);
        // 10 minutes at a time, and no storm between them.
        assert!((3..=9).contains(&world.gateway.joins_at_ms.len()), "{:?}", world.gateway.joins_at_ms);
        assert_eq!(world.logged("joining: certificate asked for"), world.gateway.joins_at_ms.len() / 2);
        assert!(world.gateway.errors.is_empty(), "{:?}", world.gateway.errors);
        let mut world = world.reboot();
        world.until("it comes back with its chain", 5_000, |world| world.gateway.sessions.len() == 2);
        world.run_for(60_000);
        assert_eq!((world.gateway.sessions.len(), world.gateway.issued.len()), (2, 1));
        assert_eq!(world.device.platform().identity.keys_made, 0);
    }
}

#[test]
fn a_refused_join_keeps_the_pause_that_was_asked_for_and_backs_off_without_one() {
    let mut world = World::new(factory());
    (world.gateway.refusals, world.gateway.retry_after_ms) = (4, 20_000);
    world.until("it is taken in the end", 300_000, World::is_joined);
    let times = world.gateway.joins_at_ms.clone();
    assert_eq!(times.len(), 6, "four refused, then one without a proof and one with it: {times:?}");
    assert!(times[..5].windows(2).all(|pair| pair[1] - pair[0] >= 20_000), "{times:?}");
    assert_eq!(world.logged("certificate refused, ask again in 20000 ms: no such Device"), 4);

    let mut world = World::new(factory());
    (world.gateway.refusals, world.gateway.retry_after_ms) = (u32::MAX, 0);
    world.run_for(3_600_000);
    let joins = world.gateway.joins_at_ms.len();
    assert!((60..240).contains(&joins), "{joins} in an hour");

    let mut world = World::new(factory());
    (world.gateway.refusals, world.gateway.retry_after_ms) = (1, u32::MAX);
    world.until("no gateway keeps a device away for longer than an hour", 3_700_000, World::is_joined);
}

/// Runs a scenario with power lost at every write of it; `after` begins where it ends with power back.
fn at_every_write(
    name: &str,
    mut begin: impl FnMut() -> World,
    mut until: impl FnMut(&mut World) -> bool,
    after: impl Fn(&mut World),
) {
    let mut cuts = 0;
    for writes in 0.. {
        let mut cut = false;
        for permille in [0, 499, 500, 1_000] {
            let mut world = begin();
            world.device.platform().storage.faults.cut = Some(Cut { writes, permille });
            if world.until_or_cut(name, 40_000_000, &mut until) {
                continue;
            }
            cut = true;
            cuts += 1;
            let mut world = world.reboot();
            world.until(&format!("{name}, after a cut at write {writes}"), 40_000_000, &mut until);
            after(&mut world);
            assert_eq!(
                world.gateway.keys.len(),
                1,
                "{name}, cut {writes}: a key was used before it was kept"
            );
        }
        if !cut {
            break;
        }
    }
    println!("{name}: {cuts} cuts");
    assert!(cuts >= 12, "{name}: only {cuts} cuts");
}

#[test]
fn a_cut_at_every_write_of_a_join_is_survived() {
    for (name, provisioned) in [("by factory identity", factory()), ("by token", pairing())] {
        let begin = || World::new(provisioned.clone());
        at_every_write(name, begin, World::is_joined, |world| {
            assert_eq!(world.gateway.issued.len(), 1, "what was issued is given again");
            let mut rebooted = std::mem::replace(world, World::new(factory())).reboot();
            let sessions = rebooted.gateway.sessions.len();
            rebooted.until("it comes back", 5_000, |world| world.gateway.sessions.len() > sessions);
            *world = rebooted;
        });
    }
}

/// A device in a session, its chain to be renewed soon.
fn before_renewal() -> World {
    let mut world = World::new(factory());
    world.until("it joins", 60_000, World::is_joined);
    world.run_for(18_900_000);
    assert_eq!(world.gateway.renewals, 0);
    world
}

/// The new chain was issued and had a session, and the device has written that down.
fn is_renewed(world: &mut World) -> bool {
    let received = if world.boots == 1 { 2 } else { 1 };
    if world.logged("certificate received") == received {
        let old = world.gateway.issued[0].clone();
        if world.gateway.has_session(&old) {
            world.cut();
        }
    }
    world.gateway.issued.len() == 2 && world.is_joined()
}

#[test]
fn a_cut_at_every_write_of_a_renewal_is_survived() {
    at_every_write("renewal", before_renewal, is_renewed, |world| {
        assert_eq!(world.gateway.joins_at_ms.len(), 2, "a device that has a chain does not join anew");
    });
}

#[test]
fn a_chain_is_renewed_at_two_thirds_of_its_life_and_used_at_the_next_connection() {
    let mut world = before_renewal();
    world.until("it renews", 4_000_000, |world| world.gateway.renewals == 1);
    let at_s = world.now_ms / 1_000;
    assert!((18_500..=21_600).contains(&at_s), "{at_s}");
    world.until("it is stored", 5_000, |world| world.logged("certificate received") == 2);
    world.run_for(1_000_000);
    assert_eq!((world.gateway.sessions.len(), world.gateway.renewals), (1, 1), "the session goes on");
    world.cut();
    world.until("the new chain has a session", 5_000, World::is_joined);
    assert_eq!(world.gateway.sessions.len(), 2);
    assert_eq!(world.gateway.sessions[1], world.gateway.issued[1]);
}

#[test]
fn the_old_chain_is_kept_while_the_new_one_is_turned_away() {
    let mut world = before_renewal();
    world.until("it renews", 4_000_000, |world| world.logged("certificate received") == 2);
    world.run_for(1_000);
    let (old, new) = (world.gateway.issued[0].clone(), world.gateway.issued[1].clone());
    world.gateway.refused.insert(new.clone());
    world.cut();
    world.until("the old one has a session", 20_000, |world| world.gateway.has_session(&old));
    let mut world = world.reboot();
    world.until("also after a reset", 20_000, |world| world.gateway.has_session(&old));
    world.gateway.refused.clear();
    world.cut();
    world.until("the new one is tried again", 20_000, |world| world.gateway.has_session(&new));
    world.gateway.refused.insert(old);
    world.cut();
    world.until("and stays", 20_000, |world| world.gateway.has_session(&new));
}

#[test]
fn a_new_chain_that_is_never_taken_is_renewed_again() {
    let mut world = before_renewal();
    world.until("it renews", 4_000_000, |world| world.logged("certificate received") == 2);
    world.run_for(1_000);
    let bad = world.gateway.issued[1].clone();
    world.gateway.refused.insert(bad.clone());
    world.gateway.issued.clear();
    world.gateway.issued.extend(world.gateway.sessions.first().cloned());
    world.gateway.issued.push(bad);
    world.cut();
    // Another half of a life, so that the signer issues another one.
    world.until("another one is asked for", 9_000_000, |world| world.gateway.renewals >= 2);
}

#[test]
fn a_renewal_that_is_refused_is_tried_again_and_the_session_goes_on() {
    let mut world = before_renewal();
    (world.gateway.refusals, world.gateway.retry_after_ms) = (3, 0);
    world.until("it is renewed", 12_000_000, |world| world.gateway.issued.len() == 2);
    assert_eq!((world.gateway.renewals, world.gateway.sessions.len()), (4, 1));
    let mut world = before_renewal();
    (world.gateway.refusals, world.gateway.retry_after_ms) = (u32::MAX, 0);
    world.until("its time is over", 12_000_000, |world| world.now_ms > 30_000_000);
    assert!(world.gateway.renewals < 20, "{} renewals", world.gateway.renewals);
    world.gateway.refusals = 0;
    world.cut();
    world.until("it joins anew with the same key", 60_000, |world| world.gateway.issued.len() == 2);
    world.until("and has a session", 60_000, World::is_joined);
    assert_eq!(world.gateway.keys.len(), 1);
}

#[test]
fn a_chain_that_is_due_as_it_comes_is_not_renewed_without_end() {
    let mut world = World::new(factory());
    (world.gateway.life_s, world.gateway.backdate_s) = (600, 3_600);
    world.until("it joins", 60_000, World::is_joined);
    world.run_for(6_000_000);
    assert_eq!(world.gateway.sessions.len(), 1);
    assert!((9..=40).contains(&world.gateway.renewals), "{} in 6,000 s", world.gateway.renewals);
    world.cut();
    world.until("it has a session with what it got", 60_000, World::is_joined);
    assert_eq!(world.gateway.joins_at_ms.len(), 2, "it never had to join anew");
}

#[test]
fn an_older_gateway_is_asked_for_nothing() {
    let mut world = World::new(factory());
    world.gateway.renews = false;
    world.until("it joins", 60_000, World::is_joined);
    world.run_for(29_000_000);
    assert_eq!((world.gateway.renewals, world.gateway.sessions.len()), (0, 1));
}

#[test]
fn a_provisioned_operational_chain_is_renewed_too() {
    let facts = ChainFacts { not_before_s: BEGIN_S - 25_000, not_after_s: BEGIN_S + 5_000 };
    let mut world = World::new(Provisioned::Operational { key: KeyHash([3; 32]), facts });
    world.until("it renews", 60_000, |world| world.logged("certificate received") == 1);
    world.run_for(1_000);
    world.cut();
    world.until("the new chain has a session", 60_000, World::is_joined);
    let mut world = world.reboot();
    world.until("it stays with it", 60_000, |world| world.gateway.sessions.len() == 3);
    assert_eq!(world.gateway.sessions[2], world.gateway.issued[0]);
}

#[test]
fn a_board_without_a_clock_joins_anew_when_its_chain_is_over() {
    let mut world = World::new(factory());
    world.until("it joins", 60_000, World::is_joined);
    let mut world = world.reboot();
    world.now_ms += 40_000_000;
    world
        .until("it has another chain", 120_000, |world| world.gateway.issued.len() == 2 && world.is_joined());
    assert_eq!(world.gateway.keys.len(), 1, "with the key that it has");
}

#[test]
fn a_damaged_record_is_said_and_the_device_begins_anew() {
    for damage in [vec![], vec![0x86, 1], vec![0xff; 300], vec![7; 20_000]] {
        let mut world = World::new(factory());
        world.until("it joins", 60_000, World::is_joined);
        world.device.platform().storage.disk().identity = Some(damage);
        let mut world = world.reboot();
        world.until("it joins anew", 60_000, |world| world.gateway.issued.len() == 2 && world.is_joined());
        assert_eq!(world.logged("identity record not readable"), 1);
        assert_eq!(world.gateway.keys.len(), 2);
    }
    // A token that is used up does not help.
    let mut world = World::new(pairing());
    world.until("it joins", 60_000, World::is_joined);
    world.device.platform().storage.disk().identity = Some(vec![1, 2, 3]);
    let mut world = world.reboot();
    world.until("it says so", 60_000, |world| world.logged("the token is used up") > 0);
    // Another one does.
    world.gateway.provisioned = Provisioned::Pairing { id: "11111111".into() };
    world.gateway.paired = None;
    let mut world = world.reboot();
    world.until("it joins by another token", 60_000, World::is_joined);
}

#[test]
fn another_factory_identity_on_the_same_storage_begins_anew() {
    let mut world = World::new(factory());
    world.until("it joins", 60_000, World::is_joined);
    world.gateway.provisioned = Provisioned::Factory { key: KeyHash([2; 32]) };
    let mut world = world.reboot();
    world.until("it joins as another", 60_000, World::is_joined);
    assert_eq!((world.gateway.keys.len(), world.logged("provisioned anew")), (2, 1));
}

#[test]
fn storage_that_is_full_or_fails_delays_a_join_and_no_key_is_used_before_it_is_kept() {
    let mut world = World::new(factory());
    world.device.platform().storage.faults.full_until_ms = 100_000;
    world.run_for(99_000);
    assert!(world.gateway.keys.is_empty() && world.logged("identity record not written") > 0);
    world.until("it joins once there is room", 200_000, World::is_joined);
    assert_eq!(world.gateway.keys.len(), 1);

    for failing in 0..12 {
        let mut world = World::new(factory());
        let failures = (0..failing).map(|_| StorageError::Failed("worn".into())).collect();
        world.device.platform().storage.faults.failures = failures;
        world.until("it joins in the end", 600_000, World::is_joined);
        assert_eq!(world.gateway.keys.len(), 1);
    }
}

#[test]
fn a_board_that_fails_at_any_computation_joins_in_the_end() {
    for failing in 0..6 {
        let mut world = World::new(factory());
        let failure = IdentityError::Failed("no random bytes".into());
        let mut steps = 0;
        world.until("it joins in the end", 600_000, |world| {
            // The call after so many rounds fails, whichever that is.
            if steps == failing {
                world.device.platform().identity.failures.push_back(failure.clone());
            }
            steps += 1;
            world.is_joined()
        });
        assert_eq!(world.gateway.keys.len(), 1);
        assert_eq!(world.logged("no random bytes"), 1, "{}", world.log());
    }
}

/// The key that the device made stands nowhere on its disk any more, removed or not.
fn has_no_key(world: &mut World, key: &[u8]) -> bool {
    let disk = world.device.platform().storage.disk();
    let mut records = disk.identity.iter().chain(&disk.remains);
    !records.any(|record| record.windows(key.len()).any(|part| part == key))
}

/// A device with a session, and the key that it made.
fn joined(provisioned: Provisioned) -> (World, Vec<u8>) {
    let mut world = World::new(provisioned);
    world.until("it joins", 60_000, World::is_joined);
    let key = world.device.agent().unwrap().operational_key().to_vec();
    assert!(!key.is_empty() && !has_no_key(&mut world, &key));
    (world, key)
}

#[test]
fn a_device_that_joined_is_decommissioned_and_its_factory_identity_joins_anew() {
    let (mut world, key) = joined(factory());
    world.gateway.decommissions = true;
    world.cut();
    world.until("it rests", 120_000, |world| world.device.is_at_rest());
    assert!(has_no_key(&mut world, &key) && !world.device.platform().storage.disk().is_blank);
    let joins = world.gateway.joins_at_ms.len();
    world.run_for(10_000_000);
    assert_eq!(world.gateway.joins_at_ms.len(), joins, "not before its next start");
    // As long as the Device says so it is turned away, and no storm comes of it.
    let mut world = world.reboot();
    world.run_for(600_000);
    assert!(!world.device.is_at_rest() && world.gateway.issued.len() == 1);
    let asked = world.gateway.joins_at_ms.len() - joins;
    assert!((1..60).contains(&asked), "{asked} in ten minutes");
    // A Device of another UID takes it.
    (world.gateway.decommissions, world.gateway.issued) = (false, vec![]);
    world.until("it joins as a new board", 4_000_000, World::is_joined);
    assert_eq!(world.gateway.keys.len(), 2, "with another key");
}

#[test]
fn a_device_that_was_paired_rests_until_it_is_paired_again() {
    let (mut world, key) = joined(pairing());
    world.gateway.decommissions = true;
    world.cut();
    world.until("it rests", 120_000, |world| world.device.is_at_rest());
    assert!(has_no_key(&mut world, &key));
    let mut world = world.reboot();
    world.run_for(10_000_000);
    assert!(world.device.is_at_rest() && world.link.with(|channel| channel.attempts) == 0);
    world.gateway.decommissions = false;
    world.gateway.provisioned = Provisioned::Pairing { id: "11111111".into() };
    (world.gateway.paired, world.gateway.issued) = (None, vec![]);
    let mut world = world.reboot();
    world.until("it joins by another token", 60_000, World::is_joined);
    assert_eq!(world.gateway.keys.len(), 2);
}

#[test]
fn a_cut_at_every_write_of_an_end_leaves_no_key() {
    let mut cuts = 0;
    for provisioned in [factory(), pairing()] {
        for writes in 0.. {
            let mut cut = false;
            for permille in [0, 499, 500, 1_000] {
                let (mut world, key) = joined(provisioned.clone());
                world.gateway.decommissions = true;
                world.device.platform().storage.faults.cut = Some(Cut { writes, permille });
                world.cut();
                if world.until_or_cut("it rests", 1_000_000, |world| world.device.is_at_rest()) {
                    continue;
                }
                (cut, cuts) = (true, cuts + 1);
                let mut world = world.reboot();
                let what = format!("it rests, or joins as a new board, after a cut at write {writes}");
                let joins = world.gateway.joins_at_ms.len();
                world.until(&what, 4_000_000, |world| {
                    world.device.is_at_rest() || world.gateway.joins_at_ms.len() > joins
                });
                assert!(has_no_key(&mut world, &key), "write {writes}");
                assert_eq!(world.gateway.proven.len(), 1);
            }
            if !cut {
                break;
            }
        }
    }
    println!("{cuts} cuts");
    assert!(cuts >= 40, "only {cuts} cuts");
}

/// Its certificate was over when the order came: there is no session to bring it in. The device is told so when it asks for another
/// one; what it runs goes on, and nothing is proven.
#[test]
fn a_device_that_comes_back_when_its_chain_is_over_gets_no_order_and_keeps_its_key() {
    let (world, key) = joined(factory());
    let mut world = world.reboot();
    world.now_ms += 40_000_000;
    world.gateway.decommissions = true;
    world.until("it asks and is refused", 200_000, |world| world.logged("to be decommissioned") > 0);
    world.run_for(10_000_000);
    assert!(!world.device.is_at_rest() && !has_no_key(&mut world, &key));
    assert!(world.gateway.proven.is_empty());
    assert!(world.gateway.joins_at_ms.len() < 20, "{:?}", world.gateway.joins_at_ms);
}

/// The acknowledgment was lost, and the certificate is over by the time that the device comes back: it asks for another one, and
/// that it was decommissioned is the answer to its proof.
#[test]
fn a_proof_is_acknowledged_even_when_its_chain_is_over_by_then() {
    let (mut world, key) = joined(factory());
    world.gateway.decommissions = true;
    world.cut();
    world.until("it has its proof", 120_000, |world| world.logged("the proof is stored") > 0);
    let mut world = world.reboot();
    world.now_ms += 40_000_000;
    let (used, _) = read_chain(&world.gateway.issued[0]).unwrap();
    world.gateway.proven.insert(used);
    world.until("it rests", 400_000, |world| world.device.is_at_rest());
    assert!(has_no_key(&mut world, &key));
}
