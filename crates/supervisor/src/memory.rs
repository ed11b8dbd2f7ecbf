//! A board made of memory: a link whose other end is in the same process, storage that loses power at any write, a clock
//! that counts. For tests and simulations; everything it does follows from its inputs.

use alloc::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    string::{String, ToString},
    vec::Vec,
};
use core::cell::RefCell;

use wasmbed_protocol::{ApplicationUid, ModuleDigest};

use crate::platform::{
    Done, Entropy, Inventory, Link, LinkState, LogSink, NoPeripherals, Operation, Outcome, Platform, Record,
    Storage, StorageError, Timer, Watchdog,
};

/// Lines kept of each log; the oldest go first.
pub const LOG_LINES_MAX: usize = 1_000;

/// What a board's storage holds while it has no power.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// The state record.
    pub state: Option<Vec<u8>>,
    /// Committed modules.
    pub modules: BTreeMap<ModuleDigest, Vec<u8>>,
    /// Staged modules.
    pub staged: BTreeMap<ModuleDigest, Vec<u8>>,
    /// Applications' data records.
    pub data: BTreeMap<ApplicationUid, Vec<u8>>,
}

/// When power is lost, and how much of the write under way is done by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Writes that still succeed.
    pub writes: u32,
    /// Thousandths of the next one that do: a record is replaced from 500 on.
    pub permille: u16,
}

/// Storage in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    /// What is there.
    pub disk: Disk,
    /// When power will be lost.
    pub cut: Option<Cut>,
    /// Room for everything together, bytes; unbounded if absent.
    pub capacity_bytes: Option<usize>,
    /// What the next operations answer instead of being done.
    pub failures: VecDeque<StorageError>,
    /// Writes so far.
    pub writes: u32,
    without_power: bool,
    answer: Option<Outcome>,
}

impl MemoryStorage {
    /// Storage with something in it.
    pub fn new(disk: Disk) -> Self {
        Self { disk, ..Self::default() }
    }

    /// Whether power was lost: nothing is answered any more.
    pub fn has_lost_power(&self) -> bool {
        self.without_power
    }

    fn used_bytes(&self) -> usize {
        let objects =
            self.disk.modules.values().chain(self.disk.staged.values()).chain(self.disk.data.values());
        objects.chain(&self.disk.state).map(Vec::len).sum()
    }

    /// Accounts for a write: how many of its thousandths are done.
    fn write_permille(&mut self) -> u16 {
        self.writes += 1;
        match &mut self.cut {
            None => 1_000,
            Some(Cut { writes: 0, permille }) => {
                self.without_power = true;
                *permille
            }
            Some(cut) => {
                cut.writes -= 1;
                1_000
            }
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.capacity_bytes.is_none_or(|capacity| self.used_bytes() + bytes <= capacity)
    }

    fn append(&mut self, digest: ModuleDigest, offset: u32, bytes: &[u8]) -> Outcome {
        let offset = offset as usize;
        let length = self.disk.staged.get(&digest).map_or(0, Vec::len);
        if offset > length {
            return Err(StorageError::Missing);
        }
        if !self.has_room(bytes.len()) {
            return Err(StorageError::Full);
        }
        let done = bytes.len() * usize::from(self.write_permille()) / 1_000;
        let staged = self.disk.staged.entry(digest).or_default();
        staged.truncate(offset);
        staged.extend(bytes.iter().take(done));
        Ok(Done::Written)
    }

    fn perform(&mut self, operation: Operation) -> Outcome {
        if let Some(failure) = self.failures.pop_front() {
            return Err(failure);
        }
        match operation {
            Operation::Inventory => return Ok(Done::Inventory(self.inventory())),
            Operation::ReadState => return Ok(Done::Record(self.disk.state.clone())),
            Operation::ReadData(uid) => return Ok(Done::Record(self.disk.data.get(&uid).cloned())),
            Operation::ReadStaged { digest, offset, length } => {
                let staged = self.disk.staged.get(&digest).ok_or(StorageError::Missing)?;
                let bytes = staged.iter().skip(offset as usize).take(usize::from(length)).copied();
                return Ok(Done::Bytes(bytes.collect()));
            }
            Operation::Append { digest, offset, bytes } => return self.append(digest, offset, &bytes),
            Operation::CommitState(bytes) => {
                if !self.has_room(bytes.len()) {
                    return Err(StorageError::Full);
                }
                if self.write_permille() >= 500 {
                    self.disk.state = Some(bytes);
                }
            }
            Operation::CommitModule(digest) => {
                let staged = self.disk.staged.get(&digest).cloned().ok_or(StorageError::Missing)?;
                if self.write_permille() >= 500 {
                    self.disk.staged.remove(&digest);
                    self.disk.modules.insert(digest, staged);
                }
            }
            Operation::DeleteModule(digest) => {
                if self.write_permille() >= 500 {
                    self.disk.staged.remove(&digest);
                    self.disk.modules.remove(&digest);
                }
            }
            Operation::CommitData { uid, bytes } => {
                if !self.has_room(bytes.len()) {
                    return Err(StorageError::Full);
                }
                if self.write_permille() >= 500 {
                    self.disk.data.insert(uid, bytes);
                }
            }
            Operation::DeleteData(uid) => {
                if self.write_permille() >= 500 {
                    self.disk.data.remove(&uid);
                }
            }
        }
        Ok(Done::Written)
    }

    fn inventory(&self) -> Inventory {
        // Objects are at most a megabyte, so their lengths fit.
        let lengths = |objects: &BTreeMap<ModuleDigest, Vec<u8>>| {
            objects.iter().map(|(digest, bytes)| (*digest, bytes.len() as u32)).collect()
        };
        Inventory {
            modules: lengths(&self.disk.modules),
            staged: lengths(&self.disk.staged),
            data: self.disk.data.keys().copied().collect(),
        }
    }
}

impl Storage for MemoryStorage {
    fn start(&mut self, operation: Operation) {
        if self.without_power {
            return;
        }
        let outcome = self.perform(operation);
        self.answer = (!self.without_power).then_some(outcome);
    }

    fn poll(&mut self) -> Option<Outcome> {
        self.answer.take()
    }

    fn module(&mut self, digest: &ModuleDigest) -> Result<Cow<'_, [u8]>, StorageError> {
        self.disk
            .modules
            .get(digest)
            .map(|bytes| Cow::Borrowed(bytes.as_slice()))
            .ok_or(StorageError::Missing)
    }
}

/// What both ends of a link share.
#[derive(Debug, Default)]
pub struct Channel {
    /// The device asked for a connection.
    pub wanted: bool,
    /// The connection is up.
    pub up: bool,
    /// Bytes for the gateway.
    pub to_gateway: VecDeque<u8>,
    /// Bytes for the device.
    pub to_device: VecDeque<u8>,
    /// Bytes that fit in `to_gateway`; unbounded if absent.
    pub capacity_bytes: Option<usize>,
    /// Attempts so far.
    pub attempts: u32,
}

/// A link whose other end is in the same process.
#[derive(Clone, Debug, Default)]
pub struct MemoryLink(Rc<RefCell<Channel>>);

impl MemoryLink {
    /// The shared part; whoever plays the gateway keeps a clone of the link.
    pub fn with<R>(&self, act: impl FnOnce(&mut Channel) -> R) -> R {
        act(&mut self.0.borrow_mut())
    }

    /// The gateway's side takes the connection, if one is wanted. True if it is up now and was not before.
    pub fn accept(&self) -> bool {
        self.with(|channel| {
            let accepted = core::mem::take(&mut channel.wanted) && !channel.up;
            if accepted {
                channel.up = true;
                channel.to_device.clear();
                channel.to_gateway.clear();
            }
            accepted
        })
    }

    /// The gateway's side refuses, or either side breaks it. What was sent to the device can still be read.
    pub fn cut(&self) {
        self.with(|channel| {
            channel.wanted = false;
            channel.up = false;
            channel.to_gateway.clear();
        });
    }
}

impl Link for MemoryLink {
    fn state(&mut self) -> LinkState {
        self.with(|channel| match (channel.up, channel.wanted) {
            (true, _) => LinkState::Up,
            (false, true) => LinkState::Connecting,
            (false, false) => LinkState::Down,
        })
    }

    fn connect(&mut self) {
        self.with(|channel| {
            if !channel.up {
                channel.wanted = true;
                channel.attempts += 1;
                channel.to_device.clear();
            }
        });
    }

    fn close(&mut self) {
        self.with(|channel| {
            channel.wanted = false;
            channel.up = false;
        });
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        self.with(|channel| {
            let room = channel
                .capacity_bytes
                .map_or(usize::MAX, |most| most.saturating_sub(channel.to_gateway.len()));
            let taken = if channel.up { bytes.len().min(room) } else { 0 };
            channel.to_gateway.extend(bytes.iter().take(taken));
            taken
        })
    }

    fn recv(&mut self, buffer: &mut [u8]) -> usize {
        self.with(|channel| {
            let given = channel.to_device.len().min(buffer.len());
            for (slot, byte) in buffer.iter_mut().zip(channel.to_device.drain(..given)) {
                *slot = byte;
            }
            given
        })
    }
}

/// A clock that moves by a fixed step at each reading, on top of the time it is set to. A simulation that measures CPU time by
/// fuel leaves the step at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountingTimer {
    /// Now, microseconds.
    pub now_us: u64,
    /// Added by each reading, microseconds.
    pub step_us: u64,
}

impl Timer for CountingTimer {
    fn now_us(&mut self) -> u64 {
        self.now_us += self.step_us;
        self.now_us
    }
}

/// Numbers that follow from a seed (splitmix64, G. Steele et al., OOPSLA 2014). Fit for simulations and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeededEntropy(pub u64);

impl SeededEntropy {
    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Entropy for SeededEntropy {
    fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            for (slot, byte) in chunk.iter_mut().zip(self.next_u64().to_le_bytes()) {
                *slot = byte;
            }
        }
    }
}

/// Counts how often it was fed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountingWatchdog(pub u64);

impl Watchdog for CountingWatchdog {
    fn feed(&mut self) {
        self.0 += 1;
    }
}

/// Keeps the last lines.
#[derive(Clone, Debug, Default)]
pub struct KeptLog {
    /// Of the device: level, reason and message.
    pub records: VecDeque<String>,
    /// Of applications: whose, and the line.
    pub lines: VecDeque<(ApplicationUid, String)>,
}

impl LogSink for KeptLog {
    fn record(&mut self, record: &Record<'_>) {
        let reason = record.reason.map(|reason| alloc::format!(" [{reason}]")).unwrap_or_default();
        if self.records.len() == LOG_LINES_MAX {
            self.records.pop_front();
        }
        self.records.push_back(alloc::format!("{:?}{reason}: {}", record.level, record.message));
    }

    fn application_line(&mut self, uid: &ApplicationUid, _name: &str, text: &str) {
        if self.lines.len() == LOG_LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back((*uid, text.to_string()));
    }
}

/// The whole board.
#[derive(Clone, Debug)]
pub struct MemoryBoard {
    /// The way to the gateway.
    pub link: MemoryLink,
    /// Storage.
    pub storage: MemoryStorage,
    /// Feeding is counted.
    pub watchdog: CountingWatchdog,
    /// Random numbers from a seed.
    pub entropy: SeededEntropy,
    /// No pins, no sensors.
    pub peripherals: NoPeripherals,
    /// The last lines.
    pub log: KeptLog,
    /// The clock that slices are measured with. Whoever calls `poll` sets it first.
    pub timer: CountingTimer,
}

impl MemoryBoard {
    /// A board with what its storage holds from before.
    pub fn new(disk: Disk, seed: u64) -> Self {
        Self {
            link: MemoryLink::default(),
            storage: MemoryStorage::new(disk),
            watchdog: CountingWatchdog::default(),
            entropy: SeededEntropy(seed),
            peripherals: NoPeripherals,
            log: KeptLog::default(),
            timer: CountingTimer::default(),
        }
    }
}

impl Platform for MemoryBoard {
    type Link = MemoryLink;
    type Storage = MemoryStorage;
    type Watchdog = CountingWatchdog;
    type Entropy = SeededEntropy;
    type Peripherals = NoPeripherals;
    type LogSink = KeptLog;
    type Timer = CountingTimer;

    fn link(&mut self) -> &mut MemoryLink {
        &mut self.link
    }
    fn storage(&mut self) -> &mut MemoryStorage {
        &mut self.storage
    }
    fn watchdog(&mut self) -> &mut CountingWatchdog {
        &mut self.watchdog
    }
    fn entropy(&mut self) -> &mut SeededEntropy {
        &mut self.entropy
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
