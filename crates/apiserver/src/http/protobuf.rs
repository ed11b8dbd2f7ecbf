//! Kubernetes' protobuf envelope, as far as kubectl insists on it: `kubectl create namespace` sends its body in it and
//! in no other form. Every other body may be JSON, so only Namespaces are read here.

use serde_json::{Map, Value, json};

/// What each protobuf body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Varints of protobuf have at most ten bytes.
const VARINT_BYTES_MAX: u32 = 10;

/// A Namespace as JSON, or what else it is.
pub(super) fn namespace(body: &[u8]) -> Result<Value, String> {
    let envelope = body.strip_prefix(MAGIC).ok_or("the protobuf envelope is missing")?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(envelope) {
        match field? {
            (1, Data::Bytes(meta)) => {
                for field in Fields(meta) {
                    match field? {
                        (1, Data::Bytes(text)) => api_version = string(text)?,
                        (2, Data::Bytes(text)) => kind = string(text)?,
                        _ => {}
                    }
                }
            }
            (2, Data::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    if (api_version.as_str(), kind.as_str()) != ("v1", "Namespace") {
        return Err(format!("{kind} of {api_version} is accepted as JSON or YAML, not as protobuf"));
    }
    let mut metadata = Map::new();
    for field in Fields(raw) {
        if let (1, Data::Bytes(bytes)) = field? {
            read_metadata(bytes, &mut metadata)?;
        }
    }
    Ok(json!({"apiVersion": api_version, "kind": kind, "metadata": metadata}))
}

/// The fields of ObjectMeta that a client sets.
fn read_metadata(bytes: &[u8], metadata: &mut Map<String, Value>) -> Result<(), String> {
    let (mut labels, mut annotations, mut finalizers) = (Map::new(), Map::new(), Vec::new());
    for field in Fields(bytes) {
        match field? {
            (1, Data::Bytes(text)) => drop(metadata.insert("name".into(), string(text)?.into())),
            (2, Data::Bytes(text)) => drop(metadata.insert("generateName".into(), string(text)?.into())),
            (11, Data::Bytes(entry)) => labels.extend([pair(entry)?]),
            (12, Data::Bytes(entry)) => annotations.extend([pair(entry)?]),
            (14, Data::Bytes(text)) => finalizers.push(Value::String(string(text)?)),
            _ => {}
        }
    }
    metadata.insert("labels".into(), Value::Object(labels));
    metadata.insert("annotations".into(), Value::Object(annotations));
    metadata.insert("finalizers".into(), Value::Array(finalizers));
    Ok(())
}

fn pair(entry: &[u8]) -> Result<(String, Value), String> {
    let (mut key, mut value) = (String::new(), String::new());
    for field in Fields(entry) {
        match field? {
            (1, Data::Bytes(text)) => key = string(text)?,
            (2, Data::Bytes(text)) => value = string(text)?,
            _ => {}
        }
    }
    Ok((key, value.into()))
}

fn string(bytes: &[u8]) -> Result<String, String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|error| error.to_string())
}

enum Data<'a> {
    Bytes(&'a [u8]),
    /// A number, which nothing here looks at.
    Number,
}

/// The fields of one message, number first.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Data<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field().ok_or_else(|| "the protobuf body is cut off or not well-formed".to_owned());
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Data<'a>)> {
        let tag = self.varint()?;
        let data = match tag & 7 {
            0 => self.varint().map(|_| Data::Number)?,
            1 => self.take(8).map(|_| Data::Number)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Data::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Data::Number)?,
            _ => return None,
        };
        Some((tag >> 3, data))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for index in 0..VARINT_BYTES_MAX {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{MAGIC, namespace};

    fn bytes(number: u8, data: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, data.len() as u8], data].concat()
    }

    fn body(kind: &[u8]) -> Vec<u8> {
        let label = [bytes(1, b"a"), bytes(2, b"b")].concat();
        let meta = [bytes(1, b"lab"), bytes(11, &label), vec![7 << 3, 0x80, 0x01]].concat();
        let envelope =
            [bytes(1, &[bytes(1, b"v1"), bytes(2, kind)].concat()), bytes(2, &bytes(1, &meta))].concat();
        [MAGIC, &envelope].concat()
    }

    #[test]
    fn a_namespace_is_read_and_nothing_else() {
        let read = namespace(&body(b"Namespace")).unwrap();
        assert_eq!(read["metadata"]["name"], "lab");
        assert_eq!(read["metadata"]["labels"], json!({"a": "b"}));
        assert!(namespace(&body(b"Pod")).is_err());
        assert!(namespace(b"{}").is_err());
    }

    #[test]
    fn no_prefix_of_a_body_is_taken_for_the_whole_or_panics() {
        let body = body(b"Namespace");
        for end in 0..body.len() {
            if let Ok(read) = namespace(&body[..end]) {
                assert_ne!(read["metadata"]["labels"], json!({"a": "b"}));
            }
        }
    }
}
