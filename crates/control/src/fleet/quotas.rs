//! ResourceQuotas that bound the bytes of modules, and what follows for the Applications of their namespaces.
//!
//! ```text
//! handle_quota, a module that is wanted, an Application that went ──> the namespace is noted ──settle──> plan_places ──> prepare
//!                                                                                                 └──> poll_quota: status.used
//! ```
//!
//! Only a leader decides, from complete lists and right before it plans. What has a place keeps it: a new leader finds out from the
//! statuses, which name the assignment of what was sent.

use std::collections::BTreeMap;

use wasmbed_protocol::ModuleDigest;

use super::{
    Fleet, Kind, ModuleRefusal,
    application_entry::Application,
    input::QuotaWrite,
    quota::{Claim, Place, Quota, QuotaSeen, Used, plan_places},
    record::ApplicationId,
    write_queue::Subject,
};
use crate::{Now, ObjectKey, kubernetes::WriteOutcome};

impl Fleet {
    /// A ResourceQuota exists; what it says of the bytes of modules, if it bounds them.
    pub fn handle_quota(&mut self, key: &ObjectKey, seen: Option<QuotaSeen>) {
        self.mark_listed(Kind::Quota, key);
        let Some(seen) = seen else { return self.handle_quota_deleted(key) };
        self.quota_statuses.hasten(key.clone(), 0);
        let before = self.quotas.get(key).map(Quota::bytes);
        // What is there before the first bound has its place.
        if self.decides() && !self.is_bounded(&key.namespace) {
            for id in self.applications_in(&key.namespace) {
                let application = present!(self.applications.get_mut(&id), "an indexed Application is there");
                let sent = application.assigned().map(|assigned| assigned.digest);
                application.set_place(Place::of(sent));
            }
        }
        if before != Some(seen.bytes) {
            self.unplaced.insert(key.namespace.clone());
        }
        match self.quotas.get_mut(key) {
            Some(quota) => quota.observe(seen),
            None => drop(self.quotas.insert(key.clone(), Quota::new(seen))),
        }
    }

    /// A ResourceQuota is gone, or bounds the bytes of modules no more.
    pub fn handle_quota_deleted(&mut self, key: &ObjectKey) {
        self.quota_statuses.remove(key.clone());
        if self.quotas.remove(key).is_some() {
            self.unplaced.insert(key.namespace.clone());
        }
    }

    /// What a namespace holds of modules may be another, which matters if it is bounded.
    pub(super) fn note_modules(&mut self, namespace: &str) {
        if self.is_bounded(namespace) {
            self.unplaced.insert(namespace.to_owned());
        }
    }

    /// Another leads, or has led: who has a place is what statuses say.
    pub(super) fn forget_places(&mut self) {
        for application in self.applications.values_mut() {
            application.forget_place();
        }
        let bounded: Vec<String> = self.quotas.keys().map(|key| key.namespace.clone()).collect();
        for namespace in bounded {
            for id in self.applications_in(&namespace) {
                self.prepare(id, true);
            }
        }
    }

    /// Gives out places where something changed.
    pub(super) fn settle_places(&mut self, now: Now) {
        while let Some(namespace) = self.unplaced.pop_first() {
            let quotas = self.bounds(&namespace);
            let ids = self.applications_in(&namespace);
            let claims = match quotas.is_empty() {
                true => Vec::new(),
                false => ids.iter().filter_map(|id| self.claim(*id)).collect(),
            };
            let (decided, used) = plan_places(&namespace, &quotas, claims);
            if quotas.is_empty() {
                self.module_bytes.remove(&namespace);
            } else if self.module_bytes.insert(namespace.clone(), used) != Some(used) {
                let keys = quotas.keys().map(|name| ObjectKey::new(namespace.as_str(), name.as_str()));
                keys.for_each(|key| self.quota_statuses.hasten(key, now.ms));
            }
            let changed: Vec<ApplicationId> = match quotas.is_empty() {
                // Those that had none.
                true => ids.into_iter().filter(|id| self.waits_for_place(*id)).collect(),
                false => decided.keys().copied().collect(),
            };
            for id in changed {
                let application = present!(self.applications.get_mut(&id), "an indexed Application is there");
                let place = match decided.get(&id) {
                    Some(decision) => application.place().after(decision.clone()),
                    None => Place::of(application.place().held()),
                };
                if application.set_place(place) {
                    self.prepare(id, true);
                    self.schedule_status(now, id);
                }
            }
            // Noted by those that were just prepared.
            self.unplaced.remove(&namespace);
        }
    }

    /// The next status of a ResourceQuota that is to say how many bytes the modules of its namespace have. Call until there is none;
    /// people alone wait for it, so that it uses what others leave.
    pub fn poll_quota(&mut self, now: Now) -> Option<QuotaWrite> {
        self.settle(now);
        if !self.decides() {
            return None;
        }
        while self.writes.has_spare(now.ms) {
            let key = self.quota_statuses.pop_due(now.ms)?;
            if let Some(write) = self.quota_write(now, key) {
                return Some(write);
            }
        }
        None
    }

    fn quota_write(&mut self, now: Now, key: ObjectKey) -> Option<QuotaWrite> {
        let used = *self.module_bytes.get(&key.namespace)?;
        let quota = self.quotas.get_mut(&key).filter(|quota| quota.is_behind(used))?;
        let due_ms = quota.due_ms(self.config.status_interval_ms);
        if now.ms < due_ms {
            self.quota_statuses.set(key, due_ms);
            return None;
        }
        let (patch, version) = quota.begin_write(now.ms, used);
        let id = self.next_call();
        self.writes.begin(id, Subject::Quota { key: key.clone(), version, used });
        Some(QuotaWrite { id, quota: key, patch })
    }

    pub(super) fn quota_written(
        &mut self,
        now: Now,
        key: ObjectKey,
        (version, used): (&str, u64),
        outcome: &WriteOutcome<String>,
    ) {
        // It may be gone since.
        let Some(quota) = self.quotas.get_mut(&key) else { return };
        quota.written(outcome, version, used);
        // A refused one is tried at the next interval.
        if !matches!(outcome, WriteOutcome::NotFound | WriteOutcome::Rejected(_)) {
            self.quota_statuses.hasten(key, now.ms);
        }
    }

    /// Everything is looked at anew.
    pub(super) fn resync_quotas(&mut self, now: Now) {
        for (key, quota) in &mut self.quotas {
            quota.resync();
            self.quota_statuses.hasten(key.clone(), now.ms);
        }
    }

    /// When time alone makes something of this due.
    pub(super) fn quota_timeout(&self, now: Now) -> Option<u64> {
        let first_ms = self.quota_statuses.first_ms().filter(|_| self.decides())?;
        Some(first_ms.max(self.writes.spare_ms(now.ms)))
    }

    /// Whether the bytes of a namespace's modules are bounded.
    pub(super) fn is_bounded(&self, namespace: &str) -> bool {
        self.quotas_of(namespace).next().is_some()
    }

    fn quotas_of<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a ObjectKey, &'a Quota)> {
        let from = ObjectKey::new(namespace, "");
        self.quotas.range(from..).take_while(move |(key, _)| key.namespace == namespace)
    }

    fn bounds(&self, namespace: &str) -> BTreeMap<String, u64> {
        self.quotas_of(namespace).map(|(key, quota)| (key.name.clone(), quota.bytes())).collect()
    }

    fn applications_in(&self, namespace: &str) -> Vec<ApplicationId> {
        let from = ObjectKey::new(namespace, "");
        let all = self.application_ids.range(from..).take_while(|(key, _)| key.namespace == namespace);
        all.map(|(_, id)| *id).collect()
    }

    fn waits_for_place(&self, id: ApplicationId) -> bool {
        self.applications.get(&id).is_some_and(|application| application.place().is_refused())
    }

    /// What an Application asks for.
    fn claim(&self, id: ApplicationId) -> Option<Claim> {
        let application = self.applications.get(&id)?;
        let wanted = self.wanted_module(application);
        let place = application.place().held();
        let held = wanted.is_some_and(|wanted| place == Some(wanted.digest));
        let sent = application.assigned().filter(|assigned| place == Some(assigned.digest));
        let earlier = sent.map(|assigned| Used { digest: assigned.digest, bytes: assigned.bytes });
        Some(Claim {
            id,
            age: (application.created_unix_s(), application.key().name.clone()),
            // One that is going gets no place any more.
            wanted: wanted.filter(|_| held || !application.is_deleting()),
            held,
            earlier: earlier.filter(|earlier| wanted.is_none_or(|wanted| wanted.digest != earlier.digest)),
        })
    }

    /// The module that an Application says now, if devices could run it.
    fn wanted_module(&self, application: &Application) -> Option<Used> {
        let facts = self.module_of(application)?;
        facts.needs.is_ok().then_some(Used { digest: facts.digest, bytes: facts.size })
    }

    /// Whether a module of an Application's may be sent, as far as bounds go.
    pub(super) fn has_place(
        &self,
        application: &Application,
        digest: ModuleDigest,
    ) -> Result<(), ModuleRefusal> {
        if !self.is_bounded(&application.key().namespace) {
            return Ok(());
        }
        application.place().refusal(digest).map_or(Ok(()), Err)
    }
}
