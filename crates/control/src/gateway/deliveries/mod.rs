//! Messages for applications: from callers to the mailboxes of their devices, each answered once.
//!
//! ```text
//! handle_delivery ── NotConnected, Unsupported, UnknownApplication, Busy
//!        └── waits ── sent ── DeliverAck ──> Taken, NoRoom, UnknownTopic, NotRunning
//!              │        └── time is up, or the session ends ──> Unanswered
//!              └── the session ends ──> NotConnected
//! ```
//!
//! Nothing is kept beyond a session: whoever wants a message to arrive asks again. What a device does not answer keeps its place until
//! its session ends, since the device may still answer it.

mod sending;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use wasmbed_protocol::{
    ApplicationUid, Deliver, DeliverAck, Delivery, GatewayMessage, MessageSource, Sequence,
    limits::DELIVERIES_MAX, rate::TokenBucket,
};

use super::{
    config::{
        DELIVERIES_OF_BROKERS_BYTES_RATE, DELIVERIES_OF_BROKERS_MAX, DELIVERIES_OF_BROKERS_RATE,
        DELIVERY_TIMEOUT_MS,
    },
    input::SessionId,
};
use crate::{Now, ObjectKey, gateway_api::Delivered};

/// One message for one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(pub u64);

/// A message for an application on a device.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryRequest {
    /// For [`Gateway::poll_delivered`](super::Gateway::poll_delivered); none is used twice.
    pub id: DeliveryId,
    /// Which device.
    pub device: ObjectKey,
    /// `namespace/name` of the application.
    pub application: Arc<str>,
    /// At most [`NAME_BYTES_MAX`](wasmbed_protocol::limits::NAME_BYTES_MAX) bytes.
    pub topic: Arc<str>,
    /// At most [`PAYLOAD_BYTES_MAX`](wasmbed_protocol::limits::PAYLOAD_BYTES_MAX).
    pub payload: Arc<[u8]>,
    /// Who sends it.
    pub source: MessageSource,
}

/// A message that its caller waits for.
#[derive(Debug)]
struct Waiting {
    sequence: u64,
    due_ms: u64,
    /// None once its caller has been told that there is no answer.
    caller: Option<DeliveryId>,
    /// What is to be sent; none once it was.
    message: Option<Message>,
    of_broker: bool,
}

#[derive(Debug)]
struct Message {
    uid: ApplicationUid,
    topic: Arc<str>,
    payload: Arc<[u8]>,
    source: MessageSource,
}

/// What one session has.
#[derive(Debug, Default)]
struct Session {
    last: u64,
    waiting: VecDeque<Waiting>,
    /// What brokers have used of their share.
    of_brokers: (TokenBucket, TokenBucket),
}

impl Session {
    /// Whether a broker's message is within the share that brokers have: a person's commands get through beside them.
    fn takes_of_broker(&mut self, now: Now, bytes: usize) -> bool {
        let unanswered = self.waiting.iter().filter(|waiting| waiting.of_broker).count();
        let (messages, of_bytes) = &mut self.of_brokers;
        unanswered < DELIVERIES_OF_BROKERS_MAX
            && messages.take(now.ms, DELIVERIES_OF_BROKERS_RATE, 1)
            && of_bytes.take(now.ms, DELIVERIES_OF_BROKERS_BYTES_RATE, bytes as u64)
    }
}

/// Messages on their way to devices.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    sessions: BTreeMap<SessionId, Session>,
    /// When a caller is told that there is no answer.
    timers: BTreeSet<(u64, SessionId, u64)>,
    answers: VecDeque<(DeliveryId, Delivered)>,
}

impl Deliveries {
    /// False if the session has as many as it may.
    fn push(&mut self, now: Now, session: SessionId, caller: DeliveryId, message: Message) -> bool {
        let of_session = self.sessions.entry(session).or_default();
        if of_session.waiting.len() >= DELIVERIES_MAX {
            return false;
        }
        let of_broker = message.source == MessageSource::Broker;
        if of_broker && !of_session.takes_of_broker(now, message.payload.len()) {
            return false;
        }
        of_session.last += 1;
        let (sequence, due_ms) = (of_session.last, now.ms + DELIVERY_TIMEOUT_MS);
        let (caller, message) = (Some(caller), Some(message));
        of_session.waiting.push_back(Waiting { sequence, due_ms, caller, message, of_broker });
        self.timers.insert((due_ms, session, sequence));
        true
    }

    /// Whether something is to be sent to a session.
    pub(super) fn is_ready(&self, session: SessionId) -> bool {
        self.sessions
            .get(&session)
            .is_some_and(|session| session.waiting.iter().any(|waiting| waiting.message.is_some()))
    }

    /// The next message for a session, to `send`; false if there is none.
    pub(super) fn send(&mut self, session: SessionId, send: impl FnOnce(&GatewayMessage<'_>)) -> bool {
        let unsent = self
            .sessions
            .get_mut(&session)
            .and_then(|session| session.waiting.iter_mut().find(|waiting| waiting.message.is_some()));
        let Some(waiting) = unsent else { return false };
        let Some(message) = waiting.message.take() else { return false };
        let Message { uid, topic, payload, source } = &message;
        send(&GatewayMessage::Deliver(Deliver {
            sequence: Sequence(waiting.sequence),
            uid: *uid,
            topic,
            payload,
            source: *source,
        }));
        true
    }

    /// A device answered; false if nothing of it waits for that.
    fn answer(&mut self, session: SessionId, ack: &DeliverAck) -> bool {
        let Some(of_session) = self.sessions.get_mut(&session) else { return false };
        let sent = |waiting: &Waiting| waiting.sequence == ack.sequence.0 && waiting.message.is_none();
        let Some(position) = of_session.waiting.iter().position(sent) else { return false };
        let Some(answered) = of_session.waiting.remove(position) else { return false };
        self.timers.remove(&(answered.due_ms, session, answered.sequence));
        let delivered = match ack.delivery {
            Delivery::Taken => Delivered::Taken,
            Delivery::NoRoom => Delivered::NoRoom,
            Delivery::UnknownTopic => Delivered::UnknownTopic,
            Delivery::NotRunning => Delivered::NotRunning,
            // One of newer firmware: what it means is not known here.
            Delivery::Unknown(_) => Delivered::Unanswered,
        };
        self.answers.extend(answered.caller.map(|caller| (caller, delivered)));
        true
    }

    /// A session is over.
    pub(super) fn handle_ended(&mut self, session: SessionId) {
        let Some(ended) = self.sessions.remove(&session) else { return };
        for Waiting { sequence, due_ms, caller, message, of_broker: _ } in ended.waiting {
            self.timers.remove(&(due_ms, session, sequence));
            let delivered = if message.is_some() { Delivered::NotConnected } else { Delivered::Unanswered };
            self.answers.extend(caller.map(|caller| (caller, delivered)));
        }
    }

    pub(super) fn timeout_ms(&self) -> Option<u64> {
        self.timers.first().map(|(due_ms, _, _)| *due_ms)
    }

    pub(super) fn handle_timeout(&mut self, now: Now) {
        while let Some((due_ms, session, sequence)) = self.timers.pop_first() {
            if due_ms > now.ms {
                self.timers.insert((due_ms, session, sequence));
                return;
            }
            let Some(of_session) = self.sessions.get_mut(&session) else { continue };
            let Some(position) = of_session.waiting.iter().position(|waiting| waiting.sequence == sequence)
            else {
                continue;
            };
            let Some(waiting) = of_session.waiting.get_mut(position) else { continue };
            let delivered = if waiting.message.is_some() { Delivered::Busy } else { Delivered::Unanswered };
            self.answers.extend(waiting.caller.take().map(|caller| (caller, delivered)));
            // What was not sent never will be.
            if delivered == Delivered::Busy {
                of_session.waiting.remove(position);
            }
        }
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.sessions.values().any(|session| session.waiting.len() > DELIVERIES_MAX) {
            return Err("more deliveries than a session may have");
        }
        Ok(())
    }
}
