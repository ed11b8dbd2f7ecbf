//! Sets of paths: which fields someone owns.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::path::{Element, ElementError};
use super::types::Type;

/// Levels of a set read from JSON: those of the deepest document that is accepted.
const DEPTH_MAX: usize = 128;

/// A set of paths as a tree. Every branch of it holds a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    nodes: BTreeMap<Element, Node>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    /// The path that ends here is in the set.
    member: bool,
    below: Set,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

/// Why `fieldsV1` can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// A name that is no path element.
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

    /// Adds a path; not the paths above it.
    pub fn insert(&mut self, path: &[Element]) {
        match path {
            // Nobody owns a whole object.
            [] => {}
            [last] => self.nodes.entry(last.clone()).or_default().member = true,
            [first, rest @ ..] => self.nodes.entry(first.clone()).or_default().below.insert(rest),
        }
    }

    /// Adds what is at and below one step.
    pub(super) fn put(&mut self, element: Element, member: bool, below: Set) {
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

    /// Whether the path of this one step is a member.
    pub fn is_member(&self, element: &Element) -> bool {
        self.nodes.get(element).is_some_and(|node| node.member)
    }

    /// The paths that begin with this step, without it; none if there are none.
    pub fn below(&self, element: &Element) -> Option<&Set> {
        self.nodes.get(element).map(|node| &node.below).filter(|below| !below.is_empty())
    }

    /// The first steps of its paths.
    pub fn first_steps(&self) -> impl Iterator<Item = &Element> {
        self.nodes.keys()
    }

    /// What is in either.
    pub fn union(&self, other: &Set) -> Set {
        let mut union = self.clone();
        union.add(other);
        union
    }

    pub(super) fn add(&mut self, other: &Set) {
        for (element, theirs) in &other.nodes {
            let node = self.nodes.entry(element.clone()).or_default();
            node.member |= theirs.member;
            node.below.add(&theirs.below);
        }
    }

    /// What is in both.
    pub fn intersection(&self, other: &Set) -> Set {
        self.combined(|element, node| {
            let theirs = other.nodes.get(element)?;
            Some(Node { member: node.member && theirs.member, below: node.below.intersection(&theirs.below) })
        })
    }

    /// What is in this one and not in the other. A path doesn't stand for those below it.
    pub fn difference(&self, other: &Set) -> Set {
        self.combined(|element, node| match other.nodes.get(element) {
            None => Some(node.clone()),
            Some(theirs) => Some(Node {
                member: node.member && !theirs.member,
                below: node.below.difference(&theirs.below),
            }),
        })
    }

    /// As [`Set::difference`], but a path of the other stands for all below it.
    pub fn difference_below(&self, other: &Set) -> Set {
        self.combined(|element, node| match other.nodes.get(element) {
            None => Some(node.clone()),
            Some(theirs) if theirs.member => None,
            Some(theirs) => {
                Some(Node { member: node.member, below: node.below.difference_below(&theirs.below) })
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

    /// The set with the declared fields that lead to its members.
    pub(super) fn with_declared(&self, ty: Option<&Type>) -> Set {
        let map = ty.and_then(|ty| ty.map.as_deref());
        let nodes = self.nodes.iter().map(|(element, node)| {
            let (declared, ty) = match element {
                Element::Field(name) => {
                    let declared = map.is_some_and(|map| map.fields.contains_key(name));
                    (declared, map.and_then(|map| map.field(name)))
                }
                Element::Key(_) => {
                    (false, ty.and_then(|ty| ty.list.as_deref()).map(|list| list.items.resolve()))
                }
                Element::Value(_) | Element::Index(_) => (false, None),
            };
            let member = node.member || (declared && !node.below.is_empty());
            (element.clone(), Node { member, below: node.below.with_declared(ty) })
        });
        Set { nodes: nodes.collect() }
    }

    /// Calls `visit` with each member, parents before what is below them.
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

    /// As `fieldsV1` has it.
    pub fn to_json(&self) -> Value {
        Value::Object(self.nodes.iter().map(|(element, node)| (element.text(), node.to_json())).collect())
    }

    /// From `fieldsV1`.
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
                    node.below.put(element, member, below);
                }
                Err(ElementError::Unknown) => {}
                Err(error) => return Err(error.into()),
            }
        }
        node.member |= node.below.is_empty();
        Ok(node)
    }
}
