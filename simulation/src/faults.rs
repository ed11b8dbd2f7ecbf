//! What breaks: power, connections, processes, the API, and what each can reach of it. And how all that ends.

use serde_json::json;
use wasmbed_control::Now;

use crate::{
    api::{Serving, UNIX_MS, time_text},
    device::HUGE,
    namesake::Namesake,
    presence::lease_name,
    world::World,
};

/// A process is away for this long at most; half of the time it is back soon.
const AWAY_MS: u64 = 70_000;
const SOON_MS: u64 = 8_000;
/// A namesake renews this often.
const NAMESAKE_MS: u64 = 5_000;

impl World {
    /// The namesake says that it is there, until it is not.
    pub(crate) fn poll_namesake(&mut self) {
        let now_ms = self.now_ms;
        let Some(namesake) = self.namesake.as_mut().filter(|namesake| namesake.due_ms <= now_ms) else {
            return;
        };
        if now_ms >= namesake.until_ms {
            self.namesake = None;
            return;
        }
        namesake.due_ms = now_ms + NAMESAKE_MS;
        let gateway = namesake.gateway.clone();
        let spec = json!({ "holderIdentity": "namesake", "renewTime": time_text(now_ms) });
        // There may be no such object yet, or no API.
        let _ = self.api.patch("leases", &lease_name(&gateway), false, json!({ "spec": spec }));
        let spec = json!({ "address": "elsewhere:8080" });
        let _ = self.api.patch("devicegateways", &gateway, false, json!({ "spec": spec }));
    }

    pub(crate) fn break_something(&mut self) {
        if !self.random.once_in(25) {
            return;
        }
        match self.random.below(12) {
            0..=2 => self.break_device(),
            3..=6 => self.break_gateway(),
            7..=9 => self.break_controller(),
            _ => {
                if self.random.once_in(2) {
                    self.api.restart();
                }
                if self.random.once_in(2) {
                    self.api_down_until_ms = self.now_ms + self.away_ms();
                } else if self.random.once_in(2) {
                    self.api_full_until_ms = self.now_ms + self.away_ms();
                }
            }
        }
    }

    fn away_ms(&mut self) -> u64 {
        let most = if self.random.once_in(2) { AWAY_MS } else { SOON_MS };
        self.random.below(most)
    }

    fn break_device(&mut self) {
        let index = self.random.index(self.devices.len());
        let (cut, full) = (!self.random.once_in(3), self.random.once_in(3));
        let full_until_ms = self.now_ms + self.away_ms();
        let Some(device) = self.devices.get_mut(index) else { return };
        if cut && full {
            device.disk_full_until_ms = full_until_ms;
        } else if cut {
            device.cut_at_write(&mut self.random);
        } else if device.off_until_ms.is_none() {
            device.lose_power(self.now_ms, &mut self.random);
            if self.random.once_in(4) && device.drive_up_counters() {
                self.witness.record_changed(index, HUGE);
            }
        }
    }

    fn break_gateway(&mut self) {
        let index = self.random.index(self.gateways.len());
        let until_ms = self.now_ms + self.away_ms();
        let now = Now { ms: self.now_ms, unix_ms: UNIX_MS + self.now_ms };
        let Some(gateway) = self.gateways.get_mut(index) else { return };
        match self.random.below(9) {
            0..=3 => gateway.disturb(&mut self.random),
            4 | 5 if gateway.is_up() => {
                let loses_disk = self.random.once_in(3);
                gateway.crash(until_ms, loses_disk);
            }
            6 if gateway.is_up() => gateway.stop(now, until_ms),
            7 if self.random.once_in(2) => gateway.cut_off_until_ms = until_ms,
            7 => {
                let gateway = gateway.name.clone();
                self.namesake.get_or_insert(Namesake { gateway, until_ms, due_ms: 0 });
            }
            8 => gateway.disk_full_until_ms = until_ms,
            _ => {}
        }
    }

    fn break_controller(&mut self) {
        let index = self.random.index(self.controllers.len());
        let until_ms = self.now_ms + self.away_ms();
        let Some(controller) = self.controllers.get_mut(index).filter(|controller| controller.is_up()) else {
            return;
        };
        match self.random.below(6) {
            0 | 1 => controller.crash(until_ms),
            2 => controller.stop(self.now_ms, until_ms, &mut self.api),
            3 => controller.paused_until_ms = until_ms,
            4 => controller.cut_off_until_ms = until_ms,
            _ => controller.dumb_until_ms = until_ms,
        }
    }

    /// Faults stop: what is away comes back by itself, apart from what never does.
    pub(crate) fn mend(&mut self) {
        let now_ms = self.now_ms;
        self.witness.faults = false;
        self.api_down_until_ms = now_ms;
        self.api_full_until_ms = now_ms;
        self.api.at(now_ms, Serving::All);
        self.namesake = None;
        for device in &mut self.devices {
            device.supervisor.platform().storage.cut = None;
            device.disk_full_until_ms = now_ms;
        }
        for gateway in &mut self.gateways {
            gateway.cut_off_until_ms = now_ms;
            gateway.disk_full_until_ms = now_ms;
        }
        for controller in &mut self.controllers {
            controller.paused_until_ms = now_ms;
            controller.cut_off_until_ms = now_ms;
            controller.dumb_until_ms = now_ms;
        }
        // Each device has another gateway to go to, and another controller leads.
        if self.random.once_in(4) {
            let index = self.random.index(self.gateways.len());
            self.gateways.iter_mut().skip(index).take(1).for_each(|gateway| gateway.crash(u64::MAX, false));
        }
        if self.random.once_in(4) {
            let index = self.random.index(self.controllers.len());
            self.controllers.iter_mut().skip(index).take(1).for_each(|controller| controller.crash(u64::MAX));
        }
    }
}
