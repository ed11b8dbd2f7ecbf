//! One connection and what waits to be sent on it.
//!
//! ```text
//! AwaitHello ─ Hello ─┬─ AwaitDevice ─┐
//!                     ├───────────────┴─ AwaitClaim ── Standing
//!                     └─ (any state) ── Closing
//! ```
//!
//! Nothing is queued as bytes: a session remembers what it owes, and frames are made when the connection can take
//! them. So a slow reader costs no more than a quick one, and of two desired sets only the newer is sent.

use std::{collections::VecDeque, sync::Arc};

use wasmbed_api::DeviceFacts;
use wasmbed_protocol::{BootCounter, BootId, CloseReason, ErrorCode, ModuleDigest, Sequence, SpecHash};

use super::config::ASSIGNMENT_GETS_MAX;
use crate::{Now, ObjectKey, rate::TokenBucket};

/// Where a session is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    /// Authenticated, nothing heard.
    AwaitHello,
    /// Its Device is being created.
    AwaitDevice(Box<Greeting>),
    /// Its epoch is being written to Device.status.
    AwaitClaim,
    /// Welcome was given.
    Standing,
    /// A Reject or a Goodbye is to be sent.
    Closing,
}

/// What a Hello said, kept.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Greeting {
    pub(super) facts: Arc<DeviceFacts>,
    pub(super) last_epoch: u64,
    pub(super) revision: u64,
    pub(super) boot: Boot,
}

/// Which start of its device a session belongs to; older firmware says nothing of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Boot {
    /// Number of the start; a device whose storage fails has none.
    pub(super) counter: Option<BootCounter>,
    /// Drawn at the start.
    pub(super) id: Option<BootId>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) device: Arc<ObjectKey>,
    pub(super) public_key: Arc<str>,
    pub(super) state: State,
    pub(super) heard_ms: u64,
    /// When the timer of this session is due; entries of the timer queue with another time are stale.
    pub(super) deadline_ms: u64,
    pub(super) unusable: u32,
    pub(super) owed: Owed,
    /// Its device is not admitted, so that it draws on what strangers share and not on what the device has.
    pub(super) stranger: bool,
    /// Of a stranger.
    pub(super) frames: TokenBucket,
}

/// What a session owes its device. What is rare is boxed: nearly all sessions owe nothing.
#[derive(Debug, Default)]
pub(super) struct Owed {
    pub(super) welcome: bool,
    pub(super) heartbeat_ack: Option<Sequence>,
    pub(super) error: Option<Box<(ErrorCode, Option<u32>, String)>>,
    pub(super) desired: bool,
    pub(super) assignments: VecDeque<SpecHash>,
    pub(super) module_gone: Option<Box<ModuleDigest>>,
    pub(super) range: Option<Box<Range>>,
    pub(super) closing: Option<Box<Closing>>,
}

/// A range of a module that the device asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) digest: ModuleDigest,
    pub(super) next: u32,
    pub(super) end: u32,
}

/// Last words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closing {
    pub(super) reject: bool,
    pub(super) reason: CloseReason,
    pub(super) retry_after_ms: u32,
    pub(super) detail: String,
}

impl Session {
    pub(super) fn new(now: Now, device: Arc<ObjectKey>, public_key: Arc<str>) -> Self {
        Self {
            device,
            public_key,
            state: State::AwaitHello,
            heard_ms: now.ms,
            deadline_ms: 0,
            unusable: 0,
            owed: Owed::default(),
            stranger: true,
            frames: TokenBucket::default(),
        }
    }

    /// Whether there is anything to send now. A range whose module is not in memory waits for it.
    pub(super) fn owes(&self, module_in_memory: impl FnOnce(&ModuleDigest) -> bool) -> bool {
        let Owed { welcome, heartbeat_ack, error, desired, assignments, module_gone, range, closing } =
            &self.owed;
        *welcome
            || heartbeat_ack.is_some()
            || error.is_some()
            || *desired
            || !assignments.is_empty()
            || module_gone.is_some()
            || closing.is_some()
            || range.as_ref().is_some_and(|range| module_in_memory(&range.digest))
    }

    /// Remembers an AssignmentGet; false if too many wait.
    pub(super) fn owe_assignment(&mut self, hash: SpecHash) -> bool {
        if self.owed.assignments.contains(&hash) {
            return true;
        }
        if self.owed.assignments.len() >= ASSIGNMENT_GETS_MAX {
            return false;
        }
        self.owed.assignments.push_back(hash);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        let device = ObjectKey { namespace: "default".into(), name: "a".into() };
        Session::new(Now::default(), Arc::new(device), "k".into())
    }

    #[test]
    fn assignments_asked_for_twice_wait_once_and_no_more_than_a_set() {
        let mut session = session();
        for index in 0..ASSIGNMENT_GETS_MAX {
            assert!(session.owe_assignment(SpecHash([index as u8; 32])));
            assert!(session.owe_assignment(SpecHash([index as u8; 32])));
        }
        assert_eq!(session.owed.assignments.len(), ASSIGNMENT_GETS_MAX);
        assert!(!session.owe_assignment(SpecHash([0xff; 32])));
    }
}
