//! Frames, made when a connection can take them: control frames first, then chunks of the module being pulled.

use std::sync::Arc;

use wasmbed_protocol::{
    ApplicationUid, AssignmentGet, CorrelationId, Decommission as OrderMessage, Desired, Epoch,
    GatewayMessage, HeartbeatAck, List, MessageGroups, ModuleDigest, ModuleGone, Revision, SpecHash, Welcome,
    encode_gateway,
    limits::{DESIRED_MAX, FRAME_BYTES_MAX},
};

use super::{
    Gateway,
    config::{Config, LOG_BYTES_PER_SECOND},
    connections::State,
    device::{Decommission, DeviceEntry, SessionView},
    input::{Notice, SessionId, Transmit},
    pending::{Outgoing, Range},
    sessions::PROTOCOL_ERROR,
    sets::{Body, Set},
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
            // Every field was bounded when it came in, so this is a bug; the message is dropped and logged.
            Err(error) => self.failed = Some(format!("a message could not be encoded: {error}")),
        }
    }

    fn push_desired(&mut self, set: &Set, base: u64) {
        let mut applications = Vec::with_capacity(DESIRED_MAX);
        applications.extend(set.bodies().map(Body::to_desired));
        self.push(&GatewayMessage::Desired(Desired {
            revision: Revision(base.saturating_add(set.revision())),
            applications: List::new(&applications),
        }));
    }

    /// Answers an AssignmentGet; gives the application and the change that the device was sent, if its set has them.
    fn push_assignment(
        &mut self,
        set: Option<&Set>,
        spec_hash: SpecHash,
    ) -> Option<(Arc<str>, CorrelationId)> {
        let Some(assignment) = set.and_then(|set| set.find(&spec_hash)) else {
            self.push(&GatewayMessage::AssignmentGone(AssignmentGet { spec_hash }));
            return None;
        };
        self.push(&GatewayMessage::Assignment(assignment.to_message()));
        Some((Arc::clone(assignment.body().application()), assignment.correlation_id()))
    }

    fn push_settings(&mut self, record: Option<&DeviceEntry>, uid: ApplicationUid) {
        let settings = record.and_then(DeviceEntry::settings);
        if let Some(message) = settings.and_then(|settings| settings.message(uid)) {
            self.push(&GatewayMessage::Settings(message));
        }
    }

    /// Gives what is left of the range.
    fn push_chunk(&mut self, range: Range, module: &[u8]) -> Option<Range> {
        let (chunk, rest) = range.split_chunk(module)?;
        self.push(&GatewayMessage::ModuleChunk(chunk));
        rest
    }
}

impl Gateway {
    /// Writes whole frames that are pending for a session into `buffer`, as many as fit; at least [`FRAME_BYTES_MAX`]
    /// bytes are needed for one. If more is pending than fits, [`Gateway::poll_wake`] gives the session again.
    pub fn poll_transmit(&mut self, now: Now, id: SessionId, buffer: &mut [u8]) -> Transmit {
        let mut frames = Frames { buffer, written: 0, failed: None };
        if self.joining.contains(id) {
            return self.transmit_to_joiner(now, id, frames);
        }
        let presented = self.wants_chain(id);
        let Some(session) = self.connections.get_mut(id) else {
            return Transmit { close: true, ..Transmit::default() };
        };
        let record = self.devices.get(session.device()).map(AsRef::as_ref);
        let device = Arc::clone(session.device());
        let mut transmit = Transmit { presented, ..Transmit::default() };
        let mut assigned = Vec::new();
        let modules = &mut self.modules;
        while frames.has_room() {
            let in_memory = |digest: &ModuleDigest| modules.cached(digest).is_some();
            let Some(outgoing) = session.pending_mut().next(in_memory) else { break };
            match outgoing {
                Outgoing::Welcome { desired_known } => {
                    frames.push(&welcome(now, &self.config, record, desired_known));
                }
                Outgoing::HeartbeatAck(sequence) => {
                    let unix_ms = now.unix_ms;
                    frames.push(&GatewayMessage::HeartbeatAck(HeartbeatAck { sequence, unix_ms }));
                    transmit.heartbeat = true;
                }
                Outgoing::MessagesAck(ack) => frames.push(&GatewayMessage::PublishAck(ack)),
                Outgoing::Error(complaint) => {
                    frames.push(&complaint.to_message());
                }
                Outgoing::Join(said) => frames.push(&said.to_message()),
                Outgoing::Close(closing) => {
                    frames.push(&closing.to_message());
                    break;
                }
                Outgoing::Desired => {
                    let delivery = record.map(DeviceEntry::delivery);
                    if let Some((set, base)) =
                        delivery.and_then(|delivery| Some((delivery.held()?, delivery.base())))
                    {
                        frames.push_desired(set, base);
                    }
                }
                Outgoing::Order => {
                    let order = record.and_then(DeviceEntry::decommission).and_then(Decommission::order);
                    if let Some(order) = order {
                        frames.push(&GatewayMessage::Decommission(OrderMessage { order }));
                    }
                }
                Outgoing::Settings(uid) => frames.push_settings(record, uid),
                Outgoing::Assignment(spec_hash) => {
                    let set = record.and_then(|record| record.delivery().held());
                    assigned.extend(frames.push_assignment(set, spec_hash));
                }
                Outgoing::ModuleGone(digest) => {
                    frames.push(&GatewayMessage::ModuleGone(ModuleGone { digest }))
                }
                Outgoing::Chunk(range) => {
                    let digest = range.digest();
                    let rest = modules.cached(&digest).and_then(|module| frames.push_chunk(range, module));
                    modules.touch(now.ms, &digest);
                    if let Some(rest) = rest {
                        session.pending_mut().pull(rest);
                    }
                }
            }
        }
        let established = session.is_established() && !session.pending().has_welcome();
        while established && frames.has_room() && self.deliveries.send(id, |message| frames.push(message)) {}
        transmit.written = frames.written;
        transmit.close = *session.state() == State::Closing && !session.pending().is_closing();
        let failed = frames.failed;
        let waits_for = session.pending().pulled().filter(|digest| modules.cached(digest).is_none());
        let delivers = established && self.deliveries.is_ready(id);
        if delivers || session.pending().is_ready(|digest| modules.cached(digest).is_some()) {
            self.connections.wake(id);
        }
        if let Some(digest) = waits_for {
            // It left memory while the device read slowly.
            if !self.modules.contains(&digest) {
                self.refuse_module(id, digest);
            } else if self.modules.want(&digest, id) {
                self.storage.load_module(digest);
            }
        }
        for (application, correlation_id) in assigned {
            let device = Arc::clone(&device);
            self.notice(Notice::Assigned { device, application, correlation_id });
        }
        if let Some(detail) = failed {
            self.notice(Notice::Unusable { device, detail });
        }
        if !transmit.close
            && let Some(session) = self.connections.get(id)
        {
            transmit.read_in_ms = self.read_in_ms(now, session);
        }
        transmit
    }
}

impl Gateway {
    fn transmit_to_joiner(&mut self, now: Now, id: SessionId, mut frames: Frames<'_>) -> Transmit {
        let transmit = self.transmit_join(now, id, |message| {
            frames.push(message);
            frames.has_room()
        });
        if let Some(detail) = frames.failed {
            self.end_join(now, id, PROTOCOL_ERROR, &detail);
        }
        Transmit { written: frames.written, ..transmit }
    }
}

fn welcome(
    now: Now,
    config: &Config,
    record: Option<&DeviceEntry>,
    desired_known: bool,
) -> GatewayMessage<'static> {
    let live = record.and_then(DeviceEntry::live);
    debug_assert!(live.is_some(), "a session is welcomed once it has its epoch");
    GatewayMessage::Welcome(Welcome {
        epoch: live.map_or(Epoch(0), SessionView::acknowledged_epoch),
        unix_ms: now.unix_ms,
        heartbeat_interval_ms: config.heartbeat_interval_ms,
        heartbeat_timeout_ms: config.heartbeat_timeout_ms,
        log_bytes_per_second: LOG_BYTES_PER_SECOND,
        desired_known,
        groups: Some(groups(config)),
    })
}

/// What this gateway takes of devices.
fn groups(config: &Config) -> MessageGroups {
    let mut groups = MessageGroups::ALL;
    if config.read_request.is_none() {
        groups = groups.without(MessageGroups::RENEWAL);
    }
    if config.messages.is_none() {
        groups = groups.without(MessageGroups::MESSAGES);
    }
    groups
}
