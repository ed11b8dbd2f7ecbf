//! Power is lost at every single storage operation of a deployment, and the device always comes back whole.
//!
//! The real store, supervisor and sandbox run over a disk that forgets what was not made durable: contents that were not
//! synced come back old, cut short, with a hole or complete, and of the names that were not synced any number of the first
//! changes have happened.

#![cfg(test)]

mod gateway;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};

use gateway::{ScriptedGateway, Wanted};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use sha2::{Digest as _, Sha256};
use wasmbed_agent::storage::{Operation, Outcome, StorageError};
use wasmbed_device::storage::{Medium, Store};
use wasmbed_protocol::{ModuleDigest, ResetReason, limits::MODULE_BYTES_MAX};
use wasmbed_runtime::{Interpreter, NoPeripherals, RuntimeConfig};
use wasmbed_supervisor::{
    Config, Supervisor,
    memory::{
        CountingTimer, CountingWatchdog, FaultyStorage, KeptLog, MemoryBoard, MemoryIdentity, MemoryLink,
        SeededEntropy,
    },
    platform::{Board, Platform, Storage},
};

const CAPACITY_BYTES: u64 = 1_048_576;
/// Virtual time that a device gets to come up; downloads and back-offs take seconds.
const PATIENCE_MS: u64 = 120_000;

/// Counts down to the cut.
#[derive(Clone)]
struct Power(Arc<Mutex<(u32, bool)>>);

impl Power {
    fn new(operations: u32) -> Self {
        Self(Arc::new(Mutex::new((operations, true))))
    }

    fn is_on(&self) -> bool {
        self.0.lock().unwrap().1
    }

    fn left(&self) -> u32 {
        self.0.lock().unwrap().0
    }

    /// Whether the next operation still gets through whole.
    fn spend(&self) -> bool {
        let mut power = self.0.lock().unwrap();
        match power.0.checked_sub(1) {
            Some(left) => power.0 = left,
            None => power.1 = false,
        }
        power.1
    }
}

#[derive(Clone, Default)]
struct File {
    durable: Vec<u8>,
    content: Vec<u8>,
}

#[derive(Clone)]
enum Change {
    Link(String, usize),
    Unlink(String),
    Rename(String, String),
}

fn apply(names: &mut BTreeMap<String, usize>, change: &Change) {
    match change {
        Change::Link(name, file) => drop(names.insert(name.clone(), *file)),
        Change::Unlink(name) => drop(names.remove(name)),
        Change::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
    }
}

/// A disk with a cache.
struct CutDisk {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    changes: Vec<Change>,
    power: Power,
    random: StdRng,
}

impl CutDisk {
    fn empty() -> Self {
        Self {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            power: Power::new(u32::MAX),
            random: StdRng::seed_from_u64(0),
        }
    }

    /// What is there when power comes back.
    fn after_cut(mut self, power: Power) -> Self {
        let mut names = self.durable_names.clone();
        let kept = self.random.random_range(0..=self.changes.len());
        self.changes.iter().take(kept).for_each(|change| apply(&mut names, change));
        let (files, random) = (&mut self.files, &mut self.random);
        for file in files.iter_mut().filter(|file| file.durable != file.content) {
            let end = random.random_range(0..=file.content.len());
            match random.random_range(0..4) {
                0 => file.content = file.durable.clone(),
                1 => file.content.truncate(end),
                2 => file.content[end..].fill(0),
                _ => {}
            }
            file.durable = file.content.clone();
        }
        Self { names: names.clone(), durable_names: names, changes: Vec::new(), power, ..self }
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        let file = self.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        self.files.get_mut(*file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Whether to do it: always with power, by chance at the cut, never without.
    fn begins(&mut self) -> io::Result<()> {
        let was_on = self.power.is_on();
        if self.power.spend() || (was_on && self.random.random()) { Ok(()) } else { Err(no_power()) }
    }

    /// What the caller hears: nothing good once power is gone.
    fn ends(&self) -> io::Result<()> {
        if self.power.is_on() { Ok(()) } else { Err(no_power()) }
    }
}

fn no_power() -> io::Error {
    io::Error::other("no power")
}

/// Lent to the store of each life.
impl Medium for &mut CutDisk {
    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        self.ends()?;
        Ok(self
            .names
            .iter()
            .map(|(name, file)| (name.clone(), self.files[*file].content.len() as u64))
            .collect())
    }

    fn read(&mut self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.ends()?;
        let content = &self.file(name)?.content;
        Ok(content.iter().skip(offset as usize).take(length).copied().collect())
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let was_on = self.power.is_on();
        let whole = self.power.spend();
        if !was_on {
            return Err(no_power());
        }
        if !self.names.contains_key(name) {
            self.files.push(File::default());
            self.change(Change::Link(name.into(), self.files.len() - 1));
        }
        let end = if whole { bytes.len() } else { self.random.random_range(0..=bytes.len()) };
        let content = &mut self.file(name)?.content;
        content.resize(offset as usize, 0);
        content.extend_from_slice(&bytes[..end]);
        self.ends()
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.begins()?;
        let file = self.file(name)?;
        file.durable = file.content.clone();
        self.ends()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.begins()?;
        self.file(from)?;
        self.change(Change::Rename(from.into(), to.into()));
        self.ends()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.begins()?;
        self.file(name)?;
        self.change(Change::Unlink(name.into()));
        self.ends()
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.begins()?;
        self.durable_names = self.names.clone();
        self.changes.clear();
        self.ends()
    }
}

struct CutStorage<'a> {
    store: Store<&'a mut CutDisk>,
    power: Power,
    outcome: Option<Outcome>,
}

impl Storage for CutStorage<'_> {
    fn start(&mut self, operation: Operation) {
        let outcome = self.store.perform(&operation);
        self.outcome = self.power.is_on().then_some(outcome);
    }

    fn poll(&mut self) -> Option<Outcome> {
        self.outcome.take()
    }

    fn module(&mut self, digest: &ModuleDigest) -> Result<Cow<'_, [u8]>, StorageError> {
        self.store.module(digest).map(Cow::Owned)
    }
}

struct TestBoard<'a> {
    rest: MemoryBoard,
    storage: CutStorage<'a>,
}

impl<'a> Platform for TestBoard<'a> {
    type Link = MemoryLink;
    type Storage = CutStorage<'a>;
    type Watchdog = CountingWatchdog;
    type Entropy = SeededEntropy;
    type Identity = MemoryIdentity;
    type Peripherals = NoPeripherals;
    type LogSink = KeptLog;
    type Timer = CountingTimer;

    fn link(&mut self) -> &mut MemoryLink {
        &mut self.rest.link
    }
    fn storage(&mut self) -> &mut CutStorage<'a> {
        &mut self.storage
    }
    fn watchdog(&mut self) -> &mut CountingWatchdog {
        &mut self.rest.watchdog
    }
    fn entropy(&mut self) -> &mut SeededEntropy {
        &mut self.rest.entropy
    }
    fn identity(&mut self) -> &mut MemoryIdentity {
        &mut self.rest.identity
    }
    fn peripherals(&mut self) -> &mut NoPeripherals {
        &mut self.rest.peripherals
    }
    fn log(&mut self) -> &mut KeptLog {
        &mut self.rest.log
    }
    fn timer(&mut self) -> &mut CountingTimer {
        &mut self.rest.timer
    }
}

/// What one life of the device came to.
#[derive(Default)]
struct Life {
    /// The largest number that the counter said it had stored.
    counted: u64,
    module_gets: usize,
    done: bool,
}

fn board() -> Board {
    Board {
        board: "test".into(),
        firmware: "0".into(),
        flash_bytes: CAPACITY_BYTES,
        module_bytes_max: MODULE_BYTES_MAX,
        applications_max: 10,
        capabilities: vec!["key-value".into()],
        reset_reason: ResetReason::PowerOn,
        reset_detail: String::new(),
    }
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
    let mut disk = CutDisk::empty();
    let whole = live(&mut disk, &wanted, 1);
    let operations = u32::MAX - disk.power.left();
    assert!(operations >= 25, "only {operations} operations to cut");
    assert!(whole.module_gets >= 2, "the module was to be pulled in ranges");
    for cut in 0..operations {
        let mut disk =
            CutDisk { power: Power::new(cut), random: StdRng::seed_from_u64(cut.into()), ..CutDisk::empty() };
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
        let mut disk = CutDisk { random: StdRng::seed_from_u64(seed ^ 0xff), ..CutDisk::empty() };
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
