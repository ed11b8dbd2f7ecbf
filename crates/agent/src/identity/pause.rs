//! How long a renewal that came to nothing waits.

use crate::{backoff::RENEW, session::RETRY_AFTER_MS_MAX};

/// Until when no renewal is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RenewalPause {
    failures: u32,
    until_ms: u64,
}

impl RenewalPause {
    /// A renewal came to nothing, and the gateway may have said when to try again: that is the least.
    pub(crate) fn handle_failed(&mut self, retry_after_ms: u32, now_ms: u64) {
        self.failures = self.failures.saturating_add(1);
        let asked_ms = u64::from(retry_after_ms).min(RETRY_AFTER_MS_MAX);
        let pause_ms = RENEW.delay_ms(self.failures).max(asked_ms);
        self.until_ms = now_ms.saturating_add(pause_ms);
    }

    /// A renewal brought a chain that lasts for so long from now. One of so short a life that it is due at once, because authorities
    /// let certificates begin earlier, is renewed when a third of that has passed.
    pub(crate) fn handle_renewed(&mut self, left_s: Option<u64>, now_ms: u64) {
        let wait_ms = left_s.map_or(RENEW.max_ms, |left_s| left_s.saturating_mul(1_000) / 3);
        *self = Self { failures: 0, until_ms: now_ms.saturating_add(wait_ms) };
    }

    /// The chain received last was turned away: it gets some more tries before another one is asked for.
    pub(crate) fn handle_turned_away(&mut self, now_ms: u64) {
        self.until_ms = now_ms.saturating_add(RENEW.max_ms);
    }

    pub(crate) fn until_ms(&self) -> u64 {
        self.until_ms
    }
}
