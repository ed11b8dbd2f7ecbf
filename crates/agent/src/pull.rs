//! One module on its way: asked for in ranges, staged, read back, hashed, committed.
//!
//! ```text
//!   staged bytes left from before
//!        |
//!        v      ModuleGet         last byte of the range
//!       Ask ---------------> Receiving ---------------> Ask ... all durable -> Verify -> Commit -> done
//!        ^                      |                                                |
//!        +--- silence, cut -----+                              wrong digest, or more bytes than there should be:
//!                                                              Discard -> failed
//! ```
//! Memory: at most one range, [`MODULE_RANGE_BYTES_MAX`], is between the network and storage, because the next range is
//! asked for when the one before is on storage.

use alloc::{string::String, vec::Vec};

use sha2::{Digest as _, Sha256};
use wasmbed_protocol::{ModuleChunk, ModuleDigest, ModuleGet, ReportReason, limits::MODULE_RANGE_BYTES_MAX};

use crate::{
    storage::{Done, Operation, Outcome, StorageError},
    why::Why,
};

/// Silence after which a range is asked for again.
pub const RANGE_TIMEOUT_MS: u64 = 15_000;
/// Bytes read back at a time: a page of common flash, and little memory.
pub const READ_BACK_BYTES: u16 = 4_096;

#[derive(Clone, Debug)]
enum Stage {
    /// What is staged can't be right.
    Discard(Option<Why>),
    Ask,
    Receiving {
        end: u32,
        deadline_ms: u64,
    },
    Verify {
        offset: u32,
        hasher: Sha256,
    },
    Commit,
}

#[derive(Clone, Debug)]
pub(crate) struct Pull {
    digest: ModuleDigest,
    length: u32,
    /// Bytes that storage has.
    staged: u32,
    /// Bytes that storage is writing.
    writing: u32,
    /// Bytes that came and wait for storage.
    buffer: Vec<u8>,
    stage: Stage,
}

/// What an answer of storage led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    More,
    Stored,
    Failed(Why),
}

impl Pull {
    pub(crate) fn new(digest: ModuleDigest, length: u32, staged: u32) -> Self {
        let stage = if staged > length { Stage::Discard(None) } else { Stage::Ask };
        let mut pull = Self { digest, length, staged, writing: 0, buffer: Vec::new(), stage };
        pull.settle();
        pull
    }

    pub(crate) fn digest(&self) -> ModuleDigest {
        self.digest
    }

    fn next_offset(&self) -> u32 {
        // A range is at most 16 KiB, so the buffer's length fits.
        self.staged.saturating_add(self.writing).saturating_add(self.buffer.len() as u32)
    }

    /// Everything is on storage: read it back.
    fn settle(&mut self) {
        let idle = self.writing == 0 && self.buffer.is_empty();
        if idle && self.staged == self.length && matches!(self.stage, Stage::Ask | Stage::Receiving { .. }) {
            self.stage = Stage::Verify { offset: 0, hasher: Sha256::new() };
        }
    }

    /// The range to ask for, once the one before is on storage.
    pub(crate) fn plan_request(&self) -> Option<ModuleGet> {
        let idle = self.writing == 0 && self.buffer.is_empty();
        if !idle || !matches!(self.stage, Stage::Ask) {
            return None;
        }
        let rest = self.length.saturating_sub(self.staged);
        let length =
            u16::try_from(rest).map_or(MODULE_RANGE_BYTES_MAX, |rest| rest.min(MODULE_RANGE_BYTES_MAX));
        (length > 0).then_some(ModuleGet { digest: self.digest, offset: self.staged, length })
    }

    pub(crate) fn handle_asked(&mut self, request: ModuleGet, now_ms: u64) {
        let end = request.offset.saturating_add(u32::from(request.length));
        self.stage = Stage::Receiving { end, deadline_ms: now_ms.saturating_add(RANGE_TIMEOUT_MS) };
    }

    /// Takes a chunk if it is the next one of the range asked for; anything else is a repetition and ignored.
    pub(crate) fn handle_chunk(&mut self, chunk: &ModuleChunk<'_>, now_ms: u64) {
        let next = self.next_offset();
        let Stage::Receiving { end, ref mut deadline_ms } = self.stage else { return };
        let room = end.saturating_sub(next) as usize;
        if chunk.digest != self.digest
            || chunk.offset != next
            || chunk.bytes.is_empty()
            || chunk.bytes.len() > room
        {
            return;
        }
        *deadline_ms = now_ms.saturating_add(RANGE_TIMEOUT_MS);
        self.buffer.extend_from_slice(chunk.bytes);
        if self.next_offset() == end {
            self.stage = Stage::Ask;
        }
    }

    /// The rest of a range will not come: it is asked for again.
    pub(crate) fn handle_disconnected(&mut self) {
        if matches!(self.stage, Stage::Receiving { .. }) {
            self.stage = Stage::Ask;
        }
    }

    pub(crate) fn handle_timeout(&mut self, now_ms: u64) {
        if matches!(self.stage, Stage::Receiving { deadline_ms, .. } if deadline_ms <= now_ms) {
            self.stage = Stage::Ask;
        }
    }

    pub(crate) fn timeout(&self) -> Option<u64> {
        match self.stage {
            Stage::Receiving { deadline_ms, .. } => Some(deadline_ms),
            Stage::Discard(_) | Stage::Ask | Stage::Verify { .. } | Stage::Commit => None,
        }
    }

    /// The next operation on storage; answered by [`Pull::handle_storage`] before the next is asked for.
    pub(crate) fn poll_storage(&mut self) -> Option<Operation> {
        if !self.buffer.is_empty() && matches!(self.stage, Stage::Ask | Stage::Receiving { .. }) {
            let bytes = core::mem::take(&mut self.buffer);
            self.writing = bytes.len() as u32;
            return Some(Operation::Append { digest: self.digest, offset: self.staged, bytes });
        }
        match self.stage {
            Stage::Discard(_) => Some(Operation::DeleteModule(self.digest)),
            Stage::Verify { offset, .. } => {
                Some(Operation::ReadStaged { digest: self.digest, offset, length: READ_BACK_BYTES })
            }
            Stage::Commit => Some(Operation::CommitModule(self.digest)),
            Stage::Ask | Stage::Receiving { .. } => None,
        }
    }

    pub(crate) fn handle_storage(&mut self, outcome: &Outcome) -> Progress {
        if self.writing > 0 {
            return self.handle_appended(outcome);
        }
        match (&mut self.stage, outcome) {
            (Stage::Discard(why), Ok(_) | Err(StorageError::Missing)) => match why.take() {
                Some(why) => Progress::Failed(why),
                None => {
                    self.staged = 0;
                    self.stage = Stage::Ask;
                    Progress::More
                }
            },
            (Stage::Verify { .. }, Ok(Done::Bytes(bytes))) => self.handle_read_back(bytes),
            (Stage::Commit, Ok(Done::Written)) => Progress::Stored,
            (_, Err(error)) => Progress::Failed(storage_failure(error)),
            (_, Ok(_)) => {
                Progress::Failed(Why::new(ReportReason::StorageFailed, "storage gave another answer"))
            }
        }
    }

    fn handle_appended(&mut self, outcome: &Outcome) -> Progress {
        let written = core::mem::take(&mut self.writing);
        match outcome {
            Ok(_) => {
                self.staged = self.staged.saturating_add(written);
                self.settle();
                Progress::More
            }
            // What was staged is shorter than it was: begin again.
            Err(StorageError::Missing) => {
                self.buffer.clear();
                self.stage = Stage::Discard(None);
                Progress::More
            }
            Err(error) => Progress::Failed(storage_failure(error)),
        }
    }

    fn handle_read_back(&mut self, bytes: &[u8]) -> Progress {
        let Stage::Verify { offset, hasher } = &mut self.stage else {
            debug_assert!(false, "bytes are read back only to verify them");
            return Progress::More;
        };
        hasher.update(bytes);
        *offset = offset.saturating_add(bytes.len() as u32);
        if *offset < self.length && !bytes.is_empty() {
            return Progress::More;
        }
        let found = ModuleDigest(core::mem::take(hasher).finalize().into());
        self.stage = if found == self.digest {
            Stage::Commit
        } else {
            let message = "the bytes received do not have the digest of the module";
            Stage::Discard(Some(Why::new(ReportReason::DigestMismatch, message)))
        };
        Progress::More
    }
}

pub(crate) fn storage_failure(error: &StorageError) -> Why {
    match error {
        StorageError::Full => Why::new(ReportReason::OutOfFlash, "not enough storage left for the module"),
        StorageError::Missing => Why::new(ReportReason::StorageFailed, "storage lost what it had"),
        StorageError::Failed(message) => {
            let mut text = String::from("storage failed: ");
            text.push_str(message);
            Why::new(ReportReason::StorageFailed, &text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn digest(bytes: &[u8]) -> ModuleDigest {
        ModuleDigest(Sha256::digest(bytes).into())
    }

    /// Plays gateway and storage until the pull ends; `chunk` says how long each chunk is.
    fn play(
        pull: &mut Pull,
        module: &[u8],
        staged: &mut Vec<u8>,
        chunk: usize,
    ) -> (Progress, Vec<ModuleGet>) {
        let mut requests = Vec::new();
        for _ in 0..10_000 {
            if let Some(request) = pull.plan_request() {
                requests.push(request);
                pull.handle_asked(request, 0);
                let start = request.offset as usize;
                let range = module.get(start..start + usize::from(request.length)).unwrap_or(&[]);
                for (index, bytes) in range.chunks(chunk).enumerate() {
                    let offset = request.offset + (index * chunk) as u32;
                    pull.handle_chunk(&ModuleChunk { digest: pull.digest, offset, bytes }, 0);
                }
            }
            let outcome = match pull.poll_storage() {
                None => continue,
                Some(Operation::Append { offset, bytes, .. }) => {
                    staged.truncate(offset as usize);
                    staged.extend_from_slice(&bytes);
                    Ok(Done::Written)
                }
                Some(Operation::ReadStaged { offset, length, .. }) => {
                    let rest = staged.get(offset as usize..).unwrap_or(&[]);
                    Ok(Done::Bytes(rest.iter().copied().take(usize::from(length)).collect()))
                }
                Some(Operation::DeleteModule(_)) => {
                    staged.clear();
                    Ok(Done::Written)
                }
                Some(Operation::CommitModule(_)) => Ok(Done::Written),
                Some(other) => panic!("unexpected {other:?}"),
            };
            match pull.handle_storage(&outcome) {
                Progress::More => {}
                end => return (end, requests),
            }
        }
        panic!("the pull never ended");
    }

    #[test]
    fn a_module_comes_in_ranges_and_is_read_back() {
        let module: Vec<u8> = (0..40_000u32).map(|n| (n % 251) as u8).collect();
        let mut pull = Pull::new(digest(&module), 40_000, 0);
        let mut staged = vec![];
        let (end, requests) = play(&mut pull, &module, &mut staged, 4_000);
        assert_eq!(end, Progress::Stored);
        assert_eq!(staged, module);
        let ranges: Vec<(u32, u16)> =
            requests.iter().map(|request| (request.offset, request.length)).collect();
        assert_eq!(ranges, [(0, 16_384), (16_384, 16_384), (32_768, 7_232)]);
    }

    #[test]
    fn a_pull_goes_on_where_storage_ends() {
        let module = vec![7; 20_000];
        let mut staged = vec![7; 19_000];
        let mut pull = Pull::new(digest(&module), 20_000, 19_000);
        let (end, requests) = play(&mut pull, &module, &mut staged, 300);
        assert_eq!(end, Progress::Stored);
        assert_eq!(requests.iter().map(|request| u32::from(request.length)).sum::<u32>(), 1_000);
    }

    #[test]
    fn wrong_bytes_are_removed_and_reported() {
        let module = vec![7; 5_000];
        let mut staged = vec![8; 100];
        let mut pull = Pull::new(digest(&module), 5_000, 100);
        let (end, _) = play(&mut pull, &module, &mut staged, 4_000);
        assert!(matches!(end, Progress::Failed(why) if why.reason() == ReportReason::DigestMismatch));
        assert!(staged.is_empty());
    }

    #[test]
    fn more_staged_than_there_should_be_is_removed_first() {
        let module = vec![7; 100];
        let mut staged = vec![7; 101];
        let mut pull = Pull::new(digest(&module), 100, 101);
        let (end, requests) = play(&mut pull, &module, &mut staged, 4_000);
        assert_eq!(end, Progress::Stored);
        assert_eq!(requests.len(), 1);
    }

    #[test]
    fn chunks_out_of_place_are_ignored() {
        let module = vec![7; 100];
        let mut pull = Pull::new(digest(&module), 100, 0);
        let request = pull.plan_request().unwrap();
        pull.handle_asked(request, 0);
        let chunk = |offset, bytes| ModuleChunk { digest: digest(&module), offset, bytes };
        pull.handle_chunk(&chunk(1, &[1]), 0);
        pull.handle_chunk(&chunk(0, &[7; 101]), 0);
        pull.handle_chunk(&chunk(0, &[]), 0);
        pull.handle_chunk(&ModuleChunk { digest: ModuleDigest([0; 32]), offset: 0, bytes: &[1] }, 0);
        assert_eq!(pull.next_offset(), 0);
        pull.handle_timeout(RANGE_TIMEOUT_MS);
        assert_eq!(pull.plan_request(), Some(request), "asked for again after silence");
    }
}
