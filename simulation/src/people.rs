//! What people do: they apply, change, label, approve, revoke and delete, and leave things as they want them. What the API refuses, because
//! it is away or the object is gone or is there already, is let be.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use serde_json::{Value, json};
use wasmbed_agent::Agent;
use wasmbed_api::{PAIRING_SECRET_KEY, pairing_secret, request_annotation as annotation};
use wasmbed_control::signer::has;

use crate::{
    api::{ApiError, NAMESPACE, REQUESTS, SECRETS, typed},
    device::Device,
    identities::public_key_info,
    messages::TOPIC,
    names::{APPLICATIONS, MODULES, SITES},
    reference::text,
    settings::SETTING,
    signer::with_condition,
    transition::{Joins, Selector, Source, Wanted},
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
        let mut spec = json!({
            "name": name, "wasm_bytes": inline, "module": module,
            "target_devices": { "device_names": named, "selector": selector },
            "min_ready_seconds": if wanted.slow { json!(10) } else { Value::Null },
            "config": {
                "restart_policy": if wanted.module == Source::Once { "Never" } else { "Always" },
                "capabilities": ["messages"], "topics": [{ "name": TOPIC, "direction": "Out" }],
            },
        });
        if matches!(wanted.module, Source::Once | Source::Traps) {
            spec["settings"] = Value::Null;
        }
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

    pub(crate) fn adjust(&mut self, application: usize, value: Option<u8>, device: Option<usize>) {
        let name = APPLICATIONS[application % APPLICATIONS.len()];
        let Some(object) = self.api.peek("applications", name) else { return };
        let bytes = object["spec"]["wasm_bytes"].as_str();
        if [&self.once, &self.traps].iter().any(|without| bytes == Some(without.as_str())) {
            return;
        }
        let values = json!({ SETTING: value });
        let settings = match (value, device) {
            (None, _) => Value::Null,
            (Some(_), None) => json!({ "values": values }),
            (Some(_), Some(device)) => {
                json!({ "overrides": [{ "device_names": [self.device_name(device)], "values": values }] })
            }
        };
        let _ = self.api.patch("applications", name, false, json!({ "spec": { "settings": settings } }));
    }

    /// Creates the Modules that are not there; what is in one is never changed.
    pub(crate) fn provide_modules(&mut self, sizes: [usize; 2]) {
        for (name, size) in MODULES.into_iter().zip(sizes) {
            let bytes = self.modules[size % self.modules.len()].clone();
            let _ = self.api.create("modules", "Module", name, json!({ "wasm_bytes": bytes }));
        }
    }

    pub(crate) fn announce(&mut self, device: usize) {
        if self.joins(device) == Joins::Never {
            let _ = self.api.create("devices", "Device", &self.device_name(device), json!({}));
        } else {
            self.register(device, false);
        }
    }

    fn joins(&self, device: usize) -> Joins {
        self.devices[device % self.devices.len()].joins
    }

    /// As `wasmbed devices preregister` and `pair` do. Whose token was used gets another one.
    pub(crate) fn register(&mut self, device: usize, approved: bool) {
        let index = device % self.devices.len();
        let (name, now_ms) = (self.device_name(index), self.now_ms);
        let mut spec = match self.joins(index) {
            Joins::Never => return,
            Joins::Factory => json!({ "serial": name }),
            Joins::Token => {
                let Some(token) = self.provide_token(index, now_ms) else { return };
                json!({ "pairing_id": token })
            }
        };
        spec["approved"] = json!(approved);
        let created = match self.api.create("devices", "Device", &name, spec.clone()) {
            Err(ApiError::Conflict) => {
                // What a gateway wrote of an earlier key makes way. Nobody takes back an approval: revocation does that.
                spec["public_key"] = Value::Null;
                if !approved && let Some(fields) = spec.as_object_mut() {
                    fields.remove("approved");
                }
                self.api.patch("devices", &name, false, json!({ "spec": spec }))
            }
            created => created,
        };
        if let Ok(object) = created {
            self.witness.joins.left_by_people(&object);
        }
    }

    /// Id of the token of a device, whose Secret is there from now on unless the device has joined with it.
    fn provide_token(&mut self, index: usize, now_ms: u64) -> Option<String> {
        let device = &mut self.devices[index];
        let token = device.token();
        if device.certificate().is_some() || self.api.peek(SECRETS, &pairing_secret(&token)).is_some() {
            return Some(token);
        }
        if self.witness.joins.is_used(&token) {
            device.pair(now_ms);
        }
        let token = device.token();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": pairing_secret(&token) },
            "data": { PAIRING_SECRET_KEY: BASE64_STANDARD.encode(&token) },
        });
        self.api.create_object(SECRETS, secret).ok().map(|_| token)
    }

    /// The requests for certificates that name a device.
    fn requests(&self, device: usize) -> Vec<Value> {
        let device = format!("{NAMESPACE}/{}", self.device_name(device));
        let mut requests = self.api.peek_all(REQUESTS);
        requests.retain(|request| request["metadata"]["annotations"][annotation::DEVICE] == device.as_str());
        requests
    }

    pub(crate) fn decide(&mut self, device: usize, approved: bool) {
        let condition = if approved { "Approved" } else { "Denied" };
        for request in self.requests(device) {
            let Some(object) = typed::<CertificateSigningRequest>(&request) else { continue };
            let decided = ["Approved", "Denied", "Failed"].iter().any(|decided| has(&object, decided));
            if !decided {
                let condition = json!({ "type": condition, "status": "True", "reason": "Person" });
                let name = object.metadata.name.clone().unwrap_or_default();
                let _ = self.api.decide(&name, with_condition(&object, condition));
            }
        }
    }

    pub(crate) fn delete_requests(&mut self, device: usize, which: fn(&Value) -> bool) {
        if self.joins(device) == Joins::Never {
            return;
        }
        for request in self.requests(device).iter().filter(|request| which(request)) {
            let name = text(&request["metadata"]["name"]);
            self.delete(REQUESTS, &name);
        }
    }

    pub(crate) fn label(&mut self, device: usize, site: Option<usize>) {
        let site = site.map_or(Value::Null, |site| json!(SITES[site % SITES.len()]));
        self.patch_device(device, json!({ "metadata": { "labels": { "site": site } } }));
    }

    pub(crate) fn specify(&mut self, device: usize, field: &str, value: bool) {
        self.patch_device(device, json!({ "spec": { field: value } }));
    }

    pub(crate) fn decommission(&mut self, device: usize) {
        // A device whose certificate names an earlier Device of its name obeys no order for this one.
        if self.takes_orders(device) {
            self.take_out_of_service(device);
        }
    }

    fn take_out_of_service(&mut self, device: usize) {
        let name = self.device_name(device);
        // No proof can be verified without its key, which a Device that was made by hand does not have.
        let key = BASE64_STANDARD.encode(public_key_info(&name));
        let joins = self.joins(device);
        let patch = match joins {
            Joins::Never => json!({ "spec": { "decommission": true, "public_key": key } }),
            Joins::Factory | Joins::Token => json!({ "spec": { "decommission": true } }),
        };
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
            self.take_out_of_service(index);
        }
    }

    fn takes_orders(&self, device: usize) -> bool {
        let certificate = self.devices[device % self.devices.len()].certificate();
        let object = self.api.peek("devices", &self.device_name(device));
        let uid = object.map(|object| text(&object["metadata"]["uid"]));
        certificate.is_none_or(|certificate| uid.is_none_or(|uid| uid == certificate.device_uid.to_string()))
    }

    fn patch_device(&mut self, device: usize, patch: Value) {
        if let Ok(object) = self.api.patch("devices", &self.device_name(device), false, patch) {
            self.witness.joins.left_by_people(&object);
        }
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

/// Whether a person denied a request.
pub(crate) fn is_denied(request: &Value) -> bool {
    typed::<CertificateSigningRequest>(request).is_some_and(|request| has(&request, "Denied"))
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
