//! Messages of a gateway's sessions: what is taken of whom, and who is told.

use std::sync::Arc;

use wasmbed_protocol::{ErrorCode, Publish, tag};

use super::{Arrived, MessageCounters, MessageLevels, OutboxFailure, OutboxWrite, Sender, Start, Taken};
use crate::{
    Now, ObjectKey,
    gateway::{
        Gateway,
        admission::Refusal,
        config::RETRY_SOON_MS,
        device::{DeviceEntry, SessionView},
        input::{Notice, SessionId},
        pending::Complaint,
        sets::Body,
    },
};

/// The gateway did not take messages for a while: the device's next session brings them again.
const MESSAGES_AGAIN: Refusal = Refusal::new(
    wasmbed_protocol::CloseReason::Unavailable,
    RETRY_SOON_MS,
    "messages were not taken for a while, and are now",
);

impl Gateway {
    pub(in crate::gateway) fn handle_publish(
        &mut self,
        now: Now,
        id: SessionId,
        device: &Arc<ObjectKey>,
        publish: &Publish<'_>,
        bytes: usize,
    ) {
        let Some(messages) = &mut self.messages else {
            let detail = "this gateway takes no messages of applications".to_owned();
            self.unusable(now, id, ErrorCode::Unexpected, Some(tag::PUBLISH), detail);
            return;
        };
        let record = present!(self.devices.get_mut(device), "an established session has its record");
        let uid = record.uid().cloned();
        let boot = record.live().map(SessionView::boot).unwrap_or_default();
        // Of an earlier start only its number is known.
        let drawn = boot.id().filter(|_| boot.start() == Some(publish.boot.0));
        let start = Start { boot: publish.boot.0, id: drawn.map_or(0, |id| u64::from_be_bytes(id.0)) };
        let delivery = record.delivery();
        let body = delivery.held().and_then(|set| set.of(&publish.uid));
        let from = Sender {
            device,
            device_uid: uid.as_deref().unwrap_or_default(),
            session: id,
            application: body.map(|body| (&**body.application(), Body::topics(body))),
            set_known: delivery.is_known(),
        };
        let arrived = Arrived {
            uid: publish.uid,
            start,
            sequence: publish.sequence.0,
            lost: publish.messages_lost,
            topic: publish.topic,
            payload: publish.payload,
        };
        match messages.take(now, &from, &arrived) {
            // Its topics' rates are its share.
            Taken::Queued => record.allowance_mut().excuse_frame(bytes),
            Taken::Duplicate | Taken::NotYet => {}
            Taken::Refused(why) => {
                if let Some(session) = self.connections.get_mut(id) {
                    let complaint = Complaint::new(ErrorCode::Refused, Some(tag::PUBLISH), why.detail());
                    session.pending_mut().complain(complaint);
                    self.connections.wake(id);
                }
                let device = Arc::clone(device);
                self.notice(Notice::Unusable { device, detail: why.detail().to_owned() });
            }
        }
        self.acknowledge_messages();
    }

    /// Gives acknowledgements to the sessions of their devices; one that is away gets its next session's.
    pub(in crate::gateway) fn acknowledge_messages(&mut self) {
        let Some(messages) = &mut self.messages else { return };
        for (device, uid, boot, sequence) in messages.take_acks() {
            let session = self.devices.get(&device).and_then(|record| record.session());
            if let Some(id) = session
                && let Some(session) = self.connections.get_mut(id).filter(|session| session.is_established())
            {
                session.pending_mut().acknowledge_messages(uid, boot, sequence);
                self.connections.wake(id);
            }
        }
    }

    /// The next write to the outbox, if one is due; it is answered with [`Gateway::handle_outbox_written`].
    pub fn poll_outbox(&mut self, now: Now) -> Option<OutboxWrite> {
        self.messages.as_mut()?.poll(now)
    }

    /// A write to the outbox ended; what it removed is given in its order.
    pub fn handle_outbox_written(&mut self, now: Now, result: Result<Vec<Vec<u8>>, OutboxFailure>) {
        self.clock_ms = self.clock_ms.max(now.ms);
        let Some(messages) = &mut self.messages else { return };
        // A disk that is tried every second is told of once.
        let failed = result.as_ref().err().filter(|_| !messages.is_failing()).map(ToString::to_string);
        messages.handle_written(now, result);
        let stalled = messages.take_stalled();
        if let Some(error) = failed {
            let detail = format!("the outbox of messages: {error}");
            self.notice(Notice::StoreFailed { detail });
        }
        self.acknowledge_messages();
        for session in stalled {
            self.resume_messages(now, session);
        }
        self.settle(now);
    }

    /// A session from which nothing was taken any more gives way to the device's next one, which brings it all again.
    fn resume_messages(&mut self, now: Now, id: SessionId) {
        if self.connections.get(id).is_some_and(|session| session.is_established()) {
            self.end(now, id, MESSAGES_AGAIN);
        }
    }

    /// A set is known now, with the topics of its applications.
    pub(in crate::gateway) fn resume_messages_of(&mut self, now: Now, device: &Arc<ObjectKey>) {
        let stalled = self.messages.as_mut().and_then(|messages| messages.take_stalled_of(device));
        if let Some(session) = stalled {
            self.resume_messages(now, session);
        }
    }

    /// What was taken of messages since the start.
    #[must_use]
    pub fn message_counters(&self) -> MessageCounters {
        self.messages.as_ref().map(super::Messages::counters).unwrap_or_default()
    }

    /// What is held of messages now.
    #[must_use]
    pub fn message_levels(&self, now: Now) -> MessageLevels {
        self.messages.as_ref().map(|messages| messages.levels(now)).unwrap_or_default()
    }

    /// The session of a device that was read enough for now; see [`super::Messages::read_in_ms`].
    pub(in crate::gateway) fn messages_press(&self, now: Now, device: &DeviceEntry) -> u64 {
        self.messages.as_ref().map_or(0, |messages| messages.read_in_ms(now, device.key()))
    }

    /// Messages that may be too old, and places of devices that are no more.
    pub(in crate::gateway) fn sweep_messages(&mut self) {
        let Some(messages) = &mut self.messages else { return };
        if self.synced {
            messages.forget_others(|device| self.devices.contains_key(device));
        }
        messages.sweep();
    }
}
