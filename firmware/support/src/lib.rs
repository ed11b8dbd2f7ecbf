//! What boards share that needs `unsafe`: the counting heap, the reset note, regions of memory, registers. All else that they
//! share is `wasmbed-board`'s.
//!
//! It may not know a processor or a board.

#![no_std]

extern crate alloc;

pub mod heap;
pub mod memory;
pub mod note;
pub mod region;
pub mod register;
pub mod stack;
