//! From a Join to the request for the signer.

use std::sync::Arc;

use wasmbed_api::DeviceSpec;
use wasmbed_protocol::{DeviceUid, Join, KeyHash, limits::NAME_BYTES_MAX};

use super::{
    JoinRefusal,
    awaited::{Awaited, Standing, plan_awaited},
    claims::Claim,
    joiners::{Asked, Joiner, State},
    names::Match,
    requests::{Opened, Wanted},
};
use crate::{
    Now, ObjectKey,
    gateway::{
        Enrollment, Gateway,
        certification::{Evidence, JoinOutcome, JoiningIdentity},
        config::{
            CREATIONS_MAX, JOIN_DEVICE_TIMEOUT_MS, JOIN_PROOF_TIMEOUT_MS, JOINER_LIFETIME_MS,
            JOINERS_BY_TOKEN, RETRY_APPROVAL_MS, RETRY_REFUSED_MS,
        },
        device::JoinView,
        input::SessionId,
        outbox::Answer,
    },
    harmless,
};

/// What is made of a joining device.
enum Plan {
    /// It is this Device's.
    Device(Arc<ObjectKey>),
    /// A Device is made for it.
    Create(ObjectKey, DeviceSpec),
    /// Nobody knows its token. It is told nothing.
    Unknown(String),
    Refuse(JoinRefusal),
}

impl Gateway {
    pub(super) fn handle_join(&mut self, now: Now, id: SessionId, join: &Join<'_>) {
        let read_request = present!(self.config.read_request, "nobody joins where requests can't be read");
        let key = match read_request(join.request) {
            Ok(key) => key,
            Err(flaw) => {
                return self.refuse_join(now, id, JoinRefusal::standing(format!("the request: {flaw}")));
            }
        };
        let board = harmless(join.board, NAME_BYTES_MAX).into_owned();
        self.advance(now, id, Asked::new(join, key, board));
    }

    /// Whose Device changed or came to be goes on from where it is.
    pub(super) fn go_on(&mut self, now: Now, id: SessionId) {
        let joiner = present!(self.joiner(id), "who goes on is a connection");
        match joiner.state() {
            // What was made may be another's: it is looked for as at first.
            State::AwaitDevice(asked, _) => {
                let asked = (**asked).clone();
                self.advance(now, id, asked);
            }
            State::AwaitProof(device) | State::Requested(device) => {
                let device = Arc::clone(device);
                if let Err(refusal) = self.check_standing(&device) {
                    self.refuse_join(now, id, refusal);
                }
            }
            State::AwaitJoin | State::Delivering | State::Closing => {}
        }
    }

    fn advance(&mut self, now: Now, id: SessionId, asked: Asked) {
        match self.plan_join(id, &asked) {
            Plan::Device(device) => self.ask_for(now, id, &device, asked),
            Plan::Create(key, spec) => self.create_joining(now, id, &key, spec, asked),
            Plan::Unknown(detail) => self.drop_join(now, id, JoinOutcome::UnknownToken, &detail),
            Plan::Refuse(refusal) => self.refuse_join(now, id, refusal),
        }
    }

    fn plan_join(&self, id: SessionId, asked: &Asked) -> Plan {
        let joiner = present!(self.joiner(id), "who joins is a connection" => Plan::Unknown(String::new()));
        if !self.synced {
            return Plan::Refuse(JoinRefusal::passing("the gateway does not know its Devices yet"));
        }
        match &joiner.client().identity {
            JoiningIdentity::Token { key } => {
                if *key != asked.key {
                    let detail = "the request is for another key than the certificate's";
                    return Plan::Refuse(JoinRefusal::standing(detail));
                }
                let Some(token) = asked.pairing_id.as_deref() else {
                    return Plan::Unknown("it names no pairing token".to_owned());
                };
                match self.joining.names.find_token(token) {
                    Some(device) => Plan::Device(Arc::clone(device)),
                    None => Plan::Unknown("not exactly one Device names its pairing token".to_owned()),
                }
            }
            JoiningIdentity::Factory { serial, device_name, key, .. } => {
                match self.find_factory(serial, device_name, *key) {
                    Match::Device(device) => Plan::Device(device),
                    Match::Conflict(detail) => Plan::Refuse(JoinRefusal::standing(detail)),
                    Match::None => self.plan_creation(self.name_of(device_name), serial, asked),
                }
            }
        }
    }

    /// What a Device is called that is made for a factory's device.
    fn name_of(&self, device_name: &str) -> ObjectKey {
        ObjectKey::new(self.config.joining_namespace.as_str(), device_name)
    }

    /// The Device of a factory's device.
    pub(super) fn find_factory(&self, serial: &str, device_name: &str, key: KeyHash) -> Match {
        let named = self.devices.get(&self.name_of(device_name)).filter(|record| record.object().is_some());
        self.joining.names.find_serial(serial, key, named.map(|record| record.key()))
    }

    fn plan_creation(&self, name: ObjectKey, serial: &str, asked: &Asked) -> Plan {
        if self.config.enrollment == Enrollment::Closed {
            let closed = JoinRefusal::standing("no Device names this serial, and enrollment is closed");
            return Plan::Refuse(JoinRefusal { retry_after_ms: RETRY_REFUSED_MS, ..closed });
        }
        let creating = self.devices.get(&name).is_some_and(|record| record.writes().is_creating());
        if !creating {
            if self.joining.names.unapproved(&name.namespace) + self.writer.creating()
                >= self.config.pending_max
            {
                let full = JoinRefusal::passing("as many Devices wait for approval as may");
                return Plan::Refuse(JoinRefusal { retry_after_ms: RETRY_REFUSED_MS, ..full });
            }
            if self.writer.creating() >= CREATIONS_MAX {
                return Plan::Refuse(JoinRefusal::passing("the gateway is full"));
            }
        }
        let spec = DeviceSpec {
            device_type: asked.board.clone(),
            serial: Some(serial.to_owned()),
            approved: false,
            ..DeviceSpec::default()
        };
        Plan::Create(name, spec)
    }

    fn create_joining(&mut self, now: Now, id: SessionId, key: &ObjectKey, spec: DeviceSpec, asked: Asked) {
        self.record(now, key);
        let record = present!(self.devices.get_mut(key), "the record was just made");
        let device = Arc::clone(record.key());
        if record.writes().is_quiet() {
            record.enrolls(false);
            self.writer.create(record.writes_mut(), spec);
        }
        let state = State::AwaitDevice(Box::new(asked), Arc::clone(&device));
        self.joining.joiners.set_state(now, id, state, JOIN_DEVICE_TIMEOUT_MS);
        self.changed.insert(device);
    }

    /// The UID of a Device whose device may have a certificate.
    fn check_standing(&self, device: &ObjectKey) -> Result<DeviceUid, JoinRefusal> {
        let object = self.devices.get(device).and_then(|record| record.object());
        let Some(object) = object else {
            return Err(JoinRefusal::passing("the Device is not known yet"));
        };
        if object.is_revoked() {
            let revoked = JoinRefusal::standing("the Device is revoked");
            return Err(JoinRefusal { retry_after_ms: RETRY_REFUSED_MS, is_revoked: true, ..revoked });
        }
        if object.leaves_service() {
            let decommissioned = JoinRefusal::standing("the Device is decommissioned");
            return Err(JoinRefusal { retry_after_ms: RETRY_REFUSED_MS, ..decommissioned });
        }
        if object.is_deleting() {
            let deleting = JoinRefusal::passing("the Device is being deleted");
            return Err(JoinRefusal { retry_after_ms: RETRY_APPROVAL_MS, ..deleting });
        }
        object.uid().parse().map_err(|_| JoinRefusal::standing("the Device's UID is no UUID"))
    }

    fn ask_for(&mut self, now: Now, id: SessionId, device: &Arc<ObjectKey>, asked: Asked) {
        let device_uid = match self.check_standing(device) {
            Ok(uid) => uid,
            Err(refusal) => return self.refuse_join(now, id, refusal),
        };
        let joiner = present!(self.joiner(id), "who asks is a connection");
        let client = Arc::clone(joiner.client());
        // One that has no proof says so by asking again.
        let insists = matches!(joiner.state(), State::AwaitProof(told) if told == device);
        let evidence = match (&client.identity, asked.proof, asked.pairing_id) {
            (_, None, _) if !insists => return self.ask_proof(now, id, device, device_uid),
            (JoiningIdentity::Factory { .. }, None, _) => Evidence::None,
            (JoiningIdentity::Factory { chain, .. }, Some(signature), _) => {
                Evidence::Factory { chain: Arc::clone(chain), signature }
            }
            (JoiningIdentity::Token { .. }, Some(mac), Some(token)) => Evidence::Token { id: token, mac },
            (JoiningIdentity::Token { .. }, _, _) => {
                let refusal = JoinRefusal::standing("a device with a pairing token proves that it has it");
                return self.refuse_join(now, id, refusal);
            }
        };
        let wanted = Wanted {
            asker: id,
            certificate: client.certificate,
            device_uid,
            key: asked.key,
            request: asked.request,
            evidence,
            shown: self.shown(device, asked.key),
        };
        match self.joining.requests.open(now.ms, now.unix_ms, device, wanted) {
            Opened::New => {}
            Opened::Instead(earlier) => self.displace(now, earlier),
            Opened::Taken => {
                let taken = JoinRefusal::passing("another request for this Device is open");
                return self.refuse_join(now, id, JoinRefusal { retry_after_ms: RETRY_APPROVAL_MS, ..taken });
            }
            Opened::TooMany => {
                let full = JoinRefusal::passing("there were too many requests for this Device");
                return self.refuse_join(now, id, JoinRefusal { retry_after_ms: RETRY_APPROVAL_MS, ..full });
            }
        }
        let state = State::Requested(Arc::clone(device));
        self.joining.joiners.set_state(now, id, state, JOINER_LIFETIME_MS);
        self.tell_awaited(device);
    }

    fn ask_proof(&mut self, now: Now, id: SessionId, device: &Arc<ObjectKey>, uid: DeviceUid) {
        // One that it asked for before it forgot its proof.
        self.joining.requests.close_of(device, id);
        let joiner = present!(self.joining.joiners.get_mut(id), "who asks is a connection");
        joiner.outbox.answer(Answer::proof_needed((uid, Arc::clone(device))));
        let state = State::AwaitProof(Arc::clone(device));
        self.joining.joiners.set_state(now, id, state, JOIN_PROOF_TIMEOUT_MS);
    }

    /// Whoever had the Device's request has it no more.
    pub(super) fn displace(&mut self, now: Now, earlier: SessionId) {
        if self.joining.contains(earlier) {
            self.refuse_join(
                now,
                earlier,
                JoinRefusal::passing("another request for this Device took its place"),
            );
        } else if let Some(session) = self.connections.get_mut(earlier) {
            session.pending_mut().forget_join();
        }
    }

    /// Says what the Device's request waits for, to whoever asked and in the Device's status, where that is news.
    pub(super) fn tell_awaited(&mut self, device: &Arc<ObjectKey>) {
        let (Some(open), Some(record)) = (self.joining.requests.get(device), self.devices.get(device)) else {
            return;
        };
        let Some(object) = record.object() else { return };
        let (wanted, asker) = (open.wanted(), open.wanted().asker);
        let awaited = plan_awaited(&Standing {
            key: wanted.key,
            is_proven: wanted.is_proven(),
            confirmed: object.confirmed_key(),
            device_approved: object.is_approved(),
            request_approved: open.is_approved(),
        });
        let subject = (wanted.device_uid, Arc::clone(device));
        if let Some(joiner) = self.joining.joiners.get(asker) {
            let claim = self.claim_by(joiner, awaited);
            self.joining.joiners.set_claim(asker, claim);
        }
        if !self.joining.requests.tells(device, awaited) {
            return;
        }
        let answer = Answer::pending(subject, &awaited.to_string());
        if let Some(joiner) = self.joining.joiners.get_mut(asker) {
            joiner.outbox.answer(answer);
            self.joining.joiners.wake(asker);
            self.show_awaited(device, awaited);
        } else if let Some(session) =
            self.connections.get_mut(asker).filter(|session| session.is_established())
        {
            session.pending_mut().join().answer(answer);
            self.connections.wake(asker);
        }
    }

    /// What speaks for one whose request waits for this.
    fn claim_by(&self, joiner: &Joiner, awaited: Awaited) -> Claim {
        let is_paired = matches!(joiner.client().identity, JoiningIdentity::Token { .. });
        match awaited {
            Awaited::KeyConfirmation(_) | Awaited::DeviceApproval => Claim::Person,
            Awaited::RequestApproval | Awaited::Signature => {
                let may = joiner.claim() >= Claim::Expected
                    || !is_paired
                    || self.joining.joiners.claims_by_token() < JOINERS_BY_TOKEN;
                if may { Claim::Expected } else { Claim::None }
            }
        }
    }

    fn show_awaited(&mut self, device: &Arc<ObjectKey>, awaited: Awaited) {
        let record = present!(self.devices.get_mut(device), "what is asked for is a known Device's");
        record.joins(JoinView::new(awaited.shown(), awaited.sentence()));
        self.changed.insert(Arc::clone(device));
    }
}
