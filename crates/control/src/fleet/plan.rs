//! Planning: the set of each device, and the gateways that have to receive it.

use std::sync::Arc;

use wasmbed_protocol::{ApplicationUid, SpecHash};

use super::{
    Fleet, ModuleFacts,
    application_entry::Application,
    device_entry::{Device, PlanEffects},
    gateways::Gateway,
    record::{ApplicationId, DeviceId, Placement, Prepared},
    set::{Candidate, Earlier, beside_unreadable, plan_revision, plan_set},
    view::{LatestView, View},
};
use crate::{Now, ObjectKey};

impl Fleet {
    /// Plans every device that something happened to. Only a leader plans, and only from complete lists.
    pub(super) fn settle(&mut self, now: Now) {
        if !self.decides() {
            return;
        }
        self.settle_places(now);
        while let Some(id) = self.replan.pop_first() {
            self.reconciliations += 1;
            self.plan_device(now, id);
        }
    }

    /// Whether it decides anything.
    pub(super) fn decides(&self) -> bool {
        self.term.is_some() && self.is_complete()
    }

    fn plan_device(&mut self, now: Now, id: DeviceId) {
        self.note_reports(now, id);
        let device = present!(self.devices.get(&id), "only what is there is planned");
        let latest_view = self.latest_view(now, device);
        let modules: Vec<(ApplicationId, Option<Arc<ModuleFacts>>)> = device
            .targeted_by()
            .iter()
            // One that is taken out of service gets nothing, as if it were nobody's target.
            .filter(|_| !device.is_decommissioned())
            .filter_map(|id| Some((*id, self.module_of(self.applications.get(id)?))))
            .collect();
        let candidates = modules.iter().filter_map(|(id, module)| {
            let application = self.applications.get(id).filter(|application| !application.is_deleting())?;
            let uid = application.uid();
            let present = latest_view.report_of(uid).is_some()
                || device.has_member(*id)
                || device.seen().applications().iter().any(|report| report.uid() == uid);
            let wanted = application.wanted_hash();
            let earlier = earlier(device, *id, application, &latest_view);
            let finished = device.finished(uid, wanted).is_some();
            let ended = wanted.is_some_and(|hash| device.has_ended(uid, hash));
            let candidate = Candidate::new(*id, application, module.as_deref(), present)?;
            Some(candidate.ended(ended).finished(finished).earlier(earlier))
        });
        let unknown = self.unreadable_on(device, &latest_view).map(beside_unreadable);
        let unknown = unknown.filter(|_| !device.is_decommissioned());
        let plan = plan_set(candidates.collect(), latest_view.facts(), device.is_unschedulable(), unknown);
        let finish = self.plan_finished(device, &latest_view, &plan.leaving);
        let report = latest_view.last_report();
        let seen = self.highest_revision(device);
        // What is being deleted or taken out of service is emptied, whatever it is.
        let emptied = device.is_deleting() || device.is_decommissioned();
        let content = plan.content.or_else(|| emptied.then(Vec::new));
        let planned = content.map(|content| plan_revision(content, device.planned(), seen, report.as_ref()));
        // What goes on there is of an earlier generation; this one failed.
        let placement = |(id, placement): (ApplicationId, Placement)| {
            let prepared = self.applications.get(&id).map(Application::prepared);
            match (placement, prepared) {
                (Placement::Retained | Placement::FactsUnknown, Some(Prepared::Refused { refusal, .. })) => {
                    (id, Placement::Refused(refusal.clone()))
                }
                (placement, _) => (id, placement),
            }
        };
        let placements = plan.placements.into_iter().map(placement).collect();
        let device = present!(self.devices.get_mut(&id), "the Device was just found");
        let PlanEffects { changed, finish } = device.plan(placements, planned, finish);
        if finish {
            self.finishing.insert(id);
        }
        self.plan_settings(id);
        self.route(now, id);
        self.schedule_device_finalizer(now, id);
        if changed {
            self.schedule_statuses_of(now, id);
        }
    }

    /// An Application that can't be read, and that a device has: whether it is to go on there is unknown.
    fn unreadable_on(&self, device: &Device, latest_view: &LatestView<'_>) -> Option<&ObjectKey> {
        let reports = latest_view.applications().unwrap_or(device.seen().applications());
        let has = |uid: &ApplicationUid| reports.iter().any(|report| report.uid() == *uid);
        self.unreadable.iter().find(|(_, uid)| has(uid)).map(|(key, _)| key)
    }

    /// The highest revision that anyone but us has named for a device.
    fn highest_revision(&self, device: &Device) -> u64 {
        let views = self.gateways.values().filter_map(|gateway| gateway.view(device.key()));
        views.map(View::highest_revision).fold(device.seen().revision(), u64::max)
    }

    /// Notes for each gateway whether it may lack the device's set.
    fn route(&mut self, now: Now, id: DeviceId) {
        let device = present!(self.devices.get(&id), "the Device was just planned");
        let planned = device.planned().filter(|_| !device.is_revoked());
        let routes = if planned.is_some() { self.routes(now, device) } else { Vec::new() };
        for (name, gateway) in &mut self.gateways {
            let lacks = planned
                .is_some_and(|planned| routes.contains(name) && !gateway.holds(id, device.key(), planned));
            gateway.note_lack(id, lacks);
            let settings = device.settings().filter(|_| routes.contains(name));
            gateway.note_settings(id, device.key(), settings);
        }
    }

    /// Every live gateway that holds or last held the device; the only one there is, if none is known to.
    pub(super) fn routes(&self, now: Now, device: &Device) -> Vec<String> {
        let live = self
            .gateways
            .iter()
            .filter(|(_, gateway)| gateway.address().is_some() && self.is_live(now, gateway));
        let live: Vec<_> = live.collect();
        let knows = |name: &String, gateway: &Gateway| {
            gateway.view(device.key()).is_some() || device.seen().gateway() == Some(name.as_str())
        };
        let known: Vec<String> = live
            .iter()
            .filter(|(name, gateway)| knows(name, gateway))
            .map(|(name, _)| (*name).clone())
            .collect();
        match (known.is_empty(), live.as_slice()) {
            (true, [(only, _)]) => vec![(*only).clone()],
            (true, _) | (false, _) => known,
        }
    }
}

/// What goes on of an Application on a device that is not of its present generation.
fn earlier<'a>(
    device: &'a Device,
    id: ApplicationId,
    application: &Application,
    latest_view: &LatestView<'_>,
) -> Earlier<'a> {
    let uid = application.uid();
    let is_earlier =
        |hash: SpecHash| Some(hash) != application.offered_hash() && !device.has_ended(uid, hash);
    let reports = latest_view.applications().unwrap_or(device.seen().applications());
    let Some(report) = reports.iter().find(|report| report.uid() == uid && report.goes_on()) else {
        return Earlier::Nothing;
    };
    match device.assigned(id) {
        Some(assigned) if is_earlier(assigned.spec_hash) => Earlier::Known(assigned),
        None if is_earlier(report.spec_hash()) => Earlier::Unknown,
        Some(_) | None => Earlier::Nothing,
    }
}
