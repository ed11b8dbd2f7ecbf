//! Leadership by a Lease: the calls and the clock around [`wasmbed_control::election`], which decides.
//!
//! Leadership is published with the time at which it ends unless it is renewed, so that a process that stood still does not act on
//! a term that others may have taken over.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use wasmbed_control::election::{Election as Rules, ElectionConfig, LeaseRecord};
use wasmbed_kubernetes::{CallError, Claimed, LeaseClient};

use crate::{clock::milliseconds, config::LeaseConfig, input::Input};

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

/// What tells a renewal of a Lease from others; the API keeps microseconds.
pub(crate) fn renewal(at: &MicroTime) -> String {
    at.0.as_microsecond().to_string()
}

/// Holds, or waits for, the leader's Lease until `stop`, then gives it up.
pub(crate) struct Election {
    pub(crate) lease: LeaseClient,
    pub(crate) holder: String,
    pub(crate) config: LeaseConfig,
    /// A term that ours has to reach, because gateways have seen higher ones.
    pub(crate) wanted: watch::Receiver<Option<u64>>,
    /// Told when the watch saw the Lease change.
    pub(crate) changed: Arc<Notify>,
    pub(crate) lead: watch::Sender<Option<Lead>>,
    pub(crate) inputs: mpsc::Sender<Input>,
}

/// The rules, and the origin of their milliseconds.
struct State {
    rules: Rules,
    start: Instant,
}

impl State {
    fn now_ms(&self) -> u64 {
        milliseconds(self.start.elapsed())
    }

    fn lead(&self) -> Option<Lead> {
        let lead = self.rules.lead(self.now_ms())?;
        Some(Lead { term: lead.term, until: self.start + Duration::from_millis(lead.until_ms) })
    }
}

impl Election {
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let rules = ElectionConfig {
            duration_ms: milliseconds(self.config.duration),
            renew_ms: milliseconds(self.config.renew),
        };
        let mut state = State { rules: Rules::new(&self.holder, rules), start: Instant::now() };
        let mut before = None;
        loop {
            let attempt = tokio::time::timeout(self.config.renew, self.attempt(&mut state)).await;
            let reachable = match &attempt {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    tracing::warn!(
                        reason = "LeaseFailed",
                        %error,
                        "the leader Lease can't be read or written"
                    );
                    // An answer is an answer, even if it is no.
                    error.is_answer()
                }
                Err(_) => false,
            };
            let lead = state.lead();
            let term = lead.map(|lead| lead.term);
            if term != before {
                tracing::info!(term, leads = term.is_some(), "leadership changed");
                before = term;
            }
            self.lead.send_replace(lead);
            if self.inputs.send(Input::Api(reachable)).await.is_err() {
                break;
            }
            let succeeded = matches!(attempt, Ok(Ok(())));
            let pause = Duration::from_millis(state.rules.poll_pause_ms(state.now_ms(), succeeded));
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
                // A leader wrote the change itself, or learns of another holder by its next renewal.
                () = self.changed.notified(), if lead.is_none() => {}
                changed = self.wanted.changed() => if changed.is_err() { break },
            }
        }
        self.lead.send_replace(None);
        if before.is_some() {
            let _ = tokio::time::timeout(self.config.renew, self.release()).await;
        }
    }

    async fn attempt(&mut self, state: &mut State) -> Result<(), CallError> {
        let asked_ms = state.now_ms();
        let at = Timestamp::now();
        // Before the write: the watch may show it before the call returns.
        if self.inputs.send(Input::Renewing(renewal(&MicroTime(at)), Instant::now())).await.is_err() {
            return Ok(());
        }
        let config = state.rules.config();
        let wanted = &mut self.wanted;
        let plan = |record: Option<&LeaseRecord>| {
            let wanted = *wanted.borrow_and_update();
            state.rules.plan_claim(state.now_ms(), record, wanted)
        };
        // After a conflict the next attempt shows who holds it.
        if let Claimed::Written { term } = self.lease.claim(&self.holder, config, at, plan).await? {
            state.rules.handle_written(asked_ms, term);
        }
        Ok(())
    }

    async fn release(&self) {
        match self.lease.release(&self.holder).await {
            Ok(true) => tracing::info!("released leadership"),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(reason = "LeaseFailed", %error, "leadership could not be released");
            }
        }
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
}
