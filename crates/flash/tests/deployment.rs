//! A deployment through the real supervisor, agent and engine on flash that loses power at every write.
#![cfg(test)]

#[path = "../../supervisor/tests/support/mod.rs"]
mod support;

use support::{Gateway, Wanted, uid};
use wasmbed_flash::{FlashStorage, Geometry, simulated::Simulated};
use wasmbed_protocol::ApplicationState;
use wasmbed_runtime::{Interpreter, Metering, NoPeripherals, RuntimeConfig};
use wasmbed_supervisor::{
    Config, Supervisor,
    memory::{CountingTimer, CountingWatchdog, KeptLog, MemoryLink, SeededEntropy},
    platform::{FixedIdentity, Platform},
};

const ERASE: usize = 4_096;
const GEOMETRY: Geometry = Geometry {
    erase_bytes: ERASE as u32,
    identity_blocks: 1,
    segment_blocks: 4,
    segments: 2,
    module_blocks: 24,
    module_bytes_max: 65_536,
    flash_bytes: 33 * ERASE as u32,
};
type Medium = Simulated<ERASE, 8>;

/// Says a word and waits; its starts are counted on storage.
const COUNTER: &str = r#"(module
    (import "wasmbed" "wait" (func $wait (param i32)))
    (import "wasmbed" "key_value_get" (func $get (param i32 i32 i32 i32) (result i32)))
    (import "wasmbed" "key_value_put" (func $put (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "n")
    (data (i32.const 8) "@")
    (func (export "run")
        (drop (call $get (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 1)))
        (i32.store8 (i32.const 8) (i32.add (i32.load8_u (i32.const 8)) (i32.const 1)))
        (drop (call $put (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 1)))
        (loop (call $wait (i32.const 60000)) (br 0))))"#;

const PLAIN: &str = r#"(module
    (import "wasmbed" "wait" (func $wait (param i32)))
    (memory (export "memory") 1)
    (func (export "run") (loop (call $wait (i32.const 1000)) (br 0))))"#;

struct Board {
    link: MemoryLink,
    storage: FlashStorage<Medium>,
    watchdog: CountingWatchdog,
    entropy: SeededEntropy,
    identity: FixedIdentity,
    peripherals: NoPeripherals,
    log: KeptLog,
    timer: CountingTimer,
}

impl Platform for Board {
    type Link = MemoryLink;
    type Storage = FlashStorage<Medium>;
    type Watchdog = CountingWatchdog;
    type Entropy = SeededEntropy;
    type Identity = FixedIdentity;
    type Peripherals = NoPeripherals;
    type LogSink = KeptLog;
    type Timer = CountingTimer;

    fn link(&mut self) -> &mut MemoryLink {
        &mut self.link
    }
    fn storage(&mut self) -> &mut FlashStorage<Medium> {
        &mut self.storage
    }
    fn watchdog(&mut self) -> &mut CountingWatchdog {
        &mut self.watchdog
    }
    fn entropy(&mut self) -> &mut SeededEntropy {
        &mut self.entropy
    }
    fn identity(&mut self) -> &mut FixedIdentity {
        &mut self.identity
    }
    fn peripherals(&mut self) -> &mut NoPeripherals {
        &mut self.peripherals
    }
    fn log(&mut self) -> &mut KeptLog {
        &mut self.log
    }
    fn timer(&mut self) -> &mut CountingTimer {
        &mut self.timer
    }
}

struct World {
    device: Supervisor<Interpreter, Board>,
    link: MemoryLink,
    gateway: Gateway,
    now_ms: u64,
    online: bool,
    busy_rounds: u32,
}

impl World {
    fn start(medium: Medium, mut gateway: Gateway, now_ms: u64) -> Self {
        let link = MemoryLink::default();
        gateway.connected = false;
        gateway.reports.clear();
        let board = Board {
            link: link.clone(),
            storage: FlashStorage::open(medium, GEOMETRY).unwrap(),
            watchdog: CountingWatchdog::default(),
            entropy: SeededEntropy(now_ms + 7),
            identity: FixedIdentity,
            peripherals: NoPeripherals,
            log: KeptLog::default(),
            timer: CountingTimer::default(),
        };
        let runtime = RuntimeConfig {
            arena_bytes: 1 << 20,
            metering: Metering::Fixed { fuel_per_ms: 20_000 },
            ..RuntimeConfig::default()
        };
        let device = Supervisor::new(Config { board: support::board(), runtime }, board, now_ms);
        Self { device, link, gateway, now_ms, online: true, busy_rounds: 0 }
    }

    fn reboot(self, cut_after: Option<u32>) -> Self {
        let mut medium = self.device.into_platform().storage.into_medium();
        medium.power_on();
        medium.cut_after = cut_after;
        Self::start(medium, self.gateway, self.now_ms + 1)
    }

    fn has_power(&mut self) -> bool {
        !self.device.platform().storage.medium().has_lost_power()
    }

    fn step(&mut self) {
        self.device.platform().timer.now_us = self.now_ms * 1_000;
        let deadline_ms = self.device.poll(self.now_ms);
        // What the device says after its power is lost, nobody hears.
        if !self.has_power() {
            return;
        }
        let busy = self.online && self.gateway.poll(&self.link, self.now_ms);
        if !self.online {
            self.link.cut();
        }
        let busy = busy || self.device.platform().storage.is_busy();
        if !busy && deadline_ms > self.now_ms {
            self.now_ms = deadline_ms.min(self.now_ms + 60_000);
            self.busy_rounds = 0;
        } else if self.busy_rounds >= 10 {
            self.now_ms += 1;
            self.busy_rounds = 0;
        } else {
            self.busy_rounds += 1;
        }
    }

    fn runs_wanted(&self, number: u8) -> bool {
        let wanted = self.gateway.wanted.get(&uid(number));
        let report = self.gateway.reports.get(&uid(number));
        wanted.zip(report).is_some_and(|(wanted, report)| {
            let known = self.gateway.desired().into_iter().find(|member| member.uid == uid(number));
            report.state == ApplicationState::Running
                && report.digest == Some(wanted.digest())
                && known.is_some_and(|known| known.spec_hash == report.spec_hash)
        })
    }

    fn update(&mut self) {
        self.gateway.set(1, Wanted::wat(PLAIN).padded(21_000));
        let link = self.link.clone();
        self.gateway.send_desired(&link);
    }
}

/// Returns how often power was lost; after the first time also in what follows, `again` writes after the start.
fn deploy(cut: u32, again: u32, seed: u64) -> u32 {
    let mut medium = Medium::new(33);
    (medium.cut_after, medium.seed) = (Some(cut), seed);
    let mut gateway = Gateway::default();
    gateway.set(1, Wanted::wat(PLAIN).padded(20_000));
    gateway.set(2, Wanted::wat(COUNTER).capabilities(&["key-value"]));
    let mut world = World::start(medium, gateway, 0);
    let (mut updated, mut cuts, mut steps) = (false, 0, 0);
    loop {
        steps += 1;
        assert!(
            steps < 200_000,
            "cut {cut}: it does not converge; {:#?}",
            world.device.platform().log.records
        );
        world.step();
        if !world.has_power() {
            cuts += 1;
            world = after_a_cut(world, (cuts <= 2).then_some(again), cut);
            continue;
        }
        if world.runs_wanted(1) && world.runs_wanted(2) {
            if updated {
                break;
            }
            updated = true;
            world.update();
        }
    }
    assert_eq!(world.device.platform().storage.medium().violations, 0);
    cuts
}

/// Starts again without a network: what was acknowledged runs.
fn after_a_cut(world: World, next_cut: Option<u32>, cut: u32) -> World {
    let running = |world: &World| -> Vec<u8> {
        let reports = &world.gateway.reports;
        let is_running = |number: &u8| {
            reports.get(&uid(*number)).is_some_and(|report| report.state == ApplicationState::Running)
        };
        (1..=2).filter(is_running).collect()
    };
    let (acknowledged, revision) = (running(&world), world.gateway.reported_revision);
    let mut world = world.reboot(None);
    world.online = false;
    let end_ms = world.now_ms + 2_000;
    while world.now_ms < end_ms {
        world.step();
    }
    assert!(world.device.loaded() >= acknowledged.len(), "cut {cut}: {acknowledged:?} were acknowledged");
    let known = world.device.agent().unwrap().revision();
    assert!(known >= revision, "cut {cut}: revision {revision} was acknowledged, {known} is known");
    // Now power is also lost in what the agent tidies up.
    world.reboot(next_cut)
}

#[test]
fn a_cut_at_any_write_of_a_deployment_loses_nothing_that_was_acknowledged() {
    let (mut cut, mut lost) = (0, 0);
    loop {
        let cuts = [deploy(cut, cut % 7, u64::from(cut) + 1), deploy(cut, cut % 3, u64::from(cut) + 99)];
        if cuts == [0; 2] {
            break;
        }
        lost += cuts.iter().sum::<u32>();
        cut += 1;
    }
    println!(
        "power lost at each of {cut} writes and erases of a deployment and its update, {lost} times in all"
    );
    assert!(cut > 40);
}

#[test]
fn a_download_goes_on_where_it_was_after_a_reset() {
    let mut gateway = Gateway::default();
    let module = Wanted::wat(PLAIN).padded(60_000);
    gateway.set(1, module);
    let mut world = World::start(Medium::new(33), gateway, 0);
    while world.gateway.chunk_bytes < 40_000 {
        world.step();
    }
    let staged = world.device.platform().storage.medium().operations;
    assert!(staged > 0);
    let sent_before = world.gateway.chunk_bytes;
    let mut world = world.reboot(None);
    for _ in 0..100_000 {
        if world.runs_wanted(1) {
            break;
        }
        world.step();
    }
    assert!(world.runs_wanted(1), "{:#?}", world.device.platform().log.records);
    let again = world.gateway.chunk_bytes - 60_000;
    println!("{sent_before} bytes sent before the reset, {again} of them sent again");
    assert!(again < 30_000, "{again} bytes were sent again");
}
