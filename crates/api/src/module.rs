//! Module: immutable bytes, apart from Applications so that a status write never rewrites them.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A WebAssembly module of up to 1 MiB. Immutable.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "wasmbed.github.io",
    version = "v1alpha1",
    kind = "Module",
    namespaced,
    shortname = "wmod",
    category = "wasmbed"
)]
pub struct ModuleSpec {
    /// Standard base64 of the module, at most 1 MiB decoded.
    pub wasm_bytes: String,
    /// `sha256:` and 64 hex digits; if given, the bytes must match it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}
