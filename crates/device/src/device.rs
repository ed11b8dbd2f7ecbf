//! One device in this process.

use std::{
    any::Any,
    fs::{self, File, TryLockError},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use wasmbed_pki::tls::roots;
use wasmbed_protocol::{ResetReason, limits::RESET_DETAIL_BYTES_MAX};
use wasmbed_runtime::RuntimeConfig;
use wasmbed_supervisor::platform::{Board, PeripheralFacts, PeripheralKind};

use crate::{
    config::{BoardConfig, DeviceConfig, DeviceError, UARTS_MAX, check_gateways},
    counters::{Counters, Progress},
    identity::HostIdentity,
    mailbox::Mailbox,
    reactor::{DeviceSource, Parts, Reactor},
    storage::{Disk, ProvisionedKey, StorageThread, Store},
    uart::is_pseudoterminal,
    watchdog::LoopWatchdog,
};

/// A device that runs on a thread of its own.
#[derive(Debug)]
pub struct Handle {
    stop: Stop,
    counters: Arc<Counters>,
    thread: JoinHandle<Result<(), DeviceError>>,
}

/// Ends what it came from; may be called from anywhere and more than once.
#[derive(Clone)]
pub struct Stop(pub(crate) Vec<Mailbox>);

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Stop").field(&self.0.len()).finish()
    }
}

impl Stop {
    /// Asks for the end; [`Handle::wait`] tells when it has come.
    pub fn stop(&self) {
        self.0.iter().for_each(Mailbox::stop);
    }
}

impl Handle {
    /// Asks the device to end: it closes its connection and leaves everything as it is on disk.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// What ends the device, for whoever waits for a signal.
    #[must_use]
    pub fn stopper(&self) -> Stop {
        self.stop.clone()
    }

    /// What the device has reached.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.counters.progress(1)
    }

    /// Blocks until the device has ended: because it was asked to, or because it was decommissioned and its key is erased.
    ///
    /// # Errors
    /// It ended otherwise.
    pub fn wait(self) -> Result<(), DeviceError> {
        self.thread.join().unwrap_or_else(|panic| Err(DeviceError::Panicked(panic_text(&*panic))))
    }
}

/// Starts a device: it connects to a gateway, and runs what that has for it or what it already holds.
///
/// # Errors
/// The configuration is unusable or the data directory is not accessible. A gateway that can't be reached is no error:
/// the device keeps trying.
pub fn start(config: DeviceConfig) -> Result<Handle, DeviceError> {
    check_gateways(&config.gateways)?;
    if config.board.uarts.len() > UARTS_MAX {
        return Err(DeviceError::Uarts(config.board.uarts.len()));
    }
    let identity = HostIdentity::new(config.identity, roots(config.services_roots)?)?;
    let lock = lock(&config.data_dir)?;
    let note = config.data_dir.join("reset");
    let (reset_reason, reset_detail) = take_note(&note);
    let storage = config.data_dir.join("storage");
    let medium = Disk::open(&storage).map_err(|source| DeviceError::Io { path: storage.clone(), source })?;
    let store = Store::open(medium, config.board.storage_bytes);
    let store = store.map_err(|source| DeviceError::Io { path: storage, source })?;
    let store = store.with_provisioned_key(match config.key_file {
        Some(path) => ProvisionedKey::File(path),
        None => ProvisionedKey::Elsewhere,
    });

    let host = |what| move |source| DeviceError::Host { what, source };
    let (poll, mailbox) = Reactor::poller().map_err(host("making a poll"))?;
    let watchdog = LoopWatchdog::start(config.watchdog_timeout, Some(note.clone()));
    let watchdog = watchdog.map_err(host("starting the watchdog"))?;
    let counters = Arc::new(Counters::default());
    let source = One(Some(OneDevice {
        identity,
        gateways: config.gateways.into(),
        connect_timeout: config.connect_timeout,
        board: board(&config.board, reset_reason, reset_detail),
        runtime: config.board.runtime,
        uarts: config.board.uarts,
        store,
    }));
    let (stop, counted) = (Stop(vec![mailbox.clone()]), Arc::clone(&counters));
    let thread = thread::Builder::new().name("device".into()).spawn(move || {
        let _lock = lock;
        guarded(Some(&note), || {
            let mut reactor =
                Reactor::new(poll, mailbox, watchdog, counted).map_err(host("starting the device"))?;
            reactor.run(source)
        })
    });
    Ok(Handle { stop, counters, thread: thread.map_err(host("starting the device's thread"))? })
}

/// Runs a device on this thread until `stop` fires elsewhere: [`start`] and [`Handle::wait`] in one.
///
/// # Errors
/// As of both.
pub fn run(config: DeviceConfig, on_start: impl FnOnce(Stop)) -> Result<(), DeviceError> {
    let handle = start(config)?;
    on_start(handle.stopper());
    handle.wait()
}

/// Runs a loop; a panic becomes an error and a note for the next start.
pub(crate) fn guarded(
    note: Option<&Path>,
    run: impl FnOnce() -> Result<(), DeviceError>,
) -> Result<(), DeviceError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic_text(&*panic);
        if let Some(note) = note {
            // Without the note the next start gives no reason; the error below says it here and now.
            let _ = wasmbed_files::write_private(note, format!("panic: {text}").as_bytes());
        }
        Err(DeviceError::Panicked(text))
    })
}

pub(crate) fn board(config: &BoardConfig, reset_reason: ResetReason, reset_detail: String) -> Board {
    Board {
        board: config.board.clone(),
        firmware: env!("CARGO_PKG_VERSION").into(),
        flash_bytes: config.storage_bytes,
        module_bytes_max: config.module_bytes_max,
        applications_max: u8::try_from(config.runtime.applications_max).unwrap_or(u8::MAX),
        capabilities: capabilities(config),
        peripherals: peripherals(config),
        reset_reason,
        reset_detail,
    }
}

fn capabilities(config: &BoardConfig) -> Vec<String> {
    let uart = (!config.uarts.is_empty()).then_some("uart");
    crate::HostPeripherals::CAPABILITIES.into_iter().chain(uart).map(String::from).collect()
}

/// By name. Pins are latches in this process, and behind a pseudoterminal there is only a program.
fn peripherals(config: &BoardConfig) -> Vec<PeripheralFacts> {
    let pins = if config.names_pins { crate::HostPeripherals::PINS } else { 0 };
    let pins = (0..pins).map(|number| PeripheralFacts {
        name: format!("gpio{number}"),
        kind: PeripheralKind::Gpio,
        is_simulated: true,
    });
    let uarts = config.uarts.iter().enumerate().map(|(number, path)| PeripheralFacts {
        name: format!("uart{number}"),
        kind: PeripheralKind::Uart,
        is_simulated: is_pseudoterminal(path),
    });
    pins.chain(uarts).collect()
}

struct OneDevice {
    identity: HostIdentity,
    gateways: Arc<[String]>,
    connect_timeout: Duration,
    board: Board,
    runtime: RuntimeConfig,
    uarts: Vec<PathBuf>,
    store: Store<Disk>,
}

struct One(Option<OneDevice>);

impl DeviceSource for One {
    fn next_ms(&self) -> Option<u64> {
        self.0.as_ref().map(|_| 0)
    }

    fn arrive(&mut self, index: usize, storage: &StorageThread) -> Result<Parts, DeviceError> {
        let Some(one) = self.0.take() else {
            return Err(DeviceError::Panicked("a second device where there is one".into()));
        };
        Ok(Parts {
            identity: one.identity,
            gateways: one.gateways,
            connect_timeout: one.connect_timeout,
            board: one.board,
            runtime: one.runtime,
            uarts: one.uarts,
            storage: storage.files(index, one.store),
        })
    }
}

/// Held until the process ends, in whatever way.
fn lock(data_dir: &Path) -> Result<File, DeviceError> {
    let path = data_dir.join("lock");
    let failed = |path: PathBuf| move |source: io::Error| DeviceError::Io { path, source };
    // What applications keep is nobody else's business.
    wasmbed_files::private_folder(data_dir).map_err(failed(data_dir.to_owned()))?;
    let file = wasmbed_files::create_private_file(&path).map_err(failed(path.clone()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DeviceError::InUse(data_dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(DeviceError::Io { path, source }),
    }
}

/// Why the process last ended, if it left a note, which is told once.
fn take_note(note: &Path) -> (ResetReason, String) {
    let Ok(text) = fs::read_to_string(note) else {
        return (ResetReason::PowerOn, String::new());
    };
    // A note that stays is told once more, no worse.
    let _ = fs::remove_file(note);
    let end = text.floor_char_boundary(RESET_DETAIL_BYTES_MAX);
    match text.get(..end).unwrap_or_default().strip_prefix("panic: ") {
        Some(detail) => (ResetReason::Panic, detail.to_owned()),
        None => (ResetReason::Watchdog, text.get(..end).unwrap_or_default().to_owned()),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_told_once_and_within_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let note = folder.path().join("reset");
        assert_eq!(take_note(&note), (ResetReason::PowerOn, String::new()));
        fs::write(&note, "stood still").unwrap();
        assert_eq!(take_note(&note), (ResetReason::Watchdog, "stood still".into()));
        assert_eq!(take_note(&note).0, ResetReason::PowerOn);
        let panicked = guarded(Some(&note), || panic!("{}", "é".repeat(200)));
        assert!(matches!(panicked, Err(DeviceError::Panicked(_))));
        let (reason, detail) = take_note(&note);
        assert_eq!(reason, ResetReason::Panic);
        assert!(detail.len() <= RESET_DETAIL_BYTES_MAX && detail.starts_with("éé"));
    }

    #[test]
    fn a_data_directory_has_one_user() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path()).unwrap();
        assert!(matches!(lock(folder.path()), Err(DeviceError::InUse(_))));
        drop(first);
        assert!(lock(folder.path()).is_ok());
    }
}
