//! Places for connections: bounded in all and for each holder. When they are taken, the connection that has waited
//! longest for its peer gives way.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

/// Connections that gave way and are not closed yet, at most: they still hold a file each.
pub const LEAVING_MAX: usize = 16;

/// How many places there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaceLimits {
    /// In all.
    pub total: usize,
    /// For one holder.
    pub each: usize,
}

/// Which connections give way when all places are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivesWay {
    /// The one that has been without a request for longest, and none if each has one under way.
    Idle,
    /// That one, or else the one whose requests have been under way for longest.
    Any,
}

/// No connection could give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// All places of this holder are taken.
    Holder,
    /// All places are.
    All,
}

/// How long a connection may stay.
#[derive(Clone, Copy, Debug)]
pub struct Stay {
    /// Without a request under way.
    pub idle: Duration,
    /// With requests under way.
    pub request: Duration,
    /// At all.
    pub life: Duration,
}

/// The places of one port for one sort of peer; `K` says who holds them: an address, a user.
#[derive(Debug)]
pub struct Places<K: Ord> {
    shared: Arc<Shared<K>>,
    gives_way: GivesWay,
}

#[derive(Debug)]
struct Shared<K: Ord> {
    open: Mutex<Open<K>>,
    left: Notify,
}

#[derive(Debug)]
struct Open<K> {
    next: u64,
    entries: BTreeMap<u64, Entry<K>>,
    holders: BTreeMap<K, usize>,
    leaving: usize,
}

#[derive(Debug)]
struct Entry<K> {
    holder: K,
    /// When it was opened, its last request ended, or the oldest of those under way began.
    since: Instant,
    requests: usize,
    gave_way: CancellationToken,
}

/// A connection's place, free again when it is dropped.
#[derive(Debug)]
pub struct Place<K: Ord> {
    shared: Arc<Shared<K>>,
    id: u64,
    opened: Instant,
    gave_way: CancellationToken,
}

/// A request that is under way until this is dropped.
#[derive(Debug)]
pub struct UnderWay<K: Ord> {
    place: Arc<Place<K>>,
}

impl<K: Ord + Clone> Places<K> {
    /// All free.
    #[must_use]
    pub fn new(gives_way: GivesWay) -> Self {
        let open = Open { next: 0, entries: BTreeMap::new(), holders: BTreeMap::new(), leaving: 0 };
        Self { shared: Arc::new(Shared { open: Mutex::new(open), left: Notify::new() }), gives_way }
    }

    /// Takes a place. If the holder has all that it may have, one of its own connections gives way; if all are taken,
    /// one of the holder that has most.
    ///
    /// # Errors
    /// When none may give way.
    pub fn take(&self, holder: K, limits: PlaceLimits) -> Result<Place<K>, Full> {
        let mut open = self.shared.lock();
        if open.holders.get(&holder).is_some_and(|held| *held >= limits.each) {
            open.make_way(&holder, self.gives_way).ok_or(Full::Holder)?;
        } else if open.entries.len() >= limits.total {
            let largest =
                open.holders.iter().max_by_key(|(_, held)| **held).map(|(holder, _)| holder.clone());
            largest.and_then(|largest| open.make_way(&largest, self.gives_way)).ok_or(Full::All)?;
        }
        let (id, opened, gave_way) = (open.next, Instant::now(), CancellationToken::new());
        open.next += 1;
        *open.holders.entry(holder.clone()).or_default() += 1;
        open.entries.insert(id, Entry { holder, since: opened, requests: 0, gave_way: gave_way.clone() });
        Ok(Place { shared: Arc::clone(&self.shared), id, opened, gave_way })
    }

    /// Waits until few enough connections that gave way are still being closed, before another is accepted.
    pub async fn settled(&self) {
        loop {
            let left = self.shared.left.notified();
            if self.shared.lock().leaving < LEAVING_MAX {
                return;
            }
            left.await;
        }
    }

    /// Places that are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.shared.lock().entries.len()
    }
}

impl<K: Ord> Shared<K> {
    fn lock(&self) -> MutexGuard<'_, Open<K>> {
        // Each change under the lock is whole before anything that could panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord> Open<K> {
    fn make_way(&mut self, holder: &K, gives_way: GivesWay) -> Option<()> {
        let own = self.entries.iter().filter(|(_, entry)| entry.holder == *holder);
        let may = own.filter(|(_, entry)| entry.requests == 0 || gives_way == GivesWay::Any);
        let (&id, _) = may.min_by_key(|(_, entry)| (entry.requests > 0, entry.since))?;
        self.remove(id)?.gave_way.cancel();
        self.leaving += 1;
        Some(())
    }

    fn remove(&mut self, id: u64) -> Option<Entry<K>> {
        let entry = self.entries.remove(&id)?;
        if let Some(held) = self.holders.get_mut(&entry.holder) {
            *held -= 1;
            if *held == 0 {
                self.holders.remove(&entry.holder);
            }
        }
        Some(entry)
    }
}

impl<K: Ord> Place<K> {
    /// Begins a request.
    pub fn request(self: &Arc<Self>) -> UnderWay<K> {
        if let Some(entry) = self.shared.lock().entries.get_mut(&self.id) {
            entry.requests += 1;
            if entry.requests == 1 {
                entry.since = Instant::now();
            }
        }
        UnderWay { place: Arc::clone(self) }
    }

    /// Resolves when the connection must be closed: it gave way, or stayed for too long.
    pub async fn over(&self, stay: Stay) {
        loop {
            let until = self.until(stay);
            // A request that ends meanwhile may bring the end nearer.
            let look_again = Instant::now() + stay.idle.min(stay.request);
            tokio::select! {
                () = self.gave_way.cancelled() => return,
                () = tokio::time::sleep_until(until.min(look_again)) => {}
            }
            if Instant::now() >= self.until(stay) {
                return;
            }
        }
    }

    /// Cancelled when the connection has to give way.
    #[must_use]
    pub fn gave_way(&self) -> &CancellationToken {
        &self.gave_way
    }

    fn until(&self, stay: Stay) -> Instant {
        let open = self.shared.lock();
        let Some(entry) = open.entries.get(&self.id) else { return self.opened };
        let allowed = if entry.requests == 0 { stay.idle } else { stay.request };
        (entry.since + allowed).min(self.opened + stay.life)
    }
}

impl<K: Ord> Drop for UnderWay<K> {
    fn drop(&mut self) {
        if let Some(entry) = self.place.shared.lock().entries.get_mut(&self.place.id) {
            entry.requests -= 1;
            if entry.requests == 0 {
                entry.since = Instant::now();
            }
        }
    }
}

impl<K: Ord> Drop for Place<K> {
    fn drop(&mut self) {
        let mut open = self.shared.lock();
        if open.remove(self.id).is_none() {
            open.leaving -= 1;
            self.shared.left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PlaceLimits = PlaceLimits { total: 3, each: 2 };

    #[test]
    fn who_has_most_gives_way_and_its_longest_idle_connection_first() -> Result<(), Full> {
        let places = Places::new(GivesWay::Any);
        let mut taken = Vec::new();
        for holder in ["a", "a", "b"] {
            taken.push(Arc::new(places.take(holder, LIMITS)?));
        }
        let busy = taken[0].request();
        let _c = places.take("c", LIMITS)?;
        assert!(taken[1].gave_way().is_cancelled() && !taken[0].gave_way().is_cancelled());
        assert_eq!(places.taken(), 3);
        // Its only one has a request under way, but is what is left to give way of a holder that has as many as it may.
        let again = places.take("b", PlaceLimits { total: 3, each: 1 })?;
        assert!(taken[2].gave_way().is_cancelled());
        drop((busy, again));
        assert_eq!(places.taken(), 2);
        Ok(())
    }

    #[test]
    fn requests_are_spared_where_only_idle_connections_give_way() -> Result<(), Full> {
        let places = Places::new(GivesWay::Idle);
        let first = Arc::new(places.take("a", LIMITS)?);
        let second = Arc::new(places.take("a", LIMITS)?);
        let under_way = (first.request(), second.request());
        assert_eq!(places.take("a", LIMITS).err(), Some(Full::Holder));
        let _third = places.take("b", LIMITS)?;
        drop(under_way.1);
        let _fourth = places.take("c", LIMITS)?;
        assert!(second.gave_way().is_cancelled() && !first.gave_way().is_cancelled());
        Ok(())
    }

    #[test]
    fn a_stay_ends_by_idleness_by_a_slow_request_and_by_age() -> Result<(), Full> {
        let seconds = Duration::from_secs;
        let stay = Stay { idle: seconds(2), request: seconds(5), life: seconds(20) };
        let place = Arc::new(Places::new(GivesWay::Any).take("a", LIMITS)?);
        assert_eq!(place.until(stay), place.opened + seconds(2));
        let (before, slow) = (Instant::now(), place.request());
        assert!((before..=Instant::now()).contains(&(place.until(stay) - seconds(5))));
        let (before, _) = (Instant::now(), drop(slow));
        assert!((before..=Instant::now()).contains(&(place.until(stay) - seconds(2))));
        assert_eq!(place.until(Stay { life: seconds(1), ..stay }), place.opened + seconds(1));
        Ok(())
    }
}
