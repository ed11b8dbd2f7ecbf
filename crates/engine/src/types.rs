//! Values and their types.

use core::fmt;

/// A type of values, by the byte that WebAssembly's binary format has for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ValueType(u8);

impl ValueType {
    /// 32-bit integer.
    pub const I32: ValueType = ValueType(0x7f);
    /// 64-bit integer.
    pub const I64: ValueType = ValueType(0x7e);
    /// 32-bit float.
    pub const F32: ValueType = ValueType(0x7d);
    /// 64-bit float.
    pub const F64: ValueType = ValueType(0x7c);
    /// Reference to a function.
    pub const FUNCREF: ValueType = ValueType(0x70);
    /// Reference to a thing of the host.
    pub const EXTERNREF: ValueType = ValueType(0x6f);
    /// What the stack holds after a branch: fits every type.
    pub(crate) const UNKNOWN: ValueType = ValueType(0);

    /// The type with this byte.
    pub(crate) fn from_byte(byte: u8) -> Option<ValueType> {
        matches!(byte, 0x7c..=0x7f | 0x6f | 0x70).then_some(ValueType(byte))
    }

    /// A type out of the tables of the build script.
    pub(crate) const fn known(byte: u8) -> ValueType {
        ValueType(byte)
    }

    /// Its byte.
    pub(crate) fn byte(self) -> u8 {
        self.0
    }

    /// Slots that a value takes.
    pub(crate) fn slots(self) -> u16 {
        if self == ValueType::I64 || self == ValueType::F64 { 2 } else { 1 }
    }

    /// Whether it is a reference.
    pub(crate) fn is_reference(self) -> bool {
        self == ValueType::FUNCREF || self == ValueType::EXTERNREF
    }

    fn name(self) -> &'static str {
        match self {
            ValueType::I32 => "i32",
            ValueType::I64 => "i64",
            ValueType::F32 => "f32",
            ValueType::F64 => "f64",
            ValueType::FUNCREF => "funcref",
            ValueType::EXTERNREF => "externref",
            _ => "unknown",
        }
    }
}

impl fmt::Debug for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A value; floats as their bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// 32-bit integer.
    I32(i32),
    /// 64-bit integer.
    I64(i64),
    /// Bits of a 32-bit float.
    F32(u32),
    /// Bits of a 64-bit float.
    F64(u64),
    /// Index of a function, or null.
    FuncRef(Option<u32>),
    /// A number by which the host knows a thing of its own, or null.
    ExternRef(Option<u32>),
}

impl Value {
    /// Its type.
    pub fn value_type(self) -> ValueType {
        match self {
            Value::I32(_) => ValueType::I32,
            Value::I64(_) => ValueType::I64,
            Value::F32(_) => ValueType::F32,
            Value::F64(_) => ValueType::F64,
            Value::FuncRef(_) => ValueType::FUNCREF,
            Value::ExternRef(_) => ValueType::EXTERNREF,
        }
    }

    /// As one or two slots hold it.
    pub(crate) fn bits(self) -> u64 {
        match self {
            Value::I32(value) => u64::from(value as u32),
            Value::I64(value) => value as u64,
            Value::F32(bits) => u64::from(bits),
            Value::F64(bits) => bits,
            Value::FuncRef(index) | Value::ExternRef(index) => index.map_or(0, |index| u64::from(index) + 1),
        }
    }

    /// What slots hold, as a value.
    pub(crate) fn from_bits(value_type: ValueType, bits: u64) -> Value {
        let reference = (bits as u32).checked_sub(1);
        match value_type {
            ValueType::I64 => Value::I64(bits as i64),
            ValueType::F32 => Value::F32(bits as u32),
            ValueType::F64 => Value::F64(bits),
            ValueType::FUNCREF => Value::FuncRef(reference),
            ValueType::EXTERNREF => Value::ExternRef(reference),
            _ => Value::I32(bits as u32 as i32),
        }
    }
}

/// The type of a function: bytes of its parameters' and results' types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionType<'a> {
    pub(crate) parameters: &'a [u8],
    pub(crate) results: &'a [u8],
}

impl<'a> FunctionType<'a> {
    /// Types of the parameters.
    pub fn parameters(self) -> impl ExactSizeIterator<Item = ValueType> + DoubleEndedIterator + 'a {
        self.parameters.iter().map(|byte| ValueType::known(*byte))
    }

    /// Types of the results.
    pub fn results(self) -> impl ExactSizeIterator<Item = ValueType> + DoubleEndedIterator + 'a {
        self.results.iter().map(|byte| ValueType::known(*byte))
    }

    /// Slots of the parameters and of the results.
    pub(crate) fn slots(self) -> (u32, u32) {
        let slots = |types: &[u8]| types.iter().map(|byte| u32::from(ValueType::known(*byte).slots())).sum();
        (slots(self.parameters), slots(self.results))
    }
}
