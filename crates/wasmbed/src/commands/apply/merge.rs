//! The three-way merge of kubectl's client-side apply: what a manifest says is set, what it said before and no longer says is
//! removed, and what others wrote stays.

use serde_json::{Map, Value};

/// The JSON merge patch (RFC 7396) that takes `live` to what `wanted` says, given what was `last` applied. Without a memory
/// of what was applied (`remembered`), nothing is removed.
pub(super) fn patch(last: &Value, wanted: &Value, live: &Value, remembered: bool) -> Value {
    let nothing = Value::Null;
    Value::Object(difference(if remembered { last } else { &nothing }, wanted, live))
}

fn difference(last: &Value, wanted: &Value, live: &Value) -> Map<String, Value> {
    let mut patch = Map::new();
    let empty = Map::new();
    let wanted_fields = wanted.as_object().unwrap_or(&empty);
    for (name, value) in wanted_fields {
        match (value, live.get(name)) {
            (Value::Null, None) => {}
            (Value::Object(_), Some(present @ Value::Object(_))) => {
                let nested = difference(&last[name], value, present);
                if !nested.is_empty() {
                    patch.insert(name.clone(), Value::Object(nested));
                }
            }
            (value, present) if present == Some(value) => {}
            (value, _) => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    for name in last.as_object().into_iter().flat_map(Map::keys) {
        if !wanted_fields.contains_key(name) && live.get(name).is_some() {
            patch.insert(name.clone(), Value::Null);
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sets_removes_and_leaves_alone() {
        let last = json!({"spec": {"gone": 1, "kept": 1, "nested": {"gone": true}}});
        let wanted = json!({"spec": {"kept": 2, "nested": {"new": [1]}, "same": {"a": 1}}});
        let live = json!({"spec": {
            "gone": 1, "kept": 1, "nested": {"gone": true, "others": 5}, "same": {"a": 1, "default": 2}, "others": "x",
        }});
        let expected = json!({"spec": {"gone": null, "kept": 2, "nested": {"gone": null, "new": [1]}}});
        assert_eq!(patch(&last, &wanted, &live, true), expected);
    }

    #[test]
    fn nothing_to_do_is_an_empty_patch_and_nothing_is_removed_without_a_memory() {
        let wanted = json!({"spec": {"a": [1, 2], "b": null}});
        let live = json!({"spec": {"a": [1, 2], "c": 3}, "status": {}});
        assert_eq!(patch(&Value::Null, &wanted, &live, true), json!({}));
        assert_eq!(patch(&json!({"spec": {"c": 3}}), &wanted, &live, false), json!({}));
        assert_eq!(patch(&json!({"spec": {"c": 3}}), &wanted, &live, true), json!({"spec": {"c": null}}));
    }

    #[test]
    fn a_list_is_replaced_whole_and_a_changed_type_too() {
        let wanted = json!({"a": [2], "b": {"c": 1}});
        let live = json!({"a": [1, 2], "b": "text"});
        assert_eq!(patch(&Value::Null, &wanted, &live, true), wanted);
    }
}
