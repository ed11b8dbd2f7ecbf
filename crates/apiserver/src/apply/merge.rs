//! An applied configuration laid over an object, and fields taken out of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::fields::{Wrong, identity};
use super::path::Element;
use super::set::Set;
use super::types::{Identity, ListType, MapType, Shape, Type};

/// `live` with all that `applied` states; nothing is taken away. Lists keep the order of `live` where `applied` doesn't
/// state another.
pub(super) fn merge(ty: &Type, live: &Value, applied: &Value) -> Result<Value, Wrong> {
    let merged = Merge { path: Vec::new() }.values(ty, Some(live), Some(applied))?;
    Ok(merged.unwrap_or(Value::Null))
}

struct Merge {
    path: Vec<Element>,
}

impl Merge {
    fn values(
        &mut self,
        ty: &Type,
        live: Option<&Value>,
        applied: Option<&Value>,
    ) -> Result<Option<Value>, Wrong> {
        let (Some(live), Some(applied)) = (live, applied) else { return Ok(applied.or(live).cloned()) };
        let leaf = || Ok(Some(applied.clone()));
        match ty.shape(Some(applied)).settled() {
            Shape::Scalar(_) => leaf(),
            Shape::Map(map) | Shape::Any(map) => {
                let (was, stated) = (live.as_object(), applied.as_object());
                if map.atomic || (was.is_none_or(Map::is_empty) && stated.is_none_or(Map::is_empty)) {
                    return leaf();
                }
                let none = Map::new();
                self.maps(map, was.unwrap_or(&none), stated.unwrap_or(&none))
            }
            Shape::List(list) => {
                let was = live.as_array().map(Vec::as_slice).unwrap_or_default();
                let stated = applied.as_array().map(Vec::as_slice).unwrap_or_default();
                if list.identity == Identity::Atomic || (was.is_empty() && stated.is_empty()) {
                    return leaf();
                }
                self.lists(list, was, stated)
            }
        }
    }

    fn maps(
        &mut self,
        map: &MapType,
        live: &Map<String, Value>,
        applied: &Map<String, Value>,
    ) -> Result<Option<Value>, Wrong> {
        let mut merged = live.clone();
        for (name, stated) in applied {
            let Some(ty) = map.field(name) else { continue };
            self.path.push(Element::Field(name.clone()));
            let value = self.values(ty, live.get(name), Some(stated))?;
            self.path.pop();
            match value {
                Some(value) => merged.insert(name.clone(), value),
                None => merged.remove(name),
            };
        }
        Ok((!merged.is_empty()).then_some(Value::Object(merged)))
    }

    fn lists(&mut self, list: &ListType, live: &[Value], applied: &[Value]) -> Result<Option<Value>, Wrong> {
        let stated = self.elements(list, applied)?;
        let standing = self.elements(list, live)?;
        let mut was: BTreeMap<&Element, Option<&Value>> = BTreeMap::new();
        for (element, item) in standing.iter().zip(live) {
            // Of items that stand twice none is merged with.
            was.entry(element).and_modify(|item| *item = None).or_insert(Some(item));
        }
        let mut merged = Vec::with_capacity(live.len().max(applied.len()));
        for next in order(&standing, &stated) {
            let value = match next {
                Next::Standing(index) => live.get(index).cloned(),
                Next::Stated(index) => {
                    let element = &stated[index];
                    let live = was.get(element).copied().flatten();
                    self.path.push(element.clone());
                    let value = self.values(list.items.resolve(), live, applied.get(index))?;
                    self.path.pop();
                    value
                }
            };
            merged.extend(value);
        }
        Ok((!merged.is_empty()).then_some(Value::Array(merged)))
    }

    fn elements(&self, list: &ListType, items: &[Value]) -> Result<Vec<Element>, Wrong> {
        let element = |(index, item): (usize, &Value)| {
            identity(list, item).map_err(|what| Wrong::new(&self.path, format!("element {index}: {what}")))
        };
        items.iter().enumerate().map(element).collect()
    }
}

/// Where the next item of a merged list comes from.
enum Next {
    /// From the standing list alone.
    Standing(usize),
    /// From the stated list, merged with its like in the standing one.
    Stated(usize),
}

/// The order of a merged list: what both have stands in the stated order, and what only one has stays behind what it
/// stood behind (structured-merge-diff, `typed/merge.go`).
fn order(standing: &[Element], stated: &[Element]) -> Vec<Next> {
    let in_standing: BTreeSet<&Element> = standing.iter().collect();
    let in_stated: BTreeSet<&Element> = stated.iter().collect();
    let mut shared = stated.iter().filter(|element| in_standing.contains(element));
    let mut next_shared = shared.next();
    let mut taken: BTreeSet<&Element> = BTreeSet::new();
    let mut order = Vec::with_capacity(standing.len().max(stated.len()));
    let (mut left, mut right) = (0, 0);
    while left < standing.len() || right < stated.len() {
        if let (Some(ours), Some(theirs)) = (standing.get(left), stated.get(right)) {
            if ours == theirs {
                taken.insert(ours);
                order.push(Next::Stated(right));
                (left, right) = (left + 1, right + 1);
                next_shared = shared.next();
                continue;
            }
            if in_stated.contains(ours) && next_shared.is_some_and(|next| next != ours) {
                left += 1;
                continue;
            }
        }
        if let Some(ours) = standing.get(left) {
            if !in_stated.contains(ours) {
                order.push(Next::Standing(left));
                left += 1;
                continue;
            }
            if taken.contains(ours) {
                left += 1;
            }
        }
        if let Some(theirs) = stated.get(right) {
            taken.insert(theirs);
            order.push(Next::Stated(right));
            right += 1;
            if next_shared == Some(theirs) {
                next_shared = shared.next();
            }
        }
    }
    order
}

/// `value` without what is in the set. A map or list that ends up empty becomes null.
pub(super) fn remove(ty: &Type, value: &Value, set: &Set) -> Value {
    match ty.shape(Some(value)).settled() {
        Shape::Scalar(_) => value.clone(),
        Shape::Map(map) | Shape::Any(map) => {
            let Some(fields) = value.as_object().filter(|_| !map.atomic) else { return Value::Null };
            let mut kept = Map::new();
            for (name, value) in fields {
                let element = Element::Field(name.clone());
                if set.is_member(&element) {
                    continue;
                }
                let value = match (set.below(&element), map.field(name)) {
                    (Some(below), Some(ty)) => remove(ty, value, below),
                    (_, _) => value.clone(),
                };
                kept.insert(name.clone(), value);
            }
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        Shape::List(list) => {
            let items = match value {
                Value::Array(items) if list.identity != Identity::Atomic => items,
                _ => return Value::Null,
            };
            let mut kept = Vec::with_capacity(items.len());
            for item in items {
                let Ok(element) = identity(list, item) else {
                    kept.push(item.clone());
                    continue;
                };
                if set.is_member(&element) {
                    continue;
                }
                kept.push(match set.below(&element) {
                    Some(below) => remove(list.items.resolve(), item, below),
                    None => item.clone(),
                });
            }
            if kept.is_empty() { Value::Null } else { Value::Array(kept) }
        }
    }
}
