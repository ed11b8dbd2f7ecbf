//! What a controller counts.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};
use wasmbed_control::{fleet::Gauges, kubernetes::Event};
use wasmbed_telemetry::{Description, ProcessMetrics, Registration};

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Operation {
    PutSets,
    UploadModule,
    WriteStatus,
    WriteFinalizer,
    WriteUnreachable,
    WriteFinished,
    WriteGateway,
    WriteApproval,
    WriteDecommission,
    WriteQuota,
    PutDecommissions,
    PutBrokers,
    PutSettings,
    ReviewAccess,
    WriteEvent,
    ReadSecret,
    Stream,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OperationLabel {
    pub(crate) operation: Operation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Queue {
    Statuses,
    Sets,
    Writes,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabel {
    queue: Queue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum DeploymentResult {
    Succeeded,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeploymentLabel {
    result: DeploymentResult,
}

/// The metrics of a controller, for the documentation.
#[must_use]
pub fn describe() -> Vec<Description> {
    Metrics::describe()
}

/// The controller's metrics; cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    reconciliations: Counter,
    errors: Family<OperationLabel, Counter>,
    operations: Family<OperationLabel, Counter>,
    durations: Family<OperationLabel, Histogram>,
    queues: Family<QueueLabel, Gauge>,
    deployments: Family<DeploymentLabel, Counter>,
    applications: Gauge,
    devices: Gauge,
    gateways: Gauge,
    leads: Gauge,
    decommissions: Gauge,
    events_dropped: Counter,
}

impl ProcessMetrics for Metrics {
    const PREFIX: &'static str = "wasmbed_controller";

    fn register(all: &mut Registration<'_>) -> Self {
        let durations: Family<OperationLabel, Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 15)));
        Self {
            reconciliations: all.add(
                "reconciliations",
                "Devices planned and statuses computed",
                Counter::default(),
            ),
            operations: all.add(
                "operations",
                "Calls to gateways and to the Kubernetes API, by operation",
                Family::default(),
            ),
            errors: all.add("errors", "Calls that failed, by operation", Family::default()),
            durations: all.add_seconds(
                "operation_duration",
                "Time from a call to its answer, by operation",
                durations,
            ),
            queues: all.add("queue_depth", "Queued work, by queue", Family::default()),
            deployments: all.add(
                "application_deployments",
                "Applications that became ready or failed on a target, by result",
                Family::default(),
            ),
            applications: all.add("applications", "Applications known", Gauge::default()),
            devices: all.add("devices", "Devices known", Gauge::default()),
            gateways: all.add("gateways", "Gateways known", Gauge::default()),
            leads: all.add("leader", "1 while this controller leads", Gauge::default()),
            decommissions: all.add(
                "decommissions_open",
                "Devices with spec.decommission whose proof was not verified yet",
                Gauge::default(),
            ),
            events_dropped: all.add(
                "events_dropped",
                "Kubernetes Events dropped: replaced by newer ones or over their Application's rate",
                Counter::default(),
            ),
        }
    }
}

impl Metrics {
    pub(crate) fn set_gauges(&self, gauges: &Gauges, leads: bool) {
        let counted = self.reconciliations.get();
        self.reconciliations.inc_by(gauges.reconciliations.saturating_sub(counted));
        let counted = self.events_dropped.get();
        self.events_dropped.inc_by(gauges.events_dropped.saturating_sub(counted));
        self.applications.set(number(gauges.applications));
        self.devices.set(number(gauges.devices));
        self.gateways.set(number(gauges.gateways));
        self.leads.set(i64::from(leads));
        self.decommissions.set(number(gauges.decommissions));
        let queues = [
            (Queue::Statuses, gauges.statuses_queued),
            (Queue::Sets, gauges.sets_queued),
            (Queue::Writes, gauges.writes_in_flight),
        ];
        for (queue, depth) in queues {
            self.queues.get_or_create(&QueueLabel { queue }).set(number(depth));
        }
    }

    pub(crate) fn observe(&self, operation: Operation, seconds: f64, failed: bool) {
        let label = OperationLabel { operation };
        self.operations.get_or_create(&label).inc();
        self.durations.get_or_create(&label).observe(seconds);
        // At 0, too: a rate needs the series from the beginning.
        let errors = self.errors.get_or_create(&label);
        if failed {
            errors.inc();
        }
    }

    pub(crate) fn count_error(&self, operation: Operation) {
        self.errors.get_or_create(&OperationLabel { operation }).inc();
    }

    pub(crate) fn count_event(&self, event: &Event) {
        use wasmbed_api::ReasonCode::{AllFailed, AllRunning, ConnectedRunning, SomeFailed};
        let result = match event.reason {
            AllRunning | ConnectedRunning => DeploymentResult::Succeeded,
            AllFailed | SomeFailed => DeploymentResult::Failed,
            // Neither the end of a deployment nor a failure of one.
            _ => return,
        };
        self.deployments.get_or_create(&DeploymentLabel { result }).inc();
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
