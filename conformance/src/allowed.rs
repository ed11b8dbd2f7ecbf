//! Differences that may be, by name and with a reason.

use std::path::Path;

use anyhow::Result;
use serde::Deserialize;

/// One way in which the embedded server is not like the real one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowed {
    /// As cases name it.
    pub name: String,
    /// What the embedded server does.
    pub what: String,
    /// Why that may be.
    pub why: String,
}

/// All of them, from `allowed.yaml`.
///
/// # Errors
/// When the file can't be read.
pub fn load() -> Result<Vec<Allowed>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("allowed.yaml");
    Ok(serde_saphyr::from_str(&std::fs::read_to_string(path)?)?)
}

/// The table in `docs/kubernetes-api.md`.
pub fn table(allowed: &[Allowed]) -> String {
    let mut table = String::from("| difference | what the embedded server does | why |\n|---|---|---|\n");
    for one in allowed {
        table.push_str(&format!("| `{}` | {} | {} |\n", one.name, one.what.trim(), one.why.trim()));
    }
    table
}
