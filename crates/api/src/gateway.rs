//! DeviceGateway: one per gateway process, written by it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A process that holds devices' connections.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "wasmbed.github.io",
    version = "v1alpha1",
    kind = "DeviceGateway",
    namespaced,
    status = "DeviceGatewayStatus",
    shortname = "wgw",
    category = "wasmbed"
)]
pub struct DeviceGatewaySpec {
    /// `host:port` at which controllers and devices reach it.
    pub address: String,
}

/// What a gateway says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceGatewayStatus {
    /// Random for each start of the process, 32 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Standing sessions.
    #[serde(default)]
    pub connected: i32,
    /// Sessions it accepts at most.
    #[serde(default)]
    pub connections_max: i32,
    /// Modules held on disk.
    #[serde(default)]
    pub modules: i32,
    /// Age of the oldest status write that still waits, milliseconds.
    #[serde(default)]
    pub write_lag_ms: i64,
    /// RFC 3339 time of this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<String>,
    /// Version of the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
