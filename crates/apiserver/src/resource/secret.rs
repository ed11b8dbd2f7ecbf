//! Secrets beyond their schema, as in Kubernetes (`pkg/apis/core/validation`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::status::{Cause, Status};

/// Bytes of the values of one Secret.
const DATA_BYTES_MAX: usize = 1024 * 1024;
/// Characters of a key.
const KEY_MAX: usize = 253;
/// The service account that a token is of.
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const SET: &str = "field is immutable when `immutable` is set";

/// The type of what has none.
const OPAQUE: &str = "Opaque";

/// Brings values into one form: base64 without line breaks, and text among them. Names the type.
pub(super) fn canonicalize(kind: &Kind, object: &mut Value) -> Result<(), Status> {
    let Some(fields) = object.as_object_mut().filter(|_| kind.is_secret()) else { return Ok(()) };
    for (key, value) in fields.get_mut("data").and_then(Value::as_object_mut).into_iter().flatten() {
        let Value::String(text) = value else { continue };
        text.retain(|c| !matches!(c, '\r' | '\n'));
        if STANDARD.decode(text.as_bytes()).is_err() {
            return Err(Status::bad_request(format!(
                "{0} in version {1:?} cannot be handled as a {0}: data.{key} must be in base64",
                kind.kind, kind.version
            )));
        }
    }
    // A value that is no text is left to the schema to refuse.
    let is_text = |texts: &Value| texts.as_object().is_some_and(|texts| texts.values().all(Value::is_string));
    if fields.get("stringData").is_some_and(is_text)
        && let Some(Value::Object(texts)) = fields.remove("stringData")
    {
        let data = fields.entry("data").or_insert_with(|| json!({}));
        for (key, text) in texts {
            data[key] = STANDARD.encode(text.as_str().unwrap_or_default()).into();
        }
    }
    if fields.get("type").is_none_or(|ty| ty.is_null() || ty == "") {
        fields.insert("type".into(), OPAQUE.into());
    }
    for name in ["data", "stringData"] {
        if fields.get(name).and_then(Value::as_object).is_some_and(serde_json::Map::is_empty) {
            fields.remove(name);
        }
    }
    Ok(())
}

/// Validates a Secret beyond its schema; objects of other kinds are valid.
pub(super) fn validate(kind: &Kind, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    if !kind.is_secret() {
        return Vec::new();
    }
    let mut causes = Vec::new();
    if let Some(old) = old {
        validate_change(old, object, &mut causes);
    }
    let mut bytes = 0;
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        check_key(key, &mut causes);
        bytes += decoded(value).len();
    }
    if bytes > DATA_BYTES_MAX {
        let why = format!("Too long: may not be more than {DATA_BYTES_MAX} bytes");
        causes.push(Cause::new("FieldValueTooLong", "data", why));
    }
    check_type(object, &mut causes);
    causes
}

fn validate_change(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    if new["type"] != old["type"] {
        causes.push(Cause::invalid("type", &new["type"].to_string(), "field is immutable"));
    }
    if old["immutable"] == true {
        if new["immutable"] != true {
            causes.push(Cause::forbidden("immutable", SET));
        }
        if new["data"] != old["data"] {
            causes.push(Cause::forbidden("data", SET));
        }
    }
}

fn decoded(value: &Value) -> Vec<u8> {
    // What isn't base64 was refused before.
    STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default()
}

fn check_key(key: &str, causes: &mut Vec<Cause>) {
    let mut wrong = |why: &str| {
        causes.push(Cause::invalid(&format!("data[{key}]"), &json!(key).to_string(), why));
    };
    if key.len() > KEY_MAX {
        wrong("must be no more than 253 characters");
    }
    let is_key = |key: &str| {
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    if !is_key(key) {
        wrong(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        );
    }
    match key {
        "." => wrong("must not be '.'"),
        ".." => wrong("must not be '..'"),
        _ if key.starts_with("..") => wrong("must not start with '..'"),
        _ => {}
    }
}

/// What the types of Kubernetes need.
fn check_type(object: &Value, causes: &mut Vec<Cause>) {
    let data = &object["data"];
    let is_there = |key: &str| data.get(key).is_some();
    let required = |key: &str| Cause::required(&format!("data[{key}]"), "");
    let annotation = format!("metadata.annotations[{ACCOUNT}]");
    let account = object["metadata"]["annotations"][ACCOUNT].as_str().unwrap_or_default();
    match object["type"].as_str().unwrap_or_default() {
        "kubernetes.io/service-account-token" if account.is_empty() => {
            causes.push(Cause::required(&annotation, ""));
        }
        "kubernetes.io/dockercfg" => check_document(data, ".dockercfg", causes),
        "kubernetes.io/dockerconfigjson" => check_document(data, ".dockerconfigjson", causes),
        "kubernetes.io/basic-auth" if !is_there("username") && !is_there("password") => {
            causes.extend([required("username"), required("password")]);
        }
        "kubernetes.io/ssh-auth" if decoded(&data["ssh-privatekey"]).is_empty() => {
            causes.push(required("ssh-privatekey"));
        }
        "kubernetes.io/tls" => {
            causes.extend(["tls.crt", "tls.key"].into_iter().filter(|key| !is_there(key)).map(required));
        }
        _ => {}
    }
}

/// A value that is JSON.
fn check_document(data: &Value, key: &str, causes: &mut Vec<Cause>) {
    let field = format!("data[{key}]");
    match data.get(key) {
        None => causes.push(Cause::required(&field, "")),
        Some(value) => {
            if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&decoded(value)) {
                // The value is a secret.
                causes.push(Cause::invalid(&field, "\"<secret contents redacted>\"", error));
            }
        }
    }
}
