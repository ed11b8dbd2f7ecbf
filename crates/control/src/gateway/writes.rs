//! Calls to the Kubernetes API and what their answers mean.

use std::sync::Arc;

use super::{
    Gateway,
    config::DEVICE_BACKOFF_MS,
    input::{Call, Notice, Now, Write, WriteId, WriteOutcome},
    status::{self, Writing},
    writer::{Class, InFlight, Turn, Writer},
};
use crate::exchange::DeviceKey;

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
                    let device = Arc::new(event.event.device.clone());
                    let record = self.devices.get_mut(&device);
                    if let Some(ledger) = record.and_then(|record| record.allowance.events.as_mut()) {
                        ledger.refresh(&mut event);
                    }
                    let call = Call::Event(event.event.clone(), event.occurrence);
                    let in_flight = InFlight {
                        device,
                        class: Class::Event,
                        since: now.ms,
                        event: Some(Box::new(event)),
                        then: None,
                    };
                    return Some(Write { id: self.writer.begin(in_flight), call });
                }
                Turn::Device { device, class, since } => {
                    if let Some(write) = self.write_device(device, class, since, now) {
                        return Some(write);
                    }
                }
            }
        }
    }

    fn write_device(&mut self, key: Arc<DeviceKey>, class: Class, since: u64, now: Now) -> Option<Write> {
        let writing = Writing::new(&self.config, self.orphans_from, now);
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
            if plan.due > now.ms || (spaced && record.write.not_before(now.ms) > now.ms) {
                self.schedule(&key, now);
                return None;
            }
            // What people and strangers cause takes nothing of what the device may.
            if plan.class != Class::Enrollment {
                record.write.wrote(now.ms);
            }
            let (patch, event) = status::patch(record, writing)?;
            (Call::PatchStatus { device: (*key).clone(), patch }, event.map(Box::new))
        };
        let in_flight = InFlight { device: Arc::clone(&key), class, since, event: None, then };
        let id = self.writer.begin(in_flight);
        record.write.in_flight = Some(id);
        Some(Write { id, call })
    }

    /// A call ended.
    pub fn handle_write_result(&mut self, id: WriteId, outcome: WriteOutcome, now: Now) {
        let Some(call) = self.writer.in_flight.remove(&id) else { return };
        let key = Arc::clone(&call.device);
        let record = self.devices.get_mut(&key);
        let awaited = record.and_then(|record| record.write.in_flight.take_if(|awaited| *awaited == id));
        match outcome {
            WriteOutcome::Done(device) => {
                self.writer.succeeded();
                self.write_done(&key, call.then, now);
                // Where nobody awaits it any more the Device was deleted since: the answer would bring it back.
                if let Some(device) = device.filter(|_| awaited.is_some()) {
                    self.handle_device(&device, now);
                }
            }
            WriteOutcome::Conflict => {
                self.writer.succeeded();
                if let Some(record) = self.devices.get_mut(&key).filter(|_| call.class != Class::Event) {
                    record.write.refetch = true;
                    record.write.conflicts += 1;
                    if record.write.conflicts > CONFLICTS_MAX {
                        record.write.conflicts = 0;
                        record.write.pause_until = now.ms + DEVICE_BACKOFF_MS;
                    }
                }
            }
            WriteOutcome::NotFound => {
                self.writer.succeeded();
                // The watch tells whether the Device is gone for good; until then it is left alone.
                self.pause(&key, now);
            }
            WriteOutcome::Throttled { retry_after_ms } => {
                self.writer.failed(retry_after_ms, now.ms);
                self.again(call, now);
                return;
            }
            WriteOutcome::Unavailable(detail) => {
                self.writer.failed(0, now.ms);
                self.notice(Notice::WriteFailed { device: Arc::clone(&key), detail });
                self.again(call, now);
                return;
            }
            WriteOutcome::Refused(detail) => {
                self.writer.succeeded();
                self.notice(Notice::WriteFailed { device: Arc::clone(&key), detail });
                if call.class != Class::Event {
                    self.pause(&key, now);
                }
            }
        }
        self.schedule(&key, now);
    }

    fn write_done(&mut self, key: &Arc<DeviceKey>, then: Option<Box<super::Event>>, now: Now) {
        if let Some(record) = self.devices.get_mut(key) {
            record.write.conflicts = 0;
            record.write.pause_until = 0;
            record.write.refetch = false;
            if record.write.create.take().is_some() {
                self.creating = self.creating.saturating_sub(1);
                record.unseen_since = now.ms;
            }
        }
        if let Some(event) = then {
            self.push_event(event);
        }
    }

    fn pause(&mut self, key: &Arc<DeviceKey>, now: Now) {
        if let Some(record) = self.devices.get_mut(key) {
            record.write.refetch = false;
            record.write.pause_until = now.ms + DEVICE_BACKOFF_MS;
            if record.write.create.take().is_some() {
                self.creating = self.creating.saturating_sub(1);
            }
        }
    }

    /// A call that is to be made again as it was: in its old place, not at the end.
    fn again(&mut self, call: InFlight, now: Now) {
        if let Some(event) = call.event {
            self.queue_event(*event);
        } else if let Some(record) = self.devices.get_mut(&call.device) {
            self.writer.schedule(&call.device, &mut record.write, call.class, call.since, now.ms);
        }
    }
}
