//! The device's brain: the session with a gateway, convergence to the desired set, and the modules and state behind it,
//! as a state machine that is fed inputs and asked for outputs.
//!
//! It may not know an engine, a clock, flash or sockets: `now_ms` is an argument, random numbers come from the caller,
//! storage and applications are effects with completions, the network is bytes.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod storage;
