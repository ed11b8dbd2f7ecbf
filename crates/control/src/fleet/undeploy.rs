//! Deletions and dead gateways: what waits for a bounded time.
//!
//! ```text
//! Application deleted --> waits for the connected devices that had it --all confirmed--> finalizer removed
//!                                          +--60 s--> Event UndeployTimeout, finalizer removed
//! ```

use std::collections::BTreeSet;

use wasmbed_api::ReasonCode;

use super::{
    Fleet,
    record::{ApplicationId, DeviceId},
};
use crate::{
    Now,
    kubernetes::{Event, Regarding},
};

impl Fleet {
    /// A deletion was seen: notes who had the Application and has them planned without it.
    pub(super) fn check_deletion(&mut self, now: Now, id: ApplicationId) {
        let application = present!(self.applications.get(&id), "an indexed Application is there");
        if !application.is_deleting() || application.is_undeploying() {
            return;
        }
        let uid = application.uid();
        let had = self.devices.iter().filter(|(_, device)| {
            device.has_member(id)
                || self.latest_view(now, device).report_of(uid).is_some()
                || device.targeted_by().contains(&id)
        });
        let devices: BTreeSet<DeviceId> = had.map(|(device_id, _)| *device_id).collect();
        self.replan.extend(&devices);
        self.undeploying.insert(id);
        if let Some(application) = self.applications.get_mut(&id) {
            application.begin_undeploy(now, devices);
        }
        self.renew_gateways();
    }

    /// Lets go of what devices have let go of, or have kept for too long.
    pub(super) fn check_undeploys(&mut self, now: Now) {
        self.settle(now);
        if self.term.is_none() || !self.is_complete() {
            return;
        }
        for id in self.undeploying.clone() {
            let application = present!(self.applications.get(&id), "what is gone is not waited for");
            let since_ms = application.undeploying_since_ms();
            let since_ms = present!(since_ms, "a deletion that is waited for has begun");
            let waits = application.awaited_devices().filter(|device_id| self.holds_on(now, **device_id, id));
            let waiting = waits.count();
            let late = now.ms >= since_ms.saturating_add(self.config.undeploy_timeout_ms);
            if waiting > 0 && !late {
                continue;
            }
            let (reason, message) = if waiting > 0 {
                let s = self.config.undeploy_timeout_ms / 1_000;
                let text = format!("{waiting} connected devices did not confirm the removal within {s} s");
                (ReasonCode::UndeployTimeout, text)
            } else {
                (ReasonCode::Undeployed, ReasonCode::Undeployed.sentence().to_owned())
            };
            let event = Event {
                regarding: Regarding::application(application.key().clone(), application.uid()),
                warning: waiting > 0,
                reason,
                message,
                unix_ms: now.unix_ms,
            };
            let held = application.has_finalizer();
            self.undeploying.remove(&id);
            if held {
                self.push_event(event);
                self.finalizers.insert(id);
            }
        }
    }

    /// Whether a deletion has to wait for a device: it is connected and has not confirmed, or a live gateway may still
    /// hold a set with the Application.
    fn holds_on(&self, now: Now, device_id: DeviceId, id: ApplicationId) -> bool {
        let (Some(device), Some(application)) = (self.devices.get(&device_id), self.applications.get(&id))
        else {
            return false;
        };
        let latest_view = self.latest_view(now, device);
        let unsent = self.gateways.values().any(|gateway| {
            let lacks = gateway.lacking().contains(&device_id);
            gateway.address().is_some() && (lacks || gateway.is_sent(device_id))
        });
        if unsent {
            return true;
        }
        if !latest_view.is_connected() {
            return false;
        }
        let Some(reports) = latest_view.applications() else { return true };
        let behind = device.planned().is_some_and(|planned| !latest_view.works_to(planned));
        behind || reports.iter().any(|report| report.uid() == application.uid())
    }

    /// Finds gateways that died and what they still claim.
    pub(super) fn check_gateways(&mut self, now: Now) {
        if self.term.is_none() || !self.is_complete() || self.api_since(now).is_none() {
            return;
        }
        let mut lost = Vec::new();
        let mut unheard = BTreeSet::new();
        for (id, device) in &self.devices {
            let Some(name) = device.seen().gateway() else { continue };
            // Another gateway that holds it writes its status itself, however late.
            if device.phase_without_gateway().is_none() || self.latest_view(now, device).is_connected() {
                continue;
            }
            match self.gateways.get(name) {
                Some(gateway) if self.is_live(now, gateway) => {}
                Some(_) => lost.push(*id),
                None => {
                    unheard.insert(name.to_owned());
                }
            }
        }
        // A gateway that only a status names is given a lease and a grace from now.
        for name in unheard {
            self.gateways.entry(name).or_insert_with(|| super::Gateway::new(now.ms));
        }
        for id in lost {
            self.unreachable.insert(id);
            self.device_changed(now, id);
        }
    }
}
