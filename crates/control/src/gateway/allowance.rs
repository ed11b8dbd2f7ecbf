//! What one device may cost, whatever it sends and however often it reconnects.
//!
//! It is kept with the device's entry rather than with its sessions, so that a new connection brings nothing new, and it goes
//! with the record. Clients that are no admitted device have allowances of their own: those of a session, and those that
//! all of them share.

use wasmbed_protocol::rate::{Rate, TokenBucket};

use super::{
    config::{CHANGES, FRAMES, LOG_RATE, NOTICES, NOTICES_RESUME},
    events::{About, Ledger, Noted, QueuedEvent},
    input::SessionId,
};
use crate::{Now, kubernetes::Event};

/// What a device has used of what it may cost.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    /// Connections that are open, the oldest first.
    connections: Vec<SessionId>,
    frames: TokenBucket,
    /// The log already says that the device is read slowly.
    slowed: bool,
    voice: Voice,
    changes: TokenBucket,
    /// When gathered changes are published to controllers.
    publish_at_ms: Option<u64>,
    /// Boxed: few devices have Events.
    events: Option<Box<Ledger>>,
    logs: TokenBucket,
}

/// What a frame costs.
pub(super) fn frame_cost(bytes: usize) -> u64 {
    1 + bytes as u64 / 256
}

impl Allowance {
    /// A connection that counts as the device's is open.
    pub(super) fn open(&mut self, id: SessionId) {
        debug_assert!(!self.connections.contains(&id), "{id:?} is counted twice");
        self.connections.push(id);
    }

    /// Such a connection is gone.
    pub(super) fn close(&mut self, id: SessionId) {
        self.connections.retain(|open| *open != id);
    }

    /// Connections that are open, the oldest first.
    pub(super) fn connections(&self) -> &[SessionId] {
        &self.connections
    }

    /// Counts a line of the process's log about the device.
    pub(super) fn speak(&mut self, now_ms: u64) -> Speech {
        self.voice.speak(now_ms, NOTICES)
    }

    /// Counts an Event about the device; `number` is one that no Event of this process has.
    pub(super) fn note_event(&mut self, now_ms: u64, event: Box<Event>, about: About, number: u64) -> Noted {
        self.events.get_or_insert_default().note(now_ms, event, about, number)
    }

    /// The turn of a queued Event has come: it is written as it is now.
    pub(super) fn refresh_event(&mut self, queued: &mut QueuedEvent) {
        if let Some(events) = &mut self.events {
            events.refresh(queued);
        }
    }

    /// A repeated Event that was counted only and may be written now.
    pub(super) fn overdue_event(&mut self, now_ms: u64) -> Option<QueuedEvent> {
        self.events.as_mut()?.overdue(now_ms)
    }

    /// Counts a frame; true if the device begins to be read no faster than its share.
    pub(super) fn heard_frame(&mut self, now: Now, bytes: usize) -> bool {
        self.frames.refill(now.ms, FRAMES);
        self.frames.spend(frame_cost(bytes));
        let over = !self.frames.has(FRAMES, 1);
        // Told anew only after the device has been quiet for some time.
        self.slowed &= over || !self.frames.has(FRAMES, NOTICES_RESUME);
        over && !std::mem::replace(&mut self.slowed, true)
    }

    /// A frame that was counted has a share of its own.
    pub(super) fn excuse_frame(&mut self, bytes: usize) {
        self.frames.restore(frame_cost(bytes));
    }

    /// When the device is to be read again, milliseconds of the monotonic clock.
    pub(super) fn read_at_ms(&self) -> u64 {
        self.frames.available_at_ms(FRAMES, 1)
    }

    /// Whether a log line fits.
    pub(super) fn allow_log(&mut self, now: Now, bytes: usize) -> bool {
        // A line costs at least its head, so that empty ones are bounded too.
        self.logs.take(now.ms, LOG_RATE, bytes.max(64) as u64)
    }

    /// Whether a change is published now; otherwise when it is published with those that follow. Neither if
    /// a time is set already.
    pub(super) fn publish(&mut self, now: Now) -> Publish {
        if self.publish_at_ms.is_some() {
            return Publish::Waits;
        }
        if self.changes.take(now.ms, CHANGES, 1) {
            return Publish::Now;
        }
        let at = self.changes.available_at_ms(CHANGES, 1);
        self.publish_at_ms = Some(at);
        Publish::At(at)
    }

    /// The time of [`Publish::At`] has come; false if it is another's of an entry that is gone.
    pub(super) fn publish_due(&mut self, now: Now, due_ms: u64) -> bool {
        let due = self.publish_at_ms.take_if(|at_ms| *at_ms == due_ms).is_some();
        if due {
            self.changes.refill(now.ms, CHANGES);
            self.changes.spend(1);
        }
        due
    }
}

/// When a change is published to controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publish {
    Now,
    At(u64),
    Waits,
}

/// Lines of the process's log that one source may cause.
#[derive(Debug, Default)]
pub(super) struct Voice {
    bucket: TokenBucket,
    left_out: u32,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    Logged,
    /// It is logged, and before it how many were not.
    Resumed(u32),
    /// It is the first that is not logged.
    Stopped,
    LeftOut,
}

impl Voice {
    pub(super) fn speak(&mut self, now_ms: u64, rate: Rate) -> Speech {
        self.bucket.refill(now_ms, rate);
        let enough = if self.left_out > 0 { NOTICES_RESUME } else { 1 };
        if self.bucket.has(rate, enough) {
            self.bucket.spend(1);
            return match std::mem::take(&mut self.left_out) {
                0 => Speech::Logged,
                left_out => Speech::Resumed(left_out),
            };
        }
        self.left_out = self.left_out.saturating_add(1);
        if self.left_out == 1 { Speech::Stopped } else { Speech::LeftOut }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::config::{LOG_BYTES_BURST, LOG_BYTES_PER_SECOND, NOTICES};

    fn at(ms: u64) -> Now {
        Now { ms, unix_ms: 0 }
    }

    #[test]
    fn a_log_flood_is_cut_to_the_rate() {
        let mut allowance = Allowance::default();
        let mut taken = 0;
        for _ in 0..1_000 {
            taken += u32::from(allowance.allow_log(at(0), 1_024));
        }
        assert_eq!(taken, LOG_BYTES_BURST / 1_024);
        let lines = (1..).take_while(|_| allowance.allow_log(at(1_000), 1_024)).count();
        assert_eq!(lines, LOG_BYTES_PER_SECOND as usize / 1_024);
    }

    #[test]
    fn a_flood_of_frames_is_read_no_faster_than_its_share() {
        let mut allowance = Allowance::default();
        let (mut now, mut frames, mut told) = (0, 0_u64, 0);
        while now < 60_000 {
            // One read brings many small frames.
            for _ in 0..1_000 {
                frames += 1;
                told += u32::from(allowance.heard_frame(at(now), 20));
            }
            now = now.max(allowance.read_at_ms());
        }
        assert!(frames <= 1_024 + 60 * 64 + 2 * 1_000, "{frames} frames in a minute");
        assert_eq!(told, 1);
    }

    #[test]
    fn a_flood_of_lines_is_a_few_lines_and_their_number() {
        let (mut voice, mut logged, mut left_out, mut spells) = (Voice::default(), 0, 0, 0);
        for now in 0..60_000 {
            for _ in 0..47 {
                match voice.speak(now, NOTICES) {
                    Speech::Logged => logged += 1,
                    Speech::Resumed(lines) => {
                        logged += 1;
                        left_out += lines;
                    }
                    Speech::Stopped => spells += 1,
                    Speech::LeftOut => {}
                }
            }
        }
        assert!(logged <= 64 + 60 && spells <= 1 + 60 / 32, "{logged} lines, {spells} spells");
        assert!(left_out > 47_000 * 30);
    }
}
