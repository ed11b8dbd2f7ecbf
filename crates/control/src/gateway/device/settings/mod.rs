//! The settings of one device's applications: what they are to be, and what the device says that they are.

mod told;

use wasmbed_protocol::{ApplicationUid, Revision, Settings as SettingsMessage, SettingsAnswer};

use crate::{
    Now,
    gateway::settings::Given,
    gateway_api::{DeviceSettingsReport, SettingsView},
};
use told::{NotTaken, Told};

/// What is known of them.
#[derive(Debug, Default)]
pub(in crate::gateway) struct DeviceSettings {
    /// What a controller said last.
    given: Option<Given>,
    /// What the device said last.
    told: Told,
}

impl DeviceSettings {
    pub(super) fn restored(given: Given) -> Self {
        Self { given: Some(given), told: Told::default() }
    }

    pub(in crate::gateway) fn given(&self) -> Option<&Given> {
        self.given.as_ref()
    }

    /// A controller says what they are to be.
    pub(in crate::gateway) fn give(&mut self, given: Given) {
        self.given = Some(given);
    }

    /// The message that says what an application's values are; none before a controller said so.
    pub(in crate::gateway) fn message(&self, uid: ApplicationUid) -> Option<SettingsMessage<'_>> {
        let given = self.given.as_ref()?;
        let revision = Revision(given.revision());
        Some(SettingsMessage { uid, revision, values: given.values(uid) })
    }

    /// The device says what they are; gives what it does not take and took, or was not known to refuse, before.
    pub(in crate::gateway) fn take(&mut self, now: Now, answer: &SettingsAnswer<'_>) -> Option<NotTaken> {
        self.told.take(now, answer)
    }

    /// What controllers read of it.
    pub(super) fn view(&self) -> SettingsView {
        SettingsView {
            revision_held: self.given.as_ref().map(Given::revision),
            revision_answered: self.told.revision(),
        }
    }

    /// Adds what is known of an application's settings.
    pub(in crate::gateway) fn report(&self, uid: ApplicationUid, report: &mut DeviceSettingsReport) {
        self.told.report(uid, self.given.as_ref(), report);
    }
}
