//! Differences between two documents.

use serde_json::Value;

/// Different values at one place.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// JSON pointer.
    pub at: String,
    /// The real server's value; `None` if it has none.
    pub real: Option<Value>,
    /// The embedded one's.
    pub embedded: Option<Value>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |value: &Option<Value>| match value {
            None => "nothing".to_owned(),
            Some(value) => value.to_string(),
        };
        writeln!(f, "      at {}", self.at)?;
        writeln!(f, "        real     {}", shown(&self.real))?;
        write!(f, "        embedded {}", shown(&self.embedded))
    }
}

/// All differences, in document order.
pub fn differences(real: &Value, embedded: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk(Some(real), Some(embedded), String::new(), &mut found);
    found
}

/// Whether `at` is `allowed` or below it; `*` matches one segment.
pub fn covers(allowed: &str, at: &str) -> bool {
    let mut at = at.split('/');
    allowed.split('/').all(|wanted| at.next().is_some_and(|found| wanted == "*" || wanted == found))
}

fn walk(real: Option<&Value>, embedded: Option<&Value>, at: String, found: &mut Vec<Difference>) {
    match (real, embedded) {
        (Some(Value::Object(real)), Some(Value::Object(embedded))) => {
            let mut names: Vec<&String> = real.keys().chain(embedded.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let escaped = name.replace('~', "~0").replace('/', "~1");
                walk(real.get(name), embedded.get(name), format!("{at}/{escaped}"), found);
            }
        }
        (Some(Value::Array(real)), Some(Value::Array(embedded))) => {
            for index in 0..real.len().max(embedded.len()) {
                walk(real.get(index), embedded.get(index), format!("{at}/{index}"), found);
            }
        }
        (real, embedded) if real != embedded => {
            found.push(Difference { at, real: real.cloned(), embedded: embedded.cloned() });
        }
        (_, _) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{covers, differences};

    #[test]
    fn differences_have_places() {
        let found = differences(&json!({"a": [1, {"b/c": 2}], "d": 1}), &json!({"a": [1, {"b/c": 3}, 4]}));
        let places: Vec<&str> = found.iter().map(|difference| difference.at.as_str()).collect();
        assert_eq!(places, ["/a/1/b~1c", "/a/2", "/d"]);
        assert!(covers("/a/*/b~1c", places[0]) && covers("", places[0]) && !covers("/d", places[0]));
    }
}
