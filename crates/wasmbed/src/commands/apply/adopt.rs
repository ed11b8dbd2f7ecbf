//! Objects that this command applied before it used server-side apply.
//!
//! It merged them itself then, as the manager of the same name with the operation `Update`. The API server takes that for another
//! writer: changes would conflict, and fields that a manifest leaves out would stay. So its fields are handed over, once.

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// Our name among the managers of an object.
pub(super) const FIELD_MANAGER: &str = "wasmbed-apply";

/// Hands the fields of our former self over to us, if there are any.
///
/// # Errors
/// What the API server answered; a conflict if the object changed meanwhile.
pub(super) async fn adopt(cluster: &Cluster, path: &str, object: &Value) -> Result<()> {
    let metadata = &object["metadata"];
    let Some(managers) = metadata["managedFields"].as_array().and_then(|managers| handed_over(managers))
    else {
        return Ok(());
    };
    let patch = json!([
        { "op": "test", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"] },
        { "op": "replace", "path": "/metadata/managedFields", "value": managers },
    ]);
    cluster.send(Method::PATCH, path, "application/json-patch+json", &patch).await.map(drop)
}

/// The managers with our updates as applied fields; none if there were no updates.
fn handed_over(managers: &[Value]) -> Option<Vec<Value>> {
    let is = |entry: &Value, operation: &str| {
        let ours = entry["manager"] == FIELD_MANAGER && entry["operation"] == operation;
        ours && entry["subresource"].as_str().is_none_or(str::is_empty)
    };
    let updates = managers.iter().find(|entry| is(entry, "Update"))?;
    let mut ours = managers.iter().find(|entry| is(entry, "Apply")).unwrap_or(updates).clone();
    ours["operation"] = json!("Apply");
    unite(&mut ours["fieldsV1"], &updates["fieldsV1"]);
    let others = managers.iter().filter(|entry| !is(entry, "Update") && !is(entry, "Apply"));
    Some(others.cloned().chain([ours]).collect())
}

/// Adds a set of fields (a tree of objects) to another.
fn unite(fields: &mut Value, more: &Value) {
    for (name, below) in more.as_object().into_iter().flatten() {
        match fields.get_mut(name) {
            Some(known) => unite(known, below),
            None => fields[name] = below.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, operation: &str, fields: Value) -> Value {
        json!({ "manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": fields })
    }

    #[test]
    fn updates_of_our_own_become_applied_fields() {
        let managers = [
            entry("kubectl", "Update", json!({ "f:spec": { "f:a": {} } })),
            entry(FIELD_MANAGER, "Update", json!({ "f:spec": { "f:b": {}, "f:c": {} } })),
            entry(FIELD_MANAGER, "Apply", json!({ "f:spec": { "f:c": {}, "f:d": {} } })),
        ];
        let wanted = [
            entry("kubectl", "Update", json!({ "f:spec": { "f:a": {} } })),
            entry(FIELD_MANAGER, "Apply", json!({ "f:spec": { "f:b": {}, "f:c": {}, "f:d": {} } })),
        ];
        assert_eq!(handed_over(&managers).as_deref(), Some(wanted.as_slice()));
        assert_eq!(handed_over(&wanted), None, "once");
    }
}
