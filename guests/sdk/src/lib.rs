//! What an application needs to run on a Wasmbed device: logging, waiting, the clock, data that outlives a restart,
//! settings, messages, pins, sensors, I2C buses and UARTs, as safe functions over the imports of docs/host-interface.md.
//!
//! It may not allocate, nor hide a wait in anything that isn't called `wait` or `wait_for_edges`, a transfer, or a read or write of bytes.
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//!
//! use core::time::Duration;
//! use wasmbed_guest::{entry, log, wait};
//!
//! entry!(main);
//!
//! fn main() {
//!     loop {
//!         log!("hello");
//!         wait(Duration::from_secs(10));
//!     }
//! }
//! ```
//!
//! Build it for `wasm32v1-none` with the flags in `guests/.cargo/config.toml`. An application ends when its main function
//! returns; it may use a limited amount of processor time between two waits, so a loop needs one.
#![no_std]
#![cfg(target_arch = "wasm32")]

mod error;
pub mod gpio;
pub mod i2c;
mod imports;
pub mod key_value;
mod line;
pub mod messages;
#[cfg(feature = "panic-handler")]
mod panic;
pub mod sensor;
pub mod settings;
pub mod spi;
mod time;
pub mod uart;

pub use error::Error;
#[doc(hidden)]
pub use line::log_arguments;
pub use time::{UnixTime, now, uptime, wait};

/// Writes a line to the application's log; it takes what [`core::format_args!`] takes.
///
/// A line longer than 256 bytes becomes several. A device passes on a few kilobytes a second and counts the rest as lost.
#[macro_export]
macro_rules! log {
    ($($argument:tt)*) => {
        $crate::log_arguments(::core::format_args!($($argument)*))
    };
}

/// Names the function that a device starts. It takes nothing and returns nothing.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        // SAFETY: no other symbol of a module is called `run`: the linker refuses two.
        #[unsafe(no_mangle)]
        extern "C" fn run() {
            let main: fn() = $main;
            main();
        }
    };
}
