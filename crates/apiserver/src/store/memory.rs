//! The machine on an ordered map: the API without disk, clock or network, for simulations.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde_json::Value;

use super::event::Event;
use super::history::{EventLog, History, HistoryExpired};
use super::machine::Machine;
use super::page::{Page, Pager};
use super::quotas;
use super::storage::{Read, StorageError, Tables};
use super::write::{Applied, ApplyError, Write};
use crate::kinds::{Kind, Kinds};
use crate::resource::Moment;
use crate::selector::Selection;
use crate::status::Status;

impl Read for BTreeMap<String, Vec<u8>> {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(&str, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let start = after.unwrap_or(prefix);
        for (key, object) in self.range(start.to_owned()..) {
            if !key.starts_with(prefix) {
                break;
            }
            if after != Some(key.as_str()) && visit(key, object).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Tables for BTreeMap<String, Vec<u8>> {
    fn put(&mut self, key: &str, object: &[u8]) -> Result<(), StorageError> {
        self.insert(key.to_owned(), object.to_vec());
        Ok(())
    }

    fn remove(&mut self, key: &str) -> Result<(), StorageError> {
        BTreeMap::remove(self, key);
        Ok(())
    }
}

/// All objects in memory, with history. A write is visible when it returns.
#[derive(Debug)]
pub struct Memory {
    kinds: Arc<Kinds>,
    machine: Machine,
    objects: BTreeMap<String, Vec<u8>>,
    logs: BTreeMap<String, EventLog>,
    history: History,
}

impl Memory {
    /// An empty store at revision 0.
    pub fn new(kinds: Arc<Kinds>, history: History) -> Memory {
        let machine = Machine::new(Arc::clone(&kinds), 0);
        Memory { kinds, machine, objects: BTreeMap::new(), logs: BTreeMap::new(), history }
    }

    /// The kinds that are served.
    pub fn kinds(&self) -> &Arc<Kinds> {
        &self.kinds
    }

    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.machine.revision()
    }

    /// Applies a write.
    pub fn write(&mut self, write: &Write, moment: Moment<'_>) -> Result<Applied, Status> {
        let applied = self.machine.apply(&mut self.objects, write, moment).map_err(|error| match error {
            ApplyError::Refused(status) => status,
            ApplyError::Storage(error) => Status::internal(error),
        })?;
        let quotas = applied.quotas.iter().map(|event| (quotas::FOLDER, event));
        let own = applied.event.iter().map(|event| (write.kind.folder.as_str(), event));
        for (folder, event) in own.chain(quotas) {
            let history = self.history;
            let log = self.logs.entry(folder.to_owned()).or_insert_with(|| EventLog::new(0, history));
            log.append(Arc::clone(event));
        }
        Ok(applied)
    }

    /// One object, as it is stored.
    pub fn stored(&self, kind: &Kind, namespace: &str, name: &str) -> Option<&[u8]> {
        self.objects.get(&kind.key(namespace, name)).map(Vec::as_slice)
    }

    /// One object.
    pub fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Value> {
        let mut object = serde_json::from_slice(self.stored(kind, namespace, name)?).ok()?;
        kind.conversion().convert_from_stored(&mut object);
        Some(object)
    }

    /// All objects of a selection, and their revision.
    pub fn list(&self, kind: &Kind, selection: &Selection) -> Result<(Page, u64), Status> {
        let pager = Pager { selection, after: None, limit: None };
        let page = pager.read(kind, &self.objects)?;
        Ok((page, self.revision()))
    }

    /// Up to `most` changes of a kind's objects after a revision, oldest first.
    pub fn since(&self, kind: &Kind, revision: u64, most: usize) -> Result<Vec<Arc<Event>>, HistoryExpired> {
        self.logs.get(&kind.folder).map_or(Ok(Vec::new()), |log| log.since(revision, most))
    }

    /// Drops the history, as a restart does.
    pub fn restart(&mut self) {
        let (revision, history) = (self.revision(), self.history);
        for kind in self.kinds.iter() {
            self.logs.insert(kind.folder.clone(), EventLog::new(revision, history));
        }
    }
}
