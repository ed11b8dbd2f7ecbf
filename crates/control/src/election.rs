//! Who of several controllers leads: what to do with the leader's Lease as it was seen.
//!
//! ```text
//! follower --the Lease is free, released, or was not renewed for its duration--> leader (leaseTransitions + 1)
//! leader --another holder, or no renewal in time--> follower
//! ```
//! Leadership has an end unless it is renewed, so that a process that stood still does not act on a term that another may
//! have taken over. Times of other clocks are not believed: a holder is timed by what is seen here.

use k8s_openapi::{
    api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp,
};

/// The highest term: `leaseTransitions` is a signed number of 32 bits.
pub const TERM_MAX: u64 = i32::MAX as u64;

/// How long leadership lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElectionConfig {
    /// How long the Lease holds without a renewal.
    pub duration_ms: u64,
    /// How often it is renewed; less than half of `duration_ms`.
    pub renew_ms: u64,
}

/// The leader's Lease as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseRecord {
    /// `holderIdentity`; empty if it was released.
    pub holder: String,
    /// `leaseTransitions`: the term.
    pub term: u64,
    /// Anything that changes with each renewal.
    pub renewal: String,
    /// `leaseDurationSeconds`, in milliseconds.
    pub duration_ms: Option<u64>,
}

impl LeaseRecord {
    /// Reads a Lease; one without a spec is held by nobody.
    #[must_use]
    pub fn read(spec: Option<&LeaseSpec>) -> Self {
        let Some(spec) = spec else { return Self::default() };
        let unsigned = |number: Option<i32>| number.and_then(|number| u64::try_from(number).ok());
        Self {
            holder: spec.holder_identity.clone().unwrap_or_default(),
            term: unsigned(spec.lease_transitions).unwrap_or(0),
            renewal: format!("{:?}", spec.renew_time),
            duration_ms: unsigned(spec.lease_duration_seconds).map(|seconds| seconds.saturating_mul(1_000)),
        }
    }
}

/// What to do about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Make it, held in this term.
    Create {
        /// The term.
        term: u64,
    },
    /// Write it on condition that nobody did since it was read.
    Write {
        /// The term.
        term: u64,
        /// The term is new: `acquireTime` moves.
        fresh: bool,
    },
    /// Nothing: another holds it.
    Wait,
}

impl Claim {
    /// The term that is claimed, and the spec that claims it in place of `before`; none if nothing is to be written.
    #[must_use]
    pub fn spec(
        self,
        before: Option<LeaseSpec>,
        holder: &str,
        config: ElectionConfig,
        now: Timestamp,
    ) -> Option<(u64, LeaseSpec)> {
        let (term, fresh) = match self {
            Self::Create { term } => (term, true),
            Self::Write { term, fresh } => (term, fresh),
            Self::Wait => return None,
        };
        let before = before.unwrap_or_default();
        let now = MicroTime(now);
        let seconds = i32::try_from((config.duration_ms / 1_000).max(1)).unwrap_or(i32::MAX);
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(seconds),
            lease_transitions: Some(i32::try_from(term).unwrap_or(i32::MAX)),
            acquire_time: if fresh { Some(now.clone()) } else { before.acquire_time.clone() },
            renew_time: Some(now),
            ..before
        };
        Some((term, spec))
    }
}

/// Leadership in a term, until a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lead {
    /// The term.
    pub term: u64,
    /// Monotonic milliseconds; before the Lease can run out for others.
    pub until_ms: u64,
}

/// One candidate.
#[derive(Clone, Debug)]
pub struct Election {
    holder: String,
    config: ElectionConfig,
    lead: Option<Lead>,
    rival: Rival,
}

/// What was last seen of another holder, and when by our clock.
#[derive(Clone, Debug, Default)]
struct Rival {
    record: Option<LeaseRecord>,
    since_ms: u64,
}

/// How often a follower looks at the Lease at least.
const FOLLOWER_PAUSE_MS: u64 = 2_000;
/// After a call that failed: soon enough to keep a Lease through a short outage.
const RETRY_PAUSE_MS: u64 = 500;
/// The shortest pause, whatever is due.
const PAUSE_MS_MIN: u64 = 50;

impl Election {
    /// A candidate of this name, which no other may have.
    #[must_use]
    pub fn new(holder: &str, config: ElectionConfig) -> Self {
        Self { holder: holder.to_owned(), config, lead: None, rival: Rival::default() }
    }

    /// Its times.
    #[must_use]
    pub fn config(&self) -> ElectionConfig {
        self.config
    }

    /// The current leadership.
    #[must_use]
    pub fn lead(&self, now_ms: u64) -> Option<Lead> {
        self.lead.filter(|lead| now_ms < lead.until_ms)
    }

    /// What to do about the Lease as it was just read; `wanted` is a term that ours has to reach.
    pub fn plan_claim(&mut self, now_ms: u64, seen: Option<&LeaseRecord>, wanted: Option<u64>) -> Claim {
        self.lead = self.lead(now_ms);
        let wanted = wanted.map(|wanted| wanted.min(TERM_MAX));
        let Some(seen) = seen else {
            let next = self.lead.map_or(1, |lead| (lead.term + 1).min(TERM_MAX));
            return Claim::Create { term: next.max(wanted.unwrap_or(0)) };
        };
        let own = seen.holder == self.holder;
        match self.lead {
            Some(lead) if own && lead.term == seen.term => {
                match wanted.filter(|wanted| *wanted > lead.term) {
                    Some(term) => Claim::Write { term, fresh: true },
                    None => Claim::Write { term: lead.term, fresh: false },
                }
            }
            // Another took over: its term counts from here.
            Some(_) => {
                self.lead = None;
                self.rival.see(now_ms, seen);
                Claim::Wait
            }
            // Our name without a term of ours is this controller's former process: it is gone, and what it still had under
            // way is fenced by the new term.
            None if seen.holder.is_empty() || own || self.rival.is_gone(now_ms, seen, &self.config) => {
                let term = (seen.term + 1).min(TERM_MAX);
                Claim::Write { term: term.max(wanted.unwrap_or(0)), fresh: true }
            }
            None => Claim::Wait,
        }
    }

    /// The claim was written; it was asked for at `asked_ms`, which is the latest at which others may begin to time it.
    pub fn handle_written(&mut self, asked_ms: u64, term: u64) {
        // Others may take over after the whole duration; we stop a renewal's time before that.
        let safe_ms = self.config.duration_ms.saturating_sub(self.config.renew_ms);
        self.lead = Some(Lead { term, until_ms: asked_ms.saturating_add(safe_ms) });
        self.rival = Rival::default();
    }

    /// How long to wait before the Lease is looked at again, unless it is seen to change.
    #[must_use]
    pub fn poll_pause_ms(&self, now_ms: u64, succeeded: bool) -> u64 {
        let pause_ms = if !succeeded {
            RETRY_PAUSE_MS
        } else if self.lead(now_ms).is_some() {
            self.config.renew_ms
        } else {
            let gone_ms = self.rival.record.as_ref().map_or(u64::MAX, |record| {
                let duration_ms = record.duration_ms.unwrap_or(self.config.duration_ms);
                self.rival.since_ms.saturating_add(duration_ms).saturating_sub(now_ms)
            });
            gone_ms.min(FOLLOWER_PAUSE_MS)
        };
        pause_ms.max(PAUSE_MS_MIN)
    }
}

/// Whether a process holds a Lease that is its own for as long as nobody else is seen to hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It has not been looked at yet.
    Unread,
    /// It can't be read, and nobody else was seen to hold it.
    Unreadable,
    /// It is ours.
    Held,
    /// Another holds it.
    Other {
        /// `holderIdentity` of the Lease.
        holder: String,
    },
}

impl Hold {
    /// Why the process may not act as the holder, for people; none if it may. An API that is away keeps nobody from it.
    #[must_use]
    pub fn kept_from(&self) -> Option<String> {
        match self {
            Self::Held | Self::Unreadable => None,
            Self::Unread => Some("the gateway's Lease has not been read yet".to_owned()),
            Self::Other { holder } => Some(format!(
                "{holder} holds the gateway's Lease; this process takes over once that one stops renewing it"
            )),
        }
    }
}

/// The Lease of a name that one process at a time may use, such as a gateway's:
///
/// ```text
/// Unread --no answer--> Unreadable        Unread, Unreadable, Other --free, released, own, or not renewed--> Held
///                                         Unread, Unreadable, Held --another holder--> Other
/// ```
/// Unlike leadership it does not end by itself: its holder goes on while the API is away, and learns from the API that
/// another took it over.
#[derive(Clone, Debug)]
pub struct Tenure {
    election: Election,
    hold: Hold,
    /// It was ours once: whoever writes it under our name since then has a copy of our name.
    lost: bool,
}

impl Tenure {
    /// For a holder of this name, which outlives the process, so that the next one takes the Lease over at once.
    #[must_use]
    pub fn new(holder: &str, config: ElectionConfig) -> Self {
        Self { election: Election::new(holder, config), hold: Hold::Unread, lost: false }
    }

    /// The name.
    #[must_use]
    pub fn holder(&self) -> &str {
        &self.election.holder
    }

    /// Its times.
    #[must_use]
    pub fn config(&self) -> ElectionConfig {
        self.election.config
    }

    /// The current state.
    #[must_use]
    pub fn hold(&self) -> &Hold {
        &self.hold
    }

    /// What to do about the Lease as it was just read.
    pub fn plan_claim(&mut self, now_ms: u64, seen: Option<&LeaseRecord>) -> Claim {
        let namesake = seen.filter(|seen| self.lost && seen.holder == self.election.holder);
        let waits = namesake.is_some_and(|seen| {
            let config = self.election.config;
            !self.election.rival.is_gone(now_ms, seen, &config)
        });
        let claim = if waits { Claim::Wait } else { self.election.plan_claim(now_ms, seen, None) };
        if let (Claim::Wait, Some(seen)) = (claim, seen) {
            self.lost |= self.hold == Hold::Held;
            self.hold = Hold::Other { holder: seen.holder.clone() };
        }
        claim
    }

    /// The claim was written; it was asked for at `asked_ms`.
    pub fn handle_written(&mut self, asked_ms: u64, term: u64) {
        self.election.handle_written(asked_ms, term);
        self.election.lead = Some(Lead { term, until_ms: u64::MAX });
        self.hold = Hold::Held;
        self.lost = false;
    }

    /// The Lease could not be read or written.
    pub fn handle_failed(&mut self) {
        if self.hold == Hold::Unread {
            self.hold = Hold::Unreadable;
        }
    }

    /// How long to wait before the Lease is looked at again.
    #[must_use]
    pub fn poll_pause_ms(&self, now_ms: u64, succeeded: bool) -> u64 {
        self.election.poll_pause_ms(now_ms, succeeded)
    }
}

impl Rival {
    fn see(&mut self, now_ms: u64, seen: &LeaseRecord) {
        if self.record.as_ref() != Some(seen) {
            self.record = Some(seen.clone());
            self.since_ms = now_ms;
        }
    }

    /// Whether the holder has not renewed for its lease duration, as far as could be seen here.
    fn is_gone(&mut self, now_ms: u64, seen: &LeaseRecord, config: &ElectionConfig) -> bool {
        self.see(now_ms, seen);
        let duration_ms = seen.duration_ms.unwrap_or(config.duration_ms);
        now_ms.saturating_sub(self.since_ms) >= duration_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: ElectionConfig = ElectionConfig { duration_ms: 10_000, renew_ms: 3_000 };

    fn lease(holder: &str, term: u64, renewal: &str) -> LeaseRecord {
        LeaseRecord {
            holder: holder.to_owned(),
            term,
            renewal: renewal.to_owned(),
            duration_ms: Some(10_000),
        }
    }

    fn leader() -> Election {
        let mut election = Election::new("a", CONFIG);
        assert_eq!(election.plan_claim(0, None, None), Claim::Create { term: 1 });
        election.handle_written(0, 1);
        election
    }

    #[test]
    fn a_lead_ends_by_itself_before_others_may_take_over() {
        let election = leader();
        assert_eq!(election.lead(6_999).map(|lead| lead.term), Some(1));
        assert_eq!(election.lead(7_000), None);
    }

    #[test]
    fn a_rival_is_gone_only_after_its_duration_was_watched_here() {
        let mut election = Election::new("b", CONFIG);
        assert_eq!(election.plan_claim(50_000, Some(&lease("a", 4, "r1")), None), Claim::Wait);
        assert_eq!(election.plan_claim(59_999, Some(&lease("a", 4, "r1")), None), Claim::Wait);
        assert_eq!(election.poll_pause_ms(59_000, true), 1_000, "it looks again when it may be gone");
        let taken = Claim::Write { term: 5, fresh: true };
        assert_eq!(election.plan_claim(60_000, Some(&lease("a", 4, "r1")), None), taken);
        assert_eq!(election.plan_claim(60_000, Some(&lease("a", 4, "r2")), None), Claim::Wait, "it renewed");
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let mut election = Election::new("b", CONFIG);
        assert_eq!(
            election.plan_claim(0, Some(&lease("", 4, "r")), None),
            Claim::Write { term: 5, fresh: true }
        );
    }

    #[test]
    fn a_leader_renews_and_steps_down_for_another_holder() {
        let mut election = leader();
        let renewed = Claim::Write { term: 1, fresh: false };
        assert_eq!(election.plan_claim(3_000, Some(&lease("a", 1, "r")), None), renewed);
        assert_eq!(election.plan_claim(3_100, Some(&lease("b", 2, "r")), None), Claim::Wait);
        assert_eq!(election.lead(3_100), None);
    }

    #[test]
    fn a_former_process_of_the_same_name_is_fenced_by_a_new_term() {
        let mut election = Election::new("a", CONFIG);
        assert_eq!(
            election.plan_claim(0, Some(&lease("a", 7, "r")), None),
            Claim::Write { term: 8, fresh: true }
        );
    }

    #[test]
    fn a_term_that_gateways_ask_for_is_reached() {
        let mut election = leader();
        let raised = Claim::Write { term: 41, fresh: true };
        assert_eq!(election.plan_claim(1_000, Some(&lease("a", 1, "r")), Some(41)), raised);
        assert_eq!(
            election.plan_claim(1_000, None, None),
            Claim::Create { term: 2 },
            "a lost Lease does not lower it"
        );
    }

    fn tenure() -> Tenure {
        let mut tenure = Tenure::new("a", CONFIG);
        assert!(tenure.hold().kept_from().is_some());
        assert_eq!(tenure.plan_claim(0, None), Claim::Create { term: 1 });
        tenure.handle_written(0, 1);
        tenure
    }

    #[test]
    fn a_tenure_lasts_until_another_holder_is_seen() {
        let mut tenure = tenure();
        let renewal = Claim::Write { term: 1, fresh: false };
        assert_eq!(
            tenure.plan_claim(1_000_000, Some(&lease("a", 1, "r"))),
            renewal,
            "the API was away for long"
        );
        tenure.handle_failed();
        assert_eq!(tenure.hold(), &Hold::Held);
        assert_eq!(tenure.plan_claim(1_000_100, Some(&lease("b", 2, "r"))), Claim::Wait);
        assert!(tenure.hold().kept_from().unwrap().contains("b holds"));
        assert_eq!(tenure.plan_claim(1_010_099, Some(&lease("b", 2, "r"))), Claim::Wait);
        let taken = Claim::Write { term: 3, fresh: true };
        assert_eq!(tenure.plan_claim(1_010_100, Some(&lease("b", 2, "r"))), taken);
        assert_ne!(tenure.hold(), &Hold::Held, "it is not written yet");
        tenure.handle_written(1_010_100, 3);
        assert_eq!(tenure.hold(), &Hold::Held);
    }

    #[test]
    fn the_same_holder_starts_at_once_and_another_waits() {
        let mut again = Tenure::new("a", CONFIG);
        assert_eq!(
            again.plan_claim(0, Some(&lease("a", 1, "r"))),
            Claim::Write { term: 2, fresh: true },
            "it was killed and is back"
        );
        let mut other = Tenure::new("b", CONFIG);
        assert_eq!(other.plan_claim(0, Some(&lease("a", 1, "r"))), Claim::Wait);
        assert_eq!(other.hold(), &Hold::Other { holder: "a".to_owned() });
    }

    #[test]
    fn of_two_with_one_name_the_later_holds_it() {
        let mut tenure = tenure();
        assert_eq!(tenure.plan_claim(100, Some(&lease("a", 2, "r"))), Claim::Wait, "not our term");
        assert_eq!(tenure.plan_claim(5_000, Some(&lease("a", 2, "s"))), Claim::Wait, "the other renews");
        assert!(tenure.hold().kept_from().is_some());
        let taken = Claim::Write { term: 3, fresh: true };
        assert_eq!(tenure.plan_claim(15_000, Some(&lease("a", 2, "s"))), taken);
    }

    #[test]
    fn an_api_that_is_away_keeps_nobody_from_starting() {
        let mut tenure = Tenure::new("a", CONFIG);
        tenure.handle_failed();
        assert_eq!(tenure.hold().kept_from(), None);
        assert_eq!(tenure.plan_claim(0, Some(&lease("b", 1, "r"))), Claim::Wait);
        tenure.handle_failed();
        assert!(tenure.hold().kept_from().is_some(), "another was seen to hold it");
    }

    #[test]
    fn no_term_is_beyond_what_a_lease_can_say() {
        let mut election = leader();
        let raised = Claim::Write { term: TERM_MAX, fresh: true };
        assert_eq!(election.plan_claim(1_000, Some(&lease("a", 1, "r")), Some(u64::MAX)), raised);
        election.handle_written(1_000, TERM_MAX);
        let renewed = Claim::Write { term: TERM_MAX, fresh: false };
        let seen = lease("a", TERM_MAX, "r");
        assert_eq!(
            election.plan_claim(1_100, Some(&seen), Some(u64::MAX)),
            renewed,
            "no election for nothing"
        );
    }

    #[test]
    fn a_lease_is_read_as_it_was_written() {
        let now = Timestamp::UNIX_EPOCH;
        let claim = Claim::Write { term: 4, fresh: true };
        let (term, spec) = claim.spec(None, "a", CONFIG, now).unwrap();
        let read = LeaseRecord::read(Some(&spec));
        assert_eq!((term, read.holder.as_str(), read.term, read.duration_ms), (4, "a", 4, Some(10_000)));
        let renewal = Claim::Write { term: 4, fresh: false };
        let later = Timestamp::from_second(5).unwrap();
        let (_, renewed) = renewal.spec(Some(spec.clone()), "a", CONFIG, later).unwrap();
        assert_eq!(renewed.acquire_time, spec.acquire_time);
        assert_ne!(LeaseRecord::read(Some(&renewed)).renewal, read.renewal);
        assert_eq!(LeaseRecord::read(None).holder, "", "nobody holds it");
        assert_eq!(Claim::Wait.spec(None, "a", CONFIG, now), None);
    }
}
