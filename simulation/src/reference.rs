//! The reference model: what should come of the objects as people left them, worked out anew and all at once.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;
use wasmbed_agent::module_digest;
use wasmbed_api::DeviceFacts;
use wasmbed_control::{fleet::ModuleFacts, gateway::Enrollment};

use crate::{api::Api, settings::SETTING};

/// What should be.
pub(crate) struct Expected {
    /// Devices that are let in: Applications by UID and digest.
    pub(crate) runs: BTreeMap<String, BTreeSet<(String, String)>>,
    /// By device and Application's UID: the value of the setting, of those that run as their Application is now.
    pub(crate) settings: BTreeMap<(String, String), u64>,
    /// Devices that are let in to be taken out of service.
    pub(crate) decommissioned: BTreeSet<String>,
    /// Devices that are kept out.
    pub(crate) kept_out: BTreeSet<String>,
    /// By name.
    pub(crate) applications: BTreeMap<String, Counts>,
}

/// What the status of an Application should count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) targets: u64,
    pub(crate) connected: u64,
    pub(crate) running: u64,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    /// Failed or waiting; no status counts it.
    pub(crate) undecided: u64,
    pub(crate) missing: u64,
    pub(crate) left_out: u64,
    /// Of devices that have not joined: what they did before is not worked out. No status counts it.
    pub(crate) absent: u64,
}

impl Counts {
    /// Whether a status that counts `said` may say so.
    pub(crate) fn allow(&self, said: &Self) -> bool {
        if self.absent > 0 {
            let whom = |counts: &Self| (counts.targets, counts.connected, counts.missing, counts.left_out);
            return whom(self) == whom(said);
        }
        let decided = said.failed.clamp(self.failed, self.failed + self.undecided);
        Self { undecided: 0, failed: decided, ..*self } == *said
    }

    /// As a status says it.
    pub(crate) fn read(counts: &Value) -> Self {
        let count = |name: &str| counts[name].as_u64().unwrap_or(0);
        Self {
            targets: count("targets"),
            connected: count("connected"),
            running: count("running"),
            succeeded: count("succeeded"),
            failed: count("failed"),
            undecided: 0,
            missing: count("missing"),
            left_out: count("left_out"),
            absent: 0,
        }
    }
}

/// What comes of an Application on a device.
enum Outcome {
    Runs(String),
    Succeeded,
    Failed,
    /// Beside what the device keeps of an earlier generation: that, or nothing, and it failed or waits.
    Earlier(Option<String>),
}

impl Expected {
    /// Applications that are being deleted do not count: they go. `absent` are devices that have no certificate, and can't get one as
    /// things are.
    pub(crate) fn of(api: &Api, names: &[String], absent: &BTreeSet<String>, enrollment: Enrollment) -> Self {
        let devices = api.peek_all("devices");
        let mut applications = api.peek_all("applications");
        applications.retain(|application| application["metadata"]["deletionTimestamp"].is_null());
        applications.sort_by_key(|application| {
            let field = |field: &str| text(&application["metadata"][field]);
            (field("creationTimestamp"), field("name"))
        });
        let mut counts: BTreeMap<String, Counts> =
            applications.iter().map(|application| (name_of(application), Counts::default())).collect();
        let known: BTreeSet<String> = devices.iter().map(name_of).collect();
        for application in &applications {
            let named: BTreeSet<String> = named(application).collect();
            let counts = counts.entry(name_of(application)).or_default();
            counts.missing = named.difference(&known).count() as u64;
        }
        let mut expected = Self {
            runs: BTreeMap::new(),
            settings: BTreeMap::new(),
            decommissioned: BTreeSet::new(),
            kept_out: BTreeSet::new(),
            applications: counts,
        };
        for device in &devices {
            if absent.contains(&name_of(device)) {
                expected.add_absent(device, &applications);
            } else {
                expected.add(api, device, &applications, enrollment);
            }
        }
        // Whoever is not there is created, unless enrollment is closed; then it is kept out.
        expected.kept_out.extend(names.iter().filter(|name| !known.contains(*name)).cloned());
        expected
    }

    fn add_absent(&mut self, device: &Value, applications: &[Value]) {
        let spec = |field: &str| device["spec"][field] == true;
        let mut conditions = device["status"]["conditions"].as_array().into_iter().flatten();
        let enrolled =
            conditions.any(|condition| condition["type"] == "Enrolled" && condition["status"] == "True");
        let belongs = (spec("approved") || enrolled) && !spec("revoked") && !spec("decommission");
        for application in applications.iter().filter(|application| targets(application, device)) {
            let counts = self.applications.entry(name_of(application)).or_default();
            if belongs {
                counts.targets += 1;
                counts.absent += 1;
            } else {
                counts.left_out += 1;
            }
        }
        self.kept_out.insert(name_of(device));
    }

    fn add(&mut self, api: &Api, device: &Value, applications: &[Value], enrollment: Enrollment) {
        let name = name_of(device);
        let approved = device["spec"]["approved"] == true || enrollment == Enrollment::Open;
        let let_in = approved && device["spec"]["revoked"] != true;
        let leaves = device["spec"]["decommission"] == true;
        let facts: Option<DeviceFacts> = serde_json::from_value(device["status"]["facts"].clone()).ok();
        let targeted = || applications.iter().filter(|application| targets(application, device));
        for application in targeted() {
            let counts = self.applications.entry(name_of(application)).or_default();
            if let_in && !leaves {
                counts.targets += 1;
                counts.connected += 1;
            } else {
                counts.left_out += 1;
            }
        }
        let mut runs = BTreeSet::new();
        if let Some(facts) = facts.filter(|_| let_in && !leaves) {
            let planned = outcomes(api, device, &facts, targeted());
            // What a device keeps of an earlier generation holds its place, and after a change of leader all that the device has:
            // what becomes of the others there follows from what was before, which no object says.
            let keeps = planned.iter().any(|(application, outcome)| {
                matches!(outcome, Outcome::Failed) && running(device, application).is_some()
            });
            for (application, outcome) in planned {
                let counts = self.applications.entry(name_of(application)).or_default();
                let outcome = if keeps { as_it_is(device, application) } else { outcome };
                match outcome {
                    Outcome::Succeeded => counts.succeeded += 1,
                    Outcome::Failed => counts.failed += 1,
                    Outcome::Earlier(_) => counts.undecided += 1,
                    Outcome::Runs(_) => counts.running += 1,
                }
                if let Outcome::Runs(_) = outcome {
                    let uid = text(&application["metadata"]["uid"]);
                    self.settings.insert((name.clone(), uid), setting(application, &name));
                }
                if let Outcome::Runs(digest) | Outcome::Earlier(Some(digest)) = outcome {
                    runs.insert((text(&application["metadata"]["uid"]), digest));
                }
            }
        }
        if let_in && leaves {
            self.decommissioned.insert(name);
        } else if let_in {
            self.runs.insert(name, runs);
        } else {
            self.kept_out.insert(name);
        }
    }
}

/// The outcomes on one device of what targets it, the oldest first.
fn outcomes<'a>(
    api: &Api,
    device: &Value,
    facts: &DeviceFacts,
    applications: impl Iterator<Item = &'a Value>,
) -> Vec<(&'a Value, Outcome)> {
    let arena = u64::try_from(facts.memory_bytes).unwrap_or(0);
    let (mut places, mut taken, mut loading) = (facts.applications_max, 0, 0);
    let outcome = |application: &'a Value| {
        let bytes = bytes_of(api, application);
        let module = ModuleFacts::analyze(&bytes);
        let footprint = module.needs.map(|needs| needs.footprint);
        let needs = footprint.as_ref().map_or(u64::MAX, |footprint| footprint.bytes(facts));
        let loads = footprint.map_or(0, |footprint| footprint.loading_bytes(facts)).max(loading);
        let fits = places > 0 && needs.saturating_add(loads) <= arena - taken;
        // What ends holds nothing, and stays ended when older ones come later.
        if is_once(application) && (fits || has_ended(device, application)) {
            return (application, Outcome::Succeeded);
        }
        if !fits {
            return (application, Outcome::Failed);
        }
        (taken, loading) = (taken + needs, loads);
        places -= 1;
        (application, Outcome::Runs(format!("sha256:{}", module_digest(&bytes))))
    };
    applications.map(outcome).collect()
}

/// What the device says of an Application.
fn as_it_is(device: &Value, application: &Value) -> Outcome {
    match running(device, application) {
        Some(entry) if entry["spec_hash"] == application["status"]["spec_hash"] => {
            Outcome::Runs(text(&entry["digest"]))
        }
        None if is_once(application) && has_ended(device, application) => Outcome::Succeeded,
        entry => Outcome::Earlier(entry.map(|entry| text(&entry["digest"]))),
    }
}

/// The value of the setting on a device: one for that device is above one for all.
fn setting(application: &Value, device: &str) -> u64 {
    let settings = &application["spec"]["settings"];
    let value = |values: &Value| values["values"][SETTING].as_u64();
    let mut overrides = settings["overrides"].as_array().into_iter().flatten().rev();
    let named = overrides.find(|entry| {
        entry["device_names"].as_array().is_some_and(|names| names.iter().any(|name| name == device))
    });
    named.and_then(value).or_else(|| value(settings)).unwrap_or(0)
}

/// The report of what runs of an Application, if anything does.
fn running<'a>(device: &'a Value, application: &Value) -> Option<&'a Value> {
    let mut entries = device["status"]["applications"].as_array().into_iter().flatten();
    let goes_on = ["Running", "Starting", "CrashLoop"];
    entries.find(|entry| {
        entry["uid"] == application["metadata"]["uid"] && goes_on.iter().any(|state| entry["state"] == *state)
    })
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(crate) fn name_of(object: &Value) -> String {
    text(&object["metadata"]["name"])
}

fn named(application: &Value) -> impl Iterator<Item = String> {
    application["spec"]["target_devices"]["device_names"].as_array().into_iter().flatten().map(text)
}

fn targets(application: &Value, device: &Value) -> bool {
    let selector = &application["spec"]["target_devices"]["selector"];
    let selected = selector.is_object()
        && selector["matchLabels"].as_object().is_none_or(|labels| {
            labels.iter().all(|(key, value)| device["metadata"]["labels"].get(key) == Some(value))
        });
    selected || named(application).any(|name| name == name_of(device))
}

fn is_once(application: &Value) -> bool {
    application["spec"]["config"]["restart_policy"] == "Never"
}

/// Whether a device reported that it ran this generation to its end, in its set or before it left its place.
fn has_ended(device: &Value, application: &Value) -> bool {
    let lists = ["applications", "finished"].map(|list| device["status"][list].as_array());
    lists.into_iter().flatten().flatten().any(|entry| {
        entry["uid"] == application["metadata"]["uid"]
            && entry["spec_hash"] == application["status"]["spec_hash"]
            && entry["state"] == "Completed"
    })
}

fn bytes_of(api: &Api, application: &Value) -> Vec<u8> {
    let spec = &application["spec"];
    let module = spec["module"].as_str().and_then(|name| api.peek("modules", name));
    let encoded = module.as_ref().map_or(&spec["wasm_bytes"], |module| &module["spec"]["wasm_bytes"]);
    encoded.as_str().and_then(|encoded| BASE64_STANDARD.decode(encoded).ok()).unwrap_or_default()
}
