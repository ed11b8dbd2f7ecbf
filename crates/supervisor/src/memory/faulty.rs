//! What can go wrong with a device's disk, as a wrapper around a storage with which nothing does.

use alloc::{borrow::Cow, collections::VecDeque, vec::Vec};

use wasmbed_protocol::ModuleDigest;

use super::storage::{Disk, MemoryStorage};
use crate::platform::{Operation, Outcome, Storage, StorageError};

/// When power is lost, and how much of the write under way is done by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Writes that still succeed.
    pub writes: u32,
    /// Thousandths of the next one that do: a record is replaced from 500 on.
    pub permille: u16,
}

/// What is going to go wrong. Nothing does by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// When power will be lost.
    pub cut: Option<Cut>,
    /// Nothing more fits until then, milliseconds as of [`FaultyStorage::at`]. What is there can be read, committed and removed.
    pub full_until_ms: u64,
    /// Room for everything together, bytes; unbounded if absent.
    pub capacity_bytes: Option<usize>,
    /// What the next operations answer instead of being done.
    pub failures: VecDeque<StorageError>,
    /// Operations that are done before those.
    pub spared: u32,
}

/// A storage in memory, and its faults.
#[derive(Clone, Debug, Default)]
pub struct FaultyStorage {
    storage: MemoryStorage,
    /// They may be changed at any time.
    pub faults: Faults,
    now_ms: u64,
    without_power: bool,
    answer: Option<Outcome>,
}

impl FaultyStorage {
    /// A disk without faults, with something on it.
    #[must_use]
    pub fn new(disk: Disk) -> Self {
        Self { storage: MemoryStorage::new(disk), ..Self::default() }
    }

    /// It is that time now, milliseconds.
    pub fn at(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// What is on it, around all faults.
    pub fn disk(&mut self) -> &mut Disk {
        &mut self.storage.disk
    }

    /// Whether power was lost: nothing is answered any more.
    #[must_use]
    pub fn has_lost_power(&self) -> bool {
        self.without_power
    }

    /// The same disk once power is back: nothing is under way. It stays as full as it was.
    #[must_use]
    pub fn after_power_loss(self) -> Self {
        let faults = Faults { cut: None, ..self.faults };
        Self { storage: self.storage, faults, now_ms: self.now_ms, without_power: false, answer: None }
    }

    fn has_room(&self, bytes: usize) -> bool {
        let fits = |capacity| self.storage.disk.used_bytes() + bytes <= capacity;
        self.now_ms >= self.faults.full_until_ms && self.faults.capacity_bytes.is_none_or(fits)
    }

    /// No answer if power is lost in the middle of it.
    fn perform(&mut self, operation: Operation) -> Option<Outcome> {
        if self.faults.spared > 0 {
            self.faults.spared -= 1;
        } else if let Some(failure) = self.faults.failures.pop_front() {
            return Some(Err(failure));
        }
        if brought(&operation).is_some_and(|bytes| !self.has_room(bytes)) {
            return Some(Err(StorageError::Full));
        }
        match self.faults.cut.as_mut().filter(|_| is_write(&operation)) {
            Some(Cut { writes: 0, permille }) => {
                if let Some(part) = part_of(operation, *permille) {
                    // Nobody is there any more to hear how that went.
                    let _ = self.storage.perform(part);
                }
                self.without_power = true;
                return None;
            }
            Some(cut) => cut.writes -= 1,
            None => {}
        }
        Some(self.storage.perform(operation))
    }
}

impl Storage for FaultyStorage {
    fn start(&mut self, operation: Operation) {
        if !self.without_power {
            self.answer = self.perform(operation);
        }
    }

    fn poll(&mut self) -> Option<Outcome> {
        self.answer.take()
    }

    fn module(&mut self, digest: &ModuleDigest) -> Result<Cow<'_, [u8]>, StorageError> {
        self.storage.module(digest)
    }
}

/// The bytes that an operation adds, if it is one that does.
fn brought(operation: &Operation) -> Option<usize> {
    match operation {
        Operation::Append { bytes, .. }
        | Operation::CommitState(bytes)
        | Operation::CommitIdentity(bytes)
        | Operation::CommitData { bytes, .. } => Some(bytes.len()),
        Operation::CommitModule(_)
        | Operation::DeleteModule(_)
        | Operation::DeleteData(_)
        | Operation::EraseRemoved
        | Operation::EraseProvisioned
        | Operation::Inventory
        | Operation::ReadState
        | Operation::ReadIdentity
        | Operation::ReadStaged { .. }
        | Operation::ReadData(_) => None,
    }
}

fn is_write(operation: &Operation) -> bool {
    match operation {
        Operation::Append { .. }
        | Operation::CommitState(_)
        | Operation::CommitIdentity(_)
        | Operation::CommitModule(_)
        | Operation::DeleteModule(_)
        | Operation::CommitData { .. }
        | Operation::DeleteData(_)
        | Operation::EraseRemoved
        | Operation::EraseProvisioned => true,
        Operation::Inventory
        | Operation::ReadState
        | Operation::ReadIdentity
        | Operation::ReadStaged { .. }
        | Operation::ReadData(_) => false,
    }
}

/// What is done of a write by the time so many thousandths of it are: some of its bytes if it appends, all of it or nothing otherwise.
fn part_of(operation: Operation, permille: u16) -> Option<Operation> {
    match operation {
        Operation::Append { digest, offset, bytes } => {
            let done = bytes.len() * usize::from(permille) / 1_000;
            let bytes: Vec<u8> = bytes.into_iter().take(done).collect();
            Some(Operation::Append { digest, offset, bytes })
        }
        whole => (permille >= 500).then_some(whole),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::platform::Done;

    const DIGEST: ModuleDigest = ModuleDigest([1; 32]);

    fn answer(storage: &mut FaultyStorage, operation: Operation) -> Option<Outcome> {
        storage.start(operation);
        storage.poll()
    }

    fn append(offset: u32, length: usize) -> Operation {
        Operation::Append { digest: DIGEST, offset, bytes: vec![7; length] }
    }

    fn written() -> Option<Outcome> {
        Some(Ok(Done::Written))
    }

    #[test]
    fn power_is_lost_in_the_middle_of_the_write_that_was_chosen() {
        for (permille, staged, state) in [(0, 0, 1), (499, 49, 1), (500, 50, 2), (1_000, 100, 2)] {
            let mut storage = FaultyStorage::default();
            storage.faults.cut = Some(Cut { writes: 1, permille });
            assert_eq!(answer(&mut storage, Operation::CommitState(vec![1])), written());
            let mut other = storage.clone();
            assert_eq!(answer(&mut storage, append(0, 100)), None);
            assert_eq!(storage.disk().staged.get(&DIGEST).map(Vec::len), Some(staged));
            assert_eq!(answer(&mut other, Operation::ReadState), Some(Ok(Done::Record(Some(vec![1])))));
            assert_eq!(answer(&mut other, Operation::CommitState(vec![2])), None, "reading is no write");
            assert_eq!(other.disk().state, Some(vec![state]));

            assert!(other.has_lost_power());
            assert_eq!(answer(&mut other, Operation::ReadState), None);
            let mut back = other.after_power_loss();
            assert!(!back.has_lost_power());
            assert_eq!(back.poll(), None);
            assert_eq!(answer(&mut back, Operation::ReadState), Some(Ok(Done::Record(Some(vec![state])))));
            assert_eq!(answer(&mut back, Operation::CommitState(vec![3])), written());
        }
    }

    #[test]
    fn a_full_disk_takes_nothing_more_until_its_time_and_gives_back_what_it_has() {
        let mut storage = FaultyStorage::default();
        assert_eq!(answer(&mut storage, append(0, 100)), written());
        storage.faults.full_until_ms = 10;
        for now_ms in [0, 9] {
            storage.at(now_ms);
            let full = Some(Err(StorageError::Full));
            assert_eq!(answer(&mut storage, append(100, 1)), full);
            assert_eq!(answer(&mut storage, Operation::CommitState(vec![1])), full);
        }
        assert_eq!(answer(&mut storage, Operation::CommitModule(DIGEST)), written());
        assert_eq!(storage.module(&DIGEST).map(|bytes| bytes.len()), Ok(100));
        let mut storage = storage.after_power_loss();
        assert_eq!(answer(&mut storage, append(0, 1)), Some(Err(StorageError::Full)), "it stays full");
        storage.at(10);
        assert_eq!(answer(&mut storage, Operation::CommitState(vec![1])), written());
    }

    #[test]
    fn a_small_disk_takes_what_fits_and_a_bad_one_fails_so_often() {
        let mut storage = FaultyStorage::default();
        storage.faults.capacity_bytes = Some(100);
        assert_eq!(answer(&mut storage, append(0, 60)), written());
        assert_eq!(answer(&mut storage, Operation::CommitState(vec![1; 41])), Some(Err(StorageError::Full)));
        assert_eq!(answer(&mut storage, Operation::CommitState(vec![1; 40])), written());
        storage.faults.failures.push_back(StorageError::Failed("bad block".into()));
        let failed = Some(Err(StorageError::Failed("bad block".into())));
        assert_eq!(answer(&mut storage, Operation::DeleteModule(DIGEST)), failed);
        assert_eq!(answer(&mut storage, Operation::DeleteModule(DIGEST)), written());
        assert_eq!(answer(&mut storage, append(0, 60)), written(), "there is room again");
    }
}
