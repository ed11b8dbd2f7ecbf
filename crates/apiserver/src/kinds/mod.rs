//! What is served: kinds, read from CustomResourceDefinitions; the built-in ones are written in the same form.

mod columns;
mod definition;
mod events;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

pub use columns::{Column, ColumnError};
pub use definition::DefinitionError;
pub use events::Form;

use crate::apply::Version;
use crate::schema::Schema;

/// One kind of object in one version.
#[derive(Debug)]
pub struct Kind {
    /// API group; empty for the core.
    pub group: String,
    /// Version within the group.
    pub version: String,
    /// `Device`.
    pub kind: String,
    /// `DeviceList`.
    pub list_kind: String,
    /// `devices`, as in paths.
    pub plural: String,
    /// `device`.
    pub singular: String,
    /// `wdev`.
    pub short_names: Vec<String>,
    /// `wasmbed`.
    pub categories: Vec<String>,
    /// Objects live in namespaces.
    pub namespaced: bool,
    /// Status is written apart from the rest.
    pub status_subresource: bool,
    /// Clients may write.
    pub writable: bool,
    /// `metadata.generation` counts changes of the specification.
    pub counts_generations: bool,
    /// A PUT without a resourceVersion is accepted.
    pub unconditional_update: bool,
    /// What objects look like.
    pub schema: Schema,
    /// The schema as given, for OpenAPI.
    pub openapi: Value,
    /// Columns of the Table form after the name.
    pub columns: Vec<Column>,
    /// Fields beyond name and namespace by which clients may select, as dotted paths.
    pub selectable: Vec<String>,
    /// Folder of the store; two versions of the same objects share it.
    pub folder: String,
    /// How the stored objects are shown.
    pub form: Form,
    /// Whose parts its objects' parts are.
    pub ownership: Ownership,
}

/// What ownership of fields is worked out by.
#[derive(Debug)]
pub struct Ownership {
    /// The kind's own version.
    pub version: Version,
    /// Others in which the same objects are written.
    pub others: Vec<Version>,
}

impl Kind {
    /// `group/version`, or the version alone for the core.
    pub fn api_version(&self) -> String {
        self.ownership.version.name.clone()
    }

    /// `plural.group`, as messages name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `singular.group`.
    pub fn qualified_singular(&self) -> String {
        if self.group.is_empty() {
            self.singular.clone()
        } else {
            format!("{}.{}", self.singular, self.group)
        }
    }

    /// Key of an object in the store.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        format!("{}/{namespace}/{name}", self.folder)
    }

    /// Common start of the keys of a namespace's objects, or of all.
    pub fn prefix(&self, namespace: Option<&str>) -> String {
        match namespace {
            Some(namespace) if self.namespaced => format!("{}/{namespace}/", self.folder),
            Some(_) | None => format!("{}/", self.folder),
        }
    }
}

/// All kinds of one server.
#[derive(Debug)]
pub struct Kinds {
    by_path: BTreeMap<(String, String, String), Arc<Kind>>,
}

impl Kinds {
    /// The built-in kinds and those of `definitions`.
    pub fn new(definitions: &[Value]) -> Result<Kinds, DefinitionError> {
        let mut builtin = Vec::new();
        for text in definition::BUILTIN {
            let document: Value = serde_saphyr::from_str(text).map_err(|error| DefinitionError::Shape {
                name: "built-in".into(),
                what: error.to_string(),
            })?;
            builtin.push(Kind::builtin(&document)?);
        }
        let versions: Vec<(String, Version)> =
            builtin.iter().map(|kind| (kind.folder.clone(), kind.ownership.version.clone())).collect();
        let mut kinds = Kinds { by_path: BTreeMap::new() };
        for mut kind in builtin {
            let same = versions.iter().filter(|(folder, version)| {
                *folder == kind.folder && version.name != kind.ownership.version.name
            });
            kind.ownership.others = same.map(|(_, version)| version.clone()).collect();
            kinds.add(kind)?;
        }
        for document in definitions {
            kinds.add(Kind::from_definition(document)?)?;
        }
        Ok(kinds)
    }

    fn add(&mut self, kind: Kind) -> Result<(), DefinitionError> {
        let path = (kind.group.clone(), kind.version.clone(), kind.plural.clone());
        let name = kind.qualified();
        match self.by_path.insert(path, Arc::new(kind)) {
            None => Ok(()),
            Some(_) => Err(DefinitionError::Twice { name }),
        }
    }

    /// The kind at `/apis/GROUP/VERSION/PLURAL`.
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// All, ordered by group, version and plural.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.by_path.values()
    }

    /// Those of a group.
    pub fn of_group<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a Arc<Kind>> {
        self.iter().filter(move |kind| kind.group == group)
    }

    /// Groups with their versions, the core apart.
    pub fn groups(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for kind in self.iter().filter(|kind| !kind.group.is_empty()) {
            let versions = groups.entry(&kind.group).or_default();
            if !versions.contains(&kind.version.as_str()) {
                versions.push(&kind.version);
            }
        }
        groups
    }

    /// The kind of namespaces, which every server has.
    pub fn namespaces(&self) -> Option<&Arc<Kind>> {
        self.get("", "v1", "namespaces")
    }
}

#[cfg(test)]
mod tests;
