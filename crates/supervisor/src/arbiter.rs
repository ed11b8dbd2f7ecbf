//! Who may use storage: it works on one operation at a time, for the start, the agent or an application.

use wasmbed_agent::storage::Operation;

/// Storage that works on one operation for longer is stuck, and the watchdog is not fed any more.
const STORAGE_STUCK_MS: u64 = 60_000;

/// Whom storage works for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Start,
    Agent,
    Application,
}

/// Contract: [`begin`](Self::begin) when nothing is under way, then [`finish`](Self::finish) with the answer. The agent and
/// the applications take turns; an operation that the agent asked for waits here for its turn.
#[derive(Debug, Default)]
pub(crate) struct StorageArbiter {
    working: Option<(Owner, u64)>,
    /// The agent's next operation, while storage works for an application.
    agents_next: Option<Operation>,
    last: Option<Owner>,
}

impl StorageArbiter {
    pub(crate) fn is_working(&self) -> bool {
        self.working.is_some()
    }

    /// Whether an operation takes longer than any should.
    pub(crate) fn is_stuck(&self, now_ms: u64) -> bool {
        self.working.is_some_and(|(_, since_ms)| now_ms.saturating_sub(since_ms) > STORAGE_STUCK_MS)
    }

    pub(crate) fn begin(&mut self, owner: Owner, now_ms: u64) {
        debug_assert!(self.working.is_none(), "storage works on one operation at a time");
        self.working = Some((owner, now_ms));
        self.last = Some(owner);
    }

    /// The operation that was under way has its answer.
    pub(crate) fn finish(&mut self) -> Option<Owner> {
        self.working.take().map(|(owner, _)| owner)
    }

    /// Whether the agent may ask for another operation: there is room for one.
    pub(crate) fn has_room(&self) -> bool {
        self.agents_next.is_none()
    }

    /// The agent asks for an operation.
    pub(crate) fn put(&mut self, operation: Operation) {
        debug_assert!(self.agents_next.is_none(), "the agent has one operation outstanding");
        self.agents_next = Some(operation);
    }

    /// The agent's operation, if it is its turn.
    pub(crate) fn take(&mut self, application_waits: bool) -> Option<Operation> {
        if application_waits && self.last == Some(Owner::Agent) {
            return None;
        }
        self.agents_next.take()
    }
}
