//! Structured merge: server-side apply for Kubernetes objects.
//!
//! Several managers write one object. Each field of it is owned by the managers that last set it, and
//! `metadata.managedFields` records who owns what. From that record and from the schema of the object follow:
//!
//! - what an *update* changes: the writer takes ownership of the fields whose values differ ([`Updater::update`]);
//! - what an *apply* makes of the object: the fields that the configuration states are set, fields that the manager
//!   stated in its previous configuration and no longer states are removed unless another manager owns them, and a
//!   field that another manager owns with a different value is a conflict ([`Updater::apply`]).
//!
//! ```text
//! update    live, new ──compare──▶ changed fields: taken from all other managers, given to the writer
//! apply     live, applied ──merge──▶ ──prune──▶ new; changed fields of other managers are conflicts
//! ```
//!
//! The semantics are those of Kubernetes: [KEP-555], [structured-merge-diff] v6 and apimachinery's `managedfields`
//! package, down to the text of their errors. A [`Type`] is compiled from an OpenAPI v3 schema with the
//! `x-kubernetes-list-type`, `x-kubernetes-list-map-keys`, `x-kubernetes-map-type`,
//! `x-kubernetes-preserve-unknown-fields` and `x-kubernetes-embedded-resource` extensions. Objects are
//! [`serde_json::Value`]s, sets of fields serialize as `FieldsV1`.
//!
//! This crate does no I/O, reads no clock and keeps no state; it knows no kind of object. Kinds that are served in more
//! than one version bring their conversion as an implementation of [`Convert`]. It does not validate objects beyond
//! their structure: formats, bounds and CEL rules are the caller's. The caller also bounds the size and the nesting of
//! what it passes in; time and memory are in proportion to both.
//!
//! [KEP-555]: https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/555-server-side-apply
//! [structured-merge-diff]: https://github.com/kubernetes-sigs/structured-merge-diff
//!
//! ```
//! use serde_json::json;
//! use std::sync::Arc;
//! use wasmbed_structured_merge::{ManagedFields, ManagerId, Operation, Type, Updater, Version};
//!
//! let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
//!     "replicas": {"type": "integer"}, "paused": {"type": "boolean"},
//! }}}});
//! let version = Version { name: "example.com/v1".into(), ty: Arc::new(Type::of_objects(&schema, [])), conversion: () };
//! let updater = Updater { version: &version, others: &[], ignored: &[] };
//! let live = json!({"apiVersion": "example.com/v1", "kind": "Thing"});
//!
//! let apply = |live, spec, managers, manager: &str| {
//!     let applied = json!({"apiVersion": "example.com/v1", "kind": "Thing", "spec": spec});
//!     let id = ManagerId::new(manager, Operation::Apply, "example.com/v1", "");
//!     updater.apply(live, &applied, managers, &id, false, "2026-01-01T00:00:00Z")
//! };
//! let first = apply(&live, json!({"replicas": 1}), ManagedFields::default(), "alice").unwrap();
//! let live = first.object.unwrap();
//! assert!(apply(&live, json!({"replicas": 2}), first.managers, "bob").is_err(), "alice owns spec.replicas");
//! ```

#![forbid(unsafe_code)]

mod compare;
mod error;
mod field_set;
mod managed_fields;
mod merge;
mod path;
mod remove;
mod schema;
mod set;
mod text;
mod updater;
mod validate;
mod version;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use error::{ApplyError, Conflict, UpdateError, ValidationError};
pub use managed_fields::{
    ManagedFields, ManagedFieldsError, ManagerId, Operation, VersionedSet, equal_except_times,
};
pub use path::{Element, ElementError, display};
pub use schema::Type;
pub use set::{Set, SetError};
pub use text::quoted;
pub use updater::{Outcome, Updater, empty_like};
pub use version::{Convert, Version};
