//! The audit log: who did what with which object, a line for each request, in the format of Kubernetes (`audit.k8s.io/v1`, level
//! Metadata), so that what reads the audit log of a cluster reads this one.
//!
//! Recorded are requests that change something, requests for Secrets, and refused ones (401, 403). What components write all the
//! time is not: statuses, Leases, Events and reviews; but who approved a request for a certificate and who issued it are.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::USER_AGENT;
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use serde::{Deserialize, Serialize};
use wasmbed_files::RotatingFile;

use super::client::Client;
use super::error::ServerError;
use super::route::Target;
use super::shares::Lines;
use super::verb::Action;
use crate::access::Verb;
use crate::config::AuditLog;

/// Names a request in answers and in the audit log, as in Kubernetes.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Bytes of an id that a client gives its request, as in Kubernetes.
const ID_BYTES_MAX: usize = 64;
/// Bytes of what a client states about itself.
const URI_BYTES_MAX: usize = 2_048;
const AGENT_BYTES_MAX: usize = 256;
const NAME_BYTES_MAX: usize = 253;

/// The object that a write led to, as stored, in the extensions of its answer.
#[derive(Clone)]
pub(super) struct Written {
    pub(super) object: Bytes,
    pub(super) manager: String,
}

/// Where requests are recorded.
pub(super) struct Audit {
    /// None if nothing is recorded.
    file: Option<Mutex<RotatingFile>>,
    /// Of refused requests.
    refused: Lines,
    failed: Counter,
}

impl Audit {
    /// # Errors
    /// The file can't be opened.
    pub(super) fn open(config: Option<&AuditLog>, failed: Counter) -> Result<Audit, ServerError> {
        let open = |log: &AuditLog| match RotatingFile::open(&log.path, log.bytes_max, log.kept) {
            Ok(file) => Ok(Mutex::new(file)),
            Err(error) => Err(ServerError::AuditLog { path: log.path.clone(), error }),
        };
        Ok(Audit { file: config.map(open).transpose()?, refused: Lines::new(), failed })
    }

    /// Records a request that was answered, if it is of those that are recorded.
    pub(super) fn record(&self, client: &Client, seen: &Seen<'_>, answered: Answered<'_>) {
        let Some(file) = &self.file else { return };
        if !is_recorded(seen.action, seen.resource, answered.code) {
            return;
        }
        if matches!(answered.code, 401 | 403) && !self.refused.may_log(&client.name) {
            return;
        }
        let line = match serde_json::to_string(&event(client, seen, answered)) {
            Ok(line) => line,
            Err(error) => return self.failed(&error),
        };
        let written = file.lock().unwrap_or_else(PoisonError::into_inner).write_line(&line);
        if let Err(error) = written {
            self.failed(&error);
        }
    }

    /// A request is answered even if it can't be recorded, as by default in Kubernetes.
    fn failed(&self, error: &dyn std::error::Error) {
        self.failed.inc();
        if self.refused.may_log(&Arc::from("")) {
            tracing::error!(reason = "AuditFailed", %error, "a request is not in the audit log");
        }
    }
}

/// A request, as far as it is understood.
pub(super) struct Seen<'a> {
    pub(super) id: &'a str,
    pub(super) parts: &'a Parts,
    pub(super) received: Timestamp,
    pub(super) action: Action,
    /// `devices` or `devices/status`; empty for what isn't a resource.
    pub(super) resource: &'a str,
    pub(super) target: Option<&'a Target>,
}

/// How it was answered.
#[derive(Clone, Copy)]
pub(super) struct Answered<'a> {
    pub(super) code: u16,
    /// Of a refusal. Its message is not recorded: it may repeat what the request says.
    pub(super) reason: Option<&'static str>,
    pub(super) written: Option<&'a Written>,
}

/// The client's own id for the request if it gave one that can be one, and otherwise a new one.
pub(super) fn id(parts: &Parts) -> String {
    let stated = parts.headers.get(AUDIT_ID).and_then(|value| value.to_str().ok());
    let usable =
        |id: &&str| !id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(|b| b.is_ascii_graphic());
    stated.filter(usable).map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

/// Says which id a request has.
pub(super) fn name(response: &mut http::Response<super::respond::Body>, id: &str) {
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert(AUDIT_ID, value);
    }
}

fn is_recorded(action: Action, resource: &str, code: u16) -> bool {
    if matches!(code, 401 | 403) {
        return true;
    }
    let Action::Verb(verb) = action else { return false };
    match verb {
        Verb::Get | Verb::List | Verb::Watch => resource == "secrets",
        Verb::Create
        | Verb::Update
        | Verb::Patch
        | Verb::Delete
        | Verb::DeleteCollection
        | Verb::Approve
        | Verb::Sign => match resource {
            "leases" | "events" => false,
            "certificatesigningrequests/status" => true,
            _ => !resource.ends_with("/status") && !resource.ends_with("reviews"),
        },
    }
}

/// One line, in the shape of `audit.k8s.io/v1`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: &'static str,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: &'static str,
    #[serde(rename = "requestURI")]
    request_uri: &'a str,
    verb: &'a str,
    user: UserInfo<'a>,
    #[serde(rename = "sourceIPs")]
    source_ips: [IpAddr; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<ObjectRef<'a>>,
    response_status: ResponseStatus,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Annotations<'a>>,
}

#[derive(Serialize)]
struct UserInfo<'a> {
    username: &'a str,
    groups: Vec<String>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef<'a> {
    resource: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_group: &'a str,
    api_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subresource: Option<&'a str>,
}

#[derive(Serialize)]
struct ResponseStatus {
    metadata: serde_json::Map<String, serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    code: u16,
}

/// What Kubernetes leaves to be looked up: the generation that a write led to, and in whose name as a manager of fields.
#[derive(Serialize)]
struct Annotations<'a> {
    #[serde(rename = "wasmbed.github.io/generation", skip_serializing_if = "Option::is_none")]
    generation: Option<String>,
    #[serde(rename = "wasmbed.github.io/field-manager", skip_serializing_if = "str::is_empty")]
    field_manager: &'a str,
}

#[derive(Default, Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
}

fn event<'a>(client: &'a Client, seen: &Seen<'a>, answered: Answered<'a>) -> Event<'a> {
    let written = answered.written.map(|written| {
        let Object { metadata } = serde_json::from_slice(&written.object).unwrap_or_default();
        (metadata, written.manager.as_str())
    });
    let (metadata, manager) = written.unwrap_or_default();
    let generation = metadata.generation.map(|generation| generation.to_string());
    let object_ref = seen.target.map(|target| {
        let named = target.name.as_deref().map(|name| cut(name, NAME_BYTES_MAX).to_owned());
        ObjectRef {
            resource: &target.kind.plural,
            namespace: target.namespace.as_deref().map(|name| cut(name, NAME_BYTES_MAX)),
            name: named.or(metadata.name),
            uid: metadata.uid,
            api_group: &target.kind.group,
            api_version: &target.kind.version,
            resource_version: metadata.resource_version,
            subresource: seen.resource.split_once('/').map(|(_, subresource)| subresource),
        }
    });
    let agent = seen.parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    let user = client.user.as_ref();
    Event {
        kind: "Event",
        api_version: "audit.k8s.io/v1",
        level: "Metadata",
        audit_id: seen.id,
        stage: "ResponseComplete",
        request_uri: cut(seen.parts.uri.path_and_query().map_or("", |path| path.as_str()), URI_BYTES_MAX),
        verb: seen.action.as_str(),
        user: UserInfo {
            username: user.map_or("system:anonymous", |user| &user.name),
            groups: user.map_or_else(|| vec!["system:unauthenticated".to_owned()], |user| user.all_groups()),
        },
        source_ips: [client.address],
        user_agent: agent.map(|agent| cut(agent, AGENT_BYTES_MAX)),
        object_ref,
        response_status: ResponseStatus {
            metadata: serde_json::Map::new(),
            status: answered.reason.map(|_| "Failure"),
            reason: answered.reason,
            code: answered.code,
        },
        request_received_timestamp: time(seen.received),
        stage_timestamp: time(Timestamp::now()),
        annotations: answered.written.map(|_| Annotations { generation, field_manager: manager }),
    }
}

/// RFC 3339 with microseconds, as Kubernetes writes it here.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_do_is_recorded_and_what_components_write_all_the_time_is_not() {
        let recorded = |verb, resource: &str| is_recorded(Action::Verb(verb), resource, 200);
        for (verb, resource) in [
            (Verb::Create, "applications"),
            (Verb::Patch, "devices"),
            (Verb::Delete, "secrets"),
            (Verb::DeleteCollection, "devices"),
            (Verb::Update, "certificatesigningrequests/approval"),
            (Verb::Patch, "certificatesigningrequests/status"),
            (Verb::Get, "secrets"),
            (Verb::List, "secrets"),
        ] {
            assert!(recorded(verb, resource), "{verb} {resource}");
        }
        for (verb, resource) in [
            (Verb::Patch, "devices/status"),
            (Verb::Patch, "applications/status"),
            (Verb::Update, "leases"),
            (Verb::Create, "events"),
            (Verb::Create, "selfsubjectreviews"),
            (Verb::Create, "subjectaccessreviews"),
            (Verb::Get, "devices"),
            (Verb::Watch, "applications"),
        ] {
            assert!(!recorded(verb, resource), "{verb} {resource}");
            assert!(is_recorded(Action::Verb(verb), resource, 403), "{verb} {resource} refused");
        }
        assert!(!is_recorded(Action::Discovery, "", 200));
    }

    #[test]
    fn a_client_names_its_request_if_the_name_can_be_one() {
        let id_of = |stated: &str| {
            let request = http::Request::builder().header(AUDIT_ID, stated).body(()).unwrap();
            id(&request.into_parts().0)
        };
        assert_eq!(id_of("9f7c"), "9f7c");
        for unusable in [String::new(), "a b".to_owned(), "x".repeat(ID_BYTES_MAX + 1)] {
            assert_eq!(id_of(&unusable).len(), 36, "{unusable:?}");
        }
    }
}
