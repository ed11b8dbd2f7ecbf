//! Messages for applications on a gateway's sessions.

use wasmbed_protocol::{ApplicationUid, DeliverAck, ErrorCode, tag};

use super::{DeliveryId, DeliveryRequest, Message};
use crate::{
    Now, ObjectKey,
    gateway::{
        Gateway,
        device::{DeviceEntry, SessionView},
        input::SessionId,
        sets::Body,
    },
    gateway_api::Delivered,
};

impl Gateway {
    /// A message for an application on a device; [`Gateway::poll_delivered`] answers it once.
    pub fn handle_delivery(&mut self, now: Now, request: DeliveryRequest) {
        self.clock_ms = self.clock_ms.max(now.ms);
        let DeliveryRequest { id, device, application, topic, payload, source } = request;
        let planned = self.plan_delivery(&device, &application).and_then(|(session, uid)| {
            let message = Message { uid, topic, payload, source };
            if self.deliveries.push(now, session, id, message) { Ok(session) } else { Err(Delivered::Busy) }
        });
        match planned {
            Ok(session) => self.connections.wake(session),
            Err(why) => self.deliveries.answers.push_back((id, why)),
        }
    }

    /// The session and the application that a message is for.
    fn plan_delivery(
        &self,
        device: &ObjectKey,
        application: &str,
    ) -> Result<(SessionId, ApplicationUid), Delivered> {
        let record = self.devices.get(device).map(AsRef::as_ref).ok_or(Delivered::NotConnected)?;
        let session = record.session().ok_or(Delivered::NotConnected)?;
        if !self.connections.get(session).is_some_and(|session| session.is_established()) {
            return Err(Delivered::NotConnected);
        }
        if !record.live().is_some_and(SessionView::takes_deliveries) {
            return Err(Delivered::Unsupported);
        }
        let set = DeviceEntry::delivery(record).held();
        let body = set.and_then(|set| set.bodies().find(|body| **body.application() == *application));
        Ok((session, body.map(Body::uid).ok_or(Delivered::UnknownApplication)?))
    }

    /// What became of a message.
    pub fn poll_delivered(&mut self) -> Option<(DeliveryId, Delivered)> {
        self.deliveries.answers.pop_front()
    }

    pub(in crate::gateway) fn handle_deliver_ack(&mut self, now: Now, id: SessionId, ack: &DeliverAck) {
        if !self.deliveries.answer(id, ack) {
            let detail = "an answer to what was not sent".to_owned();
            self.unusable(now, id, ErrorCode::Unexpected, Some(tag::DELIVER_ACK), detail);
        }
    }
}
