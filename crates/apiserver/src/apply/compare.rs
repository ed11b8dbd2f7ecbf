//! What differs between two states of an object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fields::{Wrong, identity};
use super::path::{Element, same};
use super::set::Set;
use super::types::{Identity, ListType, MapType, Shape, Type};

/// The difference. No path is in two of the sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) removed: Set,
    pub(super) modified: Set,
    pub(super) added: Set,
}

/// Compares two objects; top-level fields in `skip` are not looked at.
pub(super) fn compare(ty: &Type, before: &Value, after: &Value, skip: &[&str]) -> Result<Comparison, Wrong> {
    let mut walk = Walk { path: Vec::new(), skip, found: Found::default() };
    walk.values(ty, Some(before), Some(after))?;
    let Found { removed, modified, added } = walk.found;
    // Nobody owns a whole object.
    Ok(Comparison { removed: removed.below, modified: modified.below, added: added.below })
}

struct Walk<'a> {
    path: Vec<Element>,
    skip: &'a [&'a str],
    /// What is found at the path and below it: sets are built from below, so that a step is named once, however much is
    /// below it.
    found: Found,
}

#[derive(Default)]
struct Found {
    removed: Place,
    modified: Place,
    added: Place,
}

/// A place in a set, and what is below it.
#[derive(Default)]
struct Place {
    member: bool,
    below: Set,
}

impl Walk<'_> {
    /// Looks at what is one step further down.
    fn descend(
        &mut self,
        element: Element,
        look: impl FnOnce(&mut Self) -> Result<(), Wrong>,
    ) -> Result<(), Wrong> {
        let above = std::mem::take(&mut self.found);
        self.path.push(element);
        let looked = look(self);
        let found = std::mem::replace(&mut self.found, above);
        let Some(element) = self.path.pop() else { return looked };
        let into = &mut self.found;
        for (into, found) in [
            (&mut into.removed, found.removed),
            (&mut into.modified, found.modified),
            (&mut into.added, found.added),
        ] {
            if found.member || !found.below.is_empty() {
                into.below.put(element.clone(), found.member, found.below);
            }
        }
        looked
    }

    fn values(&mut self, ty: &Type, before: Option<&Value>, after: Option<&Value>) -> Result<(), Wrong> {
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

    /// Whether the value is one piece.
    fn shaped(
        &mut self,
        shape: Shape<'_>,
        before: Option<&Value>,
        after: Option<&Value>,
    ) -> Result<bool, Wrong> {
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

    fn leaf(&mut self, before: Option<&Value>, after: Option<&Value>) {
        match (before, after) {
            (None, _) => self.found.added.member = true,
            (_, None) => self.found.removed.member = true,
            (Some(before), Some(after)) if !same(before, after) => self.found.modified.member = true,
            (Some(_), Some(_)) => {}
        }
    }

    fn maps(
        &mut self,
        map: &MapType,
        before: Option<&Map<String, Value>>,
        after: Option<&Map<String, Value>>,
    ) -> Result<(), Wrong> {
        let root = self.path.is_empty();
        let hidden = |name: &str| map.hidden.contains(&name) || (root && self.skip.contains(&name));
        let mut names: Vec<&String> = before.into_iter().flatten().map(|(name, _)| name).collect();
        let new = after.into_iter().flatten().map(|(name, _)| name);
        names.extend(new.filter(|name| !before.is_some_and(|before| before.contains_key(*name))));
        names.retain(|name| !hidden(name));
        for name in names {
            let Some(ty) = map.field(name) else { continue };
            let always = map.always.get(name);
            let was = before.and_then(|before| before.get(name)).or(always);
            let is = after.and_then(|after| after.get(name)).or(always);
            if was == is {
                continue;
            }
            self.descend(Element::Field(name.clone()), |walk| walk.values(ty, was, is))?;
        }
        Ok(())
    }

    fn lists(&mut self, list: &ListType, before: Option<&Value>, after: Option<&Value>) -> Result<(), Wrong> {
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

    /// Items of one identity; more than one of them is one piece.
    fn items(&mut self, list: &ListType, before: &[&Value], after: &[&Value]) -> Result<(), Wrong> {
        let ty = list.items.resolve();
        match (before, after) {
            ([] | [_], [] | [_]) => self.values(ty, before.first().copied(), after.first().copied())?,
            ([_, _, ..], [_, _, ..]) => {
                let equal = before.len() == after.len() && before.iter().zip(after).all(|(a, b)| same(a, b));
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
    ) -> Result<BTreeMap<Element, Vec<&'v Value>>, Wrong> {
        let mut known: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
        for (index, item) in value.and_then(Value::as_array).into_iter().flatten().enumerate() {
            let element = identity(list, item)
                .map_err(|what| Wrong::new(&self.path, format!("element {index}: {what}")))?;
            known.entry(element).or_default().push(item);
        }
        Ok(known)
    }
}
