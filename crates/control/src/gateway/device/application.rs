//! One application of a device, as its reports show it.

use std::sync::Arc;

use wasmbed_api::{DeviceApplication, DeviceApplicationState, ReasonCode};
use wasmbed_protocol::{
    ApplicationReport, ApplicationState, ApplicationUid, CorrelationId, ModuleDigest, ReportReason, SpecHash,
    Trap, TrapKind, limits::REPORT_MESSAGE_BYTES_MAX,
};

use crate::{
    Now, ObjectKey,
    gateway::input::Notice,
    harmless,
    intern::hash_of,
    key::short_name,
    kubernetes::{Event, Regarding},
};

/// A stack trace in an Event. Of the 1,024 bytes that Kubernetes takes (`events.k8s.io/v1`, `note`), the application's name may
/// be 317.
const TRAP_BYTES_MAX: usize = 690;

/// One application, as the device last reported it.
///
/// It is made from a report and the one before ([`Application::new`]) and then only read, but for
/// [`Application::begin_failure`], which is true once for each failure that differs from the one before.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::gateway) struct Application {
    uid: ApplicationUid,
    name: Option<Arc<str>>,
    spec_hash: SpecHash,
    digest: Option<ModuleDigest>,
    state: ApplicationState,
    reason: ReportReason,
    message: Box<str>,
    restarts: u32,
    memory_bytes: u64,
    /// The last failure that made an Event, so that a crash loop is one Event.
    last_reported_failure: Option<ReportReason>,
    correlation_id: CorrelationId,
}

impl Application {
    /// As `report` shows it after `earlier`; `name` as its set says, if it has one.
    pub(super) fn new(
        report: &ApplicationReport<'_>,
        earlier: Option<&Self>,
        name: Option<Arc<str>>,
    ) -> Self {
        debug_assert!(earlier.is_none_or(|earlier| earlier.uid == report.uid));
        let same = earlier.filter(|earlier| earlier.spec_hash == report.spec_hash);
        Self {
            uid: report.uid,
            name: name.or_else(|| earlier?.name.clone()),
            spec_hash: report.spec_hash,
            digest: report.digest,
            state: report.state,
            reason: report.reason,
            message: harmless(report.message, REPORT_MESSAGE_BYTES_MAX).into(),
            restarts: report.restarts,
            memory_bytes: report.memory_bytes,
            last_reported_failure: same.and_then(|earlier| earlier.last_reported_failure),
            correlation_id: report.correlation_id,
        }
    }

    pub(in crate::gateway) fn uid(&self) -> ApplicationUid {
        self.uid
    }

    /// `namespace/name`, if anybody has named it.
    pub(super) fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    /// Whether it is in the same state of the same assignment.
    pub(super) fn is_as(&self, earlier: &Self) -> bool {
        (self.spec_hash, self.state, self.reason) == (earlier.spec_hash, earlier.state, earlier.reason)
    }

    pub(in crate::gateway) fn failed(&self) -> bool {
        matches!(self.state, ApplicationState::Failed | ApplicationState::CrashLoop)
    }

    /// Whether it failed and no Event tells of that yet; one does from now on.
    pub(super) fn begin_failure(&mut self) -> bool {
        self.failed() && self.last_reported_failure.replace(self.reason) != Some(self.reason)
    }

    /// What the process's log says of it.
    pub(super) fn notice(&self, device: &Arc<ObjectKey>) -> Notice {
        Notice::Reported {
            device: Arc::clone(device),
            application: self.display_name(),
            state: self.state.name(),
            reason: self.reason.name(),
            correlation_id: self.correlation_id,
        }
    }

    /// The Event about its failure; `uid` is the Device's.
    pub(super) fn failure(&self, now: Now, device: &ObjectKey, uid: &str) -> Event {
        let reason = reason_code(self.reason).unwrap_or_default();
        let mut message = format!("application {}: {}", self.display_name(), reason.sentence());
        if !self.message.is_empty() {
            message.push_str(" (");
            message.push_str(&self.message);
            message.push(')');
        }
        Event {
            regarding: Regarding::device(device.clone(), uid),
            warning: true,
            reason,
            message,
            unix_ms: now.unix_ms,
        }
    }

    /// Whether a trap ended it, whatever its reason is called.
    pub(super) fn trapped(&self) -> bool {
        matches!(self.reason, ReportReason::Trapped | ReportReason::StackLimit | ReportReason::MemoryLimit)
    }

    fn display_name(&self) -> Arc<str> {
        self.name.clone().unwrap_or_else(|| self.uid.to_string().into())
    }

    pub(in crate::gateway) fn to_resource(&self) -> DeviceApplication {
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

    /// The Event about a trap: what happened in which function, and who called that.
    pub(super) fn trap_event(
        now: Now,
        device: &ObjectKey,
        uid: &str,
        application: Option<&str>,
        trap: &Trap<'_>,
    ) -> Event {
        let reason = match trap.kind {
            TrapKind::StackOverflow => ReasonCode::StackLimit,
            TrapKind::MemoryLimit => ReasonCode::MemoryLimit,
            _ => ReasonCode::Trapped,
        };
        let name = application.map_or_else(|| trap.uid.to_string(), str::to_owned);
        let message = format!("application {name}: {}", harmless(&trap.to_string(), TRAP_BYTES_MAX));
        Event {
            regarding: Regarding::device(device.clone(), uid),
            warning: true,
            reason,
            message,
            unix_ms: now.unix_ms,
        }
    }
}

/// The reason of a report as resources name it; `None` if there is nothing to say.
fn reason_code(reason: ReportReason) -> Option<ReasonCode> {
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

/// Hash of what runs, memory in use aside: it moves all the time and is not worth a write.
pub(super) fn applications_hash(applications: impl Iterator<Item = DeviceApplication>) -> u64 {
    let quiet: Vec<_> =
        applications.map(|application| DeviceApplication { memory_bytes: 0, ..application }).collect();
    if quiet.is_empty() { 0 } else { hash_of(&quiet) }
}
