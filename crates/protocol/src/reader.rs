//! Reads CBOR in the deterministic form of RFC 8949 §4.2.1 and nothing else.
//!
//! minicbor reads the values; whether a length or an integer was written in its shortest form shows in how many bytes
//! that took.

use minicbor::{data::Type, decode::Decoder};

use crate::{
    error::{DecodeError, DecodeFault, Violation},
    limits::DEPTH_MAX,
    setting_value::SettingValue,
};

/// A position within a message.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    decoder: Decoder<'a>,
    depth: usize,
}

/// Keys in the order that RFC 8949 §4.2.1 gives integers: 0, 1, 2 and on, then -1, -2 and on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    negative: bool,
    distance: u64,
}

impl Key {
    pub(crate) const fn known(key: i32) -> Self {
        let negative = key < 0;
        let distance = if negative { key.unsigned_abs() - 1 } else { key.unsigned_abs() };
        Self { negative, distance: distance as u64 }
    }

    /// For people; saturates at the ends of `i64`.
    fn value(self) -> i64 {
        let distance = i64::try_from(self.distance).unwrap_or(i64::MAX);
        if self.negative { -1 - distance } else { distance }
    }
}

/// Bytes that the head of a CBOR item takes in its shortest form (RFC 8949 §3).
const fn head_bytes(argument: u64) -> usize {
    match argument {
        0..=23 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

const fn fault(fault: DecodeFault) -> DecodeError {
    DecodeError::new(fault)
}

impl From<minicbor::decode::Error> for DecodeError {
    fn from(error: minicbor::decode::Error) -> Self {
        Self::new(if error.is_type_mismatch() { DecodeFault::WrongType } else { DecodeFault::NotCbor })
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { decoder: Decoder::new(bytes), depth: 0 }
    }

    pub(crate) fn position(&self) -> usize {
        self.decoder.position()
    }

    /// What was read since `start`.
    pub(crate) fn since(&self, start: usize) -> &'a [u8] {
        self.decoder.input().get(start..self.position()).unwrap_or_default()
    }

    /// Ends the message.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.position() == self.decoder.input().len() {
            Ok(())
        } else {
            Err(fault(DecodeFault::TrailingBytes))
        }
    }

    pub(crate) fn uint(&mut self) -> Result<u64, DecodeError> {
        let start = self.position();
        let value = self.decoder.u64()?;
        self.check_head(start, 0, value)?;
        Ok(value)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.decoder.bool()?)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        self.refuse_indefinite(Type::BytesIndef)?;
        let start = self.position();
        let value = self.decoder.bytes()?;
        self.check_head(start, value.len(), value.len() as u64)?;
        Ok(value)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        self.refuse_indefinite(Type::StringIndef)?;
        let start = self.position();
        let value = self.decoder.str()?;
        self.check_head(start, value.len(), value.len() as u64)?;
        Ok(value)
    }

    /// Opens an array and returns its number of items; [`Reader::leave`] follows the last one.
    pub(crate) fn array(&mut self) -> Result<u64, DecodeError> {
        let start = self.position();
        let count = self.decoder.array()?.ok_or(fault(DecodeFault::NotDeterministic))?;
        self.check_head(start, 0, count)?;
        self.enter()?;
        Ok(count)
    }

    /// Opens a map with integer keys; [`MapReader::finish`] closes it.
    pub(crate) fn map(&mut self) -> Result<MapReader<'_, 'a>, DecodeError> {
        let start = self.position();
        let remaining = self.decoder.map()?.ok_or(fault(DecodeFault::NotDeterministic))?;
        self.check_head(start, 0, remaining)?;
        self.enter()?;
        Ok(MapReader { reader: self, remaining, last: None, pending: None })
    }

    /// Closes an array.
    pub(crate) fn leave(&mut self) {
        self.depth -= 1;
    }

    fn enter(&mut self) -> Result<(), DecodeError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(fault(DecodeFault::TooDeep)) } else { Ok(()) }
    }

    fn key(&mut self) -> Result<Key, DecodeError> {
        let start = self.position();
        let key: i128 = self.decoder.int()?.into();
        let negative = key < 0;
        let distance = u64::try_from(if negative { -1 - key } else { key });
        let distance = distance.map_err(|_| fault(DecodeFault::NotCbor))?;
        self.check_head(start, 0, distance)?;
        Ok(Key { negative, distance })
    }

    /// A truth value, an integer of 64 bits or text.
    pub(crate) fn setting(&mut self) -> Result<SettingValue<'a>, DecodeError> {
        match self.decoder.datatype()? {
            Type::Bool => self.bool().map(SettingValue::Boolean),
            Type::String | Type::StringIndef => self.text().map(SettingValue::Text),
            _ => self.int().map(SettingValue::Integer),
        }
    }

    fn int(&mut self) -> Result<i64, DecodeError> {
        let Key { negative, distance } = self.key()?;
        // As far as an i64 goes, which is not as far as CBOR goes.
        let max = i64::MAX as u64;
        let distance = i64::try_from(distance)
            .map_err(|_| fault(DecodeFault::Violation(Violation::OutOfRange { min: 0, max })))?;
        Ok(if negative { -1 - distance } else { distance })
    }

    /// Passes over a value of a later version, which keeps the same form. Recursion is bounded by [`DEPTH_MAX`].
    pub(crate) fn skip(&mut self) -> Result<(), DecodeError> {
        match self.decoder.datatype()? {
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => self.uint().map(drop),
            Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => self.key().map(drop),
            Type::Bool => self.bool().map(drop),
            Type::Null => Ok(self.decoder.null()?),
            Type::Bytes => self.bytes().map(drop),
            Type::String => self.text().map(drop),
            Type::Array => {
                for _ in 0..self.array()? {
                    self.skip()?;
                }
                self.leave();
                Ok(())
            }
            Type::Map => self.map()?.skip_all(),
            Type::BytesIndef | Type::StringIndef | Type::ArrayIndef | Type::MapIndef => {
                Err(fault(DecodeFault::NotDeterministic))
            }
            Type::F16
            | Type::F32
            | Type::F64
            | Type::Simple
            | Type::Undefined
            | Type::Tag
            | Type::Break
            | Type::Unknown(_) => Err(fault(DecodeFault::WrongType)),
        }
    }

    fn refuse_indefinite(&self, indefinite: Type) -> Result<(), DecodeError> {
        if self.decoder.datatype()? == indefinite {
            Err(fault(DecodeFault::NotDeterministic))
        } else {
            Ok(())
        }
    }

    /// Refuses a head that is longer than its argument needs.
    fn check_head(&self, start: usize, content: usize, argument: u64) -> Result<(), DecodeError> {
        if self.position() - start == head_bytes(argument) + content {
            Ok(())
        } else {
            Err(fault(DecodeFault::NotDeterministic))
        }
    }
}

/// Reads a map's fields in the order of their keys.
#[derive(Debug)]
pub(crate) struct MapReader<'r, 'a> {
    reader: &'r mut Reader<'a>,
    remaining: u64,
    last: Option<Key>,
    pending: Option<Key>,
}

impl<'r, 'a> MapReader<'r, 'a> {
    /// The value of `key`, or `None` if the map lacks it. Keys are asked for in ascending order; those of a later
    /// version that lie between are passed over, unless they are critical.
    pub(crate) fn field(&mut self, key: i32) -> Result<Option<&mut Reader<'a>>, DecodeError> {
        let wanted = Key::known(key);
        while let Some(found) = self.peek()? {
            if found > wanted {
                return Ok(None);
            }
            if found == wanted {
                self.pending = None;
                return Ok(Some(self.reader));
            }
            if found.negative {
                return Err(fault(DecodeFault::UnknownCritical { key: found.value() }));
            }
            self.pending = None;
            self.reader.skip()?;
        }
        Ok(None)
    }

    /// Closes the map: what remains belongs to a later version and must not be critical.
    pub(crate) fn finish(mut self) -> Result<(), DecodeError> {
        while let Some(found) = self.peek()? {
            if found.negative {
                return Err(fault(DecodeFault::UnknownCritical { key: found.value() }));
            }
            self.pending = None;
            self.reader.skip()?;
        }
        self.reader.leave();
        Ok(())
    }

    /// Passes over a map that is itself of a later version, critical keys and all.
    fn skip_all(mut self) -> Result<(), DecodeError> {
        while self.peek()?.is_some() {
            self.pending = None;
            self.reader.skip()?;
        }
        self.reader.leave();
        Ok(())
    }

    fn peek(&mut self) -> Result<Option<Key>, DecodeError> {
        if self.pending.is_none() && self.remaining > 0 {
            let key = self.reader.key()?;
            if self.last.is_some_and(|last| last >= key) {
                return Err(fault(DecodeFault::NotDeterministic));
            }
            self.remaining -= 1;
            self.last = Some(key);
            self.pending = Some(key);
        }
        Ok(self.pending)
    }
}
