//! The records: a log in one segment at a time. When a segment is full, or ends in what an interrupted write left, the live
//! entries go to the next one, the new entry among them; the segment's head is written last and makes it the current one.
//!
//! ```text
//! segment: head 64 bytes (sequence, check) | entry | entry | … | blank
//! entry:   head 64 bytes (kind, id, length, check over all of it and the sequence) | bytes, filled up to a write unit
//! ```
//! An entry whose check fails was never acknowledged, or rotted; it is skipped and the one before it counts.

use alloc::{collections::BTreeMap, format, vec::Vec};
use core::fmt;

use wasmbed_agent::{IDENTITY_BYTES_MAX, storage::StorageError};

use crate::{
    Geometry, Medium, MediumError,
    entry::{Entry, HEAD, Key, Kind, entry_head, is_newer, segment_head, segment_heads, write_entry},
    medium::{copy, is_blank, program_padded, read},
    runs::Run,
};

/// Kept free of what grows, for the time floor, the seed and the note of a reset.
const RESERVED_BYTES: u32 = 2_048;
/// Of a segment at most, kept free of what grows, for the identity record: a board that can't keep a new certificate is lost.
const IDENTITY_SHARE: u32 = 8;
/// A note of why the board reset; a report carries less.
pub const NOTE_BYTES_MAX: usize = 512;

/// Why a step did not end an operation.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A block was erased; ask again.
    More,
    /// It can't be done.
    Failed(StorageError),
}

impl From<MediumError> for Stop {
    fn from(error: MediumError) -> Self {
        Self::Failed(StorageError::Failed(format!("{error}")))
    }
}

#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u32,
    length: u32,
}

/// A rule of the log that does not hold: a bug of this crate, or of the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// The next entry goes into the active segment, which exists as soon as there is a record.
    Segment,
    /// Records lie one behind the other before the place of the next entry.
    Overlap,
    /// A record is on the medium as it was written.
    Record,
    /// What follows the last entry is blank, unless the next entry goes to another segment.
    Blank,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Segment => "the next entry would not go into the active segment",
            Self::Overlap => "two records overlap, or one lies behind the end of the log",
            Self::Record => "a record is not on the medium as it was written",
            Self::Blank => "the next entry would be written over bytes that are not blank",
        })
    }
}

impl core::error::Error for Invariant {}

/// What is known of the log: where each record is, and where the next entry goes.
#[derive(Debug)]
pub(crate) struct Log {
    geometry: Geometry,
    write_bytes: u32,
    live: BTreeMap<Key, Place>,
    active: Option<u32>,
    sequence: u64,
    /// Where the next entry goes.
    end: u32,
    /// The next entry needs a new segment.
    sealed: bool,
    /// Blocks of the next segment that are erased.
    erased: u32,
    /// The block after the run written last.
    cursor: u32,
}

impl Log {
    /// Reads what is there, whatever it is; writes nothing.
    pub(crate) fn open<M: Medium>(medium: &M, geometry: Geometry) -> Self {
        let mut log = Self {
            geometry,
            write_bytes: M::WRITE_BYTES as u32,
            live: BTreeMap::new(),
            active: None,
            sequence: 0,
            end: 0,
            sealed: true,
            erased: 0,
            cursor: 0,
        };
        let heads = || segment_heads(medium, &geometry);
        let newest =
            heads().find(|(_, one)| heads().all(|(_, other)| other == *one || is_newer(*one, other)));
        // Of heads that this store did not write any may be the one.
        if let Some((segment, sequence)) = newest.or_else(|| heads().next()) {
            (log.active, log.sequence) = (Some(segment), sequence);
            log.replay(medium, segment);
        }
        log
    }

    fn replay<M: Medium>(&mut self, medium: &M, segment: u32) {
        let range = self.geometry.segment(segment);
        let mut at = range.start + HEAD;
        self.sealed = false;
        while range.end - at >= HEAD {
            let Some(head) = read(medium, at, HEAD).filter(|head| !is_blank(head)) else { break };
            let Some(entry) = Entry::read(head) else {
                self.sealed = true;
                break;
            };
            if entry.length > range.end - at - HEAD || self.size(entry.length) > range.end - at {
                self.sealed = true;
                break;
            }
            let place = Place { offset: at + HEAD, length: entry.length };
            let content = read(medium, place.offset, place.length).unwrap_or_default();
            if entry.is_intact(self.sequence, head, content) {
                self.apply(entry.key, content, entry.present.then_some(place));
            }
            at += self.size(entry.length);
        }
        self.end = at;
        self.sealed |= !read(medium, at, range.end - at).is_some_and(is_blank);
    }

    fn apply(&mut self, key: Key, content: &[u8], place: Option<Place>) {
        if key.kind == Kind::Module {
            self.live.remove(&Key { kind: Kind::Staged, ..key });
        }
        match place {
            Some(place) => self.live.insert(key, place),
            None => self.live.remove(&key),
        };
        self.advance_cursor(key.kind, content);
    }

    /// The block after the run written last: the next one goes there.
    pub(crate) fn cursor(&self) -> u32 {
        self.cursor
    }

    /// Whether the log's invariants hold, by what is on the medium. For tests and simulations: it reads every record.
    pub(crate) fn check<M: Medium>(&self, medium: &M) -> Result<(), Invariant> {
        let Some(active) = self.active else {
            return if self.live.is_empty() { Ok(()) } else { Err(Invariant::Segment) };
        };
        let range = self.geometry.segment(active);
        if !(range.start + HEAD..=range.end).contains(&self.end) {
            return Err(Invariant::Segment);
        }
        let mut places: Vec<(Key, Place)> = self.live.iter().map(|(key, place)| (*key, *place)).collect();
        places.sort_unstable_by_key(|(_, place)| place.offset);
        let mut free = range.start + HEAD;
        for (key, place) in places {
            if place.offset < free + HEAD || place.offset - HEAD + self.size(place.length) > self.end {
                return Err(Invariant::Overlap);
            }
            free = place.offset - HEAD + self.size(place.length);
            let head = read(medium, place.offset - HEAD, HEAD).unwrap_or_default();
            let content = read(medium, place.offset, place.length).unwrap_or_default();
            let intact = Entry::read(head).is_some_and(|entry| {
                entry.key == key && entry.present && entry.is_intact(self.sequence, head, content)
            });
            if !intact {
                return Err(Invariant::Record);
            }
        }
        let rest = read(medium, self.end, range.end - self.end);
        if !self.sealed && !rest.is_some_and(is_blank) {
            return Err(Invariant::Blank);
        }
        Ok(())
    }

    /// A record's bytes.
    pub(crate) fn get<'f>(&self, flash: &'f [u8], key: &Key) -> Option<&'f [u8]> {
        let place = self.live.get(key)?;
        bytes(flash, place.offset, place.length)
    }

    /// The ids of a kind.
    pub(crate) fn ids(&self, kind: Kind) -> impl Iterator<Item = [u8; 32]> {
        self.live.keys().filter(move |key| key.kind == kind).map(|key| key.id)
    }

    /// Replaces or removes a record. After [`Stop::More`] nothing has changed and the call is to be repeated.
    pub(crate) fn put<M: Medium>(
        &mut self,
        medium: &mut M,
        key: Key,
        content: Option<&[u8]>,
    ) -> Result<(), Stop> {
        if content.is_none() && !self.live.contains_key(&key) && key.kind != Kind::Module {
            return Ok(());
        }
        let length = content.map_or(0, <[u8]>::len);
        let length = u32::try_from(length).map_err(|_| Stop::Failed(StorageError::Full))?;
        self.check_room(&key, content.is_some(), length)?;
        let room = self.active.map_or(0, |segment| self.geometry.segment(segment).end - self.end);
        if self.sealed || self.size(length) > room {
            return self.move_on(medium, key, content);
        }
        // Until it is known to be there, what follows it can't be written.
        self.sealed = true;
        let at = self.end;
        write_entry(medium, at, self.sequence, key, content)?;
        self.end = at + self.size(length);
        self.sealed = false;
        let place = Place { offset: at + HEAD, length };
        self.apply(key, content.unwrap_or_default(), content.is_some().then_some(place));
        Ok(())
    }

    /// Moves everything that is live to another segment. As [`put`](Self::put), it may have to be repeated.
    pub(crate) fn compact<M: Medium>(&mut self, medium: &mut M) -> Result<(), Stop> {
        self.move_on(medium, Key::only(Kind::Cursor), None)
    }

    /// Whether this address is in the segment that the live records are in.
    pub(crate) fn is_active(&self, address: u32) -> bool {
        self.active.is_some_and(|segment| self.geometry.segment(segment).contains(&address))
    }

    /// Everything must fit one segment at any time, or the log could not move on.
    fn check_room(&self, key: &Key, present: bool, length: u32) -> Result<(), Stop> {
        let kept = self.kept(key).map(|(_, place)| u64::from(self.size(place.length)));
        let cursor = self.size(4);
        let entry = u64::from(HEAD) + u64::from(length) + u64::from(self.write_bytes);
        let needed = kept.sum::<u64>() + u64::from(HEAD + cursor) + if present { entry } else { 0 };
        let reserve = match (present, key.kind) {
            (false, _) => 0,
            (true, kind) if kind.may_use_reserve() => 0,
            (true, Kind::Identity) => RESERVED_BYTES,
            (true, _) => RESERVED_BYTES + self.identity_reserve(),
        };
        if needed + u64::from(reserve) > u64::from(self.geometry.segment_bytes()) {
            return Err(Stop::Failed(StorageError::Full));
        }
        Ok(())
    }

    /// What the identity record may still grow by.
    fn identity_reserve(&self) -> u32 {
        let all = self.size(IDENTITY_BYTES_MAX as u32).min(self.geometry.segment_bytes() / IDENTITY_SHARE);
        let held = self.live.iter().filter(|(key, _)| key.kind == Kind::Identity);
        held.fold(all, |rest, (_, place)| rest.saturating_sub(self.size(place.length)))
    }

    /// What stays live when a record is replaced.
    fn kept(&self, replaced: &Key) -> impl Iterator<Item = (Key, Place)> {
        let replaced = *replaced;
        self.live.iter().map(|(key, place)| (*key, *place)).filter(move |(key, _)| {
            let ended = replaced.kind == Kind::Module && key.kind == Kind::Staged && key.id == replaced.id;
            *key != replaced && key.kind != Kind::Cursor && !ended
        })
    }

    fn move_on<M: Medium>(&mut self, medium: &mut M, key: Key, content: Option<&[u8]>) -> Result<(), Stop> {
        let next = self.active.map_or(0, |segment| (segment + 1) % self.geometry.segments);
        let sequence = self.sequence.wrapping_add(1);
        // What this store did not write may claim to be newer still.
        let newer = segment_heads(medium, &self.geometry).find(|(segment, other)| {
            Some(*segment) != self.active && *segment != next && !is_newer(sequence, *other)
        });
        if let Some((segment, _)) = newer {
            medium.erase(self.geometry.segment(segment).start / self.geometry.erase_bytes)?;
            return Err(Stop::More);
        }
        if self.erased < self.geometry.segment_blocks {
            let first = self.geometry.segment(next).start / self.geometry.erase_bytes;
            medium.erase(first + self.erased)?;
            self.erased += 1;
            return Err(Stop::More);
        }
        // Whatever happens now, the segment is not blank any more.
        self.erased = 0;
        let range = self.geometry.segment(next);
        let mut at = range.start + HEAD;
        let mut live = BTreeMap::new();
        let kept: Vec<(Key, Place)> = self.kept(&key).collect();
        for (kept, place) in kept {
            let content = bytes(medium.mapped(), place.offset, place.length).unwrap_or_default();
            let head = entry_head(sequence, kept, Some(content));
            program_padded(medium, at, &head)?;
            copy(medium, place.offset, at + HEAD, place.length)?;
            live.insert(kept, Place { offset: at + HEAD, length: place.length });
            at += self.size(place.length);
        }
        self.advance_cursor(key.kind, content.unwrap_or_default());
        if let Some(content) = content.filter(|_| key.kind != Kind::Cursor) {
            write_entry(medium, at, sequence, key, Some(content))?;
            let length = content.len() as u32;
            live.insert(key, Place { offset: at + HEAD, length });
            at += self.size(length);
        }
        let cursor = self.cursor.to_le_bytes();
        write_entry(medium, at, sequence, Key::only(Kind::Cursor), Some(&cursor))?;
        at += self.size(4);
        program_padded(medium, range.start, &segment_head(sequence))?;
        *self = Self {
            live,
            active: Some(next),
            sequence,
            end: at,
            sealed: false,
            geometry: self.geometry,
            write_bytes: self.write_bytes,
            erased: 0,
            cursor: self.cursor,
        };
        Ok(())
    }

    /// The next run goes after the one written last.
    fn advance_cursor(&mut self, kind: Kind, content: &[u8]) {
        let run = Run::decode(content);
        match (kind, run, content.first_chunk()) {
            (Kind::Module | Kind::Staged, Some(run), _) => {
                let blocks = run.length.div_ceil(self.geometry.erase_bytes).max(1);
                self.cursor = run.start.saturating_add(blocks);
            }
            (Kind::Cursor, _, Some(block)) => self.cursor = u32::from_le_bytes(*block),
            _ => {}
        }
    }

    fn size(&self, length: u32) -> u32 {
        HEAD + length.next_multiple_of(self.write_bytes)
    }
}

fn bytes(flash: &[u8], offset: u32, length: u32) -> Option<&[u8]> {
    flash.get(offset as usize..)?.get(..length as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulated::Simulated;

    const GEOMETRY: Geometry = Geometry {
        erase_bytes: 4_096,
        identity_blocks: 1,
        segment_blocks: 1,
        segments: 3,
        module_blocks: 1,
        module_bytes_max: 4_096,
        flash_bytes: 5 * 4_096,
    };

    #[test]
    fn a_record_is_kept_whatever_sequences_the_segments_claim() {
        const CLAIMS: [Option<u64>; 8] = [
            None,
            Some(0),
            Some(1),
            Some(7),
            Some(1 << 62),
            Some(1 << 63),
            Some(u64::MAX - 1),
            Some(u64::MAX),
        ];
        let each = || 0..CLAIMS.len();
        let all = each().flat_map(|a| each().flat_map(move |b| each().map(move |c| [a, b, c])));
        let all = all.map(|indexes| indexes.map(|index| CLAIMS[index]));
        for sequences in all {
            let mut medium = Simulated::<4_096, 4>::new(5);
            for (segment, sequence) in sequences.into_iter().enumerate() {
                let start = GEOMETRY.segment(segment as u32).start as usize;
                if let Some(sequence) = sequence {
                    medium.bytes()[start..start + HEAD as usize].copy_from_slice(&segment_head(sequence));
                }
            }
            let key = Key::only(Kind::State);
            // Each round moves on to another segment at least once.
            for round in 0..6_u8 {
                let mut log = Log::open(&medium, GEOMETRY);
                let before = (round > 0).then(|| vec![round - 1; 1_300]);
                assert_eq!(log.get(medium.mapped(), &key), before.as_deref(), "{sequences:?} round {round}");
                while let Err(stop) = log.put(&mut medium, key, Some(&vec![round; 1_300])) {
                    assert!(matches!(stop, Stop::More), "{stop:?}");
                }
            }
            assert_eq!(medium.violations, 0);
        }
    }
}
