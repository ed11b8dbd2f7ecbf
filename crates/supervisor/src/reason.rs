//! Maps the runtime's errors to the protocol's: a reason for programs and a message for people.

use alloc::{format, string::String};

use wasmbed_protocol::{ReportReason, TrapKind};
use wasmbed_runtime::{Ending, Exceeded, LoadError, Refusal, Trap};

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

/// What a run did that trapped; none if it ended otherwise.
pub(crate) fn trapped(ending: &Ending) -> Option<TrapKind> {
    Some(match ending {
        Ending::Exited { .. } | Ending::Exceeded(Exceeded::Cpu { .. }) => return None,
        Ending::Exceeded(Exceeded::Memory { .. }) => TrapKind::MemoryLimit,
        Ending::Exceeded(Exceeded::Stack) | Ending::Trapped(Trap::StackOverflow) => TrapKind::StackOverflow,
        Ending::Trapped(Trap::Unreachable) => TrapKind::Unreachable,
        Ending::Trapped(Trap::DivisionByZero) => TrapKind::DivisionByZero,
        Ending::Trapped(Trap::IntegerOverflow) => TrapKind::IntegerOverflow,
        Ending::Trapped(Trap::ConversionToInteger) => TrapKind::ConversionToInteger,
        Ending::Trapped(Trap::MemoryOutOfBounds) => TrapKind::MemoryOutOfBounds,
        Ending::Trapped(Trap::TableOutOfBounds) => TrapKind::UndefinedElement,
        Ending::Trapped(Trap::TableAccess) => TrapKind::TableOutOfBounds,
        Ending::Trapped(Trap::UninitializedElement) => TrapKind::UninitializedElement,
        Ending::Trapped(Trap::IndirectCallType) => TrapKind::IndirectCallType,
        Ending::Trapped(Trap::HostCall { .. }) => TrapKind::HostCall,
        Ending::Trapped(Trap::Engine(_)) => TrapKind::Sandbox,
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
