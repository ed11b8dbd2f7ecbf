//! When the next report is due.

/// Between two reports at least: changes that come together, as a pull and a start do, are reported together.
pub const REPORT_INTERVAL_MS: u64 = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reports {
    pending: bool,
    not_before_ms: u64,
}

impl Reports {
    /// The first report is due at once.
    pub(crate) fn new(now_ms: u64) -> Self {
        Self { pending: true, not_before_ms: now_ms }
    }

    /// Something that a report says has changed.
    pub(crate) fn mark(&mut self) {
        self.pending = true;
    }

    /// The next session begins with a full report.
    pub(crate) fn handle_disconnected(&mut self, now_ms: u64) {
        *self = Self::new(now_ms);
    }

    /// When the next one may be sent, if there is something to report.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        self.pending.then_some(self.not_before_ms)
    }

    /// It is sent now.
    pub(crate) fn take(&mut self, now_ms: u64) {
        debug_assert!(self.pending && self.not_before_ms <= now_ms, "a report is sent when it is due");
        self.pending = false;
        self.not_before_ms = now_ms.saturating_add(REPORT_INTERVAL_MS);
    }
}
