//! Maps the runtime's errors to the protocol's: a reason for programs and a message for people.

use alloc::{format, string::String};

use wasmbed_protocol::ReportReason;
use wasmbed_runtime::{Ending, Exceeded, LoadError, Refusal};

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
