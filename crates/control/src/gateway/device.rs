//! What a gateway knows of one device: the object in Kubernetes, the live truth, the desired set.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use wasmbed_api::{
    Device, DeviceApplication, DeviceApplicationState, DeviceFacts, DevicePhase, DeviceStatus, ReasonCode,
    condition,
};
use wasmbed_protocol::{
    ApplicationReport, ApplicationState, ApplicationUid, CorrelationId, Epoch, Facts, Hello, ModuleDigest,
    ReportReason, SpecHash,
    limits::{NAME_BYTES_MAX, REPORT_MESSAGE_BYTES_MAX, RESET_DETAIL_BYTES_MAX},
};
use wasmbed_scan::Features;

use super::{
    allowance::Allowance, connections::Boot, input::SessionId, logs::Places, sets::Set, trouble::Trouble,
    writer::WriteState,
};
use crate::{Now, ObjectKey, UnixTime, gateway_api::DeviceView, harmless, intern::hash_of, key::short_name};

/// One device, known from Kubernetes, from the disk, from a controller or from its own connection.
#[derive(Debug)]
pub(super) struct DeviceEntry {
    pub(super) key: Arc<ObjectKey>,
    /// The Device object, once seen.
    pub(super) object: Option<ObservedDevice>,
    /// The key with which it was last let in, as it is on disk.
    pub(super) admitted_key: Option<Arc<str>>,
    /// `metadata.uid` as it is on disk.
    pub(super) stored_uid: Option<Arc<str>>,
    /// When it became known without an object.
    pub(super) unseen_since_ms: u64,
    /// Which list of Devices it was last seen in or after.
    pub(super) listing: u64,
    /// The session that is established or about to be.
    pub(super) session: Option<SessionId>,
    /// A session whose Hello waits for the Device to be created.
    pub(super) awaiting: Option<SessionId>,
    /// What its sessions in this process showed.
    pub(super) live: Option<Box<SessionView>>,
    pub(super) set: Option<Arc<Set>>,
    /// A newer set on its way to the disk.
    pub(super) staged: Option<Arc<Set>>,
    /// Highest revision seen from the device, held, or on its way to the disk.
    pub(super) revision_seen: u64,
    /// What the device's revisions are counted from; see [`super::counters`].
    pub(super) revision_base: u64,
    /// Why it was last turned away, if that still is so.
    pub(super) rejected: Option<ReasonCode>,
    /// When it comes back at the latest, if it was given a retry time.
    pub(super) returns_by: Option<Now>,
    /// Boxed: few have any.
    pub(super) trouble: Option<Box<Trouble>>,
    pub(super) write: WriteState,
    pub(super) allowance: Allowance,
}

impl DeviceEntry {
    pub(super) fn new(now: Now, key: Arc<ObjectKey>) -> Self {
        Self {
            key,
            object: None,
            admitted_key: None,
            stored_uid: None,
            unseen_since_ms: now.ms,
            listing: 0,
            session: None,
            awaiting: None,
            live: None,
            set: None,
            staged: None,
            revision_seen: 0,
            revision_base: 0,
            rejected: None,
            returns_by: None,
            trouble: None,
            write: WriteState::default(),
            allowance: Allowance::default(),
        }
    }

    /// Whether the gateway's set may be given to the device: it is not older than what the device holds.
    pub(super) fn desired_known(&self) -> bool {
        self.set.as_ref().is_some_and(|set| set.revision >= self.revision_seen)
    }

    /// The whole view, as controllers read it.
    pub(super) fn view(&self) -> DeviceView {
        let live = self.live.as_deref();
        DeviceView {
            device: (*self.key).clone(),
            connected: live.is_some_and(|live| live.connected && live.established),
            epoch: live.map_or(0, |live| live.epoch.0),
            revision_seen: self.revision_seen,
            revision_held: self.set.as_ref().map(|set| set.revision),
            revision_reported: live.and_then(|live| live.revision_reported),
            facts: live.and_then(|live| live.facts.as_deref().cloned()),
            applications: live
                .and_then(|live| live.applications.as_ref())
                .map(|applications| applications.iter().map(Application::to_resource).collect()),
        }
    }
}

/// What a session in this process showed of the device.
#[derive(Debug)]
pub(super) struct SessionView {
    pub(super) epoch: Epoch,
    /// Which start of the device speaks.
    pub(super) boot: Boot,
    /// Orders the device's starts, once it has reported a number.
    pub(super) start: Option<u64>,
    /// Lines of its applications.
    pub(super) logs: Places,
    /// The epoch that is acknowledged to the device.
    pub(super) acknowledged_epoch: Epoch,
    /// A report counts up to this revision, or one that was set here; reports do not move it.
    pub(super) revision_limit: u64,
    /// Numbers of the device that were not believed, for people.
    pub(super) complaint: Option<Box<str>>,
    /// Whether the connection is there.
    pub(super) connected: bool,
    /// Whether Welcome was given.
    pub(super) established: bool,
    /// Why the session ended.
    pub(super) ended: Option<ReasonCode>,
    /// When the session began.
    pub(super) since: Now,
    pub(super) last_heard: Now,
    pub(super) facts: Option<Arc<DeviceFacts>>,
    pub(super) facts_hash: u64,
    pub(super) revision_reported: Option<u64>,
    pub(super) applications: Option<Vec<Application>>,
    /// Of the applications, memory in use aside.
    pub(super) applications_hash: u64,
}

/// One application, as the device last reported it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Application {
    pub(super) uid: ApplicationUid,
    pub(super) name: Option<Arc<str>>,
    pub(super) spec_hash: SpecHash,
    pub(super) digest: Option<ModuleDigest>,
    pub(super) state: ApplicationState,
    pub(super) reason: ReportReason,
    pub(super) message: Box<str>,
    pub(super) restarts: u32,
    pub(super) memory_bytes: u64,
    /// The last failure that made an Event, so that a crash loop is one Event.
    pub(super) last_reported_failure: Option<ReportReason>,
    pub(super) correlation_id: CorrelationId,
}

impl Application {
    pub(super) fn new(report: &ApplicationReport<'_>, name: Option<Arc<str>>) -> Self {
        Self {
            uid: report.uid,
            name,
            spec_hash: report.spec_hash,
            digest: report.digest,
            state: report.state,
            reason: report.reason,
            message: harmless(report.message, REPORT_MESSAGE_BYTES_MAX).into(),
            restarts: report.restarts,
            memory_bytes: report.memory_bytes,
            last_reported_failure: None,
            correlation_id: report.correlation_id,
        }
    }

    pub(super) fn failed(&self) -> bool {
        matches!(self.state, ApplicationState::Failed | ApplicationState::CrashLoop)
    }

    pub(super) fn to_resource(&self) -> DeviceApplication {
        DeviceApplication {
            uid: self.uid.to_string(),
            name: self.name.as_deref().map(|name| short_name(name).to_owned()).unwrap_or_default(),
            state: match self.state {
                ApplicationState::Pulling => DeviceApplicationState::Pulling,
                ApplicationState::Starting => DeviceApplicationState::Starting,
                ApplicationState::Running => DeviceApplicationState::Running,
                ApplicationState::Completed => DeviceApplicationState::Completed,
                ApplicationState::CrashLoop => DeviceApplicationState::CrashLoop,
                ApplicationState::Failed => DeviceApplicationState::Failed,
                ApplicationState::Unknown(_) => DeviceApplicationState::Unknown,
            },
            reason: reason_code(self.reason),
            message: self.message.to_string(),
            digest: self.digest.map(|digest| digest.prefixed().to_string()),
            spec_hash: self.spec_hash.to_string(),
            restarts: i64::from(self.restarts),
            memory_bytes: i64::try_from(self.memory_bytes).unwrap_or(i64::MAX),
        }
    }
}

/// The reason of a report as resources name it; `None` if there is nothing to say.
pub(super) fn reason_code(reason: ReportReason) -> Option<ReasonCode> {
    Some(match reason {
        ReportReason::None => return None,
        ReportReason::Exited => ReasonCode::Exited,
        ReportReason::ExitedWithError => ReasonCode::ExitedWithError,
        ReportReason::Trapped => ReasonCode::Trapped,
        ReportReason::CpuLimit => ReasonCode::CpuLimit,
        ReportReason::MemoryLimit => ReasonCode::MemoryLimit,
        ReportReason::StackLimit => ReasonCode::StackLimit,
        ReportReason::DigestMismatch => ReasonCode::DigestMismatch,
        ReportReason::InvalidModule => ReasonCode::InvalidModule,
        ReportReason::UnknownImport => ReasonCode::UnknownImport,
        ReportReason::CapabilityDenied => ReasonCode::CapabilityDenied,
        ReportReason::OutOfMemory => ReasonCode::OutOfMemory,
        ReportReason::OutOfFlash => ReasonCode::OutOfFlash,
        ReportReason::ModuleGone => ReasonCode::ModuleGone,
        ReportReason::Unsupported => ReasonCode::Unsupported,
        ReportReason::TooManyApplications => ReasonCode::TooManyApplications,
        ReportReason::StorageFailed => ReasonCode::StorageFailed,
        ReportReason::Unknown(_) => ReasonCode::Unknown,
    })
}

/// The Device object: what its owner wants, and the status that later writes are diffed against.
#[derive(Debug)]
pub(super) struct ObservedDevice {
    pub(super) uid: Arc<str>,
    pub(super) resource_version: Box<str>,
    pub(super) generation: Option<i64>,
    pub(super) approved: bool,
    pub(super) revoked: bool,
    pub(super) public_key: Option<Arc<str>>,
    pub(super) base: LastWritten,
}

/// A text, held once with an equal one of `held`.
pub(super) fn shared(text: &str, held: [Option<&Arc<str>>; 2]) -> Arc<str> {
    held.into_iter().flatten().find(|held| ***held == *text).map_or_else(|| text.into(), Arc::clone)
}

/// Conditions of a Device that its gateway writes.
const OWN_CONDITIONS: [&str; 5] = [
    condition::CONNECTED,
    condition::ENROLLED,
    condition::CLONE_SUSPECTED,
    condition::KEY_MISMATCH,
    condition::COUNTERS,
];

/// Device.status as it is in Kubernetes, as far as a writer needs it.
#[derive(Debug, Default)]
pub(super) struct LastWritten {
    pub(super) phase: DevicePhase,
    pub(super) gateway: Option<String>,
    pub(super) epoch: u64,
    pub(super) last_heartbeat_unix_ms: u64,
    pub(super) connected_since_unix_ms: Option<u64>,
    pub(super) revision: Option<i64>,
    pub(super) observed_generation: Option<i64>,
    pub(super) facts_hash: u64,
    pub(super) applications_hash: u64,
    pub(super) connected: Option<ObservedCondition>,
    pub(super) enrolled: Option<ObservedCondition>,
    pub(super) clone: Option<ObservedCondition>,
    pub(super) mismatch: Option<ObservedCondition>,
    pub(super) counters: Option<ObservedCondition>,
    /// Conditions of others, which a merge patch has to repeat: it replaces the list as a whole.
    pub(super) other_conditions: Vec<Condition>,
}

/// A condition as it is in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObservedCondition {
    pub(super) status: bool,
    pub(super) reason: String,
    pub(super) since: UnixTime,
}

impl ObservedDevice {
    /// `None` if it lacks what the API server always sets.
    pub(super) fn new(device: &Device) -> Option<Self> {
        Some(Self {
            uid: device.metadata.uid.as_deref()?.into(),
            resource_version: device.metadata.resource_version.as_deref()?.into(),
            generation: device.metadata.generation,
            approved: device.spec.approved,
            revoked: device.spec.revoked,
            public_key: device.spec.public_key.as_deref().map(Arc::from),
            base: device.status.as_ref().map(LastWritten::new).unwrap_or_default(),
        })
    }

    /// Takes texts that the record holds already, so that each is held once.
    pub(super) fn share(&mut self, record: &DeviceEntry) {
        let known = record.object.as_ref();
        let uids = [known.map(|known| &known.uid), record.stored_uid.as_ref()];
        self.uid = shared(&self.uid, uids);
        if let Some(key) = &mut self.public_key {
            *key = shared(
                key,
                [known.and_then(|known| known.public_key.as_ref()), record.admitted_key.as_ref()],
            );
        }
    }

    /// Whether this is older than `other`. Versions are compared as numbers (KEP-5504); others count as newer.
    pub(super) fn is_older_than(&self, other: &Self) -> bool {
        let number = |object: &Self| object.resource_version.parse::<u64>().ok();
        matches!((number(self), number(other)), (Some(own), Some(other)) if own < other)
    }

    /// Whether both are the same version of the same object.
    pub(super) fn is_version_of(&self, other: &Self) -> bool {
        self.uid == other.uid && self.resource_version == other.resource_version
    }
}

impl LastWritten {
    /// Epoch and revision.
    pub(super) fn counters(&self) -> (u64, u64) {
        (self.epoch, self.revision.and_then(|revision| u64::try_from(revision).ok()).unwrap_or(0))
    }

    fn new(status: &DeviceStatus) -> Self {
        let shown = |name: &str| {
            status.conditions.iter().find(|condition| condition.type_ == name).map(|condition| {
                ObservedCondition {
                    status: condition.status == "True",
                    reason: condition.reason.clone(),
                    since: UnixTime::from_ms(
                        u64::try_from(condition.last_transition_time.0.as_millisecond()).unwrap_or(0),
                    ),
                }
            })
        };
        let unix_ms = |text: Option<&str>| text.and_then(UnixTime::parse).map(|time| time.ms);
        Self {
            phase: status.phase,
            gateway: status.gateway.clone(),
            epoch: status.epoch.and_then(|epoch| u64::try_from(epoch).ok()).unwrap_or(0),
            last_heartbeat_unix_ms: unix_ms(status.last_heartbeat.as_deref()).unwrap_or(0),
            connected_since_unix_ms: unix_ms(status.connected_since.as_deref()),
            revision: status.revision,
            observed_generation: status.observed_generation,
            facts_hash: status.facts.as_ref().map_or(0, hash_of),
            applications_hash: applications_hash(status.applications.iter().cloned()),
            connected: shown(condition::CONNECTED),
            enrolled: shown(condition::ENROLLED),
            clone: shown(condition::CLONE_SUSPECTED),
            mismatch: shown(condition::KEY_MISMATCH),
            counters: shown(condition::COUNTERS),
            other_conditions: status
                .conditions
                .iter()
                .filter(|shown| !OWN_CONDITIONS.contains(&shown.type_.as_str()))
                .cloned()
                .collect(),
        }
    }
}

/// Hash of what runs, memory in use aside: it moves all the time and is not worth a write.
pub(super) fn applications_hash(applications: impl Iterator<Item = DeviceApplication>) -> u64 {
    let quiet: Vec<_> =
        applications.map(|application| DeviceApplication { memory_bytes: 0, ..application }).collect();
    if quiet.is_empty() { 0 } else { hash_of(&quiet) }
}

/// A Hello's facts in the form of Device.status.
pub(super) fn facts_to_resource(hello: &Hello<'_>) -> DeviceFacts {
    let Facts { board, firmware, engine, memory_bytes, flash_bytes, load_permille, .. } = hello.facts;
    let features = Features::from_bits(hello.facts.features);
    let name = |text| harmless(text, NAME_BYTES_MAX).into_owned();
    let mut reset_reason = hello.reset_reason.name().to_owned();
    if !hello.reset_detail.is_empty() {
        reset_reason.push_str(": ");
        reset_reason.push_str(&harmless(hello.reset_detail, RESET_DETAIL_BYTES_MAX));
    }
    DeviceFacts {
        board: name(board),
        firmware: name(firmware),
        engine: name(engine),
        memory_bytes: i64::try_from(memory_bytes).unwrap_or(i64::MAX),
        flash_bytes: i64::try_from(flash_bytes).unwrap_or(i64::MAX),
        load_permille: i32::try_from(load_permille).unwrap_or(i32::MAX),
        module_bytes_max: i64::from(hello.facts.module_bytes_max),
        applications_max: i32::from(hello.facts.applications_max),
        features: Features::NAMES
            .iter()
            .filter(|(feature, _)| features.contains(*feature))
            .map(|(_, name)| (*name).to_owned())
            .collect(),
        host_functions: hello
            .facts
            .imports
            .iter()
            .flat_map(|import| {
                import
                    .functions
                    .iter()
                    .map(move |function| format!("{}.{}", name(import.module), name(function)))
            })
            .collect(),
        capabilities: hello.facts.capabilities.iter().map(name).collect(),
        reset_reason: Some(reset_reason),
    }
}
