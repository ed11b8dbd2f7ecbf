//! Metrics of messages of applications.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use wasmbed_control::{
    gateway::{MessageCounters, MessageLevels, MessageRefusal},
    gateway_api::Delivered,
};
use wasmbed_telemetry::Registration;

use super::reason::Reason;

type Count = Counter<u64, AtomicU64>;

/// What is measured of messages; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct MessageMetrics {
    taken: Count,
    duplicates: Count,
    postponed: Count,
    lost_on_devices: Count,
    refused: Family<Reason, Count>,
    dropped: Family<Reason, Count>,
    unreadable: Count,
    bytes: Gauge,
    oldest_age_ms: Gauge,
    pending_bytes: Gauge,
    delivered: Family<DeliveryResult, Count>,
}

/// What became of a message for an application on a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryResult {
    result: &'static str,
}

/// With a series for each reason from the start, so that the first shows in a rate.
fn by_reason(reasons: impl IntoIterator<Item = &'static str>) -> Family<Reason, Count> {
    let family = Family::<Reason, Count>::default();
    reasons.into_iter().for_each(|reason| drop(family.get_or_create(&Reason { reason })));
    family
}

impl MessageMetrics {
    pub(super) fn register(all: &mut Registration<'_>) -> Self {
        Self {
            taken: all.add("messages", "Messages of applications written to disk", Count::default()),
            duplicates: all.add("messages_duplicate", "Messages that were on disk already", Count::default()),
            postponed: all.add(
                "messages_postponed",
                "Messages without a place, which their devices send again",
                Count::default(),
            ),
            lost_on_devices: all.add(
                "messages_lost_on_devices",
                "Messages that devices dropped before they could send them",
                Count::default(),
            ),
            refused: all.add(
                "messages_refused",
                "Messages refused, by reason",
                by_reason(MessageRefusal::ALL.map(MessageRefusal::name)),
            ),
            dropped: all.add(
                "messages_dropped",
                "Messages removed from disk: over the bound of bytes, of age, or because the disk was full",
                by_reason(["Bytes", "Age", "DiskFull"]),
            ),
            unreadable: all.add(
                "messages_records_unreadable",
                "Records of messages on disk that could not be read",
                Count::default(),
            ),
            bytes: all.add("messages_bytes", "Bytes of messages on disk", Gauge::default()),
            oldest_age_ms: all.add(
                "messages_oldest_age_milliseconds",
                "Age of the oldest message on disk",
                Gauge::default(),
            ),
            pending_bytes: all.add(
                "messages_pending_bytes",
                "Bytes of messages in memory that wait for the disk",
                Gauge::default(),
            ),
            delivered: all.add(
                "deliveries",
                "Messages for applications on devices, by what became of them",
                Family::default(),
            ),
        }
    }

    pub(super) fn delivered(&self, delivered: Delivered) {
        self.delivered.get_or_create(&DeliveryResult { result: delivered.name() }).inc();
    }

    pub(super) fn level(&self, (levels, counters): &(MessageLevels, MessageCounters)) {
        let set = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.bytes, levels.bytes);
        set(&self.oldest_age_ms, levels.oldest_age_ms);
        set(&self.pending_bytes, levels.pending_bytes as u64);
        let copy = |counter: &Count, value: u64| counter.inner().store(value, Ordering::Relaxed);
        copy(&self.taken, counters.taken);
        copy(&self.duplicates, counters.duplicates);
        copy(&self.postponed, counters.postponed);
        copy(&self.lost_on_devices, counters.lost_on_devices);
        copy(&self.unreadable, counters.records_unreadable);
        for (reason, count) in MessageRefusal::ALL.into_iter().zip(counters.refused) {
            copy(&self.refused.get_or_create(&Reason { reason: reason.name() }), count);
        }
        let dropped = [
            ("Bytes", counters.dropped_for_bytes),
            ("Age", counters.dropped_for_age),
            ("DiskFull", counters.dropped_for_room),
        ];
        for (reason, count) in dropped {
            copy(&self.dropped.get_or_create(&Reason { reason }), count);
        }
    }
}
