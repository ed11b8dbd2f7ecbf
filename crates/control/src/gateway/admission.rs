//! Whether a device is let in.

use wasmbed_api::ReasonCode;
use wasmbed_protocol::CloseReason;

use super::config::{Enrollment, RETRY_APPROVAL_MS, RETRY_REFUSED_MS, RETRY_SOON_MS};

/// What is known of the Device when its device says Hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known<'a> {
    /// The object, as the watch last showed it.
    Object {
        /// `spec.approved`.
        approved: bool,
        /// `spec.revoked`.
        revoked: bool,
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
    pub reason: CloseReason,
    /// As in the Device's conditions; `None` if the device is not to blame.
    pub shown: Option<ReasonCode>,
    pub retry_after_ms: u32,
    pub detail: &'static str,
}

pub(super) const REVOKED: Refusal = Refusal {
    reason: CloseReason::Revoked,
    shown: Some(ReasonCode::Revoked),
    retry_after_ms: RETRY_REFUSED_MS,
    detail: "the Device is revoked",
};
/// This process does not hold its gateway's Lease: whoever does has the devices.
pub(super) const NOT_HOLDER: Refusal = Refusal {
    reason: CloseReason::Unavailable,
    shown: None,
    retry_after_ms: RETRY_SOON_MS,
    detail: "another process holds this gateway's Lease",
};
pub(super) const PENDING: Refusal = Refusal {
    reason: CloseReason::PendingApproval,
    shown: Some(ReasonCode::PendingApproval),
    retry_after_ms: RETRY_APPROVAL_MS,
    detail: "the Device waits for approval: set spec.approved to true",
};
pub(super) const KEY_MISMATCH: Refusal = Refusal {
    reason: CloseReason::KeyMismatch,
    shown: Some(ReasonCode::KeyMismatch),
    retry_after_ms: RETRY_REFUSED_MS,
    detail: "the certificate's key is not the Device's spec.public_key",
};
pub(super) const NOT_ENROLLED: Refusal = Refusal {
    reason: CloseReason::NotEnrolled,
    shown: None,
    retry_after_ms: RETRY_REFUSED_MS,
    detail: "no such Device, and enrollment is closed",
};
pub(super) const DELETED: Refusal = Refusal {
    reason: CloseReason::Deleted,
    shown: None,
    retry_after_ms: RETRY_APPROVAL_MS,
    detail: "the Device was deleted",
};
pub(super) const UNAVAILABLE: Refusal = Refusal {
    reason: CloseReason::Unavailable,
    shown: None,
    retry_after_ms: RETRY_SOON_MS,
    detail: "the Kubernetes API is away and this device is not known here",
};
pub(super) const OVERLOADED: Refusal = Refusal {
    reason: CloseReason::Overloaded,
    shown: None,
    retry_after_ms: RETRY_SOON_MS,
    detail: "the gateway is full",
};
pub(super) const SHUTTING_DOWN: Refusal = Refusal {
    reason: CloseReason::ShuttingDown,
    shown: None,
    retry_after_ms: RETRY_SOON_MS,
    detail: "the gateway stops",
};

/// Decides about a device that presented `key` under a valid certificate.
pub(super) fn plan_admission(enrollment: Enrollment, known: Known<'_>, key: &str) -> Admission {
    match known {
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
        Known::Object { approved, revoked, public_key }
    }

    #[test]
    fn every_kind_of_device_gets_its_answer() {
        let plan = |known| plan_admission(Enrollment::Approval, known, "k");
        assert_eq!(plan(object(true, false, Some("k"))), Admission::Admit);
        assert_eq!(plan(object(true, false, None)), Admission::Admit);
        assert_eq!(plan(object(true, true, Some("k"))), Admission::Refuse(REVOKED));
        assert_eq!(plan(object(false, false, Some("k"))), Admission::Refuse(PENDING));
        assert_eq!(plan(object(true, false, Some("other"))), Admission::Refuse(KEY_MISMATCH));
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
