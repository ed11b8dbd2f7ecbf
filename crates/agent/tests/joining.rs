//! A device that joins and renews, against any gateway at all, failing storage and lost power; and against a good one after that.
#![cfg(test)]

mod support;

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};
use support::frame;
use wasmbed_agent::{
    Agent, ChainFacts, Config, Effect, IDENTITY_BYTES_MAX, IdentityError, Ordered, Presented, Provisioned,
    Restored, SessionState, is_acknowledged,
    storage::{Done, Inventory, Operation, StorageError},
};
use wasmbed_protocol::{
    Certificate, CloseReason, Closing, Decommission, DeviceMessage, DeviceUid, Epoch, GatewayMessage,
    HeartbeatAck, JoinAnswer, JoinState, KeyHash, MessageGroups, Nonce, Sequence, Welcome, decode_device,
    limits,
};

/// The gateway's clock at the start of the monotonic one, Unix seconds.
const BEGIN_S: u64 = 1_800_000_000;
/// What the board signs begins with this.
const PROOF: &[u8] = b"the proof ";
/// What a board takes for a chain of its own begins with this.
const GOOD: u8 = 0xC5;

fn provisioned(kind: u8) -> Provisioned {
    match kind % 3 {
        0 => Provisioned::Factory { key: KeyHash([1; 32]) },
        1 => Provisioned::Pairing { id: "0a1b2c3d".into() },
        _ => Provisioned::Operational {
            key: KeyHash([2; 32]),
            facts: ChainFacts { not_before_s: BEGIN_S - 1_000, not_after_s: BEGIN_S + 1_000 },
        },
    }
}

/// What a good chain says of itself: it begins at its number and lasts so long.
fn good_chain(number: u32, life: u16, length: usize) -> Vec<u8> {
    let mut chain = vec![GOOD];
    chain.extend(number.to_le_bytes());
    chain.extend(life.to_le_bytes());
    chain.resize(length.max(7), 0);
    chain
}

fn judge(chain: &[u8]) -> Result<ChainFacts, IdentityError> {
    match chain {
        [GOOD, a, b, c, d, e, f, ..] => {
            let begin_s = BEGIN_S + u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
            let life_s = u64::from(u16::from_le_bytes([*e, *f]));
            Ok(ChainFacts { not_before_s: begin_s, not_after_s: begin_s + life_s })
        }
        _ => Err(IdentityError::Chain("another key's".into())),
    }
}

/// A device with its board and storage, and whatever it is told.
struct World {
    kind: u8,
    agent: Agent,
    stored: Option<Vec<u8>>,
    state: Option<Vec<u8>>,
    operation: Option<Operation>,
    now_ms: u64,
    keys_made: u8,
    /// The key in use since the start.
    key: Option<Vec<u8>>,
    /// Keys that anything was asked for or signed with.
    used: BTreeSet<Vec<u8>>,
    /// Chains that the board judged good.
    judged: BTreeSet<Vec<u8>>,
    has_chain: bool,
    connected: bool,
    /// Of this connection.
    joins_at_ms: Vec<u64>,
    board_fails: bool,
    storage_fails: bool,
    presented: Option<Vec<u8>>,
    /// The keys were dropped since the start.
    has_forgotten: bool,
    /// How often they were, all in all.
    ends: usize,
    /// The provisioned key was erased.
    is_blank: bool,
}

fn config(kind: u8) -> Config {
    Config { provisioned: provisioned(kind), ..support::config(1, 1) }
}

impl World {
    fn new(kind: u8) -> Self {
        Self {
            kind,
            agent: Agent::new(config(kind), Restored::default(), 0),
            stored: None,
            state: None,
            operation: None,
            now_ms: 0,
            keys_made: 0,
            key: None,
            used: BTreeSet::new(),
            judged: BTreeSet::new(),
            has_chain: false,
            connected: false,
            joins_at_ms: Vec::new(),
            board_fails: false,
            storage_fails: false,
            presented: None,
            has_forgotten: false,
            ends: 0,
            is_blank: false,
        }
    }

    fn lose_power(&mut self) {
        (self.operation, self.key, self.connected, self.has_forgotten) = (None, None, false, false);
        let restored = Restored { state: self.state.clone(), ..Restored::default() };
        self.agent = Agent::new(config(self.kind), restored, self.now_ms);
    }

    fn stores(&self, part: &[u8]) -> bool {
        self.stored.as_ref().is_some_and(|stored| stored.windows(part.len()).any(|window| window == part))
    }

    fn fails(&mut self) -> Option<IdentityError> {
        std::mem::take(&mut self.board_fails).then(|| IdentityError::Failed("no random bytes".into()))
    }

    fn is_retired(&self) -> bool {
        self.stored.as_deref().is_some_and(is_acknowledged)
    }

    /// Does what the agent asks for.
    fn perform(&mut self) {
        while let Some(effect) = self.agent.poll_effect() {
            match effect {
                Effect::Connect => {
                    assert!(!self.has_forgotten && !self.is_blank && !self.is_retired(), "without a key");
                    self.presented = match self.agent.presented() {
                        Presented::Provisioned => None,
                        Presented::Chain(chain) => Some(chain.to_vec()),
                    };
                    if let Some(chain) = &self.presented {
                        assert!(self.judged.contains(chain), "a chain is presented that nobody judged");
                    }
                    let makes_key = self.kind % 3 != 2;
                    assert!(!makes_key || self.key.is_some(), "it connects without its key");
                }
                Effect::Close => {
                    self.connected = false;
                    self.agent.handle_disconnected(self.now_ms, 1 << 20);
                }
                Effect::Storage(operation) => {
                    assert!(self.operation.is_none(), "one operation at a time");
                    self.operation = Some(operation);
                }
                Effect::MakeKey => {
                    let failure = self.fails();
                    self.keys_made += 1;
                    let key = vec![0xA0, 0xA1, 0xA2, self.keys_made];
                    self.agent.handle_key(self.now_ms, failure.map_or(Ok(key), Err));
                }
                Effect::UseKey => {
                    let key = self.agent.operational_key().to_vec();
                    assert!(self.stores(&key), "a key is used that is not stored");
                    let failure = self.fails();
                    if failure.is_none() {
                        self.key = Some(key.clone());
                    }
                    let hash = KeyHash::of(&key);
                    self.agent.handle_key_used(self.now_ms, failure.map_or(Ok(hash), Err));
                }
                Effect::Request => {
                    self.used.extend(self.key.clone());
                    let failure = self.fails();
                    let request = [b"request".to_vec(), self.key.clone().unwrap_or_default()].concat();
                    self.agent.handle_request(self.now_ms, failure.map_or(Ok(request), Err));
                }
                Effect::Prove(device) => {
                    assert!(self.kind % 3 != 2, "nothing proves anything for an operational identity");
                    let failure = self.fails();
                    let proof = device.device_uid.0.to_vec();
                    self.agent.handle_proof(self.now_ms, failure.map_or(Ok(proof), Err));
                }
                Effect::CheckChain => {
                    let chain = self.agent.received_chain().to_vec();
                    assert!((1..=limits::CHAIN_BYTES_MAX as usize).contains(&chain.len()));
                    let judged = judge(&chain);
                    if judged.is_ok() {
                        self.judged.insert(chain);
                    }
                    self.agent.handle_chain(self.now_ms, judged);
                }
                Effect::CheckOrder => {
                    let judged = match *self.agent.order() {
                        [number, _] if number % 2 == 0 => {
                            Ok(Ordered { device_uid: DeviceUid([1; 16]), nonce: Nonce([number; 16]) })
                        }
                        _ => Err(IdentityError::Order("another device's".into())),
                    };
                    self.agent.handle_order(self.now_ms, judged);
                }
                Effect::SignProof(proof) => {
                    assert!(self.kind % 3 == 2 || self.key.is_some(), "it signs without its key");
                    let failure = self.fails();
                    let signed = [PROOF.to_vec(), proof.nonce.0.to_vec()].concat();
                    self.agent.handle_proof_signed(self.now_ms, failure.map_or(Ok(signed), Err));
                }
                Effect::ForgetKeys => {
                    assert!(self.stores(PROOF), "an end without a proof");
                    (self.key, self.has_forgotten, self.has_chain) = (None, true, false);
                    self.ends += 1;
                }
                Effect::Start(_)
                | Effect::Stop { .. }
                | Effect::SettingsChanged { .. }
                | Effect::Wake { .. } => panic!("it has no set"),
            }
        }
        let mut buffer = [0; limits::FRAME_BYTES_MAX];
        while let Some(length) = self.agent.poll_transmit(&mut buffer) {
            let message = decode_device(&buffer[2..length]).unwrap();
            if let DeviceMessage::Decommissioned(decommissioned) = &message {
                assert!(self.stores(decommissioned.proof), "a proof is sent that is not stored");
            }
            if let DeviceMessage::Join(join) = &message {
                self.joins_at_ms.push(self.now_ms);
                let minute_ms = self.now_ms.saturating_sub(60_000);
                let recent = self.joins_at_ms.iter().filter(|at_ms| **at_ms > minute_ms || minute_ms == 0);
                assert!(recent.count() <= 4, "a gateway takes four in a minute");
                let renews = matches!(self.agent.session(), SessionState::Established(_));
                assert!(!renews || (join.proof, join.pairing_id) == (None, None));
            }
            if self.agent.session() == SessionState::Joining {
                assert!(matches!(message, DeviceMessage::Join(_) | DeviceMessage::Error(_)), "{message:?}");
            }
        }
        while self.agent.poll_event().is_some() {}
        assert_eq!(self.agent.check(), Ok(()));
    }

    /// Storage answers, if it was asked.
    fn store(&mut self) {
        let Some(operation) = self.operation.take() else { return };
        let outcome = if std::mem::take(&mut self.storage_fails) {
            Err(StorageError::Full)
        } else {
            match operation {
                Operation::ReadIdentity => Ok(Done::Record(self.stored.clone())),
                Operation::CommitIdentity(bytes) => {
                    assert!(bytes.len() <= IDENTITY_BYTES_MAX);
                    self.stored = Some(bytes);
                    let has_chain = self.judged.iter().any(|chain| self.stores(chain));
                    // Once it is decommissioned, one that is not in use goes, and with the key the other.
                    let may_be_gone = !self.has_chain || self.agent.is_decommissioned();
                    assert!(has_chain || may_be_gone, "a device that has a chain never loses it");
                    self.has_chain = has_chain;
                    Ok(Done::Written)
                }
                Operation::CommitState(bytes) => {
                    self.state = Some(bytes);
                    Ok(Done::Written)
                }
                Operation::Inventory => Ok(Done::Inventory(Inventory::default())),
                Operation::EraseRemoved => Ok(Done::Erased { left: self.now_ms.is_multiple_of(3) }),
                Operation::EraseProvisioned => {
                    assert!(self.kind % 3 == 2 && self.is_retired(), "a key is erased before its time");
                    self.is_blank = true;
                    Ok(Done::Written)
                }
                other => panic!("it asks for {other:?} without a set"),
            }
        };
        self.agent.handle_storage(self.now_ms, outcome);
    }

    fn connect(&mut self) {
        self.connected = true;
        self.joins_at_ms.clear();
        self.agent.handle_connected(self.now_ms);
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.agent.handle_timeout(self.now_ms);
    }

    fn welcome(&self, epoch: u64) -> Vec<u8> {
        frame(&GatewayMessage::Welcome(Welcome {
            epoch: Epoch(epoch),
            unix_ms: BEGIN_S * 1_000 + self.now_ms,
            heartbeat_interval_ms: 600_000,
            heartbeat_timeout_ms: 3_600_000,
            log_bytes_per_second: 0,
            desired_known: false,
            groups: Some(MessageGroups(MessageGroups::RENEWAL.0 | MessageGroups::DECOMMISSION.0)),
        }))
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Connect => self.connect(),
            Step::Disconnect(random) => {
                self.connected = false;
                self.agent.handle_disconnected(self.now_ms, random);
            }
            Step::Store => self.store(),
            Step::Welcome(epoch) => {
                let body = self.welcome(epoch);
                self.agent.handle_frame(self.now_ms, &body);
            }
            Step::Frame(body) => self.agent.handle_frame(self.now_ms, &body),
            Step::Chain(chain, piece) => {
                for (index, bytes) in chain.chunks(piece).enumerate() {
                    let offset = (index * piece) as u32;
                    let certificate = Certificate { chain_bytes: chain.len() as u32, offset, bytes };
                    self.agent.handle_frame(self.now_ms, &frame(&GatewayMessage::Certificate(certificate)));
                }
            }
            Step::Pass(ms) => self.pass(ms),
            Step::BoardFails => self.board_fails = true,
            Step::StorageFails => self.storage_fails = true,
            Step::LosePower => self.lose_power(),
        }
        self.perform();
    }

    /// A round with a gateway that does everything right; its chains last long from now.
    fn good_round(&mut self, epoch: &mut u64) {
        self.store();
        self.perform();
        match self.agent.session() {
            SessionState::Connecting if !self.connected => {
                self.connect();
            }
            SessionState::Connecting => {
                *epoch += 1;
                let body = self.welcome(*epoch);
                self.agent.handle_frame(self.now_ms, &body);
            }
            SessionState::Joining => {
                let (state, device_uid) = (JoinState::ProofNeeded, Some(DeviceUid([1; 16])));
                self.join_answer(state, device_uid);
                self.perform();
                self.join_answer(JoinState::Pending, device_uid);
                let number = (self.now_ms / 1_000) as u32;
                self.play(Step::Chain(good_chain(number, 60_000, 6_000), 4_000));
            }
            SessionState::Down | SessionState::Closing | SessionState::Established(_) => {
                self.pass(1_000);
            }
        }
        self.perform();
    }

    fn join_answer(&mut self, state: JoinState, device_uid: Option<DeviceUid>) {
        let answer =
            JoinAnswer { state, device_uid, namespace: "default", name: "a", retry_after_ms: 0, detail: "" };
        self.agent.handle_frame(self.now_ms, &frame(&GatewayMessage::JoinAnswer(answer)));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Connect,
    Disconnect(u32),
    Store,
    Welcome(u64),
    Frame(Vec<u8>),
    /// A chain in pieces of so many bytes.
    Chain(Vec<u8>, usize),
    Pass(u64),
    BoardFails,
    StorageFails,
    LosePower,
}

fn any_answer() -> impl Strategy<Value = Vec<u8>> {
    let uid = proptest::option::weighted(0.8, any::<u8>().prop_map(|byte| DeviceUid([byte; 16])));
    (0..4u32, uid, any::<u32>(), "[a-z]{0,20}").prop_map(|(state, device_uid, retry_after_ms, detail)| {
        frame(&GatewayMessage::JoinAnswer(JoinAnswer {
            state: JoinState::from(state),
            device_uid,
            namespace: "default",
            name: "a",
            retry_after_ms,
            detail: &detail,
        }))
    })
}

fn any_piece() -> impl Strategy<Value = Vec<u8>> {
    let bytes = vec(any::<u8>(), 0..100);
    (1..=limits::CHAIN_BYTES_MAX, prop_oneof![Just(0), 0..9_000u32], bytes).prop_filter_map(
        "within the codec's bounds",
        |(chain_bytes, offset, bytes)| {
            let message = GatewayMessage::Certificate(Certificate { chain_bytes, offset, bytes: &bytes });
            let mut out = vec![0; limits::FRAME_BYTES_MAX];
            let length = wasmbed_protocol::encode_gateway(&message, &mut out).ok()?;
            Some(out[2..length].to_vec())
        },
    )
}

fn order(number: u8, what: u8) -> Vec<u8> {
    frame(&GatewayMessage::Decommission(Decommission { order: &[number, what] }))
}

fn acknowledgment() -> Vec<u8> {
    let closing = Closing { reason: CloseReason::Decommissioned, retry_after_ms: 0, detail: "" };
    frame(&GatewayMessage::Goodbye(closing))
}

fn any_step() -> impl Strategy<Value = Step> {
    let closing = (any::<u32>(), 0..16u32).prop_map(|(retry_after_ms, reason)| {
        let closing = Closing { reason: CloseReason::from(reason), retry_after_ms, detail: "" };
        Step::Frame(frame(&GatewayMessage::Goodbye(closing)))
    });
    let chain = (0..100_000u32, any::<u16>(), 7..8_000usize, 1..4_000usize)
        .prop_map(|(number, life, length, piece)| Step::Chain(good_chain(number, life, length), piece));
    prop_oneof![
        6 => Just(Step::Connect),
        2 => any::<u32>().prop_map(Step::Disconnect),
        10 => Just(Step::Store),
        3 => (0..30u64).prop_map(Step::Welcome),
        8 => any_answer().prop_map(Step::Frame),
        2 => any_piece().prop_map(Step::Frame),
        4 => chain,
        1 => (vec(any::<u8>(), 1..300), 1..100usize).prop_map(|(bytes, piece)| Step::Chain(bytes, piece)),
        1 => closing,
        4 => (0..4u8, 0..3u8).prop_map(|(number, what)| Step::Frame(order(number, what))),
        1 => Just(Step::Frame(acknowledgment())),
        1 => vec(any::<u8>(), 0..60).prop_map(Step::Frame),
        6 => prop_oneof![0..100u64, 0..120_000u64, Just(7_200_000u64)].prop_map(Step::Pass),
        1 => Just(Step::BoardFails),
        1 => Just(Step::StorageFails),
        1 => Just(Step::LosePower),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_gateway_breaks_a_device_that_joins_and_a_good_one_takes_it(
        kind in 0..3u8,
        steps in vec(any_step(), 0..120),
    ) {
        let mut world = World::new(kind);
        world.perform();
        for step in steps {
            world.play(step);
        }
        (world.board_fails, world.storage_fails) = (false, false);
        world.play(Step::Disconnect(0));
        let mut epoch = 100;
        // An hour at most was asked for, and a chain may be over.
        for _ in 0..8_000 {
            world.good_round(&mut epoch);
            if kind == 0 && world.agent.is_at_rest() {
                world.play(Step::LosePower);
            }
        }
        if world.agent.is_at_rest() {
            prop_assert!(world.ends > 0 && kind != 0 && world.is_blank == (kind == 2));
            prop_assert!(world.is_retired() && !world.stores(&[0xA0, 0xA1, 0xA2]), "the key is still there");
            return Ok(());
        }
        prop_assert!(matches!(world.agent.session(), SessionState::Established(_)), "{:?}", world.agent.session());
        prop_assert!(kind == 2 || world.presented.is_some(), "with a chain");
    }

    #[test]
    fn without_failures_of_the_board_there_is_one_key_until_its_end_whatever_else_happens(
        kind in 0..2u8,
        steps in vec(any_step(), 0..120),
    ) {
        let mut world = World::new(kind);
        world.perform();
        for step in steps {
            if !matches!(step, Step::BoardFails) {
                world.play(step);
            }
        }
        prop_assert!(world.used.len() <= 1 + world.ends, "{:?}", world.used);
    }
}

/// A device on a connection that joins, its first Join sent.
fn joining() -> World {
    let mut world = World::new(0);
    for _ in 0..10 {
        world.perform();
        world.store();
    }
    world.pass(0);
    world.perform();
    world.play(Step::Connect);
    assert_eq!((world.agent.session(), world.joins_at_ms.len()), (SessionState::Joining, 1));
    world
}

#[test]
fn other_pieces_than_the_next_one_end_the_connection() {
    let piece = |chain_bytes, offset, bytes: &[u8]| {
        Step::Frame(frame(&GatewayMessage::Certificate(Certificate { chain_bytes, offset, bytes })))
    };
    for (first, second) in [
        (piece(100, 1, &[1]), None),
        (piece(100, 0, &[1; 50]), Some(piece(100, 49, &[1]))),
        (piece(100, 0, &[1; 50]), Some(piece(100, 51, &[1]))),
        (piece(100, 0, &[1; 50]), Some(piece(101, 50, &[1]))),
        (piece(100, 0, &[1; 50]), Some(piece(100, 50, &[1; 51]))),
        (piece(100, 0, &[1; 50]), Some(piece(100, 0, &[1; 50]))),
    ] {
        let mut world = joining();
        world.play(first);
        if let Some(second) = second {
            assert_eq!(world.agent.session(), SessionState::Joining);
            world.play(second);
        }
        assert_eq!(world.agent.session(), SessionState::Down);
        assert!(world.judged.is_empty());
    }
}

#[test]
fn a_gateway_that_is_silent_in_joining_is_given_up_and_one_that_lets_wait_for_its_ten_minutes() {
    let mut world = joining();
    world.play(Step::Pass(29_999));
    assert_eq!(world.agent.session(), SessionState::Joining);
    world.play(Step::Pass(1));
    assert_eq!(world.agent.session(), SessionState::Down);

    let mut world = joining();
    world.join_answer(JoinState::Pending, Some(DeviceUid([1; 16])));
    for _ in 0..10 {
        world.play(Step::Pass(60_000));
        assert_eq!(world.agent.session(), SessionState::Joining);
    }
    world.play(Step::Pass(30_000));
    assert_eq!(world.agent.session(), SessionState::Down);
}

#[test]
fn frames_of_another_state_are_refused_while_joining() {
    let mut world = joining();
    let body = world.welcome(1);
    world.agent.handle_frame(0, &body);
    let answer = support::transmit(&mut world.agent).unwrap();
    let Ok(DeviceMessage::Error(error)) = decode_device(&answer) else { panic!("no complaint") };
    assert_eq!(error.code, wasmbed_protocol::ErrorCode::Unexpected);
    assert_eq!(world.agent.session(), SessionState::Joining);
}

#[test]
fn a_gateway_whose_clock_is_behind_puts_no_renewal_off() {
    let (mut world, mut epoch) = (World::new(0), 0);
    while !matches!(world.agent.session(), SessionState::Established(_)) {
        world.good_round(&mut epoch);
    }
    assert!(world.presented.is_some(), "a session is one of a chain, which lasts 60,000 s");
    world.joins_at_ms.clear();
    let begun_ms = world.now_ms;
    while world.joins_at_ms.is_empty() {
        let ack = HeartbeatAck { sequence: Sequence(1), unix_ms: (BEGIN_S - 10_000_000) * 1_000 };
        world.play(Step::Frame(frame(&GatewayMessage::HeartbeatAck(ack))));
        world.store();
        world.play(Step::Pass(60_000));
        assert!(world.now_ms - begun_ms < 45_000_000, "its chain is soon over");
    }
    assert!(matches!(world.agent.session(), SessionState::Established(_)));
    assert!(world.now_ms - begun_ms > 35_000_000, "a wrong clock is no reason to ask earlier");
}
