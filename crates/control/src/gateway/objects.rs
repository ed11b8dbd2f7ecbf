//! Devices as the Kubernetes API shows them.

use std::sync::Arc;

use wasmbed_api::Device;

use super::{
    Enrollment, Gateway,
    admission::{self, Admission, plan_admission},
    config::UNSEEN_DEVICE_MS,
    device::{DeviceEntry, Observed, ObservedDevice},
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
        let keys: Vec<_> = self
            .devices
            .values()
            .filter(|record| record.is_gone(now, listing, UNSEEN_DEVICE_MS))
            .map(|record| Arc::clone(record.key()))
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

    /// A Device is there and can't be read, since another version of Wasmbed wrote it: what is known of it stays as it is.
    pub fn handle_unreadable_device(&mut self, now: Now, device: &ObjectKey, uid: Option<&str>) {
        let listing = self.listing;
        let Some(record) = self.devices.get_mut(device) else { return };
        if uid.is_some_and(|uid| record.is_another(uid)) {
            // It was recreated: what is known is of another Device.
            let key = Arc::clone(record.key());
            self.forget(now, &key);
            self.settle(now);
        } else {
            record.keep(listing);
        }
    }

    pub(super) fn show_device(&mut self, now: Now, device: &Device) {
        let (Some(key), Some(object)) = (ObjectKey::of(&device.metadata), ObservedDevice::new(device)) else {
            debug_assert!(false, "the API server sets namespace, name, uid and resourceVersion");
            return;
        };
        if self.devices.get(&key).is_some_and(|known| known.is_another(object.uid())) {
            // It was recreated, maybe while this gateway was away: it inherits nothing.
            self.forget(now, &Arc::new(key.clone()));
        }
        self.record(now, &key);
        let record = present!(self.devices.get_mut(&key), "the record was just made");
        match record.observe(self.listing, object) {
            Observed::Older => {}
            Observed::Echo => self.counters.echoes_skipped += 1,
            Observed::Newest { another_key } => {
                self.joining.observe(record.key(), device);
                record.adopt_trouble(now, another_key, &self.config.name);
                record.adopt_retry(now);
                let key = Arc::clone(record.key());
                self.observed(now, &key);
            }
        }
    }

    /// A Device was deleted. One of another UID than `uid` is left alone.
    pub fn handle_device_deleted(&mut self, now: Now, device: &ObjectKey, uid: Option<&str>) {
        // It may have come and gone between two lists.
        let Some(record) = self.devices.get(device) else { return };
        let known = record.object().map(|object| &**object.uid());
        if uid.is_some() && known.is_some() && uid != known {
            return;
        }
        let key = Arc::clone(record.key());
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
        record.writes_mut().object_known();
        self.writer.end_creation(record.writes_mut());
        let object = present!(record.object(), "the object was just noted");
        let known = record.known(self.synced);
        let ownership = status::ownership(object, record.live(), &self.config.name);
        let own = object.status().is_by(&self.config.name);
        let (session, awaiting) = (record.session(), record.awaiting());
        let stored_changed = record.is_stored_as_another();
        let decommissioned = object.is_decommissioned();
        let kept_out = !object.is_let_in(self.config.enrollment != Enrollment::Open);
        let refused =
            session.and_then(|id| self.connections.get(id)).and_then(|session| {
                match plan_admission(self.config.enrollment, known, session.public_key()) {
                    Admission::Refuse(refusal) => Some(refusal),
                    Admission::Admit | Admission::Enroll { .. } => None,
                }
            });
        // What the disk says decides who is let in while the API is away.
        let kept_out = kept_out && record.keep_out();
        let ended = decommissioned && record.decommission().is_some();
        let order_ended = ended && record.end_decommission();
        if kept_out || order_ended || stored_changed {
            self.store_device(key);
        }
        if ended {
            self.stream.changed(key);
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
        if ownership == Ownership::Lost && own {
            let record = present!(self.devices.get_mut(key), "the end of a session forgets no device");
            record.forget_session();
            self.stream.changed(key);
        }
        if let Some(awaiting) = awaiting {
            self.readmit(now, awaiting);
        }
        self.joining_observed(now, key);
        self.changed.insert(Arc::clone(key));
    }

    /// Ends the session of a device and drops all that is known of it.
    pub(super) fn forget(&mut self, now: Now, key: &Arc<ObjectKey>) {
        let record = present!(self.devices.get_mut(key), "only what is known is forgotten");
        self.writer.forget(key, record.writes_mut());
        let on_disk = record.is_on_disk();
        let sessions = record.take_sessions();
        self.devices.remove(key);
        self.stream.forgotten(key);
        self.joining_forgot(now, key);
        if let Some(messages) = &mut self.messages {
            messages.forget(key);
        }
        for session in sessions {
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
                .filter(|record| record.is_unseen_for(now, UNSEEN_DEVICE_MS))
                .map(|record| Arc::clone(record.key()))
                .collect();
            for key in unseen {
                self.forget(now, &key);
            }
        }
        let overdue: Vec<_> = self
            .devices
            .values_mut()
            .filter_map(|record| record.allowance_mut().overdue_event(now.ms))
            .collect();
        overdue.into_iter().for_each(|event| self.queue_event(event));
        self.sweep_trouble(now);
        self.joining.sweep(now.ms);
        self.sweep_messages();
        self.store_what_failed();
        self.bodies.drop_unused();
        self.sweep_modules(now, super::config::MODULE_UNREFERENCED_MS);
    }
}
