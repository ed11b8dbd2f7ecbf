//! Registration of metrics that remembers what was registered, for the documentation.

use std::fmt;

use prometheus_client::{
    metrics::{MetricType, TypedMetric},
    registry::{Metric, Registry, Unit},
};

/// A metric as `/metrics` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The whole name, with the process's prefix, the unit, and `_total` for a counter.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What it counts or measures.
    pub help: &'static str,
}

impl fmt::Display for Description {
    /// A row of a Markdown table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, help } = self;
        write!(f, "| `{name}` | {kind} | {help} |")
    }
}

/// The metrics of one process.
pub trait ProcessMetrics: Sized {
    /// Before the name of each, such as `wasmbed_gateway`.
    const PREFIX: &'static str;

    /// Adds each to the registration and keeps it.
    fn register(all: &mut Registration<'_>) -> Self;

    /// The metrics, in a registry from which they are scraped.
    fn registered(registry: &mut Registry) -> Self {
        Self::register(&mut Registration::new(registry, Self::PREFIX))
    }

    /// What there is to scrape, for the documentation.
    #[must_use]
    fn describe() -> Vec<Description> {
        let mut registry = Registry::default();
        let mut all = Registration::new(&mut registry, Self::PREFIX);
        drop(Self::register(&mut all));
        all.described
    }
}

/// Registers the metrics of one process below its prefix.
#[derive(Debug)]
pub struct Registration<'r> {
    registry: &'r mut Registry,
    prefix: &'static str,
    described: Vec<Description>,
}

impl<'r> Registration<'r> {
    fn new(registry: &'r mut Registry, prefix: &'static str) -> Self {
        Self { registry: registry.sub_registry_with_prefix(prefix), prefix, described: Vec::new() }
    }

    /// Registers a metric and returns it.
    pub fn add<M: Metric + TypedMetric + Clone>(
        &mut self,
        name: &'static str,
        help: &'static str,
        metric: M,
    ) -> M {
        self.registry.register(name, help, metric.clone());
        self.describe::<M>(name, "", help);
        metric
    }

    /// Registers a metric that measures seconds and returns it.
    pub fn add_seconds<M: Metric + TypedMetric + Clone>(
        &mut self,
        name: &'static str,
        help: &'static str,
        metric: M,
    ) -> M {
        self.registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
        self.describe::<M>(name, "_seconds", help);
        metric
    }

    fn describe<M: TypedMetric>(&mut self, name: &str, unit: &str, help: &'static str) {
        let (kind, suffix) = match M::TYPE {
            MetricType::Counter => ("counter", "_total"),
            MetricType::Gauge => ("gauge", ""),
            MetricType::Histogram => ("histogram", ""),
            MetricType::Info => ("info", "_info"),
            MetricType::Unknown => ("unknown", ""),
        };
        let name = format!("{}_{name}{unit}{suffix}", self.prefix);
        self.described.push(Description { name, kind, help });
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

    use super::{ProcessMetrics, Registration, Registry};
    use crate::encode_metrics;

    struct Metrics {
        events: Counter,
        age: Gauge,
    }

    impl ProcessMetrics for Metrics {
        const PREFIX: &'static str = "process";

        fn register(all: &mut Registration<'_>) -> Self {
            Self {
                events: all.add("events", "Events", Counter::default()),
                age: all.add_seconds("age", "Age", Gauge::default()),
            }
        }
    }

    #[test]
    fn a_description_has_the_name_that_is_scraped() {
        let mut registry = Registry::default();
        let metrics = Metrics::registered(&mut registry);
        metrics.events.inc();
        metrics.age.set(3);
        let scraped = encode_metrics(&registry).expect("it can be written");
        let described = Metrics::describe();
        assert_eq!(described.len(), 2);
        for description in &described {
            let series = format!("\n{} ", description.name);
            assert!(scraped.contains(&series), "{} is not in {scraped}", description.name);
        }
        assert_eq!(described[0].to_string(), "| `process_events_total` | counter | Events |");
    }
}
