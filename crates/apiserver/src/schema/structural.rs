//! One kind's schema.

use serde_json::Value;

use super::node::{Node, SchemaError};
use super::{defaults, prune, rules, validate};
use crate::status::{CAUSES_MAX, Cause};

/// Causes after which rules aren't evaluated.
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
    /// Compiles an `openAPIV3Schema`. An unsupported keyword is an error.
    pub fn compile(schema: &Value) -> Result<Schema, SchemaError> {
        Ok(Schema { root: Node::compile(schema, "")? })
    }

    /// Removes fields that the schema doesn't name, `apiVersion`, `kind` and `metadata` apart. Returns the paths of the
    /// first [`CAUSES_MAX`] of them.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(&self.root, object)
    }

    /// Sets defaults for absent fields, and for nulls of fields that aren't nullable.
    pub fn apply_defaults(&self, object: &mut Value) {
        defaults::apply(&self.root, object);
    }

    /// Validates `object`; at most [`CAUSES_MAX`] causes. With `old`, the stored object, top-level fields that didn't change
    /// are valid (except for rules that compare with the old value): ratcheting, as in KEP-4008.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        self.validate_after(Vec::new(), object, old)
    }

    /// The same after checks that found `known` causes: rules aren't evaluated on objects of the wrong shape.
    pub(crate) fn validate_after(
        &self,
        known: Vec<Cause>,
        object: &Value,
        old: Option<&Value>,
    ) -> Vec<Cause> {
        let mut causes = known;
        causes.extend(validate::validate(&self.root, object, old));
        if self.root.has_rules {
            if causes.iter().any(|cause| BLOCKING.contains(&cause.reason())) {
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
