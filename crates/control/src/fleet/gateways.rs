//! What is known of one gateway: whether it lives, what it said of its devices, what it was sent.
//!
//! ```text
//! stream:  down --Snapshot--> filling --SnapshotEnd--> in --changes--> in
//!            ^                                          |
//!            +------------- connection lost ------------+   (what it said stays known until the next SnapshotEnd)
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use wasmbed_api::{DeviceFacts, DeviceGateway, ReasonCode, condition};
use wasmbed_protocol::ModuleDigest;

use super::{
    config::LEASE_DEFAULT_MS,
    input::{CallId, LeaseSeen},
    record::{DeviceId, PlannedSet, ReportedApplication},
    retry::Retry,
};
use crate::ObjectKey;

/// One gateway.
#[derive(Debug, Default)]
pub(super) struct Gateway {
    /// From its DeviceGateway; none if there is no such object.
    pub(super) address: Option<String>,
    /// Its DeviceGateway as it was last seen.
    pub(super) object: Option<Object>,
    /// The version of it that was last marked, or could not be.
    pub(super) marked: String,
    pub(super) lease: Option<LeaseSeen>,
    /// When it was first heard of, or its Lease last changed.
    pub(super) alive_ms: u64,
    pub(super) stream: Stream,
    pub(super) views: BTreeMap<ObjectKey, View>,
    /// The whole snapshot of this or an earlier connection is in `views`.
    pub(super) snapshot_in: bool,
    /// Revisions that it confirmed since its last snapshot.
    pub(super) confirmed: BTreeMap<DeviceId, u64>,
    /// Devices whose set it may lack.
    pub(super) stale: BTreeSet<DeviceId>,
    pub(super) put: Option<PutInFlight>,
    /// The leader term that it last confirmed: a lower one is refused there from then on, also after its restart.
    pub(super) acknowledged_term: Option<u64>,
    /// Modules that it is known to have.
    pub(super) modules: BTreeSet<ModuleDigest>,
    pub(super) uploads_wanted: BTreeSet<ModuleDigest>,
    pub(super) upload: Option<(CallId, ModuleDigest)>,
    /// Of calls.
    pub(super) retry: Retry,
    /// Of the stream: how often in a row it failed.
    pub(super) stream_failures: u32,
    pub(super) stream_error: String,
}

/// A DeviceGateway, as far as what it says of itself is put right once it is gone.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) key: ObjectKey,
    pub(super) resource_version: String,
    pub(super) conditions: Vec<Condition>,
}

impl Object {
    pub(super) fn read(key: ObjectKey, resource: &DeviceGateway) -> Self {
        Self {
            key,
            resource_version: resource.metadata.resource_version.clone().unwrap_or_default(),
            conditions: resource.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default(),
        }
    }

    /// Whether it says that its gateway takes devices.
    fn says_ready(&self) -> bool {
        self.conditions.iter().any(|shown| shown.type_ == condition::READY && shown.status == "True")
    }

    /// The merge patch (RFC 7396) by which nothing is known of the gateway any more.
    pub(super) fn unknown_patch(&self, unix_ms: u64) -> serde_json::Value {
        let unix_s = i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX);
        let mut conditions: Vec<Condition> =
            self.conditions.iter().filter(|shown| shown.type_ != condition::READY).cloned().collect();
        conditions.push(Condition {
            type_: condition::READY.to_owned(),
            status: "Unknown".to_owned(),
            reason: ReasonCode::LeaseExpired.as_str().to_owned(),
            message: ReasonCode::LeaseExpired.sentence().to_owned(),
            observed_generation: None,
            last_transition_time: super::status::time(unix_s),
        });
        serde_json::json!({
            "metadata": { "resourceVersion": self.resource_version },
            "status": { "conditions": conditions },
        })
    }
}

/// The stream of a gateway.
#[derive(Debug, Default)]
pub(super) enum Stream {
    /// No connection.
    #[default]
    Down,
    /// A snapshot is coming in.
    Filling(BTreeMap<ObjectKey, View>),
    /// Changes come in.
    Up,
}

/// What one gateway knows of one device.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    pub(super) connected: bool,
    pub(super) epoch: u64,
    pub(super) revision_seen: u64,
    pub(super) revision_held: Option<u64>,
    pub(super) revision_reported: Option<u64>,
    pub(super) facts: Option<Arc<DeviceFacts>>,
    pub(super) applications: Option<Vec<ReportedApplication>>,
}

impl View {
    /// The highest revision that this view names.
    pub(super) fn highest_revision(&self) -> u64 {
        self.revision_seen.max(self.revision_held.unwrap_or(0)).max(self.revision_reported.unwrap_or(0))
    }
}

/// A PUT that has not been answered.
#[derive(Debug)]
pub(super) struct PutInFlight {
    pub(super) id: CallId,
    pub(super) term: u64,
    pub(super) sets: BTreeMap<DeviceId, u64>,
}

impl Gateway {
    pub(super) fn new(now_ms: u64) -> Self {
        Self { alive_ms: now_ms, ..Self::default() }
    }

    /// Whether it is to be counted on: it speaks to us, or its Lease was renewed lately as far as we could see.
    /// `api_since_ms` is when the Kubernetes API last came back: before that nothing could be seen.
    pub(super) fn is_live(&self, now_ms: u64, api_since_ms: Option<u64>, grace_ms: u64) -> bool {
        if !matches!(self.stream, Stream::Down) {
            return true;
        }
        if self.lease.as_ref().is_some_and(|lease| lease.released) {
            return false;
        }
        self.expires_ms(api_since_ms, grace_ms).is_none_or(|expires_ms| now_ms < expires_ms)
    }

    /// Whether its DeviceGateway says of it, while it is gone, that it takes devices.
    pub(super) fn is_to_be_marked(&self, is_live: bool) -> bool {
        let object = self.object.as_ref().filter(|object| object.resource_version != self.marked);
        !is_live && object.is_some_and(Object::says_ready)
    }

    /// When its Lease runs out if nothing more is seen; never while the API is away.
    pub(super) fn expires_ms(&self, api_since_ms: Option<u64>, grace_ms: u64) -> Option<u64> {
        let lease_ms = self.lease.as_ref().map_or(LEASE_DEFAULT_MS, |lease| lease.duration_ms);
        Some(self.alive_ms.max(api_since_ms?).saturating_add(lease_ms).saturating_add(grace_ms))
    }

    /// A lease was seen; its own times are not believed, only that it changed.
    pub(super) fn observe_lease(&mut self, now_ms: u64, lease: Option<LeaseSeen>) {
        if self.lease != lease {
            self.alive_ms = now_ms;
            self.lease = lease;
        }
    }

    /// Whether it is known to hold that set of that device: it said so to us, or the device reported its content from
    /// there. That it holds one of the same revision is not enough: an earlier leader may have given the number to another
    /// content while this gateway was the only one to know.
    pub(super) fn holds(&self, id: DeviceId, key: &ObjectKey, planned: &PlannedSet) -> bool {
        let revision = Some(planned.revision);
        let reported = |view: &View| {
            let mut content: Vec<_> =
                view.applications.iter().flatten().map(|report| (report.uid, report.spec_hash)).collect();
            content.sort_unstable();
            let told = view.applications.is_some() && view.revision_reported == revision;
            told && view.revision_held == revision && content == planned.content
        };
        self.confirmed.get(&id).copied() == revision || self.views.get(key).is_some_and(reported)
    }

    /// Everything it had is in doubt: another process, or its disk was lost.
    pub(super) fn forget_holdings(&mut self) {
        self.acknowledged_term = None;
        self.confirmed.clear();
        self.modules.clear();
        self.uploads_wanted.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(renewal: &str) -> Option<LeaseSeen> {
        Some(LeaseSeen { renewal: renewal.to_owned(), duration_ms: 15_000, released: false })
    }

    #[test]
    fn a_lease_is_timed_by_what_is_seen_here() {
        let mut gateway = Gateway::new(0);
        gateway.observe_lease(1_000, lease("a"));
        assert!(gateway.is_live(25_999, Some(0), 10_000));
        assert!(!gateway.is_live(26_000, Some(0), 10_000));
        gateway.observe_lease(20_000, lease("a"));
        assert!(!gateway.is_live(26_000, Some(0), 10_000), "the same renewal is no renewal");
        gateway.observe_lease(27_000, lease("b"));
        assert!(gateway.is_live(30_000, Some(0), 10_000));
    }

    #[test]
    fn nothing_expires_while_the_api_is_away_and_a_lease_and_a_grace_after() {
        let mut gateway = Gateway::new(0);
        gateway.observe_lease(0, lease("a"));
        assert!(gateway.is_live(1_000_000, None, 10_000));
        assert!(gateway.is_live(1_024_999, Some(1_000_000), 10_000));
        assert!(!gateway.is_live(1_025_000, Some(1_000_000), 10_000));
    }

    #[test]
    fn a_released_lease_ends_it_at_once_and_a_stream_proves_life() {
        let mut gateway = Gateway::new(0);
        gateway.observe_lease(0, lease("a").map(|lease| LeaseSeen { released: true, ..lease }));
        assert!(!gateway.is_live(1, Some(0), 10_000));
        gateway.stream = Stream::Up;
        assert!(gateway.is_live(1_000_000, Some(0), 10_000));
    }
}
