//! Calls to gateways: sets, and the modules that they need first.

use std::collections::BTreeMap;

use wasmbed_protocol::{CorrelationId, ModuleDigest};

use super::{
    Fleet,
    config::{PUT_BYTES_MAX, UPLOADS_IN_FLIGHT_MAX},
    gateways::PutInFlight,
    input::{CallId, Put, PutOutcome, Upload, UploadOutcome, UploadSource},
    record::{Application, DeviceId, Prepared},
    source::ModuleSource,
};
use crate::{
    Now,
    election::TERM_MAX,
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
            .filter(|(_, gateway)| {
                gateway.snapshot_in
                    && gateway.put.is_none()
                    && (!gateway.stale.is_empty() || gateway.acknowledged_term != Some(leader_term))
                    && gateway.retry.is_ready(now.ms)
                    && self.is_live(now, gateway)
            })
            .map(|(name, _)| name.clone())
            .collect();
        names.into_iter().find_map(|name| self.put_to(&name, leader_term))
    }

    fn put_to(&mut self, name: &str, leader_term: u64) -> Option<Put> {
        let gateway = self.gateways.get(name)?;
        let address = gateway.address.clone()?;
        let mut wanted = Vec::new();
        let mut sets = Vec::new();
        let mut bytes = 0;
        for id in &gateway.stale {
            let missing = self.missing_modules(*id, &gateway.modules);
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
        gateway.uploads_wanted = wanted.into_iter().collect();
        if sets.is_empty() && gateway.acknowledged_term == Some(leader_term) {
            return None;
        }
        for device_id in revisions.keys() {
            gateway.stale.remove(device_id);
            if let Some(planned) = self.devices.get_mut(device_id).and_then(|device| device.planned.as_mut())
            {
                planned.issued = true;
            }
        }
        gateway.put = Some(PutInFlight { id, term: leader_term, sets: revisions });
        let body = PutSets { leader_term, sets: sets.into_iter().map(|(_, set)| set).collect() };
        Some(Put { id, gateway: name.to_owned(), address, body })
    }

    fn device_set(&self, id: DeviceId) -> Option<DeviceSet> {
        let device = self.devices.get(&id)?;
        let planned = device.planned.as_ref()?;
        let entry = |member| {
            let application = self.applications.get(member)?;
            let assigned = assigned(application)?;
            Some(assigned.entry(application.uid, application.key.to_string(), application.correlation))
        };
        // All or nothing: a set that lost a member on the way would stop it on the device.
        let assignments = planned.members.iter().map(entry).collect::<Option<Vec<_>>>()?;
        Some(DeviceSet { device: device.key.clone(), revision: planned.revision, assignments })
    }

    fn missing_modules(
        &self,
        id: DeviceId,
        held: &std::collections::BTreeSet<ModuleDigest>,
    ) -> Vec<ModuleDigest> {
        let planned = self.devices.get(&id).and_then(|device| device.planned.as_ref());
        let members = planned.into_iter().flat_map(|planned| &planned.members);
        let digests = members.filter_map(|id| Some(assigned(self.applications.get(id)?)?.digest));
        digests.filter(|digest| !held.contains(digest)).collect()
    }

    /// How a PUT ended.
    pub fn handle_put_outcome(&mut self, now: Now, name: &str, id: CallId, outcome: PutOutcome) {
        let Some(gateway) = self.gateways.get_mut(name) else { return };
        let Some(put) = gateway.put.take_if(|put| put.id == id) else { return };
        let mut refused = Vec::new();
        match outcome {
            PutOutcome::Answered(answer) => {
                gateway.acknowledged_term = Some(put.term);
                if answer.refused.len() < put.sets.len() || put.sets.is_empty() {
                    gateway.retry.succeed();
                }
                refused = answer.refused;
                for (device_id, revision) in &put.sets {
                    gateway.confirmed.insert(*device_id, *revision);
                }
            }
            PutOutcome::Fenced(refusal) => {
                // No leader can rise above the highest term, so that nobody was given it: it is that gateway's own trouble.
                let seen = refusal.leader_term.filter(|term| *term < TERM_MAX).unwrap_or(0);
                self.term_seen = self.term_seen.max(seen);
                gateway.retry.fail(now.ms, &self.config, refusal.message);
            }
            PutOutcome::Failed(message) => gateway.retry.fail(now.ms, &self.config, message),
        }
        let mut trouble = None;
        for refusal in refused {
            let Some(device_id) = self.device_ids.get(&refusal.device).copied() else { continue };
            gateway.confirmed.remove(&device_id);
            for digest in &refusal.missing_modules {
                if let Ok(digest) = digest.parse() {
                    gateway.modules.remove(&digest);
                }
            }
            let held = refusal.held_revision.unwrap_or(0);
            if let Some(view) = gateway.views.get_mut(&refusal.device) {
                view.revision_seen = view.revision_seen.max(held);
            }
            let planned = self.devices.get_mut(&device_id).and_then(|device| device.planned.as_mut());
            match planned {
                // Other content has that revision, or a later one: ours needs a new one.
                Some(planned) if held >= planned.revision => {
                    planned.revision = held.saturating_add(1);
                    planned.issued = false;
                }
                Some(_) if !refusal.missing_modules.is_empty() => {}
                Some(_) | None => trouble = Some(refusal.message),
            }
        }
        // However many sets it refused, it was one attempt.
        if let Some(message) = trouble {
            gateway.retry.fail(now.ms, &self.config, message);
        }
        for device_id in put.sets.into_keys() {
            self.device_changed(now, device_id);
        }
    }

    /// The next module for a gateway; at most one per gateway is on its way. Call until there is none.
    pub fn poll_upload(&mut self, now: Now) -> Option<Upload> {
        self.term?;
        if self.gateways.values().filter(|gateway| gateway.upload.is_some()).count() >= UPLOADS_IN_FLIGHT_MAX
        {
            return None;
        }
        let ready = self.gateways.iter().filter(|(_, gateway)| {
            gateway.upload.is_none() && gateway.retry.is_ready(now.ms) && self.is_live(now, gateway)
        });
        let (name, digest, source, correlation_id) = ready
            .filter_map(|(name, gateway)| {
                let found = gateway
                    .uploads_wanted
                    .iter()
                    .find_map(|digest| Some((*digest, self.source_of(*digest)?)));
                found.map(|(digest, (source, correlation))| (name.clone(), digest, source, correlation))
            })
            .next()?;
        let id = self.next_call();
        let gateway = self.gateways.get_mut(&name)?;
        gateway.uploads_wanted.remove(&digest);
        gateway.upload = Some((id, digest));
        let address = gateway.address.clone()?;
        Some(Upload { id, gateway: name, address, digest, source, correlation_id })
    }

    /// The member of a device's set whose module a gateway lacks and no object holds any more.
    pub(super) fn lost_module(&self, id: DeviceId, gateway: &super::Gateway) -> Option<&Application> {
        if gateway.uploads_wanted.is_empty() {
            return None;
        }
        let members = self.devices.get(&id)?.planned.as_ref()?.members.iter();
        members.filter_map(|id| self.applications.get(id)).find(|application| {
            let lacking =
                assigned(application).filter(|assigned| gateway.uploads_wanted.contains(&assigned.digest));
            lacking.is_some_and(|assigned| self.source_of(assigned.digest).is_none())
        })
    }

    /// An object that holds the bytes of a module.
    fn source_of(&self, digest: ModuleDigest) -> Option<(UploadSource, CorrelationId)> {
        self.applications.values().find_map(|application| {
            let assigned = assigned(application).filter(|assigned| assigned.digest == digest)?;
            debug_assert_eq!(assigned.digest, digest);
            let source = match &application.source {
                ModuleSource::Inline(facts) if facts.digest == digest => {
                    UploadSource::Application(application.key.clone())
                }
                ModuleSource::Named(name) => {
                    let key = application.key.sibling(name);
                    self.modules.get(&key).filter(|facts| facts.digest == digest)?;
                    UploadSource::Module(key)
                }
                ModuleSource::Inline(_) | ModuleSource::InvalidBase64(_) | ModuleSource::Absent => {
                    return None;
                }
            };
            Some((source, application.correlation))
        })
    }

    /// How an upload ended.
    pub fn handle_upload_outcome(&mut self, now: Now, name: &str, id: CallId, outcome: UploadOutcome) {
        let Some(gateway) = self.gateways.get_mut(name) else { return };
        let Some((_, digest)) = gateway.upload.take_if(|(call, _)| *call == id) else { return };
        match outcome {
            UploadOutcome::Held => {
                gateway.retry.succeed();
                gateway.modules.insert(digest);
            }
            // The watch brings what the object holds now.
            UploadOutcome::SourceGone => {
                gateway.retry.fail(
                    now.ms,
                    &self.config,
                    "the object that held the module is gone".to_owned(),
                );
            }
            UploadOutcome::Failed(message) => gateway.retry.fail(now.ms, &self.config, message),
        }
        let stale: Vec<DeviceId> = gateway.stale.iter().copied().collect();
        for device_id in stale {
            self.schedule_statuses_of(now, device_id);
        }
    }
}

fn assigned(application: &Application) -> Option<&super::Assigned> {
    match &application.prepared {
        Prepared::Ready(assigned)
        | Prepared::ModuleMissing { kept: Some(assigned), .. }
        | Prepared::Refused { kept: Some(assigned), .. } => Some(assigned),
        Prepared::Refused { kept: None, .. } | Prepared::ModuleMissing { kept: None, .. } => None,
    }
}
