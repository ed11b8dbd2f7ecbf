//! What must hold once faults have stopped and time has passed: everything is as the reference model says.

use std::collections::BTreeSet;

use wasmbed_protocol::ApplicationState;

use crate::{
    device::Device,
    gateway::GatewayProcess,
    presence::{address, ready},
    reference::{Counts, Expected, name_of, text},
    world::World,
};

impl World {
    /// What is not yet as people want it.
    pub(crate) fn unsettled(&self) -> Option<String> {
        let names: Vec<String> = self.devices.iter().map(|device| device.name.clone()).collect();
        let expected = Expected::of(&self.api, &names, self.enrollment);
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
            .or_else(|| self.gateways.iter().find_map(|gateway| self.unsettled_gateway(gateway)))
            .or_else(|| self.gateways.iter().find_map(|gateway| self.unsettled_name(gateway)))
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
        let claims = status["applications"].as_array().into_iter().flatten();
        let said: BTreeSet<(String, String)> = claims
            .filter(|claim| claim["state"] == "Running")
            .map(|claim| (text(&claim["uid"]), text(&claim["digest"])))
            .collect();
        let gateway = self.gateways.iter().find(|gateway| status["gateway"] == gateway.name.as_str());
        let settled =
            said == *wanted && status["phase"] == "Connected" && gateway.is_some_and(GatewayProcess::is_up);
        (!settled).then(|| format!("the status of {name} is {status}, it should run {wanted:?}"))
    }
}
