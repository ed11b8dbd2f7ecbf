//! One look at a request: which calls it takes, in which order, and what follows from their answers.
//!
//! ```text
//! ReadDevice ─┬─ of a token ── ReadToken ─┐
//!             └───────────────────────────┴─ Examine ─┬─ Wait
//!                                                     ├─ Refuse
//!                                                     └─ Certify ── Pin ── Answer ── Done
//! ```
//!
//! The token that brought a certificate goes last, when the request is looked at and found to have it: see [`used_token`].
//!
//! A call that fails ends the look: the request is looked at anew, from the start. So whatever was done before is done again, and
//! each step may find it done.

use std::fmt;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use wasmbed_protocol::{DeviceUid, KeyHash};

use super::{Annotated, Candidate, Decision, Evidence, Missing, Refusal, Request, Spoken, plan_signature};

/// What a request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Whether it is approved.
    pub approved: bool,
    /// UID of the Device that it names.
    pub device_uid: DeviceUid,
    /// Of the key that gets the certificate.
    pub key: KeyHash,
    /// Id of the pairing token that speaks for it, if one is said to.
    pub pairing_id: Option<String>,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The Device is read as it is now: what a watch last showed may be a revocation behind. [`Work::handle_device`].
    ReadDevice,
    /// The key of the pairing token of this id is read. [`Work::handle_token`].
    ReadToken(String),
    /// What speaks for the request is verified. [`Work::handle_evidence`].
    Examine,
    /// Nothing yet: for this.
    Wait(Missing),
    /// The request fails, for this reason and with these words. Nothing follows.
    Refuse(&'static str, String),
    /// A certificate is made. [`Work::handle_certified`].
    Certify,
    /// The key is written to the Device's `status.public_key`, if the Device is still the one of this UID. [`Work::handle_pinned`].
    Pin(DeviceUid),
    /// This version of the request gets the certificate. [`Work::handle_answered`].
    Answer,
    /// The request has its certificate.
    Done,
}

/// A look that is under way.
#[derive(Clone, Debug)]
pub struct Work {
    asked: Asked,
    device: Option<Candidate>,
    step: Step,
}

impl Work {
    /// It begins.
    #[must_use]
    pub fn new(asked: Asked) -> Self {
        Self { asked, device: None, step: Step::ReadDevice }
    }

    /// What comes next.
    #[must_use]
    pub fn step(&self) -> &Step {
        &self.step
    }

    /// The Device was read, or there is none.
    pub fn handle_device(&mut self, device: Option<Candidate>) {
        debug_assert_eq!(self.step, Step::ReadDevice);
        self.device = device;
        self.step = match &self.asked.pairing_id {
            Some(id) => Step::ReadToken(id.clone()),
            None => Step::Examine,
        };
    }

    /// The token's key was read, or there is none.
    pub fn handle_token(&mut self) {
        debug_assert!(matches!(self.step, Step::ReadToken(_)), "{:?}", self.step);
        self.step = Step::Examine;
    }

    /// What speaks for the request.
    pub fn handle_evidence(&mut self, evidence: Evidence) {
        debug_assert_eq!(self.step, Step::Examine);
        let Asked { approved, device_uid, key, .. } = self.asked;
        let request = Request { approved, device_uid, key, evidence };
        self.step = match plan_signature(&request, self.device.as_ref()) {
            Decision::Issue => Step::Certify,
            Decision::Wait(missing) => Step::Wait(missing),
            Decision::Refuse(refusal) => refuse(&refusal),
        };
    }

    /// A certificate was made, or can't be.
    pub fn handle_certified<E: fmt::Display>(&mut self, made: Result<(), E>) {
        debug_assert_eq!(self.step, Step::Certify);
        // A certificate whose key is not pinned would let another one in beside it.
        self.step = match made {
            Ok(()) => Step::Pin(self.asked.device_uid),
            Err(error) => Step::Refuse("NotIssued", error.to_string()),
        };
    }

    /// The key is the Device's.
    pub fn handle_pinned(&mut self) {
        debug_assert!(matches!(self.step, Step::Pin(_)), "{:?}", self.step);
        self.step = Step::Answer;
    }

    /// The request has its certificate.
    pub fn handle_answered(&mut self) {
        debug_assert_eq!(self.step, Step::Answer);
        self.step = Step::Done;
    }
}

fn refuse(refusal: &Refusal) -> Step {
    Step::Refuse(refusal.reason(), refusal.to_string())
}

/// Whether a request needs nothing more: it has its certificate, or never gets one.
#[must_use]
pub fn is_finished(request: &CertificateSigningRequest) -> bool {
    let Some(status) = &request.status else { return false };
    status.certificate.is_some() || has(request, "Denied") || has(request, "Failed")
}

/// Id of the pairing token that brought a request its certificate: it is deleted, if it is there still. Whoever has it could be
/// certified for another key until then. It is not noted anywhere that this was done, so it is done, and tried again where it
/// fails, whenever a request is looked at that has its certificate.
#[must_use]
pub fn used_token(request: &CertificateSigningRequest) -> Option<&str> {
    request.status.as_ref()?.certificate.as_ref()?;
    match Annotated::read(request.metadata.annotations.as_ref()).ok()?.spoken {
        Spoken::Pairing { id, .. } => Some(id),
        Spoken::None | Spoken::Factory { .. } | Spoken::Renewal { .. } => None,
    }
}

/// Whether a request has a condition of this type.
#[must_use]
pub fn has(request: &CertificateSigningRequest, condition: &str) -> bool {
    let conditions = request.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|conditions| conditions.iter().any(|found| found.type_ == condition))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, convert::Infallible};

    use k8s_openapi::{ByteString, api::certificates::v1::CertificateSigningRequestStatus};
    use wasmbed_api::request_annotation as annotation;

    use super::*;

    const UID: DeviceUid = DeviceUid([1; 16]);
    const KEY: KeyHash = KeyHash([2; 32]);

    fn asked(pairing_id: Option<&str>) -> Asked {
        Asked { approved: true, device_uid: UID, key: KEY, pairing_id: pairing_id.map(str::to_owned) }
    }

    fn device() -> Candidate {
        Candidate {
            uid: UID,
            name: "pump".to_owned(),
            is_deleting: false,
            is_approved: true,
            is_revoked: false,
            is_decommissioned: false,
            serial: None,
            factory_key: None,
            pairing_id: Some("0a1b2c3d".to_owned()),
            pinned_key: None,
            confirmed_key: None,
        }
    }

    #[test]
    fn a_key_is_pinned_before_its_certificate_is_there() {
        let mut work = Work::new(asked(Some("0a1b2c3d")));
        assert_eq!(*work.step(), Step::ReadDevice);
        work.handle_device(Some(device()));
        assert_eq!(*work.step(), Step::ReadToken("0a1b2c3d".to_owned()));
        work.handle_token();
        assert_eq!(*work.step(), Step::Examine);
        work.handle_evidence(Evidence::Pairing { id: "0a1b2c3d".to_owned() });
        assert_eq!(*work.step(), Step::Certify);
        work.handle_certified(Ok::<_, Infallible>(()));
        assert_eq!(*work.step(), Step::Pin(UID));
        work.handle_pinned();
        assert_eq!(*work.step(), Step::Answer);
        work.handle_answered();
        assert_eq!(*work.step(), Step::Done);
    }

    #[test]
    fn a_token_is_used_once_it_brought_a_certificate() {
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut request = CertificateSigningRequest::default();
        request.metadata.annotations = Some(BTreeMap::from([
            text(annotation::DEVICE, "ns/pump"),
            text(annotation::DEVICE_UID, &UID.to_string()),
            text(annotation::JOIN_PROOF, "AAAA"),
            text(annotation::PAIRING_ID, "0a1b2c3d"),
        ]));
        assert_eq!(used_token(&request), None);
        let status =
            CertificateSigningRequestStatus { certificate: Some(ByteString(vec![1])), conditions: None };
        request.status = Some(status);
        assert_eq!(used_token(&request), Some("0a1b2c3d"));
    }

    #[test]
    fn what_is_not_to_be_issued_is_not_pinned() {
        let examined = |device: Option<Candidate>, evidence| {
            let mut work = Work::new(asked(None));
            work.handle_device(device);
            work.handle_evidence(evidence);
            work.step().clone()
        };
        let refused = examined(None, Evidence::None);
        assert_eq!(refused, Step::Refuse("DeviceMissing", "there is no such Device".to_owned()));
        assert_eq!(examined(Some(device()), Evidence::None), Step::Wait(Missing::KeyConfirmation));
        let mut work = Work::new(asked(None));
        work.handle_device(Some(device()));
        work.handle_evidence(Evidence::Renewal { device_uid: Some(UID), key: KEY });
        work.handle_certified(Err("the key is of another curve"));
        assert_eq!(*work.step(), Step::Refuse("NotIssued", "the key is of another curve".to_owned()));
    }
}
