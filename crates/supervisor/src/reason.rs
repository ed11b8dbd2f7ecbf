//! Maps the runtime's errors to the protocol's: a reason for programs and a message for people.

use alloc::{format, string::String};

use wasmbed_protocol::{
    List, ReportReason, StackFrame, TrapKind, limits::REPORT_MESSAGE_BYTES_MAX, show_frames,
};
use wasmbed_runtime::{Ending, Exceeded, LoadError, ProgramTrap, Refusal, Trap};

/// Why a run ended.
pub(crate) fn ended(ending: &Ending) -> (ReportReason, String) {
    let reason = match ending {
        Ending::Exited { code: 0 } => return (ReportReason::Exited, String::new()),
        Ending::Exited { code } => return (ReportReason::ExitedWithError, format!("exit code {code}")),
        Ending::Trapped(_) => ReportReason::Trapped,
        Ending::Exceeded(Exceeded::Cpu { .. }) => ReportReason::CpuLimit,
        Ending::Exceeded(Exceeded::Memory { .. }) => ReportReason::MemoryLimit,
        Ending::Exceeded(Exceeded::Stack) => ReportReason::StackLimit,
    };
    (reason, format!("{ending}"))
}

/// What a run did, and the functions that were under way.
#[inline(never)]
pub(crate) fn with_frames(message: &str, frames: List<'_, StackFrame<'_>>, left_out: u32) -> String {
    format!("{message}{}", show_frames(frames, left_out))
}

/// What a report says of a run that trapped in this function: its name and its place as far as there is room for them. A place
/// that was cut would be another one.
pub(crate) fn with_place(message: String, innermost: Option<StackFrame<'_>>) -> String {
    let Some(mut frame) = innermost else { return message };
    loop {
        let placed = with_frames(&message, List::new(&[frame]), 0);
        if placed.len() <= REPORT_MESSAGE_BYTES_MAX {
            return placed;
        } else if !frame.name.is_empty() {
            frame.name = "";
        } else if frame.offset.take().is_none() {
            return message;
        }
    }
}

/// What a run did that trapped; none if it ended otherwise.
pub(crate) fn trapped(ending: &Ending) -> Option<TrapKind> {
    Some(match ending {
        Ending::Exited { .. } | Ending::Exceeded(Exceeded::Cpu { .. }) => return None,
        Ending::Exceeded(Exceeded::Memory { .. }) => TrapKind::MemoryLimit,
        Ending::Exceeded(Exceeded::Stack) | Ending::Trapped(Trap::Program(ProgramTrap::StackOverflow)) => {
            TrapKind::StackOverflow
        }
        Ending::Trapped(Trap::Program(ProgramTrap::Unreachable)) => TrapKind::Unreachable,
        Ending::Trapped(Trap::Program(ProgramTrap::DivisionByZero)) => TrapKind::DivisionByZero,
        Ending::Trapped(Trap::Program(ProgramTrap::IntegerOverflow)) => TrapKind::IntegerOverflow,
        Ending::Trapped(Trap::Program(ProgramTrap::ConversionToInteger)) => TrapKind::ConversionToInteger,
        Ending::Trapped(Trap::Program(ProgramTrap::MemoryOutOfBounds)) => TrapKind::MemoryOutOfBounds,
        Ending::Trapped(Trap::Program(ProgramTrap::UndefinedElement)) => TrapKind::UndefinedElement,
        Ending::Trapped(Trap::Program(ProgramTrap::TableOutOfBounds)) => TrapKind::TableOutOfBounds,
        Ending::Trapped(Trap::Program(ProgramTrap::UninitializedElement)) => TrapKind::UninitializedElement,
        Ending::Trapped(Trap::Program(ProgramTrap::IndirectCallType)) => TrapKind::IndirectCallType,
        Ending::Trapped(Trap::HostCall { .. }) => TrapKind::HostCall,
        Ending::Trapped(Trap::Program(ProgramTrap::Internal) | Trap::Engine(_)) => TrapKind::Sandbox,
    })
}

/// Why a module could not be loaded.
pub(crate) fn refused(error: &LoadError) -> (ReportReason, String) {
    let reason = match error.code() {
        Refusal::InvalidModule
        | Refusal::ModuleTooLarge
        | Refusal::TooComplex
        | Refusal::UnsupportedFeature
        | Refusal::InvalidEntry => ReportReason::InvalidModule,
        Refusal::UnknownImport => ReportReason::UnknownImport,
        Refusal::CapabilityDenied => ReportReason::CapabilityDenied,
        Refusal::MemoryLimit => ReportReason::MemoryLimit,
        Refusal::OutOfMemory => ReportReason::OutOfMemory,
        Refusal::TooManyApplications => ReportReason::TooManyApplications,
        Refusal::InvalidProgram => ReportReason::Unsupported,
    };
    (reason, format!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_where_it_trapped_as_far_as_there_is_room() {
        let at = |trap, name, offset| {
            let (_, message) = ended(&Ending::Trapped(Trap::Program(trap)));
            with_place(message, Some(StackFrame { function: 69_999, offset, name }))
        };
        let what = "trapped: unreachable executed (a panic or an abort)";
        for (name, offset, place) in [
            ("step", Some(0x1a3), " at step (function 69999, offset 0x1a3)"),
            ("sensor::average_of_the_last_week", Some(0xf_ffff), " at function 69999 (offset 0xfffff)"),
            ("sensor::average", None, " at sensor::average (function 69999)"),
            ("sensor::average_of_the_last_week", None, " at function 69999"),
            ("", Some(0), " at function 69999 (offset 0x0)"),
        ] {
            assert_eq!(at(ProgramTrap::Unreachable, name, offset), format!("{what}{place}"));
        }
        let longest = at(ProgramTrap::IndirectCallType, "sensor::average_of_the_last_week", Some(0xf_ffff));
        assert!(longest.ends_with(" at function 69999 (offset 0xfffff)"), "{longest}");
        assert_eq!(with_place("trapped".into(), None), "trapped");
        let frame = StackFrame { function: 69_999, offset: Some(7), name: "f" };
        assert_eq!(with_place("w".repeat(78), Some(frame)).len(), 78 + " at function 69999".len());
        assert_eq!(with_place("w".repeat(79), Some(frame)), "w".repeat(79), "none rather than a part of it");
    }
}
