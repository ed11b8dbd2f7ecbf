//! Module: immutable bytes, apart from Applications so that a status write never rewrites them.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{BASE64_PATTERN, DIGEST_PATTERN, MODULE_BASE64_MAX, MODULE_BASE64_MIN, TEXT_MAX};

/// A WebAssembly module of up to 1 MiB. Immutable.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "wasmbed.github.io",
    version = "v1alpha1",
    kind = "Module",
    namespaced,
    derive = "PartialEq",
    shortname = "wmod",
    category = "wasmbed",
    printcolumn = r#"{"name": "Digest", "type": "string", "jsonPath": ".spec.digest"}"#,
    printcolumn = r#"{"name": "Description", "type": "string", "jsonPath": ".spec.description", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self == oldSelf",
    "message": "a Module is immutable: create one of another name and point the Application to it",
}]))]
pub struct ModuleSpec {
    /// Standard base64 of the module, at most 1 MiB decoded.
    #[schemars(length(min = MODULE_BASE64_MIN, max = MODULE_BASE64_MAX), regex(pattern = BASE64_PATTERN))]
    pub wasm_bytes: String,
    /// `sha256:` and 64 hex digits; if given, the bytes must match it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = DIGEST_PATTERN))]
    pub digest: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_MAX))]
    pub description: Option<String>,
}
