//! Whose call about a request comes next: each kind of request has a share of the calls, so that none waits for all of another.

use std::{collections::BTreeSet, sync::Arc};

use crate::{ObjectKey, gateway::config::REQUEST_SHARES};

/// Kinds of requests, as in [`REQUEST_SHARES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The certificate is there.
    Certified,
    Renewal,
    Factory,
    Token,
    /// It waits for a person.
    Person,
}

const CLASSES: usize = REQUEST_SHARES.len();

/// Devices whose requests wait for a call, by class and by when it is due.
#[derive(Debug, Default)]
pub(super) struct Shares {
    due: [BTreeSet<(u64, Arc<ObjectKey>)>; CLASSES],
    /// What each class has coming of its share.
    credits: [i64; CLASSES],
}

impl Shares {
    pub(super) fn insert(&mut self, class: Class, due_ms: u64, device: &Arc<ObjectKey>) {
        self.due[class as usize].insert((due_ms, Arc::clone(device)));
    }

    pub(super) fn remove(&mut self, class: Class, due_ms: u64, device: &Arc<ObjectKey>) {
        self.due[class as usize].remove(&(due_ms, Arc::clone(device)));
    }

    /// Whether [`pop`](Self::pop) gives one.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        self.first_ms().is_some_and(|due_ms| due_ms <= now_ms)
    }

    /// When the first is due.
    pub(super) fn first_ms(&self) -> Option<u64> {
        self.due.iter().filter_map(|due| Some(due.first()?.0)).min()
    }

    /// The next by smooth weighted round-robin (nginx, `src/http/ngx_http_upstream_round_robin.c`). A class that has none saves
    /// nothing up.
    pub(super) fn pop(&mut self, now_ms: u64) -> Option<Arc<ObjectKey>> {
        let mut total = 0;
        let mut best: Option<usize> = None;
        for (class, share) in REQUEST_SHARES.into_iter().enumerate() {
            if self.due[class].first().is_none_or(|(due_ms, _)| *due_ms > now_ms) {
                self.credits[class] = 0;
                continue;
            }
            self.credits[class] += share;
            total += share;
            if best.is_none_or(|best| self.credits[class] > self.credits[best]) {
                best = Some(class);
            }
        }
        let best = best?;
        self.credits[best] -= total;
        Some(self.due[best].pop_first()?.1)
    }

    /// Whether exactly these wait.
    pub(super) fn holds<'a>(&self, waiting: impl Iterator<Item = (Class, u64, &'a Arc<ObjectKey>)>) -> bool {
        let mut count = 0;
        let mut waiting = waiting.inspect(|_| count += 1);
        let all = waiting
            .all(|(class, due_ms, device)| self.due[class as usize].contains(&(due_ms, Arc::clone(device))));
        all && count == self.due.iter().map(BTreeSet::len).sum::<usize>()
    }
}
