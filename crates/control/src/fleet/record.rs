//! What the index keeps: Applications without their bytes, Devices, and what devices reported.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use wasmbed_api::{
    ApplicationConfig, DEVICE_FINALIZER, DeviceApplication, DeviceApplicationState, DeviceFacts, DevicePhase,
    ReasonCode, RestartPolicy, TargetDevices,
};
use wasmbed_protocol::{ApplicationUid, CorrelationId, ModuleDigest, SpecHash};

use super::{assignment::Assigned, module::ModuleRefusal, published::Published, source::ModuleSource};
use crate::{ObjectKey, rate::TokenBucket};

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
    pub(super) min_ready_s: u32,
    pub(super) correlation: CorrelationId,
    pub(super) prepared: Prepared,
    pub(super) target_ids: BTreeSet<DeviceId>,
    pub(super) published: Published,
    /// What its status says of the assignment of the generation at hand, in case the Module is gone.
    pub(super) known: Option<Known>,
    pub(super) status_written_ms: Option<u64>,
    /// Events about it.
    pub(super) events: TokenBucket,
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
    /// No device can run it. Devices that have an earlier generation keep that, and no other gets it.
    Refused {
        /// What was sent before, if this controller knows it. If not, devices that run it are left alone.
        kept: Option<Arc<Assigned>>,
        /// Why.
        refusal: ModuleRefusal,
    },
    /// Its Module is not there. Devices that have it keep it, and no other gets it.
    ModuleMissing {
        /// What was sent before, if this controller knows it. If not, devices that run it are left alone.
        kept: Option<Arc<Assigned>>,
        /// Whether that is what this generation says, and not what an earlier one said.
        current: bool,
        /// For devices that are to get it.
        refusal: ModuleRefusal,
    },
}

/// The assignment of a generation, as the Application's status names it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Known {
    pub(super) spec_hash: SpecHash,
    pub(super) digest: Option<ModuleDigest>,
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

/// One Device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) key: ObjectKey,
    pub(super) uid: Box<str>,
    pub(super) finalizers: Vec<String>,
    pub(super) deleting: bool,
    pub(super) release: Option<Release>,
    /// A write of its finalizers was refused: none is made before this.
    pub(super) finalizer_pause_ms: u64,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) resource_version: String,
    pub(super) unschedulable: bool,
    pub(super) approved: bool,
    pub(super) revoked: bool,
    pub(super) seen: Seen,
    pub(super) targeted_by: BTreeSet<ApplicationId>,
    pub(super) placements: BTreeMap<ApplicationId, Placement>,
    pub(super) planned: Option<PlannedSet>,
    /// A write of its status or of its finalizers is on its way.
    pub(super) writing: bool,
    /// Applications that it is known to have run to an end for good, each with its assignment.
    pub(super) ended: Vec<(ApplicationUid, SpecHash)>,
    /// What `status.finished` is to say, if it says something else.
    pub(super) finish: Option<Vec<DeviceApplication>>,
    /// The resourceVersion that the last write of it was made for.
    pub(super) finish_version: String,
    /// Applications with a least time of health that it runs.
    pub(super) healthy: BTreeMap<ApplicationUid, Healthy>,
}

/// Since when a device has run an application without an end, as far as this controller saw it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Healthy {
    pub(super) spec_hash: SpecHash,
    pub(super) restarts: i64,
    pub(super) since_ms: u64,
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
    /// `status.finished`, as written and as read.
    pub(super) finished: Vec<(ReportedApplication, DeviceApplication)>,
    /// Its gateway lets it in, whatever `spec.approved` says: enrollment may be open.
    pub(super) enrolled: bool,
    /// Conditions other than `Connected`: a merge patch writes the list as a whole.
    pub(super) other_conditions: Vec<Condition>,
}

impl Device {
    pub(super) fn has_finalizer(&self) -> bool {
        self.finalizers.iter().any(|name| name == DEVICE_FINALIZER)
    }

    /// Whether it belongs to the fleet: strangers that wait for approval and revoked devices are nobody's targets.
    pub(super) fn is_admitted(&self) -> bool {
        !self.revoked && (self.approved || self.seen.enrolled)
    }

    /// The phase to write for a device whose gateway is gone and can't write it, if it shows another one.
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
                | DevicePhase::Rejected
                | DevicePhase::Unknown,
            ) => None,
        }
    }
}

/// What planning made of one Application on one device.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Placement {
    /// It is in the device's set.
    Placed,
    /// It can't run there.
    Refused(ModuleRefusal),
    /// The device is marked unschedulable and does not have it yet.
    Unschedulable,
    /// The device has never said what it is.
    FactsUnknown,
    /// Its Module is missing; the device has it and keeps it.
    Retained,
    /// It gets the place of an ended one, once that one's result is written down.
    Waiting,
    /// It ended here for good and left its place; the result is in `Device.status.finished`.
    Finished,
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
    pub(super) restarts: i64,
}

impl ReportedApplication {
    /// Whether it ended and the device does not start it again, whatever happens to the device.
    pub(super) fn is_over(&self, policy: RestartPolicy) -> bool {
        match self.state {
            DeviceApplicationState::Completed => true,
            // A load that failed is tried again after a reset; a run that failed is not.
            DeviceApplicationState::Failed => {
                policy == RestartPolicy::Never
                    && matches!(
                        self.reason,
                        Some(
                            ReasonCode::ExitedWithError
                                | ReasonCode::Trapped
                                | ReasonCode::CpuLimit
                                | ReasonCode::MemoryLimit
                                | ReasonCode::StackLimit
                        )
                    )
            }
            DeviceApplicationState::Pulling
            | DeviceApplicationState::Starting
            | DeviceApplicationState::Running
            | DeviceApplicationState::CrashLoop
            | DeviceApplicationState::Unknown => false,
        }
    }

    /// Entries whose ids can't be read say nothing about an Application of ours.
    pub(super) fn read(entries: &[DeviceApplication]) -> Vec<Self> {
        entries.iter().filter_map(Self::read_one).collect()
    }

    pub(super) fn read_one(entry: &DeviceApplication) -> Option<Self> {
        Some(Self {
            uid: entry.uid.parse().ok()?,
            spec_hash: entry.spec_hash.parse().ok()?,
            state: entry.state,
            reason: entry.reason,
            message: entry.message.as_str().into(),
            restarts: entry.restarts,
        })
    }
}
