//! Quotas: bounds on what all users together and each of them may hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::status::Status;

/// A bounded resource.
#[derive(Debug)]
pub(super) struct Pool {
    /// Name in errors: `watches`.
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

/// An amount held by one user; returned to the pool on drop.
#[derive(Debug)]
pub(super) struct Held {
    pool: Arc<Pool>,
    user: Arc<str>,
    amount: usize,
}

/// One user's share of a pool.
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

    /// The bound for one user.
    pub(super) fn each(&self) -> usize {
        self.each
    }

    /// Takes an amount; 429 if it would exceed one of the bounds.
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
        debug_assert!(
            held.of.get(&self.user).is_none_or(|own| *own >= self.amount),
            "returned more than taken"
        );
        held.total -= self.amount;
        if let Some(own) = held.of.get_mut(&self.user) {
            *own -= self.amount;
            if *own == 0 {
                held.of.remove(&self.user);
            }
        }
    }
}

/// Answers of a connection whose next piece its client hasn't read yet.
#[derive(Debug, Default)]
pub(super) struct Unread {
    handed_out: Mutex<(u64, BTreeMap<u64, Instant>)>,
}

/// One answer of a connection.
#[derive(Debug)]
pub(super) struct Delivery {
    unread: Arc<Unread>,
    id: u64,
}

impl Unread {
    /// Time at which the longest unread piece was handed out.
    pub(super) fn since(&self) -> Option<Instant> {
        self.lock().1.values().min().copied()
    }

    pub(super) fn delivery(self: &Arc<Self>) -> Delivery {
        let mut waiting = self.lock();
        waiting.0 += 1;
        Delivery { unread: Arc::clone(self), id: waiting.0 }
    }

    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Instant>)> {
        self.handed_out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Delivery {
    pub(super) fn handed_out(&self) {
        self.unread.lock().1.insert(self.id, Instant::now());
    }

    pub(super) fn read(&self) {
        self.unread.lock().1.remove(&self.id);
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.read();
    }
}

/// Log lines per second about the requests of one user, and about all refused connections; metrics count all of them.
const LINES_PER_SECOND_MAX: u32 = 20;

/// Limits log lines per user.
#[derive(Debug)]
pub(super) struct Lines {
    started: Instant,
    /// The current second and its lines by user; the name is empty without a user.
    written: Mutex<(u64, BTreeMap<Arc<str>, u32>)>,
}

impl Lines {
    pub(super) fn new() -> Lines {
        Lines { started: Instant::now(), written: Mutex::default() }
    }

    /// Whether another line about this user may be written in this second.
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
    fn quotas_hold_for_each_user_and_for_all() {
        let pool = Pool::new("watches", 5, 3);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let first = pool.take(&a, 3).unwrap();
        let refused = pool.take(&a, 1).unwrap_err();
        assert_eq!(refused.message(), "too many watches of user \"a\": one user may have 3 at once");
        assert_eq!(refused.details().retry_after, Some(1));
        let _second = pool.take(&b, 2).unwrap();
        let refused = pool.take(&b, 1).unwrap_err();
        assert_eq!(refused.message(), "too many watches: all users together may have 5 at once");
        drop(first);
        assert_eq!(pool.lock().of.len(), 1);
        pool.take(&b, 1).unwrap();
    }
}
