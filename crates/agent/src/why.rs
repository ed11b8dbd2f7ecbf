//! Why an application is not as it should be.

use alloc::string::String;

use wasmbed_protocol::{ReportReason, limits::REPORT_MESSAGE_BYTES_MAX};

use crate::text::clip;

/// A reason with its text for people, which fits into a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Why {
    reason: ReportReason,
    message: String,
}

impl Why {
    pub(crate) const NONE: Self = Self { reason: ReportReason::None, message: String::new() };

    /// The message is cut to the bound of a report.
    pub(crate) fn new(reason: ReportReason, message: &str) -> Self {
        Self { reason, message: String::from(clip(message, REPORT_MESSAGE_BYTES_MAX)) }
    }

    pub(crate) fn reason(&self) -> ReportReason {
        self.reason
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}
