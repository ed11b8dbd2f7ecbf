//! Applications and Modules come in, change and go.

use std::{collections::BTreeSet, sync::Arc};

use wasmbed_api::{Application as Resource, ReasonCode, TargetDevices};

use super::{
    Fleet,
    application_entry::Application,
    assignment::{Assigned, plan_assignment},
    config::STATUS_DEBOUNCE_MS,
    input::Kind,
    module::{ModuleFacts, ModuleRefusal},
    record::{ApplicationId, DeviceId, Prepared},
    secret::{SecretEnv, SecretState, is_of_secrets, plan_secret_env},
    settings::plan_rules,
    source::ModuleSource,
};
use crate::{Now, ObjectKey};

impl Fleet {
    /// An Application exists. `spec.wasm_bytes` is not looked at: `source` says what was in it.
    pub fn handle_application(&mut self, now: Now, resource: &Resource, source: ModuleSource) {
        let key = present!(ObjectKey::of(&resource.metadata), "the API server sets namespace and name");
        // The API server sets a UUID; an Application with another UID could be named to no device.
        let Some(uid) = uid_of(&resource.metadata) else { return };
        self.mark_listed(Kind::Application, &key);
        self.forget_unreadable(&key);
        let known = self.application_ids.get(&key).copied();
        let known = known.filter(|id| self.applications.get(id).is_some_and(|known| known.uid() == uid));
        match known {
            Some(id) => self.update_application(now, id, resource, source),
            None => {
                // The same name with another UID is another Application.
                self.handle_application_deleted(&key);
                self.next_id += 1;
                let id = ApplicationId(self.next_id);
                self.application_ids.insert(key.clone(), id);
                self.applications.insert(id, Application::new(key.clone(), uid, resource, source));
                self.enter_indices(id);
                self.name_secrets(now, id, &BTreeSet::new());
                self.retarget(now, id);
                self.prepare(id, false);
                self.check_deletion(now, id);
            }
        }
        self.note_labels(&key.namespace);
        let id = present!(self.application_ids.get(&key).copied(), "the Application was just indexed");
        self.schedule_finalizer(id);
        self.schedule_status(now, id);
    }

    /// An Application is gone for good.
    pub fn handle_application_deleted(&mut self, key: &ObjectKey) {
        self.forget_unreadable(key);
        // It may have come and gone between two lists.
        let Some(id) = self.application_ids.remove(key) else { return };
        self.leave_indices(id);
        let application = present!(self.applications.remove(&id), "an indexed Application is there");
        for name in application.spec().secrets() {
            self.secrets.remove_user(&key.sibling(name), id);
        }
        for device_id in application.target_ids() {
            let device = self.devices.get_mut(device_id);
            present!(device, "a target is an indexed Device").set_targeted(id, false);
        }
        self.replan.extend(application.target_ids());
        // Of those that the deletion waited for some may be gone.
        let waited_for = application.awaited_devices();
        self.replan.extend(waited_for.filter(|device_id| self.devices.contains_key(device_id)));
        self.undeploying.remove(&id);
        self.finalizers.remove(&id);
        self.status_queue.remove(id);
        self.rechecks.remove(id);
        self.note_modules(&key.namespace);
        self.note_labels(&key.namespace);
        self.renew_gateways();
    }

    /// An object is there and can't be read, since another version of Wasmbed wrote it: what is known of it stays as it is. Of an
    /// Application of which nothing is known, devices that have it keep their whole sets.
    pub fn handle_unreadable(&mut self, now: Now, kind: Kind, key: &ObjectKey, uid: Option<&str>) {
        self.mark_listed(kind, key);
        match kind {
            Kind::Application => {
                let known = self.application_ids.get(key).and_then(|id| self.applications.get(id));
                let Some(uid) = uid.and_then(|uid| uid.parse().ok()) else { return };
                if known.is_some_and(|known| known.uid() == uid) {
                    return;
                }
                self.handle_application_deleted(key);
                self.unreadable.insert(key.clone(), uid);
                self.replan.extend(self.devices.keys());
            }
            Kind::Device => {
                let known = self.device_ids.get(key).and_then(|id| self.devices.get(id));
                if uid.zip(known).is_some_and(|(uid, known)| known.uid() != uid) {
                    self.handle_device_deleted(now, key);
                }
            }
            Kind::Broker => self.handle_unreadable_broker(key, uid),
            Kind::Module | Kind::Gateway | Kind::Quota => {}
        }
    }

    /// An Application that could not be read is gone, or can be.
    fn forget_unreadable(&mut self, key: &ObjectKey) {
        if self.unreadable.remove(key).is_some() {
            self.replan.extend(self.devices.keys());
        }
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
        let deleted_now = application.observe(resource);
        if application.is_respecified(resource, &source) {
            self.leave_indices(id);
            let application = present!(self.applications.get_mut(&id), "an indexed Application is there");
            let named = application.spec().secrets().map(str::to_owned).collect();
            let same = application.respecify(resource, source);
            self.enter_indices(id);
            self.name_secrets(now, id, &named);
            self.retarget(now, id);
            self.prepare(id, same);
        }
        if deleted_now {
            self.check_deletion(now, id);
        }
    }

    /// Works out what the Application's generation is to devices, and has its devices planned anew. `same`: what it said of
    /// its assignment before, it says now, so that what was sent is what is to run.
    pub(super) fn prepare(&mut self, id: ApplicationId, same: bool) {
        let application = present!(self.applications.get(&id), "an indexed Application is there");
        let facts = self.module_of(application);
        let secret_env = self.secret_env(application);
        let place = facts.as_ref().map_or(Ok(()), |facts| self.has_place(application, facts.digest));
        let namespace = application.key().namespace.clone();
        let application = present!(self.applications.get_mut(&id), "an indexed Application is there");
        application.prepare(same, |application, kept, current| {
            prepared(application, facts, secret_env, place, kept, current)
        });
        self.replan.extend(application.target_ids());
        self.note_modules(&namespace);
        self.renew_gateways();
    }

    /// What an Application has from Secrets.
    fn secret_env(&self, application: &Application) -> Result<SecretEnv, ModuleRefusal> {
        let (key, config) = (application.key(), &application.spec().config);
        plan_secret_env(key, application.uid(), config, self.config.values_key.as_ref(), |name| {
            self.secrets.state(&key.sibling(name))
        })
    }

    /// Whether nobody knows yet what an Application has from Secrets.
    pub(super) fn awaits_secrets(&self, application: &Application) -> bool {
        let unread =
            |name: &str| *self.secrets.state(&application.key().sibling(name)) == SecretState::Unread;
        self.config.values_key.is_some() && application.spec().secrets().any(unread)
    }

    /// An Application is new or changed, and named these Secrets before: those that it names now are read.
    fn name_secrets(&mut self, now: Now, id: ApplicationId, before: &BTreeSet<String>) {
        let application = present!(self.applications.get(&id), "an indexed Application is there");
        let names: BTreeSet<&str> = application.spec().secrets().collect();
        for name in &names {
            self.secrets.add_user(now.ms, &application.key().sibling(name), id);
        }
        for name in before.iter().filter(|name| !names.contains(name.as_str())) {
            self.secrets.remove_user(&application.key().sibling(name), id);
        }
    }

    /// The facts of an Application's module, if they are known.
    pub(super) fn module_of(&self, application: &Application) -> Option<Arc<ModuleFacts>> {
        match &application.spec().source {
            ModuleSource::Inline(facts) => Some(Arc::clone(facts)),
            ModuleSource::Named(name) => self.modules.get(&application.key().sibling(name)).cloned(),
            ModuleSource::InvalidBase64(_) | ModuleSource::Absent => None,
        }
    }

    /// Works out anew which existing devices an Application goes to.
    fn retarget(&mut self, now: Now, id: ApplicationId) {
        let application = present!(self.applications.get(&id), "an indexed Application is there");
        let namespace = &application.key().namespace;
        let targets = application.targets();
        let mut wanted = BTreeSet::new();
        if targets.is_some_and(|targets| targets.selector.is_some()) {
            let from = ObjectKey::new(namespace.as_str(), "");
            let all = self.device_ids.range(from..).take_while(|(key, _)| key.namespace == *namespace);
            let is_target = |id: &DeviceId| self.devices.get(id).is_some_and(|it| it.is_target(targets));
            wanted.extend(all.map(|(_, device_id)| *device_id).filter(is_target));
        }
        let named =
            |name: &String| self.device_ids.get(&ObjectKey::new(namespace.as_str(), name.as_str())).copied();
        wanted.extend(targets.iter().flat_map(|targets| &targets.device_names).filter_map(named));
        wanted.retain(|device_id| self.devices.get(device_id).is_some_and(|device| !device.is_deleting()));
        self.set_targets(now, id, wanted);
    }

    fn set_targets(&mut self, now: Now, id: ApplicationId, wanted: BTreeSet<DeviceId>) {
        let application = present!(self.applications.get_mut(&id), "an indexed Application is there");
        let before = application.set_targets(wanted);
        let after = application.target_ids();
        for device_id in before.symmetric_difference(after) {
            let device = present!(self.devices.get_mut(device_id), "a target is an indexed Device");
            device.set_targeted(id, after.contains(device_id));
            self.replan.insert(*device_id);
        }
        self.schedule_status(now, id);
    }

    /// Adds or removes one device, after it came, went or changed its labels.
    pub(super) fn retarget_device(&mut self, now: Now, device_id: DeviceId) {
        let device = present!(self.devices.get(&device_id), "an indexed Device is there");
        let named = self.named.get(device.key()).into_iter().flatten();
        let selecting = self.selecting.get(&device.key().namespace).into_iter().flatten();
        let candidates: BTreeSet<ApplicationId> =
            named.chain(selecting).chain(device.targeted_by()).copied().collect();
        for id in candidates {
            let Some((device, application)) =
                self.devices.get_mut(&device_id).zip(self.applications.get_mut(&id))
            else {
                continue;
            };
            let is_target = device.is_target(application.targets());
            device.set_targeted(id, is_target);
            if application.set_target(device_id, is_target) {
                self.replan.insert(device_id);
                self.schedule_status(now, id);
            }
        }
    }

    fn enter_indices(&mut self, id: ApplicationId) {
        let application = present!(self.applications.get(&id), "an indexed Application is there");
        let namespace = &application.key().namespace;
        if let Some(targets) = application.targets() {
            for name in &targets.device_names {
                let key = ObjectKey::new(namespace.as_str(), name.as_str());
                self.named.entry(key).or_default().insert(id);
            }
            if targets.selector.is_some() {
                self.selecting.entry(namespace.clone()).or_default().insert(id);
            }
        }
        if let ModuleSource::Named(name) = &application.spec().source {
            self.module_users.entry(application.key().sibling(name)).or_default().insert(id);
        }
    }

    fn leave_indices(&mut self, id: ApplicationId) {
        let application = present!(self.applications.get(&id), "an indexed Application is there");
        let namespace = &application.key().namespace;
        if let Some(TargetDevices { device_names, selector }) = application.targets() {
            for name in device_names {
                let key = ObjectKey::new(namespace.as_str(), name.as_str());
                remove_from(&mut self.named, &key, id);
            }
            if selector.is_some() {
                remove_from(&mut self.selecting, namespace, id);
            }
        }
        if let ModuleSource::Named(name) = &application.spec().source {
            remove_from(&mut self.module_users, &application.key().sibling(name), id);
        }
    }

    /// Has a status looked at soon, but not sooner than the last write of it allows.
    pub(super) fn schedule_status(&mut self, now: Now, id: ApplicationId) {
        let application = present!(self.applications.get(&id), "only what is there has a status");
        let earliest_ms = application.status_due_ms(self.config.status_interval_ms);
        let due_ms = earliest_ms.max(now.ms.saturating_add(STATUS_DEBOUNCE_MS));
        if !self.status_queue.contains(id) {
            self.status_queue.set(id, due_ms);
        }
    }

    /// Something changed: gateways that were given up get all attempts again.
    pub(super) fn renew_gateways(&mut self) {
        for gateway in self.gateways.values_mut() {
            gateway.renew();
        }
    }
}

/// What a generation is to devices, with the facts of its module, what it has from Secrets, whether the module has a place, the assignment that was sent, and
/// whether that is what this generation says.
fn prepared(
    application: &Application,
    facts: Option<Arc<ModuleFacts>>,
    secret_env: Result<SecretEnv, ModuleRefusal>,
    place: Result<(), ModuleRefusal>,
    kept: Option<Arc<Assigned>>,
    current: bool,
) -> Prepared {
    let facts = match (&application.spec().source, facts) {
        (ModuleSource::InvalidBase64(message), _) => {
            let refusal = ModuleRefusal { reason: ReasonCode::InvalidBase64, message: message.clone() };
            return Prepared::Refused { kept, refusal };
        }
        (ModuleSource::Absent, _) => {
            let message = "neither spec.wasm_bytes nor spec.module is set".to_owned();
            let refusal = ModuleRefusal { reason: ReasonCode::InvalidModule, message };
            return Prepared::Refused { kept, refusal };
        }
        (ModuleSource::Inline(_) | ModuleSource::Named(_), None) => {
            return Prepared::SourceMissing { kept, current, refusal: module_missing(application) };
        }
        (ModuleSource::Inline(_) | ModuleSource::Named(_), Some(facts)) => facts,
    };
    if let (Ok(_), Err(refusal)) = (&facts.needs, place) {
        // This module was sent to nobody.
        let kept = kept.filter(|kept| kept.digest != facts.digest);
        return Prepared::Refused { kept, refusal };
    }
    let planned = match &facts.needs {
        Err(refusal) => Err(refusal.clone()),
        Ok(needs) => secret_env.and_then(|secret_env| {
            let (uid, name) = (application.uid(), application.key().to_string());
            let settings = plan_rules(application.spec().settings.as_deref(), &needs.settings)?;
            let assigned = plan_assignment(uid, &name, &facts, &application.spec().config, &secret_env)?;
            Ok(Assigned { settings, ..assigned })
        }),
    };
    match planned {
        Ok(assigned) => Prepared::Ready(Arc::new(assigned)),
        // Not what this generation says is at fault: what devices have of it they keep.
        Err(refusal) if is_of_secrets(refusal.reason) => Prepared::SourceMissing { kept, current, refusal },
        Err(refusal) => Prepared::Refused { kept, refusal },
    }
}

fn module_missing(application: &Application) -> ModuleRefusal {
    let name = match &application.spec().source {
        ModuleSource::Named(name) => name.as_str(),
        ModuleSource::Inline(_) | ModuleSource::InvalidBase64(_) | ModuleSource::Absent => "",
    };
    let namespace = &application.key().namespace;
    let message = format!("spec.module names '{name}', and there is no such Module in namespace {namespace}");
    ModuleRefusal { reason: ReasonCode::ModuleNotFound, message }
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
