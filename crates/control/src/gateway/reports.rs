//! What established sessions bring: signs of life, reports, requests for modules, log lines.

use std::sync::Arc;

use wasmbed_protocol::{ErrorCode, Heartbeat, Log, ModuleGet, Reported, limits::LOG_TEXT_BYTES_MAX, tag};

use super::{
    Gateway,
    device::{Application, applications_hash, reason_code},
    events::About,
    input::{Notice, SessionId},
    logs::{Line, Origin},
    pending::Range,
};
use crate::{
    Now, ObjectKey, harmless,
    kubernetes::{Event, Regarding},
};

impl Gateway {
    /// A set changed: it is offered to the device if its session is established.
    pub(super) fn offer_desired(&mut self, key: &Arc<ObjectKey>) {
        let record = present!(self.devices.get(key), "a set is taken for a known device");
        if let Some(id) = record.session
            && record.desired_known()
            && let Some(session) = self.connections.get_mut(id)
            && session.is_established()
        {
            session.pending.offer_desired();
            self.connections.wake(id);
        }
    }

    pub(super) fn handle_heartbeat(
        &mut self,
        _now: Now,
        id: SessionId,
        device: &Arc<ObjectKey>,
        heartbeat: Heartbeat,
    ) {
        if let Some(session) = self.connections.get_mut(id) {
            session.pending.acknowledge(heartbeat.sequence);
            self.connections.wake(id);
            self.counters.heartbeats += 1;
            self.changed.insert(Arc::clone(device));
        }
    }

    pub(super) fn handle_reported(&mut self, now: Now, device: &Arc<ObjectKey>, reported: &Reported<'_>) {
        let record = present!(self.devices.get_mut(device), "an established session has its record");
        let live = present!(record.live.as_deref_mut(), "an established session has its epoch");
        let limit = live.revision_limit.max(record.revision_seen);
        let counted = reported.revision.0.checked_sub(record.revision_base);
        let counted = counted.filter(|revision| *revision <= limit);
        let mut told = Vec::new();
        let mut events = Vec::new();
        let mut applications: Vec<Application> = Vec::with_capacity(reported.applications.len());
        for report in reported.applications.iter() {
            let earlier = live.applications.iter().flatten().find(|earlier| earlier.uid == report.uid);
            let name = record.set.as_ref().and_then(|set| set.application(&report.uid).cloned());
            let name = name.or_else(|| earlier.and_then(|earlier| earlier.name.clone()));
            let mut application = Application::new(&report, name);
            let same = earlier.filter(|earlier| earlier.spec_hash == report.spec_hash);
            application.last_reported_failure = same.and_then(|earlier| earlier.last_reported_failure);
            if same.is_none_or(|same| (same.state, same.reason) != (report.state, report.reason)) {
                told.push(Notice::Reported {
                    device: Arc::clone(device),
                    application: display_name(&application),
                    state: report.state.name(),
                    reason: report.reason.name(),
                    correlation_id: report.correlation_id,
                });
            }
            if application.failed() && application.last_reported_failure != Some(report.reason) {
                application.last_reported_failure = Some(report.reason);
                let named = application.name.is_some().then_some(report.uid);
                events.extend(
                    record
                        .object
                        .as_ref()
                        .map(|object| (named, failure(now, &application, device, &object.uid))),
                );
            }
            applications.push(application);
        }
        let hash = applications_hash(applications.iter().map(Application::to_resource));
        record.revision_seen = record.revision_seen.max(counted.unwrap_or(0));
        let revision = counted.or(Some(0));
        let changed = live.applications.is_none()
            || live.applications_hash != hash
            || live.revision_reported != revision;
        live.applications = Some(applications);
        live.applications_hash = hash;
        live.revision_reported = revision;
        if counted.is_none() && live.complaint.is_none() {
            let detail = format!(
                "the device reports revision {}, the last one here is {}",
                reported.revision.0,
                record.revision_base.saturating_add(record.revision_seen)
            );
            live.complaint = Some(detail.as_str().into());
            told.push(Notice::NotBelieved { device: Arc::clone(device), detail });
        }
        if changed {
            self.publish(now, device);
        }
        told.into_iter().for_each(|notice| self.notice(notice));
        for (named, event) in events {
            self.push_event_about(Box::new(event), About::Application(named));
        }
        self.changed.insert(Arc::clone(device));
    }

    pub(super) fn handle_module_get(
        &mut self,
        now: Now,
        id: SessionId,
        device: &Arc<ObjectKey>,
        get: ModuleGet,
    ) {
        let set = self.devices.get(device).and_then(|record| record.set.as_ref());
        // A device gets the modules of its own set only.
        let bytes =
            set.and_then(|set| set.module(&get.digest)).map(|assignment| assignment.body.module_bytes);
        let Some(bytes) = bytes.filter(|_| self.modules.contains(&get.digest)) else {
            self.refuse_module(id, get.digest);
            return;
        };
        if get.offset >= bytes {
            let detail = format!("offset {} is not within the module's {bytes} bytes", get.offset);
            self.unusable(now, id, ErrorCode::Unexpected, Some(tag::MODULE_GET), detail);
            return;
        }
        let end = get.offset.saturating_add(u32::from(get.length)).min(bytes);
        if let Some(session) = self.connections.get_mut(id) {
            session.pending.pull(Range { digest: get.digest, next: get.offset, end });
            self.modules.touch(now.ms, &get.digest);
            if self.modules.want(&get.digest, id) {
                self.storage.load_module(get.digest);
            }
            self.connections.wake(id);
        }
    }

    pub(super) fn refuse_module(&mut self, id: SessionId, digest: wasmbed_protocol::ModuleDigest) {
        if let Some(session) = self.connections.get_mut(id).filter(|session| session.is_established()) {
            session.pending.refuse_module(digest);
            self.connections.wake(id);
        }
    }

    pub(super) fn handle_log(&mut self, now: Now, device: &Arc<ObjectKey>, log: &Log<'_>) {
        let record = present!(self.devices.get_mut(device), "an established session has its record");
        let live = present!(record.live.as_deref_mut(), "an established session has its epoch");
        if !record.allowance.allow_log(now, log.text.len()) {
            live.logs.skip(log.uid, log.sequence.0, log.lines_lost);
            self.counters.log_lines_dropped += 1;
            return;
        }
        let name = record.set.as_ref().and_then(|set| set.application(&log.uid).cloned()).or_else(|| {
            let applications = live.applications.as_ref()?;
            applications.iter().find(|application| application.uid == log.uid)?.name.clone()
        });
        let origin = name.map_or(Origin::Unknown(log.uid), Origin::Application);
        let line = Line {
            boot: live.start,
            epoch: live.epoch.0,
            sequence: log.sequence.0,
            lines_lost: live.logs.take(log.uid, log.sequence.0, log.lines_lost),
            // Some programs end their lines with both characters.
            text: &harmless(log.text.trim_end_matches('\r'), LOG_TEXT_BYTES_MAX),
        };
        self.logs.push(now, origin, device, line);
    }
}

fn display_name(application: &Application) -> Arc<str> {
    application.name.clone().unwrap_or_else(|| application.uid.to_string().into())
}

fn failure(now: Now, application: &Application, device: &ObjectKey, uid: &str) -> Event {
    let reason = reason_code(application.reason).unwrap_or_default();
    let mut message = format!("application {}: {}", display_name(application), reason.sentence());
    if !application.message.is_empty() {
        message.push_str(" (");
        message.push_str(&application.message);
        message.push(')');
    }
    Event {
        regarding: Regarding::device(device.clone(), uid),
        warning: true,
        reason,
        message,
        unix_ms: now.unix_ms,
    }
}
