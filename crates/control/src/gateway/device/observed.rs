//! The Device object as Kubernetes holds it. These are values: made whole from an object, and replaced whole by the next one.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Map, Value, json};
use wasmbed_api::{Device, DevicePhase, DeviceStatus, ReasonCode, condition};
use wasmbed_protocol::KeyHash;

use super::application::applications_hash;
use crate::{Now, UnixTime, intern::hash_of};

/// The Device object: what its owner wants, and the status that later writes are diffed against.
#[derive(Debug)]
pub(in crate::gateway) struct ObservedDevice {
    uid: Arc<str>,
    resource_version: Box<str>,
    generation: Option<i64>,
    approved: bool,
    revoked: bool,
    /// `spec.decommission`.
    leaves_service: bool,
    /// The device's proof that it was taken out of service was verified.
    decommissioned: bool,
    deleting: bool,
    /// Boxed: few Devices have one.
    confirmed_key: Option<Box<KeyHash>>,
    public_key: Option<Arc<str>>,
    status: LastWritten,
}

/// A text, held once with an equal one of `held`.
pub(in crate::gateway) fn shared(text: &str, held: [Option<&Arc<str>>; 2]) -> Arc<str> {
    held.into_iter().flatten().find(|held| ***held == *text).map_or_else(|| text.into(), Arc::clone)
}

/// Conditions of a Device that its gateway writes, in the order of [`LastWritten::own`].
const OWN_CONDITIONS: [&str; 5] = [
    condition::CONNECTED,
    condition::ENROLLED,
    condition::CLONE_SUSPECTED,
    condition::KEY_MISMATCH,
    condition::COUNTERS,
];

/// A time in a status that is so far ahead of the gateway's clock was written by a clock that has been set back since.
const CLOCK_AHEAD_MS: u64 = 2_000;

/// Device.status as it is in Kubernetes, as far as a writer needs it.
#[derive(Debug, Default)]
pub(in crate::gateway) struct LastWritten {
    phase: DevicePhase,
    gateway: Option<String>,
    epoch: u64,
    last_heartbeat_unix_ms: u64,
    connected_since_unix_ms: Option<u64>,
    revision: Option<i64>,
    observed_generation: Option<i64>,
    facts_hash: u64,
    applications_hash: u64,
    own: [Option<ObservedCondition>; OWN_CONDITIONS.len()],
    /// Conditions of others, which a merge patch has to repeat: it replaces the list as a whole.
    others: Vec<Condition>,
}

/// A condition as it is in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::gateway) struct ObservedCondition {
    holds: bool,
    reason: String,
    message_hash: u64,
    since: UnixTime,
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
            leaves_service: device.spec.decommission,
            decommissioned: is_decommissioned(device),
            deleting: device.metadata.deletion_timestamp.is_some(),
            confirmed_key: device
                .spec
                .confirmed_key
                .as_ref()
                .and_then(|text| text.parse().ok())
                .map(Box::new),
            public_key: pinned_key(device).map(Arc::from),
            status: device.status.as_ref().map(LastWritten::new).unwrap_or_default(),
        })
    }

    /// Holds its texts once with equal ones that are held already.
    pub(super) fn share(&mut self, uids: [Option<&Arc<str>>; 2], keys: [Option<&Arc<str>>; 2]) {
        self.uid = shared(&self.uid, uids);
        self.public_key = self.public_key.take().map(|key| shared(&key, keys));
    }

    pub(in crate::gateway) fn uid(&self) -> &Arc<str> {
        &self.uid
    }

    pub(in crate::gateway) fn generation(&self) -> Option<i64> {
        self.generation
    }

    /// Whether its status speaks of another generation.
    pub(in crate::gateway) fn is_respecified(&self) -> bool {
        self.generation != self.status.observed_generation
    }

    /// `spec.approved`.
    pub(in crate::gateway) fn is_approved(&self) -> bool {
        self.approved
    }

    /// `spec.revoked`.
    pub(in crate::gateway) fn is_revoked(&self) -> bool {
        self.revoked
    }

    /// Whether it is to be taken out of service: no certificate is asked for in its name.
    pub(in crate::gateway) fn leaves_service(&self) -> bool {
        self.leaves_service
    }

    /// Whether it was taken out of service, so that its device is kept out.
    pub(in crate::gateway) fn is_decommissioned(&self) -> bool {
        self.decommissioned
    }

    /// Whether it is being deleted.
    pub(in crate::gateway) fn is_deleting(&self) -> bool {
        self.deleting
    }

    /// `spec.confirmed_key`.
    pub(in crate::gateway) fn confirmed_key(&self) -> Option<KeyHash> {
        self.confirmed_key.as_deref().copied()
    }

    /// Whether its device is let in, where devices must be approved or need not be.
    pub(in crate::gateway) fn is_let_in(&self, asks_approval: bool) -> bool {
        !self.revoked && !self.decommissioned && (self.approved || !asks_approval)
    }

    /// The key that its device has to have: a person's word before the signer's.
    pub(in crate::gateway) fn public_key(&self) -> Option<&Arc<str>> {
        self.public_key.as_ref()
    }

    pub(in crate::gateway) fn status(&self) -> &LastWritten {
        &self.status
    }

    /// The merge patch (RFC 7396) that changes these fields of the status, of this version alone.
    pub(in crate::gateway) fn status_patch(&self, fields: Map<String, Value>) -> Value {
        json!({ "metadata": { "resourceVersion": self.resource_version }, "status": fields })
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

/// `spec.public_key`, or the key that the signer last issued a certificate for.
fn pinned_key(device: &Device) -> Option<&str> {
    let issued = || device.status.as_ref().and_then(|status| status.public_key.as_deref());
    device.spec.public_key.as_deref().or_else(issued)
}

/// Whether a controller has verified the device's proof. It counts beside the person's word only: nobody else asks for one.
fn is_decommissioned(device: &Device) -> bool {
    let decommission = device.status.as_ref().and_then(|status| status.decommission.as_ref());
    device.spec.decommission && decommission.is_some_and(|it| it.confirmed_at.is_some())
}

impl LastWritten {
    fn new(status: &DeviceStatus) -> Self {
        let unix_ms = |text: Option<&str>| text.and_then(UnixTime::parse).map(|time| time.ms);
        let is_own = |shown: &&Condition| OWN_CONDITIONS.contains(&shown.type_.as_str());
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
            own: OWN_CONDITIONS.map(|name| {
                let shown = status.conditions.iter().find(|condition| condition.type_ == name);
                shown.map(ObservedCondition::new)
            }),
            others: status.conditions.iter().filter(|shown| !is_own(shown)).cloned().collect(),
        }
    }

    pub(in crate::gateway) fn phase(&self) -> DevicePhase {
        self.phase
    }

    /// Epoch of the session that it speaks of; 0 if there was none.
    pub(in crate::gateway) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The highest revision that it names.
    pub(in crate::gateway) fn revision(&self) -> u64 {
        self.revision.and_then(|revision| u64::try_from(revision).ok()).unwrap_or(0)
    }

    /// Whether it says another revision than this one, or none.
    pub(in crate::gateway) fn lacks_revision(&self, revision: u64) -> bool {
        self.revision.and_then(|revision| u64::try_from(revision).ok()) != Some(revision)
    }

    /// Whether it speaks of a session at a gateway.
    pub(in crate::gateway) fn names_gateway(&self) -> bool {
        self.gateway.is_some()
    }

    /// Whether it speaks of a session at this gateway.
    pub(in crate::gateway) fn is_by(&self, gateway: &str) -> bool {
        self.gateway.as_deref() == Some(gateway)
    }

    /// Whether it speaks of a session at another gateway than this one.
    pub(in crate::gateway) fn is_by_another(&self, gateway: &str) -> bool {
        self.gateway.as_deref().is_some_and(|name| name != gateway)
    }

    /// Whether it says since when the session of this epoch is established.
    pub(in crate::gateway) fn tells_start_of(&self, epoch: u64) -> bool {
        self.epoch == epoch && self.connected_since_unix_ms.is_some()
    }

    /// How much older its sign of life is than one of then, milliseconds.
    pub(in crate::gateway) fn heartbeat_age_ms(&self, heard_unix_ms: u64) -> u64 {
        heard_unix_ms.saturating_sub(self.last_heartbeat_unix_ms)
    }

    /// Whether it has a time that has not come yet.
    pub(in crate::gateway) fn is_ahead(&self, now: Now) -> bool {
        let latest = self.connected_since_unix_ms.unwrap_or(0).max(self.last_heartbeat_unix_ms);
        latest > now.unix_ms.saturating_add(CLOCK_AHEAD_MS)
    }

    /// What its facts hash to.
    pub(in crate::gateway) fn facts_hash(&self) -> u64 {
        self.facts_hash
    }

    /// What its applications hash to, memory in use aside.
    pub(in crate::gateway) fn applications_hash(&self) -> u64 {
        self.applications_hash
    }

    /// A condition that gateways write.
    pub(in crate::gateway) fn condition(&self, name: &str) -> Option<&ObservedCondition> {
        let index = OWN_CONDITIONS.iter().position(|own| *own == name);
        debug_assert!(index.is_some(), "{name} is not a condition that gateways write");
        self.own.get(index?)?.as_ref()
    }

    /// Conditions of others, which a merge patch has to repeat.
    pub(in crate::gateway) fn other_conditions(&self) -> &[Condition] {
        &self.others
    }

    /// Why its device is away and knows when to come back, if it says that.
    pub(in crate::gateway) fn told_to_stay_away(&self) -> Option<ReasonCode> {
        let shown = self.condition(condition::CONNECTED).filter(|shown| !shown.holds)?;
        [ReasonCode::Revoked, ReasonCode::AwaitingReconnect].into_iter().find(|reason| shown.is_for(*reason))
    }
}

impl ObservedCondition {
    fn new(condition: &Condition) -> Self {
        let since_ms = condition.last_transition_time.0.as_millisecond();
        Self {
            holds: condition.status == "True",
            reason: condition.reason.clone(),
            message_hash: hash_of(&condition.message),
            since: UnixTime::from_ms(u64::try_from(since_ms).unwrap_or(0)),
        }
    }

    pub(in crate::gateway) fn holds(&self) -> bool {
        self.holds
    }

    /// Whether this is its reason.
    pub(in crate::gateway) fn is_for(&self, reason: ReasonCode) -> bool {
        self.reason == reason.as_str()
    }

    /// Its reason as it is in Kubernetes: one of ours, or of another version.
    pub(in crate::gateway) fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether this is its message.
    pub(in crate::gateway) fn says(&self, message: &str) -> bool {
        self.message_hash == hash_of(&message)
    }

    /// Since when it has had this value.
    pub(in crate::gateway) fn since(&self) -> UnixTime {
        self.since
    }
}

#[cfg(test)]
mod tests {
    use wasmbed_api::DeviceSpec;

    use super::*;

    #[test]
    fn a_person_s_key_pins_before_the_signer_s() {
        let pinned = |spec: Option<&str>, status: Option<&str>| {
            let spec = DeviceSpec { public_key: spec.map(str::to_owned), ..DeviceSpec::default() };
            let mut device = Device::new("a", spec);
            device.metadata.uid = Some("00000000-0000-0000-0000-000000000001".to_owned());
            device.metadata.resource_version = Some("1".to_owned());
            device.status = status
                .map(|key| DeviceStatus { public_key: Some(key.to_owned()), ..DeviceStatus::default() });
            ObservedDevice::new(&device).unwrap().public_key().map(ToString::to_string)
        };
        assert_eq!(pinned(None, None), None);
        assert_eq!(pinned(None, Some("issued")).as_deref(), Some("issued"));
        assert_eq!(pinned(Some("chosen"), Some("issued")).as_deref(), Some("chosen"));
        assert_eq!(pinned(Some("chosen"), None).as_deref(), Some("chosen"));
    }
}
