//! Gateways with disks: their Leases, streams and views, and what the fleet sends them.

use super::{devices::reports, expected::hashes, *};

impl World {
    pub(in crate::fleet) fn gateway_names(&self) -> Vec<String> {
        self.gateways.keys().cloned().collect()
    }

    pub(in crate::fleet) fn renew(&mut self, name: &str) {
        let gateway = self.gateways.get_mut(name).unwrap();
        if gateway.up && self.api_takes_writes {
            gateway.renewals += 1;
            let renewal = gateway.renewals.to_string();
            let lease = LeaseSeen { renewal, duration_ms: 15_000, released: false };
            self.fleet.handle_lease(self.now, name, Some(lease));
        }
    }

    pub(in crate::fleet) fn open_stream(&mut self, name: &str) {
        let gateway = self.gateways.get_mut(name).unwrap();
        if !gateway.up {
            return;
        }
        gateway.streaming = true;
        gateway.heard = true;
        let views: Vec<DeviceView> = gateway.views.values().cloned().collect();
        let token = String::new;
        self.fleet.handle_stream(self.now, name, StreamEvent::Snapshot { boot_id: "b".to_owned() });
        for view in views {
            let event = StreamEvent::Device { token: token(), device: Box::new(view) };
            self.fleet.handle_stream(self.now, name, event);
        }
        self.fleet.handle_stream(self.now, name, StreamEvent::SnapshotEnd { token: token() });
    }

    pub(in crate::fleet) fn close_stream(&mut self, name: &str) {
        self.troubled = true;
        self.gateways.get_mut(name).unwrap().streaming = false;
        self.fleet.handle_stream_down(self.now, name, "the connection broke");
    }

    /// The gateway starts again; with an empty disk if so asked. Its devices lose their sessions.
    pub(in crate::fleet) fn restart_gateway(&mut self, name: &str, empty_disk: bool) {
        for device in self.devices.keys().cloned().collect::<Vec<_>>() {
            if self.devices[&device].1.gateway.as_deref() == Some(name) {
                self.disconnect(&device);
            }
        }
        let gateway = self.gateways.get_mut(name).unwrap();
        gateway.views.clear();
        if empty_disk {
            gateway.sets.clear();
            gateway.modules.clear();
            gateway.term = 0;
            self.forget_lost_revisions();
        }
        let gateway = self.gateways.get_mut(name).unwrap();
        let held: Vec<String> = gateway.sets.keys().cloned().collect();
        for device in held {
            self.update_view(name, &device);
        }
        self.close_stream(name);
        self.open_stream(name);
    }

    /// A revision that no disk and no device remembers was never given away.
    pub(super) fn forget_lost_revisions(&mut self) {
        for (name, revisions) in &mut self.issued {
            let held = self.gateways.values().filter_map(|gateway| Some(gateway.sets.get(name)?.0));
            let known = held.fold(self.devices[name].1.revision, u64::max);
            revisions.retain(|revision, _| *revision <= known);
        }
    }

    pub(super) fn put(&mut self, put: Put) {
        assert!(put.body.sets.len() <= crate::gateway_api::SETS_PER_PUT_MAX);
        if put.body.sets.is_empty() {
            self.announcements += 1;
        } else {
            self.puts += 1;
        }
        assert!(self.gateways[&put.gateway].heard, "a gateway that was never heard was sent sets");
        for set in &put.body.sets {
            self.check_set(set);
        }
        let gateway = self.gateways.get_mut(&put.gateway).unwrap();
        if !gateway.up || self.gateway_fails {
            let outcome = PutOutcome::Failed("no connection".to_owned());
            self.fleet.handle_put_outcome(self.now, &put.gateway, put.id, outcome);
            return;
        }
        if put.body.leader_term < gateway.term {
            let refusal = Refusal {
                reason: "StaleLeader".to_owned(),
                message: "a later leader was seen".to_owned(),
                leader_term: Some(gateway.term),
            };
            self.fleet.handle_put_outcome(self.now, &put.gateway, put.id, PutOutcome::Fenced(refusal));
            return;
        }
        gateway.term = put.body.leader_term;
        let mut refused = Vec::new();
        let mut changed = Vec::new();
        let mut taken = Vec::new();
        for set in put.body.sets {
            let lacks = |entry: &&AssignmentEntry| !gateway.modules.contains(&entry.digest);
            let missing: Vec<String> =
                set.assignments.iter().filter(lacks).map(|e| e.digest.clone()).collect();
            let held = gateway.views.get(&set.device.name).map_or(0, |view| view.revision_seen);
            let other = |(revision, entries): &(u64, Vec<AssignmentEntry>)| {
                *revision == set.revision && hashes(entries) != hashes(&set.assignments)
            };
            let stale = set.revision < held || gateway.sets.get(&set.device.name).is_some_and(other);
            if !missing.is_empty() || stale {
                refused.push(SetRefusal {
                    device: set.device,
                    held_revision: stale.then_some(held),
                    message: "not taken".to_owned(),
                    missing_modules: missing,
                });
                continue;
            }
            taken.push(set.clone());
            changed.push(set.device.name.clone());
            gateway.sets.insert(set.device.name, (set.revision, set.assignments));
        }
        let outcome = if self.answers_lost {
            PutOutcome::Failed("no answer".to_owned())
        } else {
            PutOutcome::Answered(PutSetsAnswer { refused })
        };
        for set in &taken {
            self.check_revision(set);
        }
        self.fleet.handle_put_outcome(self.now, &put.gateway, put.id, outcome);
        for device in changed {
            self.update_view(&put.gateway, &device);
            if self.devices[&device].1.gateway.as_deref() == Some(&put.gateway) {
                self.converge_device(&device);
            }
        }
    }

    pub(super) fn put_orders(&mut self, put: OrdersPut) {
        let gateway = self.gateways.get_mut(&put.gateway).unwrap();
        gateway.order_puts += 1;
        let outcome = if !gateway.up || self.gateway_fails {
            OrdersOutcome::Failed("no connection".to_owned())
        } else if self.gateways_too_old {
            OrdersOutcome::TooOld
        } else {
            let named = put.orders.into_iter().map(|order| (order.device.name.clone(), order));
            gateway.orders = named.collect();
            OrdersOutcome::Answered(PutDecommissionsAnswer { refused: Vec::new() })
        };
        self.fleet.handle_orders_outcome(self.now, &put.gateway, put.id, outcome);
    }

    /// A gateway says this of a device that is being taken out of service.
    pub(in crate::fleet) fn say_decommission(&mut self, device: &str, view: DecommissionView) {
        self.decommissions.insert(device.to_owned(), view);
        if let Some(gateway) = self.devices[device].1.gateway.clone() {
            self.update_view(&gateway, device);
        }
    }

    pub(super) fn update_view(&mut self, name: &str, device: &str) {
        let facts = self.facts(device);
        let (object, fake) = &self.devices[device];
        let gateway = self.gateways.get_mut(name).unwrap();
        let connected = fake.gateway.as_deref() == Some(name);
        let held = gateway.sets.get(device).map(|(revision, _)| *revision);
        let before = gateway.views.get(device);
        let status = object.status.clone().unwrap_or_default();
        let own = status.gateway.as_deref() == Some(name);
        let epoch = status.epoch.and_then(|epoch| u64::try_from(epoch).ok()).unwrap_or(0);
        let view = DeviceView {
            settings: None,
            device: ObjectKey { namespace: NAMESPACE.to_owned(), name: device.to_owned() },
            connected,
            epoch: if own { epoch } else { before.map_or(0, |view| view.epoch) },
            revision_seen: held.unwrap_or(0).max(if connected { fake.revision } else { 0 }),
            revision_held: held,
            revision_reported: connected.then_some(fake.revision),
            facts: connected.then_some(facts),
            applications: connected.then(|| reports(fake)),
            decommission: self.decommissions.get(device).cloned().filter(|_| connected),
        };
        gateway.views.insert(device.to_owned(), view.clone());
        if gateway.streaming {
            let event = StreamEvent::Device { token: String::new(), device: Box::new(view) };
            self.fleet.handle_stream(self.now, name, event);
        }
    }
}
