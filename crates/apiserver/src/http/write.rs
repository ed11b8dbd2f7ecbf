//! create, update, patch, delete and deletecollection.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::negotiate::MediaType;
use super::offload;
use super::params::{Params, unsupported as unsupported_value};
use super::protobuf::{self, DecodeError};
use super::read;
use super::respond::{self, Body};
use super::route::Target;
use super::shares::Share;
use super::show::{ListMeta, View};
use crate::kinds::Kind;
use crate::resource::{FieldValidation, Part, Patch, Preconditions};
use crate::schema::decode::{self, Decoded};
use crate::selector::Facets;
use crate::status::{Cause, Reason, Status};
use crate::store::{Applied, Constraint, Operation, Outcome, Pager, Store, Write};

/// Deletions of one deletecollection that are under way at once: enough to share commits.
const DELETIONS_AT_ONCE: usize = 64;

/// The media type of server-side apply.
pub(super) const APPLY: &str = "application/apply-patch+yaml";
/// Bytes of a manager's name at most, as in Kubernetes.
const MANAGER_BYTES_MAX: usize = 128;

/// A write whose client may do it.
pub(super) struct Request<'a> {
    pub(super) store: &'a Store,
    /// Memory of bodies and of what was read from them.
    pub(super) bodies: Share<'a>,
    pub(super) target: &'a Target,
    pub(super) headers: &'a HeaderMap,
    pub(super) params: &'a Params,
    pub(super) constraints: Vec<Arc<Constraint>>,
    /// What the object must fulfil if an apply creates it, or why that isn't allowed.
    pub(super) creation: Result<Vec<Arc<Constraint>>, Status>,
}

/// The object in a POST's or PUT's body.
pub(super) fn parse_object(headers: &HeaderMap, body: &Bytes) -> Result<Decoded, Status> {
    let media_type = media_type(headers)?;
    let decoded = match media_type {
        "application/json" | "" => decode::json(body).map_err(|error| error.to_string()),
        "application/yaml" => decode::yaml(body).map_err(|error| error.to_string()),
        protobuf::MEDIA_TYPE => match protobuf::decode(body) {
            Ok(value) => Ok(Decoded { value, duplicates: Vec::new() }),
            Err(error @ DecodeError::Kind { .. }) => {
                return Err(Status::new(Reason::UnsupportedMediaType, error.to_string()));
            }
            Err(error) => Err(error.to_string()),
        },
        other => return Err(unsupported(other)),
    };
    let decoded = decoded.map_err(|why| Status::bad_request(format!("the body can't be read: {why}")))?;
    if !decoded.value.is_object() {
        return Err(Status::bad_request("the body must be one object"));
    }
    Ok(decoded)
}

fn media_type(headers: &HeaderMap) -> Result<&str, Status> {
    match headers.get(CONTENT_TYPE).map(|value| value.to_str()) {
        None => Ok(""),
        Some(Ok(text)) => Ok(MediaType::parse(text).name),
        Some(Err(_)) => Err(Status::bad_request("the Content-Type header is not text")),
    }
}

fn unsupported(media_type: &str) -> Status {
    Status::new(
        Reason::UnsupportedMediaType,
        format!(
            "the body of the request was in an unknown format ({media_type:?}) - accepted media types include: \
             application/json, application/yaml"
        ),
    )
}

impl Request<'_> {
    pub(super) async fn create(self, decoded: Decoded) -> Result<Response<Body>, Status> {
        self.params.check_write()?;
        let Decoded { value: object, duplicates } = decoded;
        self.one("", "CreateOptions", Operation::Create { object, duplicates }).await
    }

    pub(super) async fn update(self, name: &str, decoded: Decoded) -> Result<Response<Body>, Status> {
        self.params.check_write()?;
        let Decoded { value: object, duplicates } = decoded;
        let part = self.part();
        self.one(name, "UpdateOptions", Operation::Update { part, object, duplicates }).await
    }

    pub(super) async fn patch(self, name: &str, body: &Bytes) -> Result<Response<Body>, Status> {
        self.params.check_patch()?;
        let media_type = media_type(self.headers)?;
        if media_type == APPLY {
            return self.apply(name, body).await;
        }
        if self.params.get("force").is_some() {
            let cause = Cause::forbidden("force", "may not be specified for non-apply patch");
            return Err(Status::invalid_options("PatchOptions", vec![cause]));
        }
        // What isn't understood is refused whatever the body says.
        let known = matches!(media_type, "application/json-patch+json" | "application/merge-patch+json");
        let known = known || media_type == "application/strategic-merge-patch+json";
        let unread = body.clone();
        let read = move || match known {
            true => decode::json(&unread)
                .map_err(|error| Status::bad_request(format!("error decoding patch: {error}"))),
            false => Ok(Decoded { value: Value::Null, duplicates: Vec::new() }),
        };
        let (decoded, _tree) = offload::read(self.bodies, body.len(), read).await?;
        let Decoded { value: patch, duplicates } = decoded;
        let told: Vec<String> = duplicates.iter().map(|path| format!("duplicate field {path:?}")).collect();
        let validation = self.params.field_validation()?;
        if validation == FieldValidation::Strict && !told.is_empty() {
            let why = format!("strict decoding error: {}", told.join(", "));
            return Err(Status::bad_request(why));
        }
        let patch = Patch::parse(media_type, patch)?;
        let part = self.part();
        let mut response = self.one(name, "PatchOptions", Operation::Patch { part, patch }).await?;
        if validation == FieldValidation::Warn {
            respond::warn(&mut response, &told);
        }
        Ok(response)
    }

    /// Server-side apply.
    async fn apply(self, name: &str, body: &Bytes) -> Result<Response<Body>, Status> {
        let force = self.params.flag("force")?;
        if self.params.get("fieldManager").is_none() {
            let cause = Cause::required("fieldManager", "is required for apply patch");
            return Err(Status::invalid_options("PatchOptions", vec![cause]));
        }
        let unread = body.clone();
        let read = move || {
            decode::applied(&unread).map_err(|why| Status::bad_request(format!("error decoding YAML: {why}")))
        };
        let (decoded, _tree) = offload::read(self.bodies, body.len(), read).await?;
        let Decoded { value: object, duplicates } = decoded;
        if !object.is_object() {
            return Err(Status::bad_request("error decoding YAML: the configuration must be one object"));
        }
        let (part, creation) = (self.part(), self.creation.clone());
        let operation = Operation::Apply { part, object, duplicates, force, creation };
        self.one(name, "PatchOptions", operation).await
    }

    pub(super) async fn delete(self, name: &str, body: &Bytes) -> Result<Response<Body>, Status> {
        self.params.check_delete()?;
        let options = DeleteOptions::parse(self.params, self.headers, body)?;
        let kind = Arc::clone(&self.target.kind);
        let view = read::view(&self.target.kind, self.headers, self.params)?;
        let mut write = self.write(name, Operation::Delete { conditions: options.conditions })?;
        write.dry_run |= options.dry_run;
        let applied = self.store.write(write).await?;
        match applied.outcome {
            Outcome::Removed => Ok(respond::json(StatusCode::OK, &success(&kind, &applied.object))),
            Outcome::Created | Outcome::Stored => answer(&kind, view, &applied),
        }
    }

    pub(super) async fn delete_collection(self, body: &Bytes) -> Result<Response<Body>, Status> {
        use futures::{StreamExt, TryStreamExt};
        self.params.check_delete_collection()?;
        let options = DeleteOptions::parse(self.params, self.headers, body)?;
        let selection = read::selection(self.target, self.params)?;
        let conditional = options.conditions != Preconditions::default();
        let view = read::view(&self.target.kind, self.headers, self.params)?;
        let (store, kind) = (self.store.clone(), Arc::clone(&self.target.kind));
        // Reading them all takes a while.
        let found = tokio::task::spawn_blocking(move || {
            let snapshot = store.snapshot()?;
            let pager = Pager { selection: &selection, after: None, limit: None };
            let page = pager.read(&kind, &snapshot)?;
            let mut found = Vec::with_capacity(page.objects.len());
            for stored in &page.objects {
                let stored: Value = serde_json::from_slice(stored).map_err(Status::internal)?;
                found.push((
                    Facets::of(&kind, &stored),
                    stored["metadata"]["uid"].as_str().map(str::to_owned),
                ));
            }
            Ok::<_, Status>((page, snapshot.revision(), found))
        });
        let (page, revision, found) = found.await.map_err(Status::internal)??;
        let kind = &self.target.kind;
        let mut writes = Vec::with_capacity(found.len());
        for (facets, uid) in found {
            // Not the one that took its name meanwhile.
            let conditions = if options.conditions == Preconditions::default() {
                Preconditions { uid, resource_version: None }
            } else {
                options.conditions.clone()
            };
            let mut write = self.write(&facets.name, Operation::Delete { conditions })?;
            write.namespace = kind.namespaced.then_some(facets.namespace);
            write.dry_run |= options.dry_run;
            writes.push(write);
        }
        let deletions = futures::stream::iter(writes.into_iter().map(|write| self.store.write(write)));
        deletions
            .buffer_unordered(DELETIONS_AT_ONCE)
            .map(|deleted| match deleted {
                Err(status) if status.reason == Reason::NotFound => Ok(()),
                // It took another's name meanwhile, unless the client stated a condition.
                Err(status) if status.reason == Reason::Conflict && !conditional => Ok(()),
                Err(status) => Err(status),
                Ok(_) => Ok(()),
            })
            .try_collect::<Vec<()>>()
            .await?;
        // What was there, as a list of it.
        let meta = ListMeta { revision, ..ListMeta::default() };
        Ok(respond::json_bytes(StatusCode::OK, view.list(kind, &page, &meta)?))
    }

    async fn one(&self, name: &str, options: &str, operation: Operation) -> Result<Response<Body>, Status> {
        let view = read::view(&self.target.kind, self.headers, self.params)?;
        let mut write = self.write(name, operation)?;
        write.manager = self.manager(options)?;
        let applied = self.store.write(write).await?;
        answer(&self.target.kind, view, &applied)
    }

    fn write(&self, name: &str, operation: Operation) -> Result<Write, Status> {
        if !self.target.kind.writable {
            let told = format!("{} are fixed on this server", self.target.kind.qualified());
            return Err(Status::new(Reason::MethodNotAllowed, told));
        }
        Ok(Write {
            kind: Arc::clone(&self.target.kind),
            namespace: self.target.namespace.clone(),
            name: name.to_owned(),
            operation,
            manager: String::new(),
            dry_run: self.params.dry_run()?,
            validation: self.params.field_validation()?,
            constraints: self.constraints.clone(),
        })
    }

    /// Who writes: as the client says, or what its `User-Agent` begins with.
    fn manager(&self, options: &str) -> Result<String, Status> {
        let Some(name) = self.params.get("fieldManager") else {
            let agent = self.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
            return Ok(agent_name(agent.unwrap_or_default()));
        };
        let mut causes = Vec::new();
        if name.len() > MANAGER_BYTES_MAX {
            let message = format!("Too long: may not be more than {MANAGER_BYTES_MAX} bytes");
            causes.push(Cause::new("FieldValueTooLong", "fieldManager", message));
        }
        for (position, c) in name.char_indices().filter(|(_, c)| !is_printable(*c)) {
            let why = format!("invalid character U+{:04X} (at position {position})", u32::from(c));
            causes.push(Cause::invalid("fieldManager", &wasmbed_structured_merge::quoted(name), why));
        }
        if causes.is_empty() { Ok(name.to_owned()) } else { Err(Status::invalid_options(options, causes)) }
    }

    fn part(&self) -> Part {
        if self.target.status { Part::Status } else { Part::Main }
    }
}

/// What comes before the first slash, as far as it is printable and fits.
fn agent_name(agent: &str) -> String {
    let mut name = String::new();
    for c in agent.chars().take_while(|c| *c != '/').filter(|c| is_printable(*c)) {
        if name.len() + c.len_utf8() > MANAGER_BYTES_MAX {
            break;
        }
        name.push(c);
    }
    name
}

fn is_printable(c: char) -> bool {
    c == ' ' || !(c.is_control() || c.is_whitespace())
}

fn answer(kind: &Kind, view: View, applied: &Applied) -> Result<Response<Body>, Status> {
    let code = match applied.outcome {
        Outcome::Created => StatusCode::CREATED,
        Outcome::Stored | Outcome::Removed => StatusCode::OK,
    };
    let mut response = respond::json_bytes(code, view.object(kind, &applied.object)?);
    respond::warn(&mut response, &applied.warnings);
    Ok(response)
}

fn success(kind: &Kind, removed: &Bytes) -> Value {
    let removed: Value = serde_json::from_slice(removed).unwrap_or_default();
    let metadata = &removed["metadata"];
    let mut details = json!({"name": metadata["name"], "kind": kind.plural, "uid": metadata["uid"]});
    if !kind.group.is_empty() {
        details["group"] = json!(kind.group);
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// How to delete, from the body or the query.
#[derive(Debug, Default)]
struct DeleteOptions {
    conditions: Preconditions,
    dry_run: bool,
}

impl DeleteOptions {
    fn parse(params: &Params, headers: &HeaderMap, body: &Bytes) -> Result<DeleteOptions, Status> {
        let mut options = DeleteOptions { dry_run: params.dry_run()?, ..DeleteOptions::default() };
        propagation(params, params.get("propagationPolicy"))?;
        params.number("gracePeriodSeconds")?;
        if params.flag("orphanDependents")? && params.get("propagationPolicy").is_some() {
            let stated = Value::from(params.get("propagationPolicy")).to_string();
            let why = "orphanDependents and deletionPropagation cannot be both set";
            return Err(params.invalid(Cause::invalid("propagationPolicy", &stated, why)));
        }
        if body.is_empty() {
            return Ok(options);
        }
        let decoded = parse_object(headers, body)?.value;
        let wrong =
            |name: &str| Status::bad_request(format!("DeleteOptions: {name} has a value that can't be used"));
        for (name, value) in decoded.as_object().into_iter().flatten() {
            match name.as_str() {
                "kind" if value == "DeleteOptions" => {}
                "apiVersion" | "gracePeriodSeconds" | "orphanDependents" => {}
                _ if value.is_null() => {}
                "propagationPolicy" => {
                    propagation(params, Some(value.as_str().ok_or_else(|| wrong(name))?))?;
                }
                "dryRun" => {
                    let stages = value.as_array().ok_or_else(|| wrong(name))?;
                    if stages.iter().any(|stage| stage != "All") {
                        return Err(params.invalid(unsupported_value("dryRun", value, "\"All\"")));
                    }
                    options.dry_run |= !stages.is_empty();
                }
                "preconditions" => {
                    let text = |field: &str| value[field].as_str().map(str::to_owned);
                    options.conditions =
                        Preconditions { uid: text("uid"), resource_version: text("resourceVersion") };
                }
                "kind" => return Err(wrong(name)),
                // As in Kubernetes: what isn't known isn't meant.
                _ => {}
            }
        }
        Ok(options)
    }
}

/// Nothing collects dependents here: who owns what is kept as data. So dependents are left alone, whether that is
/// asked for (Orphan) or deferred (Background); what can't be done is to wait until they are gone.
fn propagation(params: &Params, policy: Option<&str>) -> Result<(), Status> {
    match policy {
        None | Some("Background" | "Orphan") => Ok(()),
        Some("Foreground") => Err(Status::bad_request(
            "propagationPolicy Foreground is not offered by this server: it has no garbage collector; use Background",
        )),
        Some(other) => {
            let supported = "\"Foreground\", \"Background\", \"Orphan\", \"nil\"";
            Err(params.invalid(unsupported_value("propagationPolicy", &Value::from(other), supported)))
        }
    }
}
