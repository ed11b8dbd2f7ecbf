//! Calls to the Kubernetes API and what their answers mean.

use std::sync::Arc;

use wasmbed_api::Device;

use super::{
    Gateway,
    config::DEVICE_BACKOFF_MS,
    input::{Call, Notice, Write, WriteId},
    status::{self, Writing},
    writer::{Class, InFlight, Turn, Writer},
};
use crate::{
    Now, ObjectKey,
    kubernetes::{Event, WriteOutcome},
};

/// Conflicts in a row after which a device waits: another writer is at it.
const CONFLICTS_MAX: u32 = 5;

impl Gateway {
    /// The next call to the Kubernetes API, if its time has come.
    pub fn poll_write(&mut self, now: Now) -> Option<Write> {
        if self.kept_from.is_some() {
            return None;
        }
        loop {
            match self.writer.turn(now.ms)? {
                Turn::Event(mut event) => {
                    let device = Arc::new(event.event.regarding.key.clone());
                    let record = self.devices.get_mut(&device);
                    if let Some(ledger) = record.and_then(|record| record.allowance.events.as_mut()) {
                        ledger.refresh(&mut event);
                    }
                    let call = Call::Event(event.event.clone(), event.occurrence);
                    let in_flight = InFlight {
                        device,
                        class: Class::Event,
                        since_ms: now.ms,
                        event: Some(Box::new(event)),
                        then: None,
                    };
                    return Some(Write { id: self.writer.begin(in_flight), call });
                }
                Turn::Device { device, class, since_ms } => {
                    if let Some(write) = self.write_device(now, device, class, since_ms) {
                        return Some(write);
                    }
                }
            }
        }
    }

    fn write_device(&mut self, now: Now, key: Arc<ObjectKey>, class: Class, since_ms: u64) -> Option<Write> {
        let writing = Writing::new(now, &self.config, self.orphans_from_ms);
        let record = self.devices.get_mut(&key)?;
        Writer::taken(&mut record.write);
        let (call, then) = if record.write.refetch {
            (Call::GetDevice { device: (*key).clone() }, None)
        } else if let Some(spec) = record.write.create.as_ref().filter(|_| record.object.is_none()) {
            (Call::CreateDevice { device: (*key).clone(), spec: spec.clone() }, None)
        } else {
            // What is wanted may have changed since it was queued, and a heartbeat's time moved on.
            let plan = status::plan(record, writing)?;
            let spaced = plan.class.is_caused_by_device() && !self.shutting_down;
            if plan.due_ms > now.ms || (spaced && record.write.not_before(now.ms) > now.ms) {
                self.schedule(now, &key);
                return None;
            }
            // What people and strangers cause takes nothing of what the device may.
            if plan.class != Class::Enrollment {
                record.write.wrote(now.ms);
            }
            let (patch, event) = status::patch(record, writing)?;
            (Call::PatchStatus { device: (*key).clone(), patch }, event.map(Box::new))
        };
        let in_flight = InFlight { device: Arc::clone(&key), class, since_ms, event: None, then };
        let id = self.writer.begin(in_flight);
        record.write.in_flight = Some(id);
        Some(Write { id, call })
    }

    /// A call ended; if it succeeded, with the Device as it is now, and none for an Event.
    pub fn handle_write_result(&mut self, now: Now, id: WriteId, outcome: WriteOutcome<Option<Box<Device>>>) {
        let Some(call) = self.writer.in_flight.remove(&id) else { return };
        let key = Arc::clone(&call.device);
        let record = self.devices.get_mut(&key);
        let awaited = record.and_then(|record| record.write.in_flight.take_if(|awaited| *awaited == id));
        match outcome {
            WriteOutcome::Done(device) => {
                self.writer.succeeded();
                self.write_done(now, &key, call.then);
                // Where nobody awaits it any more the Device was deleted since: the answer would bring it back.
                if let Some(device) = device.filter(|_| awaited.is_some()) {
                    self.handle_device(now, &device);
                }
            }
            WriteOutcome::Conflict => {
                self.writer.succeeded();
                if let Some(record) = self.devices.get_mut(&key).filter(|_| call.class != Class::Event) {
                    record.write.refetch = true;
                    record.write.conflicts += 1;
                    if record.write.conflicts > CONFLICTS_MAX {
                        record.write.conflicts = 0;
                        record.write.paused_until_ms = now.ms + DEVICE_BACKOFF_MS;
                    }
                }
            }
            WriteOutcome::NotFound => {
                self.writer.succeeded();
                // The watch tells whether the Device is gone for good; until then it is left alone.
                self.pause(now, &key);
            }
            WriteOutcome::Throttled { retry_after_ms } => {
                self.writer.failed(now.ms, retry_after_ms);
                self.again(now, call);
                return;
            }
            WriteOutcome::Unavailable(detail) => {
                self.writer.failed(now.ms, 0);
                self.notice(Notice::WriteFailed { device: Arc::clone(&key), detail });
                self.again(now, call);
                return;
            }
            WriteOutcome::Rejected(detail) => {
                self.writer.succeeded();
                self.notice(Notice::WriteFailed { device: Arc::clone(&key), detail });
                if call.class != Class::Event {
                    self.pause(now, &key);
                }
            }
        }
        self.schedule(now, &key);
    }

    fn write_done(&mut self, now: Now, key: &Arc<ObjectKey>, then: Option<Box<Event>>) {
        if let Some(record) = self.devices.get_mut(key) {
            record.write.conflicts = 0;
            record.write.paused_until_ms = 0;
            record.write.refetch = false;
            if record.write.create.take().is_some() {
                self.creating = self.creating.saturating_sub(1);
                record.unseen_since_ms = now.ms;
            }
        }
        if let Some(event) = then {
            self.push_event(event);
        }
    }

    fn pause(&mut self, now: Now, key: &Arc<ObjectKey>) {
        if let Some(record) = self.devices.get_mut(key) {
            record.write.refetch = false;
            record.write.paused_until_ms = now.ms + DEVICE_BACKOFF_MS;
            if record.write.create.take().is_some() {
                self.creating = self.creating.saturating_sub(1);
            }
        }
    }

    /// A call that is to be made again as it was: in its old place, not at the end.
    fn again(&mut self, now: Now, call: InFlight) {
        if let Some(event) = call.event {
            self.queue_event(*event);
        } else if let Some(record) = self.devices.get_mut(&call.device) {
            self.writer.schedule(now.ms, &call.device, &mut record.write, call.class, call.since_ms);
        }
    }
}
