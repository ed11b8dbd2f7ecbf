//! The world: it moves time, carries what processes send, and has everything checked at every step.

use std::collections::BTreeSet;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;
use wasmbed_control::{
    Now,
    gateway::{self, Enrollment},
};

use crate::{
    api::{Api, Serving},
    broker::{self, Broker},
    clock::Clock,
    controller::ControllerProcess,
    device::{Device, Hardware},
    gateway::{GatewayProcess, Policy},
    invariants::{Violation, Witness},
    messages::TOPIC,
    names::APPLICATIONS,
    namesake::Namesake,
    network::Network,
    presence::lease_name,
    random::Random,
    reference::text,
    settings,
    signer::SignerProcess,
    transition::{Joins, Opening, Scenario},
};

/// What each device has: one takes everything, one few, one little.
pub(crate) const HARDWARE: [Hardware; 4] = [
    Hardware { arena_bytes: 2 << 20, applications_max: 10 },
    Hardware { arena_bytes: 2 << 20, applications_max: 2 },
    Hardware { arena_bytes: 300_000, applications_max: 10 },
    Hardware { arena_bytes: 2 << 20, applications_max: 10 },
];
pub(crate) const GATEWAYS: usize = 3;
pub(crate) const CONTROLLERS: usize = 3;
/// Time of faults, virtual milliseconds. Transitions of a later time are what people want in the end, after the faults.
pub(crate) const FAULTS_MS: u64 = 240_000;
/// Transitions of this time and later are made once all is settled: they restart nothing.
pub(crate) const CALM_MS: u64 = FAULTS_MS + 1_000;
/// Time to converge in afterwards: the longest back-offs of all parts are below it.
const CONVERGE_MS: u64 = 1_500_000;
/// Between two comparisons with the reference model.
const LOOK_MS: u64 = 5_000;
/// Time moves at most so far between two rounds, so that things happen between deadlines too.
const STEP_MS_MAX: u64 = 200;
/// From the last write of the leader's Lease to the next leader, while the API answers and a controller is there. A write whose
/// answer was lost counts: it keeps others away for the whole duration of the Lease, 10 s, though nobody leads by it. A follower looks
/// every 2 s, so it may see that write and its expiry as much later each; calls that fail are repeated after 0.5 s.
const HANDOVER_MS_MAX: u64 = 17_000;

/// From the end of a Device to the end of what it was given, while its gateway hears its device and the API.
const ORPHANED_MS_MAX: u64 = 10_000;

/// From the moment at which a Device pins another key to the end of a session in its name, while its gateway hears its device and the API.
const MISMATCHED_MS_MAX: u64 = 10_000;
/// What a Device pins is compared this often.
const KEYS_EVERY_MS: u64 = 500;
/// Requests that a signer keeps in mind: those that are open, which are few here, and some that were deleted meanwhile.
const SIGNER_WAITING_MAX: usize = 128;
/// The API looks for old requests for certificates this often.
const OLD_REQUESTS_MS: u64 = 60_000;

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
    /// Terms in which a leader sent something.
    pub leaders: usize,
    /// Devices that were called Unreachable.
    pub unreachable: u64,
    /// Runs of applications that trapped.
    pub trapped: u64,
    /// Devices whose proof that they erased what they had was taken.
    pub decommissioned: usize,
    /// Certificates that devices joined with.
    pub joined: usize,
    /// Messages of applications that the broker has.
    pub delivered: usize,
    /// Hash of what happened: the same seed gives the same.
    pub fingerprint: u64,
}

pub(crate) struct World {
    pauses: Random,
    pub(crate) now_ms: u64,
    pub(crate) api: Api,
    pub(crate) devices: Vec<Device>,
    pub(crate) gateways: Vec<GatewayProcess>,
    pub(crate) controllers: Vec<ControllerProcess>,
    /// There if a device joins.
    pub(crate) signer: Option<SignerProcess>,
    pub(crate) enrollment: Enrollment,
    pub(crate) witness: Witness,
    /// Base64 of modules of different sizes.
    pub(crate) modules: Vec<String>,
    /// Base64 of one that ends by itself.
    pub(crate) once: String,
    /// Base64 of one that traps.
    pub(crate) traps: String,
    pub(crate) api_down_until_ms: u64,
    /// The API's disk takes nothing more until then.
    pub(crate) api_full_until_ms: u64,
    /// Another that holds a gateway's name.
    pub(crate) namesake: Option<Namesake>,
    pub(crate) broker: Broker,
    pub(crate) network: Network,
    /// For each controller, since when it could lead.
    fit_since_ms: Vec<Option<u64>>,
    led_ms: u64,
    /// For each device, since when it has run something in a session although there is no Device of its name.
    orphaned_since_ms: Vec<Option<u64>>,
    /// For each device, since when it has had a session with another key than its Device pins.
    mismatched_since_ms: Vec<Option<u64>>,
    /// When that is looked for next.
    keys_ms: u64,
    old_requests_ms: u64,
    fingerprint: u64,
}

/// Plays a scenario: a time of faults, then a time to converge in.
///
/// # Errors
/// The first rule that was broken, or what did not converge.
pub(crate) fn run(scenario: &Scenario) -> Result<Summary, Violation> {
    let mut world = World::new(&scenario.opening)?;
    let mut steps = scenario.steps.iter().peekable();
    while world.now_ms < FAULTS_MS {
        while let Some(step) = steps.next_if(|step| step.at_ms <= world.now_ms) {
            world.apply(&step.transition);
        }
        world.step(steps.peek().map_or(FAULTS_MS, |step| step.at_ms))?;
    }
    world.mend();
    while let Some(step) = steps.next_if(|step| step.at_ms < CALM_MS) {
        world.apply(&step.transition);
    }
    // The reference model takes for granted that what Applications name is there and runs, whatever a smaller run leaves out.
    world.provide_modules([0, 0]);
    world.mend_programs();
    world.settle()?;
    let running = world.running();
    for step in steps {
        world.apply(&step.transition);
    }
    world.settle()?;
    if let Some(what) = world.restarted(&running) {
        return Err(Violation { rule: "a setting restarts nothing", what, at_ms: world.now_ms });
    }
    Ok(Summary {
        virtual_ms: world.now_ms,
        frames: world.witness.frames,
        writes: world.witness.writes,
        decommissioned: world.witness.decommissions.confirmed(),
        joined: world.witness.joins.count(),
        delivered: world.witness.messages.count(),
        boots: world.devices.iter().map(|device| device.boots).sum(),
        leaders: world.witness.leaders(),
        unreachable: world.witness.unreachable,
        trapped: world.witness.traps.count(),
        fingerprint: world.fingerprint,
    })
}

impl World {
    fn new(opening: &Opening) -> Result<Self, Violation> {
        let names: Vec<String> = (0..HARDWARE.len()).map(|index| format!("device-{index}")).collect();
        let mut api = Api::new().map_err(|error| Violation {
            rule: "the API starts",
            what: error.to_string(),
            at_ms: 0,
        })?;
        // The last device is one that nobody announced.
        let joins = |index: usize| opening.joins.get(index).copied().unwrap_or_default();
        for (index, name) in names.iter().enumerate().take(HARDWARE.len() - 1) {
            if joins(index) == Joins::Never {
                let created = api.create("devices", "Device", name, json!({}));
                debug_assert!(created.is_ok(), "an empty API takes a Device");
            }
        }
        if opening.broker {
            let created = api.create("messagebrokers", "MessageBroker", broker::NAME, broker::spec());
            debug_assert!(created.is_ok(), "{created:?}");
        }
        let some_join = opening.joins.iter().any(|joins| *joins != Joins::Never);
        let enrollment = Enrollment::from(opening.enrollment);
        let (weather, noise) = (opening.weather, opening.noise);
        let device = |(index, ((name, hardware), gateways)): (usize, ((&String, Hardware), &Vec<usize>))| {
            Device::new(name, (hardware, joins(index)), gateways.clone(), noise)
        };
        let devices = names.iter().zip(HARDWARE).zip(&opening.gateways).enumerate().map(device).collect();
        let policy = Policy { enrollment, joins: some_join };
        let gateway =
            |index: usize| GatewayProcess::new(&format!("gateway-{index}"), policy, (weather, noise));
        let controller = |index: usize| ControllerProcess::new(index, some_join, weather, noise);
        Ok(Self {
            pauses: Random::of(noise, "pauses"),
            now_ms: 0,
            api,
            devices,
            gateways: (0..GATEWAYS).map(gateway).collect(),
            controllers: (0..CONTROLLERS).map(controller).collect(),
            signer: some_join.then(|| SignerProcess::new(weather, noise)),
            enrollment,
            witness: Witness::new(names),
            modules: modules(),
            once: once(),
            traps: traps(),
            api_down_until_ms: 0,
            api_full_until_ms: 0,
            namesake: None,
            broker: Broker::default(),
            network: Network::new(weather, noise),
            fit_since_ms: vec![None; CONTROLLERS],
            led_ms: 0,
            orphaned_since_ms: vec![None; HARDWARE.len()],
            mismatched_since_ms: vec![None; HARDWARE.len()],
            keys_ms: 0,
            old_requests_ms: 0,
            fingerprint: 0,
        })
    }

    /// Goes on until everything is as the reference model says.
    fn settle(&mut self) -> Result<(), Violation> {
        let end_ms = self.now_ms + CONVERGE_MS;
        let mut look_ms = self.now_ms;
        loop {
            self.step(u64::MAX)?;
            if self.now_ms < look_ms {
                continue;
            }
            look_ms = self.now_ms + LOOK_MS;
            self.decommission_what_is_erased();
            match self.unsettled() {
                None => return Ok(()),
                Some(_) if self.now_ms < end_ms => {}
                Some(what) => {
                    let what = format!("{CONVERGE_MS} ms after the last fault: {what}");
                    return Err(Violation { rule: "everything converges", what, at_ms: self.now_ms });
                }
            }
        }
    }

    /// One round of everything, then time moves to where something is due, not past the next transition.
    fn step(&mut self, next_ms: u64) -> Result<(), Violation> {
        let now_ms = self.now_ms;
        let now = Clock::default().now(now_ms);
        let (down, full) = (now_ms < self.api_down_until_ms, now_ms < self.api_full_until_ms);
        let serving = match (down, full) {
            (true, _) => Serving::Nothing,
            (false, true) => Serving::Reads,
            (false, false) => Serving::All,
        };
        self.api.at(now_ms, serving);
        let mut due_ms = next_ms.min(now_ms + STEP_MS_MAX);
        self.poll_devices(now, &mut due_ms);
        self.poll_namesake();
        for gateway in &mut self.gateways {
            let next_ms =
                gateway.poll(gateway.clock.now(now_ms), &mut self.api, &self.broker, &mut self.witness);
            due_ms = due_ms.min(next_ms);
        }
        for controller in &mut self.controllers {
            let now = controller.clock.now(now_ms);
            let next_ms =
                controller.poll(now, &mut self.api, &self.gateways, &mut self.network, &mut self.witness);
            due_ms = due_ms.min(next_ms);
        }
        if let Some(signer) = &mut self.signer {
            due_ms = due_ms.min(signer.poll(signer.clock.now(now_ms), &mut self.api, &mut self.witness));
            if now_ms >= self.old_requests_ms {
                self.old_requests_ms = now_ms + OLD_REQUESTS_MS;
                self.api.remove_old_requests();
            }
        }
        for answered in self.network.deliver(now, &mut self.gateways, &self.api, &mut self.witness) {
            self.controllers[answered.sender.controller].handle_answer(now, answered);
        }
        self.check(now);
        let broken = self.witness.messages.take_broken();
        self.witness.keep(broken);
        let pause_ms = 1 + self.pauses.below(10);
        self.now_ms = due_ms.min(self.network.due_ms()).max(now_ms + pause_ms);
        let seen = self.witness.frames.rotate_left(32) ^ self.witness.writes ^ self.now_ms;
        self.fingerprint = (self.fingerprint ^ seen).wrapping_mul(0x0100_0000_01b3);
        match self.witness.violation.take() {
            None => Ok(()),
            Some(violation) => Err(Violation { at_ms: now_ms, ..violation }),
        }
    }

    fn poll_devices(&mut self, now: Now, due_ms: &mut u64) {
        for (index, device) in self.devices.iter_mut().enumerate() {
            *due_ms = (*due_ms).min(device.poll(now.ms));
            let session = device.supervisor.session();
            for (uid, line) in device.take_lines() {
                self.witness.traps.logged(index, uid, &line, now.ms, session);
                self.witness.settings.logged(index, uid, &line);
            }
            let broken = self.witness.decommissions.still_erased(index, device);
            self.witness.keep(broken);
            if device.joins != Joins::Never
                && let Some(public_key) = device.public_key()
            {
                self.witness.joins.made(&device.name, &public_key);
                self.witness.decommissions.made(index, &public_key);
            }
            let Some(chosen) = device.wants(now.ms) else { continue };
            let gateway = self.gateways.get_mut(chosen).filter(|gateway| gateway.is_up());
            match (gateway, device.client(index)) {
                (Some(gateway), Some(client)) => {
                    if let Some(certificate) = device.certificate()
                        && !self.witness.joins.has_issued(&certificate)
                    {
                        let what = format!("{} presents {certificate:?}, which nobody issued", device.name);
                        self.witness.violated("who has a session was issued a certificate", what);
                    }
                    gateway.accept(index, client, &device.link, gateway.clock.now(now.ms));
                    device.reached(now.ms);
                }
                _ => device.unreached(),
            }
        }
    }

    fn check(&mut self, now: Now) {
        for (index, device) in self.devices.iter().enumerate() {
            let Some(agent) = device.supervisor.agent().filter(|_| device.off_until_ms.is_none()) else {
                let broken = self.witness.traps.wait(index, now.ms, None, |_| false);
                self.witness.keep(broken);
                continue;
            };
            let hears = self.gateways.iter().any(|gateway| gateway.hears(index, now.ms));
            let session = device.supervisor.session().filter(|_| hears);
            let broken = self
                .witness
                .traps
                .wait(index, now.ms, session, |uid| agent.applications().any(|(known, _)| known == *uid));
            self.witness.keep(broken);
            if let Err(invariant) = agent.check() {
                self.witness.violated("an agent's invariant", format!("device {index}: {invariant}"));
            }
            let set: BTreeSet<_> = agent.applications().map(|(uid, _)| uid).collect();
            self.witness.device_works_to(index, agent.revision().0, &set);
        }
        self.check_orphans(now.ms);
        if now.ms >= self.keys_ms {
            self.keys_ms = now.ms + KEYS_EVERY_MS;
            self.check_keys(now.ms);
        }
        self.check_leaders(now.ms);
        self.check_names(now.ms);
        let devices = self.devices.len();
        for gateway in self.gateways.iter().filter(|gateway| gateway.is_up()) {
            if let Err(broken) = gateway.check() {
                self.witness.violated(broken, gateway.name.clone());
            }
            let lease = self.api.peek("leases", &lease_name(&gateway.name));
            let holds = lease.is_some_and(|lease| lease["spec"]["holderIdentity"] == gateway.id().as_str());
            let serves = !self.api.down && now.ms >= self.api_full_until_ms;
            let writes = holds && serves && gateway.line.is_whole(now.ms);
            let broken = self.witness.traps.events_wait(&gateway.started(), now.ms, |device| {
                let object = writes.then(|| self.api.peek("devices", &self.devices[device].name));
                object.flatten().map(|object| text(&object["metadata"]["uid"]))
            });
            self.witness.keep(broken);
            let levels = gateway.levels(now);
            let bound = gateway::config::STORE_OPERATIONS_MAX + devices;
            if levels.store_operations > bound || levels.writes > 64 * devices {
                self.witness.violated(
                    "queues are bounded",
                    format!("queues of {} are out of bounds: {levels:?}", gateway.name),
                );
            }
        }
        if let Some(signer) = &self.signer
            && signer.waiting() > SIGNER_WAITING_MAX
        {
            let count = signer.waiting();
            self.witness.violated("queues are bounded", format!("the signer keeps {count} requests in mind"));
        }
        for controller in &self.controllers {
            if let Err(broken) = controller.check() {
                let sender = controller.sender();
                self.witness.violated(broken, format!("{sender:?}"));
            }
            let gauges = controller.gauges();
            let bounded = gauges.statuses_queued <= APPLICATIONS.len() + 1
                && gauges.sets_queued <= GATEWAYS * devices
                && gauges.writes_in_flight <= WRITES_IN_FLIGHT_MAX;
            if !bounded {
                let sender = controller.sender();
                self.witness.violated(
                    "queues are bounded",
                    format!("queues of {sender:?} are out of bounds: {gauges:?}"),
                );
            }
        }
    }

    /// A device in a session does not go on running what a Device that is gone was given.
    fn check_orphans(&mut self, now_ms: u64) {
        for (index, (device, since_ms)) in self.devices.iter().zip(&mut self.orphaned_since_ms).enumerate() {
            let runs = device.off_until_ms.is_none()
                && device.supervisor.session().is_some()
                && device.supervisor.loaded() > 0;
            let heard = !self.api.down && self.gateways.iter().any(|gateway| gateway.hears(index, now_ms));
            let orphaned = runs && heard && self.api.peek("devices", &device.name).is_none();
            *since_ms = orphaned.then(|| since_ms.unwrap_or(now_ms));
            if since_ms.is_some_and(|since_ms| now_ms - since_ms > ORPHANED_MS_MAX) {
                let name = &device.name;
                self.witness.violated(
                    "what is gone runs nowhere",
                    format!("{name} runs on in a session although its Device is gone"),
                );
            }
        }
    }

    /// No device that joined has a session for long where its Device pins another key.
    fn check_keys(&mut self, now_ms: u64) {
        let devices = self.devices.iter_mut().zip(&mut self.mismatched_since_ms).enumerate();
        for (index, (device, since_ms)) in devices.filter(|(_, (device, _))| device.joins != Joins::Never) {
            let stands = device.off_until_ms.is_none() && device.supervisor.session().is_some();
            let heard = !self.api.down && self.gateways.iter().any(|gateway| gateway.hears(index, now_ms));
            let own = device.public_key().map(|key| BASE64_STANDARD.encode(key));
            let object = if stands && heard { self.api.peek("devices", &device.name) } else { None };
            let mismatched = object.is_some_and(|object| {
                let pinned = [&object["spec"]["public_key"], &object["status"]["public_key"]];
                pinned.iter().any(|pinned| pinned.is_string() && pinned.as_str() != own.as_deref())
            });
            *since_ms = mismatched.then(|| since_ms.unwrap_or(now_ms));
            if since_ms.is_some_and(|since_ms| now_ms - since_ms > MISMATCHED_MS_MAX) {
                let what = format!("{} has a session, and its Device pins another key", device.name);
                self.witness.violated("sessions are of the key that is pinned", what);
            }
        }
    }

    /// Who holds the Lease of each gateway's name.
    fn check_names(&mut self, now_ms: u64) {
        for gateway in &self.gateways {
            let lease = self.api.peek("leases", &lease_name(&gateway.name));
            let holder = lease.map(|lease| lease["spec"]["holderIdentity"].clone()).unwrap_or_default();
            let other = holder.as_str().is_some_and(|holder| !holder.is_empty() && holder != gateway.id());
            let sees = gateway.is_up() && !self.api.down && gateway.line.is_whole(now_ms);
            self.witness.name_held(&gateway.name, other && sees, now_ms);
        }
    }

    /// At most one leads, and soon another once it is gone.
    fn check_leaders(&mut self, now_ms: u64) {
        let leaders: Vec<_> = self
            .controllers
            .iter()
            .filter_map(|controller| Some((controller.sender(), controller.lead(now_ms)?)))
            .collect();
        if leaders.len() > 1 {
            self.witness.violated("at most one leads", format!("more than one leads: {leaders:?}"));
        }
        if !leaders.is_empty() {
            self.led_ms = now_ms;
        }
        for (since_ms, controller) in self.fit_since_ms.iter_mut().zip(&self.controllers) {
            *since_ms = controller.is_fit(now_ms).then(|| since_ms.unwrap_or(now_ms));
        }
        let fit_since_ms = self.fit_since_ms.iter().flatten().min().copied().unwrap_or(now_ms);
        let held_ms = self.led_ms.max(self.witness.leader_lease_ms);
        let lost_ms = held_ms.max(fit_since_ms).max(self.api.up_since_ms);
        if now_ms.saturating_sub(lost_ms) > HANDOVER_MS_MAX {
            self.witness
                .violated("soon another leads", format!("nobody has led for {} ms", now_ms - lost_ms));
        }
    }
}

/// Writes of one controller on their way, as its decisions bound them.
const WRITES_IN_FLIGHT_MAX: usize = 8;

fn assemble(text: &str) -> Vec<u8> {
    let bytes = wat::parse_str(text);
    debug_assert!(bytes.is_ok(), "{bytes:?}");
    bytes.unwrap_or_default()
}

/// A module that logs a line and ends with exit code 0.
fn once() -> String {
    let text = r#"(module
        (import "wasmbed" "log" (func $log (param i32 i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "once")
        (func (export "run") (call $log (i32.const 0) (i32.const 4))))"#;
    BASE64_STANDARD.encode(assemble(text))
}

/// A module that traps, called by a function that has a name.
fn traps() -> String {
    let text = r#"(module
        (import "wasmbed" "wait" (func $wait (param i32)))
        (memory (export "memory") 1)
        (func $step unreachable)
        (func (export "run") (call $wait (i32.const 500)) (call $step)))"#;
    BASE64_STANDARD.encode(assemble(text))
}

/// Modules of different sizes that run until they are stopped, and say what their setting is.
fn modules() -> Vec<String> {
    let section = settings::section();
    let (begins, reads) = (settings::BEGINS, settings::READS);
    let (begins_bytes, reads_bytes, said_bytes) = (begins.len(), reads.len(), reads.len() + 1);
    let module = |bytes: usize| {
        let data = "x".repeat(bytes);
        let text = format!(
            r#"(module
                (@custom "wasmbed.settings" "{section}")
                (import "wasmbed" "log" (func $log (param i32 i32)))
                (import "wasmbed" "setting_get" (func $get (param i32 i32 i32 i32) (result i32)))
                (import "wasmbed" "publish" (func $publish (param i32 i32 i32 i32 i32) (result i32)))
                (import "wasmbed" "wait" (func $wait (param i32)))
                (memory (export "memory") 1)
                (data (i32.const 24) "{TOPIC}")
                (data (i32.const 0) "{reads}")
                (data (i32.const 16) "{begins}")
                (data (i32.const 32) "{data}")
                (func (export "run")
                    (call $log (i32.const 16) (i32.const {begins_bytes}))
                    (loop
                        (drop (call $get (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 8)))
                        (i32.store8 (i32.const {reads_bytes}) (i32.add (i32.load8_u (i32.const 8)) (i32.const 48)))
                        (call $log (i32.const 0) (i32.const {said_bytes}))
                        (drop (call $publish (i32.const 24) (i32.const 1) (i32.const 28) (i32.const 4) (i32.const 0)))
                        (i32.store (i32.const 28) (i32.add (i32.load (i32.const 28)) (i32.const 1)))
                        (call $wait (i32.const 5000))
                        (br 0))))"#
        );
        BASE64_STANDARD.encode(assemble(&text))
    };
    [16, 9_000, 40_000].map(module).to_vec()
}
