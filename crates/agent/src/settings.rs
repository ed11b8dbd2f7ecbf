//! The settings of one application: the values that it was given, held against what its module declares.
//!
//! ```text
//! in use = value given last, if the module allows it; else the one in use before, if the module allows it; else the default
//! ```
//! What was given is kept whatever the module is: the next one may declare other settings.

use alloc::vec::Vec;

use wasmbed_protocol::{
    List, Revision, Schema, Setting, SettingResult, SettingSchema, SettingState, SettingValue, SettingValues,
    decode_setting_values, encode_setting_values,
    limits::{SETTING_STATES_MAX, SETTINGS_BYTES_MAX, SETTINGS_MAX},
};

/// The settings of one application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// What the module that is loaded declares; none until it was loaded once.
    schema: Option<Vec<u8>>,
    /// Of the values given last, since the device's start.
    revision: Revision,
    /// Encoding of the values given last; empty if there are none.
    given: Vec<u8>,
    /// Encoding of those that were in use before, of settings whose value given last is not known to be allowed; empty if there
    /// are none.
    before: Vec<u8>,
    /// Whether one that is in use changed since the application last asked for one.
    changed: bool,
    /// Whether the gateway is to be told.
    unsaid: bool,
}

/// A lower revision than the one held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StaleSettings;

/// What is kept over resets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoredSettings {
    pub(crate) given: Vec<u8>,
    pub(crate) before: Vec<u8>,
}

impl Settings {
    /// From the state record; values that do not decode are none.
    pub(crate) fn restore(stored: StoredSettings) -> Self {
        let decoded = |bytes: Vec<u8>| if decode_setting_values(&bytes).is_ok() { bytes } else { Vec::new() };
        Self { given: decoded(stored.given), before: decoded(stored.before), ..Self::default() }
    }

    /// What is to be kept over resets, if there is anything.
    pub(crate) fn store(&self) -> Option<StoredSettings> {
        let stored = || StoredSettings { given: self.given.clone(), before: self.before.clone() };
        (!self.given.is_empty()).then(stored)
    }

    /// Values came, which decode. Whether what is kept over resets is other than before.
    pub(crate) fn give(&mut self, revision: Revision, values: &[u8]) -> Result<bool, StaleSettings> {
        if revision < self.revision {
            return Err(StaleSettings);
        }
        self.revision = revision;
        self.unsaid = true;
        let given = if settings_of(values).next().is_none() { &[] } else { values };
        if given == self.given {
            return Ok(false);
        }
        let before = self.clone();
        self.before = before.kept_for(given);
        self.given = given.to_vec();
        self.forget_allowed();
        let differs = self.declared().iter().any(|it| self.in_use(&it) != before.in_use(&it));
        self.changed |= differs;
        Ok(true)
    }

    /// What of the values in use is kept beside these.
    fn kept_for(&self, given: &[u8]) -> Vec<u8> {
        let mut kept: Vec<Setting<'_>> = Vec::new();
        for Setting { name, value } in settings_of(given) {
            let earlier = match self.declared().find(name) {
                Some(declared) => self.set(&declared),
                // Nothing is loaded yet that could say which of the two was in use.
                None => value_in(&self.before, name).or_else(|| value_in(&self.given, name)),
            };
            if let Some(value) = earlier.filter(|earlier| *earlier != value) {
                kept.push(Setting { name, value });
            }
        }
        encode(&mut kept)
    }

    /// Values given last that the module allows need none to stand in for them.
    fn forget_allowed(&mut self) {
        let declared = self.declared();
        let allowed = |setting: &Setting<'_>| {
            value_in(&self.given, setting.name)
                .is_none_or(|given| declared.judge(setting.name, given) == SettingResult::Accepted)
        };
        let mut kept: Vec<Setting<'_>> =
            settings_of(&self.before).filter(|setting| !allowed(setting)).collect();
        self.before = encode(&mut kept);
    }

    /// A module was loaded that declares these. Whether what is kept over resets is other than before.
    pub(crate) fn handle_schema(&mut self, section: Vec<u8>) -> bool {
        if self.schema.as_ref() == Some(&section) {
            return false;
        }
        self.unsaid = !section.is_empty() || !self.given.is_empty();
        self.schema = Some(section);
        let before = self.before.len();
        self.forget_allowed();
        self.before.len() != before
    }

    /// Another module takes the place of the one that was loaded.
    pub(crate) fn forget_schema(&mut self) {
        self.schema = None;
    }

    /// A session begins: its gateway knows nothing yet.
    pub(crate) fn handle_session(&mut self) {
        self.unsaid = self.schema.as_ref().is_some_and(|schema| !schema.is_empty()) || !self.given.is_empty();
    }

    /// Whether the gateway is to be told, and there is something to tell: what a module declares is known once it is loaded.
    pub(crate) fn is_unsaid(&self) -> bool {
        self.unsaid && self.schema.is_some()
    }

    /// Whether one that is in use changed since the application last asked for one.
    pub(crate) fn has_changed(&self) -> bool {
        self.changed
    }

    /// What the module that is loaded declares: a section that is no schema declares nothing.
    fn declared(&self) -> Schema<'_> {
        self.schema.as_deref().and_then(|section| Schema::parse(section).ok()).unwrap_or_default()
    }

    /// The value that it was set to, if it was set to one that is allowed.
    fn set<'a>(&'a self, declared: &SettingSchema<'_>) -> Option<SettingValue<'a>> {
        let allowed = |value: &SettingValue<'_>| declared.kind.judge(*value) == SettingResult::Accepted;
        let given = value_in(&self.given, declared.name).filter(allowed);
        // One that nobody sets any more has its default, whatever it was.
        let stands_in = || value_in(&self.before, declared.name).filter(allowed);
        given.or_else(stands_in)
    }

    fn in_use<'a>(&'a self, declared: &SettingSchema<'a>) -> SettingValue<'a> {
        self.set(declared).unwrap_or(declared.default)
    }

    /// The application asks for one; none if the module does not declare it.
    pub(crate) fn read<R>(&mut self, name: &str, take: impl FnOnce(SettingValue<'_>) -> R) -> Option<R> {
        let declared = self.declared().find(name)?;
        let read = take(self.in_use(&declared));
        self.changed = false;
        Some(read)
    }

    /// Tells what they are; the gateway counts as told if that gives something.
    pub(crate) fn say<R>(
        &mut self,
        tell: impl FnOnce(Revision, List<'_, SettingState<'_>>) -> Option<R>,
    ) -> Option<R> {
        let declared = self.declared();
        let known = declared.iter().map(|it| SettingState {
            name: it.name,
            result: value_in(&self.given, it.name)
                .map_or(SettingResult::Accepted, |given| it.kind.judge(given)),
            value: it.is_reported.then(|| self.in_use(&it)),
        });
        let undeclared = settings_of(&self.given).filter(|given| declared.find(given.name).is_none());
        let unknown = undeclared.map(|Setting { name, value }| SettingState {
            name,
            result: declared.judge(name, value),
            value: None,
        });
        // One by one into its place: there are few, and a sort takes kilobytes of flash.
        let mut states: Vec<SettingState<'_>> = Vec::with_capacity(SETTING_STATES_MAX);
        for state in known.chain(unknown) {
            states.insert(states.partition_point(|earlier| earlier.name < state.name), state);
        }
        let told = tell(self.revision, List::new(&states));
        self.unsaid = false;
        told
    }
}

fn settings_of(values: &[u8]) -> impl Iterator<Item = Setting<'_>> {
    let values = decode_setting_values(values).unwrap_or_default();
    values.settings.iter()
}

fn value_in<'a>(values: &'a [u8], name: &str) -> Option<SettingValue<'a>> {
    settings_of(values).find(|setting| setting.name == name).map(|setting| setting.value)
}

/// As many of them as there is room for, the last ones left out; empty for none.
fn encode(settings: &mut Vec<Setting<'_>>) -> Vec<u8> {
    settings.truncate(SETTINGS_MAX);
    let mut buffer = [0; SETTINGS_BYTES_MAX];
    while !settings.is_empty() {
        let values = SettingValues { settings: List::new(settings) };
        if let Some(bytes) = encode_setting_values(&values, &mut buffer).ok().and_then(|it| buffer.get(..it))
        {
            return bytes.to_vec();
        }
        settings.pop();
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, string::String, vec};

    const SCHEMA: &[u8] = b"interval int 10..100 reported = 50\nlabel text ..4 = none\non bool = false\n";

    fn values(settings: &[(&str, SettingValue<'_>)]) -> Vec<u8> {
        let mut settings: Vec<_> =
            settings.iter().map(|(name, value)| Setting { name, value: *value }).collect();
        encode(&mut settings)
    }

    fn interval(value: i64) -> Vec<u8> {
        values(&[("interval", SettingValue::Integer(value))])
    }

    fn read(settings: &mut Settings, name: &str) -> Option<String> {
        settings.read(name, |value| format!("{value}"))
    }

    fn said(settings: &mut Settings) -> Vec<String> {
        let say = |revision: Revision, states: List<'_, SettingState<'_>>| {
            let state = |it: SettingState<'_>| {
                let value = it.value.map_or(String::new(), |value| format!(" {value}"));
                format!("{} {} {}{value}", revision.0, it.name, it.result.name())
            };
            Some(states.iter().map(state).collect())
        };
        settings.say(say).unwrap_or_default()
    }

    #[test]
    fn a_value_takes_the_place_of_the_default_and_goes_again() {
        let mut settings = Settings::default();
        assert_eq!(settings.give(Revision(1), &interval(20)), Ok(true));
        assert!(!settings.is_unsaid(), "nothing is loaded that could say what it is");
        settings.handle_schema(SCHEMA.to_vec());
        assert!(settings.is_unsaid());
        assert_eq!(said(&mut settings), ["1 interval Accepted 20", "1 label Accepted", "1 on Accepted"]);
        assert_eq!(read(&mut settings, "interval").as_deref(), Some("20"));
        assert_eq!(read(&mut settings, "label").as_deref(), Some("none"));
        assert_eq!(read(&mut settings, "other"), None);
        assert_eq!(settings.give(Revision(2), &values(&[])), Ok(true));
        assert!(settings.has_changed());
        assert_eq!(read(&mut settings, "interval").as_deref(), Some("50"));
        assert!(!settings.has_changed());
        assert_eq!(settings.store(), None);
    }

    #[test]
    fn what_is_not_allowed_leaves_what_was_in_use() {
        let mut settings = Settings::default();
        settings.handle_schema(SCHEMA.to_vec());
        settings.give(Revision(1), &interval(20)).unwrap();
        settings.read("interval", |_| ());
        for refused in [5, 500] {
            settings.give(Revision(2), &interval(refused)).unwrap();
            assert_eq!(said(&mut settings)[0], "2 interval OutOfRange 20");
            assert!(!settings.has_changed(), "it is what it was");
            assert_eq!(read(&mut settings, "interval").as_deref(), Some("20"));
        }
        // Over a reset too, and until it is put right.
        let mut settings = Settings::restore(settings.store().unwrap());
        assert!(!settings.handle_schema(SCHEMA.to_vec()));
        assert_eq!(read(&mut settings, "interval").as_deref(), Some("20"));
        settings.give(Revision(1), &interval(30)).unwrap();
        assert_eq!(read(&mut settings, "interval").as_deref(), Some("30"));
        assert!(settings.before.is_empty());
    }

    #[test]
    fn another_module_judges_anew() {
        let mut settings = Settings::default();
        settings.handle_schema(SCHEMA.to_vec());
        let both = [("interval", SettingValue::Integer(20)), ("later", SettingValue::Boolean(true))];
        settings.give(Revision(1), &values(&both)).unwrap();
        assert_eq!(said(&mut settings)[2], "1 later UnknownSetting");
        settings.forget_schema();
        settings.handle_schema(b"later bool = false\n".to_vec());
        assert_eq!(said(&mut settings), ["1 interval UnknownSetting", "1 later Accepted"]);
        assert_eq!(read(&mut settings, "later").as_deref(), Some("true"));
        settings.forget_schema();
        settings.handle_schema(Vec::new());
        assert_eq!(said(&mut settings), ["1 interval NoSchema", "1 later NoSchema"]);
        settings.handle_schema(b"no schema\n".to_vec());
        assert_eq!(said(&mut settings), ["1 interval NoSchema", "1 later NoSchema"]);
    }

    #[test]
    fn values_that_came_before_a_reset_and_were_not_judged_stand_in() {
        let mut settings = Settings::default();
        settings.give(Revision(1), &interval(20)).unwrap();
        settings.give(Revision(2), &interval(5)).unwrap();
        settings.give(Revision(3), &interval(500)).unwrap();
        settings.handle_schema(SCHEMA.to_vec());
        assert_eq!(read(&mut settings, "interval").as_deref(), Some("20"));
    }

    #[test]
    fn a_lower_revision_is_refused_and_the_same_values_are_no_change() {
        let mut settings = Settings::default();
        assert_eq!(settings.give(Revision(5), &interval(20)), Ok(true));
        assert_eq!(settings.give(Revision(4), &interval(30)), Err(StaleSettings));
        assert_eq!(settings.give(Revision(6), &interval(20)), Ok(false));
        settings.handle_schema(SCHEMA.to_vec());
        assert_eq!(said(&mut settings)[0], "6 interval Accepted 20");
    }

    #[test]
    fn what_is_kept_has_its_bounds() {
        let text = "x".repeat(64);
        let names: Vec<String> = (0..3).map(|index| format!("text{index}")).collect();
        let of = |text: &str| -> Vec<u8> {
            let settings: Vec<_> =
                names.iter().map(|name| (name.as_str(), SettingValue::Text(text))).collect();
            values(&settings)
        };
        let mut settings = Settings::default();
        settings.handle_schema(b"text0 text = a\ntext1 text = b\ntext2 text = c\n".to_vec());
        settings.give(Revision(1), &of(&text)).unwrap();
        let numbers: Vec<_> = names.iter().map(|name| (name.as_str(), SettingValue::Integer(1))).collect();
        settings.give(Revision(2), &values(&numbers)).unwrap();
        let stored = settings.store().unwrap();
        assert!(stored.given.len() <= SETTINGS_BYTES_MAX && stored.before.len() <= SETTINGS_BYTES_MAX);
        assert_eq!(read(&mut settings, "text2"), Some(text));
        assert_eq!(
            Settings::restore(StoredSettings { given: vec![1], before: vec![2] }),
            Settings::default()
        );
    }
}
