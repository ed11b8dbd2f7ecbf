//! What controllers and gateways say to each other over HTTPS; `gateway` serves it, `controller` calls it.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `PUT /v1/sets` | [`PutSets`] | [`PutSetsAnswer`]; 409 with [`Refusal`] if the leader term is lower than one seen |
//! | `PUT /v1/decommissions` | [`PutDecommissions`] | [`PutDecommissionsAnswer`]; 404 from older gateways; otherwise as sets |
//! | `PUT /v1/brokers` | [`PutBrokers`] | [`PutBrokersAnswer`]; 404 from older gateways; otherwise as sets |
//! | `PUT /v1/settings` | [`PutSettings`] | [`PutSettingsAnswer`]; 404 from older gateways; otherwise as sets |
//! | `GET /v1/settings?namespace=N&application=A&device=D&after=D` | – | [`SettingsReport`] |
//! | `HEAD /v1/modules/{digest}` | – | 200 or 404 |
//! | `PUT /v1/modules/{digest}` | the bytes | 201 new, 200 known, 400 digest mismatch, 413 too large, 507 no space |
//! | `GET /v1/stream?token=T` | – | [`StreamEvent`] a line (NDJSON), for as long as the connection lasts |
//! | `GET /v1/logs?namespace=N&application=A&device=D&follow=true` | – | [`LogLine`] a line (NDJSON) |
//!
//! Digests are 64 hex digits in paths and JSON. Errors are [`Refusal`]s.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wasmbed_api::{BrokerReceive, DeviceApplication, DeviceFacts, ReasonCode};
use wasmbed_protocol::{SettingValue, decode_spec, limits::SETTING_TEXT_BYTES_MAX};

use crate::{Hidden, ObjectKey, UnixTime, harmless};

/// Full desired sets of some devices. Idempotent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PutSets {
    /// `leaseTransitions` of the leader's Lease: a lower one than seen is refused.
    pub leader_term: u64,
    /// At most [`SETS_PER_PUT_MAX`].
    pub sets: Vec<DeviceSet>,
}

/// Sets in one PUT, so that a body stays under the gateway's bound.
pub const SETS_PER_PUT_MAX: usize = 256;
/// Body of one PUT of sets, bytes.
pub const PUT_SETS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The desired set of one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceSet {
    /// Which device.
    pub device: ObjectKey,
    /// One more than the highest seen for this device, when the content changes.
    pub revision: u64,
    /// At most `wasmbed_protocol::limits::DESIRED_MAX`.
    pub assignments: Vec<AssignmentEntry>,
}

impl DeviceSet {
    /// Whether an assignment has something from Secrets.
    #[must_use]
    pub fn has_secrets(&self) -> bool {
        self.assignments.iter().any(|entry| {
            let Ok(spec) = STANDARD.decode(&*entry.spec).map(Hidden::new) else { return false };
            // One of a later version may have secrets as well.
            decode_spec(&spec).map_or(true, |spec| spec.values_mac.is_some())
        })
    }
}

/// One assignment of a set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignmentEntry {
    /// UID of the Application, hyphenated.
    pub application_uid: String,
    /// `namespace/name` of the Application, for logs.
    pub application: String,
    /// SHA-256 of `spec`, 64 hex digits.
    pub spec_hash: String,
    /// Standard base64 of the encoded `wasmbed_protocol::Spec`; it may have secrets.
    pub spec: Hidden<String>,
    /// Digest of the module, 64 hex digits.
    pub digest: String,
    /// 32 hex digits.
    pub correlation_id: String,
}

/// Answer to [`PutSets`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PutSetsAnswer {
    /// The sets that were not taken; all others are on the gateway's disk.
    pub refused: Vec<SetRefusal>,
}

/// One set that was not taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SetRefusal {
    /// Which device.
    pub device: ObjectKey,
    /// The revision that the gateway holds, for a stale one.
    pub held_revision: Option<u64>,
    /// For people.
    pub message: String,
    /// Digests that the gateway lacks and that must be uploaded first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_modules: Vec<String>,
}

/// The orders to take devices out of service that are open for devices of a gateway: all of them, so that others are dropped.
/// Idempotent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PutDecommissions {
    /// `leaseTransitions` of the leader's Lease: a lower one than seen is refused.
    pub leader_term: u64,
    /// At most [`DECOMMISSIONS_PER_PUT_MAX`].
    pub orders: Vec<DecommissionOrder>,
}

/// Orders that a gateway holds at once, and that one call brings: more wait until devices have confirmed.
pub const DECOMMISSIONS_PER_PUT_MAX: usize = 1_000;
/// Body of one PUT of orders, bytes: as many of the longest as one call may bring.
pub const PUT_DECOMMISSIONS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// An order to take a device out of service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecommissionOrder {
    /// Which device.
    pub device: ObjectKey,
    /// Standard base64 of the controller's signed order, at most 3,500 bytes decoded. Only the device reads it.
    pub order: String,
}

/// Answer to [`PutDecommissions`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PutDecommissionsAnswer {
    /// The orders that were not taken; all others are on the gateway's disk.
    pub refused: Vec<DecommissionRefusal>,
}

/// One order that was not taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DecommissionRefusal {
    /// Which device.
    pub device: ObjectKey,
    /// For people.
    pub message: String,
}

/// The brokers to which messages of applications go: all of them, so that others are dropped. Idempotent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PutBrokers {
    /// `leaseTransitions` of the leader's Lease: a lower one than seen is refused.
    pub leader_term: u64,
    /// At most [`BROKERS_MAX`](crate::gateway::config::BROKERS_MAX).
    pub brokers: Vec<BrokerEntry>,
}

/// Body of one PUT of brokers, bytes.
pub const PUT_BROKERS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One broker. Fields that a gateway does not know are left out there: what must not be is another `kind`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BrokerEntry {
    /// Its MessageBroker.
    pub broker: ObjectKey,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp`, seconds since 1970: what was published before is not for it.
    pub created_unix_s: u64,
    /// `Mqtt` or `Webhook`.
    pub kind: String,
    /// As the MessageBroker has it.
    pub url: String,
    /// PEM of the certificates that the broker's leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// `username` of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<Hidden<String>>,
    /// `password` of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Hidden<String>>,
    /// `token` of the Secret, of a `Webhook`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Hidden<String>>,
    /// Of a `Webhook`: `Json` or `Cbor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// `tls.crt` of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Hidden<String>>,
    /// `tls.key` of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Hidden<String>>,
    /// UIDs of the Applications whose messages it gets; all of its namespace if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applications: Option<Vec<String>>,
    /// Topics that it gets; all if empty.
    #[serde(default)]
    pub topics: Vec<String>,
    /// What comes in from it, of an `Mqtt`; nothing if absent. Gateways of earlier versions let nothing in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive: Option<BrokerReceive>,
    /// Why it can't be used, as the controller found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<BrokerTrouble>,
}

/// Why a broker can't be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BrokerTrouble {
    /// As statuses have it.
    pub reason: ReasonCode,
    /// For people.
    pub message: String,
}

/// Answer to [`PutBrokers`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PutBrokersAnswer {}

/// What a gateway knows of a device that is being taken out of service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DecommissionView {
    /// Standard base64 of the proof that the device sent last, at most 512 bytes decoded. The gateway does not verify it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
    /// Why the device refused the order, in its words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The firmware of the device, whose session is established, knows no orders.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsupported: bool,
}

/// One line of `GET /v1/stream`. Without a token, or with one that the gateway can't resume, the stream begins with
/// `Snapshot`; every other line moves the token on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StreamEvent {
    /// All devices follow as `Device`, then `SnapshotEnd`. What was known before is void.
    Snapshot {
        /// Random for each start of the gateway.
        boot_id: String,
    },
    /// The snapshot is complete.
    SnapshotEnd {
        /// Where to resume.
        token: String,
    },
    /// The whole view of one device, new or changed.
    Device {
        /// Where to resume.
        token: String,
        /// What the gateway knows.
        device: Box<DeviceView>,
    },
    /// The gateway forgot the device.
    Forgotten {
        /// Where to resume.
        token: String,
        /// Which device.
        device: ObjectKey,
    },
    /// Nothing new; sent every few seconds so that both ends notice a broken connection.
    Idle {
        /// Where to resume.
        token: String,
    },
}

/// What a gateway knows of one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceView {
    /// Which device.
    pub device: ObjectKey,
    /// Whether a session is established.
    pub connected: bool,
    /// Epoch of that session or of the last one here.
    pub epoch: u64,
    /// Highest revision seen from the device or held for it; 0 if none.
    pub revision_seen: u64,
    /// Revision of the set that the gateway holds, if it has one.
    pub revision_held: Option<u64>,
    /// Revision that the device last reported to work to.
    pub revision_reported: Option<u64>,
    /// Facts from its Hello.
    pub facts: Option<DeviceFacts>,
    /// From its last report of this session; absent until it reported.
    pub applications: Option<Vec<DeviceApplication>>,
    /// Of a device that is being taken out of service, once there is something to say. Older gateways say nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decommission: Option<DecommissionView>,
    /// Of settings. Older gateways say nothing of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<SettingsView>,
}

/// One line of an application's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// When the gateway received it, by the gateway's clock.
    pub time: UnixTime,
    /// Which device.
    pub device: ObjectKey,
    /// `namespace/name` of the Application, or its UID if the gateway does not know the name.
    pub application: String,
    /// Counts the application's lines on that device.
    pub sequence: u64,
    /// Lines of this application on that device that are missing just before this one.
    pub lines_lost: u32,
    /// The line.
    pub text: String,
    /// Counts all lines of the gateway since its start, which [`BOOT_ID_HEADER`] names: a reader that comes back knows by it
    /// what it has. Older gateways say nothing of it, nor of what follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Number of the device's start that wrote the line, or the highest known before if that start has none. Lines of a
    /// device are ordered by `boot`, `epoch` and `sequence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<u64>,
    /// Epoch of the session that brought it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
}

/// One message that an application published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MessageLine {
    /// When the gateway received it, by the gateway's clock.
    pub time: UnixTime,
    /// Which device.
    pub device: ObjectKey,
    /// `metadata.uid` of the Device; empty if the gateway did not know it.
    pub device_uid: String,
    /// `namespace/name` of the Application.
    pub application: String,
    /// UID of the Application.
    pub application_uid: String,
    /// Where it belongs, as the Application declares it.
    pub topic: String,
    /// Start of the device in which it was published. With `device_uid` and `sequence` it tells the message from every other: one
    /// that comes twice has the same.
    pub boot: u64,
    /// Counts the messages of all applications since that start: ascending for each application, with gaps.
    pub sequence: u64,
    /// Messages of this application that the device dropped just before this one.
    pub messages_lost: u32,
    /// Standard base64 of what it says.
    pub payload: String,
    /// The same as text, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Ascends over all messages of the gateway, also over its starts: a reader that comes back asks for what is after it.
    pub number: u64,
}

/// Devices in one [`PostMessage`].
pub const POST_MESSAGE_DEVICES_MAX: usize = 256;
/// Bytes of the body of one.
pub const POST_MESSAGE_BYTES_MAX: usize = 128 * 1_024;

/// A message for an application on some devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostMessage {
    /// Of the Application and the Devices.
    pub namespace: String,
    /// Name of the Application.
    pub application: String,
    /// Names of the Devices, at most 256.
    pub devices: Vec<String>,
    /// Where it belongs, as the Application declares it with `direction: In`.
    pub topic: String,
    /// Standard base64 of what it says, at most 1,024 bytes.
    pub payload: String,
}

/// What became of a message, on each device that was named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PostMessageAnswer {
    /// In the order of the call.
    pub devices: Vec<MessageDelivered>,
}

/// What became of a message for one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MessageDelivered {
    /// Name of the Device.
    pub device: String,
    /// What became of it there.
    pub delivered: Delivered,
}

/// What became of a message for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Delivered {
    /// It is in the application's mailbox.
    Taken,
    /// The mailbox is full, or the topic's rate is used up.
    NoRoom,
    /// The Application does not declare the topic with `direction: In`.
    UnknownTopic,
    /// The application does not run there now.
    NotRunning,
    /// The device's set does not have the Application.
    UnknownApplication,
    /// The device has no session with this gateway.
    NotConnected,
    /// The device's firmware takes no messages.
    Unsupported,
    /// As many messages as a device may have not answered are with it.
    Busy,
    /// The device did not answer in time, or its session ended before: it may have the message or not.
    Unanswered,
    /// One of a later version.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

impl Delivered {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Taken => "Taken",
            Self::NoRoom => "NoRoom",
            Self::UnknownTopic => "UnknownTopic",
            Self::NotRunning => "NotRunning",
            Self::UnknownApplication => "UnknownApplication",
            Self::NotConnected => "NotConnected",
            Self::Unsupported => "Unsupported",
            Self::Busy => "Busy",
            Self::Unanswered => "Unanswered",
            Self::Unknown => "Unknown",
        }
    }
}

/// Settings of applications on some devices. Idempotent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PutSettings {
    /// `leaseTransitions` of the leader's Lease: a lower one than seen is refused.
    pub leader_term: u64,
    /// At most [`SETTINGS_PER_PUT_MAX`].
    pub devices: Vec<DeviceSettings>,
}

/// Devices in one PUT of settings, so that a body stays under the gateway's bound.
pub const SETTINGS_PER_PUT_MAX: usize = 256;
/// Body of one PUT of settings, bytes.
pub const PUT_SETTINGS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A revision of settings has the leader's term above so many bits, in which that leader counts.
pub const SETTINGS_REVISION_TERM_BITS: u32 = 32;

/// The settings of all applications of one device: of those that are left out nothing is said to the device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceSettings {
    /// Which device.
    pub device: ObjectKey,
    /// Higher than any before of this device, when the content changes.
    pub revision: u64,
    /// At most `wasmbed_protocol::limits::DESIRED_MAX`.
    pub applications: Vec<ApplicationSettings>,
}

/// The settings of one application.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApplicationSettings {
    /// UID of the Application, hyphenated.
    pub application_uid: String,
    /// Standard base64 of the encoded `wasmbed_protocol::SettingValues`: all that are not defaults.
    pub values: String,
}

/// Answer to [`PutSettings`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PutSettingsAnswer {
    /// The devices whose settings were not taken; all others are on the gateway's disk.
    pub refused: Vec<SettingsRefusal>,
}

/// Settings that were not taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SettingsRefusal {
    /// Which device.
    pub device: ObjectKey,
    /// For people.
    pub message: String,
}

/// What a gateway knows of a device's settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SettingsView {
    /// Revision of those that it holds, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_held: Option<u64>,
    /// The highest that the device named; 0 if it named none since its start.
    #[serde(default)]
    pub revision_answered: u64,
}

/// The value of a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SettingScalar {
    /// Of a `bool`.
    Boolean(bool),
    /// Of an `int`.
    Integer(i64),
    /// Of a `text`.
    Text(String),
}

impl SettingScalar {
    /// A value with nothing in it that acts on a terminal.
    #[must_use]
    pub fn of(value: SettingValue<'_>) -> Self {
        match value {
            SettingValue::Boolean(value) => Self::Boolean(value),
            SettingValue::Integer(value) => Self::Integer(value),
            SettingValue::Text(value) => Self::Text(harmless(value, SETTING_TEXT_BYTES_MAX).into()),
        }
    }
}

impl fmt::Display for SettingScalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
        }
    }
}

/// The settings of an application on devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SettingsReport {
    /// By name.
    pub devices: Vec<DeviceSettingsReport>,
    /// There may be more after this name: to be asked for with `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continue_after: Option<String>,
}

/// The settings of an application on one device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceSettingsReport {
    /// Name of the Device.
    pub device: String,
    /// Whether it has a session with this gateway.
    pub connected: bool,
    /// Its firmware knows no settings.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsupported: bool,
    /// Of the values that the gateway has for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Of the values that the device answered last; 0 if it was given none since its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_answered: Option<u64>,
    /// When it answered, by the gateway's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_at: Option<UnixTime>,
    /// By name.
    pub settings: Vec<SettingReport>,
}

/// One setting of an application on a device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SettingReport {
    /// Names it.
    pub name: String,
    /// What it is to be; absent if that is its default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<SettingScalar>,
    /// What the device made of it, in its last answer: `Accepted`, `NoSchema`, `UnknownSetting`, `WrongType`, `OutOfRange`,
    /// `TooLong`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// What was in use then, if the module declares it to be reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<SettingScalar>,
}

/// In the answer to `GET /v1/logs`: random for each start of the gateway, since which [`LogLine::number`] counts.
pub const BOOT_ID_HEADER: &str = "wasmbed-boot-id";

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
    /// For a lower leader term: the highest seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_term: Option<u64>,
}
