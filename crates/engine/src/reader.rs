//! The module as the translator reads it: in pieces, from wherever it is kept.

use core::cell::Cell;

use crate::error::{Error, ErrorKind};
use crate::types::ValueType;

/// Where a module is kept.
pub trait Source {
    /// Bytes of the module.
    fn length(&self) -> u32;

    /// Copies the bytes from this place on, as many as there are up to the buffer's length, at least one; `None` if they
    /// can't be read.
    fn read(&mut self, from: u32, into: &mut [u8]) -> Option<usize>;
}

impl Source for &[u8] {
    fn length(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    fn read(&mut self, from: u32, into: &mut [u8]) -> Option<usize> {
        let bytes = self.get(from as usize..)?;
        let count = bytes.len().min(into.len());
        into.get_mut(..count)?.copy_from_slice(bytes.get(..count)?);
        Some(count)
    }
}

/// Bytes of a piece.
const PIECE: usize = 64;

/// Reads a module from beginning to end, with a piece of it at hand.
pub(crate) struct Reader {
    piece: [u8; PIECE],
    /// What part of the piece is not yet read.
    at: u8,
    filled: u8,
    /// The module's byte that is read next, and the one at which reading ends.
    position: u32,
    end: u32,
    failure: Cell<Option<Error>>,
}

/// Something failed: what and where, the reader has noted. So that a result is a register wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed;

impl Reader {
    pub(crate) fn new(end: u32) -> Reader {
        Reader { piece: [0; PIECE], at: 0, filled: 0, position: 0, end, failure: Cell::new(None) }
    }

    /// Where the next byte is.
    pub(crate) fn position(&self) -> u32 {
        self.position
    }

    /// Lets reading end elsewhere.
    pub(crate) fn set_end(&mut self, end: u32) {
        self.end = end;
    }

    /// Whether all was read.
    pub(crate) fn is_done(&self) -> bool {
        self.position >= self.end
    }

    /// Goes elsewhere.
    pub(crate) fn seek(&mut self, position: u32) {
        self.position = position;
        (self.at, self.filled) = (0, 0);
    }

    /// Notes an error at this place.
    pub(crate) fn error(&self, kind: ErrorKind) -> Failed {
        self.error_at(kind, self.position)
    }

    /// Notes an error at another place.
    #[cold]
    #[inline(never)]
    pub(crate) fn error_at(&self, kind: ErrorKind, offset: u32) -> Failed {
        self.failure.set(Some(Error { kind, offset }));
        Failed
    }

    /// The error that was noted last.
    pub(crate) fn take_error(&self) -> Option<Error> {
        self.failure.take()
    }

    #[inline]
    pub(crate) fn byte(&mut self, source: &mut dyn Source) -> Result<u8, Failed> {
        if self.at == self.filled || self.position >= self.end {
            self.fill(source)?;
        }
        let byte = self.piece[usize::from(self.at) % PIECE];
        self.at += 1;
        self.position += 1;
        Ok(byte)
    }

    #[inline(never)]
    fn fill(&mut self, source: &mut dyn Source) -> Result<(), Failed> {
        if self.position >= self.end {
            return Err(self.error(ErrorKind::End));
        }
        let count = source.read(self.position, &mut self.piece).filter(|count| (1..=PIECE).contains(count));
        self.filled = count.ok_or_else(|| self.error(ErrorKind::Source))? as u8;
        self.at = 0;
        Ok(())
    }

    /// An unsigned number in LEB128.
    #[inline]
    pub(crate) fn number(&mut self, source: &mut dyn Source) -> Result<u32, Failed> {
        let first = self.byte(source)?;
        if first < 0x80 {
            return Ok(u32::from(first));
        }
        self.long_number(source, first)
    }

    fn long_number(&mut self, source: &mut dyn Source, first: u8) -> Result<u32, Failed> {
        let mut value = u32::from(first & 0x7f);
        let mut shift = 7;
        loop {
            let byte = self.byte(source)?;
            if shift == 28 && byte > 0x0f {
                return Err(self.error(if byte < 0x80 {
                    ErrorKind::NumberTooLarge
                } else {
                    ErrorKind::NumberTooLong
                }));
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    /// A signed number in LEB128 of so many bits.
    pub(crate) fn signed(&mut self, source: &mut dyn Source, bits: u32) -> Result<i64, Failed> {
        let mut value = 0_i64;
        let mut shift = 0;
        loop {
            let byte = self.byte(source)?;
            let left = bits - shift;
            if left < 7 {
                // The bits beyond are those of the sign.
                let beyond = (byte << 1) as i8 >> left;
                if byte >= 0x80 {
                    return Err(self.error(ErrorKind::NumberTooLong));
                }
                if beyond != 0 && beyond != -1 {
                    return Err(self.error(ErrorKind::NumberTooLarge));
                }
            }
            value |= i64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                if shift < 64 && byte & 0x40 != 0 {
                    value |= -1 << shift;
                }
                return Ok(value);
            }
        }
    }

    /// Four bytes, least first.
    pub(crate) fn word(&mut self, source: &mut dyn Source) -> Result<u32, Failed> {
        let mut value = 0;
        for shift in [0, 8, 16, 24] {
            value |= u32::from(self.byte(source)?) << shift;
        }
        Ok(value)
    }

    /// Eight bytes, least first.
    pub(crate) fn long_word(&mut self, source: &mut dyn Source) -> Result<u64, Failed> {
        Ok(u64::from(self.word(source)?) | u64::from(self.word(source)?) << 32)
    }

    /// Bytes into a buffer.
    pub(crate) fn bytes(&mut self, source: &mut dyn Source, into: &mut [u8]) -> Result<(), Failed> {
        for byte in into {
            *byte = self.byte(source)?;
        }
        Ok(())
    }

    /// Goes on behind so many bytes.
    pub(crate) fn skip(&mut self, count: u32) -> Result<(), Failed> {
        let to = self
            .position
            .checked_add(count)
            .filter(|to| *to <= self.end)
            .ok_or_else(|| self.error(ErrorKind::End))?;
        self.seek(to);
        Ok(())
    }

    /// The same, within the piece where that is possible.
    pub(crate) fn pass(&mut self, count: u32) -> Result<(), Failed> {
        if count > u32::from(self.filled - self.at).min(self.end.saturating_sub(self.position)) {
            return self.skip(count);
        }
        self.at += count as u8;
        self.position += count;
        Ok(())
    }

    /// Where so many bytes end, of which there are as many.
    pub(crate) fn end_of(&self, size: u32) -> Result<u32, Failed> {
        let end = self.position.checked_add(size).filter(|end| *end <= self.end);
        end.ok_or_else(|| self.error(ErrorKind::End))
    }

    /// The type of a value.
    pub(crate) fn value_type(&mut self, source: &mut dyn Source) -> Result<ValueType, Failed> {
        let byte = self.byte(source)?;
        match ValueType::from_byte(byte) {
            Some(value_type) => Ok(value_type),
            None if byte == 0x7b => Err(self.error(ErrorKind::Unsupported("SIMD"))),
            None => Err(self.error(ErrorKind::Malformed("type of a value"))),
        }
    }

    /// The type of a reference.
    pub(crate) fn reference_type(&mut self, source: &mut dyn Source) -> Result<ValueType, Failed> {
        let value_type = self.value_type(source)?;
        if value_type.is_reference() {
            Ok(value_type)
        } else {
            Err(self.error(ErrorKind::Malformed("type of a reference")))
        }
    }
}
