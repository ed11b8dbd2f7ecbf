//! The device's messages: one at a time, the most urgent first. Nothing is queued as bytes: every message is made from
//! what is true when there is room for it, so there is no queue that could grow and no message is stale.
//!
//! Order: Hello, heartbeat, error, proof, traps, report, join, assignment, module range, settings, answers to deliveries, messages and log lines in turn. A trap goes before the report that
//! names its state, so that whoever reads that knows its place.

use alloc::vec::Vec;

use wasmbed_protocol::{
    ApplicationReport, AssignmentGet, DeviceMessage, Heartbeat, Hello, List, MessageGroups, Reported,
    ResetReason, Revision, encode_device, limits::RESET_DETAIL_BYTES_MAX,
};

use super::Agent;
use crate::{application::Application, request::ASSIGNMENT_TIMEOUT_MS, text::clip};

impl Agent {
    /// Writes the next frame, its two length bytes included, and answers its length; `None` when there is nothing to say.
    /// A buffer of [`FRAME_BYTES_MAX`](wasmbed_protocol::limits::FRAME_BYTES_MAX) always suffices. What was written counts
    /// as sent: if it is lost, so is the link.
    // As `handle_frame`.
    #[inline(never)]
    pub fn poll_transmit(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if self.connection.wants_hello() && self.may_greet() {
            return self.transmit_hello(buffer);
        }
        if self.connection.is_joining() {
            return self.transmit_complaint(buffer).or_else(|| self.transmit_join(buffer));
        }
        self.connection.established()?;
        self.transmit_heartbeat(buffer)
            .or_else(|| self.transmit_complaint(buffer))
            .or_else(|| self.transmit_proof(buffer))
            .or_else(|| self.transmit_trap(buffer))
            .or_else(|| self.transmit_report(buffer))
            .or_else(|| self.transmit_join(buffer))
            .or_else(|| self.transmit_assignment_get(buffer))
            .or_else(|| self.transmit_module_get(buffer))
            .or_else(|| self.transmit_settings(buffer))
            .or_else(|| self.transmit_delivery(buffer))
            .or_else(|| self.transmit_message_or_log(buffer))
    }

    fn transmit_hello(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let (reset_reason, reset_detail) = if self.connection.had_session() {
            (ResetReason::Reconnect, "")
        } else {
            (self.config.reset_reason, clip(&self.config.reset_detail, RESET_DETAIL_BYTES_MAX))
        };
        let (last_epoch, revision) = (self.connection.last_epoch(), self.acknowledged());
        let boot_counter = self.boot_counter.filter(|_| self.durability.has_written());
        let boot_id = Some(self.config.boot_id);
        let length = self.config.facts.with(|facts| {
            let hello = Hello {
                facts,
                last_epoch,
                revision,
                reset_reason,
                reset_detail,
                boot_counter,
                groups: Some(MessageGroups::ALL),
                boot_id,
            };
            encode_device(&DeviceMessage::Hello(hello), buffer).ok()
        });
        self.connection.note_hello();
        length
    }

    /// The revision that may be acknowledged. One that was forgotten is none, also while storage that fails still has it:
    /// such a device could never begin anew.
    fn acknowledged(&self) -> Revision {
        self.durability.revision().min(self.revision)
    }

    fn transmit_heartbeat(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let now_ms = self.clock.now_ms();
        let established = self.connection.established_mut().filter(|it| it.heartbeat_due(now_ms))?;
        let heartbeat = Heartbeat {
            sequence: established.take_heartbeat(now_ms),
            uptime_ms: self.clock.uptime_ms(),
            memory_used_bytes: self.usage.memory_used_bytes,
            cpu_ms: self.usage.cpu_ms,
        };
        encode_device(&DeviceMessage::Heartbeat(heartbeat), buffer).ok()
    }

    fn transmit_complaint(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let complaint = self.connection.take_complaint()?;
        encode_device(&DeviceMessage::Error(complaint.notice()), buffer).ok()
    }

    /// When a trap may be sent: at once, if one waits and the gateway takes it.
    pub(super) fn trap_timeout(&self) -> Option<u64> {
        let takes = self.connection.established()?.takes(MessageGroups::TRAPS);
        (takes && !self.traps.is_empty()).then(|| self.clock.now_ms())
    }

    fn transmit_trap(&mut self, buffer: &mut [u8]) -> Option<usize> {
        self.trap_timeout()?;
        self.traps.take(|trap| encode_device(&DeviceMessage::Trap(trap), buffer).ok())?
    }

    /// When a report may be sent. It acknowledges what a reset would find again, so it waits for storage; while storage
    /// fails it reports that.
    pub(super) fn report_timeout(&self) -> Option<u64> {
        self.connection.established()?;
        let may_report = self.durability.is_durable() || self.durability.is_failing();
        self.reports.due_ms().filter(|_| may_report)
    }

    fn transmit_report(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let now_ms = self.clock.now_ms();
        if self.report_timeout()? > now_ms {
            return None;
        }
        let sequence = self.connection.established_mut()?.take_report();
        self.reports.take(now_ms);
        self.encode_report(sequence, true, buffer).or_else(|| self.encode_report(sequence, false, buffer))
    }

    fn encode_report(
        &self,
        sequence: wasmbed_protocol::Sequence,
        with_messages: bool,
        buffer: &mut [u8],
    ) -> Option<usize> {
        let failing = self.durability.is_failing();
        let reports: Vec<ApplicationReport<'_>> = self
            .applications
            .iter()
            .map(|application| application.report(&self.too_many, failing, with_messages))
            .collect();
        let reported =
            Reported { sequence, revision: self.acknowledged(), applications: List::new(&reports) };
        encode_device(&DeviceMessage::Reported(reported), buffer).ok()
    }

    fn transmit_assignment_get(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if self.request.is_outstanding() {
            return None;
        }
        let spec_hash = self.applications.iter().find_map(Application::wanted_spec)?;
        self.request.begin(spec_hash, self.clock.after(ASSIGNMENT_TIMEOUT_MS));
        encode_device(&DeviceMessage::AssignmentGet(AssignmentGet { spec_hash }), buffer).ok()
    }

    fn transmit_module_get(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let pull = self.pull.as_mut()?;
        let request = pull.plan_request()?;
        pull.handle_asked(request, self.clock.now_ms());
        encode_device(&DeviceMessage::ModuleGet(request), buffer).ok()
    }

    /// Applications take turns, so that one that floods delays its neighbours by a line at most.
    pub(super) fn transmit_log(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let established = self.connection.established_mut()?;
        let count = self.applications.len();
        for step in 0..count {
            let index = (self.log_turn + step) % count;
            let Some(application) = self.applications.get_mut(index) else { continue };
            let Some(log) = application.next_log() else { continue };
            let bytes = log.text.len();
            if !established.allows_line(bytes) {
                return None;
            }
            let length = encode_device(&DeviceMessage::Log(log), buffer).ok();
            established.spend_line(bytes);
            application.log_mut().pop();
            self.log_turn = (index + 1) % count;
            return length;
        }
        None
    }

    /// When the next line may be sent.
    pub(super) fn log_timeout(&self) -> Option<u64> {
        let established = self.connection.established()?;
        let count = self.applications.len();
        let lines = (0..count).filter_map(|step| self.applications.get((self.log_turn + step) % count));
        let log = lines.filter_map(Application::next_log).next()?;
        established.line_at(log.text.len())
    }
}
