//! The resumable stream that controllers read: a snapshot, then changes.
//!
//! The history holds, for each device, only the number of its last change. So it is as long as there are devices, a
//! reader that was away for long misses nothing, and one that is slow reads each device once. Only forgotten devices need
//! entries of their own; when the oldest of those is dropped, tokens from before it can't be resumed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::config::{STREAM_PAGE_MAX, TOMBSTONES_MAX};
use crate::{
    ObjectKey,
    gateway_api::{DeviceView, StreamEvent},
};

/// Position of a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// In a snapshot that began at `sequence`, after the device `after`.
    Snapshot {
        /// Changes after this follow the snapshot.
        sequence: u64,
        /// The last device sent; none yet.
        after: Option<Arc<ObjectKey>>,
        /// Whether the snapshot's head was sent.
        begun: bool,
    },
    /// All changes up to this one were sent.
    Changes {
        /// Of the last one.
        sequence: u64,
    },
}

#[derive(Debug)]
pub(super) struct Stream {
    boot_id: String,
    sequence: u64,
    changes: BTreeMap<u64, Arc<ObjectKey>>,
    last_change: BTreeMap<Arc<ObjectKey>, u64>,
    tombstones: BTreeSet<u64>,
    /// Tokens below this can't be resumed.
    floor: u64,
}

impl Stream {
    pub(super) fn new(boot_id: &str) -> Self {
        Self {
            boot_id: boot_id.to_owned(),
            sequence: 0,
            changes: BTreeMap::new(),
            last_change: BTreeMap::new(),
            tombstones: BTreeSet::new(),
            floor: 0,
        }
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Notes that a device is new or changed.
    pub(super) fn changed(&mut self, device: &Arc<ObjectKey>) {
        self.sequence += 1;
        self.changes.insert(self.sequence, Arc::clone(device));
        if let Some(earlier) = self.last_change.insert(Arc::clone(device), self.sequence) {
            self.changes.remove(&earlier);
            self.tombstones.remove(&earlier);
        }
    }

    /// Notes that a device is forgotten.
    pub(super) fn forgotten(&mut self, device: &Arc<ObjectKey>) {
        self.changed(device);
        self.tombstones.insert(self.sequence);
        if self.tombstones.len() > TOMBSTONES_MAX
            && let Some(oldest) = self.tombstones.pop_first()
            && let Some(device) = self.changes.remove(&oldest)
        {
            self.last_change.remove(&device);
            self.floor = oldest;
        }
    }

    /// The first broken invariant, if any: each device has one change, its last, and only what is forgotten a tombstone.
    pub(super) fn check(&self, is_known: impl Fn(&ObjectKey) -> bool) -> Result<(), &'static str> {
        if self.changes.len() != self.last_change.len()
            || self.changes.iter().any(|(number, device)| self.last_change.get(device) != Some(number))
        {
            return Err("the stream's history does not have the last change of each device alone");
        }
        if self.changes.iter().any(|(number, device)| self.tombstones.contains(number) == is_known(device)) {
            return Err("the stream takes a device for forgotten that is not, or the other way round");
        }
        let last = self.changes.last_key_value().map_or(0, |(number, _)| *number);
        if last > self.sequence || self.floor > self.sequence || self.tombstones.len() > TOMBSTONES_MAX {
            return Err("the stream's numbers are not within its bounds");
        }
        Ok(())
    }

    /// Position of a reader with this token.
    pub(super) fn resume(&self, token: Option<&str>) -> Cursor {
        let resumed = token.and_then(|token| token.split_once('.')).and_then(|(boot_id, sequence)| {
            let sequence: u64 = sequence.parse().ok()?;
            (boot_id == self.boot_id && (self.floor..=self.sequence).contains(&sequence)).then_some(sequence)
        });
        match resumed {
            Some(sequence) => Cursor::Changes { sequence },
            None => Cursor::Snapshot { sequence: self.sequence, after: None, begun: false },
        }
    }

    fn token(&self, sequence: u64) -> String {
        format!("{}.{sequence}", self.boot_id)
    }

    /// The line that keeps a quiet stream alive.
    pub(super) fn idle(&self, cursor: &Cursor) -> Option<StreamEvent> {
        match cursor {
            Cursor::Snapshot { .. } => None,
            Cursor::Changes { sequence } => Some(StreamEvent::Idle { token: self.token(*sequence) }),
        }
    }

    /// The next events, at most a page; none if the reader has them all. `devices` are all in their order from a key
    /// on, `view` is one of them.
    pub(super) fn page<'a, I>(
        &self,
        cursor: &mut Cursor,
        devices_after: impl FnOnce(Option<&ObjectKey>) -> I,
        view: impl Fn(&ObjectKey) -> Option<DeviceView>,
    ) -> Vec<StreamEvent>
    where
        I: Iterator<Item = &'a Arc<ObjectKey>>,
    {
        match cursor {
            Cursor::Changes { sequence } if *sequence < self.floor => {
                // The reader was so slow that a forgotten device was dropped from the history.
                *cursor = self.resume(None);
                self.page(cursor, devices_after, view)
            }
            Cursor::Changes { sequence } => {
                let mut events = Vec::new();
                for (number, device) in self.changes.range(*sequence + 1..).take(STREAM_PAGE_MAX) {
                    let token = self.token(*number);
                    events.push(match view(device) {
                        Some(view) => StreamEvent::Device { token, device: Box::new(view) },
                        None => StreamEvent::Forgotten { token, device: (**device).clone() },
                    });
                    *sequence = *number;
                }
                events
            }
            Cursor::Snapshot { sequence, after, begun } => {
                let mut events = Vec::new();
                if !std::mem::replace(begun, true) {
                    events.push(StreamEvent::Snapshot { boot_id: self.boot_id.clone() });
                }
                let mut devices = devices_after(after.as_deref()).peekable();
                // Within a snapshot a token means nothing yet: it begins again.
                let token = String::new();
                for device in devices.by_ref().take(STREAM_PAGE_MAX) {
                    *after = Some(Arc::clone(device));
                    if let Some(view) = view(device) {
                        events.push(StreamEvent::Device { token: token.clone(), device: Box::new(view) });
                    }
                }
                if devices.peek().is_none() {
                    events.push(StreamEvent::SnapshotEnd { token: self.token(*sequence) });
                    *cursor = Cursor::Changes { sequence: *sequence };
                }
                events
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_that_does_not_add_up_is_noticed() {
        let (kept, gone) = (Arc::new(ObjectKey::new("n", "kept")), Arc::new(ObjectKey::new("n", "gone")));
        let made = || {
            let mut stream = Stream::new("b");
            stream.changed(&kept);
            stream.changed(&gone);
            stream.forgotten(&gone);
            stream
        };
        let check = |stream: &Stream| stream.check(|key| *key == *kept);
        assert_eq!(check(&made()), Ok(()));
        assert!(made().check(|_| true).is_err(), "a known device is not forgotten");
        assert!(made().check(|_| false).is_err(), "a forgotten device is not known");
        let mut twice = made();
        twice.changes.insert(9, Arc::clone(&kept));
        assert!(check(&twice).is_err());
        let mut ahead = made();
        ahead.sequence = 1;
        assert!(check(&ahead).is_err());
    }
}
