//! Why a message could not be written or read. Decode errors are the peer's fault, encode errors the caller's.

use core::fmt;

use crate::{error_code::ErrorCode, limits::FRAME_BYTES_MAX};

/// A value that the protocol's limits or its order of items forbid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// More bytes or more items than this.
    TooLong {
        /// The most that is allowed.
        max: usize,
    },
    /// A number outside this range.
    OutOfRange {
        /// The smallest allowed.
        min: u64,
        /// The largest allowed.
        max: u64,
    },
    /// Items that are not strictly ascending, which also finds duplicates.
    NotAscending,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { max } => write!(f, "longer than {max}"),
            Self::OutOfRange { min, max } => write!(f, "not within {min} to {max}"),
            Self::NotAscending => f.write_str("not in strictly ascending order"),
        }
    }
}

/// A message that cannot be written; nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// The buffer is shorter than the message.
    BufferTooSmall,
    /// The message as a whole is longer than this many bytes, although each field keeps its own limit.
    TooLarge {
        /// The most that is allowed.
        max: usize,
    },
    /// One field breaks its limit.
    Field {
        /// Its name in [`message`](crate::DeviceMessage).
        field: &'static str,
        /// What is wrong with it.
        violation: Violation,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BufferTooSmall => f.write_str("the buffer is shorter than the message"),
            Self::TooLarge { max } => write!(f, "the message is longer than {max} bytes"),
            Self::Field { field, violation } => write!(f, "{field} is {violation}"),
        }
    }
}

impl core::error::Error for EncodeError {}

/// What is wrong with received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeFault {
    /// Not CBOR, or cut short.
    NotCbor,
    /// CBOR of another type than the field has, or a type that `wasmbed/1` never uses.
    WrongType,
    /// CBOR that is not in the deterministic form of RFC 8949 §4.2.1.
    NotDeterministic,
    /// Bytes after the map.
    TrailingBytes,
    /// Maps and arrays nested deeper than [`DEPTH_MAX`](crate::limits::DEPTH_MAX).
    TooDeep,
    /// A field that must be there is not.
    Missing,
    /// A field breaks its limit.
    Violation(Violation),
    /// A tag that this version, or this direction, does not have.
    UnknownMessage,
    /// A negative key that this version does not know.
    UnknownCritical {
        /// The key.
        key: i64,
    },
}

/// A message that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Tag of the message, if it was reached.
    pub tag: Option<u32>,
    /// Name of the field, if the fault is within one that has a name.
    pub field: Option<&'static str>,
    /// What is wrong.
    pub fault: DecodeFault,
}

impl DecodeError {
    pub(crate) const fn new(fault: DecodeFault) -> Self {
        Self { tag: None, field: None, fault }
    }

    /// Names the field, unless an inner one has been named.
    pub(crate) const fn within(mut self, field: &'static str) -> Self {
        if self.field.is_none() {
            self.field = Some(field);
        }
        self
    }

    /// How an [`ErrorNotice`](crate::ErrorNotice) classes it. An Error message itself is never answered.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self.fault {
            DecodeFault::NotCbor
            | DecodeFault::WrongType
            | DecodeFault::NotDeterministic
            | DecodeFault::TrailingBytes
            | DecodeFault::Missing
            | DecodeFault::Violation(Violation::NotAscending | Violation::OutOfRange { .. }) => {
                ErrorCode::Malformed
            }
            DecodeFault::TooDeep | DecodeFault::Violation(Violation::TooLong { .. }) => ErrorCode::TooLarge,
            DecodeFault::UnknownMessage => ErrorCode::Unexpected,
            DecodeFault::UnknownCritical { .. } => ErrorCode::UnknownCritical,
        }
    }

    /// Whether the session may go on: the bytes were in order, only newer than this version.
    #[must_use]
    pub const fn is_newer_version(&self) -> bool {
        matches!(self.fault, DecodeFault::UnknownMessage | DecodeFault::UnknownCritical { .. })
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tag) = self.tag {
            write!(f, "message {tag}: ")?;
        }
        if let Some(field) = self.field {
            write!(f, "{field}: ")?;
        }
        match self.fault {
            DecodeFault::NotCbor => f.write_str("not CBOR, or cut short"),
            DecodeFault::WrongType => f.write_str("wrong CBOR type"),
            DecodeFault::NotDeterministic => {
                f.write_str("not in deterministic form (RFC 8949 section 4.2.1)")
            }
            DecodeFault::TrailingBytes => f.write_str("bytes after the map"),
            DecodeFault::TooDeep => f.write_str("nested too deep"),
            DecodeFault::Missing => f.write_str("missing"),
            DecodeFault::Violation(violation) => write!(f, "{violation}"),
            DecodeFault::UnknownMessage => f.write_str("no message of this version and direction"),
            DecodeFault::UnknownCritical { key } => write!(f, "unknown critical key {key}"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// A frame whose length bytes are already wrong: the stream cannot be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Longer than [`FRAME_BYTES_MAX`], its length bytes included.
    TooLong {
        /// As declared, length bytes included.
        declared: usize,
    },
    /// A frame without a body.
    Empty,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { declared } => {
                write!(f, "a frame of {declared} bytes is declared, at most {FRAME_BYTES_MAX} are allowed")
            }
            Self::Empty => f.write_str("a frame without a body"),
        }
    }
}

impl core::error::Error for FrameError {}
