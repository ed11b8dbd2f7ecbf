//! Settings: what the values of an application are on a device.
//!
//! ```text
//! values of the device (an override that names it) over those of its labels (one whose selector matches) over those of all
//! ```
//! Of several overrides of one kind the later one holds. What the module declares as default is not said: the device knows it.
//! Values are beside the assignment and not in its hash, so that a change restarts nothing.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use wasmbed_api::{ApplicationSettings, ReasonCode, SettingScalar};
use wasmbed_protocol::{
    List, SCHEMA_SECTION, Schema, Setting, SettingResult, SettingSchema, SettingValue, SettingValues,
    encode_setting_values,
    limits::{SETTINGS_BYTES_MAX, SETTINGS_MAX},
};

use super::{module::ModuleRefusal, target::selects};

/// A value that the module allows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Boolean(bool),
    Integer(i64),
    Text(String),
}

impl Value {
    fn of(value: SettingValue<'_>) -> Self {
        match value {
            SettingValue::Boolean(value) => Self::Boolean(value),
            SettingValue::Integer(value) => Self::Integer(value),
            SettingValue::Text(value) => Self::Text(value.to_owned()),
        }
    }

    fn get(&self) -> SettingValue<'_> {
        match self {
            Self::Boolean(value) => SettingValue::Boolean(*value),
            Self::Integer(value) => SettingValue::Integer(*value),
            Self::Text(value) => SettingValue::Text(value),
        }
    }
}

type Values = BTreeMap<String, Value>;

/// Values on some devices.
#[derive(Clone, Debug, PartialEq)]
struct Override {
    selector: Option<LabelSelector>,
    device_names: Vec<String>,
    values: Values,
}

/// What an Application says of the settings of a module that declares some; each value is one that the module allows.
#[derive(Clone, Debug, PartialEq)]
pub struct SettingRules {
    all: Values,
    overrides: Vec<Override>,
}

/// Reads what an Application says of settings; none if its module declares none.
///
/// # Errors
/// A value is not one that the module allows, or all together are too long; says which, in the words of the module.
pub fn plan_rules(
    settings: Option<&ApplicationSettings>,
    section: &str,
) -> Result<Option<Arc<SettingRules>>, ModuleRefusal> {
    let schema = Schema::parse(section.as_bytes())
        .map_err(|error| refusal(format!("the module's section {SCHEMA_SECTION}: {error}")))?;
    let nothing = ApplicationSettings::default();
    let settings = settings.unwrap_or(&nothing);
    let all = read_values(&schema, "spec.settings.values", &settings.values)?;
    let mut overrides = Vec::with_capacity(settings.overrides.len());
    for (index, entry) in settings.overrides.iter().enumerate() {
        overrides.push(Override {
            selector: entry.selector.clone(),
            device_names: entry.device_names.clone(),
            values: read_values(&schema, &format!("spec.settings.overrides[{index}].values"), &entry.values)?,
        });
    }
    let rules = SettingRules { all, overrides };
    let bytes = rules.longest();
    if bytes > SETTINGS_BYTES_MAX {
        return Err(refusal(format!(
            "spec.settings may come to {bytes} bytes on a device, at most {SETTINGS_BYTES_MAX} are possible; shorten texts or leave out what is the default"
        )));
    }
    Ok((!schema.is_empty()).then(|| Arc::new(rules)))
}

fn read_values(
    schema: &Schema<'_>,
    field: &str,
    given: &BTreeMap<String, SettingScalar>,
) -> Result<Values, ModuleRefusal> {
    let mut values = Values::new();
    for (name, scalar) in given {
        let Some(declared) = schema.find(name) else {
            let known: Vec<&str> = schema.iter().map(|setting| setting.name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(refusal(format!(
                "{field}.{name}: the module declares no such setting; it has {known}"
            )));
        };
        let text = scalar.to_string();
        let value = declared.kind.read(&text).filter(|value| is_allowed(&declared, *value));
        let Some(value) = value else {
            return Err(refusal(format!(
                "{field}.{name}: '{text}' is not what the module declares, {}",
                declared.kind
            )));
        };
        values.insert(name.clone(), Value::of(value));
    }
    Ok(values)
}

fn is_allowed(declared: &SettingSchema<'_>, value: SettingValue<'_>) -> bool {
    declared.kind.judge(value) == SettingResult::Accepted
}

fn refusal(message: String) -> ModuleRefusal {
    ModuleRefusal { reason: ReasonCode::InvalidSetting, message }
}

impl SettingRules {
    /// The encoded values of a device: those that are not left to the module.
    #[must_use]
    pub fn of_device(&self, name: &str, labels: &BTreeMap<String, String>) -> Vec<u8> {
        let mut values: BTreeMap<&str, &Value> = BTreeMap::new();
        let selected = |entry: &&Override| entry.selector.as_ref().is_some_and(|it| selects(it, labels));
        let named = |entry: &&Override| entry.device_names.iter().any(|listed| listed == name);
        let by_label = self.overrides.iter().filter(selected);
        let by_name = self.overrides.iter().filter(named);
        for layer in [&self.all].into_iter().chain(by_label.chain(by_name).map(|entry| &entry.values)) {
            values.extend(layer.iter().map(|(name, value)| (name.as_str(), value)));
        }
        encode(&values)
    }

    /// Bytes that the values of a device take at most, whatever overrides hold there.
    fn longest(&self) -> usize {
        let mut longest: BTreeMap<&str, &Value> = BTreeMap::new();
        let overrides = self.overrides.iter().map(|entry| &entry.values);
        for (name, value) in [&self.all].into_iter().chain(overrides).flatten() {
            let length = |value: &Value| encode(&BTreeMap::from([("", value)])).len();
            let entry = longest.entry(name).or_insert(value);
            if length(value) > length(entry) {
                *entry = value;
            }
        }
        encode(&longest).len()
    }
}

/// As the protocol has them; names are ascending, as it wants them.
fn encode(values: &BTreeMap<&str, &Value>) -> Vec<u8> {
    /// All settings that there may be, each as long as it may be.
    const ROOM: usize = SETTINGS_MAX * 128;
    let settings: Vec<Setting<'_>> =
        values.iter().map(|(name, value)| Setting { name, value: value.get() }).collect();
    let mut buffer = [0; ROOM];
    let encoded = encode_setting_values(&SettingValues { settings: List::new(&settings) }, &mut buffer);
    match encoded {
        Ok(length) => buffer.get(..length).unwrap_or_default().to_vec(),
        // More than there may be, which `plan_rules` refuses by this length.
        Err(_) => vec![0; SETTINGS_BYTES_MAX + 1],
    }
}

#[cfg(test)]
mod tests {
    use wasmbed_api::SettingOverride;
    use wasmbed_protocol::decode_setting_values;

    use super::*;

    const SCHEMA: &str = "interval_ms int 100..60000 = 1000\nlabel text ..8 = none\nlit bool = true\n";

    fn scalars(values: &[(&str, &str)]) -> BTreeMap<String, SettingScalar> {
        let scalar = |text: &str| match text.parse() {
            Ok(number) => SettingScalar::Integer(number),
            Err(_) => SettingScalar::Text(text.to_owned()),
        };
        values.iter().map(|(name, text)| ((*name).to_owned(), scalar(text))).collect()
    }

    fn labelled(site: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("site".to_owned(), site.to_owned())])
    }

    fn settings() -> ApplicationSettings {
        let selected = |site: &str, values| SettingOverride {
            selector: Some(LabelSelector { match_labels: Some(labelled(site)), match_expressions: None }),
            values: scalars(values),
            ..SettingOverride::default()
        };
        let named = SettingOverride {
            device_names: vec!["d1".to_owned()],
            values: scalars(&[("label", "one")]),
            ..SettingOverride::default()
        };
        ApplicationSettings {
            values: scalars(&[("interval_ms", "500"), ("label", "all")]),
            overrides: vec![
                named,
                selected("lab", &[("label", "lab"), ("lit", "false")]),
                selected("lab", &[("interval_ms", "250")]),
            ],
        }
    }

    fn of(rules: &SettingRules, device: &str, site: &str) -> Vec<String> {
        let bytes = rules.of_device(device, &labelled(site));
        let values = decode_setting_values(&bytes).unwrap();
        values.settings.iter().map(|it| format!("{} {}", it.name, it.value)).collect()
    }

    fn refused(settings: &ApplicationSettings, section: &str) -> String {
        let refusal = plan_rules(Some(settings), section).unwrap_err();
        assert_eq!(refusal.reason, ReasonCode::InvalidSetting);
        refusal.message
    }

    #[test]
    fn a_device_is_over_labels_over_all() {
        let rules = plan_rules(Some(&settings()), SCHEMA).unwrap().unwrap();
        assert_eq!(of(&rules, "d2", "roof"), ["interval_ms 500", "label all"]);
        assert_eq!(of(&rules, "d2", "lab"), ["interval_ms 250", "label lab", "lit false"]);
        assert_eq!(of(&rules, "d1", "lab"), ["interval_ms 250", "label one", "lit false"]);
        assert_eq!(of(&rules, "d1", "roof"), ["interval_ms 500", "label one"]);
        let none = plan_rules(None, SCHEMA).unwrap().unwrap();
        assert_eq!(of(&none, "d1", "lab"), [""; 0], "that there are none is said too");
        assert_eq!(plan_rules(None, "").unwrap(), None);
    }

    #[test]
    fn what_the_module_does_not_allow_is_refused_in_its_words() {
        let with = |name: &str, value: &str| ApplicationSettings {
            values: scalars(&[(name, value)]),
            ..ApplicationSettings::default()
        };
        assert_eq!(
            refused(&with("interval_ms", "5"), SCHEMA),
            "spec.settings.values.interval_ms: '5' is not what the module declares, int 100..60000"
        );
        assert_eq!(
            refused(&with("lit", "maybe"), SCHEMA),
            "spec.settings.values.lit: 'maybe' is not what the module declares, bool"
        );
        assert_eq!(
            refused(&with("label", "much too long"), SCHEMA),
            "spec.settings.values.label: 'much too long' is not what the module declares, text ..8"
        );
        assert_eq!(
            refused(&with("colour", "red"), SCHEMA),
            "spec.settings.values.colour: the module declares no such setting; it has interval_ms, label, lit"
        );
        assert_eq!(
            refused(&with("lit", "true"), ""),
            "spec.settings.values.lit: the module declares no such setting; it has none"
        );
        let mut wrong = settings();
        wrong.overrides[2].values = scalars(&[("interval_ms", "0")]);
        assert!(refused(&wrong, SCHEMA).starts_with("spec.settings.overrides[2].values.interval_ms: '0'"));
        assert!(plan_rules(Some(&with("label", "7")), SCHEMA).is_ok(), "a number is a text too");
    }

    #[test]
    fn what_may_come_together_on_a_device_is_bounded() {
        let section: String = (0..5).map(|index| format!("text{index} text =\n")).collect();
        let text = "x".repeat(64);
        let mut settings = ApplicationSettings::default();
        for index in 0..4 {
            let name = format!("text{index}");
            settings.overrides.push(SettingOverride {
                device_names: vec![name.clone()],
                values: BTreeMap::from([(name, SettingScalar::Text(text.clone()))]),
                ..SettingOverride::default()
            });
        }
        assert!(refused(&settings, &section).contains("may come to"));
        settings.overrides.truncate(3);
        assert!(plan_rules(Some(&settings), &section).is_ok());
    }
}
