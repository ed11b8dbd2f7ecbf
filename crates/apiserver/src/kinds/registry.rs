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
    by_path: BTreeMap<Path, Arc<Kind>>,
    namespaces: Arc<Kind>,
}

/// Group, version and plural.
type Path = (String, String, String);

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
        let mut by_path = BTreeMap::new();
        for mut kind in builtin {
            let same = versions.iter().filter(|(folder, version)| {
                *folder == kind.folder && version.name != kind.merge_version.name
            });
            kind.other_versions = same.map(|(_, version)| version.clone()).collect();
            add(&mut by_path, kind)?;
        }
        let namespaces = by_path.get(&path("", "v1", "namespaces")).map(Arc::clone);
        let namespaces = namespaces.ok_or_else(|| DefinitionError::Shape {
            name: "built-in".into(),
            what: "there are no namespaces".into(),
        })?;
        for document in definitions {
            add(&mut by_path, Kind::from_definition(document)?)?;
        }
        Ok(Kinds { by_path, namespaces })
    }

    /// The kind at `/apis/GROUP/VERSION/PLURAL`.
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.by_path.get(&path(group, version, plural))
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
    pub fn namespaces(&self) -> &Arc<Kind> {
        &self.namespaces
    }
}

fn path(group: &str, version: &str, plural: &str) -> Path {
    (group.to_owned(), version.to_owned(), plural.to_owned())
}

fn add(by_path: &mut BTreeMap<Path, Arc<Kind>>, kind: Kind) -> Result<(), DefinitionError> {
    let name = kind.qualified();
    match by_path.insert(path(&kind.group, &kind.version, &kind.plural), Arc::new(kind)) {
        None => Ok(()),
        Some(_) => Err(DefinitionError::Twice { name }),
    }
}
