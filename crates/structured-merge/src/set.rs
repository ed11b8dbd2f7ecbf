//! Sets of paths: `fieldsV1`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::path::{Element, ElementError};
use crate::schema::Type;

/// Levels of a set read from JSON: those of the deepest document that is accepted.
const DEPTH_MAX: usize = 128;

/// A set of paths, as a tree whose every leaf is a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    nodes: BTreeMap<Element, Node>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    /// The path to this node is in the set.
    member: bool,
    below: Set,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

/// Why `fieldsV1` can't be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// A field name that is not a path element.
    #[error("{0}")]
    Element(#[from] ElementError),
    /// Something other than an object.
    #[error("a set of fields must be made of objects")]
    Shape,
    /// Nested too deeply.
    #[error("a set of fields may have {DEPTH_MAX} levels")]
    Depth,
}

impl Set {
    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many members it has.
    pub fn len(&self) -> usize {
        self.nodes.values().map(|node| usize::from(node.member) + node.below.len()).sum()
    }

    /// Adds a path, but not its ancestors. The empty path is ignored: nobody owns a whole object.
    pub fn insert(&mut self, path: &[Element]) {
        match path {
            [] => {}
            [last] => self.nodes.entry(last.clone()).or_default().member = true,
            [first, rest @ ..] => self.nodes.entry(first.clone()).or_default().below.insert(rest),
        }
    }

    /// Adds `element` (if it is a `member`) and the paths `below` it.
    pub(crate) fn insert_subtree(&mut self, element: Element, member: bool, below: Set) {
        debug_assert!(below.nodes.values().all(|node| !node.is_empty()), "each leaf of a set is a member");
        if member || !below.is_empty() {
            let node = self.nodes.entry(element).or_default();
            node.member |= member;
            node.below = if node.below.is_empty() { below } else { node.below.union(&below) };
        }
    }

    /// Whether the path is a member.
    pub fn has(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.is_member(last),
            [first, rest @ ..] => self.below(first).is_some_and(|below| below.has(rest)),
        }
    }

    /// Whether the path of this one element is a member.
    pub fn is_member(&self, element: &Element) -> bool {
        self.nodes.get(element).is_some_and(|node| node.member)
    }

    /// The paths below `element`, relative to it; `None` if there are none.
    pub fn below(&self, element: &Element) -> Option<&Set> {
        self.nodes.get(element).map(|node| &node.below).filter(|below| !below.is_empty())
    }

    /// The first elements of its paths.
    pub fn first_elements(&self) -> impl Iterator<Item = &Element> {
        self.nodes.keys()
    }

    /// Paths in either set.
    pub fn union(&self, other: &Set) -> Set {
        let mut union = self.clone();
        union.add(other);
        union
    }

    pub(crate) fn add(&mut self, other: &Set) {
        for (element, theirs) in &other.nodes {
            let node = self.nodes.entry(element.clone()).or_default();
            node.member |= theirs.member;
            node.below.add(&theirs.below);
        }
    }

    /// Paths in both sets.
    pub fn intersection(&self, other: &Set) -> Set {
        self.combined(|element, node| {
            let theirs = other.nodes.get(element)?;
            Some(Node { member: node.member && theirs.member, below: node.below.intersection(&theirs.below) })
        })
    }

    /// Paths in this set and not in the other. A path in the other set does not remove the paths below it.
    pub fn difference(&self, other: &Set) -> Set {
        self.combined(|element, node| match other.nodes.get(element) {
            None => Some(node.clone()),
            Some(theirs) => Some(Node {
                member: node.member && !theirs.member,
                below: node.below.difference(&theirs.below),
            }),
        })
    }

    /// As [`Set::difference`], but a path in the other set also removes all paths below it.
    pub fn recursive_difference(&self, other: &Set) -> Set {
        self.combined(|element, node| match other.nodes.get(element) {
            None => Some(node.clone()),
            Some(theirs) if theirs.member => None,
            Some(theirs) => {
                Some(Node { member: node.member, below: node.below.recursive_difference(&theirs.below) })
            }
        })
    }

    fn combined(&self, change: impl Fn(&Element, &Node) -> Option<Node>) -> Set {
        let nodes = self.nodes.iter().filter_map(|(element, node)| {
            let node = change(element, node).filter(|node| !node.is_empty())?;
            Some((element.clone(), node))
        });
        Set { nodes: nodes.collect() }
    }

    /// The set, with every field that the schema declares on the way to a member as a member itself
    /// (structured-merge-diff's `EnsureNamedFieldsAreMembers`).
    pub(crate) fn with_declared_members(&self, ty: Option<&Type>) -> Set {
        let map = ty.and_then(Type::map);
        let nodes = self.nodes.iter().map(|(element, node)| {
            let (declared, ty) = match element {
                Element::Field(name) => {
                    let declared = map.is_some_and(|map| map.fields.contains_key(name));
                    (declared, map.and_then(|map| map.field(name)))
                }
                Element::Key(_) => (false, ty.and_then(Type::list).map(|list| list.items.resolve())),
                Element::Value(_) | Element::Index(_) => (false, None),
            };
            let member = node.member || (declared && !node.below.is_empty());
            (element.clone(), Node { member, below: node.below.with_declared_members(ty) })
        });
        Set { nodes: nodes.collect() }
    }

    /// Calls `visit` with each member, parents before their descendants.
    pub fn visit(&self, visit: &mut impl FnMut(&[Element])) {
        self.visit_from(&mut Vec::new(), visit);
    }

    fn visit_from(&self, path: &mut Vec<Element>, visit: &mut impl FnMut(&[Element])) {
        for (element, _) in self.nodes.iter().filter(|(_, node)| node.member) {
            path.push(element.clone());
            visit(path);
            path.pop();
        }
        for (element, node) in self.nodes.iter().filter(|(_, node)| !node.below.is_empty()) {
            path.push(element.clone());
            node.below.visit_from(path, visit);
            path.pop();
        }
    }

    /// Encodes the set as `fieldsV1`.
    pub fn to_json(&self) -> Value {
        Value::Object(self.nodes.iter().map(|(element, node)| (element.text(), node.to_json())).collect())
    }

    /// Decodes `fieldsV1`. Elements of unknown kinds are skipped.
    pub fn from_json(value: &Value) -> Result<Set, SetError> {
        Ok(Node::from_json(value, 0)?.below)
    }
}

impl Node {
    fn to_json(&self) -> Value {
        let mut below = self.below.to_json();
        if self.member && !self.below.is_empty() {
            below["."] = json!({});
        }
        below
    }

    fn from_json(value: &Value, depth: usize) -> Result<Node, SetError> {
        if depth > DEPTH_MAX {
            return Err(SetError::Depth);
        }
        let none = Map::new();
        let fields = match value {
            Value::Object(fields) => fields,
            Value::Null => &none,
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(SetError::Shape);
            }
        };
        let mut node = Node::default();
        for (text, value) in fields {
            if text == "." {
                node.member = true;
                continue;
            }
            match Element::parse(text) {
                Ok(element) => {
                    let Node { member, below } = Node::from_json(value, depth + 1)?;
                    node.below.insert_subtree(element, member, below);
                }
                Err(ElementError::Unknown) => {}
                Err(error) => return Err(error.into()),
            }
        }
        node.member |= node.below.is_empty();
        Ok(node)
    }
}
