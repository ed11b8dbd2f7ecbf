//! Sets and modules on the gateway's disk.
//!
//! Sets are kept in one redb database, one key per device; a module is a file named by its digest, written next to its place,
//! synced, moved there, and checked against its name whenever it is read. One thread does the writing: what waits for
//! it shares one transaction, so that 1,000 sets cost one sync and not 1,000.
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
use wasmbed_control::gateway::{Restored, StoreFailure, StoreId, StoreOperation, StoredDevice};
use wasmbed_files::{DatabaseFile, OpenError};
use wasmbed_protocol::{ModuleDigest, limits::MODULE_BYTES_MAX};

const DEVICES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("devices");
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
    /// How it is.
    pub(crate) condition: Condition,
    folder: PathBuf,
    /// What was on it.
    pub(crate) restored: Restored,
}

/// Pages of the database in memory. It is read at the start only; after that sets are written, and never read back.
const CACHE_BYTES: usize = 256 * 1024;

/// Opens the disk, creating it if it is empty.
pub(crate) fn open(folder: &Path) -> Result<Opened, StoreError> {
    let modules = folder.join("modules");
    for folder in [folder, &modules] {
        wasmbed_files::private_folder(folder)
            .map_err(|source| StoreError::Io { path: folder.to_owned(), source })?;
    }
    let file = DatabaseFile::new(folder.join("sets.redb"), CACHE_BYTES);
    let condition = Condition::default();
    let (database, (leader_term, devices)) = match open_sets(&file) {
        Err(StoreError::Open(OpenError::Damaged { path, why })) => {
            let aside = wasmbed_files::set_aside(&path)
                .map_err(|source| StoreError::Io { path: path.clone(), source })?;
            let told = format!("{} was damaged ({why}) and is now {}", path.display(), aside.display());
            tracing::error!(
                reason = "StoreSetAside",
                "{told}; nothing is known of any device until a controller sends its set, devices keep what they run"
            );
            condition.lock().set_aside = Some(told);
            open_sets(&file)?
        }
        other => other?,
    };
    let modules =
        read_modules(&modules).map_err(|source| StoreError::Io { path: modules.clone(), source })?;
    let restored = Restored { leader_term, devices, modules };
    Ok(Opened { file, database, condition, folder: folder.to_owned(), restored })
}

fn open_sets(file: &DatabaseFile) -> Result<(Database, (u64, Vec<StoredDevice>)), StoreError> {
    let failed =
        |source: redb::Error| StoreError::Database { path: file.path().to_owned(), source: Box::new(source) };
    let database = file.open(make_tables)?;
    make_tables(&database).map_err(failed)?;
    match read_sets(&database) {
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
    write.open_table(META)?;
    write.commit()?;
    Ok(())
}

fn read_sets(database: &Database) -> Result<(u64, Vec<StoredDevice>), redb::Error> {
    let read = redb::ReadableDatabase::begin_read(database)?;
    let leader_term = read.open_table(META)?.get(LEADER_TERM)?.map_or(0, |term| term.value());
    let mut devices = Vec::new();
    for entry in read.open_table(DEVICES)?.iter()? {
        let (key, value) = entry?;
        match serde_json::from_slice(value.value()) {
            Ok(device) => devices.push(device),
            // Unknown is not empty: the device keeps what it runs until a controller sends its set again.
            Err(error) => {
                tracing::error!(device = key.value(), reason = "BadSet", %error, "a set on disk can't be read");
            }
        }
    }
    Ok((leader_term, devices))
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
        match transact(database, group) {
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

fn transact(database: &Database, group: &[StoreOperation]) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut devices = write.open_table(DEVICES)?;
        let mut meta = write.open_table(META)?;
        for operation in group {
            match operation {
                StoreOperation::Put { leader_term, devices: stored, .. } => {
                    meta.insert(LEADER_TERM, leader_term)?;
                    for device in stored {
                        let value = serde_json::to_vec(device)
                            .map_err(|error| redb::Error::Io(io::Error::other(error)))?;
                        devices.insert(device.device.to_string().as_str(), value.as_slice())?;
                    }
                }
                StoreOperation::Forget { device, .. } => {
                    devices.remove(device.to_string().as_str())?;
                }
                StoreOperation::DeleteModule { .. } | StoreOperation::LoadModule { .. } => {}
            }
        }
    }
    write.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use wasmbed_control::{ObjectKey, gateway_api::DeviceSet};

    use super::*;

    fn device(name: &str, revision: u64) -> StoredDevice {
        let device = ObjectKey { namespace: "default".into(), name: name.into() };
        let set = Some(DeviceSet { device: device.clone(), revision, assignments: vec![] });
        StoredDevice { device, uid: Some("u".into()), admitted_key: None, set, order: None }
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
        let (store, thread, stored) = start(open(folder.path()).unwrap());
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
        let restored = open(folder.path()).unwrap().restored;
        assert_eq!((restored.leader_term, restored.devices.len()), (599, 49));
        assert!(restored.devices.contains(&device("d49", 599)));
    }

    #[test]
    fn a_store_of_version_0_1_0_opens() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("sets.redb"), include_bytes!("../tests/fixtures/sets-0.1.0.redb"))
            .unwrap();
        let opened = open(folder.path()).unwrap();
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
        drop(open(&folder).unwrap());
        for (round, damage) in [&b""[..], &b"no database"[..], &[7; 9000][..]].into_iter().enumerate() {
            fs::write(&path, damage).unwrap();
            let opened = open(&folder).unwrap();
            assert_eq!((opened.restored.leader_term, opened.restored.devices.len()), (0, 0));
            let told = opened.condition.set_aside().unwrap();
            assert!(told.contains(&format!("sets.redb.damaged-{}", round + 1)), "{told}");
            assert_eq!(opened.condition.failing(), None);
        }
        assert_eq!(fs::read(folder.join("sets.redb.damaged-2")).unwrap(), b"no database");
        assert_eq!(open(&folder).unwrap().condition.set_aside(), None, "it is said once");
        for (path, mode) in [(&folder, 0o700), (&folder.join("modules"), 0o700), (&path, 0o600)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
        }
    }

    #[tokio::test]
    async fn modules_are_checked_when_they_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let (store, thread, _) = start(open(folder.path()).unwrap());
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
        let restored = open(folder.path()).unwrap().restored;
        assert_eq!(restored.modules, [(digest, 6)]);
        assert_eq!(fs::read_dir(folder.path().join("modules")).unwrap().count(), 1);
    }
}
