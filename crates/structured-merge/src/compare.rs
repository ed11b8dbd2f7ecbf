//! The difference between two states of an object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::error::ValidationError;
use crate::field_set::identity;
use crate::path::{Element, equal_values};
use crate::schema::{Identity, ListType, MapType, Shape, Type};
use crate::set::Set;

/// The difference. No path is in two of the sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) removed: Set,
    pub(crate) modified: Set,
    pub(crate) added: Set,
}

/// Compares two objects; fields in `skip`, dotted paths from the root, are ignored.
pub(crate) fn compare(
    ty: &Type,
    before: &Value,
    after: &Value,
    skip: &[&str],
) -> Result<Comparison, ValidationError> {
    let mut walk = Walk { path: Vec::new(), skip, found: Found::default() };
    walk.values(ty, Some(before), Some(after))?;
    let Found { removed, modified, added } = walk.found;
    // The root is not a field.
    Ok(Comparison { removed: removed.below, modified: modified.below, added: added.below })
}

struct Walk<'a> {
    path: Vec<Element>,
    skip: &'a [&'a str],
    /// Differences at `path` and below it. Sets are built bottom-up, so that each element is cloned once, however many
    /// differences are below it.
    found: Found,
}

#[derive(Default)]
struct Found {
    removed: Subtree,
    modified: Subtree,
    added: Subtree,
}

/// A node of a set: whether it is a member, and its subtree.
#[derive(Default)]
struct Subtree {
    member: bool,
    below: Set,
}

impl Walk<'_> {
    /// Runs `look` one level further down.
    fn descend(
        &mut self,
        element: Element,
        look: impl FnOnce(&mut Self) -> Result<(), ValidationError>,
    ) -> Result<(), ValidationError> {
        let above = std::mem::take(&mut self.found);
        self.path.push(element);
        let looked = look(self);
        let found = std::mem::replace(&mut self.found, above);
        let Some(element) = self.path.pop() else {
            debug_assert!(false, "the path is pushed above");
            return looked;
        };
        let into = &mut self.found;
        for (into, found) in [
            (&mut into.removed, found.removed),
            (&mut into.modified, found.modified),
            (&mut into.added, found.added),
        ] {
            if found.member || !found.below.is_empty() {
                into.below.insert_subtree(element.clone(), found.member, found.below);
            }
        }
        looked
    }

    fn values(
        &mut self,
        ty: &Type,
        before: Option<&Value>,
        after: Option<&Value>,
    ) -> Result<(), ValidationError> {
        if before == after {
            return Ok(());
        }
        let (was, is) = (ty.shape(before), ty.shape(after));
        let leaf = match (before, after) {
            (_, None) => self.shaped(was, before, after)?,
            (None, Some(_)) => self.shaped(is, before, after)?,
            (Some(_), Some(_)) if was.is(is) => self.shaped(is, before, after)?,
            (Some(_), Some(_)) => {
                self.shaped(was, before, after)?;
                self.shaped(is, before, after)?
            }
        };
        if !leaf {
            if before.is_none() {
                self.found.added.member = true;
            } else if after.is_none() {
                self.found.removed.member = true;
            }
        }
        Ok(())
    }

    /// Compares values of one shape. Returns whether the value is a leaf: a scalar, atomic or empty.
    fn shaped(
        &mut self,
        shape: Shape<'_>,
        before: Option<&Value>,
        after: Option<&Value>,
    ) -> Result<bool, ValidationError> {
        match shape {
            Shape::Scalar(_) => {
                self.leaf(before, after);
                Ok(true)
            }
            Shape::Map(map) | Shape::Any(map) => {
                let (was, is) = (before.and_then(Value::as_object), after.and_then(Value::as_object));
                if map.atomic || (was.is_none_or(Map::is_empty) && is.is_none_or(Map::is_empty)) {
                    self.leaf(before, after);
                    return Ok(true);
                }
                self.maps(map, was, is).map(|()| false)
            }
            Shape::List(list) => {
                let items = |value: Option<&'_ Value>| value.and_then(Value::as_array).map_or(0, Vec::len);
                if list.identity == Identity::Atomic || (items(before) == 0 && items(after) == 0) {
                    self.leaf(before, after);
                    return Ok(true);
                }
                self.lists(list, before, after).map(|()| false)
            }
        }
    }

    /// Whether the field at the path is ignored.
    fn is_skipped(&self, name: &str) -> bool {
        let is_field =
            |(element, name): (&Element, &str)| matches!(element, Element::Field(field) if field == name);
        self.skip.iter().any(|skipped| match skipped.rsplit_once('.') {
            None => self.path.is_empty() && *skipped == name,
            Some((above, last)) => {
                last == name
                    && above.split('.').count() == self.path.len()
                    && self.path.iter().zip(above.split('.')).all(is_field)
            }
        })
    }

    fn leaf(&mut self, before: Option<&Value>, after: Option<&Value>) {
        match (before, after) {
            (None, _) => self.found.added.member = true,
            (_, None) => self.found.removed.member = true,
            (Some(before), Some(after)) if !equal_values(before, after) => self.found.modified.member = true,
            (Some(_), Some(_)) => {}
        }
    }

    fn maps(
        &mut self,
        map: &MapType,
        before: Option<&Map<String, Value>>,
        after: Option<&Map<String, Value>>,
    ) -> Result<(), ValidationError> {
        let hidden = |name: &str| map.unowned.contains(&name) || self.is_skipped(name);
        let mut names: Vec<&String> = before.into_iter().flatten().map(|(name, _)| name).collect();
        let new = after.into_iter().flatten().map(|(name, _)| name);
        names.extend(new.filter(|name| !before.is_some_and(|before| before.contains_key(*name))));
        names.retain(|name| !hidden(name));
        for name in names {
            let Some(ty) = map.field(name) else { continue };
            let implied = map.implied.get(name);
            let was = before.and_then(|before| before.get(name)).or(implied);
            let is = after.and_then(|after| after.get(name)).or(implied);
            if was == is {
                continue;
            }
            self.descend(Element::Field(name.clone()), |walk| walk.values(ty, was, is))?;
        }
        Ok(())
    }

    fn lists(
        &mut self,
        list: &ListType,
        before: Option<&Value>,
        after: Option<&Value>,
    ) -> Result<(), ValidationError> {
        let was = self.by_identity(list, before)?;
        let is = self.by_identity(list, after)?;
        let mut elements: Vec<&Element> = was.keys().collect();
        elements.extend(is.keys().filter(|element| !was.contains_key(*element)));
        let none = Vec::new();
        for element in elements {
            let was = was.get(element).unwrap_or(&none);
            let is = is.get(element).unwrap_or(&none);
            self.descend(element.clone(), |walk| walk.items(list, was, is))?;
        }
        Ok(())
    }

    /// Compares the items of one identity; duplicates are compared as a whole.
    fn items(&mut self, list: &ListType, before: &[&Value], after: &[&Value]) -> Result<(), ValidationError> {
        let ty = list.items.resolve();
        match (before, after) {
            ([] | [_], [] | [_]) => self.values(ty, before.first().copied(), after.first().copied())?,
            ([_, _, ..], [_, _, ..]) => {
                let equal =
                    before.len() == after.len() && before.iter().zip(after).all(|(a, b)| equal_values(a, b));
                if !equal {
                    self.found.modified.member = true;
                }
            }
            ([_, _, ..], _) => {
                if let [item] = after {
                    self.values(ty, None, Some(item))?;
                }
                self.found.removed.member = true;
            }
            (_, [_, _, ..]) => {
                if let [item] = before {
                    self.values(ty, Some(item), None)?;
                }
                self.found.added.member = true;
            }
        }
        Ok(())
    }

    fn by_identity<'v>(
        &self,
        list: &ListType,
        value: Option<&'v Value>,
    ) -> Result<BTreeMap<Element, Vec<&'v Value>>, ValidationError> {
        let mut known: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
        for (index, item) in value.and_then(Value::as_array).into_iter().flatten().enumerate() {
            let element =
                identity(list, item).map_err(|error| ValidationError::of_item(&self.path, index, error))?;
            known.entry(element).or_default().push(item);
        }
        Ok(known)
    }
}
