//! ResourceQuotas: how many objects a namespace may hold. They are decided on and counted in the transaction of the write, so
//! that two creates never get the same last place.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use wasmbed_quantity::Quantity;

use super::storage::{Read, StorageError};
use super::write::ApplyError;
use crate::kinds::{Kind, Kinds};
use crate::status::Status;

/// The common start of the keys of ResourceQuotas, which is the name of their feed.
pub(super) const FOLDER: &str = "/resourcequotas";
/// The field manager of their statuses.
pub(super) const MANAGER: &str = "wasmbed-apiserver";
/// What precedes a resource in the name of its count.
const COUNT: &str = "count/";
/// Resources of the core group that are counted by their plain names as well.
const SHORT: [&str; 2] = ["resourcequotas", "secrets"];

/// Numbers of objects by the common start of their keys; only those that a quota bounds, counted when they are first asked
/// for.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// Refuses a new object for which a quota of its namespace has no place.
    pub(super) fn admit(
        &mut self,
        kinds: &Kinds,
        tables: &dyn Read,
        kind: &Kind,
        object: &Value,
    ) -> Result<(), ApplyError> {
        let Some(namespace) = object["metadata"]["namespace"].as_str().filter(|_| is_counted(kind)) else {
            return Ok(());
        };
        for quota in in_namespace(kinds, tables, namespace)? {
            let mut exceeded: [Vec<String>; 3] = Default::default();
            for (name, hard) in bounds(&quota).filter(|(name, _)| counts(name, kind)) {
                let used = Quantity::of(self.of(tables, kind, namespace)?);
                let requested = Quantity::of(1);
                if used.nanos() + requested.nanos() > hard.nanos() {
                    for (list, value) in exceeded.iter_mut().zip([&requested, &used, &hard]) {
                        list.push(format!("{name}={value}"));
                    }
                }
            }
            let [requested, used, limited] = exceeded.map(|list| list.join(","));
            if !requested.is_empty() {
                let quota = quota["metadata"]["name"].as_str().unwrap_or_default();
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let why = format!(
                    "exceeded quota: {quota}, requested: {requested}, used: {used}, limited: {limited}"
                );
                return Err(Status::forbidden(kind.names(), name, why).into());
            }
        }
        Ok(())
    }

    /// Accounts for an object that was created (+1) or removed (-1). Returns the quotas of its namespace whose status has to
    /// change, each with the new one.
    pub(super) fn change(
        &mut self,
        kinds: &Kinds,
        tables: &dyn Read,
        kind: &Kind,
        namespace: &str,
        by: i64,
    ) -> Result<Vec<(Value, Value)>, ApplyError> {
        if !is_counted(kind) {
            return Ok(Vec::new());
        }
        if let Some(count) = self.0.get_mut(&kind.prefix(Some(namespace))) {
            *count = count.saturating_add_signed(by);
        }
        let mut changed = Vec::new();
        for quota in in_namespace(kinds, tables, namespace)? {
            let status = self.status(kinds, tables, namespace, &quota)?;
            if quota["status"] != status {
                changed.push((quota, status));
            }
        }
        Ok(changed)
    }

    /// The status that a quota should have.
    fn status(
        &mut self,
        kinds: &Kinds,
        tables: &dyn Read,
        namespace: &str,
        quota: &Value,
    ) -> Result<Value, StorageError> {
        let mut used = Map::new();
        for (name, _) in bounds(quota) {
            let counted = kinds.iter().find(|kind| is_counted(kind) && counts(&name, kind));
            if let Some(kind) = counted {
                used.insert(name, Quantity::of(self.of(tables, kind, namespace)?).as_str().into());
            } else if let Some(said) = quota["status"]["used"].get(&name).filter(|_| is_others(&name)) {
                used.insert(name, said.clone());
            }
        }
        let mut status = json!({});
        if let Some(hard) = quota["spec"]["hard"].as_object().filter(|hard| !hard.is_empty()) {
            status["hard"] = Value::Object(hard.clone());
        }
        if !used.is_empty() {
            status["used"] = Value::Object(used);
        }
        Ok(status)
    }

    /// How many objects of a kind a namespace holds.
    fn of(&mut self, tables: &dyn Read, kind: &Kind, namespace: &str) -> Result<u64, StorageError> {
        let prefix = kind.prefix(Some(namespace));
        if let Some(count) = self.0.get(&prefix) {
            return Ok(*count);
        }
        let mut count = 0;
        tables.scan(&prefix, None, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        self.0.insert(prefix, count);
        Ok(count)
    }
}

/// The kind of ResourceQuotas.
pub(super) fn kind(kinds: &Kinds) -> Option<&Arc<Kind>> {
    let found = kinds.get("", "v1", "resourcequotas");
    debug_assert!(found.is_some(), "ResourceQuotas are a built-in kind");
    found
}

/// Kubernetes counts all but Events, and nothing outside namespaces.
fn is_counted(kind: &Kind) -> bool {
    kind.namespaced && !kind.is_event()
}

/// Whether a bound is about the objects of a kind.
fn counts(name: &str, kind: &Kind) -> bool {
    name.strip_prefix(COUNT).is_some_and(|resource| resource == kind.qualified())
        || (kind.group.is_empty() && SHORT.contains(&name) && name == kind.plural)
}

/// Whether a bound is for others to count: like kube-controller-manager the server leaves what they write.
fn is_others(name: &str) -> bool {
    name.contains('/') && !name.starts_with(COUNT)
}

/// What a quota bounds.
fn bounds(quota: &Value) -> impl Iterator<Item = (String, Quantity)> {
    let hard = quota["spec"]["hard"].as_object().into_iter().flatten();
    // What is stored is valid.
    hard.filter_map(|(name, value)| Some((name.clone(), Quantity::parse(value.as_str()?).ok()?)))
}

/// The quotas of a namespace, by name.
fn in_namespace(kinds: &Kinds, tables: &dyn Read, namespace: &str) -> Result<Vec<Value>, StorageError> {
    let Some(kind) = kind(kinds) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    tables.scan(&kind.prefix(Some(namespace)), None, &mut |_, stored| {
        found.push(serde_json::from_slice(stored));
        ControlFlow::Continue(())
    })?;
    let decoded: Result<Vec<Value>, _> = found.into_iter().collect();
    decoded.map_err(|error| StorageError::Failed(format!("a ResourceQuota can't be decoded: {error}")))
}
