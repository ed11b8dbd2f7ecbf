//! Application: a WebAssembly module, the devices it goes to, and its limits.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ReasonCode,
    peripherals::PeripheralGrants,
    schema::{
        self, BASE64_PATTERN, DIGEST_PATTERN, ENV_NAME_MAX, ENV_NAME_PATTERN, HASH_PATTERN,
        INLINE_MODULE_BASE64_MAX, MODULE_BASE64_MIN, NAME_MAX, NAME_PATTERN, NO_NUL_PATTERN,
        SECRET_KEY_PATTERN, TEXT_MAX, TOPIC_MAX, TOPIC_PATTERN, WORD_PATTERN,
    },
};

/// A WebAssembly module that is to run on devices.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "wasmbed.github.io",
    version = "v1alpha1",
    kind = "Application",
    namespaced,
    derive = "PartialEq",
    status = "ApplicationStatus",
    shortname = "wapp",
    category = "wasmbed",
    selectable = ".status.phase",
    selectable = ".spec.module",
    printcolumn = r#"{"name": "Phase", "type": "string", "jsonPath": ".status.phase"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.ready", "description": "devices that run it or ran it to its end, of all targets"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name": "Connected", "type": "integer", "jsonPath": ".status.counts.connected", "priority": 1}"#,
    printcolumn = r#"{"name": "Pending", "type": "integer", "jsonPath": ".status.counts.pending", "priority": 1}"#,
    printcolumn = r#"{"name": "Failed", "type": "integer", "jsonPath": ".status.counts.failed", "priority": 1}"#,
    printcolumn = r#"{"name": "Complete", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Complete\")].status", "priority": 1}"#,
    printcolumn = r#"{"name": "Succeeded", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Succeeded\")].status", "priority": 1}"#,
    printcolumn = r#"{"name": "Left out", "type": "integer", "jsonPath": ".status.counts.left_out", "description": "devices that are no targets: not approved, revoked, being decommissioned, or unschedulable", "priority": 1}"#,
    printcolumn = r#"{"name": "Digest", "type": "string", "jsonPath": ".status.module_digest", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.wasm_bytes) != has(self.module)",
    "message": "exactly one of wasm_bytes and module must be set",
}]))]
pub struct ApplicationSpec {
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = NAME_MAX))]
    pub name: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_MAX))]
    pub description: Option<String>,
    /// Standard base64 of the module, at most 128 KiB decoded. Either this or `module`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = MODULE_BASE64_MIN, max = INLINE_MODULE_BASE64_MAX), regex(pattern = BASE64_PATTERN))]
    pub wasm_bytes: Option<String>,
    /// Name of a Module in the same namespace. Either this or `wasm_bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = NAME_MAX), regex(pattern = NAME_PATTERN))]
    pub module: Option<String>,
    /// The devices it goes to; absent means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_devices: Option<TargetDevices>,
    /// Seconds that it has to run on a device without an end before that device counts as running it; absent or 0: none.
    /// The controller times it from the device's reports; a new leader begins anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MIN_READY_SECONDS_MAX))]
    pub min_ready_seconds: Option<i32>,
    /// Limits and surroundings.
    #[serde(default)]
    pub config: ApplicationConfig,
    /// Values of the settings that the module declares. A change reaches devices while the application goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<ApplicationSettings>,
}

/// Entries of `settings.overrides`.
const SETTING_OVERRIDES_MAX: u64 = 32;

/// Values of settings, by name: of a device over those of its labels over those of all over the module's defaults. They are no place
/// for secrets: who may read the Application or its devices' settings sees them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApplicationSettings {
    /// On all devices.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::setting_values")]
    pub values: BTreeMap<String, SettingScalar>,
    /// On some devices. An entry that names a device is over one whose selector matches it; of several of one kind the later is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = SETTING_OVERRIDES_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub overrides: Vec<SettingOverride>,
}

/// Values of settings on some devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.selector) != has(self.device_names)",
    "message": "exactly one of selector and device_names must be set",
}]))]
pub struct SettingOverride {
    /// Devices by label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub selector: Option<LabelSelector>,
    /// Devices by name, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = NAME_MAX), regex(pattern = NAME_PATTERN)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub device_names: Vec<String>,
    /// The values there.
    #[serde(default)]
    #[schemars(schema_with = "schema::setting_values")]
    pub values: BTreeMap<String, SettingScalar>,
}

/// A value as a person writes it; what it has to be the module says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SettingScalar {
    /// A number.
    Integer(i64),
    /// A text, or what stands for a number or for `true` and `false`.
    Text(String),
}

impl std::fmt::Display for SettingScalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
        }
    }
}

/// An hour: who wants to watch a change for longer wants a rollout in steps.
const MIN_READY_SECONDS_MAX: i32 = 3_600;

/// The union of both fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TargetDevices {
    /// Devices by name, at most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_000), inner(length(min = 1, max = NAME_MAX), regex(pattern = NAME_PATTERN)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub device_names: Vec<String>,
    /// Devices by label; an empty selector means all in the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub selector: Option<LabelSelector>,
}

/// Whether an application is started again after it ended. A device that is reset while it runs starts it again whatever
/// this says; once it has ended for good it stays so, also after a reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestartPolicy {
    /// Always.
    #[default]
    Always,
    /// Only after a failure.
    OnFailure,
    /// Never.
    Never,
    /// One of a later version; an Application with it is not sent.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Limits and surroundings of an application on a device.
///
/// `env` and `args` are bounded together, so that an assignment fits one frame of the device protocol. What `env_from` brings
/// is counted when it is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.env) ? self.env.map(name, size(name) + size(self.env[name])).sum() : 0) + (has(self.args) ? self.args.map(arg, size(arg)).sum() : 0) <= 1536",
    "message": "env and args together have at most 1536 characters",
}, {
    "rule": "!has(self.peripherals) || !has(self.peripherals.i2c) || (has(self.capabilities) && 'i2c' in self.capabilities)",
    "message": "peripherals.i2c needs the capability i2c",
}, {
    "rule": "!has(self.peripherals) || !has(self.peripherals.uart) || (has(self.capabilities) && 'uart' in self.capabilities)",
    "message": "peripherals.uart needs the capability uart",
}, {
    "rule": "!has(self.peripherals) || !has(self.peripherals.spi) || (has(self.capabilities) && 'spi' in self.capabilities)",
    "message": "peripherals.spi needs the capability spi",
}, {
    "rule": "!has(self.peripherals) || !has(self.peripherals.gpio) || (has(self.capabilities) && 'gpio' in self.capabilities)",
    "message": "peripherals.gpio needs the capability gpio",
}, {
    "rule": "!has(self.topics) || size(self.topics) == 0 || (has(self.capabilities) && self.capabilities.exists(name, name == 'messages'))",
    "message": "topics need messages among the capabilities",
}, {
    "rule": "!has(self.topics) || self.topics.map(topic, size(topic.name)).sum() <= 512",
    "message": "the names of all topics together have at most 512 characters",
}]))]
pub struct ApplicationConfig {
    /// Linear memory at most, bytes.
    #[serde(default = "memory_limit_default")]
    #[schemars(range(min = 0, max = 4_294_967_296_i64))]
    pub memory_limit: i64,
    /// CPU time between two waits at most, milliseconds.
    #[serde(default = "cpu_time_limit_default")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub cpu_time_limit: i64,
    /// Environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::environment")]
    pub env: BTreeMap<String, String>,
    /// Environment from Secrets of this namespace, read by the controller, which needs the namespace's permission: a RoleBinding
    /// of the ClusterRole wasmbed-secret-reader. A later entry takes precedence over an earlier one, and `env` over all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = ENV_FROM_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub env_from: Vec<EnvFrom>,
    /// Arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = TEXT_MAX), regex(pattern = NO_NUL_PATTERN)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub args: Vec<String>,
    /// After it ended.
    #[serde(default)]
    pub restart_policy: RestartPolicy,
    /// What it may use beyond the baseline: `gpio`, `sensor`, `key-value`, `i2c`, `spi`, `uart`, `messages`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 32), regex(pattern = WORD_PATTERN)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub capabilities: Vec<String>,
    /// Which of a device's buses, chips, UARTs and pins it may use, and how much of each.
    #[serde(default, skip_serializing_if = "PeripheralGrants::is_empty")]
    pub peripherals: PeripheralGrants,
    /// Where its messages may go: needs `messages` among the capabilities. A message to any other topic is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = TOPICS_MAX))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub topics: Vec<Topic>,
}

/// Entries of `topics`.
const TOPICS_MAX: u64 = 16;
/// Messages of a topic each second.
const TOPIC_PER_SECOND_MAX: i32 = 100;

/// A topic of an application.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Topic {
    /// Its name: levels of letters, digits, `.`, `_` and `-`, with slashes between them.
    #[schemars(length(min = 1, max = TOPIC_MAX), regex(pattern = TOPIC_PATTERN))]
    pub name: String,
    /// Which way its messages go.
    #[serde(default)]
    pub direction: TopicDirection,
    /// Its messages each second at most, on one device.
    #[serde(default = "per_second_default")]
    #[schemars(range(min = 1, max = TOPIC_PER_SECOND_MAX))]
    pub per_second: i32,
}

/// Which way the messages of a topic go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TopicDirection {
    /// From the application.
    #[default]
    Out,
    /// To the application.
    In,
    /// One of a later version; an Application with it is not sent.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

fn per_second_default() -> i32 {
    1
}

/// Entries of `env_from`.
const ENV_FROM_MAX: u64 = 16;

/// Environment variables from one Secret: all of its keys, or one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.secret_ref) != has(self.secret_key_ref)",
    "message": "exactly one of secret_ref and secret_key_ref must be set",
}, {
    "rule": "has(self.name) == has(self.secret_key_ref)",
    "message": "secret_key_ref needs the name of its variable, and secret_ref takes none",
}, {
    "rule": "!has(self.prefix) || has(self.secret_ref)",
    "message": "prefix belongs to secret_ref",
}]))]
pub struct EnvFrom {
    /// All keys of a Secret, each as a variable of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// Before each of those names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = ENV_NAME_MAX), regex(pattern = ENV_NAME_PATTERN))]
    pub prefix: Option<String>,
    /// One key of a Secret, as the variable `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
    /// The variable of `secret_key_ref`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = ENV_NAME_MAX), regex(pattern = ENV_NAME_PATTERN))]
    pub name: Option<String>,
}

impl EnvFrom {
    /// The Secret that it names; `None` only in an object that no schema checked.
    #[must_use]
    pub fn secret(&self) -> Option<&str> {
        let whole = self.secret_ref.as_ref().map(|secret| secret.name.as_str());
        whole.or(self.secret_key_ref.as_ref().map(|secret| secret.name.as_str()))
    }
}

/// A Secret of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// Its name.
    #[schemars(length(min = 1, max = NAME_MAX), regex(pattern = NAME_PATTERN))]
    pub name: String,
    /// Whether it may be missing: it then gives no variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// A key of a Secret of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = NAME_MAX), regex(pattern = NAME_PATTERN))]
    pub name: String,
    /// The key within it.
    #[schemars(length(min = 1, max = NAME_MAX), regex(pattern = SECRET_KEY_PATTERN))]
    pub key: String,
    /// Whether the Secret or the key may be missing: there is no such variable then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

impl Default for ApplicationConfig {
    fn default() -> Self {
        Self {
            memory_limit: memory_limit_default(),
            cpu_time_limit: cpu_time_limit_default(),
            env: BTreeMap::new(),
            env_from: Vec::new(),
            args: Vec::new(),
            restart_policy: RestartPolicy::default(),
            capabilities: Vec::new(),
            peripherals: PeripheralGrants::default(),
            topics: Vec::new(),
        }
    }
}

fn memory_limit_default() -> i64 {
    65_536
}

fn cpu_time_limit_default() -> i64 {
    1_000
}

/// Where an application is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ApplicationPhase {
    /// Nothing decided yet, or nothing to go to.
    #[default]
    Pending,
    /// Sent, not yet reported by all connected targets; or ended on some and still to come to those that are away.
    Deploying,
    /// Every connected target runs it.
    Running,
    /// Every target ran it to its end with exit code 0, and `restart_policy` has it not started again.
    Completed,
    /// It runs on some and failed on some, or an earlier generation runs and this one can't.
    Degraded,
    /// It runs nowhere, and something failed.
    Failed,
    /// Being deleted.
    Terminating,
    /// A phase of a later version.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// What devices reported of an application, counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApplicationStatus {
    /// Derived from the conditions and counts, for people.
    #[serde(default)]
    pub phase: ApplicationPhase,
    /// The generation that this status speaks of.
    #[serde(default, rename = "observedGeneration", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// `sha256:` and 64 hex digits of the module of that generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = DIGEST_PATTERN))]
    pub module_digest: Option<String>,
    /// 64 hex digits of the assignment of that generation: what devices report that run it. A controller that can't work it
    /// out, since the Module is gone, takes it from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = HASH_PATTERN))]
    pub spec_hash: Option<String>,
    /// Devices.
    #[serde(default)]
    pub counts: ApplicationCounts,
    /// Targets that run it or ran it to its end, a slash, and all targets; for the printer column.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 21))]
    pub ready: String,
    /// At most 50, by device name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
    pub failures: Vec<ApplicationFailure>,
    /// `Ready`, `Complete`, `Reconciling`, `Stalled`, and `Succeeded` unless `restart_policy` is `Always`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Numbers of devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct ApplicationCounts {
    /// Named or selected, existing, and not left out.
    #[schemars(range(min = 0))]
    pub targets: i32,
    /// Of the targets: with a session.
    #[schemars(range(min = 0))]
    pub connected: i32,
    /// Of the targets: reported this generation as running, and that for `min_ready_seconds`.
    #[schemars(range(min = 0))]
    pub running: i32,
    /// Of the targets: ran this generation to its end with exit code 0, and do not start it again.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub succeeded: i32,
    /// Of the targets: on their way to this generation.
    #[schemars(range(min = 0))]
    pub pending: i32,
    /// Of the targets: refused before sending, or reported as failed or crash-looping.
    #[schemars(range(min = 0))]
    pub failed: i32,
    /// Named, but no such Device exists.
    #[schemars(range(min = 0))]
    pub missing: i32,
    /// Named or selected, and in none of the other numbers: not approved, revoked, being decommissioned, or unschedulable
    /// without having it.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub left_out: i32,
}

/// One device on which an application failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct ApplicationFailure {
    /// Name of the Device.
    #[schemars(length(min = 1, max = NAME_MAX))]
    pub device: String,
    /// Why.
    pub reason: ReasonCode,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = TEXT_MAX))]
    pub message: String,
}
