//! How a program can fail.

use core::fmt;

/// Why a program was stopped. The wording is for the person who reads the application's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trap {
    /// `unreachable` was executed; a panic or an abort in most languages.
    Unreachable,
    /// Integer division by zero.
    DivisionByZero,
    /// Integer overflow in a division.
    IntegerOverflow,
    /// A float that fits no integer was converted to one.
    ConversionToInteger,
    /// A load or store outside the linear memory.
    MemoryOutOfBounds,
    /// An indirect call outside the table.
    TableOutOfBounds,
    /// Another access outside a table.
    TableAccess,
    /// An indirect call of an empty table element.
    UninitializedElement,
    /// An indirect call of a function with another type.
    IndirectCallType,
    /// Calls nested deeper than the call stack holds.
    StackOverflow,
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
        f.write_str(match self {
            Trap::Unreachable => "unreachable executed (a panic or an abort)",
            Trap::DivisionByZero => "integer division by zero",
            Trap::IntegerOverflow => "integer overflow",
            Trap::ConversionToInteger => "conversion of a float that fits no integer",
            Trap::MemoryOutOfBounds => "memory access out of bounds",
            Trap::TableOutOfBounds => "indirect call out of the table's bounds",
            Trap::TableAccess => "table access out of bounds",
            Trap::UninitializedElement => "indirect call of an empty table element",
            Trap::IndirectCallType => "indirect call of a function with another type",
            Trap::StackOverflow => "call stack exhausted",
            Trap::HostCall { function, what } => return write!(f, "{function}: {what}"),
            Trap::Engine(what) => return write!(f, "fault of the sandbox: {what}"),
        })
    }
}
