//! Devices and what gateways say of them come in, change and go.

use std::{collections::BTreeSet, sync::Arc};

use wasmbed_api::{Device as Resource, DeviceFacts};

use super::{
    Fleet,
    device_entry::Device,
    gateways::Gateway,
    input::Kind,
    record::{ApplicationId, DeviceId, Seen},
    view::{LatestView, View},
};
use crate::{Now, ObjectKey, gateway_api::DeviceView};

impl Fleet {
    /// A Device exists.
    pub fn handle_device(&mut self, now: Now, resource: &Resource) {
        let metadata = &resource.metadata;
        let key = present!(ObjectKey::of(metadata), "the API server sets namespace and name");
        self.mark_listed(Kind::Device, &key);
        let uid = metadata.uid.clone().unwrap_or_default().into_boxed_str();
        let recreated = |id: &DeviceId| self.devices.get(id).is_some_and(|device| *device.uid() != *uid);
        if self.device_ids.get(&key).is_some_and(recreated) {
            // The same name with another UID is another Device.
            self.handle_device_deleted(now, &key);
        }
        let seen = self.read_status(resource);
        let known = self.device_ids.get(&key).copied();
        let id = known.unwrap_or_else(|| {
            self.next_id += 1;
            DeviceId(self.next_id)
        });
        let device = self.devices.entry(id).or_insert_with(|| Device::new(key.clone(), uid));
        let retarget = device.observe(resource, seen) || known.is_none();
        self.requests.device_changed(&key);
        self.device_ids.insert(key, id);
        if retarget {
            self.retarget_device(now, id);
        }
        self.device_changed(now, id);
    }

    /// A Device is gone.
    pub fn handle_device_deleted(&mut self, now: Now, key: &ObjectKey) {
        // It may have come and gone between two lists.
        let Some(id) = self.device_ids.remove(key) else { return };
        let device = present!(self.devices.remove(&id), "an indexed Device is there");
        for application_id in device.targeted_by() {
            let application = self.applications.get_mut(application_id);
            present!(application, "who targets a Device is indexed").set_target(id, false);
            self.schedule_status(now, *application_id);
        }
        for gateway in self.gateways.values_mut() {
            gateway.forget_device(id);
        }
        self.unreachable.remove(&id);
        self.finishing.remove(&id);
        self.replan.remove(&id);
        self.releasing.remove(&id);
        self.device_finalizers.remove(id);
        self.device_releases.remove(id);
        self.forget_decommission(id);
    }

    pub(super) fn handle_view(&mut self, now: Now, name: &str, view: &DeviceView) {
        let facts = view.facts.as_ref().map(|facts| self.intern_facts(facts));
        let read = View::read(view, facts);
        let gateway = present!(self.gateways.get_mut(name), "the gateway was just noted");
        let counts = gateway.show(view.device.clone(), read);
        if let Some(id) = self.device_ids.get(&view.device).copied().filter(|_| counts) {
            self.device_changed(now, id);
        }
    }

    pub(super) fn handle_forgotten(&mut self, now: Now, name: &str, key: &ObjectKey) {
        let id = self.device_ids.get(key).copied();
        let gateway = present!(self.gateways.get_mut(name), "the gateway was just noted");
        gateway.forget_view(key, id);
        if let Some(id) = id {
            self.device_changed(now, id);
        }
    }

    /// What the gateway said before is void: every device that it is about is looked at anew.
    pub(super) fn end_snapshot(&mut self, now: Now, name: &str) {
        let gateway = present!(self.gateways.get_mut(name), "the gateway was just noted");
        // Another version's gateway may end a snapshot that it did not begin.
        let Some(keys) = gateway.end_snapshot() else { return };
        let claims = |device: &Device| device.seen().gateway() == Some(name);
        let claimed = self.devices.iter().filter(|(_, device)| claims(device));
        let named = keys.iter().filter_map(|key| self.device_ids.get(key));
        let ids: BTreeSet<DeviceId> = claimed.map(|(id, _)| id).chain(named).copied().collect();
        for id in ids {
            self.device_changed(now, id);
        }
    }

    pub(super) fn stream_down(&mut self, now: Now, name: &str) {
        // A DeviceGateway may be deleted that was never known.
        let Some(gateway) = self.gateways.get_mut(name) else { return };
        gateway.stream_ended();
        let ids: Vec<DeviceId> =
            gateway.devices().filter_map(|key| self.device_ids.get(key).copied()).collect();
        for id in ids {
            self.schedule_statuses_of(now, id);
            self.look_at_decommission(now, id);
        }
    }

    /// Has a device planned anew, and everything that depends on it looked at.
    pub(super) fn device_changed(&mut self, now: Now, id: DeviceId) {
        self.replan.insert(id);
        self.schedule_statuses_of(now, id);
        self.look_at_decommission(now, id);
    }

    pub(super) fn schedule_statuses_of(&mut self, now: Now, id: DeviceId) {
        let applications: Vec<ApplicationId> =
            self.devices.get(&id).into_iter().flat_map(Device::targeted_by).copied().collect();
        for application_id in applications {
            self.schedule_status(now, application_id);
        }
    }

    /// The view with the highest epoch, or `Device.status` if that is newer than any view. What a gateway said that is gone since
    /// does not count next to a session that is established elsewhere: it can have given a later epoch that nobody else knows, and
    /// one that a device reports is not always believed.
    pub(super) fn latest_view<'a>(&'a self, now: Now, device: &'a Device) -> LatestView<'a> {
        let seen = device.seen();
        let views = || {
            let views =
                self.gateways.values().filter_map(|gateway| Some((gateway, gateway.view(device.key())?)));
            views.map(|(gateway, view)| (view, self.is_live(now, gateway)))
        };
        let stands = views().any(|(view, live)| live && view.is_connected() && view.epoch() >= seen.epoch());
        let newest = views()
            .filter(|(_, live)| *live || !stands)
            .max_by_key(|(view, live)| (view.epoch(), view.is_connected() && *live));
        match newest {
            Some((view, live)) if view.epoch() >= seen.epoch() => LatestView::of_view(view, live, seen),
            Some(_) | None => {
                let gateway = seen.gateway().and_then(|name| self.gateways.get(name));
                LatestView::of_status(seen, gateway.is_some_and(|gateway| self.is_live(now, gateway)))
            }
        }
    }

    /// Judged at the moment up to which the watch of Leases has shown every write: it may lag behind by any time, and what it
    /// has not shown yet may be a renewal. One that lags far behind says nothing against a gateway.
    pub(super) fn is_live(&self, now: Now, gateway: &Gateway) -> bool {
        let recent = |shown_ms: &u64| now.ms.saturating_sub(*shown_ms) <= self.config.lease_watch_silence_ms;
        let Some(shown_ms) = self.leases_shown_ms.filter(recent) else { return true };
        gateway.is_live(shown_ms, self.api_since(now), self.config.lease_grace_ms)
    }

    /// Why a device last started differs from device to device and means nothing to a plan.
    fn intern_facts(&mut self, facts: &DeviceFacts) -> Arc<DeviceFacts> {
        self.facts.intern(DeviceFacts { reset_reason: None, ..facts.clone() })
    }

    fn read_status(&mut self, resource: &Resource) -> Seen {
        let Some(status) = &resource.status else { return Seen::default() };
        let facts = status.facts.as_ref().map(|facts| self.intern_facts(facts));
        Seen::read(status, facts)
    }
}
