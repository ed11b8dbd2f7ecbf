//! Connections: who is let in, what devices say, and how sessions end.

use std::sync::Arc;

use wasmbed_api::ReasonCode;
use wasmbed_protocol::{
    AssignmentGet, CloseReason, Decommissioned, DeviceMessage, Epoch, ErrorCode, decode_device,
    limits::DETAIL_BYTES_MAX, tag,
};

use super::{
    Gateway,
    admission::{self, Admission, Refusal, plan_admission},
    config::{
        CONNECTIONS_EXTRA, CONNECTIONS_PER_DEVICE, CONNECTIONS_PER_DEVICE_MAX, HELLO_TIMEOUT_MS,
        RETRY_SOON_MS, STRANGERS_MAX,
    },
    connections::{Session, State},
    device::{DeviceEntry, shared},
    input::{Identity, Notice, SessionId},
    pending::{Closing, Complaint},
};
use crate::{Now, ObjectKey, harmless};

impl Gateway {
    /// A device's handshake is done. False if there is no room: the connection is to be closed.
    #[must_use]
    pub fn handle_accepted(&mut self, now: Now, id: SessionId, identity: &Identity) -> bool {
        self.clock_ms = self.clock_ms.max(now.ms);
        let record = self.devices.get(&identity.device).map(AsRef::as_ref);
        let plan = plan_admission(self.config.enrollment, self.known(record), &identity.public_key);
        let stranger = plan != Admission::Admit;
        let (open, max, own) = if stranger {
            let own = self.connections.strangers_of(&identity.device);
            (self.connections.strangers_open() + self.joining.len(), STRANGERS_MAX, own)
        } else {
            let open = self.connections.len() - self.connections.strangers_open();
            let own = record.map_or(&[][..], |record| record.allowance().connections());
            (open, self.config.sessions_max + CONNECTIONS_EXTRA, own)
        };
        if open >= max
            || own.len() >= CONNECTIONS_PER_DEVICE_MAX
            || self.connections.contains(id)
            || self.joining.contains(id)
        {
            return false;
        }
        let current = record.and_then(DeviceEntry::session);
        let gives_way = own.iter().copied().filter(|_| own.len() >= CONNECTIONS_PER_DEVICE).find(|own| {
            let open = |session: &Session| *session.state() != State::Closing;
            Some(*own) != current && self.connections.get(*own).is_some_and(open)
        });
        if let Some(oldest) = gives_way {
            self.end(now, oldest, SUPERSEDED);
        }
        let (device, public_key) = match self.devices.get(&identity.device) {
            Some(record) => (Arc::clone(record.key()), shared(&identity.public_key, record.public_keys())),
            None => (Arc::new(identity.device.clone()), identity.public_key.as_str().into()),
        };
        if let Some(record) = self.devices.get_mut(&device).filter(|_| !stranger) {
            record.open(id);
        }
        self.connections.insert(now, id, device, public_key, stranger);
        self.connections.set_deadline(id, now.ms + HELLO_TIMEOUT_MS);
        if self.shutting_down {
            self.end(now, id, admission::SHUTTING_DOWN);
        } else if self.kept_from.is_some() {
            self.end(now, id, admission::NOT_HOLDER);
        } else if !self.config.serves(&identity.device.namespace) {
            self.end(now, id, admission::NOT_SERVED);
        }
        self.settle(now);
        true
    }

    /// The body of a frame arrived.
    pub fn handle_frame(&mut self, now: Now, id: SessionId, body: &[u8]) {
        if self.joining.contains(id) {
            self.handle_join_frame(now, id, body);
            self.settle(now);
            return;
        }
        // One that was not let in is about to be closed.
        let Some(session) = self.connections.get_mut(id) else { return };
        if !session.heard(now) {
            return;
        }
        self.clock_ms = self.clock_ms.max(now.ms);
        if let Some(record) = self.devices.get_mut(session.device()) {
            record.heard(now, id);
        }
        self.count_frame(now, id, body.len());
        match decode_device(body) {
            Ok(message) => self.handle_message(now, id, message, body.len()),
            Err(error) if error.is_newer_version() => {
                if error.tag != Some(tag::ERROR) {
                    self.unusable(now, id, error.code(), error.tag, error.to_string());
                }
            }
            Err(error) => self.end_with(now, id, PROTOCOL_ERROR, error.to_string()),
        }
        self.settle(now);
    }

    /// What arrived can't be split into frames.
    pub fn handle_broken_frame(&mut self, now: Now, id: SessionId, detail: &str) {
        if self.joining.contains(id) {
            self.end_join(now, id, PROTOCOL_ERROR, detail);
        } else {
            self.end_with(now, id, PROTOCOL_ERROR, detail.to_owned());
        }
        self.settle(now);
    }

    /// The connection is gone.
    pub fn handle_closed(&mut self, now: Now, id: SessionId, detail: &str) {
        self.handle_join_closed(now, id, detail);
        // One that was not let in has nothing to end.
        let Some(session) = self.connections.remove(id) else { return };
        self.clock_ms = self.clock_ms.max(now.ms);
        let device = session.device();
        self.end_renewal(id, device);
        if let Some(record) = self.devices.get_mut(device).filter(|_| !session.is_stranger()) {
            record.close(id);
        }
        if *session.state() != State::Closing {
            let epoch = self.detach(now, device, id, ReasonCode::SessionEnded);
            let ended = Notice::SessionEnded {
                device: Arc::clone(device),
                epoch,
                reason: None,
                detail: detail.to_owned(),
            };
            self.notice_of(session.is_stranger(), ended);
        }
        self.settle(now);
    }

    /// Counts a frame against the share of whoever sent it.
    fn count_frame(&mut self, now: Now, id: SessionId, bytes: usize) {
        let session = present!(self.connections.get_mut(id), "a frame comes by a connection");
        if session.is_stranger() {
            session.count_strange_frame(now, bytes);
        } else if let Some(record) = self.devices.get_mut(session.device())
            && record.allowance_mut().heard_frame(now, bytes)
        {
            self.counters.devices_slowed += 1;
            let device = Arc::clone(session.device());
            self.notice(Notice::Slowed { device });
        }
    }

    /// For how long nothing is to be read from a session.
    pub(super) fn read_in_ms(&self, now: Now, session: &Session) -> u64 {
        let at_ms = if session.is_stranger() {
            session.strange_read_at_ms()
        } else {
            let record = self.devices.get(session.device());
            let press = record.map_or(0, |record| self.messages_press(now, record));
            let at_ms = record.map_or(0, |record| record.allowance().read_at_ms());
            at_ms.max(now.ms + press)
        };
        at_ms.saturating_sub(now.ms)
    }

    fn handle_message(&mut self, now: Now, id: SessionId, message: DeviceMessage<'_>, bytes: usize) {
        let session = present!(self.connections.get(id), "a frame comes by a connection");
        let device = Arc::clone(session.device());
        let (established, stranger) = (session.is_established(), session.is_stranger());
        let awaits_hello = *session.state() == State::AwaitHello;
        match message {
            DeviceMessage::Hello(hello) if awaits_hello => self.handle_hello(now, id, &hello),
            DeviceMessage::Hello(_) => {
                self.unusable(now, id, ErrorCode::Unexpected, Some(tag::HELLO), "a second Hello".to_owned());
            }
            DeviceMessage::Error(error) => {
                let said = harmless(error.detail, DETAIL_BYTES_MAX);
                let detail = format!("{} {:?}: {said}", error.code.name(), error.tag);
                if error.tag == Some(tag::DECOMMISSION) {
                    self.note_order_refused(now, id, error.detail);
                }
                self.notice_of(stranger, Notice::DeviceError { device, detail });
            }
            _ if awaits_hello => {
                self.end_with(now, id, PROTOCOL_ERROR, "the first message is not Hello".to_owned());
            }
            _ if !established => {
                self.unusable(now, id, ErrorCode::Unexpected, None, "a message before Welcome".to_owned());
            }
            DeviceMessage::Heartbeat(heartbeat) => self.handle_heartbeat(now, id, &device, heartbeat),
            DeviceMessage::Reported(reported) => self.handle_reported(now, &device, &reported),
            DeviceMessage::AssignmentGet(AssignmentGet { spec_hash }) => {
                let session = self.connections.get_mut(id);
                if session.is_some_and(|session| session.pending_mut().request_assignment(spec_hash)) {
                    self.connections.wake(id);
                } else {
                    let detail = "too many AssignmentGets at once".to_owned();
                    self.unusable(now, id, ErrorCode::TooLarge, Some(tag::ASSIGNMENT_GET), detail);
                }
            }
            DeviceMessage::ModuleGet(get) => self.handle_module_get(now, id, &device, get),
            DeviceMessage::Log(log) => self.handle_log(now, &device, &log),
            DeviceMessage::Trap(trap) => self.handle_trap(now, &device, &trap),
            DeviceMessage::Decommissioned(Decommissioned { proof }) => {
                self.handle_decommissioned(now, &device, proof);
            }
            DeviceMessage::Join(join) => self.handle_renewal(now, id, &device, &join),
            DeviceMessage::SettingsAnswer(answer) => self.handle_settings_answer(now, &device, &answer),
            DeviceMessage::DeliverAck(ack) => self.handle_deliver_ack(now, id, &ack),
            DeviceMessage::Publish(publish) => self.handle_publish(now, id, &device, &publish, bytes),
        }
    }

    /// A message that could not be used. The session goes on unless there are many.
    pub(super) fn unusable(
        &mut self,
        now: Now,
        id: SessionId,
        code: ErrorCode,
        tag: Option<u32>,
        detail: String,
    ) {
        let session = present!(self.connections.get_mut(id), "a message comes by a connection");
        if !session.tolerates_unusable() {
            self.end_with(now, id, PROTOCOL_ERROR, format!("too many messages that can't be used; {detail}"));
            return;
        }
        let (device, stranger) = (Arc::clone(session.device()), session.is_stranger());
        session.pending_mut().complain(Complaint::new(code, tag, &detail));
        self.connections.wake(id);
        self.notice_of(stranger, Notice::Unusable { device, detail });
    }

    /// Ends a session with its reason, once the device has received the last message.
    pub(super) fn end(&mut self, now: Now, id: SessionId, refusal: Refusal) {
        self.end_with(now, id, refusal, refusal.detail().to_owned());
    }

    pub(super) fn end_with(&mut self, now: Now, id: SessionId, refusal: Refusal, detail: String) {
        let session = present!(self.connections.get_mut(id), "only what is open ends");
        if *session.state() == State::Closing {
            return;
        }
        let reject = !session.is_established() || session.pending().has_welcome();
        let (reason, retry_after_ms) = (refusal.reason(), refusal.retry_after_ms(id));
        let closing = if reject { Closing::reject } else { Closing::goodbye };
        session.pending_mut().close(closing(reason, retry_after_ms, &detail));
        let (device, stranger) = (Arc::clone(session.device()), session.is_stranger());
        let key = Arc::clone(session.public_key());
        self.connections.set_state(id, State::Closing);
        self.connections.wake(id);
        if let Some(record) = self.devices.get_mut(&device)
            && matches!(reason, CloseReason::Revoked | CloseReason::PendingApproval)
            // A refusal of a client with another key does not tell when the device comes back.
            && record.has_key(&key)
        {
            record.stays_away(now, u64::from(retry_after_ms));
        }
        let epoch = self.detach(now, &device, id, ended(reason));
        let ended = Notice::SessionEnded { device, epoch, reason: Some(reason), detail };
        self.notice_of(stranger, ended);
    }

    /// Takes a session from its device, if it is the device's: a stale one must not end its successor.
    fn detach(&mut self, now: Now, key: &Arc<ObjectKey>, id: SessionId, reason: ReasonCode) -> Epoch {
        self.deliveries.handle_ended(id);
        // Without a record the Device was deleted, and its session with it.
        let Some(record) = self.devices.get_mut(key) else { return Epoch(0) };
        let Some(epoch) = record.detach(id, reason) else { return Epoch(0) };
        self.publish(now, key);
        self.changed.insert(Arc::clone(key));
        epoch
    }

    pub(super) fn session_timeout(&mut self, now: Now, id: SessionId) {
        let session = present!(self.connections.get(id), "a timer is that of a connection");
        let silent_at_ms = session.heard_ms() + u64::from(self.config.heartbeat_timeout_ms);
        match session.state() {
            State::AwaitHello => self.end_with(now, id, HEARTBEAT_TIMEOUT, "no Hello in time".to_owned()),
            State::AwaitDevice(_) => self.end(now, id, admission::UNAVAILABLE),
            State::AwaitClaim => self.welcome(now, id, false),
            State::Established if now.ms >= silent_at_ms => self.end(now, id, HEARTBEAT_TIMEOUT),
            State::Established => self.connections.set_deadline(id, silent_at_ms),
            State::Closing => debug_assert!(false, "{id:?} has a timer although it is closing"),
        }
    }
}

/// How the end of a session shows in the Device's conditions.
fn ended(reason: CloseReason) -> ReasonCode {
    match reason {
        CloseReason::PendingApproval => ReasonCode::PendingApproval,
        CloseReason::Revoked => ReasonCode::Revoked,
        CloseReason::Decommissioned => ReasonCode::Decommissioned,
        CloseReason::KeyMismatch => ReasonCode::KeyMismatch,
        CloseReason::ShuttingDown => ReasonCode::GatewayShutdown,
        CloseReason::Superseded => ReasonCode::Superseded,
        CloseReason::ProtocolError => ReasonCode::ProtocolError,
        CloseReason::HeartbeatTimeout => ReasonCode::HeartbeatTimeout,
        CloseReason::NotEnrolled
        | CloseReason::Overloaded
        | CloseReason::Deleted
        | CloseReason::Unavailable
        | CloseReason::CloneSuspected
        | CloseReason::Unknown(_) => ReasonCode::SessionEnded,
    }
}

pub(super) const PROTOCOL_ERROR: Refusal =
    Refusal::new(CloseReason::ProtocolError, RETRY_SOON_MS, "the device broke the protocol");
const HEARTBEAT_TIMEOUT: Refusal =
    Refusal::new(CloseReason::HeartbeatTimeout, 0, "nothing was heard for the heartbeat timeout");
pub(super) const SUPERSEDED: Refusal =
    Refusal::new(CloseReason::Superseded, RETRY_SOON_MS, "a newer session of this device exists");
