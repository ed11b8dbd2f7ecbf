//! Settings of applications: values that a gateway gives, what applications ask for, answers.

use wasmbed_protocol::{
    DeviceMessage, ErrorCode, MessageGroups, SettingValue, Settings, SettingsAnswer, decode_setting_values,
    encode_device, tag,
};

use super::Agent;
use crate::{
    effect::{Effect, RunId},
    event::Event,
    settings::StaleSettings,
};

impl Agent {
    /// The application of this run asks for a setting: the value in use, or none if its module does not declare it.
    pub fn setting<R>(
        &mut self,
        run: RunId,
        name: &str,
        take: impl FnOnce(SettingValue<'_>) -> R,
    ) -> Option<R> {
        let found = self.applications.iter_mut().find(|application| application.run() == Some(run));
        found?.settings_mut().read(name, take)
    }

    /// Whether a setting of the application of this run changed since it last asked for one.
    #[must_use]
    pub fn has_changed_setting(&self, run: RunId) -> bool {
        let found = self.applications.iter().find(|application| application.run() == Some(run));
        found.is_some_and(|application| application.settings().has_changed())
    }

    pub(super) fn handle_settings(&mut self, message: &Settings<'_>) {
        if let Err(error) = decode_setting_values(message.values) {
            self.events.push(Event::BadFrame { detail: alloc::format!("settings: {error}") });
            self.connection.complain(error.code(), Some(tag::SETTINGS), "values that can't be used");
            return;
        }
        let found = self.applications.iter_mut().find(|application| application.uid() == message.uid);
        // One that is in no set here any more: its values come again with the set that has it.
        let Some(application) = found else { return };
        match application.settings_mut().give(message.revision, message.values) {
            Ok(false) => {}
            Ok(true) => {
                self.durability.change();
                let wakes = application.run().is_some() && application.settings().has_changed();
                let wake = Effect::SettingsChanged { uid: message.uid };
                if wakes && !self.effects.contains(&wake) {
                    self.effects.push_back(wake);
                }
            }
            Err(StaleSettings) => {
                let detail = "settings of a revision lower than the one held";
                self.connection.complain(ErrorCode::Stale, Some(tag::SETTINGS), detail);
            }
        }
    }

    /// When an answer may be sent. It acknowledges what a reset would find again, so it waits for storage, as a report does.
    pub(super) fn settings_timeout(&self) -> Option<u64> {
        let takes = self.connection.established()?.takes(MessageGroups::SETTINGS);
        let may_answer = self.durability.is_durable() || self.durability.is_failing();
        let waits = || self.applications.iter().any(|application| application.settings().is_unsaid());
        (takes && may_answer && waits()).then(|| self.clock.now_ms())
    }

    pub(super) fn transmit_settings(&mut self, buffer: &mut [u8]) -> Option<usize> {
        self.settings_timeout()?;
        let found = self.applications.iter_mut().find(|application| application.settings().is_unsaid())?;
        let uid = found.uid();
        found.settings_mut().say(|revision, settings| {
            let answer = SettingsAnswer { uid, revision, settings };
            encode_device(&DeviceMessage::SettingsAnswer(answer), buffer).ok()
        })
    }
}
