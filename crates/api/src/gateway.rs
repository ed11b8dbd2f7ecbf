//! DeviceGateway: one per gateway process, written by it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{self, ADDRESS_PATTERN, TIME_MAX};

/// A process that holds devices' connections.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "wasmbed.github.io",
    version = "v1alpha1",
    kind = "DeviceGateway",
    namespaced,
    derive = "PartialEq",
    status = "DeviceGatewayStatus",
    shortname = "wgw",
    category = "wasmbed",
    printcolumn = r#"{"name": "Address", "type": "string", "jsonPath": ".spec.address"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name": "Connected", "type": "integer", "jsonPath": ".status.connected"}"#,
    printcolumn = r#"{"name": "Max", "type": "integer", "jsonPath": ".status.connections_max", "priority": 1}"#,
    printcolumn = r#"{"name": "Modules", "type": "integer", "jsonPath": ".status.modules", "priority": 1}"#,
    printcolumn = r#"{"name": "Lag-ms", "type": "integer", "jsonPath": ".status.write_lag_ms", "description": "age of the oldest status write that waits", "priority": 1}"#,
    printcolumn = r#"{"name": "Version", "type": "string", "jsonPath": ".status.version", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
pub struct DeviceGatewaySpec {
    /// `host:port` at which controllers and devices reach it.
    #[schemars(length(min = 3, max = 263), regex(pattern = ADDRESS_PATTERN))]
    pub address: String,
}

/// What a gateway says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceGatewayStatus {
    /// Random for each start of the process, 32 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = "^[0-9a-f]{32}$"))]
    pub boot_id: Option<String>,
    /// Standing sessions.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub connected: i32,
    /// Sessions it accepts at most.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub connections_max: i32,
    /// Modules held on disk.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub modules: i32,
    /// Age of the oldest status write that still waits, milliseconds.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub write_lag_ms: i64,
    /// RFC 3339 time of this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TIME_MAX), extend("format" = "date-time"))]
    pub observed_at: Option<String>,
    /// Version of the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub version: Option<String>,
    /// `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
