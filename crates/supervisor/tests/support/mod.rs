//! A gateway that follows a script, and a device beside it, on one virtual clock.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;

use wasmbed_agent::{module_digest, spec_hash};
use wasmbed_protocol::{
    ApplicationReport, ApplicationState, ApplicationUid, Assignment, AssignmentGet, CloseReason, Closing,
    CorrelationId, Decommission, Deliver, DeliverAck, Delivery, Desired, DesiredApplication, DeviceMessage,
    DeviceUid, Epoch, ErrorCode, Frames, GatewayMessage, GpioGrant, HeartbeatAck, I2cGrant, List,
    MessageGroups, MessageSource, ModuleChunk, ModuleDigest, ModuleGet, ModuleGone, Publish, PublishAck,
    ReportReason, ResetReason, RestartPolicy, Revision, Sequence, Settings, Spec, SpecHash, SpiGrant, Topic,
    TopicDirection, UartGrant, Welcome, decode_device, encode_gateway, encode_spec, limits, tag,
};
use wasmbed_runtime::{Interpreter, Metering, RuntimeConfig};
use wasmbed_supervisor::{
    Config, Supervisor,
    memory::{FaultyStorage, MemoryBoard, MemoryLink},
    platform::{Board, PeripheralFacts, PeripheralKind, Provisioned},
};

pub(crate) type Device = Supervisor<Interpreter, MemoryBoard>;

pub(crate) fn uid(number: u8) -> ApplicationUid {
    ApplicationUid([number; 16])
}

/// What a test says about an application.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) module: Vec<u8>,
    pub(crate) policy: RestartPolicy,
    pub(crate) cpu_limit_ms: u32,
    pub(crate) memory_limit_bytes: u64,
    pub(crate) capabilities: Vec<&'static str>,
    pub(crate) args: Vec<String>,
    /// A bus, an address on it, and bytes per second.
    pub(crate) i2c: Option<(&'static str, u8, u32)>,
    /// A chip select, and bytes per second.
    pub(crate) spi: Option<(&'static str, u32)>,
    /// A UART, and bytes per second.
    pub(crate) uart: Option<(&'static str, u32)>,
    /// A pin, and how often each second its edges may end a wait.
    pub(crate) gpio: Option<(&'static str, u32)>,
    /// Topics that it may publish to, and how often each second.
    pub(crate) topics: Vec<(&'static str, u32)>,
    /// A topic on which messages come in, and how often each second.
    pub(crate) topic_in: Option<(&'static str, u32)>,
}

impl Wanted {
    pub(crate) fn wat(text: &str) -> Self {
        Self::bytes(wat::parse_str(text).unwrap())
    }

    pub(crate) fn bytes(module: Vec<u8>) -> Self {
        Self {
            module,
            policy: RestartPolicy::Always,
            cpu_limit_ms: 100,
            memory_limit_bytes: 131_072,
            capabilities: vec![],
            args: vec![],
            i2c: None,
            spi: None,
            uart: None,
            gpio: None,
            topics: vec![],
            topic_in: None,
        }
    }

    pub(crate) fn policy(mut self, policy: RestartPolicy) -> Self {
        self.policy = policy;
        self
    }

    pub(crate) fn capabilities(mut self, capabilities: &[&'static str]) -> Self {
        self.capabilities = capabilities.to_vec();
        self
    }

    pub(crate) fn topics(mut self, topics: &[(&'static str, u32)]) -> Self {
        self.topics = topics.to_vec();
        self.capabilities(&["messages"])
    }

    pub(crate) fn topic_in(mut self, topic: &'static str, per_second: u32) -> Self {
        self.topic_in = Some((topic, per_second));
        self.capabilities(&["messages"])
    }

    pub(crate) fn i2c(mut self, bus: &'static str, address: u8, bytes_per_second: u32) -> Self {
        self.i2c = Some((bus, address, bytes_per_second));
        self.capabilities(&["i2c"])
    }

    pub(crate) fn uart(mut self, name: &'static str, bytes_per_second: u32) -> Self {
        self.uart = Some((name, bytes_per_second));
        self.capabilities(&["uart"])
    }

    pub(crate) fn spi(mut self, name: &'static str, bytes_per_second: u32) -> Self {
        self.spi = Some((name, bytes_per_second));
        self.capabilities(&["spi"])
    }

    pub(crate) fn gpio(mut self, name: &'static str, edges_per_second: u32) -> Self {
        self.gpio = Some((name, edges_per_second));
        self.capabilities(&["gpio"])
    }

    /// Different bytes of the same program, so long.
    pub(crate) fn padded(mut self, bytes: usize) -> Self {
        let mut rest = bytes - self.module.len();
        while rest > 0 {
            // A custom section: id, length, an empty name, zeroes.
            let body = rest.clamp(3, 100) - 2;
            self.module.extend([0, body as u8, 0]);
            self.module.extend(vec![0; body - 1]);
            rest = bytes.saturating_sub(self.module.len());
        }
        self
    }

    pub(crate) fn digest(&self) -> ModuleDigest {
        module_digest(&self.module)
    }

    fn spec(&self, uid: ApplicationUid) -> Vec<u8> {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let out = self.topics.iter().map(|(name, per_second)| (*name, *per_second, TopicDirection::Out));
        let all = out.chain(self.topic_in.map(|(name, per_second)| (name, per_second, TopicDirection::In)));
        let mut topics: Vec<Topic<'_>> =
            all.map(|(name, per_second, direction)| Topic { name, direction, per_second }).collect();
        topics.sort_by_key(|topic| topic.name);
        let addresses = self.i2c.map(|(_, address, _)| [address]);
        let grant = self.i2c.zip(addresses.as_ref());
        let grants: Vec<I2cGrant<'_>> = grant
            .map(|((name, _, bytes_per_second), addresses)| I2cGrant { name, addresses, bytes_per_second })
            .into_iter()
            .collect();
        let uart =
            self.uart.map(|(name, bytes_per_second)| UartGrant { name, baud: 9_600, bytes_per_second });
        let uart: Vec<UartGrant<'_>> = uart.into_iter().collect();
        let chip = |(name, bytes_per_second)| SpiGrant { name, mode: 3, clock_khz: 500, bytes_per_second };
        let spi: Vec<SpiGrant<'_>> = self.spi.map(chip).into_iter().collect();
        let gpio = self.gpio.map(|(name, edges_per_second)| GpioGrant { name, edges_per_second });
        let gpio: Vec<GpioGrant<'_>> = gpio.into_iter().collect();
        let spec = Spec {
            uid,
            name: "default/test",
            digest: self.digest(),
            module_bytes: self.module.len() as u32,
            memory_limit_bytes: self.memory_limit_bytes,
            cpu_limit_ms: self.cpu_limit_ms,
            restart_policy: self.policy,
            args: List::new(&args),
            env: List::empty(),
            capabilities: List::new(&self.capabilities),
            values_mac: None,
            i2c: List::new(&grants),
            uart: List::new(&uart),
            gpio: List::new(&gpio),
            spi: List::new(&spi),
            topics: List::new(&topics),
        };
        let mut bytes = vec![0; limits::SPEC_BYTES_MAX];
        let length = encode_spec(&spec, &mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) spec_hash: SpecHash,
    pub(crate) digest: Option<ModuleDigest>,
    pub(crate) state: ApplicationState,
    pub(crate) reason: ReportReason,
    pub(crate) message: String,
    pub(crate) restarts: u32,
    pub(crate) memory_bytes: u64,
}

impl Report {
    fn new(report: &ApplicationReport<'_>) -> Self {
        Self {
            spec_hash: report.spec_hash,
            digest: report.digest,
            state: report.state,
            reason: report.reason,
            message: report.message.into(),
            restarts: report.restarts,
            memory_bytes: report.memory_bytes,
        }
    }
}

/// A message of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) uid: ApplicationUid,
    pub(crate) boot: u64,
    pub(crate) sequence: u64,
    pub(crate) lost: u32,
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
}

impl Message {
    fn new(publish: &Publish<'_>) -> Self {
        Self {
            uid: publish.uid,
            boot: publish.boot.0,
            sequence: publish.sequence.0,
            lost: publish.messages_lost,
            topic: publish.topic.into(),
            payload: publish.payload.into(),
        }
    }
}

/// Answers like a gateway and remembers what it was told.
#[derive(Default)]
pub(crate) struct Gateway {
    pub(crate) revision: u64,
    pub(crate) wanted: BTreeMap<ApplicationUid, Wanted>,
    pub(crate) epoch: u64,
    pub(crate) desired_known: bool,
    /// Does not have any module.
    pub(crate) without_modules: bool,
    /// Flips a bit of every chunk.
    pub(crate) damages: bool,
    /// Ends the connection after so many chunk bytes.
    pub(crate) cut_after_bytes: Option<usize>,
    /// Says nothing, as half-open peers do.
    pub(crate) mute: bool,
    pub(crate) connected: bool,
    pub(crate) received: Vec<u8>,
    pub(crate) chunk_bytes: usize,
    pub(crate) hellos: Vec<(Revision, Epoch, ResetReason)>,
    pub(crate) reported_revision: Revision,
    pub(crate) reports: BTreeMap<ApplicationUid, Report>,
    pub(crate) history: Vec<(ApplicationUid, ApplicationState, ReportReason)>,
    pub(crate) logs: Vec<(ApplicationUid, u64, u32, String)>,
    /// Traps, as people read them, and the restarts before each.
    pub(crate) traps: Vec<(ApplicationUid, u32, String)>,
    /// Every message of an application that came, those that came again among them.
    pub(crate) messages: Vec<Message>,
    /// What became of deliveries, by their sequence.
    pub(crate) deliveries: Vec<(u64, Delivery)>,
    /// Every answer about settings: whose, of which revision, and each setting's state.
    pub(crate) settings: Vec<(ApplicationUid, u64, Vec<String>)>,
    /// Whether it keeps messages of applications, so that it acknowledges them.
    pub(crate) keeps_messages: bool,
    /// Knows the first messages only.
    pub(crate) is_older: bool,
    pub(crate) heartbeats: u64,
    pub(crate) errors: Vec<String>,
    pub(crate) reject: Option<u32>,
    /// What the device was provisioned with, and the UID in its certificate.
    pub(crate) identity: Option<(Provisioned, Option<DeviceUid>)>,
    /// Sent at each session's start.
    pub(crate) order: Option<Vec<u8>>,
    /// When each proof came, with its bytes.
    pub(crate) proofs: Vec<(u64, Vec<u8>)>,
    /// The controller has a proof: such a device is kept out, once it is.
    pub(crate) is_confirmed: bool,
    /// Whether a proof is confirmed when it comes.
    pub(crate) confirms: bool,
    /// Orders that the device did not follow, in its words.
    pub(crate) refusals: Vec<String>,
}

impl Gateway {
    pub(crate) fn set(&mut self, number: u8, wanted: Wanted) {
        self.wanted.insert(uid(number), wanted);
        self.revision += 1;
        self.desired_known = true;
    }

    pub(crate) fn remove(&mut self, number: u8) {
        self.wanted.remove(&uid(number));
        self.revision += 1;
        self.desired_known = true;
    }

    pub(crate) fn desired(&self) -> Vec<DesiredApplication> {
        self.wanted
            .iter()
            .map(|(uid, wanted)| DesiredApplication { uid: *uid, spec_hash: spec_hash(&wanted.spec(*uid)) })
            .collect()
    }

    pub(crate) fn send(&self, link: &MemoryLink, message: &GatewayMessage<'_>) {
        let mut frame = vec![0; limits::FRAME_BYTES_MAX];
        let length = encode_gateway(message, &mut frame).unwrap();
        link.with(|channel| channel.to_device.extend(&frame[..length]));
    }

    pub(crate) fn send_desired(&self, link: &MemoryLink) {
        let members = self.desired();
        let desired = Desired { revision: Revision(self.revision), applications: List::new(&members) };
        self.send(link, &GatewayMessage::Desired(desired));
    }

    pub(crate) fn send_message(
        &self,
        link: &MemoryLink,
        sequence: u64,
        number: u8,
        topic: &str,
        payload: &[u8],
    ) {
        let (sequence, uid, source) = (Sequence(sequence), uid(number), MessageSource::Operator);
        self.send(link, &GatewayMessage::Deliver(Deliver { sequence, uid, topic, payload, source }));
    }

    /// Gives an application settings, which are the encoding of values.
    pub(crate) fn send_settings(&self, link: &MemoryLink, number: u8, revision: u64, values: &[u8]) {
        let (uid, revision) = (uid(number), Revision(revision));
        self.send(link, &GatewayMessage::Settings(Settings { uid, revision, values }));
    }

    pub(crate) fn send_order(&self, link: &MemoryLink) {
        if let Some(order) = &self.order {
            self.send(link, &GatewayMessage::Decommission(Decommission { order }));
        }
    }

    /// True if it did anything.
    pub(crate) fn poll(&mut self, link: &MemoryLink, now_ms: u64) -> bool {
        let mut busy = false;
        if link.accept() {
            (self.connected, busy) = (true, true);
            self.received.clear();
        }
        self.connected &= link.with(|channel| channel.up);
        let came: Vec<u8> = link.with(|channel| channel.to_gateway.drain(..).collect());
        if self.mute || !self.connected {
            return busy;
        }
        busy |= !came.is_empty();
        self.received.extend(came);
        let received = std::mem::take(&mut self.received);
        let mut frames = Frames::new(&received);
        for body in frames.by_ref() {
            self.handle(link, now_ms, decode_device(body.unwrap()).unwrap());
        }
        self.received = received[frames.consumed()..].to_vec();
        busy
    }

    fn handle(&mut self, link: &MemoryLink, now_ms: u64, message: DeviceMessage<'_>) {
        match message {
            DeviceMessage::Hello(hello) => {
                self.hellos.push((hello.revision, hello.last_epoch, hello.reset_reason));
                assert!(!hello.facts.imports.is_empty());
                assert_eq!(hello.groups, Some(MessageGroups::ALL));
                if self.is_confirmed {
                    self.send(link, &GatewayMessage::Reject(DECOMMISSIONED));
                    return link.cut();
                }
                if let Some(retry_after_ms) = self.reject {
                    let closing = Closing { reason: CloseReason::Overloaded, retry_after_ms, detail: "full" };
                    self.send(link, &GatewayMessage::Reject(closing));
                    return link.cut();
                }
                self.epoch = self.epoch.max(hello.last_epoch.0) + 1;
                let welcome = Welcome {
                    epoch: Epoch(self.epoch),
                    unix_ms: 1_800_000_000_000 + now_ms,
                    heartbeat_interval_ms: 10_000,
                    heartbeat_timeout_ms: 30_000,
                    log_bytes_per_second: 4_096,
                    desired_known: self.desired_known,
                    groups: (!self.is_older).then_some(MessageGroups::ALL.without(MessageGroups::RENEWAL)),
                };
                self.send(link, &GatewayMessage::Welcome(welcome));
                if !self.is_older {
                    self.send_order(link);
                }
                if self.desired_known {
                    self.send_desired(link);
                }
            }
            DeviceMessage::Heartbeat(heartbeat) => {
                self.heartbeats += 1;
                let ack = HeartbeatAck { sequence: heartbeat.sequence, unix_ms: 1_800_000_000_000 + now_ms };
                self.send(link, &GatewayMessage::HeartbeatAck(ack));
            }
            DeviceMessage::Reported(reported) => {
                self.reported_revision = reported.revision;
                self.reports = reported.applications.iter().map(|r| (r.uid, Report::new(&r))).collect();
                self.history.extend(reported.applications.iter().map(|r| (r.uid, r.state, r.reason)));
            }
            DeviceMessage::AssignmentGet(get) => self.answer_assignment(link, get),
            DeviceMessage::ModuleGet(get) => self.answer_module(link, get),
            DeviceMessage::Log(log) => {
                self.logs.push((log.uid, log.sequence.0, log.lines_lost, log.text.into()))
            }
            DeviceMessage::Trap(trap) => {
                assert!(!self.is_older, "an older gateway would not know what this is");
                assert!(self.wanted.values().zip(self.wanted.keys()).any(|(wanted, uid)| {
                    *uid == trap.uid && spec_hash(&wanted.spec(*uid)) == trap.spec_hash
                }));
                self.traps.push((trap.uid, trap.restarts, trap.to_string()));
            }
            DeviceMessage::Publish(publish) => {
                assert!(!self.is_older, "an older gateway would not know what this is");
                self.messages.push(Message::new(&publish));
                if self.keeps_messages {
                    let Publish { uid, boot, sequence, .. } = publish;
                    self.send(link, &GatewayMessage::PublishAck(PublishAck { uid, boot, sequence }));
                }
            }
            DeviceMessage::DeliverAck(DeliverAck { sequence, delivery }) => {
                self.deliveries.push((sequence.0, delivery));
            }
            DeviceMessage::SettingsAnswer(answer) => {
                assert!(!self.is_older, "an older gateway would not know what this is");
                let states = answer.settings.iter().map(|state| {
                    let value = state.value.map_or(String::new(), |value| format!(" {value}"));
                    format!("{} {}{value}", state.name, state.result.name())
                });
                self.settings.push((answer.uid, answer.revision.0, states.collect()));
            }
            DeviceMessage::Join(_) => panic!("the device asks for a certificate unasked"),
            DeviceMessage::Decommissioned(decommissioned) => {
                assert!(
                    self.order.is_some() && !self.is_older,
                    "nobody ordered it, or nobody understands it"
                );
                self.proofs.push((now_ms, decommissioned.proof.into()));
                self.is_confirmed |= self.confirms;
                if self.is_confirmed {
                    self.send(link, &GatewayMessage::Goodbye(DECOMMISSIONED));
                    link.cut();
                }
            }
            DeviceMessage::Error(error) if error.code == ErrorCode::Refused => {
                assert_eq!(error.tag, Some(tag::DECOMMISSION));
                self.refusals.push(error.detail.into());
            }
            DeviceMessage::Error(error) => self.errors.push(error.detail.into()),
        }
    }

    fn answer_assignment(&mut self, link: &MemoryLink, get: AssignmentGet) {
        let spec =
            self.wanted.iter().map(|(uid, wanted)| wanted.spec(*uid)).find(|s| spec_hash(s) == get.spec_hash);
        let answer = match &spec {
            None => GatewayMessage::AssignmentGone(get),
            Some(spec) => GatewayMessage::Assignment(Assignment {
                spec_hash: get.spec_hash,
                spec,
                correlation_id: CorrelationId([9; 16]),
                envelope: &[],
            }),
        };
        self.send(link, &answer);
    }

    fn answer_module(&mut self, link: &MemoryLink, get: ModuleGet) {
        let wanted = self.wanted.values().find(|wanted| wanted.digest() == get.digest);
        let Some(wanted) = wanted.filter(|_| !self.without_modules) else {
            return self.send(link, &GatewayMessage::ModuleGone(ModuleGone { digest: get.digest }));
        };
        let start = get.offset as usize;
        let range = wanted.module[start..start + usize::from(get.length)].to_vec();
        for (index, chunk) in range.chunks(limits::CHUNK_BYTES_MAX).enumerate() {
            if self.cut_after_bytes.is_some_and(|limit| self.chunk_bytes >= limit) {
                self.cut_after_bytes = None;
                return link.cut();
            }
            let mut bytes = chunk.to_vec();
            if self.damages {
                bytes[0] ^= 1;
            }
            let offset = get.offset + (index * limits::CHUNK_BYTES_MAX) as u32;
            self.send(
                link,
                &GatewayMessage::ModuleChunk(ModuleChunk { digest: get.digest, offset, bytes: &bytes }),
            );
            self.chunk_bytes += chunk.len();
        }
    }
}

const DECOMMISSIONED: Closing<'static> = Closing {
    reason: CloseReason::Decommissioned,
    retry_after_ms: 0,
    detail: "the Device was decommissioned",
};

pub(crate) fn board() -> Board {
    Board {
        board: "memory".into(),
        firmware: "0.1.0".into(),
        flash_bytes: 4 << 20,
        module_bytes_max: 1 << 20,
        applications_max: 10,
        capabilities: vec![
            "key-value".into(),
            "gpio".into(),
            "sensor".into(),
            "i2c".into(),
            "messages".into(),
            "spi".into(),
            "uart".into(),
        ],
        peripherals: [
            ("gpio0", PeripheralKind::Gpio),
            ("i2c0", PeripheralKind::I2c),
            ("spi0.0", PeripheralKind::Spi),
            ("spi0.1", PeripheralKind::Spi),
            ("uart0", PeripheralKind::Uart),
        ]
        .map(|(name, kind)| PeripheralFacts { name: name.into(), kind, is_simulated: true })
        .into(),
        reset_reason: ResetReason::PowerOn,
        reset_detail: String::new(),
    }
}

/// One device with its gateway.
pub(crate) struct World {
    pub(crate) device: Device,
    pub(crate) link: MemoryLink,
    pub(crate) gateway: Gateway,
    pub(crate) now_ms: u64,
    /// Whether the gateway is there at all.
    pub(crate) online: bool,
    /// Rounds without a pause.
    busy_rounds: u32,
}

/// Nothing but the deadline wakes the device before: what it forgot to be woken for would show.
const LATEST_MS: u64 = 60_000;
/// Rounds that fit in a millisecond: the clock moves even when an application is never done.
const ROUNDS_PER_MS: u32 = 10;

impl World {
    pub(crate) fn new() -> Self {
        Self::with(MemoryBoard::new(FaultyStorage::default(), 1), Gateway::default(), 0)
    }

    pub(crate) fn with(mut board_of_memory: MemoryBoard, gateway: Gateway, now_ms: u64) -> Self {
        if let Some((provisioned, device_uid)) = &gateway.identity {
            board_of_memory.identity.provisioned = provisioned.clone();
            board_of_memory.identity.device_uid = *device_uid;
        }
        let link = board_of_memory.link.clone();
        let runtime = RuntimeConfig {
            arena_bytes: 8 << 20,
            metering: Metering::Fixed { fuel_per_ms: 20_000 },
            ..RuntimeConfig::default()
        };
        let device = Supervisor::new(Config { board: board(), runtime }, board_of_memory, now_ms);
        Self { device, link, gateway, now_ms, online: true, busy_rounds: 0 }
    }

    /// Loses power and starts again, with what storage holds.
    pub(crate) fn reboot(self) -> Self {
        let storage = self.device.into_platform().storage.after_power_loss();
        let mut gateway = self.gateway;
        gateway.connected = false;
        gateway.reports.clear();
        let online = self.online;
        let mut world = Self::with(MemoryBoard::new(storage, self.now_ms + 7), gateway, self.now_ms + 1);
        world.online = online;
        world
    }

    pub(crate) fn has_power(&mut self) -> bool {
        !self.device.platform().storage.has_lost_power()
    }

    /// One round of the device and one of the gateway; the clock moves when neither has anything left to do now.
    pub(crate) fn step(&mut self) {
        let timer = &mut self.device.platform().timer;
        timer.now_us = timer.now_us.max(self.now_ms * 1_000);
        let deadline_ms = self.device.poll(self.now_ms);
        let busy = if self.online { self.gateway.poll(&self.link, self.now_ms) } else { false };
        if !self.online {
            self.link.cut();
        }
        if !busy && deadline_ms > self.now_ms {
            self.now_ms = deadline_ms.min(self.now_ms + LATEST_MS);
            self.busy_rounds = 0;
        } else if self.busy_rounds >= ROUNDS_PER_MS {
            self.now_ms += 1;
            self.busy_rounds = 0;
        } else {
            self.busy_rounds += 1;
        }
    }

    /// Steps until the condition holds; panics after so much virtual time.
    pub(crate) fn until(&mut self, what: &str, within_ms: u64, mut condition: impl FnMut(&mut Self) -> bool) {
        let end_ms = self.now_ms + within_ms;
        let mut steps = 0;
        while !condition(self) {
            self.step();
            steps += 1;
            assert!(
                self.now_ms <= end_ms && steps < 2_000_000,
                "not within {within_ms} ms: {what}; reports {:#?}, log {:#?}",
                self.gateway.reports,
                self.device.platform().log.records
            );
        }
    }

    pub(crate) fn run_for(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.step();
        }
    }

    pub(crate) fn state(&self, number: u8) -> Option<(ApplicationState, ReportReason)> {
        self.gateway.reports.get(&uid(number)).map(|report| (report.state, report.reason))
    }

    pub(crate) fn message(&self, number: u8) -> &str {
        self.gateway.reports.get(&uid(number)).map_or("", |report| &report.message)
    }

    /// Whether this application is reported as running what is wanted now.
    pub(crate) fn runs_wanted(&self, number: u8) -> bool {
        let wanted = self.gateway.wanted.get(&uid(number));
        wanted.is_some_and(|wanted| {
            self.gateway.reports.get(&uid(number)).is_some_and(|report| {
                report.state == ApplicationState::Running
                    && report.digest == Some(wanted.digest())
                    && report.spec_hash == spec_hash(&wanted.spec(uid(number)))
            })
        })
    }

    pub(crate) fn until_running(&mut self, numbers: &[u8]) {
        self.until("all run", 120_000, |world| numbers.iter().all(|number| world.runs_wanted(*number)));
    }
}
