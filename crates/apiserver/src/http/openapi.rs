//! OpenAPI v3: one document per group and version, for `kubectl explain`, `apply` and code generators.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::kinds::{Kind, Kinds};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// Path of a group's version below `/openapi/v3/`.
fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The index: each document's address with a hash of its content, so that clients can cache it.
pub(super) fn index(kinds: &Kinds) -> Value {
    let mut versions: Vec<(&str, &str)> = Vec::new();
    for kind in kinds.iter() {
        if !versions.contains(&(&kind.group, &kind.version)) {
            versions.push((&kind.group, &kind.version));
        }
    }
    let mut paths = Map::new();
    for (group, version) in versions {
        if let Some(document) = document(kinds, group, version) {
            let hash = format!("{:X}", Sha256::digest(document.to_string().as_bytes()));
            let path = path_of(group, version);
            paths.insert(
                path.clone(),
                json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}),
            );
        }
    }
    json!({ "paths": paths })
}

/// The document of one group and version.
pub(super) fn document(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    let mut schemas = Map::new();
    let mut paths = Map::new();
    for kind in kinds.of_group(group).filter(|kind| kind.version == version) {
        schemas.insert(schema_name(kind), object_schema(kind));
        schemas.insert(format!("{}List", schema_name(kind)), list_schema(kind));
        add_paths(kind, &mut paths);
    }
    if schemas.is_empty() {
        return None;
    }
    schemas.insert(OBJECT_META.into(), object_meta());
    schemas.insert(LIST_META.into(), list_meta());
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Wasmbed", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

/// `io.github.wasmbed.v1alpha1.Device`.
fn schema_name(kind: &Kind) -> String {
    if kind.group.is_empty() {
        return format!("io.k8s.api.core.{}.{}", kind.version, kind.kind);
    }
    let reversed: Vec<&str> = kind.group.rsplit('.').collect();
    format!("{}.{}.{}", reversed.join("."), kind.version, kind.kind)
}

fn identity(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn object_schema(kind: &Kind) -> Value {
    let mut schema = kind.openapi.clone();
    complete(&mut schema);
    for (name, description) in [
        ("apiVersion", "APIVersion names the version of the schema of this object."),
        ("kind", "Kind names what this object is."),
    ] {
        schema["properties"][name] = json!({"type": "string", "description": description});
    }
    schema["properties"]["metadata"] = json!({
        "description": "Standard object's metadata.",
        "allOf": [reference(OBJECT_META)],
    });
    schema["x-kubernetes-group-version-kind"] = json!([identity(kind)]);
    add_selectable(kind, &mut schema);
    schema
}

/// Selectable fields, which custom kinds list.
fn add_selectable(kind: &Kind, schema: &mut Value) {
    if !kind.selectable.is_empty() {
        let field = |path: &String| json!({"fieldPath": path.trim_start_matches('.')});
        schema["x-kubernetes-selectable-fields"] = kind.selectable.iter().map(field).collect();
    }
}

/// Bounds as in the definition: 0, not 0.0. A field that is an integer or a string lists both types.
fn complete(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(complete);
            if fields.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
                fields.insert("anyOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(complete),
        Value::Number(number) => {
            // Exact in this range.
            if let Some(whole) = number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9e15) {
                *value = json!(whole as i64);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn list_schema(kind: &Kind) -> Value {
    let list = json!({"group": kind.group, "version": kind.version, "kind": kind.list_kind});
    let mut schema = json!({
        "type": "object",
        "description": format!("{} is a list of {}", kind.list_kind, kind.kind),
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"allOf": [reference(LIST_META)]},
            "items": {"type": "array", "items": reference(&schema_name(kind))},
        },
        "x-kubernetes-group-version-kind": [list],
    });
    add_selectable(kind, &mut schema);
    schema
}

fn add_paths(kind: &Kind, paths: &mut Map<String, Value>) {
    let root = if kind.group.is_empty() { "/api" } else { "/apis" };
    let base = format!("{root}/{}", kind.api_version());
    let one = reference(&schema_name(kind));
    let many = reference(&format!("{}List", schema_name(kind)));
    let operation = |verb: &str, schema: &Value, body: bool, parameters: &[&str]| {
        let mut operation = json!({
            "operationId": format!("{verb}{}{}", kind.version, kind.kind),
            "x-kubernetes-action": verb,
            "x-kubernetes-group-version-kind": identity(kind),
            "parameters": parameters.iter().map(|name| parameter(name, "query")).collect::<Vec<_>>(),
            "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}},
        });
        if body {
            operation["requestBody"] = json!({"content": {"application/json": {"schema": schema}}});
        }
        operation
    };
    let write = ["dryRun", "fieldManager", "fieldValidation"];
    let list = [
        "limit",
        "continue",
        "labelSelector",
        "fieldSelector",
        "resourceVersion",
        "resourceVersionMatch",
        "timeoutSeconds",
        "watch",
        "allowWatchBookmarks",
        "sendInitialEvents",
    ];
    let mut collection = json!({"get": operation("list", &many, false, &list)});
    let mut item = json!({"get": operation("get", &one, false, &["resourceVersion"])});
    if kind.writable {
        collection["post"] = operation("post", &one, true, &write);
        collection["delete"] = operation("deletecollection", &many, false, &list[2..4]);
        item["put"] = operation("put", &one, true, &write);
        item["patch"] = operation("patch", &one, true, &write);
        item["delete"] =
            operation("delete", &one, false, &["dryRun", "propagationPolicy", "gracePeriodSeconds"]);
    }
    let (home, mut shared) = if kind.namespaced {
        paths.insert(
            format!("{base}/{}", kind.plural),
            json!({"get": operation("list", &many, false, &list)}),
        );
        (format!("{base}/namespaces/{{namespace}}/{}", kind.plural), vec![parameter("namespace", "path")])
    } else {
        (format!("{base}/{}", kind.plural), Vec::new())
    };
    collection["parameters"] = json!(shared);
    paths.insert(home.clone(), collection);
    shared.push(parameter("name", "path"));
    item["parameters"] = json!(shared);
    for subresource in kind.subresources() {
        let mut part = item.clone();
        if let Some(part) = part.as_object_mut() {
            part.remove("delete");
        }
        paths.insert(format!("{home}/{{name}}/{subresource}"), part);
    }
    paths.insert(format!("{home}/{{name}}"), item);
}

fn parameter(name: &str, place: &str) -> Value {
    let ty = match name {
        "limit" | "timeoutSeconds" | "gracePeriodSeconds" => "integer",
        "watch" | "allowWatchBookmarks" | "sendInitialEvents" => "boolean",
        _ => "string",
    };
    json!({"name": name, "in": place, "required": place == "path", "schema": {"type": ty, "uniqueItems": true}})
}

fn object_meta() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let time =
        |description: &str| json!({"type": "string", "format": "date-time", "description": description});
    let count = |description: &str| json!({"type": "integer", "format": "int64", "description": description});
    let map = |description: &str| json!({"type": "object", "additionalProperties": {"type": "string"}, "description": description});
    json!({
        "type": "object",
        "description": "ObjectMeta is metadata that all stored objects have.",
        "properties": {
            "name": text("Name is unique among the objects of a kind in a namespace. It can't be changed."),
            "generateName": text("GenerateName is the prefix of a name that the server completes, if name is absent."),
            "namespace": text("Namespace is the scope in which the name is unique."),
            "uid": text("UID identifies this object among all others, past and future. Set by the server."),
            "resourceVersion": text("ResourceVersion changes with every change of the object. Set by the server."),
            "generation": count("Generation counts changes of the desired state. Set by the server."),
            "creationTimestamp": time("CreationTimestamp is the time at which the object was created. Set by the server."),
            "deletionTimestamp": time("DeletionTimestamp is the time at which deletion was requested; finalizers delay it. Set by the server."),
            "deletionGracePeriodSeconds": count("Seconds allowed for the object to terminate. Set by the server."),
            "labels": map("Labels are key-value pairs by which objects are selected."),
            "annotations": map("Annotations are key-value pairs for tools; objects can't be selected by them."),
            "finalizers": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set",
                "description": "Finalizers must all be removed before a deleted object is removed."},
            "ownerReferences": {"type": "array", "description": "OwnerReferences lists the objects that this one belongs to.",
                "items": {"type": "object", "required": ["apiVersion", "kind", "name", "uid"], "properties": {
                    "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "name": {"type": "string"},
                    "uid": {"type": "string"}, "controller": {"type": "boolean"},
                    "blockOwnerDeletion": {"type": "boolean"}}}},
        },
    })
}

fn list_meta() -> Value {
    json!({
        "type": "object",
        "description": "ListMeta is metadata of lists.",
        "properties": {
            "resourceVersion": {"type": "string", "description": "Revision at which the list was read."},
            "continue": {"type": "string", "description": "Token for the rest of the list."},
            "remainingItemCount": {"type": "integer", "format": "int64", "description": "Number of objects in the rest of the list."},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::{document, index};
    use crate::kinds::Kinds;

    #[test]
    fn every_version_has_a_document_whose_references_resolve() {
        let kinds = Kinds::new(&[]).unwrap();
        let index = index(&kinds);
        let paths = index["paths"].as_object().unwrap();
        assert_eq!(paths.len(), 5);
        for kind in kinds.iter() {
            let document = document(&kinds, &kind.group, &kind.version).unwrap();
            let text = document.to_string();
            for reference in text.split("#/components/schemas/").skip(1) {
                let name = reference.split('"').next().unwrap();
                assert!(document["components"]["schemas"][name].is_object(), "{name}");
            }
        }
        assert!(document(&kinds, "nothing", "v1").is_none());
    }
}
