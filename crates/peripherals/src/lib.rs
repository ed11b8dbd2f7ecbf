//! What applications reach of a device's buses: transfers as values, and the trait of what carries them out in bounded steps.
//! [`i2c::BitBanged`] is an I2C controller over two open-drain lines, [`spi::Words`] an SPI controller over a driver with the traits
//! of `embedded-hal-nb`. UARTs are the trait of what keeps bytes that come and takes those that go; [`uart::Serial`] is one over such
//! a driver.
//!
//! It may not know an application, an engine, a register or a clock: the time is an argument.
//!
//! ```text
//! i2c::address, spi::device <- bus::transfer <- bus::controller <- i2c::bit_banged, spi::words
//! uart::port <- uart::serial
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod bus;
pub mod i2c;
pub mod spi;
pub mod uart;
