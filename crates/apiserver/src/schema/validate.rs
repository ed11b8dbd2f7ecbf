//! Types, bounds and list uniqueness, with the error texts of Kubernetes.

use std::collections::HashSet;

use serde_json::Value;

use super::node::{Additional, Bounds, ListType, Node, Type};
use super::path::Path;
use crate::status::{CAUSES_MAX, Cause};

/// Characters of a wrong value that are quoted back.
const QUOTED_CHARS_MAX: usize = 80;

pub(crate) fn validate(root: &Node, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut found = Found { causes: Vec::new() };
    let Some(fields) = object.as_object() else {
        found.wrong_type(root, object, &Path::ROOT);
        return found.causes;
    };
    for name in &root.required {
        if !fields.contains_key(name) {
            found.push(Cause::required(name, ""));
        }
    }
    for (name, value) in fields {
        let untouched = old.is_some_and(|old| old.get(name) == Some(value));
        if !untouched && let Some(node) = root.field(name) {
            found.node(node, value, &Path::ROOT.field(name));
        }
    }
    found.causes
}

/// Causes so far; a walk ends early when there are enough.
struct Found {
    causes: Vec<Cause>,
}

impl Found {
    fn push(&mut self, cause: Cause) {
        if self.causes.len() < CAUSES_MAX {
            self.causes.push(cause);
        }
    }

    fn wrong_type(&mut self, node: &Node, value: &Value, path: &Path<'_>) {
        let got = type_of(value);
        let wanted = match (node.ty, value, &node.bounds.format) {
            (Type::Integer, Value::Number(_), Some(format)) => format,
            (ty, _, _) => ty.as_str(),
        };
        let message = format!("Invalid value: \"{got}\": {path} in body must be of type {wanted}: \"{got}\"");
        self.push(Cause::new("FieldValueTypeInvalid", &path.text(), message));
    }

    fn node(&mut self, node: &Node, value: &Value, path: &Path<'_>) {
        if self.causes.len() >= CAUSES_MAX || (value.is_null() && node.nullable) {
            return;
        }
        let fits = match node.ty {
            Type::Object => value.is_object(),
            Type::Array => value.is_array(),
            Type::String => value.is_string(),
            Type::Integer => is_integer(value),
            Type::Number => value.is_number(),
            Type::Boolean => value.is_boolean(),
            Type::IntOrString => is_integer(value) || value.is_string(),
            Type::Any => true,
        };
        if !fits {
            self.wrong_type(node, value, path);
            if node.ty == Type::Integer
                && let Value::Number(number) = value
            {
                self.range(&node.bounds, number, path);
            }
            return;
        }
        self.allowed(&node.bounds, value, path);
        match value {
            Value::String(text) => self.string(&node.bounds, text, path),
            Value::Number(number) => self.number(&node.bounds, number, path),
            Value::Array(items) => self.array(node, items, path),
            Value::Object(fields) => self.object(node, fields, path),
            Value::Null | Value::Bool(_) => {}
        }
        self.combined(node, value, path);
    }

    fn allowed(&mut self, bounds: &Bounds, value: &Value, path: &Path<'_>) {
        if let Some(allowed) = &bounds.allowed
            && !allowed.contains(value)
        {
            let supported: Vec<String> = allowed.iter().map(Value::to_string).collect();
            let message =
                format!("Unsupported value: {}: supported values: {}", quoted(value), supported.join(", "));
            self.push(Cause::new("FieldValueNotSupported", &path.text(), message));
        }
    }

    fn string(&mut self, bounds: &Bounds, text: &str, path: &Path<'_>) {
        let shown = || quoted(&Value::String(text.to_owned()));
        // Bytes are at least as many as characters, so most texts are never counted.
        if let Some(max) = bounds.length_max
            && text.len() as u64 > max
            && text.chars().count() as u64 > max
        {
            let message = format!("Too long: may not be more than {max} bytes");
            return self.push(Cause::new("FieldValueTooLong", &path.text(), message));
        }
        if let Some(min) = bounds.length_min
            && (text.len() as u64) < min.saturating_mul(4)
            && (text.chars().count() as u64) < min
        {
            let why = format!("{path} in body should be at least {min} chars long");
            return self.push(Cause::invalid(&path.text(), &shown(), why));
        }
        if let Some(pattern) = &bounds.pattern
            && !pattern.is_match(text)
        {
            let why = format!("{path} in body should match '{}'", pattern.as_str());
            self.push(Cause::invalid(&path.text(), &shown(), why));
        }
        if let Some(format) = &bounds.format
            && !fits_format(format, text)
        {
            let why = format!("Invalid value: {0}: {path} in body must be of type {format}: {0}", shown());
            self.push(Cause::new("FieldValueTypeInvalid", &path.text(), why));
        }
    }

    fn number(&mut self, bounds: &Bounds, number: &serde_json::Number, path: &Path<'_>) {
        self.range(bounds, number, path);
        let Some(n) = number.as_f64() else { return };
        let mut wrong = |why: String| self.push(Cause::invalid(&path.text(), &number.to_string(), why));
        if let Some((min, exclusive)) = bounds.minimum
            && (n < min || (exclusive && n == min))
        {
            let than = if exclusive { "greater than" } else { "greater than or equal to" };
            wrong(format!("{path} in body should be {than} {min}"));
        }
        if let Some((max, exclusive)) = bounds.maximum
            && (n > max || (exclusive && n == max))
        {
            let than = if exclusive { "less than" } else { "less than or equal to" };
            wrong(format!("{path} in body should be {than} {max}"));
        }
        if let Some(step) = bounds.multiple_of
            && (n / step).fract() != 0.0
        {
            wrong(format!("{path} in body should be a multiple of {step}"));
        }
    }

    /// Whether the number fits its format.
    fn range(&mut self, bounds: &Bounds, number: &serde_json::Number, path: &Path<'_>) {
        let (least, most) = match bounds.format.as_deref() {
            Some("int32") => (i64::from(i32::MIN), i64::from(i32::MAX)),
            Some("uint32") => (0, i64::from(u32::MAX)),
            Some("uint8") => (0, i64::from(u8::MAX)),
            Some("uint16") => (0, i64::from(u16::MAX)),
            Some("uint64" | "uint") => (0, i64::MAX),
            Some(_) | None => return,
        };
        let whole = number.as_i64().map(|n| n as f64).or(number.as_f64()).filter(|n| n.fract() == 0.0);
        if whole.is_none_or(|n| n < least as f64 || n > most as f64) {
            let format = bounds.format.as_deref().unwrap_or_default();
            let why = format!("Checked value must be of type integer with format {format} in {path}");
            self.push(Cause::invalid("<nil>", "\"\"", why));
        }
    }

    fn array(&mut self, node: &Node, items: &[Value], path: &Path<'_>) {
        let count = items.len() as u64;
        if let Some(max) = node.bounds.items_max
            && count > max
        {
            let message = format!("Too many: {count}: must have at most {max} items");
            // The items of a list this long aren't validated.
            return self.push(Cause::new("FieldValueTooMany", &path.text(), message));
        }
        if let Some(min) = node.bounds.items_min
            && count < min
        {
            self.push(Cause::invalid(
                &path.text(),
                &count.to_string(),
                format!("{path} in body should have at least {min} items"),
            ));
        }
        if let Some(item_node) = &node.items {
            for (index, item) in items.iter().enumerate() {
                self.node(item_node, item, &path.index(index));
            }
        }
        let keys = match &node.list {
            ListType::Atomic if !node.bounds.unique_items => return,
            ListType::Atomic | ListType::Set => None,
            ListType::Map(keys) => Some(keys),
        };
        let (mut seen, mut reported) = (HashSet::new(), HashSet::new());
        for (index, item) in items.iter().enumerate() {
            let identity = match keys {
                None => item.to_string(),
                Some(keys) => list_key(keys, item).to_string(),
            };
            if !seen.insert(identity.clone()) && reported.insert(identity.clone()) {
                let message = format!("Duplicate value: {identity}");
                self.push(Cause::new("FieldValueDuplicate", &path.index(index).text(), message));
            }
        }
    }

    fn object(&mut self, node: &Node, fields: &serde_json::Map<String, Value>, path: &Path<'_>) {
        let count = fields.len() as u64;
        if let Some(max) = node.bounds.properties_max
            && count > max
        {
            let message = format!("Too many: {count}: must have at most {max} items");
            return self.push(Cause::new("FieldValueTooMany", &path.text(), message));
        }
        if let Some(min) = node.bounds.properties_min
            && count < min
        {
            let why = format!("{path} in body should have at least {min} properties");
            self.push(Cause::invalid(&path.text(), &count.to_string(), why));
        }
        for name in &node.required {
            if !fields.contains_key(name) {
                self.push(Cause::required(&path.field(name).text(), ""));
            }
        }
        for (name, value) in fields {
            if let Some(field) = node.properties.get(name) {
                self.node(field, value, &path.field(name));
            } else if let Additional::Schema(additional) = &node.additional {
                self.node(additional, value, &path.field(name));
            }
        }
    }

    fn combined(&mut self, node: &Node, value: &Value, path: &Path<'_>) {
        for part in &node.all_of {
            self.node(part, value, path);
        }
        let matching = |parts: &[Node]| parts.iter().filter(|part| matches(part, value, path)).count();
        if !node.any_of.is_empty() && matching(&node.any_of) == 0 {
            let why = format!("{path} in body must validate at least one schema (anyOf)");
            self.push(Cause::invalid(&path.text(), &quoted(value), why));
        }
        if !node.one_of.is_empty() && matching(&node.one_of) != 1 {
            let why = format!("{path} in body must validate one and only one schema (oneOf)");
            self.push(Cause::invalid(&path.text(), &quoted(value), why));
        }
        if let Some(part) = &node.not
            && matches(part, value, path)
        {
            let why = format!("{path} in body must not validate the schema (not)");
            self.push(Cause::invalid(&path.text(), &quoted(value), why));
        }
    }
}

fn matches(node: &Node, value: &Value, path: &Path<'_>) -> bool {
    let mut found = Found { causes: Vec::new() };
    found.node(node, value, path);
    found.causes.is_empty()
}

/// The keys of an item of a list of type map.
pub(crate) fn list_key(keys: &[String], item: &Value) -> Value {
    keys.iter().map(|key| (key.clone(), item.get(key).cloned().unwrap_or(Value::Null))).collect()
}

/// A value as it is quoted back: JSON, cut when long; of objects and lists the type alone.
pub(crate) fn quoted(value: &Value) -> String {
    match value {
        Value::Object(_) | Value::Array(_) => format!("\"{}\"", type_of(value)),
        Value::String(text) if text.chars().nth(QUOTED_CHARS_MAX).is_some() => {
            let start: String = text.chars().take(QUOTED_CHARS_MAX).collect();
            Value::String(format!("{start}...")).to_string()
        }
        scalar => scalar.to_string(),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0 && n.abs() < 9e15)
}

/// Formats that Kubernetes checks and that our kinds use; others are documentation.
fn fits_format(format: &str, text: &str) -> bool {
    match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "byte" => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.decode(text).is_ok()
        }
        "uuid" => uuid::Uuid::try_parse(text).is_ok(),
        _ => true,
    }
}
