//! Removal of a set of fields from an object.

use serde_json::{Map, Value};

use crate::field_set::identity;
use crate::path::Element;
use crate::schema::{Identity, Shape, Type};
use crate::set::Set;

/// `value` without the fields of `set`. A map or list that ends up empty becomes null.
pub(crate) fn remove(ty: &Type, value: &Value, set: &Set) -> Value {
    match ty.shape(Some(value)).settled() {
        Shape::Scalar(_) => value.clone(),
        Shape::Map(map) | Shape::Any(map) => {
            let Some(fields) = value.as_object().filter(|_| !map.atomic) else { return Value::Null };
            let mut kept = Map::new();
            for (name, value) in fields {
                let element = Element::Field(name.clone());
                if set.is_member(&element) {
                    continue;
                }
                let value = match (set.below(&element), map.field(name)) {
                    (Some(below), Some(ty)) => remove(ty, value, below),
                    (_, _) => value.clone(),
                };
                kept.insert(name.clone(), value);
            }
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        Shape::List(list) => {
            let items = match value {
                Value::Array(items) if list.identity != Identity::Atomic => items,
                _ => return Value::Null,
            };
            let mut kept = Vec::with_capacity(items.len());
            for item in items {
                let Ok(element) = identity(list, item) else {
                    kept.push(item.clone());
                    continue;
                };
                if set.is_member(&element) {
                    continue;
                }
                kept.push(match set.below(&element) {
                    Some(below) => remove(list.items.resolve(), item, below),
                    None => item.clone(),
                });
            }
            if kept.is_empty() { Value::Null } else { Value::Array(kept) }
        }
    }
}
