//! What established sessions bring: signs of life, reports, requests for modules, log lines.

use std::sync::Arc;

use wasmbed_protocol::{
    ErrorCode, Heartbeat, Log, ModuleGet, Reported, Trap, limits::LOG_TEXT_BYTES_MAX, tag,
};

use super::{Gateway, device::ReportEffects, input::SessionId, logs::Origin, pending::Range, sets::Body};
use crate::{Now, ObjectKey, harmless};

impl Gateway {
    /// A set changed: it is offered to the device if its session is established.
    pub(super) fn offer_desired(&mut self, key: &Arc<ObjectKey>) {
        let record = present!(self.devices.get(key), "a set is taken for a known device");
        if let Some(id) = record.session()
            && record.delivery().is_known()
            && let Some(session) = self.connections.get_mut(id)
            && session.is_established()
        {
            session.pending_mut().offer_desired();
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
            session.pending_mut().acknowledge(heartbeat.sequence);
            self.connections.wake(id);
            self.counters.heartbeats += 1;
            self.changed.insert(Arc::clone(device));
        }
    }

    pub(super) fn handle_reported(&mut self, now: Now, device: &Arc<ObjectKey>, reported: &Reported<'_>) {
        let record = present!(self.devices.get_mut(device), "an established session has its record");
        let ReportEffects { changed, notices, events } = record.handle_report(now, reported);
        if changed {
            self.publish(now, device);
        }
        notices.into_iter().for_each(|notice| self.notice(notice));
        for (about, event) in events {
            self.push_event_about(Box::new(event), about);
        }
        self.changed.insert(Arc::clone(device));
    }

    /// A trap becomes an Event, within the shares of device and application. It is nothing else: what runs is in reports.
    pub(super) fn handle_trap(&mut self, now: Now, device: &Arc<ObjectKey>, trap: &Trap<'_>) {
        let record = present!(self.devices.get_mut(device), "an established session has its record");
        if let Some((about, event)) = record.handle_trap(now, trap) {
            self.push_event_about(Box::new(event), about);
        }
    }

    pub(super) fn handle_module_get(
        &mut self,
        now: Now,
        id: SessionId,
        device: &Arc<ObjectKey>,
        get: ModuleGet,
    ) {
        let set = self.devices.get(device).and_then(|record| record.delivery().held());
        // A device gets the modules of its own set only.
        let bytes = set.and_then(|set| set.module(&get.digest)).map(Body::module_bytes);
        let Some(bytes) = bytes.filter(|_| self.modules.contains(&get.digest)) else {
            self.refuse_module(id, get.digest);
            return;
        };
        let Some(range) = Range::requested(&get, bytes) else {
            let detail = format!("offset {} is not within the module's {bytes} bytes", get.offset);
            self.unusable(now, id, ErrorCode::Unexpected, Some(tag::MODULE_GET), detail);
            return;
        };
        if let Some(session) = self.connections.get_mut(id) {
            session.pending_mut().pull(range);
            self.modules.touch(now.ms, &get.digest);
            if self.modules.want(&get.digest, id) {
                self.storage.load_module(get.digest);
            }
            self.connections.wake(id);
        }
    }

    pub(super) fn refuse_module(&mut self, id: SessionId, digest: wasmbed_protocol::ModuleDigest) {
        if let Some(session) = self.connections.get_mut(id).filter(|session| session.is_established()) {
            session.pending_mut().refuse_module(digest);
            self.connections.wake(id);
        }
    }

    pub(super) fn handle_log(&mut self, now: Now, device: &Arc<ObjectKey>, log: &Log<'_>) {
        let record = present!(self.devices.get_mut(device), "an established session has its record");
        if !record.allow_log(now, log) {
            self.counters.log_lines_dropped += 1;
            return;
        }
        // Some programs end their lines with both characters.
        let text = harmless(log.text.trim_end_matches('\r'), LOG_TEXT_BYTES_MAX);
        let line = present!(record.take_log(log, &text), "an established session has its epoch");
        let origin = record.application_name(log.uid).map_or(Origin::Unknown(log.uid), Origin::Application);
        self.logs.push(now, origin, device, line);
    }
}
