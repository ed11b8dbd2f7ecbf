//! What a signer counts.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
};
use wasmbed_telemetry::{Description, ProcessMetrics, Registration};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Ended {
    Issued,
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndedLabel {
    result: Ended,
}

/// The metrics of a signer, for the documentation.
#[must_use]
pub fn describe() -> Vec<Description> {
    Metrics::describe()
}

/// The signer's metrics; cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    requests: Family<EndedLabel, Counter>,
    errors: Counter,
}

impl ProcessMetrics for Metrics {
    const PREFIX: &'static str = "wasmbed_signer";

    fn register(all: &mut Registration<'_>) -> Self {
        let requests = all.add(
            "requests",
            "CertificateSigningRequests of devices and people that ended here, by result",
            Family::default(),
        );
        let metrics = Self {
            requests,
            errors: all.add("errors", "Calls to the Kubernetes API that failed", Counter::default()),
        };
        // At 0, too: a rate needs the series from the beginning.
        for result in [Ended::Issued, Ended::Refused] {
            drop(metrics.requests.get_or_create(&EndedLabel { result }));
        }
        metrics
    }
}

impl Metrics {
    pub(crate) fn count_ended(&self, result: Ended) {
        self.requests.get_or_create(&EndedLabel { result }).inc();
    }

    pub(crate) fn count_error(&self) {
        self.errors.inc();
    }
}
