//! Calls to gateways: sets, and the modules that they need first.

use std::collections::BTreeMap;

use wasmbed_protocol::{CorrelationId, ModuleDigest};

use super::{
    Fleet,
    application_entry::Application,
    config::{PUT_BYTES_MAX, UPLOADS_IN_FLIGHT_MAX},
    device_entry::Device,
    gateways::Gateway,
    input::{CallId, Put, PutOutcome, Upload, UploadOutcome, UploadSource},
    record::DeviceId,
    set::{Member, PlannedSet},
    source::ModuleSource,
};
use crate::{
    Now,
    gateway_api::{DeviceSet, PutSets, SETS_PER_PUT_MAX},
};

impl Fleet {
    /// The next PUT of sets; at most one per gateway is on its way. Call until there is none. The first one of a term goes to
    /// every live gateway, empty if it lacks nothing: from then on it refuses what an earlier leader still has on its way.
    pub fn poll_put(&mut self, now: Now) -> Option<Put> {
        self.settle(now);
        let leader_term = self.term.filter(|_| self.term_wanted().is_none() && self.is_complete())?;
        let names: Vec<String> = self
            .gateways
            .iter()
            .filter(|(_, gateway)| gateway.wants_put(now.ms, leader_term) && self.is_live(now, gateway))
            .map(|(name, _)| name.clone())
            .collect();
        names.into_iter().find_map(|name| self.put_to(&name, leader_term))
    }

    fn put_to(&mut self, name: &str, leader_term: u64) -> Option<Put> {
        let gateway = self.gateways.get(name)?;
        let address = gateway.address()?.clone();
        let mut wanted = Vec::new();
        let mut sets = Vec::new();
        let mut bytes = 0;
        for id in gateway.lacking() {
            let missing = self.missing_modules(*id, gateway);
            if !missing.is_empty() {
                wanted.extend(missing);
                continue;
            }
            let Some(set) = self.device_set(*id) else { continue };
            // The text around an assignment's base64 is below 512 bytes.
            bytes += set.assignments.iter().map(|entry| entry.spec.len() + 512).sum::<usize>() + 512;
            if sets.len() == SETS_PER_PUT_MAX || (bytes > PUT_BYTES_MAX && !sets.is_empty()) {
                break;
            }
            sets.push((*id, set));
        }
        let revisions: BTreeMap<DeviceId, u64> = sets.iter().map(|(id, set)| (*id, set.revision)).collect();
        let id = self.next_call();
        let gateway = self.gateways.get_mut(name)?;
        if !gateway.begin_put(id, leader_term, revisions, wanted.into_iter().collect()) {
            return None;
        }
        for (device_id, _) in &sets {
            if let Some(device) = self.devices.get_mut(device_id) {
                device.issue();
            }
        }
        let body = PutSets { leader_term, sets: sets.into_iter().map(|(_, set)| set).collect() };
        Some(Put { id, gateway: name.to_owned(), address, body })
    }

    fn device_set(&self, id: DeviceId) -> Option<DeviceSet> {
        let device = self.devices.get(&id)?;
        let planned = device.planned()?;
        let entry = |member: &Member| {
            let application = self.applications.get(&member.id())?;
            let (uid, name) = (application.uid(), application.key().to_string());
            Some(member.assigned().entry(uid, name, application.spec().correlation))
        };
        // All or nothing: a set that lost a member on the way would stop it on the device.
        let assignments = planned.members().iter().map(entry).collect::<Option<Vec<_>>>()?;
        Some(DeviceSet { device: device.key().clone(), revision: planned.revision(), assignments })
    }

    fn missing_modules(&self, id: DeviceId, gateway: &Gateway) -> Vec<ModuleDigest> {
        let planned = self.devices.get(&id).and_then(Device::planned);
        let members = planned.into_iter().flat_map(PlannedSet::members);
        members.map(|member| member.assigned().digest).filter(|digest| !gateway.has_module(digest)).collect()
    }

    /// How a PUT ended.
    pub fn handle_put_outcome(&mut self, now: Now, name: &str, id: CallId, outcome: PutOutcome) {
        let gateway = present!(self.gateways.get_mut(name), "a gateway that was called is known");
        // The call was of an earlier term.
        let Some(end) = gateway.end_put(now, &self.config, id, outcome) else { return };
        self.term_seen = self.term_seen.max(end.term_seen.unwrap_or(0));
        let mut trouble = None;
        for refusal in end.refused {
            let Some(device_id) = self.device_ids.get(&refusal.device).copied() else { continue };
            let held = gateway.handle_refusal(device_id, &refusal);
            // Other content has that revision, or a later one: ours needs a new one.
            let device = self.devices.get_mut(&device_id);
            let gave_way = device.map(|device| (device.planned().is_some(), device.give_way(held)));
            match gave_way {
                Some((_, true)) => {}
                Some((true, false)) if !refusal.missing_modules.is_empty() => {}
                Some((true | false, false)) | None => trouble = Some(refusal.message),
            }
        }
        // However many sets it refused, it was one attempt.
        if let Some(message) = trouble {
            gateway.fail(now, &self.config, message);
        }
        // A Device that is gone since has no set any more.
        for device_id in
            end.devices.into_iter().filter(|id| self.devices.contains_key(id)).collect::<Vec<_>>()
        {
            self.device_changed(now, device_id);
        }
    }

    /// The next module for a gateway; at most one per gateway is on its way. Call until there is none.
    pub fn poll_upload(&mut self, now: Now) -> Option<Upload> {
        self.term?;
        if self.gateways.values().filter(|gateway| gateway.has_upload()).count() >= UPLOADS_IN_FLIGHT_MAX {
            return None;
        }
        let ready = self
            .gateways
            .iter()
            .filter(|(_, gateway)| gateway.takes_upload(now.ms) && self.is_live(now, gateway));
        let (name, digest, source, correlation_id) = ready
            .filter_map(|(name, gateway)| {
                let found = gateway
                    .uploads_wanted()
                    .iter()
                    .find_map(|digest| Some((*digest, self.source_of(*digest)?)));
                found.map(|(digest, (source, correlation))| (name.clone(), digest, source, correlation))
            })
            .next()?;
        let id = self.next_call();
        let gateway = self.gateways.get_mut(&name)?;
        gateway.begin_upload(id, digest);
        let address = gateway.address()?.clone();
        Some(Upload { id, gateway: name, address, digest, source, correlation_id })
    }

    /// The member of a device's set whose module a gateway lacks and no object holds any more.
    pub(super) fn lost_module(&self, id: DeviceId, gateway: &Gateway) -> Option<&Application> {
        if gateway.uploads_wanted().is_empty() {
            return None;
        }
        let mut members = self.devices.get(&id)?.planned()?.members().iter();
        let lost = members.find(|member| {
            let digest = member.assigned().digest;
            gateway.uploads_wanted().contains(&digest) && self.source_of(digest).is_none()
        });
        self.applications.get(&lost?.id())
    }

    /// An object that holds the bytes of a module.
    fn source_of(&self, digest: ModuleDigest) -> Option<(UploadSource, CorrelationId)> {
        let of_this_generation = self.applications.values().find_map(|application| {
            application.assigned().filter(|assigned| assigned.digest == digest)?;
            let source = match &application.spec().source {
                ModuleSource::Inline(facts) if facts.digest == digest => {
                    UploadSource::Application(application.key().clone())
                }
                ModuleSource::Named(name) => {
                    let key = application.key().sibling(name);
                    self.modules.get(&key).filter(|facts| facts.digest == digest)?;
                    UploadSource::Module(key)
                }
                ModuleSource::Inline(_) | ModuleSource::InvalidBase64(_) | ModuleSource::Absent => {
                    return None;
                }
            };
            Some((source, application.spec().correlation))
        });
        of_this_generation.or_else(|| self.source_of_earlier(digest))
    }

    /// A Module with the bytes of an earlier generation, which some device goes on with.
    fn source_of_earlier(&self, digest: ModuleDigest) -> Option<(UploadSource, CorrelationId)> {
        let (key, _) = self.modules.iter().find(|(_, facts)| facts.digest == digest)?;
        let planned = self.devices.values().filter_map(Device::planned);
        let member =
            planned.flat_map(PlannedSet::members).find(|member| member.assigned().digest == digest)?;
        let application = self.applications.get(&member.id())?;
        Some((UploadSource::Module(key.clone()), application.spec().correlation))
    }

    /// How an upload ended.
    pub fn handle_upload_outcome(&mut self, now: Now, name: &str, id: CallId, outcome: UploadOutcome) {
        let gateway = present!(self.gateways.get_mut(name), "a gateway that was called is known");
        if !gateway.end_upload(now, &self.config, id, outcome) {
            return;
        }
        for device_id in gateway.lacking().iter().copied().collect::<Vec<_>>() {
            self.schedule_statuses_of(now, device_id);
        }
    }
}
