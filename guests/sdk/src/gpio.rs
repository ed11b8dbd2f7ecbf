//! The device's pins, with the traits of `embedded-hal` 1.0. Needs the capability `gpio`; for edges also the pin in
//! `config.peripherals.gpio`.

use core::{fmt, time::Duration};

use embedded_hal::digital::{ErrorKind, ErrorType, InputPin, OutputPin, StatefulOutputPin};

use crate::{imports, time::uptime, wait};

/// The level of a pin: true is high.
pub fn read(pin: u32) -> Result<bool, crate::Error> {
    crate::Error::check(imports::gpio_read(pin)).map(|level| level != 0)
}

/// Sets the level of a pin.
pub fn write(pin: u32, level: bool) -> Result<(), crate::Error> {
    crate::Error::check(imports::gpio_write(pin, u32::from(level))).map(drop)
}

/// A pin of the device, for whatever it is there for: an output's level can be read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin(u32);

/// Which edges are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edges {
    /// None any more.
    None = 0,
    /// From low to high.
    Rising = 1,
    /// From high to low.
    Falling = 2,
    /// Both.
    Both = 3,
}

/// Why a pin did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no such pin, or not for this use.
    NotFound,
    /// Other pins were granted, or not this one's edges.
    Denied,
    /// It did not work.
    Failed,
    /// Anything else: an error number of WASI preview 1.
    Other(i32),
}

impl Pin {
    /// The pin of a number: `gpio2` is 2. Whether it is there, and was granted, shows when it is used.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Counts these edges from now on, none of before; they end waits.
    pub fn watch(&mut self, edges: Edges) -> Result<(), Error> {
        Error::check(imports::gpio_watch(self.0, edges as u32)).map(drop)
    }

    /// The edges since the last call.
    pub fn edges(&mut self) -> Result<u32, Error> {
        Error::check(imports::gpio_edges(self.0))
    }

    /// Waits until there are edges, for so long at most, and answers how many; other applications run meanwhile.
    pub fn wait_for_edges(&mut self, timeout: Duration) -> Result<u32, Error> {
        let begun = uptime();
        loop {
            let edges = self.edges()?;
            let Some(left) = timeout.checked_sub(uptime().saturating_sub(begun)) else { return Ok(edges) };
            if edges > 0 || left.is_zero() {
                return Ok(edges);
            }
            // A message that came ends it too.
            wait(left);
        }
    }

    fn level(&self) -> Result<bool, Error> {
        Error::check(imports::gpio_read(self.0)).map(|level| level != 0)
    }

    fn set(&self, level: bool) -> Result<(), Error> {
        Error::check(imports::gpio_write(self.0, u32::from(level))).map(drop)
    }
}

impl Error {
    fn check(result: i32) -> Result<u32, Self> {
        Err(match result {
            0.. => return Ok(result.unsigned_abs()),
            -29 => Self::Failed,
            -44 => Self::NotFound,
            -76 => Self::Denied,
            other => Self::Other(other.wrapping_neg()),
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "no such pin",
            Self::Denied => "not granted",
            Self::Failed => "failed",
            Self::Other(number) => return write!(f, "error {number}"),
        })
    }
}

impl core::error::Error for Error {}

impl embedded_hal::digital::Error for Error {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

impl ErrorType for Pin {
    type Error = Error;
}

impl InputPin for Pin {
    fn is_high(&mut self) -> Result<bool, Error> {
        self.level()
    }

    fn is_low(&mut self) -> Result<bool, Error> {
        self.level().map(|level| !level)
    }
}

impl OutputPin for Pin {
    fn set_low(&mut self) -> Result<(), Error> {
        self.set(false)
    }

    fn set_high(&mut self) -> Result<(), Error> {
        self.set(true)
    }
}

impl StatefulOutputPin for Pin {
    fn is_set_high(&mut self) -> Result<bool, Error> {
        self.level()
    }

    fn is_set_low(&mut self) -> Result<bool, Error> {
        self.level().map(|level| !level)
    }
}
