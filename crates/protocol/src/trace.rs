//! Stack traces for people, on one line.

use core::fmt;

use crate::{
    list::List,
    message::{StackFrame, Trap, TrapKind},
};

/// Shows functions of a stack trace behind what trapped: ` at read (function 12, offset 0x1a3), called by function 7 (offset
/// 0x2f0), and 3 more`. Nothing if there are none. Names are shown as they are; see [`Harmless`](crate::Harmless).
pub fn show_frames<'a>(frames: List<'a, StackFrame<'a>>, left_out: u32) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        for (place, frame) in frames.iter().enumerate() {
            f.write_str(match place {
                0 => " at ",
                1 => ", called by ",
                _ => ", ",
            })?;
            let (named, open) = if frame.name.is_empty() { (false, " (") } else { (true, ", ") };
            if named {
                write!(f, "{} (", frame.name)?;
            }
            write!(f, "function {}", frame.function)?;
            match frame.offset {
                Some(offset) => write!(f, "{open}offset {offset:#x})")?,
                None if named => f.write_str(")")?,
                None => {}
            }
        }
        if left_out > 0 { write!(f, ", and {left_out} more") } else { Ok(()) }
    })
}

impl TrapKind {
    /// What the application did, for people.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable executed (a panic or an abort)",
            Self::DivisionByZero => "integer division by zero",
            Self::IntegerOverflow => "integer overflow",
            Self::ConversionToInteger => "conversion of a float that fits no integer",
            Self::MemoryOutOfBounds => "memory access out of bounds",
            Self::UndefinedElement => "indirect call out of the table's bounds",
            Self::TableOutOfBounds => "table access out of bounds",
            Self::UninitializedElement => "indirect call of an empty table element",
            Self::IndirectCallType => "indirect call of a function with another type",
            Self::StackOverflow => "call stack exhausted",
            Self::MemoryLimit => "gave up after memory.grow was refused",
            Self::HostCall => "a host function was given what it can't work with",
            Self::Sandbox => "a fault of the sandbox",
            Self::Unknown(_) => "a trap that is newer than this gateway",
        }
    }
}

impl fmt::Display for Trap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind.sentence(), show_frames(self.frames, self.frames_left_out))
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn a_trace_is_one_line() {
        let frame = |function, offset, name| StackFrame { function, offset, name };
        let frames = [
            frame(12, Some(0x1a3), "read"),
            frame(7, Some(0x2f0), ""),
            frame(3, None, "run"),
            frame(0, None, ""),
        ];
        let shown = |count: usize, left_out| show_frames(List::new(&frames[..count]), left_out).to_string();
        assert_eq!(shown(0, 0), "");
        assert_eq!(shown(1, 0), " at read (function 12, offset 0x1a3)");
        assert_eq!(
            shown(4, 2),
            " at read (function 12, offset 0x1a3), called by function 7 (offset 0x2f0), run (function 3), \
             function 0, and 2 more"
        );
    }
}
