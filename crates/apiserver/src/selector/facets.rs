//! The facts about an object that selectors look at.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::kinds::Kind;

/// What selectors see of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facets {
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// Values of the kind's selectable fields, in the kind's order; absent ones are empty.
    pub fields: Vec<String>,
}

impl Facets {
    /// Memory of its texts and of what holds them, bytes.
    pub fn bytes(&self) -> usize {
        let held = |text: &String| size_of::<String>() + text.len();
        let labels: usize = self.labels.iter().map(|(name, value)| held(name) + held(value)).sum();
        let fields: usize = self.fields.iter().map(held).sum();
        held(&self.namespace) + held(&self.name) + labels + fields
    }

    /// The facets of a stored object.
    pub fn of(kind: &Kind, object: &Value) -> Facets {
        let metadata = &object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let labels = metadata["labels"].as_object().into_iter().flatten();
        let field = |path: &String| match path.split('.').try_fold(object, |value, name| value.get(name)) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        Facets {
            namespace: text(&metadata["namespace"]),
            name: text(&metadata["name"]),
            labels: labels.map(|(name, value)| (name.clone(), text(value))).collect(),
            fields: kind.selectable.iter().map(field).collect(),
        }
    }
}
