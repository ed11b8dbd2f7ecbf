//! Who has a place to join at, and how it is given back.

use std::{net::IpAddr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use wasmbed_protocol::{CloseReason, DeviceMessage, GatewayMessage, KeyHash, decode_device};

use super::{
    JoinRefusal,
    claims::Claim,
    joiners::{Joiner, State},
    names::Match,
    requests::Shown,
};
use crate::{
    Now, ObjectKey,
    gateway::{
        Gateway,
        admission::{self, Refusal},
        certification::{JoinOutcome, JoiningClient, JoiningIdentity},
        config::{
            JOINERS_FETCHING_MAX, JOINERS_GIVE_WAY, JOINERS_MAX, RETRY_APPROVAL_MS, RETRY_SOON_MS,
            STRANGERS_MAX,
        },
        input::{Notice, SessionId, Transmit},
        outbox::{Answer, Outbox, Subject},
        pending::Closing,
    },
};

const SUPERSEDED: Refusal =
    Refusal::new(CloseReason::Superseded, RETRY_SOON_MS, "a newer connection with this certificate exists");
/// To one for whose Device nobody vouches yet.
const GIVES_WAY: &str = "others want to join, and this one waits for a person";
/// To one that has shown nothing yet.
const UNKNOWN: &str = "others want to join, and nothing speaks for this one yet";
/// To one that has just come.
const COMES_LATER: &str = "as many devices join as may: this one's turn comes later";
const TOO_LATE: Refusal =
    Refusal::new(CloseReason::ProtocolError, RETRY_SOON_MS, "the device did not go on in time");
/// Who waits for a person comes back.
const STILL_PENDING: Refusal =
    Refusal::new(CloseReason::PendingApproval, RETRY_APPROVAL_MS, "there is no certificate yet; ask again");
const FAREWELL: Refusal = Refusal::new(CloseReason::Superseded, 0, "connect with the new certificate");
const BROKEN: Refusal =
    Refusal::new(CloseReason::ProtocolError, RETRY_SOON_MS, "the device broke the protocol");

impl Gateway {
    /// The handshake of a client is done that has no certificate of the fleet. False if there is no room: the connection is to be
    /// closed.
    #[must_use]
    pub fn handle_joining(&mut self, now: Now, id: SessionId, client: JoiningClient) -> bool {
        self.clock_ms = self.clock_ms.max(now.ms);
        let open = self.joining.len();
        let strangers = self.connections.strangers_open() + open;
        let known = self.connections.contains(id) || self.joining.contains(id);
        if known || self.config.read_request.is_none() || open >= JOINERS_MAX || strangers >= STRANGERS_MAX {
            return false;
        }
        if let Some(older) = self.joining.joiners.of_certificate(&client.certificate) {
            self.end_join(now, older, SUPERSEDED, SUPERSEDED.detail());
        }
        let waits_ms = self.joining.refusals.wait_ms(now.ms, &client.certificate);
        let (claim, source) = (self.claim_of(&client.identity), client.source);
        self.joining.joiners.insert(now, id, client, claim);
        if self.shutting_down {
            self.end_join(now, id, admission::SHUTTING_DOWN, admission::SHUTTING_DOWN.detail());
        } else if self.kept_from.is_some() {
            self.end_join(now, id, admission::NOT_HOLDER, admission::NOT_HOLDER.detail());
        } else if let Some(retry_after_ms) = waits_ms {
            let detail = "this certificate was refused a short while ago".to_owned();
            self.refuse_join(
                now,
                id,
                JoinRefusal { detail, retry_after_ms, is_held_against: false, is_revoked: false },
            );
        } else if !self.make_room(now, id, claim, source) {
            self.send_away(now, id, COMES_LATER);
        }
        self.settle(now);
        true
    }

    /// What speaks for a client before it has said anything.
    fn claim_of(&self, identity: &JoiningIdentity) -> Claim {
        let device = match identity {
            JoiningIdentity::Token { key } => self.joining.names.find_paired(*key).map(Arc::clone),
            JoiningIdentity::Factory { serial, device_name, key, .. } => {
                match self.find_factory(serial, device_name, *key) {
                    Match::Device(device) => Some(device),
                    Match::None | Match::Conflict(_) => None,
                }
            }
        };
        let object = device.as_ref().and_then(|device| self.devices.get(&**device)?.object());
        match object {
            Some(object) if object.is_let_in(true) && object.public_key().is_some() => Claim::Issued,
            Some(object) if object.is_let_in(true) => Claim::Expected,
            Some(_) | None => Claim::None,
        }
    }

    /// A place for one that has just taken one; false if nobody makes room for it.
    fn make_room(&mut self, now: Now, id: SessionId, claim: Claim, source: IpAddr) -> bool {
        let free = if claim == Claim::Issued { JOINERS_FETCHING_MAX } else { JOINERS_GIVE_WAY };
        if self.joining.joiners.open() <= free {
            return true;
        }
        let gives_way = self.joining.joiners.gives_way(claim, source).filter(|other| *other != id);
        let Some(other) = gives_way else { return false };
        let for_person = self.joiner(other).is_some_and(|joiner| joiner.claim() == Claim::Person);
        self.send_away(now, other, if for_person { GIVES_WAY } else { UNKNOWN });
        true
    }

    /// Ends a joining connection that is to come again in its turn.
    fn send_away(&mut self, now: Now, id: SessionId, detail: &'static str) {
        let joiner = present!(self.joining.joiners.get(id), "only what is open is sent away");
        let (claim, certificate) = (joiner.claim(), joiner.client().certificate);
        let claims = self.joining.joiners.claims();
        let retry_after_ms = self.joining.turns.next_ms(now.ms, claims, claim, &certificate);
        self.end_join(now, id, Refusal::new(CloseReason::Overloaded, retry_after_ms, detail), detail);
    }

    /// The body of a frame of a joining device.
    pub(in crate::gateway) fn handle_join_frame(&mut self, now: Now, id: SessionId, body: &[u8]) {
        self.clock_ms = self.clock_ms.max(now.ms);
        let joiner = present!(self.joining.joiners.get_mut(id), "a frame comes by a connection");
        joiner.count_frame(now.ms, body.len());
        if *joiner.state() == State::Closing {
            return;
        }
        match decode_device(body) {
            Ok(DeviceMessage::Join(join)) => {
                if joiner.takes_join(now.ms) {
                    self.handle_join(now, id, &join);
                } else {
                    self.end_join(now, id, BROKEN, "more than four Joins in a minute");
                }
            }
            Ok(_) => self.end_join(now, id, BROKEN, "a device that joins says Join and nothing else"),
            Err(error) => self.end_join(now, id, BROKEN, &error.to_string()),
        }
    }

    /// A joining connection is gone.
    pub(in crate::gateway) fn handle_join_closed(&mut self, now: Now, id: SessionId, detail: &str) {
        self.clock_ms = self.clock_ms.max(now.ms);
        let Some(joiner) = self.joining.joiners.remove(id) else { return };
        if let Some(device) = joiner.device() {
            self.joining.requests.close_of(device, id);
        }
        if !matches!(joiner.state(), State::Closing | State::Delivering) {
            let device = joiner.device().cloned();
            self.note_join(joiner.client(), device, JoinOutcome::Ended, detail);
        }
    }

    pub(in crate::gateway) fn join_timeouts(&mut self, now: Now) {
        while let Some(id) = self.joining.joiners.pop_due(now.ms) {
            let joiner = present!(self.joining.joiners.get(id), "a timer is that of a connection");
            match joiner.state() {
                State::AwaitJoin | State::AwaitProof(_) => {
                    self.end_join(now, id, TOO_LATE, TOO_LATE.detail())
                }
                State::AwaitDevice(..) => {
                    self.refuse_join(
                        now,
                        id,
                        JoinRefusal::passing("the Device could not be created in time"),
                    );
                }
                State::Requested(_) => self.end_join(now, id, STILL_PENDING, STILL_PENDING.detail()),
                State::Delivering => self.end_join(now, id, FAREWELL, FAREWELL.detail()),
                State::Closing => debug_assert!(false, "{id:?} has a timer although it is closing"),
            }
        }
    }

    /// Ends all joining connections.
    pub(in crate::gateway) fn end_joins(&mut self, now: Now, refusal: Refusal) {
        for id in self.joining.ids() {
            self.end_join(now, id, refusal, refusal.detail());
        }
    }

    /// Ends a joining connection with a Reject, or a Goodbye once it was given its certificate.
    pub(in crate::gateway) fn end_join(&mut self, now: Now, id: SessionId, refusal: Refusal, detail: &str) {
        let joiner = present!(self.joining.joiners.get_mut(id), "only what is open ends");
        if *joiner.state() == State::Closing {
            return;
        }
        let delivered = *joiner.state() == State::Delivering;
        let closing = if delivered { Closing::goodbye } else { Closing::reject };
        joiner.last = Some(Box::new(closing(refusal.reason(), refusal.retry_after_ms(id), detail)));
        if !delivered {
            joiner.outbox = Outbox::default();
        }
        let outcome = match refusal.reason() {
            _ if delivered => None,
            CloseReason::ProtocolError => Some(JoinOutcome::ProtocolError),
            _ => Some(JoinOutcome::Ended),
        };
        self.close_join(now, id, outcome, detail);
    }

    /// Refuses a joining device, which is told why and when to come again, and frees its place.
    pub(super) fn refuse_join(&mut self, now: Now, id: SessionId, refusal: JoinRefusal) {
        let joiner = present!(self.joining.joiners.get_mut(id), "only what is open is refused");
        if *joiner.state() == State::Closing {
            return;
        }
        let JoinRefusal { detail, mut retry_after_ms, is_held_against, is_revoked } = refusal;
        if is_held_against {
            let certificate = joiner.client().certificate;
            retry_after_ms = self.joining.refusals.refuse(now.ms, certificate, retry_after_ms);
        }
        let device = joiner.device().cloned();
        let answer = Answer::refused(self.join_subject(device.as_ref()), retry_after_ms, &detail);
        let joiner = present!(self.joining.joiners.get_mut(id), "it was just here");
        joiner.outbox = Outbox::default();
        if is_revoked {
            joiner.last = Some(Box::new(Closing::reject(CloseReason::Revoked, retry_after_ms, &detail)));
        } else {
            joiner.outbox.answer(answer);
        }
        self.close_join(now, id, Some(JoinOutcome::Refused), &detail);
    }

    /// Closes a joining connection without a word: it is told nothing that it does not know.
    pub(super) fn drop_join(&mut self, now: Now, id: SessionId, outcome: JoinOutcome, detail: &str) {
        let joiner = present!(self.joining.joiners.get_mut(id), "only what is open is dropped");
        joiner.outbox = Outbox::default();
        self.close_join(now, id, Some(outcome), detail);
    }

    pub(super) fn close_join(&mut self, now: Now, id: SessionId, outcome: Option<JoinOutcome>, detail: &str) {
        let joiner = present!(self.joining.joiners.get(id), "only what is open is closed");
        let (client, device) = (Arc::clone(joiner.client()), joiner.device().cloned());
        if let Some(device) = &device {
            self.joining.requests.close_of(device, id);
        }
        self.joining.joiners.set_state(now, id, State::Closing, 0);
        if let Some(outcome) = outcome {
            self.note_join(&client, device, outcome, detail);
        }
    }

    pub(super) fn note_join(
        &mut self,
        client: &JoiningClient,
        device: Option<Arc<ObjectKey>>,
        outcome: JoinOutcome,
        detail: &str,
    ) {
        let client = match &client.identity {
            JoiningIdentity::Factory { serial, .. } => format!("serial {serial}"),
            JoiningIdentity::Token { key } => format!("key sha256:{key}"),
        };
        let detail = detail.to_owned();
        self.notice_of(true, Notice::JoinEnded { client, device, outcome, detail });
    }

    /// What an answer is about, if its Device is known.
    pub(super) fn join_subject(&self, device: Option<&Arc<ObjectKey>>) -> Option<Subject> {
        let device = device?;
        let uid = self.devices.get(&**device)?.object()?.uid().parse().ok()?;
        Some((uid, Arc::clone(device)))
    }

    /// What [`Gateway::poll_transmit`] gives for a joining connection: the next messages, as many as `push` takes.
    pub(in crate::gateway) fn transmit_join(
        &mut self,
        now: Now,
        id: SessionId,
        mut push: impl FnMut(&GatewayMessage<'_>) -> bool,
    ) -> Transmit {
        let joiner = present!(self.joining.joiners.get_mut(id), "who transmits is a connection" => Transmit::default());
        let mut room = true;
        while room && let Some(said) = joiner.outbox.next() {
            room = push(&said.to_message());
        }
        if room && let Some(last) = joiner.last.take() {
            room = push(&last.to_message());
        }
        let silent = joiner.is_silent();
        let close = silent && *joiner.state() == State::Closing;
        let read_in_ms = if close { 0 } else { joiner.read_at_ms().saturating_sub(now.ms) };
        if !silent && !room {
            self.joining.joiners.wake(id);
        }
        Transmit { close, read_in_ms, ..Transmit::default() }
    }

    /// A Device is as the API shows it now: who waits for it goes on.
    pub(in crate::gateway) fn joining_observed(&mut self, now: Now, key: &Arc<ObjectKey>) {
        if let Some(open) = self.joining.requests.get(key) {
            let shown = self.shown(key, open.wanted().key);
            self.joining.requests.poke(now.ms, key, shown);
        }
        if !self.joining.is_empty() {
            for id in self.joining.joiners.of_device(key) {
                self.go_on(now, id);
            }
        }
        self.tell_awaited(key);
    }

    /// A Device is gone: whoever was to be it may ask anew.
    pub(in crate::gateway) fn joining_forgot(&mut self, now: Now, key: &Arc<ObjectKey>) {
        self.joining.names.forget(key);
        if let Some(open) = self.joining.requests.close(key)
            && let Some(session) = self.connections.get_mut(open.wanted().asker)
        {
            // The session ends as well.
            session.pending_mut().forget_join();
        }
        for id in self.joining.joiners.of_device(key) {
            self.refuse_join(now, id, JoinRefusal::passing("the Device was deleted"));
        }
    }

    /// What a Device shows of a request with this key.
    pub(super) fn shown(&self, device: &ObjectKey, key: KeyHash) -> Shown {
        let object = self.devices.get(device).and_then(|record| record.object());
        let Some(object) = object else { return Shown::default() };
        let pinned = object.public_key().map(Arc::clone);
        let der = pinned.as_ref().and_then(|key| STANDARD.decode(key.as_bytes()).ok());
        Shown {
            approved: object.is_approved(),
            confirmed: object.confirmed_key(),
            pinned,
            certified: der.is_some_and(|der| KeyHash::of(&der) == key),
        }
    }

    pub(super) fn joiner(&self, id: SessionId) -> Option<&Joiner> {
        self.joining.joiners.get(id)
    }
}
