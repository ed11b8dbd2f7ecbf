//! What Device.status says of a device that has no session, because it still joins.

use wasmbed_api::ReasonCode;

/// What Device.status says of a joining device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::gateway) struct JoinView {
    reason: ReasonCode,
    message: Box<str>,
}

impl JoinView {
    pub(in crate::gateway) fn new(reason: ReasonCode, message: String) -> Self {
        Self { reason, message: message.into() }
    }

    pub(in crate::gateway) fn reason(&self) -> ReasonCode {
        self.reason
    }

    pub(in crate::gateway) fn message(&self) -> &str {
        &self.message
    }
}
