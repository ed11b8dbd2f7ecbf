//! Settings: what each gateway is told of them.
//!
//! ```text
//! members of a device's set, its labels ── plan_settings ──> under a revision ── note_lack, poll_settings ──> its gateways
//! ```

use super::{
    Fleet,
    gateways::Gateway,
    input::{CallId, SettingsOutcome, SettingsPut},
    record::DeviceId,
    setting_delivery::PlannedSettings,
    view::View,
};
use crate::{
    Now,
    gateway_api::{PutSettings, SETTINGS_REVISION_TERM_BITS},
};

impl Fleet {
    /// Works out the settings of a device whose set was planned.
    pub(super) fn plan_settings(&mut self, id: DeviceId) {
        let Some(leader_term) = self.term else { return };
        let device = present!(self.devices.get(&id), "the Device was just planned");
        // Without a set nothing is known of what goes on there.
        let Some(planned) = device.planned() else { return };
        let members = planned.members().iter();
        let applications = members
            .filter_map(|member| {
                let rules = member.assigned().settings.as_ref()?;
                Some((member.uid(), rules.of_device(&device.key().name, device.labels())))
            })
            .collect();
        let views = self.gateways.values().filter_map(|gateway| gateway.view(device.key()));
        // One of a term that nobody gave this leader would leave no room above it.
        let of_a_term = |revision: &u64| revision >> SETTINGS_REVISION_TERM_BITS <= leader_term;
        let seen = views.map(View::settings_seen).filter(of_a_term).max().unwrap_or(0);
        let settings = PlannedSettings::plan(device.settings(), leader_term, seen, applications);
        let device = present!(self.devices.get_mut(&id), "the Device was just found");
        device.set_settings(settings);
    }

    /// The next PUT of settings; at most one per gateway is on its way. Call until there is none.
    pub fn poll_settings(&mut self, now: Now) -> Option<SettingsPut> {
        let leader_term = self.term.filter(|_| self.term_wanted().is_none())?;
        self.settle(now);
        if !self.is_complete() {
            return None;
        }
        let due = |gateway: &Gateway| gateway.has_snapshot() && gateway.settings().is_due(now.ms);
        let (name, address) = self.gateways.iter().find_map(|(name, gateway)| {
            let address = gateway.address().filter(|_| due(gateway) && self.is_live(now, gateway))?;
            Some((name.clone(), address.clone()))
        })?;
        let id = self.next_call();
        let delivery = self.gateways.get_mut(&name)?.settings_mut();
        let devices = delivery.begin(id, |device_id| {
            let device = self.devices.get(&device_id)?;
            Some((device.key(), device.settings()?))
        });
        Some(SettingsPut { id, gateway: name, address, body: PutSettings { leader_term, devices } })
    }

    /// How a PUT of settings ended.
    pub fn handle_settings_outcome(&mut self, now: Now, name: &str, id: CallId, outcome: SettingsOutcome) {
        let gateway = present!(self.gateways.get_mut(name), "a gateway that was called is known");
        let ids = &self.device_ids;
        let term_seen =
            gateway.settings_mut().end(now, &self.config, id, outcome, |device| ids.get(device).copied());
        self.term_seen = self.term_seen.max(term_seen.unwrap_or(0));
    }
}
