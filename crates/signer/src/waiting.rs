//! The requests that are worked on or wait, by their Devices: whose change is looked at, and what was told about them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use wasmbed_api::ReasonCode;

/// What is told again after this, as long as it holds: Events go after an hour.
const TOLD_FOR: Duration = Duration::from_secs(3_600);
/// Entries beyond those that were open when they were last counted, before they are counted again.
const SPARE_ENTRIES: usize = 64;

/// A version of a Device that a decision can depend on: its UID and its generation. A heartbeat in its status makes none.
pub(crate) type Version = (String, i64);

/// Requests without their end, by Device and name. It holds as many as are open, and as many again at most: those that were deleted
/// meanwhile.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<Table>);

#[derive(Default)]
struct Table {
    by_device: HashMap<String, BTreeMap<String, Waiter>>,
    entries: usize,
    /// That were open when they were last counted.
    open: usize,
}

#[derive(Default)]
struct Waiter {
    /// The version of its Device that the last decision was about; none while one is being made.
    seen: Option<Version>,
    told: Option<(ReasonCode, Instant)>,
}

impl Waiting {
    /// A request is looked at: until [`Waiting::saw`], every version of its Device is news. `is_open` says of other requests whether
    /// they are still there.
    pub(crate) fn begin(&self, device: &str, request: &str, is_open: impl Fn(&str) -> bool) {
        let mut table = self.table();
        if table.entries > 2 * table.open + SPARE_ENTRIES {
            table.forget_closed(&is_open);
        }
        let waiters = table.by_device.entry(device.to_owned()).or_default();
        let before = waiters.len();
        waiters.entry(request.to_owned()).or_default().seen = None;
        let added = waiters.len() - before;
        table.entries += added;
    }

    /// The decision is about this version.
    pub(crate) fn saw(&self, device: &str, request: &str, version: Option<Version>) {
        if let Some(waiter) = self.table().waiter(device, request) {
            waiter.seen = version;
        }
    }

    /// Whether to say now why a request waits; it counts as said.
    pub(crate) fn is_to_be_told(
        &self,
        device: &str,
        request: &str,
        reason: ReasonCode,
        now: Instant,
    ) -> bool {
        let mut table = self.table();
        let Some(waiter) = table.waiter(device, request) else { return false };
        let holds = |(told, at): (ReasonCode, Instant)| {
            told == reason && now.saturating_duration_since(at) < TOLD_FOR
        };
        if waiter.told.is_some_and(holds) {
            return false;
        }
        waiter.told = Some((reason, now));
        true
    }

    /// It could not be said: it is said the next time.
    pub(crate) fn was_not_told(&self, device: &str, request: &str) {
        if let Some(waiter) = self.table().waiter(device, request) {
            waiter.told = None;
        }
    }

    /// A request has come to its end.
    pub(crate) fn end(&self, device: &str, request: &str) {
        let mut table = self.table();
        let Some(waiters) = table.by_device.get_mut(device) else { return };
        let removed = waiters.remove(request).is_some();
        if waiters.is_empty() {
            table.by_device.remove(device);
        }
        table.entries -= usize::from(removed);
    }

    /// The requests to which a version of a Device is news.
    pub(crate) fn concerned(&self, device: &str, version: &Version) -> Vec<String> {
        let table = self.table();
        let waiters = table.by_device.get(device).into_iter().flatten();
        let news = waiters.filter(|(_, waiter)| waiter.seen.as_ref() != Some(version));
        news.map(|(request, _)| request.clone()).collect()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn waiter(&mut self, device: &str, request: &str) -> Option<&mut Waiter> {
        self.by_device.get_mut(device)?.get_mut(request)
    }

    fn forget_closed(&mut self, is_open: &impl Fn(&str) -> bool) {
        self.by_device.retain(|_, waiters| {
            waiters.retain(|request, _| is_open(request));
            !waiters.is_empty()
        });
        self.entries = self.by_device.values().map(BTreeMap::len).sum();
        self.open = self.entries;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(generation: i64) -> Version {
        ("uid".to_owned(), generation)
    }

    fn open(_: &str) -> bool {
        true
    }

    #[test]
    fn a_change_during_a_decision_and_after_it_is_news_and_a_heartbeat_is_none() {
        let waiting = Waiting::default();
        assert!(waiting.concerned("ns/a", &version(1)).is_empty(), "no request waits for it");
        waiting.begin("ns/a", "one", open);
        assert_eq!(waiting.concerned("ns/a", &version(1)), ["one"], "which version was read is not known");
        waiting.saw("ns/a", "one", Some(version(1)));
        assert!(waiting.concerned("ns/a", &version(1)).is_empty(), "a heartbeat");
        assert_eq!(waiting.concerned("ns/a", &version(2)), ["one"]);
        assert_eq!(waiting.concerned("ns/a", &("other".to_owned(), 1)), ["one"], "created again");
        assert!(waiting.concerned("ns/b", &version(2)).is_empty());
        waiting.end("ns/a", "one");
        assert!(waiting.concerned("ns/a", &version(3)).is_empty());
        assert!(waiting.table().by_device.is_empty());
    }

    #[test]
    fn it_holds_no_more_than_what_is_open() {
        let waiting = Waiting::default();
        // A hundred thousand requests, each deleted before it came to an end; ten are open at any time.
        for number in 0..100_000_u32 {
            let is_open = |request: &str| request.parse::<u32>().is_ok_and(|request| request + 10 > number);
            waiting.begin(&format!("ns/{number}"), &number.to_string(), is_open);
            let table = waiting.table();
            assert!(table.entries <= 2 * 10 + SPARE_ENTRIES + 1, "{}", table.entries);
            assert_eq!(table.entries, table.by_device.values().map(BTreeMap::len).sum::<usize>());
        }
    }

    #[test]
    fn a_reason_is_told_once_an_hour_and_another_one_at_once() {
        let (waiting, start) = (Waiting::default(), Instant::now());
        let told =
            |reason, after| waiting.is_to_be_told("ns/a", "one", reason, start + Duration::from_secs(after));
        assert!(!told(ReasonCode::PendingApproval, 0), "nobody waits");
        waiting.begin("ns/a", "one", open);
        assert!(told(ReasonCode::PendingApproval, 0));
        assert!(!told(ReasonCode::PendingApproval, 3_599));
        assert!(told(ReasonCode::KeyNotConfirmed, 3_599));
        waiting.was_not_told("ns/a", "one");
        assert!(told(ReasonCode::KeyNotConfirmed, 3_600));
        assert!(told(ReasonCode::KeyNotConfirmed, 7_200));
    }
}
