//! Buses on which this device alone begins a transfer: what is to go over one, and what carries it out.

mod controller;
mod transfer;

pub use controller::{Controller, Error, Progress};
pub use transfer::{
    BYTES_MAX, Direction, OPERATIONS_MAX, Operation, PAUSES_US_MAX, Target, TooMuch, Transfer,
};
