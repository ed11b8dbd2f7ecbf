//! One Application of the index.
//!
//! ```text
//! observe ── another generation or module ──> respecify ──> prepare ──> Prepared, sent to its targets
//! begin_write ── under way ── written: the answer, or the watch, has it written again (none is made while `conflicted`)
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Value, json};
use wasmbed_api::{
    APPLICATION_FINALIZER, Application as Resource, ApplicationConfig, ApplicationSettings,
    ApplicationStatus, EnvFrom, ReasonCode, RestartPolicy, TargetDevices,
};
use wasmbed_protocol::{ApplicationUid, CorrelationId, ModuleDigest, SpecHash, rate::TokenBucket};

use super::{
    assignment::{Assigned, correlation_id},
    config::APPLICATION_EVENTS,
    module::ModuleRefusal,
    published::Published,
    quota::Place,
    record::{DeviceId, Prepared},
    source::ModuleSource,
};
use crate::{Now, ObjectKey, kubernetes::WriteOutcome};

/// What one generation of an Application says; a value.
#[derive(Debug)]
pub(super) struct Spec {
    pub generation: i64,
    pub source: ModuleSource,
    pub targets: Option<Box<TargetDevices>>,
    pub config: ApplicationConfig,
    pub settings: Option<Box<ApplicationSettings>>,
    pub min_ready_s: u32,
    pub correlation: CorrelationId,
}

/// The assignment of a generation, as the Application's status names it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Known {
    spec_hash: SpecHash,
    digest: Option<ModuleDigest>,
}

/// A deletion that waits for devices.
#[derive(Clone, Debug)]
struct Undeploy {
    since_ms: u64,
    /// Those that had it, or may have had it, when the deletion was seen.
    devices: BTreeSet<DeviceId>,
}

/// One Application.
#[derive(Debug)]
pub(super) struct Application {
    key: ObjectKey,
    uid: ApplicationUid,
    created_unix_s: i64,
    labels: BTreeMap<String, String>,
    resource_version: String,
    deleting: bool,
    finalizers: Vec<String>,
    spec: Spec,
    prepared: Prepared,
    target_ids: BTreeSet<DeviceId>,
    published: Published,
    /// What its status says of the assignment of the generation at hand, in case the Module is gone.
    known: Option<Known>,
    /// Whether bounds on the bytes of modules let its module be sent.
    place: Place,
    /// The module of the assignment that its status names, of whatever generation.
    placed: Option<ModuleDigest>,
    status_written_ms: Option<u64>,
    /// Events about it.
    events: TokenBucket,
    /// A write of its status or finalizers is on its way.
    writing: bool,
    /// No write of this resourceVersion will be taken: the watch brings a newer one.
    conflicted: bool,
    undeploy: Option<Undeploy>,
}

impl Spec {
    fn new(uid: ApplicationUid, resource: &Resource, source: ModuleSource) -> Self {
        let generation = resource.metadata.generation.unwrap_or_default();
        let min_ready_s = resource.spec.min_ready_seconds.and_then(|seconds| u32::try_from(seconds).ok());
        Self {
            generation,
            source,
            targets: resource.spec.target_devices.clone().map(Box::new),
            config: resource.spec.config.clone(),
            settings: resource.spec.settings.clone().map(Box::new),
            min_ready_s: min_ready_s.unwrap_or(0),
            correlation: correlation_id(uid, generation),
        }
    }

    /// The Secrets that it names, some perhaps more than once.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        self.config.env_from.iter().filter_map(EnvFrom::secret)
    }
}

impl Application {
    pub(super) fn new(
        key: ObjectKey,
        uid: ApplicationUid,
        resource: &Resource,
        source: ModuleSource,
    ) -> Self {
        let metadata = &resource.metadata;
        Self {
            key,
            uid,
            created_unix_s: metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            labels: metadata.labels.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            spec: Spec::new(uid, resource, source),
            // Nothing is known of it yet.
            prepared: Prepared::Refused {
                kept: None,
                refusal: ModuleRefusal { reason: ReasonCode::InvalidModule, message: String::new() },
            },
            target_ids: BTreeSet::new(),
            published: Published::of(resource.status.as_ref()),
            known: known(resource),
            place: Place::of(placed(resource.status.as_ref())),
            placed: placed(resource.status.as_ref()),
            status_written_ms: None,
            events: TokenBucket::default(),
            writing: false,
            conflicted: false,
            undeploy: None,
        }
    }

    // The object.

    /// The object as it is now, its spec aside; whether it is seen to be deleted for the first time.
    pub(super) fn observe(&mut self, resource: &Resource) -> bool {
        let metadata = &resource.metadata;
        let version = metadata.resource_version.clone().unwrap_or_default();
        if self.resource_version != version {
            self.resource_version = version;
            self.conflicted = false;
        }
        self.finalizers = metadata.finalizers.clone().unwrap_or_default();
        self.labels = metadata.labels.clone().unwrap_or_default();
        self.published = Published::of(resource.status.as_ref());
        self.known = known(resource).or(self.known);
        self.placed = placed(resource.status.as_ref());
        let deleting = metadata.deletion_timestamp.is_some();
        !std::mem::replace(&mut self.deleting, deleting) && deleting
    }

    /// Whether the spec is another than the one known.
    pub(super) fn is_respecified(&self, resource: &Resource, source: &ModuleSource) -> bool {
        self.spec.generation != resource.metadata.generation.unwrap_or_default()
            || self.spec.source != *source
    }

    /// The spec is another; whether it says the same of what devices run, to be told to [`Application::prepare`].
    pub(super) fn respecify(&mut self, resource: &Resource, source: ModuleSource) -> bool {
        let same = self.spec.source == source && self.spec.config == resource.spec.config;
        self.known = self.known.filter(|_| same).or_else(|| known(resource));
        self.spec = Spec::new(self.uid, resource, source);
        same
    }

    pub(super) fn key(&self) -> &ObjectKey {
        &self.key
    }

    pub(super) fn uid(&self) -> ApplicationUid {
        self.uid
    }

    pub(super) fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    pub(super) fn created_unix_s(&self) -> i64 {
        self.created_unix_s
    }

    pub(super) fn is_deleting(&self) -> bool {
        self.deleting
    }

    pub(super) fn spec(&self) -> &Spec {
        &self.spec
    }

    pub(super) fn targets(&self) -> Option<&TargetDevices> {
        self.spec.targets.as_deref()
    }

    pub(super) fn min_ready_ms(&self) -> u64 {
        u64::from(self.spec.min_ready_s) * 1_000
    }

    /// Whether an end can be its last one.
    pub(super) fn is_one_shot(&self) -> bool {
        self.spec.config.restart_policy != RestartPolicy::Always
    }

    // What it is to devices.

    /// Works out what the generation is to devices. `same`: what the one before said of its assignment, it says now, so that
    /// what was sent is what is to run. `plan` makes it, given what was sent and whether that is what is to run.
    pub(super) fn prepare(
        &mut self,
        same: bool,
        plan: impl FnOnce(&Self, Option<Arc<Assigned>>, bool) -> Prepared,
    ) {
        let (kept, current) = match &self.prepared {
            Prepared::Ready(assigned) => (Some(Arc::clone(assigned)), same),
            Prepared::SourceMissing { kept, current, .. } => (kept.clone(), *current && same),
            Prepared::Refused { kept, .. } => (kept.clone(), false),
        };
        self.prepared = plan(self, kept, current);
    }

    /// What was sent may not be what devices run: another controller has led since.
    pub(super) fn forget_assigned(&mut self) {
        let refusal = ModuleRefusal { reason: ReasonCode::SecretUnavailable, message: String::new() };
        self.prepared = Prepared::SourceMissing { kept: None, current: false, refusal };
    }

    pub(super) fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// Whether bounds on the bytes of modules let its module be sent.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Places were given out anew; false if that changes nothing for it.
    pub(super) fn set_place(&mut self, place: Place) -> bool {
        std::mem::replace(&mut self.place, place) != self.place
    }

    /// Another controller may have given out places: its status says what this one has.
    pub(super) fn forget_place(&mut self) {
        self.place = Place::of(self.placed);
    }

    /// The module that its status names for the generation at hand.
    pub(super) fn known_digest(&self) -> Option<ModuleDigest> {
        self.known?.digest
    }

    /// The assignment that devices have or get, if it is known.
    pub(super) fn assigned(&self) -> Option<&Assigned> {
        match &self.prepared {
            Prepared::Ready(assigned)
            | Prepared::SourceMissing { kept: Some(assigned), .. }
            | Prepared::Refused { kept: Some(assigned), .. } => Some(assigned),
            Prepared::Refused { kept: None, .. } | Prepared::SourceMissing { kept: None, .. } => None,
        }
    }

    /// The assignment that devices get or keep which can have no other.
    pub(super) fn offered_hash(&self) -> Option<SpecHash> {
        self.assigned().map(|assigned| assigned.spec_hash).or_else(|| self.wanted_hash())
    }

    /// The assignment that devices report which run this generation, as far as it is known.
    pub(super) fn wanted_hash(&self) -> Option<SpecHash> {
        match &self.prepared {
            Prepared::Ready(assigned) => Some(assigned.spec_hash),
            Prepared::SourceMissing { kept: Some(assigned), current: true, .. } => Some(assigned.spec_hash),
            Prepared::SourceMissing { kept: None, .. } => self.known.map(|known| known.spec_hash),
            Prepared::SourceMissing { .. } | Prepared::Refused { .. } => None,
        }
    }

    /// The devices that it goes to.
    pub(super) fn target_ids(&self) -> &BTreeSet<DeviceId> {
        &self.target_ids
    }

    /// Replaces them; gives those before.
    pub(super) fn set_targets(&mut self, targets: BTreeSet<DeviceId>) -> BTreeSet<DeviceId> {
        std::mem::replace(&mut self.target_ids, targets)
    }

    /// Whether it goes to a device; false if that is no change.
    pub(super) fn set_target(&mut self, id: DeviceId, is_target: bool) -> bool {
        if is_target { self.target_ids.insert(id) } else { self.target_ids.remove(&id) }
    }

    // Writes.

    /// Whether a write of its status or finalizers may be made: the answer, or the watch, has it looked at again.
    pub(super) fn is_writable(&self) -> bool {
        !self.writing && !self.conflicted
    }

    pub(super) fn is_writing(&self) -> bool {
        self.writing
    }

    /// A write of its status or finalizers is made, for the resourceVersion that is known now; gives that.
    pub(super) fn begin_write(&mut self) -> String {
        debug_assert!(self.is_writable(), "one write of {} is under way at a time", self.key);
        self.writing = true;
        self.resource_version.clone()
    }

    /// The same, of its status.
    pub(super) fn begin_status_write(&mut self, now: Now) -> String {
        self.status_written_ms = Some(now.ms);
        self.begin_write()
    }

    /// A write that was made for `version` was answered.
    pub(super) fn written(&mut self, outcome: &WriteOutcome<String>, version: &str) {
        debug_assert!(self.writing, "no write of {} is under way", self.key);
        self.writing = false;
        match outcome {
            // The watch may have brought this version, or a later one, before the answer came.
            WriteOutcome::Done(resource_version) if self.resource_version == version => {
                resource_version.clone_into(&mut self.resource_version);
            }
            WriteOutcome::Conflict => self.conflicted = self.resource_version == version,
            WriteOutcome::Done(_)
            | WriteOutcome::NotFound
            | WriteOutcome::Throttled { .. }
            | WriteOutcome::Unavailable(_)
            | WriteOutcome::Rejected(_) => {}
        }
    }

    /// The interval has passed: a write is tried again, whatever the watch brought.
    pub(super) fn resync(&mut self) {
        self.conflicted = false;
    }

    /// When its status may be written, `interval_ms` after the last time.
    pub(super) fn status_due_ms(&self, interval_ms: u64) -> u64 {
        self.status_written_ms.map_or(0, |written_ms| written_ms.saturating_add(interval_ms))
    }

    /// What its status says.
    pub(super) fn published(&self) -> &Published {
        &self.published
    }

    /// Its status was written.
    pub(super) fn status_written(&mut self, status: &ApplicationStatus) {
        self.published = Published::of(Some(status));
        self.placed = placed(Some(status));
    }

    /// Whether one more Event about it may be written.
    pub(super) fn take_event(&mut self, now: Now) -> bool {
        self.events.take(now.ms, APPLICATION_EVENTS, 1)
    }

    /// The merge patch (RFC 7396) that makes its status say this. Fields that are absent are removed: no failure of an earlier
    /// generation may stay.
    pub(super) fn status_patch(&self, status: &ApplicationStatus) -> Value {
        let mut body = json!(status);
        if let Some(body) = body.as_object_mut() {
            for field in ["module_digest", "spec_hash", "failures", "ready"] {
                body.entry(field).or_insert(Value::Null);
            }
        }
        json!({ "metadata": { "resourceVersion": self.resource_version }, "status": body })
    }

    // Finalizer and deletion.

    pub(super) fn has_finalizer(&self) -> bool {
        self.finalizers.iter().any(|name| name == APPLICATION_FINALIZER)
    }

    /// The merge patch (RFC 7396) that adds or removes the finalizer.
    pub(super) fn finalizer_patch(&self, add: bool) -> Value {
        let mut names = self.finalizers.clone();
        names.retain(|name| name != APPLICATION_FINALIZER);
        names.extend(add.then(|| APPLICATION_FINALIZER.to_owned()));
        json!({ "metadata": { "resourceVersion": self.resource_version, "finalizers": names } })
    }

    /// The deletion waits for these devices.
    pub(super) fn begin_undeploy(&mut self, now: Now, devices: BTreeSet<DeviceId>) {
        debug_assert!(self.deleting && self.undeploy.is_none(), "{} is deleted once", self.key);
        self.undeploy = Some(Undeploy { since_ms: now.ms, devices });
    }

    /// Whether the deletion was seen.
    pub(super) fn is_undeploying(&self) -> bool {
        self.undeploy.is_some()
    }

    /// When the deletion was seen, if it was.
    pub(super) fn undeploying_since_ms(&self) -> Option<u64> {
        self.undeploy.as_ref().map(|undeploy| undeploy.since_ms)
    }

    /// The devices that the deletion waits for.
    pub(super) fn awaited_devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.undeploy.iter().flat_map(|undeploy| &undeploy.devices)
    }
}

/// The module of the assignment that a status names.
fn placed(status: Option<&ApplicationStatus>) -> Option<ModuleDigest> {
    let status = status.filter(|status| status.spec_hash.is_some())?;
    ModuleDigest::from_prefixed(status.module_digest.as_deref()?).ok()
}

/// What the status says of the assignment of the generation that the spec has now.
fn known(resource: &Resource) -> Option<Known> {
    let status = resource.status.as_ref()?;
    let spoken_of =
        status.observed_generation.is_some() && status.observed_generation == resource.metadata.generation;
    let spec_hash = status.spec_hash.as_deref().filter(|_| spoken_of).and_then(|text| text.parse().ok())?;
    Some(Known {
        spec_hash,
        digest: status.module_digest.as_deref().and_then(|text| ModuleDigest::from_prefixed(text).ok()),
    })
}
