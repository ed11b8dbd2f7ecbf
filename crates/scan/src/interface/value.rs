//! Values and their types as WebAssembly 1.0 has them.

use core::fmt;

/// The type of a parameter, a result or a global.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ValueType::I32 => "i32",
            ValueType::I64 => "i64",
            ValueType::F32 => "f32",
            ValueType::F64 => "f64",
        })
    }
}

/// A value; floats are kept as bits, so that a NaN's payload survives every copy.
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
}

impl Value {
    /// The type of this value.
    pub fn value_type(self) -> ValueType {
        match self {
            Value::I32(_) => ValueType::I32,
            Value::I64(_) => ValueType::I64,
            Value::F32(_) => ValueType::F32,
            Value::F64(_) => ValueType::F64,
        }
    }
}

/// Writes `(i32, i64) -> i32`, the way a person reads a signature.
pub(crate) struct Signature<'a>(pub(crate) &'a [ValueType], pub(crate) &'a [ValueType]);

impl fmt::Display for Signature<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, types: &[ValueType]| {
            for (i, value_type) in types.iter().enumerate() {
                if i > 0 {
                    f.write_str(", ")?;
                }
                write!(f, "{value_type}")?;
            }
            Ok(())
        };
        f.write_str("(")?;
        list(f, self.0)?;
        f.write_str(") -> ")?;
        match self.1 {
            [one] => write!(f, "{one}"),
            many => {
                f.write_str("(")?;
                list(f, many)?;
                f.write_str(")")
            }
        }
    }
}
