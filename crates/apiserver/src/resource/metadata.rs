//! `metadata`: shapes, names, fields that the server sets, and validation.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::request::Preconditions;
use crate::kinds::Kind;
use crate::names;
use crate::schema::path::Path;
use crate::status::{CAUSES_MAX, Cause, Status};

/// Bytes of all annotations together, as in Kubernetes.
const ANNOTATION_BYTES_MAX: usize = 256 * 1024;
/// Characters of a generated name, its random end included.
const GENERATED_NAME_MAX: usize = 63;

const KNOWN: [(&str, Shape); 15] = [
    ("annotations", Shape::Strings),
    ("creationTimestamp", Shape::Time),
    ("deletionGracePeriodSeconds", Shape::Number),
    ("deletionTimestamp", Shape::Time),
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
    Time,
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

/// Takes the metadata out of an object, checks its shapes, drops nulls and unknown fields.
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
            if taken.unknown.len() < CAUSES_MAX {
                taken.unknown.push(Path::ROOT.field("metadata").field(&name).text());
            }
            continue;
        };
        if value.is_null() {
            continue;
        }
        let fits = match shape {
            Shape::Text => value.is_string(),
            Shape::Time => value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok()),
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
        // An empty list of managers asks for a reset.
        let empty = name != "managedFields"
            && (value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty));
        if !empty {
            taken.metadata.insert(name, value);
        }
    }
    Ok(taken)
}

/// Sets the namespace of a new object to that of the path.
pub(super) fn set_namespace(
    kind: &Kind,
    metadata: &mut Map<String, Value>,
    namespace: Option<&str>,
) -> Result<(), Status> {
    let stated = metadata.get("namespace").and_then(Value::as_str).filter(|namespace| !namespace.is_empty());
    match (kind.namespaced, namespace, stated) {
        (true, Some(namespace), Some(stated)) if namespace != stated => Err(other_namespace()),
        (true, Some(namespace), _) => {
            metadata.insert("namespace".into(), json!(namespace));
            Ok(())
        }
        (true, None, _) => Err(Status::bad_request("an empty namespace may not be set during creation")),
        (false, _, _) => {
            metadata.remove("namespace");
            Ok(())
        }
    }
}

fn other_name(stated: &str, wanted: &str) -> Status {
    let why = format!("the name of the object ({stated}) does not match the name on the URL ({wanted})");
    Status::bad_request(why)
}

/// Checks that a new object has the name in the URL.
pub(super) fn check_name(metadata: &Map<String, Value>, wanted: &str) -> Result<(), Status> {
    match metadata.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) {
        None => Err(Status::bad_request(format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
        ))),
        Some(stated) if stated != wanted => Err(other_name(stated, wanted)),
        Some(_) => Ok(()),
    }
}

fn other_namespace() -> Status {
    Status::bad_request(
        "the namespace of the provided object does not match the namespace sent on the request",
    )
}

/// `start` and five random characters, without vowels, so that they form no words.
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

/// Checks that an update is about this object and this version of it.
pub(super) fn check_update(
    kind: &Kind,
    current: &Value,
    metadata: &Map<String, Value>,
) -> Result<(), Status> {
    let text = |name: &str| metadata.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let is = |name: &str| current["metadata"][name].as_str().unwrap_or_default();
    let name = is("name");
    if kind.namespaced && text("namespace").is_some_and(|stated| stated != is("namespace")) {
        return Err(other_namespace());
    }
    check_name(metadata, name)?;
    let conditions = Preconditions {
        uid: text("uid").map(str::to_owned),
        resource_version: text("resourceVersion").map(str::to_owned),
    };
    if conditions.resource_version.is_none() && !kind.unconditional_update {
        let cause = Cause::invalid("metadata.resourceVersion", "0", "must be specified for an update");
        return Err(Status::invalid_resource(kind.names(), name, cause));
    }
    check_preconditions(kind, current, &conditions)?;
    if let Some(stated) = text("deletionTimestamp")
        && stated != is("deletionTimestamp")
    {
        let shown = json!(stated).to_string();
        let cause = Cause::invalid("metadata.deletionTimestamp", &shown, "field is immutable");
        return Err(Status::invalid(kind.names(), name, vec![cause]));
    }
    Ok(())
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
        return Err(Status::conflict(kind.names(), is("name"), why));
    }
    if let Some(version) = &conditions.resource_version
        && version != is("resourceVersion")
    {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        return Err(Status::conflict(kind.names(), is("name"), why));
    }
    Ok(())
}

/// Checks the preconditions of a delete, whose errors have other texts.
pub(super) fn check_delete(kind: &Kind, current: &Value, conditions: &Preconditions) -> Result<(), Status> {
    let is = |name: &str| current["metadata"][name].as_str().unwrap_or_default();
    if let Some(uid) = &conditions.uid
        && uid != is("uid")
    {
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            is("uid")
        );
        return Err(Status::conflict_of(kind.names(), is("name"), &why));
    }
    if let Some(version) = &conditions.resource_version
        && version != is("resourceVersion")
    {
        let why = format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). The object might have been modified",
            is("resourceVersion")
        );
        return Err(Status::conflict_of(kind.names(), is("name"), &why));
    }
    Ok(())
}

pub(super) fn restore_server_fields(metadata: &mut Map<String, Value>, current: &Value) {
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

/// Validates the metadata; less of it in an update, as in Kubernetes.
pub(super) fn validate(kind: &Kind, object: &Value, is_new: bool) -> Vec<Cause> {
    let mut causes = Vec::new();
    let metadata = &object["metadata"];
    let mut check = |field: &str, value: &str, wrong: Vec<String>| {
        causes.extend(wrong.into_iter().map(|why| Cause::invalid(field, &json!(value).to_string(), why)));
    };
    if is_new {
        let validate_name = |name: &str| match kind.kind.as_str() {
            "Namespace" => names::label(name),
            _ if kind.is_signing_request() => names::segment(name),
            _ => names::subdomain(name),
        };
        // Names of Events aren't validated.
        let start = metadata["generateName"].as_str().filter(|start| !start.is_empty() && kind.is_custom());
        if let Some(start) = start {
            // A trailing dash is valid: a suffix follows.
            let shown = start.strip_suffix('-').map_or_else(|| start.to_owned(), |start| format!("{start}a"));
            check("metadata.generateName", start, validate_name(&shown));
        }
        if let Some(name) = metadata["name"].as_str().filter(|name| !name.is_empty()) {
            check("metadata.name", name, validate_name(name));
        }
        for name in finalizers(object) {
            check("metadata.finalizers", name, names::key(name));
        }
    }
    for (name, value) in metadata["labels"].as_object().into_iter().flatten() {
        check("metadata.labels", name, names::key(name));
        let value = value.as_str().unwrap_or_default();
        check("metadata.labels", value, names::value(value));
    }
    let mut annotation_bytes = 0;
    for (name, value) in metadata["annotations"].as_object().into_iter().flatten() {
        annotation_bytes += name.len() + value.as_str().map_or(0, str::len);
        check("metadata.annotations", name, names::key(&name.to_lowercase()));
    }
    if annotation_bytes > ANNOTATION_BYTES_MAX {
        let message = format!("Too long: may not be more than {ANNOTATION_BYTES_MAX} bytes");
        causes.push(Cause::new("FieldValueTooLong", "metadata.annotations", message));
    }
    if is_new && metadata["name"].as_str().is_none_or(str::is_empty) {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    }
    causes.extend(owners(metadata["ownerReferences"].as_array().map_or(&[], Vec::as_slice)));
    causes
}

/// Controllers reported beyond the first one; each is reported with the list of all owners.
const CONTROLLERS_REPORTED_MAX: usize = 4;

fn owners(owners: &[Value]) -> Vec<Cause> {
    const FIELD: &str = "metadata.ownerReferences";
    let mut causes = Vec::new();
    for owner in owners {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().is_none_or(str::is_empty) {
                let version = if field == "apiVersion" { "version " } else { "" };
                let why = format!("{version}must not be empty");
                causes.push(Cause::invalid(&format!("{FIELD}.{field}"), "\"\"", why));
            }
        }
    }
    let controllers: Vec<String> = owners
        .iter()
        .filter(|owner| owner["controller"] == true)
        .map(|owner| {
            let text = |field: &str| owner[field].as_str().unwrap_or_default();
            format!("{}/{}", text("kind"), text("name"))
        })
        .collect();
    for other in controllers.iter().skip(1).take(CONTROLLERS_REPORTED_MAX) {
        let why = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {} and {other}",
            controllers.first().map_or("", String::as_str)
        );
        let shown: Vec<String> = owners.iter().map(as_go).collect();
        causes.push(Cause::invalid(FIELD, &format!("[{}]", shown.join(",")), why));
    }
    causes
}

/// An owner as Go encodes it, with its fields in that order.
fn as_go(owner: &Value) -> String {
    let order = ["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"];
    let fields = order.iter().filter_map(|name| Some(format!("\"{name}\":{}", owner.get(name)?)));
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}
