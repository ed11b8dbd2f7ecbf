//! Bodies into values, noticing what a plain parser swallows: a field that stands twice.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::join;

/// A parsed body.
#[derive(Debug, PartialEq)]
pub struct Decoded {
    /// The document; of a repeated field the last value.
    pub value: Value,
    /// Paths of fields that stand more than once.
    pub duplicates: Vec<String>,
}

/// Parses JSON.
pub fn json(body: &[u8]) -> Result<Decoded, String> {
    let duplicates = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let seed = Seed { path: String::new(), duplicates: &duplicates };
    let value = seed.deserialize(&mut deserializer).map_err(|error| error.to_string())?;
    deserializer.end().map_err(|error| error.to_string())?;
    Ok(Decoded { value, duplicates: duplicates.into_inner() })
}

/// Parses YAML (one document), in which a repeated field is an error.
pub fn yaml(body: &[u8]) -> Result<Decoded, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    let value = serde_saphyr::from_str::<Value>(text).map_err(|error| error.to_string())?;
    Ok(Decoded { value, duplicates: Vec::new() })
}

/// Parses the body of a server-side apply: YAML or JSON. Of a repeated field the last value counts; what Kubernetes says
/// about repeated fields stands in [`Decoded::duplicates`].
pub fn applied(body: &[u8]) -> Result<Decoded, String> {
    let told = |line: &str| vec![format!("error converting YAML to JSON: yaml: unmarshal errors:\n  {line}")];
    if body.trim_ascii_start().starts_with(b"{")
        && let Ok(decoded) = json(body)
    {
        let name = |path: &String| path.rsplit('.').next().unwrap_or_default().to_owned();
        let first = decoded.duplicates.first().map(name);
        let duplicates = first.map(|name| told(&format!("line 1: key {name:?} already set in map")));
        return Ok(Decoded { value: decoded.value, duplicates: duplicates.unwrap_or_default() });
    }
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    let error = match yaml(body) {
        Ok(decoded) => return Ok(decoded),
        Err(error) => error,
    };
    let lenient =
        serde_saphyr::options! { duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins };
    match serde_saphyr::from_str_with_options::<Value>(text, lenient) {
        Ok(value) => Ok(Decoded { value, duplicates: told(&error) }),
        Err(_) => Err(error),
    }
}

struct Seed<'a> {
    path: String,
    duplicates: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
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
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(Seed {
            path: format!("{}[{}]", self.path, items.len()),
            duplicates: self.duplicates,
        })? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let path = join(&self.path, &name);
            if fields.contains_key(&name) {
                self.duplicates.borrow_mut().push(path.clone());
            }
            let value = access.next_value_seed(Seed { path, duplicates: self.duplicates })?;
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}
