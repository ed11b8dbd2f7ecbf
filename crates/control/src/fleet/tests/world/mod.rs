//! A small world around a fleet: a Kubernetes API, gateways with disks, devices that do as they are told.

mod api;
mod devices;
mod expected;
mod gateways;
mod people;

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

/// The module of this number declares settings.
pub(super) const DECLARING: u8 = 50;
const SETTINGS: &str = "interval int 1..1000 = 100\nlabel text ..8 = none\n";

fn numbered(number: u8) -> ModuleFacts {
    let mut facts = module(number, 1_000);
    if number == DECLARING
        && let Ok(needs) = &mut facts.needs
    {
        needs.settings = SETTINGS.to_owned();
    }
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
    /// What their statuses say is used, and their resourceVersions.
    pub(super) quota_statuses: BTreeMap<String, (Option<u64>, String)>,
    pub(super) quota_writes: usize,
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
            quota_statuses: BTreeMap::new(),
            quota_writes: 0,
            secret_reads: Vec::new(),
        };
        for n in 0..devices {
            world.create_device(&format!("device-{n:03}"));
        }
        world
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
            while let Some(write) = self.fleet.poll_quota(self.now) {
                quiet = false;
                self.write_quota(write);
            }
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
            self.write_decommission(write);
        }
        while let Some(put) = self.fleet.poll_orders(self.now) {
            busy = true;
            self.put_orders(put);
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

    pub(super) fn status(&self, name: &str) -> ApplicationStatus {
        self.applications[name].0.status.clone().unwrap_or_default()
    }
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
