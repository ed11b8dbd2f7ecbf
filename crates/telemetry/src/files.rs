//! The process's limit on open files, divided among the ports that it serves.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a process has open beside the connections of its ports: stores, logs, clients of other servers. Of a
/// small limit a quarter.
const OTHER_FILES: usize = 256;

/// A port's share of the files that the process may have open. It goes back to the others when this is dropped.
///
/// The first claim raises the process's soft limit as far as its hard limit lets it and the claims need it. Where that
/// is too little, the claims share what there is: none gets less than an equal part unless it asks for less.
#[derive(Debug)]
pub struct OpenFiles {
    id: u64,
    allowed: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Claim {
    wanted: usize,
    allowed: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Claims {
    next: u64,
    open: BTreeMap<u64, Claim>,
}

/// The limit is the process's, and so is what divides it.
static CLAIMS: Mutex<Claims> = Mutex::new(Claims { next: 0, open: BTreeMap::new() });

impl OpenFiles {
    /// Asks for `wanted` files and raises the limit if it has to. `who` is for the log line that tells where it can't.
    #[must_use]
    pub fn claim(who: &str, wanted: usize) -> Self {
        let mut claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
        let (id, allowed) = (claims.next, Arc::new(AtomicUsize::new(0)));
        claims.next += 1;
        claims.open.insert(id, Claim { wanted, allowed: Arc::clone(&allowed) });
        claims.divide();
        drop(claims);
        let got = allowed.load(Ordering::Relaxed);
        if got < wanted {
            tracing::warn!(
                reason = "OpenFilesLimit",
                who,
                wanted,
                allowed = got,
                "the limit on open files is lower than the configured bounds need; raise it (ulimit -Hn, LimitNOFILE)"
            );
        }
        Self { id, allowed }
    }

    /// How many files the port may have open now, at most what it wanted. It changes with the claims of other ports.
    #[must_use]
    pub fn allowed(&self) -> usize {
        self.allowed.load(Ordering::Relaxed)
    }
}

impl Drop for OpenFiles {
    fn drop(&mut self) {
        let mut claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
        claims.open.remove(&self.id);
        claims.divide();
    }
}

impl Claims {
    fn divide(&self) {
        let wants: Vec<usize> = self.open.values().map(|claim| claim.wanted).collect();
        let wanted = wants.iter().fold(OTHER_FILES, |sum, wanted| sum.saturating_add(*wanted));
        let limit = raise(wanted);
        let shares = fair_shares(limit.saturating_sub(OTHER_FILES.min(limit / 4)), &wants);
        for (claim, share) in self.open.values().zip(shares) {
            claim.allowed.store(share, Ordering::Relaxed);
        }
    }
}

/// Raises the soft limit to `wanted` where it is lower, within the hard limit; what the limit then is.
fn raise(wanted: usize) -> usize {
    let count =
        |limit: Option<u64>| limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let held = getrlimit(Resource::Nofile);
    if count(held.current) >= wanted {
        return count(held.current);
    }
    let raised = Rlimit { current: Some(count(held.maximum).min(wanted) as u64), maximum: held.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => count(raised.current),
        Err(_) => count(held.current),
    }
}

/// Max-min fair: whoever wants less than an equal part gets it, the rest is divided equally among the others.
fn fair_shares(total: usize, wants: &[usize]) -> Vec<usize> {
    let mut smallest_first: Vec<usize> = (0..wants.len()).collect();
    smallest_first.sort_by_key(|index| wants[*index]);
    let (mut left, mut waiting) = (total, wants.len());
    let mut shares = vec![0; wants.len()];
    for index in smallest_first {
        shares[index] = wants[index].min(left / waiting);
        left -= shares[index];
        waiting -= 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_wishes_are_met_and_large_ones_share_the_rest() {
        assert_eq!(fair_shares(192, &[1_024, 10_000, 64, 20]), [57, 58, 57, 20]);
        assert_eq!(fair_shares(20_000, &[1_024, 10_000, 64]), [1_024, 10_000, 64]);
        assert_eq!(fair_shares(3, &[10, 10]), [1, 2]);
        assert_eq!(fair_shares(0, &[10]), [0]);
        assert_eq!(fair_shares(5, &[]), Vec::<usize>::new());
    }

    #[test]
    fn a_claim_follows_what_the_others_want() {
        let limit = raise(0);
        let first = OpenFiles::claim("first", 10);
        assert_eq!(first.allowed(), 10);
        let second = OpenFiles::claim("second", usize::MAX);
        assert_eq!(first.allowed(), 10);
        assert!(second.allowed() >= 10 && second.allowed() >= limit / 4, "{}", second.allowed());
    }
}
