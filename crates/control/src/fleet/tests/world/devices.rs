//! Devices that do as they are told: sessions, facts and reports.

use super::*;

impl World {
    pub(in crate::fleet) fn connect(&mut self, device: &str, gateway: &str) {
        if !self.gateways[gateway].up || !self.devices.contains_key(device) {
            return;
        }
        self.disconnect(device);
        let facts = self.facts(device);
        let (object, fake) = self.devices.get_mut(device).unwrap();
        fake.gateway = Some(gateway.to_owned());
        let status = object.status.get_or_insert_with(DeviceStatus::default);
        status.epoch = Some(status.epoch.unwrap_or(0) + 1);
        status.gateway = Some(gateway.to_owned());
        status.phase = DevicePhase::Connected;
        status.facts = Some(facts);
        self.converge_device(device);
    }

    pub(in crate::fleet) fn disconnect(&mut self, device: &str) {
        let Some((object, fake)) = self.devices.get_mut(device) else { return };
        let Some(gateway) = fake.gateway.take() else { return };
        if let Some(status) = &mut object.status {
            status.phase = DevicePhase::Disconnected;
        }
        self.send_device(device);
        self.update_view(&gateway, device);
    }

    /// The device takes what its gateway holds and reports it.
    pub(super) fn converge_device(&mut self, device: &str) {
        let (object, fake) = self.devices.get_mut(device).unwrap();
        let Some(gateway) = fake.gateway.clone() else { return };
        if let Some((revision, set)) = self.gateways[&gateway].sets.get(device)
            && *revision >= fake.revision
        {
            fake.revision = *revision;
            fake.runs = set.clone();
        }
        if let Some(status) = &mut object.status {
            status.revision = i64::try_from(fake.revision).ok();
            status.applications = reports(fake);
        }
        self.send_device(device);
        self.update_view(&gateway, device);
    }

    /// A device tells how an application is.
    pub(in crate::fleet) fn report(&mut self, device: &str, application: &str, report: Report) {
        let (_, fake) = self.devices.get_mut(device).unwrap();
        fake.reports.insert(application.to_owned(), report);
        self.converge_device(device);
    }

    pub(super) fn facts(&self, device: &str) -> wasmbed_api::DeviceFacts {
        let facts = wasmbed_api::DeviceFacts { memory_bytes: self.memory_bytes, ..device_facts() };
        match self.small.contains(device) {
            true => wasmbed_api::DeviceFacts { module_bytes_max: i64::from(LARGE_BYTES) - 1, ..facts },
            false => facts,
        }
    }

    pub(in crate::fleet) fn runs(&self, device: &str) -> BTreeSet<String> {
        self.devices[device].1.runs.iter().map(|entry| entry.application.clone()).collect()
    }

    /// Whether it ended there, in the set or out of it.
    pub(in crate::fleet) fn has_ended(&self, device: &str, name: &str) -> bool {
        let reported = self.devices[device].1.reports.contains_key(name);
        self.has_left(device, name) || reported && self.runs(device).contains(&format!("{NAMESPACE}/{name}"))
    }

    /// Whether it ended there and left its place.
    pub(in crate::fleet) fn has_left(&self, device: &str, name: &str) -> bool {
        let status = self.devices[device].0.status.as_ref();
        status.is_some_and(|status| status.finished.iter().any(|entry| entry.name == name))
    }
}

pub(super) fn reports(device: &FakeDevice) -> Vec<DeviceApplication> {
    let report = |entry: &AssignmentEntry| {
        let name = entry.application.split_once('/').map_or("", |(_, name)| name);
        let running = Report { state: DeviceApplicationState::Running, ..Report::default() };
        let report = device.reports.get(name).copied().unwrap_or(running);
        DeviceApplication {
            uid: entry.application_uid.clone(),
            state: report.state,
            reason: report.reason,
            restarts: report.restarts,
            spec_hash: entry.spec_hash.clone(),
            digest: Some(format!("sha256:{}", entry.digest)),
            ..DeviceApplication::default()
        }
    };
    device.runs.iter().map(report).collect()
}
