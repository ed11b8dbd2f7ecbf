//! `metadata`: names, what the server sets, and what it checks.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Preconditions;
use crate::kinds::Kind;
use crate::status::{Cause, Status};

/// Bytes of all annotations together, as in Kubernetes.
const ANNOTATION_BYTES_MAX: usize = 256 * 1024;
/// Characters of a generated name, its random end included.
const GENERATED_NAME_MAX: usize = 63;

const KNOWN: [(&str, Shape); 15] = [
    ("annotations", Shape::Strings),
    ("creationTimestamp", Shape::Text),
    ("deletionGracePeriodSeconds", Shape::Number),
    ("deletionTimestamp", Shape::Text),
    ("finalizers", Shape::Texts),
    ("generateName", Shape::Text),
    ("generation", Shape::Number),
    ("labels", Shape::Strings),
    ("managedFields", Shape::Objects),
    ("name", Shape::Text),
    ("namespace", Shape::Text),
    ("ownerReferences", Shape::Objects),
    ("resourceVersion", Shape::Text),
    ("selfLink", Shape::Text),
    ("uid", Shape::Text),
];

#[derive(Clone, Copy)]
enum Shape {
    Text,
    Number,
    Texts,
    /// A map of strings.
    Strings,
    Objects,
}

pub(super) struct Taken {
    pub(super) metadata: Map<String, Value>,
    pub(super) unknown: Vec<String>,
}

/// Takes the metadata out of an object: shapes checked, nulls and unknown fields dropped.
pub(super) fn take(object: &mut Value) -> Result<Taken, Status> {
    let taken = object.as_object_mut().and_then(|fields| fields.remove("metadata")).unwrap_or(Value::Null);
    let fields = match taken {
        Value::Object(fields) => fields,
        Value::Null => Map::new(),
        other => return Err(Status::bad_request(format!("metadata must be an object, not {other}"))),
    };
    let mut taken = Taken { metadata: Map::new(), unknown: Vec::new() };
    for (name, value) in fields {
        let Some((_, shape)) = KNOWN.iter().find(|(known, _)| *known == name) else {
            taken.unknown.push(format!("metadata.{name}"));
            continue;
        };
        if value.is_null() {
            continue;
        }
        let fits = match shape {
            Shape::Text => value.is_string(),
            Shape::Number => value.is_i64(),
            Shape::Texts => value.as_array().is_some_and(|items| items.iter().all(Value::is_string)),
            Shape::Strings => value.as_object().is_some_and(|fields| fields.values().all(Value::is_string)),
            Shape::Objects => value.as_array().is_some_and(|items| items.iter().all(Value::is_object)),
        };
        if !fits {
            return Err(Status::bad_request(format!(
                "metadata.{name} has a value of the wrong type: {value}"
            )));
        }
        let empty =
            value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty);
        if !empty {
            taken.metadata.insert(name, value);
        }
    }
    Ok(taken)
}

/// Puts a new object into the namespace of its path.
pub(super) fn place(
    kind: &Kind,
    metadata: &mut Map<String, Value>,
    namespace: Option<&str>,
) -> Result<(), Status> {
    let stated = metadata.get("namespace").and_then(Value::as_str).filter(|namespace| !namespace.is_empty());
    match (kind.namespaced, namespace, stated) {
        (true, Some(namespace), Some(stated)) if namespace != stated => Err(Status::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request: {stated:?}, {namespace:?}"
        ))),
        (true, Some(namespace), _) => {
            metadata.insert("namespace".into(), json!(namespace));
            Ok(())
        }
        (true, None, _) => Err(Status::bad_request("an empty namespace may not be set during creation")),
        (false, _, Some(stated)) => Err(Status::bad_request(format!(
            "{} is not namespaced, but the object states {stated:?}",
            kind.plural
        ))),
        (false, _, None) => {
            metadata.remove("namespace");
            Ok(())
        }
    }
}

/// `start` and five random letters, without vowels that make words.
pub(super) fn generate_name(start: &str, random: Uuid) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    const RANDOM: usize = 5;
    let mut name: String = start.chars().take(GENERATED_NAME_MAX - RANDOM).collect();
    // The last bytes of a version 4 uuid are random.
    for byte in &random.as_bytes()[16 - RANDOM..] {
        name.push(char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
    }
    name
}

/// Refuses an update that means another object, or another version of it.
pub(super) fn same_object(kind: &Kind, current: &Value, metadata: &Map<String, Value>) -> Result<(), Status> {
    let text = |name: &str| metadata.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let is = |name: &str| current["metadata"][name].as_str().unwrap_or_default();
    let name = is("name");
    for field in ["name", "namespace"] {
        if let Some(stated) = text(field)
            && stated != is(field)
        {
            let why = format!(
                "the {field} of the object ({stated}) does not match the {field} on the URL ({})",
                is(field)
            );
            return Err(Status::bad_request(why));
        }
    }
    let conditions = Preconditions {
        uid: text("uid").map(str::to_owned),
        resource_version: text("resourceVersion").map(str::to_owned),
    };
    if conditions.resource_version.is_none() && !kind.unconditional_update {
        let cause = Cause::invalid("metadata.resourceVersion", "0", "must be specified for an update");
        return Err(Status::invalid(kind, name, vec![cause]));
    }
    check_preconditions(kind, current, &conditions)
}

pub(super) fn check_preconditions(
    kind: &Kind,
    current: &Value,
    conditions: &Preconditions,
) -> Result<(), Status> {
    let is = |name: &str| current["metadata"][name].as_str().unwrap_or_default();
    if let Some(uid) = &conditions.uid
        && uid != is("uid")
    {
        let why =
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", is("uid"));
        return Err(Status::conflict(kind, is("name"), why));
    }
    if let Some(version) = &conditions.resource_version
        && version != is("resourceVersion")
    {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        return Err(Status::conflict(kind, is("name"), why));
    }
    Ok(())
}

pub(super) fn keep_what_the_server_sets(metadata: &mut Map<String, Value>, current: &Value) {
    metadata.remove("managedFields");
    metadata.remove("selfLink");
    let kept = [
        "name",
        "generateName",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ];
    for name in kept {
        match current["metadata"].get(name) {
            Some(value) => metadata.insert(name.into(), value.clone()),
            None => metadata.remove(name),
        };
    }
}

pub(super) fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

pub(super) fn validate(kind: &Kind, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let metadata = &object["metadata"];
    match metadata["name"].as_str() {
        None | Some("") => causes.push(Cause::required("metadata.name", "name or generateName is required")),
        Some(name) => {
            let most = if kind.kind == "Namespace" { 63 } else { 253 };
            if name.len() > most || !name.split('.').all(is_label) || (most == 63 && name.contains('.')) {
                let why = format!(
                    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
                     must start and end with an alphanumeric character and be at most {most} characters long"
                );
                causes.push(Cause::invalid("metadata.name", &json!(name).to_string(), why));
            }
        }
    }
    for (name, value) in metadata["labels"].as_object().into_iter().flatten() {
        if !is_qualified(name) {
            let why = "a label's name is an optional DNS prefix with a slash and at most 63 letters, digits, -, _ and .";
            causes.push(Cause::invalid("metadata.labels", &json!(name).to_string(), why));
        }
        if !value.as_str().is_some_and(|value| value.is_empty() || is_name_part(value)) {
            let why =
                "a label's value is at most 63 letters, digits, -, _ and ., a letter or digit at both ends";
            causes.push(Cause::invalid("metadata.labels", &value.to_string(), why));
        }
    }
    let mut annotation_bytes = 0;
    for (name, value) in metadata["annotations"].as_object().into_iter().flatten() {
        annotation_bytes += name.len() + value.as_str().map_or(0, str::len);
        if !is_qualified(&name.to_lowercase()) {
            let why = "an annotation's name is an optional DNS prefix with a slash and at most 63 letters, digits, -, _ and .";
            causes.push(Cause::invalid("metadata.annotations", &json!(name).to_string(), why));
        }
    }
    if annotation_bytes > ANNOTATION_BYTES_MAX {
        let message = format!("Too long: may not be more than {ANNOTATION_BYTES_MAX} bytes");
        causes.push(Cause::new("FieldValueTooLong", "metadata.annotations", message));
    }
    for name in finalizers(object).filter(|name| !is_qualified(name)) {
        causes.push(Cause::invalid(
            "metadata.finalizers",
            &json!(name).to_string(),
            "name is neither a standard finalizer name nor is it fully qualified",
        ));
    }
    for (index, owner) in metadata["ownerReferences"].as_array().into_iter().flatten().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().is_none_or(str::is_empty) {
                causes.push(Cause::required(
                    &format!("metadata.ownerReferences[{index}].{field}"),
                    "must not be empty",
                ));
            }
        }
    }
    causes
}

/// RFC 1123 label.
fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-';
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(inner)
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-')
}

fn is_name_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
}

fn is_qualified(name: &str) -> bool {
    match name.split_once('/') {
        None => is_name_part(name),
        Some((prefix, name)) => prefix.len() <= 253 && prefix.split('.').all(is_label) && is_name_part(name),
    }
}
