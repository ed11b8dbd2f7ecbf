//! What controllers put here: sets and modules.

use std::{collections::BTreeSet, sync::Arc};

use wasmbed_protocol::{ModuleDigest, Revision, limits::MODULE_BYTES_MAX};

use super::{
    Gateway,
    config::{STORE_OPERATIONS_MAX, UNSEEN_DEVICES_MAX},
    device::Record,
    input::{Answer, Notice, Refused, RequestId, StoreId, StoreOperation, StoredDevice, UploadDecision},
    sets::{Modules, PreparedSet, PreparedSets, Set},
};
use crate::{
    Now, ObjectKey,
    election::TERM_MAX,
    exchange::{DeviceSet, PutSetsAnswer, Refusal, SETS_PER_PUT_MAX, SetRefusal},
};

/// A set that is taken, and whose it is.
type CheckedSet = (Arc<ObjectKey>, Arc<Set>);

/// What happens once an operation is on the disk.
#[derive(Debug)]
pub(super) enum Storing {
    /// Sets take effect and a controller is answered.
    Sets { request: RequestId, leader_term: u64, sets: Vec<CheckedSet>, refused: Vec<SetRefusal> },
    /// Nothing; where it fails, what is known of the device by then is written as soon as the disk works again.
    Device(Arc<ObjectKey>),
}

impl Gateway {
    /// Whether the leader's Lease is to be read, for [`Gateway::handle_leader_lease`], before sets of this term are handled: it
    /// is a later term than any that was seen in it, as that of each new leader is.
    #[must_use]
    pub fn needs_leader_lease(&self, term: u64) -> bool {
        term <= TERM_MAX && term > self.leader_term && term > self.term_known
    }

    /// The leader's Lease was read: its `leaseTransitions`, 0 if there is no such Lease. The error is for people; while there is
    /// one, sets of a later term are refused for now: nobody was seen to lead in it.
    pub fn handle_leader_lease(&mut self, read: Result<u64, String>) {
        match read {
            Ok(term) => {
                self.term_known = term;
                self.term_unread = None;
            }
            Err(error) => self.term_unread = Some(error),
        }
    }

    /// A controller sends desired sets. [`Gateway::poll_answer`] answers, once they are on the disk.
    pub fn handle_put_sets(&mut self, now: Now, request: RequestId, put: PreparedSets) {
        let refuse =
            |reason: &str, message: String| Refusal { reason: reason.to_owned(), message, leader_term: None };
        let refused = if let Some(why) = &self.kept_from {
            Some(Refused::Unavailable(refuse("NotHolder", why.clone())))
        } else if put.leader_term > TERM_MAX {
            let message = format!("leader term {} is beyond {TERM_MAX}, the highest one", put.leader_term);
            Some(Refused::Invalid(refuse("TermOutOfRange", message)))
        } else if put.leader_term < self.leader_term {
            let message =
                format!("leader term {} is lower than {}, seen before", put.leader_term, self.leader_term);
            let refusal = refuse("Fenced", message);
            Some(Refused::Fenced(Refusal { leader_term: Some(self.leader_term), ..refusal }))
        } else if self.needs_leader_lease(put.leader_term) {
            Some(match &self.term_unread {
                Some(error) => {
                    let message = format!("the leader's Lease can't be read: {error}; try again");
                    Refused::Unavailable(refuse("LeaseUnread", message))
                }
                None => {
                    let message = format!(
                        "leader term {} is above {}, leaseTransitions of the leader's Lease",
                        put.leader_term, self.term_known
                    );
                    Refused::Invalid(refuse("TermNotGiven", message))
                }
            })
        } else if put.count > SETS_PER_PUT_MAX {
            let message = format!("{} sets in one call, at most {SETS_PER_PUT_MAX} are allowed", put.count);
            Some(Refused::Invalid(refuse("TooManySets", message)))
        } else if self.storing.len() >= STORE_OPERATIONS_MAX {
            Some(Refused::Unavailable(refuse(
                "Overloaded",
                "the disk does not keep up; try again".to_owned(),
            )))
        } else if self.shutting_down {
            Some(Refused::Unavailable(refuse("ShuttingDown", "the gateway stops".to_owned())))
        } else {
            None
        };
        if let Some(refused) = refused {
            self.answers.push_back(Answer { request, result: Err(refused) });
            return;
        }
        let mut taken: Vec<CheckedSet> = Vec::new();
        let mut devices = Vec::new();
        let mut refused = Vec::new();
        let mut unseen = self.devices.values().filter(|record| record.object.is_none()).count();
        for set in put.sets {
            match self.check_set(now, set, &taken, &mut unseen) {
                Ok(Some((entry, set))) => {
                    devices.extend(self.devices.get(&entry.0).map(|record| stored(record, Some(set))));
                    taken.push(entry);
                }
                Ok(None) => {}
                Err(refusal) => refused.push(*refusal),
            }
        }
        if taken.is_empty() && put.leader_term == self.stored_term {
            self.answers.push_back(Answer { request, result: Ok(PutSetsAnswer { refused }) });
            return;
        }
        self.leader_term = put.leader_term;
        for (key, set) in &taken {
            if let Some(record) = self.devices.get_mut(key) {
                record.revision_seen = record.revision_seen.max(set.revision);
                record.staged = Some(Arc::clone(set));
            }
        }
        let leader_term = self.leader_term;
        let id = self.store_id(Storing::Sets { request, leader_term, sets: taken, refused });
        self.store.push_back(StoreOperation::Put { id, leader_term, devices });
    }

    /// Whether a set is taken, with what goes to the disk; `None` if it is the one held. `unseen` counts the devices that were
    /// not seen here.
    fn check_set(
        &mut self,
        now: Now,
        set: PreparedSet,
        taken: &[CheckedSet],
        unseen: &mut usize,
    ) -> Result<Option<(CheckedSet, DeviceSet)>, Box<SetRefusal>> {
        let PreparedSet { device, read } = set;
        let refuse = |message: String| {
            Box::new(SetRefusal {
                device: device.clone(),
                held_revision: None,
                message,
                missing_modules: Vec::new(),
            })
        };
        if taken.iter().any(|(key, _)| **key == device) {
            return Err(refuse("the device stands twice in this call".to_owned()));
        }
        let (mut parsed, exchange) = read.map_err(refuse)?;
        let missing: BTreeSet<ModuleDigest> = parsed
            .assignments
            .iter()
            .map(|assignment| assignment.body.digest)
            .filter(|digest| !self.modules.contains(digest))
            .collect();
        if !missing.is_empty() {
            let missing_modules = missing.iter().map(ToString::to_string).collect();
            let refusal = refuse("modules must be uploaded first".to_owned());
            return Err(Box::new(SetRefusal { missing_modules, ..*refusal }));
        }
        // A device that was promised more than there is would wait for ever.
        for body in parsed.assignments.iter().map(|assignment| &assignment.body) {
            if let Some(bytes) = self.modules.size(&body.digest).filter(|bytes| *bytes != body.module_bytes) {
                let wrong = format!("module_bytes is {}, but the module has {bytes}", body.module_bytes);
                return Err(refuse(format!("{}: {wrong}", body.application)));
            }
        }
        if !self.devices.contains_key(&device) {
            if *unseen >= UNSEEN_DEVICES_MAX {
                return Err(refuse("no such Device has been seen here".to_owned()));
            }
            *unseen += 1;
        }
        self.bodies.adopt(&mut parsed);
        let record = self.record(now, &device);
        if let Some(held) = record.staged.as_ref().or(record.set.as_ref())
            && held.revision == parsed.revision
            && record.revision_seen == parsed.revision
        {
            return if !held.same_content(&parsed) {
                let message = format!("revision {} was given to another content", parsed.revision);
                Err(Box::new(SetRefusal { held_revision: Some(held.revision), ..*refuse(message) }))
            } else if record.staged.is_some() {
                // It is not on the disk yet, so this call must wait for it too.
                Ok(Some(((Arc::clone(&record.key), Arc::new(parsed)), exchange)))
            } else {
                Ok(None)
            };
        }
        if parsed.revision < record.revision_seen {
            let message = format!("revision {} is lower than {}", parsed.revision, record.revision_seen);
            return Err(Box::new(SetRefusal {
                held_revision: Some(record.revision_seen),
                ..*refuse(message)
            }));
        }
        Ok(Some(((Arc::clone(&record.key), Arc::new(parsed)), exchange)))
    }

    /// A storage operation ended.
    pub fn handle_stored(&mut self, now: Now, id: StoreId, result: Result<(), String>) {
        let Some(storing) = self.storing.remove(&id) else { return };
        if let Err(error) = &result {
            self.notice(Notice::StoreFailed { detail: error.clone() });
        }
        let (request, leader_term, sets, refused) = match storing {
            Storing::Sets { request, leader_term, sets, refused } => (request, leader_term, sets, refused),
            Storing::Device(key) => {
                match result {
                    Ok(()) => self.store_what_failed(),
                    Err(_) => drop(self.unstored.insert(key)),
                }
                return;
            }
        };
        for (key, set) in &sets {
            if let Some(record) = self.devices.get_mut(key)
                && record.staged.as_ref().is_some_and(|staged| Arc::ptr_eq(staged, set))
            {
                record.staged = None;
            }
        }
        let result = match result {
            Ok(()) => {
                self.stored_term = self.stored_term.max(leader_term);
                for (key, set) in sets {
                    self.take_set(now, &key, set);
                }
                self.store_what_failed();
                Ok(PutSetsAnswer { refused })
            }
            Err(error) => Err(Refused::Unavailable(Refusal {
                reason: "StoreFailed".to_owned(),
                message: format!("the gateway's disk failed: {error}"),
                leader_term: None,
            })),
        };
        self.answers.push_back(Answer { request, result });
    }

    fn take_set(&mut self, now: Now, key: &Arc<ObjectKey>, set: Arc<Set>) {
        let Some(record) = self.devices.get_mut(key) else { return };
        if record.set.as_ref().is_some_and(|held| held.revision > set.revision) {
            return;
        }
        let revision = Revision(set.revision);
        record.set = Some(set);
        self.notice(Notice::SetTaken { device: Arc::clone(key), revision });
        self.stream.changed(key);
        self.offer_desired(key);
        self.schedule(now, key);
    }

    /// A number for a storage operation.
    pub(super) fn store_id(&mut self, storing: Storing) -> StoreId {
        let id = StoreId(self.next_store);
        self.next_store += 1;
        self.storing.insert(id, storing);
        id
    }

    /// Writes what is known of a device to the disk.
    pub(super) fn store_device(&mut self, key: &Arc<ObjectKey>) {
        let Some(record) = self.devices.get_mut(key) else { return };
        record.stored_uid =
            record.object.as_ref().map(|object| object.uid.clone()).or_else(|| record.stored_uid.take());
        // Operations happen in their order: an older set must not follow a newer one.
        let set = record.staged.as_ref().or(record.set.as_ref()).map(|set| set.to_exchange(&record.key));
        let devices = vec![stored(record, set)];
        let id = self.store_id(Storing::Device(Arc::clone(key)));
        self.store.push_back(StoreOperation::Put { id, leader_term: self.leader_term, devices });
    }

    /// Takes a device off the disk.
    pub(super) fn store_nothing(&mut self, key: &Arc<ObjectKey>) {
        let id = self.store_id(Storing::Device(Arc::clone(key)));
        self.store.push_back(StoreOperation::Forget { id, device: (**key).clone() });
    }

    /// Brings the disk to what is known of devices whose last write failed.
    pub(super) fn store_what_failed(&mut self) {
        for key in std::mem::take(&mut self.unstored) {
            if self.devices.contains_key(&key) {
                self.store_device(&key);
            } else {
                self.store_nothing(&key);
            }
        }
    }

    /// Whether a module of this size is taken. After [`UploadDecision::Accept`] comes
    /// [`Gateway::handle_module_stored`] or [`Gateway::handle_upload_ended`].
    pub fn plan_upload(&mut self, now: Now, digest: ModuleDigest, bytes: u64) -> UploadDecision {
        let bytes = match u32::try_from(bytes) {
            Ok(bytes) if (1..=MODULE_BYTES_MAX).contains(&bytes) => bytes,
            _ => return UploadDecision::BadSize,
        };
        if self.modules.contains(&digest) {
            return UploadDecision::Known;
        }
        if !self.modules.fits(bytes) {
            self.sweep_modules(now, Modules::UNREFERENCED_TIGHT_MS);
        }
        if !self.modules.fits(bytes) {
            return UploadDecision::NoSpace;
        }
        self.modules.reserve(digest, bytes);
        UploadDecision::Accept
    }

    /// Whether a module is on the disk.
    #[must_use]
    pub fn has_module(&self, digest: &ModuleDigest) -> bool {
        self.modules.contains(digest)
    }

    /// A module is on the disk.
    pub fn handle_module_stored(&mut self, now: Now, digest: ModuleDigest, bytes: u32) {
        self.modules.insert(now.ms, digest, bytes);
    }

    /// An upload ended without a module.
    pub fn handle_upload_ended(&mut self, digest: ModuleDigest) {
        self.modules.release(&digest);
    }

    /// A module was read for devices that pull it, or could not be; then it is gone from here.
    pub fn handle_module_loaded(
        &mut self,
        now: Now,
        digest: ModuleDigest,
        result: Result<Arc<[u8]>, String>,
    ) {
        let waiting = match result {
            Ok(bytes) => self.modules.loaded(now.ms, &digest, bytes),
            Err(error) => {
                self.notice(Notice::StoreFailed { detail: format!("module {digest}: {error}") });
                self.store.push_back(StoreOperation::DeleteModule { digest });
                let waiting = self.modules.remove(&digest);
                for session in &waiting {
                    self.refuse_module(*session, digest);
                }
                waiting
            }
        };
        self.wakes.extend(waiting.into_iter().filter(|session| self.sessions.contains_key(session)));
    }

    pub(super) fn sweep_modules(&mut self, now: Now, unreferenced_ms: u64) {
        let held = self.devices.values().filter_map(|record| record.set.as_ref());
        let staged = self.storing.values().flat_map(|storing| match storing {
            Storing::Sets { sets, .. } => sets.as_slice(),
            Storing::Device(_) => &[],
        });
        let referenced = held
            .chain(staged.map(|(_, set)| set))
            .flat_map(|set| set.assignments.iter().map(|assignment| assignment.body.digest))
            .collect();
        for digest in self.modules.sweep(now.ms, &referenced, unreferenced_ms) {
            self.store.push_back(StoreOperation::DeleteModule { digest });
        }
    }
}

/// What the disk keeps of a device with this set.
fn stored(record: &Record, set: Option<DeviceSet>) -> StoredDevice {
    StoredDevice {
        device: (*record.key).clone(),
        uid: record
            .object
            .as_ref()
            .map(|object| &object.uid)
            .or(record.stored_uid.as_ref())
            .map(ToString::to_string),
        admitted_key: record.admitted_key.as_deref().map(str::to_owned),
        set,
    }
}
