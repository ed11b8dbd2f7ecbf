//! What the FPGA images of Arm's MPS2 board share: drivers of CMSDK's peripherals and of the LAN9118, and the way from reset to the
//! loop.
//!
//! It may not know where an image has a peripheral: that is its [`Image`].

#![no_std]

extern crate alloc;

mod board;
pub mod clock;
mod flash;
mod i2c;
mod image;
mod interrupt;
mod lan9118;
mod pins;
mod serial;
mod spi;
mod start;
pub mod uart;
mod watchdog;

pub use image::Image;
pub use start::start;
