//! Messages of a broker from its connection to the devices of this gateway.

use futures::{
    future::BoxFuture,
    stream::{FuturesUnordered, StreamExt as _},
};
use rumqttc::v5::mqttbytes::{
    QoS,
    v5::{Publish, SubAck, SubscribeReasonCode},
};
use wasmbed_api::ReasonCode;
use wasmbed_control::{
    gateway::{BrokerArrival, BrokerFailure, ConnectionId, DeliveryRequest, config::BROKER_RECEIVE_MAX},
    gateway_api::Delivered,
};
use wasmbed_protocol::MessageSource;

use super::{
    feed::Feed,
    handover::{Handover, Message, Taken},
};

/// A message that was given to the decisions, and what became of it.
pub(super) struct Answered {
    number: u64,
    message: Message,
    delivered: Delivered,
}

/// What one connection has handed over.
pub(super) struct Inbound {
    connection: ConnectionId,
    handover: Handover,
    sent: FuturesUnordered<BoxFuture<'static, Answered>>,
}

impl Inbound {
    pub(super) fn new(connection: ConnectionId) -> Self {
        Self { connection, handover: Handover::default(), sent: FuturesUnordered::new() }
    }

    /// A message came; gives for how long nothing more is to be read, milliseconds.
    pub(super) fn take(&mut self, feed: &Feed, publish: &Publish) -> Result<u64, BrokerFailure> {
        let refused = |what: &str| {
            let message = format!("the broker does not keep to MQTT 5: {what}");
            Err(BrokerFailure::new(ReasonCode::BrokerRefused, &message))
        };
        // Each would be kept for the length of the connection.
        if publish.properties.as_ref().is_some_and(|properties| properties.topic_alias.is_some()) {
            return refused("a topic alias, of which it may have none");
        }
        let packet = match publish.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => Some(publish.pkid),
            QoS::ExactlyOnce => return refused("a message with QoS 2, where 1 was asked for"),
        };
        let arrival = BrokerArrival { topic: &publish.topic, payload: &publish.payload };
        let (taken, now) = feed
            .core
            .with(|gateway, now| (gateway.handle_broker_message(now, self.connection, &arrival), now));
        let message = taken.address.map(|address| Message {
            address,
            topic: publish.topic.as_ref().into(),
            payload: publish.payload.as_ref().into(),
        });
        match self.handover.take(now.ms, packet, message) {
            Taken::Held => {}
            Taken::NoRoom(None) => {}
            Taken::NoRoom(Some(message)) => self.tell(feed, &message, Delivered::Busy),
            Taken::Flood => {
                return refused(&format!(
                    "more than {BROKER_RECEIVE_MAX} messages that were not acknowledged"
                ));
            }
        }
        Ok(taken.read_in_ms)
    }

    /// Sends what there is a place for, and gives the packets that are to be acknowledged.
    pub(super) fn go_on(&mut self, feed: &Feed) -> Vec<u16> {
        let now_ms = feed.now().ms;
        while let Some(message) = self.handover.overdue(now_ms) {
            self.tell(feed, &message, Delivered::Busy);
        }
        while let Some((number, message)) = self.handover.next(now_ms) {
            let core = feed.core.clone();
            self.sent.push(Box::pin(async move {
                let (address, payload) = (message.address.clone(), message.payload.clone());
                let request = |id| DeliveryRequest {
                    id,
                    device: address.device,
                    application: address.application,
                    topic: address.topic,
                    payload,
                    source: MessageSource::Broker,
                };
                // None once the process ends.
                let delivered = core.deliver(request).await.unwrap_or(Delivered::Unanswered);
                Answered { number, message, delivered }
            }));
        }
        std::iter::from_fn(|| self.handover.acknowledge(now_ms)).collect()
    }

    /// The next answer of a device; for ever if none is waited for.
    pub(super) async fn answered(&mut self) -> Answered {
        match self.sent.next().await {
            Some(answered) => answered,
            None => std::future::pending().await,
        }
    }

    pub(super) fn note(&mut self, feed: &Feed, answered: &Answered) {
        self.handover.answered(answered.number, &answered.message.address.device);
        self.tell(feed, &answered.message, answered.delivered);
    }

    fn tell(&self, feed: &Feed, message: &Message, delivered: Delivered) {
        feed.core.with(|gateway, now| {
            gateway.handle_broker_delivered(now, self.connection, &message.topic, delivered);
        });
    }

    /// When there is something to be done, if nothing comes before.
    pub(super) fn due_ms(&self) -> u64 {
        self.handover.due_ms()
    }

    /// The broker answered the subscription.
    pub(super) fn subscribed(&self, feed: &Feed, filter: &str, answer: &SubAck) {
        let answer = match answer.return_codes.first() {
            Some(SubscribeReasonCode::Success(_)) => Ok(()),
            Some(SubscribeReasonCode::NotAuthorized) => {
                let message = format!("the broker does not let this client subscribe to {filter}");
                Err(BrokerFailure::new(ReasonCode::NotAuthorised, &message))
            }
            code => {
                let message = format!("the broker refused the subscription to {filter}: {code:?}");
                Err(BrokerFailure::new(ReasonCode::BrokerRefused, &message))
            }
        };
        feed.core.with(|gateway, now| gateway.handle_broker_subscribed(now, self.connection, answer));
    }
}
