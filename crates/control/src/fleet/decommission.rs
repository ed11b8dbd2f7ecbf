//! Taking devices out of service: the nonce, orders to gateways, the proofs of devices, and what the Device says of it.
//!
//! ```text
//! spec.decommission ──> poll_decommission: nonce ──(watch)──> poll_orders ──> gateways ──> device
//!                                                              views ──> poll_proof, handle_proof ──> poll_decommission: confirmed
//! ```
//!
//! The nonce is in the status before an order with it leaves, so that whoever leads goes on with the same. Signatures are made and
//! verified by the shell; whether a proof is for this order of this Device is decided here.

use std::collections::BTreeMap;

use wasmbed_protocol::{DeviceUid, Nonce};

use super::{
    Fleet,
    config::{DECOMMISSION_SAYS_MS, DEVICE_FINALIZER_RETRY_MS},
    decommissioning::{Planned, Says},
    device_entry::Device,
    input::{CallId, DecommissionWrite, Order, OrdersOutcome, OrdersPut, ProofCheck, ProofEvidence},
    orders::OrderTrouble,
    record::DeviceId,
    write_queue::Subject,
};
use crate::{
    Now,
    kubernetes::{Event, Regarding, WriteOutcome},
};

impl Fleet {
    /// Has a Device looked at that is being taken out of service.
    pub(super) fn look_at_decommission(&mut self, now: Now, id: DeviceId) {
        let Some(decommissioning) = self.devices.get(&id).and_then(Device::decommissioning) else { return };
        if decommissioning.is_confirmed() {
            self.leaving.remove(&id);
        } else {
            self.leaving.insert(id);
        }
        // Of many, those whose proof is there come to their end before others begin.
        let at_ms = if decommissioning.is_verified() { 0 } else { now.ms };
        self.decommissions.hasten(id, at_ms);
        self.unrouted.insert(id);
        self.proofs.set(id, now.ms);
    }

    /// Everything is looked at anew.
    pub(super) fn resync_decommissions(&mut self, now: Now) {
        for id in self.leaving.clone() {
            if let Some(decommissioning) = self.devices.get_mut(&id).and_then(Device::decommissioning_mut) {
                decommissioning.resync();
            }
            self.look_at_decommission(now, id);
        }
    }

    /// A Device is gone.
    pub(super) fn forget_decommission(&mut self, id: DeviceId) {
        self.leaving.remove(&id);
        self.decommissions.remove(id);
        self.unrouted.remove(&id);
        self.proofs.remove(id);
    }

    /// The next write of a Device's `status.decommission` and condition. Call until there is none; `draw` gives 16 random bytes.
    pub fn poll_decommission(
        &mut self,
        now: Now,
        mut draw: impl FnMut() -> [u8; 16],
    ) -> Option<DecommissionWrite> {
        self.settle(now);
        if !self.decides() {
            return None;
        }
        self.route_orders(now);
        while self.writes.may_write(now.ms) {
            let id = self.decommissions.pop_due(now.ms)?;
            if let Some(write) = self.decommission_write(now, id, || Nonce(draw())) {
                return Some(write);
            }
        }
        None
    }

    fn decommission_write(
        &mut self,
        now: Now,
        id: DeviceId,
        draw: impl FnOnce() -> Nonce,
    ) -> Option<DecommissionWrite> {
        let device = self.devices.get(&id)?;
        let decommissioning = device.decommissioning().filter(|it| !it.is_outdated())?;
        if device.is_writing() {
            self.decommissions.set(id, now.ms.saturating_add(DEVICE_FINALIZER_RETRY_MS));
            return None;
        }
        let waiting = self.waits_for(now, id, device);
        let Planned { fields, urgent, event } = decommissioning.plan(now, waiting, draw)?;
        let may_say_ms = decommissioning.may_say_ms(DECOMMISSION_SAYS_MS);
        if !urgent && now.ms < may_say_ms {
            self.decommissions.set(id, may_say_ms);
            return None;
        }
        let event = event.map(|says| Event {
            regarding: Regarding::device(device.key().clone(), device.uid()),
            warning: false,
            reason: says.reason,
            message: says.message,
            unix_ms: now.unix_ms,
        });
        let (key, patch) = (device.key().clone(), device.status_patch(fields.into()));
        let version = device.version().to_owned();
        if let Some(event) = event {
            self.push_event(event);
        }
        let call = self.next_call();
        self.writes.begin(call, Subject::Decommission { id, version });
        let device = self.devices.get_mut(&id)?;
        device.begin_write();
        device.decommissioning_mut()?.said(now);
        Some(DecommissionWrite { id: call, device: key, patch })
    }

    pub(super) fn decommission_written(
        &mut self,
        now: Now,
        id: DeviceId,
        version: &str,
        outcome: &WriteOutcome<String>,
    ) {
        // It may be gone since.
        let Some(device) = self.devices.get_mut(&id) else { return };
        device.end_write();
        let is_known = device.version() != version;
        match outcome {
            // The watch brings the newest status, and may have done so before the answer came.
            WriteOutcome::Done(_) | WriteOutcome::Conflict => {
                if let Some(decommissioning) = device.decommissioning_mut().filter(|_| !is_known) {
                    decommissioning.note_outdated();
                }
            }
            WriteOutcome::Throttled { .. } | WriteOutcome::Unavailable(_) => {
                self.look_at_decommission(now, id);
            }
            // A refused one is tried at the next interval.
            WriteOutcome::NotFound | WriteOutcome::Rejected(_) => {}
        }
        self.schedule_device_finalizer(now, id);
    }

    /// Gateways are to have the orders of their devices, however many writes wait.
    fn route_orders(&mut self, now: Now) {
        while let Some(id) = self.unrouted.pop_first() {
            self.route_order(now, id);
        }
    }

    /// The gateways that are to have the order of a device.
    fn route_order(&mut self, now: Now, id: DeviceId) {
        let Some(device) = self.devices.get(&id) else { return };
        let nonce = device
            .decommissioning()
            .filter(|it| !it.is_verified() && it.key().is_some())
            .and_then(|it| it.nonce());
        let nonce = nonce.filter(|_| !device.is_deleting() && device_uid(device).is_some());
        let routes = if nonce.is_some() { self.routes(now, device) } else { Vec::new() };
        let key = device.key();
        for (name, gateway) in &mut self.gateways {
            let connected = gateway.view(key).is_some_and(|view| view.is_connected());
            let wanted = nonce.filter(|_| routes.contains(name)).map(|nonce| (nonce, connected));
            gateway.orders_mut().want(id, wanted);
        }
    }

    /// What is waited for while no proof was verified.
    fn waits_for(&self, now: Now, id: DeviceId, device: &Device) -> Says {
        let Some(decommissioning) = device.decommissioning() else { return Says::waiting("") };
        if decommissioning.key().is_none() {
            return Says::key_unknown();
        }
        if device.is_revoked() {
            return Says::waiting(
                "the Device is revoked, so that its device is kept out and gets no order: set spec.revoked to false",
            );
        }
        if !device.is_approved() && !device.seen().is_enrolled() {
            return Says::waiting(
                "the Device is not approved, so that its device is kept out and gets no order: set spec.approved to true",
            );
        }
        let routes = self.routes(now, device);
        let routed: BTreeMap<&String, _> =
            self.gateways.iter().filter(|(name, _)| routes.contains(name)).collect();
        if routed.is_empty() {
            return Says::waiting("no gateway that lives knows the device; the order is sent once one does");
        }
        let here = routed
            .iter()
            .find(|(_, gateway)| gateway.view(device.key()).is_some_and(|view| view.is_connected()));
        let flaw = routed.iter().find_map(|(name, gateway)| {
            let proof = gateway.view(device.key())?.decommission()?.proof.as_deref()?;
            Some((name, gateway.orders().flaw(id, proof)?))
        });
        if let Some((name, flaw)) = flaw {
            return Says::waiting(format!("gateway {name} passed on a proof that does not count: {flaw}"));
        }
        let told = here
            .or(routed.iter().next())
            .and_then(|(name, gateway)| Some((name, gateway.orders().trouble(id)?)));
        match told {
            Some((name, OrderTrouble::TooOld)) => {
                return Says::waiting(format!(
                    "gateway {name} is of a version that passes no orders on: update it"
                ));
            }
            Some((name, OrderTrouble::Failed(why))) => {
                return Says::waiting(format!("gateway {name} does not have the order yet: {why}"));
            }
            None => {}
        }
        let Some((name, gateway)) = here else {
            return Says::waiting("the device is not connected; it gets the order when it comes back");
        };
        let said = gateway.view(device.key()).and_then(|view| view.decommission());
        if let Some(words) = said.and_then(|said| said.refused.as_deref()) {
            return Says::waiting(format!("the device refuses the order: {words}"));
        }
        if said.is_some_and(|said| said.unsupported) {
            return Says::waiting(
                "the device's firmware knows no orders to take it out of service: update it, or revoke the Device",
            );
        }
        if gateway.orders().has(id) {
            return Says::waiting("the device has been sent the order, and its proof is waited for");
        }
        Says::waiting(format!("the order is on its way to gateway {name}"))
    }

    /// The next PUT of orders, which the shell signs; at most one per gateway is on its way. Call until there is none.
    pub fn poll_orders(&mut self, now: Now) -> Option<OrdersPut> {
        let leader_term = self.term.filter(|_| self.term_wanted().is_none() && self.is_complete())?;
        self.route_orders(now);
        let due = |gateway: &super::gateways::Gateway| {
            gateway.has_snapshot() && gateway.orders().is_due(now.ms) && self.is_live(now, gateway)
        };
        let (name, address) = self.gateways.iter().find_map(|(name, gateway)| {
            Some((name.clone(), gateway.address().filter(|_| due(gateway))?.clone()))
        })?;
        let id = self.next_call();
        let wanted = self.gateways.get_mut(&name)?.orders_mut().begin(id);
        let order = |(id, nonce): (DeviceId, Nonce)| {
            let device = self.devices.get(&id)?;
            Some(Order { device: device.key().clone(), device_uid: device_uid(device)?, nonce })
        };
        let orders = wanted.into_iter().filter_map(order).collect();
        Some(OrdersPut { id, gateway: name, address, leader_term, orders })
    }

    /// How a PUT of orders ended.
    pub fn handle_orders_outcome(&mut self, now: Now, name: &str, id: CallId, outcome: OrdersOutcome) {
        let device_ids = &self.device_ids;
        let gateway = present!(self.gateways.get_mut(name), "a gateway that was called is known");
        let end =
            gateway.orders_mut().end(now, &self.config, id, outcome, |key| device_ids.get(key).copied());
        // The call was of an earlier term.
        let Some(end) = end else { return };
        self.term_seen = self.term_seen.max(end.term_seen.unwrap_or(0));
        for device_id in end.devices {
            self.look_at_decommission(now, device_id);
        }
    }

    /// The next proof to verify: whether it is signed by that key. Call until there is none, and answer each with
    /// [`Fleet::handle_proof`] before the next.
    pub fn poll_proof(&mut self, now: Now) -> Option<ProofCheck> {
        self.term?;
        while let Some(id) = self.proofs.pop_due(now.ms) {
            let Some(device) = self.devices.get(&id) else { continue };
            let Some(decommissioning) = device.decommissioning().filter(|it| !it.is_verified()) else {
                continue;
            };
            let (Some(key), Some(_)) = (decommissioning.key(), decommissioning.nonce()) else { continue };
            let unjudged = self.gateways.iter().filter_map(|(name, gateway)| {
                let proof = gateway.view(device.key())?.decommission()?.proof.as_deref()?;
                Some((gateway.orders().unjudged(id, key, proof)?, name, proof))
            });
            let Some((at_ms, gateway, proof)) = unjudged.min() else { continue };
            if at_ms > now.ms {
                self.proofs.set(id, at_ms);
                continue;
            }
            let check = ProofCheck {
                gateway: gateway.clone(),
                device: device.key().clone(),
                key: key.to_owned(),
                proof: proof.to_owned(),
            };
            return Some(check);
        }
        None
    }

    /// What a proof was found to be.
    pub fn handle_proof(&mut self, now: Now, check: &ProofCheck, evidence: ProofEvidence) {
        let Some(id) = self.device_ids.get(&check.device).copied() else { return };
        let device = present!(self.devices.get_mut(&id), "an indexed Device is there");
        let uid = device_uid(device);
        let Some(decommissioning) = device.decommissioning_mut() else { return };
        let nonce = decommissioning.nonce();
        let flaw = match evidence {
            ProofEvidence::Refuted(why) => why,
            ProofEvidence::Signed { device_uid, .. } if Some(device_uid) != uid => {
                format!("it is of the Device with the UID {device_uid}")
            }
            ProofEvidence::Signed { nonce: other, .. } if Some(other) != nonce => {
                "it answers another order".to_owned()
            }
            ProofEvidence::Signed { erased, .. } => {
                decommissioning.verify(erased);
                self.look_at_decommission(now, id);
                return;
            }
        };
        if let Some(gateway) = self.gateways.get_mut(&check.gateway) {
            gateway.orders_mut().judge(now, id, &check.key, &check.proof, flaw);
        }
        self.look_at_decommission(now, id);
    }

    /// When time alone makes something of this due.
    pub(super) fn decommission_timeouts(&self, now: Now) -> impl Iterator<Item = u64> {
        let leads = self.term.is_some() && self.is_complete();
        let write = self.decommissions.first_ms().map(|at_ms| at_ms.max(self.writes.ready_ms(now.ms)));
        let retry = self.gateways.values().filter_map(|gateway| gateway.orders().timeout(now.ms)).min();
        [write, self.proofs.first_ms(), retry].into_iter().flatten().filter(move |_| leads)
    }
}

/// `metadata.uid` as an order names it.
fn device_uid(device: &Device) -> Option<DeviceUid> {
    device.uid().parse().ok()
}
