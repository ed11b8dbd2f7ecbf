//! Which changes of the state record have reached storage, and with them what may be acknowledged.

use wasmbed_protocol::Revision;

use crate::backoff::STATE;

/// Which changes of the state record have reached storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Durability {
    /// Counts changes.
    version: u64,
    /// The last change that storage has.
    durable: u64,
    /// The revision that it has.
    revision: Revision,
    failures: u32,
    retry_at_ms: Option<u64>,
}

impl Durability {
    pub(crate) fn change(&mut self) {
        self.version += 1;
    }

    /// The version to write now, if one waits.
    pub(crate) fn plan_commit(&self) -> Option<u64> {
        (self.version > self.durable && self.retry_at_ms.is_none()).then_some(self.version)
    }

    pub(crate) fn handle_committed(&mut self, version: u64, revision: Revision) {
        self.durable = self.durable.max(version);
        self.revision = revision;
        self.failures = 0;
        self.retry_at_ms = None;
    }

    pub(crate) fn handle_failed(&mut self, now_ms: u64) {
        self.failures = self.failures.saturating_add(1);
        self.retry_at_ms = Some(now_ms.saturating_add(STATE.delay_ms(self.failures)));
    }

    pub(crate) fn handle_timeout(&mut self, now_ms: u64) {
        if self.retry_at_ms.is_some_and(|at| at <= now_ms) {
            self.retry_at_ms = None;
        }
    }

    pub(crate) fn retry_at_ms(&self) -> Option<u64> {
        self.retry_at_ms
    }

    /// Whether storage has any change since the start. The first one is the number of the start.
    pub(crate) fn has_written(&self) -> bool {
        self.durable > 0
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.version == self.durable
    }

    /// Whether storage has no later version than there is.
    pub(crate) fn is_consistent(&self) -> bool {
        self.durable <= self.version
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// The revision that may be acknowledged: what a reset would find.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }
}
