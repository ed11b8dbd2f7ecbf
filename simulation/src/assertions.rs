//! What must hold once faults have stopped and time has passed: everything is as the reference model says.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;
use wasmbed_agent::Agent;
use wasmbed_api::{pairing_secret, request_annotation as annotation};
use wasmbed_control::UnixTime;
use wasmbed_protocol::{ApplicationState, ApplicationUid};

use crate::{
    api::{REQUESTS, SECRETS},
    broker,
    certificates::Certificate,
    clock::Clock,
    device::Device,
    gateway::GatewayProcess,
    presence::{address, ready},
    reference::{Counts, Expected, name_of, text},
    transition::Joins,
    world::World,
};

/// A frame with the gateway's time is at most this late once nothing delays it.
const CLOCK_LATE_MS: u64 = 1_000;
/// What gateways leave alone: a status is written again if its times are further ahead.
const CLOCK_AHEAD_MS: u64 = 2_000;
/// A sign of life is written every 30 seconds, at a device's heartbeat, which comes every 5.
const HEARTBEAT_OLD_MS: u64 = 45_000;

impl World {
    fn expected(&self) -> Expected {
        let names: Vec<String> = self.devices.iter().map(|device| device.name.clone()).collect();
        Expected::of(&self.api, &names, &self.absent(), self.enrollment)
    }

    /// What is not yet as people want it.
    pub(crate) fn unsettled(&self) -> Option<String> {
        let expected = self.expected();
        let application = self.api.peek_all("applications").iter().find_map(|application| {
            let name = name_of(application);
            let status = &application["status"];
            if !application["metadata"]["deletionTimestamp"].is_null() {
                return Some(format!("{name} is still being deleted"));
            }
            if status["observedGeneration"] != application["metadata"]["generation"] {
                return Some(format!("the status of {name} speaks of an older generation"));
            }
            let counts = Counts::read(&status["counts"]);
            let wanted = expected.applications.get(&name).copied().unwrap_or_default();
            (!wanted.allow(&counts))
                .then(|| format!("the status of {name} should count {wanted:?}, it is {status}"))
        });
        application
            .or_else(|| self.devices.iter().find_map(|device| self.unsettled_device(device, &expected)))
            .or_else(|| self.unsettled_setting(&expected))
            .or_else(|| self.undelivered())
            .or_else(|| self.devices.iter().find_map(|device| self.unsettled_token(device)))
            .or_else(|| self.gateways.iter().find_map(|gateway| self.unsettled_gateway(gateway)))
            .or_else(|| self.gateways.iter().find_map(|gateway| self.unsettled_name(gateway)))
    }

    /// Devices that have not joined and can't, as things are. The others join, and are let in as their Devices say then.
    fn absent(&self) -> BTreeSet<String> {
        let joiners = self.devices.iter().filter(|device| device.joins != Joins::Never);
        let absent = joiners.filter(|device| {
            let object = self.api.peek("devices", &device.name);
            object.is_some_and(|object| !self.can_be_there(device, &object))
        });
        absent.map(|device| device.name.clone()).collect()
    }

    fn can_be_there(&self, device: &Device, object: &Value) -> bool {
        let (spec, status) = (&object["spec"], &object["status"]);
        let own = device.public_key().map(|key| BASE64_STANDARD.encode(key));
        let is_other = |pinned: &Value| pinned.is_string() && pinned.as_str() != own.as_deref();
        if device.supervisor.agent().is_some_and(Agent::is_decommissioned) {
            return true;
        }
        if device.certificate().is_some() {
            return !is_other(&spec["public_key"]) && !is_other(&status["public_key"]);
        }
        spec["approved"] == true
            && spec["revoked"] != true
            && spec["decommission"] != true
            && !is_other(&spec["public_key"])
            && (device.joins != Joins::Token || self.has_token(device, object))
    }

    /// Whether a device's token is good for a certificate, or brought it one that is there to be read and lasts. One that was issued or
    /// asked for while clocks were wrong is of no use, and people make another token.
    fn has_token(&self, device: &Device, object: &Value) -> bool {
        let (token, uid) = (device.token(), &object["metadata"]["uid"]);
        let unix_ms = Clock::default().now(self.now_ms).unix_ms;
        let lasts = |request: &Value| {
            let pem = request["status"]["certificate"].as_str().map(|pem| BASE64_STANDARD.decode(pem));
            let issued = pem.and_then(|pem| Certificate::issued(&pem.ok()?).ok());
            issued.is_some_and(|issued| issued.not_after_unix_s > unix_ms / 1_000)
        };
        let issued = || {
            let requests = self.api.peek_all(REQUESTS);
            requests.iter().any(|request| {
                request["metadata"]["annotations"][annotation::DEVICE_UID] == *uid
                    && request["metadata"]["annotations"][annotation::PAIRING_ID] == token.as_str()
                    && lasts(request)
                    && self.witness.joins.is_asked(&name_of(request), unix_ms)
            })
        };
        object["spec"]["pairing_id"] == token.as_str()
            && (self.api.peek(SECRETS, &pairing_secret(&token)).is_some() || issued())
    }

    /// An application reads what its Application says.
    fn unsettled_setting(&self, expected: &Expected) -> Option<String> {
        expected.settings.iter().find_map(|((name, uid), wanted)| {
            let read = self.witness.settings.read(self.index(name)?, uid.parse().ok()?).map(u64::from);
            (read != Some(*wanted))
                .then(|| format!("{uid} on {name} reads {read:?}, its setting is {wanted}"))
        })
    }

    /// The broker has what gateways acknowledged whose disk is there.
    fn undelivered(&self) -> Option<String> {
        self.api.peek("messagebrokers", broker::NAME)?;
        self.witness.messages.missing(|keeper| {
            self.gateways.iter().any(|gateway| gateway.is_up() && gateway.keeper() == *keeper)
        })
    }

    /// What runs as its Application is now, by device, and how often it has begun.
    pub(crate) fn running(&self) -> BTreeMap<(usize, ApplicationUid), u64> {
        let expected = self.expected();
        let known = expected.settings.keys().filter_map(|(name, uid)| {
            let (device, uid) = (self.index(name)?, uid.parse().ok()?);
            Some(((device, uid), self.witness.settings.begun(device, uid)))
        });
        known.collect()
    }

    /// What of that has begun again since.
    pub(crate) fn restarted(&self, running: &BTreeMap<(usize, ApplicationUid), u64>) -> Option<String> {
        running.iter().find_map(|((device, uid), before)| {
            let begun = self.witness.settings.begun(*device, *uid);
            (begun != *before)
                .then(|| format!("{uid} on device {device} had begun {before} times, and has {begun} times"))
        })
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.devices.iter().position(|device| device.name == name)
    }

    /// A token that brought a certificate is gone.
    fn unsettled_token(&self, device: &Device) -> Option<String> {
        let token = device.token();
        let used = device.joins == Joins::Token && self.witness.joins.is_used(&token);
        let left = used && self.api.peek(SECRETS, &pairing_secret(&token)).is_some();
        left.then(|| format!("{} has joined with the token {token}, which is good for another", device.name))
    }

    /// Each gateway knows the leader's term, also one that was never sent a set: what an earlier leader still has on its way
    /// finds it closed.
    fn unsettled_gateway(&self, gateway: &GatewayProcess) -> Option<String> {
        let mut leads = self.controllers.iter().filter_map(|controller| controller.lead(self.now_ms));
        let Some(lead) = leads.next() else { return Some("no controller leads".to_owned()) };
        let (name, told) = (&gateway.name, gateway.leader_term());
        let wanted = lead.term;
        (gateway.is_up() && told != wanted).then(|| format!("{name} was told term {told}, not {wanted}"))
    }

    /// A gateway that is there says so, under its own address; of one that is gone nobody says that it takes devices.
    fn unsettled_name(&self, gateway: &GatewayProcess) -> Option<String> {
        let object = self.api.peek("devicegateways", &gateway.name);
        let Some(object) = object else { return gateway.is_up().then(|| format!("no {}", gateway.name)) };
        let right = match gateway.is_up() {
            true => ready(&object) == "True" && object["spec"]["address"] == address(&gateway.name),
            false => ready(&object) != "True",
        };
        (!right).then(|| format!("the DeviceGateway of {} is {object}", gateway.name))
    }

    fn unsettled_device(&self, device: &Device, expected: &Expected) -> Option<String> {
        let name = &device.name;
        let object = self.api.peek("devices", name);
        if object.as_ref().is_some_and(|object| !object["metadata"]["deletionTimestamp"].is_null()) {
            return Some(format!("{name} is still being deleted"));
        }
        if expected.decommissioned.contains(name) {
            let uid = object.as_ref().map(|object| text(&object["metadata"]["uid"]));
            let own = device.certificate().map(|certificate| certificate.device_uid.to_string());
            // Certified for an earlier Device of the name, it obeys no order for this one.
            return object
                .filter(|_| own.is_none() || own == uid)
                .and_then(|object| self.undecommissioned(device, &object));
        }
        let status = object.as_ref().map(|object| &object["status"]);
        let Some(wanted) = expected.runs.get(name) else {
            debug_assert!(expected.kept_out.contains(name), "a device is let in or kept out");
            let stands = device.supervisor.session().is_some();
            let said = status.is_some_and(|status| status["phase"] == "Connected");
            let runs = device.supervisor.loaded();
            let more = |what: &str| format!("{name} is to be kept out{what}, its status is {status:?}");
            if runs > 0 {
                return Some(more(&format!(" and runs {runs} applications")));
            }
            return (stands || said).then(|| more(""));
        };
        let runs: BTreeSet<String> = device
            .supervisor
            .applications()
            .filter(|(_, state)| *state == ApplicationState::Running)
            .map(|(uid, _)| uid.to_string())
            .collect();
        if runs != wanted.iter().map(|(uid, _)| uid.clone()).collect()
            || device.supervisor.loaded() != wanted.len()
        {
            return Some(format!("{name} runs {runs:?}, it should run {wanted:?}"));
        }
        let status = status?;
        if device.joins != Joins::Never && status["public_key"].is_string() {
            let own = device.public_key().map(|key| BASE64_STANDARD.encode(key));
            if status["public_key"].as_str() != own.as_deref() {
                return Some(format!("the key of {name} is {own:?}, its status is {status}"));
            }
        }
        let claims = status["applications"].as_array().into_iter().flatten();
        let said: BTreeSet<(String, String)> = claims
            .filter(|claim| claim["state"] == "Running")
            .map(|claim| (text(&claim["uid"]), text(&claim["digest"])))
            .collect();
        let gateway = self.gateways.iter().find(|gateway| status["gateway"] == gateway.name.as_str());
        let settled =
            said == *wanted && status["phase"] == "Connected" && gateway.is_some_and(GatewayProcess::is_up);
        if !settled {
            return Some(format!("the status of {name} is {status}, it should run {wanted:?}"));
        }
        self.unsettled_times(device, status)
    }

    /// A device that is to be taken out of service has erased itself, and its Device says so; for an earlier Device of its name if not for
    /// this one, of which it knows nothing then.
    fn undecommissioned(&self, device: &Device, object: &Value) -> Option<String> {
        let (name, status) = (&device.name, &object["status"]);
        let runs = device.supervisor.loaded();
        let rests = device.supervisor.agent().is_some_and(Agent::is_at_rest);
        let index = self.index(name)?;
        let proven = self.witness.decommissions.has_proven(index, &text(&object["metadata"]["uid"]));
        let confirmed = status["decommission"]["confirmed_at"].is_string();
        let settled = rests && runs == 0 && confirmed == proven;
        let said = !confirmed || status["phase"] == "Decommissioned";
        (!settled || !said).then(|| {
            format!("{name} is to be taken out of service, runs {runs}, rests: {rests}, and its status is {status}")
        })
    }

    /// All wall clocks are right again: a device has its gateway's time, and no status has one that has not come, or a sign of life that is
    /// old.
    fn unsettled_times(&self, device: &Device, status: &Value) -> Option<String> {
        let name = &device.name;
        let unix_ms = Clock::default().now(self.now_ms).unix_ms;
        let known_ms = device.supervisor.agent().and_then(|agent| agent.unix_ms(self.now_ms));
        if known_ms.is_none_or(|known_ms| known_ms.abs_diff(unix_ms) > CLOCK_LATE_MS) {
            return Some(format!("{name} takes it to be {known_ms:?}, it is {unix_ms}"));
        }
        let time = |field: &str| status[field].as_str().and_then(UnixTime::parse).map(|time| time.ms);
        let (since_ms, heard_ms) = (time("connected_since"), time("last_heartbeat"));
        let come = |time: Option<u64>| time.is_some_and(|ms| ms <= unix_ms + CLOCK_AHEAD_MS);
        let recent = heard_ms.is_some_and(|ms| ms + HEARTBEAT_OLD_MS >= unix_ms);
        (!come(since_ms) || !come(heard_ms) || !recent).then(|| {
            format!("at {unix_ms} the status of {name} says {since_ms:?} and {heard_ms:?}: {status}")
        })
    }
}
