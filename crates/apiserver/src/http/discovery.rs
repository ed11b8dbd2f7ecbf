//! What the API consists of, in the old form (three levels) and the aggregated one.

use serde_json::{Value, json};

use crate::kinds::{Kind, Kinds};

/// What kubectl and client libraries take the server for: the API of this Kubernetes version.
const MAJOR: &str = "1";
const MINOR: &str = "36";

pub(super) fn version() -> Value {
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "gitVersion": format!("v{MAJOR}.{MINOR}.0+wasmbed.{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

pub(super) fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

pub(super) fn groups(kinds: &Kinds) -> Value {
    let groups: Vec<Value> =
        kinds.groups().iter().map(|(group, versions)| group_body(group, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

pub(super) fn group(kinds: &Kinds, name: &str) -> Option<Value> {
    let groups = kinds.groups();
    let mut body = group_body(name, groups.get(name)?);
    body["kind"] = json!("APIGroup");
    body["apiVersion"] = json!("v1");
    Some(body)
}

fn group_body(name: &str, versions: &[&str]) -> Value {
    let version = |version: &str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let versions: Vec<Value> = versions.iter().map(|name| version(name)).collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

pub(super) fn resources(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in kinds.of_group(group).filter(|kind| kind.version == version) {
        resources.push(json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
            "verbs": verbs(kind), "shortNames": kind.short_names, "categories": kind.categories,
        }));
        if kind.status_subresource {
            resources.push(json!({
                "name": format!("{}/status", kind.plural), "singularName": "", "namespaced": kind.namespaced,
                "kind": kind.kind, "verbs": status_verbs(kind),
            }));
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources});
    (!resources.is_empty()).then_some(list)
}

/// The whole of `/api` (the core) or `/apis` (all groups) at once.
pub(super) fn aggregated(kinds: &Kinds, core: bool) -> Value {
    let versions = |group: &str, versions: &[&str]| -> Vec<Value> {
        let of = |version: &&str| -> Vec<Value> {
            kinds.of_group(group).filter(|kind| kind.version == *version).map(|kind| resource(kind)).collect()
        };
        let entry =
            |version: &&str| json!({"version": version, "resources": of(version), "freshness": "Current"});
        versions.iter().map(entry).collect()
    };
    let items: Vec<Value> = if core {
        vec![json!({"metadata": {"creationTimestamp": null}, "versions": versions("", &["v1"])})]
    } else {
        let groups = kinds.groups();
        let item = |(name, of): (&&str, &Vec<&str>)| json!({"metadata": {"name": name, "creationTimestamp": null}, "versions": versions(name, of)});
        groups.iter().map(item).collect()
    };
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn resource(kind: &Kind) -> Value {
    let response_kind = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": response_kind,
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": verbs(kind),
        "shortNames": kind.short_names,
        "categories": kind.categories,
    });
    if kind.status_subresource {
        resource["subresources"] =
            json!([{"subresource": "status", "responseKind": response_kind, "verbs": status_verbs(kind)}]);
    }
    resource
}

fn verbs(kind: &Kind) -> &'static [&'static str] {
    if kind.writable {
        &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    } else {
        &["get", "list", "watch"]
    }
}

fn status_verbs(kind: &Kind) -> &'static [&'static str] {
    if kind.writable { &["get", "patch", "update"] } else { &["get"] }
}
