//! The supervisor's storage on a medium. A poll erases at most one block; what else it writes is one chunk of a module or
//! the live records once.

use alloc::{borrow::Cow, collections::BTreeMap, format, vec::Vec};
use core::{fmt, ops::Range};

use sha2::{Digest as _, Sha256};
use wasmbed_agent::{
    is_acknowledged,
    storage::{Done, Inventory, Operation, Outcome, StorageError},
};
use wasmbed_protocol::{ApplicationUid, ModuleDigest};
use wasmbed_supervisor::platform::Storage;

use crate::{
    Geometry, GeometryError, Medium, NOTE_BYTES_MAX,
    entry::{Key, Kind},
    geometry,
    log::{Invariant, Log, Stop},
    medium::{copy, is_blank, program_padded, read},
    runs::{Run, place},
};

/// Blocks that one [`Operation::EraseRemoved`] erases at most: storage that works on one for a minute is taken for stuck.
const ERASES_MAX: u32 = 8;
/// Progress of a staged module is written down after so many bytes: once for each full chunk.
const PROGRESS_BYTES: u32 = 3_000;

/// Why a store can't be opened. Its content is never a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The board's table and its driver disagree.
    Geometry(GeometryError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Geometry(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for OpenError {}

/// A module that grows.
#[derive(Debug)]
struct Staged {
    /// Its length counts the tail.
    run: Run,
    /// Bytes after the last whole write unit.
    tail: Vec<u8>,
    /// Blocks from its start that were erased for it.
    ready: u32,
    /// The length that the log knows.
    logged: Option<u32>,
    /// What follows its bytes in the block is not blank: it moves before it grows.
    dirty: bool,
    /// Where it was, until the log knows where it is.
    old: Option<Run>,
}

impl Staged {
    /// Bytes in flash.
    fn programmed(&self) -> u32 {
        self.run.length - self.tail.len() as u32
    }
}

#[derive(Debug)]
struct Pending {
    operation: Operation,
    /// The bytes of an append are in flash; what is left is its record.
    written: bool,
    /// Blocks erased for it.
    erases: u32,
}

#[derive(Clone, Copy, Debug)]
struct Move {
    start: u32,
    copied: u32,
}

/// Storage of a board. The supervisor polls it; while [`FlashStorage::is_busy`], the board's loop must not go to sleep.
#[derive(Debug)]
pub struct FlashStorage<M: Medium> {
    medium: M,
    geometry: Geometry,
    log: Log,
    /// Which provisioned identity the identity record is for.
    identity_of: [u8; 32],
    modules: BTreeMap<ModuleDigest, Run>,
    staged: BTreeMap<ModuleDigest, Staged>,
    pending: Option<Pending>,
    moving: Option<Move>,
    /// The next block to be looked at while what was removed is erased.
    sweep: Option<u32>,
}

impl<M: Medium> FlashStorage<M> {
    /// Opens what is there: blank, random, left by an interrupted write, or a store. Writes nothing.
    ///
    /// # Errors
    /// The geometry is not the medium's.
    pub fn open(medium: M, geometry: Geometry) -> Result<Self, OpenError> {
        geometry::check(&geometry, &medium).map_err(OpenError::Geometry)?;
        let log = Log::open(&medium, geometry);
        let (modules, staged) = (BTreeMap::new(), BTreeMap::new());
        let mut storage = Self {
            medium,
            geometry,
            log,
            identity_of: [0; 32],
            modules,
            staged,
            pending: None,
            moving: None,
            sweep: None,
        };
        storage.find_modules();
        storage.find_staged();
        Ok(storage)
    }

    /// Gives the medium back, as a loss of power does.
    pub fn into_medium(self) -> M {
        self.medium
    }

    /// The medium, for a board's own counters.
    pub fn medium(&mut self) -> &mut M {
        &mut self.medium
    }

    /// The identity region, for [`crate::provision::decode`].
    pub fn identity(&self) -> &[u8] {
        self.medium.mapped().get(..self.geometry.identity_bytes() as usize).unwrap_or_default()
    }

    /// Says which provisioned identity the board has, by [`Identity::digest`](crate::provision::Identity::digest): the identity
    /// record that is read from here on is the one that was made of this identity. What was made of another one is removed; its
    /// bytes stay in flash until their segment is erased. Takes as long as a segment's erases at most.
    ///
    /// # Errors
    /// The medium failed; what was made of another identity is not read for this one.
    pub fn bind_identity(&mut self, digest: [u8; 32]) -> Result<(), StorageError> {
        self.identity_of = digest;
        for id in self.log.ids(Kind::Identity).filter(|id| *id != digest).collect::<Vec<_>>() {
            self.put_now(Key { kind: Kind::Identity, id }, None)?;
        }
        Ok(())
    }

    /// Whether this board was decommissioned by its fleet and its proof acknowledged: what it was provisioned with is erased, or a
    /// cut was in the way of that. Only for a board whose identity can't be read: another one may have been provisioned since.
    pub fn is_decommissioned(&self) -> bool {
        let mapped = self.medium.mapped();
        let records = self
            .log
            .ids(Kind::Identity)
            .filter_map(|id| self.log.get(mapped, &Key { kind: Kind::Identity, id }));
        records.into_iter().any(is_acknowledged)
    }

    /// Erases the identity region as [`Operation::EraseProvisioned`] does, all at once.
    ///
    /// # Errors
    /// The medium failed.
    pub fn erase_identity(&mut self) -> Result<(), StorageError> {
        loop {
            match self.erase_provisioned() {
                Ok(_) => return Ok(()),
                Err(Stop::More) => {}
                Err(Stop::Failed(error)) => return Err(error),
            }
        }
    }

    fn identity_key(&self) -> Key {
        Key { kind: Kind::Identity, id: self.identity_of }
    }

    /// Whether the log's invariants hold, by what is on the medium. For tests and simulations: it reads every record.
    ///
    /// # Errors
    /// The first one that does not.
    pub fn check(&self) -> Result<(), Invariant> {
        self.log.check(&self.medium)
    }

    /// Whether an operation waits for the next poll.
    pub fn is_busy(&self) -> bool {
        self.pending.is_some()
    }

    /// The latest Unix second that was written down as past.
    pub fn time_floor_s(&self) -> Option<u64> {
        let bytes = self.log.get(self.medium.mapped(), &Key::only(Kind::TimeFloor))?;
        bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// Raises the time floor; a lower one changes nothing. Takes as long as a segment's erases at most.
    ///
    /// # Errors
    /// The medium failed; the floor is the old one or the new one.
    pub fn raise_time_floor(&mut self, seconds: u64) -> Result<(), StorageError> {
        if self.time_floor_s().is_some_and(|floor| floor >= seconds) {
            return Ok(());
        }
        self.put_now(Key::only(Kind::TimeFloor), Some(&seconds.to_le_bytes()))
    }

    /// A seed that no earlier start got, for a board without a random source: from the last one, the provisioned one and
    /// whatever the board can add. Its successor is stored before it is given. Takes as long as a segment's erases at most.
    ///
    /// # Errors
    /// The successor could not be stored: the board must not use keys.
    pub fn next_random_seed(
        &mut self,
        provisioned: &[u8; 32],
        extra: &[u8],
    ) -> Result<[u8; 32], StorageError> {
        let key = Key::only(Kind::Seed);
        let mut hash = Sha256::new();
        hash.update(provisioned);
        hash.update(self.log.get(self.medium.mapped(), &key).unwrap_or_default());
        hash.update(extra);
        let root: [u8; 32] = hash.finalize().into();
        let derive = |purpose: &[u8]| -> [u8; 32] {
            let mut hash = Sha256::new();
            hash.update(root);
            hash.update(purpose);
            hash.finalize().into()
        };
        self.put_now(key, Some(&derive(b"stored")))?;
        Ok(derive(b"given"))
    }

    /// Keeps a note over a reset, for boards whose RAM does not; what exceeds [`NOTE_BYTES_MAX`] is cut off.
    ///
    /// # Errors
    /// It could not be stored.
    pub fn set_reset_note(&mut self, note: &[u8]) -> Result<(), StorageError> {
        let note = note.get(..NOTE_BYTES_MAX).unwrap_or(note);
        self.put_now(Key::only(Kind::Note), Some(note))
    }

    /// The note kept, which is then forgotten.
    ///
    /// # Errors
    /// It could not be removed.
    pub fn take_reset_note(&mut self) -> Result<Option<Vec<u8>>, StorageError> {
        let key = Key::only(Kind::Note);
        let note = self.log.get(self.medium.mapped(), &key).map(<[u8]>::to_vec);
        self.put_now(key, None)?;
        Ok(note)
    }

    /// Asks again as often as there are blocks to erase.
    fn put_now(&mut self, key: Key, content: Option<&[u8]>) -> Result<(), StorageError> {
        for _ in 0..=self.geometry.segment_blocks + self.geometry.segments {
            match self.log.put(&mut self.medium, key, content) {
                Ok(()) => return Ok(()),
                Err(Stop::More) => {}
                Err(Stop::Failed(error)) => return Err(error),
            }
        }
        Err(StorageError::Failed("the log does not move on".into()))
    }

    fn find_modules(&mut self) {
        for id in self.log.ids(Kind::Module).collect::<Vec<_>>() {
            if let Some(run) = self.recorded(Key { kind: Kind::Module, id }) {
                self.modules.insert(ModuleDigest(id), run);
            }
        }
    }

    fn find_staged(&mut self) {
        for id in self.log.ids(Kind::Staged).collect::<Vec<_>>() {
            let Some(run) = self.recorded(Key { kind: Kind::Staged, id }) else { continue };
            let length = run.length - run.length % M::WRITE_BYTES as u32;
            if length == 0 {
                continue;
            }
            let ready = length.div_ceil(self.geometry.erase_bytes);
            let end = ready * self.geometry.erase_bytes;
            let rest = read(&self.medium, self.address(run.start) + length, end - length);
            let dirty = !rest.is_some_and(is_blank);
            // What can neither grow nor move would only be in the way.
            if dirty && self.place_for(length + 1, true).is_none() {
                continue;
            }
            let run = Run { length, ..run };
            let staged = Staged { run, tail: Vec::new(), ready, logged: Some(run.length), dirty, old: None };
            self.staged.insert(ModuleDigest(id), staged);
        }
    }

    /// A run that the log tells of, if it can be one.
    fn recorded(&self, key: Key) -> Option<Run> {
        let run = Run::decode(self.log.get(self.medium.mapped(), &key)?)?;
        let blocks = run.blocks(self.geometry.erase_bytes, self.geometry.module_blocks)?;
        let overlaps = |other: &Range<u32>| other.start < blocks.end && blocks.start < other.end;
        (!self.taken().iter().any(overlaps)).then_some(run)
    }

    /// Blocks in use.
    fn taken(&self) -> Vec<Range<u32>> {
        let (erase, region) = (self.geometry.erase_bytes, self.geometry.module_blocks);
        let modules = self.modules.values().filter_map(|run| run.blocks(erase, region));
        let staged = self.staged.values().map(|staged| staged.run.start..staged.run.start + staged.ready);
        let old = self.staged.values().filter_map(|staged| staged.old?.blocks(erase, region));
        modules.chain(staged).chain(old).collect()
    }

    /// A place for a module whose length nobody says before its end: as if it were like the largest that is there, or,
    /// when that was wrong and it moves, the largest there can be.
    fn place_for(&self, length: u32, moves: bool) -> Option<u32> {
        let blocks = |bytes: u32| bytes.div_ceil(self.geometry.erase_bytes).max(1);
        let most = blocks(self.geometry.module_bytes_max);
        let usual = self.modules.values().map(|run| blocks(run.length)).max().unwrap_or(most);
        let grows = |staged: &Staged| staged.run.start..staged.run.start.saturating_add(most);
        let reserved: Vec<_> = self.staged.values().map(grows).collect();
        let (region, needed) = (self.geometry.module_blocks, blocks(length));
        let wanted = if moves { most } else { usual };
        place(region, &self.taken(), &reserved, self.log.cursor(), needed, wanted.max(needed))
    }

    /// Where a run's bytes are in flash.
    fn address(&self, start: u32) -> u32 {
        (self.geometry.modules_block() + start) * self.geometry.erase_bytes
    }

    fn slice(&self, start: u32, range: Range<u32>) -> Option<&[u8]> {
        let base = self.address(start) as usize;
        self.medium.mapped().get(base + range.start as usize..base + range.end as usize)
    }

    fn advance(&mut self, pending: &mut Pending) -> Result<Done, Stop> {
        match &pending.operation {
            Operation::Inventory => Ok(Done::Inventory(self.inventory())),
            Operation::ReadState => Ok(self.read(&Key::only(Kind::State))),
            Operation::ReadData(uid) => Ok(self.read(&data_key(uid))),
            Operation::CommitState(bytes) => self.put(Key::only(Kind::State), Some(bytes)),
            Operation::ReadIdentity => Ok(self.read(&self.identity_key())),
            Operation::CommitIdentity(bytes) => self.put(self.identity_key(), Some(bytes)),
            Operation::CommitData { uid, bytes } => self.put(data_key(uid), Some(bytes)),
            Operation::DeleteData(uid) => self.put(data_key(uid), None),
            Operation::Append { digest, offset, bytes } => {
                self.append(*digest, *offset, bytes, &mut pending.written)
            }
            Operation::ReadStaged { digest, offset, length } => self.read_staged(digest, *offset, *length),
            Operation::CommitModule(digest) => self.commit_module(*digest),
            Operation::DeleteModule(digest) => self.delete_module(*digest),
            Operation::EraseRemoved => self.erase_removed(&mut pending.erases),
            Operation::EraseProvisioned => self.erase_provisioned(),
        }
    }

    /// The live records move to another segment, and whatever nothing live is in is erased: the other segments, and blocks
    /// without a module.
    fn erase_removed(&mut self, erases: &mut u32) -> Result<Done, Stop> {
        let end = self.geometry.modules_block() + self.geometry.module_blocks;
        let Some(block) = self.sweep else {
            self.log.compact(&mut self.medium)?;
            self.sweep = Some(self.geometry.identity_blocks);
            return Err(Stop::More);
        };
        if block >= end {
            self.sweep = None;
            return Ok(Done::Erased { left: false });
        }
        if !self.is_live(block) && !self.is_erased(block) {
            if *erases >= ERASES_MAX {
                return Ok(Done::Erased { left: true });
            }
            *erases += 1;
            self.medium.erase(block)?;
        }
        self.sweep = Some(block + 1);
        Err(Stop::More)
    }

    fn is_live(&self, block: u32) -> bool {
        let modules = self.geometry.modules_block();
        match block.checked_sub(modules) {
            Some(block) => self.taken().iter().any(|range| range.contains(&block)),
            None => self.log.is_active(block * self.geometry.erase_bytes),
        }
    }

    fn is_erased(&self, block: u32) -> bool {
        let erase = self.geometry.erase_bytes;
        read(&self.medium, block * erase, erase).is_some_and(is_blank)
    }

    /// The first block says that there is an identity: it goes last, so that a cut before leaves one that says so.
    fn erase_provisioned(&mut self) -> Result<Done, Stop> {
        let Some(block) = (0..self.geometry.identity_blocks).rev().find(|block| !self.is_erased(*block))
        else {
            return Ok(Done::Written);
        };
        self.medium.erase(block)?;
        Err(Stop::More)
    }

    fn inventory(&self) -> Inventory {
        Inventory {
            modules: self.modules.iter().map(|(digest, run)| (*digest, run.length)).collect(),
            staged: self.staged.iter().map(|(digest, staged)| (*digest, staged.run.length)).collect(),
            data: self
                .log
                .ids(Kind::Data)
                .map(|id| ApplicationUid(core::array::from_fn(|i| id[i])))
                .collect(),
        }
    }

    fn read(&self, key: &Key) -> Done {
        Done::Record(self.log.get(self.medium.mapped(), key).map(<[u8]>::to_vec))
    }

    fn put(&mut self, key: Key, content: Option<&[u8]>) -> Result<Done, Stop> {
        self.log.put(&mut self.medium, key, content).map(|()| Done::Written)
    }

    fn read_staged(&self, digest: &ModuleDigest, offset: u32, length: u16) -> Result<Done, Stop> {
        let staged = self.staged.get(digest).ok_or(Stop::Failed(StorageError::Missing))?;
        let programmed = staged.programmed();
        let end = offset.saturating_add(length.into()).min(staged.run.length);
        let start = offset.min(end);
        let flash = self.slice(staged.run.start, start.min(programmed)..end.min(programmed));
        let mut bytes = flash.unwrap_or_default().to_vec();
        let tail = start.max(programmed) - programmed..end.max(programmed) - programmed;
        bytes.extend(staged.tail.get(tail.start as usize..tail.end as usize).unwrap_or_default());
        Ok(Done::Bytes(bytes))
    }

    fn append(
        &mut self,
        digest: ModuleDigest,
        offset: u32,
        bytes: &[u8],
        written: &mut bool,
    ) -> Result<Done, Stop> {
        if !*written {
            let length = u32::try_from(bytes.len()).ok().and_then(|length| offset.checked_add(length));
            let end = length.filter(|end| *end <= self.geometry.module_bytes_max);
            let end = end.ok_or(Stop::Failed(StorageError::Full))?;
            self.begin(digest, offset, end)?;
            self.make_ready(digest, end)?;
            self.write_chunk(digest, bytes)?;
            *written = true;
        }
        self.log_progress(digest)
    }

    /// Brings a staged module to the length `offset`.
    fn begin(&mut self, digest: ModuleDigest, offset: u32, end: u32) -> Result<(), Stop> {
        // Only a module with bytes is begun again: what has none was begun by this operation.
        if offset == 0 && self.staged.get(&digest).is_some_and(|staged| staged.run.length > 0) {
            self.put(Key { kind: Kind::Staged, id: digest.0 }, None)?;
            self.staged.remove(&digest);
        }
        if offset == 0 && !self.staged.contains_key(&digest) {
            let start = self.place_for(end, false).ok_or(Stop::Failed(StorageError::Full))?;
            let run = Run { start, length: 0 };
            let staged = Staged { run, tail: Vec::new(), ready: 0, logged: None, dirty: false, old: None };
            self.staged.insert(digest, staged);
        }
        let staged = self.staged.get_mut(&digest);
        let staged = staged.filter(|staged| offset <= staged.run.length);
        let staged = staged.ok_or(Stop::Failed(StorageError::Missing))?;
        if offset < staged.programmed() {
            staged.tail.clear();
            staged.dirty = true;
        } else {
            staged.tail.truncate((offset - staged.programmed()) as usize);
        }
        staged.run.length = offset;
        Ok(())
    }

    /// Erases the blocks up to `end`, one at a time; moves the run first if it can't grow where it is.
    fn make_ready(&mut self, digest: ModuleDigest, end: u32) -> Result<(), Stop> {
        let missing = || Stop::Failed(StorageError::Missing);
        let others: Vec<_> = {
            let own = self.staged.get(&digest).ok_or_else(missing)?;
            let own = own.run.start..own.run.start + own.ready;
            self.taken().into_iter().filter(|range| *range != own).collect()
        };
        let region = self.geometry.module_blocks;
        let needed = end.div_ceil(self.geometry.erase_bytes);
        let staged = self.staged.get_mut(&digest).ok_or_else(missing)?;
        if !staged.dirty && staged.old.is_none() && staged.ready < needed {
            let next = staged.run.start + staged.ready;
            if next < region && !others.iter().any(|range| range.contains(&next)) {
                self.medium.erase(self.geometry.modules_block() + next)?;
                staged.ready += 1;
                return Err(Stop::More);
            }
            staged.dirty = true;
        }
        if staged.dirty {
            self.move_run(digest, end)?;
        }
        self.log_move(digest)
    }

    fn move_run(&mut self, digest: ModuleDigest, end: u32) -> Result<(), Stop> {
        let mut moving = match self.moving {
            Some(moving) => moving,
            None => {
                let start = self.place_for(end, true).ok_or(Stop::Failed(StorageError::Full))?;
                Move { start, copied: 0 }
            }
        };
        let Some(staged) = self.staged.get(&digest) else {
            debug_assert!(false, "only a staged module's run moves");
            return Ok(());
        };
        let (from, kept, erase) = (staged.run, staged.programmed(), self.geometry.erase_bytes);
        let whole = kept - kept % M::WRITE_BYTES as u32;
        if moving.copied < end.div_ceil(erase).max(1) {
            self.medium.erase(self.geometry.modules_block() + moving.start + moving.copied)?;
            let first = moving.copied * erase;
            let (source, target) = (self.address(from.start), self.address(moving.start));
            let first = first.min(whole);
            let piece = (whole - first).min(erase);
            copy(&mut self.medium, source + first, target + first, piece)?;
            moving.copied += 1;
            self.moving = Some(moving);
            return Err(Stop::More);
        }
        let tail = self.slice(from.start, whole..kept).unwrap_or_default().to_vec();
        self.moving = None;
        if let Some(staged) = self.staged.get_mut(&digest) {
            staged.tail.splice(0..0, tail);
            staged.old = Some(from);
            staged.run.start = moving.start;
            staged.ready = moving.copied;
            staged.dirty = false;
        }
        Ok(())
    }

    /// Before a run that moved grows: its old blocks may be the next to be erased.
    fn log_move(&mut self, digest: ModuleDigest) -> Result<(), Stop> {
        let Some(staged) = self.staged.get(&digest).filter(|staged| staged.old.is_some()) else {
            return Ok(());
        };
        let run = Run { length: staged.programmed(), ..staged.run };
        self.put(Key { kind: Kind::Staged, id: digest.0 }, Some(&run.encode()))?;
        if let Some(staged) = self.staged.get_mut(&digest) {
            (staged.logged, staged.old) = (Some(run.length), None);
        }
        Ok(())
    }

    fn write_chunk(&mut self, digest: ModuleDigest, bytes: &[u8]) -> Result<(), Stop> {
        let modules = self.geometry.modules_block() * self.geometry.erase_bytes;
        let Some(staged) = self.staged.get_mut(&digest) else {
            debug_assert!(false, "bytes are written to a staged module");
            return Ok(());
        };
        let at = modules + staged.run.start * self.geometry.erase_bytes + staged.programmed();
        let mut all = core::mem::take(&mut staged.tail);
        all.extend_from_slice(bytes);
        let tail = all.split_off(all.len() - all.len() % M::WRITE_BYTES);
        // What a write that fails leaves can't be written again.
        staged.run.length -= staged.run.length % M::WRITE_BYTES as u32;
        staged.dirty = true;
        if !all.is_empty() {
            self.medium.program(at, &all)?;
        }
        staged.dirty = false;
        staged.run.length += (all.len() + tail.len()) as u32;
        staged.tail = tail;
        Ok(())
    }

    fn log_progress(&mut self, digest: ModuleDigest) -> Result<Done, Stop> {
        let Some(staged) = self.staged.get(&digest) else { return Err(Stop::Failed(StorageError::Missing)) };
        let run = Run { length: staged.programmed(), ..staged.run };
        let due = match staged.logged {
            None => run.length > 0,
            Some(logged) => run.length < logged || run.length - logged >= PROGRESS_BYTES,
        };
        if due {
            self.put(Key { kind: Kind::Staged, id: digest.0 }, Some(&run.encode()))?;
            if let Some(staged) = self.staged.get_mut(&digest) {
                staged.logged = Some(run.length);
            }
        }
        Ok(Done::Written)
    }

    fn commit_module(&mut self, digest: ModuleDigest) -> Result<Done, Stop> {
        let address = self.geometry.modules_block() * self.geometry.erase_bytes;
        let staged = self.staged.get_mut(&digest).ok_or(Stop::Failed(StorageError::Missing))?;
        if !staged.tail.is_empty() {
            let at = address + staged.run.start * self.geometry.erase_bytes + staged.programmed();
            staged.dirty = true;
            program_padded(&mut self.medium, at, &staged.tail)?;
            staged.tail.clear();
        }
        let run = staged.run;
        self.put(Key { kind: Kind::Module, id: digest.0 }, Some(&run.encode()))?;
        self.staged.remove(&digest);
        self.modules.insert(digest, run);
        Ok(Done::Written)
    }

    fn delete_module(&mut self, digest: ModuleDigest) -> Result<Done, Stop> {
        if self.modules.contains_key(&digest) || self.staged.contains_key(&digest) {
            self.put(Key { kind: Kind::Module, id: digest.0 }, None)?;
            self.modules.remove(&digest);
            self.staged.remove(&digest);
        }
        Ok(Done::Written)
    }

    /// After a failure: what was never written down and holds nothing is gone.
    fn give_up(&mut self) {
        (self.moving, self.sweep) = (None, None);
        self.staged.retain(|_, staged| staged.run.length > 0 || staged.logged.is_some());
    }
}

impl<M: Medium> Storage for FlashStorage<M> {
    fn start(&mut self, operation: Operation) {
        self.pending = Some(Pending { operation, written: false, erases: 0 });
    }

    fn poll(&mut self) -> Option<Outcome> {
        let mut pending = self.pending.take()?;
        match self.advance(&mut pending) {
            Ok(done) => Some(Ok(done)),
            Err(Stop::More) => {
                self.pending = Some(pending);
                None
            }
            Err(Stop::Failed(error)) => {
                self.give_up();
                Some(Err(error))
            }
        }
    }

    fn module(&mut self, digest: &ModuleDigest) -> Result<Cow<'_, [u8]>, StorageError> {
        let run = *self.modules.get(digest).ok_or(StorageError::Missing)?;
        let bytes = self.slice(run.start, 0..run.length);
        bytes.map(Cow::Borrowed).ok_or_else(|| StorageError::Failed(format!("{run:?} is not mapped")))
    }
}

fn data_key(uid: &ApplicationUid) -> Key {
    let mut id = [0; 32];
    id[..uid.0.len()].copy_from_slice(&uid.0);
    Key { kind: Kind::Data, id }
}
