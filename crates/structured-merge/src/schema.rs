//! Types: which parts of an object are owned as a whole, and which field by field or item by item.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Value, json};

/// The structure of a value, compiled from a schema: the shapes that it may have. Without a `type` in the schema, all.
#[derive(Debug, Default)]
pub struct Type {
    map: Option<Box<MapType>>,
    scalar: Option<Scalar>,
    list: Option<Box<ListType>>,
}

/// A single value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    Numeric,
    String,
    Boolean,
    Untyped,
}

#[derive(Debug)]
pub(crate) struct MapType {
    /// Owned as a whole.
    pub(crate) atomic: bool,
    pub(crate) fields: BTreeMap<String, TypeRef>,
    /// Default values of fields, which complete the keys of list items.
    pub(crate) defaults: BTreeMap<String, Value>,
    /// Type of undeclared fields; `None`: there are none.
    pub(crate) others: Option<TypeRef>,
    /// Fields that compare as if they had these values where they are absent: those that Go always serializes.
    pub(crate) implied: BTreeMap<String, Value>,
    /// Fields that are excluded from ownership.
    pub(crate) unowned: &'static [&'static str],
}

#[derive(Debug)]
pub(crate) struct ListType {
    pub(crate) items: TypeRef,
    pub(crate) identity: Identity,
}

/// What identifies the items of a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Nothing: the list is owned as a whole.
    Atomic,
    /// Their values.
    Set,
    /// These fields.
    Keys(Vec<String>),
}

/// A type within another.
#[derive(Debug)]
pub(crate) enum TypeRef {
    Type(Type),
    /// Unknown: objects are owned field by field, everything else as a whole.
    Deduced,
    /// Unknown, owned as a whole.
    Untyped,
    /// `ObjectMeta`.
    Metadata,
}

/// Which of its shapes a type takes for a value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape<'a> {
    Map(&'a MapType),
    Scalar(Scalar),
    List(&'a ListType),
    /// Several shapes are possible and the value has none of them.
    Any(&'a MapType),
}

impl TypeRef {
    pub(crate) fn resolve(&self) -> &Type {
        match self {
            TypeRef::Type(ty) => ty,
            TypeRef::Deduced => &DEDUCED,
            TypeRef::Untyped => &UNTYPED,
            TypeRef::Metadata => &METADATA,
        }
    }
}

static UNTYPED: LazyLock<Type> = LazyLock::new(|| any(TypeRef::Untyped, true));
static DEDUCED: LazyLock<Type> = LazyLock::new(|| any(TypeRef::Deduced, false));

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
        map.unowned = &["managedFields"];
    }
    ty
});

/// Any value; lists are owned as a whole.
fn any(fields: TypeRef, atomic: bool) -> Type {
    Type {
        scalar: Some(Scalar::Untyped),
        list: Some(Box::new(ListType { items: TypeRef::Untyped, identity: Identity::Atomic })),
        map: Some(Box::new(MapType { atomic, others: Some(fields), ..MapType::empty() })),
    }
}

impl Type {
    /// The type of whole objects, from the `openAPIV3Schema` of their definition. `implied` are top-level fields that
    /// compare as if they had these values where they are absent: fields that Go serializes even if they are empty.
    pub fn of_objects(schema: &Value, implied: impl IntoIterator<Item = (String, Value)>) -> Type {
        let mut ty = Type::of(schema, false);
        let map = ty.map.get_or_insert_with(|| Box::new(MapType::empty()));
        map.add_object_fields();
        map.implied = implied.into_iter().collect();
        Type { map: ty.map, ..Type::default() }
    }

    fn of(schema: &Value, kept: bool) -> Type {
        let flag = |name: &str| schema[name].as_bool() == Some(true);
        // Inherited by everything below.
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

    pub(crate) fn map(&self) -> Option<&MapType> {
        self.map.as_deref()
    }

    pub(crate) fn list(&self) -> Option<&ListType> {
        self.list.as_deref()
    }

    /// The shape to treat a value as; [`Shape::Any`] if the value is absent, null or of none of the possible shapes and a
    /// map is possible.
    pub(crate) fn shape(&self, value: Option<&Value>) -> Shape<'_> {
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
    /// Whether two shapes of one type are the same.
    pub(crate) fn is(self, other: Shape<'_>) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }

    /// [`Shape::Any`] as a map.
    pub(crate) fn settled(self) -> Shape<'a> {
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
            implied: BTreeMap::new(),
            unowned: &[],
        }
    }

    fn of(schema: &Value, kept: bool) -> MapType {
        let mut map = MapType::empty();
        map.atomic = schema["x-kubernetes-map-type"].as_str() == Some("atomic");
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            map.fields.insert(name.clone(), TypeRef::Type(Type::of(schema, kept)));
            if let Some(default) = schema.get("default") {
                map.defaults.insert(name.clone(), default.clone());
            }
        }
        if schema["x-kubernetes-embedded-resource"].as_bool() == Some(true) {
            map.add_object_fields();
        }
        map.others = match schema.get("additionalProperties") {
            None if kept || map.fields.is_empty() => Some(TypeRef::Deduced),
            None | Some(Value::Bool(false)) => None,
            Some(Value::Bool(true)) => Some(TypeRef::Deduced),
            Some(schema) => Some(TypeRef::Type(Type::of(schema, kept))),
        };
        map
    }

    fn add_object_fields(&mut self) {
        for name in ["apiVersion", "kind"] {
            let text = Type { scalar: Some(Scalar::String), ..Type::default() };
            self.fields.insert(name.into(), TypeRef::Type(text));
        }
        self.fields.insert("metadata".into(), TypeRef::Metadata);
    }

    pub(crate) fn field(&self, name: &str) -> Option<&Type> {
        self.fields.get(name).or(self.others.as_ref()).map(TypeRef::resolve)
    }
}

impl ListType {
    fn of(schema: &Value, kept: bool) -> ListType {
        let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
        ListType {
            items: schema.get("items").map_or(TypeRef::Untyped, |items| TypeRef::Type(Type::of(items, kept))),
            identity: match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => Identity::Set,
                Some("map") => Identity::Keys(keys.filter_map(Value::as_str).map(str::to_owned).collect()),
                Some(_) | None => Identity::Atomic,
            },
        }
    }
}
