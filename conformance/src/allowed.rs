//! Accepted differences, by name and with a reason.

use std::path::Path;

use anyhow::Result;
use serde::Deserialize;

/// One way in which the embedded server differs from the real one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowed {
    /// Its name in cases.
    pub name: String,
    /// What the embedded server does.
    pub what: String,
    /// Why that is accepted.
    pub why: String,
    /// Suffixes of JSON pointers at which it may occur in any answer; elsewhere cases name it.
    #[serde(default)]
    pub everywhere: Vec<String>,
}

impl Allowed {
    /// Whether it accepts a difference at this JSON pointer.
    pub fn is_at(&self, at: &str) -> bool {
        let segments: Vec<&str> = at.split('/').collect();
        self.everywhere.iter().any(|end| {
            let end: Vec<&str> = end.split('/').collect();
            let start = segments.len().checked_sub(end.len());
            start.is_some_and(|start| {
                segments.iter().skip(start).zip(&end).all(|(found, wanted)| *wanted == "*" || found == wanted)
            })
        })
    }
}

/// Reads `allowed.yaml`.
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
