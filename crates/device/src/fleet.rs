//! Many devices in one process, each a real one: its own identity and TLS connection, its own agent, sandbox and storage.
//!
//! Devices are spread over a few threads, each with one loop. An idle device costs its TLS connection and its agent's
//! state; its arena takes memory once an application is loaded.

use std::{
    fmt,
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use wasmbed_pki::tls::roots;
use wasmbed_protocol::ResetReason;
use wasmbed_telemetry::OpenFiles;

use crate::{
    config::{BoardConfig, DeviceConfig, DeviceError, DeviceIdentity, IssueError, check_gateways},
    counters::{Counters, Progress},
    device::{Stop, board, guarded},
    identity::HostIdentity,
    reactor::{DeviceSource, Parts, Reactor},
    storage::{DeviceStorage, Disk, Memory, SharedModules, StorageThread, Store},
    watchdog::LoopWatchdog,
};

/// Devices of one process at most: what one gateway is made for.
pub const DEVICES_MAX: usize = 10_000;

/// Makes the identity of device `index`, counted from 0; called once for each device when it is switched on.
pub type Issue = Arc<dyn Fn(usize) -> Result<DeviceIdentity, IssueError> + Send + Sync>;

/// Where the devices keep modules, state and data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FleetStorage {
    /// In memory: gone when the process ends, as if each device had been replaced by a new one.
    Memory,
    /// In a directory for each, `DIR/NAMESPACE/NAME`; `DIR/factory/SERIAL` and `DIR/pairing/ID` for those that join.
    Files(PathBuf),
}

/// A fleet.
pub struct FleetConfig {
    /// How many devices, at most [`DEVICES_MAX`].
    pub devices: usize,
    /// Their identities.
    pub issue: Issue,
    /// Roots below which gateways stand.
    pub services_roots: Vec<CertificateDer<'static>>,
    /// `host:port`. Each device knows all of them and begins with another one, so that a fleet spreads over its gateways.
    pub gateways: Vec<String>,
    /// Where they keep what they hold.
    pub storage: FleetStorage,
    /// The board that each is.
    pub board: BoardConfig,
    /// Threads to spread them over.
    pub threads: NonZeroUsize,
    /// Devices switched on per second; all at once if `None`.
    pub starts_per_second: Option<NonZeroUsize>,
}

impl FleetConfig {
    /// A fleet of microcontrollers that keep everything in memory and start all at once.
    #[must_use]
    pub fn new(
        devices: usize,
        issue: Issue,
        services_roots: Vec<CertificateDer<'static>>,
        gateways: Vec<String>,
    ) -> Self {
        Self {
            devices,
            issue,
            services_roots,
            gateways,
            storage: FleetStorage::Memory,
            board: BoardConfig::microcontroller(),
            threads: NonZeroUsize::MIN,
            starts_per_second: None,
        }
    }
}

impl fmt::Debug for FleetConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetConfig").field("devices", &self.devices).finish_non_exhaustive()
    }
}

/// A fleet that runs on threads of its own.
#[derive(Debug)]
pub struct FleetHandle {
    devices: usize,
    stop: Stop,
    counters: Arc<Counters>,
    threads: Vec<JoinHandle<Result<(), DeviceError>>>,
    /// A socket for each device.
    _files: OpenFiles,
}

impl FleetHandle {
    /// How far the fleet has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.counters.progress(self.devices)
    }

    /// Asks all devices to end.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// What ends the fleet, for whoever waits for a signal.
    #[must_use]
    pub fn stopper(&self) -> Stop {
        self.stop.clone()
    }

    /// Whether a thread has ended already, so that [`FleetHandle::wait`] would say why.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Blocks until all devices have ended.
    ///
    /// # Errors
    /// The first error of a thread that did not end because it was asked to; the others are stopped then.
    pub fn wait(self) -> Result<(), DeviceError> {
        let mut result = Ok(());
        for thread in self.threads {
            let ended = thread.join().unwrap_or_else(|_| Err(DeviceError::Panicked("a fleet thread".into())));
            if ended.is_err() {
                self.stop.stop();
            }
            result = result.and(ended);
        }
        result
    }
}

/// Starts a fleet.
///
/// # Errors
/// The configuration is unusable, or the host gives no more threads.
pub fn start(config: FleetConfig) -> Result<FleetHandle, DeviceError> {
    check_gateways(&config.gateways)?;
    let devices = config.devices;
    if devices > DEVICES_MAX {
        return Err(DeviceError::TooMany { devices, max: DEVICES_MAX });
    }
    let files = OpenFiles::claim("fleet", devices);
    if files.allowed() < devices {
        return Err(DeviceError::Files { needed: devices, allowed: files.allowed() });
    }
    let threads = config.threads.get().min(devices.max(1));
    let counters = Arc::new(Counters::default());
    let shared = Arc::new(Shared {
        issue: config.issue,
        roots: roots(config.services_roots)?,
        gateways: rotations(&config.gateways),
        storage: config.storage,
        board: config.board,
        modules: SharedModules::default(),
    });
    let host = |what| move |source| DeviceError::Host { what, source };
    let mut handle = FleetHandle {
        devices,
        stop: Stop(Vec::new()),
        counters: Arc::clone(&counters),
        threads: Vec::new(),
        _files: files,
    };
    for first in 0..threads {
        let (poll, mailbox) = Reactor::poller().map_err(host("making a poll"))?;
        let watchdog = LoopWatchdog::start(DeviceConfig::WATCHDOG_TIMEOUT.max(FLEET_WATCHDOG_TIMEOUT), None);
        let watchdog = watchdog.map_err(host("starting a watchdog"))?;
        let share = Share {
            shared: Arc::clone(&shared),
            next: first,
            step: threads,
            devices,
            starts_per_second: config.starts_per_second,
        };
        let (counters, inbox) = (Arc::clone(&counters), mailbox.clone());
        let thread = thread::Builder::new().name(format!("devices-{first}")).spawn(move || {
            guarded(None, || {
                let mut reactor =
                    Reactor::new(poll, inbox, watchdog, counters).map_err(host("starting a device loop"))?;
                reactor.run(share)
            })
        });
        handle.stop.0.push(mailbox);
        handle.threads.push(thread.map_err(host("starting a device thread"))?);
    }
    Ok(handle)
}

/// The list once for each gateway, with that one first.
fn rotations(gateways: &[String]) -> Vec<Arc<[String]>> {
    (0..gateways.len())
        .map(|first| gateways[first..].iter().chain(&gateways[..first]).cloned().collect())
        .collect()
}

/// A loop of thousands may be late by as many handshakes and loads; one that stands still is found all the same.
const FLEET_WATCHDOG_TIMEOUT: Duration = Duration::from_secs(60);

struct Shared {
    issue: Issue,
    roots: Arc<RootCertStore>,
    /// One list for each gateway that stands first.
    gateways: Vec<Arc<[String]>>,
    storage: FleetStorage,
    board: BoardConfig,
    modules: SharedModules,
}

/// One thread's devices: every `step`th.
struct Share {
    shared: Arc<Shared>,
    next: usize,
    step: usize,
    devices: usize,
    starts_per_second: Option<NonZeroUsize>,
}

impl DeviceSource for Share {
    fn next_ms(&self) -> Option<u64> {
        if self.next >= self.devices {
            return None;
        }
        Some(self.starts_per_second.map_or(0, |rate| self.next as u64 * 1_000 / rate.get() as u64))
    }

    fn arrive(&mut self, index: usize, storage: &StorageThread) -> Result<Parts, DeviceError> {
        let number = self.next;
        self.next += self.step;
        let shared = &self.shared;
        let identity =
            (shared.issue)(number).map_err(|problem| DeviceError::Identity { index: number, problem })?;
        let identity = HostIdentity::new(identity, Arc::clone(&shared.roots))?;
        let storage = match &shared.storage {
            FleetStorage::Memory => {
                let memory = Memory::new(shared.modules.clone());
                let store = Store::open(memory, shared.board.storage_bytes);
                DeviceStorage::memory(store.map_err(|source| DeviceError::Host { what: "memory", source })?)
            }
            FleetStorage::Files(folder) => {
                let path = folder.join(identity.name());
                let store =
                    Disk::open(&path).and_then(|medium| Store::open(medium, shared.board.storage_bytes));
                storage.files(index, store.map_err(|source| DeviceError::Io { path, source })?)
            }
        };
        Ok(Parts {
            identity,
            gateways: Arc::clone(&shared.gateways[number % shared.gateways.len()]),
            connect_timeout: DeviceConfig::CONNECT_TIMEOUT,
            board: board(&shared.board, ResetReason::PowerOn, String::new()),
            runtime: shared.board.runtime.clone(),
            uarts: Vec::new(),
            storage,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gateway_is_the_first_of_one_list() {
        let lists = rotations(&["a:1".to_owned(), "b:1".to_owned(), "c:1".to_owned()]);
        let lists: Vec<String> = lists.iter().map(|list| list.join(" ")).collect();
        assert_eq!(lists, ["a:1 b:1 c:1", "b:1 c:1 a:1", "c:1 a:1 b:1"]);
    }
}
