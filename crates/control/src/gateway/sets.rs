//! Desired sets and modules: what a controller may put here, and what is kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
    sync::{Arc, Weak},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use wasmbed_protocol::{
    ApplicationUid, Assignment, CorrelationId, DecodeError, DesiredApplication, ModuleDigest, ParseIdError,
    SpecHash, TopicDirection, decode_spec,
    limits::{APPLICATION_NAME_BYTES_MAX, DESIRED_MAX, SPEC_BYTES_MAX},
};

use super::{
    config::{MODULE_CACHE_BYTES_MAX, MODULE_CACHE_IDLE_MS, MODULE_UNREFERENCED_MS},
    input::SessionId,
    messages::Topic,
};
use crate::{
    Hidden, ObjectKey,
    gateway_api::{AssignmentEntry, DeviceSet, PutSets, SETS_PER_PUT_MAX},
    harmless,
};

/// The desired set of one device, checked.
#[derive(Debug, PartialEq)]
pub(super) struct Set {
    revision: u64,
    assignments: Vec<SetAssignment>,
}

/// One assignment of a set.
#[derive(Debug, PartialEq)]
pub(super) struct SetAssignment {
    body: Arc<Body>,
    correlation_id: CorrelationId,
}

impl SetAssignment {
    pub(super) fn body(&self) -> &Body {
        &self.body
    }

    pub(super) fn correlation_id(&self) -> CorrelationId {
        self.correlation_id
    }

    /// As the device is sent it.
    pub(super) fn to_message(&self) -> Assignment<'_> {
        Assignment {
            spec_hash: self.body.hash,
            spec: &self.body.spec,
            correlation_id: self.correlation_id,
            envelope: &[],
        }
    }

    /// As a controller sent it, for the disk.
    fn to_api(&self) -> AssignmentEntry {
        let Body { hash, spec, uid, application, digest, module_bytes: _, topics: _, inputs: _ } =
            &*self.body;
        AssignmentEntry {
            application_uid: uid.to_string(),
            application: application.to_string(),
            spec_hash: hash.to_string(),
            spec: Hidden::new(STANDARD.encode(&**spec)),
            digest: digest.to_string(),
            correlation_id: self.correlation_id.to_string(),
        }
    }
}

/// What all devices that run the same assignment share.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Body {
    hash: SpecHash,
    spec: Hidden<Vec<u8>>,
    uid: ApplicationUid,
    application: Arc<str>,
    digest: ModuleDigest,
    module_bytes: u32,
    /// What it may publish to.
    topics: Box<[Topic]>,
    /// What it receives.
    inputs: Box<[Box<str>]>,
}

impl Body {
    /// The application.
    pub(super) fn uid(&self) -> ApplicationUid {
        self.uid
    }

    /// What it may publish to.
    pub(super) fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// Whether it receives this topic.
    pub(super) fn receives(&self, topic: &str) -> bool {
        self.inputs.iter().any(|input| **input == *topic)
    }

    /// `namespace/name` of the application.
    pub(super) fn application(&self) -> &Arc<str> {
        &self.application
    }

    /// The module that it runs.
    pub(super) fn digest(&self) -> ModuleDigest {
        self.digest
    }

    /// Size of that module, bytes.
    pub(super) fn module_bytes(&self) -> u32 {
        self.module_bytes
    }

    /// As the device's set names it.
    pub(super) fn to_desired(&self) -> DesiredApplication {
        DesiredApplication { uid: self.uid, spec_hash: self.hash }
    }
}

impl Set {
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// What its assignments are, by ascending UID.
    pub(super) fn bodies(&self) -> impl Iterator<Item = &Body> {
        self.assignments.iter().map(SetAssignment::body)
    }

    pub(super) fn find(&self, hash: &SpecHash) -> Option<&SetAssignment> {
        self.assignments.iter().find(|assignment| assignment.body.hash == *hash)
    }

    /// What it says of an application.
    pub(super) fn of(&self, uid: &ApplicationUid) -> Option<&Body> {
        self.bodies().find(|body| body.uid == *uid)
    }

    pub(super) fn application(&self, uid: &ApplicationUid) -> Option<&Arc<str>> {
        self.of(uid).map(Body::application)
    }

    pub(super) fn module(&self, digest: &ModuleDigest) -> Option<&Body> {
        self.bodies().find(|body| body.digest == *digest)
    }

    /// Whether both ask a device for the same; correlation ids aside.
    pub(super) fn same_content(&self, other: &Self) -> bool {
        let hashes = |set: &Self| -> BTreeSet<SpecHash> {
            set.assignments.iter().map(|assignment| assignment.body.hash).collect()
        };
        hashes(self) == hashes(other)
    }

    /// As a controller sent it, for the disk.
    pub(super) fn to_api(&self, device: &ObjectKey) -> DeviceSet {
        let assignments = self.assignments.iter().map(SetAssignment::to_api).collect();
        DeviceSet { device: device.clone(), revision: self.revision, assignments }
    }
}

/// Why a set can't be used: the fault of the controller that sent it, or of the disk that kept it.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetError {
    #[error("revision is 0; the first is 1")]
    RevisionZero,
    #[error("{0} assignments, at most {DESIRED_MAX} are allowed")]
    TooManyAssignments(usize),
    #[error("{application} occurs twice in the set")]
    Twice { application: String },
    #[error("{application}: {source}")]
    Assignment { application: String, source: AssignmentError },
}

/// Why an assignment of a set can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum AssignmentError {
    #[error("{field}: {source}")]
    Id { field: &'static str, source: ParseIdError },
    #[error("spec is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("spec has {0} bytes, at most {SPEC_BYTES_MAX} are allowed")]
    TooLong(usize),
    #[error("spec hashes to {found}, not to spec_hash {expected}")]
    WrongHash { found: SpecHash, expected: SpecHash },
    #[error("spec: {0}")]
    Spec(#[from] DecodeError),
    #[error("digest is {found}, but spec says {expected}")]
    WrongDigest { found: String, expected: ModuleDigest },
    #[error("application_uid is not the one in spec, {expected}")]
    WrongUid { expected: ApplicationUid },
}

fn parse_id<T: FromStr<Err = ParseIdError>>(field: &'static str, text: &str) -> Result<T, AssignmentError> {
    text.parse().map_err(|source| AssignmentError::Id { field, source })
}

/// Bodies that sets share.
#[derive(Debug, Default)]
pub(super) struct Bodies(BTreeMap<SpecHash, Weak<Body>>);

impl Bodies {
    /// Takes a set that was read apart from these; what they share is held once.
    pub(super) fn adopt(&mut self, set: &mut Set) {
        for assignment in &mut set.assignments {
            let body = &mut assignment.body;
            match self.0.get(&body.hash).and_then(Weak::upgrade) {
                // The hash says what the spec is.
                Some(known) if known.application == body.application => *body = known,
                Some(_) | None => drop(self.0.insert(body.hash, Arc::downgrade(body))),
            }
        }
    }

    /// Reads a set.
    pub(super) fn parse_set(&mut self, set: &DeviceSet) -> Result<Set, SetError> {
        if set.revision == 0 {
            return Err(SetError::RevisionZero);
        }
        if set.assignments.len() > DESIRED_MAX {
            return Err(SetError::TooManyAssignments(set.assignments.len()));
        }
        let mut assignments: Vec<SetAssignment> = Vec::with_capacity(set.assignments.len());
        for entry in &set.assignments {
            let application = || entry.application.clone();
            let wrong = |source| SetError::Assignment { application: application(), source };
            let body = self.parse_entry(entry).map_err(wrong)?;
            if assignments.iter().any(|other| other.body.uid == body.uid) {
                return Err(SetError::Twice { application: application() });
            }
            let correlation_id = parse_id("correlation_id", &entry.correlation_id).map_err(wrong)?;
            assignments.push(SetAssignment { body, correlation_id });
        }
        // The protocol wants them in this order.
        assignments.sort_by_key(|assignment| assignment.body.uid);
        Ok(Set { revision: set.revision, assignments })
    }

    fn parse_entry(&mut self, entry: &AssignmentEntry) -> Result<Arc<Body>, AssignmentError> {
        let hash: SpecHash = parse_id("spec_hash", &entry.spec_hash)?;
        let spec = Hidden::new(STANDARD.decode(&*entry.spec)?);
        if let Some(body) = self.0.get(&hash).and_then(Weak::upgrade)
            && body.spec == spec
            && *body.application == *entry.application
        {
            return Ok(body);
        }
        if spec.len() > SPEC_BYTES_MAX {
            return Err(AssignmentError::TooLong(spec.len()));
        }
        let found = SpecHash::of(&spec);
        if found != hash {
            return Err(AssignmentError::WrongHash { found, expected: hash });
        }
        let decoded = decode_spec(&spec)?;
        if entry.digest.parse() != Ok(decoded.digest) {
            let found = entry.digest.clone();
            return Err(AssignmentError::WrongDigest { found, expected: decoded.digest });
        }
        if entry.application_uid != decoded.uid.to_string() {
            return Err(AssignmentError::WrongUid { expected: decoded.uid });
        }
        let (uid, digest, module_bytes) = (decoded.uid, decoded.digest, decoded.module_bytes);
        let application = harmless(&entry.application, APPLICATION_NAME_BYTES_MAX).into();
        let outward = decoded.topics.iter().filter(|topic| topic.direction == TopicDirection::Out);
        let topics = outward.map(|topic| Topic { name: topic.name.into(), per_second: topic.per_second });
        let topics = topics.collect();
        let inward = decoded.topics.iter().filter(|topic| topic.direction == TopicDirection::In);
        let inputs = inward.map(|topic| topic.name.into()).collect();
        let body = Arc::new(Body { hash, spec, uid, application, digest, module_bytes, topics, inputs });
        self.0.insert(hash, Arc::downgrade(&body));
        Ok(body)
    }

    pub(super) fn drop_unused(&mut self) {
        self.0.retain(|_, body| body.strong_count() > 0);
    }
}

/// Sets of a controller, read as far as that takes nothing of a gateway: megabytes of text, for which no device is to wait.
#[derive(Debug)]
pub struct PreparedSets {
    leader_term: u64,
    /// As many as were sent.
    count: usize,
    sets: Vec<PreparedSet>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct PreparedSet {
    pub device: ObjectKey,
    /// The set, and its form on the disk.
    pub read: Result<(Set, DeviceSet), SetError>,
}

impl PreparedSets {
    /// Reads sets; none of more than one call may bring.
    #[must_use]
    pub fn new(put: &PutSets) -> Self {
        let mut bodies = Bodies::default();
        let mut read = |set: &DeviceSet| {
            let read = bodies.parse_set(set)?;
            let stored = read.to_api(&set.device);
            Ok((read, stored))
        };
        let sets = put.sets.iter().take(SETS_PER_PUT_MAX);
        let sets = sets.map(|set| PreparedSet { device: set.device.clone(), read: read(set) }).collect();
        Self { leader_term: put.leader_term, count: put.sets.len(), sets }
    }

    /// Of the controller that leads.
    #[must_use]
    pub fn leader_term(&self) -> u64 {
        self.leader_term
    }

    /// As many as were sent; more than one call may bring if some were not read.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn into_sets(self) -> Vec<PreparedSet> {
        self.sets
    }
}

/// A module on the gateway's disk.
#[derive(Debug)]
pub(super) struct Module {
    bytes: u32,
    unreferenced_since_ms: Option<u64>,
    cached: Option<Arc<[u8]>>,
    used_at_ms: u64,
    loading: bool,
    waiting: BTreeSet<SessionId>,
}

/// The modules on the gateway's disk, and those in memory.
#[derive(Debug)]
pub(super) struct Modules {
    by_digest: BTreeMap<ModuleDigest, Module>,
    /// Bytes set aside for uploads under way.
    reserved: BTreeMap<ModuleDigest, u32>,
    bytes_max: u64,
}

impl Modules {
    pub(super) fn new(bytes_max: u64, restored: &[(ModuleDigest, u32)]) -> Self {
        let mut modules = Self { by_digest: BTreeMap::new(), reserved: BTreeMap::new(), bytes_max };
        for (digest, bytes) in restored {
            modules.insert(0, *digest, *bytes);
        }
        modules
    }

    pub(super) fn contains(&self, digest: &ModuleDigest) -> bool {
        self.by_digest.contains_key(digest)
    }

    /// Size of a module, bytes.
    pub(super) fn size(&self, digest: &ModuleDigest) -> Option<u32> {
        self.by_digest.get(digest).map(|module| module.bytes)
    }

    pub(super) fn len(&self) -> usize {
        self.by_digest.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.by_digest.values().map(|module| u64::from(module.bytes)).sum::<u64>()
            + self.reserved.values().copied().map(u64::from).sum::<u64>()
    }

    pub(super) fn fits(&self, bytes: u32) -> bool {
        self.bytes() + u64::from(bytes) <= self.bytes_max
    }

    pub(super) fn reserve(&mut self, digest: ModuleDigest, bytes: u32) {
        self.reserved.insert(digest, bytes);
    }

    pub(super) fn release(&mut self, digest: &ModuleDigest) {
        self.reserved.remove(digest);
    }

    pub(super) fn insert(&mut self, now_ms: u64, digest: ModuleDigest, bytes: u32) {
        self.reserved.remove(&digest);
        self.by_digest.entry(digest).or_insert_with(|| Module {
            bytes,
            unreferenced_since_ms: Some(now_ms),
            cached: None,
            used_at_ms: 0,
            loading: false,
            waiting: BTreeSet::new(),
        });
    }

    /// A module whose file is gone or spoilt; the sessions that waited for it.
    pub(super) fn remove(&mut self, digest: &ModuleDigest) -> BTreeSet<SessionId> {
        self.by_digest.remove(digest).map(|module| module.waiting).unwrap_or_default()
    }

    pub(super) fn cached(&self, digest: &ModuleDigest) -> Option<&Arc<[u8]>> {
        self.by_digest.get(digest)?.cached.as_ref()
    }

    pub(super) fn touch(&mut self, now_ms: u64, digest: &ModuleDigest) {
        if let Some(module) = self.by_digest.get_mut(digest) {
            module.used_at_ms = now_ms;
        }
    }

    /// Notes that a session waits for the bytes; true if they must be loaded.
    pub(super) fn want(&mut self, digest: &ModuleDigest, session: SessionId) -> bool {
        let module = present!(self.by_digest.get_mut(digest), "what is wanted was just found" => false);
        if module.cached.is_some() {
            return false;
        }
        module.waiting.insert(session);
        !std::mem::replace(&mut module.loading, true)
    }

    /// Takes loaded bytes, makes room for them, and gives the sessions that waited.
    pub(super) fn loaded(
        &mut self,
        now_ms: u64,
        digest: &ModuleDigest,
        bytes: Arc<[u8]>,
    ) -> BTreeSet<SessionId> {
        let room = MODULE_CACHE_BYTES_MAX.saturating_sub(bytes.len() as u64);
        let mut held: Vec<_> = self
            .by_digest
            .iter()
            .filter_map(|(digest, module)| {
                Some((module.used_at_ms, *digest, module.cached.as_ref()?.len() as u64))
            })
            .collect();
        held.sort_unstable();
        let mut total: u64 = held.iter().map(|(.., bytes)| bytes).sum();
        for (_, digest, bytes) in held {
            if total <= room {
                break;
            }
            total -= bytes;
            if let Some(module) = self.by_digest.get_mut(&digest) {
                module.cached = None;
            }
        }
        let Some(module) = self.by_digest.get_mut(digest) else { return BTreeSet::new() };
        module.loading = false;
        module.cached = Some(bytes);
        module.used_at_ms = now_ms;
        std::mem::take(&mut module.waiting)
    }

    /// Lets go of bytes that nobody reads and gives the modules to delete: those that no set has named for
    /// `unreferenced_ms`.
    pub(super) fn sweep(
        &mut self,
        now_ms: u64,
        referenced: &BTreeSet<ModuleDigest>,
        unreferenced_ms: u64,
    ) -> Vec<ModuleDigest> {
        let mut deleted = Vec::new();
        for (digest, module) in &mut self.by_digest {
            if now_ms.saturating_sub(module.used_at_ms) > MODULE_CACHE_IDLE_MS {
                module.cached = None;
            }
            if referenced.contains(digest) || module.loading {
                module.unreferenced_since_ms = None;
            } else if now_ms.saturating_sub(*module.unreferenced_since_ms.get_or_insert(now_ms))
                >= unreferenced_ms
            {
                deleted.push(*digest);
            }
        }
        for digest in &deleted {
            self.by_digest.remove(digest);
        }
        deleted
    }

    /// How soon modules that no set names go when room is needed: an upload is followed by its set within seconds.
    pub(super) const UNREFERENCED_TIGHT_MS: u64 = MODULE_UNREFERENCED_MS / 10;
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ModuleDigest = ModuleDigest([1; 32]);
    const B: ModuleDigest = ModuleDigest([2; 32]);

    #[test]
    fn modules_go_when_no_set_has_named_them_for_long() {
        let mut modules = Modules::new(100, &[(A, 10), (B, 10)]);
        let named = BTreeSet::from([A]);
        assert_eq!(modules.sweep(999, &named, 1_000), []);
        assert_eq!(modules.sweep(1_000, &named, 1_000), [B]);
        assert_eq!(modules.sweep(2_000, &BTreeSet::new(), 1_000), [], "it was named until now");
        assert_eq!(modules.sweep(3_000, &BTreeSet::new(), 1_000), [A]);
        assert_eq!(modules.bytes(), 0);
    }

    #[test]
    fn uploads_under_way_count() {
        let mut modules = Modules::new(100, &[]);
        modules.reserve(A, 60);
        assert!(!modules.fits(41));
        modules.release(&A);
        assert!(modules.fits(41));
        modules.reserve(A, 60);
        modules.insert(0, A, 60);
        assert_eq!(modules.bytes(), 60);
    }

    #[test]
    fn memory_is_bounded_and_the_longest_unused_goes() {
        let half = MODULE_CACHE_BYTES_MAX as usize / 2;
        let mut modules = Modules::new(u64::MAX, &[(A, 1), (B, 1), (ModuleDigest([3; 32]), 1)]);
        assert!(modules.want(&A, SessionId(1)));
        assert!(!modules.want(&A, SessionId(2)), "it is being loaded");
        let waiting = modules.loaded(1, &A, vec![0; half].into());
        assert_eq!(waiting, BTreeSet::from([SessionId(1), SessionId(2)]));
        modules.loaded(2, &B, vec![0; half].into());
        modules.loaded(3, &ModuleDigest([3; 32]), vec![0; 1].into());
        assert!(modules.cached(&A).is_none() && modules.cached(&B).is_some());
    }
}
