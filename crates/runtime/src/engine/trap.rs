//! How a program can fail.

use core::fmt;

/// What a program did, as the engine has it.
pub use wasmbed_engine::Trap as ProgramTrap;

/// Why a program was stopped. The wording is for the person who reads the application's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trap {
    /// The program executed what traps.
    Program(ProgramTrap),
    /// A host function was given something it can't work with.
    HostCall {
        /// The function.
        function: &'static str,
        /// What was wrong.
        what: &'static str,
    },
    /// A fault of the engine or of the sandbox, not of the program.
    Engine(&'static str),
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trap::Program(trap) => trap.fmt(f),
            Trap::HostCall { function, what } => write!(f, "{function}: {what}"),
            Trap::Engine(what) => write!(f, "fault of the sandbox: {what}"),
        }
    }
}
