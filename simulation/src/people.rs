//! What people do: they apply, change, label, approve, revoke and delete, and leave things as they want them.

use serde_json::{Value, json};

use crate::{
    api::ApiError,
    names::{APPLICATIONS, MODULES},
    world::World,
};

const SITES: [&str; 2] = ["attic", "cellar"];

impl World {
    /// Sometimes somebody does something. What the API refuses, because it is away or the object is gone, is let be.
    pub(crate) fn people(&mut self) {
        if self.api.down || !self.random.once_in(50) {
            return;
        }
        let application = APPLICATIONS[self.random.index(APPLICATIONS.len())];
        let device = self.any_device();
        match self.random.below(17) {
            0..=5 => self.want(application),
            6 | 7 => self.delete("applications", application),
            8 => {
                let module = MODULES[self.random.index(MODULES.len())];
                self.delete("modules", module);
            }
            9 => self.provide_modules(),
            10 => self.label(&device),
            11 => self.specify(&device, "unschedulable", 2),
            12 => self.specify(&device, "revoked", 3),
            13 => self.specify(&device, "approved", 1),
            14 => self.delete("devices", &device),
            15 if self.random.once_in(3) => self.delete_everything(),
            _ => self.announce(&device),
        }
    }

    /// The last word, so that there is something to converge to.
    pub(crate) fn last_word(&mut self) {
        self.provide_modules();
        for name in APPLICATIONS {
            self.want(name);
        }
        let names: Vec<String> = self.devices.iter().map(|device| device.name.clone()).collect();
        for name in names {
            self.label(&name);
            let patch = json!({ "spec": { "unschedulable": false, "revoked": self.random.once_in(6) } });
            self.patch("devices", &name, patch);
        }
    }

    /// The deletion of the namespace: all kinds, in any order, and nothing new until they are gone.
    fn delete_everything(&mut self) {
        self.api.terminate();
        let devices: Vec<String> = self.devices.iter().map(|device| device.name.clone()).collect();
        let mut kinds = ["devices", "applications", "modules"];
        let first = self.random.index(kinds.len());
        kinds.rotate_left(first);
        for plural in kinds {
            let fixed: &[&str] = if plural == "applications" { &APPLICATIONS } else { &MODULES };
            match plural {
                "devices" => devices.iter().for_each(|name| self.delete(plural, name)),
                _ => fixed.iter().for_each(|name| self.delete(plural, name)),
            }
        }
    }

    fn any_device(&mut self) -> String {
        let index = self.random.index(self.devices.len());
        self.devices.get(index).map(|device| device.name.clone()).unwrap_or_default()
    }

    fn patch(&mut self, plural: &str, name: &str, patch: Value) {
        // There may be no such object.
        let _ = self.api.patch(plural, name, false, patch);
    }

    fn delete(&mut self, plural: &str, name: &str) {
        // There may be no such object.
        let _ = self.api.delete(plural, name);
    }

    /// True once in so many times.
    fn specify(&mut self, device: &str, field: &str, times: u64) {
        let value = self.random.once_in(times);
        self.patch("devices", device, json!({ "spec": { field: value } }));
    }

    fn label(&mut self, device: &str) {
        let site = self.random.index(SITES.len() + 1);
        let site = SITES.get(site).map_or(Value::Null, |site| json!(site));
        self.patch("devices", device, json!({ "metadata": { "labels": { "site": site } } }));
    }

    /// A person creates a Device before its device is first seen.
    fn announce(&mut self, device: &str) {
        // It may be there.
        let _ = self.api.create("devices", "Device", device, json!({}));
    }

    fn provide_modules(&mut self) {
        for name in MODULES {
            let bytes = self.modules[self.random.index(self.modules.len())].clone();
            // It may be there; what is in it is never changed.
            let _ = self.api.create("modules", "Module", name, json!({ "wasm_bytes": bytes }));
        }
    }

    /// Creates an Application or changes it; one that is being deleted stays so.
    fn want(&mut self, name: &str) {
        let names: Vec<String> = self.devices.iter().map(|device| device.name.clone()).collect();
        let named: Vec<String> = names.into_iter().filter(|_| self.random.once_in(3)).collect();
        let selector = match self.random.index(SITES.len() + 3) {
            index if index < SITES.len() => json!({ "matchLabels": { "site": SITES[index] } }),
            index if index == SITES.len() => json!({}),
            _ => Value::Null,
        };
        let once = self.random.once_in(3);
        let (inline, module) = match self.random.once_in(2) {
            _ if once => (json!(self.once), Value::Null),
            true => (json!(self.modules[self.random.index(self.modules.len())]), Value::Null),
            false => (Value::Null, json!(MODULES[self.random.index(MODULES.len())])),
        };
        let targets = json!({ "device_names": named, "selector": selector });
        let spec = json!({
            "name": name, "wasm_bytes": inline, "module": module, "target_devices": targets,
            "min_ready_seconds": if self.random.once_in(4) { json!(10) } else { Value::Null },
            "config": { "restart_policy": if once { "Never" } else { "Always" } },
        });
        let patch = json!({ "spec": &spec });
        if let Err(ApiError::NotFound) = self.api.patch("applications", name, false, patch) {
            // Refused only while the API is away, or the namespace is being deleted.
            let _ = self.api.create("applications", "Application", name, without_nulls(spec));
        }
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_nulls(value)))
            .collect(),
        other => other,
    }
}
