//! What must hold of messages.
//!
//! - What a broker gets, a device sent under that identity, and nothing else ever had it.
//! - A gateway gives a broker the messages of an application in their order; what comes again has come before.
//! - Once faults have stopped, the broker has each message that a gateway acknowledged and whose disk is there, but for as many as that
//!   gateway counted as refused or let go of.

use std::collections::{BTreeMap, BTreeSet};

use wasmbed_control::gateway::{BrokerMessage, MessageCounters};
use wasmbed_protocol::{ApplicationUid, Publish, PublishAck};

use crate::traps::Broken;

/// The topic of those programs that publish.
pub(crate) const TOPIC: &str = "t";

/// A gateway's disk: with a new one it has forgotten everything.
pub(crate) type Keeper = (String, u32);

/// What tells a message from all others: the device by its number, the application, the start, the sequence.
type Id = (usize, ApplicationUid, u64, u64);

/// What became of messages.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    names: Vec<String>,
    /// What gateways have heard of.
    sent: BTreeMap<Id, Vec<u8>>,
    /// Who has acknowledged each first.
    acknowledged: BTreeMap<Id, Keeper>,
    arrived: BTreeSet<Id>,
    /// The last of each application and start that a disk's gateway gave to the broker.
    last: BTreeMap<(Keeper, usize, ApplicationUid, u64), u64>,
    /// What each has counted as refused or let go of, by its starts.
    counted: BTreeMap<(Keeper, u32), u64>,
    broken: Option<Broken>,
}

impl Messages {
    pub(crate) fn new(names: &[String]) -> Self {
        Self { names: names.to_vec(), ..Self::default() }
    }

    /// A gateway hears of a message.
    pub(crate) fn sent(&mut self, device: usize, message: &Publish<'_>) {
        let id = (device, message.uid, message.boot.0, message.sequence.0);
        let known = self.sent.entry(id).or_insert_with(|| message.payload.to_vec());
        if *known != message.payload {
            let what = format!("{id:?} is {:?} and was {known:?}", message.payload);
            self.broken.get_or_insert(("a message's identity is its own", what));
        }
    }

    /// A gateway tells a device that it has its messages up to this one.
    pub(crate) fn acknowledged(&mut self, keeper: &Keeper, device: usize, ack: &PublishAck) {
        let of_start = |sequence| (device, ack.uid, ack.boot.0, sequence);
        for (id, _) in self.sent.range(of_start(0)..=of_start(ack.sequence.0)) {
            self.acknowledged.entry(*id).or_insert_with(|| keeper.clone());
        }
    }

    /// The broker gets a message.
    pub(crate) fn arrived(&mut self, keeper: &Keeper, message: &BrokerMessage) {
        let Some(id) = self.id_of(message) else {
            let what = format!("{message:?} says of no device what it is");
            self.broken.get_or_insert(("what arrives was sent", what));
            return;
        };
        if self.sent.get(&id) != Some(&message.payload) {
            let what = format!("{id:?} arrives as {:?}, it is {:?}", message.payload, self.sent.get(&id));
            self.broken.get_or_insert(("what arrives was sent", what));
        }
        let (device, uid, boot, sequence) = id;
        let is_new = self.arrived.insert(id);
        let last = self.last.entry((keeper.clone(), device, uid, boot)).or_default();
        if is_new && sequence < *last {
            let what = format!("{keeper:?} gives {id:?} after {last}");
            self.broken.get_or_insert(("messages keep their order", what));
        }
        *last = (*last).max(sequence);
    }

    fn id_of(&self, message: &BrokerMessage) -> Option<Id> {
        let mut levels = message.topic.split('/').skip(3);
        let (name, topic) = (levels.next()?, levels.next()?);
        let device = self.names.iter().position(|known| known == name).filter(|_| topic == TOPIC)?;
        let property = |wanted: &str| {
            let named = message.properties.iter().find(|(name, _)| *name == wanted);
            named.map(|(_, value)| value.as_str())
        };
        let number = |name: &str| property(name)?.parse().ok();
        Some((device, property("application_uid")?.parse().ok()?, number("boot")?, number("sequence")?))
    }

    /// A gateway says what it has counted since this start.
    pub(crate) fn counted(&mut self, keeper: &Keeper, start: u32, counters: &MessageCounters) {
        let MessageCounters { refused, dropped_for_bytes, dropped_for_age, dropped_for_room, .. } = counters;
        let count = refused.iter().sum::<u64>() + dropped_for_bytes + dropped_for_age + dropped_for_room;
        if count > 0 {
            self.counted.insert((keeper.clone(), start), count);
        }
    }

    /// What of those disks did not arrive and was not counted.
    pub(crate) fn missing(&self, is_there: impl Fn(&Keeper) -> bool) -> Option<String> {
        let mut missing: BTreeMap<&Keeper, Vec<&Id>> = BTreeMap::new();
        let waiting = self.acknowledged.iter().filter(|(id, _)| !self.arrived.contains(id));
        for (id, keeper) in waiting.filter(|(_, keeper)| is_there(keeper)) {
            missing.entry(keeper).or_default().push(id);
        }
        missing.into_iter().find_map(|(keeper, ids)| {
            let counted = self.counted.range((keeper.clone(), 0)..=(keeper.clone(), u32::MAX));
            let counted: u64 = counted.map(|(_, count)| count).sum();
            (ids.len() as u64 > counted).then(|| {
                let (count, first) = (ids.len(), ids.first());
                format!("{keeper:?} acknowledged {count} messages that did not arrive, the first {first:?}, and counted {counted}")
            })
        })
    }

    /// How many came to the broker.
    pub(crate) fn count(&self) -> usize {
        self.arrived.len()
    }

    pub(crate) fn take_broken(&mut self) -> Option<Broken> {
        self.broken.take()
    }
}
