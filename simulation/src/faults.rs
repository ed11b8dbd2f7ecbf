//! What fails: power, connections, processes, disks, the API, and what each can reach of it. And how all that ends.

use serde_json::json;

use crate::{
    api::{Serving, time_text},
    clock::Clock,
    controller::ControllerProcess,
    device::{Device, HUGE},
    gateway::GatewayProcess,
    names::{APPLICATIONS, MODULES},
    namesake::Namesake,
    people::is_denied,
    presence::lease_name,
    transition::Transition,
    wire::Wire,
    world::World,
};

/// A namesake renews this often.
const NAMESAKE_MS: u64 = 5_000;

impl World {
    /// Carries out a transition. One that does not apply now changes nothing.
    pub(crate) fn apply(&mut self, transition: &Transition) {
        match *transition {
            Transition::Want { application, ref wanted } => self.want(application, wanted),
            Transition::DeleteApplication { application } => {
                self.delete("applications", APPLICATIONS[application % APPLICATIONS.len()]);
            }
            Transition::ProvideModules { sizes } => self.provide_modules(sizes),
            Transition::DeleteModule { module } => self.delete("modules", MODULES[module % MODULES.len()]),
            Transition::Announce { device } => self.announce(device),
            Transition::Label { device, site } => self.label(device, site),
            Transition::Cordon { device, unschedulable } => {
                self.specify(device, "unschedulable", unschedulable);
            }
            Transition::Revoke { device, revoked } => self.specify(device, "revoked", revoked),
            Transition::Approve { device, approved } => self.specify(device, "approved", approved),
            Transition::DeleteDevice { device } => {
                let name = self.device_name(device);
                self.delete("devices", &name);
            }
            Transition::Decommission { device } => self.decommission(device),
            Transition::Register { device, approved } => self.register(device, approved),
            Transition::Decide { device, approved } => self.decide(device, approved),
            Transition::DeleteRequests { device } => self.delete_requests(device, |_| true),
            Transition::Adjust { application, value, device } => self.adjust(application, value, device),
            Transition::DeleteNamespace { first } => self.delete_namespace(first),
            Transition::CutLink { .. }
            | Transition::SilenceLink { .. }
            | Transition::DelayLink { .. }
            | Transition::LosePower { .. }
            | Transition::LosePowerAtWrite { .. }
            | Transition::FillDevice { .. } => self.break_device(transition),
            Transition::KillGateway { gateway, .. }
            | Transition::StopGateway { gateway, .. }
            | Transition::IsolateGateway { gateway, .. }
            | Transition::FillGateway { gateway, .. }
            | Transition::ImpersonateGateway { gateway, .. }
            | Transition::SetGatewayClock { gateway, .. }
            | Transition::RemoveGateway { gateway } => self.break_gateway(gateway, transition),
            Transition::KillController { controller, .. }
            | Transition::StopController { controller, .. }
            | Transition::PauseController { controller, .. }
            | Transition::IsolateController { controller, .. }
            | Transition::BlindController { controller, .. }
            | Transition::SetControllerClock { controller, .. }
            | Transition::RemoveController { controller } => self.break_controller(controller, transition),
            Transition::StopBroker { for_ms } => self.broker.stop(self.now_ms + for_ms),
            Transition::KillSigner { .. }
            | Transition::IsolateSigner { .. }
            | Transition::SetSignerClock { .. } => self.break_signer(transition),
            Transition::RestartApi => self.api.restart(),
            Transition::SetApiClock { ahead_ms } => self.api.clock.set_ahead(ahead_ms),
            Transition::StopApi { for_ms } => self.api_down_until_ms = self.now_ms + for_ms,
            Transition::FillApi { for_ms } => self.api_full_until_ms = self.now_ms + for_ms,
        }
    }

    fn break_device(&mut self, transition: &Transition) {
        let now_ms = self.now_ms;
        match *transition {
            Transition::CutLink { device } => self.with_wire(device, |wire| wire.cut()),
            Transition::SilenceLink { device } => self.with_wire(device, Wire::silence),
            Transition::DelayLink { device, for_ms } => {
                self.with_wire(device, |wire| wire.delay(now_ms + for_ms));
            }
            Transition::LosePower { device, for_ms, counters } => {
                let index = device % self.devices.len();
                let device = self.device(index);
                if device.off_until_ms.is_none() {
                    device.lose_power(now_ms + for_ms);
                    if counters && device.drive_up_counters() {
                        self.witness.record_changed(index, HUGE);
                    }
                }
            }
            Transition::LosePowerAtWrite { device, writes, permille } => {
                self.device(device).cut_at_write(writes, permille);
            }
            Transition::FillDevice { device, for_ms } => {
                self.device(device).fill_disk(now_ms + for_ms);
            }
            _ => unreachable!("{transition:?} is of no device"),
        }
    }

    fn device(&mut self, device: usize) -> &mut Device {
        let index = device % self.devices.len();
        &mut self.devices[index]
    }

    /// The gateway's end of the device's connection, if there is one.
    fn with_wire(&mut self, device: usize, act: impl FnOnce(&mut Wire)) {
        let device = device % self.devices.len();
        if let Some(wire) = self.gateways.iter_mut().find_map(|gateway| gateway.wire(device)) {
            act(wire);
        }
    }

    fn break_gateway(&mut self, gateway: usize, transition: &Transition) {
        let index = gateway % self.gateways.len();
        let now_ms = self.now_ms;
        let gateway: &mut GatewayProcess = &mut self.gateways[index];
        match *transition {
            Transition::KillGateway { for_ms, loses_disk, .. } if gateway.is_up() => {
                gateway.crash(now_ms + for_ms, loses_disk);
            }
            Transition::StopGateway { for_ms, .. } if gateway.is_up() => {
                gateway.stop(gateway.clock.now(now_ms), now_ms + for_ms);
            }
            Transition::KillGateway { .. } | Transition::StopGateway { .. } => {}
            Transition::IsolateGateway { for_ms, .. } => gateway.line.cut(now_ms + for_ms),
            Transition::SetGatewayClock { ahead_ms, .. } => gateway.clock.set_ahead(ahead_ms),
            Transition::FillGateway { for_ms, .. } => gateway.disk.full_until_ms = now_ms + for_ms,
            Transition::ImpersonateGateway { for_ms, .. } => {
                let gateway = gateway.name.clone();
                self.namesake.get_or_insert(Namesake { gateway, until_ms: now_ms + for_ms, due_ms: 0 });
            }
            Transition::RemoveGateway { .. } => gateway.crash(u64::MAX, false),
            _ => unreachable!("{transition:?} is of no gateway"),
        }
    }

    fn break_controller(&mut self, controller: usize, transition: &Transition) {
        let index = controller % self.controllers.len();
        let now_ms = self.now_ms;
        let controller: &mut ControllerProcess = &mut self.controllers[index];
        match transition {
            Transition::RemoveController { .. } => controller.crash(u64::MAX),
            Transition::SetControllerClock { ahead_ms, .. } => return controller.clock.set_ahead(*ahead_ms),
            _ => {}
        }
        if !controller.is_up() {
            return;
        }
        match *transition {
            Transition::KillController { for_ms, .. } => controller.crash(now_ms + for_ms),
            Transition::StopController { for_ms, .. } => {
                controller.stop(now_ms, now_ms + for_ms, &mut self.api);
            }
            Transition::PauseController { for_ms, .. } => controller.paused_until_ms = now_ms + for_ms,
            Transition::IsolateController { for_ms, .. } => controller.line.cut(now_ms + for_ms),
            Transition::BlindController { for_ms, .. } => controller.line.blind(now_ms + for_ms),
            _ => unreachable!("{transition:?} is of no controller"),
        }
    }

    fn break_signer(&mut self, transition: &Transition) {
        let now_ms = self.now_ms;
        let Some(signer) = &mut self.signer else { return };
        match *transition {
            Transition::KillSigner { for_ms } => signer.crash(now_ms + for_ms),
            Transition::IsolateSigner { for_ms } => signer.line.cut(now_ms + for_ms),
            Transition::SetSignerClock { ahead_ms } => signer.clock.set_ahead(ahead_ms),
            _ => unreachable!("{transition:?} is not of the signer"),
        }
    }

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
        let spec =
            json!({ "holderIdentity": "namesake", "renewTime": time_text(Clock::default().now(now_ms)) });
        // There may be no such object yet, or no API.
        let _ = self.api.patch("leases", &lease_name(&gateway), false, json!({ "spec": spec }));
        let spec = json!({ "address": "elsewhere:8080" });
        let _ = self.api.patch("devicegateways", &gateway, false, json!({ "spec": spec }));
    }

    /// Faults stop, and what is away comes back by itself. People leave every device free to take something, which the reference model
    /// takes for granted.
    pub(crate) fn mend(&mut self) {
        let now_ms = self.now_ms;
        self.api_down_until_ms = now_ms;
        self.api_full_until_ms = now_ms;
        self.api.at(now_ms, Serving::All);
        self.api.clock = Clock::default();
        self.namesake = None;
        self.broker.mend(now_ms);
        self.network.weather = self.network.weather.clear();
        for device in &mut self.devices {
            device.mend_disk();
        }
        for gateway in &mut self.gateways {
            gateway.clock = Clock::default();
            gateway.disk.full_until_ms = now_ms;
            gateway.line.mend(now_ms);
        }
        for controller in &mut self.controllers {
            controller.paused_until_ms = now_ms;
            controller.clock = Clock::default();
            controller.line.mend(now_ms);
        }
        if let Some(signer) = &mut self.signer {
            signer.clock = Clock::default();
            signer.line.mend(now_ms);
        }
        for device in 0..self.devices.len() {
            self.specify(device, "unschedulable", false);
            // What was denied stays denied, and its device out: people change their minds.
            self.delete_requests(device, is_denied);
        }
    }
}
