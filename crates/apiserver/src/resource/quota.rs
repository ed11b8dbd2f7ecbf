//! ResourceQuotas beyond their schema, as in Kubernetes (`pkg/apis/core/validation`).

use std::borrow::Cow;

use serde_json::{Value, json};
use wasmbed_quantity::Quantity;

use super::request::Part;
use crate::kinds::Kind;
use crate::names;
use crate::status::{Cause, Status};

/// Where quantities are: below `spec` or `status`.
const MAPS: [(&str, &str); 3] = [("spec", "hard"), ("status", "hard"), ("status", "used")];
/// What Kubernetes counts by these short names.
const COUNTS: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
/// What it measures.
const MEASURES: [&str; 10] = [
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
];
/// A resource that quotas can't bound.
const NO_QUOTA: &str = "storage";
/// Prefixes of huge pages, whose sizes follow.
const HUGE_PAGES: [&str; 2] = ["hugepages-", "requests.hugepages-"];
/// The domain of Kubernetes' own resources.
const NATIVE: &str = "kubernetes.io/";
/// What a pod's request of a resource is named after.
const REQUESTS: &str = "requests.";

/// Writes quantities in their canonical form.
pub(super) fn canonicalize(kind: &Kind, object: &mut Value) -> Result<(), Status> {
    if !kind.is_resource_quota() {
        return Ok(());
    }
    for (part, map) in MAPS {
        let Some(fields) = object.get_mut(part).and_then(Value::as_object_mut) else { continue };
        for (name, value) in fields.get_mut(map).and_then(Value::as_object_mut).into_iter().flatten() {
            let text = match &*value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                // Left to the schema to refuse.
                _ => continue,
            };
            let quantity = Quantity::parse(&text).map_err(|why| {
                Status::bad_request(format!(
                    "{0} in version {1:?} cannot be handled as a {0}: {part}.{map}[{name}]: {why}",
                    kind.kind, kind.version
                ))
            })?;
            *value = quantity.rounded_to_millis().as_str().into();
        }
        if fields.get(map).and_then(Value::as_object).is_some_and(serde_json::Map::is_empty) {
            fields.remove(map);
        }
    }
    Ok(())
}

/// A configuration that is applied, with its quantities in their canonical form.
pub(super) fn canonical<'a>(kind: &Kind, configuration: &'a Value) -> Result<Cow<'a, Value>, Status> {
    let mut configuration = Cow::Borrowed(configuration);
    if kind.is_resource_quota() {
        canonicalize(kind, configuration.to_mut())?;
    }
    Ok(configuration)
}

/// A new quota has a status in which nothing stands yet.
pub(super) fn complete(kind: &Kind, object: &mut Value) {
    if kind.is_resource_quota() {
        object["status"] = json!({});
    }
}

/// Validates a ResourceQuota beyond its schema; objects of other kinds are valid.
pub(super) fn validate(kind: &Kind, object: &Value, part: Part) -> Vec<Cause> {
    if !kind.is_resource_quota() {
        return Vec::new();
    }
    let mut causes = Vec::new();
    for (below, map) in MAPS {
        // What a request can't change was valid before.
        if (below == "status") != (part == Part::Status) {
            continue;
        }
        for (name, value) in object[below][map].as_object().into_iter().flatten() {
            let field = format!("{below}.{map}[{name}]");
            check_name(name, &field, &mut causes);
            check_value(name, value, &field, &mut causes);
        }
    }
    let spec = &object["spec"];
    let scopes = spec["scopes"].as_array().map_or(&[][..], Vec::as_slice);
    for _ in scopes {
        causes.push(Cause::invalid("spec.scopes", &json!(scopes).to_string(), "unsupported scope"));
    }
    let selected = spec["scopeSelector"]["matchExpressions"].as_array().map_or(&[][..], Vec::as_slice);
    for requirement in selected {
        let scope = requirement["scopeName"].to_string();
        let field = "spec.scopeSelector.matchExpressions.scopeName";
        causes.push(Cause::invalid(field, &scope, "unsupported scope"));
    }
    causes
}

fn check_name(name: &str, field: &str, causes: &mut Vec<Cause>) {
    let mut wrong = |why: &str| causes.push(Cause::invalid(field, &json!(name).to_string(), why));
    let unqualified = names::key(name);
    unqualified.iter().for_each(|why| wrong(why));
    if name.contains('/') || is_bounded(name) {
        return;
    }
    if unqualified.is_empty() && name != NO_QUOTA {
        wrong("must be a standard resource type or fully qualified");
    }
    wrong("must be a standard resource for quota");
}

/// Whether a name without a domain is one that quotas bound.
fn is_bounded(name: &str) -> bool {
    COUNTS.contains(&name)
        || MEASURES.contains(&name)
        || HUGE_PAGES.iter().any(|prefix| name.starts_with(prefix))
}

fn check_value(name: &str, value: &Value, field: &str, causes: &mut Vec<Cause>) {
    // What is none was refused before.
    let Some(Ok(quantity)) = value.as_str().map(Quantity::parse) else { return };
    let shown = json!(quantity.as_str()).to_string();
    if quantity.nanos() < 0 {
        causes.push(Cause::invalid(field, &shown, "must be greater than or equal to 0"));
    }
    let is_extended = name.contains('/')
        && !name.contains(NATIVE)
        && !name.starts_with(REQUESTS)
        && names::key(&format!("{REQUESTS}{name}")).is_empty();
    if (COUNTS.contains(&name) || is_extended) && !quantity.is_whole() {
        causes.push(Cause::invalid(field, &shown, "must be an integer"));
    }
}
