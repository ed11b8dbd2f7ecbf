//! Devices as the Kubernetes API shows them.

use std::sync::Arc;

use wasmbed_api::Device;

use super::{
    Enrollment, Gateway,
    admission::{self, Admission, Known, plan_admission},
    config::UNSEEN_DEVICE_MS,
    device::{DeviceEntry, ObservedDevice},
    sessions::SUPERSEDED,
    status::{self, Ownership},
};
use crate::{Now, ObjectKey};

impl Gateway {
    /// A list of all Devices begins; each follows with [`Gateway::handle_device`].
    pub fn handle_list_started(&mut self) {
        self.listing += 1;
    }

    /// The list is complete: what was not in it is gone.
    pub fn handle_list_done(&mut self, now: Now) {
        self.synced = true;
        self.orphans_from_ms.get_or_insert(now.ms + u64::from(self.config.heartbeat_timeout_ms));
        let listing = self.listing;
        let gone = |record: &DeviceEntry| {
            record.listing < listing
                && (record.object.is_some()
                    || now.ms.saturating_sub(record.unseen_since_ms) >= UNSEEN_DEVICE_MS)
        };
        let restored = |record: &DeviceEntry| record.object.is_none() && record.stored_uid.is_some();
        let keys: Vec<_> = self
            .devices
            .values()
            .filter(|record| gone(record) || (record.listing < listing && restored(record)))
            .map(|record| Arc::clone(&record.key))
            .collect();
        for key in keys {
            self.forget(now, &key);
        }
        self.changed.extend(self.devices.keys().cloned());
        self.settle(now);
    }

    /// A Device is new or changed, or is part of a list.
    pub fn handle_device(&mut self, now: Now, device: &Device) {
        self.show_device(now, device);
        self.settle(now);
    }

    pub(super) fn show_device(&mut self, now: Now, device: &Device) {
        let (Some(key), Some(mut object)) = (ObjectKey::of(&device.metadata), ObservedDevice::new(device))
        else {
            debug_assert!(false, "the API server sets namespace, name, uid and resourceVersion");
            return;
        };
        let known = self.devices.get(&key);
        if let Some(uid) = known.and_then(|known| known.object.as_ref().map(|known| known.uid.clone()))
            && uid != object.uid
        {
            self.forget(now, &Arc::new(key.clone()));
        } else if let Some(uid) = known.and_then(|known| known.stored_uid.clone())
            && uid != object.uid
        {
            // It was recreated while this gateway was away: it inherits nothing.
            self.forget(now, &Arc::new(key.clone()));
        }
        let listing = self.listing;
        let gateway = self.config.name.clone();
        let record = self.record(now, &key);
        record.listing = listing;
        if let Some(known) = &record.object {
            if object.is_older_than(known) {
                return;
            }
            // What the answer to our own write showed comes again by the watch.
            if object.is_version_of(known) {
                self.counters.echoes_skipped += 1;
                return;
            }
        }
        object.share(record);
        let before = record.object.as_ref().map(|known| known.public_key.clone());
        record.object = Some(object);
        let before = before.as_ref().map(|key| key.as_deref());
        Self::adopt_trouble(now, record, before, &gateway);
        status::adopt_retry(now, record);
        let key = Arc::clone(&record.key);
        self.observed(now, &key);
    }

    /// A Device was deleted. One of another UID than `uid` is left alone.
    pub fn handle_device_deleted(&mut self, now: Now, device: &ObjectKey, uid: Option<&str>) {
        let Some(record) = self.devices.get(device) else { return };
        let known = record.object.as_ref().map(|object| &*object.uid);
        if uid.is_some() && known.is_some() && uid != known {
            return;
        }
        let key = Arc::clone(&record.key);
        self.forget(now, &key);
        self.settle(now);
    }

    /// The record of a device, made if there is none.
    pub(super) fn record(&mut self, now: Now, key: &ObjectKey) -> &mut DeviceEntry {
        let key = match self.devices.get_key_value(key) {
            Some((known, _)) => Arc::clone(known),
            None => {
                let key = Arc::new(key.clone());
                self.stream.changed(&key);
                key
            }
        };
        self.devices.entry(Arc::clone(&key)).or_insert_with(|| Box::new(DeviceEntry::new(now, key)))
    }

    /// Draws the consequences of what an object shows.
    fn observed(&mut self, now: Now, key: &Arc<ObjectKey>) {
        let record = present!(self.devices.get_mut(key), "the object was just noted");
        let object = present!(&record.object, "the object was just noted");
        record.write.refetch = false;
        self.creating -= usize::from(record.write.create.take().is_some());
        let known = Known::Object {
            approved: object.approved,
            revoked: object.revoked,
            public_key: object.public_key.as_deref(),
        };
        let ownership = status::ownership(object, record.live.as_deref(), &self.config.name);
        let (session, awaiting) = (record.session, record.awaiting);
        let stored_changed = record.stored_uid.as_ref() != Some(&object.uid) && record.set.is_some();
        let kept_out = object.revoked || (!object.approved && self.config.enrollment != Enrollment::Open);
        let refused =
            session.and_then(|id| self.connections.get(id)).and_then(|session| {
                match plan_admission(self.config.enrollment, known, session.public_key()) {
                    Admission::Refuse(refusal) => Some(refusal),
                    Admission::Admit | Admission::Enroll { .. } => None,
                }
            });
        // What the disk says decides who is let in while the API is away.
        if kept_out && record.admitted_key.take().is_some() || stored_changed {
            self.store_device(key);
        }
        if let Some(session) = session {
            if let Some(refusal) = refused {
                self.end(now, session, refusal);
            } else {
                match ownership {
                    Ownership::Lost => self.end(now, session, SUPERSEDED),
                    Ownership::Own => self.welcome(now, session, true),
                    Ownership::Claimable | Ownership::None => {}
                }
            }
        }
        // An earlier life of this gateway wrote a later epoch than this one gave, to a device whose own numbers were not believed.
        // What became of the session is then said as of any session of that life.
        if ownership == Ownership::Lost
            && let Some(record) = self.devices.get_mut(key)
            && record
                .object
                .as_ref()
                .is_some_and(|object| object.base.gateway.as_deref() == Some(&self.config.name))
        {
            record.live = None;
            self.stream.changed(key);
        }
        if let Some(awaiting) = awaiting {
            self.readmit(now, awaiting);
        }
        self.changed.insert(Arc::clone(key));
    }

    /// Ends the session of a device and drops all that is known of it.
    pub(super) fn forget(&mut self, now: Now, key: &Arc<ObjectKey>) {
        let record = present!(self.devices.get_mut(key), "only what is known is forgotten");
        self.writer.remove(key, &mut record.write);
        self.creating -= usize::from(record.write.create.take().is_some());
        let on_disk = record.stored_uid.is_some() || record.set.is_some() || record.admitted_key.is_some();
        let sessions = [record.session.take(), record.awaiting.take()];
        self.devices.remove(key);
        self.stream.forgotten(key);
        for session in sessions.into_iter().flatten() {
            self.end(now, session, admission::DELETED);
        }
        if on_disk {
            self.storage.forget(key);
        }
    }

    /// Devices that a controller knew and that never appeared, modules that no set names.
    pub(super) fn sweep(&mut self, now: Now) {
        if self.synced {
            let unseen: Vec<_> = self
                .devices
                .values()
                .filter(|record| record.object.is_none() && record.write.create.is_none())
                .filter(|record| record.write.in_flight.is_none())
                .filter(|record| now.ms.saturating_sub(record.unseen_since_ms) >= UNSEEN_DEVICE_MS)
                .map(|record| Arc::clone(&record.key))
                .collect();
            for key in unseen {
                self.forget(now, &key);
            }
        }
        let overdue: Vec<_> = self
            .devices
            .values_mut()
            .filter_map(|record| record.allowance.events.as_mut()?.overdue(now.ms))
            .collect();
        overdue.into_iter().for_each(|event| self.queue_event(event));
        self.sweep_trouble(now);
        self.store_what_failed();
        self.bodies.drop_unused();
        self.sweep_modules(now, super::config::MODULE_UNREFERENCED_MS);
    }
}
