use serde_json::{Value, json};

use super::{Schema, SchemaError, decode};

fn schema(spec: Value) -> Schema {
    Schema::compile(&json!({"type": "object", "properties": {"spec": spec}})).unwrap()
}

fn causes(schema: &Schema, object: Value, old: Option<Value>) -> Vec<String> {
    let causes = schema.validate(&object, old.as_ref());
    causes.iter().map(|cause| format!("{}: {}", cause.field(), cause.message())).collect()
}

#[test]
fn prunes_unknown_fields_and_keeps_metadata() {
    let schema = schema(json!({"type": "object", "properties": {
        "a": {"type": "string"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "string"}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {"type": "string"}}}},
    }}));
    let mut object = json!({
        "apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n", "labels": {"a": "b"}},
        "spec": {"a": "1", "b": 2, "free": {"q": {"r": 1}}, "list": [{"x": "1", "y": 2}], "map": {"k": {"x": "1", "z": 1}}},
        "extra": 1,
    });
    let mut unknown = schema.prune(&mut object);
    unknown.sort();
    assert_eq!(unknown, ["extra", "spec.b", "spec.list[0].y", "spec.map.k.z"]);
    assert_eq!(
        object["spec"],
        json!({"a": "1", "free": {"q": {"r": 1}}, "list": [{"x": "1"}], "map": {"k": {"x": "1"}}})
    );
    assert_eq!(object["metadata"]["labels"]["a"], "b");
}

#[test]
fn defaults_reach_into_defaults() {
    let schema = schema(json!({"type": "object", "properties": {
        "approved": {"type": "boolean", "default": true},
        "config": {"type": "object", "default": {}, "properties": {"limit": {"type": "integer", "default": 7}}},
        "none": {"type": "string", "nullable": true, "default": "x"},
        "items": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer", "default": 1}}}},
    }}));
    let mut object = json!({"spec": {"approved": null, "none": null, "items": [{}]}});
    schema.apply_defaults(&mut object);
    let expected = json!({"approved": true, "config": {"limit": 7}, "none": null, "items": [{"n": 1}]});
    assert_eq!(object["spec"], expected);
}

#[test]
fn bounds_are_reported_as_in_kubernetes() {
    let schema = schema(json!({"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 3},
        "bytes": {"type": "string", "format": "byte"},
        "kind": {"type": "string", "enum": ["a", "b"]},
        "port": {"type": "integer", "minimum": 1, "maximum": 9, "format": "int32"},
        "either": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        "tags": {"type": "array", "maxItems": 2, "items": {"type": "string", "pattern": "^[a-z]+$"}, "x-kubernetes-list-type": "set"},
        "env": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}},
    }}));
    let good = json!({"spec": {"name": "abc", "kind": "a", "port": 9, "either": "80%", "tags": ["a", "b"], "bytes": "AAAA"}});
    assert_eq!(causes(&schema, good, None), Vec::<String>::new());
    let messages = causes(
        &schema,
        json!({"spec": {"name": "abcd", "kind": "c", "port": 10, "either": true, "tags": ["a", "B"], "bytes": "%%%",
                        "env": [{"name": "x"}, {"name": "x"}, {}]}}),
        None,
    );
    for expected in [
        "spec.name: Too long: may not be more than 3 bytes",
        "spec.kind: Unsupported value: \"c\": supported values: \"a\", \"b\"",
        "spec.port: Invalid value: 10: spec.port in body should be less than or equal to 9",
        "spec.either: Invalid value: \"boolean\": spec.either in body must be of type integer,string: \"boolean\"",
        "spec.tags[1]: Invalid value: \"B\": spec.tags[1] in body should match '^[a-z]+$'",
        "spec.bytes: Invalid value: \"%%%\": spec.bytes in body must be of type byte: \"%%%\"",
        "spec.env[1]: Duplicate value: {\"name\":\"x\"}",
        "spec.env[2].name: Required value",
    ] {
        assert!(messages.contains(&expected.to_owned()), "{expected} not in {messages:#?}");
    }
    assert_eq!(causes(&schema, json!({"spec": {}}), None), ["spec.name: Required value"]);
    let wrong = causes(&schema, json!({"spec": {"name": 5}}), None);
    assert_eq!(
        wrong,
        ["spec.name: Invalid value: \"integer\": spec.name in body must be of type string: \"integer\""]
    );
}

#[test]
fn an_update_is_not_refused_for_unchanged_fields() {
    let schema = Schema::compile(&json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"n": {"type": "integer", "maximum": 1}}},
        "status": {"type": "object", "properties": {"m": {"type": "integer", "maximum": 1}}},
    }}))
    .unwrap();
    let old = json!({"spec": {"n": 5}, "status": {"m": 0}});
    assert!(schema.validate(&json!({"spec": {"n": 5}, "status": {"m": 1}}), Some(&old)).is_empty());
    assert_eq!(schema.validate(&json!({"spec": {"n": 6}, "status": {"m": 2}}), Some(&old)).len(), 2);
}

#[test]
fn rules_see_self_and_old_self() {
    let schema = schema(json!({"type": "object",
    "x-kubernetes-validations": [
        {"rule": "has(self.a) != has(self.b)", "message": "one of a and b", "fieldPath": ".a"},
        {"rule": "!has(oldSelf.a) || self.a == oldSelf.a", "message": "a is immutable", "reason": "FieldValueForbidden"},
        {"rule": "self.list.all(x, x.size() <= 3 && x.matches('^[a-z]+$'))", "messageExpression": "'got ' + string(self.list.size()) + ' items'"},
    ],
    "properties": {
        "a": {"type": "string"}, "b": {"type": "string"},
        "list": {"type": "array", "default": [], "items": {"type": "string"}},
    }}));
    assert_eq!(causes(&schema, json!({"spec": {"a": "1", "list": ["abc"]}}), None), Vec::<String>::new());
    assert_eq!(
        causes(&schema, json!({"spec": {"a": "1", "b": "2", "list": ["abcd"]}}), None),
        ["spec.a: Invalid value: \"1\": one of a and b", "spec: Invalid value: got 1 items"]
    );
    assert_eq!(
        causes(
            &schema,
            json!({"spec": {"a": "2", "list": []}}),
            Some(json!({"spec": {"a": "1", "list": []}}))
        ),
        ["spec: Forbidden: a is immutable"]
    );
}

#[test]
fn rules_at_the_root_see_the_name_and_nothing_else_of_the_metadata() {
    let schema = Schema::compile(&json!({"type": "object",
        "x-kubernetes-validations": [{"rule": "self.metadata.name.startsWith('a') && !has(self.metadata.labels)"}],
        "properties": {"spec": {"type": "object"}}}))
    .unwrap();
    assert!(schema.validate(&json!({"metadata": {"name": "ab", "labels": {}}}), None).is_empty());
    assert_eq!(schema.validate(&json!({"metadata": {"name": "b"}}), None).len(), 1);
}

#[test]
fn keywords_and_functions_that_are_not_enforced_are_refused() {
    let keyword = Schema::compile(&json!({"type": "object", "patternProperties": {}}));
    assert!(matches!(keyword, Err(SchemaError::Keyword { keyword, .. }) if keyword == "patternProperties"));
    let rule = json!({"type": "object", "x-kubernetes-validations": [{"rule": "isURL(self.a)"}]});
    assert!(matches!(Schema::compile(&rule), Err(SchemaError::Rule { .. })));
}

#[test]
fn duplicate_fields_are_reported() {
    let decoded = decode::json(br#"{"a": {"b": 1, "b": 2}, "c": [{"d": 1, "d": 1}]}"#).unwrap();
    assert_eq!(decoded.duplicates, ["a.b", "c[0].d"]);
    assert_eq!(decoded.value["a"]["b"], 2);
    assert!(decode::json(b"{} x").is_err());
    assert!(decode::json(&[b'['; 100_000]).is_err());
    assert!(decode::yaml(b"a: 1\na: 2\n").is_err());
    assert_eq!(decode::yaml(b"a: [1, x]\n").unwrap().value, json!({"a": [1, "x"]}));
}
