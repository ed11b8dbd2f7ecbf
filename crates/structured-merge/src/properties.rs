//! Laws that hold for any sets, objects and configurations.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::compare::compare;
use crate::field_set::field_set;
use crate::merge::merge;
use crate::tests::{World, version};
use crate::{Element, ManagedFields, Set};

fn element() -> impl Strategy<Value = Element> {
    prop_oneof![
        "[a-c.]{1,2}".prop_map(Element::Field),
        "[a-b]{1}".prop_map(|name| Element::Key(vec![("name".into(), name.into())])),
        (0..3i64).prop_map(|value| Element::Value(value.into())),
        "[<x\"]{0,2}".prop_map(|value| Element::Value(value.into())),
        (0..2i64).prop_map(Element::Index),
    ]
}

fn set() -> impl Strategy<Value = Set> {
    prop::collection::vec(prop::collection::vec(element(), 1..4), 0..12).prop_map(|paths| {
        let mut set = Set::default();
        paths.iter().for_each(|path| set.insert(path));
        set
    })
}

/// A specification that fits the schema of the tests.
pub(crate) fn spec() -> impl Strategy<Value = Value> {
    let letter = || prop::sample::select(vec!["a", "b", "c", "d"]);
    let letters = move || prop::collection::btree_set(letter(), 0..4).prop_map(|set| json!(set));
    let texts = move || prop::collection::btree_map(letter(), letter(), 0..4).prop_map(|map| json!(map));
    let numbers = prop::collection::btree_set(0..3i64, 0..3).prop_map(|set| json!(set));
    let item = (letter(), letter(), prop::option::of(0..3i64), prop::option::of(numbers)).prop_map(
        |(name, zone, value, set)| {
            let mut item = json!({"name": name, "zone": zone});
            if let Some(value) = value {
                item["value"] = json!(value);
            }
            if let Some(set) = set {
                item["set"] = set;
            }
            item
        },
    );
    let items = prop::collection::vec(item, 0..4).prop_shuffle().prop_map(|items| {
        let mut seen = std::collections::BTreeSet::new();
        let known = |item: &Value| (item["name"].to_string(), item["zone"].to_string());
        Value::Array(items.into_iter().filter(|item| seen.insert(known(item))).collect())
    });
    let free = prop_oneof![
        texts(),
        letters(),
        (letter(), texts()).prop_map(|(name, below)| json!({name: below})),
        (0..2i64).prop_map(Value::from),
    ];
    let free = (letter(), free).prop_map(|(name, value)| json!({name: value}));
    let deep = texts().prop_map(|mut map| {
        map.as_object_mut().unwrap().retain(|name, _| name == "a" || name == "b");
        json!({"deep": map})
    });
    let whole = texts().prop_map(|mut map| {
        map.as_object_mut().unwrap().retain(|name, _| name == "a" || name == "b");
        map
    });
    let fields: Vec<(&str, BoxedStrategy<Value>)> = vec![
        ("size", (0..3i64).prop_map(Value::from).boxed()),
        ("name", letter().prop_map(Value::from).boxed()),
        ("port", prop_oneof![(0..2i64).prop_map(Value::from), letter().prop_map(Value::from)].boxed()),
        ("atomic", prop::collection::vec(letter(), 0..3).prop_map(|list| json!(list)).boxed()),
        ("set", letters().prop_shuffle_list().boxed()),
        ("map", texts().boxed()),
        ("whole", whole.boxed()),
        ("items", items.boxed()),
        ("nested", deep.boxed()),
        ("free", free.boxed()),
    ];
    let fields =
        fields.into_iter().map(|(name, value)| prop::option::of(value).prop_map(move |value| (name, value)));
    fields.collect::<Vec<_>>().prop_map(|fields| {
        let stated = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(stated.collect::<Map<String, Value>>())
    })
}

/// The value without empty values.
fn filled(value: &Value) -> Value {
    let hollow = |value: &Value| match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    };
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), filled(value)));
            Value::Object(fields.filter(|(_, value)| !hollow(value)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(filled).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

trait Shuffled: Strategy<Value = Value> + Sized {
    /// Lists in any order.
    fn prop_shuffle_list(self) -> impl Strategy<Value = Value> {
        self.prop_map(|list| list.as_array().cloned().unwrap_or_default())
            .prop_shuffle()
            .prop_map(Value::Array)
    }
}

impl<S: Strategy<Value = Value>> Shuffled for S {}

proptest! {
    #[test]
    fn sets_obey_the_laws_of_sets(a in set(), b in set(), c in set()) {
        let empty = Set::default();
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.union(&b).union(&c), a.union(&b.union(&c)));
        prop_assert_eq!(a.union(&a), a.clone());
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert_eq!(a.intersection(&b.union(&c)), a.intersection(&b).union(&a.intersection(&c)));
        prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
        prop_assert_eq!(a.difference(&b).intersection(&b), empty.clone());
        prop_assert_eq!(a.difference(&b.union(&c)), a.difference(&b).difference(&c));
        prop_assert_eq!(a.difference(&empty), a.clone());
        prop_assert_eq!(a.recursive_difference(&b), a.recursive_difference(&b).difference(&b));
        prop_assert_eq!(a.len() + b.len(), a.union(&b).len() + a.intersection(&b).len());
        let mut seen = Set::default();
        a.visit(&mut |path| seen.insert(path));
        prop_assert_eq!(&seen, &a);
        a.visit(&mut |path| assert!(a.has(path)));
    }

    #[test]
    fn encoded_sets_decode_to_themselves(set in set()) {
        prop_assert_eq!(Set::from_json(&set.to_json()).unwrap(), set.clone());
        set.visit(&mut |path| {
            for element in path {
                assert_eq!(Element::parse(&element.text()).as_ref(), Ok(element));
            }
        });
    }

    #[test]
    fn comparisons_find_all_differences_and_no_others(a in spec(), b in spec()) {
        let version = version();
        let (a, b) = (json!({"spec": a}), json!({"spec": b}));
        let there = compare(&version.ty, &a, &b, &[]).unwrap();
        let back = compare(&version.ty, &b, &a, &[]).unwrap();
        prop_assert_eq!(&there.modified, &back.modified);
        prop_assert_eq!((&there.added, &there.removed), (&back.removed, &back.added));
        prop_assert!(there.added.intersection(&there.removed).is_empty());
        prop_assert_eq!(compare(&version.ty, &a, &a, &[]).unwrap(), Default::default());
        prop_assert_eq!(compare(&version.ty, &a, &b, &["spec"]).unwrap(), Default::default());
    }

    #[test]
    fn a_merge_keeps_live_fields_and_sets_applied_ones(a in spec(), b in spec()) {
        let version = version();
        let (a, b) = (json!({"spec": a}), json!({"spec": b}));
        let merged = merge(&version.ty, &a, &b).unwrap();
        prop_assert_eq!(merge(&version.ty, &merged, &b).unwrap(), merged.clone());
        prop_assert_eq!(merge(&version.ty, &a, &a).unwrap(), a.clone());
        let stated = field_set(&version.ty, &b);
        let changed = compare(&version.ty, &merged, &b, &[]).unwrap();
        prop_assert!(stated.intersection(&changed.modified).is_empty(), "{} {}", merged, b);
        let lost = compare(&version.ty, &a, &merged, &[]).unwrap().removed;
        // Only where a value without a schema changes its shape.
        let mut free = Set::default();
        free.insert(&[Element::Field("spec".into()), Element::Field("free".into())]);
        prop_assert!(lost.recursive_difference(&free).is_empty(), "{:?}", lost);
    }

    #[test]
    fn an_apply_repeated_changes_nothing(before in spec(), stated in spec()) {
        let mut world = World::new();
        world.update("u", before);
        world.apply("a", stated.clone(), true).unwrap();
        let (object, managers) = (world.object.clone(), world.managers.clone());
        prop_assert!(!world.apply("a", stated, false).unwrap());
        prop_assert_eq!((&world.object, &world.managers), (&object, &managers));
        let text = managers.clone().into_json();
        prop_assert_eq!(ManagedFields::from_json(text.clone(), false).unwrap().into_json(), text);
    }

    #[test]
    fn an_apply_taken_back_leaves_the_object_as_it_was(before in spec(), stated in spec()) {
        let before_has_fields = before.as_object().is_some_and(|fields| !fields.is_empty());
        let mut world = World::new();
        world.apply("b", before, false).unwrap();
        let (object, managers) = (world.object.clone(), world.managers.clone());
        if world.apply("a", stated, false).is_ok() {
            world.apply("a", json!({}), false).unwrap();
            // Empty values become null.
            let left = compare(&version().ty, &filled(&object), &filled(&world.object), &[]).unwrap();
            prop_assert_eq!(left, Default::default());
            let of_b = |managers: &ManagedFields| {
                managers.iter().find(|(id, _)| id.manager() == "b").map(|(_, owned)| owned.set().unwrap())
            };
            // Unspecified for a manager of an empty spec, which becomes null.
            if before_has_fields {
                prop_assert_eq!(of_b(&world.managers), of_b(&managers));
            }
        }
    }
}
