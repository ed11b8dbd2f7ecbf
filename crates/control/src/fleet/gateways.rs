//! What is known of one gateway: whether it lives, what it said of its devices, what it was sent.
//!
//! ```text
//! stream:  down --Snapshot--> filling --SnapshotEnd--> in --changes--> in
//!            ^                                          |
//!            +------------- connection lost ------------+   (what it said stays known until the next SnapshotEnd)
//! ```

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use wasmbed_api::{DeviceGateway, ReasonCode, condition};
use wasmbed_protocol::ModuleDigest;

use super::{
    brokers::BrokerDelivery,
    config::{FleetConfig, LEASE_DEFAULT_MS},
    input::{CallId, LeaseSeen, PutOutcome, UploadOutcome},
    orders::Orders,
    record::DeviceId,
    retry::Retry,
    set::PlannedSet,
    setting_delivery::{PlannedSettings, SettingsDelivery},
    view::View,
};
use crate::{Now, ObjectKey, election::TERM_MAX, gateway_api::SetRefusal};

/// One gateway.
///
/// # Contract
///
/// - **Object and Lease.** [`Gateway::observe`], [`Gateway::forget_object`] and [`Gateway::observe_lease`] at any time.
/// - **Stream.** [`Gateway::begin_snapshot`], [`Gateway::show`] and [`Gateway::forget_view`], [`Gateway::end_snapshot`]; then
///   changes; [`Gateway::resume`] if a connection goes on where the last one ended; [`Gateway::stream_ended`] at its end.
/// - **Sets.** [`Gateway::note_lack`] names devices whose set it may lack. [`Gateway::begin_put`] and [`Gateway::end_put`]
///   enclose each PUT; one is on its way at a time, and so is one upload ([`Gateway::begin_upload`], [`Gateway::end_upload`]).
/// - **Leadership.** [`Gateway::begin_term`] when it changes: what an earlier leader was told counts for nothing.
#[derive(Debug, Default)]
pub(super) struct Gateway {
    /// From its DeviceGateway; none if there is no such object.
    address: Option<String>,
    /// Its DeviceGateway as it was last seen.
    object: Option<Object>,
    /// The version of it that was last marked, or could not be.
    marked: String,
    lease: Option<LeaseSeen>,
    /// When it was first heard of, or its Lease last changed.
    alive_ms: u64,
    stream: Stream,
    views: BTreeMap<ObjectKey, View>,
    /// The whole snapshot of this or an earlier connection is in `views`.
    snapshot_in: bool,
    /// Revisions that it confirmed since its last snapshot.
    confirmed: BTreeMap<DeviceId, u64>,
    /// Devices whose set it may lack.
    stale: BTreeSet<DeviceId>,
    put: Option<PutInFlight>,
    /// The leader term that it last confirmed: a lower one is refused there from then on, also after its restart.
    acknowledged_term: Option<u64>,
    /// Modules that it is known to have.
    modules: BTreeSet<ModuleDigest>,
    uploads_wanted: BTreeSet<ModuleDigest>,
    upload: Option<(CallId, ModuleDigest)>,
    /// Orders to take devices out of service.
    orders: Orders,
    /// What it was told of MessageBrokers.
    brokers: BrokerDelivery,
    /// What it was told of settings.
    settings: SettingsDelivery,
    /// Of calls.
    retry: Retry,
    /// Of the stream: how often in a row it failed.
    stream_failures: u32,
    stream_error: String,
}

/// A DeviceGateway, as far as what it says of itself is put right once it is gone.
#[derive(Debug)]
struct Object {
    key: ObjectKey,
    resource_version: String,
    conditions: Vec<Condition>,
}

impl Object {
    fn read(key: ObjectKey, resource: &DeviceGateway) -> Self {
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
    fn unknown_patch(&self, unix_ms: u64) -> serde_json::Value {
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
enum Stream {
    /// No connection.
    #[default]
    Down,
    /// A snapshot is coming in.
    Filling(BTreeMap<ObjectKey, View>),
    /// Changes come in.
    Up,
}

/// A PUT that has not been answered.
#[derive(Debug)]
struct PutInFlight {
    id: CallId,
    term: u64,
    sets: BTreeMap<DeviceId, u64>,
}

/// A PUT that was answered.
#[derive(Debug)]
pub(super) struct PutEnd {
    /// The devices whose sets were in it.
    pub devices: Vec<DeviceId>,
    /// Sets that were refused, each to be looked at with [`Gateway::handle_refusal`].
    pub refused: Vec<SetRefusal>,
    /// A higher leader term that the gateway has seen.
    pub term_seen: Option<u64>,
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

    /// When its Lease runs out if nothing more is seen; never while the API is away.
    fn expires_ms(&self, api_since_ms: Option<u64>, grace_ms: u64) -> Option<u64> {
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

    // Its object.

    /// Its DeviceGateway exists. At another address it is tried at once.
    pub(super) fn observe(&mut self, key: ObjectKey, resource: &DeviceGateway) {
        let address = &resource.spec.address;
        if self.address.as_ref() != Some(address) {
            self.address = Some(address.clone());
            self.retry.succeed();
        }
        self.object = Some(Object::read(key, resource));
    }

    /// Its DeviceGateway is gone, and what was seen of its Lease counts for nothing.
    pub(super) fn forget_object(&mut self) {
        self.address = None;
        self.object = None;
        self.lease = None;
    }

    pub(super) fn address(&self) -> Option<&String> {
        self.address.as_ref()
    }

    /// Whether its DeviceGateway says of it, while it is gone, that it takes devices.
    pub(super) fn is_to_be_marked(&self, is_live: bool) -> bool {
        let object = self.object.as_ref().filter(|object| object.resource_version != self.marked);
        !is_live && object.is_some_and(Object::says_ready)
    }

    /// Its DeviceGateway is being marked: gives it, and the merge patch by which nothing is known of the gateway any more.
    pub(super) fn begin_mark(&mut self, unix_ms: u64) -> Option<(ObjectKey, serde_json::Value)> {
        let object = self.object.as_ref()?;
        self.marked.clone_from(&object.resource_version);
        Some((object.key.clone(), object.unknown_patch(unix_ms)))
    }

    /// The mark was not written, through no fault of its own: it is tried again.
    pub(super) fn retry_mark(&mut self) {
        self.marked.clear();
    }

    // Its stream.

    /// The stream says something.
    pub(super) fn stream_heard(&mut self) {
        self.stream_failures = 0;
    }

    pub(super) fn begin_snapshot(&mut self) {
        self.stream = Stream::Filling(BTreeMap::new());
    }

    /// A resumed stream says so by going on.
    pub(super) fn resume(&mut self) {
        if self.snapshot_in && matches!(self.stream, Stream::Down) {
            self.stream = Stream::Up;
        }
    }

    /// What it knows of a device; false while that is part of a snapshot, which counts as a whole.
    pub(super) fn show(&mut self, key: ObjectKey, view: View) -> bool {
        if let Stream::Filling(views) = &mut self.stream {
            views.insert(key, view);
            return false;
        }
        self.stream = Stream::Up;
        self.views.insert(key, view);
        true
    }

    /// It forgot a device.
    pub(super) fn forget_view(&mut self, key: &ObjectKey, id: Option<DeviceId>) {
        match &mut self.stream {
            Stream::Filling(views) => views.remove(key),
            Stream::Up | Stream::Down => self.views.remove(key),
        };
        if let Some(id) = id {
            self.confirmed.remove(&id);
        }
    }

    /// The snapshot is whole. What it said before is void, and so is what it confirmed: its process or its disk may be
    /// another. Gives the devices that it knew before or knows now; `None` if none was coming in.
    pub(super) fn end_snapshot(&mut self) -> Option<BTreeSet<ObjectKey>> {
        let Stream::Filling(views) = std::mem::replace(&mut self.stream, Stream::Up) else { return None };
        let before = std::mem::replace(&mut self.views, views);
        self.snapshot_in = true;
        self.acknowledged_term = None;
        self.confirmed.clear();
        self.modules.clear();
        self.uploads_wanted.clear();
        self.orders.begin_anew();
        self.brokers.begin_anew();
        self.settings.begin_anew();
        self.retry.succeed();
        Some(before.into_keys().chain(self.views.keys().cloned()).collect())
    }

    /// The stream could not be opened, or ended; the text says why.
    pub(super) fn stream_failed(&mut self, error: &str) {
        self.stream_failures = self.stream_failures.saturating_add(1);
        error.clone_into(&mut self.stream_error);
    }

    /// There is no stream any more. What it said stays known.
    pub(super) fn stream_ended(&mut self) {
        self.stream = Stream::Down;
    }

    /// Whether what it knows of its devices is known, or it was tried so often that the others go on without it.
    pub(super) fn is_heard(&self, retries_max: u32) -> bool {
        self.snapshot_in || self.address.is_none() || self.stream_failures > retries_max
    }

    /// What it knows of a device.
    pub(super) fn view(&self, key: &ObjectKey) -> Option<&View> {
        self.views.get(key)
    }

    /// The devices that it knows.
    pub(super) fn devices(&self) -> impl Iterator<Item = &ObjectKey> {
        self.views.keys()
    }

    // Sets and modules.

    /// Another comes to lead, or nobody.
    pub(super) fn begin_term(&mut self) {
        self.put = None;
        self.acknowledged_term = None;
        self.confirmed.clear();
        self.stale.clear();
        self.orders.begin_term();
        self.brokers.begin_anew();
        self.settings.begin_anew();
        self.retry.succeed();
    }

    /// Notes whether it may lack the set of a device.
    pub(super) fn note_lack(&mut self, id: DeviceId, lacks: bool) {
        if lacks {
            self.stale.insert(id);
        } else {
            self.stale.remove(&id);
        }
    }

    /// Devices whose set it may lack.
    pub(super) fn lacking(&self) -> &BTreeSet<DeviceId> {
        &self.stale
    }

    /// A Device is gone.
    pub(super) fn forget_device(&mut self, id: DeviceId) {
        self.stale.remove(&id);
        self.confirmed.remove(&id);
        self.orders.forget(id);
        self.settings.forget(id);
    }

    /// Orders to take its devices out of service.
    pub(super) fn orders(&self) -> &Orders {
        &self.orders
    }

    /// What it was told of MessageBrokers.
    pub(super) fn brokers(&self) -> &BrokerDelivery {
        &self.brokers
    }

    pub(super) fn brokers_mut(&mut self) -> &mut BrokerDelivery {
        &mut self.brokers
    }

    /// What it was told of settings.
    pub(super) fn settings(&self) -> &SettingsDelivery {
        &self.settings
    }

    pub(super) fn settings_mut(&mut self) -> &mut SettingsDelivery {
        &mut self.settings
    }

    /// Notes whether it is to be told what is planned for a device, if that is to be told to it at all.
    pub(super) fn note_settings(&mut self, id: DeviceId, key: &ObjectKey, planned: Option<&PlannedSettings>) {
        self.settings.note_lack(id, planned, self.views.get(key));
    }

    pub(super) fn orders_mut(&mut self) -> &mut Orders {
        &mut self.orders
    }

    /// Whether what it knows of its devices is known.
    pub(super) fn has_snapshot(&self) -> bool {
        self.snapshot_in
    }

    /// Whether it is known to hold that set of that device: it said so to us, or the device reported its content from
    /// there. That it holds one of the same revision is not enough: an earlier leader may have given the number to another
    /// content while this gateway was the only one to know.
    pub(super) fn holds(&self, id: DeviceId, key: &ObjectKey, planned: &PlannedSet) -> bool {
        self.confirmed.get(&id).copied() == Some(planned.revision())
            || self.views.get(key).is_some_and(|view| view.confirms(planned))
    }

    /// Whether a PUT of this term is to be made now: of sets, or of none so that it refuses what an earlier leader still has on
    /// its way.
    pub(super) fn wants_put(&self, now_ms: u64, leader_term: u64) -> bool {
        self.snapshot_in
            && self.put.is_none()
            && (!self.stale.is_empty() || self.acknowledged_term != Some(leader_term))
            && self.retry.is_ready(now_ms)
    }

    /// A PUT of sets of these revisions is made, unless there are none and it has confirmed the term. The modules in `wanted`
    /// are to be uploaded before others can be sent.
    pub(super) fn begin_put(
        &mut self,
        id: CallId,
        leader_term: u64,
        sets: BTreeMap<DeviceId, u64>,
        wanted: BTreeSet<ModuleDigest>,
    ) -> bool {
        debug_assert!(self.put.is_none(), "one PUT is on its way at a time");
        self.uploads_wanted = wanted;
        if sets.is_empty() && self.acknowledged_term == Some(leader_term) {
            return false;
        }
        for device in sets.keys() {
            self.stale.remove(device);
        }
        self.put = Some(PutInFlight { id, term: leader_term, sets });
        true
    }

    /// A PUT ended. `None` if it is not the one on its way: it was of an earlier term.
    pub(super) fn end_put(
        &mut self,
        now: Now,
        config: &FleetConfig,
        id: CallId,
        outcome: PutOutcome,
    ) -> Option<PutEnd> {
        let put = self.put.take_if(|put| put.id == id)?;
        let mut end = PutEnd { devices: Vec::new(), refused: Vec::new(), term_seen: None };
        match outcome {
            PutOutcome::Answered(answer) => {
                self.acknowledged_term = Some(put.term);
                if answer.refused.len() < put.sets.len() || put.sets.is_empty() {
                    self.retry.succeed();
                }
                end.refused = answer.refused;
                self.confirmed.extend(&put.sets);
            }
            PutOutcome::Fenced(refusal) => {
                // No leader can rise above the highest term, so that nobody was given it: it is that gateway's own trouble.
                end.term_seen = refusal.leader_term.filter(|term| *term < TERM_MAX);
                self.retry.fail(now.ms, config, refusal.message);
            }
            PutOutcome::Failed(message) => self.retry.fail(now.ms, config, message),
        }
        end.devices = put.sets.into_keys().collect();
        Some(end)
    }

    /// It refused a set; gives the highest revision of the device that it names.
    pub(super) fn handle_refusal(&mut self, id: DeviceId, refusal: &SetRefusal) -> u64 {
        self.confirmed.remove(&id);
        for digest in &refusal.missing_modules {
            if let Ok(digest) = digest.parse() {
                self.modules.remove(&digest);
            }
        }
        let held = refusal.held_revision.unwrap_or(0);
        if let Some(view) = self.views.get_mut(&refusal.device) {
            view.note_revision(held);
        }
        held
    }

    /// A call failed.
    pub(super) fn fail(&mut self, now: Now, config: &FleetConfig, message: String) {
        self.retry.fail(now.ms, config, message);
    }

    /// Whether a set of the device is on its way to it.
    pub(super) fn is_sent(&self, id: DeviceId) -> bool {
        self.put.as_ref().is_some_and(|put| put.sets.contains_key(&id))
    }

    /// Whether it is known to have a module.
    pub(super) fn has_module(&self, digest: &ModuleDigest) -> bool {
        self.modules.contains(digest)
    }

    /// Modules that it lacks and that sets wait for.
    pub(super) fn uploads_wanted(&self) -> &BTreeSet<ModuleDigest> {
        &self.uploads_wanted
    }

    /// Whether an upload may be made.
    pub(super) fn takes_upload(&self, now_ms: u64) -> bool {
        self.upload.is_none() && self.retry.is_ready(now_ms)
    }

    pub(super) fn has_upload(&self) -> bool {
        self.upload.is_some()
    }

    /// A module is uploaded.
    pub(super) fn begin_upload(&mut self, id: CallId, digest: ModuleDigest) {
        debug_assert!(self.upload.is_none(), "one upload is on its way at a time");
        self.uploads_wanted.remove(&digest);
        self.upload = Some((id, digest));
    }

    /// An upload ended; false if it is not the one on its way.
    pub(super) fn end_upload(
        &mut self,
        now: Now,
        config: &FleetConfig,
        id: CallId,
        outcome: UploadOutcome,
    ) -> bool {
        let Some((_, digest)) = self.upload.take_if(|(call, _)| *call == id) else { return false };
        match outcome {
            UploadOutcome::Held => {
                self.retry.succeed();
                self.modules.insert(digest);
            }
            // The watch brings what the object holds now.
            UploadOutcome::SourceGone => {
                self.fail(now, config, "the object that held the module is gone".to_owned());
            }
            UploadOutcome::Failed(message) => self.fail(now, config, message),
        }
        true
    }

    // Attempts.

    /// Something changed: if it was given up it gets all attempts again.
    pub(super) fn renew(&mut self) {
        self.retry.renew();
    }

    /// The interval has passed: what was given up is tried again.
    pub(super) fn resync(&mut self, now: Now) {
        self.orders.resync(now);
        self.brokers.resync();
        self.settings.resync();
        self.retry.renew();
        self.marked.clear();
    }

    /// Why calls to it fail, and whether the attempts are used up.
    pub(super) fn call_trouble(&self) -> Option<(&str, bool)> {
        Some((self.retry.failure()?, self.retry.has_given_up()))
    }

    /// Why it was never heard, and whether the attempts are used up.
    pub(super) fn stream_trouble(&self, retries_max: u32) -> Option<(&str, bool)> {
        let unheard = !self.snapshot_in && matches!(self.stream, Stream::Down) && self.stream_failures > 0;
        unheard.then_some((self.stream_error.as_str(), self.stream_failures > retries_max))
    }

    /// When time alone makes something of it due.
    pub(super) fn timeouts(
        &self,
        now: Now,
        api_since_ms: Option<u64>,
        grace_ms: u64,
    ) -> impl Iterator<Item = u64> + use<> {
        let expiry = self.expires_ms(api_since_ms, grace_ms).filter(|expiry| *expiry > now.ms);
        let calls = [self.retry.timeout(now.ms), self.brokers.timeout(now.ms), self.settings.timeout(now.ms)];
        calls.into_iter().chain([expiry]).flatten()
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
        gateway.begin_snapshot();
        gateway.end_snapshot();
        assert!(gateway.is_live(1_000_000, Some(0), 10_000));
    }
}
