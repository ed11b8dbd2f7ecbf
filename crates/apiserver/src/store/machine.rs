//! The state machine: applies one write after another, each with the next revision.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::constraint::Constraint;
use super::event::{Change, Event};
use super::namespaces;
use super::quotas::{self, Counts};
use super::requests::Held;
use super::storage::{Read, StorageError, Tables};
use super::write::{Applied, ApplyError, Operation, Outcome, Write};
use crate::kinds::{Kind, Kinds};
use crate::resource::{
    self, Author, FieldValidation, Moment, Next, Part, REQUEST_BYTES_MAX, Request, check_signer,
};
use crate::schema::decode::{Extent, ExtentError, VALUES_MAX};
use crate::selector::Facets;
use crate::status::{Reason, Status};

/// Bytes of one stored object: those of the largest body, so that patches can't make what a body can't.
/// (etcd takes 1.5 MiB of a request by default.)
const OBJECT_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Applies writes. Its state is the revision; the rest is counted again when it is unknown.
#[derive(Debug)]
pub struct Machine {
    kinds: Arc<Kinds>,
    revision: u64,
    pub(super) held: Held,
    pub(super) counts: Counts,
}

impl Machine {
    /// A machine that continues after `revision`, the last one that was used.
    pub fn new(kinds: Arc<Kinds>, revision: u64) -> Machine {
        Machine { kinds, revision, held: Held::default(), counts: Counts::default() }
    }

    /// The last revision that was used.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The machine at an earlier revision, after a batch was rolled back.
    pub fn rewound(&self, revision: u64) -> Machine {
        // Nothing was stored since.
        let (held, counts) = match revision == self.revision {
            true => (self.held.clone(), self.counts.clone()),
            false => (Held::default(), Counts::default()),
        };
        Machine { kinds: Arc::clone(&self.kinds), revision, held, counts }
    }

    /// Applies one write within a transaction of the caller's.
    pub fn apply(
        &mut self,
        tables: &mut dyn Tables,
        write: &Write,
        moment: Moment<'_>,
    ) -> Result<Applied, ApplyError> {
        let mut warnings = Vec::new();
        let (next, current) = self.plan(tables, write, moment, &mut warnings)?;
        let outcome = match (&next, &current) {
            (Next::Stored(_), None) => Outcome::Created,
            (Next::Stored(_) | Next::Unchanged, _) => Outcome::Stored,
            (Next::Removed(_), _) => Outcome::Removed,
        };
        let shown = current.as_ref().map(|current| &current.shown);
        let (Next::Stored(mut object) | Next::Removed(mut object)) = next else {
            // Admission also applies to writes without an effect.
            if let Some(shown) = shown {
                check_author(write, shown, shown)?;
                check(&write.constraints, write, shown, Some(shown))?;
            }
            let object = current.map_or_else(Bytes::new, |current| current.bytes);
            return Ok(Applied { outcome, object, warnings, event: None, quotas: Vec::new() });
        };
        let constraints = match (&write.operation, &current) {
            (Operation::Apply { creation, .. }, None) => creation.as_ref().map_err(Status::clone)?,
            _ => &write.constraints,
        };
        if let Some(shown) = shown {
            check_author(write, shown, &object)?;
        }
        check(constraints, write, &object, shown)?;
        write.kind.conversion().convert_to_stored(&mut object);
        if current.is_none() {
            self.counts.admit(&self.kinds, tables, &write.kind, &object)?;
            check_absent(tables, write, &object)?;
            self.held.admit(tables, &write.kind, &object)?;
        }
        if write.dry_run {
            let bytes = serialize(&object)?;
            check_size(&write.kind, &object, &bytes, current.as_ref())?;
            return Ok(Applied { outcome, object: bytes, warnings, event: None, quotas: Vec::new() });
        }
        let (object, event) = self.store(tables, write, outcome, object, current)?;
        let quotas = self.refresh_quotas(tables, write, outcome, moment)?;
        Ok(Applied { outcome, object, warnings, event: Some(Arc::new(event)), quotas })
    }

    /// What the write makes of the current object, and the current object.
    fn plan(
        &self,
        tables: &dyn Tables,
        write: &Write,
        moment: Moment<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<(Next, Option<Current>), ApplyError> {
        if let Operation::Create { object, duplicates } = &write.operation {
            return Ok((self.create(tables, write, object, duplicates, moment, warnings)?, None));
        }
        let current = self.find(tables, write)?;
        if let Operation::Apply { part, object, duplicates, force, .. } = &write.operation {
            let applied = resource::Applied { object, duplicates, force: *force };
            let shown = current.as_ref().map(|current| &current.shown);
            let next = request(write, *part, moment).apply(shown, &write.name, &applied, warnings)?;
            let next = match (next, shown) {
                (Next::Stored(object), None) => Next::Stored(self.admit_new(tables, write, object)?),
                (next, Some(shown)) => namespaces::restore_server_fields(&write.kind, shown, next),
                (next, None) => next,
            };
            return Ok((next, current));
        }
        let current = current.ok_or_else(|| Status::not_found(write.kind.names(), &write.name))?;
        Ok((self.change(tables, write, &current.shown, moment, warnings)?, Some(current)))
    }

    /// Stores or removes an object in its stored form. Returns the object for the answer, and the change.
    fn store(
        &mut self,
        tables: &mut dyn Tables,
        write: &Write,
        outcome: Outcome,
        mut object: Value,
        current: Option<Current>,
    ) -> Result<(Bytes, Event), ApplyError> {
        let revision = self.revision + 1;
        let version = json!(revision.to_string());
        let key = {
            let metadata = &object["metadata"];
            let text = |name: &str| metadata[name].as_str().unwrap_or_default();
            write.kind.key(text("namespace"), text("name"))
        };
        // Watches see the last state of a removed object at the revision of its removal, its writer at its last revision.
        let removed = match (outcome, &current) {
            (Outcome::Removed, Some(current)) => Some((serialize(&object)?, current.at(&version)?)),
            (_, _) => None,
        };
        let (answer, shown, facets) = match removed {
            Some((answer, last)) => (answer, serialize(&last)?, Facets::of(&write.kind, &last)),
            None => {
                object["metadata"]["resourceVersion"] = version.clone();
                let bytes = serialize(&object)?;
                check_size(&write.kind, &object, &bytes, current.as_ref())?;
                (bytes.clone(), bytes, Facets::of(&write.kind, &object))
            }
        };
        debug_assert!(outcome != Outcome::Created || current.is_none(), "a created object replaces none");
        self.revision = revision;
        let change = match outcome {
            Outcome::Created => Change::Added,
            Outcome::Stored => Change::Modified,
            Outcome::Removed => Change::Deleted,
        };
        let before = current.as_ref().map(|current| (&current.shown, current.bytes.len()));
        match outcome {
            Outcome::Created | Outcome::Stored => {
                tables.put(&key, &shown)?;
                self.held.replace(&write.kind, before, Some((&object, shown.len())));
            }
            Outcome::Removed => {
                tables.remove(&key)?;
                self.held.replace(&write.kind, before, None);
            }
        }
        // Kept only if selections may see a difference.
        let left = current.as_ref().filter(|current| outcome == Outcome::Stored && current.facets != facets);
        let before = left.map(|current| serialize(&current.at(&version)?)).transpose()?;
        let previous = current.map(|current| current.facets);
        Ok((answer, Event::new(revision, change, &shown, facets).with_previous(previous, before)))
    }

    fn create(
        &self,
        tables: &dyn Tables,
        write: &Write,
        object: &Value,
        duplicates: &[String],
        moment: Moment<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Next, ApplyError> {
        let object = request(write, Part::Main, moment).create(object.clone(), duplicates, warnings)?;
        Ok(Next::Stored(self.admit_new(tables, write, object)?))
    }

    /// Brings the statuses of a namespace's ResourceQuotas up to date after a write. Returns their changes.
    fn refresh_quotas(
        &mut self,
        tables: &mut dyn Tables,
        write: &Write,
        outcome: Outcome,
        moment: Moment<'_>,
    ) -> Result<Vec<Arc<Event>>, ApplyError> {
        let by = match outcome {
            Outcome::Created => 1,
            Outcome::Removed => -1,
            Outcome::Stored if write.kind.is_resource_quota() => 0,
            Outcome::Stored => return Ok(Vec::new()),
        };
        let Some(namespace) = &write.namespace else { return Ok(Vec::new()) };
        let kinds = Arc::clone(&self.kinds);
        let Some(kind) = quotas::kind(&kinds) else { return Ok(Vec::new()) };
        let changed = self.counts.change(&kinds, tables, &write.kind, namespace, by)?;
        let mut events = Vec::with_capacity(changed.len());
        for (quota, status) in changed {
            events.extend(self.store_status(tables, kind, &quota, status, moment)?);
        }
        Ok(events)
    }

    /// Stores the status that the server gives a ResourceQuota. It is bounded by the specification, so that it has no bound of
    /// its own.
    fn store_status(
        &mut self,
        tables: &mut dyn Tables,
        kind: &Kind,
        quota: &Value,
        status: Value,
        moment: Moment<'_>,
    ) -> Result<Option<Arc<Event>>, ApplyError> {
        let facets = Facets::of(kind, quota);
        let author = Author::default();
        let request = Request {
            kind,
            namespace: Some(&facets.namespace),
            part: Part::Status,
            manager: quotas::MANAGER,
            author: &author,
            validation: FieldValidation::Ignore,
            moment,
        };
        let mut wanted = quota.clone();
        wanted["status"] = status;
        let Ok(Next::Stored(mut object)) = request.update(quota, wanted, &[], &mut Vec::new()) else {
            debug_assert!(false, "the bounds of a stored quota are valid, and its status differs");
            return Ok(None);
        };
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let bytes = serialize(&object)?;
        tables.put(&kind.key(&facets.namespace, &facets.name), &bytes)?;
        let event = Event::new(self.revision, Change::Modified, &bytes, Facets::of(kind, &object));
        Ok(Some(Arc::new(event.with_previous(Some(facets), None))))
    }

    /// Checks the namespace of a new object, and sets what the server sets in a new namespace.
    fn admit_new(&self, tables: &dyn Tables, write: &Write, mut object: Value) -> Result<Value, ApplyError> {
        let kind = &*write.kind;
        if let Some(namespace) = &write.namespace {
            namespaces::check_active(&self.kinds, tables, kind, namespace, &object)?;
        }
        namespaces::set_server_fields(kind, &mut object);
        Ok(object)
    }

    fn change(
        &self,
        tables: &dyn Tables,
        write: &Write,
        current: &Value,
        moment: Moment<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Next, ApplyError> {
        let kind = &*write.kind;
        let next = match &write.operation {
            Operation::Update { part, object, duplicates } => {
                request(write, *part, moment).update(current, object.clone(), duplicates, warnings)?
            }
            Operation::Patch { part, patch } => {
                let patched = patch.apply(kind, current)?;
                request(write, *part, moment).update(current, patched, &[], warnings)?
            }
            Operation::Delete { conditions } => {
                let next = resource::delete(kind, current, conditions, moment)?;
                namespaces::terminate(kind, current, next, moment)?
            }
            Operation::RemoveIfEmpty => namespaces::remove_if_empty(&self.kinds, tables, current)?,
            Operation::Create { .. } | Operation::Apply { .. } => {
                debug_assert!(false, "creates and applies are planned before");
                Next::Unchanged
            }
        };
        Ok(namespaces::restore_server_fields(kind, current, next))
    }

    fn find(&self, tables: &dyn Read, write: &Write) -> Result<Option<Current>, ApplyError> {
        let kind = &*write.kind;
        let key = kind.key(write.namespace.as_deref().unwrap_or_default(), &write.name);
        let Some(bytes) = tables.get(&key)? else { return Ok(None) };
        let mut shown: Value = serde_json::from_slice(&bytes).map_err(|error| {
            StorageError::Failed(format!("the object at {key} can't be decoded: {error}"))
        })?;
        let facets = Facets::of(kind, &shown);
        kind.conversion().convert_from_stored(&mut shown);
        Ok(Some(Current { shown, facets, bytes: bytes.into() }))
    }
}

fn request<'a>(write: &'a Write, part: Part, moment: Moment<'a>) -> Request<'a> {
    Request {
        kind: &write.kind,
        namespace: write.namespace.as_deref(),
        part,
        manager: &write.manager,
        author: &write.author,
        validation: write.validation,
        moment,
    }
}

struct Current {
    /// In the version of the request.
    shown: Value,
    facets: Facets,
    bytes: Bytes,
}

impl Current {
    /// The stored form with another resourceVersion.
    fn at(&self, version: &Value) -> Result<Value, StorageError> {
        let mut stored: Value =
            serde_json::from_slice(&self.bytes).map_err(|error| StorageError::Failed(error.to_string()))?;
        stored["metadata"]["resourceVersion"] = version.clone();
        Ok(stored)
    }
}

/// Refuses an object that is too large, unless it was larger before: objects from before the limit can shrink.
fn check_size(kind: &Kind, object: &Value, bytes: &Bytes, current: Option<&Current>) -> Result<(), Status> {
    if current.is_some_and(|current| bytes.len() <= current.bytes.len()) {
        return Ok(());
    }
    let too_large = |error: &dyn std::fmt::Display| {
        Status::new(Reason::RequestEntityTooLarge, format!("the object would be too large: {error}"))
    };
    let most = if kind.is_signing_request() { REQUEST_BYTES_MAX } else { OBJECT_BYTES_MAX };
    if bytes.len() > most {
        let size = format!("it would have {} bytes, the limit is {most}", bytes.len());
        return Err(too_large(&size));
    }
    // A value takes a byte at least.
    if bytes.len() <= VALUES_MAX {
        return Ok(());
    }
    Extent::of(object).check().map_err(|error: ExtentError| too_large(&error))
}

fn check(
    constraints: &[Arc<Constraint>],
    write: &Write,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    constraints.iter().try_for_each(|constraint| constraint.check(&write.kind, object, old))
}

/// Refuses a create of what is there.
fn check_absent(tables: &dyn Read, write: &Write, object: &Value) -> Result<(), ApplyError> {
    let kind = &*write.kind;
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let there = tables.get(&kind.key(write.namespace.as_deref().unwrap_or_default(), name))?;
    let Some(there) = there else { return Ok(()) };
    let status = Status::already_exists(kind.names(), name);
    if serde_json::from_slice(&there).is_ok_and(|there: Value| resource::is_deleting(&there)) {
        let message = format!("object is being deleted: {status}");
        return Err(status.with_message(message).into());
    }
    Err(status.into())
}

/// Whether the author may write this part of a CertificateSigningRequest.
fn check_author(write: &Write, old: &Value, new: &Value) -> Result<(), Status> {
    match write.operation.part() {
        Some(part) => check_signer(&write.kind, part, &write.author, old, new),
        None => Ok(()),
    }
}

fn serialize(object: &Value) -> Result<Bytes, ApplyError> {
    let bytes = serde_json::to_vec(object).map_err(|error| StorageError::Failed(error.to_string()))?;
    Ok(bytes.into())
}
