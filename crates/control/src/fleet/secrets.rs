//! Which Secrets are read, and when, for users that are Applications or MessageBrokers.
//!
//! ```text
//! a user names it ──> due now ──poll──> being read ──answer──> due in 60 s, or sooner after a failure
//!        it changed ────────────^                   └── it changed meanwhile ──> due now
//! ```
//!
//! Secrets are asked for by name, one at a time and never in lists: a controller has the right to `get` alone.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    input::{CallId, SecretOutcome},
    secret::SecretState,
};
use crate::{Backoff, ObjectKey, due::DueQueue};

/// Between two reads of a Secret, and between two attempts at most.
const READ_INTERVAL_MS: u64 = 60_000;
/// After an answer that says that it can't be read: who creates it, or the right to it, waits no longer than that.
const READ_BACKOFF: Backoff = Backoff::doubling(2_000, READ_INTERVAL_MS);
/// Reads under way at once.
const READS_IN_FLIGHT_MAX: usize = 4;
/// Between two reads, whichever Secrets they are of: 50 a second at most, so that 3,000 Secrets are read in a minute. More are
/// read less often.
const READ_PACE_MS: u64 = 20;

/// A Secret's place; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SecretId(u32);

#[derive(Debug)]
struct Entry<U> {
    key: ObjectKey,
    users: BTreeSet<U>,
    state: SecretState,
    /// Answers in a row that gave no values.
    failures: u32,
    reading: Option<CallId>,
    /// A user that names it changed while it was read.
    again: bool,
}

/// The Secrets that users name.
#[derive(Debug)]
pub(super) struct Secrets<U> {
    entries: BTreeMap<SecretId, Entry<U>>,
    ids: BTreeMap<ObjectKey, SecretId>,
    calls: BTreeMap<CallId, SecretId>,
    due: DueQueue<SecretId>,
    next_id: u32,
    /// No read before this.
    ready_ms: u64,
}

impl<U> Default for Secrets<U> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            ids: BTreeMap::new(),
            calls: BTreeMap::new(),
            due: DueQueue::default(),
            next_id: 0,
            ready_ms: 0,
        }
    }
}

impl<U: Ord + Clone> Secrets<U> {
    /// A user names this Secret, or names it still after a change: it is read now.
    pub(super) fn add_user(&mut self, now_ms: u64, key: &ObjectKey, user: U) {
        let next = SecretId(self.next_id);
        let id = *self.ids.entry(key.clone()).or_insert(next);
        self.next_id += u32::from(id == next);
        let entry = self.entries.entry(id).or_insert_with(|| Entry {
            key: key.clone(),
            users: BTreeSet::new(),
            state: SecretState::Unread,
            failures: 0,
            reading: None,
            again: false,
        });
        entry.users.insert(user);
        entry.failures = 0;
        entry.again = entry.reading.is_some();
        if entry.reading.is_none() {
            self.due.set(id, now_ms);
        }
    }

    /// A user does not name this Secret any more. What nobody names is forgotten.
    pub(super) fn remove_user(&mut self, key: &ObjectKey, user: U) {
        let Some(id) = self.ids.get(key).copied() else { return };
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.users.remove(&user);
        if entry.users.is_empty() {
            let call = entry.reading;
            self.entries.remove(&id);
            self.ids.remove(key);
            self.due.remove(id);
            call.map(|call| self.calls.remove(&call));
        }
    }

    /// What is known of a Secret.
    pub(super) fn state(&self, key: &ObjectKey) -> &SecretState {
        const UNREAD: &SecretState = &SecretState::Unread;
        self.ids.get(key).and_then(|id| self.entries.get(id)).map_or(UNREAD, |entry| &entry.state)
    }

    /// Nothing is known any more: another leads, or has led. Gives the users that it was known for.
    pub(super) fn forget(&mut self, now_ms: u64) -> BTreeSet<U> {
        self.calls.clear();
        for (id, entry) in &mut self.entries {
            (entry.state, entry.failures, entry.reading, entry.again) = (SecretState::Unread, 0, None, false);
            self.due.set(*id, now_ms);
        }
        self.entries.values().flat_map(|entry| &entry.users).cloned().collect()
    }

    /// The next Secret to read, under this id.
    pub(super) fn poll(&mut self, now_ms: u64, call: CallId) -> Option<ObjectKey> {
        if self.calls.len() >= READS_IN_FLIGHT_MAX || now_ms < self.ready_ms {
            return None;
        }
        let id = self.due.pop_due(now_ms)?;
        let entry = present!(self.entries.get_mut(&id), "what is due is named" => None);
        entry.reading = Some(call);
        self.calls.insert(call, id);
        self.ready_ms = now_ms.saturating_add(READ_PACE_MS);
        Some(entry.key.clone())
    }

    /// A read ended; gives those for whom it changed what is known.
    pub(super) fn handle(&mut self, now_ms: u64, call: CallId, outcome: SecretOutcome) -> BTreeSet<U> {
        // Nobody names it any more, or another has led since.
        let Some(id) = self.calls.remove(&call) else { return BTreeSet::new() };
        let entry = present!(self.entries.get_mut(&id), "what is read is named" => BTreeSet::new());
        entry.reading = None;
        let state = match outcome {
            SecretOutcome::Found(values) => SecretState::Held(values),
            SecretOutcome::NotFound => SecretState::Missing,
            SecretOutcome::Forbidden(answer) => SecretState::Forbidden(answer),
            // What was read before may still be so: an API that is away changes nothing.
            SecretOutcome::Unavailable(error) => match std::mem::take(&mut entry.state) {
                SecretState::Unread | SecretState::Unavailable(_) => SecretState::Unavailable(error),
                known => {
                    entry.state = known;
                    entry.failures = entry.failures.saturating_add(1);
                    self.due.set(id, now_ms.saturating_add(READ_BACKOFF.pause_ms(entry.failures - 1)));
                    return BTreeSet::new();
                }
            },
        };
        let failed = !matches!(state, SecretState::Held(_));
        let pause_ms = if failed { READ_BACKOFF.pause_ms(entry.failures) } else { READ_INTERVAL_MS };
        entry.failures = if failed { entry.failures.saturating_add(1) } else { 0 };
        let again = std::mem::take(&mut entry.again);
        self.due.set(id, if again { now_ms } else { now_ms.saturating_add(pause_ms) });
        if std::mem::replace(&mut entry.state, state) == entry.state {
            return BTreeSet::new();
        }
        entry.users.clone()
    }

    /// Whether this call reads one.
    pub(super) fn reads(&self, call: CallId) -> bool {
        self.calls.contains_key(&call)
    }

    /// When the next one can be read; `None` if all that are due are being read.
    pub(super) fn timeout(&self) -> Option<u64> {
        if self.calls.len() >= READS_IN_FLIGHT_MAX {
            return None;
        }
        self.due.first_ms().map(|due_ms| due_ms.max(self.ready_ms))
    }
}
