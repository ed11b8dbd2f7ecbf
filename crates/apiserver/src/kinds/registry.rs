//! The kinds of one server.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use wasmbed_structured_merge::Version;

use super::conversion::Conversion;
use super::definition::{BUILTIN, DefinitionError};
use super::kind::Kind;

/// All kinds of one server.
#[derive(Debug)]
pub struct Kinds {
    by_path: BTreeMap<(String, String, String), Arc<Kind>>,
}

impl Kinds {
    /// The built-in kinds and those of `definitions`.
    pub fn new(definitions: &[Value]) -> Result<Kinds, DefinitionError> {
        let mut builtin = Vec::new();
        for text in BUILTIN {
            let document: Value = serde_saphyr::from_str(text).map_err(|error| DefinitionError::Shape {
                name: "built-in".into(),
                what: error.to_string(),
            })?;
            builtin.push(Kind::builtin(&document)?);
        }
        let versions: Vec<(String, Version<Conversion>)> =
            builtin.iter().map(|kind| (kind.folder.clone(), kind.merge_version.clone())).collect();
        let mut kinds = Kinds { by_path: BTreeMap::new() };
        for mut kind in builtin {
            let same = versions.iter().filter(|(folder, version)| {
                *folder == kind.folder && version.name != kind.merge_version.name
            });
            kind.other_versions = same.map(|(_, version)| version.clone()).collect();
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
