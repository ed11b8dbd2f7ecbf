//! Bodies into values, noticing what a plain parser swallows: a field that stands twice.
//!
//! A body is at most some megabytes, but as a tree of values a byte of it can take a hundred bytes of memory, and an
//! object nested deeper than the parser goes could never be read again once it is stored. So documents are bounded in
//! depth and in the number of their values too, however they come about.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::CAUSES_MAX;
use super::path::Path;

/// Levels of objects and lists in one document: far more than any kind has, and few enough that `managedFields`, which
/// nest as deep and a little deeper, can be read again.
pub const DEPTH_MAX: usize = 64;
/// Values in one document, those within objects and lists included: an object of each kind has some hundreds. As a tree they take
/// up to 40 MB.
pub const VALUES_MAX: usize = 65_536;

/// A parsed body.
#[derive(Debug, PartialEq)]
pub struct Decoded {
    /// The document; of a repeated field the last value.
    pub value: Value,
    /// Paths of the first fields that stand more than once, up to [`CAUSES_MAX`] of them.
    pub duplicates: Vec<String>,
}

/// Parses JSON.
pub fn json(body: &[u8]) -> Result<Decoded, String> {
    let found = Found { duplicates: RefCell::new(Vec::new()), values: Cell::new(0) };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let seed = Seed { path: Path::ROOT, depth: 0, found: &found };
    let value = seed.deserialize(&mut deserializer).map_err(told)?;
    deserializer.end().map_err(told)?;
    Ok(Decoded { value, duplicates: found.duplicates.into_inner() })
}

/// Bytes of a parser's message at most: some quote what they could not read.
const MESSAGE_BYTES_MAX: usize = 2_048;

fn told(error: impl fmt::Display) -> String {
    crate::status::cut(error.to_string(), MESSAGE_BYTES_MAX)
}

/// How large a value is as a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Levels of objects and lists.
    pub(crate) depth: usize,
    /// Values, itself included.
    pub(crate) values: usize,
}

impl Extent {
    /// Of a value; it looks no deeper than one level beyond [`DEPTH_MAX`].
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

    /// Why a document can't be this large, if it can't.
    pub(crate) fn check(self) -> Result<(), String> {
        if self.depth > DEPTH_MAX {
            return Err(too_deep());
        }
        if self.values > VALUES_MAX { Err(too_many()) } else { Ok(()) }
    }
}

fn too_deep() -> String {
    format!("objects and lists are nested more than {DEPTH_MAX} levels deep")
}

fn too_many() -> String {
    format!("there are more than {VALUES_MAX} values")
}

/// Parses YAML (one document), in which a repeated field is an error.
pub fn yaml(body: &[u8]) -> Result<Decoded, String> {
    let text = std::str::from_utf8(body).map_err(told)?;
    let options = serde_saphyr::options! { budget: budget() };
    let value = serde_saphyr::from_str_with_options::<Value>(text, options).map_err(told)?;
    Extent::of(&value).check()?;
    Ok(Decoded { value, duplicates: Vec::new() })
}

fn budget() -> Option<serde_saphyr::Budget> {
    // Names of fields are nodes as well.
    serde_saphyr::budget! { max_depth: DEPTH_MAX, max_nodes: 2 * VALUES_MAX }
}

/// Parses the body of a server-side apply: YAML or JSON. Of a repeated field the last value counts; what Kubernetes says
/// about repeated fields stands in [`Decoded::duplicates`].
pub fn applied(body: &[u8]) -> Result<Decoded, String> {
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
    let text = std::str::from_utf8(body).map_err(told)?;
    let error = match yaml(body) {
        Ok(decoded) => return Ok(decoded),
        Err(error) => error,
    };
    let lenient = serde_saphyr::options! { budget: budget(), duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins };
    match serde_saphyr::from_str_with_options::<Value>(text, lenient) {
        Ok(value) => {
            Extent::of(&value).check()?;
            Ok(Decoded { value, duplicates: twice(&error) })
        }
        Err(_) => Err(error),
    }
}

/// What is found while a document is read.
struct Found {
    duplicates: RefCell<Vec<String>>,
    values: Cell<usize>,
}

impl Found {
    fn count<E: serde::de::Error>(&self) -> Result<(), E> {
        self.values.set(self.values.get() + 1);
        if self.values.get() > VALUES_MAX { Err(E::custom(too_many())) } else { Ok(()) }
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
        if self.depth >= DEPTH_MAX { Err(E::custom(too_deep())) } else { Ok(self.depth + 1) }
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
        // A whole number is one, however it is written; those beyond 2^53 aren't exact anyway.
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
