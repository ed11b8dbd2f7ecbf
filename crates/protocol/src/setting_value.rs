//! The value of a setting.

use core::fmt;

/// The value of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingValue<'a> {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// UTF-8 of at most [`SETTING_TEXT_BYTES_MAX`](crate::limits::SETTING_TEXT_BYTES_MAX).
    Text(&'a str),
}

impl<'a> SettingValue<'a> {
    /// As an application gets it: one byte of a truth value, eight of a number (little-endian), those of a text.
    pub fn with_bytes<R>(&self, take: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Self::Boolean(value) => take(&[u8::from(*value)]),
            Self::Integer(value) => take(&value.to_le_bytes()),
            Self::Text(value) => take(value.as_bytes()),
        }
    }
}

impl fmt::Display for SettingValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
        }
    }
}
