//! The connections of a gateway: where each is, when it is looked at next, and how many there are of each kind.
//!
//! ```text
//! AwaitHello ─ Hello ─┬─ AwaitDevice ─┐
//!                     ├───────────────┴─ AwaitClaim ── Established
//!                     └─ (any state) ── Closing
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use wasmbed_api::DeviceFacts;
use wasmbed_protocol::{BootCounter, BootId, Hello, MessageGroups, rate::TokenBucket};

use super::{
    allowance::frame_cost,
    config::{STRANGERS_FRAMES, UNUSABLE_MESSAGES_MAX},
    input::SessionId,
    pending::Pending,
};
use crate::{Now, ObjectKey};

/// Where a session is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    /// Authenticated, nothing heard.
    AwaitHello,
    /// Its Device is being created.
    AwaitDevice(Box<Greeting>),
    /// Its epoch is being written to Device.status.
    AwaitClaim,
    /// Welcome was given.
    Established,
    /// A Reject or a Goodbye is to be sent.
    Closing,
}

impl State {
    fn is_admitted(&self) -> bool {
        matches!(self, Self::AwaitClaim | Self::Established)
    }
}

/// What a Hello said, kept.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Greeting {
    facts: Arc<DeviceFacts>,
    last_epoch: u64,
    revision: u64,
    boot: Boot,
    takes_orders: bool,
    takes_deliveries: bool,
    takes_settings: bool,
}

impl Greeting {
    /// `facts` are those of the Hello.
    pub(super) fn new(hello: &Hello<'_>, facts: Arc<DeviceFacts>) -> Self {
        Self {
            facts,
            last_epoch: hello.last_epoch.0,
            revision: hello.revision.0,
            boot: Boot { counter: hello.boot_counter, id: hello.boot_id },
            takes_orders: hello.groups.is_some_and(|groups| groups.has(MessageGroups::DECOMMISSION)),
            takes_deliveries: hello.groups.is_some_and(|groups| groups.has(MessageGroups::DELIVERIES)),
            takes_settings: hello.groups.is_some_and(|groups| groups.has(MessageGroups::SETTINGS)),
        }
    }

    /// What the device is.
    pub(super) fn facts(&self) -> &Arc<DeviceFacts> {
        &self.facts
    }

    /// The epoch of the last session that the device knows of.
    pub(super) fn last_epoch(&self) -> u64 {
        self.last_epoch
    }

    /// The revision of the set that the device holds, in its own count; 0 if it holds none.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether it knows orders to be taken out of service.
    pub(super) fn takes_orders(&self) -> bool {
        self.takes_orders
    }

    /// Whether it takes messages for its applications.
    pub(super) fn takes_settings(&self) -> bool {
        self.takes_settings
    }

    /// Whether it takes messages for its applications.
    pub(super) fn takes_deliveries(&self) -> bool {
        self.takes_deliveries
    }

    pub(super) fn boot(&self) -> Boot {
        self.boot
    }
}

/// Which start of its device a session belongs to; older firmware does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Boot {
    /// Number of the start; a device whose storage fails has none.
    counter: Option<BootCounter>,
    /// Drawn at the start.
    id: Option<BootId>,
}

impl Boot {
    /// Orders the device's starts; a device whose storage fails has no number.
    pub(super) fn start(self) -> Option<u64> {
        self.counter.map(|counter| counter.0)
    }

    /// Tells this start from any other.
    pub(super) fn id(self) -> Option<BootId> {
        self.id
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    device: Arc<ObjectKey>,
    public_key: Arc<str>,
    state: State,
    /// When its timer is due; entries of the timer queue with another time are stale.
    deadline_ms: u64,
    /// Its device is not admitted, so that it draws on what strangers share and not on what the device has.
    stranger: bool,
    heard_ms: u64,
    /// Messages that could not be used.
    unusable: u32,
    pending: Pending,
    /// Of a stranger.
    frames: TokenBucket,
}

impl Session {
    pub(super) fn device(&self) -> &Arc<ObjectKey> {
        &self.device
    }

    pub(super) fn public_key(&self) -> &Arc<str> {
        &self.public_key
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn is_stranger(&self) -> bool {
        self.stranger
    }

    /// When a frame last came, milliseconds of the monotonic clock.
    pub(super) fn heard_ms(&self) -> u64 {
        self.heard_ms
    }

    /// A frame came. Gives false once the session is closing: what comes then is not looked at.
    pub(super) fn heard(&mut self, now: Now) -> bool {
        let open = self.state != State::Closing;
        if open {
            self.heard_ms = now.ms;
        }
        open
    }

    /// Counts a frame of a stranger, whose device has no share of its own.
    pub(super) fn count_strange_frame(&mut self, now: Now, bytes: usize) {
        debug_assert!(self.stranger, "frames of an admitted device count against its share");
        self.frames.refill(now.ms, STRANGERS_FRAMES);
        self.frames.spend(frame_cost(bytes));
    }

    /// When a stranger's connection is to be read again, milliseconds of the monotonic clock.
    pub(super) fn strange_read_at_ms(&self) -> u64 {
        self.frames.available_at_ms(STRANGERS_FRAMES, 1)
    }

    /// A message could not be used; false if there were too many of them.
    pub(super) fn tolerates_unusable(&mut self) -> bool {
        self.unusable += 1;
        self.unusable <= UNUSABLE_MESSAGES_MAX
    }

    /// What is to be sent.
    pub(super) fn pending(&self) -> &Pending {
        &self.pending
    }

    pub(super) fn pending_mut(&mut self) -> &mut Pending {
        &mut self.pending
    }

    pub(super) fn is_established(&self) -> bool {
        self.state == State::Established
    }
}

/// All connections. It keeps its counts, timers and places in step with the sessions' states, which change only here.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// Boxed, as nodes of a tree are half empty.
    by_id: BTreeMap<SessionId, Box<Session>>,
    /// When sessions are looked at next.
    timers: BTreeSet<(u64, SessionId)>,
    /// Sessions that may have something to send or are to be closed.
    wakes: BTreeSet<SessionId>,
    /// Those of clients that are not admitted devices, the oldest first.
    strangers: BTreeMap<Arc<ObjectKey>, Vec<SessionId>>,
    strangers_open: usize,
    /// In [`State::AwaitClaim`] or [`State::Established`].
    admitted: usize,
}

impl Connections {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn contains(&self, id: SessionId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        self.by_id.get(&id).map(AsRef::as_ref)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.by_id.get_mut(&id).map(AsMut::as_mut)
    }

    pub(super) fn ids(&self) -> Vec<SessionId> {
        self.by_id.keys().copied().collect()
    }

    pub(super) fn established(&self) -> usize {
        self.by_id.values().filter(|session| session.is_established()).count()
    }

    /// Sessions that were let in and have not ended.
    pub(super) fn admitted(&self) -> usize {
        self.admitted
    }

    /// Connections of clients that are not admitted devices.
    pub(super) fn strangers_open(&self) -> usize {
        self.strangers_open
    }

    /// Connections of one such client, the oldest first.
    pub(super) fn strangers_of(&self, device: &ObjectKey) -> &[SessionId] {
        self.strangers.get(device).map_or(&[], Vec::as_slice)
    }

    pub(super) fn insert(
        &mut self,
        now: Now,
        id: SessionId,
        device: Arc<ObjectKey>,
        public_key: Arc<str>,
        stranger: bool,
    ) {
        if stranger {
            self.strangers.entry(Arc::clone(&device)).or_default().push(id);
            self.strangers_open += 1;
        }
        let session = Session {
            device,
            public_key,
            state: State::AwaitHello,
            deadline_ms: 0,
            stranger,
            heard_ms: now.ms,
            unusable: 0,
            pending: Pending::default(),
            frames: TokenBucket::default(),
        };
        let before = self.by_id.insert(id, Box::new(session));
        debug_assert!(before.is_none(), "{id:?} was used before");
    }

    pub(super) fn remove(&mut self, id: SessionId) -> Option<Box<Session>> {
        let session = self.by_id.remove(&id)?;
        self.timers.remove(&(session.deadline_ms, id));
        self.wakes.remove(&id);
        self.admitted -= usize::from(session.state.is_admitted());
        if session.stranger {
            self.release_stranger(id, &session.device);
        }
        Some(session)
    }

    /// Changes where a session is and gives where it was; a closing one has no timer any more.
    pub(super) fn set_state(&mut self, id: SessionId, state: State) -> Option<State> {
        let session = self.by_id.get_mut(&id)?;
        let before = std::mem::replace(&mut session.state, state);
        self.admitted -= usize::from(before.is_admitted());
        self.admitted += usize::from(session.state.is_admitted());
        if session.state == State::Closing {
            self.timers.remove(&(session.deadline_ms, id));
        }
        Some(before)
    }

    /// The session's device is admitted. Whether it counted as a stranger's until now.
    pub(super) fn admit(&mut self, id: SessionId) -> bool {
        self.set_state(id, State::AwaitClaim);
        let session = present!(self.by_id.get_mut(&id), "an admitted session is a connection" => false);
        let stranger = std::mem::replace(&mut session.stranger, false);
        if stranger {
            let device = Arc::clone(&session.device);
            self.release_stranger(id, &device);
        }
        stranger
    }

    fn release_stranger(&mut self, id: SessionId, device: &Arc<ObjectKey>) {
        let Some(open) = self.strangers.get_mut(device) else {
            debug_assert!(false, "{id:?} of {device} is not among the strangers");
            return;
        };
        open.retain(|open| *open != id);
        if open.is_empty() {
            self.strangers.remove(device);
        }
        self.strangers_open -= 1;
    }

    pub(super) fn set_deadline(&mut self, id: SessionId, at_ms: u64) {
        if let Some(session) = self.by_id.get_mut(&id) {
            self.timers.remove(&(session.deadline_ms, id));
            session.deadline_ms = at_ms;
            self.timers.insert((at_ms, id));
        }
    }

    /// When [`Connections::pop_due`] may give a session that it does not give now.
    pub(super) fn timeout_ms(&self) -> Option<u64> {
        self.timers.first().map(|(due_ms, _)| *due_ms)
    }

    /// A session whose deadline has come; it has none any more.
    pub(super) fn pop_due(&mut self, now_ms: u64) -> Option<SessionId> {
        let (due_ms, id) = *self.timers.first().filter(|(due_ms, _)| *due_ms <= now_ms)?;
        self.timers.pop_first();
        debug_assert!(self.by_id.get(&id).is_some_and(|session| session.deadline_ms == due_ms));
        Some(id)
    }

    /// The session may have something to send or is to be closed.
    pub(super) fn wake(&mut self, id: SessionId) {
        if self.by_id.contains_key(&id) {
            self.wakes.insert(id);
        }
    }

    pub(super) fn pop_wake(&mut self) -> Option<SessionId> {
        self.wakes.pop_first()
    }

    /// The first broken invariant, if any.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let count = |of: fn(&Session) -> bool| self.by_id.values().filter(|session| of(session)).count();
        if count(|session| session.state.is_admitted()) != self.admitted {
            return Err("the count of admitted sessions is not their number");
        }
        let open: usize = self.strangers.values().map(Vec::len).sum();
        if count(|session| session.stranger) != self.strangers_open || open != self.strangers_open {
            return Err("the count of strangers is not their number");
        }
        let due = |(at_ms, id): &(u64, SessionId)| {
            self.by_id
                .get(id)
                .is_some_and(|session| session.deadline_ms == *at_ms && session.state != State::Closing)
        };
        if !self.timers.iter().all(due) {
            return Err("a timer is not that of an open session");
        }
        if !self.wakes.iter().all(|id| self.by_id.contains_key(id)) {
            return Err("a session that is gone is to be woken");
        }
        Ok(())
    }
}
