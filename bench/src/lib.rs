//! What the programs of this package share: a device's end of a connection, and what the kernel says of a process.

#![forbid(unsafe_code)]

pub mod peer;
pub mod process;
