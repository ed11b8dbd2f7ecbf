//! A gateway's decisions: who is let in, what each device is given, what Kubernetes is told.
//!
//! [`Gateway`] holds no socket, file or client. A shell feeds it (`handle_*`) and carries out what it asks for (`poll_*`):
//!
//! ```text
//! connections ── handle_accepted, handle_frame, handle_closed ──┐     ┌── poll_wake, poll_transmit ── connections
//! Device watch ─ handle_device…, handle_write_result ───────────┤     ├── poll_write ── Kubernetes API
//! controllers ── handle_put_sets, plan_upload ──────────────────┤     ├── poll_answer, stream_page, log_page ── controllers
//! disk ───────── handle_stored, handle_module_loaded ───────────┤     ├── poll_store ── disk
//! clock ──────── handle_timeout ────────────────────────────────┘     └── poll_timeout, poll_notice
//! ```
//!
//! Rules that the simulation holds against it: a status never claims what no device reported; the newest epoch wins; a
//! gateway without a set says so and empties no device; a set is answered only once it is on disk; every queue has its
//! bound in [`config`].

mod admission;
mod allowance;
pub mod config;
mod counters;
mod device;
mod events;
mod identity;
mod input;
mod logs;
mod objects;
mod session;
mod sessions;
mod sets;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod transmit;
mod uploads;
mod writer;
mod writes;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use wasmbed_api::DeviceFacts;

use crate::{Now, intern::Pool};

pub use config::{Config, Enrollment};
pub use input::*;
pub use logs::{LogCursor, LogPage};
pub use sets::PreparedSets;
pub use stream::Cursor;
pub use writer::Class;

use crate::{
    ObjectKey,
    election::{Hold, TERM_MAX},
    exchange::StreamEvent,
};
use allowance::{Publish, Speech, Voice};
use device::Record;
use logs::Logs;
use session::Session;
use sets::{Bodies, Modules};
use stream::Stream;
use writer::Writer;

/// How often unreferenced modules and unseen devices are looked for.
const SWEEP_MS: u64 = 30_000;

/// A gateway's decisions.
#[derive(Debug)]
pub struct Gateway {
    config: Config,
    /// Boxed, as nodes of a tree are half empty.
    devices: BTreeMap<Arc<ObjectKey>, Box<Record>>,
    /// Boxed likewise.
    sessions: BTreeMap<SessionId, Box<Session>>,
    /// When sessions are looked at next.
    timers: BTreeSet<(u64, SessionId)>,
    /// Sessions with something to send.
    wakes: BTreeSet<SessionId>,
    writer: Writer,
    facts: Pool<DeviceFacts>,
    bodies: Bodies,
    modules: Modules,
    stream: Stream,
    logs: Logs,
    store: VecDeque<StoreOperation>,
    /// Operations whose end is awaited, with what happens then.
    storing: BTreeMap<StoreId, uploads::Storing>,
    next_store: u64,
    /// Devices of which the disk does not hold what is known, since their last write failed.
    unstored: BTreeSet<Arc<ObjectKey>>,
    answers: VecDeque<Answer>,
    /// Each with whether a stranger caused it.
    notices: VecDeque<(Notice, bool)>,
    /// The second of two that one notice became.
    told: Option<Told>,
    /// Of all clients together that are no admitted devices.
    strangers_voice: Voice,
    /// Connections of each such client.
    strangers: BTreeMap<Arc<ObjectKey>, Vec<SessionId>>,
    /// Sum of them.
    strangers_open: usize,
    /// Devices whose changes are gathered, by when controllers are told.
    publishing: BTreeSet<(u64, Arc<ObjectKey>)>,
    /// Of the next Event.
    next_event: u64,
    /// The latest time that an input brought.
    clock_ms: u64,
    leader_term: u64,
    /// The highest term that is known to be on the disk: only that one may be confirmed without another write.
    stored_term: u64,
    /// `leaseTransitions` of the leader's Lease as it was last read; 0 before.
    term_known: u64,
    /// Why it could not be read the last time.
    term_unread: Option<String>,
    /// Why this process may not speak for its gateway, if so.
    kept_from: Option<String>,
    /// Whether a whole list of Devices has been seen.
    synced: bool,
    /// Number of the list of Devices that is being read or was read last.
    listing: u64,
    /// When devices of an earlier life count as not having come back.
    orphans_from_ms: Option<u64>,
    shutting_down: bool,
    sweep_at_ms: u64,
    /// Sessions that were let in and have not ended.
    admitted: usize,
    /// Devices that are to be created.
    creating: usize,
    counters: Counters,
}

/// Numbers since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sessions that were welcomed.
    pub sessions_begun: u64,
    /// Events that gave way to newer ones or were over their device's rate.
    pub events_dropped: u64,
    /// Notices that gave way to newer ones.
    pub notices_dropped: u64,
    /// Notices that were left out of the log because their device caused too many.
    pub notices_left_out: u64,
    /// Times that a device began to be read no faster than its share.
    pub devices_slowed: u64,
    /// Log lines that were over the rate.
    pub log_lines_dropped: u64,
    /// Heartbeats heard.
    pub heartbeats: u64,
}

/// How much there is of everything now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// Connections whose device is authenticated.
    pub connections: usize,
    /// Sessions that were welcomed and stand.
    pub sessions: usize,
    /// Devices known.
    pub devices: usize,
    /// Modules on disk.
    pub modules: usize,
    /// Bytes of modules on disk, and of uploads under way.
    pub module_bytes: u64,
    /// Writes to the Kubernetes API that wait or are under way.
    pub writes: usize,
    /// Age of the oldest write that should have been made, milliseconds.
    pub write_lag_ms: u64,
    /// Storage operations that wait or are under way.
    pub store_operations: usize,
}

impl Gateway {
    /// A gateway that remembers what its disk holds.
    #[must_use]
    pub fn new(now: Now, config: Config, restored: Restored) -> Self {
        let mut gateway = Self {
            writer: Writer::new(&config),
            modules: Modules::new(config.modules_bytes_max, &restored.modules),
            stream: Stream::new(&config.boot_id),
            config,
            devices: BTreeMap::new(),
            sessions: BTreeMap::new(),
            timers: BTreeSet::new(),
            wakes: BTreeSet::new(),
            facts: Pool::new(config::FACTS_KINDS_MAX),
            bodies: Bodies::default(),
            logs: Logs::default(),
            store: VecDeque::new(),
            storing: BTreeMap::new(),
            next_store: 0,
            unstored: BTreeSet::new(),
            answers: VecDeque::new(),
            notices: VecDeque::new(),
            told: None,
            strangers_voice: Voice::default(),
            strangers: BTreeMap::new(),
            strangers_open: 0,
            publishing: BTreeSet::new(),
            next_event: 0,
            clock_ms: now.ms,
            leader_term: restored.leader_term,
            stored_term: restored.leader_term,
            term_known: 0,
            term_unread: None,
            kept_from: None,
            synced: false,
            listing: 0,
            orphans_from_ms: None,
            shutting_down: false,
            sweep_at_ms: now.ms + SWEEP_MS,
            admitted: 0,
            creating: 0,
            counters: Counters::default(),
        };
        for stored in restored.devices {
            gateway.restore(now, stored);
        }
        if gateway.leader_term >= TERM_MAX {
            gateway.notice(Notice::StoreFailed {
                detail: format!(
                    "the leader term on disk, {}, is none that a leader can rise above: it is forgotten",
                    gateway.leader_term
                ),
            });
            gateway.leader_term = 0;
        }
        gateway
    }

    fn restore(&mut self, now: Now, stored: StoredDevice) {
        let key = Arc::new(stored.device);
        let mut record = Box::new(Record::new(now, Arc::clone(&key)));
        record.admitted_key = stored.admitted_key.map(Arc::from);
        record.stored_uid = stored.uid.map(Arc::from);
        if let Some(set) = stored.set {
            match self.bodies.parse_set(&set) {
                Ok(set) => {
                    record.revision_seen = set.revision;
                    record.set = Some(Arc::new(set));
                }
                // It was checked before it was written: the disk is spoilt. Unknown is not empty.
                Err(error) => self.notice(Notice::StoreFailed {
                    detail: format!(
                        "the set of {}/{} on disk is not usable: {error}",
                        key.namespace, key.name
                    ),
                }),
            }
        }
        self.stream.changed(&key);
        self.devices.insert(key, record);
    }

    /// The time may have come for something; may be called at any time.
    pub fn handle_timeout(&mut self, now: Now) {
        self.clock_ms = self.clock_ms.max(now.ms);
        while let Some((due_ms, key)) = self.publishing.pop_first() {
            if due_ms > now.ms {
                self.publishing.insert((due_ms, key));
                break;
            }
            if let Some(record) = self.devices.get_mut(&key)
                && record.allowance.publish_at_ms == Some(due_ms)
            {
                record.allowance.published(now);
                self.stream.changed(&key);
            }
        }
        while let Some(&(due_ms, session)) = self.timers.first() {
            if due_ms > now.ms {
                break;
            }
            self.timers.pop_first();
            self.session_timeout(now, session, due_ms);
        }
        while let Some(key) = self.writer.pop_due(now.ms) {
            if let Some(record) = self.devices.get_mut(&key) {
                self.writer.due(&key, &mut record.write);
            }
        }
        if now.ms >= self.sweep_at_ms {
            self.sweep_at_ms = now.ms + SWEEP_MS;
            self.sweep(now);
        }
    }

    /// When to call [`Gateway::handle_timeout`], milliseconds of the monotonic clock; [`Gateway::poll_write`] may give
    /// something then too.
    #[must_use]
    pub fn poll_timeout(&self) -> u64 {
        let timer = self.timers.first().map(|(due_ms, _)| *due_ms);
        let publishing = self.publishing.first().map(|(due_ms, _)| *due_ms);
        let writer = self.writer.timeout().filter(|_| self.kept_from.is_none());
        [timer, publishing, writer].into_iter().flatten().min().unwrap_or(u64::MAX).min(self.sweep_at_ms)
    }

    /// A session that may have something to send or is to be closed.
    pub fn poll_wake(&mut self) -> Option<SessionId> {
        self.wakes.pop_first()
    }

    /// Work for the disk.
    pub fn poll_store(&mut self) -> Option<StoreOperation> {
        self.store.pop_front()
    }

    /// Whether [`Gateway::poll_store`] has something.
    #[must_use]
    pub fn has_store_work(&self) -> bool {
        !self.store.is_empty()
    }

    /// An answer to a controller.
    pub fn poll_answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    /// Something for the process's log.
    pub fn poll_notice(&mut self) -> Option<Told> {
        if let Some(told) = self.told.take() {
            return Some(told);
        }
        let (notice, stranger) = self.notices.pop_front()?;
        let Some(cause) = notice.cause() else { return Some(Told { notice, logged: true }) };
        let device = (!stranger && self.devices.contains_key(cause)).then(|| Arc::clone(cause));
        let speech = match device.as_ref().and_then(|device| self.devices.get_mut(device)) {
            Some(record) => record.allowance.voice.speak(self.clock_ms, config::NOTICES),
            None => self.strangers_voice.speak(self.clock_ms, config::STRANGERS_NOTICES),
        };
        let (logged, left_out) = match speech {
            Speech::Logged => (true, None),
            Speech::Resumed(count) => (true, Some(Some(count))),
            Speech::Stopped => (false, Some(None)),
            Speech::LeftOut => (false, None),
        };
        self.counters.notices_left_out += u64::from(!logged);
        let told = Told { notice, logged };
        Some(match left_out {
            None => told,
            Some(count) => {
                self.told = Some(told);
                Told { notice: Notice::LeftOut { device, what: LeftOut::Lines, count }, logged: true }
            }
        })
    }

    /// Whether this process may speak for its gateway. While it may not, no device is let in, no set taken and no status
    /// written: the holder of the gateway's Lease does all that.
    pub fn handle_hold(&mut self, now: Now, hold: &Hold) {
        let kept_from = hold.kept_from();
        let lost = kept_from.is_some() && self.kept_from.is_none();
        self.kept_from = kept_from;
        if lost {
            let sessions: Vec<_> = self.sessions.keys().copied().collect();
            for session in sessions {
                self.end(now, session, admission::NOT_HOLDER);
            }
        }
    }

    /// Ends all sessions with `ShuttingDown` and lets no one in any more.
    pub fn handle_shutdown(&mut self, now: Now) {
        self.shutting_down = true;
        let sessions: Vec<_> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.end(now, session, admission::SHUTTING_DOWN);
        }
        // Nothing waits for a device to return any more.
        let keys: Vec<_> = self.devices.keys().cloned().collect();
        for key in keys {
            self.schedule(now, &key);
        }
    }

    /// Whether all sessions are gone and what is known of them is written; for the end of a shutdown.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.sessions.is_empty()
            && (self.writer.pressing() == 0 || self.kept_from.is_some())
            && self.store.is_empty()
            && self.storing.is_empty()
    }

    /// Whether a whole list of Devices has been seen.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Whether the Kubernetes API failed the last time it was called.
    #[must_use]
    pub fn is_api_failing(&self) -> bool {
        self.writer.failing()
    }

    /// Numbers since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How much there is of everything.
    #[must_use]
    pub fn levels(&self, now: Now) -> Levels {
        let standing = |session: &&Session| session.state == session::State::Standing;
        Levels {
            connections: self.sessions.len(),
            sessions: self.sessions.values().map(AsRef::as_ref).filter(standing).count(),
            devices: self.devices.len(),
            modules: self.modules.len(),
            module_bytes: self.modules.bytes(),
            writes: self.writer.depth(),
            write_lag_ms: self.writer.lag_ms(now.ms),
            store_operations: self.store.len() + self.storing.len(),
        }
    }

    /// Where a reader of the stream begins: where its token says, or with a snapshot.
    #[must_use]
    pub fn stream_resume(&self, token: Option<&str>) -> Cursor {
        self.stream.resume(token)
    }

    /// The next events for a reader of the stream; none if it has them all.
    pub fn stream_page(&self, cursor: &mut Cursor) -> Vec<StreamEvent> {
        self.stream.page(
            cursor,
            |after| {
                match after {
                    None => self.devices.range::<ObjectKey, _>(..),
                    Some(after) => self.devices.range::<ObjectKey, _>((
                        std::ops::Bound::Excluded(after),
                        std::ops::Bound::Unbounded,
                    )),
                }
                .map(|(key, _)| key)
            },
            |key| self.devices.get(key).map(|record| record.view()),
        )
    }

    /// The line that keeps a quiet stream alive.
    #[must_use]
    pub fn stream_idle(&self, cursor: &Cursor) -> Option<StreamEvent> {
        self.stream.idle(cursor)
    }

    /// Rises with every change of the stream and every log line, so that readers know when to look.
    #[must_use]
    pub fn versions(&self) -> (u64, u64) {
        (self.stream.sequence(), self.logs.lines())
    }

    /// Random for each start of the gateway: numbers of log lines count from there.
    #[must_use]
    pub fn boot_id(&self) -> &str {
        &self.config.boot_id
    }

    /// The next lines of a log.
    pub fn log_page(&self, cursor: &mut LogCursor) -> LogPage {
        self.logs.page(cursor)
    }

    /// Tells controllers that a device changed, now or with what follows.
    fn publish(&mut self, now: Now, key: &Arc<ObjectKey>) {
        let Some(record) = self.devices.get_mut(key) else { return };
        match record.allowance.publish(now) {
            Publish::Now => self.stream.changed(key),
            Publish::At(at) => drop(self.publishing.insert((at, Arc::clone(key)))),
            Publish::Waits => {}
        }
    }

    fn notice(&mut self, notice: Notice) {
        self.notice_of(false, notice);
    }

    fn notice_of(&mut self, stranger: bool, notice: Notice) {
        if self.notices.len() >= config::NOTICES_MAX {
            self.notices.pop_front();
            self.counters.notices_dropped += 1;
        }
        self.notices.push_back((notice, stranger));
    }
}
