//! Writes to the Kubernetes API on their way, and the rate of all of them.

use std::collections::BTreeMap;

use wasmbed_api::ApplicationStatus;
use wasmbed_protocol::rate::{Rate, TokenBucket};

use super::{
    config::{FleetConfig, WRITES_IN_FLIGHT_MAX},
    input::CallId,
    published::Transition,
    record::{ApplicationId, DeviceId},
};
use crate::{ObjectKey, backoff::ApiPause};

/// The rate of all writes, and those on their way.
#[derive(Debug)]
pub(super) struct Writes {
    /// A second's worth of writes can be saved up.
    rate: Rate,
    tokens: TokenBucket,
    pause: ApiPause,
    in_flight: BTreeMap<CallId, Subject>,
}

#[derive(Debug)]
pub(super) enum Subject {
    Status {
        id: ApplicationId,
        version: String,
        status: Box<ApplicationStatus>,
        transitions: Vec<Transition>,
    },
    Finalizer {
        id: ApplicationId,
        version: String,
    },
    Unreachable(DeviceId),
    DeviceFinalizer {
        id: DeviceId,
        add: bool,
    },
    Finished(DeviceId),
    /// Made for this resourceVersion.
    Decommission {
        id: DeviceId,
        version: String,
    },
    /// Made for this resourceVersion, and what it says is used.
    Quota {
        key: ObjectKey,
        version: String,
        used: u64,
    },
    Gateway(String),
    /// Of the request of that name.
    Approval(String),
}

impl Writes {
    pub(super) fn new(config: &FleetConfig) -> Self {
        let per_second = u64::from(config.writes_per_second.max(1));
        Self {
            rate: Rate::per_second(per_second, per_second),
            tokens: TokenBucket::default(),
            // One controller leads: there is no other whose pauses its own have to differ from.
            pause: ApiPause::new(0),
            in_flight: BTreeMap::new(),
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether a write of this Device is under way.
    pub(super) fn has_device(&self, device: DeviceId) -> bool {
        self.in_flight.values().any(|subject| match subject {
            Subject::Unreachable(id)
            | Subject::DeviceFinalizer { id, .. }
            | Subject::Finished(id)
            | Subject::Decommission { id, .. } => *id == device,
            Subject::Status { .. }
            | Subject::Finalizer { .. }
            | Subject::Quota { .. }
            | Subject::Gateway(_)
            | Subject::Approval(_) => false,
        })
    }

    /// Whether a write of this Application is under way.
    pub(super) fn has_application(&self, application: ApplicationId) -> bool {
        self.in_flight.values().any(|subject| match subject {
            Subject::Status { id, .. } | Subject::Finalizer { id, .. } => *id == application,
            Subject::Unreachable(_)
            | Subject::DeviceFinalizer { .. }
            | Subject::Finished(_)
            | Subject::Decommission { .. }
            | Subject::Quota { .. }
            | Subject::Gateway(_)
            | Subject::Approval(_) => false,
        })
    }

    /// Whether a write may be made now.
    pub(super) fn may_write(&mut self, now_ms: u64) -> bool {
        self.allows(now_ms, 1)
    }

    /// When the next write may be made, as far as time decides it.
    pub(super) fn ready_ms(&self, now_ms: u64) -> u64 {
        self.allowed_ms(now_ms, 1)
    }

    /// Whether a write that nobody waits for may be made now: half of the saved-up tokens stay for the rest.
    pub(super) fn has_spare(&mut self, now_ms: u64) -> bool {
        self.allows(now_ms, self.spare())
    }

    /// When a write that nobody waits for may be made, as far as time decides it.
    pub(super) fn spare_ms(&self, now_ms: u64) -> u64 {
        self.allowed_ms(now_ms, self.spare())
    }

    fn spare(&self) -> u64 {
        (self.rate.burst() / 2 + 1).min(self.rate.burst())
    }

    fn allows(&mut self, now_ms: u64, tokens: u64) -> bool {
        self.tokens.refill(now_ms, self.rate);
        now_ms >= self.pause.until_ms()
            && self.tokens.has(self.rate, tokens)
            && self.in_flight.len() < WRITES_IN_FLIGHT_MAX
    }

    fn allowed_ms(&self, now_ms: u64, tokens: u64) -> u64 {
        if self.in_flight.len() >= WRITES_IN_FLIGHT_MAX {
            return u64::MAX;
        }
        self.pause.until_ms().max(self.tokens.available_at_ms(self.rate, tokens)).max(now_ms)
    }

    pub(super) fn begin_device_finalizer(&mut self, call: CallId, id: DeviceId, add: bool) {
        self.begin(call, Subject::DeviceFinalizer { id, add });
    }

    pub(super) fn begin_finished(&mut self, id: CallId, device: DeviceId) {
        self.begin(id, Subject::Finished(device));
    }

    pub(super) fn begin(&mut self, id: CallId, subject: Subject) {
        self.tokens.spend(1);
        self.in_flight.insert(id, subject);
    }

    /// A write ended; what it was about.
    pub(super) fn end(&mut self, id: CallId) -> Option<Subject> {
        self.in_flight.remove(&id)
    }

    /// The API answered.
    pub(super) fn succeeded(&mut self) {
        self.pause.succeed();
    }

    /// The API failed or asked for patience.
    pub(super) fn failed(&mut self, now_ms: u64, retry_after_ms: u64) {
        self.pause.fail(now_ms, retry_after_ms);
    }
}
