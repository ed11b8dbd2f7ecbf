//! The machine: one write after another, each with the next revision.

use std::sync::Arc;

use bytes::Bytes;
use cel::Value as Cel;
use serde_json::{Value, json};

use super::log::{Change, Event};
use super::{Read, StorageError, Tables, namespaces};
use crate::kinds::{Kind, Kinds};
use crate::resource::{self, FieldValidation, Moment, Next, Part, Patch, Preconditions, Request};
use crate::schema::decode::{Extent, VALUES_MAX};
use crate::schema::{Expression, ExpressionError};
use crate::selector::Facets;
use crate::status::{Reason, Status};

/// Bytes of one object as it is stored: those of the largest body, so that many patches can't make what one body may not.
/// (etcd takes 1.5 MiB of a request by default.)
const OBJECT_BYTES_MAX: usize = 3 * 1024 * 1024;

/// What a client wants done to one object.
#[derive(Clone, Debug)]
pub struct Write {
    /// Kind of the object.
    pub kind: Arc<Kind>,
    /// Namespace in the path; none for cluster-wide kinds.
    pub namespace: Option<String>,
    /// Name in the path; empty for a create.
    pub name: String,
    /// What to do.
    pub operation: Operation,
    /// Who does it, for `managedFields`.
    pub manager: String,
    /// Answer as if it were done.
    pub dry_run: bool,
    /// What becomes of unknown fields.
    pub validation: FieldValidation,
    /// What the client's permission asks of the object.
    pub constraints: Vec<Arc<Constraint>>,
}

/// The verbs that write.
#[derive(Clone, Debug)]
pub enum Operation {
    /// POST.
    Create {
        /// The body.
        object: Value,
        /// Fields that stood twice in it.
        duplicates: Vec<String>,
    },
    /// PUT.
    Update {
        /// Which part is replaced.
        part: Part,
        /// The body.
        object: Value,
        /// Fields that stood twice in it.
        duplicates: Vec<String>,
    },
    /// PATCH.
    Patch {
        /// Which part is patched.
        part: Part,
        /// The body.
        patch: Patch,
    },
    /// PATCH: server-side apply.
    Apply {
        /// Which part is stated.
        part: Part,
        /// The body.
        object: Value,
        /// What is to be told about fields that stood twice in it.
        duplicates: Vec<String>,
        /// Take fields that others own.
        force: bool,
        /// What the client's permission to create asks of the object, or why there is none.
        creation: Result<Vec<Arc<Constraint>>, Status>,
    },
    /// DELETE.
    Delete {
        /// Only if these hold.
        conditions: Preconditions,
    },
    /// The server's own: removes a namespace that is being deleted and holds nothing any more.
    Vacate,
}

/// A condition on objects that a client may write, in CEL over `object`, `oldObject` and `variables.name`.
#[derive(Clone, Debug)]
pub struct Constraint {
    expression: Arc<Expression>,
    message: String,
    /// Whose writes are judged.
    name: String,
}

impl Constraint {
    /// Compiles the expression; `message` is told where it doesn't hold.
    pub fn compile(expression: &str, message: &str) -> Result<Constraint, ExpressionError> {
        let expression = Arc::new(Expression::compile(expression)?);
        Ok(Constraint { expression, message: message.to_owned(), name: String::new() })
    }

    /// The same for the writes of a client of that name.
    #[must_use]
    pub fn for_client(&self, name: &str) -> Constraint {
        Constraint { name: name.to_owned(), ..self.clone() }
    }

    fn check(&self, kind: &Kind, object: &Value, old: Option<&Value>) -> Result<(), Status> {
        let old = old.map_or(Cel::Null, |old| crate::schema::to_cel(None, old));
        let variables = [
            ("object", crate::schema::to_cel(None, object)),
            ("oldObject", old),
            ("variables", crate::schema::to_cel(None, &json!({ "name": self.name }))),
        ];
        match self.expression.evaluate(&variables) {
            Ok(Cel::Bool(true)) => Ok(()),
            Ok(_) | Err(_) => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                Err(Status::forbidden(kind.names(), name, &self.message))
            }
        }
    }
}

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The object is new.
    Created,
    /// The object is stored (or was so already).
    Stored,
    /// The object is gone.
    Removed,
}

/// A write that was done.
#[derive(Clone, Debug)]
pub struct Applied {
    /// What came of it.
    pub outcome: Outcome,
    /// The object's JSON as stored; of a removed one its last state.
    pub object: Bytes,
    /// What the client should be told.
    pub warnings: Vec<String>,
    /// The change for watchers, if there was one.
    pub event: Option<Arc<Event>>,
}

/// Why a write was not done.
#[derive(Debug)]
pub enum ApplyError {
    /// The client's fault; the batch goes on.
    Refused(Status),
    /// The storage's fault; the batch is lost.
    Storage(StorageError),
}

impl From<Status> for ApplyError {
    fn from(status: Status) -> ApplyError {
        ApplyError::Refused(status)
    }
}

impl From<StorageError> for ApplyError {
    fn from(error: StorageError) -> ApplyError {
        ApplyError::Storage(error)
    }
}

/// Applies writes; holds the revision and nothing else.
#[derive(Debug)]
pub struct Machine {
    kinds: Arc<Kinds>,
    revision: u64,
}

impl Machine {
    /// Continues at `revision`, the last one that was used.
    pub fn new(kinds: Arc<Kinds>, revision: u64) -> Machine {
        Machine { kinds, revision }
    }

    /// The last revision that was used.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The machine as it was at an earlier revision, for a batch that is undone.
    pub fn rewound(&self, revision: u64) -> Machine {
        Machine { kinds: Arc::clone(&self.kinds), revision }
    }

    /// Applies one write within a transaction of the caller's.
    pub fn apply(
        &mut self,
        tables: &mut dyn Tables,
        write: &Write,
        moment: Moment<'_>,
    ) -> Result<Applied, ApplyError> {
        let mut warnings = Vec::new();
        let (next, current) = match &write.operation {
            Operation::Create { object, duplicates } => {
                (self.create(tables, write, object, duplicates, moment, &mut warnings)?, None)
            }
            Operation::Apply { .. } => {
                let current = self.find(tables, write)?;
                let shown = current.as_ref().map(|current| &current.shown);
                (self.apply_configuration(tables, write, shown, moment, &mut warnings)?, current)
            }
            Operation::Update { .. }
            | Operation::Patch { .. }
            | Operation::Delete { .. }
            | Operation::Vacate => {
                let current = self.find(tables, write)?;
                let current = current.ok_or_else(|| Status::not_found(write.kind.names(), &write.name))?;
                (self.change(tables, write, &current.shown, moment, &mut warnings)?, Some(current))
            }
        };
        let outcome = match (&next, &current) {
            (Next::Stored(_), None) => Outcome::Created,
            (Next::Stored(_) | Next::Unchanged, _) => Outcome::Stored,
            (Next::Removed(_), _) => Outcome::Removed,
        };
        let (Next::Stored(mut object) | Next::Removed(mut object)) = next else {
            // Who may not write an object as it is may not write it to no effect either, as admission has it.
            if let Some(shown) = current.as_ref().map(|current| &current.shown) {
                for constraint in &write.constraints {
                    constraint.check(&write.kind, shown, Some(shown))?;
                }
            }
            let object = current.map_or_else(Bytes::new, |current| current.bytes);
            return Ok(Applied { outcome, object, warnings, event: None });
        };
        let constraints = match (&write.operation, &current) {
            (Operation::Apply { creation, .. }, None) => creation.as_ref().map_err(Status::clone)?,
            _ => &write.constraints,
        };
        for constraint in constraints {
            constraint.check(&write.kind, &object, current.as_ref().map(|current| &current.shown))?;
        }
        write.kind.conversion().convert_to_stored(&mut object);
        if write.dry_run {
            let bytes = serialise(&object)?;
            check_size(&object, &bytes, current.as_ref())?;
            return Ok(Applied { outcome, object: bytes, warnings, event: None });
        }
        let revision = self.revision + 1;
        let version = json!(revision.to_string());
        let key = {
            let metadata = &object["metadata"];
            let text = |name: &str| metadata[name].as_str().unwrap_or_default();
            write.kind.key(text("namespace"), text("name"))
        };
        // What a removed object was is shown to watchers at the revision of its end, to its writer at its last one.
        let removed = match (outcome, &current) {
            (Outcome::Removed, Some(current)) => Some((serialise(&object)?, current.at(&version)?)),
            (_, _) => None,
        };
        let (answer, shown, facets) = match removed {
            Some((answer, last)) => (answer, serialise(&last)?, Facets::of(&write.kind, &last)),
            None => {
                object["metadata"]["resourceVersion"] = version.clone();
                let bytes = serialise(&object)?;
                check_size(&object, &bytes, current.as_ref())?;
                (bytes.clone(), bytes, Facets::of(&write.kind, &object))
            }
        };
        self.revision = revision;
        match outcome {
            Outcome::Created | Outcome::Stored => tables.put(&key, &shown)?,
            Outcome::Removed => tables.remove(&key)?,
        }
        // Only where selections may see a difference.
        let left = current.as_ref().filter(|current| outcome == Outcome::Stored && current.facets != facets);
        let before = left.map(|current| serialise(&current.at(&version)?)).transpose()?;
        let change = match outcome {
            Outcome::Created => Change::Added,
            Outcome::Stored => Change::Modified,
            Outcome::Removed => Change::Deleted,
        };
        let mut event = Event::new(self.revision, change, &shown, facets);
        (event.previous, event.before) = (current.map(|current| current.facets), before);
        let event = Arc::new(event);
        Ok(Applied { outcome, object: answer, warnings, event: Some(event) })
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
        let object = self.open(tables, write, object)?;
        let kind = &*write.kind;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        if let Some(there) = tables.get(&kind.key(write.namespace.as_deref().unwrap_or_default(), name))? {
            let mut status = Status::already_exists(kind.names(), name);
            if serde_json::from_slice(&there).is_ok_and(|there: Value| resource::is_deleting(&there)) {
                status.message = format!("object is being deleted: {}", status.message);
            }
            return Err(status.into());
        }
        Ok(Next::Stored(object))
    }

    /// A new object, if its namespace takes it.
    fn open(&self, tables: &dyn Tables, write: &Write, mut object: Value) -> Result<Value, ApplyError> {
        let kind = &*write.kind;
        if let Some(namespace) = &write.namespace {
            namespaces::check_open(&self.kinds, tables, kind, namespace, &object)?;
        }
        namespaces::furnish(kind, &mut object);
        Ok(object)
    }

    fn apply_configuration(
        &self,
        tables: &dyn Tables,
        write: &Write,
        current: Option<&Value>,
        moment: Moment<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Next, ApplyError> {
        let Operation::Apply { part, object, duplicates, force, .. } = &write.operation else {
            return Ok(Next::Unchanged);
        };
        let applied = resource::Applied { object, duplicates, force: *force };
        let next = request(write, *part, moment).apply(current, &write.name, &applied, warnings)?;
        match (next, current) {
            (Next::Stored(object), None) => Ok(Next::Stored(self.open(tables, write, object)?)),
            (next, Some(current)) => Ok(namespaces::keep_furnished(&write.kind, current, next)),
            (next, None) => Ok(next),
        }
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
                namespaces::hold(kind, current, next, moment)?
            }
            Operation::Vacate => namespaces::vacate(&self.kinds, tables, current)?,
            Operation::Create { .. } | Operation::Apply { .. } => Next::Unchanged,
        };
        Ok(namespaces::keep_furnished(kind, current, next))
    }

    fn find(&self, tables: &dyn Read, write: &Write) -> Result<Option<Current>, ApplyError> {
        let kind = &*write.kind;
        let key = kind.key(write.namespace.as_deref().unwrap_or_default(), &write.name);
        let Some(bytes) = tables.get(&key)? else { return Ok(None) };
        let mut shown: Value = serde_json::from_slice(&bytes)
            .map_err(|error| StorageError::Failed(format!("the object at {key} can't be read: {error}")))?;
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
        validation: write.validation,
        moment,
    }
}

struct Current {
    /// In the form of the kind that is written.
    shown: Value,
    facets: Facets,
    bytes: Bytes,
}

impl Current {
    /// As it is stored, but at another version.
    fn at(&self, version: &Value) -> Result<Value, StorageError> {
        let mut stored: Value =
            serde_json::from_slice(&self.bytes).map_err(|error| StorageError::Failed(error.to_string()))?;
        stored["metadata"]["resourceVersion"] = version.clone();
        Ok(stored)
    }
}

/// Refuses what is too large, unless it was larger before: an object from an older version can always be made smaller.
fn check_size(object: &Value, bytes: &Bytes, current: Option<&Current>) -> Result<(), Status> {
    if current.is_some_and(|current| bytes.len() <= current.bytes.len()) {
        return Ok(());
    }
    let too_large = |why: String| {
        Status::new(Reason::RequestEntityTooLarge, format!("the object would be too large: {why}"))
    };
    if bytes.len() > OBJECT_BYTES_MAX {
        return Err(too_large(format!(
            "it would have {} bytes, the limit is {OBJECT_BYTES_MAX}",
            bytes.len()
        )));
    }
    // A value takes a byte at least.
    if bytes.len() > VALUES_MAX {
        Extent::of(object).check().map_err(|error| too_large(error.to_string()))
    } else {
        Ok(())
    }
}

fn serialise(object: &Value) -> Result<Bytes, ApplyError> {
    let bytes = serde_json::to_vec(object).map_err(|error| StorageError::Failed(error.to_string()))?;
    Ok(bytes.into())
}
