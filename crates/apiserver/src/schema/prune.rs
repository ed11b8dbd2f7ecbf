//! Pruning: fields that no schema names are not stored, nor nulls where null is no value.

use serde_json::Value;

use super::join;
use super::node::{Additional, Node};

pub(crate) fn prune(root: &Node, object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let Some(fields) = object.as_object_mut() else { return unknown };
    let metadata = ["apiVersion", "kind", "metadata"].map(|name| fields.remove_entry(name));
    walk(root, object, "", &mut unknown);
    if let Some(fields) = object.as_object_mut() {
        fields.extend(metadata.into_iter().flatten());
    }
    unknown
}

fn walk(node: &Node, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let known = |name: &str| match &node.additional {
                Additional::Kept | Additional::Schema(_) => true,
                Additional::Pruned => node.properties.contains_key(name),
            };
            if !fields.keys().all(|name| known(name)) {
                fields.retain(|name, _| {
                    let keep = known(name);
                    if !keep {
                        unknown.push(join(path, name));
                    }
                    keep
                });
            }
            // Where there is a default, it takes the place of the null.
            let absent =
                |name: &str| node.field(name).is_some_and(|node| !node.nullable && node.default.is_none());
            fields.retain(|name, value| !value.is_null() || !absent(name));
            for (name, value) in fields {
                if matches!(value, Value::Object(_) | Value::Array(_))
                    && let Some(node) = node.field(name)
                {
                    walk(node, value, &join(path, name), unknown);
                }
            }
        }
        Value::Array(items) => {
            if let Some(node) = &node.items {
                for (index, item) in items.iter_mut().enumerate() {
                    walk(node, item, &format!("{path}[{index}]"), unknown);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
