//! What goes to the process's log: bounded, and no more about one device than its share.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{
    allowance::{Speech, Voice},
    config::{NOTICES_MAX, STRANGERS_NOTICES},
    device::DeviceEntry,
    input::{LeftOut, Notice, Reportable},
};
use crate::ObjectKey;

/// Notices that wait to be fetched.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// Each with whether a stranger caused it.
    queue: VecDeque<(Notice, bool)>,
    /// The second of two that one notice became.
    second: Option<Reportable>,
    /// Of all clients together that are not admitted devices.
    strangers: Voice,
    /// Notices that gave way to newer ones.
    dropped: u64,
    /// Notices that are not for the log, because their device caused too many.
    left_out: u64,
}

impl Notices {
    /// Adds a notice; the oldest gives way.
    pub(super) fn push(&mut self, notice: Notice, stranger: bool) {
        if self.queue.len() >= NOTICES_MAX {
            self.queue.pop_front();
            self.dropped += 1;
        }
        self.queue.push_back((notice, stranger));
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The next notice, counted against the share of the device that caused it.
    pub(super) fn poll(
        &mut self,
        now_ms: u64,
        devices: &mut BTreeMap<Arc<ObjectKey>, Box<DeviceEntry>>,
    ) -> Option<Reportable> {
        if let Some(second) = self.second.take() {
            return Some(second);
        }
        let (notice, stranger) = self.queue.pop_front()?;
        let cause = notice.cause().filter(|_| !stranger);
        if cause.is_none() && !stranger {
            return Some(Reportable { notice, logged: true });
        }
        let record = cause.and_then(|cause| devices.get_mut(cause));
        let device = record.as_ref().map(|record| Arc::clone(record.key()));
        let speech = match record {
            Some(record) => record.allowance_mut().speak(now_ms),
            None => self.strangers.speak(now_ms, STRANGERS_NOTICES),
        };
        let (logged, count) = match speech {
            Speech::Logged => (true, None),
            Speech::Resumed(count) => (true, Some(Some(count))),
            Speech::Stopped => (false, Some(None)),
            Speech::LeftOut => (false, None),
        };
        self.left_out += u64::from(!logged);
        let reportable = Reportable { notice, logged };
        let Some(count) = count else { return Some(reportable) };
        self.second = Some(reportable);
        Some(Reportable { notice: Notice::LeftOut { device, what: LeftOut::Lines, count }, logged: true })
    }
}
