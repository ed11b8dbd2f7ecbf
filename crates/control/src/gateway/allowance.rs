//! What one device may cost, whatever it sends and however often it reconnects.
//!
//! It stands with the device's record and not with its sessions, so that a new connection brings nothing new, and it goes
//! with the record. Clients that are no admitted device have allowances of their own: those of a session, and those that
//! all of them share.

use super::{config::LOG_RATE, input::Now, tokens::Bucket};

/// What a device has used of what it may cost.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    logs: Bucket,
    log_lines_dropped: u32,
}

impl Allowance {
    /// Whether a log line fits, and how many were dropped before it.
    pub(super) fn allow_log(&mut self, bytes: usize, now: Now) -> Option<u32> {
        // A line costs at least its head, so that empty ones are bounded too.
        if !self.logs.take(LOG_RATE, bytes.max(64) as u64, now.ms) {
            self.log_lines_dropped = self.log_lines_dropped.saturating_add(1);
            return None;
        }
        Some(std::mem::take(&mut self.log_lines_dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::config::{LOG_BYTES_BURST, LOG_BYTES_PER_SECOND};

    #[test]
    fn a_log_flood_is_cut_to_the_rate_and_counted() {
        let mut allowance = Allowance::default();
        let mut taken = 0;
        for _ in 0..1_000 {
            taken += u32::from(allowance.allow_log(1_024, Now::default()).is_some());
        }
        assert_eq!(taken, LOG_BYTES_BURST / 1_024);
        let later = Now { ms: 1_000, unix_ms: 0 };
        assert_eq!(allowance.allow_log(1_024, later), Some(1_000 - taken));
        let lines = (1..).take_while(|_| allowance.allow_log(1_024, later).is_some()).count();
        assert_eq!(lines, LOG_BYTES_PER_SECOND as usize / 1_024 - 1);
    }
}
