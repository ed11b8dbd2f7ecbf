//! Paths to fields: their elements, as `fieldsV1` encodes and as messages display them.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};

use serde_json::{Number, Value};

use crate::text::quoted;

/// One element of a path.
#[derive(Clone, Debug)]
pub enum Element {
    /// A field of an object.
    Field(String),
    /// The item of an associative list with these keys, sorted by name.
    Key(Vec<(String, Value)>),
    /// The item of a set that is this value.
    Value(Value),
    /// An item by its index.
    Index(i64),
}

/// Why text is not a path element.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElementError {
    /// A prefix that this version doesn't know; decoders skip such elements.
    #[error("unknown kind of path element")]
    Unknown,
    /// Not of the form `prefix:content`, or content that doesn't decode.
    #[error("{0:?} is not a path element")]
    Malformed(String),
}

impl Element {
    /// Decodes `f:name`, `k:{"key":"value"}`, `v:value` or `i:0`.
    pub fn parse(text: &str) -> Result<Element, ElementError> {
        let malformed = || ElementError::Malformed(text.to_owned());
        let (kind, content) =
            text.split_once(':').filter(|(kind, _)| kind.len() == 1).ok_or_else(malformed)?;
        match kind {
            "f" => Ok(Element::Field(content.to_owned())),
            "v" => Ok(Element::Value(serde_json::from_str(content).map_err(|_| malformed())?)),
            "i" => Ok(Element::Index(content.parse().map_err(|_| malformed())?)),
            "k" => match serde_json::from_str(content) {
                Ok(Value::Object(fields)) => {
                    let mut fields: Vec<(String, Value)> = fields.into_iter().collect();
                    fields.sort_by(|a, b| a.0.cmp(&b.0));
                    Ok(Element::Key(fields))
                }
                Ok(_) | Err(_) => Err(malformed()),
            },
            _ => Err(ElementError::Unknown),
        }
    }

    /// Approximate size of its names and values in bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Element::Field(name) => name.len(),
            Element::Index(_) => 0,
            Element::Value(Value::String(text)) => text.len(),
            Element::Value(value) => value.to_string().len(),
            Element::Key(fields) => {
                fields.iter().map(|(name, value)| name.len() + value.as_str().map_or(8, str::len)).sum()
            }
        }
    }

    /// The inverse of [`Element::parse`].
    pub fn text(&self) -> String {
        match self {
            Element::Field(name) => format!("f:{name}"),
            Element::Value(value) => format!("v:{}", escaped(value)),
            Element::Index(index) => format!("i:{index}"),
            Element::Key(fields) => {
                let fields = fields
                    .iter()
                    .map(|(name, value)| format!("{}:{}", Value::String(name.clone()), escaped(value)));
                format!("k:{{{}}}", fields.collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// JSON as Kubernetes encodes it in element names: HTML characters escaped.
fn escaped(value: &Value) -> String {
    let text = value.to_string();
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(c)))
            }
            other => escaped.push(other),
        }
    }
    escaped
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Value(value) => write!(f, "[={}]", Shown(value)),
            Element::Index(index) => write!(f, "[{index}]"),
            Element::Key(fields) => {
                f.write_str("[")?;
                for (index, (name, value)) in fields.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={}", Shown(value))?;
                }
                f.write_str("]")
            }
        }
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Element) -> Ordering {
        match (self, other) {
            (Element::Field(a), Element::Field(b)) => a.cmp(b),
            (Element::Key(a), Element::Key(b)) => {
                let pairs = a.iter().zip(b);
                let first = pairs
                    .map(|((a, x), (b, y))| a.cmp(b).then_with(|| compare_values(x, y)))
                    .find(|order| order.is_ne());
                first.unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            (Element::Value(a), Element::Value(b)) => compare_values(a, b),
            (Element::Index(a), Element::Index(b)) => a.cmp(b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Element) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Element) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Element {}

impl Element {
    fn rank(&self) -> u8 {
        match self {
            Element::Field(_) => 0,
            Element::Key(_) => 1,
            Element::Value(_) => 2,
            Element::Index(_) => 3,
        }
    }
}

/// A total order over values: numbers by size, whether or not they are whole, then texts, booleans, lists, objects, null.
pub(crate) fn compare_values(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let first = a.iter().zip(b).map(|(a, b)| compare_values(a, b)).find(|order| order.is_ne());
            first.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let sorted = |fields: &serde_json::Map<String, Value>| -> Vec<(String, Value)> {
                let mut fields: Vec<_> =
                    fields.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
                fields.sort_by(|a, b| a.0.cmp(&b.0));
                fields
            };
            Element::Key(sorted(a)).cmp(&Element::Key(sorted(b)))
        }
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => {
            let (a, b) = (a.as_f64().unwrap_or(f64::MAX), b.as_f64().unwrap_or(f64::MAX));
            a.total_cmp(&b)
        }
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

/// Whether two values are equal; 1 and 1.0 are.
pub(crate) fn equal_values(a: &Value, b: &Value) -> bool {
    a == b || compare_values(a, b).is_eq()
}

/// Bytes of a displayed path at most; names and keys come from clients.
const PATH_BYTES_MAX: usize = 1_024;

/// A path as messages display it: `.spec.ports[name="http"].port`; cut after 1,024 bytes.
pub fn display(path: &[Element]) -> String {
    let mut text = Cut { text: String::new(), left: PATH_BYTES_MAX };
    for element in path {
        if write!(text, "{element}").is_err() {
            text.text.push_str("...");
            break;
        }
    }
    text.text
}

/// A writer that fails once `left` bytes are written.
struct Cut {
    text: String,
    left: usize,
}

impl fmt::Write for Cut {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let fits = more.floor_char_boundary(self.left);
        self.text.push_str(&more[..fits]);
        self.left -= fits;
        if fits < more.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// A value as messages display it.
struct Shown<'a>(&'a Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::String(text) => f.write_str(&quoted(text)),
            other => write!(f, "{other}"),
        }
    }
}
