//! Brokers: which messages of the outbox go to which, and how far each has taken them.
//!
//! A broker has a position in the outbox: all before it was acknowledged. What is after it is read from the disk, sent as far as a
//! window has room, and counts as sent once the broker acknowledged it. The position is on the disk; a message that was acknowledged
//! after it was written last comes again after a crash, with the same identity. A broker that is away costs nothing but disk: the
//! bounds of the outbox let go of the oldest, which is counted. Each broker has a window and pauses of its own. What comes in, where a
//! MessageBroker says that something does, goes to the device at once and is on no disk.

mod batch;
mod broker;
mod definition;
mod receiving;
mod step;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use wasmbed_api::BrokerGateway;
use wasmbed_protocol::ApplicationUid;

use super::{cursor, record};
use crate::{
    Now, ObjectKey,
    gateway::config::{BROKER_POSITION_MS, BROKERS_MAX},
    gateway_api::BrokerEntry,
};
use broker::Broker;
pub(super) use receiving::Received;

pub use receiving::{BrokerAddress, BrokerArrival, BrokerTaken, RECEIVED_BELOW};
pub use step::{BrokerStep, ConnectionId, Verdict};

pub use definition::{
    BatchFormat, BrokerCursor, BrokerEndpoint, BrokerFailure, BrokerLink, BrokerMessage, BrokerPage, Speaks,
};

/// Something to be done for a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerStart {
    /// For all that is said about it.
    pub connection: ConnectionId,
    /// None if its messages are to be counted alone.
    pub link: Option<BrokerLink>,
}

/// What is to be said of a broker in its status.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerStatusWrite {
    /// Which MessageBroker.
    pub broker: ObjectKey,
    /// `metadata.uid`.
    pub uid: String,
    /// This gateway's entry, without its time.
    pub entry: BrokerGateway,
}

/// What is measured of a broker, whatever a controller calls its type.
fn type_of(entry: &BrokerEntry) -> &'static str {
    match entry.kind.as_str() {
        "Mqtt" => "Mqtt",
        "Webhook" => "Webhook",
        _ => "Unknown",
    }
}

/// Numbers of all brokers of a type together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerLevels {
    /// Brokers that are defined.
    pub brokers: usize,
    /// Those that have accepted a connection.
    pub connected: usize,
    /// Those with an error.
    pub failing: usize,
    /// Messages that wait, as far as they are counted.
    pub waiting_messages: u64,
    /// Bytes of their payloads.
    pub waiting_bytes: u64,
    /// Messages that brokers acknowledged since the start.
    pub sent: u64,
    /// Messages that they refused since then.
    pub refused: u64,
    /// Messages that the disk let go of before.
    pub dropped: u64,
    /// Connections that ended with a failure.
    pub failures: u64,
}

#[derive(Debug, Default)]
pub(super) struct Brokers {
    /// By `metadata.uid`.
    brokers: BTreeMap<Box<str>, Broker>,
    connections: BTreeMap<ConnectionId, Box<str>>,
    next_connection: u64,
    /// Positions of the disk whose brokers are not known yet.
    restored: BTreeMap<Box<str>, u64>,
    /// Positions that are to go from the disk.
    released: BTreeSet<Box<str>>,
    /// When positions are to be written at the latest.
    save_at_ms: Option<u64>,
    /// Rises whenever connections are to look again.
    version: u64,
    random: u64,
    /// By type: failures, and what brokers that are gone took.
    before: BTreeMap<&'static str, BrokerLevels>,
    /// Messages that brokers handed over, by what became of them.
    received: BTreeMap<&'static str, u64>,
}

/// Positions for the disk.
#[derive(Debug, Default)]
pub(super) struct Positions {
    saved: Vec<(Box<str>, u64)>,
    released: BTreeSet<Box<str>>,
}

impl Positions {
    pub(super) fn saved(&self) -> Vec<(String, u64)> {
        self.saved.iter().map(|(uid, position)| (uid.to_string(), *position)).collect()
    }

    pub(super) fn released(&self) -> Vec<String> {
        self.released.iter().map(ToString::to_string).collect()
    }
}

impl Brokers {
    pub(super) fn restore(&mut self, positions: BTreeMap<Box<str>, u64>) {
        self.restored = positions;
    }

    /// The brokers there are; others are forgotten, and with them how far they were. `start_of` gives the message before which nothing
    /// is for a broker that was not known, `last` is the last message on the disk.
    pub(super) fn define(
        &mut self,
        now: Now,
        entries: &[BrokerEntry],
        last: u64,
        start_of: impl Fn(&BrokerEntry) -> u64,
    ) {
        let mut named: BTreeSet<&str> = BTreeSet::new();
        for entry in entries.iter().take(BROKERS_MAX) {
            named.insert(&entry.uid);
            if let Some(broker) = self.brokers.get_mut(&*entry.uid) {
                self.version += u64::from(broker.define(now, entry, last));
                continue;
            }
            let saved = self.restored.remove(&*entry.uid);
            // A disk that was set aside begins anew, with lower numbers.
            let position = saved.filter(|position| *position <= last).unwrap_or_else(|| start_of(entry));
            let broker = Broker::new(now, entry.clone(), position, saved, last);
            self.released.remove(&*entry.uid);
            self.brokers.insert(entry.uid.as_str().into(), broker);
        }
        let gone: Vec<_> = self.brokers.keys().filter(|uid| !named.contains(&***uid)).cloned().collect();
        for uid in gone {
            self.version += 1;
            if let Some(broker) = self.brokers.remove(&uid) {
                let before = self.before.entry(type_of(broker.entry())).or_default();
                before.sent += broker.sent;
                before.refused += broker.refused;
                before.dropped += broker.dropped;
            }
            self.released.insert(uid);
        }
        self.released.extend(std::mem::take(&mut self.restored).into_keys());
        self.note_unsaved(now);
    }

    fn note_unsaved(&mut self, now: Now) {
        let unsaved =
            !self.released.is_empty() || self.brokers.values().any(|broker| broker.unsaved().is_some());
        if unsaved {
            self.save_at_ms.get_or_insert(now.ms + BROKER_POSITION_MS);
        }
    }

    /// All is to be on the disk and in statuses now.
    pub(super) fn flush(&mut self) {
        self.brokers.values_mut().for_each(Broker::hasten_status);
        self.save_at_ms = self.save_at_ms.map(|_| 0);
    }

    pub(super) fn is_saved(&self) -> bool {
        self.save_at_ms.is_none()
    }

    /// When positions alone are a reason to write.
    pub(super) fn save_at_ms(&self) -> Option<u64> {
        self.save_at_ms
    }

    /// What goes with a write.
    pub(super) fn take_positions(&mut self) -> Positions {
        self.save_at_ms = None;
        let unsaved = self.brokers.iter().filter_map(|(uid, broker)| Some((uid.clone(), broker.unsaved()?)));
        Positions { saved: unsaved.collect(), released: std::mem::take(&mut self.released) }
    }

    pub(super) fn saved(&mut self, now: Now, positions: Positions) {
        for (uid, position) in positions.saved {
            if let Some(broker) = self.brokers.get_mut(&uid) {
                broker.saved(position);
            }
        }
        self.note_unsaved(now);
    }

    pub(super) fn not_saved(&mut self, now: Now, positions: Positions) {
        let gone = positions.released.into_iter().filter(|uid| !self.brokers.contains_key(uid));
        self.released.extend(gone);
        self.note_unsaved(now);
    }

    /// A record is on the disk.
    pub(super) fn written(&mut self, number: u64, bytes: &[u8]) {
        if self.brokers.is_empty() {
            return;
        }
        for (number, message) in cursor::numbered(number, bytes) {
            self.brokers.values_mut().for_each(|broker| broker.written(number, &message));
        }
    }

    /// The disk let go of a message.
    pub(super) fn let_go(&mut self, number: u64, message: &record::Stored<'_>) {
        for broker in self.brokers.values_mut() {
            broker.let_go(number, message);
        }
    }

    /// The next broker to which a connection is to be made.
    pub(super) fn poll(&mut self, now: Now) -> Option<BrokerStart> {
        let (uid, broker) = self.brokers.iter_mut().find(|(_, broker)| broker.is_due(now.ms))?;
        self.next_connection += 1;
        let connection = ConnectionId::new(self.next_connection);
        broker.begin(connection);
        self.connections.insert(connection, uid.clone());
        let link = broker.endpoint().map(|endpoint| BrokerLink {
            broker: broker.entry().broker.clone(),
            uid: uid.to_string(),
            endpoint: endpoint.clone(),
        });
        Some(BrokerStart { connection, link })
    }

    pub(super) fn timeout_ms(&self) -> Option<u64> {
        self.brokers.values().filter_map(Broker::due_ms).min()
    }

    fn of(&mut self, connection: ConnectionId) -> Option<&mut Broker> {
        let broker = self.brokers.get_mut(self.connections.get(&connection)?)?;
        (broker.connection() == Some(connection)).then_some(broker)
    }

    pub(super) fn step(&mut self, now: Now, connection: ConnectionId, last: u64) -> BrokerStep {
        let Some(broker) = self.of(connection) else { return BrokerStep::End(None) };
        let step = broker.step(now, last);
        match step {
            BrokerStep::Connect => broker.connecting(),
            BrokerStep::Subscribe(_) => broker.receiving.asked(now),
            BrokerStep::Read(_) | BrokerStep::Wait { .. } | BrokerStep::End(_) => {}
        }
        step
    }

    pub(super) fn subscribed(
        &mut self,
        now: Now,
        connection: ConnectionId,
        answer: Result<(), BrokerFailure>,
    ) {
        if let Some(broker) = self.of(connection) {
            broker.receiving.answered(now, answer);
        }
    }

    /// A broker handed over a message: whom it is for, if the broker's definition lets it in, and for how long nothing is read after it.
    pub(super) fn arrived(
        &mut self,
        now: Now,
        connection: ConnectionId,
        arrival: &BrokerArrival<'_>,
    ) -> (Option<BrokerAddress>, u64) {
        let Some(broker) = self.of(connection) else { return (None, 0) };
        let read_in_ms = broker.receiving.charge(now, arrival);
        match broker.address(arrival) {
            Ok(address) => (Some(address), read_in_ms),
            Err(why) => {
                self.received(now, connection, arrival.topic, why);
                (None, read_in_ms)
            }
        }
    }

    /// Whether messages of a broker may reach an application.
    pub(super) fn selects(&mut self, connection: ConnectionId, application: &ApplicationUid) -> bool {
        self.of(connection).is_some_and(|broker| broker.selects(application))
    }

    pub(super) fn received(&mut self, now: Now, connection: ConnectionId, topic: &[u8], received: Received) {
        if let Some(broker) = self.of(connection) {
            broker.receiving.count(now, topic, received);
            *self.received.entry(received.name()).or_default() += 1;
        }
    }

    /// Messages that brokers handed over, by what became of them.
    pub(super) fn received_levels(&self) -> BTreeMap<&'static str, u64> {
        self.received.clone()
    }

    pub(super) fn connected(&mut self, now: Now, connection: ConnectionId) {
        if let Some(broker) = self.of(connection) {
            broker.connected(now);
        }
    }

    pub(super) fn take_page(
        &mut self,
        now: Now,
        connection: ConnectionId,
        page: BrokerPage,
    ) -> Vec<BrokerMessage> {
        let messages = self.of(connection).map(|broker| broker.take_page(now, page)).unwrap_or_default();
        self.note_unsaved(now);
        messages
    }

    pub(super) fn answered(&mut self, now: Now, connection: ConnectionId, number: u64, verdict: Verdict) {
        if let Some(broker) = self.of(connection) {
            broker.answered(now, number, verdict);
        }
        self.note_unsaved(now);
    }

    pub(super) fn complained(&mut self, now: Now, connection: ConnectionId, failure: BrokerFailure) {
        if let Some(broker) = self.of(connection) {
            broker.complained(now, failure);
        }
    }

    pub(super) fn ended(&mut self, now: Now, connection: ConnectionId, failure: Option<BrokerFailure>) {
        let random = self.next_random(now);
        let failed = u64::from(failure.is_some());
        if let Some(broker) = self.of(connection) {
            broker.ended(now, failure, random);
            let of_type = type_of(broker.entry());
            self.before.entry(of_type).or_default().failures += failed;
        }
        self.connections.remove(&connection);
    }

    /// Pauses differ from gateway to gateway, as their clocks do. splitmix64 (G. Steele et al., OOPSLA 2014).
    fn next_random(&mut self, now: Now) -> u64 {
        self.random = (self.random ^ now.unix_ms).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next status that is to be written.
    pub(super) fn poll_status(&mut self, now: Now, gateway: &str) -> Option<BrokerStatusWrite> {
        self.brokers.iter_mut().find_map(|(uid, broker)| {
            let entry = broker.status(now, gateway)?;
            broker.begin_status();
            Some(BrokerStatusWrite { broker: broker.entry().broker.clone(), uid: uid.to_string(), entry })
        })
    }

    pub(super) fn status_written(&mut self, now: Now, write: BrokerStatusWrite, written: bool) {
        if let Some(broker) = self.brokers.get_mut(&*write.uid) {
            broker.status_written(now, write.entry, written);
        }
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// By type, as MessageBrokers name it.
    pub(super) fn levels(&self) -> BTreeMap<&'static str, BrokerLevels> {
        let mut all = self.before.clone();
        for broker in self.brokers.values() {
            let levels = all.entry(type_of(broker.entry())).or_default();
            levels.brokers += 1;
            levels.connected += usize::from(broker.is_connected());
            levels.failing += usize::from(broker.failing());
            let waiting = broker.waiting().unwrap_or_default();
            levels.waiting_messages += waiting.messages;
            levels.waiting_bytes += waiting.bytes;
            levels.sent += broker.sent;
            levels.refused += broker.refused;
            levels.dropped += broker.dropped;
        }
        all
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        self.brokers.values().try_for_each(Broker::check)
    }
}
