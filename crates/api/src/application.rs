//! Application: a WebAssembly module, the devices it goes to, and its limits.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ReasonCode;

/// A WebAssembly module that is to run on devices.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "wasmbed.github.io",
    version = "v1alpha1",
    kind = "Application",
    namespaced,
    status = "ApplicationStatus",
    shortname = "wapp",
    category = "wasmbed"
)]
pub struct ApplicationSpec {
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Standard base64 of the module, at most 128 KiB decoded. Either this or `module`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wasm_bytes: Option<String>,
    /// Name of a Module in the same namespace. Either this or `wasm_bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// The devices it goes to; absent means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_devices: Option<TargetDevices>,
    /// Limits and surroundings.
    #[serde(default)]
    pub config: ApplicationConfig,
}

/// The union of both fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TargetDevices {
    /// Devices by name, at most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_names: Vec<String>,
    /// Devices by label; an empty selector means all in the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// Whether an application is started again after it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestartPolicy {
    /// Always.
    #[default]
    Always,
    /// Only after a failure.
    OnFailure,
    /// Never.
    Never,
}

/// Limits and surroundings of an application on a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApplicationConfig {
    /// Linear memory at most, bytes.
    #[serde(default = "memory_limit_default")]
    pub memory_limit: i64,
    /// CPU time between two waits at most, milliseconds.
    #[serde(default = "cpu_time_limit_default")]
    pub cpu_time_limit: i64,
    /// Environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// After it ended.
    #[serde(default)]
    pub restart_policy: RestartPolicy,
    /// What it may use beyond the baseline: `gpio`, `sensor`, `key-value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
}

impl Default for ApplicationConfig {
    fn default() -> Self {
        Self {
            memory_limit: memory_limit_default(),
            cpu_time_limit: cpu_time_limit_default(),
            env: BTreeMap::new(),
            args: Vec::new(),
            restart_policy: RestartPolicy::default(),
            capabilities: Vec::new(),
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApplicationPhase {
    /// Nothing decided yet, or nothing to go to.
    #[default]
    Pending,
    /// Sent, not yet reported by all connected targets.
    Deploying,
    /// Every connected target runs it.
    Running,
    /// It runs on some and failed on some.
    Degraded,
    /// It runs nowhere, and something failed.
    Failed,
    /// Being deleted.
    Terminating,
}

/// What devices reported of an application, counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApplicationStatus {
    /// Derived from the conditions and counts, for people.
    #[serde(default)]
    pub phase: ApplicationPhase,
    /// The generation that this status speaks of.
    #[serde(default, rename = "observedGeneration", skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `sha256:` and 64 hex digits of the module of that generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module_digest: Option<String>,
    /// Devices.
    #[serde(default)]
    pub counts: ApplicationCounts,
    /// `RUNNING/TARGETS`, for the printer column.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ready: String,
    /// At most 50, by device name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<ApplicationFailure>,
    /// `Ready`, `Complete`, `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Numbers of devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApplicationCounts {
    /// Named or selected, and existing.
    pub targets: i32,
    /// Of the targets: with a session.
    pub connected: i32,
    /// Of the targets: reported this generation as running or completed.
    pub running: i32,
    /// Of the targets: on their way to this generation.
    pub pending: i32,
    /// Of the targets: refused before sending, or reported as failed or crash-looping.
    pub failed: i32,
    /// Named, but no such Device exists.
    pub missing: i32,
}

/// One device on which an application failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApplicationFailure {
    /// Name of the Device.
    pub device: String,
    /// Why.
    pub reason: ReasonCode,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
