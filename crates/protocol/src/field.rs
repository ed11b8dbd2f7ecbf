//! How each kind of field is written, read and bounded. A field's shape is a value of one of these types, so that the
//! table in `codec` states a key, a name and a bound once for both directions.

#[cfg(test)]
use std::{format, string::String, vec::Vec};

use minicbor::encode::Encoder;

use crate::{
    error::{DecodeError, DecodeFault, EncodeError, Violation},
    ids::{
        ApplicationUid, BootCounter, BootId, CorrelationId, DeviceUid, Epoch, KeyHash, MessageGroups,
        ModuleDigest, Revision, Sequence, SpecHash, ValuesMac,
    },
    limits::{I2C_ADDRESS_MAX, I2C_ADDRESS_MIN, SETTING_TEXT_BYTES_MAX},
    list::{Item, List},
    reader::Reader,
    setting_value::SettingValue,
};

/// Writes into what is left of the caller's buffer.
pub(crate) type Writer<'w> = Encoder<&'w mut [u8]>;

impl From<minicbor::encode::Error<minicbor::encode::write::EndOfSlice>> for EncodeError {
    fn from(_: minicbor::encode::Error<minicbor::encode::write::EndOfSlice>) -> Self {
        Self::BufferTooSmall
    }
}

/// The shape of a field's value.
pub(crate) trait Shape<'a> {
    /// The value in its message.
    type Value;

    /// Whether the value is in the map at all.
    fn is_present(&self, _value: &Self::Value) -> bool {
        true
    }

    fn write(&self, value: &Self::Value, writer: &mut Writer<'_>) -> Result<(), EncodeError>;

    /// `reader` is `None` when the map lacks the key.
    fn read(&self, reader: Option<&mut Reader<'a>>) -> Result<Self::Value, DecodeError>;

    /// What the value breaks, if anything; asked on both sides.
    fn check(&self, _value: &Self::Value) -> Result<(), Violation> {
        Ok(())
    }

    /// The type as it must stand in `wasmbed.cddl`.
    #[cfg(test)]
    fn cddl(&self) -> String;

    /// Whether a map may lack the key.
    #[cfg(test)]
    fn is_optional(&self) -> bool {
        false
    }
}

fn required<'r, 'a>(reader: Option<&'r mut Reader<'a>>) -> Result<&'r mut Reader<'a>, DecodeError> {
    reader.ok_or(DecodeError::new(DecodeFault::Missing))
}

pub(crate) fn violation(violation: Violation) -> DecodeError {
    DecodeError::new(DecodeFault::Violation(violation))
}

pub(crate) fn at_most(max: usize, length: usize) -> Result<(), Violation> {
    if length <= max { Ok(()) } else { Err(Violation::TooLong { max }) }
}

/// An unsigned integer within bounds.
#[derive(Clone, Copy)]
pub(crate) struct Uint<T> {
    min: T,
    max: T,
}

impl<T: Bounded> Uint<T> {
    pub(crate) const ANY: Self = Self { min: T::MIN, max: T::MAX };

    pub(crate) const fn within(min: T, max: T) -> Self {
        Self { min, max }
    }
}

/// The integers that fields are made of.
pub(crate) trait Bounded: Copy + Into<u64> + TryFrom<u64> {
    const MIN: Self;
    const MAX: Self;
}

impl Bounded for u8 {
    const MIN: Self = Self::MIN;
    const MAX: Self = Self::MAX;
}
impl Bounded for u16 {
    const MIN: Self = Self::MIN;
    const MAX: Self = Self::MAX;
}
impl Bounded for u32 {
    const MIN: Self = Self::MIN;
    const MAX: Self = Self::MAX;
}
impl Bounded for u64 {
    const MIN: Self = Self::MIN;
    const MAX: Self = Self::MAX;
}

impl<T: Bounded> Uint<T> {
    fn out_of_range(&self) -> Violation {
        Violation::OutOfRange { min: self.min.into(), max: self.max.into() }
    }
}

impl<'a, T: Bounded> Shape<'a> for Uint<T> {
    type Value = T;

    fn write(&self, value: &T, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.u64((*value).into())?;
        Ok(())
    }

    fn read(&self, reader: Option<&mut Reader<'a>>) -> Result<T, DecodeError> {
        T::try_from(required(reader)?.uint()?).map_err(|_| violation(self.out_of_range()))
    }

    fn check(&self, value: &T) -> Result<(), Violation> {
        let value: u64 = (*value).into();
        if (self.min.into()..=self.max.into()).contains(&value) { Ok(()) } else { Err(self.out_of_range()) }
    }

    #[cfg(test)]
    fn cddl(&self) -> String {
        let (min, max) = (self.min.into(), self.max.into());
        if max == u64::MAX { "uint".into() } else { format!("{min}..{max}") }
    }
}

/// A value whose form follows from its type alone.
pub(crate) struct Of<T>(core::marker::PhantomData<T>);

impl<T> Of<T> {
    pub(crate) const ANY: Self = Self(core::marker::PhantomData);
}

/// Types that need no bound.
pub(crate) trait Simple: Copy {
    /// Name of its rule in `wasmbed.cddl`, in CamelCase.
    #[cfg(test)]
    const NAME: &'static str;

    fn write(self, writer: &mut Writer<'_>) -> Result<(), EncodeError>;
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

impl<'a, T: Simple> Shape<'a> for Of<T> {
    type Value = T;

    fn write(&self, value: &T, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        (*value).write(writer)
    }

    fn read(&self, reader: Option<&mut Reader<'a>>) -> Result<T, DecodeError> {
        T::read(required(reader)?)
    }

    #[cfg(test)]
    fn cddl(&self) -> String {
        crate::cddl::kebab(T::NAME)
    }
}

impl Simple for bool {
    #[cfg(test)]
    const NAME: &'static str = "Bool";

    fn write(self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.bool(self)?;
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.bool()
    }
}

macro_rules! bytes_field {
    ($($name:ident),+) => {$(
        impl Simple for $name {
            #[cfg(test)]
            const NAME: &'static str = stringify!($name);

            fn write(self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
                writer.bytes(&self.0)?;
                Ok(())
            }

            fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                reader.bytes()?.try_into().map(Self).map_err(|_| {
                    let length = Self::LEN as u64;
                    violation(Violation::OutOfRange { min: length, max: length })
                })
            }
        }
    )+};
}

bytes_field!(ModuleDigest, SpecHash, ApplicationUid, CorrelationId, BootId, DeviceUid, KeyHash, ValuesMac);

macro_rules! counter_field {
    ($($name:ident),+) => {$(
        impl Simple for $name {
            #[cfg(test)]
            const NAME: &'static str = stringify!($name);

            fn write(self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
                writer.u64(self.0)?;
                Ok(())
            }

            fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                reader.uint().map(Self)
            }
        }
    )+};
}

counter_field!(Epoch, Revision, Sequence, BootCounter, MessageGroups);

macro_rules! enumeration_field {
    ($($name:ident),+) => {$(
        impl Simple for crate::message::$name {
            #[cfg(test)]
            const NAME: &'static str = stringify!($name);

            fn write(self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
                writer.u32(self.code())?;
                Ok(())
            }

            fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                match u32::try_from(reader.uint()?) {
                    Ok(code) => Ok(Self::from(code)),
                    Err(_) => Err(violation(Violation::OutOfRange { min: 0, max: u64::from(u32::MAX) })),
                }
            }
        }
    )+};
}

enumeration_field!(
    ResetReason,
    ApplicationState,
    ReportReason,
    TrapKind,
    ErrorCode,
    CloseReason,
    JoinState,
    RestartPolicy,
    PeripheralKind,
    TopicDirection,
    MessageSource,
    Delivery,
    SettingResult
);

/// UTF-8 of at most so many bytes.
pub(crate) struct Text {
    pub(crate) bytes_max: usize,
}

impl<'a> Shape<'a> for Text {
    type Value = &'a str;

    fn write(&self, value: &&'a str, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.str(value)?;
        Ok(())
    }

    fn read(&self, reader: Option<&mut Reader<'a>>) -> Result<&'a str, DecodeError> {
        required(reader)?.text()
    }

    fn check(&self, value: &&'a str) -> Result<(), Violation> {
        at_most(self.bytes_max, value.len())
    }

    #[cfg(test)]
    fn cddl(&self) -> String {
        format!("text .size (0..{})", self.bytes_max)
    }
}

/// At most so many bytes.
pub(crate) struct Bytes {
    pub(crate) bytes_max: usize,
}

impl<'a> Shape<'a> for Bytes {
    type Value = &'a [u8];

    fn write(&self, value: &&'a [u8], writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.bytes(value)?;
        Ok(())
    }

    fn read(&self, reader: Option<&mut Reader<'a>>) -> Result<&'a [u8], DecodeError> {
        required(reader)?.bytes()
    }

    fn check(&self, value: &&'a [u8]) -> Result<(), Violation> {
        at_most(self.bytes_max, value.len())
    }

    #[cfg(test)]
    fn cddl(&self) -> String {
        format!("bytes .size (0..{})", self.bytes_max)
    }
}

/// The value of a setting.
pub(crate) struct SettingShape;

impl<'a> Shape<'a> for SettingShape {
    type Value = SettingValue<'a>;

    fn write(&self, value: &SettingValue<'a>, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        match value {
            SettingValue::Boolean(value) => writer.bool(*value)?,
            SettingValue::Integer(value) => writer.i64(*value)?,
            SettingValue::Text(value) => writer.str(value)?,
        };
        Ok(())
    }

    fn read(&self, reader: Option<&mut Reader<'a>>) -> Result<SettingValue<'a>, DecodeError> {
        required(reader)?.setting()
    }

    fn check(&self, value: &SettingValue<'a>) -> Result<(), Violation> {
        match value {
            SettingValue::Boolean(_) | SettingValue::Integer(_) => Ok(()),
            SettingValue::Text(value) => at_most(SETTING_TEXT_BYTES_MAX, value.len()),
        }
    }

    #[cfg(test)]
    fn cddl(&self) -> String {
        "setting-value".into()
    }
}

/// 7-bit addresses of I2C devices, a byte each, ascending, at least one. Those that UM10204 reserves are none.
pub(crate) struct I2cAddresses {
    pub(crate) items_max: usize,
}

impl<'a> Shape<'a> for I2cAddresses {
    type Value = &'a [u8];

    fn write(&self, value: &&'a [u8], writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.bytes(value)?;
        Ok(())
    }

    fn read(&self, reader: Option<&mut Reader<'a>>) -> Result<&'a [u8], DecodeError> {
        required(reader)?.bytes()
    }

    fn check(&self, value: &&'a [u8]) -> Result<(), Violation> {
        at_most(self.items_max, value.len())?;
        if value.is_empty() {
            return Err(Violation::OutOfRange { min: 1, max: self.items_max as u64 });
        }
        let mut last = None;
        for address in *value {
            if !(I2C_ADDRESS_MIN..=I2C_ADDRESS_MAX).contains(address) {
                let (min, max) = (I2C_ADDRESS_MIN.into(), I2C_ADDRESS_MAX.into());
                return Err(Violation::OutOfRange { min, max });
            }
            ascending(last, *address)?;
            last = Some(*address);
        }
        Ok(())
    }

    #[cfg(test)]
    fn cddl(&self) -> String {
        format!("bytes .size (1..{})", self.items_max)
    }
}

/// A field that may be absent.
pub(crate) struct Optional<S>(pub(crate) S);

impl<'a, S: Shape<'a>> Shape<'a> for Optional<S> {
    type Value = Option<S::Value>;

    fn is_present(&self, value: &Self::Value) -> bool {
        value.is_some()
    }

    fn write(&self, value: &Self::Value, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        value.as_ref().map_or(Ok(()), |value| self.0.write(value, writer))
    }

    fn read(&self, reader: Option<&mut Reader<'a>>) -> Result<Self::Value, DecodeError> {
        reader.map(|reader| self.0.read(Some(reader))).transpose()
    }

    fn check(&self, value: &Self::Value) -> Result<(), Violation> {
        value.as_ref().map_or(Ok(()), |value| self.0.check(value))
    }

    #[cfg(test)]
    fn cddl(&self) -> String {
        self.0.cddl()
    }

    #[cfg(test)]
    fn is_optional(&self) -> bool {
        true
    }
}

/// A map within a message, bounded as a whole.
pub(crate) struct Nested<T> {
    bytes_max: usize,
    of: core::marker::PhantomData<T>,
}

impl<T> Nested<T> {
    pub(crate) const fn at_most(bytes_max: usize) -> Self {
        Self { bytes_max, of: core::marker::PhantomData }
    }
}

impl<'a, T: Record<'a>> Shape<'a> for Nested<T> {
    type Value = T;

    fn write(&self, value: &T, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        let before = writer.writer().len();
        value.write_map(writer)?;
        if before - writer.writer().len() > self.bytes_max {
            return Err(EncodeError::TooLarge { max: self.bytes_max });
        }
        Ok(())
    }

    fn read(&self, reader: Option<&mut Reader<'a>>) -> Result<T, DecodeError> {
        let reader = required(reader)?;
        let start = reader.position();
        let value = T::read_map(reader)?;
        at_most(self.bytes_max, reader.position() - start).map_err(violation)?;
        Ok(value)
    }

    #[cfg(test)]
    fn cddl(&self) -> String {
        crate::cddl::kebab(T::NAME)
    }
}

/// Items of one type; `check` sees each with the one before it.
pub(crate) struct ListOf<T> {
    pub(crate) items_max: usize,
    pub(crate) check: fn(Option<&T>, &T) -> Result<(), Violation>,
}

impl<'a, T: Item<'a> + WriteItem + 'a> Shape<'a> for ListOf<T> {
    type Value = List<'a, T>;

    fn write(&self, value: &List<'a, T>, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.array(value.len() as u64)?;
        value.iter().try_for_each(|item| item.write_item(writer))
    }

    fn read(&self, reader: Option<&mut Reader<'a>>) -> Result<List<'a, T>, DecodeError> {
        let reader = required(reader)?;
        let declared = reader.array()?;
        let count = usize::try_from(declared).unwrap_or(usize::MAX);
        at_most(self.items_max, count).map_err(violation)?;
        let start = reader.position();
        for _ in 0..count {
            T::read(reader)?;
        }
        reader.leave();
        Ok(List::from_frame(reader.since(start), count))
    }

    fn check(&self, value: &List<'a, T>) -> Result<(), Violation> {
        at_most(self.items_max, value.len())?;
        let mut last = None;
        for item in value.iter() {
            (self.check)(last.as_ref(), &item)?;
            last = Some(item);
        }
        Ok(())
    }

    #[cfg(test)]
    fn cddl(&self) -> String {
        format!("[0*{} {}]", self.items_max, crate::cddl::kebab(T::NAME))
    }
}

/// A list whose key is absent when it is empty, so that there is one way to write that.
pub(crate) struct NonEmpty<T>(pub(crate) ListOf<T>);

impl<'a, T: Item<'a> + WriteItem + 'a> Shape<'a> for NonEmpty<T> {
    type Value = List<'a, T>;

    fn is_present(&self, value: &Self::Value) -> bool {
        !value.is_empty()
    }

    fn write(&self, value: &Self::Value, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        self.0.write(value, writer)
    }

    fn read(&self, reader: Option<&mut Reader<'a>>) -> Result<Self::Value, DecodeError> {
        let Some(reader) = reader else { return Ok(List::empty()) };
        let list = self.0.read(Some(reader))?;
        if list.is_empty() { Err(DecodeError::new(DecodeFault::NotDeterministic)) } else { Ok(list) }
    }

    fn check(&self, value: &Self::Value) -> Result<(), Violation> {
        self.0.check(value)
    }

    #[cfg(test)]
    fn cddl(&self) -> String {
        format!("[1*{} {}]", self.0.items_max, crate::cddl::kebab(T::NAME))
    }

    #[cfg(test)]
    fn is_optional(&self) -> bool {
        true
    }
}

/// Refuses an item that does not come after the one before it.
pub(crate) fn ascending<K: Ord>(last: Option<K>, key: K) -> Result<(), Violation> {
    if last.is_some_and(|last| last >= key) { Err(Violation::NotAscending) } else { Ok(()) }
}

/// How an item of a list is written.
pub(crate) trait WriteItem {
    /// Name of its rule in `wasmbed.cddl`, in CamelCase.
    #[cfg(test)]
    const NAME: &'static str;

    fn write_item(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError>;
}

impl WriteItem for &str {
    #[cfg(test)]
    const NAME: &'static str = "Text";

    fn write_item(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.str(self)?;
        Ok(())
    }
}

impl<'a> Item<'a> for &'a str {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.text()
    }
}

/// A struct whose fields are entries of one map.
pub(crate) trait Record<'a>: Sized {
    /// Name of its rule in `wasmbed.cddl`, in CamelCase.
    #[cfg(test)]
    const NAME: &'static str;

    /// Its entries as they must stand there: key, optional, type, name.
    #[cfg(test)]
    fn cddl_entries() -> Vec<crate::cddl::Entry>;

    /// Number of entries that are present.
    fn entries(&self) -> u64;
    /// Writes the entries, ascending.
    fn write_entries(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError>;
    /// Reads the entries, ascending.
    fn read_entries(map: &mut crate::reader::MapReader<'_, 'a>) -> Result<Self, DecodeError>;

    fn write_map(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.map(self.entries())?;
        self.write_entries(writer)
    }

    fn read_map(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut map = reader.map()?;
        let value = Self::read_entries(&mut map)?;
        map.finish()?;
        Ok(value)
    }
}
