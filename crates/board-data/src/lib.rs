//! The boards of `boards/*.toml` as constants: memories, data flash, budget, pins, QEMU's arguments. Firmware, the binary, project tasks
//! and the tables of the documentation read them here.
//!
//! It may not know a driver, do I/O or parse at run time: the files are read and checked when the crate is built.
#![no_std]
#![forbid(unsafe_code)]

mod board;
mod geometry;

pub use board::{Board, Budget, Bus, Chip, Code, Emulation, Pins, Region, Share, Uart};
pub use geometry::Geometry;

include!(concat!(env!("OUT_DIR"), "/boards.rs"));

/// The board of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Board> {
    ALL.into_iter().find(|board| board.name == name)
}
