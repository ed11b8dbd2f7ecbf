//! The Table form: a kind's columns with the object's name before them; Events have a table of their own.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::columns::{CREATED, human_duration, since};
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

/// Columns of CertificateSigningRequests: name and description.
const SIGNING_REQUEST: [(&str, &str); 5] = [
    ("Age", CREATED),
    (
        "SignerName",
        "Requested signer for the request. It is a qualified name in the form: `scope-hostname.io/name`. If empty, it will be defaulted:\n 1. If it's a kubelet client certificate, it is assigned\n    \"kubernetes.io/kube-apiserver-client-kubelet\".\n 2. If it's a kubelet serving certificate, it is assigned\n    \"kubernetes.io/kubelet-serving\".\n 3. Otherwise, it is assigned \"kubernetes.io/legacy-unknown\".\nDistribution of trust for signers happens out of band. You can select on this field using `spec.signerName`.",
    ),
    ("Requestor", "Base64-encoded PKCS#10 CSR data"),
    (
        "RequestedDuration",
        "expirationSeconds is the requested duration of validity of the issued certificate. The certificate signer may issue a certificate with a different validity duration so a client must check the delta between the notBefore and and notAfter fields in the issued certificate to determine the actual duration.\n\nThe v1.22+ in-tree implementations of the well-known Kubernetes signers will honor this field as long as the requested duration is not greater than the maximum duration they will honor per the --cluster-signing-duration CLI flag to the Kubernetes controller manager.\n\nCertificate signers may not honor this field for various reasons:\n\n  1. Old signer that is unaware of the field (such as the in-tree\n     implementations prior to v1.22)\n  2. Signer whose configured maximum is shorter than the requested duration\n  3. Signer whose configured minimum is longer than the requested duration\n\nThe minimum valid value for expirationSeconds is 600, i.e. 10 minutes.",
    ),
    ("Condition", "Conditions applied to the request, such as approval or denial."),
];

/// Columns of Secrets: name and description.
const SECRET: [(&str, &str); 3] = [
    (
        "Type",
        "Used to facilitate programmatic handling of secret data. More info: https://kubernetes.io/docs/concepts/configuration/secret/#secret-types",
    ),
    (
        "Data",
        "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. The serialized form of the secret data is a base64 encoded string, representing the arbitrary (possibly non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4",
    ),
    ("Age", CREATED),
];

/// Columns of ResourceQuotas: name and description.
const RESOURCE_QUOTA: [(&str, &str); 3] = [
    ("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
    (
        "Limit",
        "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
    ),
    ("Age", CREATED),
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
        let column =
            |(name, description)| Heading { name, ty: "string", format: "", description, priority: 0 };
        if self.is_signing_request() {
            return std::iter::once(name).chain(SIGNING_REQUEST.map(column)).collect();
        }
        if self.is_secret() {
            return std::iter::once(name).chain(SECRET.map(column)).collect();
        }
        if self.is_resource_quota() {
            return std::iter::once(name).chain(RESOURCE_QUOTA.map(column)).collect();
        }
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
        let created = object["metadata"]["creationTimestamp"].as_str().unwrap_or_default();
        if self.is_secret() {
            let count = object["data"].as_object().map_or(0, serde_json::Map::len);
            return name.chain([object["type"].clone(), json!(count), json!(since(created, now))]).collect();
        }
        if self.is_resource_quota() {
            return name.chain(resource_quota_cells(object)).chain([json!(since(created, now))]).collect();
        }
        if self.is_signing_request() {
            return name.chain([json!(since(created, now))]).chain(signing_request_cells(object)).collect();
        }
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

/// What is used of each bound of a ResourceQuota: of requests, and of limits.
fn resource_quota_cells(quota: &Value) -> [Value; 2] {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (name, hard) in quota["status"]["hard"].as_object().into_iter().flatten() {
        let used = quota["status"]["used"][name].as_str().unwrap_or("0");
        let of = if name.starts_with("limits.") { &mut limits } else { &mut requests };
        of.push(format!("{name}: {used}/{}", hard.as_str().unwrap_or("0")));
    }
    [json!(requests.join(", ")), json!(limits.join(", "))]
}

/// The cells of a CertificateSigningRequest after its name and its age.
fn signing_request_cells(request: &Value) -> [Value; 4] {
    let (spec, status) = (&request["spec"], &request["status"]);
    let conditions = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let has = |ty: &str| conditions.iter().any(|condition| condition["type"] == ty);
    let mut condition = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied".to_owned(),
        (false, true) => "Approved".to_owned(),
        (false, false) => "Pending".to_owned(),
    };
    for (holds, what) in [(has("Failed"), ",Failed"), (status["certificate"].is_string(), ",Issued")] {
        if holds {
            condition.push_str(what);
        }
    }
    let duration = spec["expirationSeconds"].as_i64().map(human_duration);
    [
        spec["signerName"].clone(),
        json!(spec["username"].as_str().unwrap_or_default()),
        json!(duration.unwrap_or_else(|| "<none>".into())),
        json!(condition),
    ]
}
