//! What carries transfers out.

use core::fmt;

use super::transfer::Transfer;

/// Why a transfer did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no such bus, or it was not granted.
    NoBus,
    /// The address, or the chip select, was not granted.
    Denied,
    /// No device has the address.
    NoAcknowledgeAddress,
    /// The device did not take a byte of data.
    NoAcknowledgeData,
    /// Somebody else pulled the data line.
    ArbitrationLost,
    /// The data line is held low and nine clocks did not free it, or a start or a stop was not to be had; the controller failed.
    Bus,
    /// The controller lost bytes.
    Overrun,
    /// The clock line was held low for too long, or the controller did not come to an end.
    Timeout,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoBus => "there is no such bus, or it is not granted",
            Self::Denied => "the address or the chip select is not granted",
            Self::NoAcknowledgeAddress => "no device acknowledged the address",
            Self::NoAcknowledgeData => "the device did not acknowledge a byte",
            Self::ArbitrationLost => "the data line was pulled by another",
            Self::Bus => "the bus does not work",
            Self::Overrun => "the controller lost bytes",
            Self::Timeout => "it took too long",
        })
    }
}

impl core::error::Error for Error {}

/// How far a step came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do at once.
    Working,
    /// A device holds the clock; the next step looks again.
    Waiting,
    /// It is over, and the bus is free as far as it can be.
    Done(Result<(), Error>),
}

/// A controller, moved on in steps of about a byte each, so that a device's loop does other things between them.
pub trait Controller {
    /// Moves a transfer on. The first call, and the first one after a [`Progress::Done`], begins it; until then it is always the
    /// same transfer.
    fn step(&mut self, transfer: &mut Transfer, now_us: u64) -> Progress;

    /// Gives up the transfer that is under way, or moves on what frees the bus after it; true once the next one can begin.
    fn give_up(&mut self, now_us: u64) -> bool;
}
