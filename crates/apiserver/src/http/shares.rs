//! What clients share: so much in all, so much for each user.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::status::Status;

/// Something that there is a bounded amount of.
#[derive(Debug)]
pub(super) struct Pool {
    /// As a refusal names it: `watches`.
    what: &'static str,
    total: usize,
    each: usize,
    held: Mutex<Amounts>,
}

#[derive(Debug, Default)]
struct Amounts {
    total: usize,
    of: BTreeMap<Arc<str>, usize>,
}

/// An amount that one user holds until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    pool: Arc<Pool>,
    user: Arc<str>,
    amount: usize,
}

/// One user's part of a pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share<'a> {
    pub(super) pool: &'a Arc<Pool>,
    pub(super) user: &'a Arc<str>,
}

impl Share<'_> {
    pub(super) fn take(&self, amount: usize) -> Result<Held, Status> {
        self.pool.take(self.user, amount)
    }
}

impl Pool {
    pub(super) fn new(what: &'static str, total: usize, each: usize) -> Arc<Pool> {
        Arc::new(Pool { what, total, each: each.min(total), held: Mutex::default() })
    }

    /// What one user may hold.
    pub(super) fn each(&self) -> usize {
        self.each
    }

    /// Takes an amount, or says which bound it would pass.
    pub(super) fn take(self: &Arc<Self>, user: &Arc<str>, amount: usize) -> Result<Held, Status> {
        let mut held = self.lock();
        let own = held.of.get(user).copied().unwrap_or_default();
        let (what, each, total) = (self.what, self.each, self.total);
        if own.saturating_add(amount) > each {
            return Err(Status::busy(&format!(
                "too many {what} of user {user:?}: one user may have {each} at once"
            )));
        }
        if held.total.saturating_add(amount) > total {
            return Err(Status::busy(&format!(
                "too many {what}: all users together may have {total} at once"
            )));
        }
        held.total += amount;
        *held.of.entry(Arc::clone(user)).or_default() += amount;
        Ok(Held { pool: Arc::clone(self), user: Arc::clone(user), amount })
    }

    fn lock(&self) -> MutexGuard<'_, Amounts> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.pool.lock();
        held.total -= self.amount;
        if let Some(own) = held.of.get_mut(&self.user) {
            *own -= self.amount;
            if *own == 0 {
                held.of.remove(&self.user);
            }
        }
    }
}

/// Since when the client of a connection has not taken what answers have for it.
#[derive(Debug, Default)]
pub(super) struct Taking {
    waiting: Mutex<(u64, BTreeMap<u64, Instant>)>,
}

/// One answer's part in it.
#[derive(Debug)]
pub(super) struct Turn {
    taking: Arc<Taking>,
    id: u64,
}

impl Taking {
    /// Since when the slowest of the answers has waited for its client.
    pub(super) fn since(&self) -> Option<Instant> {
        self.lock().1.values().min().copied()
    }

    pub(super) fn turn(self: &Arc<Self>) -> Turn {
        let mut waiting = self.lock();
        waiting.0 += 1;
        Turn { taking: Arc::clone(self), id: waiting.0 }
    }

    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Instant>)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    pub(super) fn handed_out(&self) {
        self.taking.lock().1.insert(self.id, Instant::now());
    }

    pub(super) fn taken(&self) {
        self.taking.lock().1.remove(&self.id);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.taken();
    }
}

/// Lines of the log about one user's requests in a second, or about all connections that were refused; metrics count
/// what has no line.
const LINES_PER_SECOND_MAX: u32 = 20;

/// Keeps a flood of requests from becoming a flood of log lines.
#[derive(Debug)]
pub(super) struct Lines {
    started: Instant,
    /// Of this second, by user; empty for those who are none.
    written: Mutex<(u64, BTreeMap<Arc<str>, u32>)>,
}

impl Lines {
    pub(super) fn new() -> Lines {
        Lines { started: Instant::now(), written: Mutex::default() }
    }

    /// Whether one more may be written.
    pub(super) fn may_log(&self, user: &Arc<str>) -> bool {
        let second = self.started.elapsed().as_secs();
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.0 != second {
            *written = (second, BTreeMap::new());
        }
        let lines = written.1.entry(Arc::clone(user)).or_default();
        *lines += 1;
        *lines <= LINES_PER_SECOND_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_share_and_all_have_the_whole() {
        let pool = Pool::new("watches", 5, 3);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let first = pool.take(&a, 3).unwrap();
        let refused = pool.take(&a, 1).unwrap_err();
        assert_eq!(refused.message, "too many watches of user \"a\": one user may have 3 at once");
        assert_eq!(refused.details.retry_after, Some(1));
        let _second = pool.take(&b, 2).unwrap();
        let refused = pool.take(&b, 1).unwrap_err();
        assert_eq!(refused.message, "too many watches: all users together may have 5 at once");
        drop(first);
        assert_eq!(pool.lock().of.len(), 1);
        pool.take(&b, 1).unwrap();
    }
}
