//! One rule of ownership at a time. The cases are those of structured-merge-diff's documentation and of KEP-555.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    ApplyError, Convert, Element, ManagedFields, ManagerId, Operation, Outcome, Set, SetError, Type, Updater,
    ValidationError, Version, VersionedSet, display, empty_like,
};

pub(crate) const NOW: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-01-01T00:00:09Z";
pub(crate) const VERSION: &str = "example.com/v1";

/// A kind with every kind of list and map.
pub(crate) fn schema() -> Value {
    let text = || json!({"type": "string"});
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "size": {"type": "integer"}, "name": text(), "flag": {"type": "boolean"},
            "port": {"x-kubernetes-int-or-string": true},
            "atomic": {"type": "array", "items": text()},
            "set": {"type": "array", "items": text(), "x-kubernetes-list-type": "set"},
            "map": {"type": "object", "additionalProperties": text()},
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": text(), "b": text()}},
            "items": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "zone"],
                "items": {"type": "object", "properties": {
                    "name": text(), "zone": {"type": "string", "default": "here"},
                    "value": {"type": "integer"}, "set": {
                        "type": "array", "items": {"type": "integer"}, "x-kubernetes-list-type": "set",
                    },
                }},
            },
            "nested": {"type": "object", "properties": {"deep": {"type": "object", "properties": {
                "a": text(), "b": text(),
            }}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }},
        "status": {"type": "object", "properties": {"seen": {"type": "integer"}}},
    }})
}

pub(crate) fn version() -> Version<()> {
    let ty = Arc::new(Type::of_objects(&schema(), []));
    Version { name: VERSION.into(), ty, conversion: () }
}

/// An object and its managers over several writes.
pub(crate) struct World {
    pub(crate) version: Version<()>,
    pub(crate) object: Value,
    pub(crate) managers: ManagedFields,
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": VERSION, "kind": "Thing", "metadata": {"name": "a"}, "spec": spec})
}

impl World {
    pub(crate) fn new() -> World {
        let object = json!({"apiVersion": VERSION, "kind": "Thing"});
        World { version: version(), object, managers: ManagedFields::default() }
    }

    fn updater(&self) -> Updater<'_, ()> {
        Updater { version: &self.version, others: &[], ignored: &["status"] }
    }

    pub(crate) fn apply(&mut self, manager: &str, spec: Value, force: bool) -> Result<bool, ApplyError> {
        self.apply_at(manager, spec, force, NOW)
    }

    fn apply_at(&mut self, manager: &str, spec: Value, force: bool, now: &str) -> Result<bool, ApplyError> {
        let id = ManagerId::new(manager, Operation::Apply, VERSION, "");
        let applied = object(spec);
        let Outcome { object, managers } =
            self.updater().apply(&self.object, &applied, self.managers.clone(), &id, force, now)?;
        self.managers = managers;
        let changed = object.is_some();
        self.object = object.unwrap_or_else(|| self.object.clone());
        Ok(changed)
    }

    pub(crate) fn update(&mut self, manager: &str, spec: Value) {
        let id = ManagerId::new(manager, Operation::Update, VERSION, "");
        let new = object(spec);
        let managers = self.updater().update(&self.object, &new, self.managers.clone(), &id, NOW).unwrap();
        (self.object, self.managers) = (new, managers);
    }

    /// The paths that a manager owns, joined.
    fn owned(&self, manager: &str) -> String {
        let owned = self.managers.iter().filter(|(id, _)| id.manager() == manager);
        let mut paths = Vec::new();
        for (_, owned) in owned {
            owned.set().unwrap().visit(&mut |path| paths.push(display(path)));
        }
        paths.join(" ")
    }

    fn conflicts(&mut self, manager: &str, spec: Value) -> Vec<String> {
        match self.apply(manager, spec, false) {
            Err(ApplyError::Conflicts(conflicts)) => {
                let conflicts = conflicts.iter();
                conflicts
                    .map(|conflict| format!("{} {}", conflict.manager, display(&conflict.path)))
                    .collect()
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn applied_fields_are_owned_and_dropped_fields_are_removed() {
    let mut world = World::new();
    assert!(world.apply("a", json!({"size": 1, "map": {"x": "1", "y": "2"}}), false).unwrap());
    assert_eq!(world.owned("a"), ".spec.size .spec.map.x .spec.map.y");
    assert!(world.apply("a", json!({"map": {"y": "3"}}), false).unwrap());
    assert_eq!(world.object["spec"], json!({"map": {"y": "3"}}));
    assert_eq!(world.owned("a"), ".spec.map.y");
    assert!(world.apply("a", json!({}), false).unwrap());
    assert_eq!(
        world.object["spec"],
        json!(null),
        "as in Kubernetes; validation refuses it where null is no value"
    );
    assert_eq!(world.owned("a"), ".spec");
}

#[test]
fn equal_values_are_shared_and_different_ones_conflict() {
    let mut world = World::new();
    world.apply("a", json!({"size": 1, "name": "n"}), false).unwrap();
    assert!(!world.apply("b", json!({"size": 1}), false).unwrap(), "nothing changes but the owners");
    assert_eq!(world.conflicts("b", json!({"size": 2})), ["\"a\" .spec.size"]);
    // A field that one of two owners drops stays.
    world.apply("a", json!({"name": "n"}), false).unwrap();
    assert_eq!(world.object["spec"], json!({"size": 1, "name": "n"}));
    world.apply("b", json!({}), false).unwrap();
    assert_eq!(world.object["spec"], json!({"name": "n"}));
    assert!(world.apply("b", json!({"name": "m"}), true).unwrap());
    assert_eq!((world.owned("a"), world.owned("b")), ("".into(), ".spec.name".into()));
}

#[test]
fn an_update_takes_the_fields_it_changes() {
    let mut world = World::new();
    world.apply("a", json!({"size": 1, "name": "n"}), false).unwrap();
    world.update("u", json!({"size": 2, "name": "n", "flag": true}));
    assert_eq!((world.owned("a"), world.owned("u")), (".spec.name".into(), ".spec.flag .spec.size".into()));
    assert_eq!(
        world.conflicts("a", json!({"size": 1, "name": "n"})),
        ["\"u\" using example.com/v1 .spec.size"]
    );
    world.apply("a", json!({"size": 1, "name": "n"}), true).unwrap();
    assert_eq!(world.owned("u"), ".spec.flag");
    // Removed for all owners.
    world.update("u", json!({"size": 1}));
    assert_eq!((world.owned("a"), world.owned("u")), (".spec.size".into(), "".into()));
    // An apply doesn't remove fields that it never stated.
    world.update("u", json!({"size": 1, "map": {"x": "1"}}));
    world.apply("a", json!({"map": {"y": "1"}}), false).unwrap();
    assert_eq!(world.object["spec"], json!({"map": {"x": "1", "y": "1"}}));
}

#[test]
fn items_of_lists_have_owners() {
    let mut world = World::new();
    let item = |name: &str, value: i64| json!({"name": name, "zone": "z", "value": value});
    world.apply("a", json!({"items": [item("x", 1), item("y", 2)], "set": ["p", "q"]}), false).unwrap();
    world
        .apply("b", json!({"items": [{"name": "z"}, {"name": "y", "zone": "z"}], "set": ["r", "q"]}), false)
        .unwrap();
    let names: Vec<&str> = world.object["spec"]["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["x", "z", "y"]);
    assert_eq!(world.object["spec"]["set"], json!(["p", "r", "q"]));
    assert!(world.owned("b").contains(r#".spec.items[name="z",zone="here"] "#), "{}", world.owned("b"));
    assert!(world.owned("b").contains(r#".spec.set[="r"]"#), "{}", world.owned("b"));
    assert_eq!(
        world.conflicts("b", json!({"items": [item("x", 5)]})),
        [r#""a" .spec.items[name="x",zone="z"].value"#]
    );
    world.apply("a", json!({"set": ["p"]}), false).unwrap();
    assert_eq!(world.object["spec"]["set"], json!(["p", "r", "q"]));
    assert_eq!(
        world.object["spec"]["items"],
        json!([{"name": "z"}, {"name": "y", "zone": "z"}]),
        "what b shares stays, without the value"
    );
}

#[test]
fn atomic_values_have_one_owner_or_several_that_agree() {
    let mut world = World::new();
    world.apply("a", json!({"atomic": ["x"], "whole": {"a": "1"}}), false).unwrap();
    assert_eq!(world.owned("a"), ".spec.atomic .spec.whole");
    let conflicts = world.conflicts("b", json!({"atomic": ["x", "y"], "whole": {"b": "1"}}));
    assert_eq!(conflicts, ["\"a\" .spec.atomic", "\"a\" .spec.whole"]);
    world.apply("b", json!({"whole": {"b": "1"}}), true).unwrap();
    assert_eq!(world.object["spec"]["whole"], json!({"b": "1"}));
}

#[test]
fn objects_without_a_schema_are_owned_field_by_field() {
    let mut world = World::new();
    world.apply("a", json!({"free": {"x": {"y": 1}, "l": [1]}, "port": "http"}), false).unwrap();
    assert_eq!(world.owned("a"), ".spec.port .spec.free.l .spec.free.x .spec.free.x.y");
    world.apply("b", json!({"free": {"x": {"z": 1}}}), false).unwrap();
    assert_eq!(world.object["spec"]["free"], json!({"x": {"y": 1, "z": 1}, "l": [1]}));
    world.apply("a", json!({"free": {"x": {}}}), false).unwrap();
    assert_eq!(world.object["spec"]["free"], json!({"x": {"z": 1}}));
    assert!(world.apply("c", json!({"port": 80}), false).is_ok());
}

#[test]
fn an_apply_that_changes_nothing_keeps_the_time() {
    let mut world = World::new();
    let id = ManagerId::new("a", Operation::Apply, VERSION, "");
    world.apply_at("a", json!({"size": 1}), false, NOW).unwrap();
    let before = world.managers.clone();
    assert!(!world.apply_at("a", json!({"size": 1}), false, LATER).unwrap());
    assert_eq!(world.managers, before);
    assert!(world.apply_at("a", json!({"size": 2}), false, LATER).unwrap());
    assert_eq!(world.managers.get(&id).unwrap().time(), Some(LATER));
}

#[test]
fn a_write_does_not_own_the_fields_it_ignores() {
    let mut world = World::new();
    let id = ManagerId::new("a", Operation::Apply, VERSION, "");
    let mut applied = object(json!({"size": 1}));
    applied["status"] = json!({"seen": 1});
    let outcome =
        world.updater().apply(&world.object, &applied, ManagedFields::default(), &id, false, NOW).unwrap();
    world.managers = outcome.managers;
    assert_eq!(world.owned("a"), ".spec.size");
    let updater = Updater { ignored: &["metadata", "spec"], ..world.updater() };
    let id = ManagerId::new("s", Operation::Update, VERSION, "status");
    world.managers = updater.update(&world.object, &applied, world.managers.clone(), &id, NOW).unwrap();
    assert_eq!(world.owned("s"), ".status .status.seen");
}

#[test]
fn a_write_does_not_own_nested_fields_that_it_ignores() {
    let mut world = World::new();
    let applied = object(json!({"size": 1, "name": "n"}));
    let updater = Updater { ignored: &["spec.name"], ..world.updater() };
    let id = ManagerId::new("a", Operation::Apply, VERSION, "");
    let outcome = updater.apply(&world.object, &applied, ManagedFields::default(), &id, false, NOW).unwrap();
    world.managers = outcome.managers;
    assert_eq!(world.owned("a"), ".spec.size");
    let id = ManagerId::new("u", Operation::Update, VERSION, "");
    let changed = object(json!({"size": 2, "name": "other"}));
    let updater = Updater { ignored: &["spec.name"], ..world.updater() };
    world.managers = updater.update(&world.object, &changed, ManagedFields::default(), &id, NOW).unwrap();
    assert!(!world.owned("u").contains("name"), "{}", world.owned("u"));
    assert!(world.owned("u").contains(".spec.size"));
}

#[test]
fn fields_from_before_the_first_apply_belong_to_a_manager_of_that_name() {
    let mut world = World::new();
    world.object = object(json!({"size": 1, "name": "n"}));
    let conflicts = world.conflicts("a", json!({"size": 2}));
    assert_eq!(conflicts, ["\"before-first-apply\" using example.com/v1 .spec.size"]);
    world.apply("a", json!({"size": 2}), true).unwrap();
    assert_eq!(world.owned("before-first-apply"), ".spec .spec.name");
}

#[test]
fn too_many_updaters_become_one() {
    let mut world = World::new();
    for index in 0..14 {
        let mut fields = world.object["spec"]["map"].as_object().cloned().unwrap_or_default();
        fields.insert(format!("k{index}"), json!("v"));
        world.update(&format!("u{index:02}"), json!({"map": fields}));
    }
    assert_eq!(world.managers.iter().count(), 10);
    assert!(world.owned("ancient-changes").contains(".spec.map.k4"), "{}", world.owned("ancient-changes"));
    assert!(world.owned("u05").contains("k5"));
}

#[test]
fn values_that_do_not_fit_the_schema_are_reported() {
    let mut world = World::new();
    let mut errors = |spec: Value| match world.apply("a", spec, false) {
        Err(ApplyError::Applied(wrong)) => ValidationError::join(&wrong),
        other => panic!("{other:?}"),
    };
    assert_eq!(errors(json!({"size": "x"})), ".spec.size: expected numeric (int or float), got string");
    assert_eq!(errors(json!({"odd": 1})), ".spec.odd: field not declared in schema");
    assert_eq!(
        errors(json!({"name": 5})),
        ".spec.name: expected string, got &value.valueUnstructured{Value:5}"
    );
    assert_eq!(errors(json!({"map": "x"})), ".spec.map: expected map, got &{x}");
    assert_eq!(errors(json!({"set": ["a", "a"]})), ".spec.set: duplicate entries for key [=\"a\"]");
    let two = errors(json!({"flag": 1, "size": true}));
    assert_eq!(
        two,
        "errors:\n  .spec.flag: expected boolean, got &{1}\n  .spec.size: expected numeric (int or float), got bool"
    );
    let keyless = errors(json!({"items": [5]}));
    assert_eq!(keyless, ".spec.items: element 0: associative list with keys may not have non-map elements");
}

#[test]
fn sets_encode_as_in_kubernetes() {
    let text = json!({
        "f:spec": {
            ".": {},
            "f:items": {"k:{\"name\":\"a\",\"zone\":\"<b>\"}": {".": {}, "f:value": {}}},
            "f:set": {"v:\"x\"": {}, "v:5": {}},
            "i:3": {},
        },
        "z:later": {},
    });
    let set = Set::from_json(&text).unwrap();
    let mut expected = text.clone();
    expected.as_object_mut().unwrap().remove("z:later");
    let items = &mut expected["f:spec"]["f:items"];
    *items = json!({"k:{\"name\":\"a\",\"zone\":\"\\u003cb\\u003e\"}": {".": {}, "f:value": {}}});
    assert_eq!(set.to_json(), expected);
    assert_eq!(set.len(), 6);
    assert!(set.has(&[Element::Field("spec".into())]));
    for wrong in
        [json!({"spec": {}}), json!({"f:a": 5}), json!({"v:": {}}), json!({"k:5": {}}), json!({"i:x": {}})]
    {
        assert!(Set::from_json(&wrong).is_err(), "{wrong}");
    }
    let mut deep = json!({});
    for _ in 0..200 {
        deep = json!({"f:a": deep});
    }
    assert_eq!(Set::from_json(&deep), Err(SetError::Depth));
}

#[test]
fn managed_fields_decode_and_encode() {
    let text = json!([
        {"manager": "a", "operation": "Apply", "apiVersion": VERSION, "time": NOW, "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {}}},
        {"manager": "b", "operation": "Update", "apiVersion": VERSION, "time": NOW, "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {}}, "subresource": "status"},
    ]);
    let managers = ManagedFields::from_json(text.clone(), false).unwrap();
    assert_eq!(managers.clone().into_json(), text);
    assert_eq!(managers, ManagedFields::from_json(text.clone(), true).unwrap());
    for (field, value) in [
        ("operation", json!("Delete")),
        ("apiVersion", json!("")),
        ("fieldsType", json!("FieldsV2")),
        ("time", json!("today")),
        ("manager", json!(5)),
        ("fieldsV1", json!({"spec": {}})),
    ] {
        let mut wrong = text.clone();
        wrong[1][field] = value;
        assert!(ManagedFields::from_json(wrong, false).is_err(), "{field}");
    }
}

/// A version in which `message` has another name.
#[derive(Clone, Copy, Debug)]
struct Renamed(&'static str);

impl Renamed {
    fn rename(object: &mut Value, from: &str, to: &str) {
        if let Some(value) = object.as_object_mut().unwrap().remove(from) {
            object[to] = value;
        }
    }
}

impl Convert for Renamed {
    fn convert_to_hub(self, object: &mut Value) {
        Renamed::rename(object, self.0, "message");
    }

    fn convert_from_hub(self, object: &mut Value) {
        Renamed::rename(object, "message", self.0);
    }
}

#[test]
fn managers_of_another_version_are_compared_in_that_version() {
    let event = |name: &str, field: &'static str| {
        let schema = json!({"type": "object", "properties": {field: {"type": "string"}}});
        Version { name: name.into(), ty: Arc::new(Type::of_objects(&schema, [])), conversion: Renamed(field) }
    };
    let (core, events) = (event("v1", "message"), event("events.k8s.io/v1", "note"));
    let mut managers = ManagedFields::default();
    let mut set = Set::default();
    set.insert(&[Element::Field("note".into())]);
    let id = ManagerId::new("a", Operation::Update, "events.k8s.io/v1", "");
    managers.insert(id, VersionedSet::new(set.clone(), "events.k8s.io/v1", None));
    managers.insert(ManagerId::new("gone", Operation::Update, "v9", ""), VersionedSet::new(set, "v9", None));
    let updater = Updater { version: &core, others: std::slice::from_ref(&events), ignored: &[] };
    let live = json!({"apiVersion": "v1", "message": "x"});
    let me = ManagerId::new("b", Operation::Apply, "v1", "");
    let applied = json!({"apiVersion": "v1", "message": "y"});
    let refused = updater.apply(&live, &applied, managers.clone(), &me, false, NOW).unwrap_err();
    assert!(matches!(refused, ApplyError::Conflicts(conflicts) if display(&conflicts[0].path) == ".note"));
    let outcome = updater.apply(&live, &applied, managers, &me, true, NOW).unwrap();
    assert_eq!(outcome.managers.iter().map(|(id, _)| id.manager()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(empty_like(&live), json!({"apiVersion": "v1"}));
}
