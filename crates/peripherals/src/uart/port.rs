//! What bytes go through.

use core::fmt;

/// Bytes of one read or one write.
pub const BYTES_MAX: usize = 256;

/// Why bytes did not go one way or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no such UART, or it was not granted.
    NoPort,
    /// Another application has it.
    Busy,
    /// Bytes that came were lost, because they were not read in time.
    Overrun,
    /// Bytes that came were none: of another speed or with other bits, or disturbed.
    Garbled,
    /// It is there and does not work; the other end is gone.
    Failed,
    /// Nothing came, or nothing went, in time.
    Timeout,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPort => "there is no such UART, or it is not granted",
            Self::Busy => "another application has the UART",
            Self::Overrun => "bytes were lost, because they were not read in time",
            Self::Garbled => "what came were no bytes",
            Self::Failed => "the UART does not work",
            Self::Timeout => "it took too long",
        })
    }
}

impl core::error::Error for Error {}

/// A UART. Nothing here waits: bytes that come are kept in a buffer of a fixed size until they are read, and those that are
/// to go are taken as far as there is room. While it is open, it wakes the device's loop when bytes came and when the last of
/// those that it took have gone.
pub trait Port {
    /// Begins to receive, with so many bits per second. What came before is gone, and so is what had not gone out.
    ///
    /// # Errors
    /// It does not work, or not with that speed.
    fn open(&mut self, baud: u32) -> Result<(), Error>;

    /// Stops receiving and sending.
    fn close(&mut self);

    /// Copies the oldest of the bytes that came to the start of the buffer and answers how many; 0 while there are none.
    ///
    /// # Errors
    /// Where bytes were lost or disturbed: after those that came before, and once.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Error>;

    /// Takes as many bytes as there is room for and answers how many.
    ///
    /// # Errors
    /// It does not work.
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Error>;

    /// Whether everything that was taken has gone out.
    ///
    /// # Errors
    /// It does not work.
    fn is_sent(&mut self) -> Result<bool, Error>;
}
