//! The Kubernetes API: the embedded API's store on memory, behind calls that fail.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, OnceLock},
};

use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;
use wasmbed_apiserver::{
    Limits,
    kinds::{DefinitionError, Kind, Kinds},
    resource::{Author, FieldValidation, Moment, Part, Patch, Preconditions, Signers},
    selector::Selection,
    status::Status,
    store::{Change, History, Memory, Operation, Write},
};
use wasmbed_control::{Now, UnixTime};

use crate::clock::Clock;

/// A short history, so that watches that lag expire.
const HISTORY: History = History { events: 200, bytes: 1 << 22 };
/// All objects of the simulation live here.
pub(crate) const NAMESPACE: &str = "default";

/// Plural of requests for certificates, which are in no namespace.
pub(crate) const REQUESTS: &str = "certificatesigningrequests";
/// Plural of Secrets, of which there are those of pairing tokens.
pub(crate) const SECRETS: &str = "secrets";

/// What goes when people delete the namespace.
const CONTENT: [&str; 3] = ["devices", "applications", "modules"];

/// How a call failed. The codes of the shells' clients.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("another wrote the object in between")]
    Conflict,
    #[error("no such object")]
    NotFound,
    #[error("too many requests, to be repeated after {retry_after_ms} ms")]
    Throttled { retry_after_ms: u64 },
    #[error("no answer")]
    Unavailable,
    /// Nothing is created in a namespace that is being deleted.
    #[error("the namespace is being deleted")]
    Terminating,
    #[error("{0}")]
    Refused(String),
}

/// Why there is no API.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("a generated definition is no JSON: {0}")]
    Json(#[source] Arc<serde_json::Error>),
    #[error("a generated definition is refused: {0}")]
    Definition(#[source] Arc<DefinitionError>),
    #[error("the namespace is not created: {0}")]
    Namespace(#[source] ApiError),
}

/// One change of a watch.
pub(crate) enum Seen {
    Changed(Value),
    Gone(Value),
}

/// What the API answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serving {
    All,
    /// Its disk is full.
    Reads,
    Nothing,
}

/// A time in which writes were not answered.
#[derive(Clone, Copy, Debug)]
struct Outage {
    begin_ms: u64,
    end_ms: u64,
    /// Reads were not answered either until then.
    mute_until_ms: u64,
}

/// An object and what it was read from.
#[derive(Default)]
struct Read {
    bytes: Vec<u8>,
    object: Rc<Value>,
}

pub(crate) struct Api {
    memory: Memory,
    /// What was read last of each object, by plural and name.
    read: RefCell<BTreeMap<String, BTreeMap<String, Read>>>,
    kinds: BTreeMap<String, Arc<Kind>>,
    uids: u128,
    /// Nothing answers.
    pub(crate) down: bool,
    /// Its disk is full: reads and watches are answered, writes are not.
    full: bool,
    /// What people make is being deleted with its namespace, which is there again once that is gone.
    terminating: bool,
    /// Since when it has answered without a break.
    pub(crate) up_since_ms: u64,
    /// When it did not answer, oldest first.
    outages: Vec<Outage>,
    now_ms: u64,
    /// That of its machine: objects say when they were created by it.
    pub(crate) clock: Clock,
}

impl Api {
    /// An API with the generated kinds and the namespace.
    pub(crate) fn new() -> Result<Self, StartError> {
        // A tenth of what a seed costs, and the same for all.
        static ALL: OnceLock<Result<Arc<Kinds>, StartError>> = OnceLock::new();
        let all = Arc::clone(ALL.get_or_init(generated).as_ref().map_err(StartError::clone)?);
        let namespaces = Arc::clone(all.namespaces());
        let others = [("coordination.k8s.io", "leases"), ("certificates.k8s.io", REQUESTS), ("", SECRETS)];
        let others = others.iter().filter_map(|(group, plural)| all.get(group, "v1", plural));
        let ours = all.of_group(wasmbed_api::GROUP).chain(others);
        let kinds = ours.map(|kind| (kind.plural.clone(), Arc::clone(kind))).collect();
        let memory = Memory::new(all, HISTORY);
        let mut api = Self {
            memory,
            read: RefCell::default(),
            kinds,
            uids: 0,
            down: false,
            full: false,
            terminating: false,
            up_since_ms: 0,
            outages: Vec::new(),
            now_ms: 0,
            clock: Clock::default(),
        };
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        let create = Operation::Create { object, duplicates: Vec::new() };
        api.write_in(&namespaces, None, "", create).map_err(StartError::Namespace)?;
        Ok(api)
    }

    /// Time moves on, and the API serves this from here on. Where it takes no writes it counts as out: whatever waits for a
    /// write waits as well.
    pub(crate) fn at(&mut self, now_ms: u64, serving: Serving) {
        if serving != Serving::All {
            if self.outages.last().is_none_or(|outage| outage.end_ms != self.now_ms) {
                self.outages.push(Outage { begin_ms: now_ms, end_ms: now_ms, mute_until_ms: now_ms });
            }
            if let Some(outage) = self.outages.last_mut() {
                outage.end_ms = now_ms;
                if serving == Serving::Nothing {
                    outage.mute_until_ms = now_ms;
                }
            }
            self.up_since_ms = now_ms;
        }
        self.now_ms = now_ms;
        self.down = serving == Serving::Nothing;
        self.full = serving == Serving::Reads;
    }

    /// For how long it answered without a break, at most, since then. Breaks that last no longer than `unseen_ms` do not count, and as
    /// much of a longer one at its end if reads were answered in it: a list of Leases shows then that the API is there.
    pub(crate) fn answered_ms(&self, since_ms: u64, unseen_ms: u64) -> u64 {
        let mut longest_ms = 0;
        let mut from_ms = since_ms;
        let seen =
            |outage: &&Outage| outage.end_ms >= since_ms && outage.end_ms - outage.begin_ms > unseen_ms;
        for outage in self.outages.iter().filter(seen) {
            longest_ms = longest_ms.max(outage.begin_ms.saturating_sub(from_ms));
            from_ms = outage.end_ms.saturating_sub(unseen_ms).max(outage.mute_until_ms).max(since_ms);
        }
        longest_ms.max(self.now_ms.saturating_sub(from_ms))
    }

    /// One of our kinds; the simulation asks for no other.
    fn kind(&self, plural: &str) -> Arc<Kind> {
        Arc::clone(&self.kinds[plural])
    }

    fn write(&mut self, kind: &Arc<Kind>, name: &str, operation: Operation) -> Result<Value, ApiError> {
        let namespace = kind.namespaced.then_some(NAMESPACE);
        self.write_in(kind, namespace, name, operation)
    }

    fn write_in(
        &mut self,
        kind: &Arc<Kind>,
        namespace: Option<&str>,
        name: &str,
        operation: Operation,
    ) -> Result<Value, ApiError> {
        if self.down || self.full {
            return Err(ApiError::Unavailable);
        }
        self.uids += 1;
        let time = seconds_text(self.clock.now(self.now_ms));
        let moment = Moment { now: &time, uid: Uuid::from_u128(self.uids) };
        let write = Write {
            kind: Arc::clone(kind),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            operation,
            manager: "simulation".into(),
            // What each may is the matter of other tests.
            author: Arc::new(Author { approves: Signers::All, signs: Signers::All, ..Author::default() }),
            dry_run: false,
            validation: FieldValidation::Strict,
            constraints: Vec::new(),
        };
        let applied = self.memory.write(&write, moment).map_err(|status| error(&status))?;
        Ok(stored(kind, &applied.object))
    }

    /// The namespace is deleted; what is in it follows.
    pub(crate) fn terminate(&mut self) {
        self.terminating |= !self.down && !self.full;
    }

    /// Whether the namespace is being deleted. Leases and DeviceGateways stand for those of another one.
    fn refuses_new(&mut self, plural: &str) -> bool {
        self.terminating = self.terminating && CONTENT.iter().any(|plural| !self.peek_all(plural).is_empty());
        self.terminating && CONTENT.contains(&plural)
    }

    pub(crate) fn create(
        &mut self,
        plural: &str,
        kind_name: &str,
        name: &str,
        spec: Value,
    ) -> Result<Value, ApiError> {
        if !self.down && !self.full && self.refuses_new(plural) {
            return Err(ApiError::Terminating);
        }
        let api_version = self.kind(plural).api_version();
        let object = json!({
            "apiVersion": api_version, "kind": kind_name, "metadata": {"name": name}, "spec": spec,
        });
        self.create_object(plural, object)
    }

    /// Creates an object that has more than a name and a spec, or other fields.
    pub(crate) fn create_object(&mut self, plural: &str, object: Value) -> Result<Value, ApiError> {
        let kind = self.kind(plural);
        self.write(&kind, "", Operation::Create { object, duplicates: Vec::new() })
    }

    /// Approves or denies a request for a certificate.
    pub(crate) fn decide(&mut self, name: &str, patch: Value) -> Result<Value, ApiError> {
        let kind = self.kind(REQUESTS);
        let patch = Patch::Merge(patch);
        self.write(&kind, name, Operation::Patch { part: Part::Approval, patch })
    }

    /// Removes the requests for certificates that are past their time, as the API does once in a minute.
    pub(crate) fn remove_old_requests(&mut self) {
        let unix_s = self.clock.now(self.now_ms).unix_ms / 1_000;
        // The clock is at most some centuries off.
        let Ok(now) = Timestamp::from_second(unix_s as i64) else { return };
        let over = |request: &Value| Limits::default().lifetimes().are_over(request, now);
        for request in self.peek_all(REQUESTS).iter().filter(|request| over(request)) {
            let name = request["metadata"]["name"].as_str().unwrap_or_default();
            let _ = self.delete(REQUESTS, name);
        }
    }

    pub(crate) fn patch(
        &mut self,
        plural: &str,
        name: &str,
        status: bool,
        patch: Value,
    ) -> Result<Value, ApiError> {
        let part = if status { Part::Status } else { Part::Main };
        let kind = self.kind(plural);
        self.write(&kind, name, Operation::Patch { part, patch: Patch::Merge(patch) })
    }

    pub(crate) fn delete(&mut self, plural: &str, name: &str) -> Result<Value, ApiError> {
        let kind = self.kind(plural);
        self.write(&kind, name, Operation::Delete { conditions: Preconditions::default() })
    }

    pub(crate) fn get(&self, plural: &str, name: &str) -> Result<Value, ApiError> {
        if self.down {
            return Err(ApiError::Unavailable);
        }
        self.peek(plural, name).map(Rc::unwrap_or_clone).ok_or(ApiError::NotFound)
    }

    /// For the checks, which see through outages, and ask for the same objects at each step.
    pub(crate) fn peek(&self, plural: &str, name: &str) -> Option<Rc<Value>> {
        let kind = self.kind(plural);
        let bytes = self.memory.stored(&kind, if kind.namespaced { NAMESPACE } else { "" }, name)?;
        let mut read = self.read.borrow_mut();
        let read = read.entry(plural.to_owned()).or_default().entry(name.to_owned()).or_default();
        if read.bytes != bytes {
            *read = Read { bytes: bytes.to_vec(), object: Rc::new(stored(&kind, bytes)) };
        }
        Some(Rc::clone(&read.object))
    }

    /// For the checks, which see through outages.
    pub(crate) fn peek_all(&self, plural: &str) -> Vec<Value> {
        let kind = self.kind(plural);
        let selection = if kind.namespaced { Selection::within(NAMESPACE) } else { Selection::default() };
        let page = self.memory.list(&kind, &selection);
        debug_assert!(page.is_ok(), "{plural} can be listed");
        let objects = page.map(|(page, _)| page.objects).unwrap_or_default();
        objects.iter().map(|bytes| stored(&kind, bytes)).collect()
    }

    pub(crate) fn list(&self, plural: &str) -> Result<(Vec<Value>, u64), ApiError> {
        if self.down {
            Err(ApiError::Unavailable)
        } else {
            Ok((self.peek_all(plural), self.memory.revision()))
        }
    }

    /// Up to so many changes after a revision; an error means that a new list is needed or nothing answers.
    pub(crate) fn watch(&self, plural: &str, after: &mut u64, most: usize) -> Result<Vec<Seen>, ApiError> {
        if self.down {
            return Err(ApiError::Unavailable);
        }
        let kind = self.kind(plural);
        let events = self.memory.since(&kind, *after, most).map_err(|_| ApiError::Refused("410".into()))?;
        Ok(events
            .iter()
            .map(|event| {
                *after = event.revision();
                let object = stored(&kind, event.object());
                match event.change() {
                    Change::Added | Change::Modified => Seen::Changed(object),
                    Change::Deleted => Seen::Gone(object),
                }
            })
            .collect())
    }

    /// The server's process restarts: watches begin anew.
    pub(crate) fn restart(&mut self) {
        self.memory.restart();
    }
}

/// An object as it is served.
fn stored(kind: &Kind, bytes: &[u8]) -> Value {
    let read = serde_json::from_slice(bytes);
    debug_assert!(read.is_ok(), "what the store holds is JSON");
    let mut object = read.unwrap_or(Value::Null);
    kind.conversion().convert_from_stored(&mut object);
    object
}

/// An object of one of our kinds, as a process reads it.
pub(crate) fn typed<T: DeserializeOwned>(object: &Value) -> Option<T> {
    let read = T::deserialize(object);
    debug_assert!(read.is_ok(), "the API holds only what its schemas allow: {object}");
    read.ok()
}

fn generated() -> Result<Arc<Kinds>, StartError> {
    let definitions = wasmbed_api::crds().iter().map(serde_json::to_value).collect::<Result<Vec<Value>, _>>();
    let definitions = definitions.map_err(|error| StartError::Json(Arc::new(error)))?;
    Kinds::new(&definitions).map(Arc::new).map_err(|error| StartError::Definition(Arc::new(error)))
}

/// A time of an object's metadata or of a condition: Kubernetes keeps whole seconds of these.
pub(crate) fn seconds_text(now: Now) -> String {
    UnixTime::from_ms(now.unix_ms).to_seconds_text()
}

/// A time to the millisecond.
pub(crate) fn time_text(now: Now) -> String {
    UnixTime::from_ms(now.unix_ms).to_string()
}

fn error(status: &Status) -> ApiError {
    match status.reason().code() {
        409 => ApiError::Conflict,
        404 => ApiError::NotFound,
        429 => ApiError::Throttled { retry_after_ms: 0 },
        500.. => ApiError::Unavailable,
        _ => ApiError::Refused(status.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_created_in_a_namespace_that_is_being_deleted() {
        let mut api = Api::new().unwrap();
        let make = |api: &mut Api, name: &str| {
            api.create("modules", "Module", name, json!({ "wasm_bytes": "AGFzbQEAAAA=" }))
        };
        make(&mut api, "a").unwrap();
        api.terminate();
        assert_eq!(make(&mut api, "b").unwrap_err(), ApiError::Terminating);
        api.delete("modules", "a").unwrap();
        make(&mut api, "b").unwrap();
    }
}
