//! A disk that loses power at a chosen operation, and a board of memory on it.
//!
//! The disk forgets what was not made durable: contents that were not synced come back old, cut short, with a hole or complete, and
//! of the names that were not synced any number of the first changes have happened.

#![cfg(test)]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use wasmbed_agent::storage::{Operation, Outcome, StorageError};
use wasmbed_device::storage::{Medium, Store};
use wasmbed_protocol::{ModuleDigest, ResetReason, limits::MODULE_BYTES_MAX};
use wasmbed_supervisor::{
    memory::{
        CountingTimer, CountingWatchdog, KeptLog, MemoryBoard, MemoryIdentity, MemoryLink, MemoryPeripherals,
        SeededEntropy,
    },
    platform::{Board, Platform, Storage},
};

pub(crate) const CAPACITY_BYTES: u64 = 1_048_576;

/// Counts down to the cut.
#[derive(Clone)]
pub(crate) struct Power(Arc<Mutex<(u32, bool)>>);

impl Power {
    pub(crate) fn new(operations: u32) -> Self {
        Self(Arc::new(Mutex::new((operations, true))))
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.lock().unwrap().1
    }

    pub(crate) fn left(&self) -> u32 {
        self.0.lock().unwrap().0
    }

    /// Whether the next operation still gets through whole.
    pub(crate) fn spend(&self) -> bool {
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
pub(crate) struct CutDisk {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    changes: Vec<Change>,
    pub(crate) power: Power,
    random: StdRng,
}

impl CutDisk {
    pub(crate) fn new(power: Power, seed: u64) -> Self {
        Self {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            power,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// What is there when power comes back.
    pub(crate) fn after_cut(mut self, power: Power) -> Self {
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

pub(crate) struct CutStorage<'a> {
    pub(crate) store: Store<&'a mut CutDisk>,
    pub(crate) power: Power,
    pub(crate) outcome: Option<Outcome>,
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

pub(crate) struct TestBoard<'a> {
    pub(crate) rest: MemoryBoard,
    pub(crate) storage: CutStorage<'a>,
}

impl<'a> Platform for TestBoard<'a> {
    type Link = MemoryLink;
    type Storage = CutStorage<'a>;
    type Watchdog = CountingWatchdog;
    type Entropy = SeededEntropy;
    type Identity = MemoryIdentity;
    type Peripherals = MemoryPeripherals;
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
    fn peripherals(&mut self) -> &mut MemoryPeripherals {
        &mut self.rest.peripherals
    }
    fn log(&mut self) -> &mut KeptLog {
        &mut self.rest.log
    }
    fn timer(&mut self) -> &mut CountingTimer {
        &mut self.rest.timer
    }
}

pub(crate) fn board() -> Board {
    Board {
        board: "test".into(),
        firmware: "0".into(),
        flash_bytes: CAPACITY_BYTES,
        module_bytes_max: MODULE_BYTES_MAX,
        applications_max: 10,
        capabilities: vec!["key-value".into()],
        peripherals: Vec::new(),
        reset_reason: ResetReason::PowerOn,
        reset_detail: String::new(),
    }
}
