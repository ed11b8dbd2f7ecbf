//! Calls to the Kubernetes API and what their answers mean.

use std::sync::Arc;

use wasmbed_api::Device;

use super::{
    Gateway,
    events::{About, Noted, QueuedEvent},
    input::{Call, LeftOut, Notice, Write, WriteId},
    status::{self, Writing},
    writer::{InFlight, Priority, Ready, Turn},
};
use crate::{
    Now, ObjectKey,
    kubernetes::{Event, Occurrence, WriteOutcome},
};

impl Gateway {
    /// Puts a device in the queue of writes if its status is not what it should be.
    pub(super) fn schedule_write(&mut self, now: Now, key: &Arc<ObjectKey>) {
        let writing = Writing::new(now, &self.config, self.orphans_from_ms);
        // A device that changed may be forgotten by the same input.
        let Some(record) = self.devices.get_mut(key) else { return };
        if record.writes().is_in_flight() {
            return;
        }
        if record.writes().lacks_object() {
            self.writer.schedule(now.ms, key, record.writes_mut(), Priority::Enrollment, now.ms);
            return;
        }
        // The status says everything already.
        let Some(diff) = status::diff(record, writing) else { return };
        let urgency = diff.urgency();
        let priority = urgency.priority();
        let mut due_ms = urgency.debounced_ms(self.shutting_down);
        if priority.is_caused_by_device() && !self.shutting_down {
            due_ms = due_ms.max(record.writes_mut().not_before(now.ms));
        }
        self.writer.schedule(now.ms, key, record.writes_mut(), priority, due_ms);
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
                    if let Some(record) = self.devices.get_mut(&device) {
                        record.allowance_mut().refresh_event(&mut event);
                    }
                    let call = Call::Event(event.event.clone(), event.occurrence);
                    let in_flight = InFlight::of_event(now.ms, device, event);
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
        let known = record.object().is_some();
        let (call, then) = match record.writes_mut().take_turn(known) {
            Turn::Read => (Call::GetDevice { device: (*key).clone() }, None),
            Turn::Create(spec) => (Call::CreateDevice { device: (*key).clone(), spec }, None),
            Turn::Status => {
                let not_before_ms = record.writes_mut().not_before(now.ms);
                // What is wanted may have changed since it was queued, and a heartbeat's time moved on.
                let diff = status::diff(record, writing)?;
                let urgency = diff.urgency();
                let priority = urgency.priority();
                let spaced = priority.is_caused_by_device() && !self.shutting_down;
                if urgency.due_ms() > now.ms || (spaced && not_before_ms > now.ms) {
                    self.schedule_write(now, &key);
                    return None;
                }
                let (patch, event) = diff.patch()?;
                // What people and strangers cause takes nothing of what the device may.
                if priority != Priority::Enrollment {
                    record.writes_mut().wrote(now.ms);
                }
                (Call::PatchStatus { device: (*key).clone(), patch }, event.map(Box::new))
            }
        };
        let in_flight = InFlight::about_device(Arc::clone(&key), priority, since_ms, then);
        let id = self.writer.begin(in_flight);
        record.writes_mut().begin(id);
        Some(Write { id, call })
    }

    /// A call ended; if it succeeded, with the Device as it is now, and none for an Event.
    pub fn handle_write_result(&mut self, now: Now, id: WriteId, outcome: WriteOutcome<Option<Box<Device>>>) {
        let call = present!(self.writer.end(id), "a call is answered once");
        let key = Arc::clone(call.device());
        let record = self.devices.get_mut(&key);
        let awaited = record.is_some_and(|record| record.writes_mut().handle_answer(id));
        match outcome {
            WriteOutcome::Done(device) => {
                self.writer.succeeded();
                self.write_done(now, &key, call.into_done());
                // Where nobody awaits it any more the Device was deleted since: the answer would bring it back.
                if let Some(device) = device.filter(|_| awaited) {
                    self.show_device(now, &device);
                }
            }
            WriteOutcome::Conflict => {
                self.writer.succeeded();
                if let Some(record) = self.devices.get_mut(&key).filter(|_| !call.is_event()) {
                    record.writes_mut().conflicted(now.ms);
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
                if !call.is_event() {
                    self.pause(now, &key);
                }
            }
        }
        self.changed.insert(key);
        self.settle(now);
    }

    fn write_done(&mut self, now: Now, key: &Arc<ObjectKey>, then: Option<Box<Event>>) {
        if let Some(record) = self.devices.get_mut(key) {
            record.writes_mut().succeeded();
            if self.writer.end_creation(record.writes_mut()) {
                record.handle_created(now);
            }
        }
        if let Some(event) = then {
            self.push_event(event);
        }
    }

    fn pause(&mut self, now: Now, key: &Arc<ObjectKey>) {
        if let Some(record) = self.devices.get_mut(key) {
            record.writes_mut().pause(now.ms);
            self.writer.end_creation(record.writes_mut());
        }
    }

    /// A call that is to be made again as it was: in its old place, not at the end.
    fn requeue(&mut self, now: Now, call: InFlight) {
        match call.into_retry() {
            Ready::Event(event) => self.queue_event(event),
            Ready::Device { device, priority, since_ms } => {
                if let Some(record) = self.devices.get_mut(&device) {
                    self.writer.schedule(now.ms, &device, record.writes_mut(), priority, since_ms);
                }
            }
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
        let noted = record.allowance_mut().note_event(self.clock_ms, event, about, number);
        let left_out = match noted {
            Noted::Counted => None,
            Noted::Write(queued, left_out) => {
                let device = Arc::clone(record.key());
                self.queue_event(queued);
                (left_out > 0).then_some((device, Some(left_out)))
            }
            Noted::LeftOut { first } => {
                self.counters.events_dropped += 1;
                first.then(|| (Arc::clone(record.key()), None))
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
