//! The signer's process: which requests it looks at, what that takes, and its calls to the API.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use serde_json::{Value, json};
use wasmbed_agent::ChainFacts;
use wasmbed_api::{pairing_secret, request_annotation as annotation};
use wasmbed_control::{
    Now,
    signer::{
        Annotated, Asked, Candidate, Missing, Spoken, Step, Waiting, Work, has, is_finished, used_token,
        version,
    },
};
use wasmbed_protocol::KeyHash;

use crate::{
    api::{Api, ApiError, REQUESTS, SECRETS, Seen, seconds_text, typed},
    certificates::{Certificate, examine, requested_public_key},
    clock::Clock,
    gateway::key,
    invariants::Witness,
    line::Line,
    random::Random,
    weather::Weather,
};

/// Changes taken from a watch at once.
const WATCH_PAGE: usize = 8;
/// As in the signer: before another try, and until a request that waits is looked at again.
const RETRY_MS: u64 = 5_000;
const WAIT_MS: u64 = 60_000;
const APPROVAL_TAKES_MS: u64 = 10_000;
/// A call takes this long at most.
const CALL_MS: u64 = 60;
/// What a certificate lasts.
const LIFETIME_S: u64 = 365 * 86_400;

/// A request that is being looked at.
struct Look {
    object: CertificateSigningRequest,
    public_key: Vec<u8>,
    work: Work,
    knows_token: bool,
    certificate: Option<Certificate>,
    at_ms: u64,
}

pub(crate) struct SignerProcess {
    pub(crate) line: Line,
    random: Random,
    pub(crate) clock: Clock,
    pub(crate) down_until_ms: Option<u64>,
    watches: BTreeMap<&'static str, u64>,
    store: BTreeMap<String, Value>,
    waiting: Waiting,
    /// Requests that are to be looked at, and when.
    due: BTreeMap<String, u64>,
    looks: BTreeMap<String, Look>,
}

impl SignerProcess {
    pub(crate) fn new(weather: Weather, noise: u64) -> Self {
        let line = Line::new(weather, Random::of(noise, "calls of the signer"));
        Self {
            line,
            random: Random::of(noise, "signer"),
            clock: Clock::default(),
            down_until_ms: None,
            watches: BTreeMap::new(),
            store: BTreeMap::new(),
            waiting: Waiting::default(),
            due: BTreeMap::new(),
            looks: BTreeMap::new(),
        }
    }

    /// The process dies, and what it was about is not done.
    pub(crate) fn crash(&mut self, until_ms: u64) {
        self.watches.clear();
        self.store.clear();
        self.waiting = Waiting::default();
        self.due.clear();
        self.looks.clear();
        self.down_until_ms = Some(until_ms);
    }

    /// One round.
    pub(crate) fn poll(&mut self, now: Now, api: &mut Api, witness: &mut Witness) -> u64 {
        if let Some(until_ms) = self.down_until_ms {
            if now.ms < until_ms {
                return until_ms;
            }
            self.down_until_ms = None;
        }
        self.follow(now, api, REQUESTS);
        self.follow(now, api, "devices");
        let due: Vec<String> = self
            .due
            .iter()
            .filter(|(name, at_ms)| **at_ms <= now.ms && !self.looks.contains_key(*name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.due.remove(&name);
            self.begin(now, &name, api, witness);
        }
        let looks: Vec<String> = self
            .looks
            .iter()
            .filter(|(_, look)| look.at_ms <= now.ms)
            .map(|(name, _)| name.clone())
            .collect();
        for name in looks {
            let Some(mut look) = self.looks.remove(&name) else { continue };
            match self.go_on(now, &name, &mut look, api, witness) {
                Ok(None) => {
                    look.at_ms = now.ms + 1 + self.random.below(CALL_MS);
                    self.looks.insert(name, look);
                }
                Ok(Some(again_ms)) => self.look_at(&name, again_ms),
                Err(_) => self.look_at(&name, now.ms + RETRY_MS),
            }
        }
        let looks = self.looks.values().map(|look| look.at_ms);
        let due = self.due.iter().filter(|(name, _)| !self.looks.contains_key(*name));
        looks.chain(due.map(|(_, at_ms)| *at_ms)).min().unwrap_or(u64::MAX)
    }

    fn look_at(&mut self, name: &str, at_ms: u64) {
        // Never at all, if nothing but a change can matter.
        if at_ms < u64::MAX {
            let due_ms = self.due.entry(name.to_owned()).or_insert(at_ms);
            *due_ms = at_ms.min(*due_ms);
        }
    }

    fn follow(&mut self, now: Now, api: &Api, plural: &'static str) {
        let lags = self.line.lags();
        let reached = self.line.reach(now.ms, api);
        let Some(after) = self.watches.get_mut(plural) else {
            let Ok((objects, revision)) = reached.and_then(|api| api.list(plural)) else { return };
            if plural == REQUESTS {
                self.store.clear();
            }
            objects.into_iter().for_each(|object| self.seen(now, plural, object));
            self.watches.insert(plural, revision);
            return;
        };
        if lags {
            return;
        }
        match reached.and_then(|api| api.watch(plural, after, WATCH_PAGE)) {
            Err(ApiError::Unavailable) => {}
            Err(_) => drop(self.watches.remove(plural)),
            Ok(changes) => {
                for change in changes {
                    match change {
                        Seen::Gone(object) if plural == REQUESTS => {
                            drop(self.store.remove(&name_of(&object)))
                        }
                        // It may be that a request names it.
                        Seen::Changed(object) | Seen::Gone(object) => self.seen(now, plural, object),
                    }
                }
            }
        }
    }

    fn seen(&mut self, now: Now, plural: &str, object: Value) {
        let name = name_of(&object);
        if plural == REQUESTS {
            self.store.insert(name.clone(), object);
            self.look_at(&name, now.ms);
        } else if let Some(device) = typed::<wasmbed_api::Device>(&object) {
            let device_key = key(&name).to_string();
            for request in self.waiting.concerned(&device_key, &version(&device.metadata)) {
                self.look_at(&request, now.ms);
            }
        }
    }

    fn begin(&mut self, now: Now, name: &str, api: &mut Api, witness: &mut Witness) {
        let Some(object) = self.store.get(name).and_then(typed::<CertificateSigningRequest>) else { return };
        let device = annotated_device(&object);
        if is_finished(&object) {
            self.waiting.end(&device, name);
            return self.forget_token(now, name, &object, api);
        }
        let store = &self.store;
        self.waiting.begin(&device, name, |request| {
            let object = store.get(request).and_then(typed::<CertificateSigningRequest>);
            object.is_some_and(|object| !is_finished(&object))
        });
        let annotated = Annotated::read(object.metadata.annotations.as_ref());
        let public_key = requested_public_key(&object.spec.request.0);
        let (Ok(annotated), Some(public_key)) = (annotated, public_key) else {
            let refused = self.fail(now, &object, "Malformed", "it can't be read", api, witness);
            if refused.is_err() {
                self.look_at(name, now.ms + RETRY_MS);
            }
            return;
        };
        let pairing_id = match annotated.spoken {
            Spoken::Pairing { id, .. } => Some(id.to_owned()),
            Spoken::None | Spoken::Factory { .. } | Spoken::Renewal { .. } => None,
        };
        let asked = Asked {
            approved: has(&object, "Approved"),
            device_uid: annotated.device_uid,
            key: KeyHash::of(&public_key),
            pairing_id,
        };
        let work = Work::new(asked);
        let at_ms = now.ms + self.random.below(CALL_MS);
        let look = Look { object, public_key, work, knows_token: false, certificate: None, at_ms };
        self.looks.insert(name.to_owned(), look);
    }

    fn forget_token(&mut self, now: Now, name: &str, object: &CertificateSigningRequest, api: &mut Api) {
        let Some(token) = used_token(object) else { return };
        let secret = pairing_secret(token);
        match self.line.call(now.ms, api, |api| api.delete(SECRETS, &secret), |_, _| ()) {
            Ok(_) | Err(ApiError::NotFound) => {}
            Err(_) => self.look_at(name, now.ms + RETRY_MS),
        }
    }

    /// The next step. Over once there is a time at which the request is looked at again, which may be never.
    fn go_on(
        &mut self,
        now: Now,
        name: &str,
        look: &mut Look,
        api: &mut Api,
        witness: &mut Witness,
    ) -> Result<Option<u64>, ApiError> {
        let annotated = Annotated::read(look.object.metadata.annotations.as_ref());
        let Ok(annotated) = annotated else { return Ok(Some(u64::MAX)) };
        let device_name = annotated.device.name.clone();
        match look.work.step().clone() {
            Step::ReadDevice => {
                let device =
                    match self.line.call(now.ms, api, |api| api.get("devices", &device_name), |_, _| ()) {
                        Ok(object) => typed::<wasmbed_api::Device>(&object),
                        Err(ApiError::NotFound) => None,
                        Err(error) => return Err(error),
                    };
                let seen = device.as_ref().map(|device| version(&device.metadata));
                self.waiting.saw(&annotated.device.to_string(), name, seen);
                look.work.handle_device(device.as_ref().and_then(Candidate::read));
            }
            Step::ReadToken(id) => {
                let name = pairing_secret(&id);
                let read = self.line.call(now.ms, api, |api| api.get(SECRETS, &name), |_, _| ());
                look.knows_token = match read {
                    Ok(_) => true,
                    Err(ApiError::NotFound) => false,
                    Err(error) => return Err(error),
                };
                look.work.handle_token();
            }
            Step::Examine => {
                let key = KeyHash::of(&look.public_key);
                let evidence = examine(&annotated, key, look.knows_token, now.unix_ms / 1_000);
                look.work.handle_evidence(evidence);
            }
            Step::Wait(missing) => {
                let created_ms = look.object.metadata.creation_timestamp.as_ref();
                let created_ms = created_ms.map_or(0, |time| time.0.as_millisecond().max(0) as u64);
                let age_ms = now.unix_ms.saturating_sub(created_ms);
                let soon = missing == Missing::Approval && age_ms < APPROVAL_TAKES_MS;
                return Ok(Some(now.ms + if soon { APPROVAL_TAKES_MS - age_ms } else { WAIT_MS }));
            }
            Step::Refuse(reason, message) => {
                self.fail(now, &look.object, reason, &message, api, witness)?;
                return Ok(Some(u64::MAX));
            }
            Step::Certify => {
                let now_s = now.unix_ms / 1_000;
                look.certificate = Some(Certificate {
                    name: device_name,
                    device_uid: annotated.device_uid,
                    public_key: look.public_key.clone(),
                    facts: ChainFacts { not_before_s: now_s, not_after_s: now_s + LIFETIME_S },
                });
                look.work.handle_certified::<std::convert::Infallible>(Ok(()));
            }
            Step::Pin(uid) => {
                let public_key = BASE64_STANDARD.encode(&look.public_key);
                let patch = json!({
                    "metadata": { "uid": uid.to_string() }, "status": { "public_key": public_key },
                });
                let pinned = |api: &mut Api| api.patch("devices", &device_name, true, patch);
                self.line.call(now.ms, api, pinned, |_, _| ())?;
                look.work.handle_pinned();
            }
            Step::Answer => {
                let Some(certificate) = &look.certificate else { return Ok(Some(u64::MAX)) };
                let pem = BASE64_STANDARD.encode(certificate.to_pem());
                let answer = status_patch(&look.object, json!({ "certificate": pem }));
                let write = |api: &mut Api| api.patch(REQUESTS, name, true, answer);
                let issued = |object: &Value, _: &Api| witness.joins.issued(object, certificate);
                let answered = self.line.call(now.ms, api, write, issued);
                witness.kept_joins();
                answered?;
                look.work.handle_answered();
            }
            Step::Done => return Ok(Some(u64::MAX)),
        }
        Ok(None)
    }

    fn fail(
        &mut self,
        now: Now,
        object: &CertificateSigningRequest,
        reason: &str,
        message: &str,
        api: &mut Api,
        witness: &mut Witness,
    ) -> Result<(), ApiError> {
        let time = seconds_text(now);
        let failed = json!({
            "type": "Failed", "status": "True", "reason": reason, "message": message,
            "lastUpdateTime": time, "lastTransitionTime": time,
        });
        let patch = with_condition(object, failed);
        let name = object.metadata.name.clone().unwrap_or_default();
        let written = self.line.call(now.ms, api, |api| api.patch(REQUESTS, &name, true, patch), |_, _| ());
        if let Err(ApiError::Refused(why)) = &written {
            witness.refused(why);
        }
        written.map(|_| ())
    }

    /// Requests that it keeps in mind.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

/// A patch of this version's status.
fn status_patch(object: &CertificateSigningRequest, status: Value) -> Value {
    json!({ "metadata": { "resourceVersion": object.metadata.resource_version }, "status": status })
}

/// The same that adds a condition.
pub(crate) fn with_condition(object: &CertificateSigningRequest, condition: Value) -> Value {
    let kept = object.status.as_ref().and_then(|status| status.conditions.as_ref());
    let kept = kept.into_iter().flatten().filter_map(|condition| serde_json::to_value(condition).ok());
    let conditions: Vec<Value> = kept.chain([condition]).collect();
    status_patch(object, json!({ "conditions": conditions }))
}

fn annotated_device(object: &CertificateSigningRequest) -> String {
    let annotations = object.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(annotation::DEVICE)).cloned().unwrap_or_default()
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}
