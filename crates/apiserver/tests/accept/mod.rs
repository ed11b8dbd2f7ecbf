//! Invariants that hold for any bytes of a client: shared by the fuzz target and the replay of its corpus.

use std::sync::LazyLock;

use serde_json::{Value, json};
use uuid::Uuid;
use wasmbed_apiserver::kinds::{Kind, Kinds};
use wasmbed_apiserver::resource::{Applied, Author, FieldValidation, Moment, Next, Part, Patch, Request};
use wasmbed_apiserver::schema::{Schema, decode};
use wasmbed_apiserver::selector::Selection;

/// The kinds of Kubernetes, and one with every type of list and map.
static KINDS: LazyLock<Kinds> = LazyLock::new(|| {
    let sample = include_str!("../../../../conformance/crds/samples.yaml");
    let sample: Value = serde_saphyr::from_str(sample).unwrap();
    Kinds::new(&[sample]).unwrap()
});

/// A request for a certificate, as its specification has it.
const REQUEST: &str = include_str!("request.base64");
/// Who writes.
static AUTHOR: LazyLock<Author> = LazyLock::new(Author::default);

/// Decodes `bytes` in every way that a client's bytes are decoded.
///
/// # Panics
/// If a decoder panics or an invariant is broken.
pub(crate) fn accept(bytes: &[u8]) {
    wasmbed_apiserver::read_untrusted(&KINDS, bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let kind = KINDS.get("", "v1", "events").unwrap();
        let _ = Selection::parse(kind, None, Some(text), None);
        let _ = Selection::parse(kind, None, None, Some(text));
    }
    let _ = decode::yaml(bytes);
    if let Ok(decoded) = decode::applied(bytes) {
        value(&decoded.value);
    }
    if let Ok(decoded) = decode::json(bytes) {
        value(&decoded.value);
    }
}

fn value(value: &Value) {
    if let Ok(schema) = Schema::compile(value) {
        let mut object = json!({"spec": {"a": [1, "x", null]}, "status": {}});
        schema.prune(&mut object);
        schema.apply_defaults(&mut object);
        let _ = schema.validate(&object, None);
    }
    for (group, plural) in [
        ("conformance.wasmbed.github.io", "samples"),
        ("coordination.k8s.io", "leases"),
        ("certificates.k8s.io", "certificatesigningrequests"),
    ] {
        write(KINDS.get(group, "v1", plural).unwrap(), value);
    }
}

fn write(kind: &Kind, value: &Value) {
    let moment = Moment { now: "2026-01-01T00:00:00Z", uid: Uuid::nil() };
    let request = |part| Request {
        kind,
        namespace: Some("ns"),
        part,
        manager: "fuzz",
        author: &AUTHOR,
        validation: FieldValidation::Ignore,
        moment,
    };
    let mut base = json!({
        "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": "a"},
        "spec": {"set": ["a", "b"], "map": [{"name": "x", "value": "1"}], "holderIdentity": "x"},
    });
    if kind.group == "certificates.k8s.io" {
        base["spec"] = json!({
            "request": REQUEST, "signerName": "wasmbed.github.io/device", "usages": ["client auth"],
        });
    }
    let mut current = request(Part::Main).create(base, &[], &mut Vec::new()).unwrap();
    current["metadata"]["resourceVersion"] = json!("1");
    let _ = request(Part::Main).create(value.clone(), &[], &mut Vec::new());
    for part in [Part::Main, Part::Status, Part::Approval] {
        for media_type in [
            "application/merge-patch+json",
            "application/json-patch+json",
            "application/strategic-merge-patch+json",
        ] {
            let patch = Patch::parse(media_type, value.clone());
            if let Ok(patched) = patch.and_then(|patch| patch.apply(kind, &current)) {
                let text = serde_json::to_vec(&patched).unwrap();
                assert!(serde_json::from_slice::<Value>(&text).is_ok(), "what is stored can be read again");
                let _ = request(part).update(&current, patched, &[], &mut Vec::new());
            }
        }
        // The body itself, and as the specification of a valid object.
        let mut fitting =
            json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": "a"}});
        fitting["spec"] = value.clone();
        for object in [value, &fitting] {
            let applied = Applied { object, duplicates: &[], force: true };
            let _ = request(part).apply(None, "a", &applied, &mut Vec::new());
            let next = request(part).apply(Some(&current), "a", &applied, &mut Vec::new());
            if let Ok(Next::Stored(stored)) = next {
                let again = request(part).apply(Some(&stored), "a", &applied, &mut Vec::new());
                assert_eq!(again, Ok(Next::Unchanged), "{object}");
            }
        }
    }
}
