//! Pruning: fields that no schema names are not stored, nor nulls of fields that aren't nullable.

use serde_json::Value;

use super::node::{Additional, Node};
use super::path::Path;
use crate::status::CAUSES_MAX;

/// Paths of unknown fields: the first ones in order, which are all that is reported.
#[derive(Debug, Default)]
pub(crate) struct Unknown {
    paths: Vec<String>,
}

impl Unknown {
    fn push(&mut self, path: &Path<'_>) {
        self.paths.push(path.text());
        if self.paths.len() >= 2 * CAUSES_MAX {
            self.keep_first();
        }
    }

    fn keep_first(&mut self) {
        self.paths.sort();
        self.paths.truncate(CAUSES_MAX);
    }

    /// In order.
    pub(crate) fn into_paths(mut self) -> Vec<String> {
        self.keep_first();
        self.paths
    }
}

pub(crate) fn prune(root: &Node, object: &mut Value) -> Vec<String> {
    let mut unknown = Unknown::default();
    let Some(fields) = object.as_object_mut() else { return Vec::new() };
    let metadata = ["apiVersion", "kind", "metadata"].map(|name| fields.remove_entry(name));
    walk(root, object, &Path::ROOT, &mut unknown);
    if let Some(fields) = object.as_object_mut() {
        fields.extend(metadata.into_iter().flatten());
    }
    unknown.into_paths()
}

fn walk(node: &Node, value: &mut Value, path: &Path<'_>, unknown: &mut Unknown) {
    match value {
        Value::Object(fields) => {
            let known = |name: &str| match &node.additional {
                Additional::Kept | Additional::Schema(_) => true,
                Additional::Pruned => node.properties.contains_key(name),
            };
            if !fields.keys().all(|name| known(name)) {
                fields.retain(|name, _| {
                    let keep = known(name);
                    if !keep {
                        unknown.push(&path.field(name));
                    }
                    keep
                });
            }
            // Where there is a default, it takes the place of the null.
            let absent =
                |name: &str| node.field(name).is_some_and(|node| !node.nullable && node.default.is_none());
            fields.retain(|name, value| !value.is_null() || !absent(name));
            for (name, value) in fields {
                if matches!(value, Value::Object(_) | Value::Array(_))
                    && let Some(node) = node.field(name)
                {
                    walk(node, value, &path.field(name), unknown);
                }
            }
        }
        Value::Array(items) => {
            if let Some(node) = &node.items {
                for (index, item) in items.iter_mut().enumerate() {
                    walk(node, item, &path.index(index), unknown);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
