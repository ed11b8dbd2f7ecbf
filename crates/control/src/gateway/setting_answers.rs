//! What devices say of the settings of their applications, for people.

use std::sync::Arc;

use wasmbed_protocol::SettingsAnswer;

use super::{
    Gateway,
    config::SETTINGS_REPORT_DEVICES_MAX,
    device::{DeviceEntry, SessionView},
    events::About,
};
use crate::{
    Now, ObjectKey,
    gateway_api::{DeviceSettingsReport, SettingsReport},
};

impl Gateway {
    /// A device says what settings of an application are.
    pub(super) fn handle_settings_answer(
        &mut self,
        now: Now,
        device: &Arc<ObjectKey>,
        answer: &SettingsAnswer<'_>,
    ) {
        let record = present!(self.devices.get_mut(device), "an established session has its record");
        // What no set of the device names is nobody's business here.
        let Some(name) = record.application_name(answer.uid) else { return };
        let uid = record.object().map(|object| Arc::clone(object.uid()));
        let event = record.settings_mut().take(now, answer);
        let event = event.zip(uid).map(|(refused, uid)| refused.event(now, device, &uid, &name));
        if let Some(event) = event {
            self.push_event_about(Box::new(event), About::Application(Some(answer.uid)));
        }
        self.publish(now, device);
    }

    /// What is known of an application's settings on devices of a namespace after the one of a name, or on that one device.
    #[must_use]
    pub fn settings_report(
        &self,
        namespace: &str,
        application: &str,
        device: Option<&str>,
        after: Option<&str>,
    ) -> SettingsReport {
        let full = format!("{namespace}/{application}");
        let from = ObjectKey::new(namespace, device.or(after).unwrap_or(""));
        let records = self.devices.range::<ObjectKey, _>(from..);
        let records = records.take_while(|(key, _)| {
            key.namespace == namespace && device.is_none_or(|device| key.name == device)
        });
        let mut records = records.filter(|(key, _)| after.is_none_or(|after| *key.name > *after));
        let mut report = SettingsReport::default();
        let mut last = None;
        for (key, record) in records.by_ref().take(SETTINGS_REPORT_DEVICES_MAX) {
            report.devices.extend(report_of(record, &full));
            last = Some(&key.name);
        }
        report.continue_after = last.filter(|_| records.next().is_some()).cloned();
        report
    }
}

/// What is known of an application's settings on a device whose set has it.
fn report_of(record: &DeviceEntry, application: &str) -> Option<DeviceSettingsReport> {
    let mut bodies = record.delivery().held()?.bodies();
    let uid = bodies.find(|body| **body.application() == *application)?.uid();
    let live = record.live();
    let connected = live.is_some_and(SessionView::is_established);
    let mut report = DeviceSettingsReport {
        device: record.key().name.clone(),
        connected,
        unsupported: connected && !live.is_some_and(SessionView::takes_settings),
        ..DeviceSettingsReport::default()
    };
    if let Some(settings) = record.settings() {
        settings.report(uid, &mut report);
    }
    Some(report)
}
