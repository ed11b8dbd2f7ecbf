//! What can go wrong with an emulated board.

use std::{io, path::PathBuf};

/// Why a board can't be started, or does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// QEMU is not on this machine.
    #[error("{program} is not installed: apt-get install {package}")]
    Missing {
        /// The program.
        program: &'static str,
        /// Debian's package of it.
        package: &'static str,
    },
    /// QEMU is too old.
    #[error("{program} is {found:?}; version 7.2 or newer is needed")]
    Version {
        /// The program.
        program: &'static str,
        /// What it says of itself.
        found: String,
    },
    /// A program can't be run.
    #[error("can't run {program}: {source}")]
    Program {
        /// The program.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// There is no firmware for the board.
    #[error(
        "there is no {board}.elf in {looked}: make it with `cargo xtask firmware`, or say where it is with --firmware"
    )]
    NoFirmware {
        /// The board.
        board: &'static str,
        /// The folders.
        looked: String,
    },
    /// The firmware's file is not what it should be.
    #[error("{} is not a firmware image: {problem}", .path.display())]
    Firmware {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// A file can't be used.
    #[error("can't use {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process runs a board from this flash.
    #[error("another board runs from {}; stop it, or choose another folder", .path.display())]
    Locked {
        /// The flash's file.
        path: PathBuf,
    },
    /// The flash belongs to another board.
    #[error("{} is the flash of a {found}, not of a {board}", .path.display())]
    OtherBoard {
        /// The flash's file.
        path: PathBuf,
        /// The board it is of.
        found: String,
        /// The board it should be of.
        board: &'static str,
    },
    /// The identity can't be written to the flash.
    #[error("can't provision the board: {0}")]
    Provision(#[from] wasmbed_flash::provision::ProvisionError),
    /// The size of this board's memory is fixed.
    #[error("the memory of {board} is fixed: leave its size out")]
    Memory {
        /// The board.
        board: &'static str,
    },
    /// QEMU ended.
    #[error("the emulator ended ({status}){said}")]
    Ended {
        /// How.
        status: String,
        /// What it and the board said last, each line on a line of its own.
        said: String,
    },
    /// Something did not come in time.
    #[error("{what} did not come within {seconds} s{said}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// What the board said last.
        said: String,
    },
    /// QEMU refused a command.
    #[error("the emulator refuses {command}: {problem}")]
    Refused {
        /// The command.
        command: &'static str,
        /// Its words.
        problem: String,
    },
    /// The connection to QEMU's control failed.
    #[error("the emulator's control failed at {command}: {source}")]
    Control {
        /// The command.
        command: &'static str,
        /// Why.
        source: io::Error,
    },
}
