//! What the index keeps: Applications without their bytes, Devices, and what devices reported.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use wasmbed_api::{
    ApplicationConfig, DEVICE_FINALIZER, DeviceApplication, DeviceApplicationState, DeviceFacts, DevicePhase,
    ReasonCode, TargetDevices,
};
use wasmbed_protocol::{ApplicationUid, CorrelationId, SpecHash};

use super::assignment::Assigned;
use super::input::{ModuleSource, ObjectKey};
use super::module::ModuleRefusal;
use super::status::Published;
use crate::exchange::DeviceKey;
use crate::text;
use crate::tokens::Bucket;

/// An Application's place in the index; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ApplicationId(pub(super) u32);

/// A Device's place in the index; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DeviceId(pub(super) u32);

/// One Application.
#[derive(Debug)]
pub(super) struct Application {
    pub(super) key: ObjectKey,
    pub(super) uid: ApplicationUid,
    pub(super) resource_version: String,
    pub(super) generation: i64,
    pub(super) created_unix_s: i64,
    pub(super) deleting: bool,
    pub(super) finalizers: Vec<String>,
    pub(super) source: ModuleSource,
    pub(super) targets: Option<Box<TargetDevices>>,
    pub(super) config: ApplicationConfig,
    pub(super) correlation: CorrelationId,
    pub(super) prepared: Prepared,
    pub(super) target_ids: BTreeSet<DeviceId>,
    pub(super) published: Published,
    /// When its status is to be looked at.
    pub(super) status_due_ms: Option<u64>,
    pub(super) status_written_ms: Option<u64>,
    /// Events about it.
    pub(super) events: Bucket,
    /// A write of its status or finalizers is on its way.
    pub(super) writing: bool,
    /// The resourceVersion that the last write was made for. The watch may bring a newer one before the answer comes.
    pub(super) written_version: String,
    /// No write of this resourceVersion will be taken: the watch brings a newer one.
    pub(super) conflicted: bool,
    pub(super) undeploy: Option<Undeploy>,
}

/// What an Application's current generation is to devices.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Prepared {
    /// It can be sent.
    Ready(Arc<Assigned>),
    /// No device can run it: devices are to let go of it.
    Refused(ModuleRefusal),
    /// Its Module is not there. What was sent stays, if this controller still knows it; if not, devices that run it are
    /// left alone.
    ModuleMissing(Option<Arc<Assigned>>),
}

/// A deletion that waits for devices.
#[derive(Clone, Debug)]
pub(super) struct Undeploy {
    pub(super) since_ms: u64,
    /// Those that had it, or may have had it, when the deletion was seen.
    pub(super) devices: BTreeSet<DeviceId>,
}

/// A deletion of a Device that waits for the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Release {
    pub(super) since_ms: u64,
    /// Nothing is waited for any more: the finalizer goes.
    pub(super) done: bool,
}

/// When the finalizers of a Device are to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FinalizerDue {
    pub(super) at_ms: u64,
    /// A deletion waits for it.
    pub(super) releases: bool,
}

/// One Device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) key: DeviceKey,
    pub(super) uid: Box<str>,
    pub(super) finalizers: Vec<String>,
    pub(super) deleting: bool,
    pub(super) release: Option<Release>,
    pub(super) finalizer_due: Option<FinalizerDue>,
    /// A write of its finalizers was refused: none is made before this.
    pub(super) finalizer_pause_ms: u64,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) resource_version: String,
    pub(super) unschedulable: bool,
    pub(super) revoked: bool,
    pub(super) approved: bool,
    pub(super) seen: Seen,
    pub(super) targeted_by: BTreeSet<ApplicationId>,
    pub(super) verdicts: BTreeMap<ApplicationId, Verdict>,
    pub(super) planned: Option<PlannedSet>,
    /// An Unreachable mark or a change of its finalizers is on its way.
    pub(super) writing: bool,
}

/// What `Device.status` says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) phase: Option<DevicePhase>,
    pub(super) connected: bool,
    pub(super) gateway: Option<String>,
    pub(super) epoch: u64,
    pub(super) revision: u64,
    pub(super) facts: Option<Arc<DeviceFacts>>,
    pub(super) applications: Vec<ReportedApplication>,
    /// Conditions other than `Connected`: a merge patch writes the list as a whole.
    pub(super) other_conditions: Vec<Condition>,
}

impl Device {
    pub(super) fn has_finalizer(&self) -> bool {
        self.finalizers.iter().any(|name| name == DEVICE_FINALIZER)
    }

    /// The phase to write for a device whose gateway is gone and can't write it, if another stands there.
    pub(super) fn phase_without_gateway(&self) -> Option<DevicePhase> {
        match (self.revoked, self.seen.phase?) {
            (true, DevicePhase::Revoked) => None,
            (true, _) => Some(DevicePhase::Revoked),
            (false, DevicePhase::Connected | DevicePhase::Revoked) => Some(DevicePhase::Unreachable),
            (
                false,
                DevicePhase::Pending
                | DevicePhase::Enrolled
                | DevicePhase::Disconnected
                | DevicePhase::Unreachable
                | DevicePhase::Rejected,
            ) => None,
        }
    }
}

/// What planning made of one Application on one device.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// It is in the device's set.
    Placed,
    /// It can't run there.
    Refused(ModuleRefusal),
    /// The device is marked unschedulable and does not have it yet.
    Unschedulable,
    /// The device has never said what it is.
    FactsUnknown,
    /// Its Module is missing.
    Held,
}

/// The desired set of a device.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PlannedSet {
    pub(super) revision: u64,
    pub(super) content: SetContent,
    pub(super) members: Vec<ApplicationId>,
    /// A gateway may have seen it: its revision can't be given to other content any more.
    pub(super) issued: bool,
    /// What was issued before, while this one is not: the fleet may come back to it.
    pub(super) before: Option<(u64, SetContent)>,
}

/// Members of a set by UID, each with what it is to run.
pub(super) type SetContent = Vec<(ApplicationUid, SpecHash)>;

/// One application as a device reported it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ReportedApplication {
    pub(super) uid: ApplicationUid,
    pub(super) spec_hash: SpecHash,
    pub(super) state: DeviceApplicationState,
    pub(super) reason: Option<ReasonCode>,
    pub(super) message: Box<str>,
}

impl ReportedApplication {
    /// Entries whose ids can't be read say nothing about an Application of ours.
    pub(super) fn read(entries: &[DeviceApplication]) -> Vec<Self> {
        let read = |entry: &DeviceApplication| {
            Some(Self {
                uid: text::parse_uid(&entry.uid)?,
                spec_hash: text::parse_spec_hash(&entry.spec_hash)?,
                state: entry.state,
                reason: entry.reason,
                message: entry.message.as_str().into(),
            })
        };
        entries.iter().filter_map(read).collect()
    }
}

/// Equal facts are kept once: a fleet of one board has one list of host functions.
#[derive(Debug, Default)]
pub(super) struct FactsPool(BTreeMap<u64, Vec<Arc<DeviceFacts>>>);

impl FactsPool {
    pub(super) fn intern(&mut self, facts: &DeviceFacts) -> Arc<DeviceFacts> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        // Why a device last started differs from device to device and means nothing to a plan.
        let facts = DeviceFacts { reset_reason: None, ..facts.clone() };
        let mut hasher = DefaultHasher::new();
        (&facts.board, &facts.firmware, &facts.engine, facts.memory_bytes, facts.flash_bytes)
            .hash(&mut hasher);
        (&facts.host_functions, &facts.features, &facts.capabilities).hash(&mut hasher);
        let bucket = self.0.entry(hasher.finish()).or_default();
        bucket.retain(|known| Arc::strong_count(known) > 1 || **known == facts);
        if let Some(known) = bucket.iter().find(|known| ***known == facts) {
            return Arc::clone(known);
        }
        let facts = Arc::new(facts);
        bucket.push(Arc::clone(&facts));
        facts
    }

    /// Forgets what no device has any more.
    pub(super) fn sweep(&mut self) {
        self.0.retain(|_, bucket| {
            bucket.retain(|known| Arc::strong_count(known) > 1);
            !bucket.is_empty()
        });
    }
}
