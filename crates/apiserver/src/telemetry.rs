//! Metrics, in the Prometheus text format at `/metrics`.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::store::CommitReport;

/// Labels of a request. Resources are those of known kinds, so that their number is bounded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    resource: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LatencyLabels {
    verb: &'static str,
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    resource: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    latencies: Family<LatencyLabels, Histogram, fn() -> Histogram>,
    watches: Family<WatchLabels, Gauge>,
    commits: Histogram,
    commit_writes: Counter,
    revision: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Counter,
}

/// 0.1 ms to 3 s.
fn latency_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 16))
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics {
            requests: Family::default(),
            latencies: Family::new_with_constructor(latency_histogram as fn() -> Histogram),
            watches: Family::default(),
            commits: latency_histogram(),
            commit_writes: Counter::default(),
            revision: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("wasmbed_apiserver");
        registry.register("requests", "Requests answered", metrics.requests.clone());
        registry.register(
            "request_duration_seconds",
            "Time to answer, watches apart",
            metrics.latencies.clone(),
        );
        registry.register("watches", "Established watches", metrics.watches.clone());
        registry.register("commit_duration_seconds", "Time of one durable commit", metrics.commits.clone());
        registry.register("commit_writes", "Writes made durable", metrics.commit_writes.clone());
        registry.register("revision", "Last resourceVersion used", metrics.revision.clone());
        registry.register("connections", "Established connections", metrics.connections.clone());
        let refused = metrics.connections_refused.clone();
        registry.register(
            "connections_refused",
            "Connections refused or closed: a failed handshake, too many, answers left unread",
            refused,
        );
        metrics
    }

    pub(crate) fn request(&self, verb: &'static str, resource: &str, code: u16, took: Duration) {
        let resource = resource.to_owned();
        if verb != "watch" {
            let labels = LatencyLabels { verb, resource: resource.clone() };
            self.latencies.get_or_create(&labels).observe(took.as_secs_f64());
        }
        self.requests.get_or_create(&RequestLabels { verb, resource, code }).inc();
    }

    pub(crate) fn watch(&self, resource: &str) -> Gauge {
        self.watches.get_or_create(&WatchLabels { resource: resource.to_owned() }).clone()
    }

    pub(crate) fn commit(&self, report: CommitReport) {
        self.commits.observe(report.duration.as_secs_f64());
        self.commit_writes.inc_by(report.writes as u64);
    }

    pub(crate) fn set_revision(&self, revision: u64) {
        self.revision.set(i64::try_from(revision).unwrap_or(i64::MAX));
    }
}
