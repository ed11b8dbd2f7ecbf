//! Discovery documents: the old form (three levels) and the aggregated one.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::review::Review;
use crate::kinds::{Conversion, Kind, Kinds};

/// The Kubernetes version whose API this server implements, for kubectl and client libraries.
const MAJOR: &str = "1";
const MINOR: &str = "36";
const MINOR_LEAST: &str = "35";

pub(super) fn version() -> Value {
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": MINOR_LEAST,
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

/// Kubernetes' own groups come first, in this order: clients take the first group that has a resource of a name.
const FIRST: [&str; 6] = [
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "certificates.k8s.io",
    "apiextensions.k8s.io",
    "coordination.k8s.io",
];

/// Groups with their versions, without the core group.
fn ordered(kinds: &Kinds) -> Vec<(&str, Vec<&str>)> {
    let mut groups = kinds.groups();
    for review in Review::ALL {
        groups.entry(review.group()).or_insert_with(|| vec!["v1"]);
    }
    let mut groups: Vec<(&str, Vec<&str>)> = groups.into_iter().collect();
    groups.sort_by_key(|(name, _)| FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()));
    groups
}

pub(super) fn groups(kinds: &Kinds) -> Value {
    let groups: Vec<Value> =
        ordered(kinds).iter().map(|(group, versions)| group_body(group, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

pub(super) fn group(kinds: &Kinds, name: &str) -> Option<Value> {
    let groups = ordered(kinds);
    let (_, versions) = groups.iter().find(|(group, _)| *group == name)?;
    let mut body = group_body(name, versions);
    body["kind"] = json!("APIGroup");
    body["apiVersion"] = json!("v1");
    Some(body)
}

fn group_body(name: &str, versions: &[&str]) -> Value {
    let version = |version: &str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let versions: Vec<Value> = versions.iter().map(|name| version(name)).collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

fn reviews(group: &str, version: &str) -> impl Iterator<Item = Review> {
    Review::ALL.into_iter().filter(move |review| review.group() == group && version == "v1")
}

pub(super) fn resources(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for review in reviews(group, version) {
        resources.push(json!({
            "name": review.plural(), "singularName": review.kind().to_lowercase(), "namespaced": false,
            "kind": review.kind(), "verbs": ["create"],
        }));
    }
    for kind in kinds.of_group(group).filter(|kind| kind.version == version) {
        let mut resource = json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
            "verbs": verbs(kind), "storageVersionHash": storage_version_hash(kind),
        });
        add_names(kind, &mut resource);
        resources.push(resource);
        for subresource in kind.subresources() {
            resources.push(json!({
                "name": format!("{}/{subresource}", kind.plural), "singularName": "", "namespaced": kind.namespaced,
                "kind": kind.kind, "verbs": subresource_verbs(kind),
            }));
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut list = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources});
    if !group.is_empty() {
        list["apiVersion"] = json!("v1");
    }
    (!resources.is_empty()).then_some(list)
}

/// Short names and categories, where there are any.
fn add_names(kind: &Kind, resource: &mut Value) {
    for (name, values) in [("shortNames", &kind.short_names), ("categories", &kind.categories)] {
        if !values.is_empty() {
            resource[name] = json!(values);
        }
    }
}

/// `storageVersionHash`: the beginning of a hash of group, version and kind, which changes with the stored form.
fn storage_version_hash(kind: &Kind) -> String {
    use base64::Engine as _;
    const BYTES: usize = 8;
    // Events are stored in the core group's version.
    let group = if kind.conversion() == Conversion::Events { "" } else { &kind.group };
    let hash = Sha256::digest(format!("{group}/{}/{}", kind.version, kind.kind).as_bytes());
    base64::engine::general_purpose::STANDARD.encode(&hash[..BYTES])
}

/// Aggregated discovery of `/api` (the core group) or `/apis` (all others).
pub(super) fn aggregated(kinds: &Kinds, core: bool) -> Value {
    let versions = |group: &str, versions: &[&str]| -> Vec<Value> {
        let of = |version: &&str| -> Vec<Value> {
            let review = reviews(group, version).map(review);
            let kinds = kinds.of_group(group).filter(|kind| kind.version == *version);
            review.into_iter().chain(kinds.map(|kind| resource(kind))).collect()
        };
        let entry =
            |version: &&str| json!({"version": version, "resources": of(version), "freshness": "Current"});
        versions.iter().map(entry).collect()
    };
    let items: Vec<Value> = if core {
        vec![json!({"metadata": {}, "versions": versions("", &["v1"])})]
    } else {
        let item = |(name, of): (&str, Vec<&str>)| json!({"metadata": {"name": name}, "versions": versions(name, &of)});
        ordered(kinds).into_iter().map(item).collect()
    };
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn review(review: Review) -> Value {
    json!({
        "resource": review.plural(), "responseKind": {"group": "", "version": "", "kind": review.kind()},
        "scope": "Cluster", "singularResource": review.kind().to_lowercase(), "verbs": ["create"],
    })
}

fn resource(kind: &Kind) -> Value {
    // Kubernetes omits it for built-in kinds: it is that of their group.
    let response_kind = if kind.is_custom() {
        json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
    } else {
        json!({"group": "", "version": "", "kind": kind.kind})
    };
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": response_kind,
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": verbs(kind),
    });
    add_names(kind, &mut resource);
    let below = kind.subresources().map(
        |name| json!({"subresource": name, "responseKind": response_kind, "verbs": subresource_verbs(kind)}),
    );
    let below: Vec<Value> = below.collect();
    if !below.is_empty() {
        resource["subresources"] = json!(below);
    }
    resource
}

fn verbs(kind: &Kind) -> &'static [&'static str] {
    if !kind.writable {
        &["get", "list", "watch"]
    } else if kind.is_custom() {
        &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]
    } else if kind.has_delete_collection() {
        &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    } else {
        &["create", "delete", "get", "list", "patch", "update", "watch"]
    }
}

fn subresource_verbs(kind: &Kind) -> &'static [&'static str] {
    if kind.writable { &["get", "patch", "update"] } else { &["get"] }
}
