//! The controller's process: the fleet's decisions, its watches, and its calls to gateways and the API.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;
use wasmbed_control::{
    exchange::StreamEvent,
    fleet::{
        CallId, Fleet, FleetConfig, Kind, LeaseSeen, ModuleFacts, ModuleSource, Now, ObjectKey, PutOutcome,
        UploadOutcome, UploadSource, WriteOutcome,
    },
    gateway::{Cursor, Refused},
};

use crate::{
    api::{Api, ApiError, NAMESPACE, Seen},
    gateway::{GatewayProcess, device_of, key},
    invariants::Witness,
    random::Random,
};

/// Changes taken from a watch at once.
const WATCH_PAGE: usize = 8;
/// Gateways renew their Leases this often, and they last three times as long.
const LEASE_RENEWAL_MS: u64 = 5_000;

struct Stream {
    cursor: Cursor,
    boots: u32,
}

enum Outcome {
    Put(String, CallId, PutOutcome),
    Upload(String, CallId, UploadOutcome),
    Write(CallId, WriteOutcome),
}

pub(crate) struct ControllerProcess {
    fleet: Fleet,
    term: u64,
    watches: BTreeMap<&'static str, u64>,
    streams: BTreeMap<String, Stream>,
    /// The last token read from each gateway, for resuming.
    tokens: BTreeMap<String, String>,
    awaited: VecDeque<(u64, Outcome)>,
    pub(crate) down_until_ms: Option<u64>,
}

impl ControllerProcess {
    pub(crate) fn new(now: Now) -> Self {
        Self {
            fleet: start(1, now),
            term: 1,
            watches: BTreeMap::new(),
            streams: BTreeMap::new(),
            tokens: BTreeMap::new(),
            awaited: VecDeque::new(),
            down_until_ms: None,
        }
    }

    /// The process dies. The next one is a new leader.
    pub(crate) fn crash(&mut self, now_ms: u64, random: &mut Random) {
        self.down_until_ms = Some(now_ms + random.below(15_000));
        self.watches.clear();
        self.streams.clear();
        self.tokens.clear();
        self.awaited.clear();
    }

    /// One round.
    pub(crate) fn poll(
        &mut self,
        now: Now,
        api: &mut Api,
        gateways: &mut [GatewayProcess],
        random: &mut Random,
        witness: &mut Witness,
    ) -> u64 {
        if let Some(until_ms) = self.down_until_ms {
            if now.ms < until_ms {
                return until_ms;
            }
            self.term += 1;
            self.fleet = start(self.term, now);
            self.down_until_ms = None;
        }
        self.fleet.handle_api(now, !api.down);
        if let Some(term) = self.fleet.term_wanted() {
            self.term = term;
            self.fleet.handle_leadership(now, Some(term));
        }
        self.follow_gateways(now, api, gateways, random);
        for (plural, kind) in
            [("devices", Kind::Device), ("applications", Kind::Application), ("modules", Kind::Module)]
        {
            self.follow(now, api, plural, kind, random);
        }
        self.fleet.handle_timeout(now);
        self.settle_outcomes(now);
        self.call_gateways(now, api, gateways, random, witness);
        self.call_api(now, api, random, witness);
        let awaited = self.awaited.iter().map(|(at_ms, _)| *at_ms).min().unwrap_or(u64::MAX);
        self.fleet.poll_timeout(now).min(awaited)
    }

    fn follow_gateways(&mut self, now: Now, api: &Api, gateways: &[GatewayProcess], random: &mut Random) {
        self.fleet.handle_list_begin(Kind::Gateway);
        for gateway in gateways {
            let object = ObjectKey { namespace: "wasmbed-system".to_owned(), name: gateway.name.clone() };
            self.fleet.handle_gateway(now, &object, &format!("{}:8080", gateway.name));
            if gateway.is_up() && !api.down {
                let renewal = format!("{}-{}", gateway.boots, now.ms / LEASE_RENEWAL_MS);
                let lease = LeaseSeen { renewal, duration_ms: 3 * LEASE_RENEWAL_MS, released: false };
                self.fleet.handle_lease(now, &gateway.name, Some(lease));
            }
            self.follow_stream(now, gateway, random);
        }
        self.fleet.handle_list_end(now, Kind::Gateway);
    }

    fn follow_stream(&mut self, now: Now, gateway: &GatewayProcess, random: &mut Random) {
        let broken = self.streams.get(&gateway.name).is_some_and(|stream| stream.boots != gateway.boots);
        if !gateway.is_up() || broken {
            if self.streams.remove(&gateway.name).is_some() {
                self.fleet.handle_stream_down(now, &gateway.name, "connection lost");
            }
            return;
        }
        if random.once_in(3) {
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

    fn follow(&mut self, now: Now, api: &Api, plural: &'static str, kind: Kind, random: &mut Random) {
        let Some(after) = self.watches.get_mut(plural) else {
            let Ok((objects, revision)) = api.list(plural) else { return };
            self.fleet.handle_list_begin(kind);
            objects.iter().for_each(|object| self.seen(now, plural, object));
            self.fleet.handle_list_end(now, kind);
            self.watches.insert(plural, revision);
            return;
        };
        if random.once_in(3) {
            return;
        }
        match api.watch(plural, after, WATCH_PAGE) {
            Err(ApiError::Unavailable) => {}
            Err(_) => {
                self.watches.remove(plural);
            }
            Ok(changes) => {
                for change in changes {
                    match change {
                        Seen::Changed(object) => self.seen(now, plural, &object),
                        Seen::Gone(object) => self.gone(now, plural, &object),
                    }
                }
            }
        }
    }

    fn seen(&mut self, now: Now, plural: &str, object: &Value) {
        match plural {
            "devices" => {
                if let Some(device) = device_of(object) {
                    self.fleet.handle_device(now, &device);
                }
            }
            "applications" => {
                let Ok(mut application) = serde_json::from_value::<wasmbed_api::Application>(object.clone())
                else {
                    return;
                };
                let source = match (application.spec.wasm_bytes.take(), application.spec.module.clone()) {
                    (Some(text), _) => match BASE64_STANDARD.decode(text) {
                        Ok(bytes) => ModuleSource::Inline(Arc::new(ModuleFacts::analyze(&bytes))),
                        Err(error) => ModuleSource::InvalidBase64(error.to_string()),
                    },
                    (None, Some(name)) => ModuleSource::Named(name),
                    (None, None) => ModuleSource::Absent,
                };
                self.fleet.handle_application(now, &application, source);
            }
            _ => {
                let Ok(module) = serde_json::from_value::<wasmbed_api::Module>(object.clone()) else {
                    return;
                };
                if let Ok(bytes) = BASE64_STANDARD.decode(&module.spec.wasm_bytes) {
                    self.fleet.handle_module(
                        now,
                        &object_key(object),
                        Arc::new(ModuleFacts::analyze(&bytes)),
                    );
                }
            }
        }
    }

    fn gone(&mut self, now: Now, plural: &str, object: &Value) {
        let gone = object_key(object);
        match plural {
            "devices" => self.fleet.handle_device_deleted(now, &key(&gone.name)),
            "applications" => self.fleet.handle_application_deleted(&gone),
            _ => self.fleet.handle_module_deleted(now, &gone),
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
                Outcome::Upload(gateway, id, outcome) => {
                    self.fleet.handle_upload_outcome(now, &gateway, id, outcome);
                }
                Outcome::Write(id, outcome) => self.fleet.handle_write_outcome(now, id, outcome),
            }
        }
    }

    fn call_gateways(
        &mut self,
        now: Now,
        api: &Api,
        gateways: &mut [GatewayProcess],
        random: &mut Random,
        witness: &Witness,
    ) {
        let at = wasmbed_control::gateway::Now { ms: now.ms, unix_ms: now.unix_ms };
        while let Some(upload) = self.fleet.poll_upload(now) {
            let gateway =
                gateways.iter_mut().find(|gateway| gateway.name == upload.gateway && gateway.is_up());
            let outcome = match (gateway, bytes_of(api, &upload.source)) {
                (_, Err(ApiError::NotFound)) => UploadOutcome::SourceGone,
                (None, _) | (_, Err(_)) => UploadOutcome::Failed("no connection".to_owned()),
                (Some(_), _) if witness.faults && random.once_in(10) => {
                    UploadOutcome::Failed("connection lost".to_owned())
                }
                (Some(_), Ok(bytes)) if wasmbed_agent::module_digest(&bytes) != upload.digest => {
                    UploadOutcome::SourceGone
                }
                (Some(gateway), Ok(bytes)) => match gateway.put_module(&bytes, at) {
                    true => UploadOutcome::Held,
                    false => UploadOutcome::Failed("507".to_owned()),
                },
            };
            self.awaited
                .push_back((now.ms + random.below(80), Outcome::Upload(upload.gateway, upload.id, outcome)));
        }
        while let Some(put) = self.fleet.poll_put(now) {
            let gateway = gateways.iter_mut().find(|gateway| gateway.name == put.gateway && gateway.is_up());
            let answered = match gateway {
                None => None,
                Some(_) if witness.faults && random.once_in(10) => None,
                Some(gateway) => gateway.put_sets(&put.body, at),
            };
            let lost = witness.faults && random.once_in(10);
            let outcome = match answered.filter(|_| !lost) {
                None => PutOutcome::Failed("no answer".to_owned()),
                Some(Ok(answer)) => PutOutcome::Answered(answer),
                Some(Err(Refused::Fenced(refusal))) => PutOutcome::Fenced(refusal),
                Some(Err(Refused::Invalid(refusal) | Refused::Unavailable(refusal))) => {
                    PutOutcome::Failed(refusal.message)
                }
            };
            self.awaited.push_back((now.ms + random.below(80), Outcome::Put(put.gateway, put.id, outcome)));
        }
    }

    fn call_api(&mut self, now: Now, api: &mut Api, random: &mut Random, witness: &mut Witness) {
        let mut calls = Vec::new();
        while let Some(write) = self.fleet.poll_status(now) {
            calls.push((write.id, "applications", write.application.name, true, write.patch));
        }
        while let Some(write) = self.fleet.poll_finalizer(now) {
            calls.push((write.id, "applications", write.application.name, false, write.patch));
        }
        while let Some(write) = self.fleet.poll_device_unreachable(now) {
            calls.push((write.id, "devices", write.device.name, true, write.patch));
        }
        while self.fleet.poll_event().is_some() {}
        for (id, plural, name, status, patch) in calls {
            let outcome = write(api, plural, &name, status, patch, random, witness);
            self.awaited.push_back((now.ms + random.below(60), Outcome::Write(id, outcome)));
        }
    }
}

fn start(term: u64, now: Now) -> Fleet {
    let mut fleet = Fleet::new(FleetConfig::default());
    fleet.handle_leadership(now, Some(term));
    fleet
}

fn object_key(object: &Value) -> ObjectKey {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    ObjectKey { namespace: NAMESPACE.to_owned(), name }
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
    api: &mut Api,
    plural: &str,
    name: &str,
    status: bool,
    patch: Value,
    random: &mut Random,
    witness: &mut Witness,
) -> WriteOutcome {
    if witness.faults && random.once_in(20) {
        return WriteOutcome::Throttled { retry_after_ms: random.below(2_000) };
    }
    if witness.faults && random.once_in(20) {
        return WriteOutcome::Unavailable("no answer".to_owned());
    }
    let result = api.patch(plural, name, status, patch);
    if let (Ok(object), "applications", true) = (&result, plural, status) {
        witness.application_status_written(object);
    }
    if witness.faults && random.once_in(25) {
        return WriteOutcome::Unavailable("the answer was lost".to_owned());
    }
    match result {
        Ok(object) => {
            let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            WriteOutcome::Done { resource_version: version.to_owned() }
        }
        Err(ApiError::Conflict) => WriteOutcome::Conflict,
        Err(ApiError::NotFound) => WriteOutcome::NotFound,
        Err(ApiError::Throttled) => WriteOutcome::Throttled { retry_after_ms: 0 },
        Err(ApiError::Unavailable) => WriteOutcome::Unavailable("the API is away".to_owned()),
        Err(ApiError::Refused(why)) => {
            witness.refused(&why);
            WriteOutcome::Refused(why)
        }
    }
}
