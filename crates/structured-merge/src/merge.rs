//! An applied configuration merged into a live object.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::error::ValidationError;
use crate::field_set::identity;
use crate::path::Element;
use crate::schema::{Identity, ListType, MapType, Shape, Type};

/// `live` with every field of `applied` set; nothing is removed. Items of lists keep the order of `live` unless `applied`
/// states another one.
pub(crate) fn merge(ty: &Type, live: &Value, applied: &Value) -> Result<Value, ValidationError> {
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
    ) -> Result<Option<Value>, ValidationError> {
        let (Some(live), Some(applied)) = (live, applied) else { return Ok(applied.or(live).cloned()) };
        let leaf = || Ok(Some(applied.clone()));
        match ty.shape(Some(applied)).settled() {
            Shape::Scalar(_) => leaf(),
            Shape::Map(map) | Shape::Any(map) => {
                let (live, stated) = (live.as_object(), applied.as_object());
                if map.atomic || (live.is_none_or(Map::is_empty) && stated.is_none_or(Map::is_empty)) {
                    return leaf();
                }
                let none = Map::new();
                self.maps(map, live.unwrap_or(&none), stated.unwrap_or(&none))
            }
            Shape::List(list) => {
                let live = live.as_array().map(Vec::as_slice).unwrap_or_default();
                let stated = applied.as_array().map(Vec::as_slice).unwrap_or_default();
                if list.identity == Identity::Atomic || (live.is_empty() && stated.is_empty()) {
                    return leaf();
                }
                self.lists(list, live, stated)
            }
        }
    }

    fn maps(
        &mut self,
        map: &MapType,
        live: &Map<String, Value>,
        applied: &Map<String, Value>,
    ) -> Result<Option<Value>, ValidationError> {
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

    fn lists(
        &mut self,
        list: &ListType,
        live: &[Value],
        applied: &[Value],
    ) -> Result<Option<Value>, ValidationError> {
        let applied_items = self.elements(list, applied)?;
        let live_items = self.elements(list, live)?;
        let mut by_element: BTreeMap<&Element, Option<&Value>> = BTreeMap::new();
        for (element, item) in live_items.iter().zip(live) {
            // Duplicate items are not merged with.
            by_element.entry(element).and_modify(|item| *item = None).or_insert(Some(item));
        }
        let mut merged = Vec::with_capacity(live.len().max(applied.len()));
        for source in order(&live_items, &applied_items) {
            let value = match source {
                Source::Live(index) => live.get(index).cloned(),
                Source::Applied(index) => {
                    let element = &applied_items[index];
                    let live = by_element.get(element).copied().flatten();
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

    fn elements(&self, list: &ListType, items: &[Value]) -> Result<Vec<Element>, ValidationError> {
        let element = |(index, item): (usize, &Value)| {
            identity(list, item).map_err(|error| ValidationError::of_item(&self.path, index, error))
        };
        items.iter().enumerate().map(element).collect()
    }
}

/// Where the next item of a merged list comes from.
enum Source {
    /// Only in the live list, at this index.
    Live(usize),
    /// In the applied list, at this index; merged with the live item of the same identity.
    Applied(usize),
}

/// The order of a merged list: items of both lists follow the applied order, items of one list stay behind their
/// predecessor in that list (structured-merge-diff, `typed/merge.go`).
fn order(live_items: &[Element], applied_items: &[Element]) -> Vec<Source> {
    let in_live: BTreeSet<&Element> = live_items.iter().collect();
    let in_applied: BTreeSet<&Element> = applied_items.iter().collect();
    let mut shared = applied_items.iter().filter(|element| in_live.contains(element));
    let mut next_shared = shared.next();
    let mut taken: BTreeSet<&Element> = BTreeSet::new();
    let mut order = Vec::with_capacity(live_items.len().max(applied_items.len()));
    let (mut left, mut right) = (0, 0);
    while left < live_items.len() || right < applied_items.len() {
        if let (Some(ours), Some(theirs)) = (live_items.get(left), applied_items.get(right)) {
            if ours == theirs {
                taken.insert(ours);
                order.push(Source::Applied(right));
                (left, right) = (left + 1, right + 1);
                next_shared = shared.next();
                continue;
            }
            if in_applied.contains(ours) && next_shared.is_some_and(|next| next != ours) {
                left += 1;
                continue;
            }
        }
        if let Some(ours) = live_items.get(left) {
            if !in_applied.contains(ours) {
                order.push(Source::Live(left));
                left += 1;
                continue;
            }
            if taken.contains(ours) {
                left += 1;
            }
        }
        if let Some(theirs) = applied_items.get(right) {
            taken.insert(theirs);
            order.push(Source::Applied(right));
            right += 1;
            if next_shared == Some(theirs) {
                next_shared = shared.next();
            }
        }
    }
    order
}
