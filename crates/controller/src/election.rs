//! Leadership by a Lease.
//!
//! ```text
//! follower --the Lease is free, released, or not renewed for its duration--> leader (leaseTransitions + 1)
//! leader --another holder, or no renewal in time--> follower
//! ```
//! Leadership is told with the moment at which it ends unless it is renewed, so that a process that stood still does not act on
//! a term that others may have taken over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::LeaseConfig;
use crate::input::Input;

/// Name of the leader's Lease.
pub(crate) const LEASE_NAME: &str = "wasmbed-controller";
/// How often a follower looks at the Lease at least; its watch tells of changes at once, where it stands.
const FOLLOWER_PAUSE: Duration = Duration::from_secs(2);
/// After a call that failed: soon enough to keep a Lease through a short outage.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// The shortest pause, whatever is due.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// Leadership in a term, until a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lead {
    pub(crate) term: u64,
    /// Before the Lease can expire for others; renewals move it.
    pub(crate) until: Instant,
}

impl Lead {
    /// The term, as long as it holds.
    pub(crate) fn term_at(lead: Option<Self>, now: Instant) -> Option<u64> {
        lead.filter(|lead| now < lead.until).map(|lead| lead.term)
    }
}

/// Holds, or waits for, the leader's Lease until `stop`, then gives it up.
pub(crate) struct Election {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) holder: String,
    pub(crate) config: LeaseConfig,
    /// A term that ours has to reach, because gateways have seen higher ones.
    pub(crate) wanted: watch::Receiver<Option<u64>>,
    /// Told when the watch saw the Lease change.
    pub(crate) changed: Arc<Notify>,
    pub(crate) lead: watch::Sender<Option<Lead>>,
    pub(crate) inputs: mpsc::Sender<Input>,
}

/// What was last seen of another holder, and when by our clock.
#[derive(Default)]
struct Rival {
    renewal: String,
    since: Option<Instant>,
    duration: Duration,
}

struct State {
    term: Option<u64>,
    renewed: Instant,
    rival: Rival,
}

impl Election {
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut state = State { term: None, renewed: Instant::now(), rival: Rival::default() };
        loop {
            let before = state.term;
            let attempt = tokio::time::timeout(self.config.renew, self.attempt(&leases, &mut state)).await;
            let reachable = match &attempt {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    tracing::warn!(reason = %error, "the leader Lease can't be read or written");
                    // An answer is an answer, even if it is no.
                    matches!(error, kube::Error::Api(status) if status.code < 500)
                }
                Err(_) => false,
            };
            let until = state.renewed + self.safe();
            if state.term.is_some() && Instant::now() >= until {
                tracing::warn!("the leader Lease could not be renewed in time; leadership is given up");
                state.term = None;
            }
            if state.term != before {
                tracing::info!(term = state.term, leads = state.term.is_some(), "leadership changed");
            }
            self.lead.send_replace(state.term.map(|term| Lead { term, until }));
            if self.inputs.send(Input::Api(reachable)).await.is_err() {
                break;
            }
            let pause = self.pause(&state, matches!(attempt, Ok(Ok(()))));
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
                // A leader wrote the change itself, or learns of another holder by its next renewal.
                () = self.changed.notified(), if state.term.is_none() => {}
                changed = self.wanted.changed() => if changed.is_err() { break },
            }
        }
        self.lead.send_replace(None);
        if state.term.is_some() {
            let _ = tokio::time::timeout(self.config.renew, self.release(&leases)).await;
        }
    }

    /// Others may take over after the whole duration; we stop a renewal's time before that.
    fn safe(&self) -> Duration {
        self.config.duration.saturating_sub(self.config.renew)
    }

    fn pause(&self, state: &State, succeeded: bool) -> Duration {
        let pause = match (state.term, succeeded) {
            (_, false) => RETRY_PAUSE,
            (Some(_), true) => self.config.renew,
            (None, true) => state.rival.remaining().map_or(FOLLOWER_PAUSE, |left| left.min(FOLLOWER_PAUSE)),
        };
        pause.max(PAUSE_MIN)
    }

    async fn attempt(&mut self, leases: &Api<Lease>, state: &mut State) -> Result<(), kube::Error> {
        let asked = Instant::now();
        let Some(mut lease) = leases.get_opt(LEASE_NAME).await? else {
            let term = self.wanted.borrow_and_update().unwrap_or(1);
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(LEASE_NAME.to_owned()),
                    namespace: Some(self.namespace.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.claim(LeaseSpec::default(), term, true)),
            };
            return self.settle(leases.create(&PostParams::default(), &lease).await, term, asked, state);
        };
        let spec = lease.spec.take().unwrap_or_default();
        let seen = spec.lease_transitions.and_then(|term| u64::try_from(term).ok()).unwrap_or(0);
        let wanted = *self.wanted.borrow_and_update();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let (term, fresh) = match state.term {
            Some(term) if holder == self.holder && term == seen => {
                match wanted.filter(|wanted| *wanted > term) {
                    Some(wanted) => (wanted, true),
                    None => (term, false),
                }
            }
            Some(_) => {
                state.term = None;
                return Ok(());
            }
            // The same name without a term of ours is this controller's former process: it is gone, and what it still
            // had under way is fenced by the new term.
            None if holder.is_empty()
                || holder == self.holder
                || state.rival.is_gone(&spec, self.config.duration) =>
            {
                (seen.saturating_add(1).max(wanted.unwrap_or(0)), true)
            }
            None => return Ok(()),
        };
        lease.spec = Some(self.claim(spec, term, fresh));
        let result = leases.replace(LEASE_NAME, &PostParams::default(), &lease).await;
        self.settle(result, term, asked, state)
    }

    /// Another wrote the Lease in between: the next attempt sees who.
    fn settle(
        &self,
        result: Result<Lease, kube::Error>,
        term: u64,
        asked: Instant,
        state: &mut State,
    ) -> Result<(), kube::Error> {
        match result {
            Ok(_) => {
                state.term = Some(term);
                state.renewed = asked;
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn claim(&self, spec: LeaseSpec, term: u64, fresh: bool) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: Some(
                i32::try_from(self.config.duration.as_secs().max(1)).unwrap_or(i32::MAX),
            ),
            lease_transitions: Some(i32::try_from(term).unwrap_or(i32::MAX)),
            acquire_time: if fresh { Some(now.clone()) } else { spec.acquire_time },
            renew_time: Some(now),
            ..spec
        }
    }

    async fn release(&self, leases: &Api<Lease>) -> Result<(), kube::Error> {
        let mut lease = leases.get(LEASE_NAME).await?;
        if let Some(spec) =
            lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.holder))
        {
            spec.holder_identity = Some(String::new());
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            leases.replace(LEASE_NAME, &PostParams::default(), &lease).await?;
            tracing::info!("leadership is given up");
        }
        Ok(())
    }
}

impl Rival {
    /// Whether the holder has not renewed for its lease duration, as far as this process could see.
    fn is_gone(&mut self, spec: &LeaseSpec, default: Duration) -> bool {
        let renewal =
            format!("{:?} {:?} {:?}", spec.holder_identity, spec.renew_time, spec.lease_transitions);
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        self.duration = seconds.map_or(default, Duration::from_secs);
        match self.since {
            Some(since) if self.renewal == renewal => since.elapsed() >= self.duration,
            Some(_) | None => {
                self.renewal = renewal;
                self.since = Some(Instant::now());
                false
            }
        }
    }

    /// Until it is gone, if nothing more is seen of it.
    fn remaining(&self) -> Option<Duration> {
        self.since.map(|since| self.duration.saturating_sub(since.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_ends_by_itself() {
        let now = Instant::now();
        let lead = Some(Lead { term: 3, until: now + Duration::from_secs(1) });
        assert_eq!(Lead::term_at(lead, now), Some(3));
        assert_eq!(Lead::term_at(lead, now + Duration::from_secs(1)), None);
        assert_eq!(Lead::term_at(None, now), None);
    }

    #[test]
    fn a_rival_is_gone_only_after_its_duration_was_watched_here() {
        let old = MicroTime(Timestamp::UNIX_EPOCH);
        let spec = LeaseSpec {
            holder_identity: Some("other".to_owned()),
            lease_duration_seconds: Some(0),
            renew_time: Some(old),
            ..LeaseSpec::default()
        };
        let mut rival = Rival::default();
        assert!(
            !rival.is_gone(&spec, Duration::from_secs(15)),
            "its clock says nothing, however old it looks"
        );
        assert!(rival.is_gone(&spec, Duration::from_secs(15)));
        let renewed = LeaseSpec { renew_time: Some(MicroTime(Timestamp::now())), ..spec };
        assert!(!rival.is_gone(&renewed, Duration::from_secs(15)));
    }
}
