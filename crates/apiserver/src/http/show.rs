//! Objects in the requested form: as they are, as rows of a Table, or their metadata.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::negotiate::Shape;
use crate::kinds::{Conversion, Kind};
use crate::status::Status;
use crate::store::Page;

/// Part of each object that a Table's rows include.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Include {
    Nothing,
    Metadata,
    Whole,
}

impl Include {
    pub(super) fn parse(text: Option<&str>) -> Result<Include, Status> {
        match text {
            None | Some("Metadata") => Ok(Include::Metadata),
            Some("None") => Ok(Include::Nothing),
            Some("Object") => Ok(Include::Whole),
            Some(other) => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
            ))),
        }
    }
}

/// Form of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) shape: Shape,
    pub(super) include: Include,
}

/// Metadata of a list.
#[derive(Clone, Debug, Default)]
pub(super) struct ListMeta {
    pub(super) revision: u64,
    pub(super) next: Option<String>,
    pub(super) remaining: Option<usize>,
}

impl View {
    /// One stored object.
    pub(super) fn object(self, kind: &Kind, stored: &Bytes) -> Result<Bytes, Status> {
        match (self.shape, kind.conversion()) {
            (Shape::Object, Conversion::None) => Ok(stored.clone()),
            (Shape::Object, Conversion::Events) => {
                let mut object = parse(stored)?;
                kind.conversion().convert_from_stored(&mut object);
                Ok(object.to_string().into())
            }
            (Shape::Partial, _) => {
                let mut object = parse(stored)?;
                Ok(partial(&mut object, "v1").to_string().into())
            }
            (Shape::Table(_), _) => self.event(kind, stored, true),
        }
    }

    /// An object within a watch event. The first one of a Table has its column definitions.
    pub(super) fn event(self, kind: &Kind, stored: &Bytes, first: bool) -> Result<Bytes, Status> {
        match self.shape {
            Shape::Object | Shape::Partial => self.object(kind, stored),
            Shape::Table(api) => {
                let object = parse(stored)?;
                let version = object["metadata"]["resourceVersion"].clone();
                let rows = vec![self.row(kind, object, api, Timestamp::now())];
                let columns = if first { columns(kind) } else { Value::Null };
                let table = json!({
                    "kind": "Table", "apiVersion": meta(api), "metadata": {"resourceVersion": version},
                    "columnDefinitions": columns, "rows": rows,
                });
                Ok(table.to_string().into())
            }
        }
    }

    /// A list.
    pub(super) fn list(self, kind: &Kind, page: &Page, list: &ListMeta) -> Result<Bytes, Status> {
        match self.shape {
            Shape::Object | Shape::Partial => self.plain_list(kind, page, list),
            Shape::Table(api) => {
                let now = Timestamp::now();
                let rows: Result<Vec<Value>, Status> =
                    page.objects.iter().map(|stored| Ok(self.row(kind, parse(stored)?, api, now))).collect();
                let table = json!({
                    "kind": "Table", "apiVersion": meta(api), "metadata": list.to_json(false),
                    "columnDefinitions": columns(kind), "rows": rows?,
                });
                Ok(table.to_string().into())
            }
        }
    }

    /// Copies stored objects into the list without decoding them.
    fn plain_list(self, kind: &Kind, page: &Page, meta: &ListMeta) -> Result<Bytes, Status> {
        let (list_kind, api_version) = match self.shape {
            Shape::Partial => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
            Shape::Object | Shape::Table(_) => (kind.list_kind.clone(), kind.api_version()),
        };
        let bytes: usize = page.objects.iter().map(|object| object.len() + 1).sum();
        let mut list = Vec::with_capacity(bytes + 256);
        let head = format!(
            "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{},\"items\":[",
            json!(list_kind),
            json!(api_version),
            // Lists of custom kinds have an empty `continue` at their end.
            meta.to_json(kind.is_custom() && self.shape == Shape::Object)
        );
        list.extend_from_slice(head.as_bytes());
        for (index, stored) in page.objects.iter().enumerate() {
            if index > 0 {
                list.push(b',');
            }
            match (self.shape, kind.conversion()) {
                (Shape::Object, Conversion::None) => list.extend_from_slice(stored),
                (Shape::Object | Shape::Table(_), _) => {
                    let mut object = parse(stored)?;
                    kind.conversion().convert_from_stored(&mut object);
                    list.extend_from_slice(object.to_string().as_bytes());
                }
                (Shape::Partial, _) => {
                    list.extend_from_slice(partial(&mut parse(stored)?, "v1").to_string().as_bytes());
                }
            }
        }
        list.extend_from_slice(b"]}");
        Ok(list.into())
    }

    fn row(self, kind: &Kind, mut object: Value, api: &str, now: Timestamp) -> Value {
        let cells = kind.cells(&object, now);
        match self.include {
            Include::Nothing => json!({"cells": cells, "object": null}),
            Include::Metadata => json!({"cells": cells, "object": partial(&mut object, api)}),
            Include::Whole => {
                kind.conversion().convert_from_stored(&mut object);
                json!({"cells": cells, "object": object})
            }
        }
    }

    /// A bookmark.
    pub(super) fn bookmark(self, kind: &Kind, revision: u64, initial_events_end: bool) -> Value {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match self.shape {
            Shape::Object => {
                json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata})
            }
            Shape::Partial => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Shape::Table(api) => {
                let object =
                    json!({"kind": "PartialObjectMetadata", "apiVersion": meta(api), "metadata": metadata});
                let mut cells = vec![Value::Null; kind.headings().len()];
                if let Some(name) = cells.first_mut() {
                    *name = json!("");
                }
                json!({
                    "kind": "Table", "apiVersion": meta(api),
                    "metadata": {"resourceVersion": revision.to_string()},
                    "columnDefinitions": null, "rows": [{"cells": cells, "object": object}],
                })
            }
        }
    }
}

impl ListMeta {
    fn to_json(&self, always: bool) -> Value {
        let mut meta = json!({"resourceVersion": self.revision.to_string()});
        if let Some(next) = &self.next {
            meta["continue"] = json!(next);
        } else if always {
            meta["continue"] = json!("");
        }
        if let Some(remaining) = self.remaining {
            meta["remainingItemCount"] = json!(remaining);
        }
        meta
    }
}

fn columns(kind: &Kind) -> Value {
    let columns = kind.headings().into_iter().map(|column| {
        json!({
            "name": column.name, "type": column.ty, "format": column.format,
            "description": column.description, "priority": column.priority,
        })
    });
    columns.collect()
}

fn partial(object: &mut Value, api: &str) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": meta(api), "metadata": object["metadata"].take()})
}

fn meta(version: &str) -> String {
    format!("meta.k8s.io/{version}")
}

fn parse(stored: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(stored).map_err(Status::internal)
}
