//! The fleet's decisions: which device runs what, under which revision, and what is said of it.
//!
//! [`Fleet`] is an index without a client. A shell feeds it (`handle_*`) what the Kubernetes API and the gateways'
//! streams say, and carries out what it asks for (`poll_*`):
//!
//! ```text
//! watches ── handle_application, _module, _device, _gateway, _lease, ─┐     ┌── poll_put, poll_upload, poll_orders, poll_brokers, poll_settings ── gateways
//!         ── handle_request, _broker ─────────────────────────────────┤     ├── poll_status, poll_finalizer, poll_approval,
//! streams ── handle_stream, handle_stream_down ───────────────────────┤     │   poll_device_unreachable, poll_gateway_unknown,
//! answers ── handle_put_outcome, _upload_outcome, _orders_outcome, ───┤     │   poll_decommission, poll_quota, poll_event ── API
//!            handle_write_outcome, handle_proof                       │     ├── poll_proof ── to be verified
//!            handle_secret ───────────────────────────────────────────┤     ├── poll_secret ── API, by `get` alone
//! election ─ handle_leadership ───────────────────────────────────────┤     └── poll_timeout
//! clock ──── handle_timeout ──────────────────────────────────────────┘
//! ```
//!
//! Rules that it keeps: unknown is not empty (no set is made before every list is complete, the device's facts are known
//! and the gateway's snapshot is in); a revision grows, and only when the content changes; only a leader plans; a status
//! counts what devices reported and nothing else.

mod application;
mod application_entry;
mod approval;
mod assignment;
mod broker_puts;
mod brokers;
mod calls;
mod check;
mod config;
mod decommission;
mod decommissioning;
mod device;
mod device_entry;
mod finished;
mod fit;
mod gateways;
mod input;
mod module;
mod orders;
mod plan;
mod published;
mod quota;
mod quotas;
mod record;
mod release;
mod requests;
mod retry;
mod secret;
mod secret_reads;
mod secrets;
mod set;
mod setting_delivery;
mod setting_puts;
mod settings;
mod source;
mod status;
mod target;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod translation;
mod undeploy;
mod view;
mod write_queue;
mod writes;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use wasmbed_api::DeviceFacts;
use wasmbed_protocol::ApplicationUid;

use crate::{Now, due::DueQueue, intern::Pool, kubernetes::Event};

pub use assignment::{Assigned, correlation_id, plan_assignment};
pub use config::FleetConfig;
pub use fit::{Holder, plan_fit, plan_room};
pub use input::{
    ApprovalWrite, BrokersOutcome, BrokersPut, CallId, DecommissionWrite, DeviceFinalizerWrite,
    FinalizerWrite, FinishedWrite, GatewayWrite, Kind, LeaseSeen, Order, OrdersOutcome, OrdersPut,
    ProofCheck, ProofEvidence, Put, PutOutcome, QuotaWrite, SecretOutcome, SecretRead, SettingsOutcome,
    SettingsPut, StatusWrite, UnreachableWrite, Upload, UploadOutcome, UploadSource,
};
pub use module::{Footprint, ModuleFacts, ModuleNeeds, ModuleRefusal};
pub use quota::QuotaSeen;
pub use requests::{Claim, RequestSeen};
pub use secret::{SecretEnv, SecretValues, ValuesKey};
pub use settings::{SettingRules, plan_rules};
pub use source::{Base64Error, ModuleSource, ModuleSources, decode_module};
pub use target::{plan_target, selects};
pub use translation::{Translated, translate};

use wasmbed_api::DeviceGateway;

use crate::{ObjectKey, gateway_api::StreamEvent};
use application_entry::Application;
use brokers::Brokers;
use device_entry::Device;
use gateways::Gateway;
use quota::Quota;
use record::{ApplicationId, DeviceId};
use requests::Requests;
use secrets::Secrets;
use write_queue::Writes;

/// Renewals that wait to be shown by a watch: some seconds' worth, beyond which it lags too far to be of use.
const RENEWALS_MAX: usize = 8;

/// All Applications, Devices and gateways, and what is to be done about them.
///
/// # Contract
///
/// [`Now`] is the first argument of what depends on time; its monotonic clock never goes back.
///
/// - **Lists.** For each [`Kind`]: [`Fleet::handle_list_begin`], the objects, [`Fleet::handle_list_end`]; then changes. Nothing
///   is decided before every list has ended once.
/// - **Leadership.** [`Fleet::handle_leadership`] right before outputs are polled: what is polled after it is sent in its term.
/// - **Answers.** Each call is answered once, under the [`CallId`] that it came with: `handle_put_outcome`,
///   `handle_upload_outcome`, `handle_orders_outcome`, `handle_brokers_outcome`, `handle_settings_outcome`, `handle_write_outcome`, `handle_secret`.
/// - **Outputs.** Every `poll_*` until it gives nothing, after inputs and once [`Fleet::poll_timeout`] has passed, with
///   [`Fleet::poll_device_finalizer`] last: it uses what the others leave.
/// - **Time.** [`Fleet::handle_timeout`] at any time, and once [`Fleet::poll_timeout`] has passed.
#[derive(Debug)]
pub struct Fleet {
    config: FleetConfig,
    /// `leaseTransitions` of our Lease while we lead.
    term: Option<u64>,
    /// A higher term that a gateway has seen: ours has to rise above it before a gateway listens.
    term_seen: u64,
    listed: BTreeSet<Kind>,
    listing: BTreeMap<Kind, BTreeSet<ObjectKey>>,
    /// When the Kubernetes API was last seen to come back; none while it is away.
    api_since_ms: Option<u64>,
    /// When the watch of Leases last showed anything.
    leases_heard_ms: Option<u64>,
    /// Renewals of our own Lease that the watch has not shown yet, oldest first, with the moment before each was written.
    renewals: VecDeque<(String, u64)>,
    /// The watch of Leases has shown every write up to this moment; none before it showed a renewal of our own.
    leases_shown_ms: Option<u64>,
    next_id: u32,
    next_call: u64,
    applications: BTreeMap<ApplicationId, Application>,
    application_ids: BTreeMap<ObjectKey, ApplicationId>,
    /// Applications that can't be read, and of which nothing is known but this.
    unreadable: BTreeMap<ObjectKey, ApplicationUid>,
    devices: BTreeMap<DeviceId, Device>,
    device_ids: BTreeMap<ObjectKey, DeviceId>,
    modules: BTreeMap<ObjectKey, Arc<ModuleFacts>>,
    /// By name: `Device.status.gateway` has nothing but the name.
    gateways: BTreeMap<String, Gateway>,
    /// Applications that list a device by name, whether it exists or not.
    named: BTreeMap<ObjectKey, BTreeSet<ApplicationId>>,
    /// Applications with a selector, by namespace.
    selecting: BTreeMap<String, BTreeSet<ApplicationId>>,
    /// Applications that name a Module, whether it exists or not.
    module_users: BTreeMap<ObjectKey, BTreeSet<ApplicationId>>,
    facts: Pool<DeviceFacts>,
    replan: BTreeSet<DeviceId>,
    status_queue: DueQueue<ApplicationId>,
    undeploying: BTreeSet<ApplicationId>,
    finalizers: BTreeSet<ApplicationId>,
    unreachable: BTreeSet<DeviceId>,
    /// Devices that are being deleted and still have our finalizer.
    releasing: BTreeSet<DeviceId>,
    /// Devices whose finalizer is to go because nothing is waited for any more, by time.
    device_releases: DueQueue<DeviceId>,
    /// Devices whose finalizer is to be added, or removed because nothing runs there, by time.
    device_finalizers: DueQueue<DeviceId>,
    /// Devices whose `status.finished` is to be written.
    finishing: BTreeSet<DeviceId>,
    /// When statuses have to be looked at again, since an application will have run for long enough by then.
    rechecks: DueQueue<ApplicationId>,
    requests: Requests,
    /// Devices that are to be taken out of service and have not confirmed it.
    leaving: BTreeSet<DeviceId>,
    /// Devices with `spec.decommission` that are to be looked at, by time.
    decommissions: DueQueue<DeviceId>,
    /// Those whose order may have to go to another gateway.
    unrouted: BTreeSet<DeviceId>,
    /// Those of which a proof may have come, by when it may be verified.
    proofs: DueQueue<DeviceId>,
    /// Secrets that Applications name.
    secrets: Secrets<ApplicationId>,
    /// MessageBrokers, and Secrets that they name.
    brokers: Brokers,
    /// ResourceQuotas that bound the bytes of modules.
    quotas: BTreeMap<ObjectKey, Quota>,
    /// Bytes of the modules that have a place, by namespace; only where they are bounded.
    module_bytes: BTreeMap<String, u64>,
    /// ResourceQuotas whose status is to be looked at, by time.
    quota_statuses: DueQueue<ObjectKey>,
    /// Namespaces in which places for modules are to be given out anew.
    unplaced: BTreeSet<String>,
    writes: Writes,
    events: VecDeque<Event>,
    events_dropped: u64,
    next_resync_ms: u64,
    reconciliations: u64,
}

impl Fleet {
    /// An empty index; it decides nothing before it leads and every list is complete.
    #[must_use]
    pub fn new(config: FleetConfig) -> Self {
        Self {
            writes: Writes::new(&config),
            config,
            term: None,
            term_seen: 0,
            listed: BTreeSet::new(),
            listing: BTreeMap::new(),
            api_since_ms: None,
            leases_heard_ms: None,
            renewals: VecDeque::new(),
            leases_shown_ms: None,
            next_id: 0,
            next_call: 0,
            applications: BTreeMap::new(),
            application_ids: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            devices: BTreeMap::new(),
            device_ids: BTreeMap::new(),
            modules: BTreeMap::new(),
            gateways: BTreeMap::new(),
            named: BTreeMap::new(),
            selecting: BTreeMap::new(),
            module_users: BTreeMap::new(),
            facts: Pool::new(config::FACTS_KINDS_MAX),
            replan: BTreeSet::new(),
            status_queue: DueQueue::default(),
            undeploying: BTreeSet::new(),
            finalizers: BTreeSet::new(),
            unreachable: BTreeSet::new(),
            releasing: BTreeSet::new(),
            device_releases: DueQueue::default(),
            device_finalizers: DueQueue::default(),
            finishing: BTreeSet::new(),
            rechecks: DueQueue::default(),
            requests: Requests::default(),
            leaving: BTreeSet::new(),
            decommissions: DueQueue::default(),
            unrouted: BTreeSet::new(),
            proofs: DueQueue::default(),
            secrets: Secrets::default(),
            brokers: Brokers::default(),
            quotas: BTreeMap::new(),
            module_bytes: BTreeMap::new(),
            quota_statuses: DueQueue::default(),
            unplaced: BTreeSet::new(),
            events: VecDeque::new(),
            events_dropped: 0,
            next_resync_ms: 0,
            reconciliations: 0,
        }
    }

    /// A list of this kind begins: what it does not name until [`Fleet::handle_list_end`] is gone.
    pub fn handle_list_begin(&mut self, kind: Kind) {
        self.listing.insert(kind, BTreeSet::new());
    }

    /// A list of this kind is complete.
    pub fn handle_list_end(&mut self, now: Now, kind: Kind) {
        let listed = present!(self.listing.remove(&kind), "a list begins before it ends");
        let gone = |known: &mut dyn Iterator<Item = ObjectKey>| -> Vec<ObjectKey> {
            known.filter(|key| !listed.contains(key)).collect()
        };
        match kind {
            Kind::Application => {
                for key in gone(&mut self.application_ids.keys().chain(self.unreadable.keys()).cloned()) {
                    self.handle_application_deleted(&key);
                }
            }
            Kind::Module => {
                for key in gone(&mut self.modules.keys().cloned()) {
                    self.handle_module_deleted(now, &key);
                }
            }
            Kind::Device => {
                for key in gone(&mut self.device_ids.keys().cloned()) {
                    self.handle_device_deleted(now, &key);
                }
            }
            Kind::Quota => {
                for key in gone(&mut self.quotas.keys().cloned()) {
                    self.handle_quota_deleted(&key);
                }
            }
            Kind::Broker => self.end_broker_list(&listed),
            Kind::Gateway => {
                let names: BTreeSet<&String> = listed.iter().map(|key| &key.name).collect();
                let gone: Vec<String> =
                    self.gateways.keys().filter(|name| !names.contains(name)).cloned().collect();
                for name in gone {
                    self.handle_gateway_deleted(now, &name);
                }
            }
        }
        self.listed.insert(kind);
    }

    /// The Kubernetes API answers, or does not. While it does not, nothing is taken for dead.
    pub fn handle_api(&mut self, now: Now, reachable: bool) {
        self.api_since_ms = if reachable { self.api_since_ms.or(Some(now.ms)) } else { None };
    }

    /// Our own Lease is about to be renewed. To be called before the write, with what tells this renewal from others: once
    /// the watch of Leases shows it, it has shown whatever was written before.
    pub fn handle_renewing(&mut self, now: Now, renewal: String) {
        if self.renewals.len() >= RENEWALS_MAX {
            self.renewals.pop_front();
        }
        self.renewals.push_back((renewal, now.ms));
    }

    /// The watch of Leases showed the leader's, whoever leads, with what tells this renewal from others.
    pub fn handle_leader_lease(&mut self, now: Now, renewal: &str) {
        self.note_lease_watch(now);
        let Some(index) = self.renewals.iter().position(|(own, _)| own == renewal) else { return };
        let Some((_, before_ms)) = self.renewals.drain(..=index).next_back() else { return };
        // Between two of our own renewals that far apart the API may have taken no writes, though it answered reads and the watch showed
        // what was older, as late as it does: others could not renew their Leases either. Before the first one nobody knows.
        let silence_ms = self.config.lease_watch_silence_ms;
        if self.leases_shown_ms.is_none_or(|earlier_ms| before_ms - earlier_ms > silence_ms) {
            self.api_since_ms = self.api_since_ms.map(|_| now.ms);
        }
        self.leases_shown_ms = Some(before_ms);
    }

    /// The watch of Leases showed one, whosever it is. A leader renews its own every few seconds, so a watch that shows
    /// nothing for long has died without a word: what it does not show then says nothing of gateways.
    fn note_lease_watch(&mut self, now: Now) {
        if self.api_since(now).is_none() {
            self.api_since_ms = self.api_since_ms.map(|_| now.ms);
        }
        self.leases_heard_ms = Some(now.ms);
    }

    /// Since when what is seen of Leases can be relied on; none while it can't.
    fn api_since(&self, now: Now) -> Option<u64> {
        let heard_ms = self.leases_heard_ms?;
        self.api_since_ms.filter(|_| now.ms.saturating_sub(heard_ms) <= self.config.lease_watch_silence_ms)
    }

    /// We lead in this term (`leaseTransitions` of the Lease), or we do not. A new leader plans everything anew, from
    /// what Devices and gateways say.
    pub fn handle_leadership(&mut self, now: Now, term: Option<u64>) {
        if self.term == term {
            return;
        }
        self.term = term;
        self.events_dropped += self.events.len() as u64;
        self.events.clear();
        for device in self.devices.values_mut() {
            device.forget_plan();
        }
        for gateway in self.gateways.values_mut() {
            gateway.begin_term();
        }
        self.forget_secrets(now);
        self.forget_places();
        if term.is_some() {
            self.resync(now);
        }
    }

    /// A DeviceGateway exists.
    pub fn handle_gateway(&mut self, now: Now, resource: &DeviceGateway) {
        let key = present!(ObjectKey::of(&resource.metadata), "the API server sets namespace and name");
        self.mark_listed(Kind::Gateway, &key);
        let gateway = self.gateways.entry(key.name.clone()).or_insert_with(|| Gateway::new(now.ms));
        gateway.observe(key, resource);
    }

    /// A DeviceGateway was deleted. Its devices keep what they run; its Lease says when they are unreachable.
    pub fn handle_gateway_deleted(&mut self, now: Now, name: &str) {
        if let Some(gateway) = self.gateways.get_mut(name) {
            gateway.forget_object();
        }
        self.stream_down(now, name);
    }

    /// A gateway's Lease was seen, or seen to be gone.
    pub fn handle_lease(&mut self, now: Now, gateway: &str, lease: Option<LeaseSeen>) {
        self.note_lease_watch(now);
        let record = self.gateways.entry(gateway.to_owned()).or_insert_with(|| Gateway::new(now.ms));
        record.observe_lease(now.ms, lease);
    }

    /// A line of a gateway's stream.
    pub fn handle_stream(&mut self, now: Now, gateway: &str, event: StreamEvent) {
        let record = self.gateways.entry(gateway.to_owned()).or_insert_with(|| Gateway::new(now.ms));
        record.stream_heard();
        match event {
            StreamEvent::Snapshot { .. } => record.begin_snapshot(),
            StreamEvent::SnapshotEnd { .. } => self.end_snapshot(now, gateway),
            StreamEvent::Device { device, .. } => self.handle_view(now, gateway, &device),
            StreamEvent::Forgotten { device, .. } => self.handle_forgotten(now, gateway, &device),
            StreamEvent::Idle { .. } => record.resume(),
        }
    }

    /// A gateway's stream could not be opened, or ended; the text says why.
    pub fn handle_stream_down(&mut self, now: Now, gateway: &str, error: &str) {
        let record = self.gateways.entry(gateway.to_owned()).or_insert_with(|| Gateway::new(now.ms));
        record.stream_failed(error);
        self.stream_down(now, gateway);
    }

    /// May be called at any time; needed once [`Fleet::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        if now.ms >= self.next_resync_ms {
            self.resync(now);
        }
        self.check_gateways(now);
        self.check_undeploys(now);
        self.check_releases(now);
        while let Some(id) = self.rechecks.pop_due(now.ms) {
            self.schedule_status(now, id);
        }
    }

    /// When to call [`Fleet::handle_timeout`] and poll again at the latest, monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self, now: Now) -> u64 {
        let grace_ms = self.config.lease_grace_ms;
        let gateways =
            self.gateways.values().flat_map(|gateway| gateway.timeouts(now, self.api_since(now), grace_ms));
        let speaks = self.term.is_some() && self.is_complete() && self.counts_known(now);
        let status = self
            .status_queue
            .first_ms()
            .filter(|_| speaks)
            .map(|due_ms| due_ms.max(self.writes.ready_ms(now.ms)));
        let undeploys = self.undeploying.iter().filter_map(|id| {
            let since_ms = self.applications.get(id)?.undeploying_since_ms()?;
            Some(since_ms.saturating_add(self.config.undeploy_timeout_ms))
        });
        let marks = self.term.is_some() && self.gateway_to_mark(now).is_some();
        let waiting =
            !self.finalizers.is_empty() || !self.unreachable.is_empty() || self.next_finishing().is_some();
        let approvals = self.term.is_some() && self.requests.is_due();
        let waiting = marks || approvals || (waiting && self.term.is_some() && self.is_complete());
        let recheck = self.rechecks.first_ms();
        let writes = waiting.then(|| self.writes.ready_ms(now.ms));
        let releases = self.release_timeouts(now);
        gateways
            .chain(self.decommission_timeouts(now))
            .chain(self.quota_timeout(now))
            .chain(undeploys)
            .chain(status)
            .chain(writes)
            .chain(releases)
            .chain(recheck)
            .chain(self.secrets_timeout())
            .fold(self.next_resync_ms, u64::min)
    }

    /// Whether every list is complete: before that nothing is decided.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        [Kind::Application, Kind::Module, Kind::Device, Kind::Gateway, Kind::Quota]
            .iter()
            .all(|kind| self.listed.contains(kind))
    }

    /// A term that ours must rise above before gateways listen to us: they have seen a higher one than we were given,
    /// as happens when the Kubernetes API was restored from an older state.
    #[must_use]
    pub fn term_wanted(&self) -> Option<u64> {
        self.term.filter(|term| self.term_seen > *term).map(|_| self.term_seen.saturating_add(1))
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        Gauges {
            applications: self.applications.len(),
            devices: self.devices.len(),
            gateways: self.gateways.values().filter(|gateway| gateway.address().is_some()).count(),
            statuses_queued: self.status_queue.len(),
            sets_queued: self.gateways.values().map(|gateway| gateway.lacking().len()).sum(),
            writes_in_flight: self.writes.in_flight(),
            decommissions: self.leaving.len(),
            reconciliations: self.reconciliations,
            events_dropped: self.events_dropped,
        }
    }

    fn mark_listed(&mut self, kind: Kind, key: &ObjectKey) {
        if let Some(listed) = self.listing.get_mut(&kind) {
            listed.insert(key.clone());
        }
    }

    fn next_call(&mut self) -> CallId {
        self.next_call += 1;
        CallId(self.next_call)
    }

    /// Everything is looked at anew; what was given up is tried again.
    fn resync(&mut self, now: Now) {
        self.next_resync_ms = now.ms.saturating_add(self.config.resync_interval_ms);
        self.facts.sweep();
        for gateway in self.gateways.values_mut() {
            gateway.resync(now);
        }
        self.replan.extend(self.devices.keys());
        self.requests.resync();
        self.resync_decommissions(now);
        self.resync_quotas(now);
        for device in self.devices.values_mut() {
            device.retry_finish();
        }
        let ids: Vec<ApplicationId> = self.applications.keys().copied().collect();
        for id in ids {
            if let Some(application) = self.applications.get_mut(&id) {
                application.resync();
            }
            self.schedule_status(now, id);
            self.schedule_finalizer(id);
        }
    }
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Applications known.
    pub applications: usize,
    /// Devices known.
    pub devices: usize,
    /// DeviceGateways known.
    pub gateways: usize,
    /// Statuses that wait to be looked at.
    pub statuses_queued: usize,
    /// Sets that wait for a gateway, summed over gateways.
    pub sets_queued: usize,
    /// Writes to the Kubernetes API without an answer.
    pub writes_in_flight: usize,
    /// Devices that are to be taken out of service and have not confirmed it.
    pub decommissions: usize,
    /// Devices planned and statuses computed since the start.
    pub reconciliations: u64,
    /// Events that gave way to newer ones, were over their Application's rate, or were left when another came to lead.
    pub events_dropped: u64,
}
