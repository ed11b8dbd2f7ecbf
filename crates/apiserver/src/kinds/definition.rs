//! From a CustomResourceDefinition to a [`Kind`].

use std::sync::Arc;

use serde_json::{Value, json};
use wasmbed_structured_merge::{Type, Version};

use super::columns::{Column, ColumnError};
use super::conversion::Conversion;
use super::kind::Kind;
use crate::schema::{Schema, SchemaError};

/// Definitions of the built-in kinds.
pub(crate) const BUILTIN: [&str; 8] = [
    include_str!("builtin/namespace.yaml"),
    include_str!("builtin/lease.yaml"),
    include_str!("builtin/event.yaml"),
    include_str!("builtin/event-v1.yaml"),
    include_str!("builtin/customresourcedefinition.yaml"),
    include_str!("builtin/certificatesigningrequest.yaml"),
    include_str!("builtin/secret.yaml"),
    include_str!("builtin/resourcequota.yaml"),
];

/// Why a definition can't be served.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// Something is missing or of the wrong shape.
    #[error("definition {name}: {what}")]
    Shape {
        /// Which definition.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// The schema can't be enforced.
    #[error("definition {name}: {error}")]
    Schema {
        /// Which definition.
        name: String,
        /// Why.
        #[source]
        error: SchemaError,
    },
    /// A printer column can't be evaluated.
    #[error("definition {name}: {error}")]
    Column {
        /// Which definition.
        name: String,
        /// Why.
        #[source]
        error: ColumnError,
    },
    /// Two definitions of the same kind.
    #[error("definition {name}: defined twice")]
    Twice {
        /// Which definition.
        name: String,
    },
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

impl Kind {
    /// A kind from a definition with exactly one served version.
    pub fn from_definition(document: &Value) -> Result<Kind, DefinitionError> {
        let name = document["metadata"]["name"].as_str().unwrap_or("without a name").to_owned();
        let wrong = |what: &str| DefinitionError::Shape { name: name.clone(), what: what.to_owned() };
        let spec = &document["spec"];
        let text = |value: &Value, what: &str| value.as_str().map(str::to_owned).ok_or_else(|| wrong(what));
        let texts = |value: &Value| -> Vec<String> {
            value
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|item| item.as_str().map(str::to_owned))
                .collect()
        };
        let versions = spec["versions"].as_array().ok_or_else(|| wrong("spec.versions is missing"))?;
        let mut served = versions.iter().filter(|version| version["served"].as_bool() == Some(true));
        let (Some(version), None) = (served.next(), served.next()) else {
            return Err(wrong("exactly one version must be served: conversion is not supported"));
        };
        let names = &spec["names"];
        let kind = text(&names["kind"], "spec.names.kind is missing")?;
        let group = text(&spec["group"], "spec.group is missing")?;
        let plural = text(&names["plural"], "spec.names.plural is missing")?;
        let schema = &version["schema"]["openAPIV3Schema"];
        let column = |column: &Value| {
            Column::compile(column).map_err(|error| DefinitionError::Column { name: name.clone(), error })
        };
        let columns = match version["additionalPrinterColumns"].as_array() {
            Some(columns) => columns.iter().map(column).collect::<Result<Vec<_>, _>>()?,
            None => vec![Column::age()],
        };
        let selectable = version["selectableFields"].as_array().into_iter().flatten();
        Ok(Kind {
            list_kind: names["listKind"].as_str().map_or_else(|| format!("{kind}List"), str::to_owned),
            singular: names["singular"].as_str().map_or_else(|| kind.to_lowercase(), str::to_owned),
            short_names: texts(&names["shortNames"]),
            categories: texts(&names["categories"]),
            namespaced: match spec["scope"].as_str() {
                Some("Namespaced") => true,
                Some("Cluster") => false,
                Some(_) | None => return Err(wrong("spec.scope must be Namespaced or Cluster")),
            },
            status_subresource: version["subresources"]["status"].is_object(),
            approval_subresource: false,
            writable: true,
            counts_generations: true,
            unconditional_update: false,
            schema: Schema::compile(schema)
                .map_err(|error| DefinitionError::Schema { name: name.clone(), error })?,
            openapi: schema.clone(),
            merge_version: Version {
                name: api_version(&group, version["name"].as_str().unwrap_or_default()),
                ty: Arc::new(Type::of_objects(schema, [])),
                conversion: Conversion::None,
            },
            other_versions: Vec::new(),
            columns,
            selectable: selectable
                .map(|field| text(&field["jsonPath"], "a selectable field has no jsonPath"))
                .map(|path| path.map(|path| path.trim_start_matches('.').to_owned()))
                .collect::<Result<_, _>>()?,
            folder: format!("{group}/{plural}"),
            version: text(&version["name"], "a version has no name")?,
            group,
            kind,
            plural,
        })
    }

    /// A built-in kind: a definition with the special rules of Kubernetes for it.
    pub(crate) fn builtin(document: &Value) -> Result<Kind, DefinitionError> {
        let mut kind = Kind::from_definition(document)?;
        let special = &document["special"];
        let subresources = &document["spec"]["versions"][0]["subresources"];
        kind.approval_subresource = subresources["approval"].is_object();
        kind.writable = !special["readOnly"].as_bool().unwrap_or(false);
        kind.counts_generations = special["generations"].as_bool().unwrap_or(false);
        kind.unconditional_update = special["unconditionalUpdate"].as_bool().unwrap_or(false);
        if special["events"].as_bool() == Some(true) {
            kind.folder = "/events".into();
            kind.merge_version.conversion = Conversion::Events;
        }
        let structs = special["structs"].as_array().into_iter().flatten();
        let structs = structs.filter_map(|name| Some((name.as_str()?.to_owned(), json!({}))));
        let fields = kind.openapi["properties"].as_object().into_iter().flatten();
        let defaults =
            fields.filter_map(|(name, schema)| Some((name.clone(), schema.get("default")?.clone())));
        let implied: Vec<(String, Value)> = structs.chain(defaults).collect();
        kind.merge_version.ty = Arc::new(Type::of_objects(&kind.openapi, implied));
        Ok(kind)
    }
}
