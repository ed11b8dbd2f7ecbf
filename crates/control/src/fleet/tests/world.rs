//! A small world around a fleet: a Kubernetes API, gateways with disks, devices that do as they are told.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{LabelSelector, Time},
    jiff::Timestamp,
};
use wasmbed_api::{
    Application, ApplicationSpec, ApplicationStatus, Device, DeviceApplication, DeviceApplicationState,
    DevicePhase, DeviceSpec, DeviceStatus, ReasonCode, RestartPolicy, TargetDevices,
};
use wasmbed_protocol::{ApplicationUid, DeviceUid};

use super::super::{
    testing::{device_facts, module},
    *,
};
use crate::{
    gateway_api::{
        AssignmentEntry, DecommissionView, DeviceView, PutDecommissionsAnswer, PutSetsAnswer, Refusal,
        SetRefusal, StreamEvent,
    },
    kubernetes::WriteOutcome,
};

pub(super) const NAMESPACE: &str = "default";
/// What every application here takes of a board's arena: 1,000 bytes loaded at 1.6, and a page.
pub(super) const APPLICATION_BYTES: i64 = 1_600 + 65_536;

/// Modules of this number and above have 100,000 bytes, of which as few are loaded as of the others.
pub(super) const LARGE: u8 = 100;
const LARGE_BYTES: u32 = 100_000;

fn numbered(number: u8) -> ModuleFacts {
    let facts = module(number, 1_000);
    if number < LARGE { facts } else { ModuleFacts { size: LARGE_BYTES, ..facts } }
}

#[derive(Default)]
pub(super) struct FakeGateway {
    pub(super) up: bool,
    pub(super) streaming: bool,
    /// This leader has had a snapshot of it.
    pub(super) heard: bool,
    pub(super) term: u64,
    pub(super) sets: BTreeMap<String, (u64, Vec<AssignmentEntry>)>,
    pub(super) modules: BTreeSet<String>,
    pub(super) views: BTreeMap<String, DeviceView>,
    pub(super) renewals: u64,
    pub(super) uploads: Vec<String>,
    /// The orders that it was last sent, by device.
    pub(super) orders: BTreeMap<String, Order>,
    pub(super) order_puts: usize,
}

#[derive(Default)]
pub(super) struct FakeDevice {
    pub(super) gateway: Option<String>,
    pub(super) revision: u64,
    pub(super) runs: Vec<AssignmentEntry>,
    /// What an application's report says other than `Running` without a restart, by the Application's name.
    pub(super) reports: BTreeMap<String, Report>,
}

/// State, reason and restarts of one application, as a device reports them.
#[derive(Clone, Copy, Default)]
pub(super) struct Report {
    pub(super) state: DeviceApplicationState,
    pub(super) reason: Option<ReasonCode>,
    pub(super) restarts: i64,
}

impl Report {
    pub(super) const EXITED: Self =
        Self { state: DeviceApplicationState::Completed, reason: Some(ReasonCode::Exited), restarts: 0 };
}

pub(super) struct World {
    pub(super) fleet: Fleet,
    pub(super) now: Now,
    pub(super) term: u64,
    pub(super) version: u64,
    uids: u128,
    pub(super) applications: BTreeMap<String, (Application, u8)>,
    pub(super) devices: BTreeMap<String, (Device, FakeDevice)>,
    pub(super) gateways: BTreeMap<String, FakeGateway>,
    /// Modules by name.
    pub(super) modules: BTreeMap<String, u8>,
    /// Applications whose `wasm_bytes` are nothing, with what is wrong.
    spoiled: BTreeMap<String, String>,
    /// Applications that the controller can't read.
    pub(super) unreadable: BTreeSet<String>,
    /// Devices that take no module of [`LARGE`] or more.
    pub(super) small: BTreeSet<String>,
    /// Content of every revision that was ever put, by device.
    pub(super) issued: BTreeMap<String, BTreeMap<u64, BTreeSet<String>>>,
    /// Revision and content last sent, taken or not, by device.
    pub(super) sent: BTreeMap<String, (u64, BTreeSet<String>)>,
    pub(super) events: Vec<Event>,
    pub(super) device_events: Vec<Event>,
    pub(super) device_finalizer_writes: usize,
    /// When Devices that are being deleted began to be.
    pub(super) deleted_ms: BTreeMap<String, u64>,
    /// Gateways failed or were not heard at some time: a deletion may have been decided then.
    pub(super) troubled: bool,
    /// Calls with sets in them.
    pub(super) puts: usize,
    /// Calls that only tell the leader's term.
    pub(super) announcements: usize,
    pub(super) status_writes: usize,
    pub(super) gateway_fails: bool,
    /// DeviceGateways of which nothing is known any more, as often as that was tried.
    pub(super) marks: Vec<GatewayWrite>,
    pub(super) gateway_marks_fail: bool,
    /// What is sent arrives, and its answer does not.
    pub(super) answers_lost: bool,
    /// The leader sees its own Lease renewed.
    pub(super) lease_watch_speaks: bool,
    /// How far the watch of Leases lags behind; for gateways' Leases the tests decide.
    pub(super) lease_watch_lag_ms: u64,
    /// Leases can be renewed; the watch shows what it has not shown yet whether they can or not.
    pub(super) api_takes_writes: bool,
    /// Another leads, and the watch shows one of its renewals after the other, as late as it does.
    follows: bool,
    leader_renewals: VecDeque<(u64, String)>,
    /// Arena of every board.
    pub(super) memory_bytes: i64,
    /// What gateways say of devices that are taken out of service, by device.
    pub(super) decommissions: BTreeMap<String, DecommissionView>,
    /// What proofs are found to be, by their text; any other is none.
    pub(super) proofs: BTreeMap<String, ProofEvidence>,
    /// Gateways do not know orders.
    pub(super) gateways_too_old: bool,
    /// Nonces drawn so far.
    pub(super) drawn: u8,
    pub(super) decommission_writes: usize,
    /// Of the controllers.
    pub(super) values_key: Option<ValuesKey>,
    /// What is asked for a Secret is answered so; one that is not here does not exist.
    pub(super) secrets: BTreeMap<String, SecretOutcome>,
    /// Bytes of modules that ResourceQuotas of that name allow.
    pub(super) quotas: BTreeMap<String, u64>,
    /// Every read of a Secret: when, and which.
    pub(super) secret_reads: Vec<(u64, String)>,
}

impl World {
    pub(super) fn new(devices: usize, gateways: usize) -> Self {
        let mut world = Self {
            fleet: Fleet::new(FleetConfig::default()),
            now: Now { ms: 1_000, unix_ms: 1_700_000_000_000 },
            term: 0,
            version: 0,
            uids: 0,
            applications: BTreeMap::new(),
            devices: BTreeMap::new(),
            gateways: (0..gateways)
                .map(|n| (format!("gateway-{n}"), FakeGateway { up: true, ..FakeGateway::default() }))
                .collect(),
            modules: BTreeMap::new(),
            spoiled: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            small: BTreeSet::new(),
            issued: BTreeMap::new(),
            sent: BTreeMap::new(),
            events: Vec::new(),
            device_events: Vec::new(),
            device_finalizer_writes: 0,
            deleted_ms: BTreeMap::new(),
            troubled: false,
            puts: 0,
            announcements: 0,
            status_writes: 0,
            gateway_fails: false,
            marks: Vec::new(),
            gateway_marks_fail: false,
            answers_lost: false,
            lease_watch_speaks: true,
            lease_watch_lag_ms: 0,
            api_takes_writes: true,
            follows: false,
            leader_renewals: VecDeque::new(),
            memory_bytes: device_facts().memory_bytes,
            decommissions: BTreeMap::new(),
            proofs: BTreeMap::new(),
            gateways_too_old: false,
            drawn: 0,
            decommission_writes: 0,
            values_key: None,
            secrets: BTreeMap::new(),
            quotas: BTreeMap::new(),
            secret_reads: Vec::new(),
        };
        for n in 0..devices {
            world.create_device(&format!("device-{n:03}"));
        }
        world
    }

    pub(super) fn create_device(&mut self, name: &str) {
        let mut device = Device::new(name, DeviceSpec { approved: true, ..DeviceSpec::default() });
        device.metadata.namespace = Some(NAMESPACE.to_owned());
        self.uids += 1;
        device.metadata.uid = Some(DeviceUid(self.uids.to_be_bytes()).to_string());
        device.metadata.labels = Some([("name".to_owned(), name.to_owned())].into());
        self.devices.insert(name.to_owned(), (device, FakeDevice::default()));
        self.send_device(name);
    }

    /// A person deletes it: at once without a finalizer, else once that is removed.
    pub(super) fn delete_device(&mut self, name: &str) {
        let Some((object, _)) = self.devices.get_mut(name) else { return };
        if object.metadata.finalizers.iter().flatten().count() == 0 {
            self.remove_device(name);
        } else if object.metadata.deletion_timestamp.is_none() {
            object.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
            self.deleted_ms.insert(name.to_owned(), self.now.ms);
            self.send_device(name);
        }
    }

    /// It is gone: gateways forget it, and a connected device is told so.
    fn remove_device(&mut self, name: &str) {
        let (object, fake) = self.devices.remove(name).unwrap();
        if let (Some(gateway), Some(deleted_ms)) = (&fake.gateway, self.deleted_ms.remove(name)) {
            let heard = self.gateways[gateway].streaming && !self.gateway_fails && !self.answers_lost;
            let late = self.now.ms >= deleted_ms + FleetConfig::default().undeploy_timeout_ms;
            assert!(object.metadata.deletion_timestamp.is_some());
            if heard && !late && !self.troubled {
                assert!(fake.runs.is_empty(), "{name} went while its device ran {:?}", fake.runs.len());
            }
        }
        self.issued.remove(name);
        self.sent.remove(name);
        let key = ObjectKey { namespace: NAMESPACE.to_owned(), name: name.to_owned() };
        self.fleet.handle_device_deleted(self.now, &key);
        for gateway in self.gateway_names() {
            let record = self.gateways.get_mut(&gateway).unwrap();
            record.sets.remove(name);
            if record.views.remove(name).is_some() && record.streaming {
                let event = StreamEvent::Forgotten { token: String::new(), device: key.clone() };
                self.fleet.handle_stream(self.now, &gateway, event);
            }
        }
    }

    fn write_device_finalizer(&mut self, write: DeviceFinalizerWrite) {
        self.device_finalizer_writes += 1;
        let name = write.device.name;
        let outcome = match self.devices.get_mut(&name) {
            None => WriteOutcome::NotFound,
            Some((object, _))
                if write.patch["metadata"]["resourceVersion"] != version_of(&object.metadata) =>
            {
                WriteOutcome::Conflict
            }
            Some((object, _)) if write.add && object.metadata.deletion_timestamp.is_some() => {
                panic!("a finalizer is added to {:?}, which is being deleted", object.metadata.name)
            }
            Some((object, _)) => {
                object.metadata.finalizers =
                    serde_json::from_value(write.patch["metadata"]["finalizers"].clone()).unwrap();
                self.version += 1;
                object.metadata.resource_version = Some(self.version.to_string());
                WriteOutcome::Done(self.version.to_string())
            }
        };
        self.fleet.handle_write_outcome(self.now, write.id, outcome);
        let Some((object, _)) = self.devices.get(&name) else { return };
        if object.metadata.deletion_timestamp.is_some()
            && object.metadata.finalizers.iter().flatten().count() == 0
        {
            self.remove_device(&name);
        } else {
            self.send_device(&name);
        }
    }

    /// A new process: it lists, opens the streams and leads.
    pub(super) fn lead(&mut self) {
        self.start();
        self.take_over();
    }

    /// A new process, while another leads.
    pub(super) fn follow(&mut self) {
        self.start();
        self.follows = true;
    }

    /// The process leads from now on.
    pub(super) fn take_over(&mut self) {
        self.follows = false;
        self.term += 1;
        self.fleet.handle_leadership(self.now, Some(self.term));
    }

    fn start(&mut self) {
        let values_key = self.values_key.clone();
        self.fleet = Fleet::new(FleetConfig { values_key, ..FleetConfig::default() });
        self.list();
        for name in self.gateway_names() {
            self.gateways.get_mut(&name).unwrap().heard = false;
            self.renew(&name);
            self.open_stream(&name);
        }
    }

    pub(super) fn list(&mut self) {
        self.fleet.handle_api(self.now, true);
        for kind in [Kind::Application, Kind::Module, Kind::Device, Kind::Gateway, Kind::Quota] {
            self.fleet.handle_list_begin(kind);
        }
        for name in self.devices.keys().cloned().collect::<Vec<_>>() {
            self.send_device(&name);
        }
        for (name, number) in &self.modules {
            self.fleet.handle_module(self.now, &key(name), Arc::new(numbered(*number)));
        }
        for name in self.applications.keys().cloned().collect::<Vec<_>>() {
            self.send_application(&name);
        }
        for (name, bytes) in &self.quotas {
            self.fleet.handle_quota(&key(name), Some(*bytes));
        }
        for name in self.gateway_names() {
            let key = ObjectKey { namespace: "system".to_owned(), name: name.clone() };
            self.fleet.handle_gateway(self.now, &super::device_gateway(&key, "1"));
        }
        for kind in [Kind::Gateway, Kind::Device, Kind::Module, Kind::Quota, Kind::Application] {
            self.fleet.handle_list_end(self.now, kind);
        }
    }

    pub(super) fn gateway_names(&self) -> Vec<String> {
        self.gateways.keys().cloned().collect()
    }

    fn renew_leader(&mut self) {
        if self.follows {
            return self.fleet.handle_leader_lease(self.now, &format!("another's, {}", self.now.ms));
        }
        if self.api_takes_writes {
            let renewal = self.now.ms.to_string();
            self.fleet.handle_renewing(self.now, renewal.clone());
            self.leader_renewals.push_back((self.now.ms + self.lease_watch_lag_ms, renewal));
        }
        while let Some((_, renewal)) = self.leader_renewals.pop_front_if(|(at_ms, _)| *at_ms <= self.now.ms) {
            self.fleet.handle_leader_lease(self.now, &renewal);
        }
    }

    pub(super) fn renew(&mut self, name: &str) {
        let gateway = self.gateways.get_mut(name).unwrap();
        if gateway.up && self.api_takes_writes {
            gateway.renewals += 1;
            let renewal = gateway.renewals.to_string();
            let lease = LeaseSeen { renewal, duration_ms: 15_000, released: false };
            self.fleet.handle_lease(self.now, name, Some(lease));
        }
    }

    pub(super) fn open_stream(&mut self, name: &str) {
        let gateway = self.gateways.get_mut(name).unwrap();
        if !gateway.up {
            return;
        }
        gateway.streaming = true;
        gateway.heard = true;
        let views: Vec<DeviceView> = gateway.views.values().cloned().collect();
        let token = String::new;
        self.fleet.handle_stream(self.now, name, StreamEvent::Snapshot { boot_id: "b".to_owned() });
        for view in views {
            let event = StreamEvent::Device { token: token(), device: Box::new(view) };
            self.fleet.handle_stream(self.now, name, event);
        }
        self.fleet.handle_stream(self.now, name, StreamEvent::SnapshotEnd { token: token() });
    }

    pub(super) fn close_stream(&mut self, name: &str) {
        self.troubled = true;
        self.gateways.get_mut(name).unwrap().streaming = false;
        self.fleet.handle_stream_down(self.now, name, "the connection broke");
    }

    /// The gateway starts again; with an empty disk if so asked. Its devices lose their sessions.
    pub(super) fn restart_gateway(&mut self, name: &str, empty_disk: bool) {
        for device in self.devices.keys().cloned().collect::<Vec<_>>() {
            if self.devices[&device].1.gateway.as_deref() == Some(name) {
                self.disconnect(&device);
            }
        }
        let gateway = self.gateways.get_mut(name).unwrap();
        gateway.views.clear();
        if empty_disk {
            gateway.sets.clear();
            gateway.modules.clear();
            gateway.term = 0;
            self.forget_lost_revisions();
        }
        let gateway = self.gateways.get_mut(name).unwrap();
        let held: Vec<String> = gateway.sets.keys().cloned().collect();
        for device in held {
            self.update_view(name, &device);
        }
        self.close_stream(name);
        self.open_stream(name);
    }

    /// A revision that no disk and no device remembers was never given away.
    fn forget_lost_revisions(&mut self) {
        for (name, revisions) in &mut self.issued {
            let held = self.gateways.values().filter_map(|gateway| Some(gateway.sets.get(name)?.0));
            let known = held.fold(self.devices[name].1.revision, u64::max);
            revisions.retain(|revision, _| *revision <= known);
        }
    }

    pub(super) fn apply_application(&mut self, name: &str, module: u8, targets: TargetDevices) {
        self.spoiled.remove(name);
        let count = u8::try_from(self.version % 200).unwrap();
        let entry = self.applications.entry(name.to_owned()).or_insert_with(|| {
            let mut object = Application::new(name, ApplicationSpec::default());
            object.metadata.namespace = Some(NAMESPACE.to_owned());
            let mut uid = [count; 16];
            uid[..name.len().min(8)].copy_from_slice(&name.as_bytes()[..name.len().min(8)]);
            object.metadata.uid = Some(ApplicationUid(uid).to_string());
            object.metadata.generation = Some(0);
            object.metadata.creation_timestamp =
                Some(Time(Timestamp::from_second(i64::from(count)).unwrap()));
            (object, module)
        });
        if entry.0.metadata.deletion_timestamp.is_some() {
            return;
        }
        entry.0.metadata.generation = entry.0.metadata.generation.map(|generation| generation + 1);
        entry.0.spec.target_devices = Some(targets);
        entry.1 = module;
        self.touch_application(name);
    }

    /// The same for an application that is not started again.
    pub(super) fn apply_once(&mut self, name: &str, module: u8, targets: TargetDevices) {
        self.apply_application(name, module, targets);
        self.change_application(name, |object| object.spec.config.restart_policy = RestartPolicy::Never);
    }

    /// A new generation of an Application.
    pub(super) fn change_application(&mut self, name: &str, change: impl FnOnce(&mut Application)) {
        let Some((object, _)) = self.applications.get_mut(name) else { return };
        object.metadata.generation = object.metadata.generation.map(|generation| generation + 1);
        change(object);
        self.touch_application(name);
    }

    /// A new generation that is no module.
    pub(super) fn spoil(&mut self, name: &str, wrong: &str) {
        self.spoiled.insert(name.to_owned(), wrong.to_owned());
        self.change_application(name, |_| {});
    }

    /// A Module comes, goes, or comes back with other bytes.
    pub(super) fn set_module(&mut self, name: &str, number: Option<u8>) {
        match number {
            Some(number) => self.fleet.handle_module(self.now, &key(name), Arc::new(numbered(number))),
            None => self.fleet.handle_module_deleted(self.now, &key(name)),
        }
        match number {
            Some(number) => drop(self.modules.insert(name.to_owned(), number)),
            None => drop(self.modules.remove(name)),
        }
    }

    /// A ResourceQuota comes, changes or goes.
    pub(super) fn set_quota(&mut self, name: &str, bytes: Option<u64>) {
        match bytes {
            Some(bytes) => {
                self.quotas.insert(name.to_owned(), bytes);
                self.fleet.handle_quota(&key(name), Some(bytes));
            }
            None => {
                self.quotas.remove(name);
                self.fleet.handle_quota_deleted(&key(name));
            }
        }
    }

    /// A person changes a Device.
    pub(super) fn edit_device(&mut self, name: &str, edit: impl FnOnce(&mut Device)) {
        edit(&mut self.devices.get_mut(name).unwrap().0);
        self.send_device(name);
    }

    /// A gateway says this of a device that is being taken out of service.
    pub(super) fn say_decommission(&mut self, device: &str, view: DecommissionView) {
        self.decommissions.insert(device.to_owned(), view);
        if let Some(gateway) = self.devices[device].1.gateway.clone() {
            self.update_view(&gateway, device);
        }
    }

    /// A device tells how an application is.
    pub(super) fn report(&mut self, device: &str, application: &str, report: Report) {
        let (_, fake) = self.devices.get_mut(device).unwrap();
        fake.reports.insert(application.to_owned(), report);
        self.converge_device(device);
    }

    pub(super) fn delete_application(&mut self, name: &str) {
        let Some((object, _)) = self.applications.get_mut(name) else { return };
        if object.metadata.finalizers.iter().flatten().count() == 0 {
            self.applications.remove(name);
            self.fleet.handle_application_deleted(&key(name));
            return;
        }
        object.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        self.touch_application(name);
    }

    /// Someone labels it: another resourceVersion, which the watch has not brought yet.
    pub(super) fn label_application_unseen(&mut self, name: &str) {
        self.version += 1;
        if let Some((object, _)) = self.applications.get_mut(name) {
            object.metadata.resource_version = Some(self.version.to_string());
        }
    }

    fn touch_application(&mut self, name: &str) {
        self.version += 1;
        let version = self.version.to_string();
        if let Some((object, _)) = self.applications.get_mut(name) {
            object.metadata.resource_version = Some(version);
        }
        self.send_application(name);
    }

    pub(super) fn send_application(&mut self, name: &str) {
        let (object, number) = &self.applications[name];
        if self.unreadable.contains(name) {
            let uid = object.metadata.uid.as_deref();
            return self.fleet.handle_unreadable(self.now, Kind::Application, &key(name), uid);
        }
        let source = match &object.spec.module {
            Some(module) => ModuleSource::Named(module.clone()),
            None => match self.spoiled.get(name) {
                Some(wrong) => ModuleSource::InvalidBase64(wrong.clone()),
                None => ModuleSource::Inline(Arc::new(numbered(*number))),
            },
        };
        self.fleet.handle_application(self.now, object, source);
    }

    pub(super) fn send_device(&mut self, name: &str) {
        self.version += 1;
        let (object, _) = self.devices.get_mut(name).unwrap();
        object.metadata.resource_version = Some(self.version.to_string());
        self.fleet.handle_device(self.now, object);
    }

    pub(super) fn connect(&mut self, device: &str, gateway: &str) {
        if !self.gateways[gateway].up || !self.devices.contains_key(device) {
            return;
        }
        self.disconnect(device);
        let facts = self.facts(device);
        let (object, fake) = self.devices.get_mut(device).unwrap();
        fake.gateway = Some(gateway.to_owned());
        let status = object.status.get_or_insert_with(DeviceStatus::default);
        status.epoch = Some(status.epoch.unwrap_or(0) + 1);
        status.gateway = Some(gateway.to_owned());
        status.phase = DevicePhase::Connected;
        status.facts = Some(facts);
        self.converge_device(device);
    }

    pub(super) fn disconnect(&mut self, device: &str) {
        let Some((object, fake)) = self.devices.get_mut(device) else { return };
        let Some(gateway) = fake.gateway.take() else { return };
        if let Some(status) = &mut object.status {
            status.phase = DevicePhase::Disconnected;
        }
        self.send_device(device);
        self.update_view(&gateway, device);
    }

    /// The device takes what its gateway holds and reports it.
    fn converge_device(&mut self, device: &str) {
        let (object, fake) = self.devices.get_mut(device).unwrap();
        let Some(gateway) = fake.gateway.clone() else { return };
        if let Some((revision, set)) = self.gateways[&gateway].sets.get(device)
            && *revision >= fake.revision
        {
            fake.revision = *revision;
            fake.runs = set.clone();
        }
        if let Some(status) = &mut object.status {
            status.revision = i64::try_from(fake.revision).ok();
            status.applications = reports(fake);
        }
        self.send_device(device);
        self.update_view(&gateway, device);
    }

    fn facts(&self, device: &str) -> wasmbed_api::DeviceFacts {
        let facts = wasmbed_api::DeviceFacts { memory_bytes: self.memory_bytes, ..device_facts() };
        match self.small.contains(device) {
            true => wasmbed_api::DeviceFacts { module_bytes_max: i64::from(LARGE_BYTES) - 1, ..facts },
            false => facts,
        }
    }

    fn update_view(&mut self, name: &str, device: &str) {
        let facts = self.facts(device);
        let (object, fake) = &self.devices[device];
        let gateway = self.gateways.get_mut(name).unwrap();
        let connected = fake.gateway.as_deref() == Some(name);
        let held = gateway.sets.get(device).map(|(revision, _)| *revision);
        let before = gateway.views.get(device);
        let status = object.status.clone().unwrap_or_default();
        let own = status.gateway.as_deref() == Some(name);
        let epoch = status.epoch.and_then(|epoch| u64::try_from(epoch).ok()).unwrap_or(0);
        let view = DeviceView {
            device: ObjectKey { namespace: NAMESPACE.to_owned(), name: device.to_owned() },
            connected,
            epoch: if own { epoch } else { before.map_or(0, |view| view.epoch) },
            revision_seen: held.unwrap_or(0).max(if connected { fake.revision } else { 0 }),
            revision_held: held,
            revision_reported: connected.then_some(fake.revision),
            facts: connected.then_some(facts),
            applications: connected.then(|| reports(fake)),
            decommission: self.decommissions.get(device).cloned().filter(|_| connected),
        };
        gateway.views.insert(device.to_owned(), view.clone());
        if gateway.streaming {
            let event = StreamEvent::Device { token: String::new(), device: Box::new(view) };
            self.fleet.handle_stream(self.now, name, event);
        }
    }

    /// Lets everything that is asked for happen until nothing is asked for any more at this time.
    pub(super) fn settle(&mut self) {
        for _ in 0..1_000 {
            let mut quiet = true;
            while let Some(put) = self.fleet.poll_put(self.now) {
                quiet = false;
                self.put(put);
            }
            while let Some(upload) = self.fleet.poll_upload(self.now) {
                quiet = false;
                let gateway = self.gateways.get_mut(&upload.gateway).unwrap();
                let outcome = if gateway.up && !self.gateway_fails {
                    let digest = upload.digest.to_string();
                    gateway.uploads.push(digest.clone());
                    gateway.modules.insert(digest);
                    UploadOutcome::Held
                } else {
                    UploadOutcome::Failed("no connection".to_owned())
                };
                self.fleet.handle_upload_outcome(self.now, &upload.gateway, upload.id, outcome);
            }
            while let Some(read) = self.fleet.poll_secret(self.now) {
                quiet = false;
                self.secret_reads.push((self.now.ms, read.secret.name.clone()));
                let held = self.secrets.get(&read.secret.name).cloned();
                let outcome = held.unwrap_or(SecretOutcome::NotFound);
                self.fleet.handle_secret(self.now, read.id, outcome);
            }
            while let Some(write) = self.fleet.poll_finalizer(self.now) {
                quiet = false;
                self.write_finalizer(write);
            }
            while let Some(write) = self.fleet.poll_status(self.now) {
                quiet = false;
                self.write_status(write);
            }
            while let Some(write) = self.fleet.poll_finished(self.now) {
                quiet = false;
                self.write_finished(write);
            }
            while let Some(write) = self.fleet.poll_device_unreachable(self.now) {
                quiet = false;
                self.write_unreachable(write);
            }
            quiet &= !self.settle_decommissions();
            while let Some(write) = self.fleet.poll_device_finalizer(self.now) {
                quiet = false;
                self.write_device_finalizer(write);
            }
            while let Some(write) = self.fleet.poll_gateway_unknown(self.now) {
                quiet = false;
                let outcome = match self.gateway_marks_fail {
                    true => WriteOutcome::Unavailable("away".to_owned()),
                    false => WriteOutcome::Done("2".to_owned()),
                };
                self.fleet.handle_write_outcome(self.now, write.id, outcome);
                self.marks.push(write);
            }
            while let Some(event) = self.fleet.poll_event() {
                let events = match event.regarding.kind {
                    wasmbed_api::kind::DEVICE => &mut self.device_events,
                    _ => &mut self.events,
                };
                events.push(event);
            }
            if quiet {
                return;
            }
        }
        panic!("the fleet never comes to rest");
    }

    fn settle_decommissions(&mut self) -> bool {
        let mut busy = false;
        while let Some(check) = self.fleet.poll_proof(self.now) {
            busy = true;
            let refuted = || ProofEvidence::Refuted("it is no proof".to_owned());
            let evidence = self.proofs.get(&check.proof).cloned().unwrap_or_else(refuted);
            self.fleet.handle_proof(self.now, &check, evidence);
        }
        while let Some(write) = self.fleet.poll_decommission(self.now, || {
            self.drawn += 1;
            [self.drawn; 16]
        }) {
            busy = true;
            self.decommission_writes += 1;
            let name = write.device.name;
            let (object, _) = self.devices.get_mut(&name).unwrap();
            let outcome = if write.patch["metadata"]["resourceVersion"] == version_of(&object.metadata) {
                let status = object.status.take().unwrap_or_default();
                let mut value = serde_json::to_value(status).unwrap();
                crate::testing::merge(&mut value, &write.patch["status"]);
                object.status = Some(serde_json::from_value(value).unwrap());
                WriteOutcome::Done(String::new())
            } else {
                WriteOutcome::Conflict
            };
            self.fleet.handle_write_outcome(self.now, write.id, outcome);
            self.send_device(&name);
        }
        while let Some(put) = self.fleet.poll_orders(self.now) {
            busy = true;
            let gateway = self.gateways.get_mut(&put.gateway).unwrap();
            gateway.order_puts += 1;
            let outcome = if !gateway.up || self.gateway_fails {
                OrdersOutcome::Failed("no connection".to_owned())
            } else if self.gateways_too_old {
                OrdersOutcome::TooOld
            } else {
                let named = put.orders.into_iter().map(|order| (order.device.name.clone(), order));
                gateway.orders = named.collect();
                OrdersOutcome::Answered(PutDecommissionsAnswer { refused: Vec::new() })
            };
            self.fleet.handle_orders_outcome(self.now, &put.gateway, put.id, outcome);
        }
        busy
    }

    /// Time passes, the gateways that are up renew their Leases.
    pub(super) fn advance(&mut self, ms: u64) {
        let end = self.now.ms + ms;
        while self.now.ms < end {
            let wake = self.fleet.poll_timeout(self.now).clamp(self.now.ms + 1, end.min(self.now.ms + 5_000));
            self.now.unix_ms += wake - self.now.ms;
            self.now.ms = wake;
            for name in self.gateway_names() {
                self.renew(&name);
            }
            if self.lease_watch_speaks {
                self.renew_leader();
            }
            self.fleet.handle_timeout(self.now);
            self.settle();
        }
    }

    fn put(&mut self, put: Put) {
        assert!(put.body.sets.len() <= crate::gateway_api::SETS_PER_PUT_MAX);
        if put.body.sets.is_empty() {
            self.announcements += 1;
        } else {
            self.puts += 1;
        }
        assert!(self.gateways[&put.gateway].heard, "a gateway that was never heard was sent sets");
        for set in &put.body.sets {
            self.check_set(set);
        }
        let gateway = self.gateways.get_mut(&put.gateway).unwrap();
        if !gateway.up || self.gateway_fails {
            let outcome = PutOutcome::Failed("no connection".to_owned());
            self.fleet.handle_put_outcome(self.now, &put.gateway, put.id, outcome);
            return;
        }
        if put.body.leader_term < gateway.term {
            let refusal = Refusal {
                reason: "StaleLeader".to_owned(),
                message: "a later leader was seen".to_owned(),
                leader_term: Some(gateway.term),
            };
            self.fleet.handle_put_outcome(self.now, &put.gateway, put.id, PutOutcome::Fenced(refusal));
            return;
        }
        gateway.term = put.body.leader_term;
        let mut refused = Vec::new();
        let mut changed = Vec::new();
        let mut taken = Vec::new();
        for set in put.body.sets {
            let lacks = |entry: &&AssignmentEntry| !gateway.modules.contains(&entry.digest);
            let missing: Vec<String> =
                set.assignments.iter().filter(lacks).map(|e| e.digest.clone()).collect();
            let held = gateway.views.get(&set.device.name).map_or(0, |view| view.revision_seen);
            let other = |(revision, entries): &(u64, Vec<AssignmentEntry>)| {
                *revision == set.revision && hashes(entries) != hashes(&set.assignments)
            };
            let stale = set.revision < held || gateway.sets.get(&set.device.name).is_some_and(other);
            if !missing.is_empty() || stale {
                refused.push(SetRefusal {
                    device: set.device,
                    held_revision: stale.then_some(held),
                    message: "not taken".to_owned(),
                    missing_modules: missing,
                });
                continue;
            }
            taken.push(set.clone());
            changed.push(set.device.name.clone());
            gateway.sets.insert(set.device.name, (set.revision, set.assignments));
        }
        let outcome = if self.answers_lost {
            PutOutcome::Failed("no answer".to_owned())
        } else {
            PutOutcome::Answered(PutSetsAnswer { refused })
        };
        for set in &taken {
            self.check_revision(set);
        }
        self.fleet.handle_put_outcome(self.now, &put.gateway, put.id, outcome);
        for device in changed {
            self.update_view(&put.gateway, &device);
            if self.devices[&device].1.gateway.as_deref() == Some(&put.gateway) {
                self.converge_device(&device);
            }
        }
    }

    /// A set is what the resources say, and its revision moved only if its content did.
    fn check_set(&mut self, set: &crate::gateway_api::DeviceSet) {
        let sent = (set.revision, hashes(&set.assignments));
        let before = self.sent.insert(set.device.name.clone(), sent.clone());
        if let Some((revision, content)) = &before
            && set.revision > *revision
            && self.term <= 1
        {
            let name = &set.device.name;
            assert_ne!(content, &sent.1, "revision of {name} moved without a change");
        }
        if before == Some(sent) && !self.are_facts_known(&set.device.name) {
            return;
        }
        let applications: BTreeSet<&str> = set.assignments.iter().map(|e| e.application.as_str()).collect();
        // What has values of Secrets waits for them where it does not run; where it does it stays.
        let (runs, wanted) = (self.runs(&set.device.name), self.wanted(&set.device.name));
        let waits = |name: &str| {
            let short = name.rsplit('/').next().unwrap();
            let secretive =
                self.applications.get(short).is_some_and(|(it, _)| !it.spec.config.env_from.is_empty());
            // Who has no place, the tests of quotas say.
            let waits = secretive || !self.quotas.is_empty();
            waits && !runs.contains(name) && !applications.contains(name)
        };
        let wanted: BTreeSet<&str> = wanted.iter().map(String::as_str).filter(|name| !waits(name)).collect();
        assert_eq!(applications, wanted, "set of {}", set.device.name);
    }

    /// Whether anyone the controller hears says what a device is. Nothing is planned for one of which this is unknown: what was
    /// planned before stays, also if that was done by a view of an earlier Device of its name.
    fn are_facts_known(&self, device: &str) -> bool {
        let views = self.gateways.values().filter(|gateway| gateway.streaming);
        let mut views = views.filter_map(|gateway| gateway.views.get(device));
        let status = self.devices[device].0.status.as_ref();
        status.is_some_and(|status| status.facts.is_some()) || views.any(|view| view.facts.is_some())
    }

    /// A revision that a gateway took has one content for ever, and moves only with it.
    fn check_revision(&mut self, set: &crate::gateway_api::DeviceSet) {
        let name = &set.device.name;
        let content = hashes(&set.assignments);
        let revisions = self.issued.entry(name.clone()).or_default();
        if let Some(before) = revisions.get(&set.revision) {
            assert_eq!(before, &content, "revision {} of {name} has two contents", set.revision);
        }
        if let Some((last, _)) = revisions.last_key_value() {
            assert!(set.revision >= *last, "revision of {name} went back from {last} to {}", set.revision);
        }
        revisions.insert(set.revision, content);
    }

    /// The Applications that a device is to have in its set, as `namespace/name`.
    pub(super) fn wanted(&self, device: &str) -> BTreeSet<String> {
        let object = &self.devices[device].0;
        if object.metadata.deletion_timestamp.is_some() || object.spec.decommission {
            return BTreeSet::new();
        }
        let (object, fake) = &self.devices[device];
        let labels = object.metadata.labels.clone().unwrap_or_default();
        let finished: Vec<&str> = object
            .status
            .iter()
            .flat_map(|status| &status.finished)
            .map(|entry| entry.name.as_str())
            .collect();
        // What a device can't run stays where an earlier generation of it is.
        let runs = self.runs(device);
        let small = self.small.contains(device);
        let goes_on = |name: &str| {
            let misfit = self.spoiled.contains_key(name) || small && self.applications[name].1 >= LARGE;
            !misfit || runs.contains(&format!("{NAMESPACE}/{name}"))
        };
        let targeted = self.applications.values().filter(|(object, _)| {
            object.metadata.deletion_timestamp.is_none()
                && plan_target(object.spec.target_devices.as_ref(), device, &labels)
                && goes_on(object.metadata.name.as_deref().unwrap())
                && !finished.contains(&object.metadata.name.as_deref().unwrap())
        });
        let mut targeted: Vec<&Application> = targeted.map(|(object, _)| object).collect();
        targeted
            .sort_by_key(|object| (object.metadata.creation_timestamp.clone(), object.metadata.name.clone()));
        let ended = |name: &str| {
            fake.reports.get(name).is_some_and(|report| report.state == DeviceApplicationState::Completed)
        };
        let names = targeted.iter().map(|object| object.metadata.name.clone().unwrap());
        let room = usize::try_from(self.memory_bytes / APPLICATION_BYTES).unwrap().min(10);
        let mut active = 0;
        let mut set: Vec<String> = names
            .filter(|name| {
                active += usize::from(!ended(name));
                ended(name) || active <= room
            })
            .collect();
        while let Some(newest) = set
            .iter()
            .rposition(|name| !ended(name) && !runs.contains(&format!("{NAMESPACE}/{name}")))
            .filter(|_| set.len() > 10)
        {
            set.remove(newest);
        }
        set.into_iter().map(|name| format!("{NAMESPACE}/{name}")).collect()
    }

    fn write_finalizer(&mut self, write: FinalizerWrite) {
        let name = write.application.name;
        let outcome = match self.applications.get_mut(&name) {
            None => WriteOutcome::NotFound,
            Some((object, _))
                if write.patch["metadata"]["resourceVersion"] != version_of(&object.metadata) =>
            {
                WriteOutcome::Conflict
            }
            Some((object, _)) => {
                object.metadata.finalizers =
                    serde_json::from_value(write.patch["metadata"]["finalizers"].clone()).unwrap();
                self.version += 1;
                object.metadata.resource_version = Some(self.version.to_string());
                WriteOutcome::Done(self.version.to_string())
            }
        };
        self.fleet.handle_write_outcome(self.now, write.id, outcome);
        let Some((object, _)) = self.applications.get(&name) else { return };
        if object.metadata.deletion_timestamp.is_some()
            && object.metadata.finalizers.iter().flatten().count() == 0
        {
            self.applications.remove(&name);
            self.fleet.handle_application_deleted(&key(&name));
        } else {
            self.send_application(&name);
        }
    }

    fn write_status(&mut self, write: StatusWrite) {
        self.status_writes += 1;
        let name = write.application.name;
        let outcome = match self.applications.get_mut(&name) {
            None => WriteOutcome::NotFound,
            Some((object, _))
                if write.patch["metadata"]["resourceVersion"] != version_of(&object.metadata) =>
            {
                WriteOutcome::Conflict
            }
            Some((object, _)) => {
                let mut body = write.patch["status"].clone();
                body.as_object_mut().unwrap().retain(|_, value| !value.is_null());
                object.status = Some(serde_json::from_value(body).unwrap());
                self.version += 1;
                object.metadata.resource_version = Some(self.version.to_string());
                WriteOutcome::Done(self.version.to_string())
            }
        };
        // The watch and the answer come in either order.
        let watch_first = self.version.is_multiple_of(2);
        if watch_first && self.applications.contains_key(&name) {
            self.send_application(&name);
        }
        self.fleet.handle_write_outcome(self.now, write.id, outcome);
        if !watch_first && self.applications.contains_key(&name) {
            self.send_application(&name);
        }
    }

    fn write_finished(&mut self, write: FinishedWrite) {
        let (object, _) = self.devices.get_mut(&write.device.name).unwrap();
        let outcome = if write.patch["metadata"]["resourceVersion"] == version_of(&object.metadata) {
            let finished = write.patch["status"]["finished"].clone();
            object.status.as_mut().unwrap().finished = serde_json::from_value(finished).unwrap_or_default();
            WriteOutcome::Done(String::new())
        } else {
            WriteOutcome::Conflict
        };
        self.fleet.handle_write_outcome(self.now, write.id, outcome);
        self.send_device(&write.device.name);
    }

    fn write_unreachable(&mut self, write: UnreachableWrite) {
        let (object, _) = self.devices.get_mut(&write.device.name).unwrap();
        let status = object.status.as_mut().unwrap();
        assert_eq!(status.gateway.as_ref(), Some(&write.gateway));
        assert_eq!(status.epoch, Some(write.epoch));
        assert!(!self.gateways[&write.gateway].up, "a device of a living gateway was called unreachable");
        let phase = serde_json::from_value(write.patch["status"]["phase"].clone()).unwrap();
        assert!(matches!(phase, DevicePhase::Unreachable | DevicePhase::Revoked));
        status.phase = phase;
        status.conditions = serde_json::from_value(write.patch["status"]["conditions"].clone()).unwrap();
        self.fleet.handle_write_outcome(self.now, write.id, WriteOutcome::Done(String::new()));
        self.send_device(&write.device.name);
    }

    pub(super) fn status(&self, name: &str) -> ApplicationStatus {
        self.applications[name].0.status.clone().unwrap_or_default()
    }

    /// Whether it ended there, in the set or out of it.
    pub(super) fn has_ended(&self, device: &str, name: &str) -> bool {
        let reported = self.devices[device].1.reports.contains_key(name);
        self.has_left(device, name) || reported && self.runs(device).contains(&format!("{NAMESPACE}/{name}"))
    }

    /// Whether it ended there and left its place.
    pub(super) fn has_left(&self, device: &str, name: &str) -> bool {
        let status = self.devices[device].0.status.as_ref();
        status.is_some_and(|status| status.finished.iter().any(|entry| entry.name == name))
    }

    pub(super) fn runs(&self, device: &str) -> BTreeSet<String> {
        self.devices[device].1.runs.iter().map(|entry| entry.application.clone()).collect()
    }
}

fn version_of(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> serde_json::Value {
    metadata.resource_version.clone().unwrap_or_default().into()
}

fn reports(device: &FakeDevice) -> Vec<DeviceApplication> {
    let report = |entry: &AssignmentEntry| {
        let name = entry.application.split_once('/').map_or("", |(_, name)| name);
        let running = Report { state: DeviceApplicationState::Running, ..Report::default() };
        let report = device.reports.get(name).copied().unwrap_or(running);
        DeviceApplication {
            uid: entry.application_uid.clone(),
            state: report.state,
            reason: report.reason,
            restarts: report.restarts,
            spec_hash: entry.spec_hash.clone(),
            digest: Some(format!("sha256:{}", entry.digest)),
            ..DeviceApplication::default()
        }
    };
    device.runs.iter().map(report).collect()
}

fn hashes(entries: &[AssignmentEntry]) -> BTreeSet<String> {
    entries.iter().map(|entry| entry.spec_hash.clone()).collect()
}

pub(super) fn key(name: &str) -> ObjectKey {
    ObjectKey { namespace: NAMESPACE.to_owned(), name: name.to_owned() }
}

pub(super) fn names(devices: &[&str]) -> TargetDevices {
    TargetDevices { device_names: devices.iter().map(|name| (*name).to_owned()).collect(), selector: None }
}

pub(super) fn all() -> TargetDevices {
    TargetDevices { device_names: Vec::new(), selector: Some(LabelSelector::default()) }
}
