//! What a board gives the supervisor. Every call returns at once: nothing here may block for longer than a slice.

use alloc::{borrow::Cow, string::String, vec::Vec};
use core::fmt;

pub use crate::identity::{FixedIdentity, Identity};
pub use wasmbed_agent::{
    ChainFacts, IdentityError, Ordered, PeripheralFacts, Presented, Provisioned,
    storage::{Done, Inventory, Operation, Outcome, StorageError},
};
pub use wasmbed_protocol::PeripheralKind;
use wasmbed_protocol::{ApplicationUid, CorrelationId, Epoch, ModuleDigest, ResetReason, Revision};
pub use wasmbed_runtime::{
    NoPeripherals, PeripheralError, Peripherals,
    peripherals::{bus, i2c, spi, uart},
};

/// All that a board implements, as one value.
pub trait Platform {
    /// The way to the gateway.
    type Link: Link;
    /// Modules, state and applications' data.
    type Storage: Storage;
    /// Resets the board when the loop stops making progress.
    type Watchdog: Watchdog;
    /// Random bytes.
    type Entropy: Entropy;
    /// Keys and certificates.
    type Identity: Identity;
    /// Pins, sensors and buses.
    type Peripherals: Peripherals;
    /// The log of the device and of its applications.
    type LogSink: LogSink;
    /// Measures slices.
    type Timer: Timer;

    /// The link.
    fn link(&mut self) -> &mut Self::Link;
    /// Storage.
    fn storage(&mut self) -> &mut Self::Storage;
    /// The watchdog.
    fn watchdog(&mut self) -> &mut Self::Watchdog;
    /// Random bytes.
    fn entropy(&mut self) -> &mut Self::Entropy;
    /// Keys and certificates.
    fn identity(&mut self) -> &mut Self::Identity;
    /// Pins, sensors and buses.
    fn peripherals(&mut self) -> &mut Self::Peripherals;
    /// The log.
    fn log(&mut self) -> &mut Self::LogSink;
    /// Measures slices.
    fn timer(&mut self) -> &mut Self::Timer;
}

/// What the board is, for the Hello; the rest of the facts comes from the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    /// Board or host type, for example `riscv32-virt` or `linux`.
    pub board: String,
    /// Firmware version.
    pub firmware: String,
    /// Bytes of storage for modules and state.
    pub flash_bytes: u64,
    /// The largest module accepted, bytes.
    pub module_bytes_max: u32,
    /// How many applications run at once.
    pub applications_max: u8,
    /// Names of the capabilities that the board can grant; its peripherals decide.
    pub capabilities: Vec<String>,
    /// Peripherals that it can grant by name, ascending; its own [`Peripherals`] has each.
    pub peripherals: Vec<PeripheralFacts>,
    /// Why the board last started.
    pub reset_reason: ResetReason,
    /// Detail of the last reset, for example a panic message.
    pub reset_detail: String,
}

/// State of a [`Link`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Nothing is under way. Bytes received before may still be read.
    Down,
    /// Connecting, or the handshake is not done.
    Connecting,
    /// A mutually authenticated byte stream.
    Up,
}

/// A byte stream to a gateway, TLS 1.3 below it and both certificates checked. When it breaks it goes [`LinkState::Down`] by
/// itself; choosing among several gateways and looking up names is its own business.
pub trait Link {
    /// Moves the link on and returns its state.
    fn state(&mut self) -> LinkState;
    /// Begins an attempt if it is down; the result shows in [`Link::state`].
    fn connect(&mut self);
    /// Ends the connection after bytes that were taken have been given to the network, without waiting for the peer. From
    /// then on the link is not up before the next [`Link::connect`].
    fn close(&mut self);
    /// Takes as many bytes as there is room for and returns how many; 0 when it is full or not up.
    fn send(&mut self, bytes: &[u8]) -> usize;
    /// Reads at most `buffer.len()` bytes and returns how many; 0 when there are none.
    fn recv(&mut self, buffer: &mut [u8]) -> usize;
}

/// Modules, the state record and applications' data; [`Operation`] says what survives a loss of power.
pub trait Storage {
    /// Begins an operation. The supervisor begins the next one only after [`Storage::poll`] answered this one.
    fn start(&mut self, operation: Operation);
    /// Moves the operation on; answers once when it is done.
    fn poll(&mut self) -> Option<Outcome>;
    /// A committed module's bytes, from memory-mapped flash without a copy.
    fn module(&mut self, digest: &ModuleDigest) -> Result<Cow<'_, [u8]>, StorageError>;
}

/// Resets the board if it is not fed in time.
pub trait Watchdog {
    /// The loop made progress.
    fn feed(&mut self);
}

/// A random source fit for keys.
pub trait Entropy {
    /// Fills the buffer.
    fn fill(&mut self, buffer: &mut [u8]);
}

/// Measures slices. Simulations count instead of measuring.
pub trait Timer {
    /// Microseconds from any fixed moment; never goes back.
    fn now_us(&mut self) -> u64;
}

/// How much a [`Record`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Debugging detail.
    Debug,
    /// What happened.
    Info,
    /// Something did not work and is being dealt with.
    Warn,
    /// Something did not work.
    Error,
}

/// One line of the device's own log. Absent fields are absent in the log too.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// How much it matters.
    pub level: Level,
    /// What happened.
    pub message: fmt::Arguments<'a>,
    /// `namespace/name` of the application meant.
    pub application: Option<&'a str>,
    /// Of the change that led here.
    pub correlation_id: Option<CorrelationId>,
    /// Of the session.
    pub epoch: Option<Epoch>,
    /// Of the desired set.
    pub revision: Option<Revision>,
    /// Name of the reason, for example `UnknownImport`.
    pub reason: Option<&'a str>,
}

/// The log of the device and of its applications, for people.
pub trait LogSink {
    /// The device's own log.
    fn record(&mut self, record: &Record<'_>);
    /// A line that an application wrote.
    fn application_line(&mut self, uid: &ApplicationUid, name: &str, text: &str);
}
