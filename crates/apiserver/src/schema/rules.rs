//! `x-kubernetes-validations`: CEL rules over an object and, on an update, over what it was.

use cel::Value as Cel;
use serde_json::{Value, json};

use super::cel::to_cel;
use super::node::{Additional, ListType, Node, Rule};
use super::path::{Path, join};
use super::validate::{list_key, quoted};
use crate::status::{CAUSES_MAX, Cause};

/// Appends a cause for each rule that doesn't hold. Rules without `oldSelf` aren't evaluated on unchanged values.
pub(crate) fn check(root: &Node, object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if !root.has_rules {
        return;
    }
    if !root.rules.is_empty() {
        // At the root, rules see `metadata.name` and `metadata.generateName` only, as in Kubernetes.
        let seen = seen_at_root(object);
        let old_seen = old.map(seen_at_root);
        evaluate(root, &seen, old_seen.as_ref(), &Path::ROOT, causes);
    }
    children(root, object, old, &Path::ROOT, causes);
}

fn seen_at_root(object: &Value) -> Value {
    let mut seen = object.clone();
    let metadata = &object["metadata"];
    seen["metadata"] = json!({"name": metadata["name"], "generateName": metadata["generateName"]});
    if let Some(shown) = seen["metadata"].as_object_mut() {
        shown.retain(|_, value| !value.is_null());
    }
    seen
}

fn walk(node: &Node, value: &Value, old: Option<&Value>, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if !node.has_rules || (value.is_null() && node.nullable) || causes.len() >= CAUSES_MAX {
        return;
    }
    evaluate(node, value, old, path, causes);
    children(node, value, old, path, causes);
}

fn children(node: &Node, value: &Value, old: Option<&Value>, path: &Path<'_>, causes: &mut Vec<Cause>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let old = old.and_then(|old| old.get(name));
                if let Some(field) = node.properties.get(name) {
                    walk(field, value, old, &path.field(name), causes);
                } else if let Additional::Schema(additional) = &node.additional {
                    walk(additional, value, old, &path.key(name), causes);
                }
            }
        }
        Value::Array(items) => {
            let Some(item_node) = node.items.as_deref().filter(|node| node.has_rules) else { return };
            let olds = old.and_then(Value::as_array);
            for (index, item) in items.iter().enumerate() {
                // Items correlate by key in a list of type map, by value in others.
                let old = match &node.list {
                    ListType::Map(keys) => {
                        let key = list_key(keys, item);
                        olds.and_then(|olds| olds.iter().find(|old| list_key(keys, old) == key))
                    }
                    ListType::Atomic | ListType::Set => {
                        olds.and_then(|olds| olds.iter().find(|old| *old == item))
                    }
                };
                walk(item_node, item, old, &path.index(index), causes);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn evaluate(node: &Node, value: &Value, old: Option<&Value>, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let unchanged = old == Some(value);
    let mut variables: Option<Vec<(&str, Cel)>> = None;
    for rule in &node.rules {
        if (rule.transition && old.is_none()) || (!rule.transition && unchanged) {
            continue;
        }
        let variables = variables.get_or_insert_with(|| {
            let mut variables = vec![("self", to_cel(Some(node), value))];
            variables.extend(old.map(|old| ("oldSelf", to_cel(Some(node), old))));
            variables
        });
        if let Some(message) = violation(rule, variables) {
            causes.push(cause(rule, value, path, message));
        }
    }
}

/// The message of a rule that doesn't hold.
fn violation(rule: &Rule, variables: &[(&str, Cel)]) -> Option<String> {
    match rule.expression.evaluate(variables) {
        Ok(Cel::Bool(true)) => None,
        Ok(Cel::Bool(false)) => {
            let expression = rule.message_expression.as_ref();
            let message = expression.and_then(|expression| expression.evaluate(variables).ok());
            Some(match (message, &rule.message) {
                (Some(Cel::String(message)), _) => message.to_string(),
                (_, Some(message)) => message.clone(),
                (_, None) => format!("failed rule: {}", rule.expression.source()),
            })
        }
        Ok(_) => Some(format!("rule doesn't evaluate to a boolean: {}", rule.expression.source())),
        Err(error) => Some(format!("rule {} can't be evaluated: {error}", rule.expression.source())),
    }
}

fn cause(rule: &Rule, value: &Value, path: &Path<'_>, message: String) -> Cause {
    let mut field = path.text();
    let mut value = value;
    if let Some(below) = &rule.field_path {
        field = join(&field, below.trim_start_matches('.'));
        for name in below.split('.').filter(|name| !name.is_empty()) {
            value = &value[name];
        }
    }
    let message = match rule.reason {
        "FieldValueForbidden" => format!("Forbidden: {message}"),
        "FieldValueRequired" => format!("Required value: {message}"),
        "FieldValueDuplicate" => format!("Duplicate value: {}", quoted(value)),
        // Objects and lists aren't quoted.
        _ if value.is_object() || value.is_array() => format!("Invalid value: {message}"),
        _ => format!("Invalid value: {}: {message}", quoted(value)),
    };
    Cause::new(rule.reason, if field.is_empty() { "<nil>" } else { &field }, message)
}
