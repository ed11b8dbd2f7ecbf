//! What happened, as lines of the process's log.

use wasmbed_control::{exchange::DeviceKey, gateway::Notice};

/// Writes one line.
pub(crate) fn log(notice: &Notice) {
    match notice {
        Notice::Began { device, epoch, synced } => {
            tracing::info!(device = %name(device), epoch = epoch.0, synced, "session stands");
        }
        Notice::Ended { device, epoch, reason: Some(reason), detail } => {
            tracing::info!(device = %name(device), epoch = epoch.0, reason = reason.name(), detail, "session ended by the gateway");
        }
        Notice::Ended { device, epoch, reason: None, detail } => {
            tracing::info!(device = %name(device), epoch = epoch.0, reason = "Disconnected", detail, "session ended");
        }
        Notice::SetTaken { device, revision } => {
            tracing::debug!(device = %name(device), revision = revision.0, "desired set is on disk");
        }
        Notice::Assigned { device, application, correlation_id } => {
            tracing::info!(device = %name(device), %application, %correlation_id, "assignment given to the device");
        }
        Notice::Reported { device, application, state, reason, correlation_id } => {
            tracing::info!(device = %name(device), %application, state, reason, %correlation_id, "device reported");
        }
        Notice::Unusable { device, detail } => {
            tracing::warn!(device = %name(device), reason = "Unusable", detail, "message could not be used");
        }
        Notice::DeviceError { device, detail } => {
            tracing::warn!(device = %name(device), reason = "DeviceError", detail, "device could not use a message");
        }
        Notice::WriteFailed { device, detail } => {
            tracing::warn!(device = %name(device), reason = "WriteFailed", detail, "call to the Kubernetes API failed");
        }
        Notice::StoreFailed { detail } => {
            tracing::error!(reason = "StoreFailed", detail, "the gateway's disk failed");
        }
    }
}

/// `namespace/name`.
pub(crate) fn name(device: &DeviceKey) -> String {
    format!("{}/{}", device.namespace, device.name)
}
