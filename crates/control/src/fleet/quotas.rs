//! ResourceQuotas that bound the bytes of modules, and what follows for the Applications of their namespaces.
//!
//! ```text
//! handle_quota, a module that is wanted, an Application that went ──> the namespace is noted ──settle──> plan_places ──> prepare
//! ```
//!
//! Only a leader decides, from complete lists and right before it plans. What has a place keeps it: a new leader finds out from the
//! statuses, which name the assignment of what was sent.

use std::collections::BTreeMap;

use wasmbed_protocol::ModuleDigest;

use super::{
    Fleet, Kind, ModuleRefusal,
    application_entry::Application,
    quota::{Claim, Place, Used, plan_places},
    record::ApplicationId,
};
use crate::{Now, ObjectKey};

impl Fleet {
    /// A ResourceQuota exists; the bytes of modules that it allows, if it bounds them.
    pub fn handle_quota(&mut self, key: &ObjectKey, bytes: Option<u64>) {
        self.mark_listed(Kind::Quota, key);
        let known = self.quotas.get(key).copied();
        if known == bytes {
            return;
        }
        // What is there before the first bound has its place.
        if self.decides() && !self.is_bounded(&key.namespace) {
            for id in self.applications_in(&key.namespace) {
                let application = present!(self.applications.get_mut(&id), "an indexed Application is there");
                let sent = application.assigned().map(|assigned| assigned.digest);
                application.set_place(Place::of(sent));
            }
        }
        match bytes {
            Some(bytes) => self.quotas.insert(key.clone(), bytes),
            None => self.quotas.remove(key),
        };
        self.unplaced.insert(key.namespace.clone());
    }

    /// A ResourceQuota is gone.
    pub fn handle_quota_deleted(&mut self, key: &ObjectKey) {
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
            let decided = plan_places(&namespace, &quotas, claims);
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

    /// Whether the bytes of a namespace's modules are bounded.
    pub(super) fn is_bounded(&self, namespace: &str) -> bool {
        self.quotas_of(namespace).next().is_some()
    }

    fn quotas_of<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a ObjectKey, &'a u64)> {
        let from = ObjectKey::new(namespace, "");
        self.quotas.range(from..).take_while(move |(key, _)| key.namespace == namespace)
    }

    fn bounds(&self, namespace: &str) -> BTreeMap<String, u64> {
        self.quotas_of(namespace).map(|(key, bytes)| (key.name.clone(), *bytes)).collect()
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
