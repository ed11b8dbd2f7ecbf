//! A gateway's decisions: which devices are admitted, what each is sent, what is written to Kubernetes.
//!
//! [`Gateway`] holds no socket, file or client. A shell feeds it (`handle_*`) and carries out what it asks for (`poll_*`):
//!
//! ```text
//! connections ── handle_accepted, handle_frame, handle_closed ──┐     ┌── poll_wake, poll_transmit ── connections
//! joining ────── handle_joining, handle_presented ──────────────┤     ├── poll_certificate_call ── Kubernetes API
//! Device watch ─ handle_device…, handle_write_result ───────────┤     ├── poll_write ── Kubernetes API
//! controllers ── handle_put_sets, _put_orders, plan_upload ─────┤     ├── poll_answer, poll_orders_answer, stream_page, log_page ── controllers
//! disk ───────── handle_stored, handle_module_loaded ───────────┤     ├── poll_store ── disk
//! outbox ─────── handle_outbox_written ─────────────────────────┤     ├── poll_outbox ── outbox
//! clock ──────── handle_timeout ────────────────────────────────┘     └── poll_timeout, poll_notice
//! ```
//!
//! Rules that the simulation holds against it: a status never claims what no device reported; the newest epoch wins; a
//! gateway without a set says so and empties no device; a set is answered only once it is on disk; every queue has its
//! bound in [`config`].

mod admission;
mod allowance;
mod certification;
pub mod config;
mod connections;
mod counters;
mod decommissions;
mod deliveries;
mod device;
mod enrollment;
mod events;
mod fence;
mod identity;
mod input;
mod joining;
mod logs;
mod messages;
mod notices;
mod objects;
mod orders;
mod outbox;
mod pending;
mod reports;
mod sessions;
mod sets;
mod setting_answers;
mod setting_puts;
mod settings;
mod signing_request;
mod status;
mod storage;
mod stream;
#[cfg(test)]
mod tests;
mod transmit;
mod trouble;
mod uploads;
mod writer;
mod writes;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use wasmbed_api::DeviceFacts;

use crate::{Now, intern::Pool};

pub use certification::*;
pub use config::{Config, Enrollment, MessageLimits};
pub use deliveries::{DeliveryId, DeliveryRequest};
pub use input::*;
pub use logs::{LogCursor, LogPage};
pub use messages::{
    BatchFormat, BrokerAddress, BrokerArrival, BrokerCursor, BrokerEndpoint, BrokerFailure, BrokerLevels,
    BrokerLink, BrokerMessage, BrokerPage, BrokerStart, BrokerStatusWrite, BrokerStep, BrokerTaken,
    ConnectionId, MessageCounters, MessageCursor, MessageLevels, MessageRefusal, OutboxFailure, OutboxWrite,
    RECEIVED_BELOW, RestoredMessages, Speaks, Verdict, message_lines,
};
pub use orders::PreparedOrders;
pub use sets::PreparedSets;
pub use settings::PreparedSettings;
pub use stream::Cursor;
pub use writer::Priority;

use crate::{ObjectKey, election::Hold, gateway_api::StreamEvent};
use allowance::Publish;
use connections::Connections;
use deliveries::Deliveries;
use device::DeviceEntry;
use fence::Fence;
use joining::Joining;
use logs::Logs;
use messages::Messages;
use notices::Notices;
use sets::{Bodies, Modules};
use storage::Storage;
use stream::Stream;
use writer::Writer;

/// How often unreferenced modules and unseen devices are looked for.
const SWEEP_MS: u64 = 30_000;

/// A gateway's decisions.
///
/// # Contract
///
/// There are four kinds of methods: `handle_*` take an input, `poll_*` give an output, `plan_*` answer a question about one
/// input, and getters change nothing. [`Now`] is the first argument; its monotonic clock never goes back.
///
/// - **Connections.** [`Gateway::handle_accepted`] comes first and at most once for each [`SessionId`], of which none is used
///   twice; after it returned true, [`Gateway::handle_frame`] and [`Gateway::handle_broken_frame`] any number of times;
///   [`Gateway::handle_closed`] exactly once, also after [`Gateway::poll_transmit`] asked for the end.
/// - **Joining.** [`Gateway::handle_joining`] instead of [`Gateway::handle_accepted`] for a client without a certificate of the
///   fleet; then as above. Every [`CertificateCall`] is answered once with [`Gateway::handle_certificate_answer`]. A
///   [`Transmit`] that asks for the presented chain is answered with [`Gateway::handle_presented`].
/// - **Devices.** [`Gateway::handle_list_started`], [`Gateway::handle_device`] for each, [`Gateway::handle_list_done`]; then
///   changes, until the next list. Versions of one object may come twice and in any order.
/// - **Answers.** Every [`Write`] is answered once with [`Gateway::handle_write_result`], every [`StoreOperation`] with a
///   [`StoreId`] once with [`Gateway::handle_stored`], in the order in which they were polled; an [`OutboxWrite`] with
///   [`Gateway::handle_outbox_written`] before the next one is given.
/// - **Brokers.** [`Gateway::handle_put_brokers`] defines them. For each [`BrokerStart`] of [`Gateway::poll_broker`]:
///   [`Gateway::broker_step`] and what it says, [`Gateway::handle_broker_connected`] once, an answer for each message with
///   [`Gateway::handle_broker_answer`], and [`Gateway::handle_broker_ended`] exactly once at the end.
/// - **Outputs.** After each input, [`Gateway::poll_wake`], [`Gateway::poll_answer`] and [`Gateway::poll_notice`] until they
///   give nothing; [`Gateway::poll_transmit`] for each session woken, again whenever its connection can take more;
///   [`Gateway::poll_orders_answer`], [`Gateway::poll_settings_answer`], [`Gateway::poll_delivered`], [`Gateway::poll_store`],
///   [`Gateway::poll_outbox`], [`Gateway::poll_write`] and [`Gateway::poll_certificate_call`] until they give nothing.
/// - **Time.** [`Gateway::handle_timeout`] once [`Gateway::poll_timeout`] has passed, or at any time before; then outputs
///   as after an input.
///
/// An input is complete when it returns: everything that it changed is scheduled, and [`Gateway::check`] holds.
#[derive(Debug)]
pub struct Gateway {
    config: Config,
    /// Boxed, as nodes of a tree are half empty.
    devices: BTreeMap<Arc<ObjectKey>, Box<DeviceEntry>>,
    /// Devices whose status may not be what it should be: looked at once at the end of each input.
    changed: BTreeSet<Arc<ObjectKey>>,
    connections: Connections,
    joining: Joining,
    writer: Writer,
    facts: Pool<DeviceFacts>,
    bodies: Bodies,
    modules: Modules,
    stream: Stream,
    logs: Logs,
    /// None if this gateway takes none.
    messages: Option<Messages>,
    deliveries: Deliveries,
    storage: Storage,
    fence: Fence,
    answers: VecDeque<Answer>,
    orders_answers: VecDeque<OrdersAnswer>,
    settings_answers: VecDeque<SettingsPutAnswer>,
    notices: Notices,
    /// Devices whose changes are gathered, by when they are published.
    publishing: BTreeSet<(u64, Arc<ObjectKey>)>,
    /// Of the next Event.
    next_event: u64,
    /// The latest time that an input brought.
    clock_ms: u64,
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
    counters: Counters,
}

/// How far there is something for readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// Of the stream.
    pub stream: u64,
    /// Of log lines.
    pub logs: u64,
    /// Of messages.
    pub messages: u64,
    /// Of the definitions of brokers.
    pub brokers: u64,
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
    /// Versions of Devices that the watch brought after the answer to the write that made them.
    pub echoes_skipped: u64,
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
    /// Established sessions.
    pub sessions: usize,
    /// Connections of devices that join.
    pub joining: usize,
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
        let (fence, term_usable) = Fence::restore(restored.leader_term);
        let messages = config.messages.map(|limits| Messages::new(limits, restored.messages));
        let mut gateway = Self {
            writer: Writer::new(&config),
            modules: Modules::new(config.modules_bytes_max, &restored.modules),
            stream: Stream::new(&config.boot_id),
            config,
            devices: BTreeMap::new(),
            changed: BTreeSet::new(),
            connections: Connections::default(),
            joining: Joining::default(),
            facts: Pool::new(config::FACTS_KINDS_MAX),
            bodies: Bodies::default(),
            logs: Logs::default(),
            messages,
            deliveries: Deliveries::default(),
            storage: Storage::default(),
            fence,
            answers: VecDeque::new(),
            orders_answers: VecDeque::new(),
            settings_answers: VecDeque::new(),
            notices: Notices::default(),
            publishing: BTreeSet::new(),
            next_event: 0,
            clock_ms: now.ms,
            kept_from: None,
            synced: false,
            listing: 0,
            orphans_from_ms: None,
            shutting_down: false,
            sweep_at_ms: now.ms + SWEEP_MS,
            counters: Counters::default(),
        };
        for stored in restored.devices {
            gateway.restore(now, stored);
        }
        if !term_usable {
            let detail = format!(
                "the leader term on disk, {}, is one that no leader can rise above: it is forgotten",
                restored.leader_term
            );
            gateway.notice(Notice::StoreFailed { detail });
        }
        gateway
    }

    fn restore(&mut self, now: Now, stored: StoredDevice) {
        let key = Arc::new(stored.device);
        let set = match stored.set.map(|set| self.bodies.parse_set(&set)).transpose() {
            Ok(set) => set,
            // It was checked before it was written: the disk is spoilt. Unknown is not empty.
            Err(error) => {
                let detail = format!("the set of {key} on disk is not usable: {error}");
                self.notice(Notice::StoreFailed { detail });
                None
            }
        };
        let order = match stored.order.map(|order| orders::read_order(&order)).transpose() {
            Ok(order) => order,
            // The controller sends it again.
            Err(error) => {
                let detail = format!("the order for {key} on disk is not usable: {error}");
                self.notice(Notice::StoreFailed { detail });
                None
            }
        };
        let settings = match stored.settings.as_ref().map(settings::read_settings).transpose() {
            Ok(settings) => settings,
            // As the set.
            Err(error) => {
                let detail = format!("the settings of {key} on disk are not usable: {error}");
                self.notice(Notice::StoreFailed { detail });
                None
            }
        };
        let mut record =
            DeviceEntry::restored(now, Arc::clone(&key), stored.admitted_key, stored.uid, set, order);
        record.restore_settings(settings);
        self.stream.changed(&key);
        self.devices.insert(key, Box::new(record));
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
                && record.allowance_mut().publish_due(now, due_ms)
            {
                self.stream.changed(&key);
            }
        }
        while let Some(session) = self.connections.pop_due(now.ms) {
            self.session_timeout(now, session);
        }
        self.deliveries.handle_timeout(now);
        self.join_timeouts(now);
        while let Some(key) = self.writer.pop_due(now.ms) {
            if let Some(record) = self.devices.get_mut(&key) {
                self.writer.promote(&key, record.writes_mut());
            }
        }
        if now.ms >= self.sweep_at_ms {
            self.sweep_at_ms = now.ms + SWEEP_MS;
            self.sweep(now);
        }
        self.settle(now);
    }

    /// When to call [`Gateway::handle_timeout`], milliseconds of the monotonic clock; [`Gateway::poll_write`] may give
    /// something then too.
    #[must_use]
    pub fn poll_timeout(&self) -> u64 {
        let timer = self.connections.timeout_ms();
        let publishing = self.publishing.first().map(|(due_ms, _)| *due_ms);
        let speaks = self.kept_from.is_none();
        let writer = self.writer.timeout().filter(|_| speaks);
        let calls = self.joining.calls_timeout_ms().filter(|_| speaks);
        let calls = calls.map(|due_ms| due_ms.max(self.writer.paused_until_ms()));
        let messages = self.messages.as_ref().and_then(Messages::timeout_ms);
        let deliveries = self.deliveries.timeout_ms();
        let brokers = self.messages.as_ref().and_then(Messages::brokers_timeout_ms);
        let brokers = brokers.filter(|_| speaks && !self.shutting_down);
        [timer, publishing, writer, self.joining.timeout_ms(), calls, messages, deliveries, brokers]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(u64::MAX)
            .min(self.sweep_at_ms)
    }

    /// A session that may have something to send or is to be closed.
    pub fn poll_wake(&mut self) -> Option<SessionId> {
        self.connections.pop_wake().or_else(|| self.joining.pop_wake())
    }

    /// Work for the disk.
    pub fn poll_store(&mut self) -> Option<StoreOperation> {
        self.storage.poll()
    }

    /// Whether [`Gateway::poll_store`] has something.
    #[must_use]
    pub fn has_store_work(&self) -> bool {
        self.storage.has_work()
    }

    /// An answer to a controller.
    pub fn poll_answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    /// Something for the process's log.
    pub fn poll_notice(&mut self) -> Option<Reportable> {
        self.notices.poll(self.clock_ms, &mut self.devices)
    }

    /// Whether this process may speak for its gateway. While it may not, no device is let in, no set taken and no status
    /// written: the holder of the gateway's Lease does all that.
    pub fn handle_hold(&mut self, now: Now, hold: &Hold) {
        let kept_from = hold.kept_from();
        let lost = kept_from.is_some() && self.kept_from.is_none();
        self.kept_from = kept_from;
        if lost {
            for session in self.connections.ids() {
                self.end(now, session, admission::NOT_HOLDER);
            }
            self.end_joins(now, admission::NOT_HOLDER);
        }
        self.settle(now);
    }

    /// The gateway's own Lease was written, asked for at `asked_ms`: the API takes writes. A failure after which nothing is left to
    /// be written would otherwise be believed until something is.
    pub fn handle_renewed(&mut self, asked_ms: u64) {
        self.writer.handle_other_write(asked_ms);
    }

    /// Ends all sessions with `ShuttingDown` and lets no one in any more.
    pub fn handle_shutdown(&mut self, now: Now) {
        self.shutting_down = true;
        if let Some(messages) = &mut self.messages {
            messages.flush_brokers();
        }
        for session in self.connections.ids() {
            self.end(now, session, admission::SHUTTING_DOWN);
        }
        self.end_joins(now, admission::SHUTTING_DOWN);
        // Nothing waits for a device to return any more.
        self.changed.extend(self.devices.keys().cloned());
        self.settle(now);
    }

    /// Whether all sessions are gone and what is known of them is written; for the end of a shutdown.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.connections.is_empty()
            && self.joining.is_empty()
            && (self.writer.pressing() == 0 || self.kept_from.is_some())
            && self.storage.is_idle()
            && self.messages.as_ref().is_none_or(Messages::is_idle)
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
        Counters {
            notices_dropped: self.notices.dropped(),
            notices_left_out: self.notices.left_out(),
            ..self.counters
        }
    }

    /// How much there is of everything.
    #[must_use]
    pub fn levels(&self, now: Now) -> Levels {
        Levels {
            connections: self.connections.len(),
            sessions: self.connections.established(),
            joining: self.joining.len(),
            devices: self.devices.len(),
            modules: self.modules.len(),
            module_bytes: self.modules.bytes(),
            writes: self.writer.depth(),
            write_lag_ms: self.writer.lag_ms(now.ms),
            store_operations: self.storage.len(),
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

    /// Rises with every change of the stream, every log line and every write of messages, so that readers know when to look.
    #[must_use]
    pub fn versions(&self) -> Versions {
        Versions {
            stream: self.stream.sequence(),
            logs: self.logs.lines(),
            messages: self.messages.as_ref().map_or(0, Messages::version),
            brokers: self.messages.as_ref().map_or(0, Messages::brokers_version),
        }
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
        let record = present!(self.devices.get_mut(key), "what is published is known");
        match record.allowance_mut().publish(now) {
            Publish::Now => self.stream.changed(key),
            Publish::At(at) => drop(self.publishing.insert((at, Arc::clone(key)))),
            Publish::Waits => {}
        }
    }

    fn notice(&mut self, notice: Notice) {
        self.notice_of(false, notice);
    }

    fn notice_of(&mut self, stranger: bool, notice: Notice) {
        self.notices.push(notice, stranger);
    }

    /// Brings the queue of writes up to date with the devices that an input changed.
    fn settle(&mut self, now: Now) {
        while let Some(key) = self.changed.pop_first() {
            self.schedule_write(now, &key);
        }
    }

    /// The first broken invariant, if any; for tests, after an input.
    ///
    /// # Errors
    /// Says which.
    pub fn check(&self) -> Result<(), &'static str> {
        self.connections.check()?;
        if !self.changed.is_empty() {
            return Err("an input left a changed device behind");
        }
        for (key, record) in &self.devices {
            if key != record.key() {
                return Err("a record is not that of its key");
            }
            let held =
                |id: SessionId| self.connections.get(id).is_some_and(|session| session.device() == key);
            if ![record.session(), record.awaiting()].into_iter().flatten().all(held) {
                return Err("a record has a session that is not its device's");
            }
            if !record.allowance().connections().iter().copied().all(held) {
                return Err("a record counts a connection that is not its device's");
            }
            record.check()?;
        }
        self.joining.check()?;
        self.deliveries.check()?;
        self.stream.check(|key| self.devices.contains_key(key))?;
        self.logs.check()?;
        if let Some(messages) = &self.messages {
            messages.check()?;
        }
        self.writer.check(self.devices.iter().map(|(key, record)| (key, record.writes())))
    }
}
