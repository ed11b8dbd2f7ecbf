//! A kind of object.

use serde_json::Value;
use wasmbed_structured_merge::Version;

use super::columns::Column;
use super::conversion::Conversion;
use crate::schema::Schema;
use crate::status::Names;

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
    /// The status is a subresource.
    pub status_subresource: bool,
    /// The approval of a request is a subresource.
    pub approval_subresource: bool,
    /// Clients may write.
    pub writable: bool,
    /// `metadata.generation` counts changes of the specification.
    pub counts_generations: bool,
    /// A PUT without a resourceVersion is accepted.
    pub unconditional_update: bool,
    /// Schema of its objects.
    pub schema: Schema,
    /// The schema as given, for OpenAPI.
    pub openapi: Value,
    /// Columns of the Table form after the name.
    pub columns: Vec<Column>,
    /// Selectable fields besides name and namespace, as dotted paths.
    pub selectable: Vec<String>,
    /// Key prefix in the store; versions of the same objects share it.
    pub folder: String,
    /// The version as structured merge sees it.
    pub merge_version: Version<Conversion>,
    /// Other versions in which the same objects are written.
    pub other_versions: Vec<Version<Conversion>>,
}

impl Kind {
    /// `group/version`, or the version alone for the core.
    pub fn api_version(&self) -> String {
        self.merge_version.name.clone()
    }

    /// How its objects relate to those in the store.
    pub fn conversion(&self) -> Conversion {
        self.merge_version.conversion
    }

    /// Whether it is defined by a CustomResourceDefinition, and not one of Kubernetes' own.
    pub(crate) fn is_custom(&self) -> bool {
        self.counts_generations && self.writable
    }

    pub(crate) fn is_event(&self) -> bool {
        self.kind == "Event" && !self.is_custom()
    }

    pub(crate) fn is_signing_request(&self) -> bool {
        self.kind == "CertificateSigningRequest" && !self.is_custom()
    }

    pub(crate) fn is_secret(&self) -> bool {
        self.kind == "Secret" && !self.is_custom()
    }

    pub(crate) fn is_resource_quota(&self) -> bool {
        self.kind == "ResourceQuota" && !self.is_custom()
    }

    /// Its subresources, by name, in the order of discovery.
    pub(crate) fn subresources(&self) -> impl Iterator<Item = &'static str> {
        let approval = self.approval_subresource.then_some("approval");
        approval.into_iter().chain(self.status_subresource.then_some("status"))
    }

    /// Whether all objects of a collection can be deleted at once.
    pub(crate) fn has_delete_collection(&self) -> bool {
        self.namespaced || self.is_signing_request()
    }

    /// The names that messages mention.
    pub fn names(&self) -> Names<'_> {
        Names { group: &self.group, plural: &self.plural, kind: &self.kind }
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
