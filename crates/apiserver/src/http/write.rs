//! create, update, patch, delete and deletecollection.

use std::sync::Arc;

use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::audit::Written;
use super::authorize::Constraints;
use super::body::{decode_object, media_type};
use super::offload;
use super::params::{Params, unsupported as unsupported_value};
use super::read;
use super::respond::{self, Body};
use super::route::Target;
use super::shares::Share;
use super::show::{ListMeta, View};
use crate::kinds::Kind;
use crate::resource::{Author, FieldValidation, Patch, Preconditions};
use crate::schema::decode::{self, Decoded};
use crate::selector::Facets;
use crate::status::{Cause, Reason, Status};
use crate::store::{Applied, Operation, Outcome, Pager, Store, Write};

/// Concurrent deletions of one deletecollection: enough to share commits.
const DELETIONS_AT_ONCE: usize = 64;

/// The media type of server-side apply.
pub(super) const APPLY: &str = "application/apply-patch+yaml";
/// Bytes of a manager's name at most, as in Kubernetes.
const MANAGER_BYTES_MAX: usize = 128;

/// An authorized write.
pub(super) struct Request<'a> {
    pub(super) store: &'a Store,
    /// Share of the memory of bodies and of what is decoded from them.
    pub(super) bodies: Share<'a>,
    pub(super) target: &'a Target,
    pub(super) headers: &'a HeaderMap,
    pub(super) params: &'a Params,
    pub(super) author: Arc<Author>,
    pub(super) constraints: Constraints,
    /// Constraints if an apply creates the object, or why that is denied.
    pub(super) creation: Result<Constraints, Status>,
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
        let part = self.target.part;
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
        // Other media types are refused whatever their body is.
        let known = matches!(media_type, "application/json-patch+json" | "application/merge-patch+json");
        let known = known || media_type == "application/strategic-merge-patch+json";
        let body_bytes = body.clone();
        let decode = move || match known {
            true => decode::json(&body_bytes)
                .map_err(|error| Status::bad_request(format!("error decoding patch: {error}"))),
            false => Ok(Decoded { value: Value::Null, duplicates: Vec::new() }),
        };
        let (decoded, _tree) = offload::decode(self.bodies, body.len(), decode).await?;
        let Decoded { value: patch, duplicates } = decoded;
        let warnings: Vec<String> =
            duplicates.iter().map(|path| format!("duplicate field {path:?}")).collect();
        let validation = self.params.field_validation()?;
        if validation == FieldValidation::Strict && !warnings.is_empty() {
            let why = format!("strict decoding error: {}", warnings.join(", "));
            return Err(Status::bad_request(why));
        }
        let patch = Patch::parse(media_type, patch)?;
        let part = self.target.part;
        let mut response = self.one(name, "PatchOptions", Operation::Patch { part, patch }).await?;
        if validation == FieldValidation::Warn {
            respond::warn(&mut response, &warnings);
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
        let body_bytes = body.clone();
        let decode = move || {
            decode::applied(&body_bytes)
                .map_err(|why| Status::bad_request(format!("error decoding YAML: {why}")))
        };
        let (decoded, _tree) = offload::decode(self.bodies, body.len(), decode).await?;
        let Decoded { value: object, duplicates } = decoded;
        if !object.is_object() {
            return Err(Status::bad_request("error decoding YAML: the configuration must be one object"));
        }
        let (part, creation) = (self.target.part, self.creation.clone());
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
            // As of the few kinds of Kubernetes that are shown once more.
            Outcome::Removed if kind.is_resource_quota() => {
                let last = applied.event.as_ref().map_or(&applied.object, |event| event.object()).clone();
                answer(&kind, view, &Applied { object: last, ..applied }, String::new())
            }
            Outcome::Removed => {
                let mut response = respond::json(StatusCode::OK, &success(&kind, &applied.object));
                record(&mut response, &applied, String::new());
                Ok(response)
            }
            Outcome::Created | Outcome::Stored => answer(&kind, view, &applied, String::new()),
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
        // Reading all objects takes a while.
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
            // Not an object that was created with the same name since.
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
                Err(status) if status.reason() == Reason::NotFound => Ok(()),
                // An object was created with the same name since, unless the client stated a condition.
                Err(status) if status.reason() == Reason::Conflict && !conditional => Ok(()),
                Err(status) => Err(status),
                Ok(_) => Ok(()),
            })
            .try_collect::<Vec<()>>()
            .await?;
        // The answer is the list of what was deleted.
        let meta = ListMeta { revision, ..ListMeta::default() };
        Ok(respond::json_bytes(StatusCode::OK, view.list(kind, &page, &meta)?))
    }

    async fn one(&self, name: &str, options: &str, operation: Operation) -> Result<Response<Body>, Status> {
        let view = read::view(&self.target.kind, self.headers, self.params)?;
        let mut write = self.write(name, operation)?;
        write.manager = self.manager(options)?;
        let manager = write.manager.clone();
        let applied = self.store.write(write).await?;
        answer(&self.target.kind, view, &applied, manager)
    }

    fn write(&self, name: &str, operation: Operation) -> Result<Write, Status> {
        if !self.target.kind.writable {
            let message = format!("{} are fixed on this server", self.target.kind.qualified());
            return Err(Status::new(Reason::MethodNotAllowed, message));
        }
        Ok(Write {
            kind: Arc::clone(&self.target.kind),
            namespace: self.target.namespace.clone(),
            name: name.to_owned(),
            operation,
            manager: String::new(),
            author: Arc::clone(&self.author),
            dry_run: self.params.dry_run()?,
            validation: self.params.field_validation()?,
            constraints: self.constraints.clone(),
        })
    }

    /// The field manager: as stated by the client, or the beginning of its `User-Agent`.
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
}

/// Printable characters before the first slash, up to the limit.
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

fn answer(kind: &Kind, view: View, applied: &Applied, manager: String) -> Result<Response<Body>, Status> {
    let code = match applied.outcome {
        Outcome::Created => StatusCode::CREATED,
        Outcome::Stored | Outcome::Removed => StatusCode::OK,
    };
    let mut response = respond::json_bytes(code, view.object(kind, &applied.object)?);
    respond::warn(&mut response, &applied.warnings);
    record(&mut response, applied, manager);
    Ok(response)
}

/// For the audit log.
fn record(response: &mut Response<Body>, applied: &Applied, manager: String) {
    response.extensions_mut().insert(Written { object: applied.object.clone(), manager });
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

/// Options of a delete, from the body and the query.
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
        let decoded = decode_object(headers, body)?.value;
        let wrong = |name: &str| Status::bad_request(format!("DeleteOptions: {name} has an invalid value"));
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
                // Unknown fields are ignored, as in Kubernetes.
                _ => {}
            }
        }
        Ok(options)
    }
}

/// There is no garbage collector: owner references are data. Dependents stay, as for Orphan and (until a collection)
/// Background. Foreground, which waits until they are gone, is refused.
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
