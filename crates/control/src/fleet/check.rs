//! Invariants of the index, for tests.

use super::{Fleet, config::WRITES_IN_FLIGHT_MAX};

impl Fleet {
    /// The first broken invariant, if any; for tests, after an input.
    ///
    /// # Errors
    /// Says which.
    pub fn check(&self) -> Result<(), &'static str> {
        self.check_index()?;
        self.check_queues()?;
        self.check_writes()
    }

    fn check_index(&self) -> Result<(), &'static str> {
        let named = self.application_ids.iter();
        let applications =
            named.filter_map(|(key, id)| self.applications.get(id).map(|found| (key, found.key())));
        if applications.filter(|(key, found)| key == found).count() != self.applications.len()
            || self.applications.len() != self.application_ids.len()
        {
            return Err("an Application is not the one that its name leads to");
        }
        let named = self.device_ids.iter();
        let devices = named.filter_map(|(key, id)| self.devices.get(id).map(|found| (key, found.key())));
        if devices.filter(|(key, found)| key == found).count() != self.devices.len()
            || self.devices.len() != self.device_ids.len()
        {
            return Err("a Device is not the one that its name leads to");
        }
        for (id, application) in &self.applications {
            let targeted =
                |device| self.devices.get(device).is_some_and(|device| device.targeted_by().contains(id));
            if !application.target_ids().iter().all(targeted) {
                return Err("a target does not know the Application that it is a target of");
            }
        }
        for (id, device) in &self.devices {
            let targets = |application| {
                self.applications.get(application).is_some_and(|it| it.target_ids().contains(id))
            };
            if !device.targeted_by().iter().all(targets) {
                return Err("an Application does not know a device that is its target");
            }
        }
        let mut indexed =
            self.named.values().chain(self.selecting.values()).chain(self.module_users.values());
        if !indexed.all(|ids| ids.iter().all(|id| self.applications.contains_key(id))) {
            return Err("an index names an Application that is gone");
        }
        Ok(())
    }

    fn check_queues(&self) -> Result<(), &'static str> {
        let mut applications = self.status_queue.keys().chain(self.rechecks.keys());
        if !applications.all(|id| self.applications.contains_key(&id)) {
            return Err("the status of an Application that is gone is to be written");
        }
        if !self
            .device_finalizers
            .keys()
            .chain(self.device_releases.keys())
            .chain(self.decommissions.keys())
            .chain(self.proofs.keys())
            .chain(self.leaving.iter().chain(&self.unrouted).copied())
            .all(|id| self.devices.contains_key(&id))
        {
            return Err("a Device that is gone is to be written or looked at");
        }
        if !self
            .gateways
            .values()
            .all(|gateway| gateway.lacking().iter().all(|id| self.devices.contains_key(id)))
        {
            return Err("a gateway is to be sent the set of a Device that is gone");
        }
        Ok(())
    }

    fn check_writes(&self) -> Result<(), &'static str> {
        if self.writes.in_flight() > WRITES_IN_FLIGHT_MAX {
            return Err("more writes are under way than are allowed");
        }
        let devices = self.devices.iter().filter(|(_, device)| device.is_writing());
        let applications = self.applications.iter().filter(|(_, application)| application.is_writing());
        let written = devices.filter(|(id, _)| self.writes.has_device(**id)).count();
        if written != self.devices.values().filter(|device| device.is_writing()).count() {
            return Err("a Device waits for a write that is not under way");
        }
        let written = applications.filter(|(id, _)| self.writes.has_application(**id)).count();
        if written != self.applications.values().filter(|application| application.is_writing()).count() {
            return Err("an Application waits for a write that is not under way");
        }
        Ok(())
    }
}
