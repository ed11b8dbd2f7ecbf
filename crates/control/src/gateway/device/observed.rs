//! The Device object as Kubernetes holds it. These are values: made whole from an object, and replaced whole by the next one.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use wasmbed_api::{Device, DevicePhase, DeviceStatus, condition};

use super::application::applications_hash;
use crate::{UnixTime, intern::hash_of};

/// The Device object: what its owner wants, and the status that later writes are diffed against.
#[derive(Debug)]
pub(in crate::gateway) struct ObservedDevice {
    pub uid: Arc<str>,
    pub resource_version: Box<str>,
    pub generation: Option<i64>,
    pub approved: bool,
    pub revoked: bool,
    pub public_key: Option<Arc<str>>,
    pub base: LastWritten,
}

/// A text, held once with an equal one of `held`.
pub(in crate::gateway) fn shared(text: &str, held: [Option<&Arc<str>>; 2]) -> Arc<str> {
    held.into_iter().flatten().find(|held| ***held == *text).map_or_else(|| text.into(), Arc::clone)
}

/// Conditions of a Device that its gateway writes.
const OWN_CONDITIONS: [&str; 5] = [
    condition::CONNECTED,
    condition::ENROLLED,
    condition::CLONE_SUSPECTED,
    condition::KEY_MISMATCH,
    condition::COUNTERS,
];

/// Device.status as it is in Kubernetes, as far as a writer needs it.
#[derive(Debug, Default)]
pub(in crate::gateway) struct LastWritten {
    pub phase: DevicePhase,
    pub gateway: Option<String>,
    pub epoch: u64,
    pub last_heartbeat_unix_ms: u64,
    pub connected_since_unix_ms: Option<u64>,
    pub revision: Option<i64>,
    pub observed_generation: Option<i64>,
    pub facts_hash: u64,
    pub applications_hash: u64,
    pub connected: Option<ObservedCondition>,
    pub enrolled: Option<ObservedCondition>,
    pub clone: Option<ObservedCondition>,
    pub mismatch: Option<ObservedCondition>,
    pub counters: Option<ObservedCondition>,
    /// Conditions of others, which a merge patch has to repeat: it replaces the list as a whole.
    pub other_conditions: Vec<Condition>,
}

/// A condition as it is in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::gateway) struct ObservedCondition {
    pub status: bool,
    pub reason: String,
    pub since: UnixTime,
}

impl ObservedDevice {
    /// `None` if it lacks what the API server always sets.
    pub(in crate::gateway) fn new(device: &Device) -> Option<Self> {
        Some(Self {
            uid: device.metadata.uid.as_deref()?.into(),
            resource_version: device.metadata.resource_version.as_deref()?.into(),
            generation: device.metadata.generation,
            approved: device.spec.approved,
            revoked: device.spec.revoked,
            public_key: device.spec.public_key.as_deref().map(Arc::from),
            base: device.status.as_ref().map(LastWritten::new).unwrap_or_default(),
        })
    }

    /// Whether this is older than `other`. Versions are compared as numbers (KEP-5504); others count as newer.
    pub(in crate::gateway) fn is_older_than(&self, other: &Self) -> bool {
        let number = |object: &Self| object.resource_version.parse::<u64>().ok();
        matches!((number(self), number(other)), (Some(own), Some(other)) if own < other)
    }

    /// Whether both are the same version of the same object.
    pub(in crate::gateway) fn is_version_of(&self, other: &Self) -> bool {
        self.uid == other.uid && self.resource_version == other.resource_version
    }
}

impl LastWritten {
    /// Epoch and revision.
    pub(in crate::gateway) fn counters(&self) -> (u64, u64) {
        (self.epoch, self.revision.and_then(|revision| u64::try_from(revision).ok()).unwrap_or(0))
    }

    fn new(status: &DeviceStatus) -> Self {
        let shown = |name: &str| {
            status.conditions.iter().find(|condition| condition.type_ == name).map(|condition| {
                ObservedCondition {
                    status: condition.status == "True",
                    reason: condition.reason.clone(),
                    since: UnixTime::from_ms(
                        u64::try_from(condition.last_transition_time.0.as_millisecond()).unwrap_or(0),
                    ),
                }
            })
        };
        let unix_ms = |text: Option<&str>| text.and_then(UnixTime::parse).map(|time| time.ms);
        Self {
            phase: status.phase,
            gateway: status.gateway.clone(),
            epoch: status.epoch.and_then(|epoch| u64::try_from(epoch).ok()).unwrap_or(0),
            last_heartbeat_unix_ms: unix_ms(status.last_heartbeat.as_deref()).unwrap_or(0),
            connected_since_unix_ms: unix_ms(status.connected_since.as_deref()),
            revision: status.revision,
            observed_generation: status.observed_generation,
            facts_hash: status.facts.as_ref().map_or(0, hash_of),
            applications_hash: applications_hash(status.applications.iter().cloned()),
            connected: shown(condition::CONNECTED),
            enrolled: shown(condition::ENROLLED),
            clone: shown(condition::CLONE_SUSPECTED),
            mismatch: shown(condition::KEY_MISMATCH),
            counters: shown(condition::COUNTERS),
            other_conditions: status
                .conditions
                .iter()
                .filter(|shown| !OWN_CONDITIONS.contains(&shown.type_.as_str()))
                .cloned()
                .collect(),
        }
    }
}
