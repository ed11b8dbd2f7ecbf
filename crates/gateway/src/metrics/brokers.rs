//! Metrics of brokers: all of a type together, since the metrics of a gateway name nobody's objects.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use wasmbed_control::gateway::BrokerLevels;
use wasmbed_telemetry::Registration;

type Count = Counter<u64, AtomicU64>;

/// What a broker speaks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Type {
    r#type: &'static str,
}

/// What is measured of brokers; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct BrokerMetrics {
    defined: Family<Type, Gauge>,
    connected: Family<Type, Gauge>,
    failing: Family<Type, Gauge>,
    waiting: Family<Type, Gauge>,
    waiting_bytes: Family<Type, Gauge>,
    sent: Family<Type, Count>,
    refused: Family<Type, Count>,
    dropped: Family<Type, Count>,
    failures: Family<Type, Count>,
    received: Family<Received, Count>,
}

/// What became of a message that a broker handed over.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Received {
    result: &'static str,
}

impl BrokerMetrics {
    pub(super) fn register(all: &mut Registration<'_>) -> Self {
        Self {
            defined: all.add("brokers", "Brokers that messages go to, by type", Family::default()),
            connected: all.add(
                "brokers_connected",
                "Brokers that have accepted a connection",
                Family::default(),
            ),
            failing: all.add("brokers_failing", "Brokers whose status has an error", Family::default()),
            waiting: all.add(
                "broker_messages_waiting",
                "Messages that brokers have not acknowledged, once for each broker",
                Family::default(),
            ),
            waiting_bytes: all.add(
                "broker_waiting_bytes",
                "Bytes of the payloads of messages that brokers have not acknowledged",
                Family::default(),
            ),
            sent: all.add("broker_messages", "Messages that brokers acknowledged", Family::default()),
            refused: all.add(
                "broker_messages_refused",
                "Messages that brokers refused for what they are; they are not sent again",
                Family::default(),
            ),
            dropped: all.add(
                "broker_messages_dropped",
                "Messages removed from disk before a broker acknowledged them",
                Family::default(),
            ),
            failures: all.add(
                "broker_failures",
                "Connections to brokers that failed or broke",
                Family::default(),
            ),
            received: all.add(
                "broker_messages_received",
                "Messages that brokers handed over, by what became of them",
                Family::default(),
            ),
        }
    }

    pub(super) fn level(
        &self,
        (levels, received): &(BTreeMap<&'static str, BrokerLevels>, BTreeMap<&'static str, u64>),
    ) {
        for (result, count) in received {
            self.received.get_or_create(&Received { result }).inner().store(*count, Ordering::Relaxed);
        }
        for (name, levels) in levels {
            let of_type = Type { r#type: name };
            let set = |family: &Family<Type, Gauge>, value: u64| {
                family.get_or_create(&of_type).set(i64::try_from(value).unwrap_or(i64::MAX));
            };
            set(&self.defined, levels.brokers as u64);
            set(&self.connected, levels.connected as u64);
            set(&self.failing, levels.failing as u64);
            set(&self.waiting, levels.waiting_messages);
            set(&self.waiting_bytes, levels.waiting_bytes);
            let copy = |family: &Family<Type, Count>, value: u64| {
                family.get_or_create(&of_type).inner().store(value, Ordering::Relaxed);
            };
            copy(&self.sent, levels.sent);
            copy(&self.refused, levels.refused);
            copy(&self.dropped, levels.dropped);
            copy(&self.failures, levels.failures);
        }
    }
}
