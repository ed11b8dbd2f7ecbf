//! What every microcontroller has in common: the network with TLS on it, the console, the loop around the supervisor. A
//! board gives it drivers, see [`Hardware`].
//!
//! It may not touch hardware, decide what runs, or know a gateway's address before it read the identity in flash.
//!
//! ```text
//! run: identity -> random generator -> supervisor (applications start from flash) -> loop
//!
//!   loop: frames in -> supervisor's round -> frames out -> what was learnt of the time -> sleep
//! ```

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod address;
mod console;
pub mod ethernet;
mod hardware;
mod identity;
mod link;
mod network;
mod platform;
mod random;
mod run;

pub use hardware::{Hardware, Memory};
pub use run::{Start, run};
pub use smoltcp;
pub use wasmbed_board_data as data;
pub use wasmbed_flash as flash;
pub use wasmbed_protocol::ResetReason;
pub use wasmbed_supervisor::platform::{NoPeripherals, PeripheralError, Peripherals, bus, i2c, spi, uart};
