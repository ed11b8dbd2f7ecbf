//! A board made of memory: a link whose other end is in the same process, storage whose faults are chosen, a clock that
//! counts. For tests and simulations; everything it does follows from its inputs.

mod faulty;
pub mod identity;
mod storage;

use alloc::{
    collections::VecDeque,
    rc::Rc,
    string::{String, ToString},
    vec::Vec,
};
use core::cell::RefCell;

use wasmbed_protocol::ApplicationUid;

use crate::platform::{
    Entropy, Link, LinkState, LogSink, PeripheralError, Peripherals, Platform, Record, Timer, Watchdog, bus,
    uart,
};
pub use faulty::{Cut, Faults, FaultyStorage};
pub use identity::MemoryIdentity;
pub use storage::{Disk, MemoryStorage};

/// Lines kept of each log; the oldest go first.
pub const LOG_LINES_MAX: usize = 1_000;

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
    /// The chain that the device presents; what it was provisioned with if absent.
    pub presented: Option<Vec<u8>>,
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
    /// Storage, and what is to go wrong with it.
    pub storage: FaultyStorage,
    /// Feeding is counted.
    pub watchdog: CountingWatchdog,
    /// Random numbers from a seed.
    pub entropy: SeededEntropy,
    /// Keys and certificates; a fixed identity unless that is changed.
    pub identity: MemoryIdentity,
    /// Two pins, no sensors, one I2C bus, one SPI bus and one UART if they are put there.
    pub peripherals: MemoryPeripherals,
    /// The last lines.
    pub log: KeptLog,
    /// The clock that slices are measured with. Whoever calls `poll` sets it first.
    pub timer: CountingTimer,
}

/// What a board of memory has beside its memory.
#[derive(Clone, Default)]
pub struct MemoryPeripherals {
    /// `i2c0`.
    pub i2c: Option<SharedBus>,
    /// `spi0`.
    pub spi: Option<SharedBus>,
    /// `uart0`.
    pub uart: Option<SharedPort>,
    /// Levels of the first pins, which applications may set.
    pub pins: [bool; 2],
}

impl core::fmt::Debug for MemoryPeripherals {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("MemoryPeripherals")
            .field("has_i2c", &self.i2c.is_some())
            .field("has_spi", &self.spi.is_some())
            .field("has_uart", &self.uart.is_some())
            .finish()
    }
}

impl Peripherals for MemoryPeripherals {
    fn i2c(&mut self, bus: u8) -> Option<&mut dyn bus::Controller> {
        self.i2c.as_mut().filter(|_| bus == 0).map(|bus| bus as &mut dyn bus::Controller)
    }

    fn spi(&mut self, bus: u8) -> Option<&mut dyn bus::Controller> {
        self.spi.as_mut().filter(|_| bus == 0).map(|bus| bus as &mut dyn bus::Controller)
    }

    fn gpio_read(&mut self, pin: u32) -> Result<bool, PeripheralError> {
        self.pins.get(pin as usize).copied().ok_or(PeripheralError::NotFound)
    }

    fn gpio_write(&mut self, pin: u32, level: bool) -> Result<(), PeripheralError> {
        *self.pins.get_mut(pin as usize).ok_or(PeripheralError::NotFound)? = level;
        Ok(())
    }

    fn uart(&mut self, port: u8) -> Option<&mut dyn uart::Port> {
        self.uart.as_mut().filter(|_| port == 0).map(|port| port as &mut dyn uart::Port)
    }
}

/// A bus that a test keeps a hold of.
#[derive(Clone)]
pub struct SharedBus(pub Rc<RefCell<dyn bus::Controller>>);

impl bus::Controller for SharedBus {
    fn step(&mut self, transfer: &mut bus::Transfer, now_us: u64) -> bus::Progress {
        self.0.borrow_mut().step(transfer, now_us)
    }

    fn give_up(&mut self, now_us: u64) -> bool {
        self.0.borrow_mut().give_up(now_us)
    }
}

/// A UART that a test keeps a hold of.
#[derive(Clone)]
pub struct SharedPort(pub Rc<RefCell<dyn uart::Port>>);

impl uart::Port for SharedPort {
    fn open(&mut self, baud: u32) -> Result<(), uart::Error> {
        self.0.borrow_mut().open(baud)
    }

    fn close(&mut self) {
        self.0.borrow_mut().close();
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, uart::Error> {
        self.0.borrow_mut().receive(buffer)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, uart::Error> {
        self.0.borrow_mut().send(bytes)
    }

    fn is_sent(&mut self) -> Result<bool, uart::Error> {
        self.0.borrow_mut().is_sent()
    }
}

impl MemoryBoard {
    /// A board with what its storage holds from before.
    pub fn new(storage: FaultyStorage, seed: u64) -> Self {
        let link = MemoryLink::default();
        Self {
            identity: MemoryIdentity::new(link.clone(), seed),
            link,
            storage,
            watchdog: CountingWatchdog::default(),
            entropy: SeededEntropy(seed),
            peripherals: MemoryPeripherals::default(),
            log: KeptLog::default(),
            timer: CountingTimer::default(),
        }
    }
}

impl Platform for MemoryBoard {
    type Link = MemoryLink;
    type Storage = FaultyStorage;
    type Watchdog = CountingWatchdog;
    type Entropy = SeededEntropy;
    type Identity = MemoryIdentity;
    type Peripherals = MemoryPeripherals;
    type LogSink = KeptLog;
    type Timer = CountingTimer;

    fn link(&mut self) -> &mut MemoryLink {
        &mut self.link
    }
    fn storage(&mut self) -> &mut FaultyStorage {
        &mut self.storage
    }
    fn watchdog(&mut self) -> &mut CountingWatchdog {
        &mut self.watchdog
    }
    fn entropy(&mut self) -> &mut SeededEntropy {
        &mut self.entropy
    }
    fn identity(&mut self) -> &mut MemoryIdentity {
        &mut self.identity
    }
    fn peripherals(&mut self) -> &mut MemoryPeripherals {
        &mut self.peripherals
    }
    fn log(&mut self) -> &mut KeptLog {
        &mut self.log
    }
    fn timer(&mut self) -> &mut CountingTimer {
        &mut self.timer
    }
}
