//! What boards with an Armv7-M or Armv8-M (mainline) processor share: what ends a run that can't go on, the guard below the stack, and
//! sleep.
//!
//! It may not know a board: a console is a function that the board names.

#![no_std]

pub mod fault;
pub mod guard;
pub mod sleep;
