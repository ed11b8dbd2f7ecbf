//! Leadership by a Lease: the calls and the clock around [`wasmbed_control::election`], which decides.
//!
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
use wasmbed_control::election::{Claim, Election as Rules, ElectionConfig, LeaseRecord};

use crate::clock::milliseconds;
use crate::config::LeaseConfig;
use crate::input::Input;

/// Name of the leader's Lease.
pub(crate) const LEASE_NAME: &str = "wasmbed-controller";

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
                    tracing::warn!(reason = %error, "the leader Lease can't be read or written");
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
        let lease = leases.get_opt(LEASE_NAME).await?;
        let record = lease.as_ref().and_then(|lease| lease.spec.as_ref()).map(record);
        // One without a spec is held by nobody.
        let record = record.or_else(|| lease.as_ref().map(|_| LeaseRecord::default()));
        let wanted = *self.wanted.borrow_and_update();
        let (term, result) = match state.rules.plan_claim(state.now_ms(), record.as_ref(), wanted) {
            Claim::Wait => return Ok(()),
            Claim::Create { term } => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(LEASE_NAME.to_owned()),
                        namespace: Some(self.namespace.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(self.claim(LeaseSpec::default(), term, true)),
                };
                (term, leases.create(&PostParams::default(), &lease).await)
            }
            Claim::Write { term, fresh } => {
                let mut lease = lease.unwrap_or_default();
                lease.spec = Some(self.claim(lease.spec.unwrap_or_default(), term, fresh));
                (term, leases.replace(LEASE_NAME, &PostParams::default(), &lease).await)
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

/// The Lease as the rules read it.
fn record(spec: &LeaseSpec) -> LeaseRecord {
    let unsigned = |number: Option<i32>| number.and_then(|number| u64::try_from(number).ok());
    LeaseRecord {
        holder: spec.holder_identity.clone().unwrap_or_default(),
        term: unsigned(spec.lease_transitions).unwrap_or(0),
        renewal: format!("{:?}", spec.renew_time),
        duration_ms: unsigned(spec.lease_duration_seconds).map(|seconds| seconds.saturating_mul(1_000)),
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
    fn a_lease_is_read_as_the_rules_want_it() {
        let spec = LeaseSpec {
            holder_identity: Some("other".to_owned()),
            lease_duration_seconds: Some(10),
            lease_transitions: Some(4),
            renew_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
            ..LeaseSpec::default()
        };
        let read = record(&spec);
        assert_eq!((read.holder.as_str(), read.term, read.duration_ms), ("other", 4, Some(10_000)));
        let renewed = LeaseSpec { renew_time: Some(MicroTime(Timestamp::now())), ..spec };
        assert_ne!(record(&renewed).renewal, read.renewal);
        assert_eq!(record(&LeaseSpec::default()).holder, "", "nobody holds it");
    }
}
