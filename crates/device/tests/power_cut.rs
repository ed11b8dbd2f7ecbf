//! Power is lost at every single storage operation of a deployment, and the device always comes back whole.
//!
//! The real store, supervisor and sandbox run over a disk that forgets what was not made durable.

#![cfg(test)]

mod cut;
mod gateway;

use cut::{CAPACITY_BYTES, CutDisk, CutStorage, Power, TestBoard, board};
use gateway::{ScriptedGateway, Wanted};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use sha2::{Digest as _, Sha256};
use wasmbed_device::storage::{Medium, Store};
use wasmbed_runtime::{Interpreter, RuntimeConfig};
use wasmbed_supervisor::{
    Config, Supervisor,
    memory::{FaultyStorage, MemoryBoard},
};

/// Virtual time that a device gets to come up; downloads and back-offs take seconds.
const PATIENCE_MS: u64 = 120_000;

/// What one life of the device came to.
#[derive(Default)]
struct Life {
    /// The largest number that the counter said it had stored.
    counted: u64,
    module_gets: usize,
    done: bool,
}

/// Runs until the application runs and has counted three times, or power is lost.
fn live(disk: &mut CutDisk, wanted: &Wanted, epoch: u64) -> Life {
    let power = disk.power.clone();
    let mut life = Life::default();
    let store = match Store::open(disk, CAPACITY_BYTES) {
        Ok(store) => store,
        Err(_) if !power.is_on() => return life,
        Err(error) => panic!("a store that can't be opened: {error}"),
    };
    let rest = MemoryBoard::new(FaultyStorage::default(), epoch);
    let link = rest.link.clone();
    let storage = CutStorage { store, power: power.clone(), outcome: None };
    let config = Config { board: board(), runtime: RuntimeConfig::default() };
    let mut device = Supervisor::<Interpreter, _>::new(config, TestBoard { rest, storage }, 0);
    let mut gateway = ScriptedGateway::new(wanted, 5, epoch);
    let mut now_ms = 0;
    while power.is_on() && now_ms < PATIENCE_MS && !life.done {
        device.platform().rest.timer.now_us = now_ms * 1_000;
        let next_ms = device.poll(now_ms);
        link.accept();
        let sent: Vec<u8> = link.with(|channel| channel.to_gateway.drain(..).collect());
        let answer = gateway.handle(&sent);
        link.with(|channel| channel.to_device.extend(&answer));
        let quiet = sent.is_empty() && answer.is_empty();
        now_ms = if quiet { next_ms.clamp(now_ms, now_ms + 1_000) } else { now_ms };
        let counts = gateway.lines.iter().filter_map(|line| line.strip_prefix("count ")?.parse::<u64>().ok());
        life.counted = counts.max().unwrap_or(0);
        life.done = gateway.is_running()
            && gateway.lines.iter().filter(|line| line.starts_with("count ")).count() >= 3;
    }
    if power.is_on() && !life.done {
        let log: Vec<_> = device.platform().rest.log.records.iter().cloned().collect();
        panic!("the device did not come up: {:?}\n{}", gateway.seen, log.join("\n"));
    }
    life.module_gets = gateway.module_gets;
    life
}

/// The counter of the samples, with a custom section that makes it a download of several ranges.
fn wanted() -> Wanted {
    let mut module = include_bytes!("../../../guests/prebuilt/counter.wasm").to_vec();
    let padding = 40_000_u32;
    module.push(0);
    // LEB128 of the section's length, then a name of one letter.
    module.extend([(padding & 0x7f) as u8 | 0x80, (padding >> 7 & 0x7f) as u8 | 0x80, (padding >> 14) as u8]);
    module.extend([1, b'x']);
    module.resize(module.len() + padding as usize - 2, 0xaa);
    Wanted::new(module, &["key-value"])
}

fn check_disk(mut disk: &mut CutDisk) {
    for (name, _) in disk.list().unwrap() {
        if let Some(digest) = name.strip_prefix("module-") {
            let bytes = disk.read(&name, 0, usize::MAX).unwrap();
            assert_eq!(
                hex::encode(Sha256::digest(&bytes)),
                digest,
                "a committed module is not what its name says"
            );
        }
    }
}

#[test]
fn a_cut_at_every_operation_of_a_deployment_is_survived() {
    let wanted = wanted();
    let mut disk = CutDisk::new(Power::new(u32::MAX), 0);
    let whole = live(&mut disk, &wanted, 1);
    let operations = u32::MAX - disk.power.left();
    assert!(operations >= 25, "only {operations} operations to cut");
    assert!(whole.module_gets >= 2, "the module was to be pulled in ranges");
    for cut in 0..operations {
        let mut disk = CutDisk::new(Power::new(cut), cut.into());
        let first = live(&mut disk, &wanted, 1);
        assert!(!disk.power.is_on() || first.done, "cut {cut}: neither cut nor done");
        let mut disk = disk.after_cut(Power::new(u32::MAX));
        check_disk(&mut disk);
        let second = live(&mut disk, &wanted, 2);
        assert!(
            second.counted >= first.counted + 3,
            "cut {cut}: {} was stored, then the count went on to {}",
            first.counted,
            second.counted
        );
    }
}

#[test]
fn cut_after_cut_is_survived() {
    let wanted = wanted();
    for seed in 0..20 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut disk = CutDisk::new(Power::new(u32::MAX), seed ^ 0xff);
        let mut counted = 0;
        for epoch in 1..6 {
            disk = disk.after_cut(Power::new(random.random_range(0..30)));
            counted = live(&mut disk, &wanted, epoch).counted.max(counted);
        }
        disk = disk.after_cut(Power::new(u32::MAX));
        check_disk(&mut disk);
        let last = live(&mut disk, &wanted, 9);
        assert!(last.counted >= counted + 3, "seed {seed}: {counted} was stored, then {}", last.counted);
    }
}
