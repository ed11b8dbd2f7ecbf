//! Decodes bodies and reports duplicate fields.
//!
//! A body is at most some megabytes, but as a tree of values a byte of it can take a hundred bytes of memory, and an
//! object nested deeper than the parser's limit could never be decoded again once it is stored. So documents are bounded
//! in depth and in the number of their values too, including those that patches produce.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::path::Path;
use crate::status::{CAUSES_MAX, cut};

/// Levels of objects and lists in one document: far more than any kind has, and few enough that `managedFields`, which
/// nest a little deeper, can be decoded again.
pub const DEPTH_MAX: usize = 64;
/// Values in one document, those within objects and lists included: an object of each kind has some hundreds. As a tree they take
/// up to 40 MB.
pub const VALUES_MAX: usize = 65_536;

/// A decoded body.
#[derive(Debug, PartialEq)]
pub struct Decoded {
    /// The document; of duplicate fields the last value.
    pub value: Value,
    /// Paths of the first [`CAUSES_MAX`] duplicate fields.
    pub duplicates: Vec<String>,
}

/// Why a body can't be decoded. The text is the parser's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not well-formed, or beyond the bounds of a document.
    #[error("{0}")]
    Syntax(String),
    /// Beyond the bounds of a document.
    #[error(transparent)]
    Extent(#[from] ExtentError),
}

impl DecodeError {
    fn syntax(error: impl fmt::Display) -> DecodeError {
        DecodeError::Syntax(cut(error.to_string(), MESSAGE_BYTES_MAX))
    }
}

/// A document beyond its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtentError {
    /// Deeper than [`DEPTH_MAX`].
    #[error("objects and lists are nested more than {DEPTH_MAX} levels deep")]
    Depth,
    /// More values than [`VALUES_MAX`].
    #[error("there are more than {VALUES_MAX} values")]
    Values,
}

/// Decodes JSON.
pub fn json(body: &[u8]) -> Result<Decoded, DecodeError> {
    let found = Found { duplicates: RefCell::new(Vec::new()), values: Cell::new(0) };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let seed = Seed { path: Path::ROOT, depth: 0, found: &found };
    let value = seed.deserialize(&mut deserializer).map_err(DecodeError::syntax)?;
    deserializer.end().map_err(DecodeError::syntax)?;
    Ok(Decoded { value, duplicates: found.duplicates.into_inner() })
}

/// Bytes of a parser's message at most: some quote their input.
const MESSAGE_BYTES_MAX: usize = 2_048;

/// Size of a value as a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Levels of objects and lists.
    pub(crate) depth: usize,
    /// Values, itself included.
    pub(crate) values: usize,
}

impl Extent {
    /// The extent of a value, measured down to one level beyond [`DEPTH_MAX`].
    pub(crate) fn of(value: &Value) -> Extent {
        let mut extent = Extent::default();
        extent.add(value, 0);
        extent
    }

    fn add(&mut self, value: &Value, depth: usize) {
        self.values += 1;
        let below = depth + 1;
        match value {
            Value::Object(_) | Value::Array(_) if below > DEPTH_MAX => self.depth = below,
            Value::Object(fields) => {
                self.depth = self.depth.max(below);
                fields.values().for_each(|value| self.add(value, below));
            }
            Value::Array(items) => {
                self.depth = self.depth.max(below);
                items.iter().for_each(|item| self.add(item, below));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Refuses a document beyond the bounds.
    pub(crate) fn check(self) -> Result<(), ExtentError> {
        if self.depth > DEPTH_MAX {
            return Err(ExtentError::Depth);
        }
        if self.values > VALUES_MAX { Err(ExtentError::Values) } else { Ok(()) }
    }
}

/// Decodes YAML (one document). A duplicate field is an error.
pub fn yaml(body: &[u8]) -> Result<Decoded, DecodeError> {
    let text = std::str::from_utf8(body).map_err(DecodeError::syntax)?;
    let options = serde_saphyr::options! { budget: budget() };
    let value = serde_saphyr::from_str_with_options::<Value>(text, options).map_err(DecodeError::syntax)?;
    Extent::of(&value).check()?;
    Ok(Decoded { value, duplicates: Vec::new() })
}

fn budget() -> Option<serde_saphyr::Budget> {
    // Names of fields are nodes as well.
    serde_saphyr::budget! { max_depth: DEPTH_MAX, max_nodes: 2 * VALUES_MAX }
}

/// Decodes the body of a server-side apply: YAML or JSON. Of a duplicate field the last value counts;
/// [`Decoded::duplicates`] has the message of Kubernetes about it.
pub fn applied(body: &[u8]) -> Result<Decoded, DecodeError> {
    let twice =
        |line: &str| vec![format!("error converting YAML to JSON: yaml: unmarshal errors:\n  {line}")];
    if body.trim_ascii_start().starts_with(b"{")
        && let Ok(decoded) = json(body)
    {
        let name = |path: &String| path.rsplit('.').next().unwrap_or_default().to_owned();
        let first = decoded.duplicates.first().map(name);
        let duplicates = first.map(|name| twice(&format!("line 1: key {name:?} already set in map")));
        return Ok(Decoded { value: decoded.value, duplicates: duplicates.unwrap_or_default() });
    }
    let text = std::str::from_utf8(body).map_err(DecodeError::syntax)?;
    let error = match yaml(body) {
        Ok(decoded) => return Ok(decoded),
        Err(error) => error,
    };
    let lenient = serde_saphyr::options! { budget: budget(), duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins };
    match serde_saphyr::from_str_with_options::<Value>(text, lenient) {
        Ok(value) => {
            Extent::of(&value).check()?;
            Ok(Decoded { value, duplicates: twice(&error.to_string()) })
        }
        Err(_) => Err(error),
    }
}

/// Findings while a document is decoded.
struct Found {
    duplicates: RefCell<Vec<String>>,
    values: Cell<usize>,
}

impl Found {
    fn count<E: serde::de::Error>(&self) -> Result<(), E> {
        self.values.set(self.values.get() + 1);
        if self.values.get() > VALUES_MAX { Err(E::custom(ExtentError::Values)) } else { Ok(()) }
    }

    fn duplicate(&self, path: &Path<'_>) {
        let mut duplicates = self.duplicates.borrow_mut();
        if duplicates.len() < CAUSES_MAX {
            duplicates.push(path.text());
        }
    }
}

struct Seed<'a> {
    path: Path<'a>,
    depth: usize,
    found: &'a Found,
}

impl Seed<'_> {
    /// One level further down.
    fn below<E: serde::de::Error>(&self) -> Result<usize, E> {
        if self.depth >= DEPTH_MAX { Err(E::custom(ExtentError::Depth)) } else { Ok(self.depth + 1) }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.found.count::<D::Error>()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        // Whole numbers are integers however they are written; those beyond 2^53 aren't exact anyway.
        if number.fract() == 0.0 && number.abs() < 9e15 {
            return Ok(Value::Number((number as i64).into()));
        }
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let depth = self.below::<A::Error>()?;
        let mut items = Vec::new();
        while let Some(item) =
            access.next_element_seed(Seed { path: self.path.index(items.len()), depth, found: self.found })?
        {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let depth = self.below::<A::Error>()?;
        let mut fields = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let path = self.path.field(&name);
            if fields.contains_key(&name) {
                self.found.duplicate(&path);
            }
            let value = access.next_value_seed(Seed { path, depth, found: self.found })?;
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}
