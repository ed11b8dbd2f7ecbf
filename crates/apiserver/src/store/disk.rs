//! [`Tables`] on a redb file: a table of objects and one of numbers.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction,
};
use wasmbed_files::{DatabaseFile, KeyFileError, Sealer};

use super::seal::{ENCRYPTED, seal, unseal};
use super::storage::{Read, StorageError, Tables};

const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const REVISION: &str = "revision";
const FORMAT: &str = "format";
/// Id of the key that encrypts.
const ENCRYPTION_KEY: &str = "encryption-key";
/// File of the keys in the folder, unless another one is named.
const KEYS_FILE: &str = "encryption-keys";
/// Version of the layout of tables and keys.
const FORMAT_VERSION: u64 = 1;
/// Pages kept in memory: a fleet's devices and some modules; the file system caches the rest.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder can't be made or read.
    #[error("data directory {path}: {error}")]
    Folder {
        /// As it was configured.
        path: String,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// Another process has it open, or it is damaged.
    #[error(transparent)]
    Database(#[from] wasmbed_files::OpenError),
    /// A newer version of this software wrote it.
    #[error("the store has format {found}, but this version reads {FORMAT_VERSION}")]
    Format {
        /// Format of the file.
        found: u64,
    },
    /// The file can't be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The keys that encrypt Secrets can't be used.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
}

/// The file. Clones share it.
#[derive(Clone, Debug)]
pub struct Disk {
    opener: Arc<dyn Open>,
    /// `None` while it can't be opened.
    database: Arc<RwLock<Option<Database>>>,
    /// How often it was closed for a reopen.
    closed: Arc<AtomicU64>,
    sealer: Arc<Sealer>,
}

/// How the database is opened; tests inject a disk that fails.
pub(super) trait Open: std::fmt::Debug + Send + Sync {
    /// Opens or creates it.
    fn open(&self) -> Result<Database, wasmbed_files::OpenError>;
    /// Opens it again after it was closed.
    fn reopen(&self) -> Result<Database, wasmbed_files::OpenError>;
    /// Whether the disk has space.
    fn check_room(&self) -> std::io::Result<()>;
}

#[derive(Debug)]
struct InFolder {
    folder: PathBuf,
    file: DatabaseFile,
}

impl Open for InFolder {
    fn open(&self) -> Result<Database, wasmbed_files::OpenError> {
        self.file.open(prepare)
    }

    fn reopen(&self) -> Result<Database, wasmbed_files::OpenError> {
        self.file.reopen()
    }

    fn check_room(&self) -> std::io::Result<()> {
        wasmbed_files::check_room(&self.folder)
    }
}

/// The tables of a new store.
fn prepare(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(OBJECTS)?;
    transaction.open_table(NUMBERS)?.insert(FORMAT, FORMAT_VERSION)?;
    transaction.commit()?;
    Ok(())
}

/// The objects at one revision. It pins old pages on disk, so keep it for a short time only.
pub struct Snapshot {
    objects: ReadOnlyTable<&'static str, &'static [u8]>,
    revision: u64,
    sealer: Arc<Sealer>,
    closed: Arc<AtomicU64>,
    /// Value of `closed` when it was taken.
    closed_before: u64,
}

impl Snapshot {
    /// The revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether the store was closed since, so that this snapshot can't be read any more.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) != self.closed_before
    }

    fn explain<T>(&self, read: Result<T, StorageError>) -> Result<T, StorageError> {
        read.map_err(|error| if self.is_closed() { StorageError::Reopened } else { error })
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl Disk {
    /// Opens or creates the store in a folder. `keys` is the file of the keys that encrypt Secrets, `encryption-keys` in that
    /// folder by default; with a new store it is made if it isn't there.
    pub fn open(folder: &Path, keys: Option<&Path>) -> Result<Disk, OpenError> {
        let shown = || folder.display().to_string();
        wasmbed_files::private_folder(folder).map_err(|error| OpenError::Folder { path: shown(), error })?;
        let file = DatabaseFile::new(folder.join("objects.redb"), CACHE_BYTES);
        let keys = keys.map_or_else(|| folder.join(KEYS_FILE), Path::to_owned);
        Disk::open_with(Arc::new(InFolder { folder: folder.to_owned(), file }), &keys)
    }

    pub(super) fn open_with(opener: Arc<dyn Open>, keys: &Path) -> Result<Disk, OpenError> {
        let database = opener.open()?;
        let transaction = database.begin_write().map_err(failed)?;
        let sealer = {
            let mut objects = transaction.open_table(OBJECTS).map_err(failed)?;
            let mut numbers = transaction.open_table(NUMBERS).map_err(failed)?;
            let format = numbers.get(FORMAT).map_err(failed)?.map(|value| value.value());
            if format.is_none() {
                numbers.insert(FORMAT, FORMAT_VERSION).map_err(failed)?;
            }
            let format = format.unwrap_or(FORMAT_VERSION);
            if format != FORMAT_VERSION {
                return Err(OpenError::Format { found: format });
            }
            let known = numbers.get(ENCRYPTION_KEY).map_err(failed)?.map(|value| value.value());
            let sealer = Sealer::open(keys, known)?;
            if known != Some(sealer.id()) {
                seal_again(&mut objects, &sealer)?;
                numbers.insert(ENCRYPTION_KEY, sealer.id()).map_err(failed)?;
            }
            sealer
        };
        transaction.commit().map_err(failed)?;
        let database = Arc::new(RwLock::new(Some(database)));
        Ok(Disk { opener, database, closed: Arc::default(), sealer: Arc::new(sealer) })
    }

    /// Closes the file and opens it again; it continues at the last commit that reached the disk. No transaction may be
    /// open; earlier snapshots can't be read any more.
    pub(super) fn reopen(&self) -> Result<(), StorageError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        self.closed.fetch_add(1, Ordering::Release);
        // Closes and unlocks the file.
        drop(database.take());
        *database = Some(self.opener.reopen().map_err(failed)?);
        Ok(())
    }

    /// Whether the disk has space.
    pub(super) fn check_room(&self) -> Result<(), StorageError> {
        self.opener.check_room().map_err(failed)
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::TransactionError>,
    ) -> Result<T, StorageError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        work(database.as_ref().ok_or(StorageError::Closed)?).map_err(failed)
    }

    /// The objects at the last commit.
    pub fn snapshot(&self) -> Result<Snapshot, StorageError> {
        let closed_before = self.closed.load(Ordering::Acquire);
        let transaction = self.with(|database| database.begin_read())?;
        let closed = Arc::clone(&self.closed);
        let objects = transaction.open_table(OBJECTS).map_err(failed)?;
        let sealer = Arc::clone(&self.sealer);
        let mut snapshot = Snapshot { objects, revision: 0, sealer, closed, closed_before };
        let read = || {
            let numbers = transaction.open_table(NUMBERS).map_err(failed)?;
            let revision = numbers.get(REVISION).map_err(failed)?;
            Ok(revision.map_or(0, |value| value.value()))
        };
        snapshot.revision = snapshot.explain(read())?;
        Ok(snapshot)
    }

    /// Begins a batch; it is rolled back unless [`Disk::commit`] is called.
    pub(super) fn begin(&self) -> Result<WriteTransaction, StorageError> {
        self.with(|database| database.begin_write())
    }

    pub(super) fn open_objects<'t>(
        &self,
        transaction: &'t WriteTransaction,
    ) -> Result<Batch<'t>, StorageError> {
        let objects = transaction.open_table(OBJECTS).map_err(failed)?;
        Ok(Batch { objects, sealer: Arc::clone(&self.sealer) })
    }

    /// Makes a batch durable: once this returns, it survives a crash of the process or the machine.
    pub(super) fn commit(transaction: WriteTransaction, revision: u64) -> Result<(), StorageError> {
        transaction.open_table(NUMBERS).map_err(failed)?.insert(REVISION, revision).map_err(failed)?;
        transaction.commit().map_err(failed)
    }
}

/// The objects within a write transaction.
pub(super) struct Batch<'t> {
    objects: Table<'t, &'static str, &'static [u8]>,
    sealer: Arc<Sealer>,
}

impl Read for Batch<'_> {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        get(&self.objects, &self.sealer, key)
    }

    fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(&str, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        scan(&self.objects, &self.sealer, prefix, after, visit)
    }
}

impl Tables for Batch<'_> {
    fn put(&mut self, key: &str, object: &[u8]) -> Result<(), StorageError> {
        let sealed = seal(&self.sealer, key, object)?;
        self.objects.insert(key, sealed.as_deref().unwrap_or(object)).map_err(failed)?;
        Ok(())
    }

    fn remove(&mut self, key: &str) -> Result<(), StorageError> {
        self.objects.remove(key).map_err(failed)?;
        Ok(())
    }
}

impl Read for Snapshot {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        self.explain(get(&self.objects, &self.sealer, key))
    }

    fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(&str, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        self.explain(scan(&self.objects, &self.sealer, prefix, after, visit))
    }
}

fn get(
    objects: &impl ReadableTable<&'static str, &'static [u8]>,
    sealer: &Sealer,
    key: &str,
) -> Result<Option<Vec<u8>>, StorageError> {
    let stored = objects.get(key).map_err(failed)?;
    stored.map(|value| Ok(unseal(sealer, key, value.value())?.into_owned())).transpose()
}

/// Encrypts under the newest key what is encrypted under another one, so that older keys can go.
fn seal_again(
    objects: &mut Table<'_, &'static str, &'static [u8]>,
    sealer: &Sealer,
) -> Result<(), StorageError> {
    let mut sealed = Vec::new();
    for entry in objects.range(ENCRYPTED..).map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        if !key.value().starts_with(ENCRYPTED) {
            break;
        }
        let object = unseal(sealer, key.value(), value.value())?;
        if let Some(again) = seal(sealer, key.value(), &object)? {
            sealed.push((key.value().to_owned(), again));
        }
    }
    for (key, value) in sealed {
        objects.insert(key.as_str(), value.as_slice()).map_err(failed)?;
    }
    Ok(())
}

fn scan(
    objects: &impl ReadableTable<&'static str, &'static [u8]>,
    sealer: &Sealer,
    prefix: &str,
    after: Option<&str>,
    visit: &mut dyn FnMut(&str, &[u8]) -> ControlFlow<()>,
) -> Result<(), StorageError> {
    for entry in objects.range(after.unwrap_or(prefix)..).map_err(failed)? {
        let (key, object) = entry.map_err(failed)?;
        let key = key.value();
        if !key.starts_with(prefix) {
            break;
        }
        if after != Some(key) && visit(key, &unseal(sealer, key, object.value())?).is_break() {
            break;
        }
    }
    Ok(())
}

fn failed(error: impl std::fmt::Display) -> StorageError {
    StorageError::Failed(error.to_string())
}
