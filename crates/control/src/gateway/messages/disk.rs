//! What is written to the outbox, and what is let go of.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use super::{
    Batch, LetGo, Messages, Writing, cursor, record,
    stored::{Kept, OutboxFailure, OutboxWrite, RestoredMessages, Sizes, counted},
};
use crate::{
    Now, ObjectKey,
    gateway::config::{
        MESSAGE_DROP_BYTES, MESSAGE_RETRY_MS, MESSAGE_ROOM_BYTES_MIN, MESSAGE_ROOM_INTERVAL_MS,
    },
};

impl Messages {
    pub(super) fn restore(&mut self, restored: RestoredMessages) {
        self.kept_bytes = restored.kept.iter().map(|kept| kept.bytes).sum();
        self.placed_before = restored.placed_before.max(1);
        let last = restored.kept.back().map_or(0, |kept| kept.number);
        self.next_number = self.placed_before.max(last + 1);
        self.kept = restored.kept;
        self.brokers.restore(restored.positions);
        self.counters.records_unreadable = restored.unreadable;
        for (device, restored) in restored.devices {
            let device = Arc::new(device);
            if restored.displaced {
                self.displaced.insert(Arc::clone(&device));
            }
            let holder = self.holders.entry(device).or_default();
            (holder.uid, holder.places, holder.held) = (restored.uid, restored.places, restored.held);
        }
    }

    /// The next write, if one is due.
    pub(in crate::gateway) fn poll(&mut self, now: Now) -> Option<OutboxWrite> {
        if self.writing.is_some() || now.ms < self.retry_at_ms || !self.is_due(now) {
            return None;
        }
        if self.open.messages > 0 && !self.make_room {
            self.closed.push_back(std::mem::take(&mut self.open));
        }
        let batches = if self.make_room { VecDeque::new() } else { std::mem::take(&mut self.closed) };
        let batches: Vec<_> = batches.into_iter().map(|batch| self.numbered(batch)).collect();
        let dropped = self.let_go(now, batches.iter().map(|(_, bytes, _)| counted(bytes.len())).sum());
        self.sweeping = false;
        let mut write = OutboxWrite {
            append: batches.iter().map(|(number, bytes, _)| (*number, Arc::clone(bytes))).collect(),
            remove: dropped.iter().map(|(kept, _)| kept.number).collect(),
            placed_before: self.next_number,
            make_room: std::mem::take(&mut self.make_room),
            ..OutboxWrite::default()
        };
        // What says how far these were taken must not go with them. Of what is in memory only nothing may be said.
        self.places_due |= dropped.iter().any(|(kept, _)| kept.number >= self.placed_before);
        let placed = if self.places_due && self.closed.is_empty() {
            self.places_due = false;
            std::mem::take(&mut self.displaced)
        } else {
            BTreeSet::new()
        };
        for device in &placed {
            if let Some(holder) = self.holders.get(device) {
                write.places.push((device.to_string(), record::write_places(&holder.uid, &holder.places)));
            }
        }
        if write.make_room {
            self.made_room_at_ms = Some(now.ms);
        }
        let forgotten = std::mem::take(&mut self.forgotten);
        write.forget = forgotten.iter().map(ToString::to_string).collect();
        let positions = self.brokers.take_positions();
        (write.positions, write.released) = (positions.saved(), positions.released());
        self.writing = Some(Writing { since_ms: now.ms, batches, dropped, placed, forgotten, positions });
        Some(write)
    }

    /// A batch whose write failed keeps its number.
    fn numbered(&mut self, mut batch: Batch) -> (u64, Arc<[u8]>, Batch) {
        let number = self.next_number;
        self.next_number += 1;
        (number, std::mem::take(&mut batch.record).into_bytes().into(), batch)
    }

    fn is_due(&self, now: Now) -> bool {
        let lingered = self.open.messages > 0 && now.ms >= self.open_since_ms + self.limits.linger_ms;
        let over = self.kept_bytes > self.limits.bytes_max && !self.kept.is_empty();
        lingered
            || !self.closed.is_empty()
            || self.make_room
            || over
            || (self.sweeping && self.is_old(now))
            || (self.sweeping && !self.forgotten.is_empty())
            || self.brokers.save_at_ms().is_some_and(|at_ms| now.ms >= at_ms)
    }

    fn is_old(&self, now: Now) -> bool {
        self.kept
            .front()
            .is_some_and(|oldest| now.unix_ms.saturating_sub(oldest.unix_ms) > self.limits.age_max_ms)
    }

    /// When [`Messages::poll`] may give something that it does not give now.
    pub(in crate::gateway) fn timeout_ms(&self) -> Option<u64> {
        if self.writing.is_some() {
            return None;
        }
        let over = self.kept_bytes > self.limits.bytes_max && !self.kept.is_empty();
        let due = if !self.closed.is_empty() || self.make_room || over {
            Some(0)
        } else {
            (self.open.messages > 0).then_some(self.open_since_ms + self.limits.linger_ms)
        };
        let due = due.into_iter().chain(self.brokers.save_at_ms()).min();
        due.map(|due_ms| due_ms.max(self.retry_at_ms))
    }

    /// There may be something that is too old.
    pub(in crate::gateway) fn sweep(&mut self) {
        self.sweeping = true;
    }

    /// Records that go, so that `more` bytes fit.
    fn let_go(&mut self, now: Now, more: u64) -> Vec<(Kept, LetGo)> {
        let at_once_max = MESSAGE_DROP_BYTES.max(2 * more);
        let waiting = 2 * self.pending_bytes as u64;
        let wanted = (self.kept_bytes / 16).max(MESSAGE_ROOM_BYTES_MIN).max(waiting).min(at_once_max);
        let wanted = if self.make_room { wanted } else { 0 };
        let (mut dropped, mut bytes) = (Vec::new(), 0);
        while let Some(oldest) = self.kept.front().copied().filter(|_| bytes < at_once_max) {
            let why = if bytes < wanted {
                LetGo::Room
            } else if self.kept_bytes - bytes + more > self.limits.bytes_max {
                LetGo::Bytes
            } else if self.is_old(now) {
                LetGo::Age
            } else {
                break;
            };
            self.kept.pop_front();
            bytes += oldest.bytes;
            dropped.push((oldest, why));
        }
        dropped
    }

    /// A write ended; gives the bytes of the records that it removed, in their order.
    pub(in crate::gateway) fn handle_written(
        &mut self,
        now: Now,
        result: Result<Vec<Vec<u8>>, OutboxFailure>,
    ) {
        let writing = present!(self.writing.take(), "a write is answered once");
        match result {
            Ok(removed) => self.written(now, writing, &removed),
            Err(failure) => self.not_written(now, writing, &failure),
        }
    }

    fn written(&mut self, now: Now, writing: Writing, removed: &[Vec<u8>]) {
        self.failing = false;
        if !writing.batches.is_empty() {
            self.made_room_at_ms = None;
        }
        if !writing.placed.is_empty() {
            self.placed_before = self.next_number;
        }
        self.brokers.saved(now, writing.positions);
        for (number, bytes, batch) in writing.batches {
            self.brokers.written(number, &bytes);
            let bytes = counted(bytes.len());
            self.kept.push_back(Kept { number, bytes, unix_ms: batch.unix_ms });
            self.kept_bytes += bytes;
            for (device, bytes) in batch.of_devices {
                self.pending_bytes -= bytes;
                let holder = present!(self.holders.get_mut(&device), "who has bytes on their way is known");
                holder.pending -= bytes;
                holder.held += bytes as u64;
            }
            let acks = batch.acks.into_iter();
            self.ready.extend(acks.map(|((device, uid, boot), sequence)| (device, uid, boot, sequence)));
        }
        for (index, (kept, why)) in writing.dropped.iter().enumerate() {
            self.kept_bytes -= kept.bytes;
            self.forget_record(*why, kept.number, removed.get(index).map_or(&[][..], Vec::as_slice));
        }
    }

    fn forget_record(&mut self, why: LetGo, number: u64, bytes: &[u8]) {
        let mut sizes = Sizes::default();
        for (number, message) in cursor::numbered(number, bytes) {
            self.brokers.let_go(number, &message);
            *match why {
                LetGo::Bytes => &mut self.counters.dropped_for_bytes,
                LetGo::Age => &mut self.counters.dropped_for_age,
                LetGo::Room => &mut self.counters.dropped_for_room,
            } += 1;
            let (namespace, name) = message.device;
            let device = ObjectKey::new(namespace, name);
            if let Some(holder) = self.holders.get_mut(&device) {
                holder.held = holder.held.saturating_sub(sizes.of(&message));
                if holder.held == 0 && holder.pending == 0 && holder.places.len() == 0 {
                    self.holders.remove(&device);
                }
            }
        }
    }

    fn not_written(&mut self, now: Now, writing: Writing, failure: &OutboxFailure) {
        self.failing = true;
        // A full disk is tried at once with the oldest gone, and only once in a while if that did not help: what others
        // filled it with must not cost all that is here.
        let tried = self.made_room_at_ms.is_some_and(|at_ms| now.ms < at_ms + MESSAGE_ROOM_INTERVAL_MS);
        let something = !self.kept.is_empty() || !writing.dropped.is_empty();
        self.make_room = failure.full && !tried && something;
        self.retry_at_ms = if self.make_room { now.ms } else { now.ms + MESSAGE_RETRY_MS };
        self.places_due |= !writing.placed.is_empty();
        for (kept, _) in writing.dropped.into_iter().rev() {
            self.kept.push_front(kept);
        }
        for (_, bytes, mut batch) in writing.batches.into_iter().rev() {
            self.next_number -= 1;
            batch.record = record::Record::from_bytes(bytes.to_vec());
            self.closed.push_front(batch);
        }
        self.brokers.not_saved(now, writing.positions);
        self.displaced.extend(writing.placed);
        self.forgotten.extend(writing.forgotten);
    }
}
