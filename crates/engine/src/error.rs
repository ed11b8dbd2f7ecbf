//! Why a module is refused.

use core::fmt;

use crate::types::ValueType;

/// A module can't be loaded, and where in it that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// What is wrong.
    pub kind: ErrorKind,
    /// The byte of the module, from its beginning.
    pub offset: u32,
}

/// What is wrong with a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A section, a function or the module ends too early.
    End,
    /// The module could not be read from where it is kept.
    Source,
    /// It is no WebAssembly module of version 1.
    NotAModule,
    /// A number has more bytes than its type.
    NumberTooLong,
    /// A number has more bits than its type.
    NumberTooLarge,
    /// A byte, a flag or a count that the format does not have.
    Malformed(&'static str),
    /// A name is not UTF-8.
    Name,
    /// A section is not where it belongs, or there twice.
    SectionOrder,
    /// Its contents don't end where the section or the function ends.
    Size,
    /// The module needs a feature that this engine doesn't have.
    Unsupported(&'static str),
    /// An operator that nobody has.
    Operator(u8),
    /// An index beyond what there is.
    Index {
        /// Of what.
        what: &'static str,
        /// The index.
        index: u32,
    },
    /// A value of another type than the operator takes.
    Type {
        /// What it takes.
        expected: ValueType,
        /// What there is.
        found: ValueType,
    },
    /// The operator takes more values than there are.
    StackEmpty,
    /// Values are left where a block ends.
    StackHeight,
    /// Another rule of validation.
    Invalid(&'static str),
    /// Two exports have the same name.
    DuplicateExport,
    /// The host does not offer this import, or with another type.
    Import {
        /// Its place among the imports.
        index: u32,
    },
    /// An active segment does not fit its memory or table.
    SegmentOutOfBounds,
    /// More of something than the engine's formats hold.
    Limit {
        /// Of what.
        what: &'static str,
        /// How many it holds.
        limit: u32,
    },
    /// The memory that was handed in has no room for the module.
    Memory {
        /// Bytes of the piece that did not fit.
        needed: u32,
    },
}

impl Error {
    /// Whether the module may well be valid, and has more of something than the engine's formats hold.
    pub fn is_limit(&self) -> bool {
        matches!(self.kind, ErrorKind::Limit { .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (byte {} of the module)", self.kind, self.offset)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorKind::End => f.write_str("unexpected end"),
            ErrorKind::Source => f.write_str("the module can't be read"),
            ErrorKind::NotAModule => f.write_str("not a WebAssembly module of version 1"),
            ErrorKind::NumberTooLong => f.write_str("a number has too many bytes"),
            ErrorKind::NumberTooLarge => f.write_str("a number is too large for its type"),
            ErrorKind::Malformed(what) => write!(f, "malformed {what}"),
            ErrorKind::Name => f.write_str("a name is not UTF-8"),
            ErrorKind::SectionOrder => f.write_str("a section is out of order or there twice"),
            ErrorKind::Size => f.write_str("a section or function has another size than it says"),
            ErrorKind::Unsupported(feature) => write!(f, "needs {feature}, which this engine does not have"),
            ErrorKind::Operator(operator) => write!(f, "unknown operator {operator:#04x}"),
            ErrorKind::Index { what, index } => write!(f, "there is no {what} {index}"),
            ErrorKind::Type { expected, found } => write!(f, "{found} where {expected} is expected"),
            ErrorKind::StackEmpty => f.write_str("an operator takes more values than there are"),
            ErrorKind::StackHeight => f.write_str("values are left at the end of a block"),
            ErrorKind::Invalid(what) => f.write_str(what),
            ErrorKind::DuplicateExport => f.write_str("two exports have the same name"),
            ErrorKind::Import { index } => write!(f, "import {index} is not what the host offers"),
            ErrorKind::SegmentOutOfBounds => {
                f.write_str("a segment lies out of bounds of its memory or table")
            }
            ErrorKind::Limit { what, limit } => write!(f, "more than {limit} {what}"),
            ErrorKind::Memory { needed } => write!(f, "no room for {needed} bytes more"),
        }
    }
}

impl core::error::Error for Error {}
