//! Messages that brokers hand over, on their way to devices of this gateway.

use std::collections::BTreeMap;

use super::{BrokerAddress, BrokerArrival, BrokerFailure, BrokerTaken, ConnectionId, brokers::Received};
use crate::{
    Now,
    gateway::{Gateway, device::DeviceEntry, sets::Body},
    gateway_api::Delivered,
};

impl Gateway {
    /// A broker answered [`BrokerStep::Subscribe`](super::BrokerStep::Subscribe).
    pub fn handle_broker_subscribed(
        &mut self,
        now: Now,
        connection: ConnectionId,
        answer: Result<(), BrokerFailure>,
    ) {
        if let Some(messages) = &mut self.messages {
            messages.brokers.subscribed(now, connection, answer);
        }
    }

    /// A broker handed over a message. If it is to be delivered, what becomes of it is for [`Gateway::handle_broker_delivered`].
    pub fn handle_broker_message(
        &mut self,
        now: Now,
        connection: ConnectionId,
        arrival: &BrokerArrival<'_>,
    ) -> BrokerTaken {
        let Some(messages) = &mut self.messages else { return BrokerTaken::default() };
        let (address, read_in_ms) = messages.brokers.arrived(now, connection, arrival);
        let address = address.filter(|address| {
            let received = self.plan_received(connection, address).err();
            if let (Some(received), Some(messages)) = (received, &mut self.messages) {
                messages.brokers.received(now, connection, arrival.topic, received);
            }
            received.is_none()
        });
        BrokerTaken { address, read_in_ms }
    }

    /// Whether a message of a broker is for a device of this gateway and may reach its application.
    fn plan_received(&mut self, connection: ConnectionId, address: &BrokerAddress) -> Result<(), Received> {
        let not_connected = Received::Delivered(Delivered::NotConnected);
        let record = self.devices.get(&address.device).ok_or(not_connected)?;
        if record.session().is_none() {
            // The gateway that the Device names counts it, so that it is counted once.
            let by_another =
                record.object().is_some_and(|object| object.status().is_by_another(&self.config.name));
            return Err(if by_another { Received::Elsewhere } else { not_connected });
        }
        let set = DeviceEntry::delivery(record).held();
        let body = set.and_then(|set| set.bodies().find(|body| **body.application() == *address.application));
        let body = body.ok_or(Received::Delivered(Delivered::UnknownApplication))?;
        let uid = Body::uid(body);
        let declared = body.receives(&address.topic);
        let selected =
            self.messages.as_mut().is_some_and(|messages| messages.brokers.selects(connection, &uid));
        match (selected, declared) {
            (false, _) => Err(Received::NotNamed),
            (true, false) => Err(Received::Delivered(Delivered::UnknownTopic)),
            (true, true) => Ok(()),
        }
    }

    /// What became of a message that a broker had handed over, on this topic.
    pub fn handle_broker_delivered(
        &mut self,
        now: Now,
        connection: ConnectionId,
        topic: &[u8],
        delivered: Delivered,
    ) {
        if let Some(messages) = &mut self.messages {
            messages.brokers.received(now, connection, topic, Received::Delivered(delivered));
        }
    }

    /// Messages that brokers handed over since the start, by what became of them.
    #[must_use]
    pub fn broker_received(&self) -> BTreeMap<&'static str, u64> {
        self.messages.as_ref().map(|messages| messages.brokers.received_levels()).unwrap_or_default()
    }
}
