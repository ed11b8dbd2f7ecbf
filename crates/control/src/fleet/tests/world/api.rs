//! The Kubernetes API: what its watches bring, and what the fleet writes.

use super::*;

impl World {
    pub(in crate::fleet) fn list(&mut self) {
        self.fleet.handle_api(self.now, true);
        for kind in [Kind::Application, Kind::Module, Kind::Device, Kind::Gateway, Kind::Quota] {
            self.fleet.handle_list_begin(kind);
        }
        for name in self.devices.keys().cloned().collect::<Vec<_>>() {
            self.send_device(&name);
        }
        for (name, number) in &self.modules {
            self.fleet.handle_module(self.now, &key(name), Arc::new(numbered(*number)));
        }
        for name in self.applications.keys().cloned().collect::<Vec<_>>() {
            self.send_application(&name);
        }
        for name in self.quotas.keys().cloned().collect::<Vec<_>>() {
            self.send_quota(&name);
        }
        for name in self.gateway_names() {
            let key = ObjectKey { namespace: "system".to_owned(), name: name.clone() };
            self.fleet.handle_gateway(self.now, &super::super::device_gateway(&key, "1"));
        }
        for kind in [Kind::Gateway, Kind::Device, Kind::Module, Kind::Quota, Kind::Application] {
            self.fleet.handle_list_end(self.now, kind);
        }
    }

    pub(in crate::fleet) fn send_application(&mut self, name: &str) {
        let (object, number) = &self.applications[name];
        if self.unreadable.contains(name) {
            let uid = object.metadata.uid.as_deref();
            return self.fleet.handle_unreadable(self.now, Kind::Application, &key(name), uid);
        }
        let source = match &object.spec.module {
            Some(module) => ModuleSource::Named(module.clone()),
            None => match self.spoiled.get(name) {
                Some(wrong) => ModuleSource::InvalidBase64(wrong.clone()),
                None => ModuleSource::Inline(Arc::new(numbered(*number))),
            },
        };
        self.fleet.handle_application(self.now, object, source);
    }

    /// A ResourceQuota has another version.
    pub(in crate::fleet) fn send_quota(&mut self, name: &str) {
        self.version += 1;
        let (used, version) = self.quota_statuses.entry(name.to_owned()).or_default();
        self.version.to_string().clone_into(version);
        let seen = QuotaSeen { bytes: self.quotas[name], used: *used, version: version.clone() };
        self.fleet.handle_quota(&key(name), Some(seen));
    }

    pub(in crate::fleet) fn send_device(&mut self, name: &str) {
        self.version += 1;
        let (object, _) = self.devices.get_mut(name).unwrap();
        object.metadata.resource_version = Some(self.version.to_string());
        self.fleet.handle_device(self.now, object);
    }

    /// It is gone: gateways forget it, and a connected device is told so.
    pub(super) fn remove_device(&mut self, name: &str) {
        let (object, fake) = self.devices.remove(name).unwrap();
        if let (Some(gateway), Some(deleted_ms)) = (&fake.gateway, self.deleted_ms.remove(name)) {
            let heard = self.gateways[gateway].streaming && !self.gateway_fails && !self.answers_lost;
            let late = self.now.ms >= deleted_ms + FleetConfig::default().undeploy_timeout_ms;
            assert!(object.metadata.deletion_timestamp.is_some());
            if heard && !late && !self.troubled {
                assert!(fake.runs.is_empty(), "{name} went while its device ran {:?}", fake.runs.len());
            }
        }
        self.issued.remove(name);
        self.sent.remove(name);
        let key = ObjectKey { namespace: NAMESPACE.to_owned(), name: name.to_owned() };
        self.fleet.handle_device_deleted(self.now, &key);
        for gateway in self.gateway_names() {
            let record = self.gateways.get_mut(&gateway).unwrap();
            record.sets.remove(name);
            if record.views.remove(name).is_some() && record.streaming {
                let event = StreamEvent::Forgotten { token: String::new(), device: key.clone() };
                self.fleet.handle_stream(self.now, &gateway, event);
            }
        }
    }

    pub(super) fn renew_leader(&mut self) {
        if self.follows {
            return self.fleet.handle_leader_lease(self.now, &format!("another's, {}", self.now.ms));
        }
        if self.api_takes_writes {
            let renewal = self.now.ms.to_string();
            self.fleet.handle_renewing(self.now, renewal.clone());
            self.leader_renewals.push_back((self.now.ms + self.lease_watch_lag_ms, renewal));
        }
        while let Some((_, renewal)) = self.leader_renewals.pop_front_if(|(at_ms, _)| *at_ms <= self.now.ms) {
            self.fleet.handle_leader_lease(self.now, &renewal);
        }
    }

    pub(super) fn write_finalizer(&mut self, write: FinalizerWrite) {
        let name = write.application.name;
        let outcome = match self.applications.get_mut(&name) {
            None => WriteOutcome::NotFound,
            Some((object, _))
                if write.patch["metadata"]["resourceVersion"] != version_of(&object.metadata) =>
            {
                WriteOutcome::Conflict
            }
            Some((object, _)) => {
                object.metadata.finalizers =
                    serde_json::from_value(write.patch["metadata"]["finalizers"].clone()).unwrap();
                self.version += 1;
                object.metadata.resource_version = Some(self.version.to_string());
                WriteOutcome::Done(self.version.to_string())
            }
        };
        self.fleet.handle_write_outcome(self.now, write.id, outcome);
        let Some((object, _)) = self.applications.get(&name) else { return };
        if object.metadata.deletion_timestamp.is_some()
            && object.metadata.finalizers.iter().flatten().count() == 0
        {
            self.applications.remove(&name);
            self.fleet.handle_application_deleted(&key(&name));
        } else {
            self.send_application(&name);
        }
    }

    pub(super) fn write_status(&mut self, write: StatusWrite) {
        self.status_writes += 1;
        let name = write.application.name;
        let outcome = match self.applications.get_mut(&name) {
            None => WriteOutcome::NotFound,
            Some((object, _))
                if write.patch["metadata"]["resourceVersion"] != version_of(&object.metadata) =>
            {
                WriteOutcome::Conflict
            }
            Some((object, _)) => {
                let mut body = write.patch["status"].clone();
                body.as_object_mut().unwrap().retain(|_, value| !value.is_null());
                object.status = Some(serde_json::from_value(body).unwrap());
                self.version += 1;
                object.metadata.resource_version = Some(self.version.to_string());
                WriteOutcome::Done(self.version.to_string())
            }
        };
        // The watch and the answer come in either order.
        let watch_first = self.version.is_multiple_of(2);
        if watch_first && self.applications.contains_key(&name) {
            self.send_application(&name);
        }
        self.fleet.handle_write_outcome(self.now, write.id, outcome);
        if !watch_first && self.applications.contains_key(&name) {
            self.send_application(&name);
        }
    }

    pub(super) fn write_finished(&mut self, write: FinishedWrite) {
        let (object, _) = self.devices.get_mut(&write.device.name).unwrap();
        let outcome = if write.patch["metadata"]["resourceVersion"] == version_of(&object.metadata) {
            let finished = write.patch["status"]["finished"].clone();
            object.status.as_mut().unwrap().finished = serde_json::from_value(finished).unwrap_or_default();
            WriteOutcome::Done(String::new())
        } else {
            WriteOutcome::Conflict
        };
        self.fleet.handle_write_outcome(self.now, write.id, outcome);
        self.send_device(&write.device.name);
    }

    pub(super) fn write_unreachable(&mut self, write: UnreachableWrite) {
        let (object, _) = self.devices.get_mut(&write.device.name).unwrap();
        let status = object.status.as_mut().unwrap();
        assert_eq!(status.gateway.as_ref(), Some(&write.gateway));
        assert_eq!(status.epoch, Some(write.epoch));
        assert!(!self.gateways[&write.gateway].up, "a device of a living gateway was called unreachable");
        let phase = serde_json::from_value(write.patch["status"]["phase"].clone()).unwrap();
        assert!(matches!(phase, DevicePhase::Unreachable | DevicePhase::Revoked));
        status.phase = phase;
        status.conditions = serde_json::from_value(write.patch["status"]["conditions"].clone()).unwrap();
        self.fleet.handle_write_outcome(self.now, write.id, WriteOutcome::Done(String::new()));
        self.send_device(&write.device.name);
    }

    pub(super) fn write_device_finalizer(&mut self, write: DeviceFinalizerWrite) {
        self.device_finalizer_writes += 1;
        let name = write.device.name;
        let outcome = match self.devices.get_mut(&name) {
            None => WriteOutcome::NotFound,
            Some((object, _))
                if write.patch["metadata"]["resourceVersion"] != version_of(&object.metadata) =>
            {
                WriteOutcome::Conflict
            }
            Some((object, _)) if write.add && object.metadata.deletion_timestamp.is_some() => {
                panic!("a finalizer is added to {:?}, which is being deleted", object.metadata.name)
            }
            Some((object, _)) => {
                object.metadata.finalizers =
                    serde_json::from_value(write.patch["metadata"]["finalizers"].clone()).unwrap();
                self.version += 1;
                object.metadata.resource_version = Some(self.version.to_string());
                WriteOutcome::Done(self.version.to_string())
            }
        };
        self.fleet.handle_write_outcome(self.now, write.id, outcome);
        let Some((object, _)) = self.devices.get(&name) else { return };
        if object.metadata.deletion_timestamp.is_some()
            && object.metadata.finalizers.iter().flatten().count() == 0
        {
            self.remove_device(&name);
        } else {
            self.send_device(&name);
        }
    }

    pub(super) fn write_quota(&mut self, write: QuotaWrite) {
        self.quota_writes += 1;
        let name = write.quota.name;
        let outcome = match self.quota_statuses.get_mut(&name) {
            None => WriteOutcome::NotFound,
            Some((_, version)) if write.patch["metadata"]["resourceVersion"] != version.as_str() => {
                WriteOutcome::Conflict
            }
            Some((used, _)) => {
                let says = write.patch["status"]["used"][wasmbed_api::MODULE_BYTES].as_str().unwrap();
                *used = wasmbed_quantity::Quantity::parse(says).unwrap().whole();
                WriteOutcome::Done(self.version.to_string())
            }
        };
        self.fleet.handle_write_outcome(self.now, write.id, outcome);
        if self.quotas.contains_key(&name) {
            self.send_quota(&name);
        }
    }

    pub(super) fn write_decommission(&mut self, write: DecommissionWrite) {
        self.decommission_writes += 1;
        let name = write.device.name;
        let (object, _) = self.devices.get_mut(&name).unwrap();
        let outcome = if write.patch["metadata"]["resourceVersion"] == version_of(&object.metadata) {
            let status = object.status.take().unwrap_or_default();
            let mut value = serde_json::to_value(status).unwrap();
            crate::testing::merge(&mut value, &write.patch["status"]);
            object.status = Some(serde_json::from_value(value).unwrap());
            WriteOutcome::Done(String::new())
        } else {
            WriteOutcome::Conflict
        };
        self.fleet.handle_write_outcome(self.now, write.id, outcome);
        self.send_device(&name);
    }
}

pub(super) fn version_of(
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> serde_json::Value {
    metadata.resource_version.clone().unwrap_or_default().into()
}
