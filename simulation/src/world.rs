//! The world: it moves time, lets people change their minds, breaks things, and checks.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;
use wasmbed_agent::module_digest;
use wasmbed_control::{fleet, gateway};
use wasmbed_protocol::ApplicationState;

use crate::{
    api::{Api, ApiError},
    controller::ControllerProcess,
    device::Device,
    gateway::GatewayProcess,
    invariants::{Violation, Witness, hyphenated},
    random::Random,
};

const DEVICES: usize = 4;
const GATEWAYS: usize = 2;
const APPLICATIONS: [&str; 3] = ["alpha", "beta", "gamma"];
/// Time of faults, virtual milliseconds.
const FAULTS_MS: u64 = 180_000;
/// Time to converge in afterwards: the longest back-offs of all parts are below it.
const CONVERGE_MS: u64 = 1_500_000;
/// Time moves at most so far between two rounds, so that things happen between deadlines too.
const STEP_MS_MAX: u64 = 200;
/// When the simulation begins: 2027-01-15T08:00:00Z.
const UNIX_MS: u64 = 1_800_000_000_000;

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Virtual time, milliseconds.
    pub virtual_ms: u64,
    /// Frames in both directions.
    pub frames: u64,
    /// Statuses written.
    pub writes: u64,
    /// Starts of devices, the first ones included.
    pub boots: u32,
    /// Hash of what happened: the same seed gives the same.
    pub fingerprint: u64,
}

struct World {
    random: Random,
    now_ms: u64,
    api: Api,
    devices: Vec<Device>,
    gateways: Vec<GatewayProcess>,
    controller: ControllerProcess,
    witness: Witness,
    modules: Vec<String>,
    api_down_until_ms: u64,
    fingerprint: u64,
}

/// Plays one seed: a time of faults, then a time to converge in.
///
/// # Errors
/// The first rule that was broken, or what did not converge.
pub fn run(seed: u64) -> Result<Summary, Violation> {
    let mut world = World::new(seed)?;
    world.witness.faults = true;
    while world.now_ms < FAULTS_MS {
        world.people();
        world.break_something();
        world.step()?;
    }
    world.mend();
    let end_ms = world.now_ms + CONVERGE_MS;
    loop {
        world.step()?;
        match world.unsettled() {
            None => break,
            Some(_) if world.now_ms < end_ms => {}
            Some(what) => {
                return Err(Violation(format!(
                    "not converged {CONVERGE_MS} ms after the last fault: {what}"
                )));
            }
        }
    }
    Ok(Summary {
        virtual_ms: world.now_ms,
        frames: world.witness.frames,
        writes: world.witness.writes,
        boots: world.devices.iter().map(|device| device.boots).sum(),
        fingerprint: world.fingerprint,
    })
}

impl World {
    fn new(seed: u64) -> Result<Self, Violation> {
        let mut random = Random::new(seed);
        let names: Vec<String> = (0..DEVICES).map(|index| format!("device-{index}")).collect();
        let now = fleet::Now { ms: 0, unix_ms: UNIX_MS };
        let mut api = Api::new().map_err(Violation)?;
        // The last device is one that nobody announced.
        for name in names.iter().take(DEVICES - 1) {
            let created = api.create("devices", "Device", name, json!({}));
            debug_assert!(created.is_ok(), "an empty API takes a Device");
        }
        let devices = names.iter().map(|name| Device::new(name, random.next(), 0)).collect();
        let at = gateway::Now { ms: 0, unix_ms: UNIX_MS };
        let gateways =
            (0..GATEWAYS).map(|index| GatewayProcess::new(&format!("gateway-{index}"), at)).collect();
        Ok(Self {
            random,
            now_ms: 0,
            api,
            devices,
            gateways,
            controller: ControllerProcess::new(now),
            witness: Witness::new(names),
            modules: modules(),
            api_down_until_ms: 0,
            fingerprint: 0,
        })
    }

    /// One round of everything, then time moves to where something is due.
    fn step(&mut self) -> Result<(), Violation> {
        let now_ms = self.now_ms;
        self.api.down = now_ms < self.api_down_until_ms;
        let mut due_ms = now_ms + STEP_MS_MAX;
        let at = gateway::Now { ms: now_ms, unix_ms: UNIX_MS + now_ms };
        for (index, device) in self.devices.iter_mut().enumerate() {
            due_ms = due_ms.min(device.poll(now_ms, &mut self.random));
            if device.link.with(|channel| channel.wanted) {
                let chosen = self.random.index(GATEWAYS);
                match self.gateways.get_mut(chosen) {
                    Some(gateway) if gateway.is_up() => gateway.accept(index, &device.name, &device.link, at),
                    Some(_) | None => device.link.cut(),
                }
            }
        }
        for gateway in &mut self.gateways {
            let next_ms = gateway.poll(at, &mut self.api, &mut self.random, &mut self.witness);
            due_ms = due_ms.min(next_ms);
        }
        let now = fleet::Now { ms: now_ms, unix_ms: UNIX_MS + now_ms };
        let next_ms =
            self.controller.poll(now, &mut self.api, &mut self.gateways, &mut self.random, &mut self.witness);
        self.check(at);
        let pause_ms = 1 + self.random.below(10);
        self.now_ms = due_ms.min(next_ms).max(now_ms + pause_ms);
        let seen = self.witness.frames.rotate_left(32) ^ self.witness.writes ^ self.now_ms;
        self.fingerprint = (self.fingerprint ^ seen).wrapping_mul(0x0100_0000_01b3);
        match self.witness.violation.take() {
            None => Ok(()),
            Some(violation) => Err(Violation(format!("at {now_ms} ms: {violation}"))),
        }
    }

    fn check(&mut self, now: gateway::Now) {
        for (index, device) in self.devices.iter().enumerate() {
            let Some(agent) = device.supervisor.agent().filter(|_| device.off_until_ms.is_none()) else {
                continue;
            };
            let set: BTreeSet<_> = agent.applications().map(|(uid, _)| uid).collect();
            self.witness.device_works_to(index, agent.revision().0, &set);
        }
        for gateway in self.gateways.iter().filter(|gateway| gateway.is_up()) {
            let levels = gateway.levels(now);
            let bound = gateway::config::STORE_OPERATIONS_MAX + DEVICES;
            if levels.store_operations > bound || levels.writes > 64 * DEVICES {
                let text = format!("queues of {} are out of bounds: {levels:?}", gateway.name);
                self.witness.violation.get_or_insert(Violation(text));
            }
        }
    }

    /// People apply, change and delete Applications.
    fn people(&mut self) {
        if self.api.down || !self.random.once_in(60) {
            return;
        }
        let name = APPLICATIONS[self.random.index(APPLICATIONS.len())];
        if self.random.once_in(4) {
            // There may be none.
            let _ = self.api.delete("applications", name);
        } else {
            self.want(name);
        }
    }

    /// Creates an Application or changes it; one that is being deleted stays so.
    fn want(&mut self, name: &str) {
        let targets: Vec<String> =
            (0..DEVICES).filter(|_| self.random.once_in(2)).map(|index| format!("device-{index}")).collect();
        let module = self.random.index(self.modules.len());
        let spec = json!({
            "name": name, "wasm_bytes": self.modules.get(module), "target_devices": {"device_names": targets},
        });
        let patch = json!({"spec": &spec});
        if let Err(ApiError::NotFound) = self.api.patch("applications", name, false, patch) {
            // Refused only while the API is away.
            let _ = self.api.create("applications", "Application", name, spec);
        }
    }

    fn break_something(&mut self) {
        if !self.random.once_in(25) {
            return;
        }
        let now_ms = self.now_ms;
        let device = self.random.index(DEVICES);
        let gateway = self.random.index(GATEWAYS);
        match self.random.below(8) {
            0 | 1 => {
                if let Some(device) = self.devices.get_mut(device) {
                    device.cut_at_write(&mut self.random);
                }
            }
            2 => {
                if let Some(device) =
                    self.devices.get_mut(device).filter(|device| device.off_until_ms.is_none())
                {
                    device.lose_power(now_ms, &mut self.random);
                }
            }
            3 | 4 => {
                if let Some(gateway) = self.gateways.get_mut(gateway) {
                    gateway.disturb(&mut self.random);
                }
            }
            5 => {
                let loses_disk = self.random.once_in(3);
                if let Some(gateway) = self.gateways.get_mut(gateway).filter(|gateway| gateway.is_up()) {
                    gateway.crash(now_ms, loses_disk, &mut self.random);
                }
            }
            6 => self.controller.crash(now_ms, &mut self.random),
            _ => {
                if self.random.once_in(2) {
                    self.api.restart();
                }
                self.api_down_until_ms = now_ms + self.random.below(20_000);
            }
        }
    }

    /// Faults stop: what is down comes back by itself.
    fn mend(&mut self) {
        self.witness.faults = false;
        self.api_down_until_ms = self.now_ms;
        for device in &mut self.devices {
            device.supervisor.platform().storage.cut = None;
        }
        // The last word, so that there is something to converge to.
        self.api.down = false;
        for name in APPLICATIONS {
            self.want(name);
        }
    }

    /// What is not yet as people want it.
    fn unsettled(&self) -> Option<String> {
        let mut wanted: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
        for application in self.api.peek_all("applications") {
            let name = application["metadata"]["name"].as_str().unwrap_or_default();
            if !application["metadata"]["deletionTimestamp"].is_null() {
                return Some(format!("{name} is still being deleted"));
            }
            let digest =
                application["spec"]["wasm_bytes"].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
            let digest = digest.map(|bytes| format!("sha256:{}", module_digest(&bytes))).unwrap_or_default();
            let uid = application["metadata"]["uid"].as_str().unwrap_or_default();
            let targets =
                application["spec"]["target_devices"]["device_names"].as_array().cloned().unwrap_or_default();
            for target in &targets {
                let device = target.as_str().unwrap_or_default().to_owned();
                wanted.entry(device).or_default().insert((uid.to_owned(), digest.clone()));
            }
            let running = application["status"]["counts"]["running"].as_u64();
            if running != Some(targets.len() as u64) {
                let status = &application["status"];
                return Some(format!(
                    "{name} should run on {} devices, its status is {status}",
                    targets.len()
                ));
            }
            if application["status"]["observedGeneration"] != application["metadata"]["generation"] {
                return Some(format!("the status of {name} speaks of an older generation"));
            }
        }
        self.devices.iter().find_map(|device| self.unsettled_device(device, wanted.get(&device.name)))
    }

    fn unsettled_device(
        &self,
        device: &Device,
        wanted: Option<&BTreeSet<(String, String)>>,
    ) -> Option<String> {
        let wanted = wanted.cloned().unwrap_or_default();
        let name = &device.name;
        let runs: BTreeSet<String> = device
            .supervisor
            .applications()
            .filter(|(_, state)| *state == ApplicationState::Running)
            .map(|(uid, _)| hyphenated(uid))
            .collect();
        if runs != wanted.iter().map(|(uid, _)| uid.clone()).collect()
            || device.supervisor.loaded() != wanted.len()
        {
            return Some(format!("{name} runs {runs:?}, it should run {wanted:?}"));
        }
        let object = self.api.peek("devices", name)?;
        let status = &object["status"];
        let said: BTreeSet<(String, String)> = status["applications"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|claim| claim["state"] == "Running")
            .map(|claim| {
                let field = |field: &str| claim[field].as_str().unwrap_or_default().to_owned();
                (field("uid"), field("digest"))
            })
            .collect();
        (said != wanted || status["phase"] != "Connected")
            .then(|| format!("the status of {name} is {status}, it should run {wanted:?}"))
    }
}

/// Modules of different sizes that run until they are stopped.
fn modules() -> Vec<String> {
    let module = |bytes: usize| {
        let data = "x".repeat(bytes);
        let text = format!(
            r#"(module
                (import "wasmbed" "log" (func $log (param i32 i32)))
                (import "wasmbed" "wait" (func $wait (param i32)))
                (memory (export "memory") 1)
                (data (i32.const 0) "{data}")
                (func (export "run")
                    (loop
                        (call $log (i32.const 0) (i32.const 8))
                        (call $wait (i32.const 20000))
                        (br 0))))"#
        );
        let bytes = wat::parse_str(&text).unwrap_or_default();
        BASE64_STANDARD.encode(bytes)
    };
    [16, 9_000, 40_000].map(module).to_vec()
}
