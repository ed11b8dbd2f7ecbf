//! What breaks: power, connections, processes, the API, and what each can reach of it. And how all that ends.

use wasmbed_control::gateway;

use crate::{
    api::{Serving, UNIX_MS},
    world::World,
};

/// A process is away for this long at most; half of the time it is back soon.
const AWAY_MS: u64 = 70_000;
const SOON_MS: u64 = 8_000;

impl World {
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
        let cut = !self.random.once_in(3);
        let Some(device) = self.devices.get_mut(index) else { return };
        if cut {
            device.cut_at_write(&mut self.random);
        } else if device.off_until_ms.is_none() {
            device.lose_power(self.now_ms, &mut self.random);
        }
    }

    fn break_gateway(&mut self) {
        let index = self.random.index(self.gateways.len());
        let until_ms = self.now_ms + self.away_ms();
        let now = gateway::Now { ms: self.now_ms, unix_ms: UNIX_MS + self.now_ms };
        let Some(gateway) = self.gateways.get_mut(index) else { return };
        match self.random.below(9) {
            0..=3 => gateway.disturb(&mut self.random),
            4 | 5 if gateway.is_up() => {
                let loses_disk = self.random.once_in(3);
                gateway.crash(until_ms, loses_disk);
            }
            6 if gateway.is_up() => gateway.stop(now, until_ms),
            7 => gateway.cut_off_until_ms = until_ms,
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
        for device in &mut self.devices {
            device.supervisor.platform().storage.cut = None;
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
