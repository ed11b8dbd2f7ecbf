//! Leadership by a Lease: the calls and the clock around [`wasmbed_control::election`], which decides.
//!
//! Leadership is told with the moment at which it ends unless it is renewed, so that a process that stood still does not act on
//! a term that others may have taken over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;
use kube::{Api, Client};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use wasmbed_api::LEADER_LEASE;
use wasmbed_control::election::{Election as Rules, ElectionConfig, LeaseRecord};

use crate::clock::milliseconds;
use crate::config::LeaseConfig;
use crate::input::Input;
use crate::kubernetes::{post_params, words};

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

/// The rules, and the origin of the milliseconds that they are told.
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
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let rules = ElectionConfig {
            duration_ms: milliseconds(self.config.duration),
            renew_ms: milliseconds(self.config.renew),
        };
        let mut state = State { rules: Rules::new(&self.holder, rules), start: Instant::now() };
        let mut before = None;
        loop {
            let attempt = tokio::time::timeout(self.config.renew, self.attempt(&leases, &mut state)).await;
            let reachable = match &attempt {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    tracing::warn!(
                        reason = "LeaseFailed",
                        error = words(error),
                        "the leader Lease can't be read or written"
                    );
                    // An answer is an answer, even if it is no.
                    matches!(error, kube::Error::Api(status) if status.code < 500)
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
            let _ = tokio::time::timeout(self.config.renew, self.release(&leases)).await;
        }
    }

    async fn attempt(&mut self, leases: &Api<Lease>, state: &mut State) -> Result<(), kube::Error> {
        let asked_ms = state.now_ms();
        let lease = leases.get_opt(LEADER_LEASE).await?;
        let record = lease.as_ref().map(|lease| LeaseRecord::read(lease.spec.as_ref()));
        let wanted = *self.wanted.borrow_and_update();
        let claim = state.rules.plan_claim(state.now_ms(), record.as_ref(), wanted);
        let before = lease.as_ref().and_then(|lease| lease.spec.clone());
        let claimed = claim.spec(before, &self.holder, state.rules.config(), Timestamp::now());
        let Some((term, spec)) = claimed else { return Ok(()) };
        let result = match lease {
            Some(lease) => {
                let lease = Lease { spec: Some(spec), ..lease };
                leases.replace(LEADER_LEASE, &post_params(), &lease).await
            }
            None => {
                let metadata = ObjectMeta {
                    name: Some(LEADER_LEASE.to_owned()),
                    namespace: Some(self.namespace.clone()),
                    ..ObjectMeta::default()
                };
                leases.create(&post_params(), &Lease { metadata, spec: Some(spec) }).await
            }
        };
        match result {
            Ok(_) => state.rules.handle_written(asked_ms, term),
            // Another wrote the Lease in between: the next attempt sees who.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn release(&self, leases: &Api<Lease>) -> Result<(), kube::Error> {
        let mut lease = leases.get(LEADER_LEASE).await?;
        if let Some(spec) =
            lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.holder))
        {
            spec.holder_identity = Some(String::new());
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            leases.replace(LEADER_LEASE, &post_params(), &lease).await?;
            tracing::info!("leadership is given up");
        }
        Ok(())
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
