//! Messages for applications: put into their mailboxes, and answered.

use wasmbed_protocol::{
    Deliver, DeliverAck, Delivery, DeviceMessage, ErrorCode, encode_device, limits::DELIVERIES_MAX, tag,
};

use super::Agent;
use crate::effect::{Effect, RunId};

impl Agent {
    /// The oldest message for the application of this run, as it gets it: a byte for the source (0 an operator, 1 a broker, 255
    /// newer than this firmware), a byte for the length of the topic, topic, payload. It goes once `take` answers true.
    pub fn receive<R>(&mut self, run: RunId, take: impl FnOnce(&[u8]) -> (R, bool)) -> Option<R> {
        let found = self.applications.iter_mut().find(|application| application.run() == Some(run));
        let mailbox = found?.mailbox_mut()?;
        let (result, taken) = take(mailbox.front()?);
        if taken {
            mailbox.pop();
        }
        Some(result)
    }

    pub(super) fn handle_deliver(&mut self, message: &Deliver<'_>) {
        if self.answers.len() >= DELIVERIES_MAX {
            self.connection.complain(
                ErrorCode::Unexpected,
                Some(tag::DELIVER),
                "too many deliveries at once",
            );
            self.close();
            return;
        }
        let now_ms = self.clock.now_ms();
        let found = self.applications.iter_mut().find(|application| application.uid() == message.uid);
        let delivery = found.map_or(Delivery::NotRunning, |application| application.deliver(message, now_ms));
        let wake = Effect::Wake { uid: message.uid };
        if delivery == Delivery::Taken && !self.effects.contains(&wake) {
            self.effects.push_back(wake);
        }
        self.answers.push(DeliverAck { sequence: message.sequence, delivery });
    }

    /// When an answer may be sent: at once.
    pub(super) fn delivery_timeout(&self) -> Option<u64> {
        self.connection.established()?;
        (!self.answers.is_empty()).then(|| self.clock.now_ms())
    }

    pub(super) fn transmit_delivery(&mut self, buffer: &mut [u8]) -> Option<usize> {
        self.delivery_timeout()?;
        let answer = self.answers.remove(0);
        encode_device(&DeviceMessage::DeliverAck(answer), buffer).ok()
    }
}
