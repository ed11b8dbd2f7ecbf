//! What controllers put here: sets and modules.

use std::{collections::BTreeSet, sync::Arc};

use wasmbed_protocol::{ModuleDigest, Revision, limits::MODULE_BYTES_MAX};

use super::{
    Gateway,
    config::{STORE_OPERATIONS_MAX, UNSEEN_DEVICES_MAX},
    device::Offer,
    input::{Answer, Notice, Refused, RequestId, StoreFailure, StoreId, UploadDecision},
    sets::{Body, Modules, PreparedSet, PreparedSets, Set},
    storage::{CheckedSet, Storing},
};
use crate::{
    Now, ObjectKey,
    gateway_api::{DeviceSet, PutSetsAnswer, Refusal, SETS_PER_PUT_MAX, SetRefusal},
};

impl Gateway {
    /// Whether the leader's Lease is to be read, for [`Gateway::handle_leader_lease`], before sets of this term are handled: it
    /// is a later term than any that was seen in it, as that of each new leader is.
    #[must_use]
    pub fn needs_leader_lease(&self, term: u64) -> bool {
        self.fence.needs_lease(term)
    }

    /// The leader's Lease was read: its `leaseTransitions`, 0 if there is no such Lease.
    pub fn handle_leader_lease(&mut self, term: u64) {
        self.fence.handle_lease(term);
    }

    /// The leader's Lease could not be read; the error is for people. Until it is, sets of a later term are refused: nobody
    /// was seen to lead in it.
    pub fn handle_leader_lease_failed(&mut self, error: String) {
        self.fence.handle_lease_failed(error);
    }

    /// A controller sends desired sets. [`Gateway::poll_answer`] answers, once they are on the disk.
    pub fn handle_put_sets(&mut self, now: Now, request: RequestId, put: PreparedSets) {
        let refused = self.check_put(&put).err();
        if let Some(refused) = refused {
            self.answers.push_back(Answer { request, result: Err(refused) });
            return;
        }
        let mut taken: Vec<CheckedSet> = Vec::new();
        let mut devices = Vec::new();
        let mut refused = Vec::new();
        let mut unseen = self.devices.values().filter(|record| record.object().is_none()).count();
        let leader_term = put.leader_term();
        for set in put.into_sets() {
            match self.check_set(now, set, &taken, &mut unseen) {
                Ok(Some((entry, set))) => {
                    devices.extend(self.devices.get(&entry.0).map(|record| record.as_stored(Some(set))));
                    taken.push(entry);
                }
                Ok(None) => {}
                Err(refusal) => refused.push(*refusal),
            }
        }
        if taken.is_empty() && self.fence.is_stored(leader_term) {
            self.answers.push_back(Answer { request, result: Ok(PutSetsAnswer { refused }) });
            return;
        }
        self.fence.accept(leader_term);
        for (key, set) in &taken {
            if let Some(record) = self.devices.get_mut(key) {
                record.delivery_mut().stage(set);
            }
        }
        let then = Storing::Sets { request, leader_term, sets: taken, refused };
        self.storage.put_sets(leader_term, devices, then);
    }

    /// Whether a call is taken at all.
    fn check_put(&self, put: &PreparedSets) -> Result<(), Refused> {
        let refusal =
            |reason: &str, message: String| Refusal { reason: reason.to_owned(), message, leader_term: None };
        self.check_call(put.leader_term())?;
        if put.count() > SETS_PER_PUT_MAX {
            let message = format!("{} sets in one call, at most {SETS_PER_PUT_MAX} are allowed", put.count());
            return Err(Refused::Invalid(refusal("TooManySets", message)));
        }
        Ok(())
    }

    /// Whether a controller may put something now.
    pub(super) fn check_call(&self, leader_term: u64) -> Result<(), Refused> {
        let refusal =
            |reason: &str, message: String| Refusal { reason: reason.to_owned(), message, leader_term: None };
        if let Some(why) = &self.kept_from {
            return Err(Refused::Unavailable(refusal("NotHolder", why.clone())));
        }
        self.fence.check(leader_term)?;
        if self.storage.awaiting() >= STORE_OPERATIONS_MAX {
            let message = "the disk does not keep up; try again".to_owned();
            return Err(Refused::Unavailable(refusal("Overloaded", message)));
        }
        if self.shutting_down {
            let message = "the gateway stops".to_owned();
            return Err(Refused::Unavailable(refusal("ShuttingDown", message)));
        }
        Ok(())
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
            return Err(refuse("the device appears twice in this call".to_owned()));
        }
        let (mut parsed, exchange) = read.map_err(|error| refuse(error.to_string()))?;
        let missing: BTreeSet<ModuleDigest> =
            parsed.bodies().map(Body::digest).filter(|digest| !self.modules.contains(digest)).collect();
        if !missing.is_empty() {
            let missing_modules = missing.iter().map(ToString::to_string).collect();
            let refusal = refuse("modules must be uploaded first".to_owned());
            return Err(Box::new(SetRefusal { missing_modules, ..*refusal }));
        }
        // A device that was promised more than there is would wait for ever.
        for body in parsed.bodies() {
            let said = body.module_bytes();
            if let Some(bytes) = self.modules.size(&body.digest()).filter(|bytes| *bytes != said) {
                let wrong = format!("module_bytes is {said}, but the module has {bytes}");
                return Err(refuse(format!("{}: {wrong}", body.application())));
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
        let revision = parsed.revision();
        let (held, message) = match record.delivery().offer(&parsed) {
            Offer::Store => return Ok(Some(((Arc::clone(record.key()), Arc::new(parsed)), exchange))),
            Offer::Held => return Ok(None),
            Offer::Taken => (revision, format!("revision {revision} already identifies a different set")),
            Offer::Lower(seen) => (seen, format!("revision {revision} is lower than {seen}")),
        };
        Err(Box::new(SetRefusal { held_revision: Some(held), ..*refuse(message) }))
    }

    /// A storage operation ended.
    pub fn handle_stored(&mut self, now: Now, id: StoreId, result: Result<(), StoreFailure>) {
        let storing = present!(self.storage.handle_end(id), "an operation is answered once");
        if let Err(error) = &result {
            self.notice(Notice::StoreFailed { detail: error.to_string() });
        }
        let (request, leader_term, sets, refused) = match storing {
            Storing::Sets { request, leader_term, sets, refused } => (request, leader_term, sets, refused),
            Storing::Orders { request, leader_term, devices, refused } => {
                return self.orders_stored(request, leader_term, devices, refused, result);
            }
            Storing::Settings { request, leader_term, devices, refused } => {
                return self.settings_stored(request, leader_term, devices, refused, result);
            }
            Storing::Device(key) => {
                match result {
                    Ok(()) => self.store_what_failed(),
                    Err(_) => self.storage.note_failed(key),
                }
                return;
            }
        };
        for (key, set) in &sets {
            if let Some(record) = self.devices.get_mut(key) {
                record.delivery_mut().end_staging(set);
            }
        }
        let result = match result {
            Ok(()) => {
                self.fence.handle_stored(leader_term);
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
        self.settle(now);
    }

    fn take_set(&mut self, now: Now, key: &Arc<ObjectKey>, set: Arc<Set>) {
        // Its Device was deleted while the set was on its way to the disk, or is another of that name now.
        let Some(record) = self.devices.get_mut(key).filter(|record| Arc::ptr_eq(record.key(), key)) else {
            return;
        };
        let revision = Revision(set.revision());
        if !record.delivery_mut().take(set) {
            return;
        }
        self.notice(Notice::SetTaken { device: Arc::clone(key), revision });
        self.stream.changed(key);
        self.offer_desired(key);
        self.offer_settings(key, &[]);
        self.resume_messages_of(now, key);
        self.changed.insert(Arc::clone(key));
    }

    /// Writes what is known of a device to the disk.
    pub(super) fn store_device(&mut self, key: &Arc<ObjectKey>) {
        let record = present!(self.devices.get_mut(key), "only what is known is stored");
        self.storage.put_device(self.fence.highest(), Arc::clone(key), record.store());
    }

    /// Brings the disk to what is known of devices whose last write failed.
    pub(super) fn store_what_failed(&mut self) {
        for key in self.storage.take_failed() {
            if self.devices.contains_key(&key) {
                self.store_device(&key);
            } else {
                self.storage.forget(&key);
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
        result: Result<Arc<[u8]>, StoreFailure>,
    ) {
        let waiting = match result {
            Ok(bytes) => self.modules.loaded(now.ms, &digest, bytes),
            Err(error) => {
                self.notice(Notice::StoreFailed { detail: format!("module {digest}: {error}") });
                self.storage.delete_module(digest);
                let waiting = self.modules.remove(&digest);
                for session in &waiting {
                    self.refuse_module(*session, digest);
                }
                waiting
            }
        };
        for session in waiting {
            self.connections.wake(session);
        }
    }

    pub(super) fn sweep_modules(&mut self, now: Now, unreferenced_ms: u64) {
        let held = self.devices.values().filter_map(|record| record.delivery().held());
        let staged = self.storage.staged().map(|(_, set)| &**set);
        let referenced = held.chain(staged).flat_map(|set| set.bodies().map(Body::digest)).collect();
        for digest in self.modules.sweep(now.ms, &referenced, unreferenced_ms) {
            self.storage.delete_module(digest);
        }
    }
}
