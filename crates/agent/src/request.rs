//! The AssignmentGet that is outstanding: one at a time.

use wasmbed_protocol::SpecHash;

/// An AssignmentGet without an answer is sent again after this time.
pub const ASSIGNMENT_TIMEOUT_MS: u64 = 10_000;

/// What was asked for, and when it is asked for again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AssignmentRequest(Option<(SpecHash, u64)>);

impl AssignmentRequest {
    pub(crate) fn is_outstanding(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn begin(&mut self, spec_hash: SpecHash, deadline_ms: u64) {
        debug_assert!(self.0.is_none(), "one assignment is asked for at a time");
        self.0 = Some((spec_hash, deadline_ms));
    }

    /// The gateway answered for this assignment, whether asked or not.
    pub(crate) fn handle_answer(&mut self, spec_hash: SpecHash) {
        if self.0.is_some_and(|(asked, _)| asked == spec_hash) {
            self.0 = None;
        }
    }

    pub(crate) fn handle_timeout(&mut self, now_ms: u64) {
        if self.0.is_some_and(|(_, deadline_ms)| deadline_ms <= now_ms) {
            self.0 = None;
        }
    }

    pub(crate) fn handle_disconnected(&mut self) {
        self.0 = None;
    }

    pub(crate) fn timeout(&self) -> Option<u64> {
        self.0.map(|(_, deadline_ms)| deadline_ms)
    }
}
