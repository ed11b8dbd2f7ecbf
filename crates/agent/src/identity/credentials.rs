//! The identity record as the agent holds it: when it is read and written, and which chain each attempt presents.

use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};
use wasmbed_protocol::KeyHash;

use super::{
    ChainFacts, IdentityError, KEY_BYTES_MAX, Presented, Provisioned, READ_ATTEMPTS, UNHEARD_MAX,
    record::{Chain, IdentityRecord, Origin, Retired},
};
use crate::{
    backoff::STATE,
    decommission::{EndStep, Ending, KeptProof},
    event::{Event, Events},
    storage::{Done, Outcome, StorageError},
};

/// Of the attempts that would not, one of so many is made with a chain that is over by a gateway's clock.
const DOUBT_TURNS: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Reading,
    /// Without a key.
    Making,
    MakingNow,
    /// The key is on its way to storage.
    Keeping,
    Loading,
    LoadingNow,
    Ready,
    /// Decommissioned, and the proof acknowledged: there is no key any more.
    Retired,
}

/// What an attempt presents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Provisioned,
    Current,
    Next,
}

/// What the board is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyAsk {
    Make,
    Use,
}

/// Contract: [`choose`](Self::choose) before each attempt, then [`handle_turned_away`](Self::handle_turned_away) or
/// [`handle_welcomed`](Self::handle_welcomed). An operation that [`plan_commit`](Self::plan_commit) or
/// [`wants_record`](Self::wants_record) asked for is answered before the next one.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    provisioned: Provisioned,
    phase: Phase,
    record: Option<IdentityRecord>,
    /// Counts changes of the record.
    version: u64,
    /// The last one that storage has.
    durable: u64,
    /// Of storage or of the board, in a row.
    failures: u32,
    retry_at_ms: Option<u64>,
    choice: Choice,
    /// Attempts in a row that came to no session.
    turned_away: u32,
    /// Attempts in a row that the gateway ended, or left, without a word.
    unheard: u32,
    /// The next chain was turned away once.
    next_refused: bool,
    /// Since when the chains are known, by the device's own clock: they began then or earlier.
    known_since_ms: u64,
    /// It was said that this device has to be paired again.
    told_unpaired: bool,
    /// The version that has the proof.
    proof_version: u64,
    /// What is left to be erased, once retired.
    ending: Ending,
}

impl Credentials {
    pub(crate) fn new(provisioned: Provisioned) -> Self {
        let phase = if provisioned == Provisioned::Fixed { Phase::Ready } else { Phase::Reading };
        Self {
            provisioned,
            phase,
            record: None,
            version: 0,
            durable: 0,
            failures: 0,
            retry_at_ms: None,
            choice: Choice::Provisioned,
            turned_away: 0,
            unheard: 0,
            next_refused: false,
            known_since_ms: 0,
            told_unpaired: false,
            proof_version: 0,
            ending: Ending::new(EndStep::Over),
        }
    }

    /// Whether there is an identity to connect with.
    pub(crate) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Whether a connection with what is presented now joins.
    pub(crate) fn joins(&self) -> bool {
        let may_join = match self.provisioned {
            Provisioned::Factory { .. } | Provisioned::Pairing { .. } => true,
            Provisioned::Fixed | Provisioned::Operational { .. } => false,
        };
        may_join && self.choice == Choice::Provisioned
    }

    /// Id of the pairing token that joining names.
    pub(crate) fn pairing_id(&self) -> Option<&str> {
        match &self.provisioned {
            Provisioned::Pairing { id } => Some(id),
            Provisioned::Fixed | Provisioned::Operational { .. } | Provisioned::Factory { .. } => None,
        }
    }

    // Time.

    pub(crate) fn timeout(&self) -> Option<u64> {
        [self.retry_at_ms, self.ending.timeout()].into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now_ms: u64) {
        self.ending.handle_timeout(now_ms);
        if self.retry_at_ms.is_some_and(|at| at <= now_ms) {
            self.retry_at_ms = None;
        }
    }

    fn fail(&mut self, now_ms: u64) {
        self.failures = self.failures.saturating_add(1);
        self.retry_at_ms = Some(now_ms.saturating_add(STATE.delay_ms(self.failures)));
    }

    // Storage.

    /// Whether the record is to be read now.
    pub(crate) fn wants_record(&self) -> bool {
        self.phase == Phase::Reading && self.retry_at_ms.is_none()
    }

    pub(crate) fn handle_record(&mut self, outcome: Outcome, now_ms: u64, events: &mut Events) {
        let Some(origin) = Origin::of(&self.provisioned).filter(|_| self.phase == Phase::Reading) else {
            debug_assert!(false, "the record is read once, by devices that have one");
            return;
        };
        let bytes = match outcome {
            Ok(Done::Record(bytes)) => bytes,
            // The medium has nothing under that name.
            Err(StorageError::Missing) => None,
            Ok(_) | Err(StorageError::Full | StorageError::Failed(_)) => {
                self.fail(now_ms);
                events.push(Event::IdentityUnread);
                if self.failures >= READ_ATTEMPTS && !origin.makes_key() {
                    // It can be reached at least. What storage has is left alone.
                    (self.phase, self.retry_at_ms) = (Phase::Ready, None);
                }
                return;
            }
        };
        self.failures = 0;
        self.known_since_ms = now_ms;
        let found = bytes.map(|bytes| IdentityRecord::decode(&bytes));
        let record = match found {
            None => IdentityRecord::new(origin),
            Some(Some(record)) if record.origin == origin => record,
            Some(Some(_)) => {
                events.push(Event::IdentityReplaced);
                IdentityRecord::new(origin)
            }
            Some(None) => {
                events.push(Event::IdentityLost);
                IdentityRecord::new(origin)
            }
        };
        self.phase = match (&record.retired, record.origin.makes_key(), &record.key) {
            (Some(Retired::Acknowledged), ..) => {
                self.ending.go_on(EndStep::Bytes);
                Phase::Retired
            }
            (Some(Retired::Erased), ..) => {
                events.push(Event::AtRest { problem: None });
                Phase::Retired
            }
            (_, false, _) => Phase::Ready,
            (_, true, None) => Phase::Making,
            (_, true, Some(_)) => Phase::Loading,
        };
        self.record = Some(record);
    }

    fn change(&mut self) {
        self.version += 1;
        self.retry_at_ms = None;
    }

    /// The version to write now, if one waits, and its bytes.
    pub(crate) fn plan_commit(&mut self, now_ms: u64) -> Option<(u64, Vec<u8>)> {
        if self.version == self.durable || self.retry_at_ms.is_some() {
            return None;
        }
        match self.record.as_ref()?.encode() {
            Ok(bytes) => Some((self.version, bytes)),
            Err(_) => {
                self.fail(now_ms);
                None
            }
        }
    }

    pub(crate) fn handle_committed(
        &mut self,
        version: u64,
        outcome: &Outcome,
        now_ms: u64,
        events: &mut Events,
    ) {
        match outcome {
            Ok(_) => {
                self.durable = self.durable.max(version);
                self.failures = 0;
                if self.phase == Phase::Keeping && self.is_durable() {
                    self.phase = Phase::Loading;
                }
                if self.ending.plan() == Some(EndStep::Writing) && self.is_durable() {
                    self.ending.go_on(EndStep::Over);
                    events.push(Event::AtRest { problem: None });
                }
            }
            Err(error) => {
                events.push(Event::IdentityUnwritten { message: error.describe() });
                self.fail(now_ms);
            }
        }
    }

    fn is_durable(&self) -> bool {
        self.version == self.durable
    }

    /// Whether the chain received last may be used: storage has it, or won't have it soon.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_durable() || self.failures > 0
    }

    // The key.

    /// What the board is to do for the key.
    pub(crate) fn poll_ask(&mut self) -> Option<KeyAsk> {
        if self.retry_at_ms.is_some() {
            return None;
        }
        match self.phase {
            Phase::Making => {
                self.phase = Phase::MakingNow;
                Some(KeyAsk::Make)
            }
            Phase::Loading => {
                self.phase = Phase::LoadingNow;
                Some(KeyAsk::Use)
            }
            Phase::Reading
            | Phase::MakingNow
            | Phase::Keeping
            | Phase::LoadingNow
            | Phase::Ready
            | Phase::Retired => None,
        }
    }

    /// The operational key; empty if there is none.
    pub(crate) fn key(&self) -> &[u8] {
        self.record.as_ref().and_then(|record| record.key.as_deref()).unwrap_or_default()
    }

    pub(crate) fn handle_key(
        &mut self,
        made: Result<Vec<u8>, IdentityError>,
        now_ms: u64,
        events: &mut Events,
    ) {
        if self.phase != Phase::MakingNow {
            return;
        }
        let made = made.and_then(|key| {
            let fits = (1..=KEY_BYTES_MAX).contains(&key.len());
            if fits { Ok(key) } else { Err(IdentityError::Key("it has another length".into())) }
        });
        match (made, &mut self.record) {
            (Ok(key), Some(record)) => {
                record.key = Some(key);
                self.phase = Phase::Keeping;
                self.failures = 0;
                self.change();
            }
            (Ok(_), None) => debug_assert!(false, "a key is made for a record"),
            (Err(error), _) => {
                events.push(Event::IdentityFailed { error });
                self.phase = Phase::Making;
                self.fail(now_ms);
            }
        }
    }

    pub(crate) fn handle_key_used(
        &mut self,
        used: Result<KeyHash, IdentityError>,
        now_ms: u64,
        events: &mut Events,
    ) {
        if self.phase != Phase::LoadingNow {
            return;
        }
        match used {
            Ok(key) => {
                self.phase = Phase::Ready;
                self.failures = 0;
                events.push(Event::KeyUsed { key });
            }
            Err(error) => {
                // What is no key won't become one; anything else may go better the next time.
                let is_lost = matches!(error, IdentityError::Key(_));
                events.push(Event::IdentityFailed { error });
                if is_lost {
                    events.push(Event::IdentityLost);
                    self.record = Origin::of(&self.provisioned).map(IdentityRecord::new);
                }
                self.phase = if is_lost { Phase::Making } else { Phase::Loading };
                self.fail(now_ms);
            }
        }
    }

    // Chains.

    /// Decides what the next attempt presents. `unix_s`: it is this late or later.
    pub(crate) fn choose(&mut self, unix_s: Option<u64>, events: &mut Events) {
        let (candidates, count) = self.candidates(unix_s);
        let turn = self.turned_away as usize % count.max(1);
        self.choice = candidates.get(turn).copied().unwrap_or(Choice::Provisioned);
        if self.choice == Choice::Provisioned
            && self.turned_away % DOUBT_TURNS == DOUBT_TURNS - 1
            && let Some(doubtful) = self.doubtful(unix_s)
        {
            self.choice = doubtful;
        }
        if self.is_unpaired(unix_s) && !self.told_unpaired {
            self.told_unpaired = true;
            events.push(Event::Unpaired);
        }
    }

    /// The chain that is over by the time that a gateway told. That gateway's clock may have been wrong, and without a session
    /// nobody tells the device the time: a gateway that takes the chain does.
    fn doubtful(&self, unix_s: Option<u64>) -> Option<Choice> {
        let begins_s = match &self.provisioned {
            Provisioned::Fixed => return None,
            Provisioned::Operational { facts, .. } => facts.not_before_s,
            Provisioned::Factory { .. } | Provisioned::Pairing { .. } => 0,
        };
        let over = |choice: &Choice| {
            let chain = self.chain(*choice).filter(|chain| chain.facts.not_before_s >= begins_s);
            chain.is_some_and(|chain| is_over(chain.facts, unix_s))
        };
        let next = Some(Choice::Next).filter(|next| self.is_settled() && over(next));
        next.or(Some(Choice::Current).filter(over))
    }

    /// What may be presented, in turns, and how many there are.
    fn candidates(&self, unix_s: Option<u64>) -> ([Choice; 3], usize) {
        let next = self.chain(Choice::Next).filter(|_| self.is_settled());
        let current = self.chain(Choice::Current);
        let lasts = |chain: Option<&Chain>| chain.is_some_and(|chain| !is_over(chain.facts, unix_s));
        let (next, current) = match (&self.provisioned, self.is_used_up()) {
            (Provisioned::Fixed, _) => (false, false),
            (Provisioned::Operational { facts, .. }, _) => {
                // Whoever provisions a device again means the newer chain to be used.
                let newer = |chain: Option<&Chain>| {
                    chain.is_some_and(|chain| chain.facts.not_before_s >= facts.not_before_s)
                };
                (newer(next) && lasts(next), newer(current) && lasts(current))
            }
            // Nothing else is left.
            (Provisioned::Factory { .. } | Provisioned::Pairing { .. }, true) => {
                (next.is_some(), current.is_some())
            }
            (Provisioned::Factory { .. } | Provisioned::Pairing { .. }, false) => {
                (lasts(next), lasts(current))
            }
        };
        let provisioned = match self.provisioned {
            Provisioned::Fixed => true,
            Provisioned::Operational { .. } => !current || self.unheard >= UNHEARD_MAX,
            Provisioned::Factory { .. } | Provisioned::Pairing { .. } => {
                !self.is_used_up() && (!(next || current) || self.unheard >= UNHEARD_MAX)
            }
        };
        let mut list = [Choice::Provisioned; 3];
        let mut count = 0;
        for (is_one, choice) in
            [(next, Choice::Next), (current, Choice::Current), (provisioned, Choice::Provisioned)]
        {
            if let Some(slot) = list.get_mut(count).filter(|_| is_one) {
                *slot = choice;
                count += 1;
            }
        }
        (list, count)
    }

    /// Whether the pairing token brought a session already.
    fn is_used_up(&self) -> bool {
        let joined = self.record.as_ref().is_some_and(|record| record.joined);
        joined && matches!(self.provisioned, Provisioned::Pairing { .. })
    }

    /// Whether nothing but another token helps.
    fn is_unpaired(&self, unix_s: Option<u64>) -> bool {
        let chains = [self.chain(Choice::Next), self.chain(Choice::Current)];
        self.is_used_up() && chains.into_iter().flatten().all(|chain| is_over(chain.facts, unix_s))
    }

    fn chain(&self, choice: Choice) -> Option<&Chain> {
        let record = self.record.as_ref()?;
        match choice {
            Choice::Provisioned => None,
            Choice::Current => record.current.as_ref(),
            Choice::Next => record.next.as_ref(),
        }
    }

    /// What the attempt presents.
    pub(crate) fn presented(&self) -> Presented<'_> {
        self.chain(self.choice).map_or(Presented::Provisioned, |chain| Presented::Chain(&chain.bytes))
    }

    /// The attempt came to no session, and whether the gateway said anything. Answers whether it is the first time that it
    /// turns the next chain away.
    pub(crate) fn handle_turned_away(&mut self, heard: bool) -> bool {
        self.turned_away = self.turned_away.wrapping_add(1);
        self.unheard = if heard { 0 } else { self.unheard.saturating_add(1) };
        let refused = self.choice == Choice::Next && !heard;
        refused && !core::mem::replace(&mut self.next_refused, true)
    }

    /// A session is established: what was presented is good. Answers whether a new chain proved to be.
    pub(crate) fn handle_welcomed(&mut self) -> bool {
        (self.turned_away, self.unheard) = (0, 0);
        let (choice, Some(record)) = (self.choice, &mut self.record) else { return false };
        match choice {
            Choice::Provisioned => false,
            Choice::Current => {
                let first = !core::mem::replace(&mut record.joined, true);
                if first {
                    self.change();
                }
                false
            }
            Choice::Next => {
                record.current = record.next.take();
                record.joined = true;
                self.next_refused = false;
                self.choice = Choice::Current;
                self.change();
                true
            }
        }
    }

    /// Takes a chain that the board has judged good.
    pub(crate) fn keep(&mut self, now_ms: u64, bytes: Vec<u8>, facts: ChainFacts) {
        let Some(record) = &mut self.record else {
            debug_assert!(false, "a chain is asked for by devices with a record");
            return;
        };
        record.next = Some(Chain { facts, bytes });
        self.known_since_ms = now_ms;
        (self.turned_away, self.unheard, self.next_refused) = (0, 0, false);
        self.failures = 0;
        self.change();
    }

    // Renewal.

    /// When the chain is to be renewed, Unix seconds: at two thirds of its life, give or take a twentieth of it. What is
    /// given follows from the device and the chain, so that a fleet that was issued as one does not renew as one.
    pub(crate) fn renew_at_s(&self) -> Option<u64> {
        let (record, facts) = (self.record.as_ref()?, self.facts_to_renew()?);
        let life_s = facts.not_after_s.saturating_sub(facts.not_before_s);
        let mut hash = Sha256::new();
        hash.update(record.origin.bytes());
        hash.update(facts.not_before_s.to_le_bytes());
        hash.update(facts.not_after_s.to_le_bytes());
        let drawn = hash.finalize().first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let spread_s = (u128::from(life_s / 10) * u128::from(drawn)) >> 32;
        let middle_s = facts.not_before_s.saturating_add(life_s - life_s / 3);
        Some(middle_s.saturating_sub(life_s / 20).saturating_add(spread_s as u64))
    }

    /// The latest moment of the device's own clock at which that is due. A gateway whose clock is behind would have it wait until
    /// the chain is over, and then nobody renews it.
    pub(crate) fn renew_by_ms(&self) -> Option<u64> {
        let after_s = self.renew_at_s()?.saturating_sub(self.facts_to_renew()?.not_before_s);
        Some(self.known_since_ms.saturating_add(after_s.saturating_mul(1_000)))
    }

    /// Of the chain that is renewed next.
    fn facts_to_renew(&self) -> Option<ChainFacts> {
        let waiting = self.record.as_ref()?.next.as_ref().filter(|_| !self.next_refused);
        match (waiting.or(self.chain(self.choice)), &self.provisioned) {
            (Some(chain), _) => Some(chain.facts),
            (None, Provisioned::Operational { facts, .. }) => Some(*facts),
            (None, Provisioned::Fixed | Provisioned::Factory { .. } | Provisioned::Pairing { .. }) => None,
        }
    }

    // Being decommissioned.

    /// Whether a proof could be kept.
    pub(crate) fn keeps_proofs(&self) -> bool {
        self.phase == Phase::Ready && self.record.is_some()
    }

    /// The proof that is kept, or on its way to storage.
    pub(crate) fn proof(&self) -> Option<&KeptProof> {
        match self.record.as_ref()?.retired.as_ref()? {
            Retired::Proven(proof) => Some(proof),
            Retired::Acknowledged | Retired::Erased => None,
        }
    }

    /// The proof, once storage has it.
    pub(crate) fn kept_proof(&self) -> Option<&KeptProof> {
        self.proof().filter(|_| self.durable >= self.proof_version)
    }

    /// Keeps a proof in place of the one before. A chain that is not in use goes: there is no next session to be made with it.
    pub(crate) fn keep_proof(&mut self, proof: KeptProof) {
        let Some(record) = &mut self.record else {
            debug_assert!(false, "a device without a record follows no order");
            return;
        };
        if self.choice != Choice::Next {
            record.next = None;
        }
        record.retired = Some(Retired::Proven(proof));
        self.change();
        self.proof_version = self.version;
    }

    /// The proof has arrived: the key leaves the record, and with it every chain.
    pub(crate) fn acknowledge(&mut self) {
        let Some(record) = &mut self.record else { return };
        if let Some(key) = &mut record.key {
            key.fill(0);
            // The memory is given back as it is now.
            core::hint::black_box(key);
        }
        (record.key, record.current, record.next) = (None, None, None);
        record.retired = Some(Retired::Acknowledged);
        self.choice = Choice::Provisioned;
        self.phase = Phase::Retired;
        self.ending.go_on(EndStep::Bytes);
        self.change();
    }

    /// Whether there is no key any more, and won't be before the next start.
    pub(crate) fn is_retired(&self) -> bool {
        self.phase == Phase::Retired
    }

    /// Whether nothing is left to be done.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.is_retired() && self.ending.is_over()
    }

    /// What storage is to erase now.
    pub(crate) fn plan_ending(&self) -> Option<EndStep> {
        let step = self.ending.plan().filter(|_| self.is_retired() && self.is_durable())?;
        matches!(step, EndStep::Bytes | EndStep::Provisioned).then_some(step)
    }

    pub(crate) fn handle_ended(&mut self, outcome: &Outcome, now_ms: u64, events: &mut Events) {
        let Some(record) = &mut self.record else { return };
        let has_provisioned = matches!(record.origin, Origin::Operational(_));
        if let Some(problem) = self.ending.handle_done(outcome, has_provisioned, now_ms) {
            events.push(Event::AtRest { problem: Some(problem) });
        }
        if self.ending.plan() == Some(EndStep::Record) {
            match record.origin {
                // It was no key of the fleet: the next start may join with it.
                Origin::Factory(_) => *record = IdentityRecord::new(record.origin.clone()),
                Origin::Operational(_) | Origin::Pairing(_) => record.retired = Some(Retired::Erased),
            }
            self.ending.go_on(EndStep::Writing);
            self.change();
        }
    }

    // Tests.

    /// Whether nothing is used before it may be.
    pub(crate) fn is_consistent(&self) -> bool {
        let makes_key = self.record.as_ref().is_some_and(|record| record.origin.makes_key());
        let has_key = !self.key().is_empty();
        let key_is_kept = match self.phase {
            Phase::Reading | Phase::Making | Phase::MakingNow => !has_key,
            Phase::Keeping => has_key,
            Phase::Loading | Phase::LoadingNow => has_key && self.is_durable(),
            Phase::Ready => !makes_key || has_key,
            Phase::Retired => !has_key,
        };
        key_is_kept
            && self.durable <= self.version
            && (has_key || !makes_key || self.chain(self.choice).is_none())
    }
}

fn is_over(facts: ChainFacts, unix_s: Option<u64>) -> bool {
    unix_s.is_some_and(|now_s| now_s > facts.not_after_s)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    const FACTS: ChainFacts = ChainFacts { not_before_s: 1_000, not_after_s: 31_000 };

    fn ready(provisioned: Provisioned, current: Option<ChainFacts>, next: Option<ChainFacts>) -> Credentials {
        let mut events = Events::default();
        let chain = |facts| Chain { facts, bytes: vec![1] };
        let record = Origin::of(&provisioned).map(|origin| IdentityRecord {
            key: origin.makes_key().then(|| vec![1]),
            joined: current.is_some(),
            origin,
            current: current.map(chain),
            next: next.map(chain),
            retired: None,
        });
        let mut credentials = Credentials::new(provisioned);
        let bytes = record.map(|record| record.encode().unwrap());
        credentials.handle_record(Ok(Done::Record(bytes)), 0, &mut events);
        if credentials.poll_ask() == Some(KeyAsk::Use) {
            credentials.handle_key_used(Ok(KeyHash([0; 32])), 0, &mut events);
        }
        assert!(credentials.is_ready());
        credentials
    }

    fn factory() -> Provisioned {
        Provisioned::Factory { key: KeyHash([1; 32]) }
    }

    fn choices(credentials: &mut Credentials, unix_s: Option<u64>, heard: bool, count: usize) -> Vec<Choice> {
        let mut events = Events::default();
        (0..count)
            .map(|_| {
                credentials.choose(unix_s, &mut events);
                credentials.handle_turned_away(heard);
                credentials.choice
            })
            .collect()
    }

    #[test]
    fn a_new_chain_and_the_one_before_take_turns_until_one_is_welcomed() {
        use Choice::{Current, Next};
        let mut credentials = ready(factory(), Some(FACTS), Some(FACTS));
        assert_eq!(choices(&mut credentials, None, true, 5), [Next, Current, Next, Current, Next]);
        assert!(!credentials.next_refused, "the gateway had its reasons");
        assert_eq!(choices(&mut credentials, None, false, 2), [Current, Next]);
        assert!(credentials.next_refused);
        credentials.choose(None, &mut Events::default());
        assert!(!credentials.handle_welcomed(), "the old one");
        assert_eq!(choices(&mut credentials, None, true, 1), [Next]);
        credentials.choose(None, &mut Events::default());
        credentials.handle_turned_away(true);
        credentials.choose(None, &mut Events::default());
        assert_eq!(credentials.choice, Next);
        assert!(credentials.handle_welcomed());
        assert_eq!(choices(&mut credentials, None, true, 3), [Current; 3]);
    }

    #[test]
    fn a_factory_device_joins_when_its_chain_is_over_or_turned_away_without_a_word() {
        use Choice::{Current, Provisioned};
        let mut credentials = ready(factory(), Some(FACTS), None);
        assert_eq!(choices(&mut credentials, Some(31_000), true, 2), [Current; 2]);
        assert_eq!(choices(&mut credentials, Some(31_001), true, 1), [Provisioned]);
        let told = choices(&mut credentials, Some(31_001), true, 5);
        assert_eq!(told, [Current, Provisioned, Provisioned, Provisioned, Current], "the time may be wrong");
        let mut credentials = ready(factory(), Some(FACTS), None);
        assert_eq!(
            choices(&mut credentials, None, false, 5),
            [Current, Current, Current, Provisioned, Current],
            "a board without a clock that was off for a year"
        );
    }

    #[test]
    fn a_pairing_token_is_presented_until_the_first_session() {
        use Choice::{Current, Next, Provisioned};
        let pairing = || super::Provisioned::Pairing { id: "0a1b2c3d".into() };
        assert_eq!(choices(&mut ready(pairing(), None, None), None, true, 2), [Provisioned; 2]);
        let unproven = choices(&mut ready(pairing(), None, Some(FACTS)), None, false, 5);
        assert_eq!(unproven, [Next, Next, Next, Provisioned, Next]);
        let mut credentials = ready(pairing(), Some(FACTS), None);
        assert_eq!(choices(&mut credentials, Some(31_001), false, 5), [Current; 5]);
        let mut events = Events::default();
        let mut credentials = ready(pairing(), Some(FACTS), None);
        credentials.choose(Some(31_001), &mut events);
        credentials.choose(Some(31_001), &mut events);
        assert_eq!((events.pop(), events.pop()), (Some(Event::Unpaired), None));
    }

    #[test]
    fn of_a_provisioned_and_a_renewed_chain_the_newer_is_presented() {
        use Choice::{Current, Provisioned};
        let provisioned = |not_before_s| super::Provisioned::Operational {
            key: KeyHash([1; 32]),
            facts: ChainFacts { not_before_s, not_after_s: 99_000 },
        };
        assert_eq!(choices(&mut ready(provisioned(10), Some(FACTS), None), None, true, 2), [Current; 2]);
        let over = choices(&mut ready(provisioned(10), Some(FACTS), None), Some(31_001), true, 2);
        assert_eq!(over, [Provisioned; 2], "a device that was away for the renewed chain's life");
        let told = choices(&mut ready(provisioned(10), Some(FACTS), None), Some(31_001), true, 5);
        assert_eq!(told[3..], [Current, Provisioned], "the time may be wrong");
        let older = choices(&mut ready(provisioned(1_001), Some(FACTS), None), Some(31_001), true, 5);
        assert_eq!(older, [Provisioned; 5]);
        let unheard = choices(&mut ready(provisioned(10), Some(FACTS), None), None, false, 5);
        assert_eq!(unheard, [Current, Current, Current, Provisioned, Current]);
        let newer = choices(&mut ready(provisioned(1_001), Some(FACTS), None), None, true, 2);
        assert_eq!(newer, [Provisioned; 2]);
    }

    #[test]
    fn renewal_is_due_around_two_thirds_of_a_life_and_devices_differ() {
        let mut times: Vec<u64> = (0..200)
            .map(|number| {
                let factory = Provisioned::Factory { key: KeyHash([number; 32]) };
                let mut credentials = ready(factory, Some(FACTS), None);
                credentials.choose(None, &mut Events::default());
                credentials.renew_at_s().unwrap()
            })
            .collect();
        times.sort_unstable();
        assert!(times.iter().all(|at_s| (19_500..=22_500).contains(at_s)), "{times:?}");
        assert!(times[0] < 19_800 && times[199] > 22_200, "{times:?}");
        let short = ChainFacts { not_before_s: u64::MAX, not_after_s: 0 };
        let mut credentials = ready(factory(), Some(short), None);
        credentials.choose(None, &mut Events::default());
        assert!(credentials.renew_at_s().is_some());
    }

    #[test]
    fn a_chain_is_renewed_by_the_devices_own_clock_at_the_latest() {
        let mut credentials = ready(factory(), Some(FACTS), None);
        credentials.choose(None, &mut Events::default());
        let due_s = credentials.renew_at_s().unwrap() - FACTS.not_before_s;
        assert_eq!(credentials.renew_by_ms(), Some(due_s * 1_000), "it is not older than it says");
        credentials.keep(5_000, vec![2], ChainFacts { not_before_s: 21_000, not_after_s: 51_000 });
        let due_s = credentials.renew_at_s().unwrap() - 21_000;
        assert_eq!(credentials.renew_by_ms(), Some(5_000 + due_s * 1_000));
        assert_eq!(ready(factory(), None, None).renew_by_ms(), None);
    }

    #[test]
    fn another_identity_begins_anew_and_so_does_a_damaged_record() {
        let record = |origin, key| IdentityRecord { key, ..IdentityRecord::new(origin) }.encode().unwrap();
        let other = record(Origin::Pairing("0a1b2c3d".into()), Some(vec![1]));
        for (bytes, event) in [(other, Event::IdentityReplaced), (vec![1, 2, 3], Event::IdentityLost)] {
            let (mut credentials, mut events) = (Credentials::new(factory()), Events::default());
            credentials.handle_record(Ok(Done::Record(Some(bytes))), 0, &mut events);
            assert_eq!(events.pop(), Some(event));
            assert_eq!(credentials.poll_ask(), Some(KeyAsk::Make));
            credentials.handle_key(Ok(vec![7]), 0, &mut events);
            assert_eq!(credentials.poll_ask(), None, "the key is not stored yet");
            let (version, _) = credentials.plan_commit(0).unwrap();
            credentials.handle_committed(version, &Err(StorageError::Full), 0, &mut events);
            assert_eq!((credentials.poll_ask(), credentials.plan_commit(0)), (None, None));
            credentials.handle_timeout(1_000);
            let (version, _) = credentials.plan_commit(1_000).unwrap();
            credentials.handle_committed(version, &Ok(Done::Written), 1_000, &mut events);
            assert_eq!(credentials.poll_ask(), Some(KeyAsk::Use));
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_overwritten() {
        let (mut credentials, mut events) = (Credentials::new(factory()), Events::default());
        let mut now_ms = 0;
        for _ in 0..20 {
            assert!(credentials.wants_record() && credentials.plan_commit(now_ms).is_none());
            credentials.handle_record(Err(StorageError::Failed("bad block".into())), now_ms, &mut events);
            assert!(!credentials.is_ready() && !credentials.wants_record());
            now_ms = credentials.timeout().unwrap();
            credentials.handle_timeout(now_ms);
        }
        let facts = FACTS;
        let mut credentials = Credentials::new(Provisioned::Operational { key: KeyHash([1; 32]), facts });
        for _ in 0..READ_ATTEMPTS {
            credentials.handle_timeout(u64::MAX);
            credentials.handle_record(Err(StorageError::Failed("bad block".into())), 0, &mut events);
        }
        assert!(credentials.is_ready() && credentials.plan_commit(0).is_none());
        assert_eq!(credentials.renew_at_s(), None, "it could not keep what it gets");
    }
}
