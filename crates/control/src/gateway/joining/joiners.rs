//! The connections of devices that join: where each is, when it is looked at next, and what it is to be sent.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use wasmbed_protocol::{Join, KeyHash, rate::TokenBucket};

use super::claims::{Claim, Yielding};
use crate::{
    Now, ObjectKey,
    gateway::{
        allowance::frame_cost,
        certification::{CertificateHash, JoiningClient, JoiningIdentity},
        config::{HELLO_TIMEOUT_MS, JOINER_LIFETIME_MS, JOINS_MAX, JOINS_WINDOW_MS, STRANGERS_FRAMES},
        input::SessionId,
        outbox::Outbox,
        pending::Closing,
    },
};

/// What a Join asked for, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) request: Arc<[u8]>,
    /// Of the request.
    pub(super) key: KeyHash,
    pub(super) proof: Option<Arc<[u8]>>,
    pub(super) pairing_id: Option<Arc<str>>,
    /// As the device calls its board, shortened.
    pub(super) board: String,
}

impl Asked {
    pub(super) fn new(join: &Join<'_>, key: KeyHash, board: String) -> Self {
        Self {
            request: join.request.into(),
            key,
            proof: join.proof.map(Arc::from),
            pairing_id: join.pairing_id.map(Arc::from),
            board,
        }
    }
}

/// Where a joining device is; see [`super`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing heard.
    AwaitJoin,
    /// Its Device is being created.
    AwaitDevice(Box<Asked>, Arc<ObjectKey>),
    /// It was told which Device it is, and is to prove it.
    AwaitProof(Arc<ObjectKey>),
    /// There is a request for it.
    Requested(Arc<ObjectKey>),
    /// Its certificate is on its way to it.
    Delivering,
    /// The last is to be said.
    Closing,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Joiner {
    client: Arc<JoiningClient>,
    state: State,
    claim: Claim,
    accepted_ms: u64,
    deadline_ms: u64,
    /// When its last Joins came.
    joins: VecDeque<u64>,
    frames: TokenBucket,
    pub(super) outbox: Outbox,
    /// Said after all else.
    pub(super) last: Option<Box<Closing>>,
}

impl Joiner {
    pub(super) fn client(&self) -> &Arc<JoiningClient> {
        &self.client
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn claim(&self) -> Claim {
        self.claim
    }

    /// The Device that it is or is to be, if that is known.
    pub(super) fn device(&self) -> Option<&Arc<ObjectKey>> {
        match &self.state {
            State::AwaitDevice(_, device) | State::AwaitProof(device) | State::Requested(device) => {
                Some(device)
            }
            State::AwaitJoin | State::Delivering | State::Closing => None,
        }
    }

    /// Counts a Join; false if there were too many.
    pub(super) fn takes_join(&mut self, now_ms: u64) -> bool {
        self.joins.retain(|came_ms| now_ms.saturating_sub(*came_ms) < JOINS_WINDOW_MS);
        self.joins.push_back(now_ms);
        self.joins.len() <= JOINS_MAX
    }

    pub(super) fn count_frame(&mut self, now_ms: u64, bytes: usize) {
        self.frames.refill(now_ms, STRANGERS_FRAMES);
        self.frames.spend(frame_cost(bytes));
    }

    /// When it is to be read again, milliseconds of the monotonic clock.
    pub(super) fn read_at_ms(&self) -> u64 {
        self.frames.available_at_ms(STRANGERS_FRAMES, 1)
    }

    /// Whether there is nothing left to say.
    pub(super) fn is_silent(&self) -> bool {
        self.outbox.is_empty() && self.last.is_none()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Joiners {
    by_id: BTreeMap<SessionId, Box<Joiner>>,
    /// The latest of each certificate.
    by_certificate: BTreeMap<CertificateHash, SessionId>,
    timers: BTreeSet<(u64, SessionId)>,
    wakes: BTreeSet<SessionId>,
    yielding: Yielding,
}

impl Joiners {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn contains(&self, id: SessionId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Joiner> {
        self.by_id.get(&id).map(AsRef::as_ref)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Joiner> {
        self.by_id.get_mut(&id).map(AsMut::as_mut)
    }

    pub(super) fn ids(&self) -> Vec<SessionId> {
        self.by_id.keys().copied().collect()
    }

    /// Those of a Device.
    pub(super) fn of_device(&self, device: &ObjectKey) -> Vec<SessionId> {
        let of = |joiner: &Joiner| joiner.device().is_some_and(|own| **own == *device);
        self.by_id.iter().filter(|(_, joiner)| of(joiner)).map(|(id, _)| *id).collect()
    }

    /// The open connection with this certificate.
    pub(super) fn of_certificate(&self, certificate: &CertificateHash) -> Option<SessionId> {
        let id = *self.by_certificate.get(certificate)?;
        self.get(id).filter(|joiner| joiner.state != State::Closing).map(|_| id)
    }

    /// Those that are not being closed.
    pub(super) fn open(&self) -> usize {
        self.timers.len()
    }

    /// Those of them that have a claim.
    pub(super) fn claims(&self) -> usize {
        self.open().saturating_sub(self.yielding.len())
    }

    /// Those of them that have it by what may be the proof of a token.
    pub(super) fn claims_by_token(&self) -> usize {
        let by_token = |joiner: &Joiner| {
            let is_paired = matches!(joiner.client.identity, JoiningIdentity::Token { .. });
            is_paired && joiner.claim >= Claim::Expected && joiner.state != State::Closing
        };
        self.by_id.values().filter(|joiner| by_token(joiner)).count()
    }

    /// Who makes room for one that comes, if anybody does.
    pub(super) fn gives_way(&self, claim: Claim, source: IpAddr) -> Option<SessionId> {
        self.yielding.gives_way(claim, source)
    }

    /// What speaks for one from now on.
    pub(super) fn set_claim(&mut self, id: SessionId, claim: Claim) {
        let Some(joiner) = self.by_id.get_mut(&id).filter(|joiner| joiner.state != State::Closing) else {
            return;
        };
        let before = std::mem::replace(&mut joiner.claim, claim);
        self.yielding.remove(joiner.client.source, before, id);
        self.yielding.insert(joiner.client.source, claim, id);
    }

    pub(super) fn insert(&mut self, now: Now, id: SessionId, client: JoiningClient, claim: Claim) {
        let deadline_ms = now.ms + HELLO_TIMEOUT_MS;
        self.by_certificate.insert(client.certificate, id);
        self.timers.insert((deadline_ms, id));
        self.yielding.insert(client.source, claim, id);
        let joiner = Joiner {
            client: Arc::new(client),
            state: State::AwaitJoin,
            claim,
            accepted_ms: now.ms,
            deadline_ms,
            joins: VecDeque::new(),
            frames: TokenBucket::default(),
            outbox: Outbox::default(),
            last: None,
        };
        let before = self.by_id.insert(id, Box::new(joiner));
        debug_assert!(before.is_none(), "{id:?} was used before");
    }

    pub(super) fn remove(&mut self, id: SessionId) -> Option<Box<Joiner>> {
        let joiner = self.by_id.remove(&id)?;
        self.timers.remove(&(joiner.deadline_ms, id));
        self.wakes.remove(&id);
        self.yielding.remove(joiner.client.source, joiner.claim, id);
        let certificate = joiner.client.certificate;
        if self.by_certificate.get(&certificate) == Some(&id) {
            self.by_certificate.remove(&certificate);
        }
        Some(joiner)
    }

    /// Changes where one is, for so long at most; a closing one has no timer. No state outlasts the connection's time.
    pub(super) fn set_state(&mut self, now: Now, id: SessionId, state: State, for_ms: u64) {
        let Some(joiner) = self.by_id.get_mut(&id) else { return };
        self.timers.remove(&(joiner.deadline_ms, id));
        joiner.state = state;
        if joiner.state == State::Closing {
            self.yielding.remove(joiner.client.source, joiner.claim, id);
        } else {
            let end_ms = joiner.accepted_ms + JOINER_LIFETIME_MS;
            joiner.deadline_ms = now.ms.saturating_add(for_ms).min(end_ms);
            self.timers.insert((joiner.deadline_ms, id));
        }
        self.wakes.insert(id);
    }

    pub(super) fn wake(&mut self, id: SessionId) {
        if self.by_id.contains_key(&id) {
            self.wakes.insert(id);
        }
    }

    pub(super) fn pop_wake(&mut self) -> Option<SessionId> {
        self.wakes.pop_first()
    }

    /// When [`Joiners::pop_due`] may give one that it does not give now.
    pub(super) fn timeout_ms(&self) -> Option<u64> {
        self.timers.first().map(|(due_ms, _)| *due_ms)
    }

    /// One whose time has come; it has no timer any more.
    pub(super) fn pop_due(&mut self, now_ms: u64) -> Option<SessionId> {
        self.timers.first().filter(|(due_ms, _)| *due_ms <= now_ms)?;
        self.timers.pop_first().map(|(_, id)| id)
    }

    /// The first broken invariant, if any.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let open = self.by_id.values().filter(|joiner| joiner.state != State::Closing).count();
        let due =
            |(at_ms, id): &(u64, SessionId)| self.get(*id).is_some_and(|joiner| joiner.deadline_ms == *at_ms);
        if open != self.timers.len() || !self.timers.iter().all(due) {
            return Err("a joining connection has no end");
        }
        let yields = |joiner: &Joiner| joiner.state != State::Closing && joiner.claim < Claim::Expected;
        if self.yielding.len() != self.by_id.values().filter(|joiner| yields(joiner)).count() {
            return Err("it is not known which joining connections give way");
        }
        if !self.wakes.iter().all(|id| self.contains(*id)) {
            return Err("a joining connection that is gone is to be woken");
        }
        Ok(())
    }
}
