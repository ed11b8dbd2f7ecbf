//! Device: one microcontroller, its identity and what was last seen of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ReasonCode,
    schema::{
        self, BASE64_PATTERN, DIGEST_PATTERN, HASH_PATTERN, NAME_MAX, NONCE_PATTERN, PAIRING_ID_PATTERN,
        SERIAL_PATTERN, TEXT_MAX, TIME_MAX, UID_PATTERN, WORD_PATTERN,
    },
};

/// A microcontroller that runs applications.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "wasmbed.github.io",
    version = "v1alpha1",
    kind = "Device",
    namespaced,
    derive = "PartialEq",
    status = "DeviceStatus",
    shortname = "wdev",
    category = "wasmbed",
    selectable = ".spec.approved",
    selectable = ".spec.revoked",
    selectable = ".spec.decommission",
    selectable = ".status.phase",
    selectable = ".status.gateway",
    printcolumn = r#"{"name": "Phase", "type": "string", "jsonPath": ".status.phase"}"#,
    printcolumn = r#"{"name": "Gateway", "type": "string", "jsonPath": ".status.gateway"}"#,
    printcolumn = r#"{"name": "Type", "type": "string", "jsonPath": ".spec.device_type"}"#,
    printcolumn = r#"{"name": "Heartbeat", "type": "date", "jsonPath": ".status.last_heartbeat", "description": "the last sign of life that was written; not every one is"}"#,
    printcolumn = r#"{"name": "Approved", "type": "boolean", "jsonPath": ".spec.approved", "priority": 1}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Connected\")].reason", "priority": 1}"#,
    printcolumn = r#"{"name": "Epoch", "type": "integer", "jsonPath": ".status.epoch", "priority": 1}"#,
    printcolumn = r#"{"name": "Board", "type": "string", "jsonPath": ".status.facts.board", "priority": 1}"#,
    printcolumn = r#"{"name": "Firmware", "type": "string", "jsonPath": ".status.facts.firmware", "priority": 1}"#,
    printcolumn = r#"{"name": "Memory", "type": "integer", "jsonPath": ".status.facts.memory_bytes", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(oldSelf.decommission) || !oldSelf.decommission || (has(self.decommission) && self.decommission)",
    "message": "decommission can't be taken back: delete the Device to have its device join as a new one",
}]))]
pub struct DeviceSpec {
    /// Board or product name, for people and selectors.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub device_type: String,
    /// What the device's owner says it can do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63), regex(pattern = WORD_PATTERN)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub capabilities: Vec<String>,
    /// Standard base64 of the DER SubjectPublicKeyInfo. Pins the device's key; if absent, the first key seen under a
    /// valid certificate is accepted each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 40, max = 1_024), regex(pattern = BASE64_PATTERN))]
    pub public_key: Option<String>,
    /// Serial of the factory certificate with which the device joins, if its name is not made from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = SERIAL_PATTERN))]
    pub serial: Option<String>,
    /// SHA-256 of the factory certificate's DER SubjectPublicKeyInfo, hexadecimal: no other factory key joins as this device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = HASH_PATTERN))]
    pub factory_key_hash: Option<String>,
    /// Id of the pairing token with which the device joins: the part of the token before the dot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), regex(pattern = PAIRING_ID_PATTERN))]
    pub pairing_id: Option<String>,
    /// SHA-256 of the DER SubjectPublicKeyInfo of the key that a person compared with what the device shows, hexadecimal. A device
    /// that joins without any proof gets a certificate for this key alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = HASH_PATTERN))]
    pub confirmed_key: Option<String>,
    /// Whether a person wants this device in the fleet.
    #[serde(default = "approved_default")]
    pub approved: bool,
    /// Keeps the device out for good.
    #[serde(default)]
    pub revoked: bool,
    /// Takes the device out of service: it gets no applications any more, erases what it has, its key last, and signs that it did.
    /// Can't be taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub decommission: bool,
    /// New applications are not placed here; those that run stay.
    #[serde(default)]
    pub unschedulable: bool,
}

fn approved_default() -> bool {
    true
}

/// Where a device is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DevicePhase {
    /// Never seen, or waiting for approval.
    #[default]
    Pending,
    /// Approved and seen; its session is not yet established.
    Enrolled,
    /// A gateway holds its session.
    Connected,
    /// Its session ended.
    Disconnected,
    /// The gateway that held its session is gone.
    Unreachable,
    /// It tried and was refused.
    Rejected,
    /// Its owner revoked it.
    Revoked,
    /// It was taken out of service and signed that it erased what it had.
    Decommissioned,
    /// A phase of a later version.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Ended applications remembered of one device beside its set. Each takes some 200 bytes, so that all stay well below what
/// the rest of a Device takes; beyond them, ended Applications have to be deleted before new ones find a place.
pub const FINISHED_MAX: usize = 64;

/// What was seen of a device; written by the gateway whose name and epoch stand in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceStatus {
    /// Derived from the conditions, for people.
    #[serde(default)]
    pub phase: DevicePhase,
    /// Name of the gateway that holds, or last held, the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = NAME_MAX))]
    pub gateway: Option<String>,
    /// Epoch of that session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub epoch: Option<i64>,
    /// RFC 3339 time of the last sign of life that was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TIME_MAX), extend("format" = "date-time"))]
    pub last_heartbeat: Option<String>,
    /// RFC 3339 time at which the session began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TIME_MAX), extend("format" = "date-time"))]
    pub connected_since: Option<String>,
    /// Revision of the desired set that the device works to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub revision: Option<i64>,
    /// The generation that the conditions speak of.
    #[serde(default, rename = "observedGeneration", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Facts from the device itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<DeviceFacts>,
    /// What runs there, as the device reported it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uid"]))]
    pub applications: Vec<DeviceApplication>,
    /// What ended here for good and left its place to another application, as the device last reported it. Written by the
    /// controller, which does not send it here again until its spec changes; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = FINISHED_MAX))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uid"]))]
    pub finished: Vec<DeviceApplication>,
    /// Standard base64 of the DER SubjectPublicKeyInfo that the signer certified last. It pins the device's key as
    /// `spec.public_key` does; only the signer writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 40, max = 1_024), regex(pattern = BASE64_PATTERN))]
    pub public_key: Option<String>,
    /// How far it is with `spec.decommission`; written by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decommission: Option<Decommission>,
    /// `Connected`, `Enrolled`; `CloneSuspected` and `KeyMismatch` once there was reason for them, `Decommissioned` once
    /// `spec.decommission` is set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// An order to take a device out of service, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Decommission {
    /// 32 hex digits, drawn once: the order carries it, and only a proof with it counts.
    #[schemars(length(max = 32), regex(pattern = NONCE_PATTERN))]
    pub nonce: String,
    /// RFC 3339 time at which it was drawn.
    #[schemars(length(max = TIME_MAX), extend("format" = "date-time"))]
    pub requested_at: String,
    /// RFC 3339 time at which the device's proof was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TIME_MAX), extend("format" = "date-time"))]
    pub confirmed_at: Option<String>,
    /// What the device signed to have erased. That its key is erased is not proven.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub erased: Vec<Erased>,
}

/// Something that a device erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Erased {
    /// What it was to run and the records of what it ran.
    Assignments,
    /// The modules of its applications.
    Modules,
    /// The key-value data of its applications.
    KeyValueData,
    /// Something that this version does not know.
    #[default]
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Facts about a device, as it stated them when its session began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct DeviceFacts {
    /// Board or host type.
    #[schemars(length(max = 64))]
    pub board: String,
    /// Firmware version.
    #[schemars(length(max = 64))]
    pub firmware: String,
    /// WebAssembly engine with its version.
    #[schemars(length(max = 64))]
    pub engine: String,
    /// Bytes of the applications' arena.
    #[schemars(range(min = 0))]
    pub memory_bytes: i64,
    /// Bytes of storage for modules and state.
    #[schemars(range(min = 0))]
    pub flash_bytes: i64,
    /// Bytes of arena per 1,000 bytes of a loaded module.
    #[schemars(range(min = 0))]
    pub load_permille: i32,
    /// The largest module accepted, bytes.
    #[schemars(range(min = 0))]
    pub module_bytes_max: i64,
    /// How many applications run at once.
    #[schemars(range(min = 0))]
    pub applications_max: i32,
    /// Operator groups beyond WebAssembly MVP, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 64)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub features: Vec<String>,
    /// Host functions as `module.name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512), inner(length(max = 129)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub host_functions: Vec<String>,
    /// Capabilities that this device can grant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 64)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub capabilities: Vec<String>,
    /// Buses and the like that it can grant by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub peripherals: Vec<DevicePeripheral>,
    /// Why it last started, with detail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 320))]
    pub reset_reason: Option<String>,
}

/// A bus or the like, which an Application is granted by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct DevicePeripheral {
    /// Its kind and its number: `i2c0`; of a chip select also that: `spi0.1`.
    #[schemars(length(max = 16))]
    pub name: String,
    /// What it is.
    pub kind: PeripheralKind,
    /// Whether there is only a program behind it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub simulated: bool,
}

/// What a peripheral is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PeripheralKind {
    /// An I2C bus.
    I2c,
    /// A UART.
    Uart,
    /// A pin.
    Gpio,
    /// A chip select of an SPI bus.
    Spi,
    /// Something that this version does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// State of one application on one device, in the device's own words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DeviceApplicationState {
    /// The assignment or the module is on its way.
    #[default]
    Pulling,
    /// Verified, about to be loaded.
    Starting,
    /// It runs.
    Running,
    /// It ended by itself and is not started again.
    Completed,
    /// It ended and is started again after a pause.
    CrashLoop,
    /// It can't run there.
    Failed,
    /// A state of a later firmware, or of a later gateway.
    #[serde(other)]
    Unknown,
}

/// One application on one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct DeviceApplication {
    /// UID of the Application.
    #[schemars(length(max = 36), regex(pattern = UID_PATTERN))]
    pub uid: String,
    /// Name of the Application (`namespace/name` or its name), if the gateway knows it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 320))]
    pub name: String,
    /// State as reported.
    pub state: DeviceApplicationState,
    /// Why, as reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ReasonCode>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = TEXT_MAX))]
    pub message: String,
    /// `sha256:` and 64 hex digits of the module that is loaded or was last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = DIGEST_PATTERN))]
    pub digest: Option<String>,
    /// 64 hex digits of the assignment that it runs.
    #[schemars(length(max = 64), regex(pattern = HASH_PATTERN))]
    pub spec_hash: String,
    /// Starts after the first one.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub restarts: i64,
    /// Arena bytes in use when this was written; a change of it alone writes nothing.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub memory_bytes: i64,
}
