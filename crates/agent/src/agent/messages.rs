//! Messages of applications: taken from them, sent until they are acknowledged.

use wasmbed_protocol::{BootCounter, DeviceMessage, MessageGroups, PublishAck, encode_device};

use super::Agent;
use crate::{
    effect::RunId,
    messages::{Message, PublishError},
};

impl Agent {
    /// A run publishes a message. Once it is taken it is sent in every session until a gateway has it on its disk; it is lost
    /// with a reset, or with its application.
    ///
    /// # Errors
    /// It is not taken; the error says why.
    pub fn publish(&mut self, now_ms: u64, run: RunId, message: Message<'_>) -> Result<(), PublishError> {
        self.clock.advance(now_ms);
        self.boot().ok_or(PublishError::Again)?;
        let found = self.applications.iter_mut().find(|application| application.run() == Some(run));
        let application = found.ok_or(PublishError::UnknownTopic)?;
        let sequence = self.publishing.published.next();
        application.publish(message, sequence, self.clock.now_ms())?;
        self.publishing.published = sequence;
        Ok(())
    }

    /// The number of this start, once no other start can have it.
    fn boot(&self) -> Option<BootCounter> {
        self.boot_counter.filter(|_| self.durability.has_written())
    }

    pub(super) fn handle_publish_ack(&mut self, ack: &PublishAck) {
        if self.boot() != Some(ack.boot) {
            return;
        }
        let acknowledged = self.applications.iter_mut().find(|application| application.uid() == ack.uid);
        if let Some(application) = acknowledged {
            application.messages_mut().handle_ack(ack.sequence);
        }
    }

    /// When a message may be sent: at once, if one waits and the gateway takes it.
    pub(super) fn message_timeout(&self) -> Option<u64> {
        let takes = self.connection.established()?.takes(MessageGroups::MESSAGES);
        let waits = || self.applications.iter().any(|application| application.messages().has_unsent());
        (takes && waits()).then(|| self.clock.now_ms())
    }

    /// Messages and log lines take turns, so that neither keeps the other waiting.
    pub(super) fn transmit_message_or_log(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let log_first = core::mem::take(&mut self.publishing.log_first);
        if log_first && let Some(length) = self.transmit_log(buffer) {
            return Some(length);
        }
        if let Some(length) = self.transmit_message(buffer) {
            self.publishing.log_first = true;
            return Some(length);
        }
        self.transmit_log(buffer)
    }

    /// Applications take turns, as with log lines.
    fn transmit_message(&mut self, buffer: &mut [u8]) -> Option<usize> {
        self.message_timeout()?;
        let boot = self.boot()?;
        let count = self.applications.len();
        for step in 0..count {
            let index = (self.publishing.turn + step) % count;
            let Some(application) = self.applications.get_mut(index) else { continue };
            let uid = application.uid();
            let sent = application
                .messages_mut()
                .send(uid, boot, |message| encode_device(&DeviceMessage::Publish(message), buffer).ok());
            if let Some(length) = sent {
                self.publishing.turn = (index + 1) % count;
                return length;
            }
        }
        None
    }
}
