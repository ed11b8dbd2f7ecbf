//! What people do: they apply, change, label, approve, revoke and delete, and leave things as they want them. What the API refuses, because
//! it is away or the object is gone or is there already, is let be.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use wasmbed_agent::Agent;

use crate::{
    api::ApiError,
    device::Device,
    identities::public_key_info,
    names::{APPLICATIONS, MODULES, SITES},
    transition::{Selector, Source, Wanted},
    world::World,
};

impl World {
    pub(crate) fn want(&mut self, application: usize, wanted: &Wanted) {
        let name = APPLICATIONS[application % APPLICATIONS.len()];
        let named: Vec<String> = wanted.devices.iter().map(|device| self.device_name(*device)).collect();
        let selector = match wanted.selector {
            None => Value::Null,
            Some(Selector::All) => json!({}),
            Some(Selector::Site(site)) => json!({ "matchLabels": { "site": SITES[site % SITES.len()] } }),
        };
        let (inline, module) = match wanted.module {
            Source::Inline(size) => (json!(self.modules[size % self.modules.len()]), Value::Null),
            Source::Module(module) => (Value::Null, json!(MODULES[module % MODULES.len()])),
            Source::Once => (json!(self.once), Value::Null),
            Source::Traps => (json!(self.traps), Value::Null),
        };
        let spec = json!({
            "name": name, "wasm_bytes": inline, "module": module,
            "target_devices": { "device_names": named, "selector": selector },
            "min_ready_seconds": if wanted.slow { json!(10) } else { Value::Null },
            "config": { "restart_policy": if wanted.module == Source::Once { "Never" } else { "Always" } },
        });
        let patch = json!({ "spec": &spec });
        if let Err(ApiError::NotFound) = self.api.patch("applications", name, false, patch) {
            // Refused only while the API is away, or the namespace is being deleted.
            let _ = self.api.create("applications", "Application", name, without_nulls(spec));
        }
    }

    /// What traps gives way to what does not.
    pub(crate) fn mend_programs(&mut self) {
        for name in APPLICATIONS {
            let traps = self.api.peek("applications", name);
            if traps.is_some_and(|application| application["spec"]["wasm_bytes"] == self.traps.as_str()) {
                let patch = json!({ "spec": { "wasm_bytes": self.modules[0] } });
                let _ = self.api.patch("applications", name, false, patch);
            }
        }
    }

    /// Creates the Modules that are not there; what is in one is never changed.
    pub(crate) fn provide_modules(&mut self, sizes: [usize; 2]) {
        for (name, size) in MODULES.into_iter().zip(sizes) {
            let bytes = self.modules[size % self.modules.len()].clone();
            let _ = self.api.create("modules", "Module", name, json!({ "wasm_bytes": bytes }));
        }
    }

    pub(crate) fn announce(&mut self, device: usize) {
        let _ = self.api.create("devices", "Device", &self.device_name(device), json!({}));
    }

    pub(crate) fn label(&mut self, device: usize, site: Option<usize>) {
        let site = site.map_or(Value::Null, |site| json!(SITES[site % SITES.len()]));
        self.patch_device(device, json!({ "metadata": { "labels": { "site": site } } }));
    }

    pub(crate) fn specify(&mut self, device: usize, field: &str, value: bool) {
        self.patch_device(device, json!({ "spec": { field: value } }));
    }

    pub(crate) fn decommission(&mut self, device: usize) {
        let name = self.device_name(device);
        // No proof can be verified without its key, which a Device that was made by hand does not have.
        let key = BASE64_STANDARD.encode(public_key_info(&name));
        let patch = json!({ "spec": { "decommission": true, "public_key": key } });
        if let Ok(object) = self.api.patch("devices", &name, false, patch) {
            self.witness.decommissions.wanted(&object);
        }
    }

    /// Whose device erased itself for an earlier Device of the name is taken out of service as well: it runs nothing, whatever is
    /// wanted of it.
    pub(crate) fn decommission_what_is_erased(&mut self) {
        let is_erased = |device: &Device| device.supervisor.agent().is_some_and(Agent::is_decommissioned);
        let erased: Vec<usize> = (0..self.devices.len())
            .filter(|index| self.devices.get(*index).is_some_and(is_erased))
            .filter(|index| {
                let object = self.api.peek("devices", &self.device_name(*index));
                object.is_some_and(|object| object["spec"]["decommission"] != true)
            })
            .collect();
        for index in erased {
            self.decommission(index);
        }
    }

    fn patch_device(&mut self, device: usize, patch: Value) {
        let _ = self.api.patch("devices", &self.device_name(device), false, patch);
    }

    pub(crate) fn delete(&mut self, plural: &str, name: &str) {
        let _ = self.api.delete(plural, name);
    }

    /// The deletion of the namespace: all kinds, and nothing new until they are gone.
    pub(crate) fn delete_namespace(&mut self, first: usize) {
        self.api.terminate();
        let devices: Vec<String> = self.devices.iter().map(|device| device.name.clone()).collect();
        let mut kinds = ["devices", "applications", "modules"];
        kinds.rotate_left(first % 3);
        for plural in kinds {
            match plural {
                "devices" => devices.iter().for_each(|name| self.delete(plural, name)),
                "applications" => APPLICATIONS.iter().for_each(|name| self.delete(plural, name)),
                _ => MODULES.iter().for_each(|name| self.delete(plural, name)),
            }
        }
    }

    pub(crate) fn device_name(&self, device: usize) -> String {
        self.devices[device % self.devices.len()].name.clone()
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
