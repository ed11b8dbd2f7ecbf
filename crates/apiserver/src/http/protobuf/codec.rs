//! Objects, lists and watch events from and to protobuf.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::messages::{self, Content, Field, LIST_ITEMS, LIST_META, LIST_METADATA, Message, Presence};
use super::wire::{Data, Fields, Malformed, put_bytes, put_number};
use crate::kinds::Kind;

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// The media type of a watch's events, each behind its length in 4 bytes, big-endian.
pub(crate) const STREAM_MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf;stream=watch";
/// What each body begins with; `runtime.Unknown` follows.
const MAGIC: &[u8] = b"k8s\0";

/// Whether objects of a kind have a protobuf form.
pub(crate) fn has_form(kind: &Kind) -> bool {
    !kind.is_custom() && messages::of_kind(&kind.api_version(), &kind.kind).is_some()
}

/// Why a body can't be decoded: the client's fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    /// Not in Kubernetes' envelope.
    #[error("the protobuf envelope is missing")]
    Envelope,
    /// A kind without a protobuf form on this server.
    #[error("{kind:?} of {api_version:?} is accepted as JSON or YAML, not as protobuf")]
    Kind { api_version: String, kind: String },
    /// Not in the wire format.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Text that isn't UTF-8, an invalid time, or bytes that aren't JSON.
    #[error("the field {0} of the protobuf body has an invalid value")]
    Field(&'static str),
}

/// Decodes a body to its JSON form.
pub(crate) fn decode(body: &[u8]) -> Result<Value, DecodeError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(DecodeError::Envelope)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(envelope) {
        match field? {
            (1, Data::Bytes(meta)) => {
                for field in Fields(meta) {
                    match field? {
                        (1, Data::Bytes(bytes)) => api_version = text(bytes, "apiVersion")?,
                        (2, Data::Bytes(bytes)) => kind = text(bytes, "kind")?,
                        _ => {}
                    }
                }
            }
            (2, Data::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let Some(message) = messages::of_kind(&api_version, &kind) else {
        return Err(DecodeError::Kind { api_version, kind });
    };
    let mut object = read(message, raw)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

fn read(message: Message, body: &[u8]) -> Result<Map<String, Value>, DecodeError> {
    let mut object = Map::new();
    for field in Fields(body) {
        let (number, data) = field?;
        let Some(field) = message.iter().find(|field| field.number == number) else { continue };
        if let Some(value) = read_field(field, data, &mut object)? {
            object.insert(field.name.to_owned(), value);
        }
    }
    Ok(object)
}

/// The value of a field; `None` for a zero value that means absence, and if it was added to a field of `object`.
fn read_field(
    field: &Field,
    data: Data<'_>,
    object: &mut Map<String, Value>,
) -> Result<Option<Value>, DecodeError> {
    let value = match (field.content, data) {
        (
            Content::TextMap | Content::BytesMap | Content::TextListMap | Content::QuantityMap,
            Data::Bytes(entry),
        ) => {
            let (key, value) = read_pair(field, entry)?;
            let map = object.entry(field.name).or_insert_with(|| json!({}));
            if let Value::Object(map) = map {
                map.insert(key, value);
            }
            return Ok(None);
        }
        (Content::Text, Data::Bytes(bytes)) => text(bytes, field.name)?.into(),
        (Content::Bytes, Data::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Content::Message(message), Data::Bytes(bytes)) => Value::Object(read(message, bytes)?),
        (Content::Time | Content::MicroTime, Data::Bytes(bytes)) => read_time(field, bytes)?,
        (Content::Json, Data::Bytes(bytes)) => {
            let raw = Fields(bytes).find_map(|field| match field {
                Ok((1, Data::Bytes(raw))) => Some(raw),
                _ => None,
            });
            serde_json::from_slice(raw.unwrap_or(b"null")).map_err(|_| DecodeError::Field(field.name))?
        }
        (Content::Bool, Data::Number(number)) => (number != 0).into(),
        // Negative numbers are sign-extended to 64 bits.
        (Content::Int32, Data::Number(number)) => (number as i32).into(),
        (Content::Int64, Data::Number(number)) => (number as i64).into(),
        (_, _) => return Err(DecodeError::Field(field.name)),
    };
    match field.presence {
        Presence::Repeated => {
            let list = object.entry(field.name).or_insert_with(|| json!([]));
            if let Value::Array(list) = list {
                list.push(value);
            }
            Ok(None)
        }
        Presence::Value if is_zero(&value) => Ok(None),
        Presence::Pointer if value.is_null() => Ok(None),
        Presence::Value | Presence::Pointer => Ok(Some(value)),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
    }
}

fn read_pair(field: &Field, entry: &[u8]) -> Result<(String, Value), DecodeError> {
    let (mut key, mut texts) = (String::new(), Vec::new());
    for part in Fields(entry) {
        match (part?, field.content) {
            ((1, Data::Bytes(bytes)), _) => key = text(bytes, field.name)?,
            ((2, Data::Bytes(list)), Content::TextListMap | Content::QuantityMap) => {
                for item in Fields(list) {
                    if let (1, Data::Bytes(bytes)) = item? {
                        texts.push(text(bytes, field.name)?);
                    }
                }
            }
            ((2, Data::Bytes(bytes)), Content::BytesMap) => texts = vec![STANDARD.encode(bytes)],
            ((2, Data::Bytes(bytes)), _) => texts = vec![text(bytes, field.name)?],
            _ => {}
        }
    }
    let value = match field.content {
        Content::TextListMap => json!(texts),
        _ => texts.pop().unwrap_or_default().into(),
    };
    Ok((key, value))
}

fn text(bytes: &[u8], name: &'static str) -> Result<String, DecodeError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| DecodeError::Field(name))
}

/// The JSON form of a time; null for Go's zero time, which is an empty message.
fn read_time(field: &Field, bytes: &[u8]) -> Result<Value, DecodeError> {
    let (mut seconds, mut nanos) = (0_i64, 0_i32);
    for part in Fields(bytes) {
        match part? {
            (1, Data::Number(number)) => seconds = number as i64,
            (2, Data::Number(number)) => nanos = number as i32,
            _ => {}
        }
    }
    if (seconds, nanos) == (0, 0) {
        return Ok(Value::Null);
    }
    let time = Timestamp::new(seconds, nanos).map_err(|_| DecodeError::Field(field.name))?;
    let format = match field.content {
        Content::MicroTime => "%Y-%m-%dT%H:%M:%S.%6fZ",
        _ => "%Y-%m-%dT%H:%M:%SZ",
    };
    Ok(time.strftime(format).to_string().into())
}

/// Encodes a JSON object, list or Status; `None` if its kind has no protobuf form.
pub(crate) fn encode(object: &Value) -> Option<Vec<u8>> {
    let (api_version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
    let mut raw = Vec::new();
    match messages::of_kind(api_version, kind) {
        Some(message) => write(message, object, &mut raw),
        None => {
            let item = messages::of_kind(api_version, kind.strip_suffix("List")?)?;
            put_bytes(&mut raw, LIST_METADATA, &written(LIST_META, &object["metadata"]));
            for object in object["items"].as_array().into_iter().flatten() {
                put_bytes(&mut raw, LIST_ITEMS, &written(item, object));
            }
        }
    }
    let mut meta = Vec::new();
    put_bytes(&mut meta, 1, api_version.as_bytes());
    put_bytes(&mut meta, 2, kind.as_bytes());
    let mut body = MAGIC.to_vec();
    put_bytes(&mut body, 1, &meta);
    put_bytes(&mut body, 2, &raw);
    Some(body)
}

/// Encodes a watch event after its length; `None` if the kind of its object has no protobuf form.
pub(crate) fn encode_event(event: &Value) -> Option<Vec<u8>> {
    let mut object = Vec::new();
    put_bytes(&mut object, 1, &encode(&event["object"])?);
    let mut body = Vec::new();
    put_bytes(&mut body, 1, event["type"].as_str()?.as_bytes());
    put_bytes(&mut body, 2, &object);
    let length = u32::try_from(body.len()).ok()?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.append(&mut body);
    Some(frame)
}

fn written(message: Message, object: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(message, object, &mut out);
    out
}

fn write(message: Message, object: &Value, out: &mut Vec<u8>) {
    for field in message {
        let value = &object[field.name];
        match (value, field.presence) {
            (Value::Null, _) => {}
            (Value::Array(list), Presence::Repeated) => {
                list.iter().for_each(|item| write_field(field, item, out));
            }
            (value, _) => write_field(field, value, out),
        }
    }
}

/// Skips values of another type; stored objects are valid.
fn write_field(field: &Field, value: &Value, out: &mut Vec<u8>) {
    let number = field.number;
    match (field.content, value) {
        (Content::Text, Value::String(text)) => put_bytes(out, number, text.as_bytes()),
        (Content::Bytes, Value::String(encoded)) => {
            // What is stored is valid base64.
            if let Ok(bytes) = STANDARD.decode(encoded) {
                put_bytes(out, number, &bytes);
            }
        }
        (Content::Message(message), Value::Object(_)) => put_bytes(out, number, &written(message, value)),
        (Content::Bool, Value::Bool(set)) => put_number(out, number, u64::from(*set)),
        (Content::Int32 | Content::Int64, Value::Number(value)) => {
            // Two's complement, as protobuf has negative numbers.
            put_number(out, number, value.as_i64().unwrap_or_default() as u64);
        }
        (Content::Time | Content::MicroTime, Value::String(text)) => {
            if let Ok(time) = text.parse::<Timestamp>() {
                put_bytes(out, number, &written_time(time));
            }
        }
        (Content::Json, value) => {
            let mut raw = Vec::new();
            put_bytes(&mut raw, 1, value.to_string().as_bytes());
            put_bytes(out, number, &raw);
        }
        (Content::BytesMap, Value::Object(map)) => {
            for (key, value) in map {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, key.as_bytes());
                // What is stored is valid base64.
                let bytes = STANDARD.decode(value.as_str().unwrap_or_default());
                put_bytes(&mut entry, 2, &bytes.unwrap_or_default());
                put_bytes(out, number, &entry);
            }
        }
        (Content::QuantityMap, Value::Object(map)) => {
            for (key, value) in map {
                let mut quantity = Vec::new();
                put_bytes(&mut quantity, 1, value.as_str().unwrap_or_default().as_bytes());
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, key.as_bytes());
                put_bytes(&mut entry, 2, &quantity);
                put_bytes(out, number, &entry);
            }
        }
        (Content::TextMap | Content::TextListMap, Value::Object(map)) => {
            for (key, value) in map {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, key.as_bytes());
                match value {
                    Value::Array(list) => {
                        let mut items = Vec::new();
                        let texts = list.iter().filter_map(Value::as_str);
                        texts.for_each(|text| put_bytes(&mut items, 1, text.as_bytes()));
                        put_bytes(&mut entry, 2, &items);
                    }
                    value => put_bytes(&mut entry, 2, value.as_str().unwrap_or_default().as_bytes()),
                }
                put_bytes(out, number, &entry);
            }
        }
        (_, _) => {}
    }
}

/// Seconds are rounded down, so that nanoseconds are positive before 1970 too.
fn written_time(time: Timestamp) -> Vec<u8> {
    const SECOND: i128 = 1_000_000_000;
    let nanos = time.as_nanosecond();
    let mut out = Vec::new();
    // Both fit: jiff's times lie within years -9999 to 9999, and the remainder is below a second.
    put_number(&mut out, 1, nanos.div_euclid(SECOND) as i64 as u64);
    put_number(&mut out, 2, nanos.rem_euclid(SECOND) as u64);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lease() -> Value {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {
                "name": "leader", "namespace": "default", "generation": 3,
                "creationTimestamp": "2026-11-28T12:00:00Z",
                "labels": {"a": "b", "c": ""},
                "finalizers": ["wasmbed.github.io/x"],
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": false}],
                "managedFields": [{"manager": "m", "operation": "Update", "apiVersion": "coordination.k8s.io/v1",
                    "time": "2026-11-28T12:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:holderIdentity": {}}}}],
            },
            "spec": {
                "holderIdentity": "", "leaseDurationSeconds": 0, "leaseTransitions": -1,
                "renewTime": "1969-12-31T23:59:59.250000Z",
            },
        })
    }

    #[test]
    fn every_kind_survives_the_way_there_and_back() {
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "reason": "Started", "count": 2,
            "involvedObject": {"kind": "Device", "name": "d"}, "eventTime": "2026-11-28T12:00:00.123456Z",
            "series": {"count": 1, "lastObservedTime": "2026-11-28T12:00:00.000001Z"},
        });
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview",
            "status": {"userInfo": {"username": "me", "groups": ["a", "b"], "extra": {"scopes": ["x", "y"]}}},
        });
        let options = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
            "propagationPolicy": "Background", "preconditions": {"uid": "u"}, "dryRun": ["All"],
        });
        let request = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "r"},
            "spec": {
                "request": "AP8=", "signerName": "example.com/s", "expirationSeconds": 600, "usages": ["client auth"],
                "username": "me", "groups": ["a"], "extra": {"scopes": ["x", "y"]},
            },
            "status": {"certificate": "AAAA", "conditions": [{
                "type": "Approved", "status": "True", "reason": "r", "message": "m",
                "lastUpdateTime": "2026-11-28T12:00:00Z", "lastTransitionTime": "2026-11-28T12:00:01Z",
            }]},
        });
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": "Opaque", "immutable": false,
            "data": {"a": "AP8=", "empty": ""}, "stringData": {"b": "text"},
        });
        let quota = json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
            "spec": {
                "hard": {"count/secrets": "5", "requests.memory": "1Mi"}, "scopes": ["BestEffort"],
                "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["a"]}]},
            },
            "status": {"hard": {"count/secrets": "5"}, "used": {"count/secrets": "0"}},
        });
        for object in [lease(), event, review, options, request, secret, quota] {
            assert_eq!(decode(&encode(&object).unwrap()).unwrap(), object);
        }
    }

    #[test]
    fn lists_and_watch_events_carry_their_objects() {
        let list = json!({
            "apiVersion": "v1", "kind": "NamespaceList", "metadata": {"resourceVersion": "7"},
            "items": [{"metadata": {"name": "default"}}],
        });
        assert!(encode(&list).unwrap().windows(7).any(|window| window == b"default"));
        let frame = encode_event(&json!({"type": "ADDED", "object": lease()})).unwrap();
        let (length, event) = frame.split_at(4);
        assert_eq!(u32::from_be_bytes(length.try_into().unwrap()) as usize, event.len());
        let Ok((2, Data::Bytes(raw))) = Fields(event).nth(1).unwrap() else { panic!("no object") };
        let Ok((1, Data::Bytes(object))) = Fields(raw).next().unwrap() else { panic!("no bytes") };
        assert_eq!(decode(object).unwrap(), lease());
    }

    #[test]
    fn kinds_without_a_protobuf_form_are_refused_by_name() {
        assert!(encode(&json!({"apiVersion": "wasmbed.github.io/v1alpha1", "kind": "Device"})).is_none());
        let mut pod = encode(&lease()).unwrap();
        let at = pod.windows(5).position(|window| window == b"Lease").unwrap();
        pod[at..at + 5].copy_from_slice(b"Leash");
        let refused = decode(&pod).unwrap_err().to_string();
        assert!(
            refused.starts_with("\"Leash\" of \"coordination.k8s.io/v1\" is accepted as JSON"),
            "{refused}"
        );
        assert!(matches!(decode(b"{}"), Err(DecodeError::Envelope)));
    }

    proptest! {
        #[test]
        fn no_body_panics(cut in 0_usize..1_000, at in 0_usize..1_000, byte: u8) {
            let mut body = encode(&lease()).unwrap();
            let length = body.len();
            body[at % length] = byte;
            let _ = decode(&body[..cut.min(length)]);
            let _ = decode(&body);
        }
    }
}
