//! Sets and modules on the gateway's disk.
//!
//! Sets stand in one redb database, a device to a key; a module is a file named by its digest, written beside its place,
//! synced, moved there, and checked against its name whenever it is read. One thread does the writing: what waits for
//! it shares one transaction, so that 1,000 sets cost one sync and not 1,000.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use redb::{Database, ReadableTable, TableDefinition};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use wasmbed_control::gateway::{Restored, StoreId, StoreOperation, StoredDevice};
use wasmbed_protocol::{ModuleDigest, limits::MODULE_BYTES_MAX};

use crate::journal::name;

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
        /// Which.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// I/O or damage in the database of sets.
    #[error("{path}: {source}")]
    Database {
        /// Which.
        path: PathBuf,
        /// What happened.
        source: Box<redb::Error>,
    },
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
    /// Ends the thread once all that was asked for before is done.
    Stop,
}

/// How operations end.
pub(crate) type OnStored = Box<dyn Fn(StoreId, Result<(), String>) + Send>;

/// The gateway's disk; cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    tasks: mpsc::Sender<Task>,
    modules: Arc<PathBuf>,
    uploads: Arc<AtomicU64>,
}

/// An opened disk whose thread does not run yet.
pub(crate) struct Opened {
    database: Database,
    folder: PathBuf,
    /// What was on it.
    pub(crate) restored: Restored,
}

/// Pages of the database in memory. It is read at the start only; after that sets are written, and never read back.
const CACHE_BYTES: usize = 256 * 1024;

/// Opens the disk, creating it if it is empty.
pub(crate) fn open(folder: &Path) -> Result<Opened, StoreError> {
    let modules = folder.join("modules");
    fs::create_dir_all(&modules).map_err(|source| StoreError::Io { path: modules.clone(), source })?;
    let path = folder.join("sets.redb");
    let failed = |source: redb::Error| StoreError::Database { path: path.clone(), source: Box::new(source) };
    let database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create(&path)
        .map_err(|error| failed(error.into()))?;
    let (leader_term, devices) = read_sets(&database).map_err(failed)?;
    let modules =
        read_modules(&modules).map_err(|source| StoreError::Io { path: modules.clone(), source })?;
    Ok(Opened { database, folder: folder.to_owned(), restored: Restored { leader_term, devices, modules } })
}

fn read_sets(database: &Database) -> Result<(u64, Vec<StoredDevice>), redb::Error> {
    let write = database.begin_write()?;
    write.open_table(DEVICES)?;
    write.open_table(META)?;
    write.commit()?;
    let read = redb::ReadableDatabase::begin_read(database)?;
    let leader_term = read.open_table(META)?.get(LEADER_TERM)?.map_or(0, |term| term.value());
    let mut devices = Vec::new();
    for entry in read.open_table(DEVICES)?.iter()? {
        let (key, value) = entry?;
        match serde_json::from_slice(value.value()) {
            Ok(device) => devices.push(device),
            // Unknown is not empty: the device keeps what it runs until a controller sends its set again.
            Err(error) => tracing::error!(device = key.value(), %error, "a set on disk can't be read"),
        }
    }
    Ok((leader_term, devices))
}

fn read_modules(folder: &Path) -> io::Result<Vec<(ModuleDigest, u32)>> {
    let mut modules = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let mut digest = [0; ModuleDigest::LEN];
        let named =
            entry.file_name().to_str().is_some_and(|name| hex::decode_to_slice(name, &mut digest).is_ok());
        let bytes = u32::try_from(entry.metadata()?.len()).ok().filter(|bytes| *bytes <= MODULE_BYTES_MAX);
        match bytes {
            Some(bytes) if named => modules.push((ModuleDigest(digest), bytes)),
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
        let writer = Writer { database: self.database, modules: Arc::clone(&modules), on_stored };
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
            tracing::error!("the thread that writes the gateway's disk ended by a bug");
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
        tokio::task::spawn_blocking(move || {
            let mut file = File::create(&path)?;
            file.write_all(&bytes)?;
            file.sync_all()
        })
        .await??;
        let (done, placed) = oneshot::channel();
        // In the order of the other operations, so that an earlier deletion does not take the new file.
        let _ = self.tasks.send(Task::Place { digest, from, done });
        placed.await.map_err(io::Error::other)?
    }

    /// Reads a module and checks it against its name.
    pub(crate) async fn read_module(&self, digest: ModuleDigest) -> Result<Arc<[u8]>, String> {
        let path = self.modules.join(digest.to_string());
        let read = tokio::task::spawn_blocking(move || {
            let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let found = ModuleDigest(Sha256::digest(&bytes).into());
            if found == digest { Ok(bytes.into()) } else { Err(format!("the file hashes to {found}")) }
        });
        read.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

struct Writer {
    database: Database,
    modules: Arc<PathBuf>,
    on_stored: OnStored,
}

impl Writer {
    fn run(self, tasks: &mpsc::Receiver<Task>) {
        let mut running = true;
        while running && let Ok(first) = tasks.recv() {
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
                        let _ = done.send(self.place(&digest, &from));
                    }
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

    fn write(&self, group: &[StoreOperation]) {
        let result = self.transact(group).map_err(|error| error.to_string());
        for operation in group {
            if let StoreOperation::Put { id, .. } | StoreOperation::Forget { id, .. } = operation {
                (self.on_stored)(*id, result.clone());
            }
        }
    }

    fn transact(&self, group: &[StoreOperation]) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
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
                            devices.insert(name(&device.device).as_str(), value.as_slice())?;
                        }
                    }
                    StoreOperation::Forget { device, .. } => {
                        devices.remove(name(device).as_str())?;
                    }
                    StoreOperation::DeleteModule { .. } | StoreOperation::LoadModule { .. } => {}
                }
            }
        }
        write.commit()?;
        Ok(())
    }

    fn place(&self, digest: &ModuleDigest, from: &Path) -> io::Result<()> {
        fs::rename(from, self.modules.join(digest.to_string()))?;
        File::open(&*self.modules)?.sync_all()
    }

    fn delete_module(&self, digest: &ModuleDigest) {
        match fs::remove_file(self.modules.join(digest.to_string())) {
            Ok(()) => tracing::debug!(%digest, "module deleted"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%digest, %error, "a module could not be deleted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use wasmbed_control::exchange::{DeviceKey, DeviceSet};

    use super::*;

    fn device(name: &str, revision: u64) -> StoredDevice {
        let device = DeviceKey { namespace: "default".into(), name: name.into() };
        let set = Some(DeviceSet { device: device.clone(), revision, assignments: vec![] });
        StoredDevice { device, uid: Some("u".into()), admitted_key: None, set }
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
        let last = DeviceKey { namespace: "default".into(), name: "last".into() };
        store.start(StoreOperation::Forget { id: StoreId(601), device: last });
        thread.stop().await;
        assert_eq!(stored.try_recv().unwrap(), StoreId(601), "what was asked for before the stop is done");
        store.start(StoreOperation::Forget { id: StoreId(602), device: device("d1", 0).device });
        assert!(stored.try_recv().is_err());
        let restored = open(folder.path()).unwrap().restored;
        assert_eq!((restored.leader_term, restored.devices.len()), (599, 49));
        assert!(restored.devices.contains(&device("d49", 599)));
    }

    #[tokio::test]
    async fn modules_are_checked_when_they_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let (store, thread, _) = start(open(folder.path()).unwrap());
        let digest = ModuleDigest(Sha256::digest(b"module").into());
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
