//! UARTs with eight data bits, no parity and one stop bit.

mod port;
mod serial;

pub use port::{BYTES_MAX, Error, Port};
pub use serial::{Line, Serial};
