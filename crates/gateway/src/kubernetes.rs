//! The calls of the Kubernetes API that `control` asks for.

use wasmbed_api::Device;
use wasmbed_control::{
    gateway::{Call, Write},
    kubernetes::WriteOutcome,
};
use wasmbed_kubernetes::{Caller, outcome};

use crate::metrics::Metrics;

/// Makes one call; answers how it ended.
pub(crate) async fn execute(
    caller: &Caller,
    boot_id: &str,
    write: &Write,
    metrics: &Metrics,
) -> WriteOutcome<Option<Box<Device>>> {
    let started = tokio::time::Instant::now();
    let call = match &write.call {
        Call::CreateDevice { .. } => "create_device",
        Call::PatchStatus { .. } => "patch_status",
        Call::GetDevice { .. } => "get_device",
        Call::Event(..) => "event",
    };
    let outcome = make(caller, boot_id, &write.call).await;
    metrics.kubernetes(call, name_of(&outcome), started.elapsed());
    outcome
}

/// How a call ended, as metrics have it.
pub(crate) fn name_of<T>(outcome: &WriteOutcome<T>) -> &'static str {
    match outcome {
        WriteOutcome::Done(_) => "ok",
        WriteOutcome::Conflict => "conflict",
        WriteOutcome::NotFound => "not_found",
        WriteOutcome::Throttled { .. } => "throttled",
        WriteOutcome::Unavailable(_) => "unavailable",
        WriteOutcome::Rejected(_) => "refused",
    }
}

async fn make(caller: &Caller, boot_id: &str, call: &Call) -> WriteOutcome<Option<Box<Device>>> {
    let device = match call {
        Call::CreateDevice { device, spec } => {
            let object = Device::new(&device.name, (**spec).clone());
            outcome(caller.create(&device.namespace, &object).await)
        }
        Call::PatchStatus { device, patch } => outcome(caller.merge_status(device, patch).await),
        Call::GetDevice { device } => {
            let found = outcome(caller.get::<Device>(device).await).map(|device| device.map(Box::new));
            return if found == WriteOutcome::Done(None) { WriteOutcome::NotFound } else { found };
        }
        Call::Event(event, occurrence) => {
            let counted = caller.count_event(event, *occurrence, boot_id).await;
            return outcome(counted).map(|()| None);
        }
    };
    device.map(|device| Some(Box::new(device)))
}
