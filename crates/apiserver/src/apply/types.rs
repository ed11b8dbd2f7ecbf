//! What a schema says about ownership: which parts of an object are one piece and which have parts of their own.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Value, json};

/// The shapes a value may have. What has no type may have any.
#[derive(Debug, Default)]
pub struct Type {
    pub(super) map: Option<Box<MapType>>,
    pub(super) scalar: Option<Scalar>,
    pub(super) list: Option<Box<ListType>>,
}

/// A single value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Numeric,
    String,
    Boolean,
    Untyped,
}

#[derive(Debug)]
pub(super) struct MapType {
    /// One piece.
    pub(super) atomic: bool,
    pub(super) fields: BTreeMap<String, Below>,
    /// What the keys of lists are where they aren't given.
    pub(super) defaults: BTreeMap<String, Value>,
    /// Of fields that aren't declared; none: there are no others.
    pub(super) others: Option<Below>,
    /// Fields that are always there, with these values if nothing else is said: Go's structs.
    pub(super) always: BTreeMap<String, Value>,
    /// Fields that nobody owns.
    pub(super) hidden: &'static [&'static str],
}

#[derive(Debug)]
pub(super) struct ListType {
    pub(super) items: Below,
    pub(super) identity: Identity,
}

/// How the items of a list are told apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// Not at all: the list is one piece.
    Atomic,
    /// By their values.
    Set,
    /// By these fields.
    Keys(Vec<String>),
}

/// A type within another.
#[derive(Debug)]
pub(super) enum Below {
    Type(Type),
    /// Objects have parts, everything else is one piece.
    Deduced,
    /// One piece.
    Untyped,
    /// `metadata` of objects.
    Metadata,
}

/// Which of its shapes a type takes for a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape<'a> {
    Map(&'a MapType),
    Scalar(Scalar),
    List(&'a ListType),
    /// There are several, and the value doesn't tell.
    Any(&'a MapType),
}

impl Below {
    pub(super) fn resolve(&self) -> &Type {
        match self {
            Below::Type(ty) => ty,
            Below::Deduced => &DEDUCED,
            Below::Untyped => &UNTYPED,
            Below::Metadata => &METADATA,
        }
    }
}

static UNTYPED: LazyLock<Type> = LazyLock::new(|| free(Below::Untyped, true));
static DEDUCED: LazyLock<Type> = LazyLock::new(|| free(Below::Deduced, false));

static METADATA: LazyLock<Type> = LazyLock::new(|| {
    let text = || json!({"type": "string"});
    let texts = || json!({"type": "object", "additionalProperties": {"type": "string"}});
    let time = || json!({"type": "string", "format": "date-time"});
    let mut ty = Type::of(
        &json!({"type": "object", "properties": {
            "annotations": texts(), "labels": texts(),
            "creationTimestamp": time(), "deletionTimestamp": time(),
            "deletionGracePeriodSeconds": {"type": "integer"}, "generation": {"type": "integer"},
            "finalizers": {"type": "array", "items": text(), "x-kubernetes-list-type": "set"},
            "generateName": text(), "name": text(), "namespace": text(), "resourceVersion": text(),
            "selfLink": text(), "uid": text(),
            "managedFields": {"type": "array", "items": {"type": "object"}},
            "ownerReferences": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"],
                "items": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {
                    "apiVersion": text(), "kind": text(), "name": text(), "uid": {"type": "string", "default": ""},
                    "controller": {"type": "boolean"}, "blockOwnerDeletion": {"type": "boolean"},
                }},
            },
        }}),
        false,
    );
    if let Some(map) = &mut ty.map {
        map.hidden = &["managedFields"];
    }
    ty
});

/// Anything; lists are one piece.
fn free(below: Below, atomic: bool) -> Type {
    Type {
        scalar: Some(Scalar::Untyped),
        list: Some(Box::new(ListType { items: Below::Untyped, identity: Identity::Atomic })),
        map: Some(Box::new(MapType { atomic, others: Some(below), ..MapType::empty() })),
    }
}

impl Type {
    /// The type of whole objects, from the `openAPIV3Schema` of their definition. `always` are the values
    /// of those of their fields that can't be absent.
    pub fn of_objects(schema: &Value, always: impl IntoIterator<Item = (String, Value)>) -> Type {
        let mut ty = Type::of(schema, false);
        let map = ty.map.get_or_insert_with(|| Box::new(MapType::empty()));
        map.add_object_fields();
        map.always = always.into_iter().collect();
        Type { map: ty.map, ..Type::default() }
    }

    fn of(schema: &Value, kept: bool) -> Type {
        let flag = |name: &str| schema[name].as_bool() == Some(true);
        // Where unknown fields are kept, they are kept below as well.
        let kept = kept || flag("x-kubernetes-preserve-unknown-fields");
        let scalar = match (schema["type"].as_str(), schema["format"].as_str()) {
            (Some("object"), _) => {
                return Type { map: Some(Box::new(MapType::of(schema, kept))), ..Type::default() };
            }
            (Some("array"), _) => {
                return Type { list: Some(Box::new(ListType::of(schema, kept))), ..Type::default() };
            }
            (Some("integer" | "number"), _) => Scalar::Numeric,
            (Some("boolean"), _) => Scalar::Boolean,
            (Some("string"), None | Some("byte")) => Scalar::String,
            (Some(_), _) => Scalar::Untyped,
            (None, _) => {
                return Type {
                    scalar: Some(Scalar::Untyped),
                    list: Some(Box::new(ListType::of(schema, kept))),
                    map: Some(Box::new(MapType::of(schema, kept))),
                };
            }
        };
        Type { scalar: Some(scalar), ..Type::default() }
    }

    /// The shape for a value; what is absent, null or of none of the shapes decides nothing.
    pub(super) fn shape(&self, value: Option<&Value>) -> Shape<'_> {
        match (self, value) {
            (Type { map: Some(map), .. }, Some(Value::Object(_))) => Shape::Map(map),
            (Type { list: Some(list), .. }, Some(Value::Array(_))) => Shape::List(list),
            (
                Type { scalar: Some(scalar), .. },
                Some(Value::Bool(_) | Value::Number(_) | Value::String(_)),
            ) => Shape::Scalar(*scalar),
            (Type { map: Some(map), scalar: None, list: None }, _) => Shape::Map(map),
            (Type { map: Some(map), .. }, _) => Shape::Any(map),
            (Type { scalar: Some(scalar), .. }, _) => Shape::Scalar(*scalar),
            (Type { list: Some(list), .. }, _) => Shape::List(list),
            (Type { list: None, .. }, _) => Shape::Scalar(Scalar::Untyped),
        }
    }
}

impl<'a> Shape<'a> {
    /// Of one type: whether it is the same one.
    pub(super) fn is(self, other: Shape<'_>) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }

    /// What to treat the value as.
    pub(super) fn settled(self) -> Shape<'a> {
        match self {
            Shape::Any(map) => Shape::Map(map),
            Shape::Map(_) | Shape::Scalar(_) | Shape::List(_) => self,
        }
    }
}

impl MapType {
    fn empty() -> MapType {
        MapType {
            atomic: false,
            fields: BTreeMap::new(),
            defaults: BTreeMap::new(),
            others: None,
            always: BTreeMap::new(),
            hidden: &[],
        }
    }

    fn of(schema: &Value, kept: bool) -> MapType {
        let mut map = MapType::empty();
        map.atomic = schema["x-kubernetes-map-type"].as_str() == Some("atomic");
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            map.fields.insert(name.clone(), Below::Type(Type::of(schema, kept)));
            if let Some(default) = schema.get("default") {
                map.defaults.insert(name.clone(), default.clone());
            }
        }
        if schema["x-kubernetes-embedded-resource"].as_bool() == Some(true) {
            map.add_object_fields();
        }
        map.others = match schema.get("additionalProperties") {
            None if kept || map.fields.is_empty() => Some(Below::Deduced),
            None | Some(Value::Bool(false)) => None,
            Some(Value::Bool(true)) => Some(Below::Deduced),
            Some(schema) => Some(Below::Type(Type::of(schema, kept))),
        };
        map
    }

    fn add_object_fields(&mut self) {
        for name in ["apiVersion", "kind"] {
            let text = Type { scalar: Some(Scalar::String), ..Type::default() };
            self.fields.insert(name.into(), Below::Type(text));
        }
        self.fields.insert("metadata".into(), Below::Metadata);
    }

    pub(super) fn field(&self, name: &str) -> Option<&Type> {
        self.fields.get(name).or(self.others.as_ref()).map(Below::resolve)
    }
}

impl ListType {
    fn of(schema: &Value, kept: bool) -> ListType {
        let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
        ListType {
            items: schema.get("items").map_or(Below::Untyped, |items| Below::Type(Type::of(items, kept))),
            identity: match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => Identity::Set,
                Some("map") => Identity::Keys(keys.filter_map(Value::as_str).map(str::to_owned).collect()),
                Some(_) | None => Identity::Atomic,
            },
        }
    }
}
