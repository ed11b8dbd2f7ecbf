//! The finalizer on Devices: a Device with an assignment goes once its device has let go of it, or can't be asked to.
//!
//! ```text
//! an assignment ── 5 s ──> finalizer added        nothing assigned, nothing reported ── 5 s ──> finalizer removed
//! Device deleted ─> empty set sent ─┬─ device reported it ─────────────────────────────┐
//!                                   ├─ device away ────── Event RunningUnknown if it runs something ─┤
//!                                   └─ 60 s ───────────── Event RunningUnknown ────────┴─> finalizer removed
//! ```

use wasmbed_api::ReasonCode;

use super::{
    Fleet,
    config::{
        DEVICE_FINALIZER_DELAY_MS, DEVICE_FINALIZER_PAUSE_MS, DEVICE_FINALIZER_RETRY_MS, NAMES_IN_MESSAGE_MAX,
    },
    decommissioning::Decommissioning,
    device_entry::Device,
    input::DeviceFinalizerWrite,
    record::DeviceId,
};
use crate::{
    Now,
    kubernetes::{Event, Regarding, WriteOutcome},
};

/// What a deletion waits for.
enum Hold {
    /// It is connected and has not confirmed the empty set.
    Waits,
    /// It runs nothing any more, or never did.
    Confirmed,
    /// It is away.
    Away,
}

impl Fleet {
    /// Has the finalizer of a Device added, removed, or waited for, as planning has just left it.
    pub(super) fn schedule_device_finalizer(&mut self, now: Now, id: DeviceId) {
        let device = present!(self.devices.get(&id), "only what is there has finalizers");
        // The answer has it looked at again.
        if device.is_writing() {
            return;
        }
        let has = device.has_finalizer();
        if device.is_deleting() {
            if has && !device.has_release() {
                self.begin_release(now, id);
            } else if has && device.is_released() {
                self.queue_device_finalizer(id, Some((now.ms, true)));
            } else if !has {
                self.releasing.remove(&id);
                self.queue_device_finalizer(id, None);
            }
            return;
        }
        let planned = device.planned();
        let erased = device.decommissioning().is_some_and(Decommissioning::is_confirmed);
        let reported =
            self.latest_view(now, device).applications().is_some_and(|reports| !reports.is_empty());
        let runs = !erased
            && (reported
                || !device.seen().applications().is_empty()
                || planned.is_some_and(|planned| !planned.content().is_empty()));
        // Without a plan it is not known whether there is something.
        let change = if runs { !has } else { has && planned.is_some() };
        if !change {
            self.queue_device_finalizer(id, None);
        } else if !self.device_finalizers.contains(id) && !self.device_releases.contains(id) {
            let at_ms = now.ms.saturating_add(DEVICE_FINALIZER_DELAY_MS).max(device.finalizer_pause_ms());
            self.queue_device_finalizer(id, Some((at_ms, false)));
        }
    }

    fn begin_release(&mut self, now: Now, id: DeviceId) {
        if let Some(device) = self.devices.get_mut(&id) {
            device.begin_release(now);
        }
        self.queue_device_finalizer(id, None);
        self.releasing.insert(id);
        self.renew_gateways();
    }

    /// Has the finalizers of a Device written at a time, and whether a deletion waits for it; `None` has them left alone.
    fn queue_device_finalizer(&mut self, id: DeviceId, due: Option<(u64, bool)>) {
        self.device_finalizers.remove(id);
        self.device_releases.remove(id);
        match due {
            Some((at_ms, true)) => self.device_releases.set(id, at_ms),
            Some((at_ms, false)) => self.device_finalizers.set(id, at_ms),
            None => {}
        }
    }

    /// Lets go of Devices whose device confirmed, is away, or was waited for long enough.
    pub(super) fn check_releases(&mut self, now: Now) {
        self.settle(now);
        if self.term.is_none() || !self.is_complete() {
            return;
        }
        for id in self.releasing.clone() {
            let device = present!(self.devices.get(&id), "a Device that is gone is not waited for");
            let Some(since_ms) = device.waits_since_ms() else { continue };
            let late = now.ms >= since_ms.saturating_add(self.config.undeploy_timeout_ms);
            let runs = match self.hold_of(now, id, device) {
                Hold::Waits if !late => continue,
                Hold::Waits => {
                    let s = self.config.undeploy_timeout_ms / 1_000;
                    Some(format!("the device did not confirm within {s} s that it stopped"))
                }
                Hold::Confirmed => None,
                Hold::Away => Some("the device is not connected and may go on running".to_owned()),
            };
            let event = runs.and_then(|why| Some((device, format!("{why} {}", self.names_running(device)?))));
            let event = event.map(|(device, message)| Event {
                regarding: Regarding::device(device.key().clone(), device.uid()),
                warning: true,
                reason: ReasonCode::RunningUnknown,
                message,
                unix_ms: now.unix_ms,
            });
            if let Some(event) = event {
                self.push_event(event);
            }
            if let Some(device) = self.devices.get_mut(&id) {
                device.end_release();
            }
            self.schedule_device_finalizer(now, id);
        }
    }

    fn hold_of(&self, now: Now, id: DeviceId, device: &Device) -> Hold {
        if device.decommissioning().is_some_and(Decommissioning::is_confirmed) {
            return Hold::Confirmed;
        }
        let latest_view = self.latest_view(now, device);
        if !latest_view.is_connected() || device.is_revoked() {
            return Hold::Away;
        }
        let Some(reports) = latest_view.applications() else { return Hold::Waits };
        let Some(planned) = device.planned() else { return Hold::Waits };
        // A device that was never sent a set need not confirm an empty one.
        let told = latest_view.works_to(planned) && planned.is_issued();
        let fresh = planned.revision() <= 1 && latest_view.has_no_set() && !self.is_moving(id);
        if reports.is_empty() && (told || fresh) { Hold::Confirmed } else { Hold::Waits }
    }

    /// A set of it is on its way to a gateway.
    fn is_moving(&self, id: DeviceId) -> bool {
        self.gateways.values().any(|gateway| gateway.is_sent(id))
    }

    /// What was last known to run on a device, for people; none if that is nothing.
    fn names_running(&self, device: &Device) -> Option<String> {
        let names: Vec<String> = device
            .seen()
            .applications()
            .iter()
            .map(|report| {
                let known = self.applications.values().find(|application| application.uid() == report.uid());
                known.map_or_else(|| report.uid().to_string(), |application| application.key().name.clone())
            })
            .collect();
        let shown = names.len().min(NAMES_IN_MESSAGE_MAX);
        match names.len() - shown {
            _ if names.is_empty() => None,
            0 => Some(names.join(", ")),
            more => Some(format!("{} and {more} more", names[..shown].join(", "))),
        }
    }

    /// The next change of a Device's finalizers. Call until there is none, after [`Fleet::poll_status`]: adding one can wait.
    pub fn poll_device_finalizer(&mut self, now: Now) -> Option<DeviceFinalizerWrite> {
        self.check_releases(now);
        if self.term.is_none() || !self.is_complete() {
            return None;
        }
        loop {
            let release = self.device_releases.due(now.ms);
            let other = self.device_finalizers.due(now.ms);
            let id = match (release, other) {
                (Some(id), _) if self.writes.may_write(now.ms) => id,
                (None, Some(id)) if self.writes.has_spare(now.ms) => id,
                (Some(_), _) | (None, _) => return None,
            };
            self.queue_device_finalizer(id, None);
            if let Some(write) = self.device_finalizer_write(id, release.is_none()) {
                return Some(write);
            }
        }
    }

    fn device_finalizer_write(&mut self, id: DeviceId, may_add: bool) -> Option<DeviceFinalizerWrite> {
        let device = self.devices.get(&id).filter(|device| !device.is_writing())?;
        let has = device.has_finalizer();
        // Kubernetes takes no new finalizer of what is being deleted.
        let add = may_add && !has && !device.is_deleting();
        if !add && !has {
            return None;
        }
        let (key, patch) = (device.key().clone(), device.finalizer_patch(add));
        let call = self.next_call();
        self.writes.begin_device_finalizer(call, id, add);
        if let Some(device) = self.devices.get_mut(&id) {
            device.begin_write();
        }
        Some(DeviceFinalizerWrite { id: call, device: key, add, patch })
    }

    pub(super) fn device_finalizer_written(
        &mut self,
        now: Now,
        id: DeviceId,
        add: bool,
        outcome: &WriteOutcome<String>,
    ) {
        // It may be gone since.
        let Some(device) = self.devices.get_mut(&id) else { return };
        device.end_write();
        let pause_ms = match outcome {
            WriteOutcome::Done(resource_version) => {
                device.finalizer_written(add, resource_version);
                0
            }
            // The watch says that it is gone.
            WriteOutcome::NotFound => return,
            WriteOutcome::Conflict | WriteOutcome::Throttled { .. } | WriteOutcome::Unavailable(_) => {
                DEVICE_FINALIZER_RETRY_MS
            }
            WriteOutcome::Rejected(_) => DEVICE_FINALIZER_PAUSE_MS,
        };
        let at_ms = now.ms.saturating_add(pause_ms);
        if pause_ms == 0 {
            self.schedule_device_finalizer(now, id);
            return;
        }
        let releases = device.is_released();
        if matches!(outcome, WriteOutcome::Rejected(_)) && !releases {
            device.pause_finalizer(at_ms);
        }
        // A deletion that hangs is tried again soon, whatever the answer was.
        let at_ms = if releases {
            now.ms.saturating_add(pause_ms.min(30 * DEVICE_FINALIZER_RETRY_MS))
        } else {
            at_ms
        };
        self.queue_device_finalizer(id, Some((at_ms, releases)));
    }

    /// When time alone makes something of this due.
    pub(super) fn release_timeouts(&self, now: Now) -> impl Iterator<Item = u64> {
        let leads = self.term.is_some() && self.is_complete();
        let waiting = self.releasing.iter().filter_map(|id| self.devices.get(id)?.waits_since_ms());
        let late = waiting.map(|since_ms| since_ms.saturating_add(self.config.undeploy_timeout_ms)).min();
        let release = self.device_releases.first_ms().map(|at_ms| at_ms.max(self.writes.ready_ms(now.ms)));
        let other = self.device_finalizers.first_ms().map(|at_ms| at_ms.max(self.writes.spare_ms(now.ms)));
        [late, release, other].into_iter().flatten().filter(move |_| leads)
    }
}
