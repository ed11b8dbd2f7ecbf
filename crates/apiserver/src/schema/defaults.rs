//! Defaulting, as in Kubernetes: top-down, so that a default object gets the defaults inside it.

use serde_json::Value;

use super::node::{Additional, Node};

pub(crate) fn apply(node: &Node, value: &mut Value) {
    if !node.has_defaults {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, node) in &node.properties {
                if let Some(default) = &node.default {
                    match fields.get(name) {
                        None => {
                            fields.insert(name.clone(), default.clone());
                        }
                        Some(Value::Null) if !node.nullable => {
                            fields.insert(name.clone(), default.clone());
                        }
                        Some(_) => {}
                    }
                }
                if let Some(value) = fields.get_mut(name) {
                    apply(node, value);
                }
            }
            if let Additional::Schema(additional) = &node.additional {
                for (name, value) in fields {
                    if !node.properties.contains_key(name) {
                        apply(additional, value);
                    }
                }
            }
        }
        Value::Array(items) => {
            if let Some(node) = &node.items {
                items.iter_mut().for_each(|item| apply(node, item));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
