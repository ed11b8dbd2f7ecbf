//! What a device says of the settings of its applications.

use std::collections::{BTreeMap, BTreeSet};

use wasmbed_api::ReasonCode;
use wasmbed_protocol::{
    ApplicationUid, SettingResult, SettingsAnswer,
    limits::{DESIRED_MAX, SETTING_NAME_BYTES_MAX},
};

use crate::{
    Now, ObjectKey, UnixTime,
    gateway::settings::Given,
    gateway_api::{DeviceSettingsReport, SettingReport, SettingScalar},
    harmless,
    kubernetes::{Event, Regarding},
};

/// What was said last of each application, at most [`DESIRED_MAX`].
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<ApplicationUid, Answer>);

#[derive(Debug)]
struct Answer {
    revision: u64,
    time: UnixTime,
    settings: Vec<State>,
}

#[derive(Debug)]
struct State {
    name: Box<str>,
    result: SettingResult,
    /// In use, if the module has it reported.
    value: Option<SettingScalar>,
}

/// Values that a device did not take, for an Event.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::gateway) struct NotTaken(Vec<String>);

impl NotTaken {
    /// `uid` is the Device's.
    pub(in crate::gateway) fn event(
        self,
        now: Now,
        device: &ObjectKey,
        uid: &str,
        application: &str,
    ) -> Event {
        let message =
            format!("application {application}: {}; the values before stay in use", self.0.join(", "));
        Event {
            regarding: Regarding::device(device.clone(), uid),
            warning: true,
            reason: ReasonCode::SettingRefused,
            message,
            unix_ms: now.unix_ms,
        }
    }
}

impl Told {
    /// The highest revision that the device names; 0 if it has named none.
    pub(super) fn revision(&self) -> u64 {
        self.0.values().map(|answer| answer.revision).max().unwrap_or(0)
    }

    /// Takes an answer; gives what it does not take and took, or was not known to refuse, before.
    pub(super) fn take(&mut self, now: Now, answer: &SettingsAnswer<'_>) -> Option<NotTaken> {
        let state = |state: wasmbed_protocol::SettingState<'_>| State {
            name: harmless(state.name, SETTING_NAME_BYTES_MAX).into(),
            result: state.result,
            value: state.value.map(|value| SettingScalar::of(value)),
        };
        let settings: Vec<State> = answer.settings.iter().map(state).collect();
        let refused = |settings: &[State]| -> BTreeSet<(Box<str>, u32)> {
            let refused = settings.iter().filter(|state| state.result != SettingResult::Accepted);
            refused.map(|state| (state.name.clone(), state.result.code())).collect()
        };
        let before = self.0.get(&answer.uid).map(|before| refused(&before.settings)).unwrap_or_default();
        let news: Vec<String> = refused(&settings)
            .difference(&before)
            .map(|(name, code)| format!("`{name}` {}", why(SettingResult::from(*code))))
            .collect();
        if !self.0.contains_key(&answer.uid) && self.0.len() >= DESIRED_MAX {
            // An application that was left out of sets since: the one that was heard of longest ago.
            let oldest = self.0.iter().min_by_key(|(_, answer)| answer.time).map(|(uid, _)| *uid);
            oldest.and_then(|uid| self.0.remove(&uid));
        }
        let time = UnixTime::from_ms(now.unix_ms);
        self.0.insert(answer.uid, Answer { revision: answer.revision.0, time, settings });
        (!news.is_empty()).then_some(NotTaken(news))
    }

    /// What is known of an application's settings, with what it was given.
    pub(super) fn report(
        &self,
        uid: ApplicationUid,
        given: Option<&Given>,
        report: &mut DeviceSettingsReport,
    ) {
        let mut settings: BTreeMap<String, SettingReport> = BTreeMap::new();
        report.revision = given.map(Given::revision);
        for setting in given.into_iter().flat_map(|given| given.settings(uid)) {
            let name = setting.name.to_owned();
            let wanted = Some(SettingScalar::of(setting.value));
            settings.insert(name.clone(), SettingReport { name, wanted, ..SettingReport::default() });
        }
        if let Some(answer) = self.0.get(&uid) {
            report.revision_answered = Some(answer.revision);
            report.answered_at = Some(answer.time);
            for state in &answer.settings {
                let name = state.name.to_string();
                let entry = settings
                    .entry(name.clone())
                    .or_insert_with(|| SettingReport { name, ..SettingReport::default() });
                entry.result = Some(state.result.name().to_owned());
                entry.value.clone_from(&state.value);
            }
        }
        report.settings = settings.into_values().collect();
    }
}

/// Why a value is not in use, in the words of the schema.
fn why(result: SettingResult) -> &'static str {
    match result {
        SettingResult::Accepted => "is in use",
        SettingResult::NoSchema => "is set, but the module declares no settings",
        SettingResult::UnknownSetting => "is set, but the module declares no such setting",
        SettingResult::WrongType => "is not of the type that the module declares",
        SettingResult::OutOfRange => "is outside the range that the module declares",
        SettingResult::TooLong => "is longer than the module declares",
        SettingResult::Unknown(_) => "is not in use, for a reason that this gateway does not know",
    }
}
