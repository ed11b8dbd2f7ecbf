//! SPI with words of eight bits, the first bit first, this device as the controller: it clocks, and selects one chip at a time.

mod device;
mod words;

pub use device::Device;
pub use words::{Lines, TRANSFER_US_MAX, WORD_US_MAX, Words};
