//! Values of the index: names of its records, what devices reported, what planning made of it. Records of what changes are
//! [`Application`](super::application_entry::Application), [`Device`](super::device_entry::Device) and
//! [`Gateway`](super::gateways::Gateway).

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use wasmbed_api::{
    DeviceApplication, DeviceApplicationState, DeviceFacts, DevicePhase, DeviceStatus, ReasonCode,
    RestartPolicy, condition,
};
use wasmbed_protocol::{ApplicationUid, ModuleDigest, SpecHash};

use super::{assignment::Assigned, module::ModuleRefusal};
use crate::Now;

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
    /// Its Module, or what it has from Secrets, is not there. Devices that have it keep it, and no other gets it.
    SourceMissing {
        /// What was sent before, if this controller knows it. If not, devices that run it are left alone.
        kept: Option<Arc<Assigned>>,
        /// Whether that is what this generation says, and not what an earlier one said.
        current: bool,
        /// For devices that are to get it.
        refusal: ModuleRefusal,
    },
}

/// Since when a device has run an application without an end, as far as this controller saw it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Healthy {
    spec_hash: SpecHash,
    restarts: i64,
    since_ms: u64,
}

impl Healthy {
    /// It was seen to run now.
    pub(super) fn begin(report: &ReportedApplication, now: Now) -> Self {
        Self { spec_hash: report.spec_hash, restarts: report.restarts, since_ms: now.ms }
    }

    /// Whether what runs now is still that run.
    pub(super) fn lasts(&self, report: &ReportedApplication) -> bool {
        (self.spec_hash, self.restarts) == (report.spec_hash, report.restarts)
    }

    pub(super) fn since_ms(&self) -> u64 {
        self.since_ms
    }
}

/// What `Device.status` says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    phase: Option<DevicePhase>,
    gateway: Option<String>,
    epoch: u64,
    revision: u64,
    facts: Option<Arc<DeviceFacts>>,
    applications: Vec<ReportedApplication>,
    /// `status.finished`, as read and as written.
    finished: Vec<(ReportedApplication, DeviceApplication)>,
    enrolled: bool,
    other_conditions: Vec<Condition>,
}

impl Seen {
    /// `facts` are those of the status.
    pub(super) fn read(status: &DeviceStatus, facts: Option<Arc<DeviceFacts>>) -> Self {
        let finished = status.finished.iter();
        let others = status.conditions.iter().filter(|shown| shown.type_ != condition::CONNECTED);
        Self {
            phase: Some(status.phase),
            gateway: status.gateway.clone(),
            epoch: status.epoch.and_then(|epoch| u64::try_from(epoch).ok()).unwrap_or(0),
            revision: status.revision.and_then(|revision| u64::try_from(revision).ok()).unwrap_or(0),
            facts,
            applications: ReportedApplication::read(&status.applications),
            finished: finished
                .filter_map(|entry| Some((ReportedApplication::read_one(entry)?, entry.clone())))
                .collect(),
            enrolled: status
                .conditions
                .iter()
                .any(|shown| shown.type_ == condition::ENROLLED && shown.status == "True"),
            other_conditions: others.cloned().collect(),
        }
    }

    /// `None` while it has no status.
    pub(super) fn phase(&self) -> Option<DevicePhase> {
        self.phase
    }

    /// Whether it says that a session is established.
    pub(super) fn is_connected(&self) -> bool {
        self.phase == Some(DevicePhase::Connected)
    }

    /// The gateway of the session that it speaks of.
    pub(super) fn gateway(&self) -> Option<&str> {
        self.gateway.as_deref()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn facts(&self) -> Option<&Arc<DeviceFacts>> {
        self.facts.as_ref()
    }

    /// What the device last reported to run.
    pub(super) fn applications(&self) -> &[ReportedApplication] {
        &self.applications
    }

    /// `status.finished`, each entry as read and as written.
    pub(super) fn finished(&self) -> &[(ReportedApplication, DeviceApplication)] {
        &self.finished
    }

    /// Whether its gateway lets it in, whatever `spec.approved` says: enrollment may be open.
    pub(super) fn is_enrolled(&self) -> bool {
        self.enrolled
    }

    /// Conditions other than `Connected`: a merge patch writes the list as a whole.
    pub(super) fn other_conditions(&self) -> &[Condition] {
        &self.other_conditions
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
    /// Its Module, or what it has from Secrets, is missing; the device has it and keeps it.
    Retained,
    /// It gets the place of an ended one, once that one's result is written down.
    Waiting,
    /// It ended here for good and left its place; the result is in `Device.status.finished`.
    Finished,
}

/// One application as a device reported it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ReportedApplication {
    uid: ApplicationUid,
    spec_hash: SpecHash,
    state: DeviceApplicationState,
    reason: Option<ReasonCode>,
    message: Box<str>,
    restarts: i64,
}

impl ReportedApplication {
    pub(super) fn uid(&self) -> ApplicationUid {
        self.uid
    }

    /// What it runs there.
    pub(super) fn spec_hash(&self) -> SpecHash {
        self.spec_hash
    }

    /// As a member of the device's set.
    pub(super) fn member(&self) -> (ApplicationUid, SpecHash) {
        (self.uid, self.spec_hash)
    }

    pub(super) fn state(&self) -> DeviceApplicationState {
        self.state
    }

    pub(super) fn is_running(&self) -> bool {
        self.state == DeviceApplicationState::Running
    }

    /// Whether it ended with exit code 0.
    pub(super) fn has_succeeded(&self) -> bool {
        self.state == DeviceApplicationState::Completed
            && matches!(self.reason, None | Some(ReasonCode::Exited))
    }

    /// Why it does not run, for people.
    pub(super) fn failure(&self) -> ModuleRefusal {
        let reason = self.reason.unwrap_or_default();
        let message = if self.message.is_empty() { reason.sentence() } else { &self.message };
        ModuleRefusal { reason, message: message.to_owned() }
    }

    /// As an entry of `status.finished`, for the application of this name and its module.
    pub(super) fn to_finished(&self, name: &str, digest: Option<ModuleDigest>) -> DeviceApplication {
        DeviceApplication {
            uid: self.uid.to_string(),
            name: name.to_owned(),
            state: self.state,
            reason: self.reason,
            message: self.message.to_string(),
            digest: digest.map(|digest| digest.prefixed().to_string()),
            spec_hash: self.spec_hash.to_string(),
            restarts: self.restarts,
            memory_bytes: 0,
        }
    }

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

    /// Whether it runs, or will again without anybody's doing.
    pub(super) fn goes_on(&self) -> bool {
        match self.state {
            DeviceApplicationState::Starting
            | DeviceApplicationState::Running
            | DeviceApplicationState::CrashLoop
            | DeviceApplicationState::Unknown => true,
            DeviceApplicationState::Pulling
            | DeviceApplicationState::Completed
            | DeviceApplicationState::Failed => false,
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
