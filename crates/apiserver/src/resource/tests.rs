use std::sync::LazyLock;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Author, FieldValidation, Moment, Next, Part, Patch, Preconditions, Request, delete};
use crate::kinds::{Kind, Kinds};
use crate::status::{Reason, Status};

const MOMENT: Moment<'_> =
    Moment { now: "2026-01-01T00:00:00Z", uid: Uuid::from_u128(0x1234_5678_9abc_def0_1234) };

/// A client without rights.
pub(super) static AUTHOR: LazyLock<Author> = LazyLock::new(Author::default);

fn kind() -> Kind {
    Kind::from_definition(&json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"kind": "Widget", "plural": "widgets"},
            "versions": [{"name": "v1", "served": true, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 1}}},
                    "status": {"type": "object", "properties": {"seen": {"type": "integer"}}},
                }}}}],
        },
    }))
    .unwrap()
}

fn widget(metadata: Value, rest: Value) -> Value {
    let mut object = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": metadata});
    for (name, value) in rest.as_object().unwrap() {
        object[name] = value.clone();
    }
    object
}

fn created(kind: &Kind, metadata: Value, rest: Value) -> Result<Value, Status> {
    request(kind, Part::Main).create(widget(metadata, rest), &[], &mut Vec::new())
}

fn request(kind: &Kind, part: Part) -> Request<'_> {
    let validation = FieldValidation::Strict;
    Request {
        kind,
        namespace: Some("ns"),
        part,
        manager: "test",
        author: &AUTHOR,
        validation,
        moment: MOMENT,
    }
}

/// A stored widget.
fn stored(kind: &Kind, metadata: Value) -> Value {
    let mut object = created(kind, metadata, json!({"spec": {"size": 2}})).unwrap();
    object["metadata"]["resourceVersion"] = json!("7");
    object["status"] = json!({"seen": 1});
    object
}

fn put(kind: &Kind, part: Part, current: &Value, object: Value) -> Result<Next, Status> {
    request(kind, part).update(current, object, &[], &mut Vec::new())
}

fn changed(next: Next) -> Value {
    match next {
        Next::Stored(object) => object,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_object_gets_server_fields_and_no_status() {
    let metadata = json!({"name": "a", "uid": "mine", "generation": 9, "managedFields": [{}], "creationTimestamp": null,
        "deletionTimestamp": "2020-01-01T00:00:00Z", "labels": {}});
    let object = created(&kind(), metadata, json!({"spec": {}, "status": {"seen": 5}})).unwrap();
    let fields = json!({"f:spec": {".": {}, "f:size": {}}});
    let expected = widget(
        json!({"name": "a", "namespace": "ns", "uid": MOMENT.uid.to_string(), "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [{
            "manager": "test", "operation": "Update", "apiVersion": "example.com/v1", "time": MOMENT.now,
            "fieldsType": "FieldsV1", "fieldsV1": fields,
        }]}),
        json!({"spec": {"size": 1}}),
    );
    assert_eq!(object, expected);
}

#[test]
fn a_new_object_is_checked() {
    let kind = kind();
    let refused = |metadata: Value| created(&kind, metadata, json!({})).unwrap_err().reason();
    assert_eq!(refused(json!({})), Reason::Invalid);
    assert_eq!(refused(json!({"name": "Not-Lower"})), Reason::Invalid);
    assert_eq!(refused(json!({"name": "a", "namespace": "other"})), Reason::BadRequest);
    assert_eq!(refused(json!({"name": "a", "resourceVersion": "5"})), Reason::BadRequest);
    assert_eq!(refused(json!({"name": 5})), Reason::BadRequest);
    assert_eq!(refused(json!({"name": "a", "odd": 5})), Reason::BadRequest);
    assert_eq!(refused(json!({"name": "a", "labels": {"a b": "c"}})), Reason::Invalid);
    assert_eq!(refused(json!({"name": "a", "labels": {"a": "-"}})), Reason::Invalid);
    assert_eq!(refused(json!({"name": "a", "annotations": {"a": "x".repeat(300_000)}})), Reason::Invalid);
    assert_eq!(refused(json!({"name": "a", "finalizers": ["with space"]})), Reason::Invalid);
    assert_eq!(refused(json!({"name": "a", "ownerReferences": [{"name": "b"}]})), Reason::Invalid);
    let owned =
        json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "b", "uid": "u"}]});
    assert!(created(&kind, owned, json!({})).is_ok());
}

#[test]
fn a_generated_name_is_its_start_and_five_letters() {
    let object = created(&kind(), json!({"generateName": "event-"}), json!({})).unwrap();
    let name = object["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("event-") && name.len() == 11, "{name}");
    let long = created(&kind(), json!({"generateName": "x".repeat(100)}), json!({})).unwrap();
    assert_eq!(long["metadata"]["name"].as_str().unwrap().len(), 63);
}

#[test]
fn the_generation_counts_changes_of_the_spec_alone() {
    let kind = kind();
    let current = stored(&kind, json!({"name": "a"}));
    let mut object = current.clone();
    object["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(
        changed(put(&kind, Part::Main, &current, object.clone()).unwrap())["metadata"]["generation"],
        1
    );
    object["spec"]["size"] = json!(3);
    assert_eq!(
        changed(put(&kind, Part::Main, &current, object.clone()).unwrap())["metadata"]["generation"],
        2
    );
    object["status"]["seen"] = json!(9);
    let next = changed(put(&kind, Part::Status, &current, object.clone()).unwrap());
    let mut metadata = next["metadata"].clone();
    metadata["managedFields"] = current["metadata"]["managedFields"].clone();
    assert_eq!(metadata, current["metadata"], "a status write changes neither labels nor the generation");
    assert_eq!((&next["spec"], &next["status"]), (&json!({"size": 2}), &json!({"seen": 9})));
    let next = changed(put(&kind, Part::Main, &current, object).unwrap());
    assert_eq!((&next["spec"], &next["status"]), (&json!({"size": 3}), &json!({"seen": 1})));
}

#[test]
fn an_update_without_changes_writes_nothing() {
    let kind = kind();
    let current = stored(&kind, json!({"name": "a"}));
    let mut object = current.clone();
    object["metadata"]["creationTimestamp"] = json!("2000-01-01T00:00:00Z");
    assert_eq!(put(&kind, Part::Main, &current, object.clone()).unwrap(), Next::Unchanged);
    object["metadata"]["managedFields"] = json!(null);
    assert_eq!(put(&kind, Part::Main, &current, object).unwrap(), Next::Unchanged);
}

#[test]
fn an_update_means_one_version_of_one_object() {
    let kind = kind();
    let current = stored(&kind, json!({"name": "a"}));
    let with = |field: &str, value: Value| {
        let mut object = current.clone();
        object["metadata"][field] = value;
        put(&kind, Part::Main, &current, object).unwrap_err().reason()
    };
    assert_eq!(with("resourceVersion", json!("6")), Reason::Conflict);
    assert_eq!(with("resourceVersion", json!(null)), Reason::Invalid);
    assert_eq!(with("uid", json!("other")), Reason::Conflict);
    assert_eq!(with("name", json!("b")), Reason::BadRequest);
    assert_eq!(with("namespace", json!("other")), Reason::BadRequest);
}

#[test]
fn finalizers_delay_the_removal_of_an_object() {
    let kind = kind();
    let none = Preconditions::default();
    let free = stored(&kind, json!({"name": "a"}));
    assert_eq!(delete(&kind, &free, &none, MOMENT).unwrap(), Next::Removed(free));

    let held = stored(&kind, json!({"name": "a", "finalizers": ["example.com/x", "example.com/y"]}));
    let deleting = changed(delete(&kind, &held, &none, MOMENT).unwrap());
    assert_eq!(deleting["metadata"]["deletionTimestamp"], MOMENT.now);
    assert_eq!(deleting["metadata"]["generation"], 2);
    assert_eq!(delete(&kind, &deleting, &none, MOMENT).unwrap(), Next::Unchanged);

    let with = |finalizers: Value| {
        let mut object = deleting.clone();
        object["metadata"]["finalizers"] = finalizers;
        object["metadata"]["deletionTimestamp"] = json!(null);
        put(&kind, Part::Main, &deleting, object)
    };
    let fewer = changed(with(json!(["example.com/y"])).unwrap());
    assert_eq!(fewer["metadata"]["deletionTimestamp"], MOMENT.now, "a deletion can't be taken back");
    assert_eq!(with(json!(["example.com/x", "example.com/z"])).unwrap_err().reason(), Reason::Invalid);
    assert!(matches!(with(json!([])).unwrap(), Next::Removed(_)));
}

#[test]
fn a_delete_may_be_conditional() {
    let kind = kind();
    let current = stored(&kind, json!({"name": "a"}));
    let condition = |uid: Option<&str>, version: Option<&str>| {
        let conditions =
            Preconditions { uid: uid.map(Into::into), resource_version: version.map(Into::into) };
        delete(&kind, &current, &conditions, MOMENT).map_err(|status| status.reason())
    };
    assert_eq!(condition(Some("other"), None), Err(Reason::Conflict));
    assert_eq!(condition(None, Some("6")), Err(Reason::Conflict));
    assert!(condition(current["metadata"]["uid"].as_str(), Some("7")).is_ok());
}

#[test]
fn patches_of_all_forms() {
    let kind = kind();
    let current = stored(&kind, json!({"name": "a", "labels": {"a": "1", "b": "2"}}));
    let patched =
        |ty: &str, body: Value| Patch::parse(ty, body).and_then(|patch| patch.apply(&kind, &current));
    let merge = "application/merge-patch+json";
    let merged = patched(merge, json!({"metadata": {"labels": {"a": null, "c": "3"}}})).unwrap();
    assert_eq!(merged["metadata"]["labels"], json!({"b": "2", "c": "3"}));
    let operations = json!([{"op": "test", "path": "/spec/size", "value": 2}, {"op": "replace", "path": "/spec/size", "value": 4}]);
    let patch = "application/json-patch+json";
    assert_eq!(patched(patch, operations).unwrap()["spec"]["size"], 4);
    let refused = |ty: &str, body: Value| patched(ty, body).unwrap_err().reason();
    assert_eq!(refused(patch, json!([{"op": "test", "path": "/spec/size", "value": 3}])), Reason::Invalid);
    assert_eq!(refused(patch, json!([{"op": "jump"}])), Reason::BadRequest);
    assert_eq!(refused(merge, json!([])), Reason::BadRequest);
    assert_eq!(refused("application/strategic-merge-patch+json", json!({})), Reason::UnsupportedMediaType);

    let kinds = Kinds::new(&[]).unwrap();
    let lease = kinds.get("coordination.k8s.io", "v1", "leases").unwrap();
    let strategic = |body: Value| Patch::Strategic(body).apply(lease, &current);
    assert_eq!(strategic(json!({"spec": {"size": 9}})).unwrap()["spec"]["size"], 9);
    assert!(strategic(json!({"metadata": {"finalizers": ["a"]}})).is_err());
    assert!(strategic(json!({"metadata": {"$retainKeys": "a"}})).is_err());
}
