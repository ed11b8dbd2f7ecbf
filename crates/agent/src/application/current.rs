//! The assignment that runs.
//!
//! ```text
//!   Ready -> Starting -> Running -+-> Completed
//!     ^         |                 |
//!     |         +-> Failed        +-> BackOff --(1 s doubling to 5 min)--> Ready
//!     |              |            |
//!     +--(if worth)--+            +-> Failed   (policy Never)
//! ```

use alloc::string::String;

use wasmbed_protocol::{
    ApplicationState, ApplicationUid, Deliver, Delivery, ReportReason, RestartPolicy, decode_spec,
};

use crate::{
    assignment::{Held, has_hash},
    backoff::{RESTART, RESTART_RESET_MS, ROOM},
    effect::RunId,
    mailbox::Mailbox,
    messages::{Topics, deliver},
    record::StoredCurrent,
    why::Why,
};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
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

/// The assignment that runs, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Current {
    held: Held,
    topics: Topics,
    mailbox: Mailbox,
    phase: Phase,
    why: Why,
    /// Starts after the first one.
    restarts: u32,
    /// Ends in a row, each after a short run.
    failures: u32,
    /// Loads in a row that found no room.
    refusals: u32,
}

impl Current {
    pub(super) fn new(held: Held) -> Self {
        // What it can't act on was refused before it was held.
        let topics = decode_spec(held.spec()).ok().and_then(|spec| Topics::of(&spec).ok());
        let topics = topics.unwrap_or_default();
        Self {
            held,
            topics,
            mailbox: Mailbox::default(),
            phase: Phase::Ready,
            why: Why::NONE,
            restarts: 0,
            failures: 0,
            refusals: 0,
        }
    }

    /// From the state record; none if its spec does not have its hash, or is not for this firmware.
    pub(super) fn restore(uid: ApplicationUid, stored: &StoredCurrent) -> Option<Self> {
        if !has_hash(&stored.spec, stored.spec_hash) {
            return None;
        }
        let held = Held::check(uid, stored.spec_hash, &stored.spec, stored.correlation_id).ok()?;
        let mut current = Self { restarts: stored.restarts, failures: stored.failures, ..Self::new(held) };
        if let Some((reason, message)) = &stored.ended {
            current.why = Why::new(*reason, message);
            current.phase = match reason {
                ReportReason::Exited => Phase::Completed,
                _ => Phase::Failed { retry_at_ms: None },
            };
        }
        Some(current)
    }

    /// What it may publish, with what is left of the rates.
    pub(super) fn topics_mut(&mut self) -> &mut Topics {
        &mut self.topics
    }

    /// A message came in for it.
    pub(super) fn deliver(&mut self, message: &Deliver<'_>, now_ms: u64) -> Delivery {
        if self.is_over() {
            return Delivery::NotRunning;
        }
        deliver(&mut self.topics, &mut self.mailbox, message, now_ms)
    }

    /// What came in for it.
    pub(super) fn mailbox_mut(&mut self) -> &mut Mailbox {
        &mut self.mailbox
    }

    /// Whether it is never started again by itself.
    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Completed | Phase::Failed { retry_at_ms: None })
    }

    pub(super) fn store(&self) -> StoredCurrent {
        StoredCurrent {
            spec_hash: self.held.spec_hash(),
            spec: self.held.spec().to_vec(),
            correlation_id: self.held.correlation_id(),
            restarts: self.restarts,
            failures: self.failures,
            ended: self.ended(),
        }
    }

    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    pub(super) fn into_held(self) -> Held {
        self.held
    }

    pub(super) fn why(&self) -> &Why {
        &self.why
    }

    pub(super) fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Whether it is to be loaded.
    pub(super) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// It is being loaded.
    pub(super) fn begin(&mut self, run: RunId) {
        debug_assert!(self.is_ready(), "it is loaded when it is to be");
        self.phase = Phase::Starting(run);
    }

    /// Others let go of memory: one that found none is loaded again.
    pub(super) fn handle_room(&mut self, now_ms: u64) {
        if self.why.reason() == ReportReason::OutOfMemory
            && let Phase::Failed { retry_at_ms } = &mut self.phase
        {
            *retry_at_ms = Some(now_ms);
        }
    }

    pub(super) fn run(&self) -> Option<RunId> {
        match self.phase {
            Phase::Starting(run) | Phase::Running { run, .. } => Some(run),
            Phase::Ready | Phase::BackOff { .. } | Phase::Completed | Phase::Failed { .. } => None,
        }
    }

    pub(super) fn handle_started(&mut self, run: RunId, now_ms: u64) {
        self.phase = Phase::Running { run, since_ms: now_ms };
        self.why = Why::NONE;
        self.refusals = 0;
    }

    /// The load failed. Lack of memory may pass; everything else is the module's or the assignment's fault and stays.
    pub(super) fn handle_refused(&mut self, why: Why, now_ms: u64) {
        let worth_another_try =
            matches!(why.reason(), ReportReason::OutOfMemory | ReportReason::StorageFailed);
        self.refusals = self.refusals.saturating_add(1);
        let retry_at_ms = worth_another_try.then(|| now_ms.saturating_add(ROOM.delay_ms(self.refusals)));
        self.why = why;
        self.phase = Phase::Failed { retry_at_ms };
    }

    /// The run ended by itself or was ended by the sandbox.
    pub(super) fn handle_ended(&mut self, why: Why, now_ms: u64) {
        let good_run = matches!(self.phase, Phase::Running { since_ms, .. } if now_ms.saturating_sub(since_ms) >= RESTART_RESET_MS);
        let succeeded = why.reason() == ReportReason::Exited;
        self.why = why;
        let restart = match self.held.policy() {
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
        if self.is_over() {
            self.mailbox = Mailbox::default();
        }
    }

    /// A pause is over: true if it is to be loaded again.
    pub(super) fn handle_timeout(&mut self, now_ms: u64) -> bool {
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

    pub(super) fn timeout(&self) -> Option<u64> {
        match self.phase {
            Phase::BackOff { until_ms } => Some(until_ms),
            Phase::Failed { retry_at_ms } => retry_at_ms,
            Phase::Ready | Phase::Starting(_) | Phase::Running { .. } | Phase::Completed => None,
        }
    }

    /// What must survive a reset: that it ended for good. A failed load is tried again after a reset.
    pub(super) fn ended(&self) -> Option<(ReportReason, String)> {
        let ran = matches!(
            self.why.reason(),
            ReportReason::Exited
                | ReportReason::ExitedWithError
                | ReportReason::Trapped
                | ReportReason::CpuLimit
                | ReportReason::MemoryLimit
                | ReportReason::StackLimit
        );
        let over = match self.phase {
            Phase::Completed => true,
            Phase::Failed { retry_at_ms: None } => ran && self.held.policy() == RestartPolicy::Never,
            Phase::Failed { retry_at_ms: Some(_) }
            | Phase::Ready
            | Phase::Starting(_)
            | Phase::Running { .. }
            | Phase::BackOff { .. } => false,
        };
        over.then(|| (self.why.reason(), String::from(self.why.message())))
    }

    pub(super) fn state(&self) -> ApplicationState {
        match self.phase {
            Phase::Ready | Phase::Starting(_) => ApplicationState::Starting,
            Phase::Running { .. } => ApplicationState::Running,
            Phase::BackOff { .. } => ApplicationState::CrashLoop,
            Phase::Completed => ApplicationState::Completed,
            Phase::Failed { .. } => ApplicationState::Failed,
        }
    }
}
