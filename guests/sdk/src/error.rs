use core::fmt;

/// Why a device did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no such key, setting, topic, pin or sensor.
    NotFound,
    /// No room left for key-value data.
    NoSpace,
    /// Not now: there is no room for a message, or its topic's rate is used up.
    Again,
    /// A key, a value or a number outside its bounds.
    Invalid,
    /// The storage, pin or sensor is there and did not work.
    Failed,
    /// Anything else: an error number of WASI preview 1.
    Other(i32),
}

impl Error {
    /// The result of a host call: below zero it is an error number, negated.
    pub(crate) fn check(result: i32) -> Result<i32, Error> {
        match result {
            0.. => Ok(result),
            -6 => Err(Error::Again),
            -28 => Err(Error::Invalid),
            -29 => Err(Error::Failed),
            -44 => Err(Error::NotFound),
            -51 => Err(Error::NoSpace),
            other => Err(Error::Other(other.wrapping_neg())),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotFound => f.write_str("not found"),
            Error::Again => f.write_str("not now"),
            Error::NoSpace => f.write_str("no space left"),
            Error::Invalid => f.write_str("invalid argument"),
            Error::Failed => f.write_str("failed"),
            Error::Other(number) => write!(f, "error {number}"),
        }
    }
}

impl core::error::Error for Error {}
