//! JSON values as CEL values, typed by their schema.

use std::collections::HashMap;
use std::sync::Arc;

use cel::Value as Cel;
use cel::objects::{Key, Map};
use serde_json::Value;

use super::node::{Node, Type};

/// A JSON value as CEL sees it; the schema distinguishes doubles from integers.
pub(crate) fn to_cel(node: Option<&Node>, value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
        Value::Number(number) => match (node.map(|node| node.ty), number.as_i64()) {
            (Some(Type::Number), _) | (_, None) => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
            (_, Some(integer)) => Cel::Int(integer),
        },
        Value::String(text) => Cel::from(text.as_str()),
        Value::Array(items) => {
            let node = node.and_then(|node| node.items.as_deref());
            Cel::List(Arc::new(items.iter().map(|item| to_cel(node, item)).collect()))
        }
        Value::Object(fields) => {
            let mut map = HashMap::with_capacity(fields.len());
            for (name, value) in fields {
                let field = node.and_then(|node| node.field(name));
                // Names of declared fields are escaped, keys of maps are not.
                let declared = node.is_some_and(|node| node.properties.contains_key(name));
                let key = if declared { escape(name) } else { name.clone() };
                map.insert(Key::from(key), to_cel(field, value));
            }
            Cel::Map(Map { map: Arc::new(map) })
        }
    }
}

/// Field names that CEL can't spell, as Kubernetes escapes them.
fn escape(name: &str) -> String {
    const KEYWORDS: &[&str] = &[
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    if KEYWORDS.contains(&name) {
        return format!("__{name}__");
    }
    if !name.contains("__") && !name.contains(['.', '-', '/']) {
        return name.to_owned();
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}
