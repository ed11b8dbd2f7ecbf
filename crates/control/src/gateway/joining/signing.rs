//! Calls about requests, and what their answers mean to who asked.

use std::sync::Arc;

use wasmbed_api::ReasonCode;
use wasmbed_protocol::limits::CHAIN_BYTES_MAX;

use super::{JoinRefusal, joiners::State};
use crate::{
    Now, ObjectKey,
    gateway::{
        Gateway,
        certification::{CertificateCall, CertificateCallId, Issued, JoinOutcome, RequestEnd, RequestSeen},
        config::{JOIN_FAREWELL_MS, RETRY_APPROVAL_MS, RETRY_REFUSED_MS},
        device::JoinView,
        events::About,
        input::{Notice, SessionId},
    },
    harmless,
    kubernetes::{Event, Regarding, WriteOutcome},
};

/// Bytes of what a signer says that are passed on.
const MESSAGE_BYTES_MAX: usize = 512;

impl Gateway {
    /// The next call about a CertificateSigningRequest, if its time has come.
    pub fn poll_certificate_call(&mut self, now: Now) -> Option<CertificateCall> {
        if self.kept_from.is_some() || now.ms < self.writer.paused_until_ms() {
            return None;
        }
        self.joining.requests.poll(now.ms)
    }

    /// A call about a CertificateSigningRequest ended; if it succeeded, with the request as it is now.
    pub fn handle_certificate_answer(
        &mut self,
        now: Now,
        id: CertificateCallId,
        outcome: WriteOutcome<RequestSeen>,
    ) {
        self.clock_ms = self.clock_ms.max(now.ms);
        match &outcome {
            WriteOutcome::Throttled { retry_after_ms } => self.writer.failed(now.ms, *retry_after_ms),
            WriteOutcome::Unavailable(_) => self.writer.failed(now.ms, 0),
            WriteOutcome::Done(_)
            | WriteOutcome::Conflict
            | WriteOutcome::NotFound
            | WriteOutcome::Rejected(_) => self.writer.succeeded(),
        }
        // It was closed meanwhile.
        let Some(device) = self.joining.requests.answered(id) else { return };
        match outcome {
            WriteOutcome::Done(seen) => self.request_seen(now, &device, seen),
            WriteOutcome::Conflict => self.joining.requests.found(now.ms, &device),
            WriteOutcome::NotFound if self.joining.requests.missing(now.ms, &device) => {}
            WriteOutcome::NotFound => {
                let gone = JoinRefusal::passing("the CertificateSigningRequest was deleted");
                self.refuse_request(now, &device, JoinRefusal { retry_after_ms: RETRY_APPROVAL_MS, ..gone });
            }
            WriteOutcome::Throttled { .. } => self.joining.requests.again(now.ms, &device),
            WriteOutcome::Unavailable(detail) => {
                self.joining.requests.again(now.ms, &device);
                self.notice(Notice::WriteFailed { device, detail });
            }
            WriteOutcome::Rejected(detail) => {
                self.notice(Notice::WriteFailed { device: Arc::clone(&device), detail });
                let refused =
                    JoinRefusal::passing("the Kubernetes API refuses the CertificateSigningRequest");
                self.refuse_request(
                    now,
                    &device,
                    JoinRefusal { retry_after_ms: RETRY_REFUSED_MS, ..refused },
                );
            }
        }
        self.settle(now);
    }

    fn request_seen(&mut self, now: Now, device: &Arc<ObjectKey>, seen: RequestSeen) {
        match seen.end {
            None => {
                self.joining.requests.seen(now.ms, device, seen.approved);
                self.tell_awaited(device);
            }
            Some(RequestEnd::Failed { .. }) if self.joining.requests.retry(now.ms, device) => {}
            Some(RequestEnd::Issued(issued))
                if issued.not_after_unix_s <= now.unix_ms / 1_000
                    && self.joining.requests.retry(now.ms, device) => {}
            Some(RequestEnd::Issued(issued)) => self.issued(now, device, issued),
            Some(RequestEnd::Unusable(detail)) => {
                self.refuse_signed(now, device, &format!("what was issued is not usable: {detail}"));
            }
            Some(RequestEnd::Failed { reason, message }) => {
                self.refuse_signed(now, device, &format!("{reason}: {message}"));
            }
            Some(RequestEnd::Denied { message }) => {
                self.refuse_signed(now, device, &format!("a person denied the request: {message}"));
            }
        }
    }

    /// What was issued is the device's, if it is for its key and its Device.
    fn issued(&mut self, now: Now, device: &Arc<ObjectKey>, issued: Issued) {
        let open = present!(self.joining.requests.get(device), "what is read is open");
        let bytes: Arc<[u8]> = issued.chain.concat().into();
        let flaw = if issued.key != open.wanted().key {
            Some("the certificate that was issued is for another key")
        } else if issued.device.as_ref() != Some(&**device) {
            Some("the certificate that was issued names another device")
        } else if bytes.is_empty() || bytes.len() > CHAIN_BYTES_MAX as usize {
            Some("the chain that was issued is longer than 8,192 bytes")
        } else {
            None
        };
        if let Some(flaw) = flaw {
            return self.refuse_signed(now, device, flaw);
        }
        let open = present!(self.joining.requests.close(device), "it was just open");
        let (asker, certificate) = (open.wanted().asker, open.wanted().certificate);
        self.joining.refusals.forget(&certificate);
        if let Some(joiner) = self.joining.joiners.get_mut(asker) {
            joiner.outbox.deliver(bytes);
            let client = Arc::clone(joiner.client());
            self.joining.turns.handed_out(now.ms, self.joining.joiners.claims());
            self.joining.joiners.set_state(now, asker, State::Delivering, JOIN_FAREWELL_MS);
            if let Some(record) = self.devices.get_mut(device) {
                record.joins(JoinView::new(ReasonCode::Approved, String::new()));
            }
            self.changed.insert(Arc::clone(device));
            self.note_join(&client, Some(Arc::clone(device)), JoinOutcome::Issued, "");
        } else if self.deliver_renewed(asker, bytes) {
            self.joining.given.insert(asker, issued.chain);
            self.note_renewal(Arc::clone(device), JoinOutcome::Renewed, "");
        }
    }

    fn deliver_renewed(&mut self, session: SessionId, chain: Arc<[u8]>) -> bool {
        let Some(session_mut) = self.connections.get_mut(session).filter(|session| session.is_established())
        else {
            return false;
        };
        session_mut.pending_mut().join().deliver(chain);
        self.connections.wake(session);
        true
    }

    /// The signer or a person said no: that is held against the certificate, and its Device says so.
    fn refuse_signed(&mut self, now: Now, device: &Arc<ObjectKey>, detail: &str) {
        let detail = harmless(detail, MESSAGE_BYTES_MAX).into_owned();
        let open = present!(self.joining.requests.get(device), "what is refused is open");
        let renewal = open.wanted().is_renewal();
        if let Some(record) = self.devices.get_mut(device) {
            if !renewal {
                record.joins(JoinView::new(ReasonCode::RequestRefused, detail.clone()));
                self.changed.insert(Arc::clone(device));
            }
            if let Some(uid) = record.object().map(|object| Arc::clone(object.uid())) {
                let event = Event {
                    regarding: Regarding::device((**device).clone(), uid),
                    warning: true,
                    reason: ReasonCode::RequestRefused,
                    message: detail.clone(),
                    unix_ms: now.unix_ms,
                };
                let about = if renewal { About::Device } else { About::Stranger };
                self.push_event_about(Box::new(event), about);
            }
        }
        self.refuse_request(now, device, JoinRefusal::standing(detail));
    }

    /// Closes the Device's request and tells who asked.
    fn refuse_request(&mut self, now: Now, device: &Arc<ObjectKey>, refusal: JoinRefusal) {
        let open = present!(self.joining.requests.close(device), "what is refused is open");
        let (asker, certificate) = (open.wanted().asker, open.wanted().certificate);
        if self.joining.contains(asker) {
            self.refuse_join(now, asker, refusal);
        } else {
            let mut retry_after_ms = refusal.retry_after_ms;
            if refusal.is_held_against {
                retry_after_ms = self.joining.refusals.refuse(now.ms, certificate, retry_after_ms);
            }
            self.refuse_renewal(asker, &refusal.detail, retry_after_ms);
        }
    }
}
