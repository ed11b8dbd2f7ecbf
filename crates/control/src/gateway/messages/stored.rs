//! What goes to the outbox, and what a gateway finds there when it starts.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{places::Places, record};
use crate::{
    ObjectKey,
    gateway::config::{MESSAGE_RECORD_BYTES_MIN, MESSAGE_RECORD_OVERHEAD},
};

/// One write to the outbox: all of it or nothing, and durable before it is answered with
/// [`Gateway::handle_outbox_written`](crate::gateway::Gateway::handle_outbox_written).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxWrite {
    /// Records to be appended, by their ascending numbers, which are above all that are there.
    pub append: Vec<(u64, Arc<[u8]>)>,
    /// Records to be removed, and their bytes answered.
    pub remove: Vec<u64>,
    /// Places of devices, by `namespace/name`, each in place of the one that is there.
    pub places: Vec<(String, Vec<u8>)>,
    /// Devices whose places are to be removed.
    pub forget: Vec<String>,
    /// If there are places: they are as of all records below this number, also of those in `append`.
    pub placed_before: u64,
    /// How far brokers have taken what is here, by `metadata.uid` of their MessageBrokers.
    pub positions: Vec<(String, u64)>,
    /// Brokers whose position is to be removed.
    pub released: Vec<String>,
    /// The disk is full: room is to be made first by whatever means there are.
    pub make_room: bool,
}

/// The disk did not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct OutboxFailure {
    /// It is full.
    pub full: bool,
    /// What happened, for people.
    pub detail: String,
}

/// What a gateway finds in its outbox: places first, then records by ascending number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RestoredMessages {
    pub(super) devices: BTreeMap<ObjectKey, RestoredDevice>,
    pub(super) kept: VecDeque<Kept>,
    pub(super) placed_before: u64,
    pub(super) positions: BTreeMap<Box<str>, u64>,
    pub(super) unreadable: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RestoredDevice {
    pub uid: Box<str>,
    pub places: Places,
    pub held: u64,
    /// Its places are other than those on the disk.
    pub displaced: bool,
}

impl RestoredMessages {
    /// Places are as of all records below this number.
    pub fn placed_before(&mut self, number: u64) {
        self.placed_before = number;
    }

    /// How far a broker is, as an [`OutboxWrite`] had it.
    pub fn position(&mut self, uid: &str, position: u64) {
        self.positions.insert(uid.into(), position);
    }

    /// Places of a device, as an [`OutboxWrite`] had them.
    pub fn place(&mut self, device: &str, bytes: &[u8]) {
        let read = record::read_places(bytes).ok().zip(device.split_once('/'));
        let Some(((uid, places), (namespace, name))) = read else {
            self.unreadable += 1;
            return;
        };
        let restored = self.devices.entry(ObjectKey::new(namespace, name)).or_default();
        (restored.uid, restored.places) = (uid.into(), places);
    }

    /// A record, as an [`OutboxWrite`] had it.
    pub fn record(&mut self, number: u64, bytes: &[u8]) {
        let mut unix_ms = 0;
        let mut spoilt = false;
        let mut sizes = Sizes::default();
        for message in record::read(bytes) {
            let Ok(message) = message else {
                spoilt = true;
                break;
            };
            unix_ms = unix_ms.max(message.unix_ms);
            let (namespace, name) = message.device;
            let device = self.devices.entry(ObjectKey::new(namespace, name)).or_default();
            device.held += sizes.of(&message);
            if number < self.placed_before {
                continue;
            }
            if *device.uid != *message.device_uid {
                (device.uid, device.places) = (message.device_uid.into(), Places::default());
            }
            device.places.note(message.uid, message.start, message.sequence);
            device.displaced = true;
        }
        self.unreadable += u64::from(spoilt);
        self.kept.push_back(Kept { number, bytes: counted(bytes.len()), unix_ms });
    }
}

/// Bytes of messages as they were when they were written.
#[derive(Default)]
pub(super) struct Sizes(record::Record);

impl Sizes {
    pub(super) fn of(&mut self, message: &record::Stored<'_>) -> u64 {
        self.0.clear();
        self.0.push(message) as u64
    }
}

/// What a record takes of the bound.
pub(super) fn counted(bytes: usize) -> u64 {
    (bytes as u64 + MESSAGE_RECORD_OVERHEAD).max(MESSAGE_RECORD_BYTES_MIN)
}

/// A record on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub number: u64,
    /// As they count against the bound.
    pub bytes: u64,
    /// When its last message came.
    pub unix_ms: u64,
}
