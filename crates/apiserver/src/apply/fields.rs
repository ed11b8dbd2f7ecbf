//! Which fields an object mentions, and whether it may mention them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::path::{Element, display, quoted};
use super::set::Set;
use super::types::{Identity, ListType, MapType, Scalar, Shape, Type};
use crate::status::cut;

/// Bytes that are told of one wrong value at most: some are quoted whole.
const TOLD_BYTES_MAX: usize = 4 * 1_024;

/// What is wrong with a value, with the path to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    path: String,
    what: String,
}

impl Wrong {
    pub(super) fn new(path: &[Element], what: impl Into<String>) -> Wrong {
        Wrong { path: display(path), what: cut(what.into(), TOLD_BYTES_MAX) }
    }

    /// Several as one message.
    pub fn told(all: &[Wrong]) -> String {
        match all {
            [one] => one.to_string(),
            many => {
                let lines = many.iter().map(|one| format!("\n  {one}"));
                format!("errors:{}", lines.collect::<String>())
            }
        }
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() { f.write_str(&self.what) } else { write!(f, "{}: {}", self.path, self.what) }
    }
}

/// What tells an item of a list from the others.
pub(super) fn identity(list: &ListType, item: &Value) -> Result<Element, String> {
    match &list.identity {
        Identity::Atomic => Err("invalid indexing of non-associative list".into()),
        Identity::Set => match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(Element::Value(item.clone())),
        },
        Identity::Keys(keys) => {
            let fields = match item {
                Value::Object(fields) => fields,
                Value::Null => return Err("associative list with keys may not have a null element".into()),
                Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                    return Err("associative list with keys may not have non-map elements".into());
                }
            };
            let defaults = list.items.resolve().map.as_deref().map(|map| &map.defaults);
            let mut found: Vec<(String, Value)> = Vec::with_capacity(keys.len());
            for key in keys {
                let value = fields.get(key).or_else(|| defaults.and_then(|defaults| defaults.get(key)));
                if let Some(value) = value {
                    found.push((key.clone(), value.clone()));
                }
            }
            if found.is_empty() {
                let keys: Vec<String> = keys.iter().map(|key| quoted(key)).collect();
                return Err(format!(
                    "associative list with keys has an element that omits all key fields [{}] (and doesn't have \
                     default values for any key fields)",
                    keys.join(" ")
                ));
            }
            found.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(Element::Key(found))
        }
    }
}

/// The fields that an object mentions: those whose values are one piece, the items of its lists, and what is empty.
pub(super) fn fields_of(ty: &Type, value: &Value) -> Set {
    own(ty, value).1
}

/// Whether the value itself is owned, and what below it.
fn own(ty: &Type, value: &Value) -> (bool, Set) {
    let mut below = Set::default();
    match ty.shape(Some(value)).settled() {
        Shape::Scalar(_) => return (true, below),
        Shape::Map(map) | Shape::Any(map) => {
            if map.atomic {
                return (true, below);
            }
            for (name, value) in value.as_object().into_iter().flatten() {
                let Some(ty) = map.field(name) else { continue };
                let (member, inner) = own(ty, value);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                let declared = map.fields.contains_key(name);
                below.put(Element::Field(name.clone()), member || empty || !declared, inner);
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
                // Items that stand twice are owned as one piece.
                by_element.entry(element).and_modify(|item| *item = None).or_insert(Some(item));
            }
            for (element, item) in by_element {
                let inner = item.map_or_else(Set::default, |item| own(list.items.resolve(), item).1);
                below.put(element, true, inner);
            }
        }
    }
    (false, below)
}

/// What of an applied configuration doesn't fit its type.
pub(super) fn check(ty: &Type, value: &Value) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    check_at(ty, value, &mut Vec::new(), &mut wrong);
    wrong
}

/// Reported at most: beyond that nobody reads on.
const WRONG_MAX: usize = 32;

fn check_at(ty: &Type, value: &Value, path: &mut Vec<Element>, wrong: &mut Vec<Wrong>) {
    if wrong.len() >= WRONG_MAX {
        return;
    }
    match ty.shape(Some(value)).settled() {
        Shape::Scalar(scalar) => {
            if let Some(what) = misfit(scalar, value) {
                wrong.push(Wrong::new(path, what));
            }
        }
        Shape::Map(map) | Shape::Any(map) => check_map(map, value, path, wrong),
        Shape::List(list) => check_list(list, value, path, wrong),
    }
}

fn check_map(map: &MapType, value: &Value, path: &mut Vec<Element>, wrong: &mut Vec<Wrong>) {
    let fields = match value {
        Value::Null => return,
        Value::Object(fields) => fields,
        other => return wrong.push(Wrong::new(path, format!("expected map, got &{{{}}}", go_value(other)))),
    };
    for (name, value) in fields {
        if wrong.len() >= WRONG_MAX {
            return;
        }
        path.push(Element::Field(name.clone()));
        match map.field(name) {
            Some(ty) => check_at(ty, value, path, wrong),
            None => wrong.push(Wrong::new(path, "field not declared in schema")),
        }
        path.pop();
    }
}

fn check_list(list: &ListType, value: &Value, path: &mut Vec<Element>, wrong: &mut Vec<Wrong>) {
    let items = match value {
        Value::Null => return,
        Value::Array(items) => items,
        other => return wrong.push(Wrong::new(path, format!("expected list, got &{{{}}}", go_value(other)))),
    };
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        if wrong.len() >= WRONG_MAX {
            return;
        }
        let element = match &list.identity {
            Identity::Atomic => Element::Index(i64::try_from(index).unwrap_or(i64::MAX)),
            Identity::Set | Identity::Keys(_) => match identity(list, item) {
                Ok(element) => {
                    if !seen.insert(element.clone()) {
                        wrong.push(Wrong::new(path, format!("duplicate entries for key {element}")));
                    }
                    element
                }
                Err(what) => return wrong.push(Wrong::new(path, format!("element {index}: {what}"))),
            },
        };
        path.push(element);
        check_at(list.items.resolve(), item, path, wrong);
        path.pop();
    }
}

fn misfit(scalar: Scalar, value: &Value) -> Option<String> {
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

/// Clients know these messages with values as Go prints them.
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
