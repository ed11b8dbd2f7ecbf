//! What happened, as lines of the process's log. They belong to no span: a task writes what others caused as well.

use wasmbed_control::gateway::{LeftOut, Notice};

/// Writes one line.
pub(crate) fn log(notice: &Notice) {
    match notice {
        Notice::SessionEstablished { device, epoch, synced } => {
            tracing::info!(parent: None, %device, epoch = epoch.0, synced, "session established");
        }
        Notice::SessionEnded { device, epoch, reason: Some(reason), detail } => {
            tracing::info!(parent: None, %device, epoch = epoch.0, reason = reason.name(), error = detail, "session ended by the gateway");
        }
        Notice::SessionEnded { device, epoch, reason: None, detail } => {
            tracing::info!(parent: None, %device, epoch = epoch.0, reason = "Disconnected", error = detail, "session ended");
        }
        Notice::SetTaken { device, revision } => {
            tracing::debug!(parent: None, %device, revision = revision.0, "desired set is on disk");
        }
        Notice::Decommissioned { device } => {
            tracing::info!(parent: None, %device, "the device says that it erased what it had; its proof goes to the controller");
        }
        Notice::Assigned { device, application, correlation_id } => {
            tracing::info!(parent: None, %device, %application, %correlation_id, "assignment sent");
        }
        Notice::Reported { device, application, state, reason, correlation_id } => {
            tracing::info!(parent: None, %device, %application, state, reason, %correlation_id, "device reported");
        }
        Notice::Unusable { device, detail } => {
            tracing::warn!(parent: None, %device, reason = "Unusable", error = detail, "message could not be used");
        }
        Notice::NotBelieved { device, detail } => {
            tracing::warn!(parent: None, %device, reason = "CounterOutOfRange", error = detail, "the device's numbers are not believed");
        }
        Notice::DeviceError { device, detail } => {
            tracing::warn!(parent: None, %device, reason = "DeviceError", error = detail, "device could not use a message");
        }
        Notice::WriteFailed { device, detail } => {
            tracing::warn!(parent: None, %device, reason = "WriteFailed", error = detail, "call to the Kubernetes API failed");
        }
        Notice::StoreFailed { detail } => {
            tracing::error!(parent: None, reason = "StoreFailed", error = detail, "the gateway's disk failed");
        }
        Notice::LeftOut { device, what, count } => {
            let device = device
                .as_ref()
                .map_or("clients that are no admitted devices".to_owned(), |device| device.to_string());
            let what = match what {
                LeftOut::Lines => "lines of this log",
                LeftOut::Events => "Events",
            };
            match count {
                None => {
                    tracing::warn!(parent: None, device,
                        reason = "Flood",
                        "too many {what} about this device; further ones are left out and counted"
                    );
                }
                Some(count) => {
                    tracing::warn!(parent: None, device,
                        reason = "Flood",
                        count,
                        "so many {what} about this device were left out"
                    );
                }
            }
        }
        Notice::JoinEnded { client, device, outcome, detail } => {
            let device = device.as_ref().map(ToString::to_string);
            tracing::info!(parent: None, device, client, outcome = outcome.name(), error = detail, "a device's request for a certificate ended");
        }
        Notice::Slowed { device } => {
            tracing::warn!(parent: None, %device, reason = "Flood", "the device sends more than its share and is read no faster than that");
        }
    }
}
