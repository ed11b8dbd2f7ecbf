//! Reduces the real server's documents about all kinds to the kinds that the embedded server has.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// Groups that the embedded server has.
const GROUPS: [&str; 8] = [
    "",
    "apiextensions.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "certificates.k8s.io",
    "conformance.wasmbed.github.io",
    "coordination.k8s.io",
    "events.k8s.io",
];
/// Resources of the authentication and authorization groups that it has.
const REVIEWS: [&str; 3] = ["selfsubjectaccessreviews", "selfsubjectreviews", "subjectaccessreviews"];
const OURS: &str = "wasmbed.github.io";
/// Resources of the core group that it has.
const CORE: [&str; 6] =
    ["events", "namespaces", "namespaces/status", "resourcequotas", "resourcequotas/status", "secrets"];

/// Reduces a discovery document to the kinds of the embedded server.
pub fn narrow(request: &str, body: &mut Value) {
    let path = request.split_once(' ').map_or(request, |(_, path)| path);
    let path = path.split('?').next().unwrap_or(path);
    match path {
        "/apis" => {
            retain(&mut body["groups"], |group| has_group(&group["name"]));
            retain(&mut body["items"], |group| has_group(&group["metadata"]["name"]));
            for group in body["items"].as_array_mut().into_iter().flatten() {
                if group["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("auth")) {
                    retain(&mut group["versions"][0]["resources"], |resource| {
                        is_review(&resource["resource"])
                    });
                }
            }
        }
        "/api" => {
            for version in body["items"].as_array_mut().into_iter().flatten() {
                for version in version["versions"].as_array_mut().into_iter().flatten() {
                    retain(&mut version["resources"], |resource| is_core(&resource["resource"]));
                    for resource in version["resources"].as_array_mut().into_iter().flatten() {
                        retain(&mut resource["subresources"], |below| below["subresource"] == "status");
                    }
                }
            }
        }
        "/apis/authorization.k8s.io/v1" | "/apis/authentication.k8s.io/v1" => {
            retain(&mut body["resources"], |resource| is_review(&resource["name"]));
        }
        "/api/v1" => retain(&mut body["resources"], |resource| is_core(&resource["name"])),
        "/openapi/v3" => {
            if let Some(paths) = body["paths"].as_object_mut() {
                paths.retain(|path, _| {
                    path == "api/v1" || path.split('/').nth(1).is_some_and(|group| has_group(&group.into()))
                });
            }
        }
        document if document.starts_with("/openapi/v3/") && body["components"].is_object() => {
            *body = json!({"kinds": kinds_of(body), "operations": operations_of(body)});
        }
        _ => {}
    }
    // The real server's order of custom kinds changes from one answer to the next.
    if body["kind"] == "APIResourceList"
        && let Some(resources) = body["resources"].as_array_mut()
    {
        resources.sort_by_key(|resource| resource["name"].to_string());
    }
}

/// The schemas of its own kinds in an OpenAPI document, without the descriptions of fields that all kinds have.
fn kinds_of(document: &Value) -> Value {
    let schemas = document["components"]["schemas"].as_object().into_iter().flatten();
    let own = schemas.filter(|(name, _)| !name.starts_with("io.k8s.")).map(|(name, schema)| {
        let mut schema = schema.clone();
        let fields =
            ["apiVersion", "kind", "metadata"].into_iter().chain(name.ends_with("List").then_some("items"));
        for field in fields {
            if let Some(field) = schema["properties"][field].as_object_mut() {
                field.remove("description");
            }
        }
        (name.clone(), schema)
    });
    own.collect()
}

/// The operations of an OpenAPI document: verb, kind, names of parameters, media types of body and answer.
fn operations_of(document: &Value) -> Value {
    let mut operations = serde_json::Map::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in
            methods.as_object().into_iter().flatten().filter(|(name, _)| *name != "parameters")
        {
            let all =
                [&methods["parameters"], &operation["parameters"]].into_iter().filter_map(Value::as_array);
            let named =
                |one: &Value| (format!("{} {}", one["in"], one["name"]).replace('"', ""), Value::Null);
            let parameters: serde_json::Map<String, Value> = all.flatten().map(named).collect();
            let forms = |content: &Value| -> Vec<String> {
                content.as_object().into_iter().flatten().map(|(form, _)| form.clone()).collect()
            };
            let answer = &operation["responses"]["200"]["content"];
            let operation = json!({
                "action": operation["x-kubernetes-action"],
                "kind": operation["x-kubernetes-group-version-kind"],
                "parameters": parameters,
                "bodies": forms(&operation["requestBody"]["content"]),
                "answers": forms(answer),
                "answer": answer["application/json"]["schema"],
            });
            operations.insert(format!("{} {path}", method.to_uppercase()), operation);
        }
    }
    operations.into()
}

fn has_group(name: &Value) -> bool {
    let known: BTreeSet<&str> = GROUPS.into_iter().chain([OURS]).collect();
    name.as_str().is_some_and(|name| known.contains(name))
}

fn is_core(name: &Value) -> bool {
    name.as_str().is_some_and(|name| CORE.contains(&name))
}

fn is_review(name: &Value) -> bool {
    name.as_str().is_some_and(|name| REVIEWS.contains(&name))
}

fn retain(list: &mut Value, keep: impl Fn(&Value) -> bool) {
    if let Some(items) = list.as_array_mut() {
        items.retain(|item| keep(item));
    }
}
