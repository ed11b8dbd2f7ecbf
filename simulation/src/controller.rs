//! A controller's process: the election, the fleet's decisions, its watches, and its calls to gateways and the API.

mod claim;
mod election;
mod watches;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use wasmbed_api::LEADER_LEASE;
use wasmbed_control::{
    Now, ObjectKey,
    election::{Election, Lead},
    fleet::{
        BrokersOutcome, CallId, Fleet, FleetConfig, Order, OrdersOutcome, ProofCheck, ProofEvidence,
        PutOutcome, SettingsOutcome, UploadOutcome, UploadSource,
    },
    gateway::Cursor,
    gateway_api::{DecommissionOrder, PutDecommissions, StreamEvent},
    kubernetes::WriteOutcome,
};
use wasmbed_protocol::KeyHash;
use wasmbed_statement::Erased;
use wasmbed_supervisor::{
    memory::identity::{self, CONTROLLER},
    platform::Ordered,
};

use crate::{
    api::{Api, ApiError, NAMESPACE, REQUESTS, time_text},
    clock::Clock,
    gateway::GatewayProcess,
    identities::id_of,
    invariants::Witness,
    line::{Line, outcome},
    network::{Answer, Answered, Network, Request},
    random::Random,
    sender::Sender,
    weather::Weather,
};
use claim::{Claiming, ELECTION};

struct Stream {
    cursor: Cursor,
    boots: u32,
}

enum Outcome {
    Put(String, CallId, PutOutcome),
    Orders(String, CallId, OrdersOutcome),
    Settings(String, CallId, SettingsOutcome),
    Brokers(String, CallId, BrokersOutcome),
    Upload(String, CallId, UploadOutcome),
    Write(CallId, WriteOutcome<String>),
}

pub(crate) struct ControllerProcess {
    sender: Sender,
    /// Some devices of the world join.
    joins: bool,
    pub(crate) line: Line,
    random: Random,
    fleet: Fleet,
    election: Election,
    look_ms: u64,
    claiming: Option<Claiming>,
    /// The last look at the leader's Lease was answered.
    answers: bool,
    /// The watch of Leases works, as far as can be seen.
    watched: bool,
    watches: BTreeMap<&'static str, u64>,
    gateways: BTreeSet<String>,
    streams: BTreeMap<String, Stream>,
    /// The last token read from each gateway, for resuming.
    tokens: BTreeMap<String, String>,
    awaited: VecDeque<(u64, Outcome)>,
    pub(crate) down_until_ms: Option<u64>,
    /// It is suspended until then and does not know.
    pub(crate) paused_until_ms: u64,
    /// That of its machine.
    pub(crate) clock: Clock,
}

impl ControllerProcess {
    pub(crate) fn new(index: usize, joins: bool, weather: Weather, noise: u64) -> Self {
        let random = Random::of(noise, &format!("controller-{index}"));
        let line = Line::new(weather, Random::of(noise, &format!("calls of controller-{index}")));
        Self::start((Sender { controller: index, life: 1 }, joins), line, random, Clock::default())
    }

    fn start((sender, joins): (Sender, bool), line: Line, random: Random, clock: Clock) -> Self {
        Self {
            sender,
            joins,
            line,
            random,
            fleet: Fleet::new(FleetConfig::default()),
            election: Election::new(&sender.holder(), ELECTION),
            look_ms: 0,
            claiming: None,
            answers: false,
            watched: false,
            watches: BTreeMap::new(),
            gateways: BTreeSet::new(),
            streams: BTreeMap::new(),
            tokens: BTreeMap::new(),
            awaited: VecDeque::new(),
            down_until_ms: None,
            paused_until_ms: 0,
            clock,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.down_until_ms.is_none()
    }

    /// Whether it could lead if it were let.
    pub(crate) fn is_fit(&self, now_ms: u64) -> bool {
        self.is_up() && now_ms >= self.paused_until_ms && self.line.is_whole(now_ms)
    }

    /// Whether it holds itself for the leader, or would if it moved.
    pub(crate) fn lead(&self, now_ms: u64) -> Option<Lead> {
        self.election.lead(now_ms).filter(|_| self.is_up())
    }

    pub(crate) fn check(&self) -> Result<(), &'static str> {
        self.fleet.check()
    }

    pub(crate) fn gauges(&self) -> wasmbed_control::fleet::Gauges {
        self.fleet.gauges()
    }

    /// The process dies; the next one has another name, as a pod has.
    pub(crate) fn crash(&mut self, until_ms: u64) {
        let sender = Sender { life: self.sender.life + 1, ..self.sender };
        *self = Self::start((sender, self.joins), self.line.clone(), self.random.clone(), self.clock);
        self.down_until_ms = Some(until_ms);
    }

    /// The process is asked to end: it stops what it does, gives up the Lease and is gone.
    pub(crate) fn stop(&mut self, now_ms: u64, until_ms: u64, api: &mut Api) {
        if self.election.lead(now_ms).is_some()
            && let Ok(api) = self.line.reach_mut(now_ms, api)
            && let Ok(lease) = api.get("leases", LEADER_LEASE)
            && lease["spec"]["holderIdentity"] == self.sender.holder()
        {
            let version = &lease["metadata"]["resourceVersion"];
            let patch = json!({
                "metadata": { "resourceVersion": version },
                "spec": { "holderIdentity": "", "renewTime": time_text(self.clock.now(now_ms)) },
            });
            // Refused if another took it over in between.
            let _ = api.patch("leases", LEADER_LEASE, false, patch);
        }
        self.crash(until_ms);
    }

    /// One round.
    pub(crate) fn poll(
        &mut self,
        now: Now,
        api: &mut Api,
        gateways: &[GatewayProcess],
        network: &mut Network,
        witness: &mut Witness,
    ) -> u64 {
        if let Some(until_ms) = self.down_until_ms {
            if now.ms < until_ms {
                return until_ms;
            }
            self.down_until_ms = None;
        }
        if now.ms < self.paused_until_ms {
            return self.paused_until_ms;
        }
        self.elect(now, api, witness);
        self.follow_all(now, api);
        for gateway in gateways {
            self.follow_stream(now, gateway);
        }
        self.fleet.handle_api(now, self.answers && self.watched);
        self.fleet.handle_leadership(now, self.lead(now.ms).map(|lead| lead.term));
        self.fleet.handle_timeout(now);
        self.settle_outcomes(now);
        self.call_gateways(now, api, network);
        self.call_api(now, api, witness);
        let awaited = self.awaited.iter().map(|(at_ms, _)| *at_ms).min().unwrap_or(u64::MAX);
        let claim_ms = self.claiming.as_ref().map_or(self.look_ms, |claiming| claiming.at_ms);
        self.fleet.poll_timeout(now).min(awaited).min(claim_ms)
    }

    fn follow_stream(&mut self, now: Now, gateway: &GatewayProcess) {
        if !self.gateways.contains(&gateway.name) {
            self.streams.remove(&gateway.name);
            return;
        }
        let broken = self.streams.get(&gateway.name).is_some_and(|stream| stream.boots != gateway.boots);
        if !gateway.is_up() || broken {
            if self.streams.remove(&gateway.name).is_some() {
                self.fleet.handle_stream_down(now, &gateway.name, "connection lost");
            }
            return;
        }
        if self.line.lags() {
            return;
        }
        let token = self.tokens.get(&gateway.name).map(String::as_str);
        let stream = self
            .streams
            .entry(gateway.name.clone())
            .or_insert_with(|| Stream { cursor: gateway.stream_resume(token), boots: gateway.boots });
        for event in gateway.stream_page(&mut stream.cursor) {
            match &event {
                StreamEvent::Snapshot { .. } => {
                    self.tokens.remove(&gateway.name);
                }
                StreamEvent::SnapshotEnd { token }
                | StreamEvent::Device { token, .. }
                | StreamEvent::Forgotten { token, .. }
                | StreamEvent::Idle { token } => {
                    self.tokens.insert(gateway.name.clone(), token.clone());
                }
            }
            self.fleet.handle_stream(now, &gateway.name, event);
        }
    }

    fn settle_outcomes(&mut self, now: Now) {
        let (due, later): (VecDeque<_>, VecDeque<_>) =
            self.awaited.drain(..).partition(|(at_ms, _)| *at_ms <= now.ms);
        self.awaited = later;
        for (_, outcome) in due {
            match outcome {
                Outcome::Put(gateway, id, outcome) => {
                    self.fleet.handle_put_outcome(now, &gateway, id, outcome)
                }
                Outcome::Orders(gateway, id, outcome) => {
                    self.fleet.handle_orders_outcome(now, &gateway, id, outcome);
                }
                Outcome::Settings(gateway, id, outcome) => {
                    self.fleet.handle_settings_outcome(now, &gateway, id, outcome);
                }
                Outcome::Brokers(gateway, id, outcome) => {
                    self.fleet.handle_brokers_outcome(now, &gateway, id, outcome);
                }
                Outcome::Upload(gateway, id, outcome) => {
                    self.fleet.handle_upload_outcome(now, &gateway, id, outcome);
                }
                Outcome::Write(id, outcome) => self.fleet.handle_write_outcome(now, id, outcome),
            }
        }
    }

    fn call_gateways(&mut self, now: Now, api: &Api, network: &mut Network) {
        while let Some(upload) = self.fleet.poll_upload(now) {
            let outcome = match self.line.reach(now.ms, api).and_then(|api| bytes_of(api, &upload.source)) {
                Ok(bytes) => {
                    let request = Request::Upload { digest: upload.digest, bytes };
                    let at_ms = now.ms + self.random.below(40);
                    network.send(at_ms, self.sender, upload.gateway, upload.id, request);
                    continue;
                }
                Err(ApiError::NotFound) => UploadOutcome::SourceGone,
                Err(_) => UploadOutcome::Failed("the API is away".to_owned()),
            };
            self.awaited.push_back((now.ms, Outcome::Upload(upload.gateway, upload.id, outcome)));
        }
        while let Some(put) = self.fleet.poll_put(now) {
            let at_ms = self.arrives_ms(now);
            network.send(at_ms, self.sender, put.gateway, put.id, Request::Put(put.body));
        }
        while let Some(check) = self.fleet.poll_proof(now) {
            self.fleet.handle_proof(now, &check, examine(&check));
        }
        while let Some(put) = self.fleet.poll_orders(now) {
            let orders = put.orders.iter().map(sign).collect();
            let body = PutDecommissions { leader_term: put.leader_term, orders };
            let at_ms = self.arrives_ms(now);
            network.send(at_ms, self.sender, put.gateway, put.id, Request::Orders(body));
        }
        while let Some(put) = self.fleet.poll_settings(now) {
            let at_ms = self.arrives_ms(now);
            network.send(at_ms, self.sender, put.gateway, put.id, Request::Settings(put.body));
        }
        while let Some(put) = self.fleet.poll_brokers(now) {
            let at_ms = self.arrives_ms(now);
            network.send(at_ms, self.sender, put.gateway, put.id, Request::Brokers(put.body));
        }
    }

    /// When what is sent now arrives: mostly at once, sometimes so late that another leads by then.
    fn arrives_ms(&mut self, now: Now) -> u64 {
        let most_ms = if self.line.delays_set() { 20_000 } else { 40 };
        now.ms + self.random.below(most_ms)
    }

    /// An answer comes, if it was this process that asked.
    pub(crate) fn handle_answer(&mut self, now: Now, answered: Answered) {
        if answered.sender == self.sender && self.is_up() {
            let outcome = match answered.answer {
                Answer::Put(outcome) => Outcome::Put(answered.gateway, answered.id, outcome),
                Answer::Orders(outcome) => Outcome::Orders(answered.gateway, answered.id, outcome),
                Answer::Settings(outcome) => Outcome::Settings(answered.gateway, answered.id, outcome),
                Answer::Brokers(outcome) => Outcome::Brokers(answered.gateway, answered.id, outcome),
                Answer::Upload(outcome) => Outcome::Upload(answered.gateway, answered.id, outcome),
            };
            self.awaited.push_back((now.ms + self.random.below(40), outcome));
        }
    }

    pub(crate) fn sender(&self) -> Sender {
        self.sender
    }

    fn call_api(&mut self, now: Now, api: &mut Api, witness: &mut Witness) {
        let mut calls = Vec::new();
        while let Some(write) = self.fleet.poll_status(now) {
            calls.push((write.id, Wrote::ApplicationStatus, write.application.name, write.patch));
        }
        while let Some(write) = self.fleet.poll_finalizer(now) {
            calls.push((write.id, Wrote::ApplicationFinalizer, write.application.name, write.patch));
        }
        while let Some(write) = self.fleet.poll_finished(now) {
            calls.push((write.id, Wrote::Finished, write.device.name, write.patch));
        }
        while let Some(write) = self.fleet.poll_device_unreachable(now) {
            calls.push((write.id, Wrote::Unreachable, write.device.name, write.patch));
        }
        while let Some(write) = self.fleet.poll_decommission(now, || self.random.bytes()) {
            calls.push((write.id, Wrote::Decommission, write.device.name, write.patch));
        }
        while let Some(write) = self.fleet.poll_device_finalizer(now) {
            calls.push((write.id, Wrote::DeviceFinalizer, write.device.name, write.patch));
        }
        while let Some(write) = self.fleet.poll_approval(now) {
            calls.push((write.id, Wrote::Approval, write.request, write.patch));
        }
        while let Some(write) = self.fleet.poll_gateway_unknown(now) {
            calls.push((write.id, Wrote::GatewayUnknown, write.gateway.name, write.patch));
        }
        while self.fleet.poll_event().is_some() {}
        for (id, wrote, name, patch) in calls {
            let outcome = write(now, api, (wrote, &name), patch, (self.sender, &mut self.line), witness);
            self.awaited.push_back((now.ms + self.random.below(60), Outcome::Write(id, outcome)));
        }
    }
}

/// What a controller writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrote {
    ApplicationStatus,
    ApplicationFinalizer,
    Finished,
    Unreachable,
    Decommission,
    DeviceFinalizer,
    GatewayUnknown,
    Approval,
}

impl Wrote {
    fn plural(self) -> &'static str {
        match self {
            Self::ApplicationStatus | Self::ApplicationFinalizer => "applications",
            Self::Finished | Self::Unreachable | Self::Decommission | Self::DeviceFinalizer => "devices",
            Self::GatewayUnknown => "devicegateways",
            Self::Approval => REQUESTS,
        }
    }

    fn is_status(self) -> bool {
        !matches!(self, Self::ApplicationFinalizer | Self::DeviceFinalizer)
    }
}

/// An order, by the key of all controllers.
fn sign(order: &Order) -> DecommissionOrder {
    let Order { device_uid, nonce, .. } = *order;
    let bytes = identity::order(CONTROLLER, &id_of(&order.device.name), Ordered { device_uid, nonce });
    DecommissionOrder { device: order.device.clone(), order: BASE64_STANDARD.encode(bytes) }
}

/// What a proof is, judged by the key that the Device names.
fn examine(check: &ProofCheck) -> ProofEvidence {
    let decode = |text: &str| BASE64_STANDARD.decode(text).unwrap_or_default();
    let key = KeyHash::of(&decode(&check.key));
    match identity::read_proof(&decode(&check.proof), key) {
        None => ProofEvidence::Refuted("it is signed by another key".to_owned()),
        Some(said) => ProofEvidence::Signed {
            device_uid: said.device_uid,
            nonce: said.nonce,
            erased: [
                (Erased::ASSIGNMENTS, wasmbed_api::Erased::Assignments),
                (Erased::MODULES, wasmbed_api::Erased::Modules),
                (Erased::KEY_VALUE_DATA, wasmbed_api::Erased::KeyValueData),
            ]
            .into_iter()
            .filter_map(|(bit, name)| said.erased.contains(bit).then_some(name))
            .collect(),
        },
    }
}

fn object_key(object: &Value) -> ObjectKey {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    ObjectKey::new(NAMESPACE, name)
}

fn bytes_of(api: &Api, source: &UploadSource) -> Result<Vec<u8>, ApiError> {
    let object = match source {
        UploadSource::Application(key) => api.get("applications", &key.name),
        UploadSource::Module(key) => api.get("modules", &key.name),
    }?;
    let text = object["spec"]["wasm_bytes"].as_str().ok_or(ApiError::NotFound)?;
    BASE64_STANDARD.decode(text).map_err(|_| ApiError::NotFound)
}

fn write(
    now: Now,
    api: &mut Api,
    (wrote, name): (Wrote, &str),
    patch: Value,
    (sender, line): (Sender, &mut Line),
    witness: &mut Witness,
) -> WriteOutcome<String> {
    let result = line.call(
        now.ms,
        api,
        |api| match wrote {
            Wrote::Approval => api.decide(name, patch),
            _ => api.patch(wrote.plural(), name, wrote.is_status(), patch),
        },
        |object, api| match wrote {
            Wrote::ApplicationStatus => witness.application_status_written(object),
            Wrote::Finished => witness.finished_written(object),
            Wrote::Unreachable => witness.unreachable_written(object, sender, now.ms, api),
            Wrote::Decommission => witness.decommission_written(object),
            Wrote::GatewayUnknown => witness.gateway_unknown_written(object, sender, now.ms, api),
            Wrote::Approval => witness.joins.approved(object),
            Wrote::ApplicationFinalizer | Wrote::DeviceFinalizer => {}
        },
    );
    witness.kept_joins();
    outcome(result, witness, |object| {
        object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()
    })
}
