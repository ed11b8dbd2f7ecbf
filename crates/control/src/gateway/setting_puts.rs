//! Settings of applications: from the controller to the disk and to devices.
//!
//! ```text
//! handle_put_settings ── on the disk ── offered to the session ── SettingsAnswer, see `setting_answers`
//!                                         └── again at the start of each session and with each set
//! ```
//! Who decides what a device's values are is the controller, whether one is allowed the device's module.

use std::{collections::BTreeSet, sync::Arc};

use wasmbed_protocol::ApplicationUid;

use super::{
    Gateway,
    config::UNSEEN_DEVICES_MAX,
    device::DeviceSettings,
    input::{Refused, RequestId, SettingsPutAnswer, StoreFailure},
    settings::{Given, PreparedDevice, PreparedSettings, SettingsError},
    storage::Storing,
};
use crate::{
    Now, ObjectKey,
    gateway_api::{PutSettingsAnswer, Refusal, SETTINGS_PER_PUT_MAX, SettingsRefusal},
};

/// A device whose settings are others than before.
struct Changed {
    device: Arc<ObjectKey>,
    /// Applications that have none any more.
    dropped: Vec<ApplicationUid>,
}

impl Gateway {
    /// A controller sends settings of applications on some devices. [`Gateway::poll_settings_answer`] answers, once they are on
    /// the disk.
    pub fn handle_put_settings(&mut self, now: Now, request: RequestId, put: PreparedSettings) {
        if let Err(refused) = self.check_settings(&put) {
            self.settings_answers.push_back(SettingsPutAnswer { request, result: Err(refused) });
            return;
        }
        let leader_term = put.leader_term();
        let mut named = BTreeSet::new();
        let mut changed = Vec::new();
        let mut refused = Vec::new();
        let mut unseen = self.devices.values().filter(|record| record.object().is_none()).count();
        for PreparedDevice { device, read } in put.into_devices() {
            let first = named.insert(device.clone());
            let read = if first { read } else { Err(SettingsError::Twice) };
            match self.take_settings(now, leader_term, &device, read, &mut unseen) {
                Ok(Some(change)) => changed.push(change),
                Ok(None) => {}
                Err(error) => refused.push(SettingsRefusal { device, message: error.to_string() }),
            }
        }
        for Changed { device, dropped } in &changed {
            self.offer_settings(device, dropped);
            self.stream.changed(device);
        }
        let mut devices: BTreeSet<Arc<ObjectKey>> = changed.into_iter().map(|it| it.device).collect();
        // An answer says that all of it is on the disk.
        for key in self.storage.take_failed() {
            if self.devices.contains_key(&key) {
                devices.insert(key);
            } else {
                self.storage.forget(&key);
            }
        }
        if devices.is_empty() && self.fence.is_stored(leader_term) {
            let result = Ok(PutSettingsAnswer { refused });
            self.settings_answers.push_back(SettingsPutAnswer { request, result });
            return;
        }
        self.fence.accept(leader_term);
        let stored = devices.iter().filter_map(|key| Some(self.devices.get_mut(key)?.store())).collect();
        let devices = devices.into_iter().collect();
        let then = Storing::Settings { request, leader_term, devices, refused };
        self.storage.put_sets(leader_term, stored, then);
    }

    fn check_settings(&self, put: &PreparedSettings) -> Result<(), Refused> {
        self.check_call(put.leader_term())?;
        if put.count() > SETTINGS_PER_PUT_MAX {
            let message =
                format!("{} devices in one call, at most {SETTINGS_PER_PUT_MAX} are allowed", put.count());
            let reason = "TooManySettings".to_owned();
            return Err(Refused::Invalid(Refusal { reason, message, leader_term: None }));
        }
        Ok(())
    }

    /// Takes the settings of a device.
    fn take_settings(
        &mut self,
        now: Now,
        leader_term: u64,
        device: &ObjectKey,
        read: Result<Given, SettingsError>,
        unseen: &mut usize,
    ) -> Result<Option<Changed>, SettingsError> {
        let given = read?;
        given.check_term(leader_term)?;
        if !self.devices.contains_key(device) {
            if *unseen >= UNSEEN_DEVICES_MAX {
                return Err(SettingsError::Unseen);
            }
            *unseen += 1;
        }
        let record = self.record(now, device);
        let settings = record.settings_mut();
        let mut dropped = Vec::new();
        if let Some(held) = settings.given() {
            if held.revision() > given.revision() {
                return Err(SettingsError::Lower { revision: given.revision(), held: held.revision() });
            }
            if *held == given {
                return Ok(None);
            }
            dropped.extend(held.applications().filter(|uid| !given.has(*uid)));
        }
        settings.give(given);
        Ok(Some(Changed { device: Arc::clone(record.key()), dropped }))
    }

    /// Settings are on the disk, or could not be written.
    pub(super) fn settings_stored(
        &mut self,
        request: RequestId,
        leader_term: u64,
        devices: Vec<Arc<ObjectKey>>,
        refused: Vec<SettingsRefusal>,
        result: Result<(), StoreFailure>,
    ) {
        let result = match result {
            Ok(()) => {
                self.fence.handle_stored(leader_term);
                self.store_what_failed();
                Ok(PutSettingsAnswer { refused })
            }
            Err(error) => {
                devices.into_iter().for_each(|key| self.storage.note_failed(key));
                Err(Refused::Unavailable(Refusal {
                    reason: "StoreFailed".to_owned(),
                    message: format!("the gateway's disk failed: {error}"),
                    leader_term: None,
                }))
            }
        };
        self.settings_answers.push_back(SettingsPutAnswer { request, result });
    }

    /// An answer to a controller that sent settings.
    pub fn poll_settings_answer(&mut self) -> Option<SettingsPutAnswer> {
        self.settings_answers.pop_front()
    }

    /// Has a device sent its settings, and that those applications have none any more, if it has a session that takes them.
    pub(super) fn offer_settings(&mut self, key: &Arc<ObjectKey>, dropped: &[ApplicationUid]) {
        let Some(record) = self.devices.get(key) else { return };
        let Some(given) = record.settings().and_then(DeviceSettings::given) else { return };
        let takes = record.live().is_some_and(|live| live.is_connected() && live.takes_settings());
        let Some(id) = record.session().filter(|_| takes) else { return };
        let Some(session) = self.connections.get_mut(id).filter(|session| session.is_established()) else {
            return;
        };
        // Those that the device has no set of it ignores, and gets with that set.
        session.pending_mut().offer_settings(given.applications().chain(dropped.iter().copied()));
        self.connections.wake(id);
    }
}
