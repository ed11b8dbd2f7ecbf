//! Values of the index: names of its records, what devices reported, what planning made of it. Records of what changes are
//! [`Application`](super::application_entry::Application), [`Device`](super::device_entry::Device) and
//! [`Gateway`](super::gateways::Gateway).

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use wasmbed_api::{
    DeviceApplication, DeviceApplicationState, DeviceFacts, DevicePhase, ReasonCode, RestartPolicy,
};
use wasmbed_protocol::{ApplicationUid, ModuleDigest, SpecHash};

use super::{assignment::Assigned, module::ModuleRefusal};

/// An Application's place in the index; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ApplicationId(pub u32);

/// A Device's place in the index; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DeviceId(pub u32);

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
    pub spec_hash: SpecHash,
    pub digest: Option<ModuleDigest>,
}

/// A deletion that waits for devices.
#[derive(Clone, Debug)]
pub(super) struct Undeploy {
    pub since_ms: u64,
    /// Those that had it, or may have had it, when the deletion was seen.
    pub devices: BTreeSet<DeviceId>,
}

/// Since when a device has run an application without an end, as far as this controller saw it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Healthy {
    pub spec_hash: SpecHash,
    pub restarts: i64,
    pub since_ms: u64,
}

/// What `Device.status` says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub phase: Option<DevicePhase>,
    pub connected: bool,
    pub gateway: Option<String>,
    pub epoch: u64,
    pub revision: u64,
    pub facts: Option<Arc<DeviceFacts>>,
    pub applications: Vec<ReportedApplication>,
    /// `status.finished`, as written and as read.
    pub finished: Vec<(ReportedApplication, DeviceApplication)>,
    /// Its gateway lets it in, whatever `spec.approved` says: enrollment may be open.
    pub enrolled: bool,
    /// Conditions other than `Connected`: a merge patch writes the list as a whole.
    pub other_conditions: Vec<Condition>,
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

/// One application as a device reported it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ReportedApplication {
    pub uid: ApplicationUid,
    pub spec_hash: SpecHash,
    pub state: DeviceApplicationState,
    pub reason: Option<ReasonCode>,
    pub message: Box<str>,
    pub restarts: i64,
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
