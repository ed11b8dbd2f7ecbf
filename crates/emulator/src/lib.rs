//! Runs a board's firmware in QEMU: its flash as files, its console as lines, its reset, its network cable and a debugger as calls.
//!
//! It may not know what firmware does, provision without being told what, or leave a QEMU behind, however its process
//! ends.
#![forbid(unsafe_code)]

mod board;
mod console;
mod debugger;
mod emulator;
mod error;
mod firmware;
mod flash;
mod qmp;

pub use board::{Kind, NotEmulated};
pub use console::{LINE_BYTES_MAX, LINES_MAX, TAIL_LINES_MAX};
pub use debugger::Debugger;
pub use emulator::{Emulator, Ended, Options};
pub use error::EmulatorError;
pub use firmware::find_firmware;
pub use flash::{HOST_ADDRESS, provision, reach_host};
