//! What the device says: one message at a time, the most urgent first. Nothing is queued as bytes: every message is made from
//! what is true when there is room for it, so its queue can't grow and what it says is never old.
//!
//! Order: Hello, heartbeat, error, report, assignment, module range, log lines.

use alloc::vec::Vec;

use wasmbed_protocol::{
    ApplicationReport, AssignmentGet, DeviceMessage, ErrorNotice, Heartbeat, Hello, List, Log, Reported,
    ResetReason, Revision, encode_device, limits::RESET_DETAIL_BYTES_MAX,
};

use super::Agent;
use crate::{
    application::{Application, Next},
    session::Session,
    text::clip,
};

/// Between two reports at least: changes that come together, as a pull and a start do, are told together.
pub const REPORT_INTERVAL_MS: u64 = 100;
/// An AssignmentGet without an answer is sent again after this time.
pub const ASSIGNMENT_TIMEOUT_MS: u64 = 10_000;

impl Agent {
    /// Writes the next frame, its two length bytes included, and answers its length; `None` when there is nothing to say.
    /// A buffer of [`FRAME_BYTES_MAX`](wasmbed_protocol::limits::FRAME_BYTES_MAX) always suffices. What was written counts
    /// as sent: if it is lost, so is the link.
    pub fn poll_transmit(&mut self, buffer: &mut [u8]) -> Option<usize> {
        match &self.session {
            Session::Greeting { sent: false, .. } if self.may_greet() => self.transmit_hello(buffer),
            Session::Standing(_) => self
                .transmit_heartbeat(buffer)
                .or_else(|| self.transmit_notice(buffer))
                .or_else(|| self.transmit_report(buffer))
                .or_else(|| self.transmit_assignment_get(buffer))
                .or_else(|| self.transmit_module_get(buffer))
                .or_else(|| self.transmit_log(buffer)),
            Session::Down { .. }
            | Session::Connecting { .. }
            | Session::Greeting { .. }
            | Session::Closing { .. } => None,
        }
    }

    fn transmit_hello(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let (reset_reason, reset_detail) = if self.had_session {
            (ResetReason::Reconnect, "")
        } else {
            (self.config.reset_reason, clip(&self.config.reset_detail, RESET_DETAIL_BYTES_MAX))
        };
        let (last_epoch, revision) = (self.last_epoch, self.acknowledged());
        let boot_counter = self.boot_counter.filter(|_| self.durability.has_written());
        let boot_id = Some(self.config.boot_id);
        let length = self.config.facts.with(|facts| {
            let hello =
                Hello { facts, last_epoch, revision, reset_reason, reset_detail, boot_counter, boot_id };
            encode_device(&DeviceMessage::Hello(hello), buffer).ok()
        });
        if let Session::Greeting { sent, .. } = &mut self.session {
            *sent = true;
        }
        length
    }

    /// The revision that may be acknowledged. One that was forgotten is none, also while storage that fails still has it:
    /// such a device could never begin anew.
    fn acknowledged(&self) -> Revision {
        self.durability.revision().min(self.revision)
    }

    fn transmit_heartbeat(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let Session::Standing(standing) = &mut self.session else { return None };
        if !standing.heartbeat_due(self.now_ms) {
            return None;
        }
        let heartbeat = Heartbeat {
            sequence: standing.take_heartbeat(self.now_ms),
            uptime_ms: self.now_ms.saturating_sub(self.boot_ms),
            memory_used_bytes: self.usage.memory_used_bytes,
            cpu_ms: self.usage.cpu_ms,
        };
        encode_device(&DeviceMessage::Heartbeat(heartbeat), buffer).ok()
    }

    fn transmit_notice(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let notice = self.notice.take()?;
        let error = ErrorNotice { code: notice.code, tag: notice.tag, detail: notice.detail };
        encode_device(&DeviceMessage::Error(error), buffer).ok()
    }

    /// A report acknowledges what a reset would find again, so it waits for storage; while storage fails it says so.
    fn may_report(&self) -> bool {
        self.report_due && (self.durability.is_durable() || self.durability.is_failing())
    }

    pub(super) fn report_timeout(&self) -> Option<u64> {
        (self.session.standing().is_some() && self.may_report()).then_some(self.report_not_before_ms)
    }

    fn transmit_report(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if !self.may_report() || self.report_not_before_ms > self.now_ms {
            return None;
        }
        let Session::Standing(standing) = &mut self.session else { return None };
        standing.report = standing.report.next();
        let sequence = standing.report;
        self.report_due = false;
        self.report_not_before_ms = self.now_ms.saturating_add(REPORT_INTERVAL_MS);
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
            .map(|application| application.report(&self.refusal, failing, with_messages))
            .collect();
        let reported =
            Reported { sequence, revision: self.acknowledged(), applications: List::new(&reports) };
        encode_device(&DeviceMessage::Reported(reported), buffer).ok()
    }

    fn transmit_assignment_get(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if self.ask.outstanding.is_some() {
            return None;
        }
        let missing = |application: &Application| {
            let next =
                application.next.as_ref().filter(|next| application.accepted && next.wants_assignment());
            next.map(|next: &Next| next.spec_hash)
        };
        let spec_hash = self.applications.iter().find_map(missing)?;
        self.ask.outstanding = Some((spec_hash, self.now_ms.saturating_add(ASSIGNMENT_TIMEOUT_MS)));
        encode_device(&DeviceMessage::AssignmentGet(AssignmentGet { spec_hash }), buffer).ok()
    }

    fn transmit_module_get(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let pull = self.pull.as_mut()?;
        let request = pull.plan_request()?;
        pull.handle_asked(request, self.now_ms);
        encode_device(&DeviceMessage::ModuleGet(request), buffer).ok()
    }

    /// Applications take turns, so that one that floods delays its neighbours by a line at most.
    fn transmit_log(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let Session::Standing(standing) = &mut self.session else { return None };
        let count = self.applications.len();
        for step in 0..count {
            let index = (self.log_turn + step) % count;
            let Some(application) = self.applications.get_mut(index) else { continue };
            let Some((line, lines_lost)) = application.log.front() else { continue };
            if !standing.log.allows(line.text.len()) {
                return None;
            }
            let log = Log { uid: application.uid, sequence: line.sequence, lines_lost, text: &line.text };
            let length = encode_device(&DeviceMessage::Log(log), buffer).ok();
            standing.log.spend(line.text.len());
            application.log.pop();
            self.log_turn = (index + 1) % count;
            return length;
        }
        None
    }

    /// When the next line may be sent.
    pub(super) fn log_timeout(&self) -> Option<u64> {
        let standing = self.session.standing()?;
        let count = self.applications.len();
        let lines = (0..count).filter_map(|step| self.applications.get((self.log_turn + step) % count));
        let (line, _) = lines.filter_map(|application| application.log.front()).next()?;
        standing.log.ready_at(line.text.len())
    }
}
