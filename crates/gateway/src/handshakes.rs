//! Places for connections that have not proved who they are, and who gets one next.
//!
//! ```text
//! kernel's queue ── accept ──┬─ a place is free ───────────────────────── handshake ── who it is is known
//!                            └─ none: waits, at most WAITING_MAX do ──────┘     │
//!                               (then nothing is accepted)               no progress while others wait: gives way
//! ```
//!
//! Nobody is sent away because many come at once: a fleet that comes back waits its turn, here and in the kernel's queue.
//! A source has a share of the places, and of those that wait the source with the fewest places comes first. A handshake
//! that does not go on keeps its place unless others wait who would not get one soon: of a fleet whose machines are busy
//! all handshakes are slow, and none gives way as long as enough of them end well.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot};

/// Connections that wait for a place: each is a socket and a task, some 5 kB. As many wait as are at work in a second.
pub(crate) const WAITING_MAX: usize = 1_024;
/// How long a client may take for its first message while others wait: it sends it with the connection.
const HELLO_GRACE: Duration = Duration::from_secs(1);
/// How long it may take for its last message while others wait: a microcontroller's arithmetic.
const FINISH_GRACE: Duration = Duration::from_secs(3);
/// How long those that wait may have to wait, by how many handshakes ended well in [`RECENT`].
const PATIENCE: Duration = Duration::from_secs(10);
/// See [`PATIENCE`].
const RECENT: Duration = Duration::from_secs(2);
/// How often is looked for handshakes that give way.
pub(crate) const PRESS_EVERY: Duration = Duration::from_millis(250);

/// How many there may be, as the limit on open files allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Handshakes at once.
    pub(crate) places: usize,
    /// Of one source.
    pub(crate) places_of_source: usize,
    /// Connections that wait.
    pub(crate) waiting: usize,
}

/// All places.
pub(crate) struct Handshakes {
    inner: Mutex<Inner>,
    bounds: Box<dyn Fn() -> Bounds + Send + Sync>,
    /// Someone who waited does no more.
    room: Notify,
}

#[derive(Default)]
struct Inner {
    open: usize,
    waiting: usize,
    next: u64,
    /// Since when handshakes that ended well are counted, how many, and how many in the span before.
    counted: Option<(Instant, usize, usize)>,
    sources: HashMap<IpAddr, Source>,
}

#[derive(Default)]
struct Source {
    /// The oldest first.
    open: BTreeMap<u64, Arc<Place>>,
    /// Each with its number: lower ones have waited longer.
    waiting: VecDeque<(u64, oneshot::Sender<Slot>)>,
}

/// How far a handshake is.
pub(crate) struct Place {
    stage: Mutex<(Instant, Duration)>,
    asked: AtomicBool,
    ask: Notify,
}

impl Place {
    fn new() -> Arc<Self> {
        let stage = Mutex::new((Instant::now(), HELLO_GRACE));
        Arc::new(Self { stage, asked: AtomicBool::new(false), ask: Notify::new() })
    }

    /// The client's first message is here.
    pub(crate) fn hello_read(&self) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), FINISH_GRACE);
        self.asked.store(false, Ordering::Relaxed);
    }

    fn stalls(&self) -> bool {
        let (since, grace) = *self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        since.elapsed() >= grace
    }

    /// Waits until the place is wanted by others and its handshake has not gone on for too long. To be polled after the
    /// handshake, so that what has arrived is used first, however busy the process is.
    pub(crate) async fn gives_way(&self) {
        loop {
            self.ask.notified().await;
            if self.stalls() {
                return;
            }
        }
    }
}

/// A place, until it is dropped.
pub(crate) struct Slot {
    handshakes: Arc<Handshakes>,
    source: IpAddr,
    number: u64,
    pub(crate) place: Arc<Place>,
}

/// A place now, or the promise of one.
pub(crate) enum Turn {
    Now(Slot),
    Later(oneshot::Receiver<Slot>),
}

impl Turn {
    /// None if the process ends before.
    pub(crate) async fn come(self) -> Option<Slot> {
        match self {
            Self::Now(slot) => Some(slot),
            Self::Later(receiver) => receiver.await.ok(),
        }
    }
}

impl Handshakes {
    pub(crate) fn new(bounds: impl Fn() -> Bounds + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), bounds: Box::new(bounds), room: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handshakes under way, and connections that wait for a place.
    pub(crate) fn levels(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.open, inner.waiting)
    }

    /// Waits until another connection may be accepted.
    pub(crate) async fn room(&self) {
        while self.lock().waiting >= (self.bounds)().waiting.max(1) {
            self.room.notified().await;
        }
    }

    /// A connection was accepted.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Turn {
        let source = source(address);
        let bounds = (self.bounds)();
        let mut inner = self.lock();
        let inner = &mut *inner;
        let state = inner.sources.entry(source).or_default();
        if inner.open < bounds.places.max(1) && state.open.len() < bounds.places_of_source.max(1) {
            return Turn::Now(inner.take(self, source));
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.push_back((inner.next, sender));
        inner.next += 1;
        inner.waiting += 1;
        Turn::Later(receiver)
    }

    /// Asks handshakes that do not go on to give way, as many as connections wait; those of the source with most first.
    pub(crate) fn press(&self) {
        let bounds = (self.bounds)();
        let mut inner = self.lock();
        let served = inner.recently_done(Instant::now()) * (PATIENCE.as_secs() / RECENT.as_secs()) as usize;
        if inner.waiting <= served {
            return;
        }
        let full = inner.open >= bounds.places;
        let mut sources: Vec<&Source> =
            inner.sources.values().filter(|source| full || !source.waiting.is_empty()).collect();
        sources.sort_by_key(|source| std::cmp::Reverse(source.open.len()));
        let stalled = sources
            .iter()
            .flat_map(|source| source.open.values())
            .filter(|place| !place.asked.load(Ordering::Relaxed) && place.stalls());
        for place in stalled.take(inner.waiting - served) {
            place.asked.store(true, Ordering::Relaxed);
            place.ask.notify_one();
        }
    }

    /// A handshake ended well.
    pub(crate) fn done(&self) {
        let mut inner = self.lock();
        inner.recently_done(Instant::now());
        if let Some((_, done, _)) = &mut inner.counted {
            *done += 1;
        }
    }

    fn leave(self: &Arc<Self>, source: IpAddr, number: u64) {
        let bounds = (self.bounds)();
        let mut granted = Vec::new();
        {
            let mut inner = self.lock();
            let inner = &mut *inner;
            inner.open -= 1;
            if let Some(state) = inner.sources.get_mut(&source) {
                state.open.remove(&number);
                if state.open.is_empty() && state.waiting.is_empty() {
                    inner.sources.remove(&source);
                }
            }
            while inner.waiting > 0 && inner.open < bounds.places.max(1) {
                let next = inner
                    .sources
                    .iter_mut()
                    .filter(|(_, state)| {
                        !state.waiting.is_empty() && state.open.len() < bounds.places_of_source.max(1)
                    })
                    .min_by_key(|(_, state)| {
                        (state.open.len(), state.waiting.front().map(|(number, _)| *number))
                    });
                let Some((source, state)) = next else { break };
                let (source, sender) = (*source, state.waiting.pop_front());
                inner.waiting -= 1;
                let slot = inner.take(self, source);
                granted.extend(sender.map(|(_, sender)| (sender, slot)));
            }
        }
        if !granted.is_empty() {
            self.room.notify_one();
        }
        // Without the lock: a slot that nobody takes any more comes back at once.
        for (sender, slot) in granted {
            drop(sender.send(slot));
        }
    }
}

impl Inner {
    /// Handshakes that ended well in the last span and in the one under way.
    fn recently_done(&mut self, now: Instant) -> usize {
        let (since, done, before) = self.counted.get_or_insert((now, 0, 0));
        let half = RECENT / 2;
        if now.duration_since(*since) >= half {
            *before = if now.duration_since(*since) < RECENT { *done } else { 0 };
            (*since, *done) = (now, 0);
        }
        *done + *before
    }

    fn take(&mut self, handshakes: &Arc<Handshakes>, source: IpAddr) -> Slot {
        let (number, place) = (self.next, Place::new());
        self.next += 1;
        self.open += 1;
        self.sources.entry(source).or_default().open.insert(number, Arc::clone(&place));
        Slot { handshakes: Arc::clone(handshakes), source, number, place }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.handshakes.leave(self.source, self.number);
    }
}

/// Whose share an address draws on: with IPv6 whoever has one address has its whole /64 (RFC 7934 section 3).
pub(crate) fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn handshakes(places: usize, places_of_source: usize, waiting: usize) -> Arc<Handshakes> {
        Handshakes::new(move || Bounds { places, places_of_source, waiting })
    }

    fn now(turn: Turn) -> Slot {
        match turn {
            Turn::Now(slot) => slot,
            Turn::Later(_) => panic!("it has to wait"),
        }
    }

    fn later(turn: Turn) -> oneshot::Receiver<Slot> {
        match turn {
            Turn::Now(_) => panic!("it need not wait"),
            Turn::Later(receiver) => receiver,
        }
    }

    #[tokio::test]
    async fn nobody_is_sent_away_and_the_source_with_fewer_places_comes_first() {
        let handshakes = handshakes(4, 3, 10);
        let [first, second, kept] = [(); 3].map(|()| now(handshakes.enter(A)));
        let other = now(handshakes.enter(B));
        let [mut third, mut fourth] = [(); 2].map(|()| later(handshakes.enter(A)));
        let mut others_second = later(handshakes.enter(B));
        drop(first);
        let others_second = others_second.try_recv().expect("B has fewer places");
        assert!(third.try_recv().is_err());
        drop(second);
        let third = third.try_recv().expect("A's turn, in the order in which they came");
        assert!(fourth.try_recv().is_err());
        assert_eq!(handshakes.levels(), (4, 1));
        drop((other, others_second, kept));
        let fourth = fourth.try_recv().unwrap();
        drop((third, fourth));
        assert_eq!(handshakes.levels(), (0, 0));
        assert!(handshakes.lock().sources.is_empty());
    }

    #[tokio::test]
    async fn whoever_went_away_takes_no_place_and_nothing_is_accepted_while_the_room_is_full() {
        let handshakes = handshakes(1, 1, 2);
        let first = now(handshakes.enter(A));
        drop(later(handshakes.enter(A)));
        handshakes.room().await;
        let mut last = later(handshakes.enter(A));
        let mut room = Box::pin(handshakes.room());
        assert!(futures::poll!(&mut room).is_pending());
        drop(first);
        room.await;
        assert!(last.try_recv().is_ok());
    }

    #[tokio::test]
    async fn what_does_not_go_on_gives_way_only_if_it_is_wanted() {
        let handshakes = handshakes(2, 2, 10);
        let stalled = now(handshakes.enter(A));
        let busy = now(handshakes.enter(A));
        let age = |place: &Place, by: Duration| {
            let mut stage = place.stage.lock().unwrap();
            stage.0 = stage.0.checked_sub(by).unwrap();
        };
        age(&stalled.place, HELLO_GRACE);
        handshakes.press();
        assert!(futures::poll!(Box::pin(stalled.place.gives_way())).is_pending(), "nobody waits");
        let mut waiting = later(handshakes.enter(B));
        busy.place.hello_read();
        age(&busy.place, HELLO_GRACE);
        handshakes.done();
        handshakes.press();
        assert!(futures::poll!(Box::pin(stalled.place.gives_way())).is_pending(), "enough end well");
        handshakes.lock().counted = None;
        handshakes.press();
        stalled.place.gives_way().await;
        assert!(futures::poll!(Box::pin(busy.place.gives_way())).is_pending(), "it has gone on");
        drop(stalled);
        assert!(waiting.try_recv().is_ok());
    }

    #[test]
    fn a_source_is_an_address_or_a_prefix() {
        let of = |text: &str| source(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
