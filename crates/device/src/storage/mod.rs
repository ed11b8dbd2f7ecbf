//! The device's storage: modules, the state record, the identity record and applications' data, each in a file of its own.
//!
//! ```text
//! staged-HEX  --sync, rename, sync names-->  module-HEX          a module, named by its SHA-256
//! state.new   --sync, rename, sync names-->  state               the agent's record
//! identity.new --sync, rename, sync names--> identity            the key that the device made, and its chains
//! data-HEX.new -sync, rename, sync names-->  data-HEX            an application's data, named by its UID
//! ```
//! The identity record is written over when it is replaced, and applications' data when they are removed.
//!
//! A name without `.new` or `staged-` therefore stands for whole, durable content at any moment, and opening the store
//! only has to clear the rest away. A staged module is not synced while it grows: what is lost of it is pulled again, and
//! its hash is checked before it is committed.

mod disk;
mod medium;
mod memory;
mod overwrite;
mod queue;

use std::{collections::BTreeMap, io, path::PathBuf};

use wasmbed_agent::storage::{Done, Inventory, Operation, Outcome, StorageError};
use wasmbed_protocol::{ApplicationUid, ModuleDigest, limits::MODULE_BYTES_MAX};

pub use disk::Disk;
pub use medium::Medium;
pub use memory::{Memory, SharedModules};
pub(crate) use queue::{DeviceStorage, StorageThread};

const STATE: &str = "state";
const IDENTITY: &str = "identity";
const MODULE: &str = "module-";
const STAGED: &str = "staged-";
const DATA: &str = "data-";
const NEW: &str = ".new";

/// A record is read whole; the largest state record is a tenth of this.
const RECORD_BYTES_MAX: usize = 1_048_576;

/// The store on some medium, bounded in bytes.
#[derive(Debug)]
pub struct Store<M> {
    medium: M,
    lengths: BTreeMap<String, u64>,
    capacity_bytes: u64,
    provisioned_key: ProvisionedKey,
}

/// Where the key is that a device was started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProvisionedKey {
    /// In memory alone: it ends with the process.
    #[default]
    Nowhere,
    /// In this file.
    File(PathBuf),
    /// Somewhere that this process does not know of.
    Elsewhere,
}

impl<M: Medium> Store<M> {
    /// Opens what is there after any kind of end: records that were being replaced go back to what they were.
    ///
    /// # Errors
    /// The medium failed.
    pub fn open(mut medium: M, capacity_bytes: u64) -> io::Result<Self> {
        let mut lengths = BTreeMap::new();
        let mut cleared = false;
        for (name, length) in medium.list()? {
            if name.ends_with(NEW) {
                medium.remove(&name)?;
                cleared = true;
            } else {
                lengths.insert(name, length);
            }
        }
        if cleared {
            medium.sync_names()?;
        }
        Ok(Self { medium, lengths, capacity_bytes, provisioned_key: ProvisionedKey::default() })
    }

    /// Says what [`Operation::EraseProvisioned`] is about.
    #[must_use]
    pub fn with_provisioned_key(mut self, key: ProvisionedKey) -> Self {
        self.provisioned_key = key;
        self
    }

    /// Gives the medium back, as a loss of power does.
    pub fn into_medium(self) -> M {
        self.medium
    }

    /// Does one operation.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub fn perform(&mut self, operation: &Operation) -> Outcome {
        match operation {
            Operation::Inventory => Ok(Done::Inventory(self.inventory())),
            Operation::ReadState => self.read_record(STATE),
            Operation::CommitState(bytes) => self.replace(STATE, bytes),
            Operation::ReadIdentity => self.read_record(IDENTITY),
            Operation::CommitIdentity(bytes) => self.replace(IDENTITY, bytes),
            Operation::Append { digest, offset, bytes } => self.append(digest, *offset, bytes),
            Operation::ReadStaged { digest, offset, length } => self.read_staged(digest, *offset, *length),
            Operation::CommitModule(digest) => self.commit_module(digest),
            Operation::DeleteModule(digest) => {
                self.delete(&[named(MODULE, &digest.0), named(STAGED, &digest.0)])
            }
            Operation::ReadData(uid) => self.read_record(&named(DATA, &uid.0)),
            Operation::CommitData { uid, bytes } => self.replace(&named(DATA, &uid.0), bytes),
            Operation::DeleteData(uid) => self.delete(&[named(DATA, &uid.0)]),
            // What was removed is gone as far as a process can see to it.
            Operation::EraseRemoved => Ok(Done::Erased { left: false }),
            Operation::EraseProvisioned => self.erase_provisioned(),
        }
    }

    /// A committed module's bytes.
    ///
    /// # Errors
    /// There is none, or the medium failed.
    pub fn module(&mut self, digest: &ModuleDigest) -> Result<Vec<u8>, StorageError> {
        read_module(&mut self.medium, digest)
    }

    fn inventory(&self) -> Inventory {
        let mut inventory = Inventory::default();
        for (name, length) in &self.lengths {
            let length = u32::try_from(*length).unwrap_or(u32::MAX);
            if let Some(digest) = unnamed(MODULE, name) {
                inventory.modules.push((ModuleDigest(digest), length));
            } else if let Some(digest) = unnamed(STAGED, name) {
                inventory.staged.push((ModuleDigest(digest), length));
            } else if let Some(uid) = unnamed(DATA, name) {
                inventory.data.push(ApplicationUid(uid));
            }
        }
        inventory
    }

    fn erase_provisioned(&self) -> Outcome {
        match &self.provisioned_key {
            ProvisionedKey::Nowhere => Ok(Done::Written),
            ProvisionedKey::File(path) => match overwrite::overwrite_and_remove(path) {
                Ok(()) => Ok(Done::Written),
                Err(error) => Err(StorageError::Failed(format!("{}: {error}", path.display()))),
            },
            ProvisionedKey::Elsewhere => {
                Err(StorageError::Failed("it is not in a file that this process knows".to_owned()))
            }
        }
    }

    fn read_record(&mut self, name: &str) -> Outcome {
        if !self.lengths.contains_key(name) {
            return Ok(Done::Record(None));
        }
        match self.medium.read(name, 0, RECORD_BYTES_MAX) {
            Ok(bytes) => Ok(Done::Record(Some(bytes))),
            Err(error) => Err(failure(&error)),
        }
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> Outcome {
        self.check_room(name, bytes.len() as u64)?;
        let new = format!("{name}{NEW}");
        let replaced = self
            .medium
            .write(&new, 0, bytes)
            .and_then(|()| self.medium.sync(&new))
            .and_then(|()| {
                if name == IDENTITY {
                    self.medium.rename_over(&new, name)
                } else {
                    self.medium.rename(&new, name)
                }
            })
            .and_then(|()| self.medium.sync_names());
        match replaced {
            Ok(()) => {
                self.lengths.insert(name.to_owned(), bytes.len() as u64);
                Ok(Done::Written)
            }
            Err(error) => {
                // Only room is lost if this fails too; opening the store clears it.
                let _ = self.medium.remove(&new);
                Err(failure(&error))
            }
        }
    }

    fn append(&mut self, digest: &ModuleDigest, offset: u32, bytes: &[u8]) -> Outcome {
        let name = named(STAGED, &digest.0);
        let (offset, length) = (u64::from(offset), self.lengths.get(&name).copied());
        if offset > length.unwrap_or(0) {
            return Err(StorageError::Missing);
        }
        let end = offset + bytes.len() as u64;
        self.check_room(&name, end)?;
        match self.medium.write(&name, offset, bytes) {
            Ok(()) => {
                self.lengths.insert(name, end);
                Ok(Done::Written)
            }
            Err(error) => Err(failure(&error)),
        }
    }

    fn read_staged(&mut self, digest: &ModuleDigest, offset: u32, length: u16) -> Outcome {
        let bytes = self.medium.read(&named(STAGED, &digest.0), offset.into(), length.into());
        bytes.map(Done::Bytes).map_err(|error| failure(&error))
    }

    fn commit_module(&mut self, digest: &ModuleDigest) -> Outcome {
        let (staged, module) = (named(STAGED, &digest.0), named(MODULE, &digest.0));
        let committed = self
            .medium
            .sync(&staged)
            .and_then(|()| self.medium.rename(&staged, &module))
            .and_then(|()| self.medium.sync_names());
        committed.map_err(|error| failure(&error))?;
        let length = self.lengths.remove(&staged).unwrap_or_default();
        self.lengths.insert(module, length);
        Ok(Done::Written)
    }

    fn delete(&mut self, names: &[String]) -> Outcome {
        let mut deleted = false;
        for name in names {
            if self.lengths.contains_key(name) {
                let is_secret = name.starts_with(DATA);
                let removed = if is_secret { self.medium.erase(name) } else { self.medium.remove(name) };
                match removed {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failure(&error)),
                    Ok(()) | Err(_) => self.lengths.remove(name),
                };
                deleted = true;
            }
        }
        if deleted {
            self.medium.sync_names().map_err(|error| failure(&error))?;
        }
        Ok(Done::Written)
    }

    /// Refuses before anything is touched if a file of this length would not fit.
    fn check_room(&self, name: &str, length: u64) -> Result<(), StorageError> {
        let others: u64 =
            self.lengths.iter().filter(|(other, _)| *other != name).map(|(_, length)| length).sum();
        if others.saturating_add(length) > self.capacity_bytes { Err(StorageError::Full) } else { Ok(()) }
    }
}

fn read_module(medium: &mut impl Medium, digest: &ModuleDigest) -> Result<Vec<u8>, StorageError> {
    let bytes = medium.read(&named(MODULE, &digest.0), 0, MODULE_BYTES_MAX as usize + 1);
    bytes.map_err(|error| failure(&error))
}

fn failure(error: &io::Error) -> StorageError {
    match error.kind() {
        io::ErrorKind::NotFound => StorageError::Missing,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StorageError::Full
        }
        _ => StorageError::Failed(error.to_string()),
    }
}

fn named(kind: &str, id: &[u8]) -> String {
    format!("{kind}{}", hex::encode(id))
}

/// The id in a file's name, if the file is of this kind.
fn unnamed<const N: usize>(kind: &str, name: &str) -> Option<[u8; N]> {
    let mut id = [0; N];
    hex::decode_to_slice(name.strip_prefix(kind)?, &mut id).ok()?;
    Some(id)
}
