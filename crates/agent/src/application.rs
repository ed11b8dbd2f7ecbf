//! One member of the desired set on this device.
//!
//! An application has a `current` assignment, which runs, and a `next` one while a new one is being fetched: the old one
//! goes on until everything for the new one is on storage.
//!
//! ```text
//! next:     spec missing -> module missing -> both held and durable ----> becomes current
//!                \______________/
//!               stuck (retried, or for good)
//!
//! current:  Ready -> Starting -> Running -+-> Completed
//!             ^         |                 |
//!             |         +-> Failed        +-> BackOff --(1 s doubling to 5 min)--> Ready
//!             |              |            |
//!             +--(if worth)--+            +-> Failed   (policy Never)
//! ```

use alloc::{string::String, vec::Vec};

use wasmbed_protocol::{
    ApplicationReport, ApplicationState, ApplicationUid, CorrelationId, ModuleDigest, ReportReason,
    RestartPolicy, SpecHash, limits::REPORT_MESSAGE_BYTES_MAX,
};

use crate::{
    backoff::{RESTART, RESTART_RESET_MS, ROOM},
    effect::RunId,
    log::LogQueue,
    record::{StoredApplication, StoredCurrent, StoredNext},
    text::clip,
};

/// An assignment whose spec was checked and can be run by this firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) spec_hash: SpecHash,
    pub(crate) spec: Vec<u8>,
    pub(crate) correlation_id: CorrelationId,
    pub(crate) digest: ModuleDigest,
    pub(crate) module_bytes: u32,
    pub(crate) policy: RestartPolicy,
}

/// A reason with its text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Why {
    pub(crate) reason: ReportReason,
    pub(crate) message: String,
}

impl Why {
    pub(crate) const NONE: Self = Self { reason: ReportReason::None, message: String::new() };

    pub(crate) fn new(reason: ReportReason, message: &str) -> Self {
        Self { reason, message: String::from(clip(message, REPORT_MESSAGE_BYTES_MAX)) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// To be loaded as soon as its assignment is durable.
    Ready,
    Starting(RunId),
    Running {
        run: RunId,
        since_ms: u64,
    },
    BackOff {
        until_ms: u64,
    },
    Completed,
    Failed {
        retry_at_ms: Option<u64>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Current {
    pub(crate) held: Held,
    pub(crate) phase: Phase,
    pub(crate) why: Why,
    /// Starts after the first one.
    pub(crate) restarts: u32,
    /// Ends in a row, each after a short run.
    pub(crate) failures: u32,
    /// Loads in a row that found no room.
    pub(crate) refusals: u32,
}

impl Current {
    pub(crate) fn new(held: Held) -> Self {
        Self { held, phase: Phase::Ready, why: Why::NONE, restarts: 0, failures: 0, refusals: 0 }
    }

    pub(crate) fn run(&self) -> Option<RunId> {
        match self.phase {
            Phase::Starting(run) | Phase::Running { run, .. } => Some(run),
            Phase::Ready | Phase::BackOff { .. } | Phase::Completed | Phase::Failed { .. } => None,
        }
    }

    pub(crate) fn handle_started(&mut self, run: RunId, now_ms: u64) {
        self.phase = Phase::Running { run, since_ms: now_ms };
        self.why = Why::NONE;
        self.refusals = 0;
    }

    /// The load failed. Lack of memory may pass; everything else is the module's or the assignment's fault and stays.
    pub(crate) fn handle_refused(&mut self, why: Why, now_ms: u64) {
        let worth_another_try = matches!(why.reason, ReportReason::OutOfMemory | ReportReason::StorageFailed);
        self.refusals = self.refusals.saturating_add(1);
        let retry_at_ms = worth_another_try.then(|| now_ms.saturating_add(ROOM.delay_ms(self.refusals)));
        self.why = why;
        self.phase = Phase::Failed { retry_at_ms };
    }

    /// The run ended by itself or was ended by the sandbox.
    pub(crate) fn handle_ended(&mut self, why: Why, now_ms: u64) {
        let good_run = matches!(self.phase, Phase::Running { since_ms, .. } if now_ms.saturating_sub(since_ms) >= RESTART_RESET_MS);
        let succeeded = why.reason == ReportReason::Exited;
        self.why = why;
        let restart = match self.held.policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => !succeeded,
            // An assignment with an unknown policy was refused before it became current.
            RestartPolicy::Never | RestartPolicy::Unknown(_) => false,
        };
        self.phase = if restart {
            self.failures = if good_run { 1 } else { self.failures.saturating_add(1) };
            Phase::BackOff { until_ms: now_ms.saturating_add(RESTART.delay_ms(self.failures)) }
        } else if succeeded {
            Phase::Completed
        } else {
            Phase::Failed { retry_at_ms: None }
        };
    }

    /// A pause is over: true if it is to be loaded again.
    pub(crate) fn handle_timeout(&mut self, now_ms: u64) -> bool {
        match self.phase {
            Phase::BackOff { until_ms } if until_ms <= now_ms => {
                self.phase = Phase::Ready;
                self.restarts = self.restarts.saturating_add(1);
                true
            }
            Phase::Failed { retry_at_ms: Some(at) } if at <= now_ms => {
                self.phase = Phase::Ready;
                true
            }
            Phase::Ready
            | Phase::Starting(_)
            | Phase::Running { .. }
            | Phase::BackOff { .. }
            | Phase::Completed
            | Phase::Failed { .. } => false,
        }
    }

    pub(crate) fn timeout(&self) -> Option<u64> {
        match self.phase {
            Phase::BackOff { until_ms } => Some(until_ms),
            Phase::Failed { retry_at_ms } => retry_at_ms,
            Phase::Ready | Phase::Starting(_) | Phase::Running { .. } | Phase::Completed => None,
        }
    }

    /// What must survive a reset: that it ended for good. A failed load is tried again after a reset.
    fn ended(&self) -> Option<(ReportReason, String)> {
        let ran = matches!(
            self.why.reason,
            ReportReason::Exited
                | ReportReason::ExitedWithError
                | ReportReason::Trapped
                | ReportReason::CpuLimit
                | ReportReason::MemoryLimit
                | ReportReason::StackLimit
        );
        let over = match self.phase {
            Phase::Completed => true,
            Phase::Failed { retry_at_ms: None } => ran && self.held.policy == RestartPolicy::Never,
            Phase::Failed { retry_at_ms: Some(_) }
            | Phase::Ready
            | Phase::Starting(_)
            | Phase::Running { .. }
            | Phase::BackOff { .. } => false,
        };
        over.then(|| (self.why.reason, self.why.message.clone()))
    }

    fn state(&self) -> ApplicationState {
        match self.phase {
            Phase::Ready | Phase::Starting(_) => ApplicationState::Starting,
            Phase::Running { .. } => ApplicationState::Running,
            Phase::BackOff { .. } => ApplicationState::CrashLoop,
            Phase::Completed => ApplicationState::Completed,
            Phase::Failed { .. } => ApplicationState::Failed,
        }
    }
}

/// An assignment that is being fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) spec_hash: SpecHash,
    pub(crate) held: Option<Held>,
    pub(crate) why: Why,
    pub(crate) wait: Wait,
    /// Attempts in a row that failed.
    pub(crate) attempts: u32,
}

/// Whether a fetch goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It does.
    No,
    /// Not before this time.
    Until {
        at_ms: u64,
        /// Whether people are to see it as failed meanwhile.
        failed: bool,
    },
    /// Not for this assignment.
    ForGood,
}

impl Next {
    pub(crate) fn new(spec_hash: SpecHash) -> Self {
        Self { spec_hash, held: None, why: Why::NONE, wait: Wait::No, attempts: 0 }
    }

    pub(crate) fn wants_assignment(&self) -> bool {
        self.wait == Wait::No && self.held.is_none()
    }

    pub(crate) fn wants_module(&self) -> Option<&Held> {
        self.held.as_ref().filter(|_| self.wait == Wait::No)
    }

    pub(crate) fn handle_timeout(&mut self, now_ms: u64) -> bool {
        match self.wait {
            Wait::Until { at_ms, failed } if at_ms <= now_ms => {
                self.wait = Wait::No;
                failed
            }
            Wait::Until { .. } | Wait::No | Wait::ForGood => false,
        }
    }

    fn state(&self) -> ApplicationState {
        match self.wait {
            Wait::No | Wait::Until { failed: false, .. } => ApplicationState::Pulling,
            Wait::Until { failed: true, .. } | Wait::ForGood => ApplicationState::Failed,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Application {
    pub(crate) uid: ApplicationUid,
    /// Whether it is among those that the device runs, or beyond their number.
    pub(crate) accepted: bool,
    pub(crate) current: Option<Current>,
    pub(crate) next: Option<Next>,
    pub(crate) log: LogQueue,
    /// Loaded now or last.
    pub(crate) digest: Option<ModuleDigest>,
    pub(crate) memory_bytes: u64,
    /// Of the runs before this one.
    pub(crate) cpu_ms_before: u64,
    pub(crate) cpu_ms_run: u64,
}

impl Application {
    pub(crate) fn new(uid: ApplicationUid, spec_hash: SpecHash, accepted: bool) -> Self {
        Self {
            uid,
            accepted,
            current: None,
            next: Some(Next::new(spec_hash)),
            log: LogQueue::default(),
            digest: None,
            memory_bytes: 0,
            cpu_ms_before: 0,
            cpu_ms_run: 0,
        }
    }

    /// The assignment that it is to run.
    pub(crate) fn spec_hash(&self) -> SpecHash {
        match (&self.next, &self.current) {
            (Some(next), _) => next.spec_hash,
            (None, Some(current)) => current.held.spec_hash,
            (None, None) => SpecHash::default(),
        }
    }

    /// The assignments whose modules must be kept.
    pub(crate) fn held(&self) -> impl Iterator<Item = &Held> {
        let current = self.current.as_ref().map(|current| &current.held);
        current.into_iter().chain(self.next.as_ref().and_then(|next| next.held.as_ref()))
    }

    /// Whether it ended for good and nothing is to take its place, so that its module is of no use here.
    pub(crate) fn is_over(&self) -> bool {
        self.next.is_none() && self.current.as_ref().is_some_and(|current| current.ended().is_some())
    }

    /// Whether its module found no room on storage.
    pub(crate) fn lacks_flash(&self) -> bool {
        let lacks = |next: &Next| next.wait != Wait::ForGood && next.why.reason == ReportReason::OutOfFlash;
        self.accepted && self.next.as_ref().is_some_and(lacks)
    }

    pub(crate) fn run(&self) -> Option<RunId> {
        self.current.as_ref().and_then(Current::run)
    }

    /// The run is over and holds nothing.
    pub(crate) fn let_go(&mut self) {
        self.memory_bytes = 0;
        self.cpu_ms_before = self.cpu_ms_before.saturating_add(self.cpu_ms_run);
        self.cpu_ms_run = 0;
    }

    pub(crate) fn timeout(&self) -> Option<u64> {
        let next = self.next.as_ref().and_then(|next| match next.wait {
            Wait::Until { at_ms, .. } => Some(at_ms),
            Wait::No | Wait::ForGood => None,
        });
        let current = self.current.as_ref().and_then(Current::timeout);
        if self.accepted { next.into_iter().chain(current).min() } else { None }
    }

    pub(crate) fn report<'a>(
        &'a self,
        refused: &'a str,
        storage_failing: bool,
        with_message: bool,
    ) -> ApplicationReport<'a> {
        let (state, reason, message) = match (&self.next, &self.current) {
            _ if !self.accepted => (ApplicationState::Failed, ReportReason::TooManyApplications, refused),
            (Some(next), _) if storage_failing && next.wait == Wait::No => {
                let message = "storage fails, so the assignment would not survive a reset";
                (ApplicationState::Failed, ReportReason::StorageFailed, message)
            }
            (Some(next), _) => (next.state(), next.why.reason, next.why.message.as_str()),
            (None, Some(current)) => (current.state(), current.why.reason, current.why.message.as_str()),
            (None, None) => (ApplicationState::Pulling, ReportReason::None, ""),
        };
        let next_correlation =
            self.next.as_ref().map(|next| next.held.as_ref().map(|held| held.correlation_id));
        let current_correlation = self.current.as_ref().map(|current| current.held.correlation_id);
        ApplicationReport {
            uid: self.uid,
            spec_hash: self.spec_hash(),
            digest: self.digest,
            state,
            reason,
            message: if with_message { message } else { "" },
            restarts: self
                .current
                .as_ref()
                .filter(|_| self.next.is_none())
                .map_or(0, |current| current.restarts),
            memory_bytes: self.memory_bytes,
            cpu_ms: self.cpu_ms_before.saturating_add(self.cpu_ms_run),
            correlation_id: next_correlation.unwrap_or(current_correlation).unwrap_or_default(),
        }
    }

    pub(crate) fn store(&self) -> StoredApplication {
        StoredApplication {
            uid: self.uid,
            accepted: self.accepted,
            current: self.current.as_ref().map(|current| StoredCurrent {
                spec_hash: current.held.spec_hash,
                spec: current.held.spec.clone(),
                correlation_id: current.held.correlation_id,
                restarts: current.restarts,
                failures: current.failures,
                ended: current.ended(),
            }),
            next: self.next.as_ref().map(|next| StoredNext {
                spec_hash: next.spec_hash,
                spec: next.held.as_ref().map(|held| (held.spec.clone(), held.correlation_id)),
            }),
        }
    }
}
