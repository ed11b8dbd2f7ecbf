//! One Device of the index.
//!
//! ```text
//! observe, read ──> plan (from what reports and Applications say) ──> set issued to gateways
//!                     └── results that ended ──> begin_finish ── status.finished
//! deleted ── begin_release ──> empty set ──> end_release ──> finalizer removed
//! ```
//!
//! One write of it to the Kubernetes API is under way at a time ([`Device::begin_write`], [`Device::end_write`]), whichever
//! part of the object it is about.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};
use wasmbed_api::{
    DEVICE_FINALIZER, Device as Resource, DeviceApplication, DevicePhase, ReasonCode, TargetDevices,
    condition,
};
use wasmbed_protocol::{ApplicationUid, KeyHash, SpecHash};

use super::{
    assignment::Assigned,
    decommissioning::Decommissioning,
    record::{ApplicationId, Healthy, Placement, ReportedApplication, Seen},
    set::PlannedSet,
    setting_delivery::PlannedSettings,
    status::time,
    target::plan_target,
};
use crate::{Now, ObjectKey};

/// What the object of a Device says, its status aside; a value.
#[derive(Clone, Debug, Default)]
struct DeviceObject {
    resource_version: String,
    finalizers: Vec<String>,
    labels: BTreeMap<String, String>,
    deleting: bool,
    unschedulable: bool,
    approved: bool,
    revoked: bool,
    decommission: bool,
    confirmed_key: Option<KeyHash>,
}

impl DeviceObject {
    fn read(resource: &Resource) -> Self {
        let metadata = &resource.metadata;
        Self {
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            labels: metadata.labels.clone().unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            unschedulable: resource.spec.unschedulable,
            approved: resource.spec.approved,
            revoked: resource.spec.revoked,
            decommission: resource.spec.decommission,
            // What is no hash is of no key.
            confirmed_key: resource.spec.confirmed_key.as_ref().and_then(|text| text.parse().ok()),
        }
    }
}

/// One Device.
#[derive(Debug)]
pub(super) struct Device {
    key: ObjectKey,
    uid: Box<str>,
    object: DeviceObject,
    seen: Seen,
    /// Boxed: few Devices are taken out of service.
    decommissioning: Option<Box<Decommissioning>>,
    release: Option<Release>,
    /// A write of its finalizers was refused: none is made before this.
    finalizer_pause_ms: u64,
    targeted_by: BTreeSet<ApplicationId>,
    placements: BTreeMap<ApplicationId, Placement>,
    planned: Option<PlannedSet>,
    settings: Option<PlannedSettings>,
    /// A write of its status or of its finalizers is on its way.
    writing: bool,
    /// Applications that it is known to have run to an end for good, each with its assignment.
    ended: Vec<(ApplicationUid, SpecHash)>,
    /// What `status.finished` is to say, if it says something else.
    finish: Option<Vec<DeviceApplication>>,
    /// The resourceVersion that the last write of it was made for.
    finish_version: String,
    /// Applications with a least time of health that it runs.
    healthy: BTreeMap<ApplicationUid, Healthy>,
}

/// A deletion that waits for the device.
#[derive(Clone, Copy, Debug)]
struct Release {
    since_ms: u64,
    /// Nothing is waited for any more: the finalizer goes.
    done: bool,
}

/// What changed with a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlanEffects {
    /// Some Application fares otherwise here than before.
    pub changed: bool,
    /// `status.finished` is to be written.
    pub finish: bool,
}

impl Device {
    pub(super) fn new(key: ObjectKey, uid: Box<str>) -> Self {
        Self {
            key,
            uid,
            object: DeviceObject::default(),
            seen: Seen::default(),
            decommissioning: None,
            release: None,
            finalizer_pause_ms: 0,
            targeted_by: BTreeSet::new(),
            placements: BTreeMap::new(),
            planned: None,
            settings: None,
            writing: false,
            ended: Vec::new(),
            finish: None,
            finish_version: String::new(),
            healthy: BTreeMap::new(),
        }
    }

    pub(super) fn key(&self) -> &ObjectKey {
        &self.key
    }

    pub(super) fn uid(&self) -> &str {
        &self.uid
    }

    // The object.

    /// The object as it is now; whether it may be another's target than before.
    pub(super) fn observe(&mut self, resource: &Resource, seen: Seen) -> bool {
        let object = DeviceObject::read(resource);
        let retarget = (&self.object.labels, self.object.deleting) != (&object.labels, object.deleting);
        self.object = object;
        self.seen = seen;
        self.decommissioning = Decommissioning::read(resource, self.decommissioning.take());
        retarget
    }

    pub(super) fn is_deleting(&self) -> bool {
        self.object.deleting
    }

    pub(super) fn is_unschedulable(&self) -> bool {
        self.object.unschedulable
    }

    pub(super) fn is_revoked(&self) -> bool {
        self.object.revoked
    }

    pub(super) fn is_approved(&self) -> bool {
        self.object.approved
    }

    /// Whether it is being taken out of service, or was.
    pub(super) fn is_decommissioned(&self) -> bool {
        self.object.decommission
    }

    /// How far it is with being taken out of service, if it is to be.
    pub(super) fn decommissioning(&self) -> Option<&Decommissioning> {
        self.decommissioning.as_deref()
    }

    pub(super) fn decommissioning_mut(&mut self) -> Option<&mut Decommissioning> {
        self.decommissioning.as_deref_mut()
    }

    /// The merge patch (RFC 7396) of these fields of its status.
    pub(super) fn status_patch(&self, status: Value) -> Value {
        json!({ "metadata": { "resourceVersion": self.object.resource_version }, "status": status })
    }

    /// The key that a person has confirmed to be its device's.
    pub(super) fn confirmed_key(&self) -> Option<KeyHash> {
        self.object.confirmed_key
    }

    /// Whether an Application with these targets goes to it.
    pub(super) fn is_target(&self, targets: Option<&TargetDevices>) -> bool {
        !self.object.deleting && plan_target(targets, &self.key.name, &self.object.labels)
    }

    /// Its resourceVersion, as far as the watch has brought it.
    pub(super) fn version(&self) -> &str {
        &self.object.resource_version
    }

    /// What its status says.
    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Whether it belongs to the fleet: strangers that wait for approval, revoked devices and those that are taken out of service
    /// are nobody's targets.
    pub(super) fn is_admitted(&self) -> bool {
        !self.object.revoked && !self.object.decommission && (self.object.approved || self.seen.is_enrolled())
    }

    /// The phase to write for a device whose gateway is gone and can't write it, if it shows another one.
    pub(super) fn phase_without_gateway(&self) -> Option<DevicePhase> {
        let phase = self.seen.phase()?;
        if self.decommissioning().is_some_and(Decommissioning::is_confirmed) {
            return (phase != DevicePhase::Decommissioned).then_some(DevicePhase::Decommissioned);
        }
        match (self.object.revoked, phase) {
            (true, DevicePhase::Revoked) => None,
            (true, _) => Some(DevicePhase::Revoked),
            (false, DevicePhase::Connected | DevicePhase::Revoked | DevicePhase::Decommissioned) => {
                Some(DevicePhase::Unreachable)
            }
            (
                false,
                DevicePhase::Pending
                | DevicePhase::Enrolled
                | DevicePhase::Disconnected
                | DevicePhase::Unreachable
                | DevicePhase::Rejected
                | DevicePhase::Unknown,
            ) => None,
        }
    }

    /// The merge patch (RFC 7396) of its status that says this phase, since its gateway is gone and can't.
    pub(super) fn unreachable_patch(&self, phase: DevicePhase, gateway: &str, now: Now) -> Value {
        let unix_s = i64::try_from(now.unix_ms / 1_000).unwrap_or(i64::MAX);
        let is = |type_: &str, holds: bool, reason: ReasonCode, message: String| Condition {
            type_: type_.to_owned(),
            status: if holds { "True" } else { "False" }.to_owned(),
            reason: reason.as_str().to_owned(),
            message,
            observed_generation: None,
            last_transition_time: time(unix_s),
        };
        let mut conditions = self.seen.other_conditions().to_vec();
        let revoked_before = conditions
            .iter()
            .any(|shown| shown.type_ == condition::ENROLLED && shown.reason == ReasonCode::Revoked.as_str());
        let enrolled = match (phase, self.object.approved) {
            (DevicePhase::Decommissioned, _) => Some((false, ReasonCode::Decommissioned)),
            (DevicePhase::Revoked, _) => Some((false, ReasonCode::Revoked)),
            // The revocation was taken back since.
            (_, true) if revoked_before => Some((true, ReasonCode::Approved)),
            (_, false) if revoked_before => Some((false, ReasonCode::PendingApproval)),
            (_, _) => None,
        };
        if let Some((holds, reason)) = enrolled {
            conditions.retain(|shown| shown.type_ != condition::ENROLLED);
            conditions.push(is(condition::ENROLLED, holds, reason, reason.sentence().to_owned()));
        }
        let lost = format!("gateway {gateway} does not renew its Lease");
        conditions.push(is(condition::CONNECTED, false, ReasonCode::GatewayLost, lost));
        json!({
            "metadata": { "resourceVersion": self.object.resource_version },
            "status": { "phase": phase, "conditions": conditions },
        })
    }

    // Who targets it.

    /// Whether an Application targets it; false if that is no change.
    pub(super) fn set_targeted(&mut self, id: ApplicationId, targeted: bool) -> bool {
        if targeted { self.targeted_by.insert(id) } else { self.targeted_by.remove(&id) }
    }

    /// The Applications that target it.
    pub(super) fn targeted_by(&self) -> &BTreeSet<ApplicationId> {
        &self.targeted_by
    }

    // What it is to run.

    /// It was planned. Without a set it is left alone with the one that it has.
    pub(super) fn plan(
        &mut self,
        placements: BTreeMap<ApplicationId, Placement>,
        planned: Option<PlannedSet>,
        finish: Option<Vec<DeviceApplication>>,
    ) -> PlanEffects {
        let changed = self.placements != placements;
        self.placements = placements;
        if planned.is_some() {
            self.planned = planned;
        }
        self.finish = finish;
        let finish = self.finish.is_some() && self.finish_version != self.object.resource_version;
        PlanEffects { changed, finish }
    }

    /// Another comes to lead: what was planned is theirs.
    pub(super) fn forget_plan(&mut self) {
        self.planned = None;
        self.settings = None;
    }

    /// The settings of its applications, if there is something to say of them.
    pub(super) fn settings(&self) -> Option<&PlannedSettings> {
        self.settings.as_ref()
    }

    pub(super) fn set_settings(&mut self, settings: Option<PlannedSettings>) {
        self.settings = settings;
    }

    pub(super) fn labels(&self) -> &BTreeMap<String, String> {
        &self.object.labels
    }

    pub(super) fn planned(&self) -> Option<&PlannedSet> {
        self.planned.as_ref()
    }

    /// Whether its set has an Application.
    pub(super) fn has_member(&self, id: ApplicationId) -> bool {
        self.assigned(id).is_some()
    }

    /// What its set has of an Application.
    pub(super) fn assigned(&self, id: ApplicationId) -> Option<&Arc<Assigned>> {
        Some(self.planned.as_ref()?.member(id)?.assigned())
    }

    /// Its set is sent to a gateway.
    pub(super) fn issue(&mut self) {
        if let Some(planned) = &mut self.planned {
            planned.issue();
        }
    }

    /// A gateway refused its set and named the revision `held`; false if the revision is not why.
    pub(super) fn give_way(&mut self, held: u64) -> bool {
        self.planned.as_mut().is_some_and(|planned| planned.give_way(held))
    }

    /// What planning made of an Application here.
    pub(super) fn placement(&self, id: ApplicationId) -> &Placement {
        self.placements.get(&id).unwrap_or(&Placement::FactsUnknown)
    }

    // What it ran.

    /// What its reports say beyond the moment. While it has not `reported` in its session, or is not `connected`, what was known
    /// stays.
    pub(super) fn note_reports(
        &mut self,
        ended: Vec<(ApplicationUid, SpecHash)>,
        healthy: BTreeMap<ApplicationUid, Healthy>,
        reported: bool,
        connected: bool,
    ) {
        if reported || self.ended.is_empty() {
            self.ended = ended;
        }
        if reported && connected {
            self.healthy = healthy;
        }
    }

    /// Whether it ran an assignment to an end for good.
    pub(super) fn has_ended(&self, uid: ApplicationUid, hash: SpecHash) -> bool {
        self.ended.contains(&(uid, hash))
    }

    /// Since when it runs an Application without an end.
    pub(super) fn healthy(&self, uid: ApplicationUid) -> Option<Healthy> {
        self.healthy.get(&uid).copied()
    }

    /// What is written down of an Application that left its place here, if it is still that assignment.
    pub(super) fn finished(
        &self,
        uid: ApplicationUid,
        wanted: Option<SpecHash>,
    ) -> Option<&ReportedApplication> {
        let mut entries = self.seen.finished().iter().map(|(report, _)| report);
        entries.find(|report| report.uid() == uid && wanted.is_none_or(|hash| report.spec_hash() == hash))
    }

    // Writes.

    /// Whether a write of its status or finalizers is on its way.
    pub(super) fn is_writing(&self) -> bool {
        self.writing
    }

    /// A write of its status or finalizers is made.
    pub(super) fn begin_write(&mut self) {
        debug_assert!(!self.writing, "one write of {} is under way at a time", self.key);
        self.writing = true;
    }

    /// That write was answered.
    pub(super) fn end_write(&mut self) {
        debug_assert!(self.writing, "no write of {} is under way", self.key);
        self.writing = false;
    }

    /// `status.finished` is written, if it is to say something else: the merge patch (RFC 7396).
    pub(super) fn begin_finish(&mut self) -> Option<Value> {
        let finished = self.finish.as_ref()?;
        // An empty list is none.
        let body = if finished.is_empty() { json!(null) } else { json!(finished) };
        let patch = json!({
            "metadata": { "resourceVersion": self.object.resource_version },
            "status": { "finished": body },
        });
        self.finish_version.clone_from(&self.object.resource_version);
        self.begin_write();
        Some(patch)
    }

    /// `status.finished` was not written, or the interval has passed: it is tried again, also for the same version.
    pub(super) fn retry_finish(&mut self) {
        self.finish_version.clear();
    }

    // Finalizer and deletion.

    pub(super) fn has_finalizer(&self) -> bool {
        self.object.finalizers.iter().any(|name| name == DEVICE_FINALIZER)
    }

    /// The merge patch (RFC 7396) that adds or removes the finalizer.
    pub(super) fn finalizer_patch(&self, add: bool) -> Value {
        let mut names = self.object.finalizers.clone();
        names.retain(|name| name != DEVICE_FINALIZER);
        names.extend(add.then(|| DEVICE_FINALIZER.to_owned()));
        json!({ "metadata": { "resourceVersion": self.object.resource_version, "finalizers": names } })
    }

    /// The finalizer was added or removed, which made this version; the watch may have been quicker, which then knows better.
    pub(super) fn finalizer_written(&mut self, add: bool, resource_version: &str) {
        if self.has_finalizer() != add {
            resource_version.clone_into(&mut self.object.resource_version);
            self.object.finalizers.retain(|name| name != DEVICE_FINALIZER);
            self.object.finalizers.extend(add.then(|| DEVICE_FINALIZER.to_owned()));
        }
    }

    /// A write of its finalizers was refused: they are left alone until then.
    pub(super) fn pause_finalizer(&mut self, until_ms: u64) {
        self.finalizer_pause_ms = until_ms;
    }

    /// When its finalizers may be written.
    pub(super) fn finalizer_pause_ms(&self) -> u64 {
        self.finalizer_pause_ms
    }

    /// It was deleted: its device is waited for.
    pub(super) fn begin_release(&mut self, now: Now) {
        debug_assert!(self.release.is_none(), "{} is deleted once", self.key);
        self.release = Some(Release { since_ms: now.ms, done: false });
        self.finalizer_pause_ms = 0;
    }

    /// Nothing is waited for any more.
    pub(super) fn end_release(&mut self) {
        let release = present!(&mut self.release, "what ends has begun");
        release.done = true;
    }

    /// Whether it was deleted.
    pub(super) fn has_release(&self) -> bool {
        self.release.is_some()
    }

    /// Whether it was deleted and nothing is waited for any more.
    pub(super) fn is_released(&self) -> bool {
        self.release.is_some_and(|release| release.done)
    }

    /// Since when its device is waited for, if it is.
    pub(super) fn waits_since_ms(&self) -> Option<u64> {
        self.release.filter(|release| !release.done).map(|release| release.since_ms)
    }
}
