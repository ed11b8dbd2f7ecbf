//! What the process measures, for `/metrics`.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};
use wasmbed_control::{
    gateway::{BrokerLevels, Counters, JoinOutcome, Levels, MessageCounters, MessageLevels, Notice},
    gateway_api::Delivered,
};
use wasmbed_telemetry::{Description, ProcessMetrics, Registration};

use crate::refusal::RefusalReason;

mod brokers;
mod messages;
mod reason;

use brokers::BrokerMetrics;
use messages::MessageMetrics;
use reason::Reason;

/// A request of a controller or operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Request {
    route: &'static str,
    status: u16,
}

/// A call to the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Write {
    call: &'static str,
    outcome: &'static str,
}

/// A reported state of an application.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Report {
    state: &'static str,
    reason: &'static str,
}

/// How a device's try to get a certificate ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Join {
    outcome: &'static str,
}

/// All metrics of the process; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    connections: Gauge,
    sessions: Gauge,
    joining: Gauge,
    joins: Family<Join, Counter>,
    connections_max: Gauge,
    handshakes_open: Gauge,
    handshakes_waiting: Gauge,
    pub(crate) handshake_seconds: Histogram,
    refusals: Family<Reason, Counter>,
    ended: Family<Reason, Counter>,
    began: Counter,
    heartbeats: Counter<u64, AtomicU64>,
    pub(crate) heartbeat_seconds: Histogram,
    requests: Family<Request, Counter>,
    pub(crate) request_seconds: Histogram,
    reports: Family<Report, Counter>,
    assignments: Counter<u64, AtomicU64>,
    devices: Gauge,
    modules: Gauge,
    module_bytes: Gauge,
    sets_sealed: Gauge,
    kubernetes_calls: Family<Write, Counter>,
    pub(crate) kubernetes_seconds: Histogram,
    kubernetes_waiting: Gauge,
    kubernetes_lag_ms: Gauge,
    store_operations: Gauge,
    log_lines_dropped: Counter<u64, AtomicU64>,
    messages: MessageMetrics,
    brokers: BrokerMetrics,
    notices_left_out: Counter<u64, AtomicU64>,
    devices_slowed: Counter<u64, AtomicU64>,
    events_dropped: Counter<u64, AtomicU64>,
    certificate_expiry: Gauge,
    pub(crate) certificate_reloads: Counter,
    pub(crate) certificate_reload_failures: Counter,
}

fn refusals() -> Family<Reason, Counter> {
    let family = Family::<Reason, Counter>::default();
    // Each has its series from the start, so that the first refusal shows in a rate.
    for reason in RefusalReason::ALL.iter().map(|reason| reason.as_str()) {
        drop(family.get_or_create(&Reason { reason }));
    }
    family
}

fn joins() -> Family<Join, Counter> {
    let family = Family::<Join, Counter>::default();
    for outcome in JoinOutcome::ALL.iter().map(|outcome| outcome.name()) {
        drop(family.get_or_create(&Join { outcome }));
    }
    family
}

/// From 50 µs to 13 s.
fn seconds() -> Histogram {
    Histogram::new((0..19).map(|step| 0.000_05 * f64::from(1 << step)))
}

impl ProcessMetrics for Metrics {
    const PREFIX: &'static str = "wasmbed_gateway";

    fn register(all: &mut Registration<'_>) -> Self {
        Self {
            connections: all.add("connections", "Connections of authenticated devices", Gauge::default()),
            sessions: all.add("sessions", "Established sessions of devices", Gauge::default()),
            joining: all.add("joining", "Connections of devices that join", Gauge::default()),
            joins: all.add(
                "joins",
                "Tries of devices to get a certificate or to renew it, by how they ended",
                joins(),
            ),
            connections_max: all.add("connections_max", "Maximum number of sessions", Gauge::default()),
            handshakes_open: all.add("handshakes_open", "Open TLS handshakes", Gauge::default()),
            handshakes_waiting: all.add(
                "handshakes_waiting",
                "Connections waiting for their TLS handshake",
                Gauge::default(),
            ),
            handshake_seconds: all.add_seconds("handshake", "TLS handshakes that succeeded", seconds()),
            refusals: all.add("refusals", "Connections refused before a session, by reason", refusals()),
            ended: all.add(
                "sessions_ended",
                "Sessions that ended or were rejected, by reason",
                Family::default(),
            ),
            began: all.add("sessions_begun", "Sessions that were welcomed", Counter::default()),
            heartbeats: all.add("heartbeats", "Heartbeats received", Counter::default()),
            heartbeat_seconds: all.add_seconds(
                "heartbeat",
                "From a heartbeat's arrival to its answer's departure",
                seconds(),
            ),
            requests: all.add("requests", "Requests of controllers and operators", Family::default()),
            request_seconds: all.add_seconds("request", "Requests of controllers, except streams", seconds()),
            reports: all.add(
                "application_reports",
                "Changes of state that devices reported",
                Family::default(),
            ),
            assignments: all.add("assignments", "Assignments sent to devices", Counter::default()),
            devices: all.add("devices", "Devices known", Gauge::default()),
            modules: all.add("modules", "Modules on disk", Gauge::default()),
            module_bytes: all.add("module_bytes", "Bytes of modules on disk", Gauge::default()),
            sets_sealed: all.add(
                "secrets_on_disk",
                "1 if sets with values of Secrets are kept on disk, encrypted; 0 if in memory only",
                Gauge::default(),
            ),
            kubernetes_calls: all.add("kubernetes_calls", "Calls to the Kubernetes API", Family::default()),
            kubernetes_seconds: all.add_seconds("kubernetes_call", "Calls to the Kubernetes API", seconds()),
            kubernetes_waiting: all.add(
                "kubernetes_waiting",
                "Writes to the Kubernetes API that are queued or in flight",
                Gauge::default(),
            ),
            kubernetes_lag_ms: all.add(
                "kubernetes_lag_milliseconds",
                "Age of the oldest write that is due",
                Gauge::default(),
            ),
            store_operations: all.add("store_operations", "Queued disk operations", Gauge::default()),
            log_lines_dropped: all.add(
                "log_lines_dropped",
                "Log lines dropped because their device exceeded its rate",
                Counter::default(),
            ),
            messages: MessageMetrics::register(all),
            brokers: BrokerMetrics::register(all),
            notices_left_out: all.add(
                "notices_left_out",
                "Lines omitted from the process log because one device caused too many",
                Counter::default(),
            ),
            devices_slowed: all.add(
                "devices_slowed",
                "Times that reading from a device was slowed to its share",
                Counter::default(),
            ),
            events_dropped: all.add(
                "events_dropped",
                "Kubernetes Events dropped: replaced by newer ones or over their device's rate",
                Counter::default(),
            ),
            certificate_expiry: all.add_seconds(
                "certificate_expiry_timestamp",
                "When the certificate in use expires, seconds since 1970",
                Gauge::default(),
            ),
            certificate_reloads: all.add(
                "certificate_reloads",
                "Reloads of changed certificate files",
                Counter::default(),
            ),
            certificate_reload_failures: all.add(
                "certificate_reload_failures",
                "Changed certificate files that could not be used",
                Counter::default(),
            ),
        }
    }
}

impl Metrics {
    /// Whether sets with values of Secrets are kept on disk.
    pub(crate) fn set_sealed(&self, sealed: bool) {
        self.sets_sealed.set(i64::from(sealed));
    }

    pub(crate) fn delivered(&self, delivered: Delivered) {
        self.messages.delivered(delivered);
    }

    pub(crate) fn refused(&self, reason: RefusalReason) {
        self.refusals.get_or_create(&Reason { reason: reason.as_str() }).inc();
    }

    pub(crate) fn certificate_expires(&self, unix_s: i64) {
        self.certificate_expiry.set(unix_s);
    }

    pub(crate) fn request(&self, route: &'static str, status: u16) {
        self.requests.get_or_create(&Request { route, status }).inc();
    }

    pub(crate) fn kubernetes(&self, call: &'static str, outcome: &'static str, took: Duration) {
        self.kubernetes_calls.get_or_create(&Write { call, outcome }).inc();
        self.kubernetes_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn count(&self, notice: &Notice) {
        match notice {
            Notice::SessionEstablished { .. } => {
                self.began.inc();
            }
            Notice::SessionEnded { reason, .. } => {
                let reason = reason.map_or("Disconnected", |reason| reason.name());
                self.ended.get_or_create(&Reason { reason }).inc();
            }
            Notice::Assigned { .. } => {
                self.assignments.inc();
            }
            Notice::Reported { state, reason, .. } => {
                self.reports.get_or_create(&Report { state, reason }).inc();
            }
            Notice::JoinEnded { outcome, .. } => {
                self.joins.get_or_create(&Join { outcome: outcome.name() }).inc();
            }
            Notice::SetTaken { .. }
            | Notice::Decommissioned { .. }
            | Notice::Unusable { .. }
            | Notice::NotBelieved { .. }
            | Notice::DeviceError { .. }
            | Notice::WriteFailed { .. }
            | Notice::StoreFailed { .. }
            | Notice::LeftOut { .. }
            | Notice::Slowed { .. } => {}
        }
    }

    pub(crate) fn level(
        &self,
        levels: &Levels,
        counters: &Counters,
        messages: &(MessageLevels, MessageCounters),
        brokers: &(BTreeMap<&'static str, BrokerLevels>, BTreeMap<&'static str, u64>),
        (handshakes, waiting): (usize, usize),
        connections_max: usize,
    ) {
        let set_u64 = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        let set = |gauge: &Gauge, value: usize| set_u64(gauge, value as u64);
        set(&self.connections, levels.connections);
        set(&self.sessions, levels.sessions);
        set(&self.joining, levels.joining);
        set(&self.connections_max, connections_max);
        set(&self.handshakes_open, handshakes);
        set(&self.handshakes_waiting, waiting);
        set(&self.devices, levels.devices);
        set(&self.modules, levels.modules);
        set_u64(&self.module_bytes, levels.module_bytes);
        set(&self.kubernetes_waiting, levels.writes);
        set_u64(&self.kubernetes_lag_ms, levels.write_lag_ms);
        set(&self.store_operations, levels.store_operations);
        self.messages.level(messages);
        self.brokers.level(brokers);
        // The decisions count these themselves, and never downwards.
        let copy =
            |counter: &Counter<u64, AtomicU64>, value: u64| counter.inner().store(value, Ordering::Relaxed);
        copy(&self.heartbeats, counters.heartbeats);
        copy(&self.log_lines_dropped, counters.log_lines_dropped);
        copy(&self.notices_left_out, counters.notices_left_out);
        copy(&self.devices_slowed, counters.devices_slowed);
        copy(&self.events_dropped, counters.events_dropped);
    }
}

/// The metrics of a gateway, for the documentation.
#[must_use]
pub fn describe() -> Vec<Description> {
    Metrics::describe()
}
