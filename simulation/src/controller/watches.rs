//! What a controller sees of the Kubernetes API.

use std::sync::Arc;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use serde_json::Value;
use wasmbed_api::LEADER_LEASE;
use wasmbed_control::{
    Now,
    fleet::{Kind, LeaseSeen, ModuleFacts, ModuleSource, RequestSeen},
};
use wasmbed_protocol::KeyHash;

use super::{ControllerProcess, claim::text, object_key};
use crate::{
    api::{Api, ApiError, REQUESTS, Seen, typed},
    certificates::requested_public_key,
    gateway::key,
    presence::lease_name,
};

/// Changes taken from a watch at once.
const WATCH_PAGE: usize = 8;

impl ControllerProcess {
    pub(super) fn follow_all(&mut self, now: Now, api: &Api) {
        for (plural, kind) in [
            ("leases", None),
            ("devicegateways", Some(Kind::Gateway)),
            ("devices", Some(Kind::Device)),
            ("applications", Some(Kind::Application)),
            ("modules", Some(Kind::Module)),
            ("messagebrokers", Some(Kind::Broker)),
            (REQUESTS, None),
        ] {
            if plural == REQUESTS && !self.joins {
                continue;
            }
            if plural == "leases" && !self.line.shows_leases(now.ms) {
                continue;
            }
            self.follow(now, api, plural, kind);
        }
    }

    fn follow(&mut self, now: Now, api: &Api, plural: &'static str, kind: Option<Kind>) {
        let lags = self.line.lags();
        let reached = self.line.reach(now.ms, api);
        let Some(after) = self.watches.get_mut(plural) else {
            let listed = reached.and_then(|api| api.list(plural));
            self.note(plural, listed.is_ok());
            let Ok((objects, revision)) = listed else { return };
            kind.into_iter().for_each(|kind| self.fleet.handle_list_begin(kind));
            if plural == REQUESTS {
                self.fleet.handle_requests_begin();
            }
            objects.iter().for_each(|object| self.seen(now, plural, object));
            kind.into_iter().for_each(|kind| self.fleet.handle_list_end(now, kind));
            if plural == REQUESTS {
                self.fleet.handle_requests_end();
            }
            if plural == "modules" {
                // Nobody bounds anything here.
                self.fleet.handle_list_begin(Kind::Quota);
                self.fleet.handle_list_end(now, Kind::Quota);
            }
            self.watches.insert(plural, revision);
            return;
        };
        if lags {
            return;
        }
        let changes = reached.and_then(|api| api.watch(plural, after, WATCH_PAGE));
        self.note(plural, changes.is_ok());
        match changes {
            Err(ApiError::Unavailable) => {}
            Err(_) => {
                self.watches.remove(plural);
            }
            Ok(changes) => {
                for change in changes {
                    match change {
                        Seen::Changed(object) => self.seen(now, plural, &object),
                        Seen::Gone(object) => self.gone(now, plural, &object),
                    }
                }
            }
        }
    }

    fn note(&mut self, plural: &str, stands: bool) {
        if plural == "leases" {
            self.watched = stands;
        }
    }

    fn seen_lease(&mut self, now: Now, object: &Value) {
        let name = text(&object["metadata"]["name"]);
        if name == LEADER_LEASE {
            self.fleet.handle_leader_lease(now, &text(&object["spec"]["renewTime"]));
            if self.lead(now.ms).is_none() {
                self.look_ms = now.ms;
            }
            return;
        }
        let spec = serde_json::from_value(object["spec"].clone()).ok();
        let seen = LeaseSeen::read(spec.as_ref());
        if let Some(gateway) = name.strip_prefix(&lease_name("")) {
            self.fleet.handle_lease(now, gateway, Some(seen));
        }
    }

    fn seen_request(&mut self, object: &Value) {
        let open = typed::<CertificateSigningRequest>(object).and_then(|request| {
            RequestSeen::read(request, |pem| requested_public_key(pem).map(|key| KeyHash::of(&key)))
        });
        match open {
            Some(request) => self.fleet.handle_request(request),
            None => self.fleet.handle_request_closed(&text(&object["metadata"]["name"])),
        }
    }

    fn seen(&mut self, now: Now, plural: &str, object: &Value) {
        match plural {
            "leases" => self.seen_lease(now, object),
            "devicegateways" => {
                if let Some(gateway) = typed(object) {
                    self.fleet.handle_gateway(now, &gateway);
                }
                self.gateways.insert(object_key(object).name);
            }
            "devices" => {
                if let Some(device) = typed(object) {
                    self.fleet.handle_device(now, &device);
                }
            }
            "applications" => {
                if let Some(mut application) = typed::<wasmbed_api::Application>(object) {
                    let source = ModuleSource::take(&mut application.spec);
                    self.fleet.handle_application(now, &application, source);
                }
            }
            "messagebrokers" => {
                if let Some(broker) = typed(object) {
                    self.fleet.handle_broker(now, &broker);
                }
            }
            REQUESTS => self.seen_request(object),
            _ => {
                if let Some(module) = typed::<wasmbed_api::Module>(object) {
                    let key = object_key(object);
                    let facts = ModuleFacts::read(&key.name, &module.spec);
                    self.fleet.handle_module(now, &key, Arc::new(facts));
                }
            }
        }
    }

    fn gone(&mut self, now: Now, plural: &str, object: &Value) {
        let gone = object_key(object);
        match plural {
            "leases" => {}
            "devicegateways" => {
                self.gateways.remove(&gone.name);
                self.fleet.handle_gateway_deleted(now, &gone.name);
            }
            "devices" => self.fleet.handle_device_deleted(now, &key(&gone.name)),
            "applications" => self.fleet.handle_application_deleted(&gone),
            "messagebrokers" => self.fleet.handle_broker_deleted(&gone),
            REQUESTS => self.fleet.handle_request_closed(&gone.name),
            _ => self.fleet.handle_module_deleted(now, &gone),
        }
    }
}
