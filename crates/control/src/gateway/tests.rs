//! Decisions, one by one, against a model of the Kubernetes API and devices that speak the real protocol.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::json;
use wasmbed_api::{Device, DevicePhase, DeviceSpec, DeviceStatus};
use wasmbed_protocol::{
    ApplicationReport, ApplicationState, ApplicationUid, AssignmentGet, CloseReason, CorrelationId,
    DeviceMessage, Epoch, ErrorCode, Facts, Frames, GatewayMessage, Heartbeat, Hello, List, ModuleDigest,
    ModuleGet, ReportReason, Reported, ResetReason, RestartPolicy, Revision, Sequence, Spec, SpecHash, Topic,
    decode_gateway, encode_device, encode_spec, limits::FRAME_BYTES_MAX,
};

use super::*;
use crate::{
    ObjectKey,
    gateway_api::{AssignmentEntry, DeviceSet, PutSets, StreamEvent},
    kubernetes::{Event, WriteOutcome},
    testing::merge,
};

mod admission;
mod brokers;
mod chaos;
mod counters;
mod crowd;
mod decommission;
mod deliveries;
mod identity;
mod joining;
mod messages;
mod modules;
mod receiving;
mod renewal;
mod rules;
mod sets;
mod settings;
mod shares;
mod statuses;
mod streams;
mod traps;

/// A model of the Kubernetes API: objects, versions, conflicts, merge patches.
#[derive(Default)]
struct Api {
    devices: BTreeMap<ObjectKey, Device>,
    version: u64,
    uids: u64,
    events: Vec<Event>,
    /// Event objects, with how often each happened.
    occurrences: BTreeMap<u64, u32>,
    calls: Vec<&'static str>,
    /// CertificateSigningRequests by name, each with how it is.
    requests: BTreeMap<String, (CertificateRequest, RequestSeen)>,
}

impl Api {
    fn bump(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    fn create(&mut self, key: &ObjectKey, spec: DeviceSpec) -> Device {
        self.uids += 1;
        let mut device = Device::new(&key.name, spec);
        device.metadata.namespace = Some(key.namespace.clone());
        device.metadata.uid = Some(format!("00000000-0000-0000-0000-{:012}", self.uids));
        device.metadata.generation = Some(1);
        device.metadata.resource_version = Some(self.bump());
        self.devices.insert(key.clone(), device.clone());
        device
    }

    fn edit(&mut self, key: &ObjectKey, edit: impl FnOnce(&mut Device)) -> Device {
        let version = self.bump();
        let device = self.devices.get_mut(key).unwrap();
        edit(device);
        device.metadata.resource_version = Some(version);
        device.clone()
    }

    fn status(&self, key: &ObjectKey) -> DeviceStatus {
        self.devices[key].status.clone().unwrap_or_default()
    }

    fn call(&mut self, call: Call) -> WriteOutcome<Option<Box<Device>>> {
        match call {
            Call::CreateDevice { device, spec } => {
                self.calls.push("create");
                if self.devices.contains_key(&device) {
                    return WriteOutcome::Conflict;
                }
                WriteOutcome::Done(Some(Box::new(self.create(&device, *spec))))
            }
            Call::GetDevice { device } => {
                self.calls.push("get");
                match self.devices.get(&device) {
                    Some(device) => WriteOutcome::Done(Some(Box::new(device.clone()))),
                    None => WriteOutcome::NotFound,
                }
            }
            Call::PatchStatus { device, patch } => {
                self.calls.push("patch");
                let Some(held) = self.devices.get(&device) else { return WriteOutcome::NotFound };
                if patch["metadata"]["resourceVersion"].as_str() != held.metadata.resource_version.as_deref()
                {
                    return WriteOutcome::Conflict;
                }
                let mut value = serde_json::to_value(held).unwrap();
                merge(&mut value, &json!({ "status": patch["status"] }));
                let patched: Device = serde_json::from_value(value).unwrap();
                WriteOutcome::Done(Some(Box::new(self.edit(&device, |held| held.status = patched.status))))
            }
            Call::Event(event, occurrence) => {
                self.occurrences.insert(occurrence.number, occurrence.count);
                self.events.push(*event);
                WriteOutcome::Done(None)
            }
        }
    }
}

impl Api {
    fn certificate_call(&mut self, work: CertificateWork) -> WriteOutcome<RequestSeen> {
        match work {
            CertificateWork::Create(request) if self.requests.contains_key(&request.name) => {
                WriteOutcome::Conflict
            }
            CertificateWork::Create(request) => {
                self.requests.insert(request.name.clone(), (*request, RequestSeen::default()));
                WriteOutcome::Done(RequestSeen::default())
            }
            CertificateWork::Get { name } => match self.requests.get(&name) {
                Some((_, seen)) => WriteOutcome::Done(seen.clone()),
                None => WriteOutcome::NotFound,
            },
        }
    }
}

/// A gateway with its world: every output is carried out until there are none.
struct World {
    gateway: Gateway,
    api: Api,
    api_down: bool,
    now: Now,
    next_session: u64,
    received: BTreeMap<SessionId, Vec<String>>,
    raw: BTreeMap<SessionId, Vec<Vec<u8>>>,
    closed: BTreeMap<SessionId, CloseReason>,
    /// Connections that the gateway closed.
    ended: BTreeSet<SessionId>,
    disk: BTreeMap<ObjectKey, StoredDevice>,
    disk_full: bool,
    disk_term: u64,
    outbox: messages::Outbox,
    modules: BTreeMap<ModuleDigest, Vec<u8>>,
    answers: Vec<Answer>,
    orders_answers: Vec<OrdersAnswer>,
    notices: Vec<Notice>,
    /// For how long the gateway does not want to read.
    read_in_ms: BTreeMap<SessionId, u64>,
    /// Lines of the process's log.
    lines: usize,
    next_request: u64,
    /// What a read of the leader's Lease gives.
    leader_lease: Result<u64, String>,
    /// Calls about requests that are under way, if they take time; whoever asks for that answers them.
    slow_calls: Option<VecDeque<(u64, CertificateCall)>>,
}

fn key(name: &str) -> ObjectKey {
    ObjectKey { namespace: "default".into(), name: name.into() }
}

fn identity(name: &str) -> Identity {
    Identity { device: key(name), public_key: format!("key-{name}") }
}

impl World {
    fn new() -> Self {
        Self::with(Config::new("gw", "boot"))
    }

    fn with(config: Config) -> Self {
        let now = Now { ms: 1_000, unix_ms: 1_700_000_000_000 };
        Self {
            gateway: Gateway::new(now, config, Restored::default()),
            api: Api::default(),
            api_down: false,
            now,
            next_session: 1,
            received: BTreeMap::new(),
            raw: BTreeMap::new(),
            closed: BTreeMap::new(),
            ended: BTreeSet::new(),
            disk: BTreeMap::new(),
            disk_full: false,
            disk_term: 0,
            outbox: messages::Outbox::default(),
            modules: BTreeMap::new(),
            answers: Vec::new(),
            orders_answers: Vec::new(),
            notices: Vec::new(),
            read_in_ms: BTreeMap::new(),
            lines: 0,
            next_request: 0,
            leader_lease: Ok(1_000),
            slow_calls: None,
        }
    }

    /// With an empty list of Devices seen.
    fn synced() -> Self {
        let mut world = Self::new();
        world.list();
        world
    }

    fn list(&mut self) {
        self.gateway.handle_list_started();
        for device in self.api.devices.values() {
            self.gateway.handle_device(self.now, device);
        }
        self.gateway.handle_list_done(self.now);
        self.settle();
    }

    /// A process that starts again with what is on the disk.
    fn restart(&mut self, config: Config, keep_disk: bool) {
        if !keep_disk {
            self.disk.clear();
            self.modules.clear();
            self.disk_term = 0;
            self.outbox = messages::Outbox::default();
        }
        let restored = Restored {
            leader_term: self.disk_term,
            devices: self.disk.values().cloned().collect(),
            modules: self.modules.iter().map(|(digest, bytes)| (*digest, bytes.len() as u32)).collect(),
            messages: self.outbox.restore(),
        };
        self.gateway = Gateway::new(self.now, config, restored);
        self.received.clear();
        self.closed.clear();
    }

    fn device(&mut self, name: &str) -> ObjectKey {
        let spec =
            DeviceSpec { approved: true, public_key: Some(format!("key-{name}")), ..DeviceSpec::default() };
        let device = self.api.create(&key(name), spec);
        self.gateway.handle_device(self.now, &device);
        self.settle();
        key(name)
    }

    fn edit(&mut self, key: &ObjectKey, edit: impl FnOnce(&mut Device)) {
        let device = self.api.edit(key, edit);
        self.gateway.handle_device(self.now, &device);
        self.settle();
    }

    fn connect(&mut self, identity: &Identity) -> SessionId {
        let id = SessionId(self.next_session);
        self.next_session += 1;
        assert!(self.gateway.handle_accepted(self.now, id, identity));
        self.settle();
        id
    }

    fn hello(&mut self, name: &str, epoch: u64, revision: u64) -> SessionId {
        let id = self.connect(&identity(name));
        self.send(id, &DeviceMessage::Hello(hello(epoch, revision)));
        id
    }

    fn send(&mut self, id: SessionId, message: &DeviceMessage<'_>) {
        let mut frame = [0; FRAME_BYTES_MAX];
        let length = encode_device(message, &mut frame).unwrap();
        self.gateway.handle_frame(self.now, id, &frame[2..length]);
        self.settle();
    }

    fn advance(&mut self, ms: u64) {
        let end = self.now.ms + ms;
        while self.now.ms < end {
            let next = self.gateway.poll_timeout().clamp(self.now.ms + 1, end);
            self.now.unix_ms += next - self.now.ms;
            self.now.ms = next;
            self.gateway.handle_timeout(self.now);
            self.settle();
        }
    }

    /// Carries out what the gateway asks for.
    fn settle(&mut self) {
        loop {
            let mut idle = true;
            while let Some(id) = self.gateway.poll_wake() {
                idle = false;
                self.drain(id);
            }
            while let Some(write) = self.gateway.poll_write(self.now) {
                idle = false;
                let outcome = if self.api_down {
                    WriteOutcome::Unavailable("down".into())
                } else {
                    self.api.call(write.call)
                };
                self.gateway.handle_write_result(self.now, write.id, outcome);
            }
            while let Some(call) = self.gateway.poll_certificate_call(self.now) {
                idle = false;
                match &mut self.slow_calls {
                    Some(slow) => slow.push_back((self.now.ms, call)),
                    None => self.answer_call(call),
                }
            }
            while let Some(operation) = self.gateway.poll_store() {
                idle = false;
                self.store(operation);
            }
            if !self.outbox.stuck
                && let Some(write) = self.gateway.poll_outbox(self.now)
            {
                idle = false;
                let written = self.outbox.write(write);
                self.gateway.handle_outbox_written(self.now, written);
            }
            while let Some(answer) = self.gateway.poll_answer() {
                self.answers.push(answer);
            }
            while let Some(answer) = self.gateway.poll_orders_answer() {
                self.orders_answers.push(answer);
            }
            while let Some(told) = self.gateway.poll_notice() {
                self.lines += usize::from(told.logged);
                self.notices.push(told.notice);
            }
            if idle {
                return;
            }
        }
    }

    fn answer_call(&mut self, call: CertificateCall) {
        let outcome = if self.api_down {
            WriteOutcome::Unavailable("down".into())
        } else {
            self.api.certificate_call(call.what)
        };
        self.gateway.handle_certificate_answer(self.now, call.id, outcome);
    }

    fn drain(&mut self, id: SessionId) {
        let mut buffer = [0; 4 * FRAME_BYTES_MAX];
        loop {
            let transmit = self.gateway.poll_transmit(self.now, id, &mut buffer);
            self.read_in_ms.insert(id, transmit.read_in_ms);
            for body in Frames::new(&buffer[..transmit.written]) {
                let body = body.unwrap();
                let message = decode_gateway(body).unwrap();
                if let GatewayMessage::Reject(closing) | GatewayMessage::Goodbye(closing) = &message {
                    self.closed.insert(id, closing.reason);
                }
                self.raw.entry(id).or_default().push(body.to_vec());
                self.received.entry(id).or_default().push(format!("{message:?}"));
            }
            if transmit.presented {
                let chain = vec![format!("leaf {}", id.0).into_bytes(), b"authority".to_vec()];
                self.gateway.handle_presented(self.now, id, chain);
            }
            if transmit.close {
                self.ended.insert(id);
                self.gateway.handle_closed(self.now, id, "closed");
                return;
            }
            if transmit.written == 0 {
                return;
            }
        }
    }

    fn store(&mut self, operation: StoreOperation) {
        match operation {
            StoreOperation::Put { id, .. } | StoreOperation::Forget { id, .. } if self.disk_full => {
                self.gateway.handle_stored(self.now, id, Err("disk full".into()));
            }
            StoreOperation::Put { id, leader_term, devices } => {
                self.disk_term = leader_term;
                self.disk.extend(devices.into_iter().map(|device| (device.device.clone(), device)));
                self.gateway.handle_stored(self.now, id, Ok(()));
            }
            StoreOperation::Forget { id, device } => {
                self.disk.remove(&device);
                self.gateway.handle_stored(self.now, id, Ok(()));
            }
            StoreOperation::DeleteModule { digest } => {
                self.modules.remove(&digest);
            }
            StoreOperation::LoadModule { digest } => {
                let bytes =
                    self.modules.get(&digest).map(|bytes| bytes.as_slice().into()).ok_or("gone".into());
                self.gateway.handle_module_loaded(self.now, digest, bytes);
            }
        }
    }

    fn upload(&mut self, bytes: &[u8]) -> ModuleDigest {
        let digest = ModuleDigest::of(bytes);
        match self.gateway.plan_upload(self.now, digest, bytes.len() as u64) {
            UploadDecision::Known => {}
            UploadDecision::Accept => {
                self.modules.insert(digest, bytes.to_vec());
                self.gateway.handle_module_stored(self.now, digest, bytes.len() as u32);
            }
            other => panic!("{other:?}"),
        }
        digest
    }

    fn put(&mut self, term: u64, sets: Vec<DeviceSet>) -> Result<crate::gateway_api::PutSetsAnswer, Refused> {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        if self.gateway.needs_leader_lease(term) {
            match self.leader_lease.clone() {
                Ok(term) => self.gateway.handle_leader_lease(term),
                Err(error) => self.gateway.handle_leader_lease_failed(error),
            }
        }
        let put = PreparedSets::new(&PutSets { leader_term: term, sets });
        self.gateway.handle_put_sets(self.now, request, put);
        self.settle();
        let answer = self.answers.pop().expect("an answer");
        assert_eq!(answer.request, request);
        answer.result
    }

    /// What a session was sent and not yet asked for, in the order it came.
    fn take(&mut self, id: SessionId) -> Vec<String> {
        self.received.remove(&id).unwrap_or_default()
    }

    fn stream(&self, cursor: &mut Cursor) -> Vec<StreamEvent> {
        let mut all = Vec::new();
        loop {
            let page = self.gateway.stream_page(cursor);
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }
}

fn hello(epoch: u64, revision: u64) -> Hello<'static> {
    Hello {
        facts: Facts {
            board: "test",
            firmware: "0.1.0",
            engine: "spacewasm",
            memory_bytes: 524_288,
            flash_bytes: 1 << 20,
            load_permille: 2_000,
            module_bytes_max: 1 << 20,
            applications_max: 10,
            features: 3,
            imports: List::empty(),
            capabilities: List::empty(),
            peripherals: None,
        },
        last_epoch: Epoch(epoch),
        revision: Revision(revision),
        reset_reason: ResetReason::PowerOn,
        reset_detail: "",
        boot_counter: None,
        groups: None,
        boot_id: None,
    }
}

fn heartbeat(sequence: u64) -> DeviceMessage<'static> {
    DeviceMessage::Heartbeat(Heartbeat {
        sequence: Sequence(sequence),
        uptime_ms: 0,
        memory_used_bytes: 0,
        cpu_ms: 0,
    })
}

fn report(
    application: u8,
    hash: SpecHash,
    state: ApplicationState,
    reason: ReportReason,
) -> ApplicationReport<'static> {
    ApplicationReport {
        uid: ApplicationUid([application; 16]),
        spec_hash: hash,
        digest: None,
        state,
        reason,
        message: "",
        restarts: 0,
        memory_bytes: 0,
        cpu_ms: 0,
        correlation_id: CorrelationId([7; 16]),
    }
}

fn reported(revision: u64, applications: &[ApplicationReport<'static>]) -> DeviceMessage<'static> {
    DeviceMessage::Reported(Reported {
        sequence: Sequence(1),
        revision: Revision(revision),
        applications: List::new(Box::leak(applications.to_vec().into_boxed_slice())),
    })
}

fn entry(application: u8, digest: ModuleDigest, module_bytes: u32) -> AssignmentEntry {
    entry_with_topics(application, digest, module_bytes, &[])
}

fn entry_with_topics(
    application: u8,
    digest: ModuleDigest,
    module_bytes: u32,
    topics: &[Topic<'_>],
) -> AssignmentEntry {
    let name = format!("default/app-{application}");
    let spec = Spec {
        uid: ApplicationUid([application; 16]),
        name: &name,
        digest,
        module_bytes,
        memory_limit_bytes: 65_536,
        cpu_limit_ms: 1_000,
        restart_policy: RestartPolicy::Always,
        args: List::empty(),
        env: List::empty(),
        capabilities: List::empty(),
        values_mac: None,
        i2c: List::empty(),
        uart: List::empty(),
        gpio: List::empty(),
        spi: List::empty(),
        topics: List::new(topics),
    };
    let mut bytes = [0; 2_900];
    let length = encode_spec(&spec, &mut bytes).unwrap();
    AssignmentEntry {
        application_uid: spec.uid.to_string(),
        application: name.clone(),
        spec_hash: SpecHash::of(&bytes[..length]).to_string(),
        spec: base64::engine::general_purpose::STANDARD.encode(&bytes[..length]).into(),
        digest: digest.to_string(),
        correlation_id: "07".repeat(16),
    }
}

fn hash_of(entry: &AssignmentEntry) -> SpecHash {
    entry.spec_hash.parse().unwrap()
}

fn set(name: &str, revision: u64, assignments: Vec<AssignmentEntry>) -> DeviceSet {
    DeviceSet { device: key(name), revision, assignments }
}
