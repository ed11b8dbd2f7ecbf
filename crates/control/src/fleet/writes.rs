//! Writes to the Kubernetes API: statuses, finalizers, Unreachable marks and Events, within one rate.

use wasmbed_api::ApplicationStatus;

use super::{
    Fleet,
    application_entry::Application,
    config::EVENTS_QUEUED_MAX,
    device_entry::Device,
    gateways::Gateway,
    input::{CallId, FinalizerWrite, GatewayWrite, StatusWrite, UnreachableWrite},
    published::Transition,
    record::{ApplicationId, DeviceId, Placement},
    status::{Facts, TargetState, plan_status, plan_target_state},
    write_queue::Subject,
};
use crate::{
    Now, ObjectKey,
    kubernetes::{Event, Regarding, WriteOutcome},
};

impl Fleet {
    /// The next status to write. Call until there is none.
    pub fn poll_status(&mut self, now: Now) -> Option<StatusWrite> {
        self.settle(now);
        if self.term.is_none() || !self.is_complete() || !self.counts_known(now) {
            return None;
        }
        while self.writes.may_write(now.ms) {
            let id = self.status_queue.pop_due(now.ms)?;
            if let Some(write) = self.status_write(now, id) {
                return Some(write);
            }
        }
        None
    }

    /// A status speaks for all gateways: each live one has been heard, or has been given up.
    pub(super) fn counts_known(&self, now: Now) -> bool {
        let heard =
            |gateway: &Gateway| gateway.is_heard(self.config.retries_max) || !self.is_live(now, gateway);
        self.gateways.values().all(heard)
    }

    fn status_write(&mut self, now: Now, id: ApplicationId) -> Option<StatusWrite> {
        let application = self.applications.get(&id)?;
        // The answer, or the watch, has it looked at again.
        if !application.is_writable() {
            return None;
        }
        // So has the answer to the read.
        if self.awaits_secrets(application) && !application.is_deleting() {
            return None;
        }
        self.reconciliations += 1;
        let application = self.applications.get(&id)?;
        let (status, recheck_ms) = self.status_of(now, application);
        let says = application.published().says(&status);
        self.recheck(id, recheck_ms);
        if says {
            return None;
        }
        let call = self.next_call();
        let application = self.applications.get_mut(&id)?;
        let patch = application.status_patch(&status);
        let key = application.key().clone();
        let correlation_id = application.spec().correlation;
        // Compared with the newest status known: the watch may bring the new status before the answer does.
        let transitions = application.published().transitions(&status);
        let version = application.begin_status_write(now);
        let status = Box::new(status);
        self.writes.begin(call, Subject::Status { id, version, status, transitions });
        Some(StatusWrite { id: call, application: key, patch, correlation_id })
    }

    /// Has a status looked at again at that time.
    fn recheck(&mut self, id: ApplicationId, at_ms: Option<u64>) {
        match at_ms {
            Some(at_ms) => self.rechecks.set(id, at_ms),
            None => self.rechecks.remove(id),
        }
    }

    /// The status, and when it will say something else without anything happening.
    fn status_of(&self, now: Now, application: &Application) -> (ApplicationStatus, Option<u64>) {
        let module = self.module_of(application).map(|facts| facts.digest);
        let mut facts = Facts::new(application, module);
        let (uid, spec_hash) = (application.uid(), application.wanted_hash());
        let own_id = self.application_ids.get(application.key()).copied();
        let mut recheck_ms: Option<u64> = None;
        let targets = application.target_ids().iter().filter_map(|id| Some((*id, self.devices.get(id)?)));
        for (device_id, device) in targets {
            let name = device.key().name.as_str();
            if !device.is_admitted() {
                facts.leave_out(name, left_out(device));
                continue;
            }
            let latest_view = self.latest_view(now, device);
            let connected = latest_view.is_connected();
            let placement = own_id.map_or(&Placement::FactsUnknown, |id| device.placement(id));
            let report = match placement {
                Placement::Finished => device.finished(uid, spec_hash),
                _ => latest_view.report_of(uid),
            };
            let policy = application.spec().config.restart_policy;
            let mut standing = plan_target_state(placement, connected, policy, spec_hash, report);
            if standing == TargetState::Running && application.min_ready_ms() > 0 {
                let since_ms = device.healthy(uid).map_or(now.ms, |health| health.since_ms());
                let until_ms = since_ms.saturating_add(application.min_ready_ms());
                if until_ms > now.ms {
                    standing = TargetState::Young;
                    recheck_ms = Some(recheck_ms.map_or(until_ms, |other| other.min(until_ms)));
                }
            }
            let runs_earlier =
                report.is_some_and(|report| report.is_running() && Some(report.spec_hash()) != spec_hash);
            facts.add_target(name, standing, connected, runs_earlier);
            facts.note_trouble(|| self.trouble_of(device_id));
        }
        let facts = facts.complete(self.missing_names(application));
        (plan_status(&facts, application.published(), now.unix_ms), recheck_ms)
    }

    fn missing_names<'a>(&self, application: &'a Application) -> Vec<&'a str> {
        let namespace = &application.key().namespace;
        let absent = |name: &&str| {
            let key = ObjectKey::new(namespace.as_str(), *name);
            !self.device_ids.contains_key(&key)
        };
        let names =
            application.targets().into_iter().flat_map(|targets| &targets.device_names).map(String::as_str);
        let mut missing: Vec<&str> = names.filter(absent).collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Why a device's set does not reach a gateway.
    fn trouble_of(&self, device_id: DeviceId) -> Option<(String, bool)> {
        self.gateways.iter().find_map(|(name, gateway)| {
            if !gateway.lacking().contains(&device_id) {
                return None;
            }
            let said = |(failure, given_up)| (format!("gateway {name}: {failure}"), given_up);
            if let Some(trouble) = gateway.call_trouble() {
                return Some(said(trouble));
            }
            if let Some(application) = self.lost_module(device_id, gateway) {
                let key = application.key();
                return Some((
                    format!("gateway {name} lacks the module of {key}, and no object holds it"),
                    false,
                ));
            }
            gateway.stream_trouble(self.config.retries_max).map(said)
        })
    }

    /// The next change of finalizers. Call until there is none.
    pub fn poll_finalizer(&mut self, now: Now) -> Option<FinalizerWrite> {
        self.check_undeploys(now);
        if self.term.is_none() || !self.is_complete() {
            return None;
        }
        let waiting: Vec<ApplicationId> = self.finalizers.iter().copied().collect();
        for id in waiting {
            if !self.writes.may_write(now.ms) {
                return None;
            }
            let application = self.applications.get_mut(&id);
            let application = present!(application, "only what is there has finalizers" => None);
            if !application.is_writable() {
                continue;
            }
            self.finalizers.remove(&id);
            let add = !application.is_deleting();
            if add == application.has_finalizer() {
                continue;
            }
            let patch = application.finalizer_patch(add);
            let key = application.key().clone();
            let version = application.begin_write();
            let call = self.next_call();
            self.writes.begin(call, Subject::Finalizer { id, version });
            return Some(FinalizerWrite { id: call, application: key, add, patch });
        }
        None
    }

    /// Has the finalizer added if it is missing, or removed once nothing waits any more.
    pub(super) fn schedule_finalizer(&mut self, id: ApplicationId) {
        // A write of its finalizers may be answered after it is gone.
        let Some(application) = self.applications.get(&id) else { return };
        let deleting = application.is_deleting();
        let done = deleting && !self.undeploying.contains(&id);
        if deleting == application.has_finalizer() && (done || !deleting) {
            self.finalizers.insert(id);
        }
    }

    /// The next Device to be marked Unreachable, or Revoked if it is: still claimed by a gateway that is gone, and by none that
    /// lives. Call until there is none.
    pub fn poll_device_unreachable(&mut self, now: Now) -> Option<UnreachableWrite> {
        self.term?;
        self.api_since(now)?;
        while self.writes.may_write(now.ms) {
            let id = self.unreachable.pop_first()?;
            let Some(device) = self.devices.get(&id).filter(|device| !device.is_writing()) else { continue };
            let Some(phase) = device.phase_without_gateway() else { continue };
            if self.latest_view(now, device).is_connected() {
                continue;
            }
            let Some(name) = device.seen().gateway() else { continue };
            if self.gateways.get(name).is_none_or(|gateway| self.is_live(now, gateway)) {
                continue;
            }
            let epoch = i64::try_from(device.seen().epoch()).unwrap_or(i64::MAX);
            let patch = device.unreachable_patch(phase, name, now);
            let (key, gateway) = (device.key().clone(), name.to_owned());
            let call = self.next_call();
            self.writes.begin(call, Subject::Unreachable(id));
            if let Some(device) = self.devices.get_mut(&id) {
                device.begin_write();
            }
            return Some(UnreachableWrite { id: call, device: key, gateway, epoch, patch });
        }
        None
    }

    /// The next DeviceGateway whose gateway is gone and of which nothing is known any more. Call until there is none.
    pub fn poll_gateway_unknown(&mut self, now: Now) -> Option<GatewayWrite> {
        self.term?;
        let name = self.gateway_to_mark(now)?.clone();
        if !self.writes.may_write(now.ms) {
            return None;
        }
        let call = self.next_call();
        let (gateway, patch) = self.gateways.get_mut(&name)?.begin_mark(now.unix_ms)?;
        self.writes.begin(call, Subject::Gateway(name));
        Some(GatewayWrite { id: call, gateway, patch })
    }

    pub(super) fn gateway_to_mark(&self, now: Now) -> Option<&String> {
        self.api_since(now)?;
        let gone = |gateway: &Gateway| gateway.is_to_be_marked(self.is_live(now, gateway));
        self.gateways.iter().find(|(_, gateway)| gone(gateway)).map(|(name, _)| name)
    }

    /// How a write to the Kubernetes API ended; if it succeeded, with the object's resourceVersion after it.
    pub fn handle_write_outcome(&mut self, now: Now, id: CallId, outcome: WriteOutcome<String>) {
        let subject = present!(self.writes.end(id), "a write is answered once");
        match &outcome {
            WriteOutcome::Throttled { retry_after_ms } => self.writes.failed(now.ms, *retry_after_ms),
            WriteOutcome::Unavailable(_) => self.writes.failed(now.ms, 0),
            WriteOutcome::Done(_)
            | WriteOutcome::Conflict
            | WriteOutcome::NotFound
            | WriteOutcome::Rejected(_) => self.writes.succeeded(),
        }
        match subject {
            Subject::Status { id, version, status, transitions } => {
                self.application_written(now, id, &outcome, &version);
                if let (WriteOutcome::Done(_), Some(application)) = (outcome, self.applications.get_mut(&id))
                {
                    application.status_written(&status);
                    let may = |_: &Transition| application.take_event(now);
                    let all = transitions.len();
                    let transitions: Vec<_> = transitions.into_iter().filter(may).collect();
                    self.events_dropped += (all - transitions.len()) as u64;
                    let regarding = Regarding::application(application.key().clone(), application.uid());
                    for Transition { warning, reason, message } in transitions {
                        let (regarding, unix_ms) = (regarding.clone(), now.unix_ms);
                        self.push_event(Event { regarding, warning, reason, message, unix_ms });
                    }
                }
            }
            Subject::Finalizer { id, version } => {
                self.application_written(now, id, &outcome, &version);
                self.schedule_finalizer(id);
            }
            Subject::DeviceFinalizer { id, add } => self.device_finalizer_written(now, id, add, &outcome),
            Subject::Finished(id) => {
                // It may be gone since, here and below.
                let Some(device) = self.devices.get_mut(&id) else { return };
                device.end_write();
                match outcome {
                    WriteOutcome::Throttled { .. } | WriteOutcome::Unavailable(_) => {
                        device.retry_finish();
                        self.finishing.insert(id);
                    }
                    // The watch brings the newest status; a refused one is tried at the next interval.
                    WriteOutcome::Done(_)
                    | WriteOutcome::Conflict
                    | WriteOutcome::NotFound
                    | WriteOutcome::Rejected(_) => {}
                }
                self.device_changed(now, id);
            }
            // The watch brings what another wrote; a refused one is tried at the next interval.
            Subject::Gateway(name) => {
                if let WriteOutcome::Throttled { .. } | WriteOutcome::Unavailable(_) = outcome
                    && let Some(gateway) = self.gateways.get_mut(&name)
                {
                    gateway.retry_mark();
                }
            }
            Subject::Approval(name) => self.approval_written(&name, &outcome),
            Subject::Quota { key, version, used } => self.quota_written(now, key, (&version, used), &outcome),
            Subject::Decommission { id, version } => self.decommission_written(now, id, &version, &outcome),
            Subject::Unreachable(id) => {
                let Some(device) = self.devices.get_mut(&id) else { return };
                device.end_write();
                match outcome {
                    WriteOutcome::Throttled { .. } | WriteOutcome::Unavailable(_) => {
                        self.unreachable.insert(id);
                    }
                    // The watch brings what another wrote; a refused one is tried at the next interval.
                    WriteOutcome::Done(_)
                    | WriteOutcome::Conflict
                    | WriteOutcome::NotFound
                    | WriteOutcome::Rejected(_) => {}
                }
                self.schedule_device_finalizer(now, id);
            }
        }
    }

    fn application_written(
        &mut self,
        now: Now,
        id: ApplicationId,
        outcome: &WriteOutcome<String>,
        version: &str,
    ) {
        // It may be gone since.
        let Some(application) = self.applications.get_mut(&id) else { return };
        application.written(outcome, version);
        match outcome {
            // The watch says that it is gone, or the interval has it tried again.
            WriteOutcome::NotFound | WriteOutcome::Rejected(_) => {}
            WriteOutcome::Done(_)
            | WriteOutcome::Conflict
            | WriteOutcome::Throttled { .. }
            | WriteOutcome::Unavailable(_) => self.schedule_status(now, id),
        }
    }

    /// The next Event to write. They are for people: one that can't be written is dropped.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.term?;
        self.events.pop_front()
    }

    pub(super) fn push_event(&mut self, event: Event) {
        if self.events.len() == EVENTS_QUEUED_MAX {
            self.events.pop_front();
            self.events_dropped += 1;
        }
        self.events.push_back(event);
    }

    /// The status of an Application as it would be written now.
    #[must_use]
    pub fn status(&self, now: Now, key: &ObjectKey) -> Option<ApplicationStatus> {
        let application = self.applications.get(self.application_ids.get(key)?)?;
        Some(self.status_of(now, application).0)
    }
}

/// Why a device is nobody's target.
fn left_out(device: &Device) -> TargetState {
    if device.is_decommissioned() {
        TargetState::Decommissioned
    } else if device.is_revoked() {
        TargetState::Revoked
    } else {
        TargetState::NotApproved
    }
}
