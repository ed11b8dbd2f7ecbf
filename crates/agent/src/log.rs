//! Lines that wait to be sent, for each application apart, so that one that floods drops its own and no other's.

use wasmbed_protocol::{
    ApplicationUid, Log, Sequence,
    limits::LOG_TEXT_BYTES_MAX,
    rate::{Rate, TokenBucket},
};

use crate::{ring::Ring, text::clip};

/// Lines of one application. The oldest goes when there is no room: after a pause the newest say more.
///
/// ```text
/// record = sequence (8 bytes), text
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogQueue {
    lines: Ring,
    /// Of the last line that was written, those lost included.
    written: Sequence,
    /// Of the last line that was sent.
    sent: Sequence,
}

impl LogQueue {
    pub(crate) fn push(&mut self, text: &str, lines_lost: u32) {
        self.written = Sequence(self.written.0.saturating_add(u64::from(lines_lost))).next();
        let text = clip(text, LOG_TEXT_BYTES_MAX);
        let record: [&[u8]; 2] = [&self.written.0.to_le_bytes(), text.as_bytes()];
        while !self.lines.push(&record) && self.lines.len() > 0 {
            self.drop_first();
        }
    }

    fn first(&self) -> Option<(Sequence, &str)> {
        let (sequence, text) = self.lines.at(0)?.split_first_chunk::<8>()?;
        // Only texts are pushed.
        Some((Sequence(u64::from_le_bytes(*sequence)), core::str::from_utf8(text).unwrap_or_default()))
    }

    /// The next line of the application `uid`, as it is sent.
    pub(crate) fn front(&self, uid: ApplicationUid) -> Option<Log<'_>> {
        let (sequence, text) = self.first()?;
        let lost = sequence.0.saturating_sub(self.sent.0).saturating_sub(1);
        Some(Log { uid, sequence, lines_lost: u32::try_from(lost).unwrap_or(u32::MAX), text })
    }

    /// The first line was sent.
    pub(crate) fn pop(&mut self) {
        if let Some((sequence, _)) = self.first() {
            self.sent = sequence;
        }
        self.drop_first();
    }

    fn drop_first(&mut self) {
        self.lines.drop_to(self.lines.after(0));
    }
}

/// How much text may be sent now: a bucket that fills at the gateway's rate and holds one second of it, or one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogBudget {
    /// None if the gateway takes no lines.
    rate: Option<Rate>,
    bucket: TokenBucket,
}

impl LogBudget {
    pub(crate) fn new(bytes_per_second: u32, now_ms: u64) -> Self {
        let per_second = u64::from(bytes_per_second);
        let rate = Rate::per_second(per_second, per_second.max(LOG_TEXT_BYTES_MAX as u64));
        let mut budget =
            Self { rate: (bytes_per_second > 0).then_some(rate), bucket: TokenBucket::default() };
        budget.refill(now_ms);
        budget
    }

    pub(crate) fn refill(&mut self, now_ms: u64) {
        if let Some(rate) = self.rate {
            self.bucket.refill(now_ms, rate);
        }
    }

    pub(crate) fn allows(&self, bytes: usize) -> bool {
        self.rate.is_some_and(|rate| self.bucket.has(rate, bytes as u64))
    }

    pub(crate) fn spend(&mut self, bytes: usize) {
        self.bucket.spend(bytes as u64);
    }

    /// When so many bytes may be sent; `None` if never.
    pub(crate) fn ready_at(&self, bytes: usize) -> Option<u64> {
        Some(self.bucket.available_at_ms(self.rate?, bytes as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::RING_BYTES;
    use alloc::{
        format,
        string::{String, ToString},
        vec::Vec,
    };

    fn drain(queue: &mut LogQueue) -> Vec<(u64, u32, String)> {
        let mut out = Vec::new();
        while let Some(log) = queue.front(ApplicationUid([1; 16])) {
            out.push((log.sequence.0, log.lines_lost, log.text.to_string()));
            queue.pop();
        }
        out
    }

    #[test]
    fn lost_lines_are_counted_before_the_next_one_sent() {
        let mut queue = LogQueue::default();
        queue.push("a", 0);
        queue.push("b", 3);
        assert_eq!(drain(&mut queue), [(1, 0, "a".into()), (5, 3, "b".into())]);
        // A line takes its text, its sequence and its length.
        let held = RING_BYTES / (8 + 8 + 2);
        for line in 0..held + 2 {
            queue.push(&format!("{line:8}"), 0);
        }
        let lines = drain(&mut queue);
        assert_eq!(lines.len(), held);
        assert_eq!(lines.first().map(|line| line.1), Some(2), "the two oldest were dropped");
        assert!(lines.iter().skip(1).all(|line| line.1 == 0));
    }

    #[test]
    fn the_queue_holds_its_bytes_only() {
        let mut queue = LogQueue::default();
        for _ in 0..10 {
            queue.push(&"x".repeat(5_000), 0);
        }
        let bytes: usize = drain(&mut queue).iter().map(|line| line.2.len()).sum();
        assert!((LOG_TEXT_BYTES_MAX..=RING_BYTES).contains(&bytes));
    }

    #[test]
    fn the_budget_fills_at_its_rate() {
        let mut budget = LogBudget::new(2_000, 0);
        budget.spend(2_000);
        assert!(!budget.allows(1));
        assert_eq!(budget.ready_at(100), Some(50));
        for now in 1..=50 {
            budget.refill(now);
        }
        assert!(budget.allows(100) && !budget.allows(101));
        assert!(!LogBudget::new(0, 0).allows(0), "a gateway that takes no logs gets none");
        assert_eq!(LogBudget::new(0, 0).ready_at(1), None);
    }
}
