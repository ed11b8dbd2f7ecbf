//! One controller of several leads: reads and writes of the leader's Lease.

use serde_json::{Value, json};
use wasmbed_api::LEADER_LEASE;
use wasmbed_control::{
    Now,
    election::{Claim, LeaseRecord},
};

use super::{
    ControllerProcess,
    claim::{Claiming, ELECTION, text},
};
use crate::{
    api::{Api, ApiError, time_text},
    invariants::Witness,
};

impl ControllerProcess {
    /// Reads the leader's Lease when it is time, and writes it a little later if there is reason to.
    pub(super) fn elect(&mut self, now: Now, api: &mut Api, witness: &mut Witness) {
        if let Some(claiming) = self.claiming.take_if(|claiming| claiming.at_ms <= now.ms) {
            let succeeded = self.claim(now, &claiming, api, witness);
            self.look_ms = now.ms + self.election.poll_pause_ms(now.ms, succeeded);
        }
        if self.claiming.is_some() || now.ms < self.look_ms {
            return;
        }
        let read = match self.line.reach(now.ms, api).and_then(|api| api.get("leases", LEADER_LEASE)) {
            _ if self.line.fails() => Err(ApiError::Unavailable),
            Err(ApiError::NotFound) => Ok(None),
            result => result.map(Some),
        };
        self.answers = read.is_ok();
        let Ok(lease) = read else {
            self.look_ms = now.ms + self.election.poll_pause_ms(now.ms, false);
            return;
        };
        let record = lease.as_ref().map(lease_record);
        match self.election.plan_claim(now.ms, record.as_ref(), self.fleet.term_wanted()) {
            Claim::Wait => self.look_ms = now.ms + self.election.poll_pause_ms(now.ms, true),
            claim @ (Claim::Create { .. } | Claim::Write { .. }) => {
                let version = lease.map(|lease| text(&lease["metadata"]["resourceVersion"]));
                self.claiming = Some(Claiming {
                    at_ms: now.ms + self.random.below(60),
                    asked_ms: now.ms,
                    claim,
                    version: version.unwrap_or_default(),
                });
            }
        }
    }

    fn claim(&mut self, now: Now, claiming: &Claiming, api: &mut Api, witness: &mut Witness) -> bool {
        let spec = |term: u64| {
            json!({
                "holderIdentity": self.sender.holder(),
                "leaseDurationSeconds": ELECTION.duration_ms / 1_000,
                "leaseTransitions": term,
                "renewTime": time_text(now),
            })
        };
        self.fleet.handle_renewing(now, time_text(now));
        if self.line.fails() {
            return false;
        }
        let Ok(api) = self.line.reach_mut(now.ms, api) else { return false };
        let (term, result) = match claiming.claim {
            Claim::Create { term } => (term, api.create("leases", "Lease", LEADER_LEASE, spec(term))),
            Claim::Write { term, .. } => {
                let metadata = json!({ "resourceVersion": claiming.version });
                let patch = json!({ "metadata": metadata, "spec": spec(term) });
                (term, api.patch("leases", LEADER_LEASE, false, patch))
            }
            Claim::Wait => return true,
        };
        if result.is_ok() {
            witness.leader_lease_written(self.sender, now.ms);
        }
        match result {
            _ if self.line.loses_answer() => false,
            Ok(_) => {
                self.election.handle_written(claiming.asked_ms, term);
                true
            }
            // Another wrote it in between: the next look sees who.
            Err(ApiError::Conflict) => true,
            Err(_) => false,
        }
    }
}

fn lease_record(lease: &Value) -> LeaseRecord {
    let spec = &lease["spec"];
    LeaseRecord {
        holder: text(&spec["holderIdentity"]),
        term: spec["leaseTransitions"].as_u64().unwrap_or(0),
        renewal: text(&spec["renewTime"]),
        duration_ms: spec["leaseDurationSeconds"].as_u64().map(|seconds| seconds * 1_000),
    }
}
