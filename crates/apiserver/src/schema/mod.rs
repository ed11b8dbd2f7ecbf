//! Structural schemas: what a CustomResourceDefinition's `openAPIV3Schema` says about an object, and its enforcement.
//!
//! A schema is compiled once into a tree of [`Node`]s. Over that tree go, in the order of Kubernetes: [`decode`]
//! (duplicates), [`Schema::prune`] (unknown fields), [`Schema::apply_defaults`], [`Schema::validate`] (types, bounds,
//! lists as maps) and [`rules`] (CEL). The tree is walked for all of them, and errors are told in Kubernetes' words, so
//! validation is done here and not by a JSON Schema library, whose dialect differs (`nullable`, int-or-string,
//! ratcheting on updates).

pub mod decode;
mod defaults;
mod library;
mod node;
pub(crate) mod path;
mod prune;
mod rules;
mod validate;

use serde_json::Value;

use crate::status::Cause;

pub use library::ExpressionError;
pub(crate) use library::{Expression, to_cel};
use node::Node;
pub use node::SchemaError;

/// Causes reported at most for one object: beyond that nobody reads on.
pub const CAUSES_MAX: usize = 32;

/// With one of these, an object isn't shown to rules.
const BLOCKING: [&str; 5] = [
    "FieldValueNotSupported",
    "FieldValueRequired",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueTypeInvalid",
];
const UNCHECKED: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

/// One kind's compiled schema.
#[derive(Debug)]
pub struct Schema {
    root: Node,
}

impl Schema {
    /// Compiles an `openAPIV3Schema`; an unsupported keyword is an error, never ignored.
    pub fn compile(schema: &Value) -> Result<Schema, SchemaError> {
        Ok(Schema { root: Node::compile(schema, "")? })
    }

    /// Removes fields that the schema doesn't name and returns the paths of the first [`CAUSES_MAX`] of them. `apiVersion`, `kind` and `metadata` stay.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(&self.root, object)
    }

    /// Fills in defaults for absent fields, and for nulls where null isn't allowed.
    pub fn apply_defaults(&self, object: &mut Value) {
        defaults::apply(&self.root, object);
    }

    /// What is wrong with `object`. With `old`, the object as it stands, top-level fields that didn't change are not
    /// judged again (except by rules that compare with the old value): an update isn't refused for what it didn't touch.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        self.validate_after(Vec::new(), object, old)
    }

    /// The same with what is known to be wrong already: rules aren't evaluated where an object isn't what they expect.
    pub(crate) fn validate_after(
        &self,
        known: Vec<Cause>,
        object: &Value,
        old: Option<&Value>,
    ) -> Vec<Cause> {
        let mut causes = known;
        causes.extend(validate::validate(&self.root, object, old));
        if self.root.has_rules {
            if causes.iter().any(|cause| BLOCKING.contains(&cause.reason)) {
                causes.truncate(CAUSES_MAX - 1);
                causes.push(Cause::invalid("<nil>", "null", UNCHECKED));
            } else {
                rules::check(&self.root, object, old, &mut causes);
            }
        }
        causes.truncate(CAUSES_MAX);
        causes
    }
}

/// `parent.name`, or the name alone at the root.
fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

#[cfg(test)]
mod tests;
