//! What a session has to send.
//!
//! Nothing is queued as bytes: a session remembers what is pending, and frames are made when the connection can take
//! them. So a slow reader costs no more than a fast one, and of two desired sets only the newer is sent.

use std::collections::VecDeque;

use wasmbed_protocol::{
    ApplicationUid, BootCounter, CloseReason, Closing as LastMessage, ErrorCode, ErrorNotice, GatewayMessage,
    ModuleChunk, ModuleDigest, ModuleGet, PublishAck, Sequence, SpecHash,
    limits::{CHUNK_BYTES_MAX, DETAIL_BYTES_MAX},
};

use super::{
    config::{ASSIGNMENT_GETS_MAX, MESSAGE_APPLICATIONS_MAX, SETTINGS_OFFERS_MAX},
    outbox::{Outbox, Said},
};

/// What is to be sent; the rare parts are boxed, since nearly all sessions have nothing pending.
#[derive(Debug, Default)]
pub(super) struct Pending {
    welcome: bool,
    heartbeat_ack: Option<Sequence>,
    /// How far messages of applications are on the disk.
    messages: VecDeque<PublishAck>,
    error: Option<Box<Complaint>>,
    join: Option<Box<Outbox>>,
    desired: bool,
    order: bool,
    /// Applications whose settings are to be sent, at most [`SETTINGS_OFFERS_MAX`].
    settings: VecDeque<ApplicationUid>,
    assignments: VecDeque<SpecHash>,
    module_gone: Option<Box<ModuleDigest>>,
    range: Option<Box<Range>>,
    closing: Option<Box<Closing>>,
}

/// The next message, in the order in which they are sent: control messages first, then chunks of the module being pulled.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    Welcome {
        /// Whether the desired set follows.
        desired_known: bool,
    },
    HeartbeatAck(Sequence),
    MessagesAck(PublishAck),
    Error(Box<Complaint>),
    /// About its next certificate.
    Join(Box<Said>),
    /// The last message; nothing is pending after it.
    Close(Box<Closing>),
    Desired,
    /// The order to take the device out of service.
    Order,
    /// What the settings of this application are.
    Settings(ApplicationUid),
    Assignment(SpecHash),
    ModuleGone(ModuleDigest),
    /// A chunk from the start of this range; what is left of it goes back with [`Pending::pull`].
    Chunk(Range),
}

/// A message of the device that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    code: ErrorCode,
    tag: Option<u32>,
    detail: String,
}

impl Complaint {
    pub(super) fn new(code: ErrorCode, tag: Option<u32>, detail: &str) -> Self {
        Self { code, tag, detail: shorten(detail) }
    }

    /// As the device is sent it.
    pub(super) fn to_message(&self) -> GatewayMessage<'_> {
        GatewayMessage::Error(ErrorNotice { code: self.code, tag: self.tag, detail: &self.detail })
    }
}

/// A range of a module that the device asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    digest: ModuleDigest,
    next: u32,
    end: u32,
}

impl Range {
    /// What is asked for of a module of `bytes` bytes; `None` if that begins beyond its end.
    pub(super) fn requested(get: &ModuleGet, bytes: u32) -> Option<Self> {
        let end = get.offset.saturating_add(u32::from(get.length)).min(bytes);
        (get.offset < bytes).then_some(Self { digest: get.digest, next: get.offset, end })
    }

    pub(super) fn digest(&self) -> ModuleDigest {
        self.digest
    }

    /// Its first chunk, and the range that is left after that; `None` if the module has no bytes of it.
    pub(super) fn split_chunk<'a>(&self, module: &'a [u8]) -> Option<(ModuleChunk<'a>, Option<Self>)> {
        let start = self.next as usize;
        let end = (start + CHUNK_BYTES_MAX).min(self.end as usize).min(module.len());
        let bytes = module.get(start..end).filter(|bytes| !bytes.is_empty())?;
        let chunk = ModuleChunk { digest: self.digest, offset: self.next, bytes };
        // `end` is at most `self.end`, a u32.
        let next = end as u32;
        Some((chunk, (next < self.end).then_some(Self { next, ..*self })))
    }
}

/// The message that ends a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closing {
    reject: bool,
    reason: CloseReason,
    retry_after_ms: u32,
    detail: String,
}

impl Closing {
    /// Of a session that was not given Welcome.
    pub(super) fn reject(reason: CloseReason, retry_after_ms: u32, detail: &str) -> Self {
        Self { reject: true, reason, retry_after_ms, detail: shorten(detail) }
    }

    /// Of an established one.
    pub(super) fn goodbye(reason: CloseReason, retry_after_ms: u32, detail: &str) -> Self {
        Self { reject: false, reason, retry_after_ms, detail: shorten(detail) }
    }

    /// As the device is sent it.
    pub(super) fn to_message(&self) -> GatewayMessage<'_> {
        let Self { reject, reason, retry_after_ms, detail } = self;
        let last = LastMessage { reason: *reason, retry_after_ms: *retry_after_ms, detail };
        if *reject { GatewayMessage::Reject(last) } else { GatewayMessage::Goodbye(last) }
    }
}

/// At most what the protocol carries as detail.
fn shorten(detail: &str) -> String {
    let end = (0..=detail.len().min(DETAIL_BYTES_MAX)).rev().find(|end| detail.is_char_boundary(*end));
    detail.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

impl Pending {
    pub(super) fn welcome(&mut self, desired_known: bool) {
        self.welcome = true;
        self.desired = desired_known;
    }

    /// Whether Welcome has not been sent.
    pub(super) fn has_welcome(&self) -> bool {
        self.welcome
    }

    pub(super) fn acknowledge(&mut self, heartbeat: Sequence) {
        self.heartbeat_ack = Some(heartbeat);
    }

    /// Messages of an application are on the disk up to this one.
    pub(super) fn acknowledge_messages(&mut self, uid: ApplicationUid, boot: u64, sequence: u64) {
        let ack = PublishAck { uid, boot: BootCounter(boot), sequence: Sequence(sequence) };
        let same = |waiting: &&mut PublishAck| (waiting.uid, waiting.boot) == (ack.uid, ack.boot);
        if let Some(waiting) = self.messages.iter_mut().find(same) {
            waiting.sequence = waiting.sequence.max(ack.sequence);
            return;
        }
        if self.messages.len() >= MESSAGE_APPLICATIONS_MAX {
            // The device sends it again, and it is a duplicate then.
            self.messages.pop_front();
        }
        self.messages.push_back(ack);
    }

    /// Replaces a complaint that was not sent yet.
    pub(super) fn complain(&mut self, complaint: Complaint) {
        self.error = Some(Box::new(complaint));
    }

    /// What is to be said about its next certificate.
    pub(super) fn join(&mut self) -> &mut Outbox {
        self.join.get_or_insert_default()
    }

    /// Nothing is to be said about a certificate any more.
    pub(super) fn forget_join(&mut self) {
        self.join = None;
    }

    pub(super) fn offer_order(&mut self) {
        self.order = true;
    }

    /// What the settings of these applications are when it is their turn; those that wait already wait once.
    pub(super) fn offer_settings(&mut self, applications: impl Iterator<Item = ApplicationUid>) {
        for uid in applications {
            if self.settings.len() < SETTINGS_OFFERS_MAX && !self.settings.contains(&uid) {
                self.settings.push_back(uid);
            }
        }
    }

    pub(super) fn offer_desired(&mut self) {
        self.desired = true;
    }

    /// Remembers an AssignmentGet; false if too many wait.
    pub(super) fn request_assignment(&mut self, hash: SpecHash) -> bool {
        if self.assignments.contains(&hash) {
            return true;
        }
        if self.assignments.len() >= ASSIGNMENT_GETS_MAX {
            return false;
        }
        self.assignments.push_back(hash);
        true
    }

    /// One range is outstanding: a device that asks again has given up on the one before.
    pub(super) fn pull(&mut self, range: Range) {
        self.range = Some(Box::new(range));
    }

    /// The module of the range is gone.
    pub(super) fn refuse_module(&mut self, digest: ModuleDigest) {
        self.range = None;
        self.module_gone = Some(Box::new(digest));
    }

    /// Drops everything else.
    pub(super) fn close(&mut self, closing: Closing) {
        *self = Self { closing: Some(Box::new(closing)), ..Self::default() };
    }

    /// Whether the last message has not been sent.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// The module that the device pulls.
    pub(super) fn pulled(&self) -> Option<ModuleDigest> {
        self.range.as_ref().map(|range| range.digest)
    }

    /// Whether there is anything to send now. A range whose module is not in memory waits for it.
    pub(super) fn is_ready(&self, in_memory: impl FnOnce(&ModuleDigest) -> bool) -> bool {
        let Self {
            welcome,
            heartbeat_ack,
            messages,
            error,
            join,
            desired,
            order,
            settings,
            assignments,
            module_gone,
            range,
            closing,
        } = self;
        *welcome
            || heartbeat_ack.is_some()
            || !messages.is_empty()
            || error.is_some()
            || join.is_some()
            || *desired
            || *order
            || !settings.is_empty()
            || !assignments.is_empty()
            || module_gone.is_some()
            || closing.is_some()
            || range.as_ref().is_some_and(|range| in_memory(&range.digest))
    }

    /// Takes what is to be sent next.
    pub(super) fn next(&mut self, in_memory: impl FnOnce(&ModuleDigest) -> bool) -> Option<Outgoing> {
        if std::mem::take(&mut self.welcome) {
            return Some(Outgoing::Welcome { desired_known: self.desired });
        }
        if let Some(sequence) = self.heartbeat_ack.take() {
            return Some(Outgoing::HeartbeatAck(sequence));
        }
        if let Some(complaint) = self.error.take() {
            return Some(Outgoing::Error(complaint));
        }
        if let Some(closing) = self.closing.take() {
            return Some(Outgoing::Close(closing));
        }
        if std::mem::take(&mut self.desired) {
            return Some(Outgoing::Desired);
        }
        if std::mem::take(&mut self.order) {
            return Some(Outgoing::Order);
        }
        if let Some(uid) = self.settings.pop_front() {
            return Some(Outgoing::Settings(uid));
        }
        if let Some(outbox) = &mut self.join {
            let said = outbox.next();
            if outbox.is_empty() {
                self.join = None;
            }
            if let Some(said) = said {
                return Some(Outgoing::Join(Box::new(said)));
            }
        }
        if let Some(hash) = self.assignments.pop_front() {
            return Some(Outgoing::Assignment(hash));
        }
        if let Some(ack) = self.messages.pop_front() {
            return Some(Outgoing::MessagesAck(ack));
        }
        if let Some(digest) = self.module_gone.take() {
            return Some(Outgoing::ModuleGone(*digest));
        }
        let range = self.range.take_if(|range| in_memory(&range.digest))?;
        Some(Outgoing::Chunk(*range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_asked_for_twice_wait_once_and_no_more_than_a_set() {
        let mut pending = Pending::default();
        for index in 0..ASSIGNMENT_GETS_MAX {
            assert!(pending.request_assignment(SpecHash([index as u8; 32])));
            assert!(pending.request_assignment(SpecHash([index as u8; 32])));
        }
        assert!(!pending.request_assignment(SpecHash([0xff; 32])));
        assert_eq!(std::iter::from_fn(|| pending.next(|_| true)).count(), ASSIGNMENT_GETS_MAX);
    }

    #[test]
    fn control_messages_come_first_and_a_chunk_waits_for_its_module() {
        let digest = ModuleDigest([1; 32]);
        let mut pending = Pending::default();
        pending.pull(Range { digest, next: 0, end: 9 });
        assert!(!pending.is_ready(|_| false) && pending.is_ready(|_| true));
        assert_eq!(pending.next(|_| false), None);
        pending.acknowledge(Sequence(3));
        pending.welcome(true);
        assert_eq!(pending.next(|_| true), Some(Outgoing::Welcome { desired_known: true }));
        assert_eq!(pending.next(|_| true), Some(Outgoing::HeartbeatAck(Sequence(3))));
        assert_eq!(pending.next(|_| true), Some(Outgoing::Desired));
        assert_eq!(pending.next(|_| true), Some(Outgoing::Chunk(Range { digest, next: 0, end: 9 })));
        assert_eq!(pending.next(|_| true), None);
    }

    #[test]
    fn the_last_message_drops_all_others() {
        let mut pending = Pending::default();
        pending.offer_desired();
        let reason = CloseReason::Superseded;
        pending.close(Closing::goodbye(reason, 0, ""));
        assert!(matches!(pending.next(|_| true), Some(Outgoing::Close(_))));
        assert!(!pending.is_closing() && pending.next(|_| true).is_none());
    }
}
