//! Applications and Modules come in, change and go.

use std::{collections::BTreeSet, sync::Arc};

use wasmbed_api::{APPLICATION_FINALIZER, Application as Resource, ReasonCode, TargetDevices};
use wasmbed_protocol::ModuleDigest;

use super::{
    Fleet,
    assignment::{correlation_id, plan_assignment},
    config::STATUS_DEBOUNCE_MS,
    input::Kind,
    module::{ModuleFacts, ModuleRefusal},
    published::Published,
    record::{Application, ApplicationId, DeviceId, Known, Prepared},
    source::ModuleSource,
    target::plan_target,
};
use crate::{Now, ObjectKey, rate::TokenBucket};

impl Fleet {
    /// An Application exists. `spec.wasm_bytes` is not looked at: `source` says what was in it.
    pub fn handle_application(&mut self, now: Now, resource: &Resource, source: ModuleSource) {
        let (Some(key), Some(uid)) = (ObjectKey::of(&resource.metadata), uid_of(&resource.metadata)) else {
            return;
        };
        self.mark_listed(Kind::Application, &key);
        let known = self.application_ids.get(&key).copied();
        let known = known.filter(|id| self.applications.get(id).is_some_and(|known| known.uid == uid));
        match known {
            Some(id) => self.update_application(now, id, resource, source),
            None => {
                // The same name with another UID is another Application.
                self.handle_application_deleted(&key);
                self.next_id += 1;
                let id = ApplicationId(self.next_id);
                self.application_ids.insert(key.clone(), id);
                self.applications.insert(id, new_application(key.clone(), uid, resource, source));
                self.enter_indices(id);
                self.retarget(now, id);
                self.prepare(id, false);
                self.check_deletion(now, id);
            }
        }
        let Some(id) = self.application_ids.get(&key).copied() else { return };
        self.schedule_finalizer(id);
        self.schedule_status(now, id);
    }

    /// An Application is gone for good.
    pub fn handle_application_deleted(&mut self, key: &ObjectKey) {
        let Some(id) = self.application_ids.remove(key) else { return };
        self.leave_indices(id);
        let application = present!(self.applications.remove(&id), "an indexed Application is there");
        for device_id in &application.target_ids {
            if let Some(device) = self.devices.get_mut(device_id) {
                device.targeted_by.remove(&id);
            }
        }
        self.replan.extend(&application.target_ids);
        self.replan.extend(application.undeploy.iter().flat_map(|undeploy| &undeploy.devices));
        self.undeploying.remove(&id);
        self.finalizers.remove(&id);
        self.status_queue.remove(id);
        self.rechecks.remove(id);
        self.renew_gateways();
    }

    /// A Module exists; its bytes are gone already.
    pub fn handle_module(&mut self, now: Now, key: &ObjectKey, facts: Arc<ModuleFacts>) {
        self.mark_listed(Kind::Module, key);
        if self.modules.get(key) != Some(&facts) {
            self.modules.insert(key.clone(), facts);
            self.module_changed(now, key);
        }
    }

    /// A Module is gone.
    pub fn handle_module_deleted(&mut self, now: Now, key: &ObjectKey) {
        if self.modules.remove(key).is_some() {
            self.module_changed(now, key);
        }
    }

    fn module_changed(&mut self, now: Now, key: &ObjectKey) {
        let users: Vec<ApplicationId> = self.module_users.get(key).into_iter().flatten().copied().collect();
        for id in users {
            self.prepare(id, true);
            self.schedule_status(now, id);
        }
    }

    fn update_application(&mut self, now: Now, id: ApplicationId, resource: &Resource, source: ModuleSource) {
        let application = present!(self.applications.get_mut(&id), "an indexed Application is there");
        let metadata = &resource.metadata;
        let version = metadata.resource_version.clone().unwrap_or_default();
        if application.resource_version != version {
            application.resource_version = version;
            application.conflicted = false;
        }
        application.finalizers = metadata.finalizers.clone().unwrap_or_default();
        application.published = Published::of(resource.status.as_ref());
        application.known = known(resource).or(application.known);
        let deleted_now = metadata.deletion_timestamp.is_some() && !application.deleting;
        application.deleting = metadata.deletion_timestamp.is_some();
        let generation = metadata.generation.unwrap_or_default();
        if application.generation != generation || application.source != source {
            self.leave_indices(id);
            let mut same = false;
            if let Some(application) = self.applications.get_mut(&id) {
                same = application.source == source && application.config == resource.spec.config;
                application.known = application.known.filter(|_| same).or_else(|| known(resource));
                application.min_ready_s = min_ready_s(resource);
                application.generation = generation;
                application.correlation = correlation_id(application.uid, generation);
                application.source = source;
                application.targets = resource.spec.target_devices.clone().map(Box::new);
                application.config = resource.spec.config.clone();
            }
            self.enter_indices(id);
            self.retarget(now, id);
            self.prepare(id, same);
        }
        if deleted_now {
            self.check_deletion(now, id);
        }
    }

    /// Works out what the Application's generation is to devices, and has its devices planned anew. `same`: what it said of
    /// its assignment before, it says now, so that what was sent is what is to run.
    fn prepare(&mut self, id: ApplicationId, same: bool) {
        let application = present!(self.applications.get(&id), "an indexed Application is there");
        let (kept, current) = match &application.prepared {
            Prepared::Ready(assigned) => (Some(Arc::clone(assigned)), same),
            Prepared::ModuleMissing { kept, current, .. } => (kept.clone(), *current && same),
            Prepared::Refused { kept, .. } => (kept.clone(), false),
        };
        let refused = |refusal| Prepared::Refused { kept: kept.clone(), refusal };
        let facts = self.module_of(application);
        let application = present!(self.applications.get_mut(&id), "an indexed Application is there");
        application.prepared = match (&application.source, facts) {
            (ModuleSource::InvalidBase64(message), _) => {
                refused(ModuleRefusal { reason: ReasonCode::InvalidBase64, message: message.clone() })
            }
            (ModuleSource::Absent, _) => {
                let message = "neither spec.wasm_bytes nor spec.module is set".to_owned();
                refused(ModuleRefusal { reason: ReasonCode::InvalidModule, message })
            }
            (ModuleSource::Inline(_) | ModuleSource::Named(_), None) => {
                Prepared::ModuleMissing { kept, current, refusal: module_missing(application) }
            }
            (ModuleSource::Inline(_) | ModuleSource::Named(_), Some(facts)) => match &facts.needs {
                Err(refusal) => refused(refusal.clone()),
                Ok(_) => {
                    let name = application.key.to_string();
                    match plan_assignment(application.uid, &name, &facts, &application.config) {
                        Ok(assigned) => Prepared::Ready(Arc::new(assigned)),
                        Err(refusal) => refused(refusal),
                    }
                }
            },
        };
        self.replan.extend(&application.target_ids);
        self.renew_gateways();
    }

    /// The facts of an Application's module, if they are known.
    pub(super) fn module_of(&self, application: &Application) -> Option<Arc<ModuleFacts>> {
        match &application.source {
            ModuleSource::Inline(facts) => Some(Arc::clone(facts)),
            ModuleSource::Named(name) => self.modules.get(&application.key.sibling(name)).cloned(),
            ModuleSource::InvalidBase64(_) | ModuleSource::Absent => None,
        }
    }

    /// Works out anew which existing devices an Application goes to.
    fn retarget(&mut self, now: Now, id: ApplicationId) {
        let application = present!(self.applications.get(&id), "an indexed Application is there");
        let namespace = &application.key.namespace;
        let targets = application.targets.as_deref();
        let mut wanted = BTreeSet::new();
        if targets.is_some_and(|targets| targets.selector.is_some()) {
            let from = ObjectKey::new(namespace.as_str(), "");
            let all = self.device_ids.range(from..).take_while(|(key, _)| key.namespace == *namespace);
            wanted.extend(all.filter_map(|(key, device_id)| {
                let labels = &self.devices.get(device_id)?.labels;
                plan_target(targets, &key.name, labels).then_some(*device_id)
            }));
        }
        let named =
            |name: &String| self.device_ids.get(&ObjectKey::new(namespace.as_str(), name.as_str())).copied();
        wanted.extend(targets.iter().flat_map(|targets| &targets.device_names).filter_map(named));
        wanted.retain(|device_id| self.devices.get(device_id).is_some_and(|device| !device.deleting));
        self.set_targets(now, id, wanted);
    }

    fn set_targets(&mut self, now: Now, id: ApplicationId, wanted: BTreeSet<DeviceId>) {
        let application = present!(self.applications.get_mut(&id), "an indexed Application is there");
        let before = std::mem::replace(&mut application.target_ids, wanted);
        let after = &application.target_ids;
        for device_id in before.symmetric_difference(after) {
            if let Some(device) = self.devices.get_mut(device_id) {
                if after.contains(device_id) {
                    device.targeted_by.insert(id);
                } else {
                    device.targeted_by.remove(&id);
                }
            }
            self.replan.insert(*device_id);
        }
        self.schedule_status(now, id);
    }

    /// Adds or removes one device, after it came, went or changed its labels.
    pub(super) fn retarget_device(&mut self, now: Now, device_id: DeviceId) {
        let device = present!(self.devices.get(&device_id), "an indexed Device is there");
        let named = self.named.get(&device.key).into_iter().flatten();
        let selecting = self.selecting.get(&device.key.namespace).into_iter().flatten();
        let candidates: BTreeSet<ApplicationId> =
            named.chain(selecting).chain(&device.targeted_by).copied().collect();
        for id in candidates {
            let Some((device, application)) =
                self.devices.get_mut(&device_id).zip(self.applications.get_mut(&id))
            else {
                continue;
            };
            let targets = application.targets.as_deref();
            let is_target = !device.deleting && plan_target(targets, &device.key.name, &device.labels);
            let changed = if is_target {
                device.targeted_by.insert(id);
                application.target_ids.insert(device_id)
            } else {
                device.targeted_by.remove(&id);
                application.target_ids.remove(&device_id)
            };
            if changed {
                self.replan.insert(device_id);
                self.schedule_status(now, id);
            }
        }
    }

    fn enter_indices(&mut self, id: ApplicationId) {
        let application = present!(self.applications.get(&id), "an indexed Application is there");
        let namespace = &application.key.namespace;
        if let Some(targets) = &application.targets {
            for name in &targets.device_names {
                let key = ObjectKey::new(namespace.as_str(), name.as_str());
                self.named.entry(key).or_default().insert(id);
            }
            if targets.selector.is_some() {
                self.selecting.entry(namespace.clone()).or_default().insert(id);
            }
        }
        if let ModuleSource::Named(name) = &application.source {
            self.module_users.entry(application.key.sibling(name)).or_default().insert(id);
        }
    }

    fn leave_indices(&mut self, id: ApplicationId) {
        let application = present!(self.applications.get(&id), "an indexed Application is there");
        let namespace = &application.key.namespace;
        if let Some(TargetDevices { device_names, selector }) = application.targets.as_deref() {
            for name in device_names {
                let key = ObjectKey::new(namespace.as_str(), name.as_str());
                remove_from(&mut self.named, &key, id);
            }
            if selector.is_some() {
                remove_from(&mut self.selecting, namespace, id);
            }
        }
        if let ModuleSource::Named(name) = &application.source {
            remove_from(&mut self.module_users, &application.key.sibling(name), id);
        }
    }

    /// Has a status looked at soon, but not sooner than the last write of it allows.
    pub(super) fn schedule_status(&mut self, now: Now, id: ApplicationId) {
        let application = present!(self.applications.get(&id), "only what is there has a status");
        let earliest_ms =
            application.status_written_ms.map_or(0, |ms| ms.saturating_add(self.config.status_interval_ms));
        let due_ms = earliest_ms.max(now.ms.saturating_add(STATUS_DEBOUNCE_MS));
        if !self.status_queue.contains(id) {
            self.status_queue.set(id, due_ms);
        }
    }

    /// Something changed: gateways that were given up get all attempts again.
    pub(super) fn renew_gateways(&mut self) {
        for gateway in self.gateways.values_mut() {
            gateway.retry.renew();
        }
    }
}

fn new_application(
    key: ObjectKey,
    uid: wasmbed_protocol::ApplicationUid,
    resource: &Resource,
    source: ModuleSource,
) -> Application {
    let metadata = &resource.metadata;
    let generation = metadata.generation.unwrap_or_default();
    Application {
        key,
        uid,
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        generation,
        created_unix_s: metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        deleting: metadata.deletion_timestamp.is_some(),
        finalizers: metadata.finalizers.clone().unwrap_or_default(),
        source,
        targets: resource.spec.target_devices.clone().map(Box::new),
        config: resource.spec.config.clone(),
        correlation: correlation_id(uid, generation),
        // Nothing is known of it yet.
        prepared: Prepared::Refused {
            kept: None,
            refusal: ModuleRefusal { reason: ReasonCode::InvalidModule, message: String::new() },
        },
        target_ids: BTreeSet::new(),
        published: Published::of(resource.status.as_ref()),
        known: known(resource),
        min_ready_s: min_ready_s(resource),
        status_written_ms: None,
        events: TokenBucket::default(),
        writing: false,
        written_version: String::new(),
        conflicted: false,
        undeploy: None,
    }
}

/// What the status says of the assignment of the generation that the spec has now.
fn known(resource: &Resource) -> Option<Known> {
    let status = resource.status.as_ref()?;
    let spoken_of =
        status.observed_generation.is_some() && status.observed_generation == resource.metadata.generation;
    let spec_hash = status.spec_hash.as_deref().filter(|_| spoken_of).and_then(|text| text.parse().ok())?;
    Some(Known {
        spec_hash,
        digest: status.module_digest.as_deref().and_then(|text| ModuleDigest::from_prefixed(text).ok()),
    })
}

fn min_ready_s(resource: &Resource) -> u32 {
    resource.spec.min_ready_seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(0)
}

fn module_missing(application: &Application) -> ModuleRefusal {
    let name = match &application.source {
        ModuleSource::Named(name) => name.as_str(),
        ModuleSource::Inline(_) | ModuleSource::InvalidBase64(_) | ModuleSource::Absent => "",
    };
    let namespace = &application.key.namespace;
    let message = format!("spec.module names '{name}', and there is no such Module in namespace {namespace}");
    ModuleRefusal { reason: ReasonCode::ModuleNotFound, message }
}

impl Application {
    /// A write of its status or finalizers is made, for the resourceVersion that is known now.
    pub(super) fn begin_write(&mut self) {
        self.writing = true;
        self.written_version.clone_from(&self.resource_version);
    }

    pub(super) fn has_finalizer(&self) -> bool {
        self.finalizers.iter().any(|name| name == APPLICATION_FINALIZER)
    }
}

fn uid_of(
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> Option<wasmbed_protocol::ApplicationUid> {
    metadata.uid.as_deref()?.parse().ok()
}

fn remove_from<K: Ord>(
    index: &mut std::collections::BTreeMap<K, BTreeSet<ApplicationId>>,
    key: &K,
    id: ApplicationId,
) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}
