//! Requests as data: `corpus/*.yaml`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// `send` of a step that is not a request: the server loses its history.
pub(crate) const FORGET: &str = "FORGET";

/// A sequence of requests with variables and a namespace of its own, `{ns}`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What the case tests.
    #[serde(rename = "case")]
    pub name: String,
    /// The requests, in order.
    pub steps: Vec<Step>,
}

/// One request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// `METHOD path?query`; or `FORGET`: the server drops its caches and all versions but the newest, as it does in time.
    pub send: String,
    /// User that sends it.
    #[serde(rename = "as", default)]
    pub user: User,
    /// Further headers; `content-type` is `application/json` by default if there is a body.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body, as JSON.
    pub body: Option<Value>,
    /// The body, as text.
    pub text: Option<String>,
    /// Events of a watch that are read before it is closed, unless the server ends it before.
    pub watch: Option<usize>,
    /// Values of the answer for later steps: variable to JSON pointer within the body.
    #[serde(default)]
    pub save: BTreeMap<String, String>,
    /// The request is repeated until it is answered with this code, and the last answer counts.
    pub until: Option<u16>,
    /// How often the request is sent, with `{i}` counting from 0.
    pub times: Option<u32>,
    /// Accepted differences: name in `allowed.yaml` to JSON pointers within the answer (`/code`, `/headers/…`,
    /// `/body/…`).
    #[serde(default)]
    pub allow: BTreeMap<String, Vec<String>>,
}

/// Users and their groups.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum User {
    /// In `system:masters`.
    #[default]
    Admin,
    /// In `wasmbed:gateways`.
    Gateway,
    /// In `wasmbed:controllers`.
    Controller,
    /// In `wasmbed:signers`.
    Signer,
    /// In a group without permissions.
    Nobody,
}

impl Case {
    /// Whether it restarts a server: it can't run concurrently with others.
    #[must_use]
    pub fn forgets(&self) -> bool {
        self.steps.iter().any(|step| step.send == FORGET)
    }
}

impl User {
    /// All of them.
    pub const ALL: [User; 5] = [User::Admin, User::Gateway, User::Controller, User::Signer, User::Nobody];

    /// Common name and organisation of the user's certificate.
    pub fn subject(self) -> (&'static str, &'static str) {
        match self {
            User::Admin => ("admin", "system:masters"),
            User::Gateway => ("gateway:gateway-1", "wasmbed:gateways"),
            User::Controller => ("controller:controller", "wasmbed:controllers"),
            User::Signer => ("signer:signer", "wasmbed:signers"),
            User::Nobody => ("nobody", "wasmbed:strangers"),
        }
    }
}

/// All cases, ordered by file.
///
/// # Errors
/// When a file can't be read, or two cases have one name.
pub fn load() -> Result<Vec<Case>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut files: Vec<_> =
        std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.sort();
    let mut cases: Vec<Case> = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|ext| ext == "yaml")) {
        let text = std::fs::read_to_string(file)?;
        let read: Vec<Case> =
            serde_saphyr::from_str(&text).with_context(|| format!("can't read {}", file.display()))?;
        for case in read {
            ensure!(cases.iter().all(|known| known.name != case.name), "two cases {:?}", case.name);
            cases.push(case);
        }
    }
    Ok(cases)
}

/// Replaces `{name}` by the value of each variable.
pub fn fill(text: &str, variables: &BTreeMap<String, String>) -> String {
    if !text.contains('{') {
        return text.to_owned();
    }
    variables.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

/// Replaces variables in all strings of a document, keys included.
pub fn fill_all(value: &Value, variables: &BTreeMap<String, String>) -> Value {
    match value {
        Value::String(text) => Value::String(fill(text, variables)),
        Value::Array(items) => items.iter().map(|item| fill_all(item, variables)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (fill(name, variables), fill_all(value, variables))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}
