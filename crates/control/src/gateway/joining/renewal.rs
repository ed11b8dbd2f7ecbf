//! The next certificate of a device in its session.
//!
//! ```text
//! Join ── Transmit::presented ─> handle_presented ── a request that carries the chain ── Pending, Refused, Certificate
//! ```

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use wasmbed_protocol::{ErrorCode, Join, KeyHash, tag};

use super::{
    Renewing,
    requests::{Opened, Shown, Wanted},
};
use crate::{
    Now, ObjectKey,
    gateway::{
        Gateway,
        certification::{CertificateHash, Evidence, JoinOutcome},
        config::{RENEWAL_SPACING_MS, RETRY_APPROVAL_MS, RETRY_REFUSED_MS},
        input::{Notice, SessionId},
        outbox::Answer,
    },
};

impl Gateway {
    /// A Join in an established session: at most one in a minute for a device.
    pub(in crate::gateway) fn handle_renewal(
        &mut self,
        now: Now,
        id: SessionId,
        device: &Arc<ObjectKey>,
        join: &Join<'_>,
    ) {
        let unusable = |gateway: &mut Self, code, detail: &str| {
            gateway.unusable(now, id, code, Some(tag::JOIN), detail.to_owned());
        };
        let Some(read_request) = self.config.read_request else {
            return unusable(self, ErrorCode::Unexpected, "this gateway renews no certificates");
        };
        if join.proof.is_some() || join.pairing_id.is_some() {
            return unusable(self, ErrorCode::Unexpected, "a renewal needs no proof but the session's own");
        }
        let asked_ms = self.joining.renewed.get(device);
        if asked_ms.is_some_and(|asked_ms| now.ms.saturating_sub(*asked_ms) < RENEWAL_SPACING_MS) {
            return unusable(self, ErrorCode::TooLarge, "more than one renewal in a minute");
        }
        self.joining.renewed.insert(Arc::clone(device), now.ms);
        let key = match read_request(join.request) {
            Ok(key) => key,
            Err(flaw) => return self.refuse_renewal(id, &format!("the request: {flaw}"), RETRY_REFUSED_MS),
        };
        let session = present!(self.connections.get(id), "a message comes by a connection");
        let own = STANDARD.decode(session.public_key().as_bytes()).map(|der| KeyHash::of(&der));
        if own != Ok(key) {
            let detail = "the request is for another key than the certificate's";
            return self.refuse_renewal(id, detail, RETRY_REFUSED_MS);
        }
        self.joining.presenting.insert(id, Renewing { request: join.request.into(), key });
        self.connections.wake(id);
    }

    /// Whether the chain that a session's client presented is wanted.
    pub(in crate::gateway) fn wants_chain(&self, id: SessionId) -> bool {
        self.joining.presenting.contains_key(&id)
    }

    /// The chain that the client of a session presented in its handshake, DER, its own certificate first: asked for with
    /// [`Transmit::presented`](crate::gateway::Transmit::presented).
    pub fn handle_presented(&mut self, now: Now, id: SessionId, chain: Vec<Vec<u8>>) {
        let Some(Renewing { request, key }) = self.joining.presenting.remove(&id) else { return };
        let Some(session) = self.connections.get(id).filter(|session| session.is_established()) else {
            return;
        };
        let device = Arc::clone(session.device());
        let object = self.devices.get(&device).and_then(|record| record.object());
        let Some(device_uid) = object.and_then(|object| object.uid().parse().ok()) else {
            return self.refuse_renewal(id, "the Device is not known yet", RETRY_APPROVAL_MS);
        };
        // A session that stands for longer than its certificate lasts has been given others.
        let chain = self.joining.given.get(&id).map_or_else(|| chain.into(), Arc::clone);
        let certificate = CertificateHash::of(chain.first().map_or(&[], Vec::as_slice));
        let evidence = Evidence::Renewal { chain };
        // Its key stays: a Device does not show when its next certificate is there.
        let shown = Shown { certified: false, ..self.shown(&device, key) };
        let wanted = Wanted { asker: id, certificate, device_uid, key, request, evidence, shown };
        match self.joining.requests.open(now.ms, now.unix_ms, &device, wanted) {
            Opened::New => self.tell_awaited(&device),
            Opened::Instead(earlier) => {
                self.displace(now, earlier);
                self.tell_awaited(&device);
            }
            Opened::Taken => {
                self.refuse_renewal(id, "another request for this Device is open", RETRY_APPROVAL_MS);
            }
            Opened::TooMany => {
                self.refuse_renewal(id, "there were too many requests for this Device", RETRY_APPROVAL_MS);
            }
        }
        self.settle(now);
    }

    /// Says that there is no new certificate; the session stays.
    pub(super) fn refuse_renewal(&mut self, id: SessionId, detail: &str, retry_after_ms: u32) {
        let Some(session) = self.connections.get(id) else { return };
        let device = Arc::clone(session.device());
        let answer = Answer::refused(self.join_subject(Some(&device)), retry_after_ms, detail);
        let session = present!(self.connections.get_mut(id), "it was just here");
        session.pending_mut().join().answer(answer);
        self.connections.wake(id);
        self.note_renewal(device, JoinOutcome::RenewalRefused, detail);
    }

    pub(super) fn note_renewal(&mut self, device: Arc<ObjectKey>, outcome: JoinOutcome, detail: &str) {
        let (client, detail) = ("its session".to_owned(), detail.to_owned());
        self.notice(Notice::JoinEnded { client, device: Some(device), outcome, detail });
    }

    /// A session ended: nothing is asked for it any more.
    pub(in crate::gateway) fn end_renewal(&mut self, id: SessionId, device: &ObjectKey) {
        self.joining.presenting.remove(&id);
        self.joining.given.remove(&id);
        self.joining.requests.close_of(device, id);
    }
}
