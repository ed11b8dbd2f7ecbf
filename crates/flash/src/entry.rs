//! What segments and entries of the log look like on the medium; see [`log`](crate::log) for their order.

use sha2::{Digest as _, Sha256};

use crate::{
    Geometry, Medium, MediumError,
    medium::{program_padded, read},
};

/// Bytes of a segment's head and of an entry's.
pub(crate) const HEAD: u32 = 64;
const SEGMENT_MAGIC: [u8; 4] = *b"WbS1";
const ENTRY_MAGIC: [u8; 4] = *b"WbE1";

/// What a record is. Modules come before staged ones: in a log, a module's entry ends the staged one of its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    State,
    Data,
    TimeFloor,
    Seed,
    Note,
    /// Where the last run was, so that the next one goes elsewhere.
    Cursor,
    /// What a board made of the provisioned identity that its id names.
    Identity,
    Module,
    Staged,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::State => 1,
            Self::Data => 2,
            Self::TimeFloor => 3,
            Self::Seed => 4,
            Self::Note => 5,
            Self::Cursor => 6,
            Self::Module => 7,
            Self::Staged => 8,
            Self::Identity => 9,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        let all = [
            Self::State,
            Self::Data,
            Self::TimeFloor,
            Self::Seed,
            Self::Note,
            Self::Cursor,
            Self::Identity,
            Self::Module,
            Self::Staged,
        ];
        all.into_iter().find(|kind| kind.code() == code)
    }

    pub(crate) fn may_use_reserve(self) -> bool {
        match self {
            Self::TimeFloor | Self::Seed | Self::Note | Self::Cursor => true,
            Self::State | Self::Data | Self::Identity | Self::Module | Self::Staged => false,
        }
    }
}

/// A record's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) id: [u8; 32],
}

impl Key {
    /// Of what there is one of.
    pub(crate) fn only(kind: Kind) -> Self {
        Self { kind, id: [0; 32] }
    }
}

/// An entry's head.
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) present: bool,
    pub(crate) length: u32,
    check: [u8; 16],
}

impl Entry {
    pub(crate) fn read(head: &[u8]) -> Option<Self> {
        let (content, tail) = head.split_at_checked(60)?;
        if !content.starts_with(&ENTRY_MAGIC) || check(&[content])[..4] != *tail {
            return None;
        }
        Some(Self {
            key: Key { kind: Kind::from_code(content[4])?, id: content[12..44].try_into().ok()? },
            present: content[5] == 0,
            length: u32::from_le_bytes(content[8..12].try_into().ok()?),
            check: content[44..60].try_into().ok()?,
        })
    }

    /// Whether it was written whole, in the segment with this sequence and with this content.
    pub(crate) fn is_intact(&self, sequence: u64, head: &[u8], content: &[u8]) -> bool {
        head.get(..44).is_some_and(|head| self.check == check(&[&sequence.to_le_bytes(), head, content]))
    }
}

pub(crate) fn write_entry<M: Medium>(
    medium: &mut M,
    at: u32,
    sequence: u64,
    key: Key,
    content: Option<&[u8]>,
) -> Result<(), MediumError> {
    program_padded(medium, at, &entry_head(sequence, key, content))?;
    program_padded(medium, at + HEAD, content.unwrap_or_default())
}

pub(crate) fn entry_head(sequence: u64, key: Key, content: Option<&[u8]>) -> [u8; HEAD as usize] {
    let present = content.is_some();
    let content = content.unwrap_or_default();
    let mut head = [0; HEAD as usize];
    head[..4].copy_from_slice(&ENTRY_MAGIC);
    head[4] = key.kind.code();
    head[5] = u8::from(!present);
    head[8..12].copy_from_slice(&(content.len() as u32).to_le_bytes());
    head[12..44].copy_from_slice(&key.id);
    let whole = check(&[&sequence.to_le_bytes(), &head[..44], content]);
    head[44..60].copy_from_slice(&whole);
    let tail = check(&[&head[..60]]);
    head[60..].copy_from_slice(&tail[..4]);
    head
}

pub(crate) fn segment_head(sequence: u64) -> [u8; HEAD as usize] {
    let mut head = [0; HEAD as usize];
    head[..4].copy_from_slice(&SEGMENT_MAGIC);
    head[8..16].copy_from_slice(&sequence.to_le_bytes());
    let tail = check(&[&head[..48]]);
    head[48..].copy_from_slice(&tail);
    head
}

/// The segments that have a head, with their sequences.
pub(crate) fn segment_heads<M: Medium>(medium: &M, geometry: &Geometry) -> impl Iterator<Item = (u32, u64)> {
    (0..geometry.segments).filter_map(|segment| {
        let head = read(medium, geometry.segment(segment).start, HEAD)?;
        Some((segment, read_segment_head(head)?))
    })
}

/// Whether a sequence comes after another one; they wrap.
pub(crate) fn is_newer(one: u64, other: u64) -> bool {
    (1..1 << 63).contains(&one.wrapping_sub(other))
}

fn read_segment_head(head: &[u8]) -> Option<u64> {
    let sequence = u64::from_le_bytes(head.get(8..16)?.try_into().ok()?);
    (*head == segment_head(sequence)).then_some(sequence)
}

/// The first half of a SHA-256: no dependency more, and no torn write passes.
fn check(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let mut check = [0; 16];
    check.copy_from_slice(&hash.finalize()[..16]);
    check
}
