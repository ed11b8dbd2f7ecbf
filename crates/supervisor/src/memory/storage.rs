//! A storage in memory with which nothing goes wrong.

use alloc::{borrow::Cow, collections::BTreeMap, vec::Vec};

use wasmbed_protocol::{ApplicationUid, ModuleDigest};

use crate::platform::{Done, Inventory, Operation, Outcome, Storage, StorageError};

/// Removed objects that are still legible; then the oldest are written over.
const REMAINS_MAX: usize = 32;

/// What a board's storage holds while it has no power.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// The state record.
    pub state: Option<Vec<u8>>,
    /// The identity record.
    pub identity: Option<Vec<u8>>,
    /// Committed modules.
    pub modules: BTreeMap<ModuleDigest, Vec<u8>>,
    /// Staged modules.
    pub staged: BTreeMap<ModuleDigest, Vec<u8>>,
    /// Applications' data records.
    pub data: BTreeMap<ApplicationUid, Vec<u8>>,
    /// What was removed or replaced, and is still legible: records as they were, modules and data by their bytes.
    pub remains: Vec<Vec<u8>>,
    /// Whether the key that the device was provisioned with was erased.
    pub is_blank: bool,
}

impl Disk {
    /// Bytes of everything together.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        let objects = self.modules.values().chain(self.staged.values()).chain(self.data.values());
        objects.chain(&self.state).chain(&self.identity).map(Vec::len).sum()
    }

    /// What was removed is legible until something is written over it.
    fn bury(&mut self, removed: Option<Vec<u8>>) {
        self.remains.extend(removed);
        let excess = self.remains.len().saturating_sub(REMAINS_MAX);
        self.remains.drain(..excess);
    }

    fn inventory(&self) -> Inventory {
        // Objects are at most a megabyte, so their lengths fit.
        let lengths = |objects: &BTreeMap<ModuleDigest, Vec<u8>>| {
            objects.iter().map(|(digest, bytes)| (*digest, bytes.len() as u32)).collect()
        };
        Inventory {
            modules: lengths(&self.modules),
            staged: lengths(&self.staged),
            data: self.data.keys().copied().collect(),
        }
    }
}

/// Storage in memory, with room for everything. [`FaultyStorage`](super::FaultyStorage) is the same with faults.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    /// What is there.
    pub disk: Disk,
    answer: Option<Outcome>,
}

impl MemoryStorage {
    /// Storage with something in it.
    pub fn new(disk: Disk) -> Self {
        Self { disk, answer: None }
    }

    fn append(&mut self, digest: ModuleDigest, offset: u32, bytes: &[u8]) -> Outcome {
        let offset = offset as usize;
        if offset > self.disk.staged.get(&digest).map_or(0, Vec::len) {
            return Err(StorageError::Missing);
        }
        let staged = self.disk.staged.entry(digest).or_default();
        staged.truncate(offset);
        staged.extend(bytes);
        Ok(Done::Written)
    }

    pub(crate) fn perform(&mut self, operation: Operation) -> Outcome {
        match operation {
            Operation::Inventory => return Ok(Done::Inventory(self.disk.inventory())),
            Operation::ReadState => return Ok(Done::Record(self.disk.state.clone())),
            Operation::ReadIdentity => return Ok(Done::Record(self.disk.identity.clone())),
            Operation::ReadData(uid) => return Ok(Done::Record(self.disk.data.get(&uid).cloned())),
            Operation::ReadStaged { digest, offset, length } => {
                let staged = self.disk.staged.get(&digest).ok_or(StorageError::Missing)?;
                let bytes = staged.iter().skip(offset as usize).take(usize::from(length)).copied();
                return Ok(Done::Bytes(bytes.collect()));
            }
            Operation::Append { digest, offset, bytes } => return self.append(digest, offset, &bytes),
            Operation::EraseRemoved => {
                // Two at a time, as a medium does a few blocks at a time.
                let kept = self.disk.remains.len().saturating_sub(2);
                self.disk.remains.truncate(kept);
                return Ok(Done::Erased { left: kept > 0 });
            }
            Operation::EraseProvisioned => self.disk.is_blank = true,
            Operation::CommitState(bytes) => {
                let before = self.disk.state.replace(bytes);
                self.disk.bury(before);
            }
            Operation::CommitIdentity(bytes) => {
                let before = self.disk.identity.replace(bytes);
                self.disk.bury(before);
            }
            Operation::CommitModule(digest) => {
                let staged = self.disk.staged.remove(&digest).ok_or(StorageError::Missing)?;
                self.disk.modules.insert(digest, staged);
            }
            Operation::DeleteModule(digest) => {
                let removed = [self.disk.staged.remove(&digest), self.disk.modules.remove(&digest)];
                removed.into_iter().for_each(|removed| self.disk.bury(removed));
            }
            Operation::CommitData { uid, bytes } => {
                let before = self.disk.data.insert(uid, bytes);
                self.disk.bury(before);
            }
            Operation::DeleteData(uid) => {
                let removed = self.disk.data.remove(&uid);
                self.disk.bury(removed);
            }
        }
        Ok(Done::Written)
    }
}

impl Storage for MemoryStorage {
    fn start(&mut self, operation: Operation) {
        self.answer = Some(self.perform(operation));
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
