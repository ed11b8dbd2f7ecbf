//! Any input is answered without a panic, and stored objects are well-formed.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::tests::AUTHOR;
use super::{FieldValidation, Moment, Next, Part, Patch, Request};
use crate::kinds::Kinds;
use crate::schema::decode;
use crate::selector::Selection;

static KINDS: LazyLock<Kinds> = LazyLock::new(|| Kinds::new(&[]).unwrap());
const MOMENT: Moment<'_> = Moment { now: "2026-01-01T00:00:00Z", uid: Uuid::nil() };

/// Whether the text of a number reads as a whole one. serde_json rounds what has more than 15 digits.
fn is_read_as_whole(number: f64) -> bool {
    let read: Value = serde_json::from_str(&Value::from(number).to_string()).unwrap();
    read.as_f64().is_none_or(|number| number.fract() == 0.0)
}

/// JSON with field names of objects, so that patches change something.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Whole numbers decode as integers however they are written.
        any::<f64>().prop_map(|number| Value::from(if is_read_as_whole(number) { 0.5 } else { number })),
        "[a-z0-9./-]{0,12}".prop_map(Value::from),
        Just(json!("7")),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let name = prop_oneof![
            "(apiVersion|kind|metadata|spec|status)",
            "(name|namespace|labels|finalizers|uid|resourceVersion|ownerReferences|deletionTimestamp)",
            "(holderIdentity|renewTime|leaseDurationSeconds|phase)",
            "[a-z$/~]{0,4}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..5).prop_map(Value::from_iter),
        ]
    })
}

fn is_well_formed(object: &Value) -> bool {
    object["metadata"]["name"] == "a" && object["metadata"]["uid"].is_string() && object["kind"].is_string()
}

proptest! {
    #[test]
    fn any_patch_is_answered(patch in value(), operations in value(), part in prop_oneof![Just(Part::Main), Just(Part::Status)]) {
        let kinds = &*KINDS;
        for path in [("coordination.k8s.io", "leases"), ("", "namespaces"), ("", "events")] {
            let kind = kinds.get(path.0, "v1", path.1).unwrap();
            let body = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": "a"}, "involvedObject": {"namespace": "ns"}});
            let namespace = kind.namespaced.then_some("ns");
            let validation = FieldValidation::Ignore;
            let request = Request { kind, namespace, part, manager: "test", author: &AUTHOR, validation, moment: MOMENT };
            let mut current = request.create(body, &[], &mut Vec::new()).unwrap();
            current["metadata"]["resourceVersion"] = json!("7");
            let patches = [
                Patch::parse("application/merge-patch+json", patch.clone()),
                Patch::parse("application/json-patch+json", json!([{"op": "replace", "path": "", "value": patch}])),
                Patch::parse("application/json-patch+json", operations.clone()),
                Patch::parse("application/strategic-merge-patch+json", patch.clone()),
            ];
            for patch in patches.into_iter().flatten() {
                let Ok(patched) = patch.apply(kind, &current) else { continue };
                match request.update(&current, patched, &[], &mut Vec::new()) {
                    Ok(Next::Stored(object) | Next::Removed(object)) => prop_assert!(is_well_formed(&object), "{object}"),
                    Ok(Next::Unchanged) => {}
                    Err(status) => prop_assert!(!status.message().is_empty()),
                }
            }
        }
    }

    #[test]
    fn any_selector_is_answered(labels in ".{0,40}", fields in ".{0,40}", terms in "[a-z=!,() ]{0,40}") {
        let kinds = &*KINDS;
        let kind = kinds.get("", "v1", "events").unwrap();
        for (labels, fields) in [(&labels, &fields), (&terms, &terms)] {
            let _ = Selection::parse(kind, None, Some(labels), None);
            let _ = Selection::parse(kind, None, None, Some(fields));
        }
    }

    #[test]
    fn any_body_is_answered(bytes in prop::collection::vec(any::<u8>(), 0..200), value in value()) {
        let _ = decode::yaml(&bytes);
        prop_assert_eq!(decode::json(&bytes).is_ok(), serde_json::from_slice::<Value>(&bytes).is_ok());
        let text = value.to_string();
        prop_assert_eq!(decode::json(text.as_bytes()).unwrap().value, serde_json::from_str::<Value>(&text).unwrap());
    }
}
