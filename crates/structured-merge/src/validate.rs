//! Whether an applied configuration fits its type.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::error::ValidationError;
use crate::field_set::identity;
use crate::path::Element;
use crate::schema::{Identity, ListType, MapType, Scalar, Shape, Type};
use crate::text::quoted;

/// The first [`ERRORS_MAX`] places where a configuration doesn't fit its type.
pub(crate) fn check(ty: &Type, value: &Value) -> Vec<ValidationError> {
    let mut errors = Vec::new();
    check_at(ty, value, &mut Vec::new(), &mut errors);
    errors
}

/// Errors reported at most.
const ERRORS_MAX: usize = 32;

fn check_at(ty: &Type, value: &Value, path: &mut Vec<Element>, errors: &mut Vec<ValidationError>) {
    if errors.len() >= ERRORS_MAX {
        return;
    }
    match ty.shape(Some(value)).settled() {
        Shape::Scalar(scalar) => {
            if let Some(message) = mismatch(scalar, value) {
                errors.push(ValidationError::new(path, message));
            }
        }
        Shape::Map(map) | Shape::Any(map) => check_map(map, value, path, errors),
        Shape::List(list) => check_list(list, value, path, errors),
    }
}

fn check_map(map: &MapType, value: &Value, path: &mut Vec<Element>, errors: &mut Vec<ValidationError>) {
    let fields = match value {
        Value::Null => return,
        Value::Object(fields) => fields,
        other => {
            return errors
                .push(ValidationError::new(path, format!("expected map, got &{{{}}}", go_value(other))));
        }
    };
    for (name, value) in fields {
        if errors.len() >= ERRORS_MAX {
            return;
        }
        path.push(Element::Field(name.clone()));
        match map.field(name) {
            Some(ty) => check_at(ty, value, path, errors),
            None => errors.push(ValidationError::new(path, "field not declared in schema")),
        }
        path.pop();
    }
}

fn check_list(list: &ListType, value: &Value, path: &mut Vec<Element>, errors: &mut Vec<ValidationError>) {
    let items = match value {
        Value::Null => return,
        Value::Array(items) => items,
        other => {
            return errors
                .push(ValidationError::new(path, format!("expected list, got &{{{}}}", go_value(other))));
        }
    };
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        if errors.len() >= ERRORS_MAX {
            return;
        }
        let element = match &list.identity {
            Identity::Atomic => Element::Index(i64::try_from(index).unwrap_or(i64::MAX)),
            Identity::Set | Identity::Keys(_) => match identity(list, item) {
                Ok(element) => {
                    if !seen.insert(element.clone()) {
                        errors
                            .push(ValidationError::new(path, format!("duplicate entries for key {element}")));
                    }
                    element
                }
                Err(error) => return errors.push(ValidationError::of_item(path, index, error)),
            },
        };
        path.push(element);
        check_at(list.items.resolve(), item, path, errors);
        path.pop();
    }
}

fn mismatch(scalar: Scalar, value: &Value) -> Option<String> {
    let fits = match scalar {
        Scalar::Numeric => value.is_number(),
        Scalar::String => value.is_string(),
        Scalar::Boolean => value.is_boolean(),
        Scalar::Untyped => !value.is_object() && !value.is_array(),
    };
    if fits || value.is_null() {
        return None;
    }
    Some(match scalar {
        Scalar::Numeric => format!("expected numeric (int or float), got {}", go_type(value)),
        Scalar::String => {
            format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value))
        }
        Scalar::Boolean => format!("expected boolean, got &{{{}}}", go_value(value)),
        Scalar::Untyped => format!("expected any scalar, got &{{{}}}", go_value(value)),
    })
}

/// Messages show values as Go prints them.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let mut fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name}:{}", go_value(value))).collect();
            fields.sort();
            format!("map[{}]", fields.join(" "))
        }
    }
}

fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".into(),
        Value::String(text) => quoted(text),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => {
            format!("[]interface {{}}{{{}}}", items.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(fields) => {
            let mut fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{}:{}", quoted(name), go_syntax(value))).collect();
            fields.sort();
            format!("map[string]interface {{}}{{{}}}", fields.join(", "))
        }
    }
}
