//! I2C (NXP UM10204) with 7-bit addresses, this device as the only controller of the bus.

mod address;
mod bit_banged;

pub use address::Address;
pub use bit_banged::{BitBanged, HELD_US_MAX, TRANSFER_US_MAX};
