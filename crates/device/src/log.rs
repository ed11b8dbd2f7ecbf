//! Device and application logs as `tracing` events, with the fields that all processes share.

use wasmbed_protocol::{ApplicationUid, Harmless, limits::LOG_TEXT_BYTES_MAX};
use wasmbed_supervisor::platform::{Level, LogSink, Record};

use crate::identity::Presence;

/// Of a line of the device's own log; the longest has a gateway's detail of 128 bytes in it.
const MESSAGE_BYTES_MAX: usize = 1_024;

/// Writes one device's lines.
pub(crate) struct DeviceLog {
    /// Which device it is.
    pub(crate) device: Presence,
}

impl LogSink for DeviceLog {
    fn record(&mut self, record: &Record<'_>) {
        let device = &*self.device.name();
        let correlation_id = record.correlation_id.map(tracing::field::display);
        let (epoch, revision) =
            (record.epoch.map(|epoch| epoch.0), record.revision.map(|revision| revision.0));
        let (application, reason) = (record.application, record.reason);
        // Gateways' words are in it too.
        let message = record.message.to_string();
        let message = Harmless { text: &message, bytes_max: MESSAGE_BYTES_MAX };
        // The level of a tracing event is part of its static description, so each needs an event of its own.
        macro_rules! event {
            ($level:ident) => {
                tracing::$level!(device, application, correlation_id, epoch, revision, reason, "{message}")
            };
        }
        match record.level {
            Level::Debug => event!(debug),
            Level::Info => event!(info),
            Level::Warn => event!(warn),
            Level::Error => event!(error),
        }
    }

    fn application_line(&mut self, _uid: &ApplicationUid, name: &str, text: &str) {
        // An application may not steer the terminal that its lines are read on.
        let text = Harmless { text, bytes_max: LOG_TEXT_BYTES_MAX };
        tracing::info!(target: "application", device = &*self.device.name(), application = name, "{text}");
    }
}
