//! The Table form: a kind's columns with the object's name before them; Events have a table of their own.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::columns::{CREATED, since};
use super::kind::Kind;

/// Description of `metadata.name` in Kubernetes.
const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

/// Columns of Events: name, description, whether only the wide form shows it.
const EVENT: [(&str, &str, bool); 10] = [
    ("Last Seen", "The time at which the most recent occurrence of this event was recorded.", false),
    ("Type", "Type of this event (Normal, Warning), new types could be added in the future", false),
    (
        "Reason",
        "This should be a short, machine understandable string that gives the reason for the transition into the object's current status.",
        false,
    ),
    ("Object", "The object that this event is about.", false),
    (
        "Subobject",
        "If referring to a piece of an object instead of an entire object, this string should contain a valid JSON/Go field access statement, such as desiredState.manifest.containers[2]. For example, if the object reference is to a container within a pod, this would take on a value like: \"spec.containers{name}\" (where \"name\" refers to the name of the container that triggered the event) or if no container name is specified \"spec.containers[2]\" (container with index 2 in this pod). This syntax is chosen only to have some well-defined way of referencing a part of an object.",
        true,
    ),
    ("Source", "The component reporting this event. Should be a short machine understandable string.", true),
    ("Message", "A human-readable description of the status of this operation.", false),
    (
        "First Seen",
        "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)",
        true,
    ),
    ("Count", "The number of times this event has occurred.", true),
    ("Name", NAME, true),
];

/// A column's definition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heading<'a> {
    pub(crate) name: &'a str,
    pub(crate) ty: &'a str,
    pub(crate) format: &'a str,
    pub(crate) description: &'a str,
    pub(crate) priority: i64,
}

impl Kind {
    /// The column definitions of its Table.
    pub(crate) fn headings(&self) -> Vec<Heading<'_>> {
        if self.is_event() {
            return EVENT
                .iter()
                .map(|(name, description, wide)| Heading {
                    name,
                    ty: "string",
                    format: if *name == "Name" { "name" } else { "" },
                    description,
                    priority: i64::from(*wide),
                })
                .collect();
        }
        let name = Heading { name: "Name", ty: "string", format: "name", description: NAME, priority: 0 };
        let columns = self.columns.iter().map(|column| {
            let is_age = column.is_age();
            let ty = match (self.is_custom(), column.ty.as_str()) {
                (false, "date") => "string",
                // Definitions show the creation time itself, and still call it a date.
                (false, _) if is_age => "date",
                (_, ty) => ty,
            };
            let description = if is_age && !self.is_custom() { CREATED } else { &column.description };
            Heading { name: &column.name, ty, format: &column.format, description, priority: column.priority }
        });
        std::iter::once(name).chain(columns).collect()
    }

    /// The cells of a stored object's row.
    pub(crate) fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        if self.is_event() {
            return event_cells(object, now);
        }
        let name = std::iter::once(object["metadata"]["name"].clone());
        name.chain(self.columns.iter().map(|column| column.cell(object, now))).collect()
    }
}

fn event_cells(event: &Value, now: Timestamp) -> Vec<Value> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let age = |time: &Value| since(time.as_str().unwrap_or_default(), now);
    let either = |one: &Value, other: &Value| {
        let one = text(one);
        if one.is_empty() { text(other) } else { one }
    };
    let is_time = |time: &&Value| time.as_str().is_some_and(|text| !text.is_empty());
    let first = [&event["firstTimestamp"]].into_iter().find(is_time).unwrap_or(&event["eventTime"]);
    let last = [&event["lastTimestamp"]].into_iter().find(is_time).unwrap_or(first);
    let (last, count) = match &event["series"] {
        Value::Object(series) => (
            series.get("lastObservedTime").unwrap_or(&Value::Null),
            series.get("count").and_then(Value::as_i64).unwrap_or(0),
        ),
        _ => (last, event["count"].as_i64().filter(|count| *count != 0).unwrap_or(1)),
    };
    let about = &event["involvedObject"];
    let (kind, name) = (text(&about["kind"]).to_lowercase(), text(&about["name"]));
    let component = either(&event["source"]["component"], &event["reportingComponent"]);
    let instance = either(&event["source"]["host"], &event["reportingInstance"]);
    vec![
        json!(age(last)),
        json!(text(&event["type"])),
        json!(text(&event["reason"])),
        json!(if name.is_empty() { kind } else { format!("{kind}/{name}") }),
        json!(text(&about["fieldPath"])),
        json!(if instance.is_empty() { component } else { format!("{component}, {instance}") }),
        json!(text(&event["message"]).trim()),
        json!(age(first)),
        json!(count),
        event["metadata"]["name"].clone(),
    ]
}
