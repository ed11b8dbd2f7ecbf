//! The fields that an object mentions, and the identities of list items.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::path::Element;
use crate::schema::{Identity, ListType, Shape, Type};
use crate::set::Set;
use crate::text::quoted;

/// Why an item of a list has no identity. The messages are those of structured-merge-diff.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error("invalid indexing of non-associative list")]
    Atomic,
    #[error("associative list without keys has an element that's a map type")]
    MapInSet,
    #[error("not supported: associative list with lists as elements")]
    ListInSet,
    #[error("associative list without keys has an element that's an explicit null")]
    NullInSet,
    #[error("associative list with keys may not have a null element")]
    NullInMap,
    #[error("associative list with keys may not have non-map elements")]
    ScalarInMap,
    #[error(
        "associative list with keys has an element that omits all key fields [{0}] (and doesn't have default values \
         for any key fields)"
    )]
    NoKeys(String),
}

/// What distinguishes an item of a list from the others.
pub(crate) fn identity(list: &ListType, item: &Value) -> Result<Element, IdentityError> {
    match &list.identity {
        Identity::Atomic => Err(IdentityError::Atomic),
        Identity::Set => match item {
            Value::Object(_) => Err(IdentityError::MapInSet),
            Value::Array(_) => Err(IdentityError::ListInSet),
            Value::Null => Err(IdentityError::NullInSet),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(Element::Value(item.clone())),
        },
        Identity::Keys(keys) => match item {
            Value::Object(fields) => keys_of(list, keys, fields),
            Value::Null => Err(IdentityError::NullInMap),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(IdentityError::ScalarInMap)
            }
        },
    }
}

fn keys_of(list: &ListType, keys: &[String], fields: &Map<String, Value>) -> Result<Element, IdentityError> {
    let defaults = list.items.resolve().map().map(|map| &map.defaults);
    let mut found: Vec<(String, Value)> = Vec::with_capacity(keys.len());
    for key in keys {
        let value = fields.get(key).or_else(|| defaults.and_then(|defaults| defaults.get(key)));
        if let Some(value) = value {
            found.push((key.clone(), value.clone()));
        }
    }
    if found.is_empty() {
        let keys: Vec<String> = keys.iter().map(|key| quoted(key)).collect();
        return Err(IdentityError::NoKeys(keys.join(" ")));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Element::Key(found))
}

/// The fields that an object mentions: scalars, atomic maps and lists, items of lists, and empty values.
pub(crate) fn field_set(ty: &Type, value: &Value) -> Set {
    collect(ty, value).1
}

/// Whether the value itself belongs to the set, and the set of what is below it.
fn collect(ty: &Type, value: &Value) -> (bool, Set) {
    let mut below = Set::default();
    match ty.shape(Some(value)).settled() {
        Shape::Scalar(_) => return (true, below),
        Shape::Map(map) | Shape::Any(map) => {
            if map.atomic {
                return (true, below);
            }
            for (name, value) in value.as_object().into_iter().flatten() {
                let Some(ty) = map.field(name) else { continue };
                let (member, inner) = collect(ty, value);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                let declared = map.fields.contains_key(name);
                below.insert_subtree(Element::Field(name.clone()), member || empty || !declared, inner);
            }
        }
        Shape::List(list) => {
            if list.identity == Identity::Atomic {
                return (true, below);
            }
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let known = items.iter().filter_map(|item| Some((identity(list, item).ok()?, item)));
            let mut by_element: BTreeMap<Element, Option<&Value>> = BTreeMap::new();
            for (element, item) in known {
                // Duplicate items are owned as a whole.
                by_element.entry(element).and_modify(|item| *item = None).or_insert(Some(item));
            }
            for (element, item) in by_element {
                let inner = item.map_or_else(Set::default, |item| collect(list.items.resolve(), item).1);
                below.insert_subtree(element, true, inner);
            }
        }
    }
    (false, below)
}
