//! The agent against any input at all, and against a reference model of what it should converge to.
#![cfg(test)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};
use support::{frame, welcome};
use wasmbed_agent::{
    Agent, ApplicationEvent, Config, Effect, Restored, RunId, SessionState, module_digest, spec_hash,
    storage::{Done, Inventory, Operation, Outcome, StorageError},
};
use wasmbed_protocol::{
    ApplicationState, ApplicationUid, Assignment, AssignmentGet, CloseReason, Closing, CorrelationId,
    Desired, DesiredApplication, DeviceMessage, ErrorCode, ErrorNotice, GatewayMessage, HeartbeatAck, List,
    ModuleChunk, ModuleDigest, ModuleGone, ReportReason, RestartPolicy, Revision, Spec, decode_device,
    encode_spec, limits,
};

const APPLICATIONS_MAX: u8 = 3;

fn config() -> Config {
    support::config(APPLICATIONS_MAX, 7)
}

fn uid(number: u8) -> ApplicationUid {
    ApplicationUid([number; 16])
}

/// The module of a variant; two variants share one.
fn module(variant: u8) -> Vec<u8> {
    vec![variant / 2 + 1; 5_000 + 4_000 * usize::from(variant / 2)]
}

fn spec(number: u8, variant: u8) -> Vec<u8> {
    let bytes = module(variant);
    let spec = Spec {
        uid: uid(number),
        name: "default/app",
        digest: module_digest(&bytes),
        module_bytes: bytes.len() as u32,
        memory_limit_bytes: 65_536,
        cpu_limit_ms: u32::from(variant) + 1,
        restart_policy: RestartPolicy::Always,
        args: List::empty(),
        env: List::empty(),
        capabilities: List::empty(),
        values_mac: None,
        i2c: List::empty(),
        uart: List::empty(),
        gpio: List::empty(),
        spi: List::empty(),
        topics: List::empty(),
    };
    let mut out = vec![0; limits::SPEC_BYTES_MAX];
    let length = encode_spec(&spec, &mut out).unwrap();
    out.truncate(length);
    out
}

type Set = BTreeMap<u8, u8>;

fn desired(revision: u64, set: &Set) -> Vec<u8> {
    let members: Vec<DesiredApplication> = set
        .iter()
        .map(|(number, variant)| DesiredApplication {
            uid: uid(*number),
            spec_hash: spec_hash(&spec(*number, *variant)),
        })
        .collect();
    frame(&GatewayMessage::Desired(Desired {
        revision: Revision(revision),
        applications: List::new(&members),
    }))
}

/// Checks what must hold of every output, whatever the input was.
#[derive(Default)]
struct Watcher {
    outstanding: usize,
    loaded: BTreeMap<RunId, ApplicationUid>,
    effects: Vec<Effect>,
    operations: Vec<Operation>,
    sent: usize,
}

impl Watcher {
    fn drain(&mut self, agent: &mut Agent) -> Result<(), TestCaseError> {
        while let Some(effect) = agent.poll_effect() {
            match &effect {
                Effect::Storage(operation) => {
                    self.outstanding += 1;
                    self.operations.push(operation.clone());
                    prop_assert_eq!(self.outstanding, 1, "one operation at a time");
                }
                Effect::Start(start) => {
                    let doubled = self.loaded.values().any(|uid| *uid == start.uid);
                    prop_assert!(!doubled, "an application is started while it runs");
                    self.loaded.insert(start.run, start.uid);
                }
                Effect::Stop { run, .. } => {
                    self.loaded.remove(run);
                }
                Effect::Connect | Effect::Close => {}
                other => prop_assert!(false, "a fixed identity asks for nothing: {other:?}"),
            }
            prop_assert!(self.loaded.len() <= usize::from(APPLICATIONS_MAX));
            self.effects.push(effect);
        }
        let mut buffer = vec![0; limits::FRAME_BYTES_MAX];
        for round in 0.. {
            let Some(length) = agent.poll_transmit(&mut buffer) else { break };
            prop_assert!(round < 1_000, "it never stops talking");
            prop_assert!(decode_device(&buffer[2..length]).is_ok());
            self.sent += 1;
        }
        while agent.poll_event().is_some() {}
        prop_assert!(agent.applications().count() <= limits::DESIRED_MAX);
        prop_assert!(agent.poll_timeout().is_some());
        prop_assert_eq!(agent.check(), Ok(()));
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Input {
    Connected,
    Disconnected,
    Bytes(Vec<u8>),
    Frame(Vec<u8>),
    Storage(Outcome),
    Application(u32, ApplicationEvent),
    Timeout(u64),
}

fn any_set() -> impl Strategy<Value = Set> {
    proptest::collection::btree_map(0..6u8, 0..6u8, 0..6)
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let assignment = (0..6u8, 0..6u8, any::<bool>()).prop_map(|(number, variant, right)| {
        let spec = spec(number, variant);
        let spec_hash = if right { spec_hash(&spec) } else { spec_hash(&[number]) };
        let correlation_id = CorrelationId([1; 16]);
        frame(&GatewayMessage::Assignment(Assignment {
            spec_hash,
            spec: &spec,
            correlation_id,
            envelope: &[],
        }))
    });
    let gone = (0..6u8, 0..6u8).prop_map(|(number, variant)| {
        let spec_hash = spec_hash(&spec(number, variant));
        frame(&GatewayMessage::AssignmentGone(AssignmentGet { spec_hash }))
    });
    let chunk = (0..6u8, 0..20_000u32, 1..4_000usize).prop_map(|(variant, offset, length)| {
        let (digest, bytes) = (module_digest(&module(variant)), vec![variant / 2 + 1; length]);
        frame(&GatewayMessage::ModuleChunk(ModuleChunk {
            digest,
            offset: offset / 4_000 * 4_000,
            bytes: &bytes,
        }))
    });
    let module_gone = (0..6u8).prop_map(|variant| {
        frame(&GatewayMessage::ModuleGone(ModuleGone { digest: module_digest(&module(variant)) }))
    });
    let closing = (any::<u32>(), 0..16u32, any::<bool>()).prop_map(|(retry_after_ms, reason, reject)| {
        let closing = Closing { reason: CloseReason::from(reason), retry_after_ms, detail: "" };
        frame(&if reject { GatewayMessage::Reject(closing) } else { GatewayMessage::Goodbye(closing) })
    });
    let error =
        Just(frame(&GatewayMessage::Error(ErrorNotice { code: ErrorCode::Stale, tag: None, detail: "x" })));
    prop_oneof![
        4 => (0..20u64, any::<bool>()).prop_map(|(epoch, known)| welcome(epoch, known)),
        4 => (0..20u64, any_set()).prop_map(|(revision, set)| desired(revision, &set)),
        6 => assignment,
        1 => gone,
        4 => chunk,
        1 => module_gone,
        1 => closing,
        1 => error,
    ]
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        6 => Just(Ok(Done::Written)),
        2 => vec(any::<u8>(), 0..100).prop_map(|bytes| Ok(Done::Bytes(bytes))),
        1 => Just(Ok(Done::Record(None))),
        1 => Just(Ok(Done::Inventory(Inventory::default()))),
        1 => Just(Err(StorageError::Full)),
        1 => Just(Err(StorageError::Missing)),
        1 => Just(Err(StorageError::Failed("x".into()))),
    ]
}

fn any_event() -> impl Strategy<Value = ApplicationEvent> {
    let reason = || any::<u32>().prop_map(|code| ReportReason::from(code % 20));
    prop_oneof![
        Just(ApplicationEvent::Started),
        Just(ApplicationEvent::Damaged),
        ("[a-z]{1,3} int = 1\n|.{0,20}").prop_map(|text| ApplicationEvent::Schema(text.into_bytes())),
        (reason(), ".{0,200}").prop_map(|(reason, message)| ApplicationEvent::Refused { reason, message }),
        (reason(), ".{0,200}").prop_map(|(reason, message)| ApplicationEvent::Ended { reason, message }),
        (".{0,2000}", any::<u32>())
            .prop_map(|(text, lines_lost)| ApplicationEvent::Line { text, lines_lost }),
        (any::<u64>(), any::<u64>())
            .prop_map(|(memory_bytes, cpu_ms)| ApplicationEvent::Usage { memory_bytes, cpu_ms }),
    ]
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        3 => Just(Input::Connected),
        1 => Just(Input::Disconnected),
        1 => vec(any::<u8>(), 0..60).prop_map(Input::Bytes),
        12 => any_frame().prop_map(Input::Frame),
        8 => any_outcome().prop_map(Input::Storage),
        4 => (0..8u32, any_event()).prop_map(|(run, event)| Input::Application(run, event)),
        4 => prop_oneof![0..10u64, 0..60_000u64, Just(1u64 << 50)].prop_map(Input::Timeout),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn no_input_breaks_it(
        state in proptest::option::of(vec(any::<u8>(), 0..40)),
        staged in vec((0..6u8, any::<u32>()), 0..4),
        inputs in vec(any_input(), 0..120),
    ) {
        let staged = staged.into_iter().map(|(variant, length)| (module_digest(&module(variant)), length)).collect();
        let inventory = Inventory { staged, ..Inventory::default() };
        let mut agent = Agent::new(config(), Restored { state, state_unread: false, inventory }, 0);
        let mut watcher = Watcher::default();
        let mut now_ms = 0u64;
        watcher.drain(&mut agent)?;
        for input in inputs {
            match input {
                Input::Connected => agent.handle_connected(now_ms),
                Input::Disconnected => agent.handle_disconnected(now_ms, now_ms as u32),
                Input::Bytes(body) | Input::Frame(body) => agent.handle_frame(now_ms, &body),
                Input::Storage(outcome) => {
                    watcher.outstanding = 0;
                    agent.handle_storage(now_ms, outcome);
                }
                Input::Application(run, event) => {
                    let over = matches!(
                        event,
                        ApplicationEvent::Ended { .. } | ApplicationEvent::Refused { .. } | ApplicationEvent::Damaged
                    );
                    if over {
                        watcher.loaded.remove(&RunId(run));
                    }
                    agent.handle_application(now_ms, RunId(run), event);
                }
                Input::Timeout(ms) => {
                    now_ms = now_ms.saturating_add(ms);
                    agent.handle_timeout(now_ms);
                }
            }
            watcher.drain(&mut agent)?;
        }
    }
}

/// What storage keeps, a write at a time.
#[derive(Clone, Default)]
struct Flash {
    state: Option<Vec<u8>>,
    modules: BTreeMap<ModuleDigest, Vec<u8>>,
    staged: BTreeMap<ModuleDigest, Vec<u8>>,
}

impl Flash {
    fn restored(&self) -> Restored {
        let lengths = |objects: &BTreeMap<ModuleDigest, Vec<u8>>| {
            objects.iter().map(|(digest, bytes)| (*digest, bytes.len() as u32)).collect()
        };
        let inventory =
            Inventory { modules: lengths(&self.modules), staged: lengths(&self.staged), data: vec![] };
        Restored { state: self.state.clone(), state_unread: false, inventory }
    }

    fn perform(&mut self, operation: Operation) -> Outcome {
        match operation {
            Operation::CommitState(bytes) => self.state = Some(bytes),
            Operation::Append { digest, offset, bytes } => {
                let staged = self.staged.entry(digest).or_default();
                if offset as usize > staged.len() {
                    return Err(StorageError::Missing);
                }
                staged.truncate(offset as usize);
                staged.extend(bytes);
            }
            Operation::ReadStaged { digest, offset, length } => {
                let staged = self.staged.get(&digest).ok_or(StorageError::Missing)?;
                let bytes = staged.iter().skip(offset as usize).take(usize::from(length)).copied().collect();
                return Ok(Done::Bytes(bytes));
            }
            Operation::CommitModule(digest) => {
                let staged = self.staged.remove(&digest).ok_or(StorageError::Missing)?;
                assert_eq!(module_digest(&staged), digest, "only verified bytes become a module");
                self.modules.insert(digest, staged);
            }
            Operation::DeleteModule(digest) => {
                self.modules.remove(&digest);
                self.staged.remove(&digest);
            }
            other => panic!("the agent never asks for {other:?} while it runs without data records"),
        }
        Ok(Done::Written)
    }
}

/// One step of the world around the agent.
#[derive(Clone, Debug)]
enum Move {
    /// The controller wants another set.
    Want(Set),
    /// An older set comes once more.
    Stale,
    /// The gateway forgets the set until the next one.
    Forget,
    /// The Device is deleted or revoked, or the session ends for another reason.
    End(CloseReason),
    Cut,
    PowerLoss,
    /// Storage answers the next operation with an error.
    StorageFails,
    /// Of what is loaded, this one ends.
    Crash(usize),
    Run(u16),
}

fn any_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        3 => any_set().prop_map(Move::Want),
        1 => Just(Move::Stale),
        1 => Just(Move::Forget),
        1 => (0..16u32).prop_map(|reason| Move::End(CloseReason::from(reason))),
        2 => Just(Move::Cut),
        2 => Just(Move::PowerLoss),
        1 => Just(Move::StorageFails),
        1 => (0..4usize).prop_map(Move::Crash),
        6 => (0..60u16).prop_map(Move::Run),
    ]
}

struct World {
    agent: Agent,
    flash: Flash,
    operation: Option<Operation>,
    fail_next: bool,
    /// A module could not be removed: it is left alone until the next start.
    left: bool,
    loaded: BTreeMap<RunId, (ApplicationUid, ModuleDigest)>,
    crashed: BTreeSet<RunId>,
    to_device: Vec<Vec<u8>>,
    connected: bool,
    wants_link: bool,
    now_ms: u64,
    epoch: u64,
    revision: u64,
    set: Set,
    known: bool,
    /// The session that the device asked for was answered.
    greeted: bool,
    /// The revision in the last Hello.
    held: u64,
    /// What the device said last.
    acknowledged: (u64, BTreeMap<ApplicationUid, ModuleDigest>),
}

impl World {
    fn new() -> Self {
        Self {
            agent: Agent::new(config(), Restored::default(), 0),
            flash: Flash::default(),
            operation: None,
            fail_next: false,
            left: false,
            loaded: BTreeMap::new(),
            crashed: BTreeSet::new(),
            to_device: vec![],
            connected: false,
            wants_link: false,
            now_ms: 0,
            epoch: 0,
            revision: 0,
            set: Set::new(),
            known: false,
            greeted: false,
            held: 0,
            acknowledged: (0, BTreeMap::new()),
        }
    }

    fn disconnect(&mut self) {
        self.connected = false;
        self.greeted = false;
        self.to_device.clear();
        self.agent.handle_disconnected(self.now_ms, 7);
    }

    fn play(&mut self, step: Move) -> Result<(), TestCaseError> {
        match step {
            Move::Want(set) => {
                self.revision += 1;
                self.set = set;
                self.known = true;
                self.to_device.push(desired(self.revision, &self.set));
            }
            Move::Stale => self.to_device.push(desired(self.revision.saturating_sub(1), &Set::new())),
            Move::Forget => self.known = false,
            Move::End(reason) => self.end(reason),
            Move::Cut => self.disconnect(),
            Move::PowerLoss => self.power_loss()?,
            Move::StorageFails => self.fail_next = true,
            Move::Crash(index) => {
                if let Some(run) = self.loaded.keys().nth(index).copied() {
                    self.loaded.remove(&run);
                    self.crashed.insert(run);
                    let ended =
                        ApplicationEvent::Ended { reason: ReportReason::Trapped, message: String::new() };
                    self.agent.handle_application(self.now_ms, run, ended);
                }
            }
            Move::Run(steps) => (0..steps).for_each(|_| self.step()),
        }
        Ok(())
    }

    fn end(&mut self, reason: CloseReason) {
        if !self.connected {
            return;
        }
        let closing = Closing { reason, retry_after_ms: 0, detail: "" };
        self.agent.handle_frame(self.now_ms, &frame(&GatewayMessage::Goodbye(closing)));
        if TAKEN_BACK.contains(&reason) && self.greeted {
            self.acknowledged = (0, BTreeMap::new());
        }
    }

    fn power_loss(&mut self) -> Result<(), TestCaseError> {
        self.connected = false;
        self.greeted = false;
        self.wants_link = false;
        self.to_device.clear();
        self.operation = None;
        self.left = false;
        self.loaded.clear();
        self.agent = Agent::new(config(), self.flash.restored(), self.now_ms);
        let (revision, modules) = &self.acknowledged;
        prop_assert!(self.agent.revision().0 >= *revision, "an acknowledged revision is lost");
        for digest in modules.values() {
            prop_assert!(self.flash.modules.contains_key(digest), "an acknowledged module is lost");
        }
        Ok(())
    }

    /// A round of everything; time moves when nothing else does.
    fn step(&mut self) {
        let mut busy = false;
        if let Some(operation) = self.operation.take() {
            busy = true;
            let outcome = if std::mem::take(&mut self.fail_next) {
                self.left |= matches!(operation, Operation::DeleteModule(_));
                Err(StorageError::Failed("worn".into()))
            } else {
                self.flash.perform(operation)
            };
            self.agent.handle_storage(self.now_ms, outcome);
        }
        while let Some(effect) = self.agent.poll_effect() {
            busy = true;
            match effect {
                Effect::Connect => self.wants_link = true,
                Effect::Close => self.disconnect(),
                Effect::Storage(operation) => self.operation = Some(operation),
                Effect::Start(start) => {
                    assert_eq!(
                        self.flash.modules.get(&start.digest).map(|m| module_digest(m)),
                        Some(start.digest)
                    );
                    self.loaded.insert(start.run, (start.uid, start.digest));
                    self.agent.handle_application(self.now_ms, start.run, ApplicationEvent::Started);
                }
                // It may have ended by itself since the stop was decided.
                Effect::Stop { run, .. } => {
                    assert!(self.loaded.remove(&run).is_some() || self.crashed.contains(&run));
                }
                other => panic!("a fixed identity asks for nothing: {other:?}"),
            }
        }
        if std::mem::take(&mut self.wants_link) {
            self.connected = true;
            self.to_device.clear();
            self.agent.handle_connected(self.now_ms);
        }
        if self.connected {
            for body in std::mem::take(&mut self.to_device) {
                busy = true;
                self.agent.handle_frame(self.now_ms, &body);
            }
            let mut buffer = vec![0; limits::FRAME_BYTES_MAX];
            while let Some(length) = self.agent.poll_transmit(&mut buffer) {
                busy = true;
                self.answer(&buffer[2..length]);
            }
        }
        if !busy {
            let next_ms = self.agent.poll_timeout().unwrap_or(self.now_ms);
            self.now_ms = next_ms.max(self.now_ms + 1);
            self.agent.handle_timeout(self.now_ms);
        }
        while self.agent.poll_event().is_some() {}
        assert_eq!(self.agent.check(), Ok(()));
    }

    fn answer(&mut self, body: &[u8]) {
        match decode_device(body).unwrap() {
            DeviceMessage::Hello(hello) => {
                self.greeted = true;
                self.held = hello.revision.0;
                self.epoch = self.epoch.max(hello.last_epoch.0) + 1;
                self.revision = self.revision.max(hello.revision.0);
                self.to_device.push(welcome(self.epoch, self.known));
                if self.known {
                    self.to_device.push(desired(self.revision, &self.set));
                }
            }
            DeviceMessage::AssignmentGet(get) => {
                let found = self.set.iter().map(|(number, variant)| spec(*number, *variant));
                let found = found.into_iter().find(|spec| spec_hash(spec) == get.spec_hash);
                let answer = match &found {
                    None => GatewayMessage::AssignmentGone(get),
                    Some(spec) => GatewayMessage::Assignment(Assignment {
                        spec_hash: get.spec_hash,
                        spec,
                        correlation_id: CorrelationId([1; 16]),
                        envelope: &[],
                    }),
                };
                self.to_device.push(frame(&answer));
            }
            DeviceMessage::ModuleGet(get) => {
                let found = (0..6).map(module).find(|bytes| module_digest(bytes) == get.digest).unwrap();
                let start = get.offset as usize;
                for (index, bytes) in found[start..start + usize::from(get.length)].chunks(4_000).enumerate()
                {
                    let offset = get.offset + 4_000 * index as u32;
                    self.to_device.push(frame(&GatewayMessage::ModuleChunk(ModuleChunk {
                        digest: get.digest,
                        offset,
                        bytes,
                    })));
                }
            }
            DeviceMessage::Reported(reported) => {
                let running = reported.applications.iter().filter(|r| r.state == ApplicationState::Running);
                let running: BTreeMap<_, _> = running.filter_map(|r| Some((r.uid, r.digest?))).collect();
                for (uid, digest) in &running {
                    let loaded = self.loaded.values().any(|(u, d)| u == uid && d == digest);
                    assert!(loaded, "reported as running and not loaded");
                }
                self.acknowledged = (reported.revision.0, running);
            }
            DeviceMessage::Heartbeat(heartbeat) => {
                let ack = HeartbeatAck { sequence: heartbeat.sequence, unix_ms: self.now_ms };
                self.to_device.push(frame(&GatewayMessage::HeartbeatAck(ack)));
            }
            DeviceMessage::Log(_)
            | DeviceMessage::Trap(_)
            | DeviceMessage::Publish(_)
            | DeviceMessage::Join(_)
            | DeviceMessage::Decommissioned(_)
            | DeviceMessage::DeliverAck(_)
            | DeviceMessage::SettingsAnswer(_)
            | DeviceMessage::Error(_) => {}
        }
    }

    /// What the reference says of a settled world: as many members as the device runs, each with its module.
    fn check(&self) -> Result<(), TestCaseError> {
        let loaded: BTreeMap<ApplicationUid, ModuleDigest> = self.loaded.values().copied().collect();
        let wanted: BTreeMap<ApplicationUid, ModuleDigest> = self
            .set
            .iter()
            .map(|(number, variant)| (uid(*number), module_digest(&module(*variant))))
            .collect();
        prop_assert_eq!(loaded.len(), wanted.len().min(usize::from(APPLICATIONS_MAX)));
        for (uid, digest) in &loaded {
            prop_assert_eq!(wanted.get(uid), Some(digest));
        }
        prop_assert_eq!(&self.acknowledged.1, &loaded, "it says what runs");
        prop_assert_eq!(self.acknowledged.0, self.revision);
        if wanted.len() <= usize::from(APPLICATIONS_MAX) && !self.left {
            let kept: Vec<&ModuleDigest> = self.flash.modules.keys().collect();
            prop_assert!(
                kept.iter().all(|digest| wanted.values().any(|w| w == *digest)),
                "modules nobody needs stay"
            );
            prop_assert!(self.flash.staged.is_empty());
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn it_converges_to_the_last_set_once_faults_stop(moves in vec(any_move(), 0..25), last in any_set()) {
        let mut world = World::new();
        for step in moves {
            world.play(step)?;
        }
        world.fail_next = false;
        world.play(Move::Want(last))?;
        world.play(Move::Cut)?;
        (0..1_000).for_each(|_| world.step());
        prop_assert!(matches!(world.agent.session(), SessionState::Established(_)));
        world.check()?;
        world.play(Move::PowerLoss)?;
        (0..1_000).for_each(|_| world.step());
        world.check()?;
    }

    #[test]
    fn a_gateway_that_knows_nothing_changes_nothing(set in any_set()) {
        let mut world = World::new();
        world.play(Move::Want(set))?;
        (0..500).for_each(|_| world.step());
        world.check()?;
        world.play(Move::Forget)?;
        world.play(Move::PowerLoss)?;
        (0..500).for_each(|_| world.step());
        world.check()?;
    }
}

/// A case of the property above: what is left is gone after the next start.
#[test]
fn a_staged_module_that_can_not_be_removed_is_removed_after_the_next_start() {
    let mut world = World::new();
    for step in [
        Move::Want(Set::from([(2, 2)])),
        Move::Run(5),
        Move::Want(Set::from([(0, 0), (1, 4), (2, 0)])),
        Move::Run(11),
        Move::StorageFails,
        Move::Run(1),
        Move::Want(Set::new()),
        Move::Cut,
    ] {
        world.play(step).unwrap();
    }
    (0..1_000).for_each(|_| world.step());
    assert!(world.left && !world.flash.staged.is_empty(), "it is left alone");
    world.power_loss().unwrap();
    (0..1_000).for_each(|_| world.step());
    world.check().unwrap();
}

/// A device with two applications whose session ends with this reason, and what it runs right after.
fn ended_with(reason: CloseReason) -> (World, usize) {
    let mut world = World::new();
    world.play(Move::Want(Set::from([(0, 1), (1, 2)]))).unwrap();
    (0..500).for_each(|_| world.step());
    assert_eq!(world.loaded.len(), 2);
    world.end(reason);
    while let Some(effect) = world.agent.poll_effect() {
        match effect {
            Effect::Stop { run, .. } => assert!(world.loaded.remove(&run).is_some()),
            Effect::Close => world.connected = false,
            Effect::Storage(operation) => world.operation = Some(operation),
            other => panic!("it begins {other:?} as its session ends"),
        }
    }
    let runs = world.loaded.len();
    (world, runs)
}

/// Ends of a session that stop everything. A device that proved nothing takes the last one as the one before.
const TAKEN_BACK: [CloseReason; 3] =
    [CloseReason::Deleted, CloseReason::Revoked, CloseReason::Decommissioned];

#[test]
fn a_device_that_was_deleted_or_revoked_stops_everything_and_holds_no_set_any_more() {
    for reason in TAKEN_BACK {
        let (mut world, runs) = ended_with(reason);
        assert_eq!(runs, 0, "{reason:?} stops what runs");
        world.known = false;
        world.disconnect();
        (0..50).for_each(|_| world.step());
        assert_eq!((world.held, world.loaded.len()), (0, 0), "{reason:?}: the next Hello holds nothing");
        world.power_loss().unwrap();
        (0..50).for_each(|_| world.step());
        assert_eq!((world.held, world.loaded.len()), (0, 0), "{reason:?} outlives a reset");
        // Let in again, it takes the revision that it had.
        world.known = true;
        world.disconnect();
        (0..500).for_each(|_| world.step());
        world.check().unwrap();
    }
}

#[test]
fn a_device_whose_storage_fails_holds_nothing_either_once_it_was_taken_back() {
    let (mut world, _) = ended_with(CloseReason::Deleted);
    world.known = false;
    world.fail_next = true;
    world.held = u64::MAX;
    world.disconnect();
    let mut steps = 0;
    while world.held > 0 {
        world.fail_next = true;
        world.step();
        steps += 1;
        assert!(steps < 1_000, "it says that it holds revision {}", world.held);
    }
}

#[test]
fn other_ends_of_a_session_stop_nothing() {
    for reason in (0..32).map(CloseReason::from) {
        if !TAKEN_BACK.contains(&reason) {
            assert_eq!(ended_with(reason).1, 2, "{reason:?}");
        }
    }
}
