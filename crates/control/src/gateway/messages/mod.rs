//! Messages of applications: from their devices into the outbox on the gateway's disk.
//!
//! ```text
//! take ── Queued ──> open batch ── full, or LINGER old ──> poll ── OutboxWrite ──> disk ── handle_written ──> acknowledged
//!   ├──── Duplicate, Refused ── acknowledged behind what came before ──────────────────────────────────────────^
//!   └──── NotYet ── nothing of this session is taken any more: the device sends it again in its next one
//! ```
//!
//! One write is under way at a time, and what arrives meanwhile shares the next one: a message costs an append to a buffer, and a
//! sync is shared by all. What was acknowledged is on the disk until the bounds of bytes and age let go of it, the oldest first.
//! How far each device's applications were taken outlives the messages: it is written with the first record that is let go of
//! since it was written last.

mod brokers;
mod cursor;
mod delivering;
mod disk;
mod places;
mod publishing;
mod receiving;
mod record;
mod refusal;
mod stored;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use wasmbed_protocol::{
    ApplicationUid,
    rate::{Rate, TokenBucket},
};

use super::{
    config::{
        MESSAGE_BATCH_BYTES, MESSAGE_BATCH_MAX, MESSAGE_BURST, MESSAGE_BURST_S, MESSAGE_PATIENCE_MS,
        MESSAGE_PAUSE_MS, MESSAGES_PENDING_BYTES_MAX, MESSAGES_PENDING_OF_DEVICE_MAX, MessageLimits,
    },
    input::SessionId,
};
use crate::{Now, ObjectKey};
use brokers::{Brokers, Positions};
use places::{Places, Start};
use record::{Record, Stored};
use stored::Kept;

pub use brokers::{
    BatchFormat, BrokerAddress, BrokerArrival, BrokerCursor, BrokerEndpoint, BrokerFailure, BrokerLevels,
    BrokerLink, BrokerMessage, BrokerPage, BrokerStart, BrokerStatusWrite, BrokerStep, BrokerTaken,
    ConnectionId, RECEIVED_BELOW, Speaks, Verdict,
};
pub use cursor::{MessageCursor, message_lines};
pub use refusal::MessageRefusal;
pub use stored::{OutboxFailure, OutboxWrite, RestoredMessages};

/// A topic that an application declares, as its spec says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topic {
    pub name: Box<str>,
    pub per_second: u32,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It goes to the disk.
    Queued,
    /// It is there, or on its way.
    Duplicate,
    /// There is no place for it now, nor for those that follow in its session.
    NotYet,
    Refused(MessageRefusal),
}

/// An acknowledgement for a device.
pub(super) type Ack = (Arc<ObjectKey>, ApplicationUid, u64, u64);

/// Numbers since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCounters {
    /// Messages that went to the disk.
    pub taken: u64,
    /// Messages that were there already.
    pub duplicates: u64,
    /// Messages that found no place, and come again.
    pub postponed: u64,
    /// Messages that devices say they dropped.
    pub lost_on_devices: u64,
    /// Messages that were refused, by [`MessageRefusal::ALL`].
    pub refused: [u64; MessageRefusal::ALL.len()],
    /// Messages that the disk let go of because there were more bytes than its bound.
    pub dropped_for_bytes: u64,
    /// The same because of their age.
    pub dropped_for_age: u64,
    /// The same because the disk was full.
    pub dropped_for_room: u64,
    /// Records on the disk that could not be read.
    pub records_unreadable: u64,
}

/// What the gateway holds of messages now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageLevels {
    /// Bytes on the disk, as they count against the bound.
    pub bytes: u64,
    /// Age of the oldest, milliseconds.
    pub oldest_age_ms: u64,
    /// Bytes in memory that wait for the disk.
    pub pending_bytes: usize,
}

#[derive(Debug)]
pub(super) struct Messages {
    limits: MessageLimits,
    holders: BTreeMap<Arc<ObjectKey>, Holder>,
    /// What is on the disk, the oldest first.
    kept: VecDeque<Kept>,
    kept_bytes: u64,
    open: Batch,
    /// When its first message came.
    open_since_ms: u64,
    /// Batches that are full.
    closed: VecDeque<Batch>,
    pending_bytes: usize,
    writing: Option<Writing>,
    /// When the disk is tried again.
    retry_at_ms: u64,
    /// The disk is full: the oldest goes before anything else is written.
    make_room: bool,
    /// When that was done last, if nothing was written since.
    made_room_at_ms: Option<u64>,
    /// The disk did not do its work the last time.
    failing: bool,
    /// The next batch has this number.
    next_number: u64,
    /// Places are on the disk as they were when the batch before this one was written.
    placed_before: u64,
    /// Devices whose places are not.
    displaced: BTreeSet<Arc<ObjectKey>>,
    /// They are to be written with the next records.
    places_due: bool,
    /// Devices that are gone, whose places are to go from the disk.
    forgotten: BTreeSet<Arc<ObjectKey>>,
    /// Whether there may be something that is too old.
    sweeping: bool,
    ready: Vec<Ack>,
    /// Where they go from the disk.
    brokers: Brokers,
    counters: MessageCounters,
}

/// What one device has here.
#[derive(Debug, Default)]
struct Holder {
    /// `metadata.uid` of the Device; empty if it was not known.
    uid: Box<str>,
    places: Places,
    /// Bytes on the disk.
    held: u64,
    /// Bytes on their way there.
    pending: usize,
    /// A session from which nothing is taken any more.
    stalled: Option<SessionId>,
    /// What each topic has used of its rate.
    rates: VecDeque<(ApplicationUid, Box<str>, TokenBucket)>,
}

/// Messages that become one record.
#[derive(Debug, Default)]
struct Batch {
    record: Record,
    messages: usize,
    bytes: usize,
    unix_ms: u64,
    of_devices: BTreeMap<Arc<ObjectKey>, usize>,
    acks: BTreeMap<(Arc<ObjectKey>, ApplicationUid, u64), u64>,
}

impl Batch {
    fn acknowledge(&mut self, device: &Arc<ObjectKey>, uid: ApplicationUid, boot: u64, sequence: u64) {
        let last = self.acks.entry((Arc::clone(device), uid, boot)).or_default();
        *last = (*last).max(sequence);
    }

    fn is_full(&self) -> bool {
        self.bytes >= MESSAGE_BATCH_BYTES || self.messages >= MESSAGE_BATCH_MAX
    }
}

/// Why records are let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LetGo {
    Bytes,
    Age,
    Room,
}

/// What the disk does now.
#[derive(Debug)]
struct Writing {
    since_ms: u64,
    batches: Vec<(u64, Arc<[u8]>, Batch)>,
    dropped: Vec<(Kept, LetGo)>,
    /// Whose places are written.
    placed: BTreeSet<Arc<ObjectKey>>,
    forgotten: BTreeSet<Arc<ObjectKey>>,
    /// How far brokers are.
    positions: Positions,
}

/// Who sends a message, as the session and the set say.
pub(super) struct Sender<'a> {
    pub device: &'a Arc<ObjectKey>,
    pub device_uid: &'a str,
    pub session: SessionId,
    /// Its application by its set: `namespace/name` and what it declares; `None` if the set has no such application.
    pub application: Option<(&'a str, &'a [Topic])>,
    /// Whether the device's set is known here at all.
    pub set_known: bool,
}

/// A message as it came.
#[derive(Clone, Copy)]
pub(super) struct Arrived<'a> {
    pub uid: ApplicationUid,
    start: Start,
    pub sequence: u64,
    pub lost: u32,
    pub topic: &'a str,
    pub payload: &'a [u8],
}

impl Messages {
    pub(super) fn new(limits: MessageLimits, restored: RestoredMessages) -> Self {
        let mut messages = Self {
            limits,
            holders: BTreeMap::new(),
            kept: VecDeque::new(),
            kept_bytes: 0,
            open: Batch::default(),
            open_since_ms: 0,
            closed: VecDeque::new(),
            pending_bytes: 0,
            writing: None,
            retry_at_ms: 0,
            make_room: false,
            made_room_at_ms: None,
            failing: false,
            next_number: 1,
            placed_before: 1,
            displaced: BTreeSet::new(),
            places_due: false,
            forgotten: BTreeSet::new(),
            sweeping: true,
            ready: Vec::new(),
            brokers: Brokers::default(),
            counters: MessageCounters::default(),
        };
        messages.restore(restored);
        messages
    }

    /// A message came in an established session.
    pub(super) fn take(&mut self, now: Now, from: &Sender<'_>, message: &Arrived<'_>) -> Taken {
        let taken = self.look_at(now, from, message);
        let (device, Arrived { uid, start: Start { boot, .. }, sequence, .. }) = (from.device, *message);
        match taken {
            Taken::Queued => self.queue(now, from, message),
            Taken::Duplicate => {
                self.counters.duplicates += 1;
                self.acknowledge(device, uid, boot, sequence);
            }
            Taken::NotYet => {
                self.counters.postponed += 1;
                self.holders.entry(Arc::clone(device)).or_default().stalled = Some(from.session);
            }
            Taken::Refused(why) => {
                self.counters.refused[why as usize] += 1;
                self.acknowledge(device, uid, boot, sequence);
            }
        }
        taken
    }

    fn look_at(&mut self, now: Now, from: &Sender<'_>, message: &Arrived<'_>) -> Taken {
        let pending_full = self.pending_bytes >= MESSAGES_PENDING_BYTES_MAX;
        let holder = self.holders.entry(Arc::clone(from.device)).or_default();
        if *holder.uid != *from.device_uid {
            // Another Device of the same name: what was taken of the one before says nothing of this one.
            holder.places = Places::default();
            holder.uid = from.device_uid.into();
        }
        if holder.places.has(message.uid, message.start, message.sequence) {
            return Taken::Duplicate;
        }
        if holder.stalled == Some(from.session) || !from.set_known {
            return Taken::NotYet;
        }
        let Some((_, topics)) = from.application else {
            return Taken::Refused(MessageRefusal::UnknownApplication);
        };
        let Some(topic) = topics.iter().find(|topic| *topic.name == *message.topic) else {
            return Taken::Refused(MessageRefusal::UnknownTopic);
        };
        if holder.held + holder.pending as u64 >= self.limits.device_bytes_max {
            return Taken::Refused(MessageRefusal::DeviceShare);
        }
        if pending_full || holder.pending >= MESSAGES_PENDING_OF_DEVICE_MAX {
            return Taken::NotYet;
        }
        if !holder.allows(now, message.uid, topic) {
            return Taken::Refused(MessageRefusal::Rate);
        }
        Taken::Queued
    }

    fn queue(&mut self, now: Now, from: &Sender<'_>, message: &Arrived<'_>) {
        let Arrived { uid, start, sequence, lost, topic, payload } = *message;
        let device = from.device;
        let holder = present!(self.holders.get_mut(device), "who was looked at has an entry");
        if self.open.messages == 0 {
            self.open_since_ms = now.ms;
        }
        let bytes = self.open.record.push(&Stored {
            device: (&device.namespace, &device.name),
            device_uid: &holder.uid,
            application: from.application.map_or("", |(name, _)| name),
            uid,
            start,
            sequence,
            unix_ms: now.unix_ms,
            lost,
            topic,
            payload,
        });
        holder.places.note(uid, start, sequence);
        holder.pending += bytes;
        self.displaced.insert(Arc::clone(device));
        self.forgotten.remove(device);
        self.pending_bytes += bytes;
        self.counters.taken += 1;
        self.counters.lost_on_devices += u64::from(lost);
        let open = &mut self.open;
        open.messages += 1;
        open.bytes += bytes;
        open.unix_ms = open.unix_ms.max(now.unix_ms);
        *open.of_devices.entry(Arc::clone(device)).or_default() += bytes;
        open.acknowledge(device, uid, start.boot, sequence);
        if open.is_full() {
            self.closed.push_back(std::mem::take(open));
        }
    }

    /// Acknowledges a message of which nothing goes to the disk, once all that came before it is there.
    fn acknowledge(&mut self, device: &Arc<ObjectKey>, uid: ApplicationUid, boot: u64, sequence: u64) {
        let open = Some(&mut self.open).filter(|open| open.messages > 0);
        let written = self.writing.as_mut().and_then(|writing| Some(&mut writing.batches.last_mut()?.2));
        match open.or(self.closed.back_mut()).or(written) {
            Some(last) => last.acknowledge(device, uid, boot, sequence),
            None => self.ready.push((Arc::clone(device), uid, boot, sequence)),
        }
    }

    /// For how long nothing is to be read from a device: it has sent more than the disk has taken yet. A disk that takes longer is
    /// not waited for, since devices have other things to say.
    pub(super) fn read_in_ms(&self, now: Now, device: &ObjectKey) -> u64 {
        let patient =
            self.writing.as_ref().is_some_and(|writing| now.ms < writing.since_ms + MESSAGE_PATIENCE_MS);
        if !patient || self.failing {
            return 0;
        }
        let pending = self.holders.get(device).map_or(0, |holder| holder.pending);
        let pressed = pending >= MESSAGES_PENDING_OF_DEVICE_MAX / 2
            || (pending > 0 && self.pending_bytes >= MESSAGES_PENDING_BYTES_MAX / 2);
        if pressed { MESSAGE_PAUSE_MS } else { 0 }
    }

    /// Acknowledgements that are due.
    pub(super) fn take_acks(&mut self) -> Vec<Ack> {
        std::mem::take(&mut self.ready)
    }

    /// Sessions from which nothing was taken any more, if there is room now; their devices are to come again.
    pub(super) fn take_stalled(&mut self) -> Vec<SessionId> {
        if self.failing || self.pending_bytes > MESSAGES_PENDING_BYTES_MAX / 4 {
            return Vec::new();
        }
        self.holders.values_mut().filter_map(|holder| holder.stalled.take()).collect()
    }

    /// The same of one device, whose set is known now.
    pub(super) fn take_stalled_of(&mut self, device: &ObjectKey) -> Option<SessionId> {
        self.holders.get_mut(device)?.stalled.take()
    }

    /// A Device is gone: a new one of its name inherits nothing. What it published stays as long as all else.
    pub(super) fn forget(&mut self, device: &Arc<ObjectKey>) {
        let Some(holder) = self.holders.get_mut(device) else { return };
        holder.places = Places::default();
        holder.uid = Box::default();
        holder.rates.clear();
        self.displaced.remove(device);
        self.forgotten.insert(Arc::clone(device));
        if holder.held == 0 && holder.pending == 0 {
            self.holders.remove(device);
        }
    }

    /// Forgets devices that are not known any more, as those that were restored may be.
    pub(super) fn forget_others(&mut self, known: impl Fn(&ObjectKey) -> bool) {
        let gone: Vec<_> = self
            .holders
            .iter()
            .filter(|(device, holder)| holder.places.len() > 0 && holder.pending == 0 && !known(device))
            .map(|(device, _)| Arc::clone(device))
            .collect();
        gone.iter().for_each(|device| self.forget(device));
    }

    pub(super) fn counters(&self) -> MessageCounters {
        self.counters
    }

    pub(super) fn levels(&self, now: Now) -> MessageLevels {
        MessageLevels {
            bytes: self.kept_bytes,
            oldest_age_ms: self.kept.front().map_or(0, |oldest| now.unix_ms.saturating_sub(oldest.unix_ms)),
            pending_bytes: self.pending_bytes,
        }
    }

    /// Whether the disk did not do its work the last time.
    pub(super) fn is_failing(&self) -> bool {
        self.failing
    }

    /// Number of the last record on the disk, which rises with every write.
    pub(super) fn version(&self) -> u64 {
        self.kept.back().map_or(0, |kept| kept.number)
    }

    /// Whether all that was taken is on the disk.
    pub(super) fn is_idle(&self) -> bool {
        self.open.messages == 0
            && self.closed.is_empty()
            && self.writing.is_none()
            && (self.failing || self.brokers.is_saved())
    }

    /// The first broken invariant, if any: what waits and what is held is counted, by device and in all, and numbers ascend.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let written = self.writing.iter().flat_map(|writing| writing.batches.iter().map(|(.., batch)| batch));
        let mut pending: BTreeMap<&ObjectKey, usize> = BTreeMap::new();
        for batch in written.chain(&self.closed).chain([&self.open]) {
            for (device, bytes) in &batch.of_devices {
                *pending.entry(device).or_default() += bytes;
            }
        }
        let counted = |(device, holder): (&Arc<ObjectKey>, &Holder)| {
            holder.pending == pending.get(&**device).copied().unwrap_or(0)
        };
        if pending.values().sum::<usize>() != self.pending_bytes || !self.holders.iter().all(counted) {
            return Err("the bytes of messages that wait are not those that are counted");
        }
        let dropping = self.writing.iter().flat_map(|writing| writing.dropped.iter().map(|(kept, _)| kept));
        if dropping.chain(&self.kept).map(|kept| kept.bytes).sum::<u64>() != self.kept_bytes {
            return Err("the bytes of messages on the disk are not those that are counted");
        }
        if !self.kept.iter().is_sorted_by(|before, after| before.number < after.number) {
            return Err("records of messages are not in their order");
        }
        self.brokers.check()
    }
}

impl Holder {
    /// Whether a message is within the rate of its topic.
    fn allows(&mut self, now: Now, uid: ApplicationUid, topic: &Topic) -> bool {
        let index = self.rates.iter().position(|(of, name, _)| *of == uid && **name == *topic.name);
        let index = index.unwrap_or_else(|| {
            if self.rates.len() >= super::config::MESSAGE_TOPICS_OF_DEVICE_MAX {
                self.rates.pop_front();
            }
            self.rates.push_back((uid, topic.name.clone(), TokenBucket::default()));
            self.rates.len() - 1
        });
        let per_second = u64::from(topic.per_second);
        // A device that was away brings what it has kept at once.
        let rate = Rate::per_second(per_second, MESSAGE_BURST + MESSAGE_BURST_S * per_second);
        self.rates[index].2.take(now.ms, rate, 1)
    }
}
