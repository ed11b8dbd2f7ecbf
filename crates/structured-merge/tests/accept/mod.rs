//! Invariants that hold for any JSON of a client: shared by the fuzz target and the replay of its corpus.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use wasmbed_structured_merge::{
    ApplyError, ManagedFields, ManagerId, Operation, Set, Type, Updater, Version, empty_like,
};

const NAME: &str = "example.com/v1";
const NOW: &str = "2026-01-01T00:00:00Z";

/// A type with every kind of map and list.
static VERSION: LazyLock<Version<()>> = LazyLock::new(|| {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "map": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "value": {}}},
        },
        "atomic": {"type": "array", "items": {"type": "string"}},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "size": {"type": "integer"},
    }}}});
    Version { name: NAME.into(), ty: Arc::new(Type::of_objects(&schema, [])), conversion: () }
});

/// Decodes `bytes` as JSON and uses the value as a set, as `managedFields`, as a schema, and as objects to write.
///
/// # Panics
/// If the crate panics or breaks one of the invariants.
pub(crate) fn accept(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    if let Ok(set) = Set::from_json(&value) {
        assert_eq!(Set::from_json(&set.to_json()).as_ref(), Ok(&set));
        assert_eq!(set.union(&set), set);
        assert!(set.difference(&set).is_empty());
    }
    if let Ok(managers) = ManagedFields::from_json(value.clone(), false) {
        let text = managers.into_json();
        assert_eq!(ManagedFields::from_json(text.clone(), false).map(ManagedFields::into_json), Ok(text));
    }
    let _ = ManagedFields::from_json(value.clone(), true);
    let _ = Type::of_objects(&value, []);
    let mut fitting = json!({"apiVersion": NAME, "kind": "Thing"});
    for name in ["set", "map", "atomic", "whole", "free", "size"] {
        fitting["spec"] = json!({name: value});
        write(&fitting);
    }
    fitting["spec"] = value.clone();
    write(&fitting);
    write(&value);
}

fn write(object: &Value) {
    let updater = Updater { version: &VERSION, others: &[], ignored: &["status"] };
    let live = json!({
        "apiVersion": NAME, "kind": "Thing",
        "spec": {"set": ["a", "b"], "map": [{"name": "x", "value": "1"}], "free": {"a": {"b": 1}}, "size": 1},
    });
    let other = ManagerId::new("other", Operation::Update, NAME, "");
    let id = ManagerId::new("fuzz", Operation::Apply, NAME, "");
    let none = ManagedFields::default();
    let managers = updater.update(&empty_like(&live), &live, none, &other, NOW).unwrap();
    let _ = updater.update(&live, object, managers.clone(), &other, NOW);
    match updater.apply(&live, object, managers.clone(), &id, false, NOW) {
        Ok(_) => {}
        Err(ApplyError::Conflicts(conflicts)) => {
            assert!(conflicts.iter().all(|conflict| conflict.manager == other));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(first) = updater.apply(&live, object, managers, &id, true, NOW) {
        let live = first.object.unwrap_or(live);
        let again = updater.apply(&live, object, first.managers, &id, true, NOW).unwrap();
        assert_eq!(again.object, None, "an apply repeated changes nothing: {object}");
    }
}
