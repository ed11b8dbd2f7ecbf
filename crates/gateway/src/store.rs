//! Sets and modules on the gateway's disk.
//!
//! Sets are kept in one redb database, one key per device; a module is a file named by its digest, written next to its place,
//! synced, moved there, and checked against its name whenever it is read. One thread does the writing: what waits for
//! it shares one transaction, so that 1,000 sets cost one sync and not 1,000.
//!
//! What a set has from Secrets is on the disk under the key of `gateway.data_key_file` alone: such a set is encrypted in a table of
//! its own, beside the record of its device. Without that file it is in memory only, and after a restart the gateway lacks it
//! until a controller sends it again.
//!
//! A disk that fails is tried once a second until it works again; until then [`Condition`] says so. A database that can't
//! be read is set aside: the gateway then begins with nothing known of any device, which keeps what it runs until a
//! controller sends its set again.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use redb::{Database, ReadableTable, TableDefinition};
use tokio::sync::oneshot;
use wasmbed_control::{
    gateway::{Restored, StoreFailure, StoreId, StoreOperation, StoredDevice},
    gateway_api::DeviceSet,
};
use wasmbed_files::{DatabaseFile, KeyFileError, OpenError, SealError, Sealer};
use wasmbed_protocol::{ModuleDigest, limits::MODULE_BYTES_MAX};
use zeroize::Zeroizing;

const DEVICES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("devices");
/// Sets that have secrets, encrypted, by the same keys; the record in [`DEVICES`] then has none.
const SEALED_SETS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("sealed_sets");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const LEADER_TERM: &str = "leader_term";

/// Operations that share one transaction at most, so that the first of them does not wait for long.
const GROUP_MAX: usize = 256;

/// The disk did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// I/O on a file or folder.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// I/O or damage in the database of sets.
    #[error("{path}: {source}")]
    Database {
        /// The file or folder.
        path: PathBuf,
        /// What happened.
        source: Box<redb::Error>,
    },
    /// The database of sets can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// `gateway.data_key_file` can't be used.
    #[error("gateway.data_key_file: {0}")]
    Keys(#[from] KeyFileError),
    /// The thread that writes could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(io::Error),
}

/// What the writing thread is asked for.
enum Task {
    Operation(StoreOperation),
    /// Moves an uploaded module to its place.
    Place {
        digest: ModuleDigest,
        from: PathBuf,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// A write that another thread did failed.
    Failed(String),
    /// Ends the thread once all that was asked for before is done.
    Stop,
}

/// After a failure of the disk, between two attempts: each opens the database anew, which reads all of it.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How the disk is; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Condition(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    failing: Option<String>,
    set_aside: Option<String>,
}

impl Condition {
    /// Why nothing can be written, if nothing can.
    pub(crate) fn failing(&self) -> Option<String> {
        self.lock().failing.clone()
    }

    /// What was damaged when this process began, and where it is.
    pub(crate) fn set_aside(&self) -> Option<String> {
        self.lock().set_aside.clone()
    }

    fn set_failing(&self, why: Option<String>) {
        self.lock().failing = why;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Two texts are whole even if a holder of the lock panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How operations end.
pub(crate) type OnStored = Box<dyn Fn(StoreId, Result<(), StoreFailure>) + Send>;

/// The gateway's disk; cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    tasks: mpsc::Sender<Task>,
    modules: Arc<PathBuf>,
    uploads: Arc<AtomicU64>,
}

/// An opened disk whose thread does not run yet.
pub(crate) struct Opened {
    file: DatabaseFile,
    database: Database,
    sealer: Option<Sealer>,
    /// How it is.
    pub(crate) condition: Condition,
    folder: PathBuf,
    /// What was on it.
    pub(crate) restored: Restored,
}

/// Pages of the database in memory. It is read at the start only; after that sets are written, and never read back.
const CACHE_BYTES: usize = 256 * 1024;

/// Opens the disk, creating it if it is empty. `key` is the file of the keys that encrypt sets with secrets.
pub(crate) fn open(folder: &Path, key: Option<&Path>) -> Result<Opened, StoreError> {
    let sealer = key.map(Sealer::read).transpose()?;
    let modules = folder.join("modules");
    for folder in [folder, &modules] {
        wasmbed_files::private_folder(folder)
            .map_err(|source| StoreError::Io { path: folder.to_owned(), source })?;
    }
    let file = DatabaseFile::new(folder.join("sets.redb"), CACHE_BYTES);
    let condition = Condition::default();
    let (database, (leader_term, devices)) = match open_sets(&file, sealer.as_ref()) {
        Err(StoreError::Open(OpenError::Damaged { path, why })) => {
            let aside = wasmbed_files::set_aside(&path)
                .map_err(|source| StoreError::Io { path: path.clone(), source })?;
            let told = format!("{} was damaged ({why}) and is now {}", path.display(), aside.display());
            tracing::error!(
                reason = "StoreSetAside",
                "{told}; nothing is known of any device until a controller sends its set, devices keep what they run"
            );
            condition.lock().set_aside = Some(told);
            open_sets(&file, sealer.as_ref())?
        }
        other => other?,
    };
    let modules =
        read_modules(&modules).map_err(|source| StoreError::Io { path: modules.clone(), source })?;
    let restored = Restored { leader_term, devices, modules, ..Restored::default() };
    Ok(Opened { file, database, sealer, condition, folder: folder.to_owned(), restored })
}

fn open_sets(
    file: &DatabaseFile,
    sealer: Option<&Sealer>,
) -> Result<(Database, (u64, Vec<StoredDevice>)), StoreError> {
    let failed =
        |source: redb::Error| StoreError::Database { path: file.path().to_owned(), source: Box::new(source) };
    let database = file.open(make_tables)?;
    make_tables(&database).map_err(failed)?;
    match read_sets(&database, sealer) {
        Ok(sets) => Ok((database, sets)),
        Err(redb::Error::Corrupted(why)) => {
            Err(OpenError::Damaged { path: file.path().to_owned(), why }.into())
        }
        Err(error) => Err(failed(error)),
    }
}

fn make_tables(database: &Database) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    write.open_table(DEVICES)?;
    write.open_table(SEALED_SETS)?;
    write.open_table(META)?;
    write.commit()?;
    Ok(())
}

fn read_sets(database: &Database, sealer: Option<&Sealer>) -> Result<(u64, Vec<StoredDevice>), redb::Error> {
    let read = redb::ReadableDatabase::begin_read(database)?;
    let leader_term = read.open_table(META)?.get(LEADER_TERM)?.map_or(0, |term| term.value());
    let sealed_sets = read.open_table(SEALED_SETS)?;
    let mut devices = Vec::new();
    // Unknown is not empty: a device keeps what it runs until a controller sends its set again.
    let unreadable = |device: &str, error: &dyn std::fmt::Display| {
        tracing::error!(device, reason = "BadSet", %error, "a set on disk can't be read");
    };
    for entry in read.open_table(DEVICES)?.iter()? {
        let (key, value) = entry?;
        let mut device: StoredDevice = match serde_json::from_slice(value.value()) {
            Ok(device) => device,
            Err(error) => {
                unreadable(key.value(), &error);
                continue;
            }
        };
        if let Some(sealed) = sealed_sets.get(key.value())?.filter(|_| device.set.is_none()) {
            match unseal(sealer, key.value(), sealed.value()) {
                Ok(set) => device.set = Some(set),
                Err(error) => unreadable(key.value(), &error),
            }
        }
        devices.push(device);
    }
    Ok((leader_term, devices))
}

/// Why an encrypted set can't be read.
#[derive(Debug, thiserror::Error)]
enum SealedError {
    #[error("it is encrypted, and gateway.data_key_file is not set; set it to the file that was used before")]
    NoKey,
    #[error("{0}; is gateway.data_key_file the file that was used before?")]
    Seal(#[from] SealError),
    #[error("its content is not a set")]
    Content,
}

fn unseal(sealer: Option<&Sealer>, device: &str, sealed: &[u8]) -> Result<DeviceSet, SealedError> {
    let sealer = sealer.ok_or(SealedError::NoKey)?;
    let text = Zeroizing::new(sealer.unseal(device, sealed)?.into_owned());
    // What serde says may quote what it read.
    serde_json::from_slice(&text).map_err(|_| SealedError::Content)
}

fn read_modules(folder: &Path) -> io::Result<Vec<(ModuleDigest, u32)>> {
    let mut modules = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let digest = entry.file_name().to_str().and_then(|name| name.parse::<ModuleDigest>().ok());
        let bytes = u32::try_from(entry.metadata()?.len()).ok().filter(|bytes| *bytes <= MODULE_BYTES_MAX);
        match (digest, bytes) {
            (Some(digest), Some(bytes)) => {
                wasmbed_files::tighten(&entry.path())?;
                modules.push((digest, bytes));
            }
            // An upload that did not end.
            _ => fs::remove_file(entry.path())?,
        }
    }
    Ok(modules)
}

impl Opened {
    /// Starts the thread that writes.
    pub(crate) fn start(self, on_stored: OnStored) -> Result<(Store, WriterThread), StoreError> {
        let modules = Arc::new(self.folder.join("modules"));
        let (tasks, receiver) = mpsc::channel();
        let writer = Writer {
            file: self.file,
            database: Some(self.database),
            sealer: self.sealer,
            folder: self.folder,
            modules: Arc::clone(&modules),
            on_stored,
            condition: self.condition,
            retry_at: None,
        };
        let thread = std::thread::Builder::new()
            .name("gateway-store".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(StoreError::Thread)?;
        let writer = WriterThread { tasks: tasks.clone(), thread };
        Ok((Store { tasks, modules, uploads: Arc::default() }, writer))
    }
}

/// The thread that writes, for the one who ends it.
pub(crate) struct WriterThread {
    tasks: mpsc::Sender<Task>,
    thread: std::thread::JoinHandle<()>,
}

impl WriterThread {
    /// Does what was asked for so far and closes the disk: another process may open it when this returns, whoever
    /// still holds a [`Store`]. What is asked for afterwards is not done, and is not answered as done.
    pub(crate) async fn stop(self) {
        let _ = self.tasks.send(Task::Stop);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!(reason = "TaskPanicked", "disk thread panicked");
        }
    }
}

impl Store {
    /// Asks for an operation. The queue is bounded by those who ask: `control` has at most
    /// [`STORE_OPERATIONS_MAX`](wasmbed_control::gateway::config::STORE_OPERATIONS_MAX) sets under way and one record a
    /// device.
    pub(crate) fn start(&self, operation: StoreOperation) {
        // Refused only once the thread was stopped, and what then stays undone is not answered.
        let _ = self.tasks.send(Task::Operation(operation));
    }

    /// Writes a module, which the caller has checked against its digest; it is durable afterwards.
    pub(crate) async fn write_module(&self, digest: ModuleDigest, bytes: bytes::Bytes) -> io::Result<()> {
        let number = self.uploads.fetch_add(1, Ordering::Relaxed);
        let from = self.modules.join(format!("upload-{number}"));
        let path = from.clone();
        let written = tokio::task::spawn_blocking(move || {
            let written = wasmbed_files::create_private_file(&path).and_then(|mut file| {
                file.write_all(&bytes)?;
                file.sync_all()
            });
            if written.is_err() {
                // Half of it would take the room that others need.
                let _ = fs::remove_file(&path);
            }
            written
        })
        .await?;
        if let Err(error) = written {
            let _ = self.tasks.send(Task::Failed(error.to_string()));
            return Err(error);
        }
        let (done, placed) = oneshot::channel();
        // In the order of the other operations, so that an earlier deletion does not take the new file.
        let _ = self.tasks.send(Task::Place { digest, from, done });
        placed.await.map_err(io::Error::other)?
    }

    /// Reads a module and checks it against its name.
    pub(crate) async fn read_module(&self, digest: ModuleDigest) -> Result<Arc<[u8]>, StoreFailure> {
        let path = self.modules.join(digest.to_string());
        let read = tokio::task::spawn_blocking(move || {
            let bytes =
                fs::read(&path).map_err(|error| StoreFailure(format!("{}: {error}", path.display())))?;
            let found = ModuleDigest::of(&bytes);
            if found != digest {
                return Err(StoreFailure(format!("the file hashes to {found}")));
            }
            Ok(bytes.into())
        });
        read.await.unwrap_or_else(|error| Err(StoreFailure(error.to_string())))
    }
}

struct Writer {
    file: DatabaseFile,
    /// None while it can't be opened.
    database: Option<Database>,
    sealer: Option<Sealer>,
    folder: PathBuf,
    modules: Arc<PathBuf>,
    on_stored: OnStored,
    condition: Condition,
    /// After a failure: when the disk is tried next.
    retry_at: Option<Instant>,
}

impl Writer {
    fn run(mut self, tasks: &mpsc::Receiver<Task>) {
        let mut running = true;
        while running {
            let first = match self.retry_at {
                None => tasks.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                Some(at) => tasks.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            let first = match first {
                Ok(first) => first,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.try_disk();
                    continue;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            };
            let mut group: Vec<StoreOperation> = Vec::new();
            let mut next = Some(first);
            while let Some(task) = next.take() {
                match task {
                    Task::Operation(
                        operation @ (StoreOperation::Put { .. } | StoreOperation::Forget { .. }),
                    ) => {
                        group.push(operation);
                    }
                    Task::Operation(StoreOperation::DeleteModule { digest }) => self.delete_module(&digest),
                    // Reads are not this thread's: see `Store::read_module`.
                    Task::Operation(StoreOperation::LoadModule { .. }) => {}
                    Task::Place { digest, from, done } => {
                        let placed = self.place(&digest, &from);
                        if let Err(error) = &placed {
                            self.fail(error.to_string());
                        }
                        let _ = done.send(placed);
                    }
                    Task::Failed(why) => self.fail(why),
                    Task::Stop => running = false,
                }
                if running && group.len() < GROUP_MAX {
                    next = tasks.try_recv().ok();
                }
            }
            if !group.is_empty() {
                self.write(&group);
            }
        }
    }

    fn write(&mut self, group: &[StoreOperation]) {
        let result = match self.retry_at {
            // As it was a moment ago; who asks again finds it tried.
            Some(at) if Instant::now() < at => {
                Err(StoreFailure(self.condition.failing().unwrap_or_default()))
            }
            _ => self.write_now(group),
        };
        for operation in group {
            if let StoreOperation::Put { id, .. } | StoreOperation::Forget { id, .. } = operation {
                (self.on_stored)(*id, result.clone());
            }
        }
    }

    fn write_now(&mut self, group: &[StoreOperation]) -> Result<(), StoreFailure> {
        if self.database.is_none() {
            self.reopen()?;
        }
        let Some(database) = &self.database else {
            return Err(StoreFailure("the database is closed".to_owned()));
        };
        match transact(database, self.sealer.as_ref(), group) {
            Ok(()) => {
                self.recovered();
                Ok(())
            }
            Err(error) => {
                let told = error.to_string();
                self.fail(told.clone());
                // The database takes no write any more until it is opened anew. What it holds is not read back: it is what
                // was answered as stored, and perhaps this group, which its askers ask for again.
                let _ = self.reopen();
                Err(StoreFailure(told))
            }
        }
    }

    fn fail(&mut self, why: String) {
        if self.retry_at.is_none() {
            tracing::error!(
                reason = "StoreFailed",
                error = why,
                "the gateway's disk fails and is tried every second"
            );
        }
        self.condition.set_failing(Some(why));
        self.retry_at = Some(Instant::now() + RETRY_INTERVAL);
    }

    fn recovered(&mut self) {
        if self.retry_at.take().is_some() {
            tracing::info!("the gateway's disk works again");
            self.condition.set_failing(None);
        }
    }

    /// Closes the database first, since a file is opened once at a time.
    fn reopen(&mut self) -> Result<(), StoreFailure> {
        drop(self.database.take());
        match self.file.reopen() {
            Ok(database) => {
                self.database = Some(database);
                Ok(())
            }
            Err(error) => {
                self.fail(error.to_string());
                Err(StoreFailure(error.to_string()))
            }
        }
    }

    /// Nobody asks for anything: whether the disk would do it.
    fn try_disk(&mut self) {
        let room = wasmbed_files::check_room(&self.folder).map_err(|error| StoreFailure(error.to_string()));
        let tried = room.and_then(|()| if self.database.is_none() { self.reopen() } else { Ok(()) });
        match tried {
            Ok(()) => self.recovered(),
            Err(StoreFailure(error)) => self.fail(error),
        }
    }

    fn place(&self, digest: &ModuleDigest, from: &Path) -> io::Result<()> {
        fs::rename(from, self.modules.join(digest.to_string()))?;
        File::open(&*self.modules)?.sync_all()
    }

    fn delete_module(&self, digest: &ModuleDigest) {
        match fs::remove_file(self.modules.join(digest.to_string())) {
            Ok(()) => tracing::debug!(%digest, "module deleted"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(%digest, reason = "DeleteFailed", %error, "a module could not be deleted");
            }
        }
    }
}

fn transact(
    database: &Database,
    sealer: Option<&Sealer>,
    group: &[StoreOperation],
) -> Result<(), redb::Error> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| redb::Error::Io(io::Error::other(error));
    let write = database.begin_write()?;
    {
        let mut devices = write.open_table(DEVICES)?;
        let mut sealed_sets = write.open_table(SEALED_SETS)?;
        let mut meta = write.open_table(META)?;
        for operation in group {
            match operation {
                StoreOperation::Put { leader_term, devices: stored, .. } => {
                    meta.insert(LEADER_TERM, leader_term)?;
                    for device in stored {
                        let key = device.device.to_string();
                        let Records { record, sealed } = records(device, sealer, &key).map_err(failed)?;
                        devices.insert(key.as_str(), record.as_slice())?;
                        match sealed {
                            Some(sealed) => sealed_sets.insert(key.as_str(), sealed.as_slice())?,
                            None => sealed_sets.remove(key.as_str())?,
                        };
                    }
                }
                StoreOperation::Forget { device, .. } => {
                    devices.remove(device.to_string().as_str())?;
                    sealed_sets.remove(device.to_string().as_str())?;
                }
                StoreOperation::DeleteModule { .. } | StoreOperation::LoadModule { .. } => {}
            }
        }
    }
    write.commit()?;
    Ok(())
}

/// What is stored of a device.
struct Records {
    record: Vec<u8>,
    /// Its set, encrypted, if that has secrets.
    sealed: Option<Vec<u8>>,
}

/// The record of a device, and its set apart from that if it has secrets: encrypted, or not at all.
fn records(
    device: &StoredDevice,
    sealer: Option<&Sealer>,
    key: &str,
) -> Result<Records, Box<dyn std::error::Error + Send + Sync>> {
    let Some(set) = device.set.as_ref().filter(|set| set.has_secrets()) else {
        return Ok(Records { record: serde_json::to_vec(device)?, sealed: None });
    };
    let bare = StoredDevice { set: None, ..device.clone() };
    let sealed = match sealer {
        Some(sealer) => Some(sealer.seal(key, &Zeroizing::new(serde_json::to_vec(set)?))?),
        None => None,
    };
    Ok(Records { record: serde_json::to_vec(&bare)?, sealed })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use wasmbed_control::{ObjectKey, gateway_api::AssignmentEntry};
    use wasmbed_protocol::{EnvVar, List, RestartPolicy, Spec, SpecHash, ValuesMac, encode_spec};

    use super::*;

    fn device(name: &str, revision: u64) -> StoredDevice {
        let device = ObjectKey { namespace: "default".into(), name: name.into() };
        let set = Some(DeviceSet { device: device.clone(), revision, assignments: vec![] });
        StoredDevice { device, uid: Some("u".into()), admitted_key: None, set, order: None, settings: None }
    }

    fn start(opened: Opened) -> (Store, WriterThread, mpsc::Receiver<StoreId>) {
        let (sender, receiver) = mpsc::channel();
        let sender = Mutex::new(sender);
        let on_stored: OnStored = Box::new(move |id, result| {
            result.unwrap();
            sender.lock().unwrap().send(id).unwrap();
        });
        let (store, thread) = opened.start(on_stored).unwrap();
        (store, thread, receiver)
    }

    #[tokio::test]
    async fn what_was_answered_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (store, thread, stored) = start(open(folder.path(), None).unwrap());
        for number in 0..600 {
            let devices = vec![device(&format!("d{}", number % 50), number)];
            store.start(StoreOperation::Put { id: StoreId(number), leader_term: number, devices });
        }
        let key = device("d0", 0).device;
        store.start(StoreOperation::Forget { id: StoreId(600), device: key });
        assert_eq!(
            (0..601).map(|_| stored.recv().unwrap().0).collect::<Vec<_>>(),
            (0..601).collect::<Vec<_>>()
        );
        let last = ObjectKey { namespace: "default".into(), name: "last".into() };
        store.start(StoreOperation::Forget { id: StoreId(601), device: last });
        thread.stop().await;
        assert_eq!(stored.try_recv().unwrap(), StoreId(601), "what was asked for before the stop is done");
        store.start(StoreOperation::Forget { id: StoreId(602), device: device("d1", 0).device });
        assert!(stored.try_recv().is_err());
        let restored = open(folder.path(), None).unwrap().restored;
        assert_eq!((restored.leader_term, restored.devices.len()), (599, 49));
        assert!(restored.devices.contains(&device("d49", 599)));
    }

    #[test]
    fn a_store_of_version_0_1_0_opens() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("sets.redb"), include_bytes!("../tests/fixtures/sets-0.1.0.redb"))
            .unwrap();
        let opened = open(folder.path(), None).unwrap();
        assert_eq!(opened.condition.set_aside(), None);
        assert!(opened.restored.leader_term > 0);
        let device = &opened.restored.devices[0];
        assert!(device.uid.is_some() && device.set.as_ref().is_some_and(|set| !set.assignments.is_empty()));
    }

    #[test]
    fn a_damaged_database_is_set_aside_and_said_so() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("gateway");
        let path = folder.join("sets.redb");
        drop(open(&folder, None).unwrap());
        for (round, damage) in [&b""[..], &b"no database"[..], &[7; 9000][..]].into_iter().enumerate() {
            fs::write(&path, damage).unwrap();
            let opened = open(&folder, None).unwrap();
            assert_eq!((opened.restored.leader_term, opened.restored.devices.len()), (0, 0));
            let told = opened.condition.set_aside().unwrap();
            assert!(told.contains(&format!("sets.redb.damaged-{}", round + 1)), "{told}");
            assert_eq!(opened.condition.failing(), None);
        }
        assert_eq!(fs::read(folder.join("sets.redb.damaged-2")).unwrap(), b"no database");
        assert_eq!(open(&folder, None).unwrap().condition.set_aside(), None, "it is said once");
        for (path, mode) in [(&folder, 0o700), (&folder.join("modules"), 0o700), (&path, 0o600)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
        }
    }

    #[tokio::test]
    async fn modules_are_checked_when_they_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let (store, thread, _) = start(open(folder.path(), None).unwrap());
        let digest = ModuleDigest::of(b"module");
        store.write_module(digest, bytes::Bytes::from_static(b"module")).await.unwrap();
        assert_eq!(&*store.read_module(digest).await.unwrap(), b"module");
        let path = folder.path().join("modules").join(digest.to_string());
        fs::write(&path, b"spoilt").unwrap();
        assert!(store.read_module(digest).await.is_err());
        store.start(StoreOperation::DeleteModule { digest });
        store.write_module(digest, bytes::Bytes::from_static(b"module")).await.unwrap();
        assert!(path.exists(), "the upload came after the deletion");
        fs::write(folder.path().join("modules").join("upload-7"), b"half").unwrap();
        thread.stop().await;
        assert!(store.write_module(digest, bytes::Bytes::from_static(b"module")).await.is_err());
        let restored = open(folder.path(), None).unwrap().restored;
        assert_eq!(restored.modules, [(digest, 6)]);
        assert_eq!(fs::read_dir(folder.path().join("modules")).unwrap().count(), 1);
    }

    const SECRET: &str = "m4rked-value-of-a-secret";

    /// A device whose set has a secret.
    fn secretive(name: &str, revision: u64) -> StoredDevice {
        let env = [EnvVar { name: "TOKEN", value: SECRET }];
        let spec = Spec {
            uid: Default::default(),
            name: "default/app",
            digest: ModuleDigest::default(),
            module_bytes: 1,
            memory_limit_bytes: 0,
            cpu_limit_ms: 0,
            restart_policy: RestartPolicy::Always,
            args: List::empty(),
            env: List::new(&env),
            capabilities: List::empty(),
            values_mac: Some(ValuesMac([7; 16])),
            i2c: List::empty(),
            uart: List::empty(),
            gpio: List::empty(),
            spi: List::empty(),
            topics: List::empty(),
        };
        let mut buffer = [0; 1_024];
        let length = encode_spec(&spec, &mut buffer).unwrap();
        let entry = AssignmentEntry {
            application_uid: spec.uid.to_string(),
            application: spec.name.to_owned(),
            spec_hash: SpecHash::of(&buffer[..length]).to_string(),
            spec: base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &buffer[..length]).into(),
            digest: spec.digest.to_string(),
            correlation_id: "00".repeat(16),
        };
        let mut device = device(name, revision);
        device.set.as_mut().unwrap().assignments = vec![entry];
        assert!(device.set.as_ref().unwrap().has_secrets());
        device
    }

    /// Whether the database has the secret, as it is or as a part of base64.
    fn shows_secret(folder: &Path) -> bool {
        let held = fs::read(folder.join("sets.redb")).unwrap();
        // Base64 of three bytes is the same four characters at any of three places.
        let encoded = (0..3).map(|start| {
            let whole = &SECRET.as_bytes()[start..];
            base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &whole[..whole.len() / 3 * 3])
                .into_bytes()
        });
        encoded.chain([SECRET.into()]).any(|part| held.windows(part.len()).any(|found| found == part))
    }

    async fn write(folder: &Path, key: Option<&Path>, devices: Vec<StoredDevice>) {
        let (store, thread, _stored) = start(open(folder, key).unwrap());
        store.start(StoreOperation::Put { id: StoreId(0), leader_term: 1, devices });
        thread.stop().await;
    }

    #[tokio::test]
    async fn a_set_with_secrets_is_on_the_disk_under_its_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (data, key) = (folder.path().join("data"), folder.path().join("key"));
        wasmbed_files::DataKey::provide(&key).unwrap();
        write(&data, Some(&key), vec![secretive("a", 4), device("b", 5)]).await;
        assert!(!shows_secret(&data));
        let read = |key: Option<&Path>| open(&data, key).unwrap().restored.devices;
        assert_eq!(read(Some(&key)), [secretive("a", 4), device("b", 5)]);
        // Without its key or with another one the device is known, and its set is not.
        let other = folder.path().join("other");
        wasmbed_files::DataKey::provide(&other).unwrap();
        for key in [None, Some(other.as_path())] {
            assert_eq!(read(key), [StoredDevice { set: None, ..secretive("a", 4) }, device("b", 5)]);
        }
        // The next set takes its place, with secrets or without, and so does none.
        write(&data, Some(&key), vec![device("a", 6)]).await;
        assert_eq!(read(Some(&key))[0], device("a", 6));
        let (store, thread, _stored) = start(open(&data, Some(&key)).unwrap());
        let again = vec![secretive("a", 7)];
        store.start(StoreOperation::Put { id: StoreId(0), leader_term: 1, devices: again });
        store.start(StoreOperation::Forget { id: StoreId(1), device: device("a", 0).device });
        let bare = StoredDevice { set: None, ..device("a", 0) };
        store.start(StoreOperation::Put { id: StoreId(2), leader_term: 1, devices: vec![bare.clone()] });
        thread.stop().await;
        assert_eq!(read(Some(&key))[0], bare, "what was forgotten does not come back");
    }

    #[tokio::test]
    async fn without_a_key_a_set_with_secrets_is_not_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), None, vec![device("a", 3)]).await;
        write(folder.path(), None, vec![secretive("a", 4), device("b", 5)]).await;
        assert!(!shows_secret(folder.path()));
        let restored = open(folder.path(), None).unwrap().restored.devices;
        // Not the one before: that is not what the device is to run.
        assert_eq!(restored, [StoredDevice { set: None, ..secretive("a", 4) }, device("b", 5)]);
    }

    #[test]
    fn a_key_file_that_is_not_there_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = open(folder.path(), Some(&folder.path().join("none"))).err().unwrap();
        assert!(error.to_string().starts_with("gateway.data_key_file: "), "{error}");
    }
}
