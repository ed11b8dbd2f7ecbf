//! Bytes and LEB128 numbers out of a module.

use crate::error::ScanError;
use crate::features::Features;
use crate::interface::ValueType;

/// Where a reader is in a module, and where it ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    position: usize,
    end: usize,
}

/// Reads forward through a part of a module and knows its place in the whole.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    module: &'a [u8],
    position: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    /// A reader that goes on where another one of the same module was.
    pub(crate) fn resumed(module: &'a [u8], Place { position, end }: Place) -> Reader<'a> {
        Reader { module, position, end }
    }

    /// Where it is.
    pub(crate) fn place(&self) -> Place {
        Place { position: self.position, end: self.end }
    }

    /// Bytes of the whole module.
    pub(crate) fn module_bytes(&self) -> usize {
        self.module.len()
    }

    /// A reader of the same module that begins elsewhere, at a place read before.
    pub(crate) fn at(&self, position: u32) -> Reader<'a> {
        Reader { module: self.module, position: position as usize, end: self.module.len() }
    }

    pub(crate) fn position(&self) -> u32 {
        u32::try_from(self.position).unwrap_or(u32::MAX)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.position >= self.end
    }

    pub(crate) fn remaining(&self) -> usize {
        self.end.saturating_sub(self.position)
    }

    pub(crate) fn malformed(&self, what: &'static str) -> ScanError {
        ScanError::Malformed { offset: self.position(), what }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, ScanError> {
        if self.is_empty() {
            return Err(self.malformed("it ends too early"));
        }
        #[cfg(test)]
        crate::metered::READ.set(crate::metered::READ.get() + 1);
        let byte =
            self.module.get(self.position).copied().ok_or_else(|| self.malformed("it ends too early"))?;
        self.position += 1;
        Ok(byte)
    }

    pub(crate) fn bytes(&mut self, length: u32) -> Result<&'a [u8], ScanError> {
        let length = length as usize;
        if length > self.remaining() {
            return Err(self.malformed("it ends too early"));
        }
        let bytes = self.module.get(self.position..self.position + length);
        self.position += length;
        bytes.ok_or_else(|| self.malformed("it ends too early"))
    }

    /// Lets reading end behind the next `length` bytes, until [`Self::widen`] lets it go on; answers where it ended.
    pub(crate) fn narrow(&mut self, length: u32) -> Result<usize, ScanError> {
        if length as usize > self.remaining() {
            return Err(self.malformed("it ends too early"));
        }
        let end = self.position + length as usize;
        Ok(core::mem::replace(&mut self.end, end))
    }

    /// Lets reading end farther behind.
    pub(crate) fn widen(&mut self, end: usize) {
        debug_assert!(end >= self.end, "it was narrower");
        self.end = end;
    }

    /// Goes on where reading ends.
    pub(crate) fn skip_rest(&mut self) {
        self.position = self.end.max(self.position);
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ScanError> {
        let value = self.leb(32, false)?;
        u32::try_from(value).map_err(|_| self.malformed("a number above 32 bits"))
    }

    pub(crate) fn s32(&mut self) -> Result<i64, ScanError> {
        self.leb(32, true)
    }

    pub(crate) fn s33(&mut self) -> Result<i64, ScanError> {
        self.leb(33, true)
    }

    pub(crate) fn s64(&mut self) -> Result<i64, ScanError> {
        self.leb(64, true)
    }

    /// A LEB128 number of at most this many bits, in at most as many bytes as the specification allows.
    fn leb(&mut self, bits: u32, signed: bool) -> Result<i64, ScanError> {
        let mut byte = self.byte()?;
        if byte & 0x80 == 0 {
            let extended = if signed { (byte << 1) as i8 >> 1 } else { byte as i8 };
            return Ok(i64::from(extended));
        }
        let mut value = 0i64;
        let mut shift = 0;
        loop {
            value |= i64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            shift += 7;
            if byte & 0x80 == 0 {
                if signed && shift < 64 && byte & 0x40 != 0 {
                    value |= -1i64 << shift;
                }
                if shift > bits {
                    self.check_last(byte, bits + 7 - shift, signed)?;
                }
                return Ok(value);
            }
            if shift >= bits {
                return Err(self.malformed("a number in too many bytes"));
            }
            byte = self.byte()?;
        }
    }

    /// The unused bits of a number's last byte must repeat the sign, or be zero.
    fn check_last(&self, byte: u8, used: u32, signed: bool) -> Result<(), ScanError> {
        let rest = (byte & 0x7f) >> used;
        let all_ones = 0x7f >> used;
        let negative = signed && byte & (1 << (used - 1)) != 0;
        if rest == if negative { all_ones } else { 0 } {
            Ok(())
        } else {
            Err(self.malformed("a number with too many bits"))
        }
    }

    /// A name of at most `limit` bytes.
    pub(crate) fn name(&mut self, limit: u32) -> Result<&'a str, ScanError> {
        let length = self.u32()?;
        if length > limit {
            return Err(ScanError::NameTooLong { bytes: length, limit });
        }
        let bytes = self.bytes(length)?;
        #[cfg(test)]
        crate::metered::READ.set(crate::metered::READ.get() + bytes.len());
        core::str::from_utf8(bytes).map_err(|_| self.malformed("a name that is not UTF-8"))
    }

    /// A value type. One beyond WebAssembly 1.0 comes back as the feature that it belongs to.
    pub(crate) fn value_type(&mut self) -> Result<Result<ValueType, Features>, ScanError> {
        let byte = self.byte()?;
        value_type(byte).ok_or_else(|| self.malformed("an unknown value type"))
    }
}

/// The value type of an encoding, or the feature that it belongs to, or nothing.
pub(crate) fn value_type(byte: u8) -> Option<Result<ValueType, Features>> {
    Some(match byte {
        0x7f => Ok(ValueType::I32),
        0x7e => Ok(ValueType::I64),
        0x7d => Ok(ValueType::F32),
        0x7c => Ok(ValueType::F64),
        0x7b => Err(Features::SIMD),
        0x70 | 0x6f => Err(Features::REFERENCE_TYPES),
        0x63..=0x6e | 0x71..=0x74 => Err(Features::GC),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Reader<'_> {
        Reader::resumed(bytes, Place { position: 0, end: bytes.len() })
    }

    #[test]
    fn numbers_in_and_out_of_range() {
        let read = |bytes: &[u8]| whole(bytes).u32().ok();
        assert_eq!(read(&[0x7f]), Some(127));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Some(u32::MAX));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x1f]), None);
        assert_eq!(read(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]), None);
        assert_eq!(read(&[0x80]), None);
        let signed = |bytes: &[u8]| whole(bytes).s32().ok();
        assert_eq!(signed(&[0x7f]), Some(-1));
        assert_eq!(signed(&[0x80, 0x80, 0x80, 0x80, 0x78]), Some(i64::from(i32::MIN)));
        assert_eq!(signed(&[0x80, 0x80, 0x80, 0x80, 0x70]), None);
        assert_eq!(signed(&[0xff, 0xff, 0xff, 0xff, 0x07]), Some(i64::from(i32::MAX)));
        let long = |bytes: &[u8]| whole(bytes).s64().ok();
        assert_eq!(long(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f]), Some(i64::MIN));
        assert_eq!(long(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7e]), None);
        assert_eq!(long(&[0x7f]), Some(-1));
    }
}
