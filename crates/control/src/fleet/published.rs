//! `Application.status` as it is in Kubernetes: what a new one is compared with.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use wasmbed_api::{ApplicationStatus, ReasonCode, condition};

use crate::intern::hash_of;

/// The conditions, in the order of a status. `Succeeded` is there unless the application is always
/// started again.
pub(super) const CONDITIONS: [&str; 5] =
    [condition::READY, condition::COMPLETE, condition::SUCCEEDED, condition::RECONCILING, condition::STALLED];

/// What the resource says now, kept small: enough to see whether a write is needed and what changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Published {
    hash: Option<u64>,
    conditions: [Option<PublishedCondition>; CONDITIONS.len()],
    /// Conditions of others, which a merge patch has to repeat: it replaces the list as a whole.
    others: Vec<Condition>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct PublishedCondition {
    holds: bool,
    reason_hash: u64,
    since_s: i64,
}

/// One condition that changed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Transition {
    pub warning: bool,
    pub reason: ReasonCode,
    pub message: String,
}

impl Published {
    pub(super) fn of(status: Option<&ApplicationStatus>) -> Self {
        let Some(status) = status else { return Self::default() };
        let held = |type_: &str| {
            let condition = status.conditions.iter().find(|condition| condition.type_ == type_)?;
            Some(PublishedCondition {
                holds: condition.status == "True",
                reason_hash: hash_of(&condition.reason),
                since_s: condition.last_transition_time.0.as_second(),
            })
        };
        let other = |condition: &&Condition| !CONDITIONS.contains(&condition.type_.as_str());
        let others = status.conditions.iter().filter(other).cloned().collect();
        Self { hash: Some(status_hash(status)), conditions: CONDITIONS.map(held), others }
    }

    /// Whether the resource says exactly this already.
    pub(super) fn says(&self, status: &ApplicationStatus) -> bool {
        self.hash == Some(status_hash(status))
    }

    /// Conditions of others.
    pub(super) fn others(&self) -> &[Condition] {
        &self.others
    }

    pub(super) fn since(&self, index: usize, holds: bool) -> Option<i64> {
        self.conditions[index].filter(|held| held.holds == holds).map(|held| held.since_s)
    }

    /// What deserves an Event: `Ready` changed its value or its reason, or `Stalled` began.
    pub(super) fn transitions(&self, status: &ApplicationStatus) -> Vec<Transition> {
        let reasons: BTreeMap<&str, ReasonCode> =
            ReasonCode::ALL.iter().map(|reason| (reason.as_str(), *reason)).collect();
        let changed = |shown: &&Condition| {
            let index = CONDITIONS.iter().position(|type_| *type_ == shown.type_);
            let before = index.and_then(|index| self.conditions[index]);
            let holds = shown.status == "True";
            let same =
                before.is_some_and(|held| held.holds == holds && held.reason_hash == hash_of(&shown.reason));
            !same && (shown.type_ == condition::READY || (shown.type_ == condition::STALLED && holds))
        };
        let ready_reason = status.conditions.iter().find(|shown| shown.type_ == condition::READY);
        status
            .conditions
            .iter()
            .filter(changed)
            // A refused Application is neither ready nor able to go on, for the same reason: one Event says it.
            .filter(|shown| {
                shown.type_ == condition::READY
                    || ready_reason.is_none_or(|ready| ready.reason != shown.reason)
            })
            .map(|shown| Transition {
                warning: shown.type_ == condition::STALLED || is_warning(&shown.reason),
                reason: reasons.get(shown.reason.as_str()).copied().unwrap_or_default(),
                message: shown.message.clone(),
            })
            .collect()
    }
}

/// Reasons why an Application is not ready that nobody has to act on.
fn is_warning(reason: &str) -> bool {
    let harmless = [
        ReasonCode::AllRunning,
        ReasonCode::AllSucceeded,
        ReasonCode::ConnectedRunning,
        ReasonCode::WaitingForDevices,
        ReasonCode::NoneConnected,
        ReasonCode::NoTargets,
        ReasonCode::Unschedulable,
        ReasonCode::Terminating,
    ];
    !harmless.iter().any(|other| other.as_str() == reason)
}

/// Of everything that the status says. `Condition` is not ours and implements no `Hash`.
fn status_hash(status: &ApplicationStatus) -> u64 {
    let ApplicationStatus {
        phase,
        observed_generation,
        module_digest,
        spec_hash,
        counts,
        ready,
        failures,
        conditions,
    } = status;
    let conditions: Vec<_> = conditions
        .iter()
        .map(|shown| {
            let Condition { type_, status, reason, message, observed_generation, last_transition_time } =
                shown;
            (type_, status, reason, message, observed_generation, last_transition_time.0)
        })
        .collect();
    hash_of(&(phase, observed_generation, module_digest, spec_hash, counts, ready, failures, conditions))
}
