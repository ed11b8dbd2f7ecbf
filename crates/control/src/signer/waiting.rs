//! The requests that are worked on or wait, by their Devices: whose change is looked at, and what was told about them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wasmbed_api::ReasonCode;

/// What is told again after this, as long as it holds: Events go after an hour.
const TOLD_FOR_MS: u64 = 3_600_000;
/// Entries beyond those that were open when they were last counted, before they are counted again.
const SPARE_ENTRIES: usize = 64;

/// A version of a Device that a decision can depend on: its UID and its generation. A heartbeat in its status makes none.
pub type Version = (String, i64);

/// The version that an object's metadata name.
#[must_use]
pub fn version(metadata: &ObjectMeta) -> Version {
    (metadata.uid.clone().unwrap_or_default(), metadata.generation.unwrap_or_default())
}

/// Requests without their end, by Device and name. It holds as many as are open, and as many again at most: those that were deleted
/// meanwhile.
#[derive(Debug, Default)]
pub struct Waiting {
    by_device: BTreeMap<String, BTreeMap<String, Waiter>>,
    entries: usize,
    /// That were open when they were last counted.
    open: usize,
}

#[derive(Debug, Default)]
struct Waiter {
    /// The version of its Device that the last decision was about; none while one is being made.
    seen: Option<Version>,
    /// What was told last, and when, milliseconds.
    told: Option<(ReasonCode, u64)>,
}

impl Waiting {
    /// A request is looked at: until [`Waiting::saw`], every version of its Device is news. `is_open` says of other requests whether
    /// they are still there.
    pub fn begin(&mut self, device: &str, request: &str, is_open: impl Fn(&str) -> bool) {
        if self.entries > 2 * self.open + SPARE_ENTRIES {
            self.forget_closed(&is_open);
        }
        let waiters = self.by_device.entry(device.to_owned()).or_default();
        let before = waiters.len();
        waiters.entry(request.to_owned()).or_default().seen = None;
        self.entries += waiters.len() - before;
    }

    /// The decision is about this version.
    pub fn saw(&mut self, device: &str, request: &str, version: Option<Version>) {
        if let Some(waiter) = self.waiter(device, request) {
            waiter.seen = version;
        }
    }

    /// Whether to say now why a request waits; it counts as said.
    pub fn is_to_be_told(&mut self, device: &str, request: &str, reason: ReasonCode, now_ms: u64) -> bool {
        let Some(waiter) = self.waiter(device, request) else { return false };
        let holds =
            |(told, at_ms): (ReasonCode, u64)| told == reason && now_ms.saturating_sub(at_ms) < TOLD_FOR_MS;
        if waiter.told.is_some_and(holds) {
            return false;
        }
        waiter.told = Some((reason, now_ms));
        true
    }

    /// It could not be said: it is said the next time.
    pub fn was_not_told(&mut self, device: &str, request: &str) {
        if let Some(waiter) = self.waiter(device, request) {
            waiter.told = None;
        }
    }

    /// A request has come to its end.
    pub fn end(&mut self, device: &str, request: &str) {
        let Some(waiters) = self.by_device.get_mut(device) else { return };
        self.entries -= usize::from(waiters.remove(request).is_some());
        if waiters.is_empty() {
            self.by_device.remove(device);
        }
    }

    /// The requests to which a version of a Device is news.
    #[must_use]
    pub fn concerned(&self, device: &str, version: &Version) -> Vec<String> {
        let waiters = self.by_device.get(device).into_iter().flatten();
        let news = waiters.filter(|(_, waiter)| waiter.seen.as_ref() != Some(version));
        news.map(|(request, _)| request.clone()).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

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
        let mut waiting = Waiting::default();
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
        assert!(waiting.is_empty() && waiting.by_device.is_empty());
    }

    #[test]
    fn it_holds_no_more_than_what_is_open() {
        let mut waiting = Waiting::default();
        // A hundred thousand requests, each deleted before it came to an end; ten are open at any time.
        for number in 0..100_000_u32 {
            let is_open = |request: &str| request.parse::<u32>().is_ok_and(|request| request + 10 > number);
            waiting.begin(&format!("ns/{number}"), &number.to_string(), is_open);
            assert!(waiting.entries <= 2 * 10 + SPARE_ENTRIES + 1, "{}", waiting.entries);
            assert_eq!(waiting.entries, waiting.by_device.values().map(BTreeMap::len).sum::<usize>());
        }
    }

    #[test]
    fn a_reason_is_told_once_an_hour_and_another_one_at_once() {
        let mut waiting = Waiting::default();
        let told = |waiting: &mut Waiting, reason, after_s: u64| {
            waiting.is_to_be_told("ns/a", "one", reason, 1_000 * after_s)
        };
        assert!(!told(&mut waiting, ReasonCode::PendingApproval, 0), "nobody waits");
        waiting.begin("ns/a", "one", open);
        assert!(told(&mut waiting, ReasonCode::PendingApproval, 0));
        assert!(!told(&mut waiting, ReasonCode::PendingApproval, 3_599));
        assert!(told(&mut waiting, ReasonCode::KeyNotConfirmed, 3_599));
        waiting.was_not_told("ns/a", "one");
        assert!(told(&mut waiting, ReasonCode::KeyNotConfirmed, 3_600));
        assert!(told(&mut waiting, ReasonCode::KeyNotConfirmed, 7_200));
    }
}
