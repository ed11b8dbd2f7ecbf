//! I2C (NXP UM10204) with 7-bit addresses, this device as the only controller of the bus.

mod bit_banged;
mod controller;
mod transfer;

pub use bit_banged::{BitBanged, HELD_US_MAX, TRANSFER_US_MAX};
pub use controller::{Controller, Error, Progress};
pub use transfer::{Address, BYTES_MAX, Direction, OPERATIONS_MAX, Operation, TooMuch, Transfer};
