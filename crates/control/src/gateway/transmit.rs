//! Frames, made when a connection can take them: control frames first, then chunks of the module being pulled.

use std::sync::Arc;

use wasmbed_protocol::{
    Assignment, AssignmentGet, Closing as ClosingMessage, Desired, DesiredApplication, Epoch, ErrorNotice,
    GatewayMessage, HeartbeatAck, List, ModuleChunk, ModuleGone, Revision, Welcome, encode_gateway,
    limits::{CHUNK_BYTES_MAX, DESIRED_MAX, FRAME_BYTES_MAX},
};

use super::{
    Gateway,
    config::LOG_BYTES_PER_SECOND,
    input::{Notice, SessionId, StoreOperation, Transmit},
    session::{Closing, Range, State},
    sets::Set,
};
use crate::Now;

/// Whole frames in a caller's buffer.
struct Frames<'a> {
    buffer: &'a mut [u8],
    written: usize,
    failed: Option<String>,
}

impl Frames<'_> {
    fn has_room(&self) -> bool {
        self.buffer.len() - self.written >= FRAME_BYTES_MAX
    }

    fn push(&mut self, message: &GatewayMessage<'_>) {
        match encode_gateway(message, &mut self.buffer[self.written..]) {
            Ok(length) => self.written += length,
            // Every field was bounded when it came in, so this is a bug of ours; the message is left out and told.
            Err(error) => self.failed = Some(format!("a message could not be encoded: {error}")),
        }
    }

    fn push_desired(&mut self, set: &Set, base: u64) {
        let mut applications = Vec::with_capacity(DESIRED_MAX);
        applications.extend(set.assignments.iter().map(|assignment| DesiredApplication {
            uid: assignment.body.uid,
            spec_hash: assignment.body.hash,
        }));
        self.push(&GatewayMessage::Desired(Desired {
            revision: Revision(base.saturating_add(set.revision)),
            applications: List::new(&applications),
        }));
    }

    /// Gives what is left of the range.
    fn push_chunk(&mut self, range: Range, module: &[u8]) -> Option<Range> {
        let start = range.next as usize;
        let end = (start + CHUNK_BYTES_MAX).min(range.end as usize).min(module.len());
        let bytes = module.get(start..end).filter(|bytes| !bytes.is_empty())?;
        self.push(&GatewayMessage::ModuleChunk(ModuleChunk {
            digest: range.digest,
            offset: range.next,
            bytes,
        }));
        // `end` is at most `range.end`, a u32.
        let next = end as u32;
        (next < range.end).then_some(Range { next, ..range })
    }
}

impl Gateway {
    /// Writes whole frames that a session owes into `buffer`, as many as fit; at least
    /// [`FRAME_BYTES_MAX`] bytes are needed for one. If more is owed than fits, [`Gateway::poll_wake`] gives the session again.
    pub fn poll_transmit(&mut self, now: Now, id: SessionId, buffer: &mut [u8]) -> Transmit {
        let mut frames = Frames { buffer, written: 0, failed: None };
        let Some(session) = self.sessions.get_mut(&id) else {
            return Transmit { close: true, ..Transmit::default() };
        };
        let record = self.devices.get(&session.device);
        let device = Arc::clone(&session.device);
        let owed = &mut session.owed;
        let mut transmit = Transmit::default();
        let mut assigned = Vec::new();
        while frames.has_room() {
            if std::mem::take(&mut owed.welcome) {
                let epoch =
                    record.and_then(|record| record.live.as_ref()).map_or(Epoch(0), |live| live.epoch_told);
                frames.push(&GatewayMessage::Welcome(Welcome {
                    epoch,
                    unix_ms: now.unix_ms,
                    heartbeat_interval_ms: self.config.heartbeat_interval_ms,
                    heartbeat_timeout_ms: self.config.heartbeat_timeout_ms,
                    log_bytes_per_second: LOG_BYTES_PER_SECOND,
                    desired_known: owed.desired,
                }));
            } else if let Some(sequence) = owed.heartbeat_ack.take() {
                frames.push(&GatewayMessage::HeartbeatAck(HeartbeatAck { sequence, unix_ms: now.unix_ms }));
                transmit.heartbeat = true;
            } else if let Some(error) = owed.error.take() {
                let (code, tag, detail) = *error;
                frames.push(&GatewayMessage::Error(ErrorNotice { code, tag, detail: &detail }));
            } else if let Some(closing) = &owed.closing {
                let Closing { reject, reason, retry_after_ms, detail } = &**closing;
                let closing = ClosingMessage { reason: *reason, retry_after_ms: *retry_after_ms, detail };
                frames.push(&match reject {
                    true => GatewayMessage::Reject(closing),
                    false => GatewayMessage::Goodbye(closing),
                });
                owed.closing = None;
                break;
            } else if std::mem::take(&mut owed.desired) {
                if let Some((set, record)) = record.and_then(|record| Some((record.set.as_ref()?, record))) {
                    frames.push_desired(set, record.revision_base);
                }
            } else if let Some(spec_hash) = owed.assignments.pop_front() {
                let assignment =
                    record.and_then(|record| record.set.as_ref()).and_then(|set| set.find(&spec_hash));
                let Some(assignment) = assignment else {
                    frames.push(&GatewayMessage::AssignmentGone(AssignmentGet { spec_hash }));
                    continue;
                };
                let correlation_id = assignment.correlation_id;
                frames.push(&GatewayMessage::Assignment(Assignment {
                    spec_hash,
                    spec: &assignment.body.spec,
                    correlation_id,
                    envelope: &[],
                }));
                let application = Arc::clone(&assignment.body.application);
                assigned.push(Notice::Assigned { device: Arc::clone(&device), application, correlation_id });
            } else if let Some(digest) = owed.module_gone.take() {
                frames.push(&GatewayMessage::ModuleGone(ModuleGone { digest: *digest }));
            } else if let Some(range) = &mut owed.range {
                let Some(module) = self.modules.cached(&range.digest) else { break };
                let rest = frames.push_chunk(**range, module);
                self.modules.touch(now.ms, &range.digest);
                match rest {
                    Some(rest) => **range = rest,
                    None => owed.range = None,
                }
            } else {
                break;
            }
        }
        let waits_for = owed
            .range
            .as_ref()
            .map(|range| range.digest)
            .filter(|digest| self.modules.cached(digest).is_none());
        transmit.written = frames.written;
        transmit.close = session.state == State::Closing && session.owed.closing.is_none();
        let failed = frames.failed;
        if session.owes(|digest| self.modules.cached(digest).is_some()) {
            self.wakes.insert(id);
        }
        if let Some(digest) = waits_for {
            // It left memory while the device read slowly.
            if !self.modules.contains(&digest) {
                self.refuse_module(id, digest);
            } else if self.modules.want(&digest, id) {
                self.store.push_back(StoreOperation::LoadModule { digest });
            }
        }
        assigned.into_iter().for_each(|notice| self.notice(notice));
        if let Some(detail) = failed {
            self.notice(Notice::Unusable { device, detail });
        }
        if !transmit.close
            && let Some(session) = self.sessions.get(&id)
        {
            transmit.read_in_ms = self.read_in_ms(now, session);
        }
        transmit
    }
}
