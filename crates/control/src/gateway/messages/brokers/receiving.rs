//! What comes in from a broker: whom it is for, how much of it is read, and what became of it.
//!
//! Messages come in below [`RECEIVED_BELOW`], where no gateway publishes: what goes out on `wasmbed/` never comes back in.

use std::sync::Arc;

use wasmbed_api::{BrokerReceive, BrokerReceived, BrokerRefusal};
use wasmbed_protocol::{limits::PAYLOAD_BYTES_MAX, rate::TokenBucket};

use super::definition::BrokerFailure;
use crate::{
    Now, ObjectKey, UnixTime,
    gateway::config::{
        BROKER_PATIENCE_MS, BROKER_RECEIVE_BYTES_RATE, BROKER_RECEIVE_RATE, BROKER_SUBSCRIBE_MS,
    },
    gateway_api::Delivered,
    harmless,
};

/// First level of the topics on which messages come in.
pub const RECEIVED_BELOW: &str = "wasmbed-in";
/// Of a topic in a status.
const TOPIC_BYTES_MAX: usize = 400;

/// A message that a broker handed over.
#[derive(Clone, Copy, Debug)]
pub struct BrokerArrival<'a> {
    /// As the broker has it; any bytes.
    pub topic: &'a [u8],
    /// Of any length.
    pub payload: &'a [u8],
}

/// Whom a message of a broker is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Which device.
    pub device: ObjectKey,
    /// `namespace/name` of the application.
    pub application: Arc<str>,
    /// As the application declares it.
    pub topic: Arc<str>,
}

/// What is to be done with a message that a broker handed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerTaken {
    /// To be delivered there; otherwise it was counted, and is done with.
    pub address: Option<BrokerAddress>,
    /// Nothing more is to be read from the broker for so long, milliseconds.
    pub read_in_ms: u64,
}

/// What became of a message of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// As of any message to an application.
    Delivered(Delivered),
    /// It is not `wasmbed-in/NAMESPACE/APPLICATION/DEVICE/TOPIC` of the broker's namespace.
    InvalidTopic,
    /// `spec.receive` or `spec.selector` does not name it.
    NotNamed,
    /// Its payload has more than 1,024 bytes.
    TooLarge,
    /// The device is another gateway's, which has the message as well.
    Elsewhere,
}

impl Received {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Delivered(delivered) => delivered.name(),
            Self::InvalidTopic => "InvalidTopic",
            Self::NotNamed => "NotNamed",
            Self::TooLarge => "TooLarge",
            Self::Elsewhere => "Elsewhere",
        }
    }

    fn detail(self) -> &'static str {
        match self {
            Self::Delivered(delivered) => match delivered {
                Delivered::Taken => "it is in the application's mailbox",
                Delivered::NoRoom => {
                    "the application's mailbox is full, or the topic's per_second is used up"
                }
                Delivered::UnknownTopic => "the Application declares no such topic with direction: In",
                Delivered::NotRunning => "the application does not run there now",
                Delivered::UnknownApplication => "the Application does not go to this device",
                Delivered::NotConnected => "the device has no session",
                Delivered::Unsupported => "the device's firmware is of before messages to applications",
                Delivered::Busy => {
                    "the device has not answered earlier messages, or brokers send it more than it may get"
                }
                Delivered::Unanswered => "the device did not answer: it may have the message or not",
                Delivered::Unknown => "the device's answer is of a later version",
            },
            Self::InvalidTopic => {
                "the topic is not wasmbed-in/NAMESPACE/APPLICATION/DEVICE/TOPIC of the MessageBroker's namespace"
            }
            Self::NotNamed => "spec.receive or spec.selector of the MessageBroker does not name it",
            Self::TooLarge => "the payload has more than 1024 bytes",
            Self::Elsewhere => "the device is another gateway's",
        }
    }
}

/// How the subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subscription {
    /// To be asked for from this time on.
    Due {
        from_ms: u64,
    },
    Asked {
        since_ms: u64,
    },
    Held,
}

/// What comes in from one broker.
#[derive(Debug)]
pub(super) struct Receiving {
    subscription: Subscription,
    /// Why the broker does not take it, and since when.
    failure: Option<(BrokerFailure, u64)>,
    messages: TokenBucket,
    bytes: TokenBucket,
    delivered: u64,
    refused: u64,
    last_refusal: Option<BrokerRefusal>,
}

impl Default for Receiving {
    fn default() -> Self {
        Self {
            subscription: Subscription::Due { from_ms: 0 },
            failure: None,
            messages: TokenBucket::default(),
            bytes: TokenBucket::default(),
            delivered: 0,
            refused: 0,
            last_refusal: None,
        }
    }
}

impl Receiving {
    /// Another connection, or none: the broker is to be asked anew.
    pub(super) fn begin_anew(&mut self) {
        self.subscription = Subscription::Due { from_ms: 0 };
    }

    /// It is of another definition.
    pub(super) fn redefine(&mut self) {
        self.begin_anew();
        self.failure = None;
    }

    /// Whether the broker is to be asked for the subscription now.
    pub(super) fn is_due(&self, now: Now) -> bool {
        matches!(self.subscription, Subscription::Due { from_ms } if now.ms >= from_ms)
    }

    /// When there is something to be done next.
    pub(super) fn due_ms(&self) -> u64 {
        match self.subscription {
            Subscription::Due { from_ms } => from_ms,
            Subscription::Asked { since_ms } => since_ms.saturating_add(BROKER_PATIENCE_MS),
            Subscription::Held => u64::MAX,
        }
    }

    /// Whether the broker has left the question unanswered for too long.
    pub(super) fn is_overdue(&self, now: Now) -> bool {
        matches!(self.subscription, Subscription::Asked { .. }) && now.ms >= self.due_ms()
    }

    pub(super) fn asked(&mut self, now: Now) {
        self.subscription = Subscription::Asked { since_ms: now.ms };
    }

    /// The broker has answered.
    pub(super) fn answered(&mut self, now: Now, answer: Result<(), BrokerFailure>) {
        if !matches!(self.subscription, Subscription::Asked { .. }) {
            return;
        }
        match answer {
            Ok(()) => (self.subscription, self.failure) = (Subscription::Held, None),
            Err(failure) => {
                let since = self.failure.take().filter(|(before, _)| before.reason == failure.reason);
                self.failure = Some((failure, since.map_or(now.unix_ms, |(_, since)| since)));
                self.subscription = Subscription::Due { from_ms: now.ms + BROKER_SUBSCRIBE_MS };
            }
        }
    }

    pub(super) fn failure(&self) -> Option<&(BrokerFailure, u64)> {
        self.failure.as_ref()
    }

    /// A message came; gives for how long none is to be read after it.
    pub(super) fn charge(&mut self, now: Now, arrival: &BrokerArrival<'_>) -> u64 {
        let bytes = (arrival.topic.len() + arrival.payload.len()) as u64;
        let charged = [
            (&mut self.messages, BROKER_RECEIVE_RATE, 1),
            (&mut self.bytes, BROKER_RECEIVE_BYTES_RATE, bytes),
        ];
        let next_ms = charged.into_iter().map(|(bucket, rate, amount)| {
            bucket.refill(now.ms, rate);
            bucket.spend(amount);
            bucket.available_at_ms(rate, 1)
        });
        next_ms.max().unwrap_or(0).saturating_sub(now.ms)
    }

    pub(super) fn count(&mut self, now: Now, topic: &[u8], received: Received) {
        match received {
            Received::Delivered(Delivered::Taken) => self.delivered += 1,
            Received::Elsewhere => {}
            _ => {
                self.refused += 1;
                let topic = String::from_utf8_lossy(topic.get(..TOPIC_BYTES_MAX).unwrap_or(topic));
                self.last_refusal = Some(BrokerRefusal {
                    result: received.name().to_owned(),
                    message: format!("{}: {}", harmless(&topic, TOPIC_BYTES_MAX), received.detail()),
                    at: Some(UnixTime::from_ms(now.unix_ms).to_string()),
                });
            }
        }
    }

    pub(super) fn shown(&self, connected: bool) -> BrokerReceived {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        BrokerReceived {
            subscribed: connected && self.subscription == Subscription::Held,
            delivered: number(self.delivered),
            refused: number(self.refused),
            last_refusal: self.last_refusal.clone(),
        }
    }
}

/// All topics on which messages come in for a namespace.
pub(super) fn filter(namespace: &str) -> String {
    format!("{RECEIVED_BELOW}/{namespace}/#")
}

/// Whom a message is for, if what is received names it.
pub(super) fn address(
    namespace: &str,
    receive: &BrokerReceive,
    arrival: &BrokerArrival<'_>,
) -> Result<BrokerAddress, Received> {
    let below = std::str::from_utf8(arrival.topic).ok().and_then(|topic| {
        topic.strip_prefix(RECEIVED_BELOW)?.strip_prefix('/')?.strip_prefix(namespace)?.strip_prefix('/')
    });
    let mut levels = below.unwrap_or_default().splitn(3, '/').filter(|level| !level.is_empty());
    let (Some(application), Some(device), Some(topic)) = (levels.next(), levels.next(), levels.next()) else {
        return Err(Received::InvalidTopic);
    };
    let named = receive.topics.iter().any(|name| name == topic)
        && (receive.applications.is_empty() || receive.applications.iter().any(|name| name == application));
    if !named {
        return Err(Received::NotNamed);
    }
    if arrival.payload.len() > PAYLOAD_BYTES_MAX {
        return Err(Received::TooLarge);
    }
    Ok(BrokerAddress {
        device: ObjectKey::new(namespace, device),
        application: format!("{namespace}/{application}").into(),
        topic: topic.into(),
    })
}
