//! Requests for devices' certificates: which of them the controller approves.
//!
//! ```text
//! request ── open, with a proof or of a certificate to renew ──┐
//!         └─ open, without: its key is the one that a person   ├── Device is approved ──> Approved
//!            confirmed in the Device                        ───┘   (else it waits for the Device to change)
//! ```
//!
//! What speaks for a request is not verified here: the signer does that, and refuses also what was approved. An approval says
//! that nobody has to be asked any more.

use k8s_openapi::{
    api::certificates::v1::CertificateSigningRequestCondition, apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::json;

use super::{
    Fleet,
    device_entry::Device,
    input::ApprovalWrite,
    requests::{Claim, RequestSeen},
    status::time,
    write_queue::Subject,
};
use crate::{Now, kubernetes::WriteOutcome};

impl Fleet {
    /// A list of requests begins: what it does not name until [`Fleet::handle_requests_end`] is gone or decided.
    pub fn handle_requests_begin(&mut self) {
        self.requests.begin_list();
    }

    /// A list of requests is complete.
    pub fn handle_requests_end(&mut self) {
        self.requests.end_list();
    }

    /// A request is open.
    pub fn handle_request(&mut self, request: RequestSeen) {
        self.requests.insert(request);
    }

    /// A request is gone, or someone has decided about it.
    pub fn handle_request_closed(&mut self, name: &str) {
        self.requests.remove(name);
    }

    /// The next request to approve. Call until there is none.
    pub fn poll_approval(&mut self, now: Now) -> Option<ApprovalWrite> {
        self.term?;
        while self.writes.may_write(now.ms) {
            let request = self.requests.pop_due()?;
            let device = self.device_ids.get(&request.device).and_then(|id| self.devices.get(id));
            if !device.is_some_and(|device| may_have(request, device)) {
                continue;
            }
            let (name, device, patch) =
                (request.name.clone(), request.device.clone(), approval_patch(request, now));
            let version = request.resource_version.clone();
            self.requests.begin_write(name.clone(), version);
            let id = self.next_call();
            self.writes.begin(id, Subject::Approval(name.clone()));
            return Some(ApprovalWrite { id, request: name, device, patch });
        }
        None
    }

    /// The watch brings what became of it.
    pub(super) fn approval_written(&mut self, name: &str, outcome: &WriteOutcome<String>) {
        let failed_for_now = matches!(outcome, WriteOutcome::Throttled { .. } | WriteOutcome::Unavailable(_));
        self.requests.end_write(name, failed_for_now);
    }
}

/// Whether nobody has to be asked about a request any more.
fn may_have(request: &RequestSeen, device: &Device) -> bool {
    device.uid() == request.device_uid
        && device.is_approved()
        && !device.is_revoked()
        && !device.is_decommissioned()
        && !device.is_deleting()
        && match request.claim {
            Claim::JoinProof | Claim::Renewal => true,
            Claim::Key(key) => device.confirmed_key() == Some(key),
        }
}

/// The merge patch (RFC 7396) of a request's conditions that approves it.
fn approval_patch(request: &RequestSeen, now: Now) -> serde_json::Value {
    let at: Time = time(i64::try_from(now.unix_ms / 1_000).unwrap_or(i64::MAX));
    let approved = CertificateSigningRequestCondition {
        type_: "Approved".to_owned(),
        status: "True".to_owned(),
        reason: Some("DeviceApproved".to_owned()),
        message: Some(request.claim.sentence().to_owned()),
        last_update_time: Some(at.clone()),
        last_transition_time: Some(at),
    };
    let conditions: Vec<_> = request.conditions.iter().cloned().chain([approved]).collect();
    json!({
        "metadata": { "resourceVersion": request.resource_version },
        "status": { "conditions": conditions },
    })
}
