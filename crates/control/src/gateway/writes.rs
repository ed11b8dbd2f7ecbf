//! Calls to the Kubernetes API and what their answers mean.

use std::sync::Arc;

use wasmbed_api::Device;

use super::{
    Gateway,
    config::{DEVICE_BACKOFF_MS, EDGE_DEBOUNCE_MS, RESULT_DEBOUNCE_MS},
    events::{About, Noted, QueuedEvent},
    input::{Call, LeftOut, Notice, Write, WriteId},
    status::{self, Writing},
    writer::{InFlight, Priority, Ready, Writer},
};
use crate::{
    Now, ObjectKey,
    kubernetes::{Event, Occurrence, WriteOutcome},
};

/// Conflicts in a row after which a device waits: another writer is at it.
const CONFLICTS_MAX: u32 = 5;

impl Gateway {
    /// Puts a device in the queue of writes if its status is not what it should be.
    pub(super) fn schedule_write(&mut self, now: Now, key: &Arc<ObjectKey>) {
        let writing = Writing::new(now, &self.config, self.orphans_from_ms);
        let Some(record) = self.devices.get_mut(key) else { return };
        if record.write.in_flight.is_some() {
            return;
        }
        if record.write.create.is_some() || record.write.refetch {
            self.writer.schedule(now.ms, key, &mut record.write, Priority::Enrollment, now.ms);
            return;
        }
        let Some(diff) = status::diff(record, writing) else { return };
        let priority = diff.priority;
        let pause_ms = match priority {
            Priority::Edge if diff.ends_session && !self.shutting_down => EDGE_DEBOUNCE_MS,
            Priority::Result | Priority::Facts => RESULT_DEBOUNCE_MS,
            Priority::Enrollment
            | Priority::Failure
            | Priority::Edge
            | Priority::Event
            | Priority::Heartbeat => 0,
        };
        let mut due_ms = diff.due_ms.saturating_add(pause_ms);
        if priority.is_caused_by_device() && !self.shutting_down {
            due_ms = due_ms.max(record.write.not_before(now.ms));
        }
        self.writer.schedule(now.ms, key, &mut record.write, priority, due_ms);
    }

    /// The next call to the Kubernetes API, if its time has come.
    pub fn poll_write(&mut self, now: Now) -> Option<Write> {
        if self.kept_from.is_some() {
            return None;
        }
        loop {
            match self.writer.next_ready(now.ms)? {
                Ready::Event(mut event) => {
                    let device = Arc::new(event.event.regarding.key.clone());
                    let record = self.devices.get_mut(&device);
                    if let Some(ledger) = record.and_then(|record| record.allowance.events.as_mut()) {
                        ledger.refresh(&mut event);
                    }
                    let call = Call::Event(event.event.clone(), event.occurrence);
                    let in_flight = InFlight {
                        device,
                        priority: Priority::Event,
                        since_ms: now.ms,
                        event: Some(Box::new(event)),
                        then: None,
                    };
                    return Some(Write { id: self.writer.begin(in_flight), call });
                }
                Ready::Device { device, priority, since_ms } => {
                    if let Some(write) = self.write_device(now, device, priority, since_ms) {
                        return Some(write);
                    }
                }
            }
        }
    }

    fn write_device(
        &mut self,
        now: Now,
        key: Arc<ObjectKey>,
        priority: Priority,
        since_ms: u64,
    ) -> Option<Write> {
        let writing = Writing::new(now, &self.config, self.orphans_from_ms);
        let record = self.devices.get_mut(&key)?;
        Writer::mark_taken(&mut record.write);
        let (call, then) = if record.write.refetch {
            (Call::GetDevice { device: (*key).clone() }, None)
        } else if let Some(spec) = record.write.create.as_ref().filter(|_| record.object.is_none()) {
            (Call::CreateDevice { device: (*key).clone(), spec: spec.clone() }, None)
        } else {
            let not_before_ms = record.write.not_before(now.ms);
            // What is wanted may have changed since it was queued, and a heartbeat's time moved on.
            let diff = status::diff(record, writing)?;
            let spaced = diff.priority.is_caused_by_device() && !self.shutting_down;
            if diff.due_ms > now.ms || (spaced && not_before_ms > now.ms) {
                self.schedule_write(now, &key);
                return None;
            }
            let (patch, event) = diff.patch()?;
            // What people and strangers cause takes nothing of what the device may.
            if diff.priority != Priority::Enrollment {
                record.write.wrote(now.ms);
            }
            (Call::PatchStatus { device: (*key).clone(), patch }, event.map(Box::new))
        };
        let in_flight = InFlight { device: Arc::clone(&key), priority, since_ms, event: None, then };
        let id = self.writer.begin(in_flight);
        record.write.in_flight = Some(id);
        Some(Write { id, call })
    }

    /// A call ended; if it succeeded, with the Device as it is now, and none for an Event.
    pub fn handle_write_result(&mut self, now: Now, id: WriteId, outcome: WriteOutcome<Option<Box<Device>>>) {
        let Some(call) = self.writer.in_flight.remove(&id) else {
            debug_assert!(false, "{id:?} is not under way");
            return;
        };
        let key = Arc::clone(&call.device);
        let record = self.devices.get_mut(&key);
        let awaited = record.and_then(|record| record.write.in_flight.take_if(|awaited| *awaited == id));
        match outcome {
            WriteOutcome::Done(device) => {
                self.writer.succeeded();
                self.write_done(now, &key, call.then);
                // Where nobody awaits it any more the Device was deleted since: the answer would bring it back.
                if let Some(device) = device.filter(|_| awaited.is_some()) {
                    self.show_device(now, &device);
                }
            }
            WriteOutcome::Conflict => {
                self.writer.succeeded();
                if let Some(record) = self.devices.get_mut(&key).filter(|_| call.priority != Priority::Event)
                {
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
                self.requeue(now, call);
                self.settle(now);
                return;
            }
            WriteOutcome::Unavailable(detail) => {
                self.writer.failed(now.ms, 0);
                self.notice(Notice::WriteFailed { device: Arc::clone(&key), detail });
                self.requeue(now, call);
                self.settle(now);
                return;
            }
            WriteOutcome::Rejected(detail) => {
                self.writer.succeeded();
                self.notice(Notice::WriteFailed { device: Arc::clone(&key), detail });
                if call.priority != Priority::Event {
                    self.pause(now, &key);
                }
            }
        }
        self.changed.insert(key);
        self.settle(now);
    }

    fn write_done(&mut self, now: Now, key: &Arc<ObjectKey>, then: Option<Box<Event>>) {
        if let Some(record) = self.devices.get_mut(key) {
            record.write.conflicts = 0;
            record.write.paused_until_ms = 0;
            record.write.refetch = false;
            if record.write.create.take().is_some() {
                self.creating -= 1;
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
            self.creating -= usize::from(record.write.create.take().is_some());
        }
    }

    /// A call that is to be made again as it was: in its old place, not at the end.
    fn requeue(&mut self, now: Now, call: InFlight) {
        if let Some(event) = call.event {
            self.queue_event(*event);
        } else if let Some(record) = self.devices.get_mut(&call.device) {
            self.writer.schedule(now.ms, &call.device, &mut record.write, call.priority, call.since_ms);
        }
    }

    pub(super) fn push_event(&mut self, event: Box<Event>) {
        self.push_event_about(event, About::Device);
    }

    pub(super) fn push_event_about(&mut self, event: Box<Event>, about: About) {
        let number = self.next_event;
        self.next_event += 1;
        let Some(record) = self.devices.get_mut(&event.regarding.key) else {
            // Its Device is gone, and with it whoever could cause more of them.
            let occurrence = Occurrence { number, count: 1, first_unix_ms: event.unix_ms };
            self.queue_event(QueuedEvent { event, occurrence });
            return;
        };
        let ledger = record.allowance.events.get_or_insert_default();
        let left_out = match ledger.note(self.clock_ms, event, about, number) {
            Noted::Counted => None,
            Noted::Write(queued, left_out) => {
                let device = Arc::clone(&record.key);
                self.queue_event(queued);
                (left_out > 0).then_some((device, Some(left_out)))
            }
            Noted::LeftOut { first } => {
                self.counters.events_dropped += 1;
                first.then(|| (Arc::clone(&record.key), None))
            }
        };
        if let Some((device, count)) = left_out {
            self.notice(Notice::LeftOut { device: Some(device), what: LeftOut::Events, count });
        }
    }

    pub(super) fn queue_event(&mut self, event: QueuedEvent) {
        if !self.writer.push_event(event) {
            self.counters.events_dropped += 1;
        }
    }
}
