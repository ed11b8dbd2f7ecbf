//! What a board's flash driver does.

use core::{fmt, ops::Range};

/// Memory-mapped NOR flash: an erase sets all bits of a block, a program clears bits of whole write units.
///
/// The store programs a write unit at most once between two erases, so flash with error correction will do. An operation
/// that answers `Ok` is durable. What was not finished, the store reads only after [`Medium::is_readable`] said that it may.
pub trait Medium {
    /// Bytes of an erase block.
    const ERASE_BYTES: usize;
    /// Bytes of a write unit: a power of two, at most 64.
    const WRITE_BYTES: usize;

    /// The data flash as it reads now, identity first.
    fn mapped(&self) -> &[u8];
    /// Whether reading these bytes does not fault: false where a write or an erase was interrupted on flash with error
    /// correction. Such a unit counts as written with something that nobody wanted.
    fn is_readable(&self, range: Range<u32>) -> bool {
        let _ = range;
        true
    }
    /// Erases block number `block`, counted from the start of [`Medium::mapped`]. The longest a call may take is one erase;
    /// a board whose erase outlasts its watchdog feeds it here.
    ///
    /// # Errors
    /// The medium failed; the block may hold anything.
    fn erase(&mut self, block: u32) -> Result<(), MediumError>;
    /// Programs erased write units; `offset` and the length are multiples of [`Medium::WRITE_BYTES`].
    ///
    /// # Errors
    /// The medium failed; the units may hold anything.
    fn program(&mut self, offset: u32, bytes: &[u8]) -> Result<(), MediumError>;
}

/// Why flash did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediumError {
    /// Beyond the end, or not at a multiple of a write unit: the caller is wrong.
    Bounds,
    /// A write unit was programmed twice without an erase between: the caller is wrong.
    NotErased,
    /// The controller reports a fault, or what was written reads differently.
    Failed(&'static str),
}

impl fmt::Display for MediumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bounds => f.write_str("flash address out of bounds or not aligned"),
            Self::NotErased => f.write_str("flash is not erased where it is written"),
            Self::Failed(what) => write!(f, "flash failed: {what}"),
        }
    }
}

impl core::error::Error for MediumError {}

/// The largest write unit.
pub(crate) const WRITE_BYTES_MAX: usize = 64;

/// Programs bytes at an aligned offset; the last unit is filled up with ones.
pub(crate) fn program_padded<M: Medium>(
    medium: &mut M,
    offset: u32,
    bytes: &[u8],
) -> Result<(), MediumError> {
    let whole = bytes.len() - bytes.len() % M::WRITE_BYTES;
    let (head, rest) = bytes.split_at(whole);
    if !head.is_empty() {
        medium.program(offset, head)?;
    }
    if !rest.is_empty() {
        let mut unit = [0xFF; WRITE_BYTES_MAX];
        unit[..rest.len()].copy_from_slice(rest);
        medium.program(offset + whole as u32, &unit[..M::WRITE_BYTES])?;
    }
    Ok(())
}

/// Copied at once; on the stack, whatever the length of what is copied.
const COPY_BYTES: usize = 512;

/// Copies within flash from anywhere to erased units.
pub(crate) fn copy<M: Medium>(medium: &mut M, from: u32, to: u32, length: u32) -> Result<(), MediumError> {
    let mut at = 0;
    while at < length {
        let piece = (length - at).min(COPY_BYTES as u32);
        let mut buffer = [0; COPY_BYTES];
        let source = (from + at) as usize..(from + at + piece) as usize;
        let source = medium.mapped().get(source).ok_or(MediumError::Bounds)?;
        let buffer = &mut buffer[..source.len()];
        buffer.copy_from_slice(source);
        program_padded(medium, to + at, buffer)?;
        at += piece;
    }
    Ok(())
}

/// Bytes that may have been written, or not, or half: none where they can't be read.
pub(crate) fn read<M: Medium>(medium: &M, offset: u32, length: u32) -> Option<&[u8]> {
    let end = offset.checked_add(length)?;
    if !medium.is_readable(offset..end) {
        return None;
    }
    medium.mapped().get(offset as usize..end as usize)
}

/// Whether all bits are set.
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    let (pieces, rest) = bytes.as_chunks::<16>();
    pieces.iter().all(|piece| *piece == [0xFF; 16]) && rest.iter().all(|byte| *byte == 0xFF)
}
