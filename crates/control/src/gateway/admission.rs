//! Whether a device is let in.

use wasmbed_api::ReasonCode;
use wasmbed_protocol::CloseReason;

use super::{
    config::{Enrollment, RETRY_APPROVAL_MS, RETRY_REFUSED_MS, RETRY_SHUTDOWN_SPREAD_MS, RETRY_SOON_MS},
    input::SessionId,
};

/// What is known of the Device when its device says Hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known<'a> {
    /// The object, as the watch last showed it.
    Object {
        /// `spec.approved`.
        approved: bool,
        /// `spec.revoked`.
        revoked: bool,
        /// It was taken out of service.
        decommissioned: bool,
        /// `spec.public_key`.
        public_key: Option<&'a str>,
    },
    /// No list of Devices has been seen yet; the key with which the device was last let in, from the disk.
    Stored {
        /// `None` if it was kept out.
        admitted_key: Option<&'a str>,
    },
    /// No list of Devices has been seen yet, and the disk knows nothing.
    Unsynced,
    /// There is no such Device.
    Missing,
}

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// The device is let in.
    Admit,
    /// The Device is created, and the device waits or comes back.
    Enroll {
        /// Whether the device may wait for that, instead of coming back once it is approved.
        waits: bool,
    },
    /// The device is turned away.
    Refuse(Refusal),
}

/// Why a device is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    reason: CloseReason,
    /// As in the Device's conditions; `None` if the device is not to blame.
    shown: Option<ReasonCode>,
    retry_after_ms: u32,
    detail: &'static str,
}

impl Refusal {
    /// For a reason of which the Device's conditions say nothing.
    pub(super) const fn new(reason: CloseReason, retry_after_ms: u32, detail: &'static str) -> Self {
        Self { reason, shown: None, retry_after_ms, detail }
    }

    /// For a reason that the Device's conditions show.
    const fn shown_as(self, shown: ReasonCode) -> Self {
        Self { shown: Some(shown), ..self }
    }

    pub(super) fn reason(&self) -> CloseReason {
        self.reason
    }

    /// As in the Device's conditions; `None` if the device is not to blame.
    pub(super) fn shown(&self) -> Option<ReasonCode> {
        self.shown
    }

    /// When the device of a session may try again. At the end of a gateway each gets a time of its own.
    pub(super) fn retry_after_ms(&self, id: SessionId) -> u32 {
        match self.reason {
            // A multiplier that scatters neighbouring numbers (Knuth, The Art of Computer Programming, 6.4).
            CloseReason::ShuttingDown => {
                (id.0.wrapping_mul(2_654_435_761) % u64::from(RETRY_SHUTDOWN_SPREAD_MS)) as u32
            }
            _ => self.retry_after_ms,
        }
    }

    /// For people.
    pub(super) fn detail(&self) -> &'static str {
        self.detail
    }
}

pub(super) const REVOKED: Refusal =
    Refusal::new(CloseReason::Revoked, RETRY_REFUSED_MS, "the Device is revoked")
        .shown_as(ReasonCode::Revoked);
/// To a device that sent a proof it says that the proof was verified.
pub(super) const DECOMMISSIONED: Refusal =
    Refusal::new(CloseReason::Decommissioned, RETRY_REFUSED_MS, "the Device is decommissioned")
        .shown_as(ReasonCode::Decommissioned);
/// This process does not hold its gateway's Lease: whoever does has the devices.
pub(super) const NOT_HOLDER: Refusal =
    Refusal::new(CloseReason::Unavailable, RETRY_SOON_MS, "another process holds this gateway's Lease");
/// Another gateway may serve it.
pub(super) const NOT_SERVED: Refusal = Refusal::new(
    CloseReason::Unavailable,
    RETRY_REFUSED_MS,
    "this gateway does not serve the Device's namespace: see gateway.namespaces",
);
pub(super) const PENDING: Refusal = Refusal::new(
    CloseReason::PendingApproval,
    RETRY_APPROVAL_MS,
    "the Device waits for approval: set spec.approved to true",
)
.shown_as(ReasonCode::PendingApproval);
pub(super) const KEY_MISMATCH: Refusal = Refusal::new(
    CloseReason::KeyMismatch,
    RETRY_REFUSED_MS,
    "the certificate's key is not the Device's spec.public_key",
)
.shown_as(ReasonCode::KeyMismatch);
pub(super) const NOT_ENROLLED: Refusal =
    Refusal::new(CloseReason::NotEnrolled, RETRY_REFUSED_MS, "no such Device, and enrollment is closed");
pub(super) const DELETED: Refusal =
    Refusal::new(CloseReason::Deleted, RETRY_APPROVAL_MS, "the Device was deleted");
pub(super) const UNAVAILABLE: Refusal = Refusal::new(
    CloseReason::Unavailable,
    RETRY_SOON_MS,
    "the Kubernetes API is away and this device is not known here",
);
pub(super) const OVERLOADED: Refusal =
    Refusal::new(CloseReason::Overloaded, RETRY_SOON_MS, "the gateway is full");
pub(super) const SHUTTING_DOWN: Refusal =
    Refusal::new(CloseReason::ShuttingDown, RETRY_SOON_MS, "the gateway stops");

/// Decides about a device that presented `key` under a valid certificate.
pub(super) fn plan_admission(enrollment: Enrollment, known: Known<'_>, key: &str) -> Admission {
    match known {
        Known::Object { decommissioned: true, .. } => Admission::Refuse(DECOMMISSIONED),
        Known::Object { revoked: true, .. } => Admission::Refuse(REVOKED),
        Known::Object { public_key: Some(pinned), .. } if pinned != key => Admission::Refuse(KEY_MISMATCH),
        Known::Object { approved: false, .. } if enrollment != Enrollment::Open => Admission::Refuse(PENDING),
        Known::Object { .. } => Admission::Admit,
        Known::Stored { admitted_key: Some(admitted) } if admitted == key => Admission::Admit,
        Known::Stored { .. } | Known::Unsynced => Admission::Refuse(UNAVAILABLE),
        Known::Missing => match enrollment {
            Enrollment::Closed => Admission::Refuse(NOT_ENROLLED),
            Enrollment::Approval => Admission::Enroll { waits: false },
            Enrollment::Open => Admission::Enroll { waits: true },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(approved: bool, revoked: bool, public_key: Option<&str>) -> Known<'_> {
        Known::Object { approved, revoked, decommissioned: false, public_key }
    }

    #[test]
    fn every_kind_of_device_gets_its_answer() {
        let plan = |known| plan_admission(Enrollment::Approval, known, "k");
        assert_eq!(plan(object(true, false, Some("k"))), Admission::Admit);
        assert_eq!(plan(object(true, false, None)), Admission::Admit);
        assert_eq!(plan(object(true, true, Some("k"))), Admission::Refuse(REVOKED));
        assert_eq!(plan(object(false, false, Some("k"))), Admission::Refuse(PENDING));
        assert_eq!(plan(object(true, false, Some("other"))), Admission::Refuse(KEY_MISMATCH));
        let gone =
            Known::Object { approved: true, revoked: true, decommissioned: true, public_key: Some("k") };
        assert_eq!(plan(gone), Admission::Refuse(DECOMMISSIONED));
        // An impostor does not learn that the Device is unapproved, but revocation is for everyone.
        assert_eq!(plan(object(false, false, Some("other"))), Admission::Refuse(KEY_MISMATCH));
        assert_eq!(plan(object(false, true, Some("other"))), Admission::Refuse(REVOKED));
        assert_eq!(plan(Known::Stored { admitted_key: Some("k") }), Admission::Admit);
        assert_eq!(plan(Known::Stored { admitted_key: Some("other") }), Admission::Refuse(UNAVAILABLE));
        assert_eq!(plan(Known::Stored { admitted_key: None }), Admission::Refuse(UNAVAILABLE));
        assert_eq!(plan(Known::Unsynced), Admission::Refuse(UNAVAILABLE));
    }

    #[test]
    fn unknown_devices_follow_the_policy() {
        let plan = |policy| plan_admission(policy, Known::Missing, "k");
        assert_eq!(plan(Enrollment::Closed), Admission::Refuse(NOT_ENROLLED));
        assert_eq!(plan(Enrollment::Approval), Admission::Enroll { waits: false });
        assert_eq!(plan(Enrollment::Open), Admission::Enroll { waits: true });
        let unapproved = object(false, false, Some("k"));
        assert_eq!(plan_admission(Enrollment::Open, unapproved, "k"), Admission::Admit);
        let revoked = object(false, true, Some("k"));
        assert_eq!(plan_admission(Enrollment::Open, revoked, "k"), Admission::Refuse(REVOKED));
    }
}
