//! Holds `wasmbed.cddl` against the table in `codec`: every tag, key, field name, type, bound and enumerator.

use std::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
    vec::Vec,
};

use crate::{
    field::{Record, Shape},
    limits,
    message::*,
    tag,
};

const TEXT: &str = include_str!("../wasmbed.cddl");

/// One line of a map: key, whether it may be missing, type and the field's name.
#[derive(Debug, PartialEq)]
pub(crate) struct Entry {
    key: i32,
    optional: bool,
    value: String,
    name: String,
}

/// `field` only ties the shape's lifetime to its message.
pub(crate) fn entry<'a, R, S>(key: i32, name: &str, shape: &S, _field: fn(&R) -> &S::Value) -> Entry
where
    S: Shape<'a>,
{
    Entry { key, optional: shape.is_optional(), value: shape.cddl(), name: name.into() }
}

/// `ModuleGet` as `module-get`.
pub(crate) fn kebab(name: &str) -> String {
    let mut out = String::new();
    for (index, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && index > 0 {
            out.push('-');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

/// The rules of the file, by name: what stands between `=` and the next empty line, comments kept.
fn rules() -> BTreeMap<&'static str, &'static str> {
    let mut rules = BTreeMap::new();
    for paragraph in TEXT.split("\n\n") {
        let start =
            paragraph.lines().take_while(|line| line.starts_with(';')).map(|line| line.len() + 1).sum();
        if let Some((name, body)) = paragraph.get(start..).and_then(|rule| rule.split_once(" = ")) {
            assert!(rules.insert(name, body).is_none(), "{name} stands twice");
        }
    }
    rules
}

/// `(tag, entries)` of a map's rule.
fn parse_map(body: &str) -> (Option<u32>, Vec<Entry>) {
    let (mut tag, mut entries) = (None, Vec::new());
    let lines = body.strip_prefix("{\n").and_then(|body| body.trim_end().strip_suffix('}')).expect("a map");
    for line in lines.lines() {
        let (code, comment) = line.split_once(';').unwrap_or((line, ""));
        let code = code.trim().trim_end_matches(',');
        if code == "later" {
            continue;
        }
        let (key, value) = code.split_once(" => ").unwrap_or_else(|| panic!("not an entry: {line}"));
        let optional = key.starts_with("? ");
        let key = key.trim_start_matches("? ").parse().expect("an integer key");
        if key == 0 {
            tag = Some(value.parse().expect("a tag"));
            continue;
        }
        let name = comment
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .trim_end_matches([':', ',', ';'])
            .to_string();
        entries.push(Entry { key, optional, value: value.into(), name });
    }
    let is_signed = body == rules()["join-statement"];
    assert!(is_signed || body.contains("later\n"), "a map that no later version could extend: {body}");
    (tag, entries)
}

#[test]
fn every_message_stands_in_the_cddl() {
    let rules = rules();
    let mut checked = 0;
    let mut check = |name: &str, tag: Option<u32>, entries: Vec<Entry>| {
        let body = rules.get(name).unwrap_or_else(|| panic!("no rule {name}"));
        assert_eq!(parse_map(body), (tag, entries), "rule {name}");
        checked += 1;
    };
    macro_rules! check {
        ($($name:literal $type:ty, $tag:expr;)+) => { $(check($name, $tag, <$type>::cddl_entries());)+ };
    }
    check! {
        "hello" Hello<'_>, Some(tag::HELLO);
        "heartbeat" Heartbeat, Some(tag::HEARTBEAT);
        "reported" Reported<'_>, Some(tag::REPORTED);
        "assignment-get" AssignmentGet, Some(tag::ASSIGNMENT_GET);
        "module-get" ModuleGet, Some(tag::MODULE_GET);
        "log" Log<'_>, Some(tag::LOG);
        "trap" Trap<'_>, Some(tag::TRAP);
        "publish" Publish<'_>, Some(tag::PUBLISH);
        "publish-ack" PublishAck, Some(tag::PUBLISH_ACK);
        "deliver" Deliver<'_>, Some(tag::DELIVER);
        "deliver-ack" DeliverAck, Some(tag::DELIVER_ACK);
        "settings" Settings<'_>, Some(tag::SETTINGS);
        "settings-answer" SettingsAnswer<'_>, Some(tag::SETTINGS_ANSWER);
        "setting-values" SettingValues<'_>, None;
        "setting" Setting<'_>, None;
        "setting-state" SettingState<'_>, None;
        "join" Join<'_>, Some(tag::JOIN);
        "join-statement" JoinStatement<'_>, None;
        "certificate" Certificate<'_>, Some(tag::CERTIFICATE);
        "join-answer" JoinAnswer<'_>, Some(tag::JOIN_ANSWER);
        "decommission" Decommission<'_>, Some(tag::DECOMMISSION);
        "decommissioned" Decommissioned<'_>, Some(tag::DECOMMISSIONED);
        "stack-frame" StackFrame<'_>, None;
        "error" ErrorNotice<'_>, Some(tag::ERROR);
        "welcome" Welcome, Some(tag::WELCOME);
        "reject" Closing<'_>, Some(tag::REJECT);
        "goodbye" Closing<'_>, Some(tag::GOODBYE);
        "heartbeat-ack" HeartbeatAck, Some(tag::HEARTBEAT_ACK);
        "desired" Desired<'_>, Some(tag::DESIRED);
        "assignment" Assignment<'_>, Some(tag::ASSIGNMENT);
        "assignment-gone" AssignmentGet, Some(tag::ASSIGNMENT_GONE);
        "module-chunk" ModuleChunk<'_>, Some(tag::MODULE_CHUNK);
        "module-gone" ModuleGone, Some(tag::MODULE_GONE);
        "facts" Facts<'_>, None;
        "import-module" ImportModule<'_>, None;
        "application-report" ApplicationReport<'_>, None;
        "desired-application" DesiredApplication, None;
        "spec" Spec<'_>, None;
        "env-var" EnvVar<'_>, None;
        "peripheral" Peripheral<'_>, None;
        "i2c-grant" I2cGrant<'_>, None;
        "uart-grant" UartGrant<'_>, None;
        "gpio-grant" GpioGrant<'_>, None;
        "spi-grant" SpiGrant<'_>, None;
        "topic" Topic<'_>, None;
    }
    let maps = rules.values().filter(|body| body.starts_with("{\n")).count();
    assert_eq!(checked, maps, "a map of the cddl that no type of the code stands for");
}

#[test]
fn every_enumerator_stands_in_the_cddl() {
    let rules = rules();
    macro_rules! check {
        ($($type:ty),+) => { $(
            let name = kebab(stringify!($type));
            let body = rules.get(name.as_str()).unwrap_or_else(|| panic!("no rule {name}"));
            let known: Vec<String> =
                <$type>::KNOWN.iter().map(|value| format!("{}: {}", value.name(), value.code())).collect();
            let body = body.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(body, format!("&( {} ) / u32", known.join(", ")), "rule {name}");
        )+ };
    }
    check!(
        ResetReason,
        ApplicationState,
        ReportReason,
        TrapKind,
        JoinState,
        ErrorCode,
        CloseReason,
        RestartPolicy,
        PeripheralKind,
        TopicDirection,
        MessageSource,
        Delivery,
        SettingResult
    );
}

#[test]
fn every_limit_and_every_reserved_tag_stands_in_the_cddl() {
    macro_rules! check {
        ($($limit:ident)+) => { $(
            let line = format!(";   {} = {}", stringify!($limit), limits::$limit);
            assert!(TEXT.lines().any(|found| found == line), "no line {line:?}");
        )+ };
    }
    check!(
        FRAME_BYTES_MAX BODY_BYTES_MAX DEPTH_MAX MODULE_RANGE_BYTES_MAX CHUNK_BYTES_MAX APPLICATIONS_MAX DESIRED_MAX
        SPEC_BYTES_MAX ENVELOPE_BYTES_MAX MODULE_BYTES_MAX LOG_TEXT_BYTES_MAX REPORT_MESSAGE_BYTES_MAX
        DETAIL_BYTES_MAX RESET_DETAIL_BYTES_MAX NAME_BYTES_MAX FACTS_BYTES_MAX IMPORT_MODULES_MAX
        IMPORT_FUNCTIONS_MAX CAPABILITIES_MAX PERIPHERALS_MAX PERIPHERAL_NAME_BYTES_MAX I2C_ADDRESSES_MAX I2C_ADDRESS_MIN
        I2C_ADDRESS_MAX BUS_BYTES_PER_SECOND_MAX UART_BAUD_MIN UART_BAUD_MAX EDGES_PER_SECOND_MAX SPI_MODE_MAX SPI_CLOCK_KHZ_MIN
        SPI_CLOCK_KHZ_MAX APPLICATION_NAME_BYTES_MAX ARGS_MAX ENV_MAX VALUE_BYTES_MAX
        STACK_FRAMES_MAX FUNCTION_NAME_BYTES_MAX TOPICS_MAX DELIVERIES_MAX SETTINGS_MAX SETTING_NAME_BYTES_MAX SETTING_TEXT_BYTES_MAX SETTINGS_BYTES_MAX
        SETTINGS_SCHEMA_BYTES_MAX SETTING_STATES_MAX PAYLOAD_BYTES_MAX REQUEST_BYTES_MAX JOIN_PROOF_BYTES_MAX PAIRING_ID_BYTES_MAX
        CHAIN_BYTES_MAX TRUST_DOMAIN_BYTES_MAX NAMESPACE_BYTES_MAX DEVICE_NAME_BYTES_MAX JOIN_STATEMENT_BYTES_MAX
        DECOMMISSION_ORDER_BYTES_MAX DECOMMISSION_PROOF_BYTES_MAX
    );
    let line = format!(";   {} LogLevel", tag::LOG_LEVEL);
    assert!(TEXT.lines().any(|found| found == line), "no line {line:?}");
}
