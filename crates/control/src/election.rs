//! Who of several controllers leads: what to do with the leader's Lease as it was seen.
//!
//! ```text
//! follower --the Lease is free, released, or was not renewed for its duration--> leader (leaseTransitions + 1)
//! leader --another holder, or no renewal in time--> follower
//! ```
//! Leadership has an end unless it is renewed, so that a process that stood still does not act on a term that another may
//! have taken over. Times of other clocks are not believed: a holder is timed by what is seen here.

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

    /// The leadership that stands.
    #[must_use]
    pub fn lead(&self, now_ms: u64) -> Option<Lead> {
        self.lead.filter(|lead| now_ms < lead.until_ms)
    }

    /// What to do about the Lease as it was just read; `wanted` is a term that ours has to reach.
    pub fn plan_claim(&mut self, now_ms: u64, seen: Option<&LeaseRecord>, wanted: Option<u64>) -> Claim {
        self.lead = self.lead(now_ms);
        let Some(seen) = seen else {
            let next = self.lead.map_or(1, |lead| lead.term.saturating_add(1));
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
                Claim::Write { term: seen.term.saturating_add(1).max(wanted.unwrap_or(0)), fresh: true }
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
}
