//! A gateway's process: its decisions, its disk, its connections, and its calls to the API.

use std::collections::{BTreeMap, VecDeque};

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use serde_json::Value;
use wasmbed_agent::module_digest;
use wasmbed_control::{
    Now, ObjectKey,
    election::Hold,
    gateway::{
        Answer, Call, CertificateCallId, CertificateWork, Config, Cursor, Enrollment, Gateway, LeftOut,
        Notice, PreparedOrders, PreparedSets, PreparedSettings, Refused, RequestId, RequestSeen, SessionId,
        StoreOperation, UploadDecision, WriteId,
    },
    gateway_api::{
        PutBrokers, PutBrokersAnswer, PutDecommissions, PutDecommissionsAnswer, PutSets, PutSetsAnswer,
        PutSettings, PutSettingsAnswer, StreamEvent,
    },
    kubernetes::WriteOutcome,
};
use wasmbed_protocol::{Frames, limits::FRAME_BYTES_MAX};
use wasmbed_supervisor::memory::MemoryLink;

use crate::{
    api::{Api, ApiError, NAMESPACE, REQUESTS, Seen, typed},
    broker::{Around, Broker, Deliveries},
    certificates::{Certificate, pem, read_request},
    clock::Clock,
    device::Client,
    gateway_disk::GatewayDisk,
    invariants::Witness,
    line::{Line, outcome},
    messages::Keeper,
    presence::Presence,
    random::Random,
    traps::Started,
    weather::Weather,
    wire::Wire,
};

/// Changes of Devices taken from the watch at once.
const WATCH_PAGE: usize = 8;
/// A clean stop takes this long at most.
const STOP_MS: u64 = 5_000;

/// How gateways take devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) enrollment: Enrollment,
    /// Some devices of the world join.
    pub(crate) joins: bool,
}

struct Connection {
    device: usize,
    /// What the client presented, unless it was provisioned with that.
    presented: Vec<u8>,
    wire: Wire,
    received: Vec<u8>,
    closing: bool,
    /// Nothing is read before this: the device has used its share.
    read_at_ms: u64,
}

struct Awaited {
    at_ms: u64,
    outcome: Outcome,
}

enum Outcome {
    Write(WriteId, WriteOutcome<Option<Box<wasmbed_api::Device>>>),
    Certificate(CertificateCallId, WriteOutcome<RequestSeen>),
}

pub(crate) struct GatewayProcess {
    pub(crate) name: String,
    core: Gateway,
    pub(crate) disk: GatewayDisk,
    pub(crate) line: Line,
    random: Random,
    connections: BTreeMap<SessionId, Connection>,
    sessions: u64,
    requests: u64,
    awaited: VecDeque<Awaited>,
    watch: Option<u64>,
    deliveries: Deliveries,
    pub(crate) down_until_ms: Option<u64>,
    pub(crate) boots: u32,
    /// Disks so far: with a new one it has forgotten everything.
    pub(crate) disks: u32,
    /// That of its machine.
    pub(crate) clock: Clock,
    policy: Policy,
    presence: Presence,
    stopping: Option<Stopping>,
    pub(crate) answers: Vec<Answer>,
}

/// A clean stop under way.
struct Stopping {
    deadline_ms: u64,
    down_until_ms: u64,
}

impl GatewayProcess {
    pub(crate) fn new(name: &str, policy: Policy, (weather, noise): (Weather, u64)) -> Self {
        let clock = Clock::default();
        let now = clock.now(0);
        let disk = GatewayDisk::default();
        Self {
            name: name.to_owned(),
            core: start(name, policy, 1, &disk, now),
            presence: Presence::new(name, &id(name, 1), now.ms),
            stopping: None,
            policy,
            disks: 1,
            clock,
            line: Line::new(weather, Random::of(noise, &format!("calls of {name}"))),
            random: Random::of(noise, name),
            disk,
            connections: BTreeMap::new(),
            sessions: 0,
            requests: 0,
            awaited: VecDeque::new(),
            watch: None,
            deliveries: Deliveries::default(),
            down_until_ms: None,
            boots: 1,
            answers: Vec::new(),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.down_until_ms.is_none()
    }

    /// The process dies, perhaps with its disk.
    pub(crate) fn crash(&mut self, until_ms: u64, loses_disk: bool) {
        for connection in self.connections.values() {
            connection.wire.cut();
        }
        self.connections.clear();
        self.awaited.clear();
        self.answers.clear();
        self.deliveries.clear();
        self.watch = None;
        self.stopping = None;
        if loses_disk {
            self.disk = GatewayDisk::default();
            self.disks += 1;
        }
        self.down_until_ms = Some(until_ms);
    }

    /// The process is asked to end: it says goodbye to its devices and gives up its Lease.
    pub(crate) fn stop(&mut self, now: Now, down_until_ms: u64) {
        self.core.handle_shutdown(now);
        self.stopping = Some(Stopping { deadline_ms: now.ms + STOP_MS, down_until_ms });
    }

    fn restart(&mut self, now: Now) {
        self.boots += 1;
        self.core = start(&self.name, self.policy, self.boots, &self.disk, now);
        self.presence = Presence::new(&self.name, &id(&self.name, self.disks), now.ms);
        self.down_until_ms = None;
    }

    /// Takes a device's connection.
    pub(crate) fn accept(&mut self, device: usize, client: Client, link: &MemoryLink, now: Now) {
        let Some(wire) = Wire::accept(link) else { return };
        self.sessions += 1;
        let id = SessionId(self.sessions);
        let (taken, presented) = match client {
            Client::Device(identity, presented) => (self.core.handle_accepted(now, id, &identity), presented),
            Client::Joining(client) => (self.core.handle_joining(now, id, client), Vec::new()),
        };
        let connection =
            Connection { device, presented, wire, received: Vec::new(), closing: !taken, read_at_ms: now.ms };
        self.connections.insert(id, connection);
    }

    /// One round.
    pub(crate) fn poll(&mut self, now: Now, api: &mut Api, broker: &Broker, witness: &mut Witness) -> u64 {
        if let Some(until_ms) = self.down_until_ms {
            if now.ms < until_ms {
                return until_ms;
            }
            self.restart(now);
        }
        self.core.handle_timeout(now);
        self.follow_devices(now, api);
        self.receive(now, witness);
        self.work_on_disk(now);
        self.call_api(now, api, witness);
        self.transmit(now, witness);
        self.work_on_disk(now);
        let delivered_ms = self.deliver(now, broker, witness);
        let started = self.started();
        while let Some(notice) = self.core.poll_notice() {
            if let Notice::LeftOut { device, what: LeftOut::Events, .. } = notice.notice {
                witness.events_left_out(&started, device.as_ref().map(|device| device.name.as_str()));
            }
        }
        if let Some(stopping) =
            self.stopping.take_if(|stopping| self.core.is_drained() || now.ms >= stopping.deadline_ms)
        {
            self.presence.release(now, api, &self.line, witness);
            self.crash(stopping.down_until_ms, false);
            return stopping.down_until_ms;
        }
        let presence_ms = self.presence.poll(now, api, &mut self.line, witness);
        self.core.handle_hold(now, self.presence.hold());
        if let Some(asked_ms) = self.presence.take_renewed() {
            self.core.handle_renewed(asked_ms);
        }
        let awaited = self.awaited.iter().map(|awaited| awaited.at_ms).min().unwrap_or(u64::MAX);
        let paused = self.connections.values().map(|connection| connection.read_at_ms);
        let read = paused.filter(|at_ms| *at_ms > now.ms).min().unwrap_or(u64::MAX);
        let held = self.connections.values().map(|connection| connection.wire.due_ms(now.ms));
        let read = read.min(held.min().unwrap_or(u64::MAX));
        self.core.poll_timeout().min(awaited).min(read).min(presence_ms).min(delivered_ms)
    }

    /// Messages go from the disk to the broker.
    fn deliver(&mut self, now: Now, broker: &Broker, witness: &mut Witness) -> u64 {
        let keeper = self.keeper();
        witness.messages.counted(&keeper, self.boots, &self.core.message_counters());
        while let Some(write) = self.core.poll_broker_status(now) {
            self.core.handle_broker_status(now, write, true);
        }
        let mut around = Around {
            core: &mut self.core,
            disk: &self.disk,
            keeper: &keeper,
            weather: self.line.weather,
            random: &mut self.random,
            messages: &mut witness.messages,
        };
        self.deliveries.poll(now, broker.is_there(now.ms), &mut around)
    }

    /// Its disk.
    pub(crate) fn keeper(&self) -> Keeper {
        (self.name.clone(), self.disks)
    }

    fn follow_devices(&mut self, now: Now, api: &Api) {
        let lags = self.line.lags();
        let reached = self.line.reach(now.ms, api);
        match &mut self.watch {
            None => {
                let Ok((devices, revision)) = reached.and_then(|api| api.list("devices")) else { return };
                self.core.handle_list_started();
                for device in devices.iter().filter_map(typed::<wasmbed_api::Device>) {
                    self.core.handle_device(now, &device);
                }
                self.core.handle_list_done(now);
                self.watch = Some(revision);
            }
            Some(_) if lags => {}
            Some(after) => match reached.and_then(|api| api.watch("devices", after, WATCH_PAGE)) {
                Err(ApiError::Unavailable) => {}
                Err(_) => self.watch = None,
                Ok(seen) => {
                    for change in seen {
                        match change {
                            Seen::Changed(object) => {
                                if let Some(device) = typed(&object) {
                                    self.core.handle_device(now, &device);
                                }
                            }
                            Seen::Gone(object) => {
                                let metadata =
                                    |field: &str| object["metadata"][field].as_str().map(str::to_owned);
                                let name = metadata("name").unwrap_or_default();
                                self.core.handle_device_deleted(now, &key(&name), metadata("uid").as_deref());
                            }
                        }
                    }
                }
            },
        }
    }

    fn receive(&mut self, now: Now, witness: &mut Witness) {
        let mut ended = Vec::new();
        let started = self.started();
        for (id, connection) in &mut self.connections {
            if connection.wire.is_seen_to_end() {
                ended.push(*id);
                continue;
            }
            if !connection.wire.carries() || now.ms < connection.read_at_ms {
                continue;
            }
            connection.received.extend(connection.wire.receive(now.ms));
            let mut frames = Frames::new(&connection.received);
            for body in frames.by_ref() {
                match body {
                    Ok(body) => {
                        witness.device_said(connection.device, &started, body);
                        self.core.handle_frame(now, *id, body);
                    }
                    Err(error) => {
                        self.core.handle_broken_frame(now, *id, &error.to_string());
                        break;
                    }
                }
            }
            let consumed = frames.consumed();
            connection.received.drain(..consumed);
        }
        for id in ended {
            self.connections.remove(&id);
            self.core.handle_closed(now, id, "connection closed");
        }
    }

    fn transmit(&mut self, now: Now, witness: &mut Witness) {
        while self.core.poll_wake().is_some() {}
        let keeper = self.keeper();
        let mut buffer = vec![0; 4 * FRAME_BYTES_MAX];
        let (mut closed, mut presented) = (Vec::new(), Vec::new());
        for (id, connection) in &mut self.connections {
            let id = *id;
            connection.wire.pass(now.ms);
            while connection.wire.has_room() {
                let transmit = self.core.poll_transmit(now, id, &mut buffer);
                let bytes = buffer.get(..transmit.written).unwrap_or(&[]);
                if connection.wire.carries() {
                    for body in Frames::new(bytes).flatten() {
                        witness.gateway_said(connection.device, &keeper, body);
                    }
                    connection.wire.send(now.ms, bytes);
                }
                connection.closing |= transmit.close;
                if transmit.presented {
                    presented.push((id, vec![connection.presented.clone()]));
                }
                connection.read_at_ms = now.ms + transmit.read_in_ms;
                if transmit.written == 0 || connection.closing {
                    break;
                }
            }
            if connection.closing {
                connection.wire.close();
                closed.push(id);
            }
        }
        for (id, chain) in presented {
            self.core.handle_presented(now, id, chain);
        }
        for id in closed {
            self.connections.remove(&id);
            self.core.handle_closed(now, id, "closed");
        }
    }

    fn work_on_disk(&mut self, now: Now) {
        while let Some(write) = self.core.poll_outbox(now) {
            let written = self.disk.write_outbox(now.ms, write);
            self.core.handle_outbox_written(now, written);
        }
        while let Some(operation) = self.core.poll_store() {
            match operation {
                StoreOperation::Put { id, leader_term, devices } => {
                    let stored = self.disk.put(now.ms, leader_term, devices);
                    self.core.handle_stored(now, id, stored);
                }
                StoreOperation::Forget { id, device } => {
                    let stored = self.disk.forget(now.ms, &device);
                    self.core.handle_stored(now, id, stored);
                }
                StoreOperation::DeleteModule { digest } => self.disk.delete_module(&digest),
                StoreOperation::LoadModule { digest } => {
                    self.core.handle_module_loaded(now, digest, self.disk.load_module(&digest));
                }
            }
        }
        while let Some(answer) = self.core.poll_answer() {
            self.answers.push(answer);
        }
    }

    fn call_api(&mut self, now: Now, api: &mut Api, witness: &mut Witness) {
        while let Some(write) = self.core.poll_write(now) {
            witness.gateway_writes(&self.name, now.ms);
            if let Call::Event(event, occurrence) = &write.call {
                witness.event_written(&self.started(), event, *occurrence);
            }
            let outcome = make_call(now.ms, write.call, &self.name, api, &mut self.line, witness);
            let at_ms = now.ms + self.random.below(60);
            self.awaited.push_back(Awaited { at_ms, outcome: Outcome::Write(write.id, outcome) });
        }
        while let Some(call) = self.core.poll_certificate_call(now) {
            witness.gateway_writes(&self.name, now.ms);
            let outcome = certificate_call(now, call.what, api, &mut self.line, witness);
            let at_ms = now.ms + self.random.below(60);
            self.awaited.push_back(Awaited { at_ms, outcome: Outcome::Certificate(call.id, outcome) });
        }
        let (due, later): (VecDeque<_>, VecDeque<_>) =
            self.awaited.drain(..).partition(|awaited| awaited.at_ms <= now.ms);
        self.awaited = later;
        for awaited in due {
            match awaited.outcome {
                Outcome::Write(id, outcome) => self.core.handle_write_result(now, id, outcome),
                Outcome::Certificate(id, outcome) => {
                    self.core.handle_certificate_answer(now, id, outcome);
                }
            }
        }
    }

    /// Takes sets; the answer comes in `answers`.
    pub(crate) fn put_sets(
        &mut self,
        put: &PutSets,
        now: Now,
        api: &Api,
    ) -> Option<Result<PutSetsAnswer, Refused>> {
        let request = self.begin_call(put.leader_term, now, api);
        self.core.handle_put_sets(now, request, PreparedSets::new(put));
        self.work_on_disk(now);
        let position = self.answers.iter().position(|answer| answer.request == request)?;
        Some(self.answers.swap_remove(position).result)
    }

    /// Takes orders to take devices out of service.
    pub(crate) fn put_orders(
        &mut self,
        put: &PutDecommissions,
        now: Now,
        api: &Api,
    ) -> Option<Result<PutDecommissionsAnswer, Refused>> {
        let request = self.begin_call(put.leader_term, now, api);
        self.core.handle_put_orders(now, request, PreparedOrders::new(put));
        self.work_on_disk(now);
        let answers = std::iter::from_fn(|| self.core.poll_orders_answer());
        Some(answers.filter(|answer| answer.request == request).last()?.result)
    }

    /// Takes settings of applications.
    pub(crate) fn put_settings(
        &mut self,
        put: &PutSettings,
        now: Now,
        api: &Api,
    ) -> Option<Result<PutSettingsAnswer, Refused>> {
        let request = self.begin_call(put.leader_term, now, api);
        self.core.handle_put_settings(now, request, PreparedSettings::new(put));
        self.work_on_disk(now);
        let answers = std::iter::from_fn(|| self.core.poll_settings_answer());
        Some(answers.filter(|answer| answer.request == request).last()?.result)
    }

    /// Takes the brokers that there are.
    pub(crate) fn put_brokers(
        &mut self,
        put: PutBrokers,
        now: Now,
        api: &Api,
    ) -> Result<PutBrokersAnswer, Refused> {
        self.begin_call(put.leader_term, now, api);
        self.core.handle_put_brokers(now, put)
    }

    /// A controller of this term calls.
    fn begin_call(&mut self, leader_term: u64, now: Now, api: &Api) -> RequestId {
        if self.core.needs_leader_lease(leader_term) {
            match self.read_leader_lease(now, api) {
                Ok(term) => self.core.handle_leader_lease(term),
                Err(error) => self.core.handle_leader_lease_failed(error.to_string()),
            }
        }
        self.requests += 1;
        RequestId(self.requests)
    }

    fn read_leader_lease(&self, now: Now, api: &Api) -> Result<u64, ApiError> {
        match self.line.reach(now.ms, api)?.get("leases", wasmbed_api::LEADER_LEASE) {
            Ok(lease) => Ok(lease["spec"]["leaseTransitions"].as_u64().unwrap_or(0)),
            Err(ApiError::NotFound) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// This start of it.
    pub(crate) fn started(&self) -> Started {
        (self.name.clone(), self.boots)
    }

    /// The holder of its Lease.
    pub(crate) fn id(&self) -> String {
        id(&self.name, self.disks)
    }

    /// Takes a module; true if it is held now.
    pub(crate) fn put_module(&mut self, bytes: &[u8], now: Now) -> bool {
        let digest = module_digest(bytes);
        match self.core.plan_upload(now, digest, bytes.len() as u64) {
            UploadDecision::Known => true,
            UploadDecision::Accept if self.disk.put_module(now.ms, digest, bytes).is_err() => {
                self.core.handle_upload_ended(digest);
                false
            }
            UploadDecision::Accept => {
                // A module is at most a megabyte.
                self.core.handle_module_stored(now, digest, bytes.len() as u32);
                true
            }
            UploadDecision::BadSize | UploadDecision::NoSpace => false,
        }
    }

    pub(crate) fn stream_resume(&self, token: Option<&str>) -> Cursor {
        self.core.stream_resume(token)
    }

    pub(crate) fn stream_page(&self, cursor: &mut Cursor) -> Vec<StreamEvent> {
        let events = self.core.stream_page(cursor);
        if events.is_empty() { self.core.stream_idle(cursor).into_iter().collect() } else { events }
    }

    /// The highest term of a leader that it has on disk.
    pub(crate) fn leader_term(&self) -> u64 {
        self.disk.leader_term()
    }

    /// Its end of the device's connection, for faults.
    pub(crate) fn wire(&mut self, device: usize) -> Option<&mut Wire> {
        let of_device =
            |connection: &&mut Connection| connection.device == device && connection.wire.carries();
        self.connections.values_mut().find(of_device).map(|connection| &mut connection.wire)
    }

    /// Whether it hears this device and the API, as far as the world lets it.
    pub(crate) fn hears(&self, device: usize, now_ms: u64) -> bool {
        let hears =
            |connection: &Connection| connection.device == device && connection.wire.is_prompt(now_ms);
        self.is_up() && self.line.is_whole(now_ms) && self.connections.values().any(hears)
    }

    pub(crate) fn check(&self) -> Result<(), &'static str> {
        self.core.check()
    }

    /// What waits, for the bounds.
    pub(crate) fn levels(&self, now: Now) -> wasmbed_control::gateway::Levels {
        self.core.levels(now)
    }
}

fn start(name: &str, policy: Policy, boots: u32, disk: &GatewayDisk, now: Now) -> Gateway {
    let config = Config {
        enrollment: policy.enrollment,
        read_request: policy.joins.then_some(read_request),
        heartbeat_interval_ms: 5_000,
        heartbeat_timeout_ms: 15_000,
        ..Config::new(name, &format!("{name}-{boots}"))
    };
    let mut gateway = Gateway::new(now, config, disk.restore());
    gateway.handle_hold(now, &Hold::Unread);
    gateway
}

/// It is on the disk, and is lost with it.
fn id(name: &str, disks: u32) -> String {
    format!("{name}-disk-{disks}")
}

pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey::new(NAMESPACE, name)
}

fn make_call(
    now_ms: u64,
    call: Call,
    gateway: &str,
    api: &mut Api,
    line: &mut Line,
    witness: &mut Witness,
) -> WriteOutcome<Option<Box<wasmbed_api::Device>>> {
    let result = match call {
        Call::Event(..) => return WriteOutcome::Done(None),
        Call::GetDevice { device } => {
            line.call(now_ms, api, |api| api.get("devices", &device.name), |_, _| ())
        }
        Call::CreateDevice { device, spec } => {
            let spec = serde_json::to_value(&*spec).unwrap_or(Value::Null);
            line.call(now_ms, api, |api| api.create("devices", "Device", &device.name, spec), |_, _| ())
        }
        Call::PatchStatus { device, patch } => line.call(
            now_ms,
            api,
            |api| api.patch("devices", &device.name, true, patch),
            |object, _| witness.device_status_written(gateway, object),
        ),
    };
    outcome(result, witness, |object| typed(object).map(Box::new))
}

fn certificate_call(
    now: Now,
    work: CertificateWork,
    api: &mut Api,
    line: &mut Line,
    witness: &mut Witness,
) -> WriteOutcome<RequestSeen> {
    let result = match work {
        CertificateWork::Create(request) => {
            let object = serde_json::to_value(request.to_object(pem)).unwrap_or(Value::Null);
            let made = line.call(
                now.ms,
                api,
                |api| api.create_object(REQUESTS, object),
                |_, _| witness.joins.requested(&request, now),
            );
            witness.kept_joins();
            made
        }
        CertificateWork::Get { name } => line.call(now.ms, api, |api| api.get(REQUESTS, &name), |_, _| ()),
    };
    outcome(result, witness, |object| {
        let object = typed::<CertificateSigningRequest>(object);
        object.map_or_else(RequestSeen::default, |object| RequestSeen::read(&object, Certificate::issued))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_that_was_told_with_nothing_keeps_a_stale_leader_out_also_after_a_restart() {
        let now = Now { ms: 1_000, unix_ms: 1_000 };
        let policy = Policy { enrollment: Enrollment::Closed, joins: false };
        let mut gateway = GatewayProcess::new("gateway-0", policy, (Weather::default(), 1));
        let put = |leader_term| PutSets { leader_term, sets: Vec::new() };
        let mut api = Api::new().unwrap();
        let spec = serde_json::json!({ "holderIdentity": "c", "leaseTransitions": 7 });
        api.create("leases", "Lease", wasmbed_api::LEADER_LEASE, spec).unwrap();
        gateway.core.handle_hold(now, &Hold::Held);
        api.down = true;
        assert!(matches!(gateway.put_sets(&put(7), now, &api), Some(Err(Refused::Unavailable(_)))));
        api.down = false;
        assert!(
            matches!(gateway.put_sets(&put(8), now, &api), Some(Err(Refused::Invalid(_)))),
            "nobody leads in it"
        );
        assert!(matches!(gateway.put_sets(&put(7), now, &api), Some(Ok(_))));
        assert!(matches!(gateway.put_sets(&put(6), now, &api), Some(Err(Refused::Fenced(_)))));
        gateway.crash(2_000, false);
        gateway.restart(now);
        gateway.core.handle_hold(now, &Hold::Held);
        let refused = gateway.put_sets(&put(6), now, &api);
        let Some(Err(Refused::Fenced(refusal))) = refused else { panic!("{refused:?}") };
        assert_eq!(refusal.leader_term, Some(7));
    }
}
