//! UARTs, with the traits of `embedded-io`. Needs the capability `uart`, and the UART in `config.peripherals.uart`.
//!
//! ```ignore
//! let mut modem = uart::Port::new(0).with_timeout(Duration::from_secs(2));
//! modem.write_all(b"AT\r")?;
//! let count = modem.read(&mut buffer)?;
//! ```

use core::{fmt, time::Duration};

use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write};

use crate::imports;

/// A time that is never over.
const FOREVER: u32 = u32::MAX;

/// A UART of the device. It belongs to the first application on the device that uses it, until that ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Port {
    number: u32,
    timeout_ms: u32,
    /// What was read to see whether something is there.
    first: Option<u8>,
}

impl Port {
    /// The UART of a number: `uart0` is 0. Whether it is there, and was granted, shows when it is used; what comes before is not
    /// kept. Reads and writes wait without end.
    pub const fn new(number: u32) -> Self {
        Self { number, timeout_ms: FOREVER, first: None }
    }

    /// The same with reads and writes that wait for so long at most, 49 days at most, and fail with [`Error::Timeout`] then.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        let ms = timeout.as_nanos().div_ceil(1_000_000);
        Self { timeout_ms: u32::try_from(ms).unwrap_or(FOREVER - 1).min(FOREVER - 1), ..self }
    }

    fn receive(&self, buffer: &mut [u8], timeout_ms: u32) -> Result<usize, Error> {
        // SAFETY: the host writes into the buffer, which is borrowed here for as long as the call waits.
        let result =
            unsafe { imports::uart_read(self.number, timeout_ms, buffer.as_mut_ptr(), buffer.len()) };
        Error::check(result)
    }

    fn send(&self, bytes: &[u8]) -> Result<usize, Error> {
        // SAFETY: the host reads the bytes, which are borrowed here for as long as the call waits.
        let result =
            unsafe { imports::uart_write(self.number, bytes.as_ptr(), bytes.len(), self.timeout_ms) };
        Error::check(result)
    }
}

/// Why bytes did not go one way or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no such UART, or it was not granted.
    NoPort,
    /// Another application has it.
    Busy,
    /// Bytes that came were lost here, because they were not read in time.
    Overrun,
    /// What came were no bytes: another speed, other bits, noise.
    Garbled,
    /// It is there and does not work; the other end is gone.
    Failed,
    /// Nothing came, or nothing went, in time.
    Timeout,
    /// Anything else: an error number of WASI preview 1.
    Other(i32),
}

impl Error {
    fn check(result: i32) -> Result<usize, Self> {
        Err(match result {
            0.. => return Ok(usize::try_from(result).unwrap_or_default()),
            -10 => Self::Busy,
            -29 => Self::Failed,
            -44 => Self::NoPort,
            -61 => Self::Overrun,
            -65 => Self::Garbled,
            -73 => Self::Timeout,
            other => Self::Other(other.wrapping_neg()),
        })
    }
}

impl embedded_io::Error for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoPort => ErrorKind::NotFound,
            Self::Busy => ErrorKind::AddrInUse,
            Self::Overrun | Self::Garbled => ErrorKind::InvalidData,
            Self::Failed => ErrorKind::BrokenPipe,
            Self::Timeout => ErrorKind::TimedOut,
            Self::Other(_) => ErrorKind::Other,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPort => "no such UART, or not granted",
            Self::Busy => "another application has it",
            Self::Overrun => "bytes lost",
            Self::Garbled => "no bytes",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Other(number) => return write!(f, "error {number}"),
        })
    }
}

impl core::error::Error for Error {}

impl ErrorType for Port {
    type Error = Error;
}

impl Read for Port {
    /// Waits for a byte; other applications run meanwhile. At most 256 at once.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let Some(place) = buffer.first_mut() else { return Ok(0) };
        match self.first.take() {
            Some(byte) => {
                *place = byte;
                Ok(1)
            }
            None => self.receive(buffer, self.timeout_ms),
        }
    }
}

impl ReadReady for Port {
    fn read_ready(&mut self) -> Result<bool, Error> {
        if self.first.is_none() {
            let mut byte = [0];
            self.first = match self.receive(&mut byte, 0) {
                Ok(_) => Some(byte[0]),
                Err(Error::Timeout) => None,
                Err(error) => return Err(error),
            };
        }
        Ok(self.first.is_some())
    }
}

impl Write for Port {
    /// Waits until the device has taken the bytes, 256 at most, or as many as it takes in time.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        if bytes.is_empty() { Ok(0) } else { self.send(bytes) }
    }

    /// Waits until they are out.
    fn flush(&mut self) -> Result<(), Error> {
        self.send(&[]).map(drop)
    }
}
