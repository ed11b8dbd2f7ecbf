//! Metrics, in the Prometheus text format at `/metrics`.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use wasmbed_telemetry::{Description, ProcessMetrics, Registration};

use crate::store::CommitReport;

/// The metrics of the embedded Kubernetes API, for the documentation.
#[must_use]
pub fn describe() -> Vec<Description> {
    Metrics::describe()
}

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
    pub(crate) audit_failed: Counter,
}

/// 0.1 ms to 3 s.
fn latency_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 16))
}

impl ProcessMetrics for Metrics {
    const PREFIX: &'static str = "wasmbed_apiserver";

    fn register(all: &mut Registration<'_>) -> Metrics {
        let latencies = Family::new_with_constructor(latency_histogram as fn() -> Histogram);
        Metrics {
            requests: all.add("requests", "Requests answered, by verb, resource and code", Family::default()),
            latencies: all.add(
                "request_duration_seconds",
                "Time to answer a request, except watches, by verb and resource",
                latencies,
            ),
            watches: all.add("watches", "Established watches, by resource", Family::default()),
            commits: all.add("commit_duration_seconds", "Time of one durable commit", latency_histogram()),
            commit_writes: all.add("commit_writes", "Writes made durable", Counter::default()),
            revision: all.add("revision", "Last resourceVersion used", Gauge::default()),
            connections: all.add("connections", "Established connections", Gauge::default()),
            connections_refused: all.add(
                "connections_refused",
                "Connections refused or closed: failed handshake, too many, answers left unread",
                Counter::default(),
            ),
            audit_failed: all.add(
                "audit_failed",
                "Requests that were answered and could not be written to the audit log",
                Counter::default(),
            ),
        }
    }
}

impl Metrics {
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
